"""The commands that give a model to others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metanlp.cli.launch import publish
from metanlp.cli.options import Json, Output, Printed, Source
from metanlp.core.outputs import OutputFolder


@dataclass(frozen=True, kw_only=True)
class Publish(Json):
    """Publish a model on the Hub, with a card: one commit, private; the token is HF_TOKEN."""

    source: Annotated[Path, tyro.conf.arg(name="from")]  # folder of a run, a learner or an adapted model
    repo_id: Annotated[str, tyro.conf.Positional]  # owner/name
    public: bool = False  # for everybody, and not for its owner alone
    results: Path | None = None  # results.json of the learner, if it is not in the folder
    method: str | None = None  # the learner's name in it, if that is not its algorithm's
    licence: str | None = None  # of the weights, in the Hub's words: apache-2.0
    base_model: str | None = None  # public name of a pretrained model that came from a folder
    with_examples: Path | None = None  # a file with rows to publish; without, no row of any data set is

    def run(self) -> Printed:
        from metanlp.share.publish import Publication

        how = Publication(not self.public, self.results, self.method, self.licence, self.base_model, self.with_examples)
        return publish(self.source, self.repo_id, how)


@dataclass(frozen=True, kw_only=True)
class Export(Source, Output, Json):
    """Write an adapted model for other people's programs."""

    # One ONNX file; a plain peft adapter with its head; a folder for transformers' pipeline.
    to: Literal["onnx", "lora", "pipeline"]
    precision: Literal["fp32", "fp16", "int8"] = "fp32"  # of onnx; low ones are smaller, answers near
    custom_code: bool = False  # of a pipeline: take any views, by code in the folder that who opens it has to trust

    def run(self) -> Printed:
        from metanlp.learner.learner import Adapted
        from metanlp.share.export import export

        OutputFolder(self.out, (self.source,), self.replace).check()
        adapted = Adapted.load(self.source, base=self.base)
        options: dict[str, Any] = {"precision": self.precision, "custom_code": self.custom_code}
        said = export(adapted, self.to, self.out, base=self.base, replace=self.replace, **options)
        print(f"{self.out}: exported to {self.to}{f'; {said}' if said else ''}")
        return {"out": str(self.out), "to": self.to, "note": said}
