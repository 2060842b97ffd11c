"""Which exports there are, and the folder that each writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.export.multi_lora import write_lora
from metanlp.export.onnx import check_libraries, write_onnx
from metanlp.export.pipeline import write_pipeline
from metanlp.export.plain import parts_of
from metanlp.learner import Adapted

Kind = Literal["onnx", "lora", "pipeline"]
EXPORTS = {"onnx": write_onnx, "lora": write_lora, "pipeline": write_pipeline}


def export(adapted: Adapted, kind: Kind, folder: str | Path, *, base: str | None = None) -> str:
    """Writes `adapted` for others to use, and returns what is to be said of it. `onnx`: one file with everything from
    token ids to scores, equal to ours. `lora`: the task's adapter for plain peft, and its head. `pipeline`: a folder
    that transformers opens as a classifier, where the model reads what its architecture's classifier reads.

    `base` names another place for the pretrained model, as in `Adapted.load`. Raises InputError for a model that can't
    be exported so, or a library that is missing; StorageError."""
    if kind not in EXPORTS:
        raise InputError(f"no export is called {kind!r}; there are {', '.join(EXPORTS)}")
    if kind == "onnx":
        check_libraries()
    where, parts = Path(folder), parts_of(adapted, base)
    with TemporaryDirectory() as scratch:  # what is refused on the way leaves nothing behind
        stage = Path(scratch) / where.resolve().name
        stage.mkdir()
        said = EXPORTS[kind](adapted, parts, stage) or ""
        with disk(where):
            shutil.copytree(stage, where, dirs_exist_ok=True)
    return said
