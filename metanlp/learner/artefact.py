"""The files of a learner or an adapted model: what plain peft opens, what it does not know, what made them both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from metanlp.backbone import Backbone
from metanlp.backbone.lora import is_further
from metanlp.backbone.models import open_model, options_of
from metanlp.backbone.options import Options, Writing
from metanlp.backbone.pretrained import HERE, MINILM, check_same, has_minilm
from metanlp.backbone.quantize import require_library
from metanlp.backbone.writer import Writer
from metanlp.core.errors import DamagedError, InputError, StoppedError
from metanlp.core.hub import HubName, fetch_model
from metanlp.core.outputs import LOCAL
from metanlp.core.settings import to_json
from metanlp.core.signals import deferred
from metanlp.core.storage import sha256_of, write_together
from metanlp.core.types import Weights
from metanlp.core.versions import versions
from metanlp.core.weights import drop, finite, from_safetensors, pick, pick_inside, to_safetensors
from metanlp.learner.packed import unpacked

ADAPTER, META, CONFIG = "adapter_model.safetensors", "meta_model.safetensors", "meta_config.json"
ADAPTER_CONFIG = "adapter_config.json"
FILES = (ADAPTER, ADAPTER_CONFIG, META, CONFIG)
SCHEMA = 2
# What meta_config.json has the sha256 of, by its format; the second has that of itself, too, as OWN.
HASHED = {1: {ADAPTER, META}, SCHEMA: {ADAPTER, ADAPTER_CONFIG, META}}
OWN = "sha256"
TYPES = (torch.float32, torch.uint8)  # of weights, and of the rows that a learner has seen
INSTEAD = {  # what to do with a model of a kind, where the other is needed
    "adapted": "`metanlp predict` answers with this one, `metanlp score` judges it on a labelled file",
    "learner": "`metanlp adapt` makes one of this for a task of yours",
}
DEFAULT = "default"  # the name of the learner that comes with the package


@dataclass(frozen=True)
class Artefact:
    """What a folder held."""

    net: Backbone | Writer
    weights: Weights
    settings: Mapping[str, Any]


def write_artefact(
    folder: Path, kind: str, net: Backbone | Writer, weights: Weights, settings: Mapping[str, Any]
) -> None:
    """`weights` have no task axis. Where there is no room, all files stay as they were; the configuration comes last,
    with the sha256 of the others and of itself."""
    if not finite(weights):
        raise ValueError("weights with NaN or infinity are not saved")
    files = {**_adapter_files(net, weights), META: to_safetensors(_beside_peft(weights))}
    config = {
        "schema": SCHEMA,
        "kind": kind,
        "base": {"name": net.name, "revision": net.base.revision, "sha256": net.base.sha256},
        "backbone": to_json(net.options),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "versions": versions(),
        **settings,
    }
    with deferred() as told:  # a folder with files of two models would be refused as damaged
        write_together(folder, {**files, CONFIG: signed(config)})
    if told():
        raise StoppedError(told(), f"stopped when {folder} was saved")


def signed(config: Mapping[str, Any]) -> bytes:
    """`meta_config.json` with the sha256 of its own content."""
    whole = {**config, OWN: _sha256_of_content(config)}
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def write_adapter(folder: Path, net: Backbone | Writer, weights: Weights) -> None:
    """The two files that plain peft opens."""
    write_together(folder, _adapter_files(net, weights))


def _adapter_files(net: Backbone | Writer, weights: Weights) -> dict[str, bytes]:
    first = {key: value for key, value in pick_inside(weights, "lora/").items() if not is_further(f"lora/{key}")}
    return {ADAPTER_CONFIG: net.adapter_config(), ADAPTER: to_safetensors(first)}


def _beside_peft(weights: Weights) -> Weights:
    """What peft's file has no place for: all but the first set of adapters."""
    return {key: value for key, value in weights.items() if not key.startswith("lora/") or is_further(key)}


def _sha256_of_content(config: Mapping[str, Any]) -> str:
    """Of all but the sha256 itself, however the file is laid out."""
    rest = {key: value for key, value in config.items() if key != OWN}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_artefact(
    name: str | Path, kind: str, *, base: str | None, device: torch.device | str, net: Backbone | Writer | None = None,
    max_length: int | None = None,
) -> Artefact:  # fmt: skip
    """Of a folder, or of `owner/name` on the Hub; verified before it is used. `net` is its backbone, where that is
    loaded already; else it is opened, for texts of `max_length` tokens where that is given. Raises InputError for one
    that is no such thing, DamagedError for one that was cut or altered."""
    folder = located(name)
    config, adapters, others = verified(folder, kind)
    with of_config(folder):
        options = options_of(config["backbone"])
    if max_length is not None:
        if net is not None:
            raise InputError("max_length is for a model that is yet to be opened; open `net` with it, or give none")
        options = replace(options, max_length=max_length)
    found = net or _backbone(options, config["base"], base or _beside(folder, config["base"]), device)
    check_same(found.base, config["base"], given=net is not None)
    given = {f"lora/{key}": value for key, value in adapters.items()} | pick(others, "lora/")
    expected = found.init(torch.Generator().manual_seed(0))
    require_fit(folder / ADAPTER, given, expected)
    # In the backbone's own order, which files don't keep: sums over tensors depend on it to the last bit.
    weights = {key: given[key] for key in expected} | drop(others, "lora/")
    return Artefact(found, {key: value.to(found.device) for key, value in weights.items()}, config)


