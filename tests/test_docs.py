"""`make docs`: nothing public is left out or unexplained, and no link leads nowhere."""

from __future__ import annotations

import dataclasses
import re
import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest

import metanlp

pytest.importorskip("pdoc", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parent.parent


def builder() -> Any:
    """`docs/tools/build.py`, which is in no package."""
    spec = util.spec_from_file_location("docs_build", ROOT / "docs" / "tools" / "build.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = builder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with every warning an error."""
    place = tmp_path_factory.mktemp("docs")
    BUILD.build(place)
    return place


def anchors(html: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', html))


def without_scripts(html: str) -> str:
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_every_public_name_is_there_with_its_types(folder: Path) -> None:
    html = (folder / "metanlp.html").read_text()
    assert set(metanlp.__all__) <= anchors(html)
    assert {"Learner.adapt", "Adapted.scores", "Inner.lr", "TaskSet.from_hub"} <= anchors(html)
    adapting = re.sub(r"<[^>]+>", "", html[html.index('id="Learner.adapt"') : html.index('id="Learner.adapt_to"')])
    assert "labels: Any = None" in adapting
    assert "fast" in adapting
    assert "Raises InputError" in adapting


def test_every_public_name_is_explained() -> None:
    """Classes, functions and methods by a docstring, where need be that of the contract; fields by their comment."""
    silent = list[str]()
    for page in map(BUILD.page, BUILD.PAGES):
        for each in page.flattened_own_members:
            members = each.own_members if each in list(BUILD.classes([each])) else []
            fields = (
                {field.name for field in dataclasses.fields(each.obj)}
                if members and dataclasses.is_dataclass(each.obj)
                else set[str]()
            )
            asked = [each, *(m for m in members if m.kind == "function" or m.name in fields)]
            silent += [one.fullname for one in asked if not one.name.startswith("_") and explained(one) == ""]
    assert silent == []


def explained(doc: Any) -> str:
    """The docstring that somebody wrote: dataclasses without one say their signature."""
    return "" if doc.docstring.startswith(f"{doc.name}(") else doc.docstring


def test_fields_say_what_their_comments_say(folder: Path) -> None:
    html = (folder / "metanlp.html").read_text()
    for id, said in {"Inner.lr": "", "Plan.exact": "", "Report.means": "over tasks"}.items():
        place = html.index(f'<div id="{id}"')
        text = html[place : html.find("<div id=", place + 1)]
        assert '<div class="docstring">' in text, id
        assert said in text


def test_links_lead_somewhere(folder: Path) -> None:
    pages = {path: without_scripts(path.read_text()) for path in folder.rglob("*.html")}
    assert len(pages) == len(BUILD.PAGES) + len(BUILD.GUIDES)
    there = {path: anchors(html) for path, html in pages.items()}
    count = 0
    for path, html in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', html):
            if re.match(r"https?:|data:|mailto:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), (path.name, link)
            assert not anchor or anchor in there[target], (path.name, link)
            count += 1
    assert count > 100


def test_the_readme_and_its_pages_are_there(folder: Path) -> None:
    for name, path in BUILD.GUIDES.items():
        html = (folder / name).read_text()
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        shown = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
        assert [re.sub(r"<[^>]+>", "", heading) for heading in shown][3:] == headings
    front = (folder / "index.html").read_text()
    for name in BUILD.PAGES:
        page = f"{name.replace('.', '/')}.html"
        assert f'href="{page}"' in front
        assert f'href="{"../" * name.count(".")}index.html"' in (folder / page).read_text()


def test_a_warning_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = ModuleType("planted")
    exec('def f(x: "Nowhere"): "Takes a type that is nowhere."', vars(planted))
    vars(planted)["__all__"] = ("f",)
    monkeypatch.setitem(sys.modules, "planted", planted)
    monkeypatch.setattr(BUILD, "PAGES", ("planted",))
    with pytest.raises(UserWarning, match="Nowhere"):
        BUILD.build(tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
