"""The endpoints for programs, asked over a socket as programs ask them."""

from __future__ import annotations

import http.client
import importlib.util
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import forked
import pytest
import torch
from conftest import Here

from metanlp.algorithms import Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone
from metanlp.cli.serving import Serve
from metanlp.core.errors import InputError
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.prediction_table import rounded

if importlib.util.find_spec("fastapi_offline") is None:
    pytest.skip("the extra `serve` is not installed", allow_module_level=True)
from metanlp.serve import api

ROWS = [{"text": "the parcel never came", "label": "delivery"}, {"text": "charged twice", "label": "payment"},
        {"text": "where is my order", "label": "delivery"}, {"text": "the money back", "label": "payment"}]  # fmt: skip
ASKED = ["nothing was delivered", "a wrong amount"]


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    made = Maml(inner=Inner(steps=1, lr=0.1, head_lr=0.1))
    return Learner(made, net, made.init(net, torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def adapted(learner: Learner) -> Adapted:
    return learner.adapt(ROWS)


@pytest.fixture(scope="module")
def address(learner: Learner) -> Iterator[str]:
    yield from forked.endpoints(lambda port: api.serve(api.app_of(learner), "127.0.0.1", port))


@pytest.fixture(scope="module")
def of_adapted(adapted: Adapted, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the command serves of a folder."""
    folder = tmp_path_factory.mktemp("models") / "adapted"
    adapted.save(folder)
    yield from forked.endpoints(lambda port: Serve(source=folder, base=str(tiny), api=True, port=port).run())


def asked(url: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
    """Status, and what the JSON says."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_adapt_and_predict_are_those_of_python(address: str, adapted: Adapted) -> None:
    status, made = asked(f"{address}adapt", {"examples": ROWS})
    assert (status, made["labels"], made["form"], made["examples"]) == (200, list(adapted.labels), "classify", 4)
    status, told = asked(f"{address}predict", {"model": made["model"], "rows": ASKED})
    assert (status, told["answers"]) == (200, rounded(adapted.answers(ASKED)))
    whole = {"examples": [{**row, "label": len(row["label"])} for row in ROWS], "effort": "fast", "label_names": False}
    _, numbered = asked(f"{address}adapt", whole)
    assert numbered["labels"] == [7, 8]
    assert asked(f"{address}healthz")[1]["kept"] >= 2


def test_rows_have_the_columns_that_examples_have(learner: Learner, adapted: Adapted) -> None:
    service = api.Service(learner, {"text": "body|message", "label": "team"})
    made = service._adapt(api.Examples([{"body": row["text"], "team": row["label"]} for row in ROWS]))  # pyright: ignore[reportPrivateUsage]
    for rows in ([{"body": text} for text in ASKED], [{"message": text} for text in ASKED], ASKED):
        told = service._predict(api.Asked(rows, made.model))  # pyright: ignore[reportPrivateUsage]
        assert told.answers == rounded(adapted.answers(ASKED))


def test_a_row_that_is_one_text_and_two_is_refused(adapted: Adapted) -> None:
    service = api.Service(adapted)
    with pytest.raises(InputError, match=r"^row 2 is .*; give a text, two texts, or a row with `text`$"):
        service._predict(api.Asked(["a", {"text": "a", "text_a": "a", "text_b": "b"}]))  # pyright: ignore[reportPrivateUsage]
    named = api.Service(adapted, {"text": "body"})
    rows = [{"body": text, "text_a": "beside it"} for text in ASKED]
    told = named._predict(api.Asked(rows))  # pyright: ignore[reportPrivateUsage]
    assert told.answers == rounded(adapted.answers(ASKED))


def test_a_served_model_is_asked_without_a_name(of_adapted: str, adapted: Adapted) -> None:
    assert asked(f"{of_adapted}predict", {"rows": ASKED}) == (200, {"answers": rounded(adapted.answers(ASKED))})
    assert asked(f"{of_adapted}adapt", {"examples": ROWS})[0] == 404
    assert asked(f"{of_adapted}healthz")[1]["serves"] == "adapted"
    assert set(asked(f"{of_adapted}openapi.json")[1]["paths"]) == {"/predict", "/healthz"}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("adapt", {"examples": []}, 422, "has no rows"),
        ("adapt", {"examples": [{"text": "a"}]}, 422, "no column 'label'"),
        ("adapt", {"examples": ROWS[:1]}, 422, "only the class 'delivery'"),
        ("adapt", b'{"examples": [{"text": "a", "label": NaN}]}', 422, "the label is NaN"),
        ("adapt", {"examples": [{"text": "\ud800", "label": "x"}]}, 422, "half of a surrogate pair"),
        ("adapt", {"examples": [{"\ud800": "a", "label": "x"}]}, 422, "found '\\ud800'"),
        ("adapt", {"examples": ROWS * 300}, 422, "at most 1000 items"),
        ("adapt", {"examples": ROWS, "effort": "slow"}, 422, "body.effort: Input should be 'fast', 'recipe' or 'best'"),
        ("adapt", {"rows": ROWS}, 422, "body.examples: Field required"),
        ("adapt", {"examples": ROWS, "efort": "fast"}, 422, "body.efort: there is no such key; /docs says"),
        ("predict", {"rows": ASKED, "model": "x", "top": 3}, 422, "body.top: there is no such key; /docs says"),
        ("adapt", ROWS, 422, "body: give one JSON object"),
        ("adapt", b"{", 422, "JSON decode error"),
        ("adapt", b"[" * 100_000, 422, "nested too deeply"),
        ("adapt", b'{"examples": [{"text": "\xe9"}]}', 422, "the body is not UTF-8"),
        ("adapt", b" " * 1_000_001, 413, "the body is more than 1 MB; give fewer rows"),
        (
            "adapt",
            b'{"examples": [{"text": "a", "label": ' + b"[" * 600 + b"]" * 600 + b"}]}",
            422,
            "nested too deeply",
        ),
        ("adapt", {"examples": [{**ROWS[0], "text_a": "a", "text_b": "b"}]}, 422, "keep `text` alone"),
        ("predict", {"rows": ASKED}, 422, "there is no `model`"),
        ("predict", {"rows": ASKED, "model": "none"}, 404, "no model 'none' is kept here"),
        ("predict", {"rows": ASKED, "model": "\ud800"}, 404, "no model '\\ud800' is kept here"),
        ("nothing", {}, 404, "Not Found"),
    ],
)
def test_what_can_not_be_used_is_one_line(address: str, path: str, body: Any, status: int, said: str) -> None:
    found, told = asked(address + path, body)
    assert (found, list(told)) == (status, ["error"])
    assert said in told["error"]
    assert "\n" not in told["error"]


def test_a_page_of_another_site_can_not_ask(address: str) -> None:
    """Browsers send text/plain without asking first, and JSON only where a server allows their page to."""
    assert asked(f"{address}adapt", json.dumps({"examples": ROWS}).encode(), "text/plain")[0] == 422
    request = urllib.request.Request(f"{address}adapt", method="OPTIONS", headers={"Origin": "http://elsewhere.test"})
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request)


