"""An adapted model as what other libraries have: the pretrained model, the same with its adapter merged by peft, the
tokenizer, and a linear layer on the views."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from metanlp.backbone import lora, phrase
from metanlp.backbone.encoder import Backbone
from metanlp.backbone.models import encoder_of
from metanlp.backbone.phrase import segments_of
from metanlp.backbone.pretrained import Base, base_of, check_same
from metanlp.backbone.tokens import between, columns_of
from metanlp.core.errors import InputError
from metanlp.core.storage import atomic_write
from metanlp.core.types import Weights
from metanlp.forms import DEFAULT, FORMS
from metanlp.forms.base import softmax
from metanlp.learner.artefact import write_adapter
from metanlp.learner.learner import Adapted
from metanlp.share.export.views_classifier import Reading, Scorer
from metanlp.tasks.sources.mini import read_mini

INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # of transformers' models
MOST = 64  # texts that an export is compared by
SEGMENTS = "segments"  # of a token, see `backbone/phrase.py`


@dataclass(frozen=True)
class Parts:
    """Everything is fp32 on the CPU."""

    base: Base
    plain: nn.Module
    merged: tuple[nn.Module, ...]  # for each set of adapters
    tokenizer: Any  # pads on the right
    reading: Reading
    inputs: tuple[str, ...]  # what the scores are computed from
    first_position: int | None  # number of the first token's place; None where the model counts by itself


def parts_of(adapted: Adapted, base: str | None) -> Parts:
    """`base` is another place of the pretrained model. Raises InputError for a model without a linear head."""
    check_exportable(adapted)
    net = encoder_of(adapted.net)
    found = base_of(base) if base else net.base
    check_same(found, {"name": net.name, "sha256": net.base.sha256})
    plain = _load(found)
    merged = tuple(_merged(found, net, lora.one_set(adapted.weights, 1 + n)) for n in range(net.sets))
    tokenizer, reading = found.tokenizer(), reading_of(adapted)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # the mask hides it
    given = [name for name in INPUTS if name in tokenizer("a") and (name != INPUTS[2] or net.family.types)]
    inputs = (*given, *([SEGMENTS] if reading.by_text else []))
    # RoBERTa's own count would pass over a mark for padding that stands in a text.
    first = net.family.first_position(cast(Any, plain).config) if net.family.packed else None
    return Parts(found, plain, merged, tokenizer, reading, inputs, first)


def _merged(base: Base, net: Backbone, adapters: Weights) -> nn.Module:
    """The pretrained model with a set of adapters merged by peft."""
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of layers that a bare model need not have
        write_adapter(Path(scratch), net, adapters)
        return cast(Any, PeftModel.from_pretrained(cast(Any, _load(base)), scratch)).merge_and_unload().eval()


def _load(base: Base) -> nn.Module:
    return base.encoder(dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)


def check_exportable(adapted: Adapted) -> None:
    """Raises InputError."""
    kind = type(adapted.algorithm)
    if not FORMS[adapted.form].single_label:
        raise InputError(f"a model of the form {adapted.form!r} is not exported; only one that classifies is")
    if not kind.linear_head:
        raise InputError(
            f"{kind.__name__} compares texts with its examples, which no linear layer does; export a model of a method "
            "whose head is one, as maml, protonet or finetune"
        )
    if encoder_of(adapted.net).options.quantize != "none":
        raise InputError("the adapter was learned on quantised weights, which no export has; adapt without --quantize")


def reading_of(adapted: Adapted) -> Reading:
    """From hidden states to scores, as `Backbone.features` and a linear head; of single texts, a view of the second
    text, or of a phrase, reads all."""
    net, frozen = encoder_of(adapted.net), not adapted.algorithm.adapters
    views = [view for view in net.views if not (frozen and view.adapted)]
    if not adapted.pairs:
        views = [replace(view, pooling="all") if view.pooling in ("second", "phrase") else view for view in views]
    weight, bias = (adapted.phi[f"head/{name}"][0].float().cpu().clone() for name in ("weight", "bias"))
    return Reading(views, net.width, weight, bias, net.sentence.pooling, net.sentence.dense)


def scorer_of(parts: Parts) -> Scorer:
    """The whole model."""
    return Scorer(parts.plain, parts.merged, parts.reading, parts.first_position)


def padded(parts: Parts, adapted: Adapted, texts: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
    """Texts as inputs of `Scorer`, padded on the right: (B, L) each."""
    options = adapted.net.options
    columns = columns_of(parts.tokenizer, texts, cast(str, options.prompt))
    found = parts.tokenizer(*columns, truncation=True, max_length=options.max_length, padding=True, return_tensors="pt")
    segments = [segments_of(found[n], *text) for n, text in enumerate(zip(*columns, strict=True))]
    given = {**found, SEGMENTS: torch.tensor(segments)}
    return {name: given[name] for name in parts.inputs}


def known_texts(adapted: Adapted) -> list[tuple[str, ...]]:
    """Texts of the embedded tasks, or pairs, as the model reads them: to see how near an export's answers are."""
    field, tasks = "text_a" if adapted.pairs else "text", read_mini()
    rows = [row for task in (*tasks.test, *tasks.train) for row in task.pools["train"] if field in row]
    return [DEFAULT.texts(row)[0] for row in rows[:MOST]]


def agreement(ours: np.ndarray, theirs: np.ndarray) -> str:
    """How near two models' answers are, by their scores (N, K)."""
    same, apart = (ours.argmax(1) == theirs.argmax(1)).sum(), np.abs(softmax(ours) - softmax(theirs)).max()
    return f"answers as before to {same} of {len(ours)} texts, probabilities within {apart:.3f}"


def copy_segments(folder: Path) -> None:
    """`phrase.py`, which tells an export's user which text a token belongs to, as it tells us."""
    atomic_write(folder / "phrase.py", Path(phrase.__file__).read_bytes())


def describe(folder: Path, page: str, said: Mapping[str, Any], config: str | None = None, **words: str) -> None:
    """README.md: the template `page` of this folder, filled with `said` and `words`; and `said` as the JSON file
    `config`."""
    values = {**said, **words, "title": folder.resolve().name}
    values["each"] = "pairs of texts" if said["pairs"] else "single texts"
    values |= {name: ", ".join(f"`{value}`" for value in said[name]) for name in ("labels", "inputs")}
    text = Path(__file__).with_name(page).read_text(encoding="utf-8")
    atomic_write(folder / "README.md", text.format(**values).encode())
    if config:
        atomic_write(folder / config, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())


def settings_of(adapted: Adapted, parts: Parts) -> dict[str, Any]:
    """Settings that every export has."""
    options = adapted.net.options
    return {"labels": list(adapted.labels), "inputs": list(parts.inputs), "pairs": adapted.pairs,
            "prompt": options.prompt, "between": between(parts.tokenizer),
            "max_length": options.max_length}  # fmt: skip
