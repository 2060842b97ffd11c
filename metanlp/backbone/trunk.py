"""The trunk: layers below the lowest adapter never change, so that their output is computed once and reused."""

from __future__ import annotations

import copy
from threading import get_ident
from typing import Any, cast

from torch import Tensor, nn

from metanlp.backbone import quantize as bits
from metanlp.backbone.packing import Packing
from metanlp.core import weights


def twin(model: nn.Module) -> nn.Module:
    """A second module tree, with its own configuration, that shares all tensors."""
    return copy.deepcopy(model, memo=bits.shared(model))


def align(model: nn.Module) -> nn.Module:
    """Moves the model's tensors out of a file's pages to where torch itself would put them."""
    for tensor in (*model.parameters(), *model.buffers()):
        found = weights.aligned({"": tensor.data})[""]
        if found is not tensor.data:
            tensor.data = found
    return model


class Trees:
    """Module trees, with a twin of each for every thread: `functional_call` swaps weights into modules, which threads
    therefore can't share."""

    def __init__(self, *trees: nn.Module) -> None:
        self._trees, self._of_thread = trees, dict[int, tuple[nn.Module, ...]]()

    def mine(self) -> tuple[nn.Module, ...]:
        """Those of this thread."""
        if get_ident() not in self._of_thread:
            self._of_thread[get_ident()] = tuple(map(twin, self._trees))
        return self._of_thread[get_ident()]

    def __getstate__(self) -> dict[str, Any]:
        return {"_trees": self._trees, "_of_thread": {}}


class Skipped(nn.Module):
    """In place of a layer: returns the trunk's states, whatever comes in."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)  # some models ask their layers for the mask's kind

    def forward(self, _: Tensor, *__: object, packing: Packing, **___: object) -> Tensor:
        assert packing.recall is not None
        return packing.recall


def skip_layers(tree: nn.Module, path: str, count: int) -> None:
    """Replace the first `count` layers; the names of the others stay."""
    layers = cast(nn.ModuleList, tree.get_submodule(path))
    for number in range(count):
        layers[number] = Skipped(layers[number])


def record_states(tree: nn.Module, path: str) -> None:
    """Every layer appends its output to the call's `packing.states`."""
    for layer in cast(nn.ModuleList, tree.get_submodule(path)):
        layer.register_forward_hook(_record, with_kwargs=True)


def _record(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Any) -> None:
    packing: Packing = kwargs["packing"]
    packing.states.append(output[0] if isinstance(output, tuple) else output)
