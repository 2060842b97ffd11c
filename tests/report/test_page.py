"""The page: its answer, its plots, and how it looks in a browser."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pandas as pd
import pytest
from runs import TEXT, looked_at, scored, written

from metanlp.algorithms import ALGORITHMS
from metanlp.core.errors import DamagedError, InputError
from metanlp.evaluation.answers import answers, choices
from metanlp.evaluation.results import Report
from metanlp.report import advice, canvas, findings, plots
from metanlp.report.page import write_page

drawn = pytest.mark.skipif(not canvas.can_plot(), reason="the extra `report` is not installed")


# What it says.


def test_the_plots_are_about_the_main_method_and_the_strongest_that_does_not_meta_learn() -> None:
    """Not another that meta-learns, be it better."""
    found = scored({"frozen": 0.5, "multitask": 0.6, "protonet": 0.8, "maml": 0.7}, ["a"], (4,))
    sides = findings.compared_in(found)
    assert (sides.ours, sides.theirs) == ("maml", "multitask")
    rows = findings.differences(found, sides)
    assert [row["less"] for row in rows] == ["frozen", "multitask", "protonet"]
    assert rows[1]["points"] == pytest.approx(10, abs=2)


def test_a_class_may_be_called_as_the_column_of_true_classes_is(tmp_path: Path) -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a"], (4,))
    hardest = {"task": "a", "shots": 4, "score": 0.5, "labels": ["true class", "b"], "confusion": [[3, 1], [2, 2]]}
    rows = findings.confusion(replace(found, hardest=hardest))
    assert [[*row.values()] for row in rows] == [["true class", 3, 1], ["b", 2, 2]]
    assert write_page(written(tmp_path, replace(found, hardest=hardest))).is_file()


def test_the_page_says_what_became_of_rows_that_stand_in_a_support_set(tmp_path: Path) -> None:
    found = scored({"frozen": 0.5, "maml": 0.6}, ["a"], (4,))
    assert "3 query rows stand in a published support set; scored as published" in written_page(tmp_path / "as", found)
    dropped = replace(found, protocol=found.protocol | {"drop_repeats": True})
    assert "3 query rows stand in a published support set; left out" in written_page(tmp_path / "without", dropped)


def written_page(folder: Path, found: Report) -> str:
    folder.mkdir()
    return write_page(written(folder, found)).read_text()


def test_one_method_alone_has_no_differences_by_nearness() -> None:
    found = replace(scored({"maml": 0.6}, ["a"], (4,)), nearest={"a": [{"task": "b", "cosine": 0.5}]})
    assert findings.nearest(found, [{"task": "a"}]) == []


def test_the_page_says_what_the_terminal_says(tmp_path: Path) -> None:
    found = scored({"frozen": 0.5, "multitask": 0.7, "maml": 0.6}, ["a", "b"], (4, 8))
    page = html.unescape(re.sub(r"<[^>]+>", "", write_page(written(tmp_path, found)).read_text()))
    local = json.loads((tmp_path / "local.json").read_text())
    for answer in answers(found):
        assert f"{answer.question} {answer.word}.\n{advice.figure(answer)}" in page
        assert all(then in page for then in advice.next_step(answer, local))
    assert [answer.word for answer in answers(found)] == ["No", "Yes"]
    for choice in choices(found):
        assert f"{choice.shots} shots: {advice.taken(choice)}" in page
    assert advice.commands(found, local) == {
        "multitask": "metanlp adapt --from out/demo/multitask --examples EXAMPLES.csv --out ADAPTED"
    }
    assert "multitask: metanlp adapt --from out/demo/multitask" in page
    assert advice.reach(found) in page
    assert all(f"Why: {reason}" in page for reason in advice.why(found))


def test_one_method_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    found = scored({"maml": 0.7}, ["a"], (4,))
    assert {answer.word for answer in answers(found)} == {"Not compared"}
    assert "this test holds no frozen and no finetune" in write_page(written(tmp_path, found)).read_text()


def test_a_task_s_row_holds_what_results_json_says() -> None:
    found = scored({"frozen": 0.5, "maml": 0.7}, ["a", "b"], (4, 8))
    rows = findings.by_task(found, findings.compared_in(found))
    for row in rows:
        cells = [found.scores["maml"][row["task"]][k]["accuracy"]["mean"] for k in ("4", "8")]
        assert row["maml"] == pytest.approx(100 * np.mean(cells), abs=0.01)
        assert row["low"] < row["points"] < row["high"]
        assert row["points"] == pytest.approx(row["maml"] - row["frozen"], abs=0.02)
    assert [row["points"] for row in rows] == sorted((row["points"] for row in rows), reverse=True)


def test_a_training_curve_has_each_validation_once() -> None:
    line = {"tokens": 1000, "best_step": 0, "since_best": 0, "validation": None}
    told = [(0.5, 2, 0), (0.5, 2, 0), (0.5, 2, 1), (0.6, 4, 0)]
    lines = [line | {"step": 1, "loss": 2.0}, line | {"step": 2, "loss": None}]
    lines += [line | {"step": n, "loss": 1.0, "validation": v, "best_step": best, "since_best": since}
              for n, (v, best, since) in enumerate(told, 3)]  # fmt: skip
    rows = findings.training({"maml": lines})
    assert [(row["step"], row["percent"]) for row in rows if row["percent"]] == [(3, 50), (5, 50), (6, 60)]
    assert [row["loss"] for row in rows if row["loss"]] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "tokens", "said"),
    [(31.4, 70_000, "31 s, 0.07 M tokens"), (750.0, 15_000_000, "12 min, 15 M tokens"),
     (9000.0, 1_234_000_000, "2 h, 1,234 M tokens"), (3.0, 0, None)],
)  # fmt: skip
def test_what_a_training_took_is_told_as_people_tell_it(seconds: float, tokens: int, said: str | None) -> None:
    assert findings.took({"train_s": seconds, "tokens": tokens}) == said


@drawn
def test_a_wide_table_shows_that_it_goes_on(pages: dict[str, Path], browser: Any) -> None:
    """A shade at the side, which the end of the table covers, and which is gone where all of it is in sight."""
    opened(browser, pages["usual"], 360, "light")
    wide, shade = browser.execute_script(
        'const box = document.querySelector("section.whole .scroll");'
        "return [box.scrollWidth > box.clientWidth, getComputedStyle(box).backgroundAttachment];"
    )
    assert wide
    assert shade == "local, local, scroll, scroll"


# The drawings.


@pytest.mark.parametrize("places", [[], [0.5], [0, 0, 0], [1, 0.9, 0.1], [0.3, 0.31, 0.9, 0.32, 0.05]])
def test_labels_stand_apart_and_move_no_more_than_they_must(places: list[float]) -> None:
    found = canvas.apart(places, 0.2)
    order = np.argsort(places, kind="stable")
    assert (np.diff(found[order]) >= 0.2 - 1e-9).all()
    assert not places or found.mean() == pytest.approx(np.mean(places))
    if (np.diff(np.sort(places)) >= 0.2).all():
        assert found.tolist() == pytest.approx(places)


def test_long_names_keep_both_ends() -> None:
    assert canvas.shortened("leopard/sentiment_reviews_12", 12) == "leopar…ws_12"
    assert canvas.shortened("mini/urgency", 12) == "mini/urgency"


SHAPES = {
    "least": (["frozen", "maml"], 1, (4,), 2),
    "usual": (["frozen", "finetune", "multitask", "protonet", "maml"], 3, (4, 8, 16), 5),
    "most": ([*(name for name in ALGORITHMS if name != "multitask"), "multitask"], 40, (4, 8, 16), 17),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of few and of many methods and tasks, each with its page."""
    found: dict[str, Path] = {}
    for shape, (names, tasks, shots, classes) in SHAPES.items():
        levels = {name: 0.5 + 0.1 * number / len(names) for number, name in enumerate(names)}
        report = scored(levels, [f"some_source/a_task_with_a_name_{n}" for n in range(tasks)], shots)
        found[shape] = write_page(written(tmp_path_factory.mktemp(shape), looked_at(report, classes)))
    return found


