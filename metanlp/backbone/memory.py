"""What a run needs of memory, said before anything heavy is loaded.

**Frozen weights**, to the byte. fp32 takes 4 bytes a weight, bf16 2. Quantised are the linear layers only: in 8 bits a
byte a weight and 4 an output; in 4 bits half a byte a weight, 1 for each block of 64 weights (their scale), 4 for each
block of 256 scales and 4 for their mean. The lookup tables, about 1 kB, are left out.

**What learns**, n adapter weights of 4 bytes: θ, its gradient and the two moments of AdamW; as much again for φ of an
episode: where it starts, where it is, its gradient and the difference. And n weights of the model's own kind, in whose
place they are called.

**A pass**: P tokens × S × 4 bytes × `KEPT`, where S is the sum of (inputs + outputs) over all linear layers of the
adapted part of the stack. An adapter keeps its input in fp32; attention, norms and activation functions keep about as
much as the layers give. What autograd kept of 13 tiny architectures, packed, was 0.9 to 2.4 times P × S × 4 bytes with
adapters on all linear layers, and 0.5 to 1.9 with adapters on attention only: `KEPT` is the most. With gradient
checkpoints a pass is computed in parts, so that P is `PART` tokens and a row; but inputs and outputs of one layer are
there for all tokens, in passes without gradients, and in 8 bits the inputs of all linear layers, which bitsandbytes
keeps where checkpoints don't reach.

**Inner steps of second order**: their passes stay until the end, and what runs back through them stays too, as it will
be differentiated. A step kept 2.1 to 2.7 times what the pass alone does: `STEP` is the most. Checkpoints save nothing
of it: what they compute again is then part of the graph.

Left out: Python and its libraries, about 0.5 GB; hidden states that a test keeps of its rows; and what an allocator
keeps of freed tensors: with MiniLM on a CPU up to as much again, unless MALLOC_MMAP_THRESHOLD_=65536 is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import psutil
import torch
from torch import nn

from metanlp.backbone import bits, lora
from metanlp.backbone.families import family_of
from metanlp.backbone.options import Options
from metanlp.backbone.packing import PART
from metanlp.errors import InputError

KEPT = 2.4  # of S: the most that autograd was seen to keep
STEP = 2.75  # by what a pass keeps: the most that an inner step keeps which will be differentiated


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: int  # frozen
    learned: int  # adapters, gradients, optimizer
    activations: int  # of the largest pass with gradients, inner steps and all: an upper estimate
    passes: int = 1  # at a time
    tasks: int = 1  # episodes a pass

    @property
    def total(self) -> int:
        return self.weights + self.learned + self.passes * self.activations

    def of(self, tasks: int, passes: int) -> Memory:
        """The same where a pass has so many episodes, and so many passes run at a time."""
        return Memory(self.weights, tasks * self.learned, tasks * self.activations, passes, tasks)

    def __str__(self) -> str:
        times = f"{self.passes} × " if self.passes > 1 else ""
        parts = (f"{_gb(self.weights)} weights", f"{_gb(self.learned)} adapters and optimizer",
                 f"{times}{_gb(self.activations)} a pass")  # fmt: skip
        return f"about {_gb(self.total)} GB: {', '.join(parts)}"


def estimate(model: nn.Module, options: Options, device: torch.device, tokens: int, stepped: int = 0) -> Memory:
    """`model` may be without its weights, on the meta device; `tokens` are those of the largest pass with gradients,
    `stepped` those of inner steps that are differentiated themselves."""
    dtype, config = bits.dtype_of(options.precision, device), cast(Any, model).config
    family, depth = family_of(model, config), int(config.num_hidden_layers)
    targets = lora.targets(model, lora.peft_config(options.adapt, family, depth, ""))
    learning = options.adapt.rank * sum(sum(bits.sizes(part)) for part in targets)
    layers = list(cast(nn.ModuleList, model.get_submodule(family.layers)))
    # A shared layer is run again and again.
    adapted = layers[:1] * depth if family.shared else layers[options.adapt.lowest(depth) :]
    linear = [[bits.sizes(part) for part in layer.modules() if bits.is_linear(part)] for layer in adapted]
    return Memory(
        weights=_weights(model, options.quantize, dtype),
        learned=learning * (8 * 4 + dtype.itemsize),
        activations=_activations(linear, options, dtype, tokens) + _steps(linear, stepped),
    )


def require(needed: Memory, device: torch.device) -> None:
    """Raises InputError where `device` has less free memory than that; on CPUs, less than the weights alone need."""
    if device.type == "cuda":
        refuse("the run", needed.total, torch.cuda.mem_get_info(device)[0])
    else:
        refuse("the frozen weights alone", needed.weights, psutil.virtual_memory().available)


def tasks_per_pass(needed: Memory, gpu: int, meta_batch: int, processes: int) -> int:
    """How many episodes of a meta-batch share a call of the model: a divisor of it, the largest that fits into four
    fifths of a GPU's bytes and leaves each process a pass. `needed` is for one episode a pass. 1 where none fits, and
    on CPUs, where larger passes were not faster."""
    room = (0.8 * gpu - needed.weights) // (needed.learned + needed.activations)
    most = min(room, meta_batch // processes)
    return max((n for n in range(1, meta_batch + 1) if meta_batch % n == 0 and n <= most), default=1)


def of_gpu(device: torch.device) -> int:
    """All bytes of a GPU, so that the same one always gives the same passes; 0 for a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def refuse(what: str, needed: int, free: int) -> None:
    """Raises InputError where `free` bytes are too few."""
    if needed > free:
        raise InputError(
            f"{what} would take about {_gb(needed)} GB of memory, and {_gb(free)} GB are free; take --quantize 4bit, "
            "--gradient-checkpoint or a smaller --model"
        )


