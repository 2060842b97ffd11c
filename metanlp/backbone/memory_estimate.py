"""Memory that a run needs, estimated before anything heavy is loaded.

**Frozen weights**, exact. fp32 takes 4 bytes a weight, bf16 2. Of quantised models the linear layers take, in 8 bits, 1
byte a weight and 4 an output; in 4 bits half a byte a weight, 1 a block of 64 weights, 4 a block of 256 blocks, and 4.

**Learned weights**, n adapter weights of 4 bytes: θ, its gradient and two moments of AdamW; for φ of an episode its
start, value, gradient and their difference; and n weights of the model's type, with which it is called. Beside them the
heads of training tasks.

**A pass** keeps P tokens × S × 4 bytes × `KEPT`, where S is the sum of inputs and outputs over the linear layers of all
adapted layers. Measured on 13 tiny architectures: 0.9 to 2.4 times P × S × 4 with adapters on all linear layers, 0.5 to
1.9 on attention only. With gradient checkpoints P is `PART` tokens and a row, and so it is for passes of more than
`WHOLE` tokens on CPUs; but one layer's inputs and outputs are there for all tokens, and in 8 bits the inputs of all
linear layers.

**Inner steps of second order** stay until the end, checkpoints or not: 2.1 to 2.7 times what their pass keeps.

**The store** holds a state of the model's type for each token of the training rows, 8 bytes that it is known by, and
fp32 vectors of the frozen views for each text; as far as it may.

Left out: Python and its libraries, about 0.5 GB; hidden states that a test keeps; what an allocator keeps of freed
tensors (MiniLM on a CPU: as much again, unless MALLOC_MMAP_THRESHOLD_=65536).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import psutil
import torch
from torch import nn

from metanlp.backbone import lora
from metanlp.backbone import quantize as bits
from metanlp.backbone.families import family_of, tried
from metanlp.backbone.options import Options
from metanlp.backbone.packing import PART, WHOLE
from metanlp.backbone.views import adapter_sets, default_views
from metanlp.core.errors import InputError

KEPT = 2.4  # of S: the most that autograd was seen to keep
STEP = 2.75  # of what a pass keeps: the most for an inner step that will be differentiated


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes."""

    weights: int  # frozen
    learned: int  # adapters, gradients, optimizer
    activations: int  # of the largest pass with gradients and its inner steps, at most
    passes: int = 1  # at a time
    tasks: int = 1  # episodes a pass
    heads: int = 0  # linear heads of training tasks, with their optimizer
    store: int = 0  # of what the frozen model says of training rows, at most

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.heads + self.store + self.passes * self.activations

    def of(self, tasks: int, passes: int) -> MemoryEstimate:
        """The same with so many episodes a pass, and so many passes at a time."""
        more = replace(self, learned=tasks * self.learned, activations=tasks * self.activations)
        return replace(more, passes=passes, tasks=tasks)

    def __str__(self) -> str:
        times = f"{self.passes} × " if self.passes > 1 else ""
        stored = [f"{_gb(self.store)} stored"] if self.store else []
        parts = [f"{_gb(self.weights)} weights", f"{_gb(self.learned + self.heads)} adapters and optimizer", *stored,
                 f"{times}{_gb(self.activations)} a pass"]  # fmt: skip
        return f"about {_gb(self.total)} GB: {', '.join(parts)}"


