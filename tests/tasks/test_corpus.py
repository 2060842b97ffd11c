"""Documents of files, folders and sizes that people have."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.tasks.sources.corpus import documents, held_out


def texts(*sources: object, column: str = "text") -> list[str]:
    return [text.strip() for _, text in documents([*map(str, sources)], column)]


def test_a_document_is_a_line_a_paragraph_or_a_row(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "paragraphs.txt").write_text("a first\nline\n\n\nand a\nsecond\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "jay", "id": 1}\n{"text": " "}\n')
    (tmp_path / "cells.csv").write_text('text,id\n"see, es",1\n')
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "more.txt").write_text("deep")
    (tmp_path / "picture.png").write_bytes(b"\0")
    assert texts(tmp_path / "lines.txt") == ["one", "two", "three"]
    assert texts(tmp_path / "paragraphs.txt") == ["a first line", "and a second"]
    assert texts(tmp_path) == ["see, es", "deep", "one", "two", "three", "a first line", "and a second", "jay"]
    places = [where for where, _ in documents([str(tmp_path / "paragraphs.txt")])]
    assert [place.rpartition(":")[2] for place in places] == ["1", "5"]


def test_blank_lines_at_either_end_part_no_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"\n\xef\xbb\xbfone\r\ntwo\r\n \r\n\r\n")
    assert texts(tmp_path / "lines.txt") == ["one", "two"]


def test_another_column(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "here"}\n')
    assert texts(tmp_path / "rows.jsonl", column="body") == ["here"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "holds no text"),
        ("blank.txt", b" \n\n", "holds no text"),
        ("binary.txt", b"GIF89a\xff\x00\n", "byte 0xff at place 7 is not UTF-8"),
        ("nul.txt", b"a\0b\n", "holds a NUL character"),
        ("long.txt", b"x" * 1_000_001, "the line is longer than 1,000,000 bytes"),
        ("rows.jsonl", b'{"body": "a"}\n', "has no column 'text' but body; name it with --column"),
        ("number.jsonl", b'{"text": 3}\n', "'text' is an integer; a document is a text"),
        ("book.docx", b"PK", "is no text; give a file that ends in"),
    ],
)
def test_what_is_no_corpus(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        texts(tmp_path / name)
    assert said in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere.txt", "no/where", "a b"])
def test_what_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=name):
        texts(name)


def test_a_large_corpus_is_never_in_memory(tmp_path: Path) -> None:
    line = json.dumps({"text": "word " * 100}) + "\n"
    with (tmp_path / "large.jsonl").open("w") as file:
        for _ in range(10_000):
            file.write(line)
    assert (tmp_path / "large.jsonl").stat().st_size > 5_000_000
    tracemalloc.start()
    count = sum(1 for _ in documents([str(tmp_path / "large.jsonl")]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 500_000


def test_what_is_held_out_depends_on_the_text_alone() -> None:
    many = [f"document {number}" for number in range(4000)]
    kept = {text for text in many if held_out(text, 0.1)}
    assert 320 < len(kept) < 480
    assert kept == {text for text in reversed(many) if held_out(f" {text}\n", 0.1)}
    assert kept <= {text for text in many if held_out(text, 0.2)}
