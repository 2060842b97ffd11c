"""Memories as a method: what is read when, in which order, and under which codes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from few_rows import VIEWS, batch_of, features_of, scores_of, theta_of
from near import near

from metanlp.algorithms import Memory
from metanlp.algorithms.memory_network import codes

RECURRENT, SLOTS = Memory(kind="recurrent", hidden=16), Memory(kind="key-value", hidden=16)


def test_a_label_is_read_with_the_row_after_its_own() -> None:
    """One row a class is read in the order of the batch."""
    theta, support = theta_of(RECURRENT), batch_of([0, 1], ways=4)
    seen = features_of(support)
    phi, early, late = (
        RECURRENT.condition(theta, seen, replace(support, targets=torch.tensor(targets)))
        for targets in ([0, 1], [2, 1], [0, 3])
    )
    assert torch.equal(late["memory/state"], phi["memory/state"])
    assert not torch.allclose(late["memory/last"], phi["memory/last"])
    assert not torch.allclose(early["memory/state"], phi["memory/state"])
    assert torch.equal(early["memory/last"], phi["memory/last"])


@pytest.mark.parametrize(("algorithm", "matters"), [(RECURRENT, True), (SLOTS, False)], ids=["recurrent", "key-value"])
def test_where_the_order_of_support_rows_matters(algorithm: Memory, matters: bool) -> None:
    theta, support, query = theta_of(algorithm), batch_of([0, 0, 1, 1]), batch_of([0, 1])
    seen, asked = features_of(support), features_of(query, 3)
    scores = scores_of(algorithm, theta, support, seen, query, asked)
    turned = scores_of(algorithm, theta, support, seen[[1, 0, 2, 3]], query, asked)  # two rows of one class
    assert torch.allclose(turned, scores, atol=1e-9) != matters
    assert torch.equal(scores_of(algorithm, theta, support, seen, query, asked), scores)


def test_the_state_is_that_of_a_loop_over_the_rows() -> None:
    """The gated recurrent unit, row by row; the second set ends before the first."""
    theta, support = theta_of(RECURRENT), batch_of([0, 1, 2, 3, 4], [0, 1, 2])
    seen, known = features_of(support), codes(5, torch.zeros(1).double())
    phi = RECURRENT.condition(theta, seen, support)
    unit = [theta[f"memory/reader/{key}"] for key in ("w_ih", "w_hh", "b_ih", "b_hh")]
    for task in range(2):
        state, last = torch.zeros(1, 16).double(), torch.zeros_like(known[:1])
        for n in (support.task_of == task).nonzero().flatten().tolist():
            x = (seen[n] / seen[n].norm(dim=1, keepdim=True)).flatten() @ theta["memory/project"].T
            state = torch.gru_cell(torch.cat([x[None], last], 1), state, *unit)
            last = known[support.targets[n], None]
        near(phi["memory/state"][task], state[0])
        near(phi["memory/last"][task], last[0])


def test_codes_are_far_apart_and_the_same_for_any_number_of_classes() -> None:
    many = codes(64, torch.zeros(1))
    products = many @ many.T
    near(products.diagonal(), torch.ones(64))
    assert float(products.fill_diagonal_(0).abs().max()) < 0.5
    for ways in (2, 5, 17):
        assert torch.equal(codes(ways, torch.zeros(1)), many[:ways])


def test_slots_find_a_row_again_among_as_many_classes_as_there_are() -> None:
    """One θ for 2, 7 and 40 classes, before any training."""
    theta = {k: v.double() for k, v in Memory().network({}, VIEWS * 6, torch.Generator().manual_seed(0)).items()}
    for ways in (2, 7, 40):
        support = batch_of(list(range(ways)))
        seen = features_of(support)
        sharp = theta | {"memory/sharpness": torch.tensor(4.0)}
        assert torch.equal(scores_of(Memory(), sharp, support, seen, support, seen).argmax(1), support.targets)
