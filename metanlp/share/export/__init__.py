"""An adapted model for other people's programs: ONNX, a plain peft adapter with its head, a transformers classifier."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from metanlp.core.errors import InputError
from metanlp.core.outputs import OutputFolder
from metanlp.core.storage import disk
from metanlp.core.torch_modes import own_modes
from metanlp.forms import FORMS
from metanlp.learner.learner import Adapted
from metanlp.share.export.onnx import Precision, check_libraries, write_onnx
from metanlp.share.export.peft_adapter import write_lora, write_writer
from metanlp.share.export.pipeline import write_pipeline
from metanlp.share.export.plain import parts_of

Kind = Literal["onnx", "lora", "pipeline"]
EXPORTS: dict[str, Callable[..., str]] = {"onnx": write_onnx, "lora": write_lora, "pipeline": write_pipeline}


@own_modes()
def export(
    adapted: Adapted,
    kind: Kind,
    folder: str | Path,
    *,
    base: str | None = None,
    precision: Precision = "fp32",
    custom_code: bool = False,
    replace: bool = False,
) -> str:
    """Writes `adapted` to `folder`, and returns a line on it. `onnx`: one file from token ids to scores, equal to ours
    in fp32, near in fp16 and int8. `lora`: the adapter for plain peft, and its head. `pipeline`: a folder that
    transformers opens as a classifier, for models that read what their architecture's classifier reads; with
    `custom_code` for those with other views too, by code in the folder that whoever opens it has to trust.

    `base` is another place of the pretrained model, as in `Adapted.load`; `replace` overwrites what is in `folder`.
    Raises InputError for a model that can't be exported so, or a missing library; StorageError."""
    if kind not in EXPORTS:
        raise InputError(f"no export is called {kind!r}; there are {', '.join(EXPORTS)}")
    if precision not in get_args(Precision):
        raise InputError(f"no precision is called {precision!r}; there are {', '.join(get_args(Precision))}")
    if precision != "fp32" and kind != "onnx":
        raise InputError(f"{precision} is for onnx alone; an export to {kind} is opened in any precision")
    if custom_code and kind != "pipeline":
        raise InputError(f"--custom-code is for a pipeline alone; an export to {kind} has no code of ours")
    if kind == "onnx":
        check_libraries()
    out = OutputFolder(Path(folder), (base,) if base else (), replace)
    out.check()
    writes = FORMS[adapted.form].written
    if writes and kind != "lora":
        raise InputError(f"a model that writes is exported to lora alone, not to {kind}; give --to lora")
    parts = None if writes else parts_of(adapted, base)
    with TemporaryDirectory() as scratch:  # what is refused on the way leaves nothing behind
        stage = Path(scratch) / out.path.resolve().name
        stage.mkdir()
        options: dict[str, Any] = {"onnx": {"precision": precision}, "pipeline": {"custom_code": custom_code}}
        export_to = write_writer if writes else EXPORTS[kind]
        said = export_to(adapted, parts, stage, **options.get(kind, {}))
        with out.claimed(), disk(out.path):
            shutil.copytree(stage, out.path, dirs_exist_ok=True)
    return said
