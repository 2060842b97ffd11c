"""The house rules that can be counted: imports go one way, each library has one door, nothing grows too long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metanlp.forms import FORMS

ROOT = Path(__file__).parents[1]

# docs/architecture.md: the rooms in the order of the pipeline, a storey each. A room imports from those before it.
ROOMS = (
    "core", "forms", "tasks", "backbone", "episodes", "algorithms", "learner", "training", "evaluation", "report",
    "experiment", "share", "serve", "cli", "__main__", "__init__", "recipes",
)  # fmt: skip
STOREY = {room: number for number, room in enumerate(ROOMS)}

# Arrows that the storeys would allow and the design does not.
CLOSED = {
    "algorithms": ("metanlp.tasks", "metanlp.episodes", "metanlp.backbone"),
    "backbone": ("metanlp.tasks", "metanlp.forms"),
    "tasks": ("torch",),
    "training": ("metanlp.tasks", "transformers", "peft"),
    "evaluation": ("metanlp.training",),
    "report": ("metanlp.training",),
}

# A library, and where it may be named.
DOORS = {
    "transformers": (
        "metanlp.backbone.encoder",
        "metanlp.backbone.pretrained",
        "metanlp.backbone.masked_lm",
        "metanlp.backbone.all_weights",
        "metanlp.backbone.writer",
        "metanlp.backbone.seq2seq",
        "metanlp.backbone.causal",
        "metanlp.backbone.new_tokenizer",
        "metanlp.share.export",
        "recipes.bench.plain_loop",  # the loop that the engine is compared with
        "recipes.bench.bench_pretrain",  # and the Trainer
    ),
    "peft": ("metanlp.backbone.lora", "metanlp.share.export.plain", "recipes.bench.plain_loop"),
    "tokenizers": ("metanlp.backbone.new_tokenizer", "recipes.bench.bench_exports"),
    "bitsandbytes": ("metanlp.backbone.quantize",),
    "psutil": ("metanlp.backbone.memory_estimate",),
    "accelerate": ("metanlp.training.processes", "metanlp.training.log"),
    "evaluate": ("metanlp.forms.metrics",),
    "scipy": (
        "metanlp.forms.metrics",
        "metanlp.core.intervals",
        "metanlp.report.canvas",
        "metanlp.evaluation.external.regressions",
    ),  # its sparse matrices
    "sklearn": (
        "metanlp.evaluation.external.plain",
        "metanlp.evaluation.shoppers",
        "metanlp.forms.heads.logistic",
        "metanlp.learner.sklearn_classifier",
        "metanlp.evaluation.external.setfit",
        "metanlp.evaluation.external.regressions",
    ),
    "sacrebleu": ("metanlp.forms.generate",),
    "threadpoolctl": ("metanlp.forms.heads.logistic",),
    "setfit": ("metanlp.evaluation.external.setfit",),
    "sentence_transformers": ("metanlp.evaluation.external.setfit",),
    "higher": ("metanlp.algorithms.steps",),
    "safetensors": ("metanlp.core.weights",),
    "onnxruntime": ("metanlp.share.export.onnx", "recipes.bench.bench_exports"),
    "regex": ("metanlp.forms.words",),
    "tyro": ("metanlp.core.settings", "metanlp.cli", "recipes"),
    "pydantic": ("metanlp.core.settings",),
    "pydantic_core": ("metanlp.tasks.index.index", "metanlp.tasks.index.plain"),
    "rich": ("metanlp.report.tables", "recipes.bench.bench_engine"),
    "matplotlib": ("metanlp.report.canvas",),
    "pandas": ("metanlp.report.page", "metanlp.learner.prediction_table"),
    "gradio": ("metanlp.serve.page", "metanlp.serve.guide_page"),
    "fastapi": ("metanlp.serve.api",),
    "fastapi_offline": ("metanlp.serve.api",),
    "starlette": ("metanlp.serve.api",),
    "uvicorn": ("metanlp.serve.api",),
    "jinja2": ("metanlp.report.page",),
    "tqdm": ("metanlp.core.progress",),
    "datasets": ("metanlp.tasks.sources.hub_rows", "metanlp.evaluation.external.setfit"),
    "huggingface_hub": (
        "metanlp.core.hub",
        "metanlp.share.model_card",
        "metanlp.share.card_header",
        "metanlp.evaluation.external.endpoint",  # its httpx
    ),
    "urllib": ("metanlp.core.hub", "metanlp.evaluation.external.endpoint"),
    "pyarrow": ("metanlp.tasks",),
    "openpyxl": ("metanlp.tasks.reading.spreadsheet",),
    "pickle": (),
}

LONGEST_FILE, LONGEST_FUNCTION = 320, 55

Sources = dict[str, str]
"""Python source by the dotted name of its module."""


def sources() -> Sources:
    """Everything below metanlp/ and recipes/."""
    paths = [*(ROOT / "metanlp").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8") for path in paths}


def room(module: str) -> str:
    """metanlp.tasks.reading.files -> tasks; metanlp -> __init__; recipes.demo -> recipes."""
    parts = module.removesuffix(".__init__").split(".")
    return parts[0] if parts[0] != "metanlp" else parts[1] if len(parts) > 1 else "__init__"


def imports(source: str, modules: Iterable[str] = ()) -> Iterator[str]:
    """Dotted names of all that a source imports, wherever it stands in it; `import_module("name")` counts too."""
    known = {module.removesuffix(".__init__") for module in modules}
    for node in naming(source):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            inside = {f"{node.module}.{name.name}" for name in node.names}
            yield from inside & known
            # `from metanlp import weights` needs the module and not the index of public names.
            if not inside <= known:
                yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


@cache
def naming(source: str) -> list[ast.AST]:
    """The nodes of a source in which it could name a module."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call))]


