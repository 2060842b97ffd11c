"""A token in the environment is in nothing that a command says or writes; what is published holds neither that nor one
in a data set or a configuration, nor the home folder or the name of the machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import in_turn
from case import Cases, refused
from form_tasks import write_tasks
from tiny_learner import shared

from metanlp.core.errors import InputError
from metanlp.learner.artefact import CONFIG, signed
from metanlp.share.publish import Publication, refuse_secrets, stage_folder

TOKEN = "hf_" + "Q7x" * 12
OWN = {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}


def cases(count: int, folder: Path) -> Cases:
    """Of 100: 60 commands, good and bad, and 40 publications, made ready but not sent."""
    os.environ |= OWN
    os.environ["HOME"] = str(folder / "home" / "quillfeather")
    Path(os.environ["HOME"]).mkdir(parents=True)
    tiny, home = shared(), Path(os.environ["HOME"])
    tiny.trained(home / "run").save(home / "learner")
    data = write_tasks(home / "tasks", "classify", range(2))
    commands = commands_of(tiny.base, data / "classify_0.jsonl", home)
    sent = count * 4 // 10
    for number, words in enumerate(islice(cycle(commands), count - sent)):
        yield quiet(words, folder / "said" / str(number), home)
    for number, plant in enumerate(islice(cycle(PLANTS), sent)):
        yield plant(home / "learner", folder / "made" / str(number), data / "classify_0.jsonl")


def commands_of(base: Path, rows: Path, home: Path) -> list[list[object]]:
    learner, model, out = home / "learner", home / "adapted", home / "out"
    (home / "texts.txt").write_text("a text\nanother\n")
    common = ["--base", base]
    return [["metanlp", *words] for words in (
        ["adapt", "--from", learner, "--examples", rows, "--out", model, "--replace", *common],
        ["predict", "--from", model, home / "texts.txt", *common], ["score", "--from", model, rows, *common],
        ["info", model], ["info"], ["tasks", rows], ["tasks", "owner/name"], ["publish", model, "owner/name"],
        ["info", home / "nowhere"], ["adapt", "--from", "owner/name", "--examples", rows, "--out", out],
        ["tasks", home / "texts.txt"], ["predict", "--form", model], ["report", out],
    )]  # fmt: skip


def quiet(words: list[object], said: Path, home: Path) -> str:
    """That a command ends with 0 or 2, and the token is nowhere."""
    run = in_turn.child([words], said)
    run.join(300)
    code, out, err = in_turn.ended(said, 0)
    files = [path for path in home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    hit = TOKEN in out + err or "Traceback" in err or code not in (0, 2)
    return f"{words[1:4]}: exit code {code}, {files}, {err[-200:]!r}" if hit or files else ""


def ready(learner: Path, made: Path, rows: Path) -> str:
    """What would be published holds none of it."""
    made.mkdir(parents=True)
    stage_folder(learner, made, "owner/name", Publication(base_model="owner/base", examples=rows))
    refuse_secrets(made)
    alien = [TOKEN, "quillfeather", socket.gethostname()]
    found = [(path.name, word) for path in made.rglob("*") if path.is_file() for word in alien
             if word.encode() in path.read_bytes()]  # fmt: skip
    return f"{found}" if found else ""


def planted(change: Callable[[Path, Path], Path]) -> Callable[[Path, Path, Path], str]:
    """A token is put somewhere, and the publication is refused without saying it."""

    def plant(learner: Path, made: Path, rows: Path) -> str:
        copy = shutil.copytree(learner, made / "learner")
        examples = change(copy, shutil.copy(rows, made / "rows.jsonl"))
        (made / "stage").mkdir()
        said = list[str]()

        def publish() -> None:
            try:
                stage_folder(
                    copy, made / "stage", "owner/name", Publication(base_model="owner/base", examples=examples)
                )
                refuse_secrets(made / "stage")
            except InputError as error:
                said.append(str(error))
                raise

        wrong = refused(publish, InputError, "token")
        return wrong or ("the token is in the error" if TOKEN in "".join(said) else "")

    return plant


def in_record(learner: Path, rows: Path) -> Path:
    config = json.loads((learner / CONFIG).read_text())
    config["record"]["note"] = f"logged in with {TOKEN}"
    (learner / CONFIG).write_bytes(signed(config))
    return rows


def in_rows(learner: Path, rows: Path) -> Path:
    del learner
    rows.write_text(rows.read_text() + json.dumps({"text": f"my token is {TOKEN}", "label": "praise"}) + "\n")
    return rows


PLANTS = (ready, planted(in_record), planted(in_rows))
