"""One commit to a real server on the loopback, which holds git repositories: the old or the complete new, whatever goes
wrong. No model takes part, and so no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from git_hub import READ, WRITE, Fault, GitHub
from hub_server import running
from hub_worker import Worker, worker

from metanlp.learner.artefact import ADAPTER, CONFIG
from metanlp.share.publish import OURS


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHub]:
    with running(GitHub(tmp_path_factory.mktemp("git"))) as server:
        yield server  # type: ignore[misc]


@pytest.fixture(scope="module")
def pusher(hub: GitHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(hub, tmp_path_factory.mktemp("pusher")) as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return write_stage(tmp_path / "stage", 1)


def write_stage(folder: Path, version: int) -> Path:
    """Small and large files; each version has one more than the other."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\ntags:\n- metanlp\n---\n# version {version}\n")
    (folder / CONFIG).write_text(json.dumps({"version": version}))
    (folder / ADAPTER).write_bytes(bytes([version % 256]) * 5000)
    (folder / "plots").mkdir(exist_ok=True)
    for old in (folder / "plots").iterdir():
        old.unlink()
    (folder / "plots" / f"{version % 2}.png").write_bytes(b"png %d" % version)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(worker: Worker, stage: Path, name: str, *, private: bool = True, **more: Any) -> dict[str, Any]:
    limits = {"PAUSE_SECONDS": 0.02, "REQUEST_SECONDS": 10, "PATIENCE_SECONDS": 15} | more.get("limits", {})
    env = {"HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0"} | more.get("env", {})
    given = (str(stage), name, OURS)
    return worker.call("metanlp.core.hub.push", *given, private=private, message="m", limits=limits, env=env)


def test_one_commit_and_none_where_nothing_changed(hub: GitHub, pusher: Worker, stage: Path) -> None:
    first = push(pusher, stage, "lab/one")
    assert first["made"] == [f"{hub.url}/lab/one/commit/{hub.head('lab/one')}", True]
    assert hub.published("lab/one") == content(stage)
    assert hub.files("lab/one")[ADAPTER].startswith(b"version https://git-lfs")
    assert (hub.commits("lab/one"), hub.private["lab/one"]) == (2, True)  # the Hub's own, and ours
    again = push(pusher, stage, "lab/one")
    assert again["made"] == [first["made"][0], False]
    assert hub.commits("lab/one") == 2


def test_what_is_no_longer_ours_goes_and_what_is_others_stays(hub: GitHub, pusher: Worker, stage: Path) -> None:
    push(pusher, stage, "lab/gone")
    hub.commit("lab/gone", {"LICENSE": b"mine", "plots/own.png": b"old"}, (), "by hand")
    push(pusher, write_stage(stage, 2), "lab/gone")
    assert hub.published("lab/gone") == content(stage) | {"LICENSE": b"mine"}


def test_somebody_came_between(hub: GitHub, pusher: Worker, stage: Path) -> None:
    push(pusher, stage, "lab/stale")
    hub.before["preupload"] = lambda: hub.commit("lab/stale", {"LICENSE": b"theirs"}, (), "by somebody")
    theirs = content(stage) | {"LICENSE": b"theirs"}
    said = push(pusher, write_stage(stage, 2), "lab/stale")
    assert "somebody else changed it meanwhile, and it is as they left it; publish again" in said["error"]
    assert hub.published("lab/stale") == theirs
    assert "made" in push(pusher, stage, "lab/stale")
    assert hub.published("lab/stale") == content(stage) | {"LICENSE": b"theirs"}


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        ("hf_wrong", "lab/token", "the Hub does not know this token; make one with the right to write"),
        (READ, "lab/token", "this token may not write there; make one with the right"),
        (READ, "lab/readable", "this token may not write there"),
        ("", "lab/token", "publishing needs a token with the right to write; set HF_TOKEN"),
        (WRITE, "token", "'token' is no name of a repository; give owner/name"),
        (WRITE, "lab/../x", "is no name of a repository"),
    ],
)
def test_tokens_and_names(hub: GitHub, pusher: Worker, stage: Path, token: str, name: str, said: str) -> None:
    if name == "lab/readable" and name not in hub.private:
        hub.create(name, private=True)
    found = push(pusher, stage, name, env={"HF_TOKEN": token})
    assert (found["kind"], "\n" in found["error"]) == ("InputError", False), found
    assert said in found["error"]
    assert not token or token not in found["error"]
    assert "lab/token" not in hub.private
    assert name != "lab/readable" or hub.commits(name) == 1


