"""Data sets of the Hub, from a real server on the loopback and then from the cache; and what a dead network says."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer, Repo, configs, jsonl, parquet, parquet_of, running

from metanlp import Learner
from metanlp.algorithms import Frozen
from metanlp.backbone import Backbone
from metanlp.cli.commands import main
from metanlp.core import hub as core_hub
from metanlp.core.errors import InputError
from metanlp.core.hub import HubName
from metanlp.core.types import Roles, Task
from metanlp.tasks.leaks import leakage
from metanlp.tasks.reading.columns import guess_columns
from metanlp.tasks.sources.table import COMMITS, ENTAILMENT, role_of

ROOT = Path(__file__).parents[2]

# Reads what standard input lists, one process for many: a name, arguments of `read_hub`, roles, of which those that
# teach count, or plain texts; says tasks, documents or the error.
SCRIPT = """
import json, os, sys, time
from dataclasses import asdict
from metanlp.core import hub
from metanlp.tasks.sources.hub import read_hub
from metanlp.tasks.roles import read_roles
from metanlp.tasks.sources.corpus import documents
from metanlp.tasks.taskset import read
def made(call):
    if "roles" in call:
        return read_roles(*call["roles"], None).train
    return read(call["name"], data_root=None) if "name" in call else read_hub(*call["hub"], **call.get("with", {}))
for call in json.load(sys.stdin):
    begun = time.monotonic()
    os.environ.update(call.get("env", {}))
    for name, seconds in call.get("limits", {}).items():
        setattr(hub, name, seconds)
    try:
        if "texts" in call:
            said = {"documents": list(documents(call["texts"], *call.get("column", [])))}
        else:
            said = {"tasks": [asdict(task) for task in made(call)]}
    except Exception as error:
        said = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(said | {"seconds": time.monotonic() - begun}), flush=True)
