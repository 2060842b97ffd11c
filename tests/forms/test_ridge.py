"""The ridge head, in float64, against solutions that are computed anew for every row that is left out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from head_inputs import random
from near import LAYERS, near
from torch import Tensor
from torch.nn.functional import normalize

from metanlp.core import weights
from metanlp.core.types import Batch, Weights
from metanlp.forms import FORMS
from metanlp.forms.all_heads import Heads
from metanlp.forms.heads import RidgeHead, linear_scores
from metanlp.forms.heads.ridge import CONSTANT

VIEWS, WIDTH = 3, 6


def batch_of(form: str, targets: Tensor, group: list[int] | None = None, tasks: list[int] | None = None) -> Batch:
    """One-token rows: a head reads no tokens."""
    n, ways = len(targets), targets.shape[1] if targets.dim() > 1 else 1
    zeros, task_of = torch.zeros(n, dtype=torch.long), torch.tensor(tasks or [0] * n)
    counts = torch.bincount(task_of)
    return Batch(
        ids=zeros, positions=zeros, types=zeros, segments=zeros, example_of=torch.arange(n), lengths=zeros + 1,
        task_of=task_of, targets=targets, group=torch.tensor(group or list(range(n))),
        ways=torch.full((len(counts),), ways), ends=counts.cumsum(0).int(), runs=((n, 1),), max_ways=ways, form=form,
    )  # fmt: skip


def scores_of_texts() -> Batch:
    return batch_of("regress", torch.tensor([0.0, 0.2, 0.9, 1.0, 0.4, 0.6, 0.1], dtype=torch.float64))


def questions() -> Batch:
    """Of two, three and four choices."""
    right = torch.tensor([1, 0, 0, 0, 1, 0, 0, 1, 0], dtype=torch.float64)
    return batch_of("choose", right, [0, 0, 1, 1, 1, 2, 2, 2, 2])


def sets_of_labels() -> Batch:
    rows = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]]
    return batch_of("multilabel", torch.tensor(rows, dtype=torch.float64))


def ends_of_answers() -> Batch:
    """Of a passage of four words and one of five: where an answer begins, and where it ends."""
    begins, ends = [0, 1, 0, 0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0, 1, 0]
    return batch_of("span", torch.tensor([begins, ends], dtype=torch.float64).T.contiguous(), [0] * 4 + [1] * 5)


BATCHES = {"regress": scores_of_texts(), "choose": questions(), "multilabel": sets_of_labels(),
           "span": ends_of_answers()}  # fmt: skip


def theta_of(form: str) -> Weights:
    """θ of a head that has learned something."""
    start = {key: value.double() for key, value in FORMS[form].head.init(VIEWS, WIDTH).items()}
    learned = {key: 0.3 * random(*value.shape, seed=4) for key, value in start.items() if value.dim()}
    return start | learned


def head_of(form: str) -> RidgeHead:
    """As it solves: what moves the scores of labels afterwards has tests of its own."""
    head = FORMS[form].head
    assert isinstance(head, RidgeHead)
    return replace(head, even=False)


def untouched(batch: Batch, width: int = VIEWS * WIDTH) -> Weights:
    return {key: value.double() for key, value in Heads().residual(width, batch).items()}


def part(batch: Batch, keep: Tensor) -> Batch:
    group = batch.group[keep]
    numbered = torch.unique(group, return_inverse=True)[1].tolist()
    return batch_of(batch.form, batch.targets[keep], numbered)


def solved(head: RidgeHead, theta: Weights, features: Tensor, batch: Batch) -> Tensor:
    """Scores of all rows under each view's own solution, by the normal equations: (N, K, V)."""
    x, y = normalize(features, dim=-1), batch.targets.view(len(features), -1)
    if head.contrast:
        for number in batch.group.unique():
            mine = batch.group == number
            x[mine], y = x[mine] - x[mine].mean(0), torch.where(mine[:, None], y - y[mine].mean(0), y)
    else:
        x, y = torch.cat([x, x.new_full((*x.shape[:2], 1), math.sqrt(CONSTANT))], 2), y - 0.5
    found: list[Tensor] = []
    for view in range(VIEWS):
        prior = torch.zeros(x.shape[2], y.shape[1], dtype=torch.float64)
        if head.learned:
            prior[:WIDTH] = theta["head/vector"][view].view(WIDTH, -1)
        a = x[:, view].T @ x[:, view] + theta["head/penalty"].exp() * torch.eye(x.shape[2])
        found.append(prior + torch.linalg.solve(a, x[:, view].T @ (y - x[:, view] @ prior)))
    return torch.stack(found)