def test_public_only_where_both_say_so(hub: GitHub, pusher: Worker, stage: Path) -> None:
    push(pusher, stage, "lab/public", private=False)
    assert hub.private["lab/public"] is False
    assert "is public already; publish it with --public" in push(pusher, stage, "lab/public")["error"]
    push(pusher, stage, "lab/closed")
    assert "is private, and stays so" in push(pusher, stage, "lab/closed", private=False)["error"]
    assert hub.commits("lab/closed") == hub.commits("lab/public") == 2


BUSY = (429, 500, 502, 503, 504, "drop", "done", "slow")
REFUSED = (401, 403, 404, 409, 412, 413)
REQUESTS = range(1, 10)  # of one publication, the probe first
QUICK = ((6, 503), (8, "done"), (9, 503), (9, "done"), (9, "drop"), (9, 412), (9, 403), (4, 500), (7, "slow"), (2, 502))


def broken(hub: GitHub, pusher: Worker, folder: Path, name: str, faults: Any) -> int:
    """For each fault a publication that meets it and one that does not; how many of the first came through."""
    push(pusher, write_stage(folder, 0), name)
    old, through = content(folder), 0
    for number, (at, what) in enumerate(faults, start=1):
        new = content(write_stage(folder, number))
        commits = hub.commits(name)
        hub.break_at(Fault(at, what))
        said = push(pusher, folder, name)
        hub.break_at(None)
        assert hub.published(name) in ([new] if "made" in said else [old, new] if what == "done" else [old]), (at, what)
        assert "made" in said or (said["kind"] == "InputError" and "\n" not in said["error"]), said
        assert "made" in said or what in REFUSED or at == 1, (at, what, said)
        assert said["seconds"] < 40
        through += "made" in said
        assert "made" in push(pusher, folder, name), (at, what)
        assert hub.published(name) == new, (at, what)
        assert hub.commits(name) == commits + 1, (at, what)
        old = new
    return through


def test_a_broken_publication_leaves_the_old_or_the_new(hub: GitHub, pusher: Worker, tmp_path: Path) -> None:
    assert broken(hub, pusher, tmp_path / "stage", "lab/broken", QUICK) == 8


@pytest.mark.slow
def test_a_hundred_broken_publications(hub: GitHub, pusher: Worker, tmp_path: Path) -> None:
    faults = list(product(REQUESTS, (*BUSY, *REFUSED)))
    assert len(faults) >= 100
    assert broken(hub, pusher, tmp_path / "stage", "lab/hundred", faults) >= 50


def test_a_hub_that_falls_silent_ends_in_one_line(hub: GitHub, pusher: Worker, stage: Path) -> None:
    hub.silent.add("lab/silent")
    said = push(pusher, stage, "lab/silent", limits={"REQUEST_SECONDS": 0.2, "PATIENCE_SECONDS": 0.4})
    hub.silent.clear()
    assert (
        f"lab/silent: the Hub at {hub.url} cannot be reached (timed out); publish again when it answers"
        in said["error"]
    )
    assert (said["seconds"] < 10, "HF_HUB_OFFLINE" in said["error"]) == (True, False)


@pytest.mark.slow
def test_a_hub_that_falls_silent_is_given_up_within_40_s(hub: GitHub, stage: Path, tmp_path: Path) -> None:
    with worker(hub, tmp_path) as fresh:
        push(fresh, stage, "lab/later")
        for part in ("preupload", "commit", "lab/later"):
            hub.silent.add(part)
            said = push(fresh, write_stage(stage, 2), "lab/later")
            hub.silent.clear()
            assert "cannot be reached" in said["error"]
            assert 5 < said["seconds"] < 40


def test_offline_there_is_no_publishing(pusher: Worker, stage: Path) -> None:
    said = push(pusher, stage, "lab/offline", env={"HF_HUB_OFFLINE": "1"})
    assert "publishing needs the Hub, and HF_HUB_OFFLINE is set; unset it" in said["error"]
