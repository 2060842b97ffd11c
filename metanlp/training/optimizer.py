"""AdamW over Weights (Loshchilov & Hutter 2019), torch's own, with its state as named tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metanlp.core.types import Weights
from metanlp.core.weights import clone, detach, norm, pick_inside, scale

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class OuterOptimizer:
    """Holds θ while it learns."""

    def __init__(self, theta: Weights, weight_decay: float) -> None:
        self._parameters = {key: nn.Parameter(value.clone()) for key, value in theta.items()}
        self._adamw = torch.optim.AdamW(self._parameters.values(), lr=0.0, weight_decay=weight_decay)

    @property
    def parameters(self) -> Weights:
        """θ as it is now; the next step changes it in place."""
        return detach(dict(self._parameters))

    @property
    def theta(self) -> Weights:
        """θ as it is now, copied: the next step does not change it."""
        return clone(self.parameters)

    def step(self, grad: Weights, rate: float) -> None:
        """One update; a key that `grad` lacks does not move."""
        for key, parameter in self._parameters.items():
            parameter.grad = grad.get(key)
        self._adamw.param_groups[0]["lr"] = rate
        self._adamw.step()

    def grow(self, rows: int) -> None:
        """Append rows of zeros to every tensor and to its moments, as if they had been there from the first step."""
        for parameter in self._parameters.values():
            state = self._adamw.state.get(parameter, {})
            parameter.grad = None
            parameter.data = _longer(parameter.data, rows)
            state |= {key: _longer(state[key], rows) for key in MOMENTS if key in state and key != "step"}

    def tensors(self) -> dict[str, Tensor]:
        """θ and the optimizer's moments, copied: `theta/KEY`, `exp_avg/KEY`, …"""
        found = {f"theta/{key}": parameter.detach().clone() for key, parameter in self._parameters.items()}
        for key, parameter in self._parameters.items():
            state = self._adamw.state.get(parameter, {})
            found |= {
                f"{moment}/{key}": torch.as_tensor(state[moment]).clone() for moment in MOMENTS if moment in state
            }
        return found

    def restart(self, theta: Weights) -> None:
        """Go on from `theta`, without moments."""
        self.restore({f"theta/{key}": value for key, value in theta.items()})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        self._adamw.state.clear()
        for key, value in pick_inside(tensors, "theta/").items():
            with torch.no_grad():
                self._parameters[key].copy_(value)
        for moment in MOMENTS:
            for key, value in pick_inside(tensors, f"{moment}/").items():
                parameter = self._parameters[key]
                # torch keeps the step count on the CPU; on the device it would cost a sync each step.
                kept = value.cpu() if moment == "step" else value
                self._adamw.state[parameter][moment] = kept.clone()


def clipped(grad: Weights, length: float) -> Weights:
    """The gradient, shortened to `length` where it is longer (Pascanu, Mikolov & Bengio 2013)."""
    return scale(grad, torch.clamp(length / norm(grad).clamp(min=1e-12), max=1.0))


def _longer(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(rows, *x.shape[1:])])
