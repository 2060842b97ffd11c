"""Folders that somebody made to do harm: each is made of a good one, and signed so that its checksums fit."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from metanlp.learner.artefact import ADAPTER, ADAPTER_CONFIG, CONFIG, META, signed

Harm = Callable[[Path], None]
CANARY = "canary"  # what none of them may make
STATE, MANIFEST = "state.safetensors", "MANIFEST.json"
CODE = f"open({CANARY!r}, 'w').close()\nfrom transformers import *\nclass Own(BertModel): pass\n"


class Bomb:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {CANARY}",)


PICKLE = pickle.dumps(Bomb())


def torch_file() -> bytes:
    """As `torch.save` writes it, with a bomb among the tensors."""
    packed = io.BytesIO()
    torch.save({"lora_A": torch.ones(2), "more": Bomb()}, packed)
    return packed.getvalue()


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    return packed.getvalue()


def header_of(claimed: int) -> bytes:
    return struct.pack("<Q", claimed) + b"{}"


def puts(name: str, data: Callable[[], bytes] | bytes, *, gone: tuple[str, ...] = ()) -> Harm:
    """A file of these bytes; those that are `gone` are no longer there."""

    def harm(folder: Path) -> None:
        for each in gone:
            (folder / each).unlink()
        (folder / name).write_bytes(data if isinstance(data, bytes) else data())

    return harm


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Harm:
    """The same file with other tensors."""

    def harm(folder: Path) -> None:
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, {"format": "pt"})

    return harm


def settings(name: str, **changes: Any) -> Harm:
    """The same JSON with other values."""
    return lambda folder: rewrite(folder / name, lambda old: old | changes)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()) if path.exists() else {})))


def link_outside(name: str) -> Harm:
    def harm(folder: Path) -> None:
        outside = folder.parent / f"outside_{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return harm


def code_beside(part: str, **named: Any) -> Harm:
    def harm(folder: Path) -> None:
        (folder / "own.py").write_text(CODE)
        rewrite(folder / part, lambda old: old | named)

    return harm


def shard_outside(folder: Path) -> None:
    """An index of weights that names a file out of the folder."""
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    names = load_file(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def spoilt(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    """One number of the first tensor."""

    def change(found: dict[str, torch.Tensor]) -> None:
        first = next(key for key, tensor in sorted(found.items()) if tensor.is_floating_point())
        found[first].view(-1)[0] = value

    return change


def retyped(kind: torch.dtype) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda found: found.update({key: value.to(kind) for key, value in found.items()})


def cut(found: dict[str, torch.Tensor]) -> None:
    key = sorted(found)[0]
    found[key] = found[key][:-1].clone()


CHECKPOINTS: dict[str, Harm] = {
    "a pickle for tensors": puts(STATE, PICKLE),
    "a torch file for tensors": puts(STATE, torch_file),
    "a zip bomb for tensors": puts(STATE, zip_bomb),
    "a header of 2 GB": puts(STATE, header_of(2**31)),
    "a pickle for the state": puts("state.json", PICKLE),
    "a pickled optimizer beside": puts("optimizer.bin", PICKLE),
    "pickled random states beside": puts("random_states_0.pkl", PICKLE),
    "a link out of the folder": link_outside(STATE),
    "a manifest that names a file outside": settings(MANIFEST, files={"../outside": {"bytes": 1, "sha256": "0" * 64}}),
    "NaN": tensors(STATE, spoilt(float("nan"))),
    "infinity": tensors(STATE, spoilt(float("inf"))),
}
LEARNERS: dict[str, Harm] = {
    "adapters in a .bin": puts("adapter_model.bin", torch_file, gone=(ADAPTER,)),
    "a pickle for adapters": puts(ADAPTER, PICKLE),
    "a torch file for the rest": puts(META, torch_file),
    "a zip bomb for adapters": puts(ADAPTER, zip_bomb),
    "a header of 2 GB": puts(META, header_of(2**31)),
    "a configuration that names a file outside": settings(CONFIG, files={"../outside": "0" * 64}),
    "NaN": tensors(ADAPTER, spoilt(float("nan"))),
    "infinity": tensors(META, spoilt(float("-inf"))),
    "adapters of another rank": tensors(ADAPTER, cut),
    "adapters of another type": tensors(ADAPTER, retyped(torch.float64)),
    "whole numbers for the rest": tensors(META, retyped(torch.int64)),
    "an alien key among the adapters": tensors(ADAPTER, lambda found: found.update(alien=torch.ones(2))),
    "an alien key among the rest": tensors(META, lambda found: found.update({"net/alien": torch.ones(2)})),
    "a key too few": tensors(ADAPTER, lambda found: found.pop(sorted(found)[0])),
    "another base model": settings(CONFIG, base={"name": "./made", "revision": "", "sha256": "0" * 64}),
    "a method that is code": settings(CONFIG, algorithm={"name": f"__import__('os').system('touch {CANARY}')"}),
    "a method that is a path": settings(CONFIG, algorithm={"name": "../own"}),
    "a future format": settings(CONFIG, schema=99),
    "settings that are no numbers": settings(CONFIG, backbone={"adapt": {"rank": "$(touch canary)"}}),
}
MODELS: dict[str, Harm] = {
    "weights in a .bin": puts("pytorch_model.bin", torch_file, gone=("model.safetensors",)),
    "a pickle for weights": puts("model.safetensors", PICKLE),
    "a zip bomb for weights": puts("model.safetensors", zip_bomb),
    "a header of 2 GB": puts("model.safetensors", header_of(2**31)),
    "a model with code of its own": code_beside(
        "config.json", model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Own"}
    ),
    "a shard outside": shard_outside,
    "weights outside": lambda folder: (
        (
            (folder / "model.safetensors").rename(folder.parent / "outside.safetensors"),
            rewrite(folder / "config.json", lambda old: old | {"transformers_weights": "../outside.safetensors"}),
        )[0]
        and None
    ),
    "a pickle for the tokenizer": puts("tokenizer.json", PICKLE),
}


# Known tokenizers are used without the code that comes beside them.
HARMLESS: dict[str, Harm] = {
    "a tokenizer with code of its own": code_beside(
        "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]}
    ),
}


def resigned(folder: Path) -> None:
    """Checksums that fit whatever the files hold."""
    if (folder / MANIFEST).exists():
        manifest = json.loads((folder / MANIFEST).read_text())
        for name in manifest["files"]:
            if ".." not in name and (folder / name).is_file():
                data = (folder / name).read_bytes()
                manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    if (folder / CONFIG).exists():
        config = json.loads((folder / CONFIG).read_text())
        for name in (ADAPTER, ADAPTER_CONFIG, META):
            if name in config["files"] and (folder / name).is_file():
                config["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / CONFIG).write_bytes(signed(config))
