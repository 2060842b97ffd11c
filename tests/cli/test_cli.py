"""The command `metanlp` in processes of its own: what it prints, what it leaves, and the code it ends with."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import pkgutil
import shlex
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from form_tasks import write_tasks
from runs import scored, written
from slowly import slow_but

import metanlp
from metanlp.algorithms import Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.cli.commands import main
from metanlp.learner.artefact import ADAPTER, CONFIG, META
from metanlp.learner.learner import Adapted, Learner

ROOT = Path(next(iter(metanlp.__path__))).parent
CSV = "text,label\nwhere is my parcel,delivery\nit never arrived,delivery\nrefund me,payment\nI paid twice,payment\n"
NOTICE = "1 of 3 texts that were read consist mostly of pieces that the tokenizer does not know\n"
TEXTS = ["the driver left it in the rain", 'a "quoted", text', "größer 👍"]
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.py") if "__main__" in path.read_text("utf-8"))


def python(*words: str, stdin: bytes = b"", **options: str) -> subprocess.CompletedProcess[bytes]:
    """A fresh process that finds nothing of a network, as on a machine without one."""
    env = {key: value for key, value in os.environ.items() if key != "METANLP_DATA"}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **options}
    return subprocess.run([sys.executable, *words], input=stdin, env=env, capture_output=True, timeout=120)


def metanlp_command(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return python("-c", "from metanlp.cli.commands import main; main()", *map(str, words), stdin=stdin)


def in_csv(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def one_line(said: str) -> str:
    assert said.count("\n") == 1, said
    assert said.endswith("\n")
    return said


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The same in this process, which has its libraries loaded: exit code, standard output, standard error."""

    def run(*words: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["metanlp", *map(str, words)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        out, said = capsys.readouterr()
        assert isinstance(code, int)
        return code, out, said

    return run


@pytest.fixture(scope="module")
def work(net: Backbone, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a learner, examples, texts, and what `metanlp adapt` makes of them."""
    folder = tmp_path_factory.mktemp("work")
    algorithm = Maml(inner=Inner(steps=1))
    Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0))).save(folder / "learner")
    (folder / "examples.csv").write_text(CSV)
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    words = ["--from", folder / "learner", "--examples", folder / "examples.csv", "--out", folder / "adapted"]
    ended = metanlp_command("adapt", *words, "--base", tiny)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    assert ended.stdout.decode() == f"{folder / 'adapted'}: adapted to 4 examples of delivery, payment\n"
    return folder


@pytest.fixture(scope="module")
def expected(work: Path, tiny: Path) -> list[dict[str, object]]:
    """What the same model says from Python."""
    adapted = Adapted.load(work / "adapted", base=str(tiny))
    scores = adapted.scores(TEXTS)
    return [
        {"text": text, "label": adapted.labels[int(p.argmax())], "probability": round(float(p.max()), 4)}
        for text, p in zip(TEXTS, scores, strict=True)
    ]


def test_its_version(command: Command) -> None:
    assert command("--version") == (0, f"metanlp {metanlp.__version__}\n", "")
    assert metanlp.__version__ == version("metanlp")


def test_adapt_leaves_the_files(work: Path) -> None:
    assert {path.name for path in (work / "adapted").iterdir()} >= {ADAPTER, META, CONFIG, "adapter_config.json"}
    assert json.loads((work / "adapted" / CONFIG).read_text())["labels"] == ["delivery", "payment"]


def test_the_best_effort_says_what_it_chose(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    words = ("--from", work / "learner", "--examples", work / "examples.csv", "--base", tiny, "--effort", "best")
    code, out, said = command("adapt", *words, "--out", tmp_path / "best")
    assert (code, said) == (0, "")
    few = "best: the learner's recipe, as no class has 3 different examples, of which to leave one out"
    assert out.splitlines() == [few, f"{tmp_path / 'best'}: adapted to 4 examples of delivery, payment"]
    settings = json.loads((tmp_path / "best" / CONFIG).read_text())
    assert settings["record"]["best_effort"] == {"steps": 0, "losses": {}}


def test_texts_are_read_as_far_as_is_asked_and_by_the_adapted_model_too(
    command: Command, work: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--from", work / "learner", "--examples", work / "examples.csv", "--base", tiny, "--out", tmp_path / "a")
    code, _, said = command("adapt", *words, "--max-length", 6)
    assert code == 0
    assert "texts that were read were cut after 6 tokens" in said
    assert Adapted.load(tmp_path / "a", base=str(tiny)).net.options.max_length == 6
    for length, why in (
        (5, "texts can't be cut to 5 tokens; give a whole number from 6 up"),
        (9999, "but max_length is 9999; lower it"),
    ):
        code, _, said = command("adapt", *words, "--replace", "--max-length", length)
        assert (code, len(said.splitlines())) == (2, 1)
        assert why in said
    assert Adapted.load(tmp_path / "a", base=str(tiny)).net.options.max_length == 6


def test_predict_keeps_all_columns_but_one_that_has_the_name_of_an_answer(
    command: Command, work: Path, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("text,label_text,label,tags,note\nmy parcel,a,payment,b,c\n")
    code, out, _ = command("predict", "--from", work / "adapted", tmp_path / "more.csv", "--base", tiny)
    (row,) = map(json.loads, out.splitlines())
    assert (code, {*row}) == (0, {"text", "label_text", "tags", "note", "label", "probability"})
    assert (row["label_text"], row["tags"], row["note"]) == ("a", "b", "c")


def test_predict_from_a_file_to_standard_output(
    command: Command, work: Path, tiny: Path, expected: list[dict[str, object]]
) -> None:
    code, out, said = command("predict", "--from", work / "adapted", work / "texts.txt", "--base", tiny)
    assert (code, said) == (0, NOTICE)
    assert [json.loads(line) for line in out.splitlines()] == expected


@pytest.mark.parametrize("named", slow_but([["-"]], [[], ["-"]]))
def test_predict_from_standard_input_as_csv(
    work: Path, tiny: Path, expected: list[dict[str, object]], named: list[str]
) -> None:
    words = ["predict", "--from", work / "adapted", "--base", tiny, "--format", "csv", *named]
    ended = metanlp_command(*words, stdin=(work / "texts.txt").read_bytes() + b"\n\n")
    assert (ended.returncode, ended.stderr) == (0, NOTICE.encode())
    rows = list(csv.DictReader(io.StringIO(ended.stdout.decode())))
    assert rows == [{key: str(value) for key, value in row.items()} for row in expected]


def test_predict_into_files(
    command: Command, work: Path, tiny: Path, tmp_path: Path, expected: list[dict[str, object]]
) -> None:
    lines = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS))
    (tmp_path / "texts.jsonl").write_text(lines)
    for name in ("new/said.jsonl", "said.csv"):
        words = ["--from", work / "adapted", tmp_path / "texts.jsonl", "--out", tmp_path / name, "--base", tiny]
        assert command("predict", *words) == (0, "", NOTICE)
    said = [json.loads(line) for line in (tmp_path / "new" / "said.jsonl").read_text().splitlines()]
    assert said == [{"id": n, **row} for n, row in enumerate(expected)]
    with (tmp_path / "said.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    assert [row["id"] for row in rows] == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["texts", "texts.log", "texts.md"])
def test_predict_reads_what_has_no_known_ending_as_lines(
    command: Command, work: Path, tiny: Path, tmp_path: Path, expected: list[dict[str, object]], name: str
) -> None:
    (tmp_path / name).write_bytes((work / "texts.txt").read_bytes())
    code, out, said = command("predict", "--from", work / "adapted", tmp_path / name, "--base", tiny)
    assert (code, said) == (0, NOTICE)
    assert [json.loads(line) for line in out.splitlines()] == expected
    code, _, said = command("score", "--from", work / "adapted", tmp_path / name, "--base", tiny)
    assert (code, "is not read, as its name " in one_line(said)) == (2, True)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("jsonl", "".join(f'{{ "id": 7, "text": {json.dumps(text)}}}\n' for text in TEXTS)),
        ("csv", in_csv([["id", "Text"], *([7, text] for text in TEXTS)])),
        ("csv", in_csv([["text", "label"], *([text, ""] for text in TEXTS)], ";")),
    ],
    ids=["jsonl", "csv", "semicolons"],
)
def test_standard_input_that_looks_like_a_table_is_not_taken_for_lines(
    command: Command, work: Path, tiny: Path, expected: list[dict[str, object]], kind: str, given: str
) -> None:
    words, stdin = ["predict", "--from", work / "adapted", "--base", tiny], given.encode()
    code, _, said = command(*words, stdin=stdin)
    assert code == 2
    assert f"say --stdin {kind}, or --stdin txt for lines of text" in one_line(said)
    code, out, _ = command(*words, "--stdin", kind, stdin=stdin)
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == [row["label"] for row in expected]
    code, _, said = command(*words, "--stdin", kind, work / "texts.txt")
    assert (code, "is a file; leave one out" in one_line(said)) == (2, True)
    code, out, _ = command(*words, "--stdin", "txt", stdin=stdin)
    assert (code, len(out.splitlines())) == (0, len(given.splitlines()))


def test_other_columns_stay_as_they_are_written(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    """Also those that other forms would read, as numbers or lists, and the answer where ours has another name."""
    others = ["4.50", "['a', 'b']", "pay"]
    table = [["text", "Score", "tags", "intent"], *([text, *others] for text in TEXTS)]
    (tmp_path / "texts.csv").write_text(in_csv(table))
    words = ["predict", "--from", work / "adapted", "--base", tiny]
    code, out, _ = command(*words, tmp_path / "texts.csv", "--format", "csv", "--columns", "label=intent|label")
    assert code == 2, "what is named as the label has to be one that the model knows"
    code, out, _ = command(*words, tmp_path / "texts.csv", "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [[row["Score"], row["tags"], row["intent"]] for row in rows] == [others] * len(TEXTS)
    (tmp_path / "own.csv").write_text("text,body\nticket 17,where is my parcel\n")
    code, out, _ = command(*words, tmp_path / "own.csv", "--columns", "text=body")
    (row,) = map(json.loads, out.splitlines())
    assert (code, row["text"], row["body"]) == (0, "ticket 17", "where is my parcel")


def test_what_stands_beside_a_text_can_not_stop_the_answers(
    command: Command, work: Path, tiny: Path, tmp_path: Path
) -> None:
    """Half of an emoji that was cut, and a date."""
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "cut.jsonl").write_text('{"text": "where is it", "note": "cut \\ud83d"}\n')
    table = pyarrow.table({"text": ["where is it"], "at": [datetime(2026, 12, 1, 4, 5)]})
    pyarrow.parquet.write_table(table, tmp_path / "dated.parquet")
    for name, said in (("cut.jsonl", "cut \ud83d"), ("dated.parquet", "2026-12-01 04:05:00")):
        words = ["predict", "--from", work / "adapted", tmp_path / name, "--base", tiny, "--out"]
        for out in ("said.jsonl", "said.csv"):
            assert command(*words, tmp_path / out, "--replace")[0] == 0
        (row,) = map(json.loads, (tmp_path / "said.jsonl").read_text().splitlines())
        assert said in row.values()


def test_labels_are_composed_before_they_are_compared(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    rows = "text,label\nclavier mort,équipement\nécran noir,équipement\nbadge perdu,accès\nmot de passe,accès\n"
    (tmp_path / "apart.csv").write_text(unicodedata.normalize("NFD", rows), encoding="utf-8")
    words = ["adapt", "--from", work / "learner", "--examples", tmp_path / "apart.csv", "--base", tiny]
    assert command(*words, "--out", tmp_path / "adapted")[0] == 0
    code, out, _ = command("predict", "--from", tmp_path / "adapted", tmp_path / "apart.csv", "--base", tiny)
    assert (code, len(out.splitlines())) == (0, 4)


@pytest.mark.slow
def test_train_leaves_a_learner_of_all_tasks(command: Command, tiny: Path, tmp_path: Path) -> None:
    data = write_tasks(tmp_path / "my tasks", "classify", range(2))
    # A method without gradient steps: the search of a recipe is seconds and not minutes.
    words = ["train", "--data", data, "--model", tiny, "--method", "protonet", "--steps", 2, "--out", tmp_path / "out"]
    code, out, said = command(*words)
    assert (code, said) == (0, "")
    assert "tasks: 2 train, 5 validation, 0 test" in out
    adapting = (
        f"protonet: metanlp adapt --from {shlex.quote(str(tmp_path / 'out'))} --examples EXAMPLES.csv --out ADAPTED"
    )
    assert out.splitlines()[-1] == adapting
    learner = Learner.load(tmp_path / "out", base=str(tiny))
    assert learner.record["tasks"]["train"] == ["classify_0", "classify_1"]
    assert learner.record["steps"] == 2
    assert not (tmp_path / "out" / "results.json").exists()
    assert command(*words)[0] == 2  # what took hours is not written over
    code, out, said = command("train", "--data", data, "--steps", 0, "--out", tmp_path / "none")
    assert (code, said) == (2, "--steps is 0; give 1 or more, or leave it out: --preset then says how long\n")
    assert command(*words, "--resume")[0] == 0


def test_score_of_a_labelled_file(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    rows = [("a", "delivery"), ("b", "delivery"), ("c", "payment"), ("d", "delivery")]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *map(",".join, rows)]))
    words = ["score", tmp_path / "t.csv", "--base", tiny]
    code, out, said = command(*words, "--from", work / "adapted", "--json")
    found = json.loads(out)
    answers = Adapted.load(work / "adapted", base=str(tiny)).predict([text for text, _ in rows])
    hits = [answer == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert (code, found["rows"], found["accuracy"], found["commonest"]) == (0, 4, sum(hits) / 4, 0.75)
    assert found["classes"]["delivery"]["rows"] == 3
    assert found["classes"]["delivery"]["recall"] == sum(hits[:2] + hits[3:]) / 3
    assert "called instead" in said
    same = command(*words, "--from", work / "learner", "--examples", work / "examples.csv", "--json")
    assert json.loads(same[1]) == found
    assert command(*words)[::2] == (2, "say what is judged: --from an adapted model, or --examples that a learner "
                                       "adapts to\n")  # fmt: skip
    (tmp_path / "t.csv").write_text("text,label\na,delivery\nb,refund\n")
    code, out, said = command(*words, "--from", work / "adapted")
    assert (code, out) == (2, "")
    assert "t.csv:3: the label 'refund' was never seen by this model, which knows 'delivery', 'payment'" in said


def test_report_makes_the_page_anew(command: Command, tmp_path: Path) -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a"], (4,))
    assert command("report", written(tmp_path / "run", found)) == (0, f"{tmp_path / 'run' / 'report.html'}\n", "")
    assert "Does meta-learning help" in (tmp_path / "run" / "report.html").read_text()
    code, out, said = command("report", tmp_path)
    assert (code, out) == (2, "")
    assert "holds no results.json" in one_line(said)


def test_tasks_describes_a_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mails.csv").write_text(CSV)
    (tmp_path / "moods.jsonl").write_text('{"text": "hooray", "label": "good"}\n{"text": "alas", "label": "bad"}\n')
    code, out, said = command("tasks", tmp_path)
    assert (code, said) == (0, "")
    assert all(word in out for word in ("mails", "moods", "train 4"))
    (tmp_path / "moods.jsonl").write_text('{"text": "hooray", "label": "good"}\n')
    code, out, said = command("tasks", tmp_path)
    assert (code, out) == (2, "")
    assert "moods.jsonl:1: task 'moods' has only the class 'good'" in one_line(said)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["tasks", "x", "--hlp"], "--help"),
        (["predict", "--from", "x", "--formt", "csv"], "--format"),
        (["adapt", "--from", "x", "--examples", "y", "--out", "z", "--efort", "fast"], "--effort"),
        (["predict", "--from", "x", "--format", "xml"], "csv"),
        (["predikt"], "predict"),
        (["adapt", "--from", "x"], "--examples"),
        (["adapt", "--form", "x"], "--from"),
        ([], "adapt"),
    ],
)
def test_an_unknown_option_ends_with_2_and_names_the_nearest(command: Command, words: list[str], near: str) -> None:
    code, out, said = command(*words)
    assert (code, out) == (2, "")
    assert near in one_line(said)
    assert "│" not in said


def test_an_unknown_option_of_a_recipe(tmp_path: Path) -> None:
    ended = python(str(ROOT / "recipes" / "maml_glue.py"), "--max-minuets", "3")
    assert ended.returncode == 2
    assert "--max-minutes" in ended.stderr.decode()


def test_bad_examples_leave_nothing(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(CSV + ",payment\n")
    words = ["adapt", "--from", work / "learner", "--examples", tmp_path / "bad.csv", "--out", tmp_path / "out"]
    code, out, said = command(*words, "--base", tiny)
    assert (code, out) == (2, "")
    assert f"{tmp_path / 'bad.csv'}:6: 'text' is empty" in one_line(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


def test_labels_can_be_described(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    described, words = tmp_path / "labels.csv", ["--examples", work / "examples.csv", "--base", tiny]
    words = ["adapt", "--from", work / "learner", *words, "--out", tmp_path / "out", "--describe", described]
    described.write_text("label,description\ndelivery,parcels and post\n")
    code, out, said = command(*words)
    assert (code, out) == (2, "")
    assert "label 'payment' has no description" in one_line(said)
    assert not (tmp_path / "out").exists()
    # In the words of the examples, as descriptions that do not agree with them have no weight.
    described.write_text(
        "label,description\ndelivery,where is my parcel it never arrived\npayment,refund me I paid twice\n"
    )
    assert command(*words)[0] == 0
    told, plain = (
        Adapted.load(folder, base=str(tiny)).logits(TEXTS) for folder in (tmp_path / "out", work / "adapted")
    )
    assert not (told == plain).all()


def test_bad_texts_leave_nothing(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    words = ["predict", "--from", work / "adapted", "--out", tmp_path / "out.csv", "--base", tiny]
    cases = {b"a\n\nb\n": "input:2: the line is blank", b"": "input: has no rows", b"\xff\n": "input:1: byte 0xff"}
    for stdin, part in cases.items():
        code, out, said = command(*words, stdin=stdin)
        assert (code, out) == (2, "")
        assert part in one_line(said)
    assert not list(tmp_path.iterdir())


def test_input_errors_are_one_line_and_code_2(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    examples = ["--examples", work / "examples.csv", "--out", tmp_path / "out", "--base", tiny]
    texts = [work / "texts.txt", "--base", tiny]
    cases = [
        (["adapt", "--from", tmp_path / "nowhere", *examples], "holds no meta_config.json"),
        (["adapt", "--from", work / "adapted", *examples], "kind 'adapted'"),
        (["predict", "--from", work / "learner", *texts], "kind 'learner'"),
        (["predict", "--from", work / "adapted", *texts, "--out", tmp_path / "out.xml"], ".csv or .jsonl"),
        (["predict", "--from", work / "adapted", tmp_path / "absent.txt", "--base", tiny], "cannot be read"),
        (["tasks", tmp_path / "absent"], "no tasks called"),
    ]
    for words, part in cases:
        code, out, said = command(*words)
        assert (code, out) == (2, "")
        assert part in one_line(said)
    assert not list(tmp_path.iterdir())


def test_a_damaged_artefact_is_one_line_and_code_3(command: Command, work: Path, tiny: Path, tmp_path: Path) -> None:
    for name in (ADAPTER, META, CONFIG, "adapter_config.json"):
        (tmp_path / name).write_bytes((work / "adapted" / name).read_bytes())
    data = bytearray((tmp_path / META).read_bytes())
    data[-1] ^= 1
    for name, damage in ((META, bytes(data)), (CONFIG, b"{")):
        (tmp_path / name).write_bytes(damage)
        code, out, said = command("predict", "--from", tmp_path, work / "texts.txt", "--base", tiny)
        assert (code, out) == (3, "")
        assert name in one_line(said)


def test_what_cannot_be_written_is_one_line_and_code_4(
    command: Command, work: Path, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    words = ["predict", "--from", work / "adapted", "--base", tiny, work / "texts.txt"]
    code, out, said = command(*words, "--out", tmp_path / "file" / "out.csv")
    assert (code, out) == (4, "")
    assert "file" in one_line(said)
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_replaced_without_being_asked(command: Command, work: Path, tiny: Path) -> None:
    """And no source even then."""
    learner, adapted, texts = work / "learner", work / "adapted", work / "texts.txt"
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    adapt = ["adapt", "--from", learner, "--examples", work / "examples.csv", "--base", tiny, "--out"]
    evaluate = ["evaluate", "--from", learner, "--test", "mini/urgency", "--base", tiny, "--out"]
    export = ["export", "--from", adapted, "--to", "lora", "--base", tiny, "--out"]
    predict = ["predict", "--from", adapted, texts, "--base", tiny, "--out"]
    for words, said in (
        ([*adapt, learner, "--replace"], f"--out {learner} is {learner}, which is read"),
        ([*adapt, work, "--replace"], f"--out {work} contains {learner}, which is read"),
        ([*adapt, adapted], f"{adapted}: it holds a model; give another --out, or --replace what is there"),
        ([*adapt, work / "examples.csv", "--replace"], "which is read"),
        ([*evaluate, learner, "--replace"], "which is read"),
        ([*evaluate, adapted], "it holds a model"),
        ([*export, adapted, "--replace"], "which is read"),
        ([*export, learner], "it holds a model"),
        ([*predict, work / "examples.csv"], "is there already; give another --out, or --replace it"),
    ):
        code, out, told = command(*words)
        assert (code, out) == (2, "")
        assert said in one_line(told)
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from metanlp.cli.commands import guarded; guarded(lambda: print('some text\\n' * 1_000_000))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"some text\n"
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(60) == 141
    child.stderr.close()


# Quick to start.


def quickest(limit: float, *words: str) -> float:
    """Seconds of the quickest of up to five fresh processes; it stops at one within the limit."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        assert python(*words).returncode == 0
        best = min(best, time.perf_counter() - begun)
        if best <= limit:
            break
    return best


@pytest.mark.parametrize("words", [(), ("adapt",)])
def test_help_is_quick(words: tuple[str, ...]) -> None:
    assert quickest(1.0, "-c", "from metanlp.cli.commands import main; main()", *words, "--help") <= 1.0


@pytest.mark.parametrize("recipe", slow_but(["maml_glue.py", "student.py"], RECIPES))
def test_help_of_a_recipe_is_quick(recipe: str) -> None:
    assert quickest(1.0, str(ROOT / "recipes" / recipe), "--help") <= 1.0


def test_importing_metanlp_is_quick() -> None:
    assert quickest(0.3, "-c", "import metanlp") <= 0.3


def test_the_public_names_are_what_they_say() -> None:
    """Also after the rooms were imported, as no room has the name of one of them."""
    for room in pkgutil.iter_modules(metanlp.__path__):
        importlib.import_module(f"metanlp.{room.name}")
    assert {name: getattr(metanlp, name).__name__ for name in metanlp.__all__} == {n: n for n in metanlp.__all__}
    assert dir(metanlp) == sorted(metanlp.__all__)
    assert not isinstance(metanlp.meta_train, ModuleType)
    with pytest.raises(AttributeError, match="metatrain"):
        _ = metanlp.metatrain
