"""A multilingual encoder: an XLM-R of random weights, with a tokenizer of scored pieces that knows several scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from near import near
from tiny_models import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers_of import wrapped

from metanlp.algorithms import Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.learner.learner import Adapted, Learner

ROWS = [("Der Drucker geht schon wieder nicht", "Gerät"), ("Мой пропуск больше не открывает дверь", "Zugang"),
        ("打印机又卡纸了", "Gerät"), ("请重置我的密码", "Zugang"), ("الطابعة لا تعمل", "Gerät"),
        ("Mot de passe oublié", "Zugang")]  # fmt: skip
NEW = ["Принтер не печатает", "密码忘记了", "Le badge ne marche plus", "كلمة المرور"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `--model` takes it. Its tokenizer has a piece for each letter, and no bytes to fall back to."""
    letters = sorted({mark for text in (*NEW, *(row[0] for row in ROWS)) for mark in text if mark != " "})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((mark, -2.0) for mark in ("▁", *letters))]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    folder = tmp_path_factory.mktemp("models") / "tiny-xlm-roberta"
    tokenizer = wrapped(made, bos="<s>", eos="</s>", sep="</s>", cls="<s>", pad="<pad>", unk="<unk>")
    tokenizer.save_pretrained(folder)
    tiny_model("xlm-roberta", vocab_size=len(pieces)).save_pretrained(folder)
    return folder


def test_texts_of_several_scripts_teach_and_are_answered(encoder: Path, tmp_path: Path) -> None:
    net = Backbone.load(str(encoder), precision="fp32")
    method = Maml(inner=Inner(steps=2, lr=0.1, head_lr=0.1))
    adapted = Learner(method, net, method.init(net, torch.Generator().manual_seed(0))).adapt(ROWS)
    assert adapted.labels == ("Gerät", "Zugang")
    scores = torch.as_tensor(adapted.logits(NEW))
    assert not net.notice()  # no text is made of tokens that it does not know
    assert len({tuple(row) for row in scores.round(decimals=4).tolist()}) == len(NEW)
    adapted.save(tmp_path / "model")
    again = Adapted.load(tmp_path / "model", base=str(encoder))
    near(torch.as_tensor(again.logits(NEW)), scores)
