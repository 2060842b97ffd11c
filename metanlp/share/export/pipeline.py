"""A folder that `transformers.pipeline("text-classification", …)` opens.

Of a model whose only view is what its architecture's own classifier reads, the first token of the last layer, it is
such a classifier. Its extra layer is set to the identity. It does not normalise vectors as our head does, but divides
by their mean length over texts: scores are near ours, not equal; how near is measured.

Of a model with other views it is a classifier of our own, equal to the model, whose code travels in the folder. That is
only where it is asked for, as whoever opens it has to trust code that came with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from metanlp.backbone.models import encoder_of
from metanlp.backbone.tokens import between
from metanlp.backbone.views import View
from metanlp.core.errors import InputError
from metanlp.core.storage import disk
from metanlp.learner.learner import Adapted
from metanlp.share.export.plain import Parts, agreement, describe, known_texts, padded, scorer_of, settings_of
from metanlp.share.export.views_classifier import ViewsClassifier, ViewsConfig

# architecture -> the layer before the linear one, the linear one, and what bends the numbers between them
CLASSIFIERS: dict[str, tuple[str, str, Literal["tanh", "gelu", "relu"]]] = {
    "bert": ("bert.pooler.dense", "classifier", "tanh"),
    "albert": ("albert.pooler", "classifier", "tanh"),
    "roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "electra": ("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": ("pre_classifier", "classifier", "relu"),
}
SMALL, FAR = 1e-3, 50.0  # tanh is straight near zero, gelu and relu far above it
SINGLE = {"example": '["keyboard has three dead keys"]'}
PAIRS = {"example": '[{"text": "a man plays a guitar", "text_pair": "somebody makes music"}]'}


def write_pipeline(adapted: Adapted, parts: Parts, folder: Path, *, custom_code: bool = False) -> str:
    """How near its answers are. Raises InputError where its architecture's classifier reads something else, unless the
    code that reads it may come along."""
    check_takes_texts(adapted, parts)
    if custom_code:
        return _with_code(adapted, parts, folder)
    check_own_pooling(adapted, parts)
    given = padded(parts, adapted, known_texts(adapted))
    with torch.no_grad():
        length = float(parts.merged[0](**given).last_hidden_state[:, 0].norm(dim=-1).mean())
        model = _classifier(adapted, parts, length)
        near = agreement(scorer_of(parts)(**given).numpy(), model(**given).logits.numpy())
    _save(adapted, parts, model, folder, "")
    return f"{near}; call it with truncation=True, as README.md shows"


def _with_code(adapted: Adapted, parts: Parts, folder: Path) -> str:
    """The classifier that reads views, and `views_classifier.py` beside it."""
    names, reading = dict(enumerate(adapted.label_words)), parts.reading
    config = ViewsConfig(
        encoder=cast(Any, parts.plain).config.to_dict(), width=reading.width, first_position=parts.first_position,
        views=[(view.adapted, view.layer, view.pooling, view.of) for view in reading.views],
        num_labels=len(names), id2label=names, label2id={label: number for number, label in names.items()},
    )  # fmt: skip
    model = ViewsClassifier(config).eval()
    model.scorer.load_state_dict(scorer_of(parts).state_dict())
    kinds: dict[str, Any] = {
        "AutoConfig": ViewsClassifier.config_class, "AutoModelForSequenceClassification": ViewsClassifier
    }  # fmt: skip
    for auto, kind in kinds.items():
        kind.register_for_auto_class(auto)  # by which the code is saved beside the weights
    _save(adapted, parts, model, folder, ", trust_remote_code=True")
    given = padded(parts, adapted, known_texts(adapted))
    with torch.no_grad():
        near = agreement(scorer_of(parts)(**given).numpy(), model(**given).logits.numpy())
    return f"{near}; its code is in views_classifier.py: open it with trust_remote_code=True, as README.md shows"


def _save(adapted: Adapted, parts: Parts, model: Any, folder: Path, trust: str) -> None:
    parts.tokenizer.model_max_length = adapted.net.options.max_length
    with disk(folder):
        model.save_pretrained(str(folder))
        parts.tokenizer.save_pretrained(str(folder))
    shown = PAIRS if adapted.pairs else SINGLE
    describe(folder, "pipeline.md", settings_of(adapted, parts), trust=trust, **shown)


def check_takes_texts(adapted: Adapted, parts: Parts) -> None:
    """Raises InputError for what no classifier of transformers can be told."""
    if adapted.net.options.prompt:
        raise InputError("a pipeline puts no prompt in front of texts, this model wants one; export to onnx")
    if adapted.pairs and between(parts.tokenizer):
        raise InputError("a pipeline puts no line break between two texts, which this model wants, as its tokenizer "
                         "has nothing of its own for there; export to onnx or lora")  # fmt: skip
    if parts.reading.by_text or parts.reading.dense is not None:
        raise InputError(f"a pipeline can't say which text a token is of, and has no layers after the pooling; this "
                         f"model reads {', '.join(adapted.net.view_names)}; export to onnx")  # fmt: skip


def check_own_pooling(adapted: Adapted, parts: Parts) -> None:
    """Raises InputError."""
    kind, own = cast(Any, parts.plain).config.model_type, View(True, encoder_of(adapted.net).depth, "cls")
    if kind not in CLASSIFIERS:
        raise InputError(f"a classifier of {kind!r} has no bias to hold our head; known are {', '.join(CLASSIFIERS)}; "
                         "export to onnx, or with --custom-code, which have everything inside")  # fmt: skip
    if parts.reading.views != (own,):
        raise InputError(
            f"a transformers classifier of {kind!r} reads {own} alone, this model {', '.join(adapted.net.view_names)}; "
            f"export to onnx, or with --custom-code, or meta-train with --views {own}"
        )


def _classifier(adapted: Adapted, parts: Parts, length: float) -> nn.Module:
    """`length` is the mean Euclidean length of what is read."""
    names = dict(enumerate(adapted.label_words))
    made, _ = parts.base.model(  # without weights for a head, which gets them here
        AutoModelForSequenceClassification, dtype=torch.float32, num_labels=len(names), id2label=names,
        label2id={label: number for number, label in names.items()}, problem_type="single_label_classification"
    )  # fmt: skip
    inside: Any = made
    model, before, after, bend = made.eval(), *CLASSIFIERS[inside.config.model_type]
    inside.base_model.load_state_dict(parts.merged[0].state_dict(), strict=False)  # it may have no pooler of its own
    scale, shift = (SMALL, 0.0) if bend == "tanh" else (1.0, FAR)
    passing, linear = (cast(nn.Linear, model.get_submodule(name)) for name in (before, after))
    weight = parts.reading.weight / (length * scale)
    with torch.no_grad():
        passing.weight.copy_(scale * torch.eye(len(passing.weight)))
        passing.bias.fill_(shift)
        linear.weight.copy_(weight)
        linear.bias.copy_(parts.reading.bias - shift * weight.sum(1))
    return model