def located(name: str | Path) -> Path:
    """A folder as it is, a zip of one as the folder that it unpacks to. Where there is no such thing: `default` as that
    of the learner that comes with the package, `owner/name` or `owner/name@revision` as the one that the Hub's cache
    keeps of it. Raises InputError, DamagedError."""
    text = str(name)
    if os.path.lexists(text):
        packed = os.path.isfile(text) and (text.endswith(".zip") or is_zipfile(text))
        return unpacked(Path(name), FILES) if packed else Path(name)
    if text == DEFAULT:
        return Path(str(resources.files("metanlp").joinpath("data", DEFAULT)))
    hub = HubName.parse(text)
    return fetch_model(hub, FILES) if hub and not hub.config else Path(name)


def verified(folder: Path, kind: str | None = None) -> tuple[dict[str, Any], Weights, Weights]:
    """The configuration, the adapters under peft's names, and the rest of the weights, as they were saved: finite, each
    file of the sha256 that the configuration says. Raises InputError, DamagedError."""
    config = read_config(folder, kind)
    for name, sha256 in config["files"].items():
        _check_file(folder / name, sha256)
    return config, _tensors(folder / ADAPTER), _tensors(folder / META)


def read_config(folder: Path, kind: str | None) -> dict[str, Any]:
    """`meta_config.json`, of the kind asked for; None takes either."""
    path = folder / CONFIG
    if not path.is_file():
        wanted = f"a model of kind {kind!r}" if kind else "a learner or an adapted model"
        raise InputError(f"{folder} holds no {CONFIG}; {_trained_by(folder) or f'give a folder with {wanted}'}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found, schema = config["kind"], config["schema"]
        listed, _ = {*config["files"]}, INSTEAD[found]
        _require(str, config["base"], "name", "revision", "sha256")
        _require(dict, config, "backbone", "algorithm", "record")
        if found == "adapted":
            _require(list, config, "labels", "scale")
            _require(str, config, "form")
            _require(bool, config, "pairs")
            _ = [float(config["scale"][place]) for place in (0, 1)]
        known, whole = HASHED.get(schema), schema == 1 or config.get(OWN) == _sha256_of_content(config)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {type(error).__name__} {error}") from error
    if known is None:
        reads = " and ".join(map(str, HASHED))
        raise DamagedError(f"{path} has format {schema}, this version of metanlp reads format {reads}")
    if listed != known or not whole:
        raise DamagedError(f"{path} is not the file that was saved: its sha256 differs from the one in it")
    if kind and found != kind:
        wanted = f"one of kind {kind!r} is needed here; {INSTEAD[found]}"
        raise InputError(f"{folder} holds a model of kind {found!r}, and {wanted}")
    return config


def _trained_by(folder: Path) -> str:
    """The command that trains a learner, where a comparison left its results and no learner of all tasks."""
    try:
        told = json.loads((folder / LOCAL).read_text(encoding="utf-8"))["train"]
        commands = " or ".join(str(command) for command in told.values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return ""
    return f"a comparison left it, and learners of all tasks but one; {commands} trains one on all" if commands else ""


def _require(kind: type, settings: Mapping[str, Any], *keys: str) -> None:
    """Raises KeyError or TypeError where a value is not there, or is of another kind."""
    for key in (key for key in keys if not isinstance(settings[key], kind)):
        raise TypeError(f"{key!r} is of type {type(settings[key]).__name__}")


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise DamagedError(f"{path} is missing")
    if sha256_of(path) != sha256:
        raise DamagedError(f"{path} is not the file that was saved: its sha256 differs from the one in {CONFIG}")


def _tensors(path: Path) -> Weights:
    try:
        tensors = from_safetensors(path.read_bytes())
    except ValueError as error:
        raise DamagedError(f"{path} is {error}") from error
    if not finite(tensors):
        raise DamagedError(f"{path} holds NaN or infinity")
    for key in (key for key, value in tensors.items() if value.dtype not in TYPES):
        raise DamagedError(f"{path}: {key} has numbers of type {tensors[key].dtype}, weights are {TYPES[0]}")
    return tensors


def require_fit(path: Path, found: Weights, expected: Weights, newer: Container[str] = ()) -> None:
    """Raises DamagedError, naming the first key, where names or shapes are not those `expected`; keys that are `newer`
    than the file may be missing."""
    for key in sorted(expected.keys() | found.keys()):
        is_, asked = (tuple(w[key].shape) if key in w else "missing" for w in (found, expected))
        if is_ != asked and not (is_ == "missing" and key in newer):
            why = "neither model nor method has it" if asked == "missing" else f"model and method ask for {asked}"
            raise DamagedError(f"{path}: {key} is {is_}, {why}")


@contextmanager
def of_config(folder: str | Path) -> Generator[None]:
    """Inside, what is wrong with a setting is said with the file that holds it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{Path(folder) / CONFIG}: {error}") from None


def _backbone(
    options: Options | Writing, said: Mapping[str, str], base: str | None, device: torch.device | str
) -> Backbone | Writer:
    if isinstance(options, Options):
        require_library(options.quantize)
    try:
        return open_model(base or _public(said), options, device)
    except InputError as error:
        raise InputError(f"{error}; this is the base model, whose folder `base`, --base, may name") from error


def _beside(folder: Path, said: Mapping[str, str]) -> str | None:
    """The folder of the base where it lies in that of the model or beside it, as a run leaves one that it trained."""
    name = said["name"].removeprefix(HERE)
    near = (place / name for place in (folder, folder.parent) if said["name"] == f"{HERE}{Path(name).name}")
    return next((str(base) for base in near if (base / "config.json").is_file()), None)


def _public(said: Mapping[str, str]) -> str:
    """The name under which the base is opened where no other place is given."""
    if said["name"] == MINILM and has_minilm():
        return "minilm"
    return f"{said['name']}@{said['revision']}" if said["revision"] else said["name"]
