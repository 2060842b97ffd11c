"""Publishing to a real server on the loopback, which holds git repositories, and loading from it: bit by bit, in one
commit, whatever goes wrong, and nothing of this machine with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from git_hub import READ, WRITE, GitHub
from hub_server import running
from hub_worker import ROOT, USER, worker
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from metanlp.algorithms import ALGORITHMS, Frozen, Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.core.errors import DamagedError, InputError
from metanlp.core.storage import sha256_of
from metanlp.core.types import Task
from metanlp.evaluation.answers import to_json
from metanlp.evaluation.held_out import Protocol
from metanlp.evaluation.meta_test import meta_test
from metanlp.evaluation.results import RESULTS, Report
from metanlp.experiment.run import write_json
from metanlp.forms import FORMS
from metanlp.learner.artefact import ADAPTER, CONFIG, FILES, META, signed
from metanlp.learner.learner import Learner
from metanlp.report.tables import percent
from metanlp.share.card_header import Subject
from metanlp.share.model_card import card
from metanlp.share.publish import EVAL_RESULTS, Publication, method_of, publish_folder, refuse_secrets, stage_folder
from metanlp.tasks.sources.table import PUBLISHED, licence_of

ROWS = [("the parcel never came", "delivery"), ("my card was charged twice", "payment"),
        ("where is my order", "delivery"), ("please send the money back", "payment")]  # fmt: skip
NEW = ["nothing was delivered", "a wrong amount on the bill", "thanks"]

# What people do with a model of the Hub, in a module of its own.
USES = """
import sys, runpy, torch
from dataclasses import replace
from pathlib import Path
from metanlp import Adapted, Backbone, Experiment, Learner, Maml
from metanlp import publish
from metanlp.cli.commands import main
from metanlp.cli.launch import launch
from metanlp.evaluation.results import read_report
def command(*words):
    sys.argv = ["metanlp", *words]
    main()
def api(folder, repo_id, results, base):
    return publish(Learner.load(folder, base=base), repo_id, read_report(Path(results)), base_model="lab/tiny-bert")
def scores(name, texts, rows=None):
    model = Learner.load(name).adapt([tuple(row) for row in rows]) if rows else Adapted.load(name)
    return model.scores(texts).tobytes().hex()
def pinned(name, folder, texts, rows):
    net = Backbone.load(name, precision="fp32")
    learner = Learner(Maml(), net, Maml().init(net, torch.Generator().manual_seed(0)))
    adapted = learner.adapt([tuple(row) for row in rows], effort="fast")
    adapted.save(folder)
    return [net.base.name, net.base.revision, net.base.sha256, adapted.scores(texts).tobytes().hex()]
def execute(code):
    exec(code, {})
def run(model, out, repo_id):
    sys.argv = ["recipe"]
    tasks = dict(data="mini/formality,mini/grammar", validation="mini/politeness", test="mini/urgency")
    launch(Experiment(model=model, **tasks,
        baselines=("frozen",), steps=2, rank=4, shots=(4,), episodes=2, test_rows=6, validations=1, validation_trials=1,
        search_trials=1, out=Path(out), publish=repo_id))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHub]:
    with running(GitHub(tmp_path_factory.mktemp("git"))) as server:
        yield server  # type: ignore[misc]


# Models, from training to predictions.


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    algorithm, generator = Maml(inner=Inner(steps=1, lr=0.1, head_lr=0.1)), torch.Generator().manual_seed(5)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=generator)
             for key, value in algorithm.init(net, generator).items()}  # fmt: skip
    record = {
        "tasks": {"train": ["mini/intents_home", "own/bank"], "validation": ["glue/rte"]},
        "seed": 5,
        "sources": {"mini/intents_home": "mini", "own/bank": "lab/intents@" + "1" * 40, "glue/rte": "glue"},
        "tokens": 1000,
        "steps": 3,
        "train_s": 1.25,
        "skipped": 0,
        "recipe_s": 0.5,
        "curve": {"0": {"mean": 0.5, "low": 0.4, "high": 0.6}, "1": {"mean": 0.75, "low": 0.7, "high": 0.8}},
    }
    return Learner(algorithm, net, theta, record)


