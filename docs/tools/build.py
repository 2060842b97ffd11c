"""`make docs`: README and docs/ as pages, and the reference, made by pdoc from docstrings. A warning is an error.

python docs/tools/build.py FOLDER
"""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import Any, get_type_hints

import pdoc
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GUIDES = {"index.html": ROOT / "README.md"} | {
    f"docs/{path.stem}.html": path for path in sorted((ROOT / "docs").glob("*.md"))
}
# What users call, and then what a new method, form or head is written against.
PAGES = ("metanlp", "metanlp.core.types", "metanlp.algorithms.base", "metanlp.forms.base", "metanlp.forms.heads.base")

# What modules import for the checker of types alone.
CHECKED = {"torch": torch, "Tensor": torch.Tensor}


def build(folder: Path) -> None:
    """Writes the pages, the words to search them by, and beside them the files that they link to."""
    pdoc.render.configure(docformat="markdown", show_source=False, template_directory=HERE)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        modules = {name: page(name) for name in PAGES}
        files = {f"{name.replace('.', '/')}.html": pdoc.render.html_module(modules[name], modules) for name in PAGES}
        files |= {name: guide(name, path, modules) for name, path in GUIDES.items()}
        files["search.js"] = pdoc.render.search_index(modules)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(alive(text), encoding="utf-8")
    for path in GUIDES.values():
        for link in links(path.read_text(encoding="utf-8")):
            target = (path.parent / link).resolve().relative_to(ROOT)
            if ROOT / target not in GUIDES.values():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / target, folder / target)


def guide(name: str, path: Path, modules: Mapping[str, pdoc.doc.Module]) -> str:
    """The page of a Markdown file; links to other such files lead to their pages."""
    text = re.sub(r"(\]\((?:docs/)?\w+)\.md", r"\1.html", path.read_text(encoding="utf-8"))
    text = text.replace("](../README.md", "](../index.html")
    template = pdoc.render.env.get_template("guide.html.jinja2")
    return template.render(all_modules=modules, text=text, guides=GUIDES, root="../" * name.count("/"))


def page(name: str) -> pdoc.doc.Module:
    """A module with all that it names. What is imported when first used is imported first: pdoc sees what is there."""
    module = import_module(name)
    vars(module).update({known: getattr(module, known) for known in getattr(module, "__all__", ())})
    for ours in [each for each in sys.modules if each.startswith("metanlp")]:
        for known, kind in CHECKED.items():
            vars(sys.modules[ours]).setdefault(known, kind)
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
