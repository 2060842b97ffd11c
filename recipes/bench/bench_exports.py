"""ONNX exports in fp32, fp16 and int8: how many labels stay the same, size, and processor time of one thread.

    METANLP_DATA=DATA python recipes/bench/bench_exports.py --tasks topics/agnews topics/trec leopard/airline

The learner adapts to 8 examples a class, and the exports answer up to 1,000 other texts of the task in batches of 16.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime
import tyro
from tokenizers import Tokenizer

from metanlp import Learner
from metanlp.core.types import Row, Task
from metanlp.share.export import export
from metanlp.share.export.onnx import Precision
from metanlp.tasks.roles import read_role

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def main(
    learner: str = "default",  # that adapts
    tasks: tuple[str, ...] = ("mini/urgency", "mini/question_types"),  # of single texts
    shots: int = 8,
    rows: int = 1000,  # texts a task at the most
    out: Path = Path("out/bench_exports"),
) -> None:
    root = os.environ.get("METANLP_DATA")
    taught = Learner.load(learner)
    for name in tasks:
        (task,) = read_role(name, "test", Path(root) if root else None, None)
        support, asked = drawn(task, shots, rows)
        adapted = taught.adapt([{"text": row["text"], "label": task.labels[row["label"]]} for row in support])
        fp32: list[int] = []
        for precision in PRECISIONS:
            folder = out / name / precision
            export(adapted, "onnx", folder, precision=precision, replace=True)
            found, seconds = answers(folder, [row["text"] for row in asked])
            fp32 = fp32 or found
            equal = np.mean(np.array(found) == np.array(fp32))
            right = np.mean(
                [adapted.labels[n] == task.labels[row["label"]] for n, row in zip(found, asked, strict=True)]
            )
            size = (folder / "model.onnx").stat().st_size / 1e6
            print(f"{name}: {precision} {size:.1f} MB, {seconds:.1f} s, {len(asked)} texts, {100 * equal:.1f} % as in "
                  f"fp32, {100 * right:.1f} % right", flush=True)  # fmt: skip


def drawn(task: Task, shots: int, rows: int) -> tuple[list[Row], list[Row]]:
    """Examples of every class, and other rows."""
    chance, train = np.random.default_rng(0), task.pools["train"]
    places = [
        chance.permutation([n for n, row in enumerate(train) if row["label"] == c]) for c in range(len(task.labels))
    ]
    support = [train[int(n)] for of_class in places for n in of_class[:shots]]
    others = task.pools.get("test") or [train[int(n)] for of_class in places for n in of_class[shots:]]
    return support, [others[int(n)] for n in chance.permutation(len(others))[:rows]]


def answers(folder: Path, texts: list[str], batch: int = 16) -> tuple[list[int], float]:
    """Numbers of the labels, and processor seconds."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer, options = Tokenizer.from_file(str(folder / "tokenizer.json")), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    read = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    found, begun = list[int](), time.process_time()
    for start in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch([config["prompt"] + text for text in texts[start : start + batch]])
        given = {name: np.array([getattr(one, read[name]) for one in encoded]) for name in config["inputs"]}
        found += np.asarray(session.run(["scores"], given)[0]).argmax(1).tolist()
    return found, time.process_time() - begun


if __name__ == "__main__":
    tyro.cli(main)