@drawn
@pytest.mark.parametrize("draw", ["by_shots", "by_step", "by_task"])
def test_no_marker_lies_on_another_where_all_methods_are_equal(draw: str) -> None:
    names = ["frozen", "finetune", "multitask", "protonet", "maml"]
    level, column = {"percent": 60.0, "low": 55.0, "high": 65.0}, {"by_shots": "shots", "by_step": "steps"}.get(draw)
    rows = [{"method": name, column: at} | level for name in names for at in (2, 4, 8)]
    if not column:
        rows = [{"task": task, "points": 0.0, "low": -1.0, "high": 1.0} | dict.fromkeys(names, 60.0) for task in "ab"]
    look = canvas.PlotStyle(tuple(names), findings.Compared("maml", "multitask"), "accuracy")
    figure = getattr(plots, draw)(pd.DataFrame(rows), look)
    figure.canvas.draw()
    axes = figure.axes[0]
    lines = [line for line in axes.lines if line.get_marker() not in ("", "None", "|")]
    marks = [axes.transData.transform(line.get_xydata()) for line in lines]
    places = np.concatenate([each for each in marks if len(each)])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(len(places))
    assert len(places) == len(names) * (3 if column else 2)
    assert gaps.min() > 2  # of a hundredth of an inch


@drawn
def test_chance_is_drawn_where_it_is_in_sight_and_always_told() -> None:
    rows = pd.DataFrame([{"method": name, "shots": k, "percent": 60.0 + k, "low": 50.0, "high": 70.0}
                         for name in ("frozen", "maml") for k in (2, 4)])  # fmt: skip
    for chance, lines in ((20.0, 0), (55.0, 1), (None, 0)):
        look = canvas.PlotStyle(("frozen", "maml"), findings.Compared("maml", "frozen"), "accuracy", chance)
        axes = plots.by_shots(rows, look).axes[0]
        assert sum(set(line.get_ydata()) == {chance} for line in axes.lines) == lines
        assert ("; chance is" in axes.get_xlabel()) == (chance is not None)


