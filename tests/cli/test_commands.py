"""What the command `metanlp` does beyond one model: evaluate, compare, info, --json, completion, forecasts, Ctrl-C."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Here

import metanlp
from metanlp.algorithms import Frozen, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core import weights
from metanlp.experiment import run as experiment
from metanlp.learner.artefact import ADAPTER, CONFIG, META
from metanlp.learner.learner import Learner
from metanlp.tasks.index.files import HOME

ROOT = Path(next(iter(metanlp.__path__))).parent
COMMANDS = (
    "tasks",
    "tasks build",
    "compare",
    "evaluate",
    "adapt",
    "predict",
    "rank",
    "report",
    "publish",
    "export",
    "info",
)
HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib", "numpy", "sklearn", "accelerate")
FEW = ["--shots", "2", "--episodes", "2", "--test-rows", "8", "--no-page"]
QUICK = ["--steps", "3", "--inner-steps", "1", "--rank", "4", *FEW, "--validation-trials", "2", "--search-trials", "1",
         "--threads", "1"]  # fmt: skip
CSV = "text,label\nwhere is my parcel,delivery\nit never arrived,delivery\nrefund me,payment\nI paid twice,payment\n"


def one_line(said: str) -> str:
    assert said.count("\n") == 1, said
    return said


def learner(algorithm: Any, net: Backbone, seed: int) -> Learner:
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def work(net: Backbone, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three learners, of which one has other adapters, an adapted model, and a file of examples."""
    folder = tmp_path_factory.mktemp("work")
    learner(Maml(inner=Inner(steps=1)), net, 0).save(folder / "maml")
    learner(ProtoNet(), net, 1).save(folder / "protonet")
    learner(Maml(), Backbone.load(str(tiny), Lora(rank=8, alpha=8), precision="fp32"), 2).save(folder / "small")
    Learner.load(folder / "maml", base=str(tiny)).adapt(
        [("refund me", "payment"), ("I paid twice", "payment"), ("where is it", "delivery"), ("not here", "delivery")]
    ).save(folder / "adapted")
    (folder / "examples.csv").write_text(CSV)
    return folder


# evaluate


