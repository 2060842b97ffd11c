"""A learner or an adapted model to the Hub: one staged folder, one commit."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metanlp.core.errors import InputError
from metanlp.core.hub import check_publishable, push, token
from metanlp.core.storage import atomic_write, disk, sha256_of
from metanlp.evaluation.answers import to_json
from metanlp.evaluation.results import RESULTS, Report, has_report, read_report
from metanlp.experiment.run import write_json
from metanlp.learner.artefact import ADAPTER_CONFIG, CONFIG, FILES, SCHEMA, located, signed, verified
from metanlp.learner.learner import Adapted, Learner
from metanlp.share.card_header import Subject, eval_results
from metanlp.share.model_card import card
from metanlp.tasks.reading.files import read_task

README, EVAL_RESULTS = "README.md", ".eval_results/metanlp.yaml"
# The files of a publication: those of an earlier one are removed, the owner's other files stay.
OURS = (*FILES, README, RESULTS, EVAL_RESULTS, "examples.*", "plots/*")
ANY_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Publication:
    """Options of a publication."""

    private: bool = True  # visible to its owner alone; a repository that is public already needs False
    results: Path | None = None  # a results.json that is not in the folder
    method: str | None = None  # the model's name in it; by default its algorithm's
    licence: str | None = None  # of the weights, in the Hub's words: apache-2.0
    base_model: str | None = None  # public name, or name@revision, of a pretrained model that came from a folder
    examples: Path | None = None  # a file with rows; without, no row of any data set is published


def publish(
    model: Learner | Adapted, repo_id: str, report: Report | None = None, *, private: bool = True,
    method: str | None = None, licence: str | None = None, base_model: str | None = None,
    examples: str | Path | None = None,
) -> str:  # fmt: skip
    """Publishes `model` with its card as `owner/name` on the Hub in one commit, or none if nothing changed; returns the
    commit's address. `report` holds results of the learner, under the name `method`; the rest is as in `Publication`.

    The token is HF_TOKEN, or that of a login. Raises InputError, StorageError; the Hub then has all of it or none."""
    check_publishable(repo_id)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model.save(folder)
        if report:
            write_json(folder / RESULTS, to_json(report))
        rows = Path(examples) if examples else None
        how = Publication(private, method=method, licence=licence, base_model=base_model, examples=rows)
        return publish_folder(folder, repo_id, how)[0]


def publish_folder(folder: Path, repo_id: str, how: Publication) -> tuple[str, bool]:
    """Publishes the folder of a run or of `save`, with its results and plots; the commit's address, and whether it is
    new. Raises DamagedError too."""
    check_publishable(repo_id)
    with TemporaryDirectory() as scratch:
        subject = stage_folder(located(folder), Path(scratch), repo_id, how)
        refuse_secrets(Path(scratch))
        title = f"{subject.kind} {subject.config['kind']}, metanlp {subject.config['versions']['metanlp']}"
        return push(Path(scratch), repo_id, OURS, private=how.private, message=title)


def stage_folder(folder: Path, stage: Path, repo_id: str, how: Publication) -> Subject:
    """Copies all that is published into `stage`, with its card; nothing else of `folder` leaves this machine."""
    config, results = verified(folder)[0], how.results or folder / RESULTS
    report = read_report(results) if how.results or has_report(results) else None
    method = method_of(config, report, how.method, results) if report else ""
    plots = tuple(f"plots/{plot.name}" for plot in sorted(folder.glob("plots/*.png"))) if report else ()
    with disk(stage):
        for name in (*FILES, *plots):
            (stage / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, stage / name)
        rows = f"examples{how.examples.suffix}" if how.examples else None
        if how.examples:
            read_task(how.examples)  # raises InputError where the rows are no task
            shutil.copyfile(how.examples, stage / f"examples{how.examples.suffix}")
    config = rename_base(stage, how.base_model) if how.base_model else config
    subject = Subject(repo_id, config, report, method, plots, how.licence, rows)
    if report:
        write_json(stage / RESULTS, to_json(report))
    if report and subject.learner:
        atomic_write(stage / EVAL_RESULTS, eval_results(subject).encode())
    atomic_write(stage / README, card(subject).encode())
    return subject


def rename_base(stage: Path, base_model: str) -> dict[str, Any]:
    """Writes the public name of the pretrained model into both files that have it; the configuration."""
    config, adapter = (json.loads((stage / file).read_text(encoding="utf-8")) for file in (CONFIG, ADAPTER_CONFIG))
    name, _, revision = base_model.partition("@")
    adapter |= {"base_model_name_or_path": name, "revision": revision or None}
    atomic_write(stage / ADAPTER_CONFIG, (json.dumps(adapter, indent=2, ensure_ascii=False) + "\n").encode())
    config["base"] |= {"name": name, "revision": revision}
    config["files"][ADAPTER_CONFIG] = sha256_of(stage / ADAPTER_CONFIG)
    config["schema"] = SCHEMA
    atomic_write(stage / CONFIG, signed(config))
    return config


def method_of(config: dict[str, Any], report: Report, method: str | None, results: Path) -> str:
    """The model's name in the report. Raises InputError where the report is of another training."""
    name = method or config["algorithm"]["name"]
    if name not in report.methods:
        raise InputError(f"{results} has no method {name!r}; it has {', '.join(report.methods)}; name one: --method")
    said, made = report.methods[name], config["record"]
    for key in ("tokens", "steps", "train_s"):
        if said.get(key, 0) != made.get(key, 0):
            raise InputError(
                f"{results} is of another training: {key} is {said.get(key, 0)} there and {made.get(key, 0)} here; "
                "give the results of this one: --results"
            )
    return name


def refuse_secrets(stage: Path) -> None:
    """Raises InputError for a file that holds a token or the path of the home folder."""
    mine, home = (token() or "").encode(), str(Path.home()).encode()
    for path in sorted(stage.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if ANY_TOKEN.search(content) or (mine and mine in content):
            raise InputError(f"{path.relative_to(stage)} holds a token of the Hub; take it out: nothing was published")
        if len(home) > 1 and re.search(re.escape(home) + rb"(?![\w.-])", content):
            raise InputError(
                f"{path.relative_to(stage)} holds the path of your home folder; take it out: nothing was published"
            )
