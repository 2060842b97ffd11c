"""A model with a vocabulary head, called with all of its weights: masked-language-model pretraining.

Letters: P packed tokens, M masked tokens, W words of the vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM
from transformers.modeling_outputs import BaseModelOutput

from metanlp.backbone import quantize as bits
from metanlp.backbone.all_weights import PREFIX, Size, save_whole, seeded, whole
from metanlp.backbone.attention import ATTENTION
from metanlp.backbone.families import FAMILIES, Family
from metanlp.backbone.packing import Packing
from metanlp.backbone.pretrained import Base, base_of, to_be_had
from metanlp.backbone.quantize import Precision
from metanlp.backbone.trunk import Trees, align, record_states
from metanlp.core import weights
from metanlp.core.errors import InputError
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import Batch, MaskedPass, Weights

# What architectures call their dropout, of the whole model or of its attention.
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "embedding_dropout",
            "mlp_dropout", "classifier_dropout_prob")  # fmt: skip
_DRAWS = threading.Lock()  # dropout draws from torch's own generator, which all threads share


class MaskedLM:
    """θ is all weights, `base/…` by the names that they have in the model's own files; tied ones stand there once."""

    view_names: ClassVar[tuple[str, ...]] = ()  # it gives no features
    width: ClassVar[int] = 0

    @own_modes()
    def __init__(
        self, model: nn.Module, tokenizer: Any, name: str, *, sha256: str = "", dropout: float = 0.0, seed: int = 0,
        precision: Precision = "auto", new: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`name` and `sha256` say what the weights are; `new` names those that no file had. Raises InputError for an
        architecture that can't be packed, and a tokenizer without a mask."""
        config = cast(Any, model).config
        family = FAMILIES.get(config.model_type)
        if family is None or not family.packed or family.pooling == "last":
            known = sorted(kind for kind, each in FAMILIES.items() if each.packed and each.pooling != "last")
            raise InputError(f"{name}: a {config.model_type} model can't be pretrained here; take {', '.join(known)}")
        require_mask(tokenizer, name)
        self.name, self.sha256, self.new = name, sha256, tuple(new)
        self.tokenizer, self.dropout, self.seed = tokenizer, dropout, seed
        self.family: Family = family
        self.config = deepcopy(config)  # as it is saved
        model = align(model)
        self.device = next(model.parameters()).device
        self.precision: Precision = bits.decide(precision, self.device)
        for field in DROPOUTS:
            if isinstance(getattr(config, field, None), float):
                setattr(config, field, dropout)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = dropout
        config.use_cache = False
        cast(Any, model).set_attn_implementation(ATTENTION)
        self._body: str = cast(Any, model).base_model_prefix
        record_states(model, f"{self._body}.{family.layers}")
        model.get_submodule(self._body).register_forward_hook(_at_places, with_kwargs=True)
        self._model = model.train(dropout > 0).requires_grad_(False)
        self._trees = Trees(self._model)

    @staticmethod
    @own_modes()
    def load(name: str, *, dropout: float = 0.0, seed: int = 0, precision: Precision = "auto",
             device: torch.device | str = "cpu") -> MaskedLM:  # fmt: skip
        """A checkpoint: `minilm`, a folder, or an id on the Hub. One without a vocabulary head gets a new one, tied to
        its embeddings. Raises InputError where it can't be loaded."""
        model, tokenizer, base, missing = opened(name, seed)
        return MaskedLM(model.to(device), tokenizer, base.name, sha256=base.sha256, dropout=dropout, seed=seed,
                        precision=precision, new=missing)  # fmt: skip

    @staticmethod
    @own_modes()
    def make(tokenizer: Any, size: Size, max_length: int, *, dropout: float = 0.0, seed: int = 0,
             precision: Precision = "auto", device: torch.device | str = "cpu") -> MaskedLM:  # fmt: skip
        """A new BERT: the same weights for the same `seed`."""
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            max_position_embeddings=max(512, max_length),
            pad_token_id=tokenizer.pad_token_id,
        )
        with seeded(seed, torch.device("cpu")):
            model = cast(nn.Module, BertForMaskedLM(config))
        name = f"bert-{size.layers}-layers-{size.width}"
        return MaskedLM(model.to(torch.device(device)), tokenizer, name, dropout=dropout, seed=seed,
                        precision=precision)  # fmt: skip

    @property
    def most(self) -> int:
        """The longest text that it can read, in tokens."""
        return self.config.max_position_embeddings - self.family.first_position(self.config)

    @property
    def vocabulary(self) -> tuple[int, np.ndarray]:
        """Id of the mask, and ids of what may stand in for a word."""
        return words_of(self.tokenizer)

    def init(self, generator: torch.Generator) -> Weights:
        """The weights as they were loaded or made."""
        return whole(self._model)

    def identity(self) -> dict[str, Any]:
        """All that decides what it computes, but its weights."""
        return {"base": {"name": self.name, "sha256": self.sha256}, "config": self.config.to_diff_dict(),
                "dropout": self.dropout, "dropout seed": self.seed, "precision": self.precision}  # fmt: skip

    def logits(self, theta: Weights, given: MaskedPass) -> Tensor:
        """Scores of the words at the masked places: (M, W)."""
        batch, tree = given.batch.to(self.device), self._trees.mine()[0]
        places = given.places.to(self.device)
        packing = Packing(batch, places=places)
        first = self.family.first_position(self.config)
        inputs = {"input_ids": batch.ids[None], "position_ids": batch.positions[None] + first, "packing": packing}
        inputs |= {"token_type_ids": batch.types[None]} if self.family.types else {}
        half = bits.dtype_of(self.precision, self.device)
        w = {name: value.to(half) for name, value in weights.pick_inside(theta, PREFIX).items()}
        with self._drawing(given.number):
            out = functional_call(tree, w, args=(), kwargs=inputs)
        if len(packing.attended) != len(packing.states):
            raise RuntimeError(f"{self.name}: its attention is not ours; texts of a pack would see each other")
        return out.logits[0].float()

    def loss(self, theta: Weights, given: MaskedPass) -> Tensor:
        """Mean negative log-likelihood of the masked tokens, in nats: ()."""
        return nn.functional.cross_entropy(self.logits(theta, given), given.targets.to(self.device))

    def work(self, batch: Batch, passes: int) -> int:
        """Tokens through the whole stack, `passes` times forward or backward."""
        return passes * batch.count_tokens

    def save(self, theta: Weights, folder: Path) -> None:
        """A folder that `AutoModelForMaskedLM` and `AutoTokenizer` open."""
        save_whole(type(self._model), self.config, theta, self.tokenizer, folder)

    @contextmanager
    def _drawing(self, number: int) -> Generator[None]:
        """Dropout of a pass is a function of its number."""
        if not self.dropout:
            yield
            return
        with _DRAWS, seeded(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]), self.device):
            yield


