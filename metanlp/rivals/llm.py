"""A language model that is shown the support set in its prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from metanlp.forms import FORMS
from metanlp.rivals.base import Rival, Said
from metanlp.rivals.endpoint import ask, check_address, client, key
from metanlp.rivals.kept import Kept
from metanlp.types import Row, Task

ASKED = "Give the label of the last text. Reply with exactly one of these labels, spelled as here, and nothing else:"
WRAPPING = " \t\r\n\"'`*."  # around a label, it says nothing


@dataclass(frozen=True)
class Llm(Rival):
    """In-context learning (Brown et al. 2020): the words of the labels, the support rows as demonstrations in an order
    drawn from the seed, the query row; temperature 0. An answer that is none of the labels counts as wrong.

    Texts of the support sets and of the query rows are sent to `url`, and nothing else."""

    url: str  # of an OpenAI-compatible endpoint, up to what stands before /chat/completions
    model: str  # its name there
    at_once: int = 4  # requests on their way
    seconds: float = 60.0  # until a request counts as failed
    kept: Kept = field(default_factory=Kept, repr=False, compare=False)  # by prompt

    probable: ClassVar[bool] = False

    def check(self) -> None:
        key()
        check_address(self.url)
        with client(self.seconds, 1) as line:  # whether it knows the model and takes the key
            ask(line, self.url, self._body("Reply with the word yes.", 4), pauses=(1.0, 1.0))

    def plan(self, trials: int, rows: int) -> str:
        return (
            f"at most {rows:,} requests to {self.model} at {self.url}, {self.at_once} at a time, each with a support "
            "set and a query row: their texts go there"
        )

    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Said:
        order = np.random.default_rng(seed).permutation(len(support))
        shown = [support[n] for n in order]
        prompts = [prompt(task, shown, row) for row in query]
        self._ask_all(prompts, 16 + max(map(len, task.labels)))  # a token is a character or more
        values = np.zeros((len(query), len(task.labels) + 1))
        for number, text in enumerate(prompts):
            values[number, parsed(self.kept[self._question(text)]["said"], task.labels)] = 1
        return Said(values)

    def settings(self) -> Mapping[str, Any]:
        return {"model": self.model, "temperature": 0, "demonstrations": "the whole support set"}

    def spent(self) -> Mapping[str, Any]:
        """Requests that were answered, and the tokens that they were paid by."""
        every = self.kept.answers()
        return {"requests": len(every), "request_tokens": sum(each["tokens"] for each in every)}

    def _ask_all(self, prompts: Sequence[str], longest: int) -> None:
        """Until the answer to each is kept."""
        missing = [text for text in dict.fromkeys(prompts) if self._question(text) not in self.kept]
        if not missing:
            return
        with client(self.seconds, self.at_once) as line:
            threads = ThreadPoolExecutor(self.at_once)
            try:
                for _ in threads.map(partial(self._ask, line, longest), missing):
                    pass
            finally:  # after a failure, or Ctrl-C, those that wait are not sent any more
                threads.shutdown(cancel_futures=True)

    def _ask(self, line: Any, longest: int, text: str) -> None:
        said, tokens = ask(line, self.url, self._body(text, longest))
        self.kept[self._question(text)] = {"said": said, "tokens": tokens}

    def _body(self, text: str, longest: int) -> dict[str, Any]:
        """One message, as some models know of no system's."""
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": longest}

    def _question(self, text: str) -> str:
        return f"{self.model}\n{text}"


def prompt(task: Task, support: Sequence[Row], row: Row) -> str:
    """Texts in JSON's quotes, so that no text can pass for the next example."""
    labels = "\n".join(f"- {label}" for label in task.labels)
    shown = [f"{quoted(task, each)}\nLabel: {task.labels[each['label']]}" for each in support]
    return "\n\n".join([f"{ASKED}\n{labels}", *shown, f"{quoted(task, row)}\nLabel:"])


def quoted(task: Task, row: Row) -> str:
    parts = FORMS[task.form].texts(row)[0]
    names = ("Text",) if len(parts) == 1 else ("First text", "Second text")
    return "\n".join(f"{name}: {json.dumps(part, ensure_ascii=False)}" for name, part in zip(names, parts, strict=True))


def parsed(answer: str, labels: Sequence[str]) -> int:
    """The label that the whole answer is; K for none. White space, quotes, stars and full stops around it say nothing,
    nor does "Label:" before it; case only where it tells two labels apart."""
    said = answer.strip(WRAPPING)
    if said[:6].casefold() == "label:":
        said = said[6:].strip(WRAPPING)
    for plain in (str, str.casefold):
        alike = [n for n, label in enumerate(labels) if plain(label.strip(WRAPPING)) == plain(said)]
        if len(alike) == 1:
            return alike[0]
    return len(labels)
