"""A cache of answers that cost minutes or money, so that a resumed run does not ask for them again."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from metanlp.core.storage import disk

KEPT = "answers.jsonl"


class AnswerCache:
    """JSON values by the sha256 of their question, in memory and, with a path, a line each in a file. Questions, which
    contain texts, are not stored."""

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
            whole = before[: before.rfind(b"\n") + 1]  # a line without its end was cut off by a kill
            self.path.write_bytes(whole)
        return dict(map(json.loads, whole.splitlines()))


def name_of(question: str) -> str:
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
