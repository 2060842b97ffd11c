"""A Hub on the loopback for models: bare git repositories, large files beside them by their sha256, tokens, and
whatever may go wrong on the way. One can `git clone` what it holds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_server import Handler as Base
from hub_server import HubServer, tree

API = re.compile(
    r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info|preupload|commit|refs)(?:/([^/]+))?(?:/(.*))?)?"
)
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
LARGE = re.compile(r"/lfs/([0-9a-f]{64})")
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
LFS = (".safetensors", ".onnx", ".png")
WRITE, READ = "hf_writeXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", "hf_readXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
RIGHTS = {WRITE: "write", READ: "read"}


@dataclass(frozen=True)
class Fault:
    """What the `at`-th request from now on gets in place of an answer."""

    at: int
    what: int | str  # a status; "drop": nothing, the line cut; "done": cut when its work is done; "slow": a slow line


class GitHub(HubServer):
    """Repositories below `root`; `private` says of each whether it is; `before` holds what is to happen ahead of the
    next request with a word in its path."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.RequestHandlerClass = Handler
        self.root = root
        (root / "lfs").mkdir(parents=True)
        self.private: dict[str, bool] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.writing = threading.Lock()
        self.fault: Fault | None = None
        self.count = 0  # requests since `fault` was set

    def break_at(self, fault: Fault | None) -> None:
        self.fault, self.count = fault, 0

    def git(self, name: str, *words: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", "-C", str(self.root / f"{name}.git"), *words], input=stdin, capture_output=True, check=True
        ).stdout

    def create(self, name: str, private: bool) -> None:
        (self.root / f"{name}.git").mkdir(parents=True)
        self.git(name, "init", "--quiet", "--bare", "--initial-branch", "main")
        self.private[name] = private
        self.commit(
            name, {".gitattributes": "".join(f"*{end} filter=lfs\n" for end in LFS).encode()}, (), "initial commit"
        )

    def commit(self, name: str, files: Mapping[str, bytes], gone: tuple[str, ...], message: str) -> str:
        """On top of `main`, all or nothing; its sha."""
        head = self.head(name)
        told = [
            f"commit refs/heads/main\ncommitter hub <hub@localhost> {1700000000 + self.commits(name)} +0000\n".encode()
        ]
        told.append(f"data {len(message.encode())}\n{message}\n".encode())
        told += [f"from {head}\n".encode()] if head else []
        told += [f"D {path}\n".encode() for path in gone]
        for path, content in files.items():
            told.append(f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
        self.git(name, "fast-import", "--quiet", stdin=b"".join(told))
        return self.head(name)

    def head(self, name: str, revision: str = "main") -> str:
        try:
            return self.git(name, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").decode().strip()
        except subprocess.CalledProcessError:
            return ""

    def commits(self, name: str) -> int:
        return len(self.git(name, "log", "--format=%H", "main").split()) if self.head(name) else 0

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """As git holds them: of large ones the pointers."""
        paths = self.git(name, "ls-tree", "-r", "-z", "--name-only", revision).decode().split("\0")[:-1]
        asked, found = "".join(f"{revision}:{path}\n" for path in paths).encode(), dict[str, bytes]()
        said = self.git(name, "cat-file", "--batch", stdin=asked)
        for path in paths:
            head, _, said = said.partition(b"\n")
            size = int(head.split()[2])
            found[path], said = said[:size], said[size + 1 :]
        return found

    def whole(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The same with what the pointers point to."""
        return {path: self.large(content) for path, content in self.files(name, revision).items()}

    def published(self, name: str) -> dict[str, bytes]:
        """All of `main` but what the Hub itself put there."""
        return {path: content for path, content in self.whole(name).items() if path != ".gitattributes"}

    def large(self, content: bytes) -> bytes:
        found = POINTER.fullmatch(content)
        return (self.root / "lfs" / found[1].decode()).read_bytes() if found else content


class Handler(Base):
    server: GitHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.chunk, b""))
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def answer(self) -> None:
        """A request that is to fail, fails; else it is served, one that writes after the others."""
        path, hub = unquote(urlsplit(self.path).path), self.server
        hub.asked.append(f"{self.command} {path}")
        with hub.writing:
            hub.count += 1
            fault = hub.fault.what if hub.fault and hub.fault.at == hub.count else None
            for part in [part for part in hub.before if part in path]:
                hub.before.pop(part)()
        if any(part in path for part in hub.silent):
            hub.over.wait(90)
            fault = "drop"
        self.lost, self.slow = fault == "done", fault == "slow"
        if fault == "drop":
            self.close_connection = True
        elif isinstance(fault, int):
            self.say(fault, b'{"error": "planted"}')
        else:
            self.serve(path)

    def serve(self, path: str) -> None:
        writes = self.command in ("POST", "PUT") and "paths-info" not in path and "validate-yaml" not in path
        right = RIGHTS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        large = LARGE.fullmatch(path)
        if path == "/":
            self.say(200, b"")
        elif large:  # whoever was told the address
            self.upload(large[1]) if self.command == "PUT" else self.download(large[1])
        elif right is None and "Authorization" in self.headers:
            self.say(401, b'{"error": "Invalid credentials in Authorization header"}',
                     {"X-Error-Message": "Invalid credentials in Authorization header"})  # fmt: skip
        elif writes and right != "write":
            self.say(403, b'{"error": "this token may only read"}')
        elif path == "/api/repos/create":
            self.create()
        elif path == "/api/validate-yaml":
            self.say_json({"errors": [], "warnings": []})
        elif found := BATCH.fullmatch(path):
            self.batch()
        elif found := API.fullmatch(path):
            self.of_repo(right, *found.groups())
        elif (found := RESOLVE.fullmatch(path)) and self.visible(right, found[1], found[2]):
            self.resolve(*found.groups())
        elif not found:
            self.say(404, b"")

    def create(self) -> None:
        asked = json.loads(self.body)
        name, hub = f"{asked['organization']}/{asked['name']}", self.server
        told = {"url": f"{hub.url}/{name}", "name": name, "id": name}
        with hub.writing:
            new = name not in hub.private
            if new:
                hub.create(name, asked.get("visibility") == "private" or bool(asked.get("private")))
        self.say(200 if new else 409, json.dumps(told).encode())

    def visible(self, right: str | None, name: str, revision: str) -> bool:
        """Whether who asks may know of it; else they are told that there is none."""
        there = name in self.server.private and not (self.server.private[name] and right is None)
        if not there or not self.server.head(name, revision):
            self.missing("revision" if there else "repo")
            return False
        return True

    def of_repo(self, right: str | None, name: str, what: str | None, revision: str | None, folder: str | None) -> None:
        if not self.visible(right, name, revision or "main"):
            return
        hub, sha = self.server, self.server.head(name, revision or "main")
        if what == "commit":
            self.commit(name)
        elif what == "refs":
            self.say_json(
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": sha}],
                    "tags": [],
                    "converts": [],
                }
            )
        elif what == "preupload":
            self.say_json({"files": self.preupload(hub.files(name), json.loads(self.body)["files"])})
        elif what in ("tree", "paths-info"):
            rows = [
                row | facts(hub.files(name, sha).get(row["path"], b""))
                for row in tree(hub.whole(name, sha), folder or "", True)
            ]
            self.say_json(rows)
        else:
            told = {"id": name, "sha": sha, "private": hub.private[name], "tags": [], "gated": False, "downloads": 0}
            self.say_json(told | {"siblings": [{"rfilename": path} for path in hub.files(name, sha)]})

    def preupload(self, there: Mapping[str, bytes], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for file in asked:
            path = file["path"]
            oid = identity(there[path]) if path in there else None
            mode = "lfs" if path.endswith(LFS) else "regular"
            rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return rows

    def batch(self) -> None:
        objects, hub = json.loads(self.body)["objects"], self.server
        for each in objects:
            if not (hub.root / "lfs" / each["oid"]).exists():
                each["actions"] = {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}
        self.say_json({"transfer": "basic", "objects": objects})

    def upload(self, sha256: str) -> None:
        good = hashlib.sha256(self.body).hexdigest() == sha256
        if good:
            (self.server.root / "lfs" / sha256).write_bytes(self.body)
        self.say(200 if good else 400, b"")

    def download(self, sha256: str) -> None:
        self.send_bytes((self.server.root / "lfs" / sha256).read_bytes(), {"ETag": f'"{sha256}"'})

    def commit(self, name: str) -> None:
        hub, lines = self.server, [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        files: dict[str, bytes] = {}
        for value in (line["value"] for line in lines if line["key"] == "file"):
            files[value["path"]] = base64.b64decode(value["content"])
        for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
            if not (hub.root / "lfs" / value["oid"]).exists():
                return self.say(400, b'{"error": "its large file was never sent"}')
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {value['size']}\n"
            files[value["path"]] = pointer.encode()
        gone = tuple(line["value"]["path"] for line in lines if line["key"] == "deletedFile")
        with hub.writing:
            if header.get("parentCommit") not in (None, hub.head(name)):
                return self.say(412, b'{"error": "A commit has happened since. Please refresh and try again."}')
            sha = hub.commit(name, files, gone, header["summary"])
        return self.say_json({"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def resolve(self, name: str, revision: str, path: str) -> None:
        hub, sha = self.server, self.server.head(name, revision)
        content = hub.files(name, sha).get(path)
        if content is None:
            return self.missing("entry")
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if found := POINTER.fullmatch(content):
            # Another host than the endpoint's: on the same one the client would follow a HEAD, and lose the commit.
            oid = found[1].decode()
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": found[2].decode(), "ETag": f'"{oid}"'}
            return self.say(302, b"", headers | linked | {"Location": f"http://localhost:{hub.server_port}/lfs/{oid}"})
        return self.send_bytes(content, headers | {"ETag": f'"{identity(content)}"'})

    def say(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.lost:
            self.close_connection = True
        elif self.slow:
            self.drip(status, data)
        else:
            super().say(status, data, headers)

    def drip(self, status: int, data: bytes) -> None:
        """The first bytes come one by one."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for byte in data[:40]:
            self.wfile.write(bytes([byte]))
            time.sleep(0.02)
        self.wfile.write(data[40:])


def identity(content: bytes) -> str:
    """What the Hub calls a file: git's sha1, or the sha256 of a large one."""
    found = POINTER.fullmatch(content)
    if found:
        return found[1].decode()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def facts(content: bytes) -> dict[str, Any]:
    """What a listing says of a file."""
    found = POINTER.fullmatch(content)
    size = int(found[2]) if found else len(content)
    lfs = {"lfs": {"oid": found[1].decode(), "size": size, "pointerSize": len(content)}} if found else {}
    return {"oid": identity(content), "size": size} | lfs if content else {}
