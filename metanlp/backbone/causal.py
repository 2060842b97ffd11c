"""A model that writes with a decoder alone, after a prompt: GPT-2, Llama, Qwen and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.backbone.grids import BOTH, Grids
from metanlp.backbone.lora import Lora
from metanlp.backbone.writer import Writer, paired
from metanlp.core.errors import InputError
from metanlp.core.types import Tokens


class Causal(Writer):
    """A source is a prompt, and its target follows it on the same line of tokens, up to the end of text. The last token
    of a prompt is read beside the target's, as it tells the first of them. Of a prompt that is too long the end is
    read."""

    opens: ClassVar[Any] = "AutoModelForCausalLM"
    use: ClassVar[str] = "CAUSAL_LM"
    joined: ClassVar[int] = 2  # a source and its target

    def __init__(self, model: nn.Module, tokenizer: Any, adapt: Lora | None, **options: Any) -> None:
        tokenizer = deepcopy(tokenizer)
        if tokenizer.eos_token_id is None:
            raise InputError("the model's tokenizer has no end of text, so that nobody knows where a target ends")
        tokenizer.padding_side = tokenizer.truncation_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = tokenizer.eos_token_id
        self._filler = int(tokenizer.pad_token_id)
        super().__init__(model, tokenizer, adapt, **options)
        self._check_order()

    def encode(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[Tokens, np.ndarray]:
        """Raises InputError for a prompt of one token, of which nothing is left to be read before."""
        prompts = self._read(sources)
        if short := [source for source, ids in zip(sources, prompts, strict=True) if len(ids) < 2]:
            raise InputError(f"{short[0]!r} is a prompt of one token; put words before it with --prefix")
        bare = self.tokenizer([f" {text}" for text in targets], add_special_tokens=False)["input_ids"]
        told = [[*ids[: self.max_length - 1], self.tokenizer.eos_token_id] for ids in bare]
        given = [[prompt[-1], *ids[:-1]] for prompt, ids in zip(prompts, told, strict=True)]
        return paired([ids[:-1] for ids in prompts], given), np.concatenate(told).astype(np.int64)

    # inside

    @property
    def padding(self) -> int:
        return self._filler

    def _check(self, config: Any, head: Any) -> None:
        if getattr(config, "is_encoder_decoder", False) or not isinstance(head, nn.Linear):
            raise self._refusal(config)

    def _check_order(self) -> None:
        """Raises InputError where what comes after a token changes what is said of it: such a model does not write."""
        ids = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 2]], device=self.device)
        with torch.no_grad():
            first, second = self._trees.mine()[0](input_ids=ids).logits[:, :3]
        if not torch.allclose(first, second, atol=1e-5 * float(first.abs().max())):
            raise self._refusal(self.config)

    def _refusal(self, config: Any) -> InputError:
        known = "take GPT-2, Llama, Qwen or their kin"
        return InputError(f"{self.name}: a {config.model_type} model does not write after a prompt; {known}")

    def _inputs(self, grids: Grids) -> tuple[dict[str, Tensor], Tensor]:
        return {"input_ids": grids.ids(BOTH), "attention_mask": grids.mask(BOTH)}, grids.told

    def _ends(self, grids: Grids) -> dict[str, Tensor]:
        ends = grids.ends(BOTH)
        return {f"{layer}.ends": ends for layer in self._layers}

    def _written(self, ids: Tensor, read: int) -> Tensor:
        return ids[:, read:]
