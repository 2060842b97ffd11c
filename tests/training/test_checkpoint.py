"""Checkpoints against bad disks, bad luck and bad intent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metanlp
from metanlp.core import storage, weights
from metanlp.core.errors import DamagedError, InputError, StorageError
from metanlp.training import checkpoint

FILES = ("state.safetensors", "state.json", "MANIFEST.json")
STATE: dict[str, Any] = {"step": 3, "best": 0.1 + 0.2, "tasks": ["a", "ü"], "seen": {"a": [1, 2]}, "none": None}


def tensors(scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "lora/a": torch.randn(8, 4, generator=generator) * scale,
        "adam/lora/a": torch.randn(8, 4, generator=generator).double(),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "step": torch.tensor(7),
        "rate": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "bytes": torch.arange(9, dtype=torch.uint8),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "step_3", tensors(), STATE)
    return tmp_path / "step_3"


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(DamagedError) as caught:
        checkpoint.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def run(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with `tmp_path` as its argument."""
    (tmp_path / "script.py").write_text(script)
    root = str(Path(next(iter(metanlp.__path__))).parent)
    env = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)


def resign(folder: Path) -> None:
    """A manifest that fits the files: what an attacker would write."""
    entries = {}
    for name in sorted(FILES[:2]):
        data = (folder / name).read_bytes()
        entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": entries}, indent=1))


# ---- What goes in comes out -----------------------------------------------------------------------------------------


def test_everything_comes_back_bit_by_bit(folder: Path) -> None:
    found, state = checkpoint.load(folder)
    assert weights.equal(found, tensors())
    assert state == STATE
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_the_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "again", tensors(), STATE)
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in FILES)


def test_views_and_shared_memory_can_be_saved(tmp_path: Path) -> None:
    base = torch.randn(6, 4, requires_grad=True)
    given = {"base": base, "turned": base.T, "row": base[2], "again": base}
    checkpoint.save(tmp_path / "c", given, {})
    assert weights.equal(checkpoint.load(tmp_path / "c")[0], {key: value.detach() for key, value in given.items()})


def test_a_checkpoint_is_never_written_over(folder: Path) -> None:
    with pytest.raises(StorageError, match="step_3"):
        checkpoint.save(folder, tensors(2.0), {"step": 4})
    assert weights.equal(checkpoint.load(folder)[0], tensors())
    assert [path.name for path in folder.parent.iterdir()] == ["step_3"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(folder: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="'rate'"):
        checkpoint.save(folder, tensors() | {"rate": torch.tensor(bad)}, STATE)
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(folder, tensors(), {"loss": bad})
    assert checkpoint.load(folder)[1] == STATE


# ---- Damage ---------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        path = folder / FILES[number % 3]
        data = path.read_bytes()
        # A third of the flips in the tensors go to their last bytes, which hold values, not names.
        at = int(rng.integers(len(data) - 64 if number % 9 == 0 else 0, len(data)))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
        refused(folder, str(folder))
        path.write_bytes(data)
    checkpoint.load(folder)


def test_a_flipped_value_is_named_with_its_file(folder: Path) -> None:
    path = folder / "state.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(folder, str(path), "sha256")


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_found(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for end in {0, 1, len(data) // 2, len(data) - 1, *range(0, len(data), max(1, len(data) // 30))}:
        (folder / name).write_bytes(data[:end])
        refused(folder, str(folder / name))
    (folder / name).write_bytes(data + b"\n")
    refused(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES)
def test_missing_linked_and_misplaced_files_are_found(folder: Path, tmp_path: Path, name: str) -> None:
    path, kept = folder / name, tmp_path / "kept"
    path.rename(kept)
    refused(folder, str(path), "missing")
    path.symlink_to(kept)
    refused(folder, str(path), "link")
    path.unlink()
    path.mkdir()
    refused(folder, str(path), "plain file")
    path.rmdir()
    os.mkfifo(path)
    refused(folder, str(path), "plain file")


@pytest.mark.parametrize("name", ["optimizer.bin", "state.json.bak", ".hidden", "sub/state.json"])
def test_files_that_do_not_belong_are_found(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    refused(folder, name.split("/")[0], "does not belong")


def test_a_linked_folder_a_file_and_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    refused(tmp_path / "link", "link")
    refused(folder / "state.json", "folder")
    refused(tmp_path / "nowhere", "missing")


def test_swapped_files_are_found(folder: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "other", tensors(2.0), STATE)
    shutil.copy(tmp_path / "other" / FILES[0], folder / FILES[0])
    refused(folder, FILES[0])


def nan_inside(folder: Path) -> None:
    data = (folder / FILES[0]).read_bytes()
    value = struct.pack("<f", 0.5)
    assert data.count(value) == 1
    (folder / FILES[0]).write_bytes(data.replace(value, struct.pack("<f", float("nan"))))


def huge_header(folder: Path) -> None:
    (folder / FILES[0]).write_bytes(struct.pack("<Q", 2**31) + b"{}")


def strange_type(folder: Path) -> None:
    header = b'{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'
    (folder / FILES[0]).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def pickled(folder: Path) -> None:
    (folder / FILES[0]).write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")


def deep(folder: Path) -> None:
    (folder / FILES[1]).write_bytes(b"[" * 200_000)


def a_list(folder: Path) -> None:
    (folder / FILES[1]).write_bytes(b"[]")


@pytest.mark.parametrize("harm", [nan_inside, huge_header, strange_type, pickled, deep, a_list])
def test_a_fitting_manifest_does_not_make_a_bad_file_good(
    folder: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    resign(folder)
    checkpoint.load(folder)
    harm(folder)
    resign(folder)
    refused(folder, FILES[harm in (deep, a_list)])
    assert not (folder.parent / "canary").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"format": 2}, "format '2', this metanlp reads 1"), ({"format": None}, "None"), ({"files": {}}, "list its files"),
     ({"files": 3}, "list its files"), ({"more": 1}, "altered")],
)  # fmt: skip
def test_other_manifests_are_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | change, indent=1))
    refused(folder, "MANIFEST.json", said)


