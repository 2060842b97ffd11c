"""Every recipe from start to end, on a tiny model and the embedded tasks."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import in_turn
import pytest
import torch
from conftest import Here
from safetensors.torch import load_file

import metanlp
from metanlp.algorithms import ALGORITHMS, BASELINES, Maml
from metanlp.backbone import Backbone
from metanlp.core import storage, weights
from metanlp.core.errors import InputError
from metanlp.evaluation.results import Report, read_report
from metanlp.experiment.options import ALL, Experiment
from metanlp.experiment.prepare import methods
from metanlp.learner.artefact import ADAPTER, CONFIG, META
from metanlp.learner.learner import Adapted, Learner
from metanlp.report import canvas, tables
from metanlp.tasks.taskset import read
from metanlp.training import checkpoint

ROOT = Path(next(iter(metanlp.__path__))).parent
RECIPES = ROOT / "recipes"
FOUND = {"results.json", "local.json", "report.html", "plots"}
LEARNER = {ADAPTER, META, CONFIG, "adapter_config.json"}
TRAINED = LEARNER | {"metrics.jsonl", "checkpoints"}
QUICK = ["--steps", "4", "--meta-batch", "2", "--inner-steps", "1", "--rank", "4", "--shots", "4", "--episodes", "1",
         "--test-rows", "20", "--validation-trials", "5", "--search-trials", "1", "--threads", "1"]  # fmt: skip


@pytest.fixture
def recipe(here: Here) -> Here:
    """Runs a recipe as a script, in this process: exit code, standard output, standard error."""
    return lambda name, *words: here("python", RECIPES / name, *words)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def without_time(line: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(line).items() if key != "seconds"}


# recipes/maml_glue.py


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of recipes/maml_glue.py leaves in `two`, on two processes as torchrun starts them; before it they were
    refused `used`, which this process held."""
    folder = tmp_path_factory.mktemp("made")
    words = ["python", RECIPES / "maml_glue.py", "--model", tiny, "--data", "mini", "--test", "mini", *QUICK, "--out"]
    with storage.lock(folder / "used"):
        in_turn.forked(2, [[*words, folder / "used"], [*words, folder / "two"]], folder / "ended")
    return folder


def test_a_run_leaves_what_the_readme_lists(made: Path) -> None:
    assert names(made / "two") == TRAINED | FOUND | {"leakage.json", "baselines"}
    assert names(made / "two" / "baselines") == {"frozen", "finetune", "multitask", "protonet"}
    for name in ("frozen", "finetune"):
        assert names(made / "two" / "baselines" / name) == LEARNER
    for name in ("multitask", "protonet"):
        assert names(made / "two" / "baselines" / name) == TRAINED


def test_the_run_says_how_many_processes_it_has(made: Path) -> None:
    _, said, _ = in_turn.ended(made / "ended", 1)
    assert in_turn.ended(made / "ended", 1, rank=1)[1] == ""
    assert "processes: 2" in said
    assert "1 threads each" in said
    assert "meta-training: 4 meta-steps for maml, then as many tokens for multitask, then" in said
    assert "better than" not in said, "one episode can't tell"
    assert said.count("processes:") == 1
    for word in ("on held-out tasks", "Paired difference of maml", "Cost", "maml"):
        assert word in said


def test_nothing_leaks_within_the_embedded_set(made: Path) -> None:
    assert json.loads((made / "two" / "leakage.json").read_text()) == {"schema": 1, "overlaps": []}


def test_results_json(made: Path) -> None:
    found = json.loads((made / "two" / "results.json").read_text())
    assert set(found["methods"]) == {"frozen", "finetune", "multitask", "protonet", "maml"}
    assert found["protocol"]["world_size"] == 2
    assert {row["b"] for row in found["paired"]} == {"frozen", "finetune", "multitask", "protonet"}
    assert {row["a"] for row in found["paired"]} == {"maml"}
    assert all(set(by_task) == set(found["scores"]["maml"]) for by_task in found["scores"].values())
    assert found["methods"]["multitask"]["tokens"] >= found["methods"]["maml"]["tokens"], "equal compute"
    text = json.dumps(found)
    assert str(made) not in text
    assert "tiny-bert" in text