def asked_of(head: RidgeHead, features: Tensor, batch: Batch) -> Tensor:
    """What the solutions are applied to: a question's own mean changes nothing in the softmax over its choices."""
    x = normalize(features, dim=-1)
    if not head.contrast:
        return torch.cat([x, x.new_full((*x.shape[:2], 1), math.sqrt(CONSTANT))], 2)
    means = torch.stack([x[batch.group == number].mean(0) for number in batch.group])
    return x - means


@pytest.mark.parametrize("form", BATCHES)
def test_left_out_is_solving_without_the_row_or_question(form: str) -> None:
    head, batch, theta = head_of(form), BATCHES[form], theta_of(form)
    features = random(len(batch.targets), VIEWS, WIDTH)
    found = head._views_left_out(theta, features, batch)
    asked = asked_of(head, features, batch)
    for number in batch.group.unique():
        out = batch.group == number
        slopes = solved(head, theta, features[~out], part(batch, ~out))
        expected = theta["head/scale"].exp() * torch.einsum("nvd,vdk->nkv", asked[out], slopes) + head.offset
        near(found[out], expected, LAYERS)


@pytest.mark.parametrize("form", BATCHES)
def test_the_head_is_the_solution_of_all_rows_over_the_views(form: str) -> None:
    head, batch, theta = head_of(form), BATCHES[form], theta_of(form)
    features = random(len(batch.targets), VIEWS, WIDTH)
    phi = head.finish(theta, untouched(batch), features, batch)
    found = linear_scores(phi["head/weight"], phi["head/bias"], features, batch)
    loss = head.evidence(theta, features, batch)["views/loss"][0]
    share = (theta["views/prior"] - theta["views/trust"].exp() * loss).softmax(0)
    each = torch.einsum("nvd,vdk->nkv", asked_of(head, features, batch), solved(head, theta, features, batch))
    expected = theta["head/scale"].exp() * (each @ share) + head.offset
    if head.contrast:
        found, expected = (less_mean(scores, batch) for scores in (found, expected))
    near(found, expected, LAYERS)


def less_mean(scores: Tensor, batch: Batch) -> Tensor:
    return scores - torch.stack([scores[batch.group == number].mean(0) for number in batch.group])


@pytest.mark.parametrize("form", BATCHES)
def test_tasks_in_one_pass_are_as_alone(form: str) -> None:
    head, one, theta = FORMS[form].head, BATCHES[form], theta_of(form)
    n = len(one.targets)
    groups = [*one.group.tolist(), *(one.group + n).tolist()]
    both = batch_of(form, torch.cat([one.targets, 1 - one.targets]), groups, [0] * n + [1] * n)
    alone = [one, batch_of(form, 1 - one.targets, one.group.tolist())]
    features = random(2 * n, VIEWS, WIDTH)
    together = head.finish(theta, untouched(both), features, both)
    for number, batch in enumerate(alone):
        mine = features[number * n : (number + 1) * n]
        phi = head.finish(theta, untouched(batch), mine, batch)
        for key, value in phi.items():
            near(together[key][number], value[0], LAYERS)
        scores = [head.left_out(theta, untouched(b), f, b)[0] for b, f in ((both, features), (batch, mine))]
        near(scores[0][number * n : (number + 1) * n], scores[1], LAYERS)


@pytest.mark.parametrize("form", BATCHES)
def test_gradients_reach_all_of_theta_and_the_features(form: str) -> None:
    head, batch, theta = FORMS[form].head, BATCHES[form], weights.leaves(theta_of(form))
    features = random(len(batch.targets), VIEWS, WIDTH).requires_grad_()

    def loss(*values: Tensor) -> Tensor:
        *given, x = values
        w = dict(zip(theta, given, strict=True))
        phi = head.finish(w, untouched(batch), x, batch)
        seen, _ = head.left_out(w, untouched(batch), x, batch)
        return head.scores(phi, x, batch).square().sum() + seen.square().sum()

    assert torch.autograd.gradcheck(loss, (*theta.values(), features))
    grads = torch.autograd.grad(loss(*theta.values(), features), (*theta.values(), features))
    assert all(grad.abs().max() > 0 for grad in grads)


def test_scores_on_another_scale_are_predicted_alike() -> None:
    """The fit is linear in the answers: halved and shifted, they come out halved and shifted, as the intercept is all
    but free."""
    head, batch, theta = FORMS["regress"].head, BATCHES["regress"], theta_of("regress")
    theta = theta | {"head/vector": torch.zeros(VIEWS, WIDTH).double(), "views/trust": torch.tensor(-math.inf)}
    features = random(len(batch.targets), VIEWS, WIDTH)
    other = batch_of("regress", 0.5 * batch.targets + 0.25)
    found = [head.scores(head.finish(theta, untouched(b), features, b), features, b) for b in (batch, other)]
    near(0.5 * found[0] + 0.25, found[1], LAYERS)


