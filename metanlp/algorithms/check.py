"""Whether a method keeps the contract of `Algorithm`: a table of laws, tried on made-up episodes of classes.

The net is by default a layer with an adapter over random word vectors: it needs no download, and a check takes about a
second. The laws are the same for a `Backbone` and for episodes of real rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from metanlp.algorithms.base import Algorithm, Net
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.settings import from_json, to_json
from metanlp.core.types import Batch, Episode, Pass, Trunk, Weights
from metanlp.forms import DEFAULT

LENGTH, VOCABULARY, WIDTH = 3, 40, 8  # words of a text, different words, size of a feature
ROUNDING = 1e-4  # of the size of a result: inner steps enlarge rounding

Claims = Iterator[tuple[bool, str]]
"""Whether each part of a law holds, and what to say where it does not."""


@dataclass(frozen=True)
class Case:
    """What a law is tried on."""

    algorithm: Algorithm
    net: Net
    theta: Weights  # off its beginning, where fresh adapters and heads are zero and hide much
    episodes: Pass  # of several tasks, with different numbers of classes and at least two shots

    def adapt(self, support: Batch) -> Weights:
        return self.algorithm.adapt(self.net, self.theta, support)

    def answers(self, given: Pass | Episode) -> Tensor:
        """Scores of the query rows after adaptation: (N, K)."""
        return self.algorithm.scores(self.net, self.adapt(given.support), given.query)


def check_algorithm(algorithm: Algorithm, net: Net | None = None) -> None:
    """Try every law of the contract. Raises InputError that names the first one that `algorithm` breaks, and how."""
    name = type(algorithm).__name__
    if not algorithm.learns(DEFAULT):
        raise InputError(f"{name} does not learn {DEFAULT.name!r}; its rows are all that is made up here")
    net, episodes = net or LayerNet(), made_up()
    for law, claims in LAWS.items():
        try:
            case = Case(algorithm, net, stirred(algorithm, net, episodes.episodes), episodes)
            broken = next((otherwise for holds, otherwise in claims(case) if not holds), "")
        except Exception as error:  # whatever a method raises, the user is told where
            raise InputError(f"{name} breaks the law of {law}: {type(error).__name__}: {error}") from error
        if broken:
            raise InputError(f"{name} breaks the law of {law}: {broken}")


def stirred(algorithm: Algorithm, net: Net, episodes: Sequence[Episode]) -> Weights:
    """θ and noise, with heads for the tasks of the episodes where the method uses them."""
    theta, width = algorithm.init(net, torch.Generator().manual_seed(0)), len(net.view_names) * net.width
    for episode in episodes if algorithm.task_heads else ():
        for key, shape in (("weight", (width,)), ("bias", ())):
            theta[f"tasks/{episode.task}/{key}"] = torch.zeros(max(episode.classes) + 1, *shape)
    generator = torch.Generator().manual_seed(1)
    return {key: value + 0.1 * torch.randn(value.shape, generator=generator).to(value) for key, value in theta.items()}


# the laws


def settings(case: Case) -> Claims:
    """Its configuration is its fields, and comes back from JSON."""
    one = case.algorithm
    yield from_json(type(one), json.loads(json.dumps(to_json(one)))) == one, "its fields come back from JSON as others"
    yield hash(one) == hash(replace(one)), "it can't be hashed; make it a frozen dataclass with fields of plain values"
    declared = not one.differentiable or "second_order" in {f.name for f in fields(one)}
    yield declared, "it is declared `differentiable` and has no field `second_order`"


def recipes(case: Case) -> Claims:
    """The settings that the recipe search tries are of the same method, its own rates first."""
    found, own = case.algorithm.recipes(), case.algorithm.inner
    yield {type(one) for one in found} == {type(case.algorithm)}, "`recipes` gives another method"
    first = found[0].inner
    yield (first.lr, first.head_lr) == (own.lr, own.head_lr), "`recipes` begins with other rates than its own"


def randomness(case: Case) -> Claims:
    """θ begins as the generator says, and nothing else is drawn."""
    before = torch.get_rng_state()
    one, same, other = (case.algorithm.init(case.net, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    yield weights.equal(one, same), "`init` gives two θ for one generator"
    yield not weights.equal(one, other), "`init` draws nothing from its generator"
    yield torch.equal(torch.get_rng_state(), before), "`init` draws from torch's global generator"


def purity(case: Case) -> Claims:
    """`adapt` changes neither θ nor the rows, gives the same twice, and a slice for each task without gradients."""
    support, theta = case.episodes.support, weights.clone(case.theta)
    ids, targets = support.ids.clone(), support.targets.clone()
    one, other = case.adapt(support), case.adapt(support)
    yield weights.equal(case.theta, theta), "`adapt` changes θ"
    yield torch.equal(support.ids, ids) and torch.equal(support.targets, targets), "`adapt` changes its rows"
    yield weights.equal(one, other), "`adapt` gives another φ the second time"
    yield not any(value.requires_grad for value in one.values()), "φ records gradients"
    odd = [key for key, value in one.items() if not value.dim() or len(value) != support.count_tasks]
    yield not odd, f"φ has no leading axis of {support.count_tasks} tasks in {odd}"


def declarations(case: Case) -> Claims:
    """φ holds what the class attributes say."""
    one, phi = case.algorithm, case.adapt(case.episodes.support)
    held = bool(weights.pick(phi, "lora/"))
    yield held == one.adapters, f"`adapters` is {one.adapters}, and φ has {'' if held else 'no '}lora/…"
    linear = not one.linear_head or {"head/weight", "head/bias"} <= phi.keys()
    yield linear, "`linear_head` is declared, and φ has no head/weight and head/bias"


def scores(case: Case) -> Claims:
    """Scores are finite for a task's own classes and −inf beyond, and those of `head_scores` on `features`."""
    one, query, phi = case.algorithm, case.episodes.query, case.adapt(case.episodes.support)
    found = one.scores(case.net, phi, query)
    yield from own_classes(found, query, "`scores`")
    there = one.head_scores(phi, one.features(case.net, phi, query), query)
    yield torch.equal(found, there), "`scores` are not `head_scores` of `features`"


