"""One file as many tasks, by the values of a column."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from metanlp.core.errors import InputError
from metanlp.tasks.roles import read_roles
from metanlp.tasks.sources.by_column import LEAST
from metanlp.tasks.taskset import places, read

COUNTS = {"north": (6, 7, 2), "south": (9, 8, 0), "east, far/out": (6, 6, 6), "west": (20, 5, 0), "": (6, 6, 0)}


@pytest.fixture
def titles(tmp_path: Path) -> Path:
    """Titles of three categories by shop."""
    path = tmp_path / "titles.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["title", "category", "shop"])
        for shop, counts in COUNTS.items():
            for label, count in enumerate(counts):
                writer.writerows(
                    [f"{shop} thing {label} {n}", ("tea", "cup", "pot")[label], shop] for n in range(count)
                )
    return path


COLUMNS = {"text": "title", "label": "category"}


def test_a_value_with_two_classes_is_a_task(titles: Path) -> None:
    found = read(f"by:shop:{titles}", data_root=None, columns=COLUMNS)
    assert [(task.name, task.labels, len(task.pools["train"])) for task in found] == [
        ("titles/east far out", ("cup", "pot", "tea"), 18),
        ("titles/north", ("cup", "tea"), 13),
        ("titles/south", ("cup", "tea"), 17),
    ]
    assert (
        found[0].notes[0] == f"3 of 4 values of 'shop' have 2 classes of {LEAST} rows, and are tasks; 12 rows have none"
    )
    assert places(f"by:shop:{titles},mini") == [str(titles), "mini"]


def test_a_file_below_the_data_folder_keeps_its_name(titles: Path) -> None:
    roles = read_roles("by:shop:titles.csv", "mini", "mini/urgency", titles.parent, COLUMNS)
    assert [task.name for task in roles.train] == ["titles/east far out", "titles/north", "titles/south"]


def test_values_that_would_be_one_name_are_refused(tmp_path: Path) -> None:
    """Names of tasks have no slash; spaces and 1.0 beside 1 are no difference."""
    rows = [f"title {n}, {'ab'[n % 2]}, {'R&D/IT' if n < 14 else 'R&D IT'}" for n in range(28)]
    (tmp_path / "shops.csv").write_text("title,category,shop\n" + "\n".join(rows).replace(", ", ",") + "\n")
    with pytest.raises(InputError, match=r"csv:16: the value is 'R&D IT', and 'R&D/IT' at .*csv:2; names"):
        read("by:shop:shops.csv", data_root=tmp_path, columns=COLUMNS)
    (tmp_path / "shops.csv").write_text((tmp_path / "shops.csv").read_text().replace("R&D/IT", "R&D  IT"))
    assert [task.name for task in read("by:shop:shops.csv", data_root=tmp_path, columns=COLUMNS)] == ["shops/R&D IT"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("by:shop", "'by:shop' is not of the form by:COLUMN:FILE; for example by:shop:products.csv"),
        (
            "by:shops:titles.csv",
            "titles.csv:2: no column 'shops'; found 'title', 'category', 'shop'; did you mean 'shop'",
        ),
        ("by:title:titles.csv", "no value of 'title' has 6 rows of 2 classes each"),
        ("by:shop:absent.csv", "absent.csv: cannot be read"),
    ],
)
def test_what_is_no_set_of_tasks_is_refused(titles: Path, name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(name, data_root=titles.parent, columns=COLUMNS)
    assert said in str(caught.value)
