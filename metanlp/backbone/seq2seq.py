"""A model that writes with an encoder and a decoder: T5, BART, Marian and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel

from metanlp.backbone.all_weights import Size, seeded
from metanlp.backbone.grids import SOURCE, TARGET, Grids
from metanlp.backbone.lora import Lora
from metanlp.backbone.writer import Writer, paired
from metanlp.core.errors import InputError
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Tokens


class Seq2Seq(Writer):
    """The encoder reads sources, the decoder what stands before each token of a target."""

    opens: ClassVar[Any] = "AutoModelForSeq2SeqLM"
    use: ClassVar[str] = "SEQ_2_SEQ_LM"

    def __init__(self, model: nn.Module, tokenizer: Any, adapt: Lora | None, **options: Any) -> None:
        super().__init__(model, tokenizer, adapt, **options)
        self._sides = self._sides_of(self._layers)

    @staticmethod
    @own_modes()
    def make(
        tokenizer: Any, size: Size, max_length: int, *, seed: int, prompt: str = "", device: torch.device | str = "cpu"
    ) -> Seq2Seq:
        """A new Marian of `size.layers` layers on either side, all of whose weights learn: the same for the same
        `seed`."""
        layers: dict[str, Any] = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in (
            ("layers", size.layers), ("attention_heads", size.heads), ("ffn_dim", 4 * size.width))}  # fmt: skip
        config = MarianConfig(
            vocab_size=len(tokenizer), d_model=size.width, max_position_embeddings=max_length + 8, dropout=0.0,
            scale_embedding=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id, forced_eos_token_id=tokenizer.eos_token_id, **layers,
        )  # fmt: skip
        with seeded(seed, torch.device("cpu")):
            model = cast(nn.Module, MarianMTModel(config))
        name = f"marian-{size.layers}-layers-{size.width}"
        return Seq2Seq(model.to(torch.device(device)), tokenizer, None, base=name, max_length=max_length, prompt=prompt)

    def encode(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[Tokens, np.ndarray]:
        read, told = self._read(sources), self._ids("text_target", targets)
        own = cast(int, self.config.decoder_start_token_id)
        begin = self.begins().get("decoder_start_token_id", own)
        return paired(read, [[begin, *ids[:-1]] for ids in told]), np.concatenate(told).astype(np.int64)

    # inside

    @property
    def padding(self) -> int:
        return self.config.pad_token_id

    def _inputs(self, grids: Grids) -> tuple[dict[str, Tensor], Tensor]:
        told = grids.mask(TARGET)
        return {"input_ids": grids.ids(SOURCE), "attention_mask": grids.mask(SOURCE),
                "decoder_input_ids": grids.ids(TARGET), "decoder_attention_mask": told}, told  # fmt: skip

    def _ends(self, grids: Grids) -> dict[str, Tensor]:
        ends = {side: grids.ends(side) for side in (SOURCE, TARGET)}
        return {f"{layer}.ends": ends[side] for layer, side in self._sides.items()}

    def _check(self, config: Any, head: Any) -> None:
        if not getattr(config, "is_encoder_decoder", False) or not isinstance(head, nn.Linear):
            raise InputError(f"{self.name}: a {config.model_type} model has no encoder and decoder with a vocabulary; "
                             "take T5, mT5, BART, mBART, Marian or their kin")  # fmt: skip
        if config.decoder_start_token_id is None and not self._codes:
            raise InputError(f"{self.name}: its configuration has no decoder_start_token_id, so that nobody knows how "
                             "a target begins; set it, or take another model")  # fmt: skip

    def begins(self) -> dict[str, int]:
        """A target's language, where the tokenizer has tokens for them: the first token that is written; or, as mBART's
        puts it behind a target, what stands before the first."""
        if not self._codes:
            return {}
        code = self._codes[self.languages[1]]
        self._speak()
        behind = self.tokenizer(text_target="a")["input_ids"][-1] == code
        return {"decoder_start_token_id" if behind else "forced_bos_token_id": code}

    def _sides_of(self, layers: Sequence[str]) -> dict[str, int]:
        """Whether a layer with an adapter reads sources or targets, as seen in one call: keys and values of the
        attention from a decoder to its encoder read sources. Raises InputError where a layer reads something else."""
        rows, found, tree = {7: SOURCE, 5: TARGET}, dict[str, int](), self._trees.mine()[0]

        def look(layer: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            count = inputs[0].shape[:-1].numel()
            if count not in rows:
                raise InputError(f"{self.name}: not only texts go through its layer {layer}; take another model")
            found[layer] = rows[count]

        hooks = [tree.get_submodule(layer).register_forward_pre_hook(partial(look, layer)) for layer in layers]
        with torch.no_grad():
            tree(**{name: torch.ones(1, count, dtype=torch.long, device=self.device)
                    for name, count in zip(("input_ids", "decoder_input_ids"), rows, strict=True)})  # fmt: skip
        for hook in hooks:
            hook.remove()
        return found