def _weights(model: nn.Module, quantize: bits.Quantize, dtype: torch.dtype) -> int:
    """Of all that is kept of the model; a pooler is not."""
    whole = quantize == "none"
    linear = {} if whole else {id(part.weight): bits.sizes(part) for part in model.modules() if bits.is_linear(part)}
    total = 0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.startswith("pooler."):
            continue
        if id(tensor) in linear:
            total += _quantised(*linear[id(tensor)], quantize)
        elif tensor.is_floating_point() and (whole or isinstance(tensor, nn.Parameter)):
            total += tensor.numel() * dtype.itemsize
        else:
            total += tensor.numel() * tensor.element_size()
    return total


def _quantised(inputs: int, outputs: int, quantize: bits.Quantize) -> int:
    """Bytes of one linear layer without its bias."""
    if quantize == "8bit":
        return inputs * outputs + 4 * outputs
    scales = -(-inputs * outputs // bits.BLOCK)
    return -(-inputs * outputs // 2) + scales + 4 * -(-scales // bits.BLOCK_OF_BLOCKS) + 4


def _activations(layers: Sequence[Sequence[tuple[int, int]]], options: Options, dtype: torch.dtype, tokens: int) -> int:
    """`layers` are the adapted ones: inputs and outputs of each of their linear layers."""
    each = [sum(map(sum, linear)) for linear in layers]
    at_once = min(tokens, PART + options.max_length) if options.gradient_checkpoint else tokens
    kept = max(round(at_once * sum(each) * 4 * KEPT), tokens * max(each) * 4)
    if options.gradient_checkpoint and options.quantize == "8bit":
        kept += tokens * sum(inputs for linear in layers for inputs, _ in linear) * dtype.itemsize
    return kept


def _steps(layers: Sequence[Sequence[tuple[int, int]]], tokens: int) -> int:
    return round(tokens * sum(sum(map(sum, linear)) for linear in layers) * 4 * KEPT * STEP)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}" if count >= 95e6 else f"{count / 1e9:.2f}"
