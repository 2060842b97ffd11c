"""Domains of plain text from the command line to a table: each is judged by what has never read it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Here
from domains_of_text import sentences, write_domains
from transformers import AutoTokenizer

from metanlp.core.errors import InputError
from metanlp.core.weights import from_safetensors
from metanlp.episodes.corpus import Chunks
from metanlp.experiment.lm_domains import lm_domains
from metanlp.experiment.options import LanguageDomains

RECIPE = Path(__file__).parents[2] / "recipes" / "lm_domains.py"
METHODS = ("none", "finetune", "multitask", "reptile", "maml")


def asked(text: Path, out: Path, **others: Any) -> LanguageDomains:
    small = {"pretrain_steps": 3, "vocabulary": 200, "layers": 2, "width": 16, "heads": 2, "max_length": 24, "steps": 2,
             "meta_batch": 2, "train_shots": (2, 3), "train_queries": 2, "rank": 4, "shots": (2, 4), "episodes": 2,
             "test_passages": 20, "search_trials": 1, "held_out": 0.3, "threads": 1}  # fmt: skip
    return LanguageDomains(text=str(text), out=out, **{**small, **others})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LanguageDomains:
    """A whole run over three domains: the third has the first beside it, which has been judged before."""
    home = tmp_path_factory.mktemp("lm")
    given = asked(write_domains(home / "text", 3), home / "out")
    lm_domains(given)
    return given


def learned(out: Path, pair: str) -> dict[str, Any]:
    """All weights that the run of a pair of domains has left."""
    files = [*(out / pair).rglob("*.safetensors")]
    return {str(path.relative_to(out)): from_safetensors(path.read_bytes()) for path in files}


def test_what_it_leaves(made: LanguageDomains) -> None:
    found = json.loads((made.out / "results.json").read_text())
    cells = {(cell["domain"], cell["method"], cell["shots"]): cell for cell in found["cells"]}
    assert cells.keys() == {(d, m, k) for d in ("d0", "d1", "d2") for m in METHODS for k in (2, 4)}
    assert all(len(cell["sets"]) == 2 and 0 < min(cell["sets"]) < 12 for cell in cells.values())
    assert len({*cells["d0", "none", 2]["sets"], *cells["d0", "none", 4]["sets"]}) == 1
    assert {each["b"] for each in found["paired"]} == {"multitask"}
    tokens = [cost["maml"]["tokens"] for cost in found["costs"]]
    for cost, main in zip(found["costs"], tokens, strict=True):
        assert all(main <= cost[name]["tokens"] < 2 * main for name in ("multitask", "reptile"))
    assert {path.suffix for path in (made.out / "plots").iterdir()} == {".csv", ".png", ".svg"}


@pytest.mark.slow
def test_a_domain_that_judges_has_taught_nothing(made: LanguageDomains, tiny: Path, tmp_path: Path) -> None:
    """The model has read the third domain alone, and no θ changes with the texts of the two that are held out."""
    model = made.out / "d0+d1" / "model"
    tokenizer = AutoTokenizer.from_pretrained(model)
    read = {
        word
        for side in ("train", "held_out")
        for word in tokenizer.decode(Chunks.open(model / "corpus" / side).take(np.arange(9))[0]).split()
    }
    assert read & {*sentences(2)[0].split()}
    assert not read & {*sentences(0)[0].split()[:8], *sentences(1)[0].split()[:8]}

    given = replace(made, model=str(tiny), methods=("reptile", "maml"), shots=(2,), out=tmp_path / "out")
    text = write_domains(tmp_path / "text", 3)
    for out, words in ((tmp_path / "one", "nobody reads this"), (tmp_path / "two", "nor this, ever")):
        for name in ("d0", "d1"):
            (text / f"{name}.txt").write_text("\n".join(f"{words} {name} {n}" for n in range(60)))
        lm_domains(replace(given, text=str(text), out=out))
    one, two = learned(tmp_path / "one", "d0+d1"), learned(tmp_path / "two", "d0+d1")
    assert len(one) == 2 * 2  # two methods, a checkpoint each step
    assert one.keys() == two.keys()
    for name, tensors in one.items():
        assert all(value.equal(two[name][key]) for key, value in tensors.items()), name


def test_resuming_takes_what_is_done(made: LanguageDomains, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "out")
    given = replace(made, out=tmp_path / "out", resume=True)
    (given.out / "d2+d0" / "results.json").unlink()
    (given.out / "results.json").unlink()
    lm_domains(given)
    first, again = (json.loads((out / "results.json").read_text()) for out in (made.out, given.out))
    assert first["cells"] == again["cells"]
    with pytest.raises(InputError, match=r"d0\+d1 was made with steps = 2, now it is 3; resume with the same"):
        lm_domains(replace(given, steps=3))


def test_a_checkpoint_and_the_command_line(tiny: Path, tmp_path: Path, here: Here) -> None:
    text = write_domains(tmp_path / "text", 3)
    code, out, said = here(
        "python", RECIPE, "--text", text, "--model", tiny, "--max-length", 24, "--steps", 1, "--meta-batch", 1,
        "--train-shots", 2, 3, "--train-queries", 2, "--shots", 2, "--episodes", 2, "--test-passages", 8,
        "--search-trials", 1, "--methods", "finetune", "maml", "--threads", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, said
    assert "which may have read the held-out domains before; 6 weights of its vocabulary head are new" in out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(each["a"], each["b"]) for each in found["paired"]} == {("none", "finetune"), ("maml", "finetune")}


@pytest.mark.parametrize(
    ("count", "texts", "others", "said"),
    [
        (1, 60, {}, r"has d0 alone; give 3 domains or more: two are held out at a time"),
        (3, 1, {"shots": (64,)}, "'d0' has [01] texts to learn from, but 64 shots"),
        (3, 60, {"methods": ("matching",)}, "--methods names 'matching'; these texts are learned by gradient steps"),
        (3, 60, {"methods": ("maml", "finetune")}, "the last of --methods has to be one that is meta-trained"),
        (3, 60, {"held_out": 1.5}, "--held-out 1.5 is a share"),
        (3, 60, {"train_queries": 100}, r"'d2' has \d+ texts to learn from, but 3 shots and 100 beside them"),
    ],
)
def test_bad_input(tmp_path: Path, count: int, texts: int, others: dict[str, Any], said: str) -> None:
    text = write_domains(tmp_path / "text", count, texts)
    with pytest.raises(InputError, match=said):
        lm_domains(asked(text, tmp_path / "out", **others))


def test_no_domain_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder; give one in which each file or folder is a domain"):
        lm_domains(asked(tmp_path / "text", tmp_path / "out"))
    text = write_domains(tmp_path / "text", 3)
    (text / "d1.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"d1\.txt: holds no text"):
        lm_domains(asked(text, tmp_path / "out"))
