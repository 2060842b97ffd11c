"""PyTorch's modes are global or a thread's; what is computed here must not depend on those that a caller has set."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch

AUTOCAST = ("cpu", "cuda", "mps")


@contextmanager
def own_modes() -> Generator[None]:
    """Inside (a block, or a function that is decorated), PyTorch is as in a fresh process: gradients are recorded, no
    inference mode, no autocast, float32 and the CPU are the defaults. The caller's modes come back afterwards."""
    dtype = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in filter(torch.is_autocast_enabled, AUTOCAST):
            modes.enter_context(torch.autocast(device, enabled=False))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            modes.callback(torch.set_default_dtype, dtype)
        if torch.get_default_device().type != "cpu":  # this mode slows every call, so it is entered where it is needed
            modes.enter_context(torch.device("cpu"))
        yield
