"""Trying a learner: what the page computes, and the page in a browser."""

from __future__ import annotations

import csv
import html
import importlib.util
import io
import json
import re
import shutil
import socket
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromium
import forked
import numpy as np
import pytest
import torch
from conftest import Here
from form_tasks import FORMS, rows_of
from near import LAYERS, near
from safetensors.torch import load_file, save_file
from seq2seq_models import tiny_translator

from metanlp.algorithms import ALGORITHMS, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.core.errors import InputError
from metanlp.forms import DEFAULT
from metanlp.learner.learner import Adapted, Learner
from metanlp.serve import result_html as cards
from metanlp.serve import textbox as box
from metanlp.serve import trial

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "recipes/space"
served = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra `serve` is not installed")
# All texts are alike but for one word.
BOX = """tell me about the cat of today | animal
tell me about the cat of last week | animal
tell me about the train of today | travel
tell me about the train of last week | travel
"""


@pytest.fixture(scope="module")
def words_alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with layers that add nothing: it reads the mean of its words, so that what counts is known."""
    folder = tmp_path_factory.mktemp("models") / "words-alone"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    silent = ("position_embeddings", "token_type_embeddings", "attention.output.dense", ".output.dense")
    for name in weights:
        if any(f"{part}.weight" in name for part in silent):
            weights[name].zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def learner(words_alone: Path) -> Learner:
    net = Backbone.load(str(words_alone), Lora(rank=4, alpha=8), precision="fp32")
    algorithm = Maml(inner=Inner(steps=2, lr=0.1, head_lr=0.1))
    return Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(5)))


@pytest.fixture(scope="module")
def tried(learner: Learner) -> trial.Trial:
    return trial.adapt(learner, box.examples(BOX), "fast")


def refusal(work: Any, *given: Any) -> str:
    with pytest.raises(InputError) as caught:
        work(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What stands in a box.


@pytest.mark.parametrize(
    "same",
    [
        BOX.replace(" | ", "\t"),
        BOX.rstrip("\n") + "\n\n",
        "text,label\n" + BOX.replace(" | ", ","),
        "Text;Label\n" + BOX.replace(" | ", ";"),
        " TEXT \tLabel\n" + BOX.replace(" | ", "\t"),
        "\n".join(f'{{"text": "{a}", "label": "{b}"}}' for a, _, b in (r.partition(" | ") for r in BOX.splitlines())),
    ],
)
def test_examples_are_written_in_any_of_these_ways(same: str) -> None:
    assert box.examples(same) == box.examples(BOX)
    assert (
        box.written([{"text": r.partition(" | ")[0], "label": r.partition(" | ")[2]} for r in BOX.splitlines()]) == BOX
    )


def test_what_is_written_is_read_again() -> None:
    rows = [
        {"text_a": "a", "text_b": "b", "label": "x"},
        {"text_a": "c, d", "text_b": "e", "label": "y"},
    ]
    odd = [{"text": " a | b", "label": "x"}, {"text": "two\nlines", "label": "y"}, {"text": "{", "label": "y"}]
    numbers = [{"text": "a", "label": 3}, {"text": "b", "label": 12}]
    for each in (rows, odd, numbers):
        task = box.examples(box.written(each))
        back = [{**row, "label": task.labels[row["label"]]} for row in task.pools["train"]]
        assert back == [{**row, "label": str(row["label"])} for row in each]
    assert box.written(rows) == "a | b | x\nc, d | e | y\n"
    assert box.written(odd).count("{") == 4


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "has no rows"),
        ("a | x\nb\nc | y", "examples:2: the line has no label; write text | label"),
        ("a | x\nb | ", "examples:2: the label is blank"),
        ("a | x\n | y", "examples:2: 'text' is empty"),
        ("a | x\nb | x", "only the class 'x'"),
        ("a | x\n\nb | y", "examples:2: the line is blank"),
        ("a | b | c | d\n", "the line has 4 parts"),
        ("a | b | x\nc | y", "examples:2: has `text`, rows before have 'text_a', 'text_b'"),
        ('{"text": "a", "label"', "is not valid JSON"),
        ("a | x\n" * 1001, "1,001 rows are more than the 1,000 that this page takes"),
        ("a" * 1_100_000, "1.1 MB are more than the 1 MB that this page takes"),
    ],
)
def test_bad_examples_are_one_line(written: str, said: str) -> None:
    assert said in refusal(box.examples, written)


def test_a_dropped_file_comes_into_the_box(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('body,intent,id\n"cats, all",animal,1\na train,travel,2\n')
    assert box.dropped(file, {"text": "body", "label": "intent"}) == "cats, all | animal\na train | travel\n"
    for header in ("Text,Label", "text;LABEL", "label\ttext"):
        mark = next(mark for mark in ",;\t" if mark in header)
        cells = ("x", "a") if header.startswith("label") else ("a", "x")
        file.write_text(f"{header}\n{mark.join(cells)}\n{mark.join(cells).replace('a', 'b').replace('x', 'y')}\n")
        assert box.dropped(file) == "a | x\nb | y\n"
    (tmp_path / "mine.jsonl").write_text('{"Text": "a", "Label": "x"}\n{"Text": "b", "Label": "y"}\n')
    assert box.dropped(tmp_path / "mine.jsonl") == "a | x\nb | y\n"
    file.write_text('body,intent,id\n"cats, all",animal,1\na train,travel,2\n')
    assert "mine.csv" in (said := refusal(box.dropped, file))
    assert "--columns text=…" in said
    assert str(tmp_path) not in said
    file.write_text("text,label\na,x\nb,x\n")
    assert "only the class 'x'" in refusal(box.dropped, file)
    file.write_text("text,label\n" + "a,x\n" * 300_000)
    assert "1.2 MB are more than the 1 MB" in refusal(box.dropped, file)
    (tmp_path / "mine.txt").write_text(BOX)
    assert "drop a .csv or .jsonl file" in refusal(box.dropped, tmp_path / "mine.txt")


def test_texts_are_as_the_examples_are() -> None:
    single, pairs = (DEFAULT, False), (DEFAULT, True)
    assert box.texts("one\ntwo | three\n", *single) == [{"text": "one"}, {"text": "two | three"}]
    assert box.texts("one | two", *pairs) == [{"text_a": "one", "text_b": "two"}]
    assert "the examples are pairs" in refusal(box.texts, "one", *pairs)
    assert "there is no text yet" in refusal(box.texts, " \n", *single)


def test_texts_have_the_columns_of_the_examples(tmp_path: Path) -> None:
    columns = {"text": "body|message", "label": "intent"}
    for name in ("body", "message", "text"):
        rows = "".join(json.dumps({name: text, "id": 1}) + "\n" for text in ("a", "b"))
        assert box.texts(rows, DEFAULT, False, columns) == [{"text": "a"}, {"text": "b"}]
    (tmp_path / "mine.csv").write_text('body,id\n"cats\nand dogs",1\n')
    dropped = box.dropped_texts(tmp_path / "mine.csv", DEFAULT, columns)
    assert box.texts(dropped, DEFAULT, False, columns) == [{"text": "cats\nand dogs"}]


def test_a_dropped_file_of_texts_comes_into_its_box(tmp_path: Path) -> None:
    for name, written in {
        "a.txt": "a cat\nb | c\n",
        "b.csv": "id,text\n1,a cat\n2,b | c\n",
        "c.jsonl": '{"text": "a cat"}\n{"text": "b | c"}\n',
    }.items():
        (tmp_path / name).write_text(written)
        assert box.dropped_texts(tmp_path / name) == "a cat\nb | c\n"
    (tmp_path / "pairs.csv").write_text("text_a,text_b\na,b\n")
    assert box.dropped_texts(tmp_path / "pairs.csv") == "a | b\n"
    (tmp_path / "odd.jsonl").write_text('{"text": "two\\nlines"}\n{"text": "one"}\n')
    odd = box.dropped_texts(tmp_path / "odd.jsonl")
    assert box.texts(odd, DEFAULT, False) == [{"text": "two\nlines"}, {"text": "one"}]
    (tmp_path / "none.csv").write_text("id,title\n1,a\n")
    assert "none.csv" in (said := refusal(box.dropped_texts, tmp_path / "none.csv"))
    assert str(tmp_path) not in said
    assert "drop a .txt, .csv or .jsonl file" in refusal(box.dropped_texts, tmp_path / "a.xlsx")


# What is computed.


def test_a_correction_changes_the_answer(learner: Learner, tried: trial.Trial) -> None:
    row = {"text": "tell me about the cat of today"}
    assert tried.adapted.predict([row]) == ["animal"]
    changed = box.corrected(BOX, row, "travel")
    assert changed == BOX.replace("today | animal", "today | travel", 1)
    added = box.corrected(BOX, {"text": "tell me about the piano of today"}, "music")
    assert added == BOX + "tell me about the piano of today | music\n"
    again = trial.adapt(learner, box.examples(added), "fast")
    assert again.adapted.predict(["tell me about the piano of today"]) == ["music"]
    assert box.corrected(changed, row, "animal") == BOX
    assert "there is no label yet" in refusal(box.corrected, BOX, row, " ")


def test_the_nearest_example_of_an_example_is_itself(tried: trial.Trial) -> None:
    for row in tried.examples:
        nearest = trial.nearest(tried, {"text": row["text"]})
        assert nearest[0].row == row
        near(nearest[0].cosine, 1.0)
        assert len(nearest) == 3
        assert nearest[0].cosine > nearest[1].cosine >= nearest[2].cosine


def test_features_of_many_are_those_of_each(tried: trial.Trial) -> None:
    rows = [{"text": "cat " * n + "train"} for n in (9, 1, 30, 2)]
    many = trial.features(tried.adapted, rows)
    near(many, torch.cat([trial.features(tried.adapted, [row]) for row in rows]), LAYERS)
    near(many.norm(dim=1), torch.ones(4))


def test_a_planted_word_is_the_one_that_counts(tried: trial.Trial) -> None:
    for planted, label in (("cat", "animal"), ("train", "travel")):
        row = {"text": f"tell me  about the {planted} of next year"}
        pieces = trial.words(tried.adapted, row)
        assert "".join(piece.text for piece in pieces) == row["text"]
        assert tried.adapted.predict([row]) == [label]
        least = min((piece for piece in pieces if piece.without is not None), key=lambda piece: piece.without or 0)
        assert least.text == planted


def test_each_figure_is_the_score_without_the_word(learner: Learner) -> None:
    tried = trial.adapt(learner, box.examples(BOX.replace(" of ", " | of ")), "fast")
    row = {"text_a": "the cat sleeps", "text_b": "我爱 trains"}
    pieces = [piece for piece in trial.words(tried.adapted, row) if piece.without is not None]
    others = [("cat sleeps", "我爱 trains"), ("the sleeps", "我爱 trains"), ("the cat", "我爱 trains")]
    others += [("the cat sleeps", text) for text in ("爱 trains", "我trains", "我爱")]
    answer = int(tried.adapted.scores([row]).argmax())
    wanted = tried.adapted.scores(others)[:, answer]
    assert [piece.text for piece in pieces] == ["the", "cat", "sleeps", "我", "爱", "trains"]
    near(np.array([piece.without for piece in pieces]), wanted, LAYERS)


def test_an_only_word_stays(tried: trial.Trial) -> None:
    assert [piece.without for piece in trial.words(tried.adapted, {"text": "cat"})] == [None] * 3
    long = trial.words(tried.adapted, {"text": "cat " * 200})
    assert sum(piece.without is not None for piece in long) == trial.MOST_WORDS


@pytest.mark.parametrize("by", ["margin", "entropy"])
def test_the_ambiguous_text_is_next(tried: trial.Trial, by: Any) -> None:
    ambiguous, known = "tell me about the cat of the train", "tell me about the cat of today"
    texts = ["tell me about the cat of next week", "tell me about the train of next week", ambiguous, known, ambiguous]
    found = trial.next_to_label(tried, [{"text": text} for text in texts], by)
    assert found[0] == {"text": ambiguous}
    assert len(found) == 3
    assert {"text": known} not in found
    assert "examples already" in refusal(trial.next_to_label, tried, [{"text": known.upper()}], by)


def test_the_zip_is_the_model(learner: Learner, words_alone: Path, tmp_path: Path) -> None:
    adapted = trial.adapt(learner, box.examples(BOX), "recipe").adapted
    packed = trial.zipped(adapted)
    assert packed == trial.zipped(adapted)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path)
    texts = ["a cat", "the train of next year, and more"]
    again = Adapted.load(tmp_path / "adapted", base=str(words_alone))
    assert np.array_equal(again.logits(texts), adapted.logits(texts))
    assert again.labels == adapted.labels


def test_what_is_written_is_shown(tmp_path: Path) -> None:
    learner = tiny_translator(tmp_path)
    pair = {"source": "a cad", "target": "ein b", "source_lang": "en", "target_lang": "de"}
    few = trial.adapt(learner, box.examples(json.dumps(pair)), "recipe")
    rows = box.texts("a bad cab\na face", few.form, few.adapted.pairs)
    said = cards.lines(few, rows, few.adapted.answers(rows))
    assert [line.partition(" → ")[0] for line in said] == ["a bad cab", "a face"]
    assert "a bad cab →" in cards.closer(few, rows[0])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_answers(net: Backbone, form: str) -> None:
    algorithm = ProtoNet()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    rows = rows_of(form, 12, 0)
    task = box.examples(box.written(rows))
    found = trial.adapt(learner, task, "fast")
    asked = [
        {name: row[name] for name in row if name not in ("label", "score", "labels", "answer", "tags", "answers")}
        for row in rows
    ]
    asked = box.texts(box.written(asked), found.form, found.adapted.pairs)
    assert len(cards.lines(found, asked, found.adapted.answers(asked))) == len(rows)
    shown = cards.closer(found, asked[0])
    assert ("Score of every class" in shown) == (form == "classify")
    assert ("Nearest examples" in shown) == (form not in ("choose", "tag", "span"))
    if form != "classify":
        assert form in refusal(trial.next_to_label, found, asked)
        assert form in refusal(box.corrected, box.written(rows), asked[0], "x")


def test_an_answer_is_marked_in_its_passage(net: Backbone) -> None:
    algorithm = ProtoNet()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    found = trial.adapt(learner, box.examples(box.written(rows_of("span", 12, 0))), "fast")
    row = {"question": "who is <he>?", "context": "he is <b>Tom</b> & no other"}
    (told,) = found.adapted.answers([row])
    shown, context = cards.closer(found, row), row["context"]
    assert told["answer"]
    before, there, after = (
        html.escape(part) for part in (context[: told["start"]], told["answer"], context[told["end"] :])
    )
    marked = re.sub(r"<mark style=[^>]*>", "<mark>", shown)
    assert f"<p>{before}<mark>{there}</mark>{after}</p>" in marked
    assert "<b>" not in shown
    assert cards._where(None) == ""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_method_has_nearest_examples(net: Backbone, name: str) -> None:
    algorithm = ALGORITHMS[name]()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    found = trial.adapt(learner, box.examples(BOX), "fast")
    row = found.examples[2]
    assert trial.nearest(found, {"text": row["text"]}, 1)[0].row == row


def test_texts_are_escaped(learner: Learner) -> None:
    found = trial.adapt(learner, box.examples("<b>a</b> one | <i>x</i>\n<b>b</b> two | <i>y</i>\n"), "fast")
    shown = cards.closer(found, {"text": "<script>alert(1)</script> three"})
    assert "&lt;script&gt;" in shown
    assert not any(tag in shown for tag in ("<script", "<b>b", "<i>x", "<i>y"))


# The command.


def test_what_the_page_can_not_be_made_of_is_one_line(here: Here, tried: trial.Trial, tmp_path: Path) -> None:
    tried.adapted.save(tmp_path / "adapted")
    assert refused(here("metanlp", "serve", "--from", tmp_path / "none")).startswith(f"{tmp_path / 'none'} holds no")
    (tmp_path / "products.txt").write_text("kettle\n")
    guide = ("--guide", tmp_path / "products.txt")
    assert "of kind 'learner' is needed" in refused(here("metanlp", "serve", "--from", tmp_path / "adapted", *guide))
    assert "--columns" in refused(here("metanlp", "serve", "--from", tmp_path / "none", "--columns", "text"))


def test_a_space_is_the_same_page(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANLP_LEARNER", str(tmp_path / "none"))
    assert refused(here("python", SPACE / "app.py")).startswith(f"{tmp_path / 'none'} holds no")
    pinned = dict(line.split("==") for line in (ROOT / ".ci/requirements.txt").read_text().splitlines())
    assert f"sdk_version: {pinned['gradio']}\n" in (SPACE / "README.md").read_text()


def test_without_gradio_it_says_what_to_install(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'metanlp[serve]'" in refused(here("metanlp", "serve", "--from", "x"))


@served
def test_a_port_that_is_taken_is_one_line(here: Here) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = ("metanlp", "serve", "--from", "x", "--port")
        assert f"port {port}: cannot listen there" in refused(here(*command, port))
    assert "give one from 1 to 65535" in refused(here(*command, 100_000))
    assert "cannot listen there" in refused(here(*command, port, "--host", "192.0.2.1"))


def refused(ended: tuple[Any, str, str]) -> str:
    code, out, said = ended
    assert (code, out, said.count("\n")) == (2, "", 1)
    return said


# The browser.


class Screen:
    """The page as somebody sees and uses it."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address

    def find(self, css: str) -> Any:
        return self.browser.find_element("css selector", css)

    def write(self, name: str, text: str) -> None:
        box = chromium.reached(self.browser, f"#{name} textarea")
        box.clear()
        box.send_keys(text)

    def press(self, name: str) -> None:
        until(lambda: self.find(f"#{name}").is_enabled())
        chromium.reached(self.browser, f"#{name}").click()

    def says(self, part: str, where: str = "said") -> None:
        """Waits until it does; what is said in the bar is in sight wherever the page is scrolled to."""
        until(lambda: part in chromium.reached(self.browser, f"#{where}").text)


