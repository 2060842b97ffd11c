"""Checkpoints: folders that appear whole or not at all, and are verified when they are read.

A folder holds `state.safetensors`, `state.json` and `MANIFEST.json`: size and sha256 of the other two, as safetensors
has no checksum of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from metanlp.core.errors import DamagedError
from metanlp.core.storage import disk, sync, temporary_beside, write
from metanlp.core.weights import from_safetensors, to_safetensors

FORMAT = 1
TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "MANIFEST.json"


def save(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a new checkpoint: a temporary folder is renamed to `folder` when it is complete and on the disk.

    `state` is what JSON can hold. Raises ValueError for values that are not finite, StorageError if the disk fails.
    """
    if bad := _not_finite(tensors):
        raise ValueError(f"tensor {bad!r} holds NaN or infinity: a checkpoint of it would be refused")
    files = {TENSORS: to_safetensors(tensors), STATE: json.dumps(state, indent=1, allow_nan=False).encode()}
    with disk(folder):
        temporary = temporary_beside(folder)
        temporary.mkdir(parents=True)
        try:
            for name, data in {**files, MANIFEST: _manifest(files)}.items():
                write(temporary / name, data)
            sync(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync(folder.parent)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and state of the checkpoint at `folder`. Raises DamagedError, naming file and reason, for
    whatever is not exactly what `save` wrote."""
    files = _verified(folder)
    try:
        tensors = from_safetensors(files[TENSORS])
    except ValueError as problem:  # a file can carry the right checksum and still be hostile
        raise _damaged(folder / TENSORS, f"is {problem}") from problem
    if bad := _not_finite(tensors):
        raise _damaged(folder / TENSORS, f"holds NaN or infinity in {bad!r}")
    return tensors, _json(folder / STATE, files[STATE])


def newest(folder: Path) -> Path | None:
    """The `step_N` in `folder` with the highest N, or None. It is not read: `load` verifies it."""
    with disk(folder):
        return next(reversed(_steps(folder)), None)


def prune(folder: Path, keep: int = 2) -> None:
    """Remove all but the `keep` newest `step_N` in `folder`, and what a killed `save` or `prune` left there."""
    with disk(folder):
        for path in _steps(folder)[: -keep or None]:
            path.rename(temporary_beside(path))  # a kill in between leaves no half of a checkpoint
        for left in folder.glob(".step_*.tmp"):
            shutil.rmtree(left)


def _steps(folder: Path) -> list[Path]:
    """`step_N` in the order of N."""
    found = {int(path.name[5:]): path for path in folder.glob("step_*") if path.name[5:].isdecimal()}
    return [found[step] for step in sorted(found)]


def _entries(files: dict[str, bytes]) -> dict[str, Any]:
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sorted(files.items())
    }


def _manifest(files: dict[str, bytes]) -> bytes:
    """Of all files but itself. Equal folders have equal manifests, byte for byte."""
    return json.dumps({"format": FORMAT, "files": _entries(files)}, indent=1).encode()


def _verified(folder: Path) -> dict[str, bytes]:
    """The bytes of tensors and state, compared with the manifest."""
    _check_names(folder)
    with disk(folder):
        files = {name: (folder / name).read_bytes() for name in (TENSORS, STATE)}
        written = (folder / MANIFEST).read_bytes()
    manifest = _json(folder / MANIFEST, written)
    if manifest.get("format") != FORMAT:
        said = str(manifest.get("format"))[:20]
        raise _damaged(folder / MANIFEST, f"has format {said!r}, this metanlp reads {FORMAT}")
    listed, entries = manifest.get("files"), _entries(files)
    if not isinstance(listed, dict) or listed.keys() != entries.keys():
        raise _damaged(folder / MANIFEST, "was altered: it does not list its files")
    for name, entry in entries.items():
        if listed[name] != entry:
            raise _damaged(folder / name, "was altered: its sha256 is not the one in the manifest")
    if written != _manifest(files):
        raise _damaged(folder / MANIFEST, "was altered")
    return files


def _check_names(folder: Path) -> None:
    with disk(folder):
        if folder.is_symlink() or not folder.is_dir():
            raise _damaged(folder, "is missing" if not folder.exists() else "is not a folder, or a link to one")
        names = {path.name for path in folder.iterdir()}
        for name in sorted(names ^ {TENSORS, STATE, MANIFEST}):
            raise _damaged(folder / name, "does not belong here" if name in names else "is missing")
        for name in sorted(names):
            if not stat.S_ISREG((folder / name).lstat().st_mode):
                raise _damaged(folder / name, "is a link or not a plain file")


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, f"is not JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise _damaged(path, "is not a JSON object")
    return cast(dict[str, Any], value)


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(" ".join(f"{path} {reason}; use an earlier checkpoint, or start without this one".split()))


def _not_finite(tensors: dict[str, Tensor]) -> str | None:
    """The name of a tensor with NaN or infinity in it."""
    return next((key for key, value in tensors.items() if not bool(value.isfinite().all())), None)