def independence(case: Case) -> Claims:
    """Tasks in one pass are answered as alone."""
    together = case.answers(case.episodes)
    for task, episode in enumerate(case.episodes.episodes):
        mine = together[case.episodes.query.task_of == task][:, : len(episode.classes)]
        yield near(mine, case.answers(episode), f"task {task} has other scores in a pass with others than alone")


def left_out(case: Case) -> Claims:
    """`left_out` scores every support row that is not alone in its class, each task on its own; θ stays."""
    one, support, theta = case.algorithm, case.episodes.support, weights.clone(case.theta)
    found, counted = one.left_out(case.net, case.theta, support)
    yield weights.equal(case.theta, theta), "`left_out` changes θ"
    yield not found.requires_grad, "`left_out` records gradients"
    yield from own_classes(found, support, "`left_out`")
    yield counted.tolist() == [1.0] * len(support.targets), "`left_out` does not count rows that are not alone"
    for task, episode in enumerate(case.episodes.episodes):
        alone, _ = one.left_out(case.net, case.theta, episode.support)
        mine = found[support.task_of == task][:, : len(episode.classes)]
        yield near(mine, alone, f"task {task} has other left-out scores in a pass with others than alone")


def steps(case: Case) -> Claims:
    """φ after n inner steps does not depend on how many more are taken."""
    one, support = case.algorithm, case.episodes.episodes[0].support
    for number, phi in one.adapting(case.net, case.theta, support, range(100)):
        fewer = replace(one, inner=replace(one.inner, steps=number))
        for key, value in fewer.adapt(case.net, case.theta, support).items():
            yield near(phi[key], value, f"{key} after {number} steps depends on those that follow")


