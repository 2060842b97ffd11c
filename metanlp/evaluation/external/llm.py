"""A language model with the support set in its prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from metanlp.core.types import Row, Task
from metanlp.evaluation.external.base import Answers, ExternalBaseline
from metanlp.evaluation.external.endpoint import ask, check_address, client, key
from metanlp.forms import FORMS

ASKED = "Give the label of the last text. Reply with exactly one of these labels, spelled as here, and nothing else:"
WRAPPING = " \t\r\n\"'`*."  # characters around a label that are ignored


@dataclass(frozen=True)
class Llm(ExternalBaseline):
    """In-context learning (Brown et al. 2020): the labels, the support rows in a seeded order, the query row;
    temperature 0. An answer that is none of the labels counts as wrong. Only these texts are sent to `url`."""

    url: str  # base address of an OpenAI-compatible endpoint, without /chat/completions
    model: str  # name of the model there
    at_once: int = 4  # concurrent requests
    seconds: float = 60.0  # until a request counts as failed

    probable: ClassVar[bool] = False  # it returns words only

    def check(self) -> None:
        key()
        check_address(self.url)
        with client(self.seconds, 1) as line:  # one small request checks model and key
            ask(line, self.url, self._body("Reply with the word yes.", 4), pauses=(1.0, 1.0))

    def plan(self, trials: int, rows: int) -> str:
        return (
            f"at most {rows:,} requests to {self.model} at {self.url}, {self.at_once} at a time, each with a support "
            "set and a query row: their texts go there"
        )

    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Answers:
        order = np.random.default_rng(seed).permutation(len(support))
        shown = [support[n] for n in order]
        prompts = [prompt(task, shown, row) for row in query]
        self._ask_all(prompts, 16 + max(map(len, task.labels)))  # a token is a character or more
        values = np.zeros((len(query), len(task.labels) + 1))
        for number, text in enumerate(prompts):
            values[number, parsed(self.answer_cache[self._question(text)]["said"], task.labels)] = 1
        return Answers(values)

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.model, "temperature": 0, "demonstrations": "the whole support set"}

    def spent(self) -> Mapping[str, Any]:
        """Number of answered requests, and their tokens."""
        every = self.answer_cache.answers()
        return {"requests": len(every), "request_tokens": sum(each["tokens"] for each in every)}

    def _ask_all(self, prompts: Sequence[str], longest: int) -> None:
        """Asks for every prompt that has no cached answer."""
        missing = [text for text in dict.fromkeys(prompts) if self._question(text) not in self.answer_cache]
        if not missing:
            return
        with client(self.seconds, self.at_once) as line:
            threads = ThreadPoolExecutor(self.at_once)
            try:
                list(threads.map(partial(self._ask, line, longest), missing))
            finally:  # after a failure or Ctrl-C, waiting requests are not sent
                threads.shutdown(cancel_futures=True)

    def _ask(self, line: Any, longest: int, text: str) -> None:
        said, tokens = ask(line, self.url, self._body(text, longest))
        self.answer_cache[self._question(text)] = {"said": said, "tokens": tokens}

    def _body(self, text: str, longest: int) -> dict[str, Any]:
        """A request with one user message: some models have no system message."""
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": longest}

    def _question(self, text: str) -> str:
        return f"{self.url.rstrip('/')}\n{self.model}\n{text}"


def prompt(task: Task, support: Sequence[Row], row: Row) -> str:
    """The prompt for one query row. Texts are quoted as JSON, so that no text can imitate a further example."""
    labels = "\n".join(f"- {label}" for label in task.labels)
    shown = [f"{quoted(task, each)}\nLabel: {FORMS[task.form].truth(each, task.meaning)}" for each in support]
    return "\n\n".join([f"{ASKED}\n{labels}", *shown, f"{quoted(task, row)}\nLabel:"])


def quoted(task: Task, row: Row) -> str:
    parts = FORMS[task.form].texts(row)[0]
    names = ("Text",) if len(parts) == 1 else ("First text", "Second text")
    return "\n".join(f"{name}: {json.dumps(part, ensure_ascii=False)}" for name, part in zip(names, parts, strict=True))


def parsed(answer: str, labels: Sequence[str]) -> int:
    """Index of the label that equals the whole answer; K if none does. White space, quotes, stars and full stops around
    it and a leading "Label:" are ignored; case matters only between labels that differ in case alone."""
    said = re.sub("^label:", "", answer.strip(WRAPPING), flags=re.IGNORECASE).strip(WRAPPING)
    for plain in (str, str.casefold):
        alike = [n for n, label in enumerate(labels) if plain(label.strip(WRAPPING)) == plain(said)]
        if len(alike) == 1:
            return alike[0]
    return len(labels)
