"""An OpenAI-compatible endpoint on the loopback, whose model answers as the nearest of the examples it is shown.

Every request is written down."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EXAMPLE = re.compile(r'(?:^Text: (".*")|^First text: (".*")\nSecond text: (".*"))\nLabel:(.*)', re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """As the model reads it."""

    labels: tuple[str, ...]
    examples: tuple[tuple[tuple[str, ...], str], ...]  # texts and label
    query: tuple[str, ...]

    @staticmethod
    def read(text: str) -> Prompt:
        found = [
            (tuple(json.loads(part) for part in parts if part), label.strip())
            for *parts, label in EXAMPLE.findall(text)
        ]
        labels = re.findall(r"^- (.*)$", text.split("\n\n")[0], re.MULTILINE)
        return Prompt(tuple(labels), tuple(found[:-1]), found[-1][0])


def nearest(prompt: Prompt) -> str:
    """The label of the example with most words in common."""

    def words(texts: tuple[str, ...]) -> set[str]:
        return {word for text in texts for word in text.lower().split()}

    return max(prompt.examples, key=lambda each: len(words(each[0]) & words(prompt.query)))[1]


@dataclass
class Behaviour:
    """What it does; `asked` are the prompts so far, without those of a check."""

    say: Callable[[Prompt], str] = nearest
    failures: list[int] = field(default_factory=list)  # statuses of the next answers, in place of what it says
    silent: threading.Event | None = None  # nothing is said until it is set
    asked: list[Prompt] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)  # requests under way, as each came
    under_way: int = 0


class LlmServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour, self.lock = Behaviour(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: LlmServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        if self.server.behaviour.silent:
            self.server.behaviour.silent.wait(30)
        self.answer(404, b"")

    def do_POST(self) -> None:
        does, body = self.server.behaviour, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            does.under_way += 1
            does.at_once.append(does.under_way)
            does.keys.add(self.headers.get("Authorization", ""))
            does.bodies.append(body)
            failure = does.failures.pop(0) if does.failures else None
            if not failure and "\n\n" in text:
                does.asked.append(Prompt.read(text))
        said = does.say(Prompt.read(text)) if "\n\n" in text else "yes"
        told = {"choices": [{"message": {"role": "assistant", "content": said}}], "usage": {"total_tokens": 7}}
        if failure:  # as some do, with the key in its words
            told = {"error": {"message": f"no more of {self.headers.get('Authorization')}"}}
        with self.server.lock:
            does.under_way -= 1
        self.answer(failure or (200 if self.path == "/v1/chat/completions" else 404), json.dumps(told).encode())

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "0")
        if status == 307:
            self.send_header("Location", self.server.url.replace("/v1", "/v1/elsewhere"))
        with suppress(BrokenPipeError, ConnectionResetError):  # who only asks whether somebody is there does not listen
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[LlmServer]:
    server = LlmServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
