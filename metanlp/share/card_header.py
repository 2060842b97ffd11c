"""The YAML header of a model card with `model-index`, and `.eval_results`: the numbers of `results.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from metanlp.backbone.models import is_writing
from metanlp.backbone.pretrained import HERE
from metanlp.core.hub import HubName
from metanlp.evaluation.results import Report
from metanlp.forms import FORMS, Form, meant
from metanlp.learner.origin import taught_before


@dataclass(frozen=True)
class Subject:
    """What a card is about."""

    repo_id: str  # owner/name
    config: Mapping[str, Any]  # `meta_config.json`
    report: Report | None = None  # `results.json` of the learner, also where it is an adapted model
    method: str = ""  # its name in the report
    plots: tuple[str, ...] = ()  # paths of pictures beside the card
    licence: str | None = None  # of the weights, in the Hub's words
    examples: str | None = None  # file beside the card with the rows that it was adapted to

    @property
    def learner(self) -> bool:
        return self.config["kind"] == "learner"

    @property
    def kind(self) -> str:
        """The name of its algorithm."""
        return self.config["algorithm"]["name"]

    @property
    def form(self) -> Form:
        """Form of its answers; of a learner, which may know several, the one that is meant."""
        return FORMS[self.config["form"]] if "form" in self.config else meant(is_writing(self.config["backbone"]))

    @property
    def own_folder(self) -> bool:
        """Whether the pretrained model is a folder without a public name."""
        return self.config["base"]["name"].startswith(HERE)


def eval_results(subject: Subject) -> str:
    """`.eval_results/*.yaml`: the results in the Hub's other form."""
    return yaml_dump(eval_result_entries_to_yaml([entry for _, entry in _measured(subject)]))


def header(subject: Subject) -> ModelCardData:
    results = [result for result, _ in _measured(subject)]
    record = subject.config["record"]
    sources = {*record.get("sources", {}).values(), *(origin.source for origin in taught_before(record).values())}
    hub = sorted({name.repo_id for name in map(HubName.parse, sources) if name})
    base = None if subject.own_folder else subject.config["base"]["name"]  # a name here would mean another model
    adapter = [f"base_model:adapter:{base}"] if base else []
    return ModelCardData(
        license=subject.licence,
        library_name="peft",
        pipeline_tag=subject.form.hub_task,
        base_model=base,
        base_model_relation="adapter" if base else None,
        tags=["metanlp", "few-shot", "meta-learning", "lora", *adapter, subject.kind],
        datasets=hub or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=subject.repo_id if results else None,
        eval_results=results or None,
    )


def _measured(subject: Subject) -> Iterator[tuple[EvalResult, EvalResultEntry]]:
    """The score of a learner on every task with every number of shots, by the task's metric, in both forms."""
    if subject.report is None or not subject.learner:  # an adapted model was not measured
        return
    protocol = subject.report.protocol
    for task, by_shots in subject.report.scores[subject.method].items():
        source, metric = HubName.parse(protocol.get("sources", {}).get(task, "")), protocol["metrics"][task]
        dataset, revision = (source.repo_id, source.revision) if source else (task, None)
        for shots, cells in by_shots.items():
            cell, name = cells[metric], f"{metric}, {shots} shots"
            args = {"shots": int(shots), "low": cell["low"], "high": cell["high"]}
            between = "" if cell["low"] is None else f", 95 % interval {cell['low']:.4f} to {cell['high']:.4f}"
            note = f"{name}, {len(cell['episodes'])} support sets{between}"
            note += f"; metanlp, episodes {protocol['episodes_sha256'][:12]}"
            yield (
                EvalResult(task_type=subject.form.hub_task, dataset_type=dataset, dataset_name=task,
                           dataset_revision=revision, metric_type=metric, metric_name=name, metric_value=cell["mean"],
                           metric_args=args),
                EvalResultEntry(dataset, f"{task}, {shots} shots", cell["mean"], dataset_revision=revision, notes=note),
            )  # fmt: skip
