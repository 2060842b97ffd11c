"""Rows of a data set of the Hub: streamed, so that of a large one only some parts travel, and kept on the disk.

They are kept by commit beside the cache of `datasets`, and read from there ever after, also without a network. The
library is imported late, as most runs need none of it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metanlp.core.errors import InputError, StorageError
from metanlp.core.hub import HubName, asking, brief, commit_of, offline, patiently, require_hub, uncached
from metanlp.core.storage import atomic_write

INSTEAD = "give a folder of your own, or work without a network: --model minilm --data mini"

PARTS = 16  # of a split, that are open at once

# Pools -> names of splits; of several for one pool the first listed counts, and others are passed over.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "validation_matched", "valid", "val", "dev"),
    "test": ("test", "test_matched", "eval"),
}

COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(name: HubName, limit: int | None) -> tuple[HubName, Mapping[str, Any]]:
    """Returns the name with its commit, and at most `limit` rows of each pool as a `datasets.Dataset`, whose
    description says how they were sampled. They come from the disk where that commit was read before, else from the
    Hub. Raises InputError, StorageError."""
    from datasets import load_from_disk
    from datasets.config import HF_DATASETS_CACHE

    home = Path(HF_DATASETS_CACHE) / "metanlp" / name.repo_id
    # What the revision was when the Hub was last asked.
    ref = home / "refs" / (name.revision or "main").replace("/", "%2F")
    known = name.revision if COMMIT.fullmatch(name.revision or "") else None
    if offline() and not known:
        known = ref.read_text(encoding="utf-8") if ref.is_file() else None
        if not known:
            raise uncached(str(name), "not in the cache", INSTEAD)
    commit = known or commit_of(name, INSTEAD)
    folder = home / commit / (name.config or "default") / ("all" if limit is None else f"sample-{limit}")
    if not folder.is_dir():
        _download(name, commit, limit, folder)
    if not known:
        atomic_write(ref, commit.encode())
    try:
        kept: Any = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {folder} is damaged ({brief(error)}); remove that folder") from error
    return replace(name, revision=commit), kept


def _download(name: HubName, commit: str, limit: int | None, folder: Path) -> None:
    """Keeps the rows in `folder`, all of them or none. Raises InputError, StorageError."""
    if offline():
        raise uncached(str(name), "not in the cache with this configuration and limit", INSTEAD)
    require_hub(str(name), INSTEAD)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".part-") as part:
            with asking(str(name), "data set", INSTEAD):
                kept = patiently(partial(_stream, name, commit, limit, part))
            kept.save_to_disk(f"{part}/rows")
            try:
                Path(part, "rows").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process of this run was quicker, with the same rows
                    raise
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror or error}); set HF_HOME to a folder with room"
        ) from error


def _stream(name: HubName, commit: str, limit: int | None, scratch: str) -> Any:
    """Streams a sample of each pool into a `DatasetDict`. Raises InputError, and whatever the libraries raise."""
    datasets = _library()
    # `scratch` is its cache, as on any failure it would else take what lies there, of whatever commit.
    found: Any = datasets.load_dataset(
        name.repo_id, name.config, revision=commit, streaming=True, cache_dir=f"{scratch}/cache"
    )
    present = {pool: [name for name in names if name in found] for pool, names in SPLITS.items()}
    splits = {pool: names[0] for pool, names in present.items() if names}
    if "train" not in splits:
        raise InputError(f"{name}: has the splits {', '.join(map(str, found))}; one called train is needed")
    kept: dict[str, Any] = {}
    for pool, split in splits.items():
        rows, sampled = _sample(found[split], limit)
        kept[pool] = datasets.Dataset.from_list(rows, features=found[split].features)
        kept[pool].info.description = sampled
    return datasets.DatasetDict(kept)


def stream(name: HubName) -> Iterator[dict[str, Any]]:
    """Yields the training rows as the Hub sends them, all of one commit; none is kept. Raises InputError."""
    if offline():
        raise uncached(str(name), "read from the Hub each time", INSTEAD)
    commit = commit_of(name, INSTEAD)
    with TemporaryDirectory() as scratch, asking(str(name), "data set", INSTEAD):
        yield from _library().load_dataset(
            name.repo_id, name.config, revision=commit, split="train", streaming=True, cache_dir=scratch
        )


def _library() -> Any:
    """`datasets`, without a word. How often and how long the Hub is asked is its client's business."""
    datasets: Any = import_module("datasets")
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    return datasets


def _sample(split: Any, limit: int | None) -> tuple[list[Any], str]:
    """At most `limit` rows of a split, in its order, and how they were chosen, "" where these are all.

    They are taken in turns from parts that lie evenly over the split, so that a sorted set loses no class. A part is a
    run of files, or of row groups of Parquet, of which only the first are read."""
    if limit is None:
        return list(split), ""
    split = split if split.num_shards >= PARTS else split.reshard()
    count: int = split.num_shards
    runs = pairwise(number * count // PARTS for number in range(PARTS + 1))
    parts = [chain.from_iterable(split.shard(count, n) for n in range(*run)) for run in runs if len({*run}) > 1]
    taken: list[list[Any]] = [[] for _ in parts]
    turns = deque(range(len(parts)))
    while turns:
        number = turns.popleft()
        if (row := next(parts[number], None)) is None:
            continue
        if sum(map(len, taken)) == limit:
            return list(chain.from_iterable(taken)), f"evenly from {len(parts)} parts" if count > 1 else "the first"
        taken[number].append(row)
        turns.append(number)
    return list(chain.from_iterable(taken)), ""