"""

Said = dict[str, Any]
Told = tuple[HubServer, dict[str, Said], dict[str, Said]]


def glue_files() -> dict[str, bytes]:
    nli = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": n % 3} for n in range(6)]
    sst2 = [{"sentence": f"s {n}", "label": n % 2} for n in range(5)]
    hidden: list[dict[str, object]] = [{**row, "label": -1} for row in nli[:4]]
    splits = {"train": nli, "validation_matched": nli[:3], "validation_mismatched": nli[3:], "test_matched": hidden}
    files = {
        "README.md": configs(mnli=tuple(splits), sst2=("train", "validation"), stsb=("train", "validation", "test"))
    }
    files |= {f"mnli/{split}.parquet": parquet(rows, "label", ENTAILMENT) for split, rows in splits.items()}
    words = ("negative", "positive")
    stsb = [{"sentence1": f"s {n}", "sentence2": "t", "label": n / 2} for n in range(6)]
    kept_back = [{**row, "label": -1.0} for row in stsb[:2]]
    for split, rows in {"train": stsb, "validation": stsb[1:3], "test": kept_back}.items():
        files[f"stsb/{split}.parquet"] = parquet_of(rows, {"label": {"dtype": "float64", "_type": "Value"}})
    return files | {f"sst2/{split}.parquet": parquet(sst2, "label", words) for split in ("train", "validation")}


def of_other_forms() -> dict[str, bytes]:
    """Sets of labels, entities and questions as they are published: GoEmotions, CoNLL 2003 and ARC are like this."""
    words: dict[str, object] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}

    def named(*names: str) -> dict[str, object]:
        return {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "List"}

    moods = [{"text": f"t {n}", "labels": [[0], [0, 1], [], [1]][n % 4]} for n in range(8)]
    names = [{"tokens": ["Ann", "Lee", f"saw{n}", "Rome"], "ner_tags": [1, 2, 0, 3]} for n in range(4)]
    lettered = [{"question": f"q {n}", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "AB"[n % 2]}
                for n in range(4)]  # fmt: skip
    return {
        "moods": parquet_of(moods, {"labels": named("joy", "anger")}),
        "names": parquet_of(names, {"tokens": words, "ner_tags": named("O", "B-PER", "I-PER", "B-LOC")}),
        "arc": parquet_of(lettered, {"choices": {"text": words, "label": words}}),
    }


def intents(*domains: str) -> bytes:
    return jsonl(
        *({"text": f"{i} of {domain} {n}", "intent": f"{domain} {i}", "domain": domain, "idx": n}
          for domain in domains for i in "ab" for n in range(2))
    )  # fmt: skip


def of_large_sets() -> dict[str, dict[str, bytes]]:
    """Rows of 500 bytes, which do not compress, sorted by class: in many files, in one of Parquet, in one of lines."""
    draw = random.Random(0)

    def rows(label: int, count: int) -> list[dict[str, object]]:
        return [{"text": draw.randbytes(240).hex(), "label": label} for _ in range(count)]

    shards = [parquet(rows(n // 24, 100), "label", ("a", "b", "c", "d")) for n in range(96)]
    one = [row for label in range(4) for row in rows(label, 100)]
    return {
        "long": {f"data/train-{n:05}-of-00096.parquet": shard for n, shard in enumerate(shards)},
        "sorted": {"train.parquet": parquet(one, "label", ("a", "b", "c", "d"), group_rows=20)},
        "listed": {"train.jsonl": jsonl(*one)},
    }


def of_numbers() -> dict[str, list[dict[str, object]]]:
    """Labels and scores of which -1 is one like any other."""
    return {
        "votes": [{"text": f"t {n}", "label": n % 3 - 1} for n in range(9)],
        "moved": [{"text": f"t {n}", "score": n / 4 - 1} for n in range(9)],
    }


def fill(server: HubServer) -> None:
    for name in ("intents", "bad", "two", "hidden", "stuck", "busy"):
        server.repos[f"lab/{name}"] = Repo()
    repos = server.repos
    repos["nyu-mll/glue"] = Repo({COMMITS["nyu-mll/glue"]: glue_files()}, {"main": "0" * 40})
    pairs = [{"premise": f"p {n}", "hypothesis": "h", "label": n % 4 - 1} for n in range(8)]
    snli = {f"{split}.parquet": parquet(pairs, "label", ENTAILMENT) for split in ("train", "validation")}
    repos["stanfordnlp/snli"] = Repo({COMMITS["stanfordnlp/snli"]: snli})
    repos["lab/intents"].commit({"train.jsonl": intents("bank"), "test.jsonl": intents("bank")}, "v1")
    repos["lab/intents"].commit({"train.jsonl": intents("bank", "home/ work"), "test.jsonl": intents("bank")})
    for name, content in of_large_sets().items():
        repos[f"lab/{name}"] = Repo()
        repos[f"lab/{name}"].commit(content)
    for name, rows in of_numbers().items():
        repos[f"lab/{name}"] = Repo()
        repos[f"lab/{name}"].commit({"train.jsonl": jsonl(*rows)})
    ok = {"text": "a", "label": "x"}
    repos["lab/bad"].commit({"train.jsonl": jsonl(ok, {"text": "b", "label": None}, {"text": "c", "label": "y"})})
    repos["lab/two"].commit(
        {"train.jsonl": jsonl({**ok, "sentence": "b"}, {"text": "c", "sentence": "d", "label": "y"})}
    )
    repos["lab/hidden"].commit(
        {"train.parquet": parquet([{"text": f"t {n}", "label": -1} for n in range(4)], "label", ("a", "b"))}
    )
    for name, content in of_other_forms().items():
        repos[f"lab/{name}"] = Repo()
        repos[f"lab/{name}"].commit({"train.parquet": content})
    repos["lab/stuck"].commit({"train.jsonl": intents("bank")})
    repos["lab/busy"].commit({"train.jsonl": intents("bank")})
    server.busy["api/datasets/lab/busy"] = 2
    server.silent |= {"lab/silent", "stuck/resolve"}


GLUE_SST2 = f"nyu-mll/glue:sst2@{COMMITS['nyu-mll/glue']}"
MAPPING = {"bank a": "one", "home/ work a": "one", "bank b": "two", "home/ work b": "two"}
QUICK = {"REQUEST_SECONDS": 0.3, "PATIENCE_SECONDS": 0.5}
GOOD: dict[str, Said] = {
    "glue": {"name": "glue/mnli, glue/sst2, glue/snli"},
    "id": {"name": GLUE_SST2},
    "main": {"name": "lab/intents"},
    "tag": {"name": "lab/intents@v1"},
    "by column": {"hub": ["lab/intents"], "with": {"group_by": "domain"}},
    "by mapping": {"hub": ["lab/intents"], "with": {"group_by": MAPPING}},
    "chosen": {"hub": ["lab/intents"], "with": {"group_by": "domain", "groups": ["bank"]}},
    "long": {"hub": ["lab/long"], "with": {"limit": 400}},
    "sorted": {"hub": ["lab/sorted"], "with": {"limit": 100}},
    "listed": {"hub": ["lab/listed"], "with": {"limit": 150}},
    "whole": {"hub": ["lab/sorted"], "with": {"limit": 400}},
    "votes": {"name": "lab/votes"},
    "moved": {"hub": ["lab/moved"], "with": {"columns": {"score": "score"}}},
    "declared": {"hub": ["lab/votes"], "with": {"hidden": -1}},
    "roles": {"roles": ["glue/mnli,glue/sst2", "auto", "mini"]},
    "stsb": {"name": "glue/stsb"},
    "moods": {"name": "lab/moods"},
    "names": {"name": "lab/names"},
    "arc": {"name": "lab/arc"},
    "busy": {"name": "lab/busy"},
    "named": {"hub": ["lab/two"], "with": {"columns": {"text_a": "text", "text_b": "sentence"}}},
}
WRONG: dict[str, tuple[Said, str]] = {
    "no such set": ({"name": "lab/none"}, "lab/none: no such data set on the Hub"),
    "no such revision": ({"name": "lab/intents@v9"}, "has no revision 'v9'"),
    "no such commit": ({"name": f"lab/intents@{'1' * 40}"}, "lab/intents@1111"),
    "no such configuration": ({"name": GLUE_SST2.replace("sst2", "sst5")}, "sst2"),
    "which configuration": ({"name": GLUE_SST2.replace(":sst2", "")}, "'mnli', 'sst2'"),
    "a row without label": ({"name": "lab/bad"}, "lab/bad: train row 2: the label is null"),
    "two texts": ({"name": "lab/two"}, "'text', 'sentence' could each be the text; say which"),
    "no labels": ({"name": "lab/hidden"}, "no row has a label"),
    "no such column": ({"hub": ["lab/intents"], "with": {"columns": {"label": "intnt"}}}, "did you mean 'intent'"),
    "no such group": ({"hub": ["lab/intents"], "with": {"group_by": "domain", "groups": ["banc"]}}, "mean 'bank'"),
    "no such corpus": ({"texts": ["lab/none"]}, "lab/none: no such data set on the Hub"),
    "no column of a corpus": ({"texts": ["lab/long"], "column": ["body"]}, "lab/long: row 1: has no column 'body'"),
    "a silent corpus": ({"texts": ["lab/silent"], "limits": QUICK}, "cannot be reached (timed out)"),
    "not GLUE": ({"name": "glue/mnly"}, "did you mean 'mnli'"),
    "no training": ({"name": "glue/ax"}, "has a test split only"),
    "silent": ({"name": "lab/silent", "limits": QUICK}, "cannot be reached (timed out)"),
    "stuck on the way": ({"name": "lab/stuck", "limits": QUICK}, "cannot be reached (timed out)"),
}  # fmt: skip


def batch(calls: list[Said], **env: str) -> list[Said]:
    """What a fresh process says to each call."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env}
    words = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(words, input=json.dumps(calls), env=clean, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The server, now stopped, with what it was asked; answers with it; answers without it, offline."""
    server, home = HubServer(), str(tmp_path_factory.mktemp("hub"))
    fill(server)
    calls = [*GOOD.values(), *(call for call, _ in WRONG.values())]
    with running(server):
        online = batch(calls, HF_ENDPOINT=server.url, HF_HOME=home)
    unset = {"name": GLUE_SST2, "env": {"HF_HUB_OFFLINE": "0"}}
    absent = [{"name": "lab/bad@v7"}, {"hub": ["lab/long"], "with": {"limit": 7}}]
    later = batch([*GOOD.values(), *absent, unset], HF_ENDPOINT=server.url, HF_HOME=home, HF_HUB_OFFLINE="1")
    names = [*GOOD, "absent", "other limit", "pinned, without the flag"]
    return server, dict(zip([*GOOD, *WRONG], online, strict=True)), dict(zip(names, later, strict=True))


def tasks(said: Said) -> list[Task]:
    assert "tasks" in said, said["error"]
    return [Task(**fields) for fields in said["tasks"]]


def test_a_corpus_is_streamed_from_the_hub_at_a_revision(tmp_path: Path) -> None:
    """Every row of every file in its order; read again each time, so offline it is refused in one line."""
    server, calls = (
        HubServer(),
        [{"texts": ["lab/long"]}, {"texts": ["lab/notes@v1", "lab/notes"], "column": ["intent"]}],
    )
    fill(server)
    server.repos["lab/notes"] = server.repos["lab/intents"]
    with running(server):
        long, notes = batch(calls, HF_ENDPOINT=server.url, HF_HOME=str(tmp_path))
        (refused,) = batch(calls[:1], HF_ENDPOINT=server.url, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "documents" in long, long["error"]
    draw = random.Random(0)
    expected = [draw.randbytes(240).hex() for _ in range(9600)]
    assert long["documents"] == [[f"lab/long: row {n}", text] for n, text in enumerate(expected, start=1)]
    assert [text for _, text in notes["documents"]] == [
        *("bank a", "bank a", "bank b", "bank b"),
        *(f"{domain} {i}" for domain in ("bank", "home/ work") for i in ("a", "a", "b", "b")),
    ]
    assert "lab/long" in refused["error"]
    assert "\n" not in refused["error"]


@pytest.mark.slow
def test_glue_comes_from_the_hub_at_its_pinned_commit(told: Told) -> None:
    mnli, sst2, snli = tasks(told[1]["glue"])
    assert [task.name for task in (mnli, sst2, snli)] == ["glue/mnli", "glue/sst2", "glue/snli"]
    assert mnli.source == f"nyu-mll/glue:mnli@{COMMITS['nyu-mll/glue']}"
    assert snli.source == f"stanfordnlp/snli@{COMMITS['stanfordnlp/snli']}"
    assert tuple(mnli.labels) == tuple(snli.labels) == ENTAILMENT
    assert mnli.pools["train"][4] == {"text_a": "p 4", "text_b": "h 4", "label": 1}
    assert [row["text_a"] for row in mnli.pools["validation"]] == ["p 0", "p 1", "p 2"]
    assert all(role_of(task) == "train" for task in (mnli, sst2, snli))
    assert not any("main" in asked for asked in told[0].asked if "nyu-mll" in asked)


def test_hidden_labels_are_left_out_and_counted(told: Told) -> None:
    mnli, sst2, snli = tasks(told[1]["glue"])
    assert (mnli.left_out, sst2.left_out) == ({"test": 4}, {})
    assert set(mnli.pools) == {"train", "validation"}
    assert snli.left_out == {"train": 2, "validation": 2}
    assert [row["text_a"] for row in snli.pools["train"]] == ["p 1", "p 2", "p 3", "p 5", "p 6", "p 7"]


def test_other_forms_are_known_by_their_columns(told: Told) -> None:
    (stsb,), (moods,), (names,), (arc,) = (tasks(told[1][name]) for name in ("stsb", "moods", "names", "arc"))
    assert (stsb.form, stsb.name, tuple(stsb.scale), stsb.left_out) == ("regress", "glue/stsb", (0.0, 2.5), {"test": 2})
    assert [row["score"] for row in stsb.pools["validation"]] == [0.5, 1.0]
    assert (moods.form, list(moods.labels)) == ("multilabel", ["anger", "joy"])
    assert [list(row["labels"]) for row in moods.pools["train"][:4]] == [[1], [0, 1], [], [0]]
    assert (names.form, list(names.labels)) == ("tag", ["O", "LOC", "PER"])
    assert [list(span) for span in names.pools["train"][0]["spans"]] == [[0, 2, 2], [3, 4, 1]]
    assert (arc.form, [row["answer"] for row in arc.pools["train"]]) == ("choose", [0, 1, 0, 1])


def test_a_hub_name_is_a_task_of_that_name(told: Told) -> None:
    (task,) = tasks(told[1]["id"])
    assert (task.name, task.source, list(task.labels)) == ("nyu-mll/glue/sst2", GLUE_SST2, ["negative", "positive"])
    assert role_of(task) is None
    leaks = leakage(Roles((task,), (), (task,)))
    assert [leak.published for leak in leaks.overlaps] == [True]


def test_a_revision_becomes_the_commit_that_is_written_down(told: Told) -> None:
    refs = told[0].repos["lab/intents"].refs
    (old,), (new,) = tasks(told[1]["tag"]), tasks(told[1]["main"])
    assert refs["v1"] != refs["main"]
    assert (old.source, new.source) == (f"lab/intents@{refs['v1']}", f"lab/intents@{refs['main']}")
    assert (len(old.labels), len(new.labels)) == (2, 4)


def test_one_task_a_group(told: Told) -> None:
    bank, home = tasks(told[1]["by column"])
    assert [task.name for task in (bank, home)] == ["lab/intents/bank", "lab/intents/home- work"]
    assert list(bank.labels) == ["bank a", "bank b"]
    assert {row["text"].split()[2] for row in bank.pools["train"]} == {"bank"}
    assert (set(bank.pools), set(home.pools)) == ({"train", "test"}, {"train"})
    one, two = tasks(told[1]["by mapping"])
    assert [task.name for task in (one, two)] == ["lab/intents/one", "lab/intents/two"]
    assert list(one.labels) == ["bank a", "home/ work a"]
    assert [task.name for task in tasks(told[1]["chosen"])] == ["lab/intents/bank"]


def test_of_a_large_set_a_few_parts_travel_and_no_class_is_missed(told: Told) -> None:
    server, online, _ = told
    (task,) = tasks(online["long"])
    assert (len(task.pools["train"]), list(task.labels)) == (400, ["a", "b", "c", "d"])
    (files,) = server.repos["lab/long"].commits.values()
    sent = {path: count for path, count in server.sent.items() if "lab/long/resolve" in path}
    assert len(sent) == 16 < len(files)
    assert sum(sent.values()) < sum(map(len, files.values())) / 2
    assert list(task.notes) == [
        "only 400 rows of 'train' were read, evenly from 16 parts; `limit=None` of read_hub reads all"
    ]


def test_of_a_sorted_file_every_class_is_read_or_missed_aloud(told: Told) -> None:
    (rows,), (lines,), (whole,) = (tasks(told[1][name]) for name in ("sorted", "listed", "whole"))
    counts = [[row["label"] for row in rows.pools["train"]].count(label) for label in range(4)]
    assert (sum(counts), min(counts) >= 20) == (100, True)
    assert [row["label"] for row in rows.pools["train"]] == sorted(row["label"] for row in rows.pools["train"])
    assert (list(lines.labels), "only 150 rows of 'train' were read, the first" in lines.notes[0]) == (["0", "1"], True)
    assert (len(whole.pools["train"]), list(whole.notes)) == (400, [])


def test_minus_one_is_a_value_like_any_other_where_nobody_says_more(told: Told) -> None:
    (votes,), (moved,), (declared,) = (tasks(told[1][name]) for name in ("votes", "moved", "declared"))
    assert (list(votes.labels), votes.left_out) == (["-1", "0", "1"], {})
    assert (len(votes.pools["train"]), len(moved.pools["train"])) == (9, 9)
    assert (list(moved.scale), moved.left_out) == ([-1.0, 1.0], {})
    assert (list(declared.labels), declared.left_out) == (["0", "1"], {"train": 3})


def test_a_hub_that_is_busy_is_asked_again(told: Told) -> None:
    assert [task.name for task in tasks(told[1]["busy"])] == ["lab/busy"]
    assert told[0].busy == {"api/datasets/lab/busy": 0}


def test_offline_the_cache_gives_equal_tasks(told: Told) -> None:
    _, online, later = told
    for name in GOOD:
        assert tasks(later[name]) == tasks(online[name]), name
    assert tasks(later["pinned, without the flag"]) == tasks(online["id"])
    for name, part in (("absent", "lab/bad@v7: is not in the cache"), ("other limit", "is not in the cache with this")):
        assert part in later[name]["error"]
        assert (later[name]["kind"], "\n" in later[name]["error"]) == ("InputError", False)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(told: Told, name: str) -> None:
    said = told[1][name]
    assert said.get("kind") in ("InputError", "ColumnsError"), said
    assert WRONG[name][1] in said["error"]
    assert "\n" not in said["error"]
    assert said["seconds"] < 10


# Names and columns.


def test_names() -> None:
    assert HubName.parse("a/b") == HubName("a/b")
    assert HubName.parse("a/b:c@refs/pr/1") == HubName("a/b", "c", "refs/pr/1")
    assert str(HubName.parse("a-1/b.c:d@main")) == "a-1/b.c:d@main"
    for wrong in ("a", "./a/b", "/a/b", "a/b/c", "~/a", "a/b:", "a/b@", "../a", ".a/b", "a b/c"):
        assert HubName.parse(wrong) is None, wrong


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"idx": 1, "sentence": "a", "label": 0}, {"label": "label", "text": "sentence"}),
        (
            {"question": "a", "sentence": "b", "label": 0},
            {"label": "label", "text_a": "question", "text_b": "sentence"},
        ),
        (
            {"Premise": "a", "Hypothesis": "b", "gold": 0},
            {"label": "gold", "text_a": "Premise", "text_b": "Hypothesis"},
        ),
        ({"utt": "a", "intent": "b"}, {"label": "intent", "text": "utt"}),
        ({"title": "t", "content": "a", "label": 0, "topic": 1}, {"label": "label", "text": "content"}),
        ({"text": "a", "label": 0, "label_text": "b"}, {"label": "label", "text": "text"}),
    ],
)
def test_columns_are_known_by_their_usual_names(cells: dict[str, object], expected: dict[str, str]) -> None:
    assert guess_columns(cells, {}, classes=["gold"], not_label=[], source="s") == expected


@pytest.mark.parametrize(
    ("cells", "part"),
    [
        ({"text": "a", "sentence": "b", "label": 0}, "'text', 'sentence' could each be the text"),
        ({"first": "a", "second": "b", "label": 0}, "'first', 'second' could each be the text"),
        ({"premise": "a", "hypothesis": "b", "text": "c", "label": 0}, "'premise', 'hypothesis', 'text' could each"),
        ({"text": "a", "intent": 0, "topic": 1}, "'intent', 'topic' could each be the label"),
        ({"text": "a", "score": 0.5}, "no column is known to be the label; found 'text', 'score'"),
        ({"n": 1, "label": 0}, "no column is known to be the text"),
    ],
)
def test_columns_that_could_be_several_are_asked_for(cells: dict[str, object], part: str) -> None:
    with pytest.raises(InputError, match="say which") as caught:
        guess_columns(cells, {}, classes=[], not_label=[], source="s")
    assert part in str(caught.value)


# No network.


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[float, str]]:
    """Runs a command that has to end with code 2 and one line: seconds, and the line."""

    def run(endpoint: str, *words: str) -> tuple[float, str]:
        for flag in core_hub.FLAGS:
            monkeypatch.delenv(flag, raising=False)
        for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setattr("sys.argv", ["metanlp", *words])
        begun = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main()
        seconds, said = time.monotonic() - begun, capsys.readouterr()
        assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1), said.err
        return seconds, said.err

    return run


Command = Callable[..., tuple[float, str]]
WAYS_ON = ("give a folder", "--model minilm --data mini", "HF_HUB_OFFLINE=1")


def test_a_refused_connection_ends_in_one_line(command: Command, refused_port: int) -> None:
    seconds, said = command(f"http://127.0.0.1:{refused_port}", "tasks", "owner/none")
    assert f"owner/none: the Hub at http://127.0.0.1:{refused_port} cannot be reached (Connection refused)" in said
    assert all(way in said for way in WAYS_ON)
    assert seconds < 10


def test_an_unknown_host_ends_in_one_line(command: Command) -> None:
    seconds, said = command("http://hub.invalid", "tasks", "glue/sst2")
    assert "the Hub at http://hub.invalid cannot be reached" in said
    assert "METANLP_DATA" in said
    assert seconds < 10


def test_a_black_hole_ends_in_one_line(command: Command, black_hole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert core_hub.PROBE_SECONDS == 3
    monkeypatch.setattr(core_hub, "PROBE_SECONDS", 0.3)
    seconds, said = command(f"http://127.0.0.1:{black_hole}", "tasks", "owner/none")
    assert "cannot be reached (no answer within 0.3 s)" in said
    assert seconds < 10


NO_NETWORK = {
    "publish": ("publish", "--from", "LEARNER", "lab/mine"),
    "adapt": ("adapt", "--from", "lab/mine", "--examples", str(ROOT / "recipes/tickets.csv"), "--out", "nowhere"),
    "predict": ("predict", "--from", "lab/mine", str(ROOT / "recipes/tickets.txt")),
    "export": ("export", "--from", "lab/mine", "--to", "lora", "--out", "nowhere"),
}


@pytest.fixture(scope="module")
def untrained(net: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner's folder: publish looks at it before it asks the Hub."""
    folder = tmp_path_factory.mktemp("untrained")
    Learner(Frozen(), net, Frozen().init(net, torch.Generator().manual_seed(0))).save(folder)
    return folder


@pytest.mark.parametrize("asked", NO_NETWORK)
@pytest.mark.parametrize("dead", ["refused", "unknown", "silent"])
def test_models_of_the_hub_without_a_network_end_in_one_line(
    asked: str,
    dead: str,
    command: Command,
    refused_port: int,
    black_hole: int,
    untrained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_hub, "PROBE_SECONDS", 0.3)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    host = {"refused": f"127.0.0.1:{refused_port}", "unknown": "hub.invalid", "silent": f"127.0.0.1:{black_hole}"}[dead]
    words = [str(untrained) if word == "LEARNER" else word for word in NO_NETWORK[asked]]
    seconds, said = command(f"http://{host}", *words)
    assert said.startswith("lab/mine: the Hub at http://")
    assert host in said
    ways = ("publish again when it answers",) if asked == "publish" else ("give a folder", "HF_HUB_OFFLINE=1")
    assert all(way in said for way in ways)
    assert ("hf_token" in said, asked == "publish" and "HF_HUB_OFFLINE" in said) == (False, False)
    assert seconds < 10


def test_an_encoder_without_a_network_ends_in_one_line(refused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from metanlp.backbone import Backbone

    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{refused_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"model 'owner/none': the Hub at .* cannot be reached.*--model minilm"):
        Backbone.load("owner/none")
    assert time.monotonic() - begun < 10


def test_an_answer_is_an_answer_and_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, refused_port: int) -> None:
    server = HubServer()
    with running(server):
        for path in ("", "/there-is-no-such-page"):
            monkeypatch.setenv("HF_ENDPOINT", server.url + path)
            assert core_hub.silence(3) is None
        assert server.asked == ["HEAD /", "HEAD /there-is-no-such-page"]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{refused_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    core_hub.require_hub("x", "do y")
    monkeypatch.setenv("HF_ENDPOINT", "no address at all")
    assert core_hub.silence(3)


def test_auto_validation_knows_glue_of_the_hub(told: Told) -> None:
    """Neither of the two is held out, and both teach."""
    assert [task.name for task in tasks(told[1]["roles"])] == ["glue/mnli", "glue/sst2"]


@pytest.mark.slow
def test_a_hub_that_falls_silent_is_given_up_within_40_s(tmp_path: Path) -> None:
    server = HubServer()
    fill(server)
    with running(server):
        calls: list[Said] = [{"name": "lab/silent"}, {"name": "lab/stuck"}]
        for said in batch(calls, HF_ENDPOINT=server.url, HF_HOME=str(tmp_path)):
            assert "cannot be reached" in said["error"]
            assert 5 < said["seconds"] < 40