@drawn
def test_chance_of_a_task_is_a_line_in_sight_or_a_number_at_the_edge() -> None:
    rows = pd.DataFrame([{"task": name, "chance": chance, "frozen": 60.0, "maml": 70.0, "points": 10.0, "low": 5.0,
                          "high": 15.0} for name, chance in (("a", 65.0), ("b", 1.3), ("c", 90.0))])  # fmt: skip
    look = canvas.PlotStyle(("frozen", "maml"), findings.Compared("maml", "frozen"), "accuracy", 52.1)
    axes = plots.by_task(rows, look).axes[0]
    (bars,) = [line for line in axes.lines if line.get_marker() == "|"]
    assert np.isfinite(bars.get_xdata()).tolist() == [True, False, False]
    low, high = axes.get_xlim()
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("‹ 1", (low, 1)), ("90 ›", (high, 2))]


@drawn
def test_chance_is_in_every_plot_of_a_share_that_is_right() -> None:
    """Of test tasks over shots and certainty, of validation tasks over steps and training."""
    sides, ends = findings.Compared("maml", "frozen"), {"low": 30.0, "high": 70.0}
    look = canvas.PlotStyle(("frozen", "maml"), sides, "accuracy", 45.0, validating=35.0)
    rows = [{"method": name, at: n, "percent": 30.0 + 4 * n, **ends} for name in look.names for n in (1, 2)
            for at in ("shots", "steps", "number", "M_tokens")]  # fmt: skip
    frame = pd.DataFrame(rows).assign(loss=None)
    frame["stage"] = frame["number"].map({1: "first", 2: "second"})
    sure = pd.DataFrame([{"method": "maml", "bin": "50-60 %", "answers": 9, "sure": 55.0, "right": 60.0}])
    drawn_from = {"by_shots": "shots", "by_step": "steps", "by_stage": "number", "training": "M_tokens"}
    for draw, at in drawn_from.items():
        axes = getattr(plots, draw)(frame[frame[at].notna()], look).axes[-1]
        chance = look.validating if draw in ("by_step", "training") else look.chance
        assert f"chance is {chance:g} %" in axes.get_xlabel(), draw
        assert any({*line.get_ydata()} == {chance} for line in axes.lines), draw
    axes = plots.calibration(sure, look).axes[0]
    assert "chance is 45 %" in axes.get_title(loc="left")
    assert any({*line.get_ydata()} == {45.0} for line in axes.lines)