def test_leaks_are_written_with_both_places_and_no_text(recipe: Here, tiny: Path, tmp_path: Path) -> None:
    tasks = read("mini/emotions,mini/formality", data_root=None)
    planted = [f"a planted row, number {number}" for number in range(4)]
    for task in tasks:
        rows = [(row["text"], task.labels[row["label"]]) for row in task.pools["train"]]
        rows[3:3] = [(text, rows[0][1]) for text in planted]
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{task.name.removeprefix('mini/')}.jsonl").write_text("\n".join(lines) + "\n")
    data, test, left = (tmp_path / name for name in ("formality.jsonl", "emotions.jsonl", "out"))
    words = ["--data", data, "--validation", "mini/urgency", "--test", test, *QUICK, "--baselines", "frozen"]
    code, out, said = recipe("maml_glue.py", "--model", tiny, *words, "--no-page", "--out", left)
    assert (code, said) == (0, "")
    assert "leakage: 4 training rows left out" in " ".join(out.split())
    assert "emotions train 4 = formality train 4; all in leakage.json" in " ".join(out.split())
    text = (left / "leakage.json").read_text()
    (overlap,) = json.loads(text)["overlaps"]
    assert (overlap["evaluation"], overlap["training"], overlap["pool"]) == ("emotions", "formality", "train")
    assert overlap["rows"] == [[3 + number, 3 + number] for number in range(4)]
    assert "planted" not in text
    protocol = json.loads((left / "results.json").read_text())["protocol"]
    assert protocol["training_rows_left_out"] == {"formality": 4}


def test_one_process_gives_the_same_bits(made: Path, recipe: Here, tiny: Path, tmp_path: Path) -> None:
    words = ["--model", tiny, "--data", "mini", "--test", "mini", *QUICK, "--out", tmp_path]
    code, out, said = recipe("maml_glue.py", *words, "--baselines", "frozen", "--no-page")
    assert (code, said) == (0, "")
    assert "processes: 1" in out
    assert not names(tmp_path) & {"report.html", "plots"}
    for name in (ADAPTER, META):
        assert (tmp_path / name).read_bytes() == (made / "two" / name).read_bytes()
    logs = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (tmp_path, made / "two")]
    assert [without_time(line) for line in logs[0]] == [without_time(line) for line in logs[1]]
    results = [json.loads((f / "results.json").read_text()) for f in (tmp_path, made / "two")]
    assert results[0]["scores"]["maml"] == results[1]["scores"]["maml"]
    assert results[0]["protocol"]["episodes_sha256"] == results[1]["protocol"]["episodes_sha256"]


