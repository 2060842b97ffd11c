"""Twenty people at one page at once: each gets the answers of one who is alone and sees nobody else's texts; memory is
bounded, too large a paste is refused, and markup in texts and labels is shown and not run."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from case import Cases, child, ended
from tiny_learner import shared

from metanlp.cli.launch import guarded
from metanlp.learner.learner import Learner
from metanlp.serve import textbox, trial

PEOPLE, PASTE, LONG, MINUTES = 20, 100_000_000, 100, 2
MORE = 1.3  # times the memory of the page after everybody was there once
SCRIPT = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Visitor:
    """Somebody at the page, as a browser talks to it."""

    address: str
    number: int

    @property
    def examples(self) -> str:
        words = [("open", "shut"), ("warm", "cold"), ("loud", "still"), ("new", "old")][self.number % 4]
        return "".join(
            f"{word} mark{self.number} {n} {SCRIPT} | {word}{self.number}{SCRIPT}\n" for word in words for n in range(3)
        )

    @property
    def texts(self) -> str:
        return f"mark{self.number} open and new\nmark{self.number} cold and still {SCRIPT}\n"

    def alone(self, learner: Learner) -> list[str]:
        task = textbox.examples(self.examples)
        found = trial.adapt(learner, task, "fast")
        return found.adapted.predict(textbox.texts(self.texts, found.form, found.adapted.pairs))

    @cached_property
    def page(self) -> dict[str, Any]:
        return json.loads(self.ask("/config"))

    def ask(self, path: str, data: Any = None) -> str:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read().decode()

    def press(self, name: str, *given: Any) -> str:
        """What the page shows after a button was pressed, as JSON."""
        ids = {each["id"] for each in self.page["components"] if each["props"].get("elem_id") == name}
        event = next(n for n, each in enumerate(self.page["dependencies"]) if each["targets"][0][0] in ids)
        session = f"visitor{self.number}"
        asked = {"data": given, "fn_index": event, "session_hash": session, "trigger_id": None, "event_data": None}
        self.ask("/gradio_api/queue/join", asked)
        with urllib.request.urlopen(
            f"{self.address}/gradio_api/queue/data?session_hash={session}", timeout=300
        ) as told:
            for line in told:
                said = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if said.get("msg") == "process_completed":
                    return json.dumps(said["output"], ensure_ascii=False)
        raise AssertionError("the page said nothing")


def cases(count: int, folder: Path) -> Cases:
    """`count` times somebody adapts and asks, twenty at once and for two minutes at the least; then a paste that is too
    large. Of fewer than `LONG` cases neither the minutes nor the paste."""
    learner = shared().trained(None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = child(lambda: guarded(lambda: opened(learner, port)))
    address = f"http://127.0.0.1:{port}"
    wait_for(address)
    try:
        yield from everybody(learner, address, count - 1 - (count >= LONG), page)
        if count >= LONG:
            said = Visitor(address, 99).press("adapt", "x" * PASTE, "fast", None, None)
            yield "" if "wrong" in said else f"a paste of 100 MB: {said[:200]}"
    finally:
        psutil.Process(page).terminate()
        code = ended(page)
    if code != 143:
        yield f"the page ended with {code}"


def opened(learner: Learner, port: int) -> None:
    from metanlp.serve.page import Page, serve

    serve(Page(learner).blocks, "127.0.0.1", port)


def everybody(learner: Learner, address: str, count: int, page: int) -> Cases:
    people = [Visitor(address, number) for number in range(PEOPLE)]
    alone = [person.alone(learner) for person in people]
    before, done, begun = 0.0, 0, time.monotonic()
    with ThreadPoolExecutor(PEOPLE) as together:
        while done < count or (count > PEOPLE and time.monotonic() - begun < MINUTES * 60):
            asked = people[: count - done if done < count else PEOPLE]
            yield from together.map(once, asked, alone)
            before, done = before or megabytes(page), done + len(asked)
    after = megabytes(page)
    print(f"  {done} times in {time.monotonic() - begun:.0f} s")
    yield "" if after < before * MORE else f"the page took {before:.0f} MB, and then {after:.0f} MB"


def once(person: Visitor, alone: list[str]) -> str:
    """Adapt, ask, and look at all that came back."""
    adapted = person.press("adapt", person.examples, "fast", None, None)
    said = person.press("classify", None, person.texts)
    parts = json.loads(said)["data"]
    pairs = [pair for part in parts if isinstance(part, dict) for pair in part.get("choices") or []]
    choices = [line for line, value in pairs if isinstance(value, int)]
    right = len(choices) == len(alone) and all(answer in line for answer, line in zip(alone, choices, strict=True))
    others = [n for n in range(PEOPLE) if n != person.number and any(f"mark{n} " in each for each in (adapted, said))]
    closer = next((part for part in parts[::-1] if isinstance(part, str)), "")
    run = SCRIPT in closer or "&lt;script&gt;" not in closer
    return "" if right and not others and not run else f"{person.number}: {choices}, alone {alone}, {others}, {run}"


def megabytes(process: int) -> float:
    return psutil.Process(process).memory_info().rss / 2**20


def wait_for(address: str) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.1)
