"""A model in a zip, as the page packs one, opened as if it were a folder."""

from __future__ import annotations

import atexit
import shutil
import zipfile
import zlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from metanlp.core.errors import DamagedError, InputError
from metanlp.core.storage import disk

UNPACKED_LIMIT = 1_000_000_000  # bytes of a model's files: a few kilobytes can unpack to anything


def unpacked(path: Path, files: Collection[str]) -> Path:
    """A folder with those of `files` that the zip at `path` holds, side by side in whatever folder; everything else in
    it is passed over. The folder goes with the process. Raises InputError, DamagedError, StorageError."""
    found = path.stat()
    return _unpacked(path.resolve(), found.st_size, found.st_mtime_ns, tuple(files))


@lru_cache(maxsize=16)
def _unpacked(path: Path, size: int, changed_at: int, files: tuple[str, ...]) -> Path:
    try:
        with zipfile.ZipFile(path) as packed:
            return _extracted(packed, path, _members(packed, path, files))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedError(f"{path} is no whole zip: {error}; pack the model again") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or a way to pack that zipfile does not know
        raise InputError(f"{path} can't be unpacked: {error}; pack it again, without a password") from error


def _members(packed: zipfile.ZipFile, path: Path, files: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """What is unpacked, by the name of its file. Raises InputError where that is no model, or more than one."""
    held = [(PurePosixPath(each.filename), each) for each in packed.infolist()]
    ours = [(name, each) for name, each in held if name.name in files and not each.is_dir()]
    folders = {name.parent for name, _ in ours}
    if len(folders) != 1:
        what = f"{len(folders)} models" if folders else "no model"
        raise InputError(f"{path} holds {what}; give a zip of one folder that the page or `metanlp adapt` made")
    if (total := sum(each.file_size for _, each in ours)) > UNPACKED_LIMIT:
        raise InputError(f"{path} unpacks to {total:,} bytes, more than {UNPACKED_LIMIT:,}; unpack it by hand")
    return {name.name: each for name, each in ours}


def _extracted(packed: zipfile.ZipFile, path: Path, members: dict[str, zipfile.ZipInfo]) -> Path:
    """Written under their bare names, so that nothing lands outside of the folder, whatever the zip says."""
    home = Path(mkdtemp(prefix="metanlp-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folder = home / path.name  # by which messages name it
    with disk(folder):
        folder.mkdir()
        for name, member in members.items():
            with packed.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
    return folder
