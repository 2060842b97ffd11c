"""A tokenizer of one's own, learned from a corpus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from metanlp.core.errors import InputError

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}  # fmt: skip

Kind = Literal["wordpiece", "bpe"]


def train_tokenizer(texts: Iterable[str], kind: Kind, size: int, lower: bool, *, written: bool = False) -> Any:
    """WordPiece as BERT has it, or byte-level BPE, of at most `size` tokens. Texts to be `written` word by word
    have no token in front. Ties are broken in another way in every process, so a tokenizer is learned once and saved.
    Raises InputError for a size below the alphabet's."""
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bpe" else []
    least = len(SPECIAL) + (len(alphabet) or 100)
    if size < least:
        raise InputError(f"a vocabulary of {size} tokens is smaller than its alphabet and special tokens; from {least}")
    rules: dict[str, Any] = {"vocab_size": size, "special_tokens": [*SPECIAL.values()], "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(initial_alphabet=alphabet, min_frequency=2, **rules)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(min_frequency=2, limit_alphabet=max(100, size // 4), **rules)
    if lower or kind == "wordpiece":
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in (SPECIAL["cls_token"], SPECIAL["sep_token"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]" if written else "[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    more = {"eos_token": SPECIAL["sep_token"]} if written else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, **more)
