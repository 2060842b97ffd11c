"""The straight road: files as people have them, from command to command, each detour answered in one line."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import Here

from metanlp.algorithms import Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.errors import DamagedError, InputError
from metanlp.learner.artefact import FILES
from metanlp.learner.learner import Adapted, Learner
from metanlp.serve.trial import zipped
from metanlp.tasks.taskset import TaskSet

TAUGHT = "text,label\nwhere is my parcel,delivery\nit never arrived,delivery\nrefund me,payment\nI paid twice,payment\n"
JUDGES = ("id,text,label\n7,my parcel is lost,delivery\n8,Refund me!,payment\n9,refund me,payment\n"
          "10,paid two times,payment\n")  # fmt: skip


def one_line(said: str) -> str:
    assert said.count("\n") == 1, said
    return said


@pytest.fixture(scope="module")
def work(net: Backbone, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner, a model adapted to a file, both also as zips, and files that judge."""
    folder = tmp_path_factory.mktemp("road")
    method = Maml(inner=Inner(steps=1))
    learner = Learner(method, net, method.init(net, torch.Generator().manual_seed(0)))
    learner.save(folder / "learner")
    with zipfile.ZipFile(folder / "learner.zip", "w") as packed:
        for path in (folder / "learner").iterdir():
            packed.write(path, path.name)
    (folder / "examples.csv").write_text(TAUGHT)
    (folder / "judges.csv").write_text(JUDGES)
    adapted = learner.adapt([line.split(",") for line in TAUGHT.splitlines()[1:]])
    adapted.save(folder / "adapted")
    (folder / "adapted.zip").write_bytes(zipped(adapted))
    return folder


# Repeats


def test_test_rows_that_teach_too_are_dropped_and_counted_where_that_is_asked(here: Here, tmp_path: Path) -> None:
    task = tmp_path / "tasks" / "mails"
    task.mkdir(parents=True)
    (task / "train.csv").write_text(TAUGHT)
    (task / "test.csv").write_text(JUDGES)
    code, out, said = here("metanlp", "tasks", tmp_path / "tasks")
    assert (code, out) == (2, "")
    assert "test.csv:4: this row of 'test' stands also in 'train'" in one_line(said)
    assert "remove one of the two, or leave out such rows with --drop-repeats" in said
    code, out, said = here("metanlp", "tasks", tmp_path / "tasks", "--drop-repeats")
    assert (code, said) == (0, "")
    assert "mails: 1 of the 4 rows of 'test' stand also in 'train', and are left out" in " ".join(out.split())
    (read,) = TaskSet.from_files(tmp_path / "tasks", drop_repeats=True).tasks
    assert [row["text"] for row in read.pools["test"]] == ["my parcel is lost", "Refund me!", "paid two times"]
    assert "stands also in 'train'" in one_line(here("metanlp", "tasks", "build", tmp_path / "tasks")[2])
    assert here("metanlp", "tasks", "build", tmp_path / "tasks", "--drop-repeats")[0] == 0
    (indexed,) = TaskSet.from_files(tmp_path / "tasks").tasks
    assert [*indexed.pools["test"]] == [*read.pools["test"]]
    shutil.rmtree(tmp_path / "tasks" / ".metanlp-index")
    (task / "test.csv").write_text(TAUGHT)
    assert "every row of 'test' stands also in 'train'" in here("metanlp", "tasks", task, "--drop-repeats")[2]


def test_score_leaves_out_examples_among_the_rows(here: Here, work: Path, tiny: Path) -> None:
    words = ["metanlp", "score", work / "judges.csv", "--base", tiny, "--from", work / "learner"]
    examples = ["--examples", work / "examples.csv"]
    code, out, said = here(*words, *examples, "--drop-repeats", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 3)
    assert "1 of the 4 rows of" in said
    code, out, said = here(*words, *examples, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 4)
    assert "1 of the 4 rows of" in said
    assert "were seen; --drop-repeats leaves them out" in said
    code, _, said = here(*words[:-1], work / "adapted", "--drop-repeats")
    assert code == 2
    assert "--drop-repeats leaves out rows that stand in --examples, and there are none" in one_line(said)


# Answers to a file that has the labels


def test_predict_ends_in_the_score_where_the_labels_are_there(
    here: Here, work: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ["metanlp", "predict", "--from", work / "adapted", "--base", tiny]
    code, out, said = here(*words, work / "judges.csv")
    assert code == 0
    score = json.loads(here("metanlp", "score", work / "judges.csv", *words[2:], "--json")[1])
    assert f"accuracy {score['accuracy']:.3f} [" in said.splitlines()[-1]
    assert f"macro f1 {score['macro_f1']:.3f} on 4 labelled rows; always the commonest class 0.750; more: " in said
    assert f"metanlp score --from {work / 'adapted'} {work / 'judges.csv'}" in said
    told = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in told] == ["7", "8", "9", "10"]
    # The answers are those to the same texts without labels; and these, or some of them alone, say nothing.
    for labels in (["", "", "", ""], ["delivery", "", "payment", "payment"]):
        lines = JUDGES.splitlines()[1:]
        rows = [",".join([*line.split(",")[:2], label]) for line, label in zip(lines, labels, strict=True)]
        (tmp_path / "new.csv").write_text("\n".join(["id,text,label", *rows]) + "\n")
        code, again, said = here(*words, tmp_path / "new.csv")
        assert code == 0
        assert "accuracy" not in said
        assert [json.loads(line) for line in again.splitlines()] == told