# ---- The newest of many ---------------------------------------------------------------------------------------------


def test_newest_counts_numbers_not_letters(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere") is None
    assert checkpoint.newest(tmp_path) is None
    for step in (9, 10, 2):
        checkpoint.save(tmp_path / f"step_{step}", tensors(), {"step": step})
    (tmp_path / "step_11.bak").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step_10"


def test_a_damaged_newest_is_an_error_that_names_it(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / f"step_{step}", tensors(), {"step": step})
    (tmp_path / "step_2" / "state.json").write_bytes(b"{}")
    with pytest.raises(DamagedError, match="step_2"):
        checkpoint.load(tmp_path / "step_2")


def test_what_a_killed_save_left_is_not_seen_and_goes(folder: Path) -> None:
    half = folder.parent / ".step_4.0123abcd.tmp"
    half.mkdir()
    (half / "state.json").write_text("{")
    assert checkpoint.newest(folder.parent) == folder
    checkpoint.prune(folder.parent)
    assert [path.name for path in folder.parent.iterdir()] == ["step_3"]


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in (9, 10, 2, 30):
        checkpoint.save(tmp_path / f"step_{step}", tensors(), {"step": step})
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_30"]
    checkpoint.prune(tmp_path, keep=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_30"]
    checkpoint.prune(tmp_path, keep=0)
    assert not list(tmp_path.iterdir())
    checkpoint.prune(tmp_path / "nowhere", keep=0)


# ---- Sudden death and full disks ------------------------------------------------------------------------------------

KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from metanlp.training import checkpoint

folder, chance = Path(sys.argv[1]) / "checkpoints", random.Random(0)
said = folder.parent / "done"


def work(first):
    for step in range(first, 10**6):
        checkpoint.save(folder / f"step_{step}", {"x": torch.full((50_000,), float(step))}, {"step": step})
        said.write_text(f"{step:06d}")
        checkpoint.prune(folder)


last = 0
for kill in range(25):
    child = os.fork()
    if not child:
        work(last + 1)
    time.sleep(chance.uniform(0.02, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    done = int(said.read_text() or 0) if said.exists() else 0
    path = checkpoint.newest(folder)
    if path is None:
        assert done == 0, done
        continue
    found, state = checkpoint.load(path)
    last = state["step"]
    assert path.name == f"step_{last}" and bool((found["x"] == last).all())
    assert last >= done, (last, done)
    checkpoint.prune(folder)
    assert all(path.name.startswith("step_") for path in folder.iterdir()), list(folder.iterdir())
print(last)
"""


@pytest.mark.slow
def test_the_newest_loads_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    ended = run(tmp_path, KILLS)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 0


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from metanlp.core import storage
from metanlp.training import checkpoint
from metanlp.core.errors import StorageError

folder = Path(sys.argv[1]) / "checkpoints"
tensors = {"x": torch.arange(20_000)}
checkpoint.save(folder / "step_1", tensors, {"step": 1})
storage.atomic_write(folder / "results.json", b"old")
for limit in (0, 1, 10, 100, 1_000, 10_000, 100_000, 150_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for name in ("step_2", "step_1"):
        try:
            checkpoint.save(folder / name, {"x": tensors["x"] + 1}, {"step": 2})
        except StorageError as problem:
            assert name in str(problem) and "too large" in str(problem), problem
        else:
            raise AssertionError(limit)
    try:
        storage.atomic_write(folder / "results.json", b"new" * 100_000)
    except StorageError as problem:
        assert "results.json" in str(problem), problem
    else:
        raise AssertionError(limit)
    assert (folder / "results.json").read_bytes() == b"old"
    assert checkpoint.newest(folder) == folder / "step_1"
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "step_1"]
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_alone(tmp_path: Path) -> None:
    ended = run(tmp_path, FULL_DISK)
    assert ended.returncode == 0, ended.stderr


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        checkpoint.save(tmp_path / "file" / "step_1", tensors(), STATE)
    with pytest.raises(StorageError, match="file"):
        storage.atomic_write(tmp_path / "file" / "a.json", b"x")


def test_atomic_write_replaces_links_not_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    storage.atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2


# ---- Two runs, one folder -------------------------------------------------------------------------------------------


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    with storage.lock(tmp_path / "out"):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"), storage.lock(tmp_path / "out"):
            pass
        with storage.lock(tmp_path / "other"):
            pass
    with storage.lock(tmp_path / "out"):
        pass


def test_the_lock_is_let_go_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), storage.lock(tmp_path):
        raise KeyError
    with storage.lock(tmp_path):
        pass


def test_a_folder_that_a_run_made_and_left_empty_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError), storage.lock(tmp_path / "new"):
        raise InputError
    (tmp_path / "old").mkdir()
    with storage.lock(tmp_path / "old"), storage.lock(tmp_path / "used"):
        (tmp_path / "used" / "results.json").write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} == {"old", "used"}
    assert {path.name for path in (tmp_path / "used").iterdir()} == {".lock", "results.json"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that is closed by being let go
def test_a_lock_that_is_interrupted_at_any_line_leaves_no_folder(tmp_path: Path) -> None:
    """As by a signal, which may come between the making of the folder and its use. Not at a `try:`, which does nothing:
    Python looks for signals where it calls, and its table of handlers leaves such lines out."""
    number, held = 0, False
    while not held:
        number += 1
        lines = count(1)

        def interrupt(frame: FrameType, event: str, _: Any, lines: Iterator[int] = lines, at: int = number) -> Any:
            name, line = frame.f_code.co_filename, frame.f_lineno
            acts = name == storage.__file__ and event == "line" and getline(name, line).split("#")[0].strip() != "try:"
            if acts and next(lines) == at:
                raise KeyboardInterrupt
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with suppress(KeyboardInterrupt), storage.lock(tmp_path / "out"):
                sys.settrace(before)
                held = True
        finally:
            sys.settrace(before)
        assert not (tmp_path / "out").exists(), f"interrupted at line {number}"
    assert number > 10


def test_a_file_cannot_be_locked_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="choose a folder"), storage.lock(path):
            pass


RACE = """
import os, signal, sys, time
from pathlib import Path
from metanlp.core import storage
from metanlp.core.errors import InputError

out = Path(sys.argv[1]) / "out"


def contend(write):
    try:
        with storage.lock(out):
            os.write(write, f"won {os.getpid()}\\n".encode())
            time.sleep(60)
    except InputError as problem:
        os.write(write, f"lost {problem}\\n".encode())
    os._exit(0)


for attempt in range(3):
    read, write = os.pipe()
    children = []
    while len(children) < 20:
        child = os.fork()
        if not child:
            contend(write)
        children.append(child)
    os.close(write)
    with os.fdopen(read) as lines:
        said = [lines.readline() for _ in children]
    won = [line.split()[1] for line in said if line.startswith("won")]
    assert len(won) == 1, said
    assert all(f"process {won[0]} on" in line for line in said if line.startswith("lost")), said
    os.kill(int(won[0]), signal.SIGKILL)  # its lock is stale now, and the next attempt takes it over
    for child in children:
        os.waitpid(child, 0)
"""


def test_one_of_twenty_wins_and_a_killed_winner_is_succeeded(tmp_path: Path) -> None:
    ended = run(tmp_path, RACE)
    assert ended.returncode == 0, ended.stderr