def meta_gradient(case: Case) -> Claims:
    """`meta_grad` leaves θ, gives finite gradients for keys of θ and the loss of each task, and sums over episodes."""
    one, theta = case.algorithm, weights.clone(case.theta)
    if not one.meta_trains:
        with suppress(InputError):
            one.meta_grad(case.net, case.theta, case.episodes)
            yield False, "`meta_trains` is False, and `meta_grad` does not raise InputError"
        return
    found, again = (one.meta_grad(case.net, case.theta, case.episodes) for _ in range(2))
    yield weights.equal(case.theta, theta), "`meta_grad` changes θ"
    yield weights.equal(found.grad, again.grad), "`meta_grad` gives another gradient the second time"
    odd = sorted(k for k, g in found.grad.items() if k not in theta or g.shape != theta[k].shape)
    yield not odd, f"`meta_grad` gives gradients that are not of θ, or of another shape: {odd}"
    yield bool(found.grad) and weights.finite(found.grad), "`meta_grad` gives no finite gradient"
    yield found.tokens > 0, "`meta_grad` counts no tokens"
    parts = [one.meta_grad(case.net, case.theta, Pass((e,), e.support, e.query)) for e in case.episodes.episodes]
    yield near(found.loss, torch.cat([part.loss for part in parts]), "the loss of a task differs in a pass with others")
    apart = weights.total(part.grad for part in parts)
    yield found.grad.keys() == apart.keys(), "the gradient of a pass has other keys than those of its episodes"
    off = float(weights.norm(weights.add(found.grad, apart, -1.0)) / weights.norm(apart).clamp(min=1e-12))
    yield off < ROUNDING, f"the gradient of a pass is not the sum over its episodes: off by {off:.0e}"


def storage(case: Case) -> Claims:
    """θ and φ answer alike when they come back from files, which keep values and names, but no order."""
    phi, query, expected = case.adapt(case.episodes.support), case.episodes.query, case.answers(case.episodes)
    odd = [key for key, value in (case.theta | phi).items() if not value.is_floating_point()]
    yield not odd, f"weights are not floating-point: {odd}"
    phi, theta = (weights.from_safetensors(weights.to_safetensors(w)) for w in (phi, case.theta))
    found, again = case.algorithm.scores(case.net, phi, query), replace(case, theta=theta).answers(case.episodes)
    yield near(found, expected, "φ answers otherwise when it comes back from a file")
    yield near(again, expected, "θ adapts otherwise when it comes back from a file")


LAWS: dict[str, Callable[[Case], Claims]] = {
    "settings": settings, "recipes": recipes, "randomness": randomness, "purity": purity,
    "declarations": declarations, "scores": scores, "independence": independence, "left-out scores": left_out,
    "steps": steps, "meta-gradient": meta_gradient, "storage": storage,
}  # fmt: skip


def near(found: Tensor, expected: Tensor, otherwise: str) -> tuple[bool, str]:
    """Equal to rounding, which grows with the size of the numbers."""
    if found.shape != expected.shape:
        return False, f"{otherwise}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    some = expected.isfinite()
    off, size = (float(x[some].abs().max()) if some.any() else 0.0 for x in (found - expected, expected))
    holds = torch.equal(found.isfinite(), some) and off <= ROUNDING * max(1.0, size)
    return holds, f"{otherwise}, by up to {off:.0e}"


def own_classes(found: Tensor, batch: Batch, what: str) -> Claims:
    shape = (len(batch.targets), batch.max_ways)
    yield tuple(found.shape) == shape, f"{what} are of shape {tuple(found.shape)}, not (rows, classes) = {shape}"
    own = torch.arange(found.shape[1], device=found.device) < batch.ways[batch.task_of][:, None]
    yield bool(found[own].isfinite().all()), f"{what} are not finite for a task's own classes"
    yield bool((found[~own] == -math.inf).all()), f"{what} are not −inf beyond a task's own classes"


