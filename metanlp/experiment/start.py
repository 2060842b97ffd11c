"""Where training begins: at a learner that is asked for, or, with `auto`, at the one that comes with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from metanlp.backbone.pretrained import HERE, MINILM
from metanlp.core.errors import InputError
from metanlp.core.types import Roles, Task
from metanlp.evaluation.answers import STARTS
from metanlp.evaluation.held_out import check_shots
from metanlp.experiment.options import AUTO, NOTHING, Experiment
from metanlp.forms import FORMS
from metanlp.learner.artefact import DEFAULT, located, read_config
from metanlp.learner.learner import Learner
from metanlp.learner.seen import seen_in
from metanlp.report.tables import say
from metanlp.tasks.leaks import without_seen

OF_LEARNER = ("rank", "targets", "layers", "views", "prompt")  # options that a learner brings along


def settled_start(asked: Experiment, every: Sequence[Roles], speaks: bool = True) -> Experiment:
    """`asked` with a learner to begin from, or None. `auto` becomes "", and a line says why, where the learner that
    comes with the package has another model, other adapters, or has learned a task that judges in one of `every`.
    Raises InputError where a learner that is asked for was learned on another model."""
    if asked.start == AUTO:
        if why := unfit(asked, every):
            if speaks:
                say({"start": f"nothing, and not the learner that comes with the package: {why}"})
            return replace(asked, start="")
        return replace(asked, start=DEFAULT)
    if not asked.start:
        return asked
    if asked.start == NOTHING:
        return replace(asked, start=None)
    if (base := base_of(asked.start)) and not same_model(asked.model, base):
        raise InputError(
            f"--start {asked.start} was learned on {base}, and --model is {asked.model}; give --model "
            f"{'minilm' if base == MINILM else base}, or leave --start out"
        )
    return asked


def unfit(asked: Experiment, every: Sequence[Roles]) -> str:
    """Why training can't begin from the learner that comes with the package; nothing where it can."""
    if asked.model not in ("minilm", MINILM):
        return f"it was learned on minilm, and --model is {asked.model}"
    usual = {field.name: field.default for field in fields(Experiment)}
    for name in OF_LEARNER:
        if getattr(asked, name) != usual[name]:
            return f"it has a --{name} of its own"
    seen = seen_in(located(DEFAULT))
    try:
        for roles in every:
            check_shots(without_seen(roles.test, seen)[0], asked.shots)
            without_seen(roles.validation, seen)
    except InputError as error:
        return str(error).split(";")[0]
    return ""


def base_of(start: str) -> str:
    """The public name of the model that a learner was learned on; nothing where it was a folder."""
    name = read_config(located(start), "learner")["base"]["name"]
    return "" if name.startswith(HERE) else name


def same_model(model: str, base: str) -> bool:
    """Whether a name can mean the model `base`; the weights of a folder are compared when they are read."""
    return Path(model).exists() or model.partition("@")[0] == base or (model == "minilm" and base == MINILM)


def as_it_is(start: Learner | None, name: str | None, tasks: Sequence[Task]) -> dict[str, Learner]:
    """The learner that training began from, as one to test beside the others, where it knows the forms of the tasks."""
    if start is None or not all(start.algorithm.learns(FORMS[task.form]) for task in tasks):
        return {}
    return {row_of(name): start}


def row_of(name: str | None) -> str:
    """What a table calls the learner that training began from."""
    return STARTS[0] if name == DEFAULT else STARTS[1]


def learners_of(start: str | None, folders: Mapping[str, Path]) -> dict[str, str]:
    """What `--from` takes for each row of a table."""
    return {name: str(folder) for name, folder in folders.items()} | ({row_of(start): start} if start else {})
