"""Checkpoints: folders of safetensors and JSON that appear whole or not at all, verified before they are used.

A folder holds `state.safetensors`, `state.json` and `MANIFEST.json` (size and sha256 of the other two). safetensors
has no checksum of its own: without the manifest a flipped bit of a weight loads in silence.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from metanlp.disk import disk, sync, write
from metanlp.errors import DamagedError, InputError

FORMAT = 1
TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "MANIFEST.json"


def save(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint at `folder`, in the place of one that is there.

    The files are made in a neighbouring temporary folder that is renamed when it is complete and on the disk.
    `state` is what JSON can hold. Raises ValueError for values that are not finite, StorageError if the disk fails.
    """
    if bad := _not_finite(tensors):
        raise ValueError(f"tensor {bad!r} holds NaN or infinity: a checkpoint of it would be refused")
    plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    files = {TENSORS: safetensors.torch.save(plain), STATE: json.dumps(state, indent=1, allow_nan=False).encode()}
    files[MANIFEST] = _manifest(files)
    with disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        _publish(folder, files)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and state of the checkpoint at `folder`.

    Raises DamagedError, naming file and reason, for whatever is not exactly what `save` wrote.
    """
    files = _verified(folder)
    try:
        tensors = safetensors.torch.load(files[TENSORS])
        bad = _not_finite(tensors)
    # A file can carry the right checksum and still be hostile, and the reader's errors have many types.
    except Exception as problem:
        raise _damaged(folder / TENSORS, f"is not a file of tensors: {problem}") from problem
    if bad:
        raise _damaged(folder / TENSORS, f"holds NaN or infinity in {bad!r}")
    state = _json(folder / STATE, files[STATE])
    return tensors, state


def newest(folder: Path) -> Path | None:
    """The `step_N` in `folder` with the highest N, or None; it loads, or DamagedError names it.

    What a killed `save` left behind is put right: a half-written folder is removed, a replaced one put back.
    """
    with disk(folder):
        if not folder.is_dir():
            return None
        _tidy(folder)
        steps = _steps(folder)
    if not steps:
        return None
    load(steps[-1])
    return steps[-1]


def prune(folder: Path, keep: int = 2) -> None:
    """Leave the `keep` newest `step_N` in `folder`, which need not be there."""
    with disk(folder):
        steps = _steps(folder) if folder.is_dir() else []
        for path in steps[: max(0, len(steps) - keep)]:
            # Renamed first, so that a kill in between leaves no half of a checkpoint.
            shutil.rmtree(path.rename(_temporary(path)))


def atomic_write(path: Path, data: bytes) -> None:
    """Put `data` at `path`: readers see the old file or the new one, also after a crash. Raises StorageError."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            write(temporary, data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def lock(folder: Path) -> Generator[None]:
    """Hold `folder`, made if missing, for this run. Raises InputError if another one holds it.

    The operating system drops the lock of a process that dies, however it dies.
    """
    with disk(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{folder} is a file or lies under one; choose a folder") from None
        handle = (folder / ".lock").open("a+")
    with handle:
        with disk(folder):
            _take(handle.fileno(), folder)
            handle.truncate(0)
            handle.write(f"{os.getpid()} {socket.gethostname()}")
            handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{folder} is in use by {_owner(folder)}; wait for it to end, stop it, or choose another folder"
        ) from None


def _owner(folder: Path) -> str:
    time.sleep(0.2)  # an owner that took the lock this moment has signed it by then
    pid, _, host = (folder / ".lock").read_text().partition(" ")
    return f"process {pid} on {host}" if pid else "another process"


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    temporary = _temporary(folder)
    temporary.mkdir()
    held = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # tells `_tidy` that somebody is at work here
        for name, data in files.items():
            write(temporary / name, data)
        os.fsync(held)
        _swap(temporary, folder)
    finally:
        os.close(held)
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, folder: Path) -> None:
    """Rename into place. A folder cannot be renamed onto a full one, so the old one steps aside in between."""
    if folder.is_symlink():
        folder.unlink()
    if folder.exists():
        folder.rename(_aside(folder))
    temporary.rename(folder)
    sync(folder.parent)
    _settle(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _settle(folder: Path) -> None:
    """Finish a swap that was cut short: the old folder goes if the new one is there, else it comes back."""
    old = _aside(folder)
    if old.is_dir():
        shutil.rmtree(old) if folder.exists() else old.rename(folder)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _tidy(folder: Path) -> None:
    """Remove what dead processes left, unless a live one is at work."""
    left = [path for path in folder.iterdir() if re.fullmatch(r"\.step_\d+\.[0-9a-f]{8}\.tmp", path.name)]
    if all(_abandoned(path) for path in left):
        for path in left:
            shutil.rmtree(path)
        for old in folder.glob(".step_*.old"):
            _settle(folder / old.name.removeprefix(".").removesuffix(".old"))


def _abandoned(temporary: Path) -> bool:
    held = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def _steps(folder: Path) -> list[Path]:
    """`step_N` in the order of N."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := re.fullmatch(r"step_(\d+)", path.name))]
    return [path for _, path in sorted(found)]


def _manifest(files: dict[str, bytes]) -> bytes:
    """Of every file but the manifest itself. Equal folders have equal manifests, byte for byte."""
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
        if name != MANIFEST
    }
    return json.dumps({"format": FORMAT, "files": entries}, indent=1).encode()


def _verified(folder: Path) -> dict[str, bytes]:
    """The bytes of the three files, held against the manifest."""
    _check_names(folder)
    listed = _listed(folder)
    files = {name: _read(folder / name, listed[name]["bytes"]) for name in (TENSORS, STATE)}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != listed[name]["sha256"]:
            raise _damaged(folder / name, "was altered: its sha256 is not the one in the manifest")
    if _read(folder / MANIFEST) != _manifest(files):
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


def _listed(folder: Path) -> dict[str, Any]:
    """Size and sha256 by file name, as the manifest has them."""
    path = folder / MANIFEST
    manifest = _json(path, _read(path))
    if manifest.get("format") != FORMAT:
        raise _damaged(path, f"has format {str(manifest.get('format'))[:20]!r}, this metanlp reads {FORMAT}")
    try:
        return {name: {key: manifest["files"][name][key] for key in ("bytes", "sha256")} for name in (TENSORS, STATE)}
    except (KeyError, TypeError, IndexError) as problem:
        raise _damaged(path, "was altered: it does not list its files") from problem


def _read(path: Path, size: int | None = None) -> bytes:
    """The bytes of a file, which must be `size` of them; a manifest is small."""
    with disk(path):
        found = path.stat().st_size
        if size is None and found > 10_000:
            raise _damaged(path, f"is {found} bytes long, too long for a manifest")
        if size not in (None, found):
            raise _damaged(path, f"is {found} bytes long, the manifest says {str(size)[:20]}")
        return path.read_bytes()


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
