"""--help of commands with many options: what most people need, and all of it in groups where that is asked."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest
from conftest import Here

from metanlp.cli.experiments import Compare, Train
from metanlp.cli.help_page import GROUPS, USUAL, entries_of
from metanlp.cli.launch import launch
from metanlp.experiment.options import Experiment

COMMANDS = {"train": Train, "compare": Compare}


def options(page: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?--([\w-]+)", page, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_few_options_are_shown_and_all_where_that_is_asked(here: Here, command: str) -> None:
    known = {"help", *(field.name.replace("_", "-") for field in fields(COMMANDS[command]))}
    code, short, said = here("metanlp", command, "--help")
    assert (code, said) == (0, "")
    assert options(short) == [name for name in USUAL if name in known]
    assert short.endswith(f"{len(known) - len(options(short))} more: metanlp {command} --help --all\n")
    code, whole, said = here("metanlp", command, "--help", "--all")
    assert (code, said) == (0, "")
    assert len(options(whole)) == len(known)
    assert {*options(whole)} == known
    assert re.findall(r"^(\w.*):$", whole, flags=re.MULTILINE) == ["options", *GROUPS]
    assert "---" not in whole


def test_every_option_of_an_experiment_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted({*grouped})
    assert {field.name.replace("_", "-") for field in fields(Experiment)} <= {*grouped}


def test_a_recipe_shows_all_in_groups(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--help"])
    launch(Experiment(data="mini"))
    out = capsys.readouterr().out
    assert len(options(out)) == 1 + len(fields(Experiment))
    assert "by commas (default: mini)" in " ".join(out.split())


def test_a_page_in_boxes_has_the_same_entries() -> None:
    """What tyro writes where letters of boxes can be shown."""
    head, entries = entries_of([
        "usage: x", "", "╭─ options ─────╮", "│ -h, --help  this │", "│ --lr FLOAT   rate │", "│   of AdamW │", "╰──╯",
    ])  # fmt: skip
    assert head == ["usage: x", ""]
    assert entries == {"help": [" -h, --help  this"], "lr": [" --lr FLOAT   rate", "   of AdamW"]}