def test_several_learners_score_as_each_does_alone(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    """Two share a backbone, the third has its own; the first is compared with all of them, on the same episodes."""
    words = ["--test", "mini/urgency", "mini/formality", "--base", tiny, *FEW, "--json", "--out", tmp_path / "out"]
    code, out, said = here("metanlp", "evaluate", "--from", work / "maml", work / "protonet", *words)
    together = json.loads(out)
    assert code == 0
    assert "Paired difference of maml" in said
    assert list(together["methods"]) == ["frozen", "maml", "protonet"]
    assert together == json.loads((tmp_path / "out" / "results.json").read_text())
    code, out, _ = here(
        "metanlp", "evaluate", "--from", work / "maml", work / "protonet", work / "small", *words, "--replace"
    )
    apart = json.loads(out)
    assert list(apart["methods"]) == ["frozen, as for maml", "maml", "protonet", "frozen, as for small", "small"]
    assert apart["protocol"]["episodes_sha256"] == together["protocol"]["episodes_sha256"]
    assert {row["a"] for row in apart["paired"]} == {"maml"}
    assert {row["b"] for row in apart["paired"]} == set(apart["methods"]) - {"maml"}
    assert set(apart["reliability"]) == set(apart["methods"])
    for name in ("maml", "protonet"):
        assert apart["scores"][name] == together["scores"][name]
    for name in ("maml", "small"):
        assert apart["scores"][f"frozen, as for {name}"] == together["scores"]["frozen"]


def test_learners_of_one_base_share_its_backbone(work: Path, tiny: Path) -> None:
    from metanlp.experiment.evaluate import by_backbone, opened
    from metanlp.learner.artefact import read_config

    named = {name: (work / name, read_config(work / name, "learner")) for name in ("maml", "protonet", "small")}
    groups = by_backbone(named)
    assert [list(group) for group in groups] == [["maml", "protonet"], ["small"]]
    folder, config = named["maml"]
    rank = {"adapt": config["backbone"]["adapt"] | {"alpha": int(config["backbone"]["adapt"]["alpha"])}}
    again = named | {"again": (folder, {**config, "backbone": config["backbone"] | rank})}
    assert [list(group) for group in by_backbone(again)] == [["maml", "protonet", "again"], ["small"]], "16 is 16.0"
    first, second = opened(groups[0], str(tiny)).values()
    assert first.net is second.net
    assert weights.equal(second.theta, Learner.load(work / "protonet", base=str(tiny)).theta)


def test_info_says_an_export_that_can_be(here: Here, tiny: Path, tmp_path: Path) -> None:
    for number, views in enumerate((("adapted.4.all",), ("adapted.4.all", "adapted2.4.all"))):
        net = Backbone.load(str(tiny), Lora(rank=4), views=views, precision="fp32")
        learner(ProtoNet(), net, 0).adapt([("refund me", "payment"), ("where is it", "delivery")]).save(
            tmp_path / str(number)
        )
        code, out, _ = here("metanlp", "info", tmp_path / str(number))
        assert (code, f"--to {('lora', 'onnx')[number]}" in out) == (0, True)


def test_beside_a_frozen_learner_there_is_no_second(net: Backbone) -> None:
    from metanlp.experiment.evaluate import beside_frozen

    assert list(beside_frozen({"frozen": learner(Frozen(), net, 0)}, False)) == ["frozen"]
    assert list(beside_frozen({"maml": learner(Maml(), net, 0)}, False)) == ["frozen", "maml"]


def test_the_frozen_encoder_beside_a_learner_has_nothing_of_what_it_learned(net: Backbone) -> None:
    from metanlp.experiment.evaluate import beside_frozen

    given = learner(Maml(), net, 0)
    moved = {key: value + 3.0 for key, value in given.theta.items()}
    one, other = (
        beside_frozen({"maml": replace(given, theta=theta)}, False)["frozen"] for theta in (given.theta, moved)
    )
    assert weights.equal(one.theta, other.theta)
    assert one.algorithm == Frozen(classifier="mixture"), "as a run prefers it, so that readings are not compared"


def test_evaluate_refuses_in_one_line(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    words = ["--base", tiny, "--out", tmp_path / "out", "--json"]
    for source, test, code, part in (
        (work / "adapted", "mini/urgency", 2, "is no file; an adapted model is judged by"),
        (work / "absent", "mini/urgency", 2, "holds no meta_config.json"),
        (work / "maml", "mini/urgncy", 2, "did you mean 'mini/urgency'"),
    ):
        ended = here("metanlp", "evaluate", "--from", source, "--test", test, *words)
        assert ended[:2] == (code, "")
        assert part in one_line(ended[2])
    assert not (tmp_path / "out").exists()


# compare


def test_compare_wants_data_and_takes_five_minutes(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from metanlp.cli import experiments
    from metanlp.experiment.options import LEAVE_ONE_OUT, Experiment

    code, out, said = here("metanlp", "compare")
    assert (code, out) == (2, "")
    assert "--data" in one_line(said)
    asked: list[Experiment] = []
    monkeypatch.setattr(experiments, "carry_out", asked.append)
    for words in ([], ["--steps", "7"]):
        assert here("metanlp", "compare", "--data", "my_tasks", *words)[0] == 0
    assert [(each.max_minutes, each.steps) for each in asked] == [(5.0, None), (None, 7)]
    assert {(each.model, each.test, each.method, each.start) for each in asked} == {
        ("minilm", LEAVE_ONE_OUT, "maml", "auto")
    }
    assert {type(each) for each in asked} == {Experiment}


# info


def test_info_of_folders(here: Here, work: Path, tmp_path: Path) -> None:
    code, out, said = here("metanlp", "info", work / "maml", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["algorithm"], found["base"]["name"]) == ("learner", "maml", "./tiny-bert")
    assert found["recipe"]["inner"]["steps"] == 1
    assert found["bytes"] > 1000
    code, out, said = here("metanlp", "info", work / "adapted")
    assert (code, said) == (0, "")
    assert "labels: delivery, payment" in out
    assert f"use: metanlp predict --from {work / 'adapted'} texts.txt" in out
    code, out, said = here("metanlp", "info", tmp_path, "--json")
    assert (code, out) == (2, "")
    assert f"{tmp_path} holds no meta_config.json and no results.json" in one_line(said)


def test_info_of_this_machine(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret that is said nowhere")
    code, out, _ = here("metanlp", "info", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["hub_token"] is True
    assert "secret" not in out
    assert found["versions"]["torch"] == torch.__version__
    assert found["auto_precision"] in ("fp32", "bf16")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(found["extras"]) == {*extras} - {"docs", "dev"}


# --json


def test_every_other_command_speaks_json(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mails.csv").write_text(CSV)
    said = {
        "tasks": here("metanlp", "tasks", tmp_path / "tasks", "--json"),
        "tasks build": here("metanlp", "tasks", "build", tmp_path / "tasks", "--json"),
        "adapt": here("metanlp", "adapt", "--from", work / "maml", "--examples", work / "examples.csv", "--out",
                      tmp_path / "model", "--base", tiny, "--json"),
        "export": here("metanlp", "export", "--from", work / "adapted", "--to", "lora", "--out", tmp_path / "lora",
                       "--base", tiny, "--json"),
    }  # fmt: skip
    assert {name: code for name, (code, _, _) in said.items()} == dict.fromkeys(said, 0)
    found = {name: json.loads(one_line(out)) for name, (_, out, _) in said.items()}
    (row,) = found["tasks"]["tasks"]
    assert (row["task"], row["rows"]) == ("mails", 4)
    assert (found["tasks build"]["tasks"], found["tasks build"]["rows"]) == (1, 4)
    assert found["adapt"] == {
        "out": str(tmp_path / "model"), "examples": 4, "labels": ["delivery", "payment"], "form": "classify",
    }  # fmt: skip
    assert (found["export"]["to"], found["export"]["out"]) == ("lora", str(tmp_path / "lora"))
    assert "mails" in said["tasks"][2]  # what people read is on standard error
    code, out, line = here("metanlp", "report", tmp_path, "--json")
    assert (code, out) == (2, "")
    assert "holds no results.json" in one_line(line)


# Help, completion, options misspelt


def test_every_option_has_its_sentence() -> None:
    """It is read from beside a field, above it, or a string below it; a comment on a later line would be lost."""
    asked, bare = 0, list[str]()
    for path in [*(ROOT / "metanlp" / "cli").glob("*.py"), ROOT / "metanlp" / "experiment" / "options.py"]:
        source = path.read_text("utf-8")
        lines = source.splitlines()
        bodies = (node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
        for field, after in (pair for body in bodies for pair in pairwise([*body, None])):
            if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
                asked += 1
                told = "#" in lines[field.lineno - 1] or lines[field.lineno - 2].lstrip().startswith("#")
                if not told and not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                    bare.append(f"{path.name}:{field.lineno}")
    assert asked > 150
    assert not bare


def test_help_lists_commands_in_order_and_exit_codes_and_loads_nothing() -> None:
    code = f"""
import sys
from metanlp.cli.commands import main
words = {[["--help"], *([*name.split(), "--help"] for name in COMMANDS)]!r}
for each in words:
    sys.argv = ["metanlp", *each]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    first = ended.stdout.split("usage:")[1]
    listed = re.findall(r"• ([a-z]+(?: [a-z]+)?)  ", first)
    ours = [*COMMANDS, "completion"]
    assert [name for name in listed if name in ours] == ours
    assert all(f"{number} " in first for number in (0, 2, 3, 4, 130, 143))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["publish", "--frm", "x", "me/x"], "option --frm is not known; the nearest one is --from"),
        (["compare", "--max_minuts=3"], "option --max_minuts is not known; the nearest one is --max-minutes"),
        (["tasks", "build", "x", "--colums", "3"], "option --colums is not known; the nearest one is --columns"),
        (["predikt", "--from", "x"], "there is no command predikt; the nearest one is predict"),
    ],
)
def test_what_is_misspelt_is_named(here: Here, words: list[str], line: str) -> None:
    assert here("metanlp", *words) == (2, "", f"{line}\n")


def test_bash_completes(here: Here, tmp_path: Path) -> None:
    code, script, said = here("metanlp", "completion", "bash")
    assert (code, said) == (0, "")
    (tmp_path / "script").write_text(script)
    asked = [["ev"], ["adapt", "--ex"], ["export", "--to", ""], ["tasks", "build", "--co"]]
    lines = [f"source {tmp_path / 'script'}", "complete -p metanlp"]
    for words in asked:
        lines += [
            f"COMP_WORDS=(metanlp {shlex.join(words)}); COMP_CWORD={len(words)}; COMPREPLY=(); _tyro_metanlp",
            'echo "${COMPREPLY[*]}"',
        ]
    ended = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=30)
    found = ended.stdout.splitlines()
    assert found == ["complete -F _tyro_metanlp metanlp", "evaluate", "--examples", "onnx lora pipeline", "--columns"]
    assert here("metanlp", "completion", "zsh")[1].startswith("#compdef metanlp")


# Ctrl-C


# A signal may come between the opening of a file and the `with` that closes it: only the interpreter closes it then.
INTERRUPTED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@contextmanager
def interrupted(ready: Callable[[], bool]) -> Iterator[None]:
    """SIGINT for this process as soon as something is so. One that comes after the command has ended does nothing, so
    that the command's exit code tells it and pytest goes on."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if ready():
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.001)

    before = signal.signal(signal.SIGINT, lambda *_: None)  # pytest may run where it is ignored
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)


def forecast(said: str) -> list[float]:
    """Seconds in all and for training, recipes and tests; GB; millions of tokens."""
    found = re.search(
        r"forecast: about ([\d.]+) seconds \(training ([\d.]+), recipes ([\d.]+), tests ([\d.]+)\), ([\d.]+) GB, "
        r"([\d.]+) M tokens a method",
        " ".join(said.split()),
    )
    assert found, said
    return [*map(float, found.groups())]


@pytest.mark.slow
@INTERRUPTED
def test_compare_foretells_and_however_often_interrupted_gives_the_same_bits(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run with a forecast, and one that made none and was stopped in training, search and test."""
    words = ["--data", "mini/emotions,mini/formality", "--validation", "mini/politeness", "--test", "mini/urgency"]
    words = ["compare", *words, "--model", tiny, *QUICK, "--baselines", "frozen", "--episodes", "20", "--out"]
    code, printed, said = here("metanlp", *words, tmp_path / "whole", "--json")
    whole = json.loads(printed)
    assert "start: nothing, and not the learner that comes with the package: it was learned on minilm" in said
    assert whole["answers"]["other_tasks"]["question"] in said
    assert (code, list(whole["methods"])) == (0, ["frozen", "maml"])
    assert whole == json.loads((tmp_path / "whole" / "results.json").read_text())
    total, *parts, memory, tokens = forecast(said)
    assert total == pytest.approx(sum(parts), abs=0.2 if total < 10 else 2)  # from ten on without decimals
    assert 0.5 <= memory < 2
    assert tokens / 2 < whole["methods"]["maml"]["tokens"] / 1e6 < 2 * tokens

    monkeypatch.setattr(experiment, "foretell", lambda *_: "none")
    out = tmp_path / "out"
    command = ["metanlp", *map(str, words), str(out)]
    moments = (
        lambda: (out / "metrics.jsonl").exists(),  # in the training
        lambda: (out / "checkpoints" / "step_3").exists(),  # in the recipe search
        lambda: (out / CONFIG).exists(),  # in the test
    )
    for ready in moments:
        with interrupted(ready):
            code, _, said = here(*command)
        assert code == 130
        go_on = [*(word for word in command if word != "--resume"), "--resume"]
        assert one_line(said).endswith(f"; to go on: {shlex.join(go_on)}\n")
        assert not (out / "results.json").exists()
        command = go_on
    assert here(*command)[0] == 0
    assert whole["scores"] == json.loads((out / "results.json").read_text())["scores"]
    for name in (ADAPTER, META):
        assert (tmp_path / "whole" / name).read_bytes() == (out / name).read_bytes()


@INTERRUPTED
def test_interrupted_evaluate_and_build_leave_nothing_half(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    out, tasks = tmp_path / "out", tmp_path / "tasks"
    tasks.mkdir()
    for number in range(1500):
        (tasks / f"t{number}.csv").write_text(CSV)
    evaluate = ["evaluate", "--from", work / "maml", "--base", tiny, "--test", "mini/urgency", "--episodes", "200",
                "--out", out]  # fmt: skip
    for words, ready in (
        (evaluate, (out / ".lock").exists),
        (["tasks", "build", tasks], (tasks / HOME).exists),
    ):
        with interrupted(ready):
            code, said_out, said = here("metanlp", *words)
        assert (code, said_out) == (130, "")
        assert one_line(said) == f"stopped; to begin again: {shlex.join(['metanlp', *map(str, words)])}\n"
    assert not out.exists()
    assert here("metanlp", "tasks", tasks / "t1.csv")[0] == 0
    assert here("metanlp", "tasks", "build", tasks)[0] == 0


@INTERRUPTED
def test_interrupted_while_it_saves_a_model_is_whole(here: Here, work: Path, tiny: Path, tmp_path: Path) -> None:
    words = ["adapt", "--from", work / "maml", "--examples", work / "examples.csv", "--base", tiny, "--out"]
    words.append(tmp_path / "m")
    with interrupted((tmp_path / "m").exists):
        code, _, said = here("metanlp", *words)
    assert code == 130
    assert "to begin again: metanlp adapt" in one_line(said)
    assert here("metanlp", "predict", "--from", tmp_path / "m", work / "examples.csv", "--base", tiny)[0] == 0
