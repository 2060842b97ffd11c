"""A new user with the files of an office: from five of them to a learner, a model, answers, an export and a card.

No option is given but names of files, and what a file truly needs, which the refusal before it says."""

from __future__ import annotations

import csv
import json
import re
import shlex
import urllib.request
from pathlib import Path

import forked
import pytest
import torch
from conftest import Here
from openpyxl import Workbook

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone
from metanlp.cli.serving import Serve
from metanlp.learner.learner import Learner
from metanlp.share.publish import Publication, stage_folder

TOPICS = {
    "printer": ("the printer on floor {n} jams", "no toner left in printer {n}", "printer {n} prints stripes"),
    "access": (
        "my badge does not open door {n}",
        "please give me access to folder {n}",
        "password of account {n} lost",
    ),
    "building": ("the window in room {n} is broken", "it is too cold in room {n}", "the lamp of desk {n} flickers"),
}


def texts(topic: str, count: int, first: int = 1) -> list[str]:
    forms = TOPICS[topic]
    return [f"{forms[n % len(forms)].format(n=first + n)}, since week {first + n}" for n in range(count)]


def rows(first: int, **counts: int) -> list[tuple[str, str]]:
    return [(text, topic) for topic, count in counts.items() for text in texts(topic, count, first)]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files to learn from, in a folder, and beside it one with a new task and what it is to be asked."""
    folder = tmp_path_factory.mktemp("office")
    tasks = folder / "our tasks"
    tasks.mkdir()
    with (tasks / "Tickets 2025.csv").open("w", newline="", encoding="utf-8-sig") as file:  # as Excel exports it here
        table = csv.writer(file, delimiter=";")
        table.writerow(["ID", "Text", "Label"])
        table.writerows([f"T-{n:03d}", *row] for n, row in enumerate(rows(100, printer=9, access=12)))
    (tasks / "mails.tsv").write_text(
        "TEXT\tLABEL\n" + "".join(f"{text}\t{label}\n" for text, label in rows(200, access=8, building=8))
    )
    with (tasks / "helpdesk.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("text", "label", "closed"), *((*row, "yes") for row in rows(300, printer=25, building=7))]
        )
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [
        ("No", " Text ", "Label"),
        *((n, *row) for n, row in enumerate(rows(400, printer=8, access=9, building=7))),
    ]:
        sheet.append(row)
    book.save(tasks / "facility.xlsx")
    (tasks / "~$facility.xlsx").write_bytes(b"open")  # somebody has it open
    for name, first, count in (("new.csv", 500, 4), ("check.csv", 600, 5)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter=";")
            table.writerow(["Ticket", "What was said", "Team"])
            found = rows(first, access=count, building=count + 2)
            table.writerows([f"N-{first + n}", *row] for n, row in enumerate(found))
    return folder


def served_answer(model: Path, base: Path, text: str) -> str:
    """What the endpoints of a model say of a text."""
    label = ""
    for address in forked.endpoints(lambda port: Serve(source=model, base=str(base), api=True, port=port).run()):
        body = json.dumps({"rows": [text]}).encode()
        asked = urllib.request.Request(f"{address}predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked) as answer:
            label = json.load(answer)["answers"][0]["label"]
    return label


def walk(here: Here, office: Path, learner: Path, tiny: Path, out: Path) -> None:
    """From a learner to everything that comes after it."""
    base = ["--base", tiny]
    adapt = ["metanlp", "adapt", "--from", learner, "--examples", office / "new.csv", "--out", out / "teams", *base]
    code, _, said = here(*adapt)
    assert code == 2
    found = re.search(r"then say (--columns .+)\n$", said)
    assert found, said
    option = shlex.split(found[1])
    assert option == ["--columns", "text=What was said,label=Team"]
    code, printed, _ = here(*adapt, *option)
    assert code == 0
    assert printed.endswith("adapted to 10 examples of access, building\n")
    model = ["--from", out / "teams", *base]
    code, printed, _ = here("metanlp", "score", office / "check.csv", *model, *option, "--json")
    score = json.loads(printed)
    assert (code, score["rows"], {*score["classes"]}) == (0, 12, {"access", "building"})
    code, _, said = here("metanlp", "predict", office / "check.csv", *model, *option, "--out", out / "answers.csv")
    assert code == 0
    assert f"accuracy {score['accuracy']:.3f}" in said
    with (out / "answers.csv").open(newline="", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert [row["Ticket"] for row in answers] == [f"N-{600 + n}" for n in range(12)]
    assert {row["label"] for row in answers} <= {"access", "building"}
    assert served_answer(out / "teams", tiny, "my badge does not open door 9") in ("access", "building")
    code, _, _ = here("metanlp", "export", *model, "--to", "lora", "--out", out / "for others")
    assert code == 0
    assert (out / "for others" / "adapter_model.safetensors").is_file()
    (out / "stage").mkdir()
    stage_folder(out / "teams", out / "stage", "office/teams", Publication(base_model="office/encoder"))
    card = (out / "stage" / "README.md").read_text()
    assert "access" in card
    assert str(out) not in card


def test_from_a_learner_to_a_card(here: Here, office: Path, net: Backbone, tiny: Path, tmp_path: Path) -> None:
    code, printed, _ = here("metanlp", "tasks", office / "our tasks", "--json")
    assert code == 0
    described = {row["task"]: row["least, median, most a class"] for row in json.loads(printed)["tasks"]}
    assert described == {
        "Tickets 2025": "9, 10.5, 12",
        "facility": "7, 8, 9",
        "helpdesk": "7, 16, 25",
        "mails": "8, 8, 8",
    }
    learner = Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0)))
    learner.save(tmp_path / "learner")
    walk(here, office, tmp_path / "learner", tiny, tmp_path)


@pytest.mark.slow
def test_from_files_to_a_card(here: Here, office: Path, tiny: Path, tmp_path: Path) -> None:
    """The same with a learner that was trained on the four files, with the validation tasks of every training."""
    train = ["metanlp", "train", "--data", office / "our tasks", "--model", tiny, "--method", "protonet", "--steps", 20]
    code, printed, _ = here(*train, "--out", tmp_path / "learner")
    assert code == 0
    assert "tasks: 4 train, 5 validation, 0 test" in printed
    walk(here, office, tmp_path / "learner", tiny, tmp_path)
