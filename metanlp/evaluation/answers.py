"""What a report answers: does meta-learning help, does learning from other tasks help, which method to take.

The first two compare a set of methods with another set, over tasks and shots. Yes: one of the first is better than all
of the second; No: one of the second is better than all of the first. Each interval is widened to a level of
1 - 0.05 / n, n methods in the larger set (Bonferroni), so that where all are equally good at most 5 % of the tests end
in Yes or No, however many methods there were to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from metanlp.core.intervals import Interval
from metanlp.evaluation.results import Difference, Report

MULTITASK = "multitask"  # learns from other tasks without meta-learning
STARTS = ("default", "start")  # a learner as it was when training began from it: taught by others, at another cost
OTHERS = ("meta_sgd", "anil", "hypernet", "protonet")  # methods to try next, the one that did best before first
MORE = 4  # times as much of what is tried next; four times as many support sets halve the interval that they cause
NOT_COMPARED = "Not compared"
COMPARE = "train on tasks like these: metanlp compare --data TASKS"


@dataclass(frozen=True)
class Answer:
    """Does it help on these tasks?"""

    question: str
    word: str  # Yes, No, Can't tell, Too little data, Not compared
    because: str = ""  # from how many methods they were chosen
    ours: str = ""  # of the methods that the question is about
    theirs: str = ""  # of those that they are held against
    among: int = 1  # n: the interval is of level 1 - 0.05 / n
    found: Interval | None = None  # ours less theirs
    then: str = ""  # what to try next
    options: Mapping[str, str] = field(default_factory=dict)  # by which the same command does that


@dataclass(frozen=True)
class Choice:
    """The method with the highest mean over tasks at one number of shots."""

    shots: int
    method: str
    score: Interval
    rivals: Mapping[str, float]  # methods that can't be told from it -> seconds to adapt, the quickest first
    among: int  # methods that it was chosen from, on these same episodes
    lacking: str  # what to do so that there is enough data to tell; nothing where there is


def answers(found: Report) -> tuple[Answer, Answer]:
    """Of meta-learning, and of learning from other tasks."""
    taught = [name for name, cost in found.methods.items() if cost["parameters"]]
    alone = [name for name in found.methods if name not in taught]
    episodic = [name for name in taught if name not in (MULTITASK, *STARTS)]
    joint = [name for name in taught if name == MULTITASK]
    return (
        _answer(found, "Does meta-learning help?", episodic, joint, ("maml", MULTITASK)),
        _answer(found, "Does learning from other tasks help?", taught, alone, ("maml", "frozen finetune")),
    )


def choices(found: Report) -> list[Choice]:
    """Which method to take at which number of shots."""
    return [_choice(found, k) for k in found.shots]


def rests_on(found: Report) -> str:
    """What there is to judge by, in words."""
    if not all(task in found.counts for task in found.tasks):
        return f"{len(found.tasks)} tasks"
    counts = [found.counts[task] for task in found.tasks]
    sets = [count["shots"][str(k)]["distinct"] for task, count in zip(found.tasks, counts, strict=True)
            for k in found.shots_of(task)]  # fmt: skip
    rows = sum(count["query_rows"] for count in counts)
    span = " to ".join(map(str, sorted({min(sets), max(sets)})))
    return f"{len(counts)} task{'s' * (len(counts) > 1)}, {span} different support sets of each, {rows:,} answers"


def to_json(found: Report) -> dict[str, Any]:
    """What results.json holds: the report, and these answers."""
    meta, other = map(asdict, answers(found))
    take = [asdict(choice) for choice in choices(found)]
    said = {"meta_learning": meta, "other_tasks": other, "take": take, "rests_on": rests_on(found)}
    return found.to_json() | {"answers": said}


def _answer(found: Report, question: str, ours: Sequence[str], theirs: Sequence[str], held: Sequence[str]) -> Answer:
    """`held` are the methods that the question needs on each side, where the report has none."""
    if not (ours and theirs):
        missing = held[0] if not ours else held[1]
        options = _with_methods(found, missing)
        return Answer(question, NOT_COMPARED, f"this test holds no {missing.replace(' ', ' and no ')}",
                      then="test them too" if options else COMPARE, options=options)  # fmt: skip
    word, gap, among = _decided(found, ours, theirs)
    if gap.lacking or word == "Yes":
        then, options = gap.lacking, dict(re.findall(r"use (--\S+) (\d+)", gap.lacking))
    else:
        then, options = _next(found, gap, alone=theirs[0] != MULTITASK)
    chosen = [f"{name} is the best of {len(side)}" for name, side in ((gap.a, ours), (gap.b, theirs)) if len(side) > 1]
    return Answer(question, word, " and ".join(chosen), gap.a, gap.b, among, gap.interval, then, options)


def _decided(found: Report, ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, Difference, int]:
    """The word, the two methods that it is about with their difference, and n."""
    among = max(len(ours), len(theirs))
    gaps = {(a, b): found.compare(a, b, level=1 - 0.05 / among) for a in ours for b in theirs}
    above = {a for a in ours if all(gaps[a, b].verdict == "better" for b in theirs)}
    below = {b for b in theirs if all(gaps[a, b].verdict == "worse" for a in ours)}
    unclear = [pair for pair, gap in gaps.items() if gap.verdict == "unclear"]
    telling = [pair for pair in gaps if pair[0] in above or pair[1] in below] or unclear or [*gaps]
    score = {name: found.score(name).mean for name in (*ours, *theirs)}
    gap = gaps[max(telling, key=lambda pair: score[pair[0]] + score[pair[1]])]
    word = "Too little data" if gap.lacking else "Yes" if above else "No" if below else "Can't tell"
    return word, gap, among


def _next(found: Report, gap: Difference, alone: bool) -> tuple[str, dict[str, str]]:
    """What to try after No or Can't tell, and the options that do it: where ours is ahead, more to judge by; else
    another start against what learns `alone`, another method against multi-task training, or a longer training."""
    if gap.interval.mean > 0:
        return _more_data(found)
    if not (asked := found.protocol.get("asked")):
        return COMPARE, {}
    if alone and asked.get("start") is None and asked.get("model") == "minilm":  # "" where it would not fit
        return "begin from the learner that comes with the package", {"--start": "default"}
    if not alone and (others := [name for name in OTHERS if name not in found.methods]):
        return "another method", {"--method": others[0]}
    length = "steps" if asked.get("steps") else "max_minutes"
    more = MORE * (asked.get(length) or 5)
    # Steps are whole, and no option takes 1e+06 for them.
    return "train longer", {f"--{length.replace('_', '-')}": f"{more:g}" if isinstance(more, float) else str(more)}


def _more_data(found: Report) -> tuple[str, dict[str, str]]:
    counts, protocol = [found.counts[task] for task in found.tasks], found.protocol
    if protocol.get("test_rows") and any(count["query_rows"] < count["available"] for count in counts):
        return "more rows to judge by", {"--test-rows": str(MORE * protocol["test_rows"])}
    drawn = [sets["distinct"] >= protocol["episodes"] for count in counts for sets in count["shots"].values()]
    if all(drawn):
        return "more support sets", {"--episodes": str(MORE * protocol["episodes"])}
    return "give the tasks more rows, or more tasks", {}


def _with_methods(found: Report, missing: str) -> dict[str, str]:
    asked = found.protocol.get("asked", {})
    return {"--baselines": " ".join([*asked["baselines"], missing])} if asked.get("baselines") else {}


def _choice(found: Report, k: int) -> Choice:
    score = {name: found.score(name, shots=k) for name in found.methods}
    best, *others = sorted(score, key=lambda name: -score[name].mean)
    level = 1 - 0.05 / max(1, len(others))
    near = [name for name in others if found.compare(best, name, shots=k, level=level).verdict != "better"]
    seconds = {name: found.methods[name]["adapt_s"] for name in near}
    rivals = dict(sorted(seconds.items(), key=lambda item: item[1]))
    return Choice(k, best, score[best], rivals, len(score), found.lacking(shots=k))