def test_evaluate_of_adapted_models_says_what_score_says(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    base = ["--base", tiny]
    evaluate = ["metanlp", "evaluate", "--from", work / "adapted", "--out", tmp_path / "out", *base, "--test"]
    score = ["metanlp", "score", work / "judges.csv", "--from", work / "adapted", *base]
    code, out, said = here(*evaluate, work / "judges.csv")
    assert (code, said) == (0, "")
    assert out == f"{work / 'adapted'} on {work / 'judges.csv'}\n{here(*score)[1]}"
    two = here(*evaluate, work / "judges.csv", work / "examples.csv", "--json")[1]
    first, second = json.loads(two)["scores"]
    known = {"from": str(work / "adapted"), "test": str(work / "judges.csv")}
    assert first == known | json.loads(here(*score, "--json")[1])
    assert second["test"] == str(work / "examples.csv")
    assert not (tmp_path / "out").exists()
    for words, line in (
        (["mini/urgency"], "--test mini/urgency is no file; an adapted model is judged by the rows of a labelled file"),
        ([work / "judges.csv", "--shots", "4"], "--shots is for learners, which adapt here; an adapted model has its"),
    ):
        code, out, said = here(*evaluate, *words)
        assert (code, out) == (2, "")
        assert line in one_line(said)


# Zips


def test_a_zip_is_taken_wherever_its_folder_is(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    base = ["--base", tiny]
    folder, packed = (
        here("metanlp", "predict", "--from", work / name, work / "examples.csv", *base)[:2]
        for name in ("adapted", "adapted.zip")
    )
    assert folder == packed
    assert folder[0] == 0
    adapt = ["metanlp", "adapt", "--examples", work / "examples.csv", "--from", work / "learner.zip", *base]
    assert here(*adapt, "--out", tmp_path / "a")[0] == 0
    assert (tmp_path / "a" / "meta_model.safetensors").read_bytes() == (
        work / "adapted" / "meta_model.safetensors"
    ).read_bytes()
    assert here("metanlp", "info", work / "adapted.zip", "--json")[0] == 0
    assert (
        here("metanlp", "export", "--from", work / "adapted.zip", "--to", "lora", "--out", tmp_path / "e", *base)[0]
        == 0
    )


def test_a_model_of_the_other_kind_is_answered_with_what_takes_it(here: Here, work: Path) -> None:
    (work / "x.csv").write_text(TAUGHT)
    evaluate = ["evaluate", "--test", "mini/urgency", "--from", work / "learner", work / "adapted"]
    adapt = ["adapt", "--examples", work / "x.csv", "--out", work / "out", "--from", work / "adapted"]
    for command in (evaluate, adapt):
        code, out, said = here("metanlp", *command)
        assert (code, out) == (2, "")
        assert "is needed here; `metanlp predict` answers with this one, `metanlp score` judges it" in one_line(said)
    code, _, said = here("metanlp", "predict", "--from", work / "learner", work / "x.csv")
    assert code == 2
    assert "`metanlp adapt` makes one of this for a task of yours" in one_line(said)


def test_nothing_of_a_zip_lands_outside_of_its_folder(work: Path, tiny: Path, tmp_path: Path) -> None:
    """Files are written under their bare names; links, folders and what is not asked for are passed over."""
    path = tmp_path / "deep" / "down" / "evil.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as packed:
        for name in FILES:
            packed.write(work / "adapted" / name, f"../../{name}")
        packed.writestr("../../../owned.txt", "owned")
        packed.writestr("/owned.txt", "owned")
    assert Adapted.load(path, base=str(tiny)).labels == ("delivery", "payment")
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == ["evil.zip"]


def test_zips_that_are_no_model_or_too_much_are_one_line(work: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], path: Path) -> str:
        with pytest.raises(kind) as error:
            Adapted.load(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    def made(name: str, *held: tuple[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            for entry, content in held:
                packed.writestr(entry, content)
        return tmp_path / name

    assert "holds no model; give a zip of one folder" in refused(InputError, made("a.zip", ("x.txt", b"")))
    two = made("b.zip", *((f"{place}/{name}", b"") for place in "ab" for name in FILES))
    assert "holds 2 models" in refused(InputError, two)
    assert "holds no meta_config.json" in refused(InputError, made("c.zip", (FILES[0], b"")))
    cut = tmp_path / "d.zip"
    cut.write_bytes((work / "adapted.zip").read_bytes()[:-100])
    assert "is no whole zip" in refused(DamagedError, cut)
    altered = bytearray((work / "learner.zip").read_bytes())  # stored as it is: one byte of a tensor
    altered[altered.index(b"adapter_model.safetensors") + 2_000] ^= 1
    (tmp_path / "e.zip").write_bytes(altered)
    assert "is no whole zip: Bad CRC-32" in refused(DamagedError, tmp_path / "e.zip")


def test_a_zip_that_unpacks_to_very_much_is_not_unpacked(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.zip").write_bytes((work / "learner.zip").read_bytes())  # one that is not unpacked yet
    monkeypatch.setattr("metanlp.learner.packed.UNPACKED_LIMIT", 1_000)
    with pytest.raises(InputError, match=r"unpacks to [\d,]+ bytes, more than 1,000; unpack it by hand"):
        Learner.load(tmp_path / "new.zip")


# Names on the Hub


@pytest.mark.parametrize(
    "name", ["support-demo", "support demo!", "a/b/c", "a--b/c", "a/b..c", "a/b.git", f"a/{'b' * 95}"]
)
def test_names_that_the_hub_does_not_take_are_one_line(here: Here, work: Path, name: str) -> None:
    code, out, said = here("metanlp", "publish", "--from", work / "adapted", name)
    assert (code, out) == (2, "")
    assert f"{name!r} is no name of a repository; give owner/name" in one_line(said)
