"""Arithmetic on Weights: the laws that the rest leans on."""

from __future__ import annotations

import pytest
import torch
from near import near
from stacks import stacked, take

from metanlp.core import weights
from metanlp.core.types import Weights


@pytest.fixture
def w() -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora/b": (3, 4), "lora/a": (2,), "head/bias": ()}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_pick_and_drop_are_complements(w: Weights) -> None:
    assert set(weights.pick(w, "lora/")) == {"lora/a", "lora/b"}
    assert weights.equal(weights.pick(w, "lora/") | weights.drop(w, "lora/"), w)


def test_flatten_and_unflatten_are_inverse_in_any_order_of_keys(w: Weights) -> None:
    turned = dict(reversed(list(w.items())))
    assert torch.equal(weights.flatten(w), weights.flatten(turned))
    assert weights.equal(weights.unflatten(weights.flatten(w), w), w)


def test_arguments_stay_as_they_were(w: Weights) -> None:
    before = weights.clone(w)
    weights.add(w, w, -1.0)
    weights.scale(w, 2.0)
    weights.total([w, w])
    weights.leaves(w)["lora/a"].data.add(1)
    assert weights.equal(w, before)
    assert not any(value.requires_grad for value in w.values())


def test_a_clone_shares_no_memory(w: Weights) -> None:
    copy = weights.clone(w)
    copy["lora/a"].add_(1)
    assert not weights.equal(w, copy)


def odd(value: torch.Tensor) -> torch.Tensor:
    """The same values four bytes behind an address of torch's."""
    room = torch.empty(value.numel() + 1)[1:].view(value.shape)
    return room.copy_(value)


def test_aligned_weights_have_the_addresses_and_strides_of_torch_s_own(w: Weights) -> None:
    b = w["lora/b"]
    placed = {"odd": odd(b), "slice": b[1:], "turned": b.T, "one column": b[:, :1].T, "expanded": b[0].expand(3, 4)}
    found = weights.aligned(placed)
    assert weights.equal(found, placed)
    for value in found.values():
        assert value.data_ptr() % weights.ALIGNMENT == 0
        assert value.stride() == torch.empty(value.shape).stride()
    assert weights.aligned(w)["lora/b"] is b  # nothing to do, nothing copied


def test_a_file_of_tensors_comes_back_aligned_whatever_its_sizes(w: Weights) -> None:
    given = w | {f"of {n}": torch.arange(n).float() for n in range(1, 40)} | {"half": torch.ones(5).bfloat16()}
    found = weights.from_safetensors(weights.to_safetensors(given | {"view": given["lora/b"].T}))
    assert weights.equal(found, given | {"view": given["lora/b"].T})
    assert not any(value.data_ptr() % weights.ALIGNMENT for value in found.values())


@pytest.mark.parametrize("data", [b"", b"no tensors", b"\xff" * 100])
def test_bytes_that_are_no_tensors_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a file of tensors"):
        weights.from_safetensors(data)


def test_a_missing_key_adds_nothing(w: Weights) -> None:
    found = weights.add(w, {"lora/a": w["lora/a"]}, -1.0)
    assert not found["lora/a"].any()
    assert torch.equal(found["lora/b"], w["lora/b"])


def test_total_adds_in_the_order_given() -> None:
    parts = [{"x": torch.tensor(value)} for value in (1e8, 1.0, -1e8)]
    assert weights.total(parts)["x"] == 0.0
    assert weights.total([parts[0], parts[2], parts[1]])["x"] == 1.0
    assert weights.total([]) == {}


def test_tasks_go_into_a_stack_and_come_out(w: Weights) -> None:
    three = stacked([weights.expand(w, 2), weights.expand(weights.scale(w, 3.0), 1)])
    assert three["lora/b"].shape == (3, 3, 4)
    assert weights.equal(take(three, 1), weights.expand(w, 1))
    assert weights.equal(take(three, 2), weights.expand(weights.scale(w, 3.0), 1))


def test_gradient_is_zero_where_a_weight_takes_no_part(w: Weights) -> None:
    moving = weights.leaves(w)
    found = weights.gradient((moving["lora/a"] ** 2).sum() / 2, moving)
    assert torch.equal(found["lora/a"], w["lora/a"])
    assert found.keys() == w.keys()
    assert not found["lora/b"].any()


def test_norms(w: Weights) -> None:
    near(weights.norm(w), weights.flatten(w).norm())
    per_task = weights.norm_per_task(stacked([weights.expand(w, 1), weights.expand(weights.scale(w, 2.0), 1)]))
    near(per_task, torch.stack([weights.norm(w), 2 * weights.norm(w)]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_finite(w: Weights, bad: float) -> None:
    assert weights.finite(w)
    assert not weights.finite(w | {"lora/a": torch.tensor([1.0, bad])})


def test_checksum_differs_with_value_name_shape_and_type(w: Weights) -> None:
    w = w | {"half": torch.ones(4, dtype=torch.bfloat16)}
    changed = [
        w | {"lora/a": w["lora/a"] + 1e-6},
        w | {"lora/b": w["lora/b"].T},
        w | {"half": torch.ones(2, 2, dtype=torch.bfloat16)},
        w | {"half": torch.ones(4, dtype=torch.float16)},
        weights.drop(w, "half") | {"other": w["half"]},
        w | {"head/bias": -w["head/bias"]},
    ]
    sums = {weights.checksum(one) for one in [w, *changed]}
    assert len(sums) == 1 + len(changed)
    assert weights.checksum(weights.clone(dict(reversed(list(w.items()))))) == weights.checksum(w)


def test_checksum_tells_what_equal_tells() -> None:
    # −0.0 == 0.0 for torch.equal but not for bytes; NaN is the other way round.
    zero, minus = {"x": torch.tensor([0.0])}, {"x": torch.tensor([-0.0])}
    assert weights.equal(zero, minus) == (weights.checksum(zero) == weights.checksum(minus))


def test_expanded_numbers_are_compared_as_any_others() -> None:
    one, other = torch.tensor(2.0), torch.tensor([2.0, 2.0])
    for tasks in (1, 2):
        assert weights.equal({"x": one.expand(tasks)}, {"x": other[:tasks]})
        assert not weights.equal({"x": one.expand(tasks)}, {"x": 3 * other[:tasks]})


def test_equal_tells_types_and_shapes_apart() -> None:
    one = {"x": torch.ones(2)}
    assert not weights.equal(one, {"x": torch.ones(2, dtype=torch.float64)})
    assert not weights.equal(one, {"x": torch.ones(2, 1)})
    assert not weights.equal(one, {"y": torch.ones(2)})
