"""Tokenizers as architectures have them, made on the fly: with and without token types, with one separator, two or
none, of pieces of words, of bytes, of a vocabulary with scores."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = "the of my was is and a an which there it on in to for with no not"


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """That of an architecture of `tiny_models`, of fewer than 1,000 tokens."""
    return {"roberta": roberta, "xlm-roberta": xlm_roberta, "modernbert": modernbert}.get(kind, causal)()


def roberta() -> PreTrainedTokenizerFast:
    """Bytes; two separators; no token types."""
    made = of_bytes(["<s>", "<pad>", "</s>", "<unk>"])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return wrapped(made, bos="<s>", eos="</s>", sep="</s>", cls="<s>", pad="<pad>", unk="<unk>")


def xlm_roberta() -> PreTrainedTokenizerFast:
    """Pieces with scores, the marks among them; two separators; no token types."""
    pieces = ["▁", *(f"▁{word}" for word in WORDS.split()), *map(chr, range(33, 127))]
    scores = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    scores += [(piece, -1.0 - 0.01 * n) for n, piece in enumerate(dict.fromkeys(pieces))]
    made = Tokenizer(models.Unigram(scores, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return wrapped(made, bos="<s>", eos="</s>", sep="</s>", cls="<s>", pad="<pad>", unk="<unk>")


def modernbert() -> PreTrainedTokenizerFast:
    """Bytes; one separator; no token types."""
    made = of_bytes(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return wrapped(made, sep="[SEP]", cls="[CLS]", pad="[PAD]", unk="[UNK]")


def causal() -> PreTrainedTokenizerFast:
    """Bytes; nothing around texts, nothing between them, nothing to pad with."""
    return wrapped(of_bytes(["<|endoftext|>"]), eos="<|endoftext|>")


def of_bytes(marks: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE({token: number for number, token in enumerate([*marks, *BYTES])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def wrapped(made: Tokenizer, **marks: str) -> PreTrainedTokenizerFast:
    names: dict[str, Any] = {f"{name}_token": mark for name, mark in marks.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **names)
