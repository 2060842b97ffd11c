"""`make docs`: the README as front page, and the reference, made by pdoc from docstrings. A warning is an error.

python .docs/build.py FOLDER
"""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import Any, get_type_hints

import pdoc

HERE = Path(__file__).parent
ROOT = HERE.parent
# What users call, and then what a new method, form or head is written against.
PAGES = ("metanlp", "metanlp.types", "metanlp.algorithms.base", "metanlp.forms.base", "metanlp.heads.base")


def build(folder: Path) -> None:
    """Writes the pages, the words to search them by, and beside them what the README links to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pdoc.render.configure(docformat="markdown", show_source=False, template_directory=HERE)
    pdoc.render.env.globals["readme"] = readme
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        pages = {name: page(name) for name in PAGES}
        files = {f"{name.replace('.', '/')}.html": pdoc.render.html_module(pages[name], pages) for name in PAGES}
        files |= {"index.html": pdoc.render.html_index(pages), "search.js": pdoc.render.search_index(pages)}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(alive(text), encoding="utf-8")
    for link in links(readme):
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / link, folder / link)


def page(name: str) -> pdoc.doc.Module:
    """A module with all that it names. What is imported when first used is imported first: pdoc sees what is there."""
    module = import_module(name)
    vars(module).update({known: getattr(module, known) for known in getattr(module, "__all__", ())})
    for known in vars(module).values():
        if is_dataclass(known):  # a field's type is spelled in the module of the class that has it first
            known.__init__.__annotations__.update(get_type_hints(known))
    documented = pdoc.doc.Module(module)
    for each in classes(documented.members.values()):
        for field, said in comments(each.obj).items():
            each.members[field].docstring = each.members[field].docstring or said
    return documented


def classes(members: Iterable[pdoc.doc.Doc[Any]]) -> Iterator[pdoc.doc.Class]:
    return (each for each in members if isinstance(each, pdoc.doc.Class))


def comments(of: type) -> dict[str, str]:
    """What is said of each field of a class, at the end of its line or above it."""
    found = re.findall(r"^((?:    # .*\n)*)    (\w+): [^\n#]*?(?:  # (.*))?$", getsource(of), flags=re.MULTILINE)
    said = {field: beside or " ".join(re.findall(r"# (.*)", above)) for above, field, beside in found}
    return {field: text for field, text in said.items() if text and field in vars(of).get("__annotations__", {})}


def alive(html: str) -> str:
    """Without links into a page to what is not on it: pdoc links members of a base class that it does not list."""
    there = set(re.findall(r'\bid="([^"]+)"', html))
    return re.sub(r'<a href="#([^"]+)">(.*?)</a>', lambda link: link[0] if link[1] in there else link[2], html)


def links(text: str) -> set[str]:
    """Files of ours that a Markdown text links to or shows."""
    return set(re.findall(r"\]\((?!http|#)([^)#]+)\)", text))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