def opened(name: str, seed: int) -> tuple[nn.Module, Any, Base, list[str]]:
    """A checkpoint with its vocabulary head, its tokenizer, which weights it has, and the names of those that no file
    had. Raises InputError where it can't be loaded."""
    base = base_of(name)
    with to_be_had(name), seeded(seed, torch.device("cpu")):  # of a new head
        model, missing = base.model(AutoModelForMaskedLM, dtype=torch.float32)
        tokenizer = base.tokenizer()
    return model, tokenizer, base, missing


def require_mask(tokenizer: Any, name: str) -> None:
    """Raises InputError for a tokenizer without a mask."""
    if tokenizer.mask_token_id is None:
        raise InputError(f"{name}: its tokenizer has no mask token; take a model that was made with masked words")


def words_of(tokenizer: Any) -> tuple[int, np.ndarray]:
    """Id of the mask, and ids of what may stand in for a word."""
    special = set(tokenizer.all_special_ids)
    ordinary = [token for token in range(len(tokenizer)) if token not in special]
    return tokenizer.mask_token_id, np.array(ordinary)


class Given(nn.Module):
    """In place of a model's body: returns the states that come in."""

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=cast(Any, inputs_embeds))


def vocabulary_head(model: nn.Module) -> nn.Module:
    """The head alone, frozen: called with `inputs_embeds`, last hidden states, it gives `logits`. Its weights are its
    own, also those that are tied to the embeddings."""
    body, prefix = cast(Any, model).base_model, cast(Any, model).base_model_prefix
    setattr(model, prefix, Given())
    head = deepcopy(model)
    setattr(model, prefix, body)
    return head.eval().requires_grad_(False)


def _at_places(_: nn.Module, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """The states of the masked tokens alone, so that the vocabulary head runs on no other: a seventh of its work."""
    packing: Packing = kwargs["packing"]
    output.last_hidden_state = output.last_hidden_state.index_select(1, cast(Tensor, packing.places))
    return output