def test_a_body_of_100_megabytes_is_not_read(address: str) -> None:
    ask = http.client.HTTPConnection(address.split("/")[2])
    ask.putrequest("POST", "/adapt")
    ask.putheader("Content-Type", "application/json")
    ask.putheader("Content-Length", "100000000")
    ask.endheaders(b" " * 100_000)
    assert json.load(too_much := ask.getresponse())["error"].startswith("the body is more than 1 MB")
    assert too_much.status == 413
    ask.close()
    whole = (b" " * 50_000 for _ in range(100))
    ask.request("POST", "/adapt", whole, {"Content-Type": "application/json"}, encode_chunked=True)
    assert json.load(too_much := ask.getresponse())["error"].startswith("the body is more than 1 MB")
    assert too_much.status == 413
    ask.close()
    assert asked(f"{address}healthz")[0] == 200


@pytest.mark.parametrize("megabytes", [1.1, 6, 15])
def test_who_sends_too_much_reads_the_answer(address: str, megabytes: float) -> None:
    """Also who sends it all before reading, as most programs do."""
    for body in (b" " * round(1e6 * megabytes), [b" " * 100_000] * round(10 * megabytes)):
        ask = http.client.HTTPConnection(address.split("/")[2])
        ask.request("POST", "/adapt", body, {"Content-Type": "application/json"}, encode_chunked=isinstance(body, list))
        assert ask.getresponse().status == 413
        ask.close()


def test_models_are_forgotten_where_there_is_no_place(adapted: Adapted) -> None:
    size = api.size_of(adapted)
    kept = api.Kept(2 * size + 1)
    first, second = kept.add(adapted), kept.add(adapted)
    assert kept.named(first) is adapted
    third = kept.add(adapted)  # the second was longest not asked for
    assert list(kept.models) == [first, third]
    with pytest.raises(api.UnknownModelError, match="not any more; POST /adapt"):
        kept.named(second)
    with pytest.raises(InputError, match="metanlp adapt"):
        api.Kept(size - 1).add(adapted)


def test_the_page_on_the_endpoints_asks_nothing_elsewhere(address: str, tmp_path: Path) -> None:
    for browser in chromium.running(tmp_path):
        browser.get(f"{address}docs")
        for _ in range(500):
            if "/predict" in browser.find_element("css selector", "body").text:
                break
            time.sleep(0.02)
        shown = browser.find_element("css selector", "body").text
        assert "/adapt" in shown
        assert "/healthz" in shown
        sent = browser.execute_script('return performance.getEntriesByType("resource").map(each => each.name)')
        assert f"{address}openapi.json" in sent
        assert all(name.startswith((address, "data:")) for name in sent)
        assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_the_command_says_what_is_wrong_before_it_loads(here: Here, tmp_path: Path) -> None:
    products = tmp_path / "products.txt"
    products.write_text("kettle\n")
    code, _, said = here("metanlp", "serve", "--api", "--guide", products)
    assert (code, said) == (2, "--api and --guide are two servers; give one of them\n")
    code, _, said = here("metanlp", "serve", "--api", "--from", tmp_path / "none", "--port", 1)
    assert code == 2
    assert said.count("\n") == 1
