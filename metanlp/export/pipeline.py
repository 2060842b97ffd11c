"""A folder that `transformers.pipeline("text-classification", …)` opens, for models whose only view is what their
architecture's own classifier reads: the first token of the last layer.

That classifier has one more layer before its linear one, which is made to pass on what it gets, and does not divide by
the length of a vector as our head does. In place of each text's own length stands the mean over texts, so that its
scores are near ours and not equal; how near is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from metanlp.backbone.views import View
from metanlp.disk import disk
from metanlp.errors import InputError
from metanlp.export.plain import Parts, Scorer, padded
from metanlp.forms import FORMS
from metanlp.learner import Adapted
from metanlp.tasks.mini import read_mini

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
PROBES = 64  # texts of the embedded tasks


def write_pipeline(adapted: Adapted, parts: Parts, folder: Path) -> str:
    """How near its answers are. Raises InputError where the model reads anything else than its architecture's own
    classifier does."""
    check_own_pooling(adapted, parts)
    rows = [row for task in read_mini().test for row in task.pools["train"] if "text" in row][:PROBES]
    given = padded(parts, adapted, [(FORMS["classify"].texts(row)[0][0],) for row in rows])
    length, ours = _length(parts, given), torch.softmax(Scorer(parts)(**given), -1)
    model = _classifier(adapted, parts, length)
    with torch.no_grad():
        theirs = torch.softmax(model(**given).logits, -1)
    parts.tokenizer.model_max_length = adapted.net.options.max_length
    with disk(folder):
        cast(Any, model).save_pretrained(str(folder))
        parts.tokenizer.save_pretrained(str(folder))
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    return f"answers as before to {same} of {len(rows)} texts, probabilities within {(ours - theirs).abs().max():.3f}"


def check_own_pooling(adapted: Adapted, parts: Parts) -> None:
    """Raises InputError."""
    kind, own = cast(Any, parts.plain).config.model_type, View(True, adapted.net.depth, "cls")
    if kind not in CLASSIFIERS:
        raise InputError(f"a classifier of {kind!r} has no bias to hold our head; known are {', '.join(CLASSIFIERS)}; "
                         "export to onnx, which has everything inside")  # fmt: skip
    if parts.reading.views != (own,):
        raise InputError(
            f"a transformers classifier of {kind!r} reads {own} alone, this model {', '.join(adapted.net.view_names)}; "
            f"export to onnx, or meta-train with --views {own}"
        )
    if adapted.net.options.prompt:
        raise InputError("a pipeline puts no prompt in front of texts, this model wants one; export to onnx")


def _length(parts: Parts, given: dict[str, Tensor]) -> float:
    """Mean Euclidean length of what is read."""
    with torch.no_grad():
        states = parts.merged(**given).last_hidden_state
    return float(states[:, 0].norm(dim=-1).mean())


def _classifier(adapted: Adapted, parts: Parts, length: float) -> nn.Module:
    logging.set_verbosity_error()  # it tells of a head without weights, which gets them here
    names = dict(enumerate(adapted.labels))
    made: Any = AutoModelForSequenceClassification.from_pretrained(
        parts.folder, dtype=torch.float32, num_labels=len(names), id2label=names,
        label2id={label: number for number, label in names.items()}, problem_type="single_label_classification"
    )  # fmt: skip
    model = cast(nn.Module, made.eval())
    before, after, bend = CLASSIFIERS[made.config.model_type]
    made.base_model.load_state_dict(parts.merged.state_dict(), strict=False)  # it may have no pooler of its own
    scale, shift = (SMALL, 0.0) if bend == "tanh" else (1.0, FAR)
    passing, linear = (cast(nn.Linear, model.get_submodule(name)) for name in (before, after))
    weight = parts.reading.weight / (length * scale)
    with torch.no_grad():
        passing.weight.copy_(scale * torch.eye(len(passing.weight)))
        passing.bias.fill_(shift)
        linear.weight.copy_(weight)
        linear.bias.copy_(parts.reading.bias - shift * weight.sum(1))
    return model
