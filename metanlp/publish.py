"""A learner or an adapted model to the Hub: one staged folder, one commit."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metanlp.artefact import ADAPTER_CONFIG, CONFIG, FILES, verified
from metanlp.card import card
from metanlp.card_data import Subject, eval_results
from metanlp.checkpoint import atomic_write
from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.experiment import write_json
from metanlp.hub import check_publishable, push, token
from metanlp.learner import Adapted, Learner
from metanlp.meta_test import RESULTS, Report, read_report
from metanlp.tasks.files import read_task

README, EVAL_RESULTS = "README.md", ".eval_results/metanlp.yaml"
# What a publication is made of, and may take away from an earlier one; files of other names are their owner's.
OURS = (*FILES, README, RESULTS, EVAL_RESULTS, "examples.*", "plots/*")
ANY_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Publication:
    """What is published beside the model, and to whom."""

    private: bool = True  # for its owner alone; what is public on the Hub already has to be asked for as public
    results: Path | None = None  # a results.json that is not in the folder
    method: str | None = None  # the model's name in it; by default its algorithm's
    licence: str | None = None  # of the weights, in the Hub's words: apache-2.0
    base_model: str | None = None  # public name of a pretrained model that came from a folder
    examples: Path | None = None  # a file with rows; without, no row of any data set is published


def publish(
    model: Learner | Adapted,
    repo_id: str,
    report: Report | None = None,
    *,
    private: bool = True,
    method: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
    examples: str | Path | None = None,
) -> str:
    """`model` with its card as `owner/name` on the Hub: one commit, whose address is returned; none where all of it is
    there already. `report` holds results of the learner, under the name `method`; the rest is as in `Publication`.

    The token is HF_TOKEN, or that of a login. Raises InputError, StorageError: what is on the Hub is then as it was, or
    complete."""
    check_publishable(repo_id)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model.save(folder)
        if report:
            write_json(folder / RESULTS, asdict(report))
        rows = Path(examples) if examples else None
        how = Publication(private, method=method, licence=licence, base_model=base_model, examples=rows)
        return publish_folder(folder, repo_id, how)[0]


def publish_folder(folder: Path, repo_id: str, how: Publication) -> tuple[str, bool]:
    """The same for what a run or `save` left in a folder, with its results and plots; and whether the commit is new.
    Raises DamagedError too."""
    with TemporaryDirectory() as scratch:
        subject = stage_folder(folder, Path(scratch), repo_id, how)
        refuse_secrets(Path(scratch))
        check_publishable(repo_id)
        title = f"{subject.kind} {subject.config['kind']}, metanlp {subject.config['versions']['metanlp']}"
        return push(Path(scratch), repo_id, OURS, private=how.private, message=title)


def stage_folder(folder: Path, stage: Path, repo_id: str, how: Publication) -> Subject:
    """Puts everything that is to be published into `stage`; nothing else of `folder` leaves this machine. What the card
    is about."""
    config, results = verified(folder)[0], how.results or folder / RESULTS
    report = read_report(results) if how.results or results.is_file() else None
    method = method_of(config, report, how.method, results) if report else ""
    plots = tuple(f"plots/{plot.name}" for plot in sorted(folder.glob("plots/*.png"))) if report else ()
    with disk(stage):
        for name in (*FILES, *plots):
            (stage / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, stage / name)
        rows = stage_examples(how.examples, stage) if how.examples else None
    config = rename_base(stage, how.base_model) if how.base_model else config
    subject = Subject(repo_id, config, report, method, plots, how.licence, rows)
    if report:
        write_json(stage / RESULTS, asdict(report))
    if report and subject.learner:
        atomic_write(stage / EVAL_RESULTS, eval_results(subject).encode())
    atomic_write(stage / README, card(subject).encode())
    return subject


def rename_base(stage: Path, base_model: str) -> dict[str, Any]:
    """The pretrained model by its public name, in both files that say it; the configuration."""
    config, adapter = (json.loads((stage / name).read_text(encoding="utf-8")) for name in (CONFIG, ADAPTER_CONFIG))
    config["base"]["name"] = adapter["base_model_name_or_path"] = base_model
    for name, content in ((CONFIG, config), (ADAPTER_CONFIG, adapter)):
        atomic_write(stage / name, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return config


def stage_examples(file: Path, stage: Path) -> str:
    """The rows as they are, once they are known to be a task."""
    read_task(file)
    shutil.copyfile(file, stage / f"examples{file.suffix}")
    return f"examples{file.suffix}"


def method_of(config: dict[str, Any], report: Report, method: str | None, results: Path) -> str:
    """The model's name in the report. Raises InputError where the report is of another training, as a card must not
    say of one model what was measured of another."""
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
    """Raises InputError for a file that holds a token or the path of the home folder. None should; this is the lock on
    the door."""
    mine, home = (token() or "").encode(), str(Path.home()).encode()
    for path in sorted(stage.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if ANY_TOKEN.search(content) or (mine and mine in content):
            raise InputError(f"{path.relative_to(stage)} holds a token of the Hub; take it out: nothing was published")
        if len(home) > 1 and re.search(re.escape(home) + rb"(?![\w.-])", content):
            raise InputError(
                f"{path.relative_to(stage)} holds the path of your home folder; take it out: nothing was published"
            )
