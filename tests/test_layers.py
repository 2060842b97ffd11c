"""The house rules that can be counted: imports go one way, each library has one door, nothing grows too long."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# DESIGN, "The house": a room may import from its own storey and from those below it, never from one above.
STOREYS = (
    ("errors", "types", "weights", "options", "config", "reach", "hub", "ragged", "disk"),
    ("tasks", "forms", "pool", "episodes", "backbone", "heads", "metrics"),
    ("inner", "algorithms"),
    ("exams", "recipe", "parallel", "outer", "progress", "signals", "log", "checkpoint", "artefact", "learner",
     "insight", "meta_train", "meta_test", "rivals"),
    ("report", "preparation", "experiment", "leave_one_out", "classifier", "card", "card_data", "publish", "export",
     "answers", "evaluation", "forecast", "info", "launch", "serve", "cli", "__main__", "__init__"),
    ("recipes",),
)  # fmt: skip
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}

# Arrows that the storeys would allow and the design does not.
CLOSED = {
    "algorithms": (
        "metanlp.tasks",
        "metanlp.exams",
        "metanlp.parallel",
        "metanlp.episodes",
        "metanlp.pool",
        "metanlp.backbone",
    ),
    "inner": ("metanlp.tasks", "metanlp.episodes", "metanlp.backbone"),
    "backbone": ("metanlp.tasks", "metanlp.forms", "metanlp.episodes"),
    "tasks": ("metanlp.backbone", "metanlp.episodes", "torch"),
    "meta_train": ("metanlp.tasks", "metanlp.exams", "transformers", "peft", "accelerate"),
}

# A library, and where it may be named.
DOORS = {
    "transformers": (
        "metanlp.backbone.encoder",
        "metanlp.export",
        "recipes.plain_loop",
    ),  # the loop that the engine is compared with
    "peft": ("metanlp.backbone.lora", "metanlp.export.plain", "recipes.plain_loop"),
    "bitsandbytes": ("metanlp.backbone.bits",),
    "psutil": ("metanlp.backbone.memory",),
    "accelerate": ("metanlp.parallel", "metanlp.log"),
    "evaluate": ("metanlp.metrics",),
    "scipy": ("metanlp.metrics",),
    "sklearn": ("metanlp.algorithms.frozen", "metanlp.classifier", "metanlp.rivals.setfit"),
    "setfit": ("metanlp.rivals.setfit",),
    "sentence_transformers": ("metanlp.rivals.setfit",),
    "higher": ("metanlp.inner",),
    "safetensors": ("metanlp.checkpoint", "metanlp.artefact", "metanlp.backbone.sentence", "metanlp.export.multi_lora"),
    "onnxruntime": ("metanlp.export.onnx",),
    "tyro": ("metanlp.config", "metanlp.cli", "recipes"),
    "pydantic": ("metanlp.config",),
    "rich": ("metanlp.report.tables", "recipes.bench_engine"),
    "matplotlib": ("metanlp.report.canvas",),
    "gradio": ("metanlp.serve.page",),
    "jinja2": ("metanlp.report.page",),
    "tqdm": ("metanlp.progress",),
    "datasets": ("metanlp.tasks.hub_client", "metanlp.rivals.setfit"),
    "huggingface_hub": (
        "metanlp.hub",
        "metanlp.card",
        "metanlp.card_data",
        "metanlp.tasks.hub_client",
        "metanlp.rivals.endpoint",  # its httpx
    ),
    "urllib": ("metanlp.reach", "metanlp.rivals.endpoint"),
    "pyarrow": ("metanlp.tasks",),
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
    """metanlp.tasks.files -> tasks; metanlp -> __init__; recipes.demo -> recipes."""
    parts = module.removesuffix(".__init__").split(".")
    return parts[0] if parts[0] != "metanlp" else parts[1] if len(parts) > 1 else "__init__"


def imports(source: str, modules: Iterable[str] = ()) -> Iterator[str]:
    """Dotted names of all that a source imports, wherever it stands in it; `import_module("name")` counts too."""
    known = {module.removesuffix(".__init__") for module in modules}
    for node in ast.walk(ast.parse(source)):
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


def test_every_room_has_its_storey() -> None:
    rooms = {room(module) for module in sources()}
    assert rooms <= STOREY.keys(), f"new rooms: {rooms - STOREY.keys()}; give each its storey above"


def test_imports_go_one_way() -> None:
    assert wrong_arrows(sources()) == []


def test_each_library_has_one_door() -> None:
    assert second_doors(sources()) == []


def test_no_ring_of_imports() -> None:
    assert cycle(sources()) == []


def test_nothing_is_too_long() -> None:
    assert too_long(sources()) == []


def test_the_doors_are_in_use() -> None:
    """A door that nobody goes through any more should leave the table."""
    found = sources()
    used = {name.split(".")[0] for source in found.values() for name in imports(source, found)}
    waiting = {"pickle"}
    assert set(DOORS) - used <= waiting


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("metanlp.weights", "from metanlp.meta_train import Plan"),
        ("metanlp.weights", "from metanlp import experiment"),
        ("metanlp.tasks.files", "import metanlp.algorithms.maml"),
        ("metanlp.algorithms.maml", "from metanlp.tasks.files import read_task"),
        ("metanlp.algorithms.maml", "from metanlp import parallel"),
        ("metanlp.meta_train", "def f():\n    from transformers.utils import logging"),
        ("metanlp.checkpoint", "from metanlp import Learner"),
        ("metanlp.cli", "import recipes.demo"),
    ],
)
def test_a_planted_arrow_is_caught(module: str, line: str) -> None:
    caught = wrong_arrows(sources() | {module: line})
    assert len(caught) == 1
    assert caught[0].startswith(f"{module} imports ")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("metanlp.learner", "from transformers import AutoModel"),
        ("metanlp.meta_train", "if TYPE_CHECKING:\n    import accelerate"),
        ("metanlp.cli", "class A:\n    def f(self):\n        import rich.table"),
        ("metanlp.backbone.encoder", "from peft.tuners.lora import layer"),
        ("metanlp.exams", 'arrow = import_module("pyarrow.parquet")'),
        ("recipes.demo", "import pickle"),
    ],
)
def test_a_planted_door_is_caught(module: str, line: str) -> None:
    caught = second_doors(sources() | {module: line})
    assert len(caught) == 1
    assert caught[0].startswith(f"{module} imports ")


def test_a_planted_ring_and_a_long_function_are_caught() -> None:
    ring = {"metanlp.inner": "from metanlp import heads", "metanlp.heads": "def f():\n    import metanlp.inner"}
    assert set(cycle(ring)) == {"metanlp.inner", "metanlp.heads"}
    body = "    pass\n" * 60
    assert too_long({"metanlp.inner": f"class A:\n  def f():\n{body}", "metanlp.heads": "#\n" * 321}) == [
        "metanlp.heads has 321 lines",
        "metanlp.inner.f has 61 lines",
    ]