def estimate(
    model: nn.Module, options: Options, device: torch.device, tokens: int, stepped: int = 0, head_rows: int = 0,
    stored: tuple[int, int] = (0, 0),
) -> MemoryEstimate:  # fmt: skip
    """`model` may be on the meta device. `tokens` are those of the largest pass with gradients, `stepped` those of
    inner steps that are differentiated, `head_rows` the rows of heads, a number for each feature of all views, `stored`
    the texts that a store is to hold, and their tokens."""
    dtype, config = bits.dtype_of(options.precision, device), cast(Any, model).config
    family, depth = family_of(model, config), int(config.num_hidden_layers)
    views = options.views or default_views(depth)
    with tried(config.model_type):
        targets = lora.targets(model, lora.peft_config(options.adapt, family, depth, ""))
    sets = adapter_sets(views)
    learning = sets * options.adapt.rank * sum(sum(bits.sizes(part)) for part in targets)
    layers = list(cast(nn.ModuleList, model.get_submodule(family.layers)))
    # A shared layer is run again and again.
    adapted = layers[:1] * depth if family.shared else layers[options.adapt.lowest(depth) :]
    linear = [[bits.sizes(part) for part in layer.modules() if bits.is_linear(part)] for layer in adapted]
    each = sets * [4 * sum(map(sum, sizes)) for sizes in linear]  # bytes a token of a layer's inputs and outputs
    in_parts = device.type == "cpu" and family.packed and not stepped
    most = PART + options.max_length if options.gradient_checkpoint else WHOLE if in_parts else tokens
    kept = max(round(min(tokens, most) * sum(each) * KEPT), tokens * max(each))
    if options.gradient_checkpoint and options.quantize == "8bit":
        kept += tokens * sum(inputs for sizes in linear for inputs, _ in sizes) * dtype.itemsize
    return MemoryEstimate(
        weights=_weights(model, options.quantize, dtype),
        learned=learning * (8 * 4 + dtype.itemsize),
        activations=kept + round(stepped * sum(each) * KEPT * STEP),
        heads=4 * head_rows * len(views) * config.hidden_size,
        store=stored[1] * (config.hidden_size * dtype.itemsize + 8)
        + stored[0] * 4 * config.hidden_size * sum(view.startswith("frozen") for view in views),
    )


def require(needed: MemoryEstimate, device: torch.device) -> None:
    """Raises InputError where `device` has less free memory than that; on CPUs, less than the weights alone need."""
    if device.type == "cuda":
        refuse("the run", needed.total, torch.cuda.mem_get_info(device)[0])
    else:
        refuse("the frozen weights alone", needed.weights, psutil.virtual_memory().available)


def tasks_per_pass(needed: MemoryEstimate, gpu: int, meta_batch: int, processes: int) -> int:
    """Episodes that share a pass: the largest divisor of the meta-batch that fits into four fifths of a GPU's bytes and
    leaves each process a pass. `needed` is for one. 1 where none fits, and on CPUs, where more were not faster."""
    room = (0.8 * gpu - needed.weights) // (needed.learned + needed.activations)
    most = min(room, meta_batch // processes)
    return max((n for n in range(1, meta_batch + 1) if meta_batch % n == 0 and n <= most), default=1)


def of_gpu(device: torch.device) -> int:
    """All bytes of a GPU, free or not, so that the same one always gives the same passes; 0 for a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def refuse(what: str, needed: int, free: int) -> None:
    """Raises InputError where `free` bytes are too few."""
    if needed > free:
        raise InputError(
            f"{what} would take about {_gb(needed)} GB of memory, and {_gb(free)} GB are free; take --quantize 4bit, "
            "--gradient-checkpoint or a smaller --model"
        )


def _weights(model: nn.Module, quantize: bits.Quantize, dtype: torch.dtype) -> int:
    """Bytes of all that is kept of the model; a pooler is not."""
    whole = quantize == "none"
    linear = {} if whole else {id(part.weight): bits.sizes(part) for part in model.modules() if bits.is_linear(part)}
    total = 0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.startswith("pooler."):
            continue
        if id(tensor) in linear:
            total += bits.size_of(*linear[id(tensor)], quantize)
        else:
            cast_to = tensor.is_floating_point() and (whole or isinstance(tensor, nn.Parameter))
            total += tensor.numel() * (dtype if cast_to else tensor.dtype).itemsize
    return total


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}" if count >= 95e6 else f"{count / 1e9:.2f}"
