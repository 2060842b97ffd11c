"""Languages in front of texts: by words in a prompt, and by tokens of their own where a model has some (mBART, M2M-100,
NLLB)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from metanlp.core.errors import InputError

SOURCE, NAMES = "{source}", ("source_lang", "target_lang")  # in a prompt
CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")  # of a language as a token: fr_XX, fra_Latn

Languages = tuple[str, ...]
"""Of the source and of the target; () where they are not known."""


def prompted(prompt: str, languages: Languages, sources: Sequence[str]) -> list[str]:
    """The sources as a model reads them: after the prompt, or in the place that it gives them. Raises InputError."""
    names = dict(zip(NAMES, languages, strict=False))

    def named(found: re.Match[str]) -> str:
        if found[1] in NAMES and not names:
            raise missing(f"the prompt {prompt!r} names languages")
        if found[1] not in NAMES:
            raise InputError(f"--prefix {prompt!r} can't be filled in ({found[1]!r}); it may hold {{source_lang}}, "
                             f"{{target_lang}} and {SOURCE}")  # fmt: skip
        return names[found[1]]

    whole = prompt if SOURCE in prompt else f"{prompt}{SOURCE}"
    # Not `format`, which a prompt out of somebody's file could ask for anything.
    around = [re.sub(r"\{(\w*)\}", named, part) for part in whole.split(SOURCE)]
    return [source.join(around) for source in sources]


def codes_of(tokenizer: Any) -> dict[str, int]:
    """The tokens of languages, by the tag of each; none in a tokenizer that does not tell them apart."""
    if not hasattr(tokenizer, "tgt_lang"):
        return {}
    known: Mapping[str, int] = getattr(tokenizer, "lang_code_to_id", None) or {}
    tags = known or [token for token in tokenizer.all_special_tokens if CODE.fullmatch(token)]
    return {tag: known[tag] if known else int(tokenizer.convert_tokens_to_ids(tag)) for tag in tags}


def tag_of(language: str, codes: Mapping[str, int]) -> str:
    """The tag that a tokenizer has for a language: the same, or the only one that begins with it, as fr_XX with fr.
    Raises InputError."""
    found = [language] if language in codes else [tag for tag in codes if tag.partition("_")[0] == language]
    if len(found) == 1:
        return found[0]
    near = get_close_matches(language, codes, n=3, cutoff=0.3) or sorted(codes)[:3]
    raise InputError(
        f"the model has no language {language!r}; write its tag as the model does, such as {', '.join(near)}"
    )


def missing(why: str) -> InputError:
    """What is said where languages have to be known and are not."""
    return InputError(
        f"a language tag is missing: {why}; give each example its languages, as columns source_lang and target_lang"
    )