def test_a_learner_of_a_run_adapts(made: Path, tiny: Path) -> None:
    learner = Learner.load(made / "two", base=str(tiny))
    assert learner.record["steps"] == 4
    assert learner.adapt([("good day", "up"), ("bad day", "down")]).labels == ("down", "up")
    newest = checkpoint.newest(made / "two" / "checkpoints")
    assert newest is not None
    tensors, stored = checkpoint.load(newest)
    best = weights.drop(weights.pick_inside(tensors, "best/"), "tasks/")
    assert stored["state"]["step"] == 4
    assert weights.equal(learner.theta, best)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "3", "--max-minutes", "1"], "one length"),
        (["--steps", "3", "--method", "mamll"], "'mamll' is not known"),
        (["--steps", "3", "--method", "frozen"], "--method frozen learns nothing"),
        (["--steps", "3", "--baselines", "forzen"], "'forzen' is not known"),
        (["--steps", "3", "--data", "mini/emotoins"], "no tasks called 'mini/emotoins'"),
        (["--steps", "3", "--data", "mini/emotions", "--test", "mini/emotions"], "leave some to train on"),
        (["--steps", "3", "--data", "glue"], "METANLP_DATA"),
        (["--steps", "3", "--model", "/no/where"], "could not be loaded"),
        (["--steps", "3", "--views", "adapted.9.all"], "adapted.9.all"),
        (["--steps", "3", "--rank", "3"], "rank 3"),
    ],
)
def test_input_errors_are_one_line_and_leave_nothing(
    recipe: Here, tiny: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    given = {"--model": str(tiny), "--data": "mini", "--test": "mini", "--out": str(tmp_path / "out")}
    rest = [word for name, value in given.items() if name not in words for word in (name, value)]
    code, _, told = recipe("maml_glue.py", *rest, *words)
    assert code == 2, told
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


def test_a_folder_in_use_is_refused_on_every_process(made: Path) -> None:
    """Rank 0 alone asks for the lock; the other must not wait for it for ever."""
    ranks = [in_turn.ended(made / "ended", 0, rank) for rank in range(2)]
    assert [code for code, _, _ in ranks] == [2, 2]
    assert f"in use by process {os.getpid()}" in ranks[0][2]
    assert not (made / "used").exists()  # left with nothing in it


# recipes/demo.py


def test_a_run_told_to_stop_saves_first(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = {tmp_path / "int": (signal.SIGINT, 130), tmp_path / "term": (signal.SIGTERM, 143)}
    words = ["python", RECIPES / "maml_glue.py", "--model", tiny, "--data", "mini", "--test", "mini", *QUICK,
             "--steps", "400", "--out"]  # fmt: skip
    child = in_turn.child([[*words, out] for out in told], tmp_path / "ended")
    for out, (number, _) in told.items():
        log = out / "metrics.jsonl"
        while child.is_alive() and not (log.exists() and log.read_bytes().count(b"\n") > 2):
            time.sleep(0.01)
        os.kill(child.ident or 0, number)
    child.join(60)
    assert (child.exitcode, capfd.readouterr().err) == (0, "")
    for run, (out, (_, code)) in enumerate(told.items()):
        step = (out / "metrics.jsonl").read_bytes().count(b"\n")
        ended, _, said = in_turn.ended(tmp_path / "ended", run)
        asked = shlex.join([*map(str, words), str(out), "--resume"])
        assert (ended, said) == (code, f"stopped after meta-step {step}; to go on: {asked}\n")
        saved = checkpoint.newest(out / "checkpoints")
        assert saved is not None
        assert saved.name == f"step_{step}"
        assert 2 < step < 400


@pytest.mark.slow
def test_the_demo_runs_on_any_model_from_nothing(recipe: Here, tiny: Path, tmp_path: Path) -> None:
    words = [
        "--model",
        tiny,
        "--start",
        "None",
        "--max-minutes",
        "None",
        *QUICK,
        "--baselines",
        "frozen",
        "--out",
        tmp_path,
    ]
    code, out, said = recipe("demo.py", *words)
    assert (code, said) == (0, "")
    assert "on held-out tasks" in out
    assert names(tmp_path) == TRAINED | FOUND | {"leakage.json", "baselines"}


# recipes/custom_tasks.py


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """A folder of CSVs as somebody may have it, and lines to label."""
    folder = tmp_path / "my_tasks"
    folder.mkdir()
    for task in read("mini/emotions,mini/answer_match,mini/urgency", data_root=None):
        rows = [{**row, "label": task.labels[row["label"]]} for row in task.pools["train"]]
        with (folder / f"{task.name.removeprefix('mini/')}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (tmp_path / "new.txt").write_text("come at once\nwhenever you like\n\n")
    return folder


def test_custom_tasks(recipe: Here, tiny: Path, own_tasks: Path, tmp_path: Path) -> None:
    words = ["--tasks", own_tasks, "--new", "urgency", "--texts", tmp_path / "new.txt", "--model", tiny, "--steps", "2"]
    code, out, said = recipe("custom_tasks.py", *words, "--out", tmp_path / "out")
    assert (code, said) == (0, "")
    (task,) = read("mini/urgency", data_root=None)
    labels, texts = zip(*(line.split("\t") for line in out.splitlines()), strict=True)
    assert texts == ("come at once", "whenever you like")
    assert set(labels) <= set(task.labels)
    assert names(tmp_path / "out") == TRAINED | {"urgency"}
    assert names(tmp_path / "out" / "urgency") == LEARNER
    adapted = Adapted.load(tmp_path / "out" / "urgency", base=str(tiny))
    assert adapted.predict(texts) == list(labels)


def test_custom_tasks_with_columns_of_other_names(recipe: Here, tiny: Path, own_tasks: Path, tmp_path: Path) -> None:
    (own_tasks / "answer_match.csv").unlink()  # the pairs
    for path in own_tasks.iterdir():
        path.write_text(path.read_text().replace("text,label", "body,intent", 1))
    (tmp_path / "new.csv").write_text("body\ncome at once\n")
    words = ["--tasks", own_tasks, "--new", "urgency", "--texts", tmp_path / "new.csv", "--model", tiny, "--steps", "1"]
    code, out, said = recipe(
        "custom_tasks.py", *words, "--columns", "text=body,label=intent", "--out", tmp_path / "out"
    )
    assert (code, said) == (0, "")
    assert out.endswith("\tcome at once\n")


def test_custom_tasks_prints_both_texts_of_a_pair(recipe: Here, tiny: Path, own_tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text_a,text_b\nwhat is it?,a lamp\n")
    words = ["--tasks", own_tasks, "--new", "answer_match", "--texts", tmp_path / "new.csv", "--model", tiny]
    code, out, said = recipe("custom_tasks.py", *words, "--steps", "1", "--out", tmp_path / "out")
    assert (code, said) == (0, "")
    assert out.endswith("\twhat is it?\ta lamp\n")


def test_custom_tasks_names_the_nearest_task(recipe: Here, tiny: Path, own_tasks: Path, tmp_path: Path) -> None:
    words = ["--tasks", own_tasks, "--new", "urgncy", "--texts", tmp_path / "new.txt", "--model", tiny]
    code, out, said = recipe("custom_tasks.py", *words, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "did you mean 'urgency'?" in said


def test_custom_tasks_is_short() -> None:
    assert len((RECIPES / "custom_tasks.py").read_text().splitlines()) < 60


# metanlp evaluate, on support sets as others published them


@pytest.fixture
def few_shot(tmp_path: Path) -> Path:
    """A folder of one task with two fixed support sets each of 4 and 8 shots."""
    folder = tmp_path / "data" / "novels"
    folder.mkdir(parents=True)
    (task,) = read("mini/reviews_novels", data_root=None)
    by_class = [[row for row in task.pools["train"] if row["label"] == label] for label in range(len(task.labels))]

    def write(name: str, rows: list[Any]) -> None:
        lines = [json.dumps({"text": row["text"], "label": task.labels[row["label"]]}) for row in rows]
        (folder / name).write_text("\n".join(lines) + "\n")

    for shots, number in ((4, 0), (4, 1), (8, 0), (8, 1)):
        chosen = [row for rows in by_class for row in rows[number * 2 : number * 2 + shots]]
        write(f"train_{shots}shot_{number}.jsonl", chosen)
    write("test.jsonl", [row for rows in by_class for row in rows[8:]])
    return folder.parent


def test_fixed_support_sets(here: Here, net: Backbone, tiny: Path, few_shot: Path, tmp_path: Path) -> None:
    Learner(Maml(), net, Maml().init(net, torch.Generator().manual_seed(0))).save(tmp_path / "learner")
    words = ["--from", tmp_path / "learner", "--base", tiny, "--test", few_shot, "--out", tmp_path / "out"]
    code, out, said = here("metanlp", "evaluate", *words)
    assert (code, said) == (0, "")
    assert "novels" in out
    assert names(tmp_path / "out") == FOUND
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {m: {t: list(by_k) for t, by_k in by_task.items()} for m, by_task in found["scores"].items()} == {
        name: {"novels": ["4", "8"]} for name in ("frozen", "maml")
    }
    assert found["protocol"]["left_out"]["novels"]["shots"] == {"16": "its support sets are for [4, 8] shots"}
    repeats = found["protocol"]["left_out"]["novels"]["query_rows_in_support"]
    assert repeats == 4
    assert len(found["scores"]["maml"]["novels"]["4"]["accuracy"]["episodes"]) == 2


# recipes/compare_all.py


@pytest.mark.slow
def test_every_method_in_one_table(recipe: Here, tiny: Path, tmp_path: Path) -> None:
    """Over all methods that are registered, by name; a second run with --resume trains nothing."""
    words = ["--model", tiny, "--test", "mini/urgency,mini/formality", *QUICK, "--steps", "2", "--shots", "2", "4"]
    words += ["--lr", "1e-3", "--episodes", "2", "--validation-trials", "1", "--out", tmp_path]
    code, out, said = recipe("compare_all.py", *words)
    assert (code, said) == (0, "")
    found = read_report(tmp_path / "results.json")
    assert set(found.methods) == set(ALGORITHMS)
    assert all(word in out for word in (*ALGORITHMS, "Mean accuracy over held-out tasks", "shots", "parameters"))
    assert "Cost" not in out
    said_by_table(found)
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in ALGORITHMS)
    if canvas.can_plot():
        assert (tmp_path / "plots" / "score_by_shots.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (tmp_path / "plots" / "score_by_shots.svg").read_text()
    else:
        assert canvas.NO_PLOT in " ".join(out.split())
        assert canvas.NO_PLOT.split("'")[0] in page
    logs = {path: path.read_bytes() for path in tmp_path.rglob("metrics.jsonl")}
    assert len(logs) == len(ALGORITHMS) - len(BASELINES)
    code, _, said = recipe("compare_all.py", *words, "--resume", "--no-page")
    assert (code, said) == (0, "")
    again = read_report(tmp_path / "results.json")
    assert {path: path.read_bytes() for path in tmp_path.rglob("metrics.jsonl")} == logs
    assert (again.means, again.paired) == (found.means, found.paired)
    lasting = ("tokens", "train_s", "parameters")
    assert [[m[key] for key in lasting] for m in again.methods.values()] == [
        [m[key] for key in lasting] for m in found.methods.values()
    ]


def said_by_table(found: Report) -> None:
    """Every cell of the table, held against results.json."""
    table = tables.overview_table(found, "multitask")
    columns = {str(column.header): list(column.cells) for column in table.columns}
    headers = ["method", "2 shots", "4 shots", "mean recall, 2 shots", "mean recall, 4 shots", "− multitask, 2 shots",
               "− multitask, 4 shots", "adapt s", "parameters"]  # fmt: skip
    assert list(columns) == headers
    assert columns["method"] == list(found.methods)
    assert columns["method"][-1] == "multitask"
    for row, (name, cost) in enumerate(found.methods.items()):
        assert columns["adapt s"][row] == f"{cost['adapt_s']:.3f}"
        assert columns["parameters"][row] == f"{cost['parameters']:,}"
        assert (cost["parameters"] == 0) == (name in BASELINES) == (cost["tokens"] == 0)
        if name not in BASELINES:
            assert cost["tokens"] >= found.methods["multitask"]["tokens"], "equal compute"
        for k in (2, 4):
            assert columns[f"{k} shots"][row] == tables.percent(found.score(name, shots=k))
            pairs = [r for r in found.paired if (r["b"], r["k"], r["task"]) == (name, k, None)]
            cell = str(columns[f"− multitask, {k} shots"][row])
            assert [numbers(cell)] == [
                pytest.approx([-100 * r[end] for end in ("difference", "high", "low")], abs=0.051) for r in pairs
            ] or (name, cell) == ("multitask", "-")


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-][0-9.]+", cell)]


def test_all_is_every_method_and_stands_alone() -> None:
    names = methods(Experiment(method="maml", baselines=(ALL,)))
    assert names[-1] == "maml"
    assert sorted(names) == sorted(ALGORITHMS)
    with pytest.raises(InputError, match=r"'all' is not known; choose from .*, or 'all' alone"):
        methods(Experiment(baselines=(ALL, "frozen")))


# recipes/bench/bench_engine.py


@pytest.mark.slow
def test_the_engine_computes_what_the_plain_loop_does(
    recipe: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tiny model its speed says nothing; its gradient is that of peft and torch.optim.SGD."""
    monkeypatch.syspath_prepend(str(RECIPES / "bench"))
    keys = ["plain_top_half", "cosine_fp32", "predict_vs_sorted", "episodes_per_s"]
    asked = ["--model", tiny, "--data", "mini/emotions,mini/commit_types", "--repeats", "1", "--only", *keys]
    asked += ["--out", tmp_path]
    code, out, said = recipe("bench/bench_engine.py", *asked)
    assert code == 0, said
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {*keys, "cosine_bf16", "predict_vs_pipeline"} == set(found)
    assert found["cosine_fp32"]["median"] > 0.999999
    assert found["cosine_bf16"]["median"] > 0.99
    for row in found.values():
        assert 0 < row["low"] <= row["median"] <= row["high"]
    assert all(key in out for key in found)


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["plain 1", "episodes"])
def test_a_probe_says_one_number(recipe: Here, tiny: Path, monkeypatch: pytest.MonkeyPatch, probe: str) -> None:
    """What the bench starts in processes of their own: the memory of one, the seconds an episode takes."""
    monkeypatch.syspath_prepend(str(RECIPES / "bench"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, out, said = recipe("bench/bench_engine.py", "--model", tiny, "--probe", probe)
    assert code == 0, said
    assert float(out) > 0


def test_a_bench_without_tasks_of_three_classes_is_refused(
    recipe: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES / "bench"))
    code, out, said = recipe(
        "bench/bench_engine.py", "--model", tiny, "--data", "mini/formality", "--out", tmp_path / "out"
    )
    assert (code, out) == (2, "")
    assert said.splitlines()[-1].startswith("--data mini/formality: no task has 3 classes with more than 8 rows")
    assert not (tmp_path / "out").exists()


def test_a_key_that_the_bench_does_not_know_is_refused(
    recipe: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES / "bench"))
    code, out, said = recipe("bench/bench_engine.py", "--only", "plain_al", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "--only plain_al: no such key; there are plain_all," in " ".join(said.split())
    assert not (tmp_path / "out").exists()


# All of them.


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda path: path.name)
def test_a_recipe_does_nothing_when_it_is_imported(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RECIPES / "bench"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Frozen dataclasses look up their module while they are made.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    assert capsys.readouterr() == ("", "")
    assert module.__doc__


def test_adapters_of_a_run_have_learned(made: Path) -> None:
    tensors = load_file(made / "two" / ADAPTER)
    assert any(bool(value.any()) for key, value in tensors.items() if "lora_B" in key)
