"""A pretrained model with its vocabulary head, frozen but for adapters with a task axis: what domains of text teach.

Letters: P packed tokens, N masked tokens, W words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from metanlp.backbone.encoder import Backbone
from metanlp.backbone.families import tried
from metanlp.backbone.lora import Lora
from metanlp.backbone.masked_lm import opened, require_mask, vocabulary_head, words_of
from metanlp.backbone.options import Options
from metanlp.backbone.pretrained import Base
from metanlp.backbone.quantize import Precision
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Batch, Weights


class VocabularyBackbone:
    """A backbone whose features of a masked token are its scores by the model's own vocabulary head: one view of W
    numbers. Its batches have masked tokens as units."""

    @own_modes()
    def __init__(
        self, model: nn.Module, tokenizer: Any, options: Options, *, base: Base | str, new: Sequence[str] = ()
    ) -> None:
        """`model` is one of transformers' for masked language modelling; `new` names weights that no file had. The
        views of `options` are of no account. Raises InputError for a tokenizer without a mask, or a model that can't be
        adapted."""
        config = cast(Any, model).config
        require_mask(tokenizer, base if isinstance(base, str) else base.name)
        self._head = vocabulary_head(model)
        read = Options(options.adapt, (f"adapted.{config.num_hidden_layers}.all",), options.precision,
                       options.max_length, prompt="")  # fmt: skip
        self._body = Backbone(cast(Any, model).base_model, tokenizer, read, base=base)
        self.tokenizer, self.new, self.width = tokenizer, tuple(new), int(config.vocab_size)
        self.name, self.device = self._body.name, self._body.device

    @staticmethod
    @own_modes()
    def load(
        name: str, adapt: Lora | None = None, *, max_length: int = 128, seed: int = 0, precision: Precision = "auto",
        device: torch.device | str = "cpu",
    ) -> VocabularyBackbone:  # fmt: skip
        """A checkpoint: `minilm`, a folder, or an id on the Hub. One without a vocabulary head gets a new one, tied to
        its embeddings, which nothing here teaches. Raises InputError where it can't be loaded."""
        model, tokenizer, base, new = opened(name, seed)
        options = Options(adapt or Lora(), precision=precision, max_length=max_length)
        with tried(cast(Any, model).config.model_type):
            return VocabularyBackbone(model.to(device), tokenizer, options, base=base, new=new)

    @property
    def view_names(self) -> tuple[str, ...]:
        return ("adapted.vocabulary",)

    @property
    def vocabulary(self) -> tuple[int, np.ndarray]:
        """Id of the mask, and ids of what may stand in for a word."""
        return words_of(self.tokenizer)

    def identity(self) -> dict[str, Any]:
        """All that decides what it computes, but its adapters."""
        return {"base": {"name": self.name, "sha256": self._body.base.sha256}, "backbone": to_json(self._body.options)}

    def init(self, generator: torch.Generator) -> Weights:
        return self._body.init(generator)

    def with_trunk(self, batch: Batch) -> Batch:
        return self._body.with_trunk(batch)

    def features(self, w: Weights, batch: Batch) -> Tensor:
        """Scores of the words at each masked token: (N, 1, W), fp32."""
        states = self._body.features(w, batch)[:, 0]
        return self._head(inputs_embeds=states[None]).logits[0][:, None]

    def work(self, batch: Batch, passes: int) -> int:
        """As of a backbone: the vocabulary head, which reads masked tokens alone, is not counted."""
        return self._body.work(batch, passes)
