"""Messy text put in order: HTML, invisible characters, prices, spaces; repeats found, and what has nothing to read.

Cleaning what is clean changes nothing: clean(clean(x)) = clean(x).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from metanlp.core.types import Cleaning, Row, Task
from metanlp.forms import FORMS
from metanlp.forms.base import folded
from metanlp.forms.reading import TEXTS
from metanlp.tasks.rowset import KEY, KeyedRows

INLINE = re.findall(r"\w+", """a abbr acronym b bdi bdo big center cite code del dfn em font i ins kbd label mark nobr q
    rp rt ruby s samp small span strike strong sub sup time tt u var wbr""")  # fmt: skip
BLOCKS = re.findall(r"\w+", """address area article aside audio blockquote body br button canvas caption col colgroup
    dd details dialog div dl dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head
    header hr html iframe img input legend li link main map meta nav noscript object ol optgroup option p param picture
    pre progress script section select source style summary svg table tbody td template textarea tfoot th thead title tr
    track ul video""")  # fmt: skip
HIDDEN = ("script", "style")  # their content is no text
DECLARED = re.compile(r"<!(?!--|doctype)", re.IGNORECASE)  # what the parser would fail on or swallow
NESTED = re.compile(r"&(?:(?:amp|#0*38|#x0*26);)+", re.IGNORECASE)  # &amp;amp;lt; means < after three readings
INVISIBLE = re.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")

SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
AMOUNT, CODE, SIGN = r"[0-9](?:[0-9.,]*[0-9])?", r"(?:USD|EUR|GBP|JPY|INR|CHF|CAD|AUD)", f"[{''.join(SIGNS)}]"
# A code after the amount counts first, as that is how prices are written here. $1.5k and HK$100 are no prices.
PRICE = re.compile(
    rf"(?<![\w.,])(?P<first>{AMOUNT})\s?(?P<after>{CODE}\b|{SIGN}(?!\s?[0-9]))"
    rf"|(?P<before>\b{CODE}|(?:\bUS|(?<![^\W\d_])){SIGN})\s?(?P<second>{AMOUNT})(?![\w.,]*\w)",
    re.IGNORECASE,
)
# 1,299.50 and 1.299,5; three digits after a mark are a group, unless what is before it could not be one: 0.125.
GROUPED = re.compile(r"(?P<whole>[1-9][0-9]?[0-9]?(?P<mark>[.,])(?:[0-9]{2,3}(?P=mark))*[0-9]{3})"
                     r"(?:(?!(?P=mark))[.,](?P<part>[0-9]+))?")  # fmt: skip
PLAIN = re.compile(r"(?P<whole>0|[1-9][0-9]*)(?:[.,](?P<part>[0-9]+))?")
FOREIGN = 0.5  # share of the letters of a row from which on it is in another script
EXAMPLE = 120  # characters of an example, at the most


class _Text(HTMLParser):
    """Collects what is text. A tag that HTML does not know is text too: <3, <name@example.org>."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts = list[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        known = "" if tag in INLINE else " " if tag in BLOCKS else None
        self.parts.append((self.get_starttag_text() or "") if known is None else known)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.handle_starttag(tag, attrs)  # and no end, which an unknown one would get anew each time

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(" " if tag in BLOCKS else "" if tag in INLINE else f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem not in HIDDEN:
            self.parts.append(data)


def without_markup(text: str) -> str:
    """Without tags and comments of HTML, with what its entities stand for."""
    if "<" not in text and "&" not in text:
        return text
    parser = _Text()
    closed, mark, rest = DECLARED.sub("&lt;!", NESTED.sub("&", text)).rpartition(">")
    # Behind the last > no tag ends; the parser would look for an end from each < anew.
    parser.feed(closed + mark + rest.replace("<", "&lt;"))
    parser.close()
    return _tidy(text, "".join(parser.parts))


def without_invisible(text: str) -> str:
    """Letters composed (NFC), control characters as spaces, no soft hyphens, marks of direction or of no width."""
    if text.isascii() and text.isprintable():
        return text
    return _tidy(text, unicodedata.normalize("NFC", CONTROL.sub(" ", INVISIBLE.sub("", text))))


def with_plain_prices(text: str) -> str:
    """Each price as `1299.50 EUR`, whatever side its currency stood on and however its digits were grouped; one that
    is written in another way stays."""
    return PRICE.sub(_plain_price, text)


def _plain_price(found: re.Match[str]) -> str:
    amount = _amount(found["first"] or found["second"])
    return f"{amount} {_currency(found)}" if amount else found[0]


def _currency(found: re.Match[str]) -> str:
    written = (found["after"] or found["before"]).upper()
    return SIGNS.get(written[-1], written)


def _amount(written: str) -> str:
    """`1.299,50` and `1,299.5` -> `1299.50`; `.00` is left out; nothing for what is no amount, 1.2.3."""
    found = GROUPED.fullmatch(written) or PLAIN.fullmatch(written)
    if not found:
        return ""
    whole, part = re.sub("[.,]", "", found["whole"]), found["part"] or ""
    return f"{whole}.{part:0<2}" if part.strip("0") else whole


def with_single_spaces(text: str) -> str:
    """No white space at the ends, and one space wherever there was some."""
    return " ".join(text.split())


def _tidy(before: str, after: str) -> str:
    """Without the spaces that a step left, so that only a text's own count as such."""
    return before if before == after else with_single_spaces(after)


STEPS: Mapping[str, Callable[[str], str]] = {
    "markup": without_markup,
    "characters": without_invisible,
    "prices": with_plain_prices,
    "spaces": with_single_spaces,
}
KINDS = (*STEPS, "empty", "repeats", "near repeats", "other script")
LEFT_OUT = ("empty", "repeats", "near repeats")  # of these the rows are


def cleaned(text: str) -> tuple[str, list[str]]:
    """The text after all steps, again and again until nothing changes, and the steps that changed it."""
    done = dict[str, None]()
    while True:
        before = text
        for kind, step in STEPS.items():
            after = step(text)
            if after != text:
                text, done[kind] = after, None
        if text == before:
            return text, list(done)


def clean_rows(rows: Sequence[Row], known: set[str] | None = None) -> tuple[list[int], list[Row], Cleaning]:
    """The numbers of the rows that stay, these rows cleaned, and what was done to all. Left out are rows with an empty
    text, and all but the first of rows whose words are the same, with the same answer; `known` holds those of rows
    elsewhere, and takes these. Rows in another script than most are counted and stay."""
    seen, counts, examples = set[str]() if known is None else known, Counter[str](), dict[str, tuple[str, str]]()
    kept, found = list[int](), list[Row]()
    for number, row in enumerate(rows):
        texts = {name: cleaned(row[name]) for name in TEXTS if name in row}
        fresh = {**row, **{name: text for name, (text, _) in texts.items()}}
        does = [kind for kind in STEPS if any(kind in kinds for _, kinds in texts.values())]
        same, near = ascii(sorted(fresh.items(), key=str)), _words(fresh)
        if not all(text for text, _ in texts.values()):
            does.append("empty")
        elif near in seen:
            does.append("repeats" if same in seen else "near repeats")
        else:
            kept.append(number)
            found.append(fresh)
        seen |= {near, same}
        counts.update(does)
        for kind in does:
            examples.setdefault(kind, _around(_joined(row), "" if kind in LEFT_OUT else _joined(fresh)))
    for row in foreign(found):
        counts["other script"] += 1
        examples.setdefault("other script", _around(_joined(row), _joined(row)))
    return kept, found, Cleaning(len(rows), {kind: counts[kind] for kind in KINDS}, examples)


def clean_task(task: Task) -> Task:
    """The task with clean rows, and what was done as its `cleaning`. What judges is read first, so that of a repeat
    across pools the training row goes. Fixed support sets keep their rows. As it is where its rows are no texts."""
    form = FORMS[task.form]
    if form.question_columns != TEXTS:
        return task
    known, pools, done = set[str](), dict[str, KeyedRows](), list[Cleaning]()
    for pool in sorted(task.pools, key=("test", "validation", "train").index):
        _, rows, cleaning = clean_rows(task.pools[pool], known)
        pools[pool] = KeyedRows(rows, np.array([form.identity(row) for row in rows], dtype=KEY))
        done.append(cleaning)
    supports = {
        k: tuple(tuple(_texts_cleaned(row) for row in rows) for rows in sets) for k, sets in task.supports.items()
    }
    ordered = {pool: pools[pool] for pool in task.pools}
    return replace(task, pools=ordered, supports=supports, cleaning=together(done))


def together(parts: Sequence[Cleaning]) -> Cleaning:
    """What was done in all of them; the first example of each kind."""
    examples = {kind: pair for part in reversed(parts) for kind, pair in part.examples.items()}
    counts = {kind: sum(part.counts[kind] for part in parts) for kind in KINDS}
    return Cleaning(sum(part.rows for part in parts), counts, examples)


def foreign(rows: Sequence[Row]) -> list[Row]:
    """The rows most of whose letters are in another script than most letters of all."""
    each = [Counter(script for text in _texts(row) for script in scripts(text)) for row in rows]
    every = sum(each, Counter[str]())
    if not every:
        return []
    main = max(every, key=every.__getitem__)
    return [row for row, of in zip(rows, each, strict=True) if of.total() - of[main] > FOREIGN * of.total()]


def scripts(text: str) -> Iterable[str]:
    """The script of each letter: LATIN, CYRILLIC, CJK …, the first word of its name in Unicode."""
    if text.isascii():
        return ["LATIN"] * sum(map(str.isalpha, text))
    return [unicodedata.name(mark, "UNKNOWN").partition(" ")[0] for mark in text if mark.isalpha()]


def _texts(row: Row) -> list[str]:
    return [row[name] for name in TEXTS if name in row]


def _texts_cleaned(row: Row) -> Row:
    """A text of which nothing would be left stays."""
    return {**row, **{name: cleaned(row[name])[0] or row[name] for name in TEXTS if name in row}}


def _words(row: Row) -> str:
    """What near repeats have in common: words without case and punctuation, and the answer."""
    words = [re.findall(r"\w+", folded(text)) or [folded(text)] for text in _texts(row)]
    answer = sorted((name, value) for name, value in row.items() if name not in TEXTS)
    return ascii((words, answer))


def _joined(row: Row) -> str:
    return " | ".join(_texts(row))


def _around(before: str, after: str) -> tuple[str, str]:
    """Both texts from shortly before the place where they begin to differ, cut to the length of an example."""
    same = next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))
    start = max(0, same - EXAMPLE // 4) if before != after else 0
    cut = [text[start : start + EXAMPLE] for text in (before, after)]
    return cut[0], cut[1]