def test_a_vector_of_theta_alone_answers_where_it_is_right() -> None:
    """With no evidence against it the prior mean stays: a support set that it explains moves nothing."""
    head, theta = FORMS["regress"].head, theta_of("regress")
    features = random(5, VIEWS, WIDTH)
    x = normalize(features, dim=-1)
    one_view = theta | {"views/prior": torch.tensor([50.0, 0.0, 0.0]).double(), "views/trust": torch.tensor(-math.inf)}
    batch = batch_of("regress", x[:, 0] @ theta["head/vector"][0] + 0.5)
    phi = head.finish(one_view, untouched(batch), features, batch)
    new = random(4, VIEWS, WIDTH, seed=8)
    asked = batch_of("regress", torch.zeros(4).double())
    expected = normalize(new, dim=-1)[:, 0] @ theta["head/vector"][0] + 0.5
    near(head.scores(phi, new, asked)[:, 0], expected, LAYERS)


@pytest.mark.parametrize("form", ["regress", "choose"])
def test_what_is_known_before_any_row_is_what_a_support_set_of_it_leaves(form: str) -> None:
    """A support set whose answers θ already gives changes nothing: the head is then θ's vector."""
    head, theta, batch = FORMS[form].head, theta_of(form), BATCHES[form]
    theta = theta | {"views/prior": torch.tensor([50.0, 0.0, 0.0]).double(), "views/trust": torch.tensor(-math.inf)}
    features = random(len(batch.targets), VIEWS, WIDTH)
    found = head.known(theta, features, batch)
    assert isinstance(found, Tensor)
    answers = normalize(features, dim=-1)[:, 0] @ theta["head/vector"][0] + (0.5 if form == "regress" else 0.0)
    given = batch_of(form, answers, batch.group.tolist())
    phi = head.finish(theta, untouched(given), features, given)
    scores = head.scores(phi, features, given)
    if form == "choose":
        found, scores = less_mean(found, given), less_mean(scores, given)
    near(found, scores, LAYERS)
    assert FORMS["multilabel"].head.known(theta_of("multilabel"), features, BATCHES["multilabel"]) == 0.0


def test_scores_of_a_label_are_even_around_zero_however_many_rows_have_it() -> None:
    """Left-out scores and those of new rows are moved alike. A label that no row has, or each, stays where it was."""
    head, theta = FORMS["multilabel"].head, theta_of("multilabel")
    assert isinstance(head, RidgeHead)
    rows = [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    batch = batch_of("multilabel", torch.tensor(rows, dtype=torch.float64))
    features, asked = random(6, VIEWS, WIDTH), random(6, VIEWS, WIDTH, seed=9)
    scores, plain = (one._views_left_out(theta, features, batch) for one in (head, head_of("multilabel")))
    has = batch.targets[..., None]
    near((has * scores).sum(0)[:2] / has.sum(0)[:2], -((1 - has) * scores).sum(0)[:2] / (1 - has).sum(0)[:2])
    moved = plain - scores
    near(moved, moved[:1].expand_as(moved), LAYERS)
    assert torch.equal(scores[:, 2:], plain[:, 2:])
    evidence = head.evidence(theta, features, batch)
    share = (theta["views/prior"] - theta["views/trust"].exp() * evidence["views/loss"][0]).softmax(0)
    told, untold = (
        linear_scores(phi["head/weight"], phi["head/bias"], asked, batch)
        for phi in (
            one.finish(theta, untouched(batch) | evidence, features, batch) for one in (head, head_of("multilabel"))
        )
    )
    near(untold - told, (moved[0] * share).sum(-1).expand(6, 4), LAYERS, size=float(untold.abs().max()))


@pytest.mark.parametrize("few", [2, 8])
def test_a_label_of_few_rows_is_found(few: int) -> None:
    """Rows of one label each, three of eight rows and one of `few`: without a common middle nothing is ever told."""
    means = 4 * random(4, 1, 12, seed=1)
    labels = torch.tensor([label for label, n in enumerate((8, 8, 8, few)) for _ in range(n)])
    head = FORMS["multilabel"].head
    theta = {key: value.double() for key, value in head.init(1, 12).items()}
    told: list[Tensor] = []
    for draw in range(20):
        batch = batch_of("multilabel", torch.eye(4, dtype=torch.float64)[labels])
        features, asked = (means[labels] + 4 * random(len(labels), 1, 12, seed=100 + 2 * draw + n) for n in (0, 1))
        phi = head.finish(theta, untouched(batch, 12), features, batch)
        told.append(linear_scores(phi["head/weight"], phi["head/bias"], asked, batch)[labels == 3, 3] > 0)
    assert torch.cat(told).double().mean() > 0.6
