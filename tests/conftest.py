"""A tiny BERT with random weights and a real tokenizer, and a handful of the embedded tasks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import in_turn
import pytest
import torch
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from metanlp.backbone import Backbone, Lora
from metanlp.core.types import Batch, Meaning, Pass, Row, Task
from metanlp.episodes.pool import Encode, Pool
from metanlp.episodes.sampling import Episodes, Sampling, group
from metanlp.forms import FORMS
from metanlp.tasks.sources.mini import read_mini

TOYS = ("mini/emotions", "mini/answer_match", "mini/commit_types", "mini/intents_home", "mini/formality")

Here = Callable[..., in_turn.Ended]

# Two workers take whole files, from the first on: the longest come first, so that neither is left alone with one.
LONGEST = ("test_readme", "test_recipes", "test_algorithms", "test_forms", "test_meta_train", "test_best_effort")

# What a test calls that holds computed numbers against others: it is one for `make machines`.
COMPARES = {"near", "far", "equal", "array_equal", "slopes", "check_tasks_apart", "check_all_weights_learn"}

# Where other processes share the cores, a case may take a second.
hypothesis.settings.register_profile("shared cores", deadline=None)
hypothesis.settings.load_profile("shared cores")

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (*LONGEST, item.path.stem).index(item.path.stem))
    for item in items:
        if isinstance(item, pytest.Function) and COMPARES & {*item.function.__code__.co_names}:
            item.add_marker("numbers")


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    with on_threads(2):
        yield


def mini_tasks() -> dict[str, Task]:
    roles = read_mini()
    return {task.name: task for task in (*roles.train, *roles.validation, *roles.test)}


def word_pieces(texts: Sequence[str], size: int) -> dict[str, int]:
    """A WordPiece vocabulary: every character, alone and inside a word, and the commonest words. Not trained with
    `tokenizers`, which breaks ties differently in every process: the tiny model is to be the same in all."""
    normal, split = BertNormalizer(), BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(normal.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    common = sorted(words, key=lambda word: (-words[word], word))
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *common])
    return {piece: number for number, piece in enumerate(list(pieces)[:size])}


def write_tiny(folder: Path, texts: Sequence[str], layers: int = 4) -> None:
    """Hidden size 32, 1,000 tokens; the same bytes in every process."""
    config = BertConfig(
        vocab_size=1000,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,  # at the usual 0.02 so small a model says nearly the same of every text
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=word_pieces(texts, config.vocab_size)).save_pretrained(folder)


def pack_rows(rows: Sequence[Row], ways: int, encode: Encode) -> Batch:
    """Rows of classes that are numbered, as one batch."""
    return Pool(Meaning("classify", tuple(map(str, range(ways)))), rows, encode).pack(range(len(rows)))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `Backbone.load(str(tiny))` opens."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    folder.mkdir()
    texts = [
        text
        for task in mini_tasks().values()
        for row in task.pools["train"]
        for text in FORMS["classify"].texts(row)[0]
    ]
    write_tiny(folder, texts)
    return folder


@pytest.fixture(scope="session")
def net(tiny: Path) -> Backbone:
    """fp32 on every computer; nothing in it changes after construction, so one serves all tests."""
    return Backbone.load(str(tiny), Lora(rank=4, alpha=8), precision="fp32")


@pytest.fixture(scope="session")
def toy_tasks() -> tuple[Task, ...]:
    """Five tasks with two to many classes, pairs and single texts."""
    tasks = mini_tasks()
    return tuple(tasks[name] for name in TOYS)


@pytest.fixture(scope="session")
def toy_pass(net: Backbone, toy_tasks: tuple[Task, ...]) -> Pass:
    """One episode of every toy task in one pass: 6, 2, 5, 6 and 2 ways, pairs beside single texts."""
    sampling = Sampling(shots=(2, 4), queries=3)
    return group([Episodes([task], net.encode, sampling, seed=5)[0] for task in toy_tasks])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Runs `metanlp …` or `python recipe.py …` in this process, which has its libraries loaded: exit code, standard
    output, standard error. That they start in processes of their own is tested in test_cli.py."""
    monkeypatch.delenv("METANLP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*command: object) -> in_turn.Ended:
        monkeypatch.setattr("sys.argv", [])
        code: Any = 0
        try:
            in_turn.run(*map(str, command))
        except SystemExit as ended:
            code = ended.code
        out, said = capsys.readouterr()
        return code, out, said

    return run
