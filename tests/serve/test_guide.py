"""The shopping page: what it computes, and the page in a browser."""

from __future__ import annotations

import multiprocessing
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
import torch
from conftest import Here
from form_tasks import BAD, GOOD, THINGS
from test_serve import forked_page, served, until

from metanlp.algorithms import ProtoNet
from metanlp.backbone import Backbone
from metanlp.core.errors import InputError
from metanlp.core.types import Row
from metanlp.learner.learner import Learner
from metanlp.serve import guide
from metanlp.serve.guide import SHOWN, Place

PRODUCTS: list[Row] = [{"text": f"{word} {word} {thing}"} for word in (*BAD, *GOOD) for thing in THINGS[:5]]
ODD: Row = {"text": "<img src=x onerror=alert(1)> & <b>more</b>"}


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    return Learner(ProtoNet(), net, ProtoNet().init(net, torch.Generator().manual_seed(0)))


def test_ticks_change_the_ranking_and_say_why(learner: Learner) -> None:
    start = guide.in_order(PRODUCTS)
    assert [place.product for place in start] == list(range(len(PRODUCTS)))
    assert guide.placed(learner, PRODUCTS, [], [], start) == start
    first = guide.placed(learner, PRODUCTS, [30, 41], [3], start)
    assert sorted(place.product for place in first) == list(range(len(PRODUCTS)))
    assert sum(place.up for place in first) == 0
    assert first != start
    assert all(place.because == "" for place in first if place.product in (30, 41, 3))
    told = {place.because.rpartition(" (")[0] for place in first[:SHOWN]} - {""}
    labels = {30: "liked", 41: "liked", 3: "disliked"}
    assert told <= {f"like “{PRODUCTS[n]['text']}”, {label}" for n, label in labels.items()}
    again = guide.placed(learner, PRODUCTS, [30, 41], [3], first)
    assert [(place.product, place.score) for place in again] == [(place.product, place.score) for place in first]
    assert {place.up for place in again} == {0}


def test_likes_alone_rank_and_dislikes_alone_do_not(learner: Learner) -> None:
    start = guide.in_order(PRODUCTS)
    assert len(guide.placed(learner, PRODUCTS, [30], [], start)) == len(PRODUCTS)
    with pytest.raises(InputError, match="nothing is liked yet"):
        guide.placed(learner, PRODUCTS, [], [3], start)
    with pytest.raises(InputError, match="is liked and disliked"):
        guide.placed(learner, PRODUCTS, [3], [3], start)
    with pytest.raises(InputError, match="1,001 products are more than the 1,000"):
        guide.in_order(PRODUCTS * 20 + PRODUCTS[:1])


def test_text_of_products_is_escaped_and_the_rest_is_counted() -> None:
    html = guide.table([ODD], [Place(0, 0.5, 2, "like “<i>x</i>”, liked (0.90)")])
    assert "<img" not in html
    assert "<i>" not in html
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &lt;b&gt;more" in html
    assert "▲ 2" in html
    assert "50.0 %" in html
    assert "and 10 more" in guide.table(PRODUCTS, guide.in_order(PRODUCTS))
    assert [n for _, n in guide.choices(PRODUCTS, guide.in_order(PRODUCTS), [45, 3])] == [*range(SHOWN), 45]


def test_a_list_that_is_none_is_one_line(here: Here, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("text\n")
    code, out, said = here("metanlp", "serve", "--guide", tmp_path / "none.csv", "--port", 65123)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "none.csv: has no rows; give at least one text" in said


@served
def test_a_tick_ranks_and_a_mistake_is_a_line(learner: Learner) -> None:
    """In a process of its own, as gradio leaves sockets open."""
    process = multiprocessing.get_context("fork").Process(target=handler_ranks, args=(learner,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def handler_ranks(learner: Learner) -> None:
    from metanlp.serve.guide_page import GuidePage

    page = GuidePage(learner, [*PRODUCTS, ODD])
    shown = page.on_tick([45], [3], guide.in_order(page.products))
    assert "Ranked from 1 liked, 1 not." in shown[page.said]
    assert {n for _, n in shown[page.liked].choices} >= {45, *(place.product for place in shown[page.places][:SHOWN])}
    assert shown[page.liked].value == [45]
    assert shown[page.table] == guide.table(page.products, shown[page.places])
    alone = page.on_tick([45], [], shown[page.places])
    assert "products drawn from the list stand for those that are not liked" in alone[page.said]
    wrong = page.on_tick([], [3], shown[page.places])
    assert list(wrong) == [page.said]
    assert "class=wrong" in wrong[page.said]
    assert "nothing is liked yet" in wrong[page.said]
    assert "nothing ticked" in page.on_tick([], [], shown[page.places])[page.said]


@served
def test_the_page_is_sent(address: str) -> None:
    until(lambda: urllib.request.urlopen(address).close() is None)
    with urllib.request.urlopen(address) as sent:
        page = sent.read().decode()
    assert "Tick products that you like" in page
    assert "<img src=x" not in page


@pytest.fixture(scope="module")
def address(learner: Learner) -> Iterator[str]:
    def made() -> Any:
        from metanlp.serve.guide_page import GuidePage

        return GuidePage(learner, [*PRODUCTS, ODD]).blocks

    yield from forked_page(made)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from chromium.running(tmp_path_factory.mktemp("chromium"))


@served
def test_the_page_in_a_browser(address: str, browser: Any) -> None:
    """Tick, see the ranking change; a mistake is said and the ranking stays."""
    until(lambda: urllib.request.urlopen(address).close() is None)
    browser.get(address)

    def find(css: str) -> Any:
        return browser.find_element("css selector", css)

    until(lambda: find("#liked input"))
    chromium.reached(browser, "#disliked label:nth-of-type(1) input").click()
    until(lambda: "nothing is liked yet" in find("#said").text)
    before = find("#table").text
    chromium.reached(browser, "#liked label:nth-of-type(30) input").click()
    until(lambda: "Ranked from 1 liked, 1 not." in find("#said").text)
    until(lambda: find("#table").text != before)
    assert "▲" in find("#table").text
    assert len(browser.find_elements("css selector", "#liked input:checked")) == 1
    assert chromium.covered(browser) == {360: [], 800: [], 1400: []}
    chromium.reached(browser, "#disliked input:checked").click()
    until(lambda: "products drawn from the list stand for" in find("#said").text)
    asked = browser.execute_script('return performance.getEntriesByType("resource").map(each => each.name)')
    assert all(name.startswith(address) for name in asked)
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
