"""The answers of a report in words, each with the command that follows from it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from metanlp.evaluation.answers import STARTS, Answer, Choice, answers, choices, rests_on
from metanlp.evaluation.results import Report
from metanlp.report.tables import console, percent

Local = Mapping[str, Any]
"""What `local.json` holds: of it `command`, which made the report, `learners`, what `--from` takes by method, and
`train`, by method the command that trains it on all tasks, where the learners had each but some of them."""

WHICH = "Which method to take?"


def show_answers(found: Report, local: Local) -> None:
    """On standard output; no line is broken, so that a command can be copied."""
    console().print("\n".join(["", *lines(found, local)]), soft_wrap=True)


def show_adapting(learners: Mapping[str, str]) -> None:
    """The command that adapts each learner, by method and folder, whole as above."""
    console().print("\n".join(f"{method}: {adapt(folder)}" for method, folder in learners.items()), soft_wrap=True)


def lines(found: Report, local: Local) -> list[str]:
    """For a terminal; what follows from a line is set in below it."""
    said: list[str] = []
    for answer in answers(found):
        said.append(f"{answer.question} {sentence(answer)}")
        said += [f"  To try next: {then}" for then in next_step(answer, local)]
    said += [f"Why: {reason}" for reason in why(found)]
    said += [reach(found), WHICH, *(f"  {choice.shots} shots: {taken(choice)}" for choice in choices(found))]
    return [*said, *(f"  Next, with {method}: {command}" for method, command in commands(found, local).items())]


def why(found: Report) -> list[str]:
    """What there is to know of the reasons: what guessing scores, what is read, how near the training tasks are."""
    said: list[str] = []
    if (chance := found.chance()) is not None:
        said.append(f"guessing scores {100 * chance:.1f} %, {found.main} {100 * found.score(found.main).mean:.1f} %.")
    if found.views:
        adapted = np.array([name.startswith("adapted") for name in found.views["names"]])
        after = [float(np.array(shares)[adapted].sum()) for shares in found.views["tasks"].values()]
        before = float(np.array(found.views["prior"])[adapted].sum())
        span = " to ".join(dict.fromkeys(f"{100 * end:.0f}" for end in (min(after), max(after)))) if after else ""
        said.append(f"of what {found.main} reads, its adapters count {100 * before:.0f} % before any examples"
                    f"{f', {span} % on these tasks' if span else ''}; the rest is the encoder as it was.")  # fmt: skip
    if near := {task: each[0] for task, each in found.nearest.items() if each}:
        most, least = (pick(near, key=lambda task: near[task]["cosine"]) for pick in (max, min))
        rest = f"; {least} has none nearer than {near[least]['cosine']:.2f}" if least != most else ""
        said.append(f"nearest of the training tasks is {near[most]['task']} to {most}, cosine "
                    f"{near[most]['cosine']:.2f}{rest}.")  # fmt: skip
    return said


def sentence(answer: Answer) -> str:
    """Word, figure, and how the two methods were chosen."""
    why = "; ".join(filter(None, (figure(answer), answer.because)))
    return ": ".join(filter(None, (answer.word, why))) + "."


def figure(answer: Answer) -> str:
    """The difference with its interval, in points."""
    if answer.found is None:
        return ""
    mean, low, high = answer.found.mean, answer.found.low, answer.found.high
    ends = "" if low is None or high is None else f" [{points(low)}, {points(high)}]"
    level = f", {100 - 5 / answer.among:.4g} % interval" if ends else ""
    return f"{answer.ours} − {answer.theirs} {points(mean)}{ends} points{level}"


def next_step(answer: Answer, local: Local) -> list[str]:
    """What to try, with the command where one does it: one line or none."""
    if not answer.then:
        return []
    changed = again(local["command"], answer.options) if answer.options and local.get("command") else ""
    options = " ".join(f"{name} {value}" for name, value in answer.options.items())
    return [": ".join(filter(None, (answer.then, changed or options)))]


def again(command: str, options: Mapping[str, str]) -> str:
    """The command with these options in place of its own, into a folder of its own."""
    words = shlex.split(command)
    out = f"{words[words.index('--out') + 1]}-2" if "--out" in words[:-1] else "out/again"
    for name, values in {**{name: value.split() for name, value in options.items()}, "--out": [out]}.items():
        words = [*without(words, name), name, *values]
    return shlex.join(word for word in words if word not in ("--resume", "--replace"))


def without(words: list[str], name: str) -> list[str]:
    """The words of a command without an option and its values."""
    if name not in words:
        return words
    first = words.index(name)
    last = next((n for n in range(first + 1, len(words)) if words[n].startswith("--")), len(words))
    return words[:first] + words[last:]


def taken(choice: Choice) -> str:
    """The method, its score, and what can't be told from it."""
    near = ", ".join(f"{name} ({seconds:.2g} s to adapt)" for name, seconds in choice.rivals.items())
    if choice.among == 1:
        return f"{choice.method}, {percent(choice.score)} %, the only one here"
    cannot = "too little data to tell from it" if choice.lacking else "can't be told from it"
    beside = f"{cannot}: {near}" if near else "better than each of the others"
    return f"{choice.method}, {percent(choice.score)} %, the best of {choice.among} on these same episodes; {beside}"


def commands(found: Report, local: Local) -> dict[str, str]:
    """By the methods to take, the command that trains them on all tasks, or adapts what is trained to a new task."""
    known = {name: adapt(learner) for name, learner in local.get("learners", {}).items()} | local.get("train", {})
    return {name: known[name] for name in dict.fromkeys(choice.method for choice in choices(found)) if name in known}


def adapt(learner: str) -> str:
    source = "" if learner == STARTS[0] else f" --from {shlex.quote(learner)}"
    return f"metanlp adapt{source} --examples EXAMPLES.csv --out ADAPTED"


def reach(found: Report) -> str:
    return f"Resting on {rests_on(found)}: intervals speak of these tasks, not of tasks in general."


def points(share: float) -> str:
    """With its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")