@pytest.fixture(scope="module")
def report(learner: Learner, toy_tasks: tuple[Task, ...]) -> Report:
    frozen = Learner(Frozen(), learner.net, Frozen().init(learner.net, torch.Generator().manual_seed(0)))
    protocol = Protocol(shots=(2,), episodes=3, test_rows=6)
    found = meta_test({"frozen": frozen, "maml": learner}, toy_tasks[-2:], protocol)
    found.protocol["sources"] = {"mini/intents_home": "mini", "mini/formality": "lab/formal@" + "2" * 40}
    return Report.from_json(json.loads(json.dumps(found.to_json())))


@pytest.fixture(scope="module")
def home(learner: Learner, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it, in the home of `USER`; examples, and a model adapted to them."""
    home = tmp_path_factory.mktemp("people") / "home" / USER
    learner.save(home / "run")
    write_json(home / "run" / RESULTS, to_json(report))
    for name in ("metrics.jsonl", "leakage.json", "checkpoints/step_1/state.json", "plots/notes.txt"):
        (home / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "run" / name).write_text(str(home))
    (home / "run" / "plots" / "score_by_shots.png").write_bytes(b"a picture")
    (home / "examples.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    learner.adapt(ROWS).save(home / "adapted")
    return home


@pytest.fixture(scope="module")
def retrained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, with other weights."""
    folder = tmp_path_factory.mktemp("models") / "moving"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: 1.01 * value for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def lab(hub: GitHub, home: Path, tiny: Path, retrained: Path) -> dict[str, Any]:
    """What was said of everything that people do, and the logs of it under "log"."""
    people, model = home.parents[1], {"base_model": "lab/tiny-bert"}
    said: dict[str, Any] = {}
    (people / "uses.py").write_text(USES)
    with worker(hub, people) as online:
        online.call("metanlp.core.hub.push", str(tiny), "lab/tiny-bert", [], private=True, message="base")
        words = ["publish", "--from", str(home / "run"), "lab/learner", "--licence", "apache-2.0", "--base-model"]
        said["publish"] = online.call("uses.command", *words, model["base_model"])
        said["again"] = online.call("uses.command", *words, model["base_model"])
        said["api"] = online.call("uses.api", str(home / "run"), "lab/api", str(home / "run" / RESULTS), str(tiny))
        words = ["publish", "--from", str(home / "adapted"), "lab/adapted", "--base-model", "lab/tiny-bert"]
        said["adapted"] = online.call("uses.command", *words, "--json")
        said["own folder"] = online.call("uses.command", *words[:3], "lab/folder")
        said["examples"] = online.call(
            "uses.command", *words[:3], "lab/rows", "--with-examples", str(home / "examples.csv")
        )
        said["run"] = online.call("uses.run", str(tiny), str(home / "new"), "lab/run")
        said["learner scores"] = online.call("uses.scores", "lab/learner", NEW, ROWS)
        said["adapted scores"] = online.call("uses.scores", "lab/adapted@main", NEW)
        said["not ours"] = online.call("uses.scores", "lab/tiny-bert", NEW)
        said["absent"] = online.call("uses.scores", "lab/none", NEW)
        said["snippets"] = [online.call("uses.execute", code) for code in snippets(hub, "learner")]
        said["snippets"] += [online.call("uses.execute", code) for code in snippets(hub, "adapted")]
        online.call("metanlp.core.hub.push", str(tiny), "lab/moving", [], private=True, message="base")
        said["pinned"] = online.call("uses.pinned", "lab/moving", str(home / "pinned"), NEW, ROWS)
        online.call("metanlp.core.hub.push", str(retrained), "lab/moving", [], private=True, message="other weights")
        said["pinned again"] = online.call("uses.scores", str(home / "pinned"), NEW)
        (home / "retrained").symlink_to(retrained)
        said["asked for"] = [online.call("uses.pinned", f"lab/moving{at}", str(home / "other"), NEW, ROWS)
                             for at in ("", f"@{said['pinned']['made'][1]}")]  # fmt: skip
        said["retrained"] = online.call("uses.pinned", str(home / "retrained"), str(home / "own"), NEW, ROWS)
        log = online.said
    asked = len(hub.asked)
    with worker(hub, people, HF_HUB_OFFLINE="1") as offline:
        said["offline learner"] = offline.call("uses.scores", "lab/learner", NEW, ROWS)
        said["offline adapted"] = offline.call("uses.scores", "lab/adapted@main", NEW)
        said["offline absent"] = offline.call("uses.scores", "lab/none", NEW)
        said["asked offline"] = hub.asked[asked:]
    return said | {"log": "".join([*log, *offline.said])}


def snippets(hub: GitHub, name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", hub.files(f"lab/{name}")["README.md"].decode(), re.DOTALL)


def test_a_learner_of_the_hub_gives_bitwise_the_scores_from_before(lab: dict[str, Any], learner: Learner) -> None:
    before = learner.adapt(ROWS).scores(NEW).tobytes().hex()
    assert lab["learner scores"].get("made") == before, lab["learner scores"]
    assert lab["adapted scores"].get("made") == before, lab["adapted scores"]


def test_offline_it_comes_from_the_cache(lab: dict[str, Any]) -> None:
    assert lab["offline learner"].get("made") == lab["learner scores"]["made"], lab["offline learner"]
    assert lab["offline adapted"].get("made") == lab["adapted scores"]["made"]
    assert (
        "lab/none: is no folder here and not in the cache, and HF_HUB_OFFLINE is set" in lab["offline absent"]["error"]
    )
    assert lab["asked offline"] == []


def test_a_base_of_the_hub_is_that_of_its_commit(hub: GitHub, lab: dict[str, Any], tiny: Path, retrained: Path) -> None:
    """Whatever `main` has become since; and a folder of the same name is no model of the Hub."""
    name, revision, sha256, scores = lab["pinned"]["made"]
    assert (name, sha256) == ("lab/moving", sha256_of(tiny / "model.safetensors"))
    assert hub.git("lab/moving", "rev-parse", "main~1").decode().strip() == revision
    assert lab["pinned again"].get("made") == scores, lab["pinned again"]
    latest, earlier = (found["made"] for found in lab["asked for"])
    assert earlier == lab["pinned"]["made"]
    assert latest[2] == sha256_of(retrained / "model.safetensors") != sha256
    assert latest[3] != scores
    assert lab["retrained"]["made"] == ["./moving", "", latest[2], latest[3]]


def test_what_is_no_model_of_ours_is_said(lab: dict[str, Any]) -> None:
    assert "holds no meta_config.json" in lab["not ours"]["error"]
    assert lab["not ours"]["kind"] == "InputError"
    assert "lab/none: no such folder here and no such model on the Hub" in lab["absent"]["error"]


def test_the_command_says_where_it_is_and_whether_it_is_new(hub: GitHub, lab: dict[str, Any]) -> None:
    url = f"{hub.url}/lab/learner/commit/{hub.head('lab/learner')}"
    assert lab["publish"].get("kind") is None, lab["publish"]
    assert f"{url}: published, private\n" in lab["log"]
    assert f"{url}: is there already, private\n" in lab["log"]
    assert hub.commits("lab/learner") == 2
    adapted = f"{hub.url}/lab/adapted/commit/{hub.head('lab/adapted')}"
    assert json.dumps({"url": adapted, "private": True, "new": True}) + "\n" in lab["log"]
    assert lab["api"]["made"] == f"{hub.url}/lab/api/commit/{hub.head('lab/api')}"


def test_what_is_published_and_nothing_else(hub: GitHub, lab: dict[str, Any], home: Path, learner: Learner) -> None:
    files = hub.published("lab/learner")
    picture = "plots/score_by_shots.png"
    assert set(files) == {*FILES, "README.md", RESULTS, EVAL_RESULTS, picture}
    for name in (ADAPTER, META, RESULTS, picture):
        assert files[name] == (home / "run" / name).read_bytes()
    assert set(hub.published("lab/adapted")) == {*FILES, "README.md"}
    assert lab["run"].get("kind") is None, lab["run"]
    run = hub.published("lab/run")
    assert lab["run"].get("kind") is None, lab["run"]
    pictures = {path for path in run if path.startswith("plots/")}
    assert all(path.endswith(".png") for path in pictures)  # numbers are in results.json, texts are in neither
    assert set(run) == {*FILES, "README.md", RESULTS, EVAL_RESULTS} | pictures
    assert run[RESULTS] == (home / "new" / RESULTS).read_bytes()
    assert "publish" not in json.loads(run[RESULTS])["protocol"]["asked"]


def test_rows_are_published_only_when_asked(hub: GitHub, lab: dict[str, Any], home: Path, toy_tasks: Any) -> None:
    texts = [text.encode() for text, _ in ROWS]
    texts += [
        part.encode() for task in toy_tasks for row in task.pools["train"] for part in FORMS["classify"].texts(row)[0]
    ]
    for name in ("learner", "api", "adapted", "folder", "run"):
        everything = b"".join(hub.published(f"lab/{name}").values())
        assert not [text for text in texts if len(text) > 12 and text in everything]
    assert lab["examples"].get("kind") is None, lab["examples"]
    rows = hub.published("lab/rows")
    assert rows["examples.csv"] == (home / "examples.csv").read_bytes()
    assert "in `examples.csv`" in rows["README.md"].decode()


def test_no_token_home_or_name_anywhere(hub: GitHub, lab: dict[str, Any], home: Path) -> None:
    for name in hub.private:
        for path, data in hub.whole(name).items():
            for secret in (WRITE, READ, str(home.parents[1]), USER, str(ROOT), "/tmp/"):
                assert secret.encode() not in data, (name, path, secret)
    for secret in (WRITE, READ):
        assert secret not in lab["log"]
    shown = lab["log"].replace(f"{home}/", "")  # the shell told it these
    assert USER not in shown
    assert "Traceback" not in shown


def test_the_snippets_of_the_card_run(lab: dict[str, Any], home: Path) -> None:
    assert len(lab["snippets"]) == 4
    assert [said for said in lab["snippets"] if "error" in said] == []
    assert (home.parents[1] / "out/clf" / CONFIG).is_file()
    assert "equipment" in lab["log"] or "access" in lab["log"]
    assert "['payment']" in lab["log"] or "['delivery']" in lab["log"]


def test_page_header_and_results_say_the_same_numbers(hub: GitHub, lab: dict[str, Any], report: Report) -> None:
    files = hub.published("lab/learner")
    readme = ModelCard(files["README.md"].decode())
    results, entries = json.loads(files[RESULTS]), yaml.safe_load(files[EVAL_RESULTS])
    assert results == json.loads(json.dumps(to_json(report)))
    expected = {task: cells["2"]["accuracy"] for task, cells in results["scores"]["maml"].items()}
    indexed = {found.dataset_name: found for found in readme.data.eval_results}
    assert {task: found.metric_value for task, found in indexed.items()} == {t: c["mean"] for t, c in expected.items()}
    for task, cell in expected.items():
        assert indexed[task].metric_args == {"shots": 2, "low": cell["low"], "high": cell["high"]}
        for method in ("frozen", "maml"):
            assert percent(report.score(method, task=task, shots=2)) in readme.text
    assert [entry["value"] for entry in entries] == [cell["mean"] for cell in expected.values()]
    assert {entry["dataset"]["id"]: entry["dataset"].get("revision") for entry in entries} == {
        "mini/intents_home": None, "lab/formal": "2" * 40}  # fmt: skip


def test_the_card(hub: GitHub, lab: dict[str, Any], report: Report, learner: Learner) -> None:
    readme = ModelCard(hub.published("lab/learner")["README.md"].decode())
    data, page = readme.data.to_dict(), readme.text
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (
        "lab/tiny-bert",
        "adapter",
        "apache-2.0",
    )
    assert {"metanlp", "few-shot", "maml"} <= set(data["tags"])
    assert data["datasets"] == ["lab/intents"]
    for said in ("arXiv 1703.03400", report.protocol["episodes_sha256"], "Apache-2.0", "as its page on the Hub says",
                 "research use", "| maml | 50.0 ± 10.0 | 75.0 ± 5.0 |", "1,000", "plots/score_by_shots.png",
                 "sha256 of `meta_model",
                 "Texts are cut after 128 tokens", "expected calibration error", "| transformers |"):  # fmt: skip
        assert said in page, said
    assert "More Information" not in page
    adapted = hub.published("lab/adapted")["README.md"].decode()
    assert "with the labels `delivery`, `payment`" in adapted
    assert "None were published with it" in adapted
    assert "model-index" not in adapted
    own = hub.published("lab/folder")["README.md"].decode()
    assert 'base="FOLDER"' in own
    assert f"called `{learner.net.name}`" in own
    assert "base_model" not in own.split("---")[1]  # a name would mean a model of the Hub
    assert 'AutoModel.from_pretrained("FOLDER")' in own


def test_git_clones_what_was_published(hub: GitHub, lab: dict[str, Any], tmp_path: Path) -> None:
    words = ["git", "clone", "--quiet", str(hub.root / "lab/learner.git"), str(tmp_path / "clone")]
    subprocess.run(words, check=True, capture_output=True)
    assert (tmp_path / "clone" / "README.md").read_bytes() == hub.files("lab/learner")["README.md"]
    assert hub.git("lab/learner", "log", "--format=%s", "-1").decode().startswith("maml learner, metanlp ")


# What stops a publication before it leaves the machine.


def staged(folder: Path, stage: Path, **how: Any) -> Subject:
    stage.mkdir()
    made = stage_folder(folder, stage, "lab/x", Publication(**how))
    refuse_secrets(stage)
    return made


@pytest.mark.parametrize("secret", [WRITE, "hf_" + "a" * 34])
def test_a_planted_token_is_found(home: Path, tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE)
    with pytest.raises(InputError, match=r"meta_config\.json holds a token of the Hub") as caught:
        plant(home, tmp_path, "note", secret)
    assert secret not in str(caught.value)


def test_a_planted_home_is_found(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", f"/home/{USER}")
    with pytest.raises(InputError, match=r"meta_config\.json holds the path of your home folder"):
        plant(home, tmp_path, "note", f"read from /home/{USER}/tasks")
    plant(home, tmp_path / "other", "note", f"read from /home/{USER}s/tasks")


def plant(home: Path, folder: Path, key: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes((home / "run" / name).read_bytes())
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_bytes(signed(config | {"record": config["record"] | {key: text}}))
    staged(folder, folder / "stage")


def test_a_damaged_model_is_never_published(home: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((home / "run" / name).read_bytes())
    (tmp_path / META).write_bytes((tmp_path / META).read_bytes()[:-1] + b"\1")
    with pytest.raises(DamagedError, match=META):
        staged(tmp_path, tmp_path / "stage")


def test_a_folder_without_a_model_is_said_before_the_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"nowhere"):
        publish_folder(tmp_path / "nowhere", "lab/nowhere", Publication())


def test_results_of_another_training_are_refused(home: Path, report: Report, learner: Learner) -> None:
    config = json.loads((home / "run" / CONFIG).read_text())
    assert method_of(config, report, None, Path("r")) == "maml"
    with pytest.raises(InputError, match="has no method 'x'; it has frozen, maml"):
        method_of(config, report, "x", Path("r"))
    with pytest.raises(InputError, match="of another training: tokens is 0 there and 1000 here"):
        method_of(config, report, "frozen", Path("r"))


def test_results_that_are_none(home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(DamagedError, match=r"r\.json is damaged"):
        staged(home / "run", tmp_path / "stage", results=tmp_path / "r.json")
    with pytest.raises(InputError, match=r"none\.json: no such file; give the results\.json that a run left"):
        staged(home / "run", tmp_path / "other", results=tmp_path / "none.json")


def test_examples_that_are_no_task(home: Path, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("text,label\na,x\nb,\n")
    with pytest.raises(InputError, match=r"e\.csv:3"):
        staged(home / "adapted", tmp_path / "stage", examples=tmp_path / "e.csv")


def test_every_method_and_form_has_a_card(home: Path) -> None:
    config = json.loads((home / "adapted" / CONFIG).read_text())
    for method, form in product(ALGORITHMS, FORMS):
        one = config | {"form": form, "algorithm": {"name": method}, "record": {}, "labels": ["a|b"]}
        page = card(Subject("lab/x", one))
        assert f"Method `{method}`: " in page
        assert "None" not in page.replace("None were", "")
        assert f"pipeline_tag: {FORMS[form].hub_task}" in page


@pytest.mark.parametrize("form", ["classify", "multilabel", "regress"])
def test_the_card_asks_as_many_texts_as_the_model_learned_from(home: Path, form: str) -> None:
    config = json.loads((home / "adapted" / CONFIG).read_text()) | {"form": form}
    single, pair = (card(Subject("lab/x", config | {"pairs": pairs})) for pairs in (False, True))
    assert 'model.predict(["keyboard has three dead keys"])' in single
    assert 'model.predict([("a man plays a guitar", "somebody makes music")])' in pair


def test_licences_are_those_of_the_data_cards() -> None:
    for row in PUBLISHED:
        said = " ".join((ROOT / "data_cards" / f"{row.source}.md").read_text().split())
        assert row.licence in said, row.name
    assert licence_of("mini/urgency", "mini") == "Apache-2.0"
    assert licence_of("glue/qqp", "nyu-mll/glue:qqp@" + "1" * 40) == "Quora's non-commercial terms"
    assert licence_of("own/x", "owner/name@main") == "as its page on the Hub says"
    assert licence_of("mini/urgency", "folder") == "not stated"
    assert licence_of("tickets", "tickets.csv") == "not stated"
