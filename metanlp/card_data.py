"""What a machine reads of a model card: its YAML header with `model-index`, and `.eval_results`. Both, and the page,
say the numbers of `results.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.utils import yaml_dump

from metanlp.meta_test import Report
from metanlp.tasks.hub_client import HubName

PIPELINES = {  # form -> the Hub's word for such a model
    "classify": "text-classification",
    "regress": "text-classification",
    "multilabel": "text-classification",
    "choose": "multiple-choice",
    "tag": "token-classification",
}


@dataclass(frozen=True)
class Subject:
    """What a card is about."""

    repo_id: str  # owner/name
    config: Mapping[str, Any]  # `meta_config.json`
    report: Report | None = None  # `results.json`: of the learner, or of the one that an adapted model was adapted from
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
    def form(self) -> str:
        """What it answers; a learner knows several, and classes foremost."""
        return self.config.get("form", "classify")

    @property
    def own_folder(self) -> bool:
        """Whether the pretrained model came from a folder, which has a sha256 and no public name."""
        return bool(self.config["base"]["sha256"]) and "/" not in self.config["base"]["name"]


def eval_results(subject: Subject) -> str:
    """`.eval_results/*.yaml`: the results in the Hub's other form."""
    entries: list[EvalResultEntry] = []
    for found in _measured(subject):
        note = f"{found['metric']}, {found['shots']} shots, {found['count']} support sets{_between(found['cell'])}"
        entries.append(
            EvalResultEntry(
                found["dataset"],
                f"{found['task']}, {found['shots']} shots",
                found["cell"]["mean"],
                dataset_revision=found["revision"],
                notes=f"{note}; metanlp, episodes {found['episodes'][:12]}",
            )
        )
    return yaml_dump(eval_result_entries_to_yaml(entries))


def header(subject: Subject) -> ModelCardData:
    results = [
        EvalResult(
            task_type=PIPELINES[subject.form],
            dataset_type=found["dataset"],
            dataset_name=found["task"],
            dataset_revision=found["revision"],
            metric_type=found["metric"],
            metric_name=f"{found['metric']}, {found['shots']} shots",
            metric_value=found["cell"]["mean"],
            metric_args={"shots": found["shots"], "low": found["cell"]["low"], "high": found["cell"]["high"]},
        )
        for found in _measured(subject)
    ]
    sources = subject.config["record"].get("sources", {}).values()
    hub = sorted({name.repo_id for name in map(HubName.parse, sources) if name})
    base = subject.config["base"]["name"]
    return ModelCardData(
        license=subject.licence,
        library_name="peft",
        pipeline_tag=PIPELINES[subject.form],
        base_model=base,
        base_model_relation="adapter",
        tags=["metanlp", "few-shot", "meta-learning", "lora", f"base_model:adapter:{base}", subject.kind],
        datasets=hub or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=subject.repo_id if results else None,
        eval_results=results or None,
    )


def _measured(subject: Subject) -> Iterable[dict[str, Any]]:
    """Of a learner, every task and number of shots by the metric that judges it."""
    if subject.report is None or not subject.learner:  # an adapted model was judged by nobody
        return
    protocol = subject.report.protocol
    for task, by_shots in subject.report.scores[subject.method].items():
        source, metric = HubName.parse(protocol.get("sources", {}).get(task, "")), protocol["metrics"][task]
        for shots, cells in by_shots.items():
            yield {"task": task, "shots": int(shots), "metric": metric, "cell": cells[metric],
                   "count": len(cells[metric]["episodes"]), "episodes": protocol["episodes_sha256"],
                   "dataset": source.repo_id if source else task,
                   "revision": source.revision if source else None}  # fmt: skip


def _between(cell: Mapping[str, Any]) -> str:
    return "" if cell["low"] is None else f", 95 % interval {cell['low']:.4f} to {cell['high']:.4f}"