def until(met: Callable[[], Any], seconds: float = 60) -> None:
    """Parts of the page, and the page itself, come and go."""
    from selenium.common.exceptions import WebDriverException

    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if met():
                return
        except (WebDriverException, OSError) as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not met in {seconds} s; {last}")


@pytest.fixture(scope="module")
def address(learner: Learner) -> Iterator[str]:
    """Of the page to try a learner."""

    def made() -> Any:
        from metanlp.serve.page import Page

        return Page(learner, "words-alone").blocks

    yield from forked_page(made)


@pytest.fixture(scope="module")
def of_adapted(tried: trial.Trial) -> Iterator[str]:
    """Of the page to ask an adapted model."""

    def made() -> Any:
        from metanlp.serve.page import Page

        return Page(tried.adapted, "mine").blocks

    yield from forked_page(made)


def forked_page(made: Callable[[], Any]) -> Iterator[str]:
    """The address of a page in a process of its own."""

    def serve(port: int) -> None:
        from metanlp.serve import page

        page.serve(made(), "127.0.0.1", port)

    yield from forked.served(serve)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from chromium.running(tmp_path_factory.mktemp("chromium"))


@pytest.fixture
def screen(browser: Any, address: str) -> Iterator[Screen]:
    """The page opened anew. After the test no error was written, and nothing was asked of another machine."""
    until(lambda: urllib.request.urlopen(address).close() is None)
    chromium.set_width(browser, 1400)
    browser.get(address)
    screen = Screen(browser, address)
    until(lambda: screen.find("#examples textarea"))
    yield screen
    asked = browser.execute_script('return performance.getEntriesByType("resource").map(each => each.name)')
    assert asked
    assert all(name.startswith(address) for name in asked)
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@served
def test_the_page_in_a_browser(screen: Screen) -> None:
    """Adapt, answer, look closer, correct, ask what is next; what is wrong is said."""
    screen.write("examples", BOX)
    screen.press("adapt")
    screen.says("Adapted to 4 examples of animal, travel in ")
    assert screen.find("#about").text == "words-alone: maml on ./words-alone, not meta-trained"
    screen.write("texts", "tell me about the cat of next week\nthe piano of today")
    screen.press("classify")
    screen.says("the cat of next week → animal (", "answers")
    screen.says("Nearest examples", "closer")
    chromium.reached(screen.browser, "#answers label:nth-of-type(2)").click()
    screen.says("piano", "closer")
    right = chromium.reached(screen.browser, "#right input")
    right.clear()
    right.send_keys("music\n")
    screen.press("correct")
    screen.says("Adapted to 5 examples of animal, music, travel")
    screen.says("the piano of today → music (", "answers")
    assert screen.find("#examples textarea").get_attribute("value") == BOX + "the piano of today | music\n"
    screen.write("texts", "tell me about the cat of next year\ntell me about the cat and the train")
    assert screen.browser.find_elements("css selector", "#rank") == []  # inside what is closed
    chromium.reached(screen.browser, "#advanced button").click()
    until(lambda: screen.find("#rank"))
    screen.press("rank")
    screen.says("The first is worth a label most")
    screen.says("the cat and the train", "answers label")
    screen.write("examples", "a | x\nb")
    screen.press("adapt")
    screen.says("examples:2: the line has no label; write text | label")