@drawn
@pytest.mark.parametrize(("answers", "shown"), [((90, 3), [55.0]), ((4, 4), [55.0, 95.0])])
def test_a_share_of_a_handful_of_answers_is_no_point(answers: tuple[int, int], shown: list[float]) -> None:
    look = canvas.PlotStyle(("maml",), findings.Compared("maml", "frozen"), "accuracy")
    rows = [{"method": "maml", "bin": f"{at - 5}-{at + 5} %", "answers": count, "sure": float(at), "right": 0.0}
            for at, count in zip((55, 95), answers, strict=True)]  # fmt: skip
    line = next(line for line in plots.calibration(pd.DataFrame(rows), look).axes[0].lines if line.get_marker() == "o")
    assert list(line.get_xdata()) == shown


@drawn
@pytest.mark.parametrize("shape", SHAPES)
def test_every_plot_stands_in_the_page_and_in_three_files(pages: dict[str, Path], shape: str) -> None:
    page, plots = pages[shape].read_text(), pages[shape].parent / "plots"
    names = sorted(path.stem for path in plots.glob("*.csv"))
    assert len(names) == page.count("<svg ") == 9
    assert sorted(path.name for path in plots.iterdir()) == sorted(
        f"{n}.{k}" for n in names for k in ("csv", "png", "svg")
    )
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))
    assert {ref for ref in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page) for ref in ref if ref} <= set(
        identities
    )
    for path in plots.glob("*.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.stat().st_size < 320_000
    with (plots / "score_by_shots.csv").open() as file:
        rows = list(csv.DictReader(file))
    methods, _, shots, _ = SHAPES[shape]
    assert [(row["method"], int(row["shots"])) for row in rows] == [(m, k) for m in methods for k in shots]


def test_texts_are_in_the_page_and_in_local_json_alone(pages: dict[str, Path]) -> None:
    folder = pages["usual"].parent
    holding = {path.name for path in folder.rglob("*") if path.is_file() and TEXT.encode() in path.read_bytes()}
    assert holding == {"report.html", "local.json"}
    page = pages["usual"].read_text()
    assert "These are texts of your data" in page
    assert "and &lt;b&gt;its&lt;/b&gt; second part" in page
    assert "python recipes/demo.py --steps 50" in page


def test_the_same_files_make_the_same_page(pages: dict[str, Path]) -> None:
    before = pages["usual"].read_text()
    (pages["usual"].parent / "plots" / "of_another_run.png").write_bytes(b"")
    assert write_page(pages["usual"].parent).read_text() == before
    assert not (pages["usual"].parent / "plots" / "of_another_run.png").exists()


def test_without_matplotlib_there_are_tables(
    pages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "can_plot", lambda: False)
    shutil.copytree(pages["usual"].parent, tmp_path / "run")
    page = write_page(tmp_path / "run").read_text()
    assert "<svg " not in page
    assert page.count("pip install &#39;metanlp[report]&#39;") == 1
    assert page.count("<details open>") == 9
    assert {path.suffix for path in (tmp_path / "run" / "plots").iterdir()} == {".csv"}


def test_little_is_enough(tmp_path: Path) -> None:
    """Scores alone, as an older run or a test without training leaves them."""
    found = scored({"frozen": 0.5, "learner": 0.6}, ["a"], (4,), episodes=1)
    bare = replace(found, curves={}, counts={}).to_json()
    kept = ("protocol", "versions", "methods", "scores", "means", "paired")
    (tmp_path / "results.json").write_text(json.dumps({key: bare[key] for key in kept}))
    page = write_page(tmp_path).read_text()
    assert "Too little data." in page
    assert "test again, as these results are of a version that counted no rows" in page
    assert "local.json" not in page


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results\.json"):
        write_page(tmp_path)
    for content in ("{", "[]", "{}", '{"protocol": {}}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(DamagedError, match=r"is damaged|make no report"):
            write_page(tmp_path)


# The browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from chromium.running(tmp_path_factory.mktemp("chromium"))


LOOK = """
const shown = box => box.width > 0 && box.height > 0;
const light = css => {const c = css.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]};
const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
const wrong = [];
for (const svg of document.querySelectorAll("figure svg")) {
    const name = svg.closest("section").id, frame = svg.getBoundingClientRect();
    const card = light(getComputedStyle(svg.closest("section")).backgroundColor);
    if (!shown(frame) || frame.left < 0 || frame.right > innerWidth) wrong.push(name + " is not in sight");
    const texts = [...svg.querySelectorAll("text")], boxes = texts.map(text => text.getBoundingClientRect());
    const marks = [...svg.querySelectorAll("use, path")].map(each => each.getBoundingClientRect())
        .filter(box => box.width > 0 || box.height > 0);
    if (texts.length < 3 || marks.length < 5) wrong.push(name + " is empty");
    texts.forEach((text, n) => {
        const box = boxes[n], said = name + ": " + text.textContent;
        if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
            || box.bottom > frame.bottom + 1) wrong.push(said + " is cut");
        if (contrast(light(getComputedStyle(text).fill), card) < 4.5) wrong.push(said + " is faint");
        if (innerWidth < 500 && text.getBoundingClientRect().height < 7) wrong.push(said + " is tiny");
        if (/rotate\\(-(40|90)/.test(text.getAttribute("transform"))) return;
        for (let m = 0; m < n; m++) {
            if (/rotate\\(-(40|90)/.test(texts[m].getAttribute("transform"))) continue;
            const x = Math.min(box.right, boxes[m].right) - Math.max(box.left, boxes[m].left);
            const y = Math.min(box.bottom, boxes[m].bottom) - Math.max(box.top, boxes[m].top);
            if (x > 1 && y > 0.35 * box.height) wrong.push(said + " lies on " + texts[m].textContent);
        }
    });
}
return {wrong, plots: document.querySelectorAll("figure svg").length,
    wide: document.documentElement.scrollWidth - innerWidth,
    asked: performance.getEntriesByType("resource").map(each => each.name),
    paper: getComputedStyle(document.body).backgroundColor};
"""


@drawn
@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_in_a_browser(pages: dict[str, Path], browser: Any, shape: str) -> None:
    """On a telephone and on a wide screen, light and dark: no error, nothing fetched, nothing beyond the edge, every
    plot in sight with letters that are whole, clear of each other, and stand out from the paper."""
    papers = set[str]()
    for width in (360, 1400):
        for theme in ("light", "dark"):
            seen = opened(browser, pages[shape], width, theme)
            assert seen["wrong"] == [], (width, theme)
            assert (seen["plots"], seen["asked"]) == (9, [])
            assert seen["wide"] <= 0
            assert browser.get_log("browser") == []
            papers.add(seen["paper"])
    assert len(papers) == 2


def opened(browser: Any, page: Path, width: int, theme: str, media: str = "screen") -> dict[str, Any]:
    from selenium.webdriver.support.wait import WebDriverWait

    chromium.set_width(browser, width)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(page.as_uri())
    # On a busy machine `get` was seen to return while a long page was still being read.
    WebDriverWait(browser, 15).until(lambda driver: driver.execute_script("return document.readyState") == "complete")
    return browser.execute_script(LOOK)


@drawn
def test_it_prints_on_white(pages: dict[str, Path], browser: Any) -> None:
    seen = opened(browser, pages["usual"], 700, "dark", "print")
    assert (seen["wrong"], seen["paper"]) == ([], "rgb(255, 255, 255)")
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8


@drawn
def test_a_planted_fault_is_seen(pages: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    page = pages["usual"].read_text()
    faults = {
        "wide": page.replace("<main>", '<main><p style="width: 100rem">wide</p>'),
        "wrong": page.replace("var(--ink)", "var(--paper)"),
        "log": page.replace("<main>", '<main><img src="https://nowhere.invalid/a.png">'),
    }
    for kind, text in faults.items():
        (tmp_path / "fault.html").write_text(text)
        seen = opened(browser, tmp_path / "fault.html", 360, "light")
        caught = {"wide": seen["wide"] > 0, "wrong": bool(seen["wrong"]), "log": bool(browser.get_log("browser"))}
        assert caught[kind], kind


@drawn
@pytest.mark.parametrize("labels", [("$10-$20", "$20-$30"), ("$0_$5", "x"), ("$a{$", "a$b^$")])
def test_a_dollar_in_a_name_is_a_dollar(labels: tuple[str, str]) -> None:
    """And not the begin of a formula, which need not even be one."""
    rows = pd.DataFrame([{"true class": label, **dict.fromkeys(labels, 3)} for label in labels])
    look = canvas.PlotStyle(("a", "b"), findings.Compared("a", "b"), "accuracy")
    plot = canvas.drawn(plots.confusion, rows, look)["svg"].decode()
    assert all(plot.count(html.escape(label)) >= 2 for label in labels)
