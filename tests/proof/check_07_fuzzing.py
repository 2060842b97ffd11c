"""Made-up files, settings and words, by hypothesis: whatever comes, an error of ours or an answer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from case import Cases
from form_tasks import FORMS, rows_of
from hostile import MANIFEST, resigned
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some
from tiny_learner import shared

from metanlp.backbone.options import Options
from metanlp.cli.commands import COMMANDS
from metanlp.core.errors import DamagedError, InputError
from metanlp.core.settings import from_json, parse, to_json
from metanlp.experiment.options import Experiment
from metanlp.learner.artefact import CONFIG
from metanlp.learner.learner import Learner
from metanlp.tasks.reading.files import read_tasks
from metanlp.training import checkpoint
from metanlp.training.plan import Plan

Try = Callable[[Any], object]
OURS = (InputError, DamagedError)

SCALARS = (
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20)
    | some.sampled_from(["", "../x", "a" * 300, "\u202eabc", "\x00", "1e999", "nan", "👍", "=1+1"])
)  # fmt: skip
VALUES = some.recursive(
    SCALARS,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
COLUMNS = some.sampled_from(["text", "label", "text_a", "text_b", "score", "labels", "question", "choices", "answer",
                             "context", "tokens", "tags", "label_text", "", "id"])  # fmt: skip
ROWS = some.lists(some.dictionaries(COLUMNS, VALUES, max_size=5), max_size=6)
ENDINGS = some.sampled_from([".jsonl", ".csv", ".json", ".parquet", ".tsv", ".txt", ""])
WORDS = some.lists(
    some.sampled_from(["tasks", "tasks build", "train", "compare", "adapt", "predict", "score", "rank", "publish",
                       "export", "serve", "info", "--out", "--data", "--steps", "--json", "--from", "--shots", "-1",
                       "nan", "", "--", "-", "=", "--lr", "1e400", "\u202e", "--no", "mini"])
    | some.text(max_size=6), min_size=1, max_size=6,
)  # fmt: skip


def cases(count: int, folder: Path) -> Cases:
    """Of 10,000: files 4,500, settings 2,000, command lines 500, learners 1,500, checkpoints 1,500."""
    good = [("".join(json.dumps(row) + "\n" for row in rows_of(form, 6, 0))).encode() for form in FORMS]
    csv = b'text,label\n"a, b",x\n"c ""d""",y\ne,x\n'
    files = some.tuples(ENDINGS, mutated([*good, csv]) | ROWS.map(as_lines) | some.binary(max_size=60))
    learner, step = made(folder)
    config = json.loads((learner / CONFIG).read_text())
    parts = [(files, read_file(folder)), (trees([to_json(each) for each in SETTINGS]), read_settings),
             (WORDS, read_words), (trees([config]), read_learner(folder, learner)),
             (some.tuples(some.sampled_from(sorted(os.listdir(step))), some.binary(max_size=9), some.floats(0, 1)),
              read_checkpoint(step))]  # fmt: skip
    shares = (0.45, 0.2, 0.05, 0.15, 0.15)
    for (strategy, attempt), share in zip(parts, shares, strict=True):
        yield from told(strategy, attempt, round(count * share))


SETTINGS = (Options(), Plan(steps=1), Experiment(out=Path("out")))


def told(strategy: some.SearchStrategy[Any], attempt: Try, count: int) -> list[str]:
    """What came of so many draws, shrunk by nobody: each is one case."""
    found = list[str]()

    @settings(max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def draw(case: Any) -> None:
        try:
            attempt(case)
        except OURS as error:
            found.append(f"two lines: {error!r}" if "\n" in str(error) else "")
        except SystemExit as ended:
            found.append(f"exit code {ended.code}: {case!r}" if ended.code else "")
        except Exception as error:
            found.append(f"{type(error).__name__} {str(error)[:200]!r} of {str(case)[:300]!r}")
        else:
            found.append("")

    draw()
    return found


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def mutated(good: list[bytes]) -> some.SearchStrategy[bytes]:
    """A good file in which a few bytes are others, more or fewer."""

    def change(given: tuple[bytes, list[tuple[float, int, bytes]]]) -> bytes:
        data, edits = given
        for at, gone, put in edits:
            place = int(at * len(data))
            data = data[:place] + put + data[place + gone :]
        return data

    signs = some.sampled_from([b'"', b"\n", b"\r", b",", b"\x00", b"\xff", b"{", b"]", b"\xef\xbb\xbf", b"NaN"])
    edit = some.tuples(some.floats(0, 1), some.integers(0, 9), signs | some.binary(max_size=4))
    return some.tuples(some.sampled_from(good), some.lists(edit, min_size=1, max_size=3)).map(change)


def trees(good: list[dict[str, Any]]) -> some.SearchStrategy[tuple[int, dict[str, Any]]]:
    """Good JSON in which one value, at any depth, is another, or gone; with its number."""

    def change(given: tuple[int, int, Any, bool]) -> tuple[int, dict[str, Any]]:
        number, at, value, gone = given
        tree = json.loads(json.dumps(good[number]))
        places = [*nodes(tree)]
        inside, key = places[at % len(places)]
        if gone:
            del inside[key]
        else:
            inside[key] = value
        return number, tree

    number, at = some.integers(0, len(good) - 1), some.integers(0, 500)
    return some.tuples(number, at, VALUES, some.booleans()).map(change)


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in it: what it is in, and its key."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in ((tree, key), *nodes(value))]


def made(folder: Path) -> tuple[Path, Path]:
    tiny = shared()
    tiny.trained(folder / "run").save(folder / "learner")
    newest = checkpoint.newest(folder / "run" / "checkpoints")
    assert newest
    return folder / "learner", newest


def read_file(folder: Path) -> Try:
    place = folder / "files"
    place.mkdir()

    def read(case: tuple[str, bytes]) -> None:
        path = place / f"t{case[0]}"
        path.write_bytes(case[1])
        try:
            read_tasks(path)
        finally:
            path.unlink()

    return read


def read_settings(case: tuple[int, dict[str, Any]]) -> None:
    number, data = case
    from_json(type(SETTINGS[number]), data)


def read_words(words: list[str]) -> None:
    parse(COMMANDS, words, prog="metanlp")


def read_learner(folder: Path, learner: Path) -> Try:
    """Checksums fit, so that what is inside is looked at."""
    place, net = folder / "read", shared().net
    shutil.copytree(learner, place)

    def read(case: tuple[int, dict[str, Any]]) -> None:
        (place / CONFIG).write_text(json.dumps(case[1]))
        try:
            resigned(place)
        except Exception:  # nobody can sign this one
            (place / CONFIG).write_text(json.dumps(case[1]))
        Learner.load(place, net=net)

    return read


def read_checkpoint(step: Path) -> Try:
    manifest = (step / MANIFEST).read_bytes()

    def read(case: tuple[str, bytes, float]) -> None:
        path = step / case[0]
        before = path.read_bytes()
        at = int(case[2] * len(before))
        path.write_bytes(before[:at] + case[1] + before[at + len(case[1]) :])
        signed_where_possible(step, len(case[1]) % 2)
        try:
            checkpoint.load(step)
        finally:
            path.write_bytes(before)
            (step / MANIFEST).write_bytes(manifest)

    return read


def signed_where_possible(step: Path, sign: int) -> None:
    with suppress(Exception):  # the manifest may be no JSON, or no manifest
        if sign:
            resigned(step)
