"""Which tasks teach, choose and judge: as the options of a recipe name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.core.types import Roles, Task
from metanlp.tasks.leaks import drop_leaks, leakage
from metanlp.tasks.roles import read_roles
from metanlp.tasks.sources.mini import read_mini
from metanlp.tasks.sources.table import BY_NAME
from metanlp.tasks.taskset import read

DOMAINS = ("banking", "home", "travel", "work")


def write(path: Path, *rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folders as the published sources have them, with a few rows of our own."""
    for name in ("sst2", "rte", "mrpc", "wnli"):
        pair = name != "sst2"
        for pool in ("train", "validation"):
            rows = [
                {**({"text_a": f"{name} {pool} {n}", "text_b": "so"} if pair else {"text": f"{pool} {n}"}),
                 "label": n % 2, "label_text": BY_NAME[f"glue/{name}"].labels[n % 2]}
                for n in range(4)
            ]  # fmt: skip
            write(tmp_path / "glue" / name / f"{pool}.jsonl", *rows)
    for pool in ("train", "test"):
        intents = [
            {"text": f"{pool} {domain} {n}", "label": place + 4 * (n % 2), "label_text": f"{domain} {n % 2}",
             "domain": domain}
            for n in range(4) for place, domain in enumerate(DOMAINS)
        ]  # fmt: skip
        write(tmp_path / "intents" / "clinc150" / f"{pool}.jsonl", *intents)
        for name in ("intents/hwu64", "topics/agnews", "topics/dbpedia14"):
            write(
                tmp_path / name / f"{pool}.jsonl", *({"text": f"{pool} {name} {n}", "label": n % 2} for n in range(4))
            )
    write(tmp_path / "topics" / "trec" / "train.jsonl", *({"text": f"what {n} ?", "label": n % 2} for n in range(6)))
    write(tmp_path / "topics" / "trec" / "test.jsonl", *({"text": f"What {n} ?", "label": n % 2} for n in range(5, 8)))
    write(tmp_path / "intents" / "clinc150" / "oos.jsonl", {"text": "who made you", "label": -1})
    return tmp_path


def names(tasks: tuple[Task, ...]) -> list[str]:
    return [task.name for task in tasks]


def roles(root: Path, data: str, validation: str = "auto", test: str = "mini") -> Roles:
    return read_roles(data, validation, test, root)


CLINC = [f"intents/clinc150/{domain}" for domain in DOMAINS]


@pytest.mark.parametrize(
    ("data", "validation", "test", "train", "kept"),
    [
        ("glue", "auto", "mini", ["glue/sst2"], ["glue/rte", "glue/mrpc"]),
        ("glue", "mini", "mini", ["glue/rte", "glue/mrpc", "glue/sst2"], []),
        ("glue/wnli,glue/sst2", "auto", "mini", ["glue/wnli", "glue/sst2"], []),
        ("glue/rte", "auto", "mini", ["glue/rte"], []),
        ("intents", "auto", "intents", [CLINC[2], CLINC[3]], [CLINC[0], CLINC[1]]),
        ("intents", "mini", "intents", CLINC, []),
        ("intents/clinc150/work,intents/hwu64", "auto", "mini", [CLINC[3], "intents/hwu64"], []),
        ("intents/clinc150", "intents/hwu64", "mini", CLINC, ["intents/hwu64"]),
        ("topics", "auto", "topics", ["topics/agnews", "topics/dbpedia14"], []),
        ("topics,glue", "auto", "topics", ["topics/agnews", "topics/dbpedia14", "glue/sst2"],
         ["glue/rte", "glue/mrpc"]),
        ("topics", "glue", "topics", ["topics/agnews", "topics/dbpedia14"], ["glue/rte", "glue/mrpc"]),
    ],
)  # fmt: skip
def test_roles_of_published_sources(
    data: str, validation: str, test: str, train: list[str], kept: list[str], root: Path
) -> None:
    found = roles(root, data, validation, test)
    of_mini = names(read_mini().validation)
    assert sorted(names(found.train)) == sorted(train)
    judging = [name for name in names(found.validation) if name not in of_mini]
    assert sorted(judging) == sorted(kept)
    assert (of_mini == names(found.validation)[-5:]) == (validation in ("auto", "mini"))
    alone = {"mini": names(read_mini().test), "intents": ["intents/hwu64"], "topics": ["topics/trec"]}
    assert names(found.test) == alone[test]
    everything = [*names(found.train), *names(found.validation), *names(found.test)]
    assert len(everything) == len(set(everything))


def test_a_source_that_keeps_none_for_a_role_gives_all(root: Path) -> None:
    found = roles(root, "mini", "mini", "glue")
    assert names(found.test) == ["glue/rte", "glue/mrpc", "glue/sst2", "glue/wnli"]


def test_nothing_left_to_teach_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match="every task of --data topics/trec is also a validation or test task"):
        roles(root, "topics/trec", "mini", "topics")


def test_domains_are_tasks_with_their_own_labels(root: Path) -> None:
    (work,) = read("intents/clinc150/work", data_root=root)
    assert (work.source, work.labels) == ("intents", ("work 0", "work 1"))
    assert [row["text"] for row in work.pools["test"]] == [f"test work {n}" for n in range(4)]
    assert [row["label"] for row in work.pools["train"]] == [0, 1, 0, 1]
    assert names(read("intents/clinc150", data_root=root)) == CLINC
    with pytest.raises(InputError, match="no tasks called 'intents/clinc150/nowhere'"):
        read("intents/clinc150/nowhere", data_root=root)


def test_repeats_of_published_splits_are_reported_and_not_refused(root: Path) -> None:
    found = roles(root, "topics", "mini", "topics")
    (overlap,) = leakage(found).overlaps
    assert (overlap.evaluation, overlap.training, overlap.count, overlap.published) == ("topics/trec",) * 2 + (1, True)
    assert drop_leaks(found)[1] == {"topics/trec": 1}


def test_users_folders_of_these_names_are_theirs(tmp_path: Path) -> None:
    for name in ("mine", "trec"):
        write(tmp_path / "topics" / f"{name}.jsonl", *({"text": f"{name} {n}", "label": n % 2} for n in range(4)))
    write(tmp_path / "intents" / "shop" / "train.jsonl", *({"text": f"{n}", "label": n % 2} for n in range(4)))
    assert names(read(str(tmp_path / "topics"), data_root=None)) == ["mine", "trec"]
    assert names(read(str(tmp_path / "intents"), data_root=None)) == ["shop"]
    assert names(read_roles(str(tmp_path / "topics"), "mini", "mini", None).train) == ["mine", "trec"]
