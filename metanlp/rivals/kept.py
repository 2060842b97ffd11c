"""Answers that cost minutes or money, kept: a run that goes on does not pay for them twice."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from metanlp.disk import disk

KEPT = "answers.jsonl"


class Kept:
    """What JSON can hold, by the sha256 of the question; in memory and, with a path, a line each on the disk. The
    questions, which hold texts, are not kept."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self._lock = path, Lock()

    def __contains__(self, question: str) -> bool:
        return name_of(question) in self._known

    def __getitem__(self, question: str) -> Any:
        return self._known[name_of(question)]

    def __setitem__(self, question: str, answer: Any) -> None:
        name = name_of(question)
        with self._lock:
            self._known[name] = answer
            if self.path:
                with disk(self.path), self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, answer], ensure_ascii=False) + "\n")

    def answers(self) -> list[Any]:
        return list(self._known.values())

    @cached_property
    def _known(self) -> dict[str, Any]:
        if not self.path:
            return {}
        with disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            before = self.path.read_bytes() if self.path.is_file() else b""
            # What a kill cut off in the middle of its line was not kept.
            whole = before[: before.rfind(b"\n") + 1]
            self.path.write_bytes(whole)
        return dict(json.loads(line) for line in whole.splitlines())


def name_of(question: str) -> str:
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