@served
def test_a_file_comes_in_and_a_model_goes_out(
    screen: Screen, learner: Learner, words_alone: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text("text,label\na,x\nb,x\n")
    screen.find("#dropped input").send_keys(str(tmp_path / "mine.csv"))
    screen.says("mine.csv:2: task 'examples' has only the class 'x'")
    (tmp_path / "good.csv").write_text("text,label\n" + BOX.replace(" | ", ","))
    until(lambda: screen.find("#dropped input"))
    screen.find("#dropped input").send_keys(str(tmp_path / "good.csv"))
    until(lambda: screen.find("#examples textarea").get_attribute("value") == BOX)
    screen.press("adapt")
    screen.says("Adapted to 4 examples")
    screen.press("pack")
    until(lambda: screen.find("#zip a"))
    with urllib.request.urlopen(screen.find("#zip a").get_attribute("href")) as sent:
        zipfile.ZipFile(io.BytesIO(sent.read())).extractall(tmp_path)
    again = Adapted.load(tmp_path / "adapted", base=str(words_alone))
    here = learner.adapt_to(box.examples(BOX))  # as the command line does
    assert np.array_equal(again.logits(["a cat", "trains"]), here.logits(["a cat", "trains"]))


@served
def test_texts_come_in_and_answers_go_out_as_files(
    browser: Any, of_adapted: str, tried: trial.Trial, tmp_path: Path
) -> None:
    """On the page of an adapted model, which has no examples and corrects nothing."""
    until(lambda: urllib.request.urlopen(of_adapted).close() is None)
    chromium.set_width(browser, 1400)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(of_adapted)
    screen = Screen(browser, of_adapted)
    until(lambda: screen.find("#texts textarea"))
    assert screen.find("#about").text.startswith("mine: answers animal, travel; maml on ./words-alone")
    texts = [f"tell me about the {word} of {number}" for number in range(15) for word in ("cat", "train")]
    (tmp_path / "texts.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
    screen.find("#more input").send_keys(str(tmp_path / "texts.csv"))
    until(lambda: screen.find("#texts textarea").get_attribute("value").count("\n") == 30)
    screen.press("classify")
    screen.says("the cat of 0 → animal (", "answers")
    assert "Nearest examples" not in screen.find("#closer").text
    assert not any(screen.browser.find_elements("css selector", f"#{name}") for name in ("correct", "examples", "pack"))
    tall = browser.execute_script(HEIGHTS)
    assert tall[0] < 520 < 1000 < tall[1]  # thirty answers scroll in their own list
    screen.press("csv")
    until(lambda: (tmp_path / "answers.csv").is_file())
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == tried.adapted.predict(texts)
    assert chromium.covered(browser) == {360: [], 800: [], 1400: []}


@served
def test_the_page_is_usable_on_a_telephone(screen: Screen) -> None:
    """Nothing beyond the edge; a mistake at the bottom is said in sight."""
    chromium.set_width(screen.browser, 360)
    screen.write("examples", BOX)
    screen.press("adapt")
    screen.says("Adapted to 4 examples")
    screen.write("texts", '{"text": "cut')
    screen.press("classify")
    screen.says("texts:1: is not valid JSON")
    top, inside, wide = screen.browser.execute_script(LOOK)
    assert 0 <= top < inside
    assert wide <= 0
    assert chromium.covered(screen.browser) == {360: [], 800: [], 1400: []}


HEIGHTS = """
const all = document.querySelector("#answers");
return [all.clientHeight, Math.max(...[...all.querySelectorAll(".wrap")].map(each => each.scrollHeight))];
"""
LOOK = """
const wide = [...document.querySelectorAll("textarea, button, label, #closer, #said")]
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1);
return [document.querySelector("#said .wrong").getBoundingClientRect().top, innerHeight,
    Math.max(document.documentElement.scrollWidth - innerWidth, wide.length)];
"""
