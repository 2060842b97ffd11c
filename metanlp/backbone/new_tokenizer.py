"""A tokenizer of one's own, learned from a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from metanlp.core.errors import InputError

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}  # fmt: skip

Kind = Literal["wordpiece", "bpe"]


def train_tokenizer(texts: Iterable[str], kind: Kind, size: int, lower: bool, *, written: bool = False) -> Any:
    """WordPiece as BERT has it, or byte-level BPE, of at most `size` tokens. Texts to be `written` word by word
    have no token in front. Equal texts give equal tokenizers. Raises InputError for a size below the alphabet's."""
    letters = pre_tokenizers.ByteLevel.alphabet() if kind == "bpe" else []
    least = len(SPECIAL) + (len(letters) or 100)
    if size < least:
        raise InputError(f"a vocabulary of {size} tokens is smaller than its alphabet and special tokens; from {least}")
    tokenizer: Any = _bpe(texts, size, letters, lower) if kind == "bpe" else _wordpiece([*texts], size, lower)
    ends = [(name, tokenizer.token_to_id(name)) for name in (SPECIAL["cls_token"], SPECIAL["sep_token"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]" if written else "[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    more = {"eos_token": SPECIAL["sep_token"]} if written else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, **more)


def _bpe(texts: Iterable[str], size: int, letters: list[str], lower: bool) -> Any:
    tokenizer: Any = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=[*SPECIAL.values()], initial_alphabet=letters,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece(texts: Sequence[str], size: int, lower: bool) -> Any:
    """Of equally frequent pieces the trainer takes those with the lowest numbers, and numbers letters and "##letters"
    in the order of a hash table, another one in every process. So these get their numbers beforehand."""
    counts, normalizer = Counter[str](), normalizers.BertNormalizer(lowercase=lower)
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    letters = [letter for letter, _ in ranked if not letter.isspace()][: max(100, size // 4)]
    pieces = sorted(_vocabulary(texts, lower, letters, [], len(letters)))  # the fewest: none is merged of others
    # A new one, without what the trainer notes of pieces that are numbered: it takes them for special tokens.
    return _untrained(lower, _vocabulary(texts, lower, letters, [*SPECIAL.values(), *pieces], size))


def _untrained(lower: bool, vocabulary: dict[str, int]) -> Any:
    tokenizer: Any = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _vocabulary(
    texts: Sequence[str], lower: bool, letters: list[str], numbered: list[str], size: int
) -> dict[str, int]:
    """At most `size` pieces of the texts and their numbers, of which `numbered` have the first."""
    tokenizer = _untrained(lower, {})
    trainer: Any = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=numbered, initial_alphabet=letters,
        limit_alphabet=len(letters), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()
