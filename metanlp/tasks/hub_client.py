"""From the Hub to the disk: the one place that asks it for data. Imports its libraries late, as most runs need none.

Rows are streamed, so that of a large set only its beginning travels; what came is kept beside the cache of `datasets`
and read from there ever after, also without a network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metanlp.errors import InputError, StorageError
from metanlp.hub import PART, asking, brief
from metanlp.reach import offline, require_hub

INSTEAD = "give a folder of your own, or work without a network: --model minilm --data mini"

# Names of splits -> pools; of two for one pool the first listed counts, and others are passed over.
POOLS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validation_matched": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "test_matched": "test",
    "eval": "test",
}

NAME = re.compile(rf"({PART}/{PART})(?::([\w.+-]+))?(?:@([\w.+/-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A data set of the Hub, written `owner/name`, `owner/name:config` or `owner/name:config@revision`."""

    repo_id: str  # owner/name
    config: str | None = None  # one of its configurations; None where it has but one
    revision: str | None = None  # a branch, a tag or a commit; None is `main`

    @staticmethod
    def parse(text: str) -> HubName | None:
        """The name in `text`, None where it is not of this form."""
        found = NAME.fullmatch(text)
        return HubName(*found.groups()) if found else None

    def __str__(self) -> str:
        return self.short + (f"@{self.revision}" if self.revision else "")

    @property
    def short(self) -> str:
        """The name without its revision."""
        return self.repo_id + (f":{self.config}" if self.config else "")


def fetch(name: HubName, limit: int | None) -> tuple[HubName, Mapping[str, Any]]:
    """The name with its commit, and the first `limit` rows of each pool as `datasets.Dataset`: from the cache where
    that commit was read before, else from the Hub. Raises InputError, StorageError."""
    if not HubName.parse(str(name)):
        raise InputError(f"{str(name)!r} is no data set of the Hub; write owner/name, or owner/name:config@revision")
    commit = name.revision if COMMIT.fullmatch(name.revision or "") else _known_commit(name) if offline() else None
    if commit is None or not _folder(name, commit, limit).is_dir():
        if offline():
            raise InputError(
                f"{name}: is not in the cache{'' if commit is None else ' with this configuration and limit'}, and "
                f"HF_HUB_OFFLINE is set; read it once without, or {INSTEAD}"
            )
        commit = _download(name, commit, limit)
    from datasets import load_from_disk

    folder = _folder(name, commit, limit)
    try:
        kept: Any = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {folder} is damaged ({brief(error)}); remove that folder") from error
    return replace(name, revision=commit), kept


def _home(name: HubName) -> Path:
    from datasets.config import HF_DATASETS_CACHE

    return Path(HF_DATASETS_CACHE) / "metanlp" / name.repo_id


def _folder(name: HubName, commit: str, limit: int | None) -> Path:
    return _home(name) / commit / (name.config or "default") / ("all" if limit is None else f"first-{limit}")


def _ref(name: HubName) -> Path:
    return _home(name) / "refs" / (name.revision or "main").replace("/", "%2F")


def _known_commit(name: HubName) -> str | None:
    """What the revision was when the Hub was last asked."""
    return _ref(name).read_text(encoding="utf-8") if _ref(name).is_file() else None


def _download(name: HubName, commit: str | None, limit: int | None) -> str:
    """Keeps the rows where `_folder` says; the commit."""
    require_hub(str(name), INSTEAD)
    with _asking(name):
        from huggingface_hub import HfApi

        commit = commit or HfApi().dataset_info(name.repo_id, revision=name.revision).sha
    if not commit:
        raise InputError(f"{name}: the Hub names no commit for it; give one, as owner/name@commit")
    folder = _folder(name, commit, limit)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _ref(name).parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
            if not folder.is_dir():
                with _asking(name):
                    kept = _stream(name, commit, limit, part)
                kept.save_to_disk(f"{part}/rows")
                _move(Path(part, "rows"), folder)
            Path(part, "ref").write_text(commit, encoding="utf-8")
            os.replace(Path(part, "ref"), _ref(name))
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror or error}); set HF_HOME to a folder with room"
        ) from error
    return commit


def _move(rows: Path, folder: Path) -> None:
    try:
        rows.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process of this run was quicker, with the same rows
            raise


def _stream(name: HubName, commit: str, limit: int | None, scratch: str) -> Any:
    """The first rows of each pool, as a `DatasetDict`."""
    datasets: Any = import_module("datasets")
    # `scratch` is its cache, as on any failure it would else take what lies there, of whatever commit.
    found: Any = datasets.load_dataset(
        name.repo_id, name.config, revision=commit, streaming=True, cache_dir=f"{scratch}/cache"
    )
    splits: dict[str, str] = {}
    for split in (split for split in POOLS if split in found):
        splits.setdefault(POOLS[split], split)
    if "train" not in splits:
        raise InputError(f"{name}: has the splits {', '.join(map(str, found))}; one called train is needed")
    kept: dict[str, Any] = {}
    for pool, split in splits.items():
        rows = found[split] if limit is None else found[split].take(limit)
        kept[pool] = datasets.Dataset.from_list(list(rows), features=rows.features)
    return datasets.DatasetDict(kept)


def _asking(name: HubName) -> AbstractContextManager[None]:
    """Whatever goes wrong with the Hub becomes one line."""
    _quiet()
    return asking(str(name), "data set", INSTEAD)


@cache
def _quiet() -> None:
    """Once a process: what the Hub's data library says goes nowhere, and what fails is asked for once more."""
    datasets: Any = import_module("datasets")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
