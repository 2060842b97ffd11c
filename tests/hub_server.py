"""A Hub on the loopback: data set repositories with commits, and the endpoints that `datasets` and `huggingface_hub`
call to read them. Every request is written down."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

Files = Mapping[str, bytes]

API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
RESOLVE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
PIECE = 1 << 16  # bytes handed to the socket at a time
MISSING = {"repo": "RepoNotFound", "revision": "RevisionNotFound", "entry": "EntryNotFound"}


@dataclass
class Repo:
    """One data set: its commits, and what its branches and tags stand for."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, *refs: str) -> str:
        """A new commit under `main` and the other names given; its sha."""
        told = repr([(name, files[name]) for name in sorted(files)]).encode()
        sha = hashlib.sha1(told, usedforsecurity=False).hexdigest()
        self.commits[sha] = files
        self.refs |= dict.fromkeys(("main", *refs), sha)
        return sha


class HubServer(ThreadingHTTPServer):
    """Serves `repos`; `asked` are the requests so far, `sent` the bytes that went out, by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}
        self.silent: set[str] = set()  # whatever is asked for with one of these in its path gets no answer
        self.busy: dict[str, int] = {}  # how often whatever has one of these in its path is answered with 503
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's word that it has the headers

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.server.asked.append(f"{self.command} {path}")
        if any(part in path for part in self.server.silent):
            self.server.over.wait(90)
            self.close_connection = True
        elif part := next((part for part, left in self.server.busy.items() if left and part in path), None):
            self.server.busy[part] -= 1
            self.say(503, b"")
        elif found := RESOLVE.fullmatch(path):
            self.resolve(*found.groups())
        elif found := API.fullmatch(path):
            self.api(*found.groups(), query=parse_qs(parts.query))
        else:
            self.say(200 if path == "/" else 404, b"")

    def files(self, name: str, revision: str) -> tuple[str, Files] | None:
        repo = self.server.repos.get(name)
        sha = repo.refs.get(revision, revision) if repo else ""
        if repo is None or sha not in repo.commits:
            self.missing("repo" if repo is None else "revision")
            return None
        return sha, repo.commits[sha]

    def missing(self, what: str) -> None:
        self.say(404, json.dumps({"error": f"{what} not found"}).encode(), {"X-Error-Code": MISSING[what]})

    def api(
        self, name: str, what: str | None, revision: str | None, folder: str | None, query: dict[str, list[str]]
    ) -> None:
        if not (found := self.files(name, revision or "main")):
            return
        sha, files = found
        if what == "tree":
            self.say_json(tree(files, folder or "", query.get("recursive", [""])[0].lower() in ("true", "1")))
        elif what == "paths-info":
            wanted = parse_qs(self.body.decode()).get("paths") or json.loads(self.body or b"{}").get("paths", [])
            everything = {row["path"]: row for row in tree(files, "", True)}
            self.say_json([everything[path] for path in wanted if path in everything])
        else:
            siblings = [{"rfilename": path} for path in files]
            facts = {"id": name, "sha": sha, "private": False, "gated": False, "disabled": False, "downloads": 0}
            self.say_json(facts | {"likes": 0, "tags": [], "siblings": siblings})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (found := self.files(name, revision)):
            return
        sha, files = found
        if path not in files:
            self.missing("entry")
            return
        self.send_bytes(files[path], {"X-Repo-Commit": sha, "ETag": f'"{oid(files[path])}"', "Accept-Ranges": "bytes"})

    def send_bytes(self, data: bytes, headers: Mapping[str, str]) -> None:
        """A file, or the part of it that is asked for."""
        status, part = 200, dict[str, str]()
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, size, status = int(span[1]), len(data), 206
            data = data[start : int(span[2]) + 1 if span[2] else size]
            part["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{size}"
        self.say(status, data, {**headers, **part})

    def say_json(self, value: Any) -> None:
        self.say(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def say(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            for start in range(0, 0 if self.command == "HEAD" else len(data), PIECE):
                self.wfile.write(data[start : start + PIECE])
                self.server.sent[self.path] = self.server.sent.get(self.path, 0) + PIECE
        except OSError:  # who asked has had enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


def oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def tree(files: Files, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The rows of a listing: files, and folders beside them."""
    rows: dict[str, dict[str, Any]] = {}
    for path, data in files.items():
        above = [str(parent) for parent in PurePosixPath(path).parents][-2::-1]
        for parent in above:
            rows[parent] = {"type": "directory", "path": parent, "oid": oid(parent.encode()), "size": 0}
        rows[path] = {"type": "file", "path": path, "oid": oid(data), "size": len(data)}
    prefix = f"{folder}/" if folder else ""
    below = [row for path, row in rows.items() if path.startswith(prefix)]
    return [row for row in below if recursive or "/" not in row["path"][len(prefix) :]]


def jsonl(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, object]], label: str, words: tuple[str, ...], group_rows: int = 1000) -> bytes:
    """As `datasets` writes it: the words of the classes stand in the schema."""
    return parquet_of(rows, {label: {"names": list(words), "_type": "ClassLabel"}}, group_rows)


def parquet_of(rows: list[dict[str, object]], features: dict[str, object], group_rows: int = 1000) -> bytes:
    """The same for any features; columns that have none are text."""
    table = pa.Table.from_pylist(rows)
    text = {"dtype": "string", "_type": "Value"}
    told = {name: features.get(name, text) for name in table.column_names}
    schema = table.schema.with_metadata({"huggingface": json.dumps({"info": {"features": told}})})
    stream = BytesIO()
    pq.write_table(table.cast(schema), stream, compression="none", use_dictionary=False, row_group_size=group_rows)
    return stream.getvalue()


def configs(**splits: tuple[str, ...]) -> bytes:
    lines = ["configs:"]
    for name, files in splits.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {name}/{split}.parquet" for split in files]
    return "\n".join(["---", *lines, "---", ""]).encode()


@contextmanager
def running(server: HubServer) -> Iterator[HubServer]:
    """The server, answering in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
