"""Pairs of languages from files: rows, or lines of two files; what people get wrong is said by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from languages import write_languages, write_pair

from metanlp.core.errors import InputError
from metanlp.tasks.sources.language_pairs import Sentence, language_pair, language_pairs, unseen

ROW = {"source": "a  dog", "target": "ein Hund", "source_lang": "en", "target_lang": "de"}


def test_rows_and_lines_say_the_same(tmp_path: Path) -> None:
    rows = language_pair(write_pair(tmp_path / "x", [ROW, ROW | {"source": "a cat"}], [ROW | {"source": "b"}]))
    folder = tmp_path / "news_en_de"
    folder.mkdir()
    for name, lines in {"train.en": "a dog\na cat", "train.de": "ein Hund\nein Hund", "test.en": "b",
                        "test.de": "ein Hund"}.items():  # fmt: skip
        (folder / name).write_text(f"{lines}\n")
    (folder / "README.md").write_text("not read")
    lines = language_pair(folder)
    assert (rows.taught, rows.judged) == (lines.taught, lines.judged)
    assert rows.taught == (Sentence("a dog", "ein Hund"), Sentence("a cat", "ein Hund"))
    assert (lines.source_lang, lines.target_lang) == ("en", "de")
    (folder.parent / "news_de-en").mkdir()
    for path in folder.iterdir():
        (folder.parent / "news_de-en" / path.name).write_bytes(path.read_bytes())
    assert language_pair(folder.parent / "news_de-en").source_lang == "de"


def test_validation_teaches_and_the_folder_is_a_set(tmp_path: Path) -> None:
    found = language_pairs(str(write_languages(tmp_path, 3)))
    assert [*found] == ["en_l0", "en_l1", "en_l2"]
    (tmp_path / "en_l1" / "validation.jsonl").write_text(json.dumps(ROW | {"target_lang": "l1"}) + "\n")
    assert len(language_pair(tmp_path / "en_l1").taught) == len(found["en_l1"].taught) + 1


def test_sentences_that_taught_do_not_judge(tmp_path: Path) -> None:
    one, other = language_pairs(str(write_languages(tmp_path, 2))).values()
    assert unseen(one.judged, [one, other]) == one.judged
    again = (
        Sentence(f" {one.taught[3].source.upper()}", "x"),
        Sentence("x", other.taught[0].target),
        Sentence("x", "y"),
    )
    assert unseen(again, [one, other]) == again[2:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target_lang": None}, r"train\.jsonl:1: has no language tag 'target_lang'; write the language of each side"),
        ({"source_lang": " "}, r"train\.jsonl:1: has no language tag 'source_lang'"),
        ({"target": None}, r"train\.jsonl:1: has a source without a target; add it, or remove the row"),
        ({"target": ""}, r"train\.jsonl:1: has a source without a target"),
        ({"source": "\t"}, r"train\.jsonl:1: has a target without a source"),
        ({"target": 3}, r"train\.jsonl:1: has a source without a target"),
        (
            {"target_lang": "fr"},
            r"test\.jsonl:1: is en to de where the rows before are en to fr; give each pair a folder",
        ),
    ],
)
def test_rows_that_are_no_translations(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    row = {key: value for key, value in (ROW | change).items() if value is not None}
    with pytest.raises(InputError, match=said):
        language_pair(write_pair(tmp_path / "en_de", [row], [ROW]))


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("en_de", {"train.en": "a\nb\n", "train.de": "x\n"}, r"en_de: has lines train.en 2 and train.de 1; a sentence"),
        (
            "en_de",
            {"train.en": "a\n\n", "train.de": "x\ny\n"},
            r"train\.en:2: the line is blank; translate it, or remove",
        ),
        ("en_de", {"train.en": "a\nb\n", "train.de": "\ny\n"}, r"train\.de:1: the line is blank"),
        (
            "news",
            {"train.en": "a\n", "train.de": "x\n"},
            r"news: holds train\.de, train\.en, but its name has no language",
        ),
        ("en_de", {"train.en": "a\n"}, r"en_de: holds train\.en, but its name has no language tags of two of them"),
        (
            "en_de",
            {"train.en": "a\n", "train.de": "x\n"},
            r"en_de: has no sentence in test; a pair needs train and test",
        ),
        ("en_de", {"train.en": "", "train.de": ""}, r"en_de: has no sentence in train"),
        ("en_de", {"notes.md": "a"}, r"en_de: has no sentence in train"),
    ],
)
def test_lines_that_are_no_translations(tmp_path: Path, name: str, files: dict[str, str], said: str) -> None:
    (tmp_path / name).mkdir()
    for file, content in files.items():
        (tmp_path / name / file).write_text(content)
    with pytest.raises(InputError, match=said):
        language_pair(tmp_path / name)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder; give one in which each folder is a pair of languages"):
        language_pairs(str(tmp_path / "none"))
    with pytest.raises(InputError, match="holds no folder; give each pair of languages one"):
        language_pairs(str(tmp_path))
