"""What a report answers, and what it says to try next."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from runs import scored

from metanlp.evaluation import answers as module
from metanlp.evaluation.answers import Answer, answers, choices
from metanlp.evaluation.results import Report

META, OTHER = 0, 1


def said(methods: dict[str, float], which: int, **options: Any) -> Answer:
    return answers(scored(methods, ["a", "b"], (4, 8), **options))[which]


@pytest.mark.parametrize(
    ("maml", "options", "word"),
    [
        (0.70, {}, "Yes"),
        (0.50, {}, "No"),
        (0.601, {}, "Can't tell"),
        (0.70, {"noise": 0.4}, "Can't tell"),
        (0.70, {"episodes": 1}, "Too little data"),
        (0.70, {"episodes": 4}, "Too little data"),
        (0.70, {"distinct": 1}, "Too little data"),
        (0.70, {"rows": 49}, "Too little data"),
    ],
)
def test_the_answer_is_on_which_side_of_zero_the_interval_lies(maml: float, options: Any, word: str) -> None:
    answer = said({"frozen": 0.5, "multitask": 0.6, "maml": maml}, META, **options)
    assert (answer.question, answer.word, answer.ours, answer.theirs) == (
        "Does meta-learning help?", word, "maml", "multitask"
    )  # fmt: skip


def test_learning_from_other_tasks_has_to_beat_all_that_learns_alone() -> None:
    methods = {"frozen": 0.5, "finetune": 0.6, "multitask": 0.6, "maml": 0.55}
    assert said(methods, OTHER).word == "Can't tell", "multitask is better than frozen alone"
    assert said(methods | {"multitask": 0.7}, OTHER).word == "Yes"
    assert said(methods | {"finetune": 0.7}, OTHER).word == "No"
    assert said(methods | {"multitask": 0.7}, META).word == "No", "the two questions are two"


def test_the_best_of_many_has_a_wider_interval() -> None:
    found = scored({"frozen": 0.5, "maml": 0.7, "anil": 0.6, "reptile": 0.6, "multitask": 0.6}, ["a", "b"], (4,))
    wide, narrow = answers(found)[META], found.compare("maml", "multitask").interval
    assert (wide.ours, wide.among, wide.because) == ("maml", 3, "maml is the best of 3")
    assert wide.found
    assert wide.found.low is not None and wide.found.high is not None and narrow.low and narrow.high  # noqa: PT018
    assert wide.found.low < narrow.low < narrow.mean < narrow.high < wide.found.high


def test_a_learner_that_training_began_from_is_no_meta_learning_at_equal_compute() -> None:
    methods = {"default": 0.8, "frozen": 0.5, "multitask": 0.6, "maml": 0.6}
    assert said(methods, META).ours == "maml"
    assert (said(methods, OTHER).word, said(methods, OTHER).ours) == ("Yes", "default")


def with_asked(found: Report, **asked: Any) -> Report:
    return replace(found, protocol=found.protocol | {"asked": {**found.protocol["asked"], **asked}})


@pytest.mark.parametrize(
    ("methods", "asked", "which", "options"),
    [
        ({"multitask": 0.6, "maml": 0.601}, {}, META, {"--test-rows": "240"}),
        ({"multitask": 0.6, "maml": 0.5}, {}, META, {"--method": "meta_sgd"}),
        (dict.fromkeys(("meta_sgd", "anil", "hypernet", "protonet"), 0.5) | {"multitask": 0.6}, {"steps": 50}, META,
         {"--steps": "200"}),
        ({"frozen": 0.6, "maml": 0.5}, {}, OTHER, {"--start": "default"}),
        ({"frozen": 0.6, "maml": 0.5}, {"start": "", "steps": 50}, OTHER, {"--steps": "200"}),
        ({"frozen": 0.6, "maml": 0.5}, {"start": "default", "max_minutes": 5.0}, OTHER, {"--max-minutes": "20"}),
        ({"frozen": 0.6, "maml": 0.5}, {"model": "bert-base-uncased", "steps": 50}, OTHER, {"--steps": "200"}),
        ({"frozen": 0.6, "maml": 0.5}, {"model": "x", "steps": 250_000}, OTHER, {"--steps": "1000000"}),
        ({"frozen": 0.6, "maml": 0.5}, {"model": "x", "max_minutes": 0.5}, OTHER, {"--max-minutes": "2"}),
        ({"frozen": 0.6, "maml": 0.5}, {"baselines": ["frozen"]}, META, {"--baselines": "frozen multitask"}),
        ({"frozen": 0.5, "maml": 0.6}, {}, OTHER, {}),
    ],
)  # fmt: skip
def test_what_to_try_next(methods: dict[str, float], asked: Any, which: int, options: dict[str, str]) -> None:
    answer = answers(with_asked(scored(methods, ["a", "b"], (4,)), **asked))[which]
    assert dict(answer.options) == options
    assert bool(answer.then) == bool(options)


def test_too_little_data_is_answered_by_the_options_that_give_enough() -> None:
    answer = said({"multitask": 0.6, "maml": 0.7}, META, episodes=2, rows=20)
    assert answer.then == "use --episodes 5 and use --test-rows 50"
    assert dict(answer.options) == {"--episodes": "5", "--test-rows": "50"}


def test_where_all_rows_judge_more_support_sets_are_the_next_thing() -> None:
    found = scored({"multitask": 0.6, "maml": 0.602}, ["a"], (4,), rows=100)
    every = replace(found, counts={"a": found.counts["a"] | {"available": 100}})
    assert dict(answers(every)[META].options) == {"--episodes": "40"}
    own = replace(every, protocol=every.protocol | {"episodes": 20})
    assert answers(own)[META].then == "give the tasks more rows, or more tasks"


def test_the_method_to_take_is_the_best_with_what_can_not_be_told_from_it() -> None:
    found = scored({"frozen": 0.5, "multitask": 0.7, "protonet": 0.701, "maml": 0.7}, ["a", "b"], (4, 8))
    for choice in choices(found):
        score = {name: found.score(name, shots=choice.shots).mean for name in found.methods}
        assert choice.method == max(score, key=lambda name: score[name])
        assert {choice.method, *choice.rivals} == {"multitask", "protonet", "maml"}
        assert [*choice.rivals.values()] == sorted(choice.rivals.values())
    few = choices(scored({"frozen": 0.5, "maml": 0.9}, ["a"], (4,), episodes=2))
    assert (few[0].method, [*few[0].rivals]) == ("maml", ["frozen"]), "too little data to tell"


def test_results_json_holds_the_answers_and_is_read_back() -> None:
    found = scored({"frozen": 0.5, "multitask": 0.6, "maml": 0.7}, ["a", "b"], (4,))
    data = json.loads(json.dumps(module.to_json(found)))
    assert data["answers"]["meta_learning"]["word"] == data["answers"]["other_tasks"]["word"] == "Yes"
    assert data["answers"]["take"][0]["method"] == "maml"
    assert data["answers"]["rests_on"] == "2 tasks, 10 different support sets of each, 120 answers"
    assert module.to_json(Report.from_json(data)) == module.to_json(found)
