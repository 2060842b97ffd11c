"""What is there already is replaced only where the user asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from metanlp.core import outputs
from metanlp.core.errors import InputError
from metanlp.core.outputs import CORPUS, MADE, OF_CORPUS, OutputFolder, check_file
from metanlp.evaluation import results
from metanlp.learner import artefact
from metanlp.report import page


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["meta_config.json", "adapter_config.json"], "it holds a model; give"),
        (
            ["results.json", "meta_config.json", "leakage.json"],
            "it holds a model and results; go on with --resume,",
        ),
        (["checkpoints/step_1/state.json", "metrics.jsonl", "leakage.json"], "it holds checkpoints; go on with"),
        (["a.csv", "b", "c", "d"], "it holds a.csv, b, c and 1 more; give another --out, or --replace what is there"),
    ],
)
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    filled(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        OutputFolder(tmp_path, resume=False).check()
    assert said in str(caught.value)
    OutputFolder(tmp_path, replace=True).check()


def test_a_folder_that_holds_nothing_is_free(tmp_path: Path) -> None:
    for each in (tmp_path / "new", filled(tmp_path / "locked", ".lock", "leakage.json")):
        OutputFolder(each).check()


def test_only_a_run_is_resumed(tmp_path: Path) -> None:
    OutputFolder(filled(tmp_path / "run", "leakage.json", "metrics.jsonl"), resume=True).check()
    OutputFolder(filled(tmp_path / "folds", "mini/task/leakage.json", "results.json"), resume=True).check()
    OutputFolder(tmp_path / "new", resume=True).check()
    with pytest.raises(InputError, match="there is no run to resume: it holds a model"):
        OutputFolder(filled(tmp_path / "model", "meta_config.json"), resume=True).check()


def test_no_output_is_its_own_source(tmp_path: Path) -> None:
    """Not even where it may be replaced, and by whatever path it is named."""
    inside = filled(tmp_path / "run" / "baselines" / "maml", "meta_config.json")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for out, verb in ((inside, "is"), (tmp_path / "run", "contains"), (tmp_path / "link", "contains")):
        with pytest.raises(InputError, match=rf"--out .* {verb} .*, which is read"):
            OutputFolder(out, (inside, "owner/name"), replace=True).check()
    OutputFolder(tmp_path / "run" / "adapted", (tmp_path / "run",)).check()  # within one is beside its files
    file = filled(tmp_path, "texts.csv") / "texts.csv"
    (tmp_path / "other.csv").hardlink_to(file)
    for out in (file, tmp_path / "other.csv"):
        with pytest.raises(InputError, match="which is read"):
            check_file(out, [file], replace=True)
    with pytest.raises(InputError, match="is there already"):
        check_file(file, [], replace=False)
    check_file(file, [], replace=True)
    with pytest.raises(InputError, match="is a file; give another --out, a folder"):
        OutputFolder(file, replace=True).check()


def test_replacing_takes_what_is_ours(tmp_path: Path) -> None:
    names = [OF_CORPUS, *(name if "." in name else f"{name}/x" for name in MADE)]
    with OutputFolder(filled(tmp_path / "ours", *names, "notes.txt"), replace=True).claimed():
        assert [path.name for path in (tmp_path / "ours").iterdir() if path.name != ".lock"] == ["notes.txt"]
    mine = f"{CORPUS}/mine.txt"
    with OutputFolder(filled(tmp_path / "beside", "results.json", mine), replace=True).claimed():
        assert (tmp_path / "beside" / mine).exists()
    with OutputFolder(filled(tmp_path / "theirs", "plots/mine.png"), replace=True).claimed():
        assert (tmp_path / "theirs" / "plots" / "mine.png").exists()


def test_the_names_are_those_that_are_written() -> None:
    assert {*artefact.FILES, results.RESULTS, page.PAGE, page.LOCAL, page.PLOTS} <= {*MADE}
    assert (artefact.CONFIG, results.RESULTS) == (outputs.CONFIG, outputs.RESULTS)
