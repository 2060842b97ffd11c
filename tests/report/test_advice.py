"""The answers in words, and the commands that follow from them."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from runs import scored

from metanlp.report import advice


@pytest.mark.parametrize(
    ("command", "options", "changed"),
    [
        ("metanlp compare --data x", {"--start": "default"},
         "metanlp compare --data x --start default --out out/again"),
        ("metanlp compare --data x --episodes 5 --out out/a --resume", {"--episodes": "20"},
         "metanlp compare --data x --episodes 20 --out out/a-2"),
        ("python recipes/demo.py --baselines frozen finetune --out 'a b'", {"--baselines": "frozen multitask"},
         "python recipes/demo.py --baselines frozen multitask --out 'a b-2'"),
    ],
)  # fmt: skip
def test_the_same_command_with_other_options(command: str, options: dict[str, str], changed: str) -> None:
    assert advice.again(command, options) == changed
    assert shlex.split(changed)


def test_each_line_has_its_figure_and_what_follows() -> None:
    found = scored({"default": 0.5, "frozen": 0.6, "multitask": 0.65, "maml": 0.55}, ["a", "b"], (4, 8))
    learners = {"default": "default", "multitask": "out/my run/baselines/multitask", "maml": "out/my run"}
    said = advice.lines(found, {"command": "metanlp compare --data x", "learners": learners})
    assert said[0].startswith("Does meta-learning help? No: maml − multitask −10.")
    assert said[1] == ("  To try next: another method: metanlp compare --data x --method meta_sgd --out out/again")
    assert said[2].startswith("Does learning from other tasks help? Yes: multitask − frozen +4.")
    assert "98.33 % interval; multitask is the best of 3." in said[2]
    assert said[3] == "Why: guessing scores 25.0 %, maml 53.8 %."
    assert said[4].startswith("Resting on 2 tasks, 10 different support sets of each, 120 answers")
    assert said[5] == advice.WHICH
    assert said[6].startswith("  4 shots: multitask, ")
    assert said[-1] == f"  Next, with multitask: {advice.adapt('out/my run/baselines/multitask')}"
    assert said[-1].endswith(
        "metanlp adapt --from 'out/my run/baselines/multitask' --examples EXAMPLES.csv --out ADAPTED"
    )


def test_where_each_learner_lacks_a_task_the_command_trains_one_on_all() -> None:
    found = scored({"frozen": 0.6, "multitask": 0.65, "maml": 0.55}, ["a", "b"], (4, 8))
    learners = {"frozen": "out/a/baselines/frozen", "multitask": "out/a/baselines/multitask"}
    train = {"multitask": "metanlp train --data x --method multitask --out out-multitask"}
    said = advice.lines(found, {"command": "metanlp compare --data x", "learners": learners, "train": train})
    assert said[-1] == f"  Next, with multitask: {train['multitask']}"


def test_the_reasons_are_read_off_views_and_training_tasks() -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a", "b"], (4,))
    views = {
        "names": ["adapted.6.all", "frozen.6.all"],
        "prior": [0.4, 0.6],
        "tasks": {"a": [0.2, 0.8], "b": [0.9, 0.1]},
    }
    near = {"a": [{"task": "mini/x", "cosine": 0.7}], "b": [{"task": "mini/y", "cosine": 0.2}]}
    said = advice.why(replace(found, views=views, nearest=near))
    assert said[1:] == [
        "of what maml reads, its adapters count 40 % before any examples, 20 to 90 % on these tasks; the rest is the "
        "encoder as it was.",
        "nearest of the training tasks is mini/x to a, cosine 0.70; b has none nearer than 0.20.",
    ]
    assert advice.why(replace(found, counts={})) == []


def test_the_learner_that_comes_with_the_package_is_taken_without_a_name() -> None:
    assert advice.adapt("default") == "metanlp adapt --examples EXAMPLES.csv --out ADAPTED"


def test_without_the_command_the_options_are_said() -> None:
    found = scored({"multitask": 0.6, "maml": 0.5}, ["a"], (4,), rows=100)
    assert advice.lines(found, {})[1] == "  To try next: another method: --method meta_sgd"