def within(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def wrong_arrows(found: Sources) -> list[str]:
    """Imports that go up a storey or through a closed door."""
    wrong: list[str] = []
    for module, source in found.items():
        here = room(module)
        for name in imports(source, found):
            ours = name.split(".")[0] in ("metanlp", "recipes")
            if (ours and STOREY[room(name)] > STOREY[here]) or within(name, CLOSED.get(here, ())):
                wrong.append(f"{module} imports {name}")
    return wrong


def second_doors(found: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, source in found.items()
        for name in imports(source, found)
        for library, doors in DOORS.items()
        if within(name, [library]) and not within(module, doors)
    ]


def cycle(found: Sources) -> list[str]:
    """Modules that import each other in a ring; imports inside functions and for types count."""
    names = {module.removesuffix(".__init__") for module in found}
    graph = {
        module.removesuffix(".__init__"): {name for name in imports(source, found) if name in names}
        for module, source in found.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def too_long(found: Sources) -> list[str]:
    wrong = [
        f"{module} has {count} lines"
        for module, source in found.items()
        if (count := len(source.splitlines())) > LONGEST_FILE
    ]
    for module, source in found.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                count = node.end_lineno - node.lineno + 1
                wrong += [f"{module}.{node.name} has {count} lines"] * (count > LONGEST_FUNCTION)
    return wrong


def forms_by_name(found: Sources) -> list[str]:
    """Places outside of forms/ that compare with the name of a form, have it as a key, or list several: what they ask
    is a fact about forms, which a form says itself. A default value may name one."""
    wrong: list[str] = []
    for module, source in found.items():
        for node in ast.walk(ast.parse(source)) if room(module) != "forms" else ():
            asked: list[ast.expr | None] = []
            if isinstance(node, ast.Compare):
                asked = [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                asked = node.keys
            elif isinstance(node, ast.Tuple | ast.List | ast.Set):
                asked = list(node.elts)
            elif isinstance(node, ast.Subscript):
                asked = [node.slice]
            elif isinstance(node, ast.MatchValue):
                asked = [node.value]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                asked = list(node.args[:1])
            named = [each.value for each in asked if isinstance(each, ast.Constant) and each.value in FORMS]
            wrong += [f"{module}:{node.lineno} asks for {name!r}" for name in named]
    return wrong


def unused(found: Sources, documented: str) -> list[str]:
    """Names of the package, their fields and methods that nothing but tests uses: not the code, not the pages."""
    trees = {module: ast.parse(source) for module, source in found.items()}
    used = {*re.findall(r"\w+", documented), *dir(HTMLParser)}  # which calls what overrides its methods
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)
    return [
        f"{module}.{name}"
        for module, tree in trees.items()
        for name in named(tree.body)
        if module.startswith("metanlp") and name not in used and not name.startswith("__")
    ]


def named(body: Iterable[ast.stmt]) -> Iterator[str]:
    """What a module defines, and what its classes do."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from named(node.body)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_room_has_its_storey() -> None:
    rooms = {room(module) for module in sources()}
    assert rooms <= STOREY.keys(), f"new rooms: {rooms - STOREY.keys()}; give each its storey above"


def test_nothing_lies_flat() -> None:
    assert {path.name for path in (ROOT / "metanlp").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_imports_go_one_way() -> None:
    assert wrong_arrows(sources()) == []


def test_each_library_has_one_door() -> None:
    assert second_doors(sources()) == []


def test_no_ring_of_imports() -> None:
    assert cycle(sources()) == []


def test_nothing_is_too_long() -> None:
    assert too_long(sources()) == []


def test_what_is_particular_to_a_form_stands_in_the_form() -> None:
    assert forms_by_name(sources()) == []


@pytest.mark.parametrize(
    "line",
    [
        'if task.form == "classify": pass',
        'whole = task.form not in ("choose", "tag")',
        'WORDS = {"regress": "a number"}',
        'key = FORMS["multilabel"].key',
        'key = FORMS.get("tag").key',
        'match form:\n    case "tag": pass',
    ],
)
def test_a_planted_form_is_caught(line: str) -> None:
    assert forms_by_name({"metanlp.serve.trial": line})
    assert not forms_by_name({"metanlp.forms.tag": line})


def test_no_name_is_there_for_tests_alone() -> None:
    pages = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "metanlp").rglob("*.j2"))
    assert unused(sources(), "".join(page.read_text(encoding="utf-8") for page in pages)) == []
    planted = {"metanlp.core.weights": "class Kept:\n    size: int\n    def used(self): ...\nKept().used()"}
    assert unused(planted, "") == ["metanlp.core.weights.size"]


def test_the_doors_are_in_use() -> None:
    """A door that nobody goes through any more should leave the table."""
    found = sources()
    used = {name.split(".")[0] for source in found.values() for name in imports(source, found)}
    waiting = {"pickle"}
    assert set(DOORS) - used <= waiting


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("metanlp.core.weights", "from metanlp.training.meta_train import Plan"),
        ("metanlp.core.weights", "from metanlp import experiment"),
        ("metanlp.tasks.reading.files", "import metanlp.algorithms.maml"),
        ("metanlp.algorithms.maml", "from metanlp.tasks.reading.files import read_task"),
        ("metanlp.algorithms.maml", "from metanlp.training import processes"),
        ("metanlp.training.meta_train", "def f():\n    from transformers.utils import logging"),
        ("metanlp.training.checkpoint", "from metanlp import Learner"),
        ("metanlp.cli.commands", "import recipes.demo"),
    ],
)
def test_a_planted_arrow_is_caught(module: str, line: str) -> None:
    caught = wrong_arrows(sources() | {module: line})
    assert len(caught) == 1
    assert caught[0].startswith(f"{module} imports ")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("metanlp.learner.learner", "from transformers import AutoModel"),
        ("metanlp.training.meta_train", "if TYPE_CHECKING:\n    import accelerate"),
        ("metanlp.cli.commands", "class A:\n    def f(self):\n        import rich.table"),
        ("metanlp.backbone.encoder", "from peft.tuners.lora import layer"),
        ("metanlp.evaluation.held_out", 'arrow = import_module("pyarrow.parquet")'),
        ("recipes.demo", "import pickle"),
    ],
)
def test_a_planted_door_is_caught(module: str, line: str) -> None:
    caught = second_doors(sources() | {module: line})
    assert len(caught) == 1
    assert caught[0].startswith(f"{module} imports ")


def test_a_planted_ring_and_a_long_function_are_caught() -> None:
    ring = {
        "metanlp.algorithms.inner": "from metanlp.forms import heads",
        "metanlp.forms.heads": "def f():\n    import metanlp.algorithms.inner",
    }
    assert set(cycle(ring)) == {"metanlp.algorithms.inner", "metanlp.forms.heads"}
    body = "    pass\n" * 60
    assert too_long(
        {"metanlp.algorithms.inner": f"class A:\n  def f():\n{body}", "metanlp.forms.heads": "#\n" * 321}
    ) == [
        "metanlp.forms.heads has 321 lines",
        "metanlp.algorithms.inner.f has 61 lines",
    ]