# what they are tried on


class LayerNet:
    """A layer with an adapter of rank 2 over the mean of random word vectors, beside the mean itself."""

    width, view_names = WIDTH, ("adapted.1.all", "frozen.1.all")

    def __init__(self) -> None:
        drawn = torch.randn(VOCABULARY + WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))
        self.table, self.layer = drawn[:VOCABULARY], drawn[VOCABULARY:]

    def init(self, generator: torch.Generator) -> Weights:
        down = torch.rand(2, WIDTH, generator=generator) - 0.5
        return {"lora/layer.lora_A.weight": down, "lora/layer.lora_B.weight": torch.zeros(WIDTH, 2)}

    def with_trunk(self, batch: Batch) -> Batch:
        means = self.table[batch.ids].view(-1, LENGTH, WIDTH).mean(1)
        return replace(batch, trunk=Trunk(means, means[:, None]))

    def features(self, w: Weights, batch: Batch) -> Tensor:
        means = self.table[batch.ids].view(-1, LENGTH, WIDTH).mean(1)
        matrices = (w[f"lora/layer.lora_{side}.weight"] for side in "AB")
        down, up = (m[batch.task_of] if m.dim() == 3 else m for m in matrices)
        update = (up @ (down @ means[..., None]))[..., 0]
        return torch.stack([torch.tanh(means @ self.layer.T + update), means], 1)

    def work(self, batch: Batch, passes: int) -> int:
        return batch.count_tokens * passes


Rows = tuple[int, int, range]
"""Number of a task, number of its classes, numbers of its rows: one of each class for each number."""


def made_up() -> Pass:
    """Three tasks of 3, 2 and 4 classes with 3, 4 and 2 shots, and two queries of each class."""
    queries: list[Rows] = [(number, ways, range(2)) for number, ways in enumerate((3, 2, 4))]
    supports: list[Rows] = [(*queries[number][:2], range(2, 2 + shots)) for number, shots in enumerate((3, 4, 2))]
    episodes: list[Episode] = []
    for given, asked in zip(supports, queries, strict=True):
        number, ways, shots = given
        rows = range(ways * (2 + len(shots)))
        sides = tuple(rows[2 * ways :]), tuple(rows[: 2 * ways])
        made = packed([given]), packed([asked])
        episodes.append(Episode(f"made up/{number}", number, tuple(range(ways)), *sides, *made))
    return Pass(tuple(episodes), packed(supports), packed(queries))


def packed(tasks: Sequence[Rows]) -> Batch:
    """Of every row three words, one of them its class's."""
    rows = [(place, task, label, row) for place, (task, ways, numbers) in enumerate(tasks) for row in numbers
            for label in range(ways)]  # fmt: skip
    ids = [(7 * task + 3 * label + 1, 5 * row + label, 11 * row + task) for _, task, label, row in rows]
    words, units, ways = torch.tensor(ids).flatten() % VOCABULARY, torch.arange(len(rows)), [w for _, w, _ in tasks]
    sizes = [ways * len(numbers) for _, ways, numbers in tasks]
    return Batch(
        ids=words, positions=torch.arange(LENGTH).repeat(len(rows)), types=torch.zeros_like(words),
        segments=torch.ones_like(words), example_of=units.repeat_interleave(LENGTH),
        lengths=torch.full((len(rows),), LENGTH), task_of=torch.tensor([place for place, *_ in rows]),
        targets=torch.tensor([label for _, _, label, _ in rows]), group=units, ways=torch.tensor(ways),
        ends=(LENGTH * torch.tensor(sizes).cumsum(0)).int(), runs=((len(rows), LENGTH),), max_ways=max(ways),
        max_units=max(sizes),
    )  # fmt: skip
