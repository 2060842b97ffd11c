"""What others do with an exported model gives the scores that it gave: onnxruntime alone, plain peft, a pipeline."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from near import INNER_STEPS, near
from peft import PeftModel
from safetensors.torch import load_file
from slowly import slow_but
from tiny_models import tiny_model
from tokenizers_of import tokenizer_of
from transformers import AutoModel, AutoTokenizer, dynamic_module_utils, pipeline

from metanlp.algorithms import ALGORITHMS, Algorithm, Frozen, Maml
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora
from metanlp.cli.commands import main
from metanlp.core.errors import InputError
from metanlp.learner.learner import Adapted, Learner
from metanlp.share.export import export, views_classifier
from metanlp.share.export import onnx as onnx_export
from metanlp.share.export.pipeline import CLASSIFIERS
from metanlp.share.export.plain import check_exportable, padded, parts_of, scorer_of

ROWS = [("the parcel never came", "delivery"), ("my card was charged twice", "payment"),
        ("where is my order", "delivery"), ("please send the money back", "payment")]  # fmt: skip
PAIRS = [("it rains", "it is wet", "yes"), ("it snows", "it is hot", "no"), ("a cat sleeps", "a cat runs", "no")]
NEW = [
    "nothing was delivered",
    "a wrong amount on the bill of last month, and nobody to ask for it",
    "thanks",
    "x " * 300,
]
MARKED = [
    "the bill [SEP] is wrong",
    "</s> no </s></s> parcel",
    "[CLS] <s> thanks <|endoftext|> to you",
    "<pad> [PAD] it",
]
NEW_PAIRS = [
    ("it pours", "it is dry and it is warm"),
    ("one more Day", "day"),  # a phrase of the first text
    ("a dog that runs away " * 9, "no"),
]


def adapted_on(net: Backbone, rows: Any = ROWS, algorithm: Algorithm | None = None) -> Adapted:
    """θ as after some training."""
    made, generator = algorithm or Maml(inner=Inner(steps=1, lr=0.1, head_lr=0.1)), torch.Generator().manual_seed(3)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=generator)
             for key, value in made.init(net, generator).items()}  # fmt: skip
    return Learner(made, net, theta).adapt(rows)


@pytest.fixture(scope="module")
def adapted(net: Backbone) -> Adapted:
    return adapted_on(net)


def model_folder(kind: str, tiny: Path, folder: Path) -> Path:
    """A model of an architecture, with a tokenizer of its kind."""
    made = folder / f"tiny-{kind}"
    own = kind in ("roberta", "xlm-roberta", "modernbert", "gpt2", "llama")
    tokenizer: Any = tokenizer_of(kind) if own else AutoTokenizer.from_pretrained(tiny)
    tiny_model(kind, vocab_size=1000, pad_token_id=tokenizer.pad_token_id or 0).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "modernbert", "gpt2", "llama", "deberta-v2"])
def test_padded_and_merged_the_scores_are_the_same(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Also of texts that hold the tokenizer's own marks, and of those that are cut."""
    folder = model_folder(kind, tiny, tmp_path)
    net = Backbone.load(str(folder), Lora(rank=4, alpha=8), precision="fp32")
    for rows, asked in ((ROWS, [*NEW, *MARKED]), (PAIRS, [*NEW_PAIRS, *zip(MARKED, NEW, strict=True)])):
        model = adapted_on(net, rows)
        parts = parts_of(model, str(folder))
        assert set(parts.inputs) <= {*parts.tokenizer("a"), "segments"}
        given = padded(parts, model, [(text,) if isinstance(text, str) else text for text in asked])
        near(scorer_of(parts)(**given), model.logits(asked), INNER_STEPS)


@pytest.fixture(scope="module")
def of_two(tiny: Path) -> Adapted:
    """With two sets of adapters, as joined learners have."""
    views = ("adapted2.4.all", "adapted.4.all", "frozen.3.all", "adapted2.3.all")
    return adapted_on(Backbone.load(str(tiny), Lora(rank=4, alpha=8), views=views, precision="fp32"))


def test_every_set_of_adapters_is_merged(of_two: Adapted, tiny: Path) -> None:
    parts = parts_of(of_two, str(tiny))
    given = padded(parts, of_two, [(text,) for text in NEW])
    near(scorer_of(parts)(**given), of_two.logits(NEW), INNER_STEPS)
    first, second = parts.merged
    for merged in ((second, first), (first, first), (second, second)):
        found = scorer_of(replace(parts, merged=merged))(**given)
        assert not torch.allclose(found, scorer_of(parts)(**given), atol=1e-2)


def test_a_model_with_two_sets_of_adapters_is_exported_whole_or_not(
    of_two: Adapted, tiny: Path, tmp_path: Path
) -> None:
    export(of_two, "onnx", tmp_path / "onnx", base=str(tiny))  # raises where its scores are others
    with pytest.raises(InputError, match="2 sets of adapters, of which peft's file holds one; export to onnx"):
        export(of_two, "lora", tmp_path / "lora", base=str(tiny))
    export(of_two, "pipeline", tmp_path / "pipeline", base=str(tiny), custom_code=True)
    given = AutoTokenizer.from_pretrained(tmp_path / "pipeline")(NEW[:1], return_tensors="pt")
    model = views_classifier.ViewsClassifier.from_pretrained(tmp_path / "pipeline").eval()
    with torch.no_grad():
        near(model(**given).logits, of_two.logits(NEW[:1]), INNER_STEPS)


def test_the_adapter_and_every_view_count(adapted: Adapted, tiny: Path) -> None:
    parts = parts_of(adapted, str(tiny))
    given = padded(parts, adapted, [(text,) for text in NEW])
    before = scorer_of(parts)(**given)
    assert not torch.allclose(scorer_of(replace(parts, merged=(parts.plain,)))(**given), before, atol=1e-2)
    for view in range(len(parts.reading.views)):
        width = parts.reading.width
        parts.reading.weight[:, view * width : (view + 1) * width] *= -1
        assert not torch.allclose(scorer_of(parts)(**given), before, atol=1e-3)
        parts.reading.weight[:, view * width : (view + 1) * width] *= -1


@pytest.mark.parametrize(
    ("kind", "rows", "precision"),
    slow_but([("xlm-roberta", PAIRS, "int8")], [("bert", ROWS, "fp32"), ("xlm-roberta", PAIRS, "int8")]),
)
def test_onnx_alone_gives_our_scores(
    kind: str,
    rows: Any,
    precision: Any,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The page's own code, with numbers of texts and lengths that the export never saw."""
    folder = tiny if kind == "bert" else model_folder(kind, tiny, tmp_path)
    model = adapted_on(Backbone.load(str(folder), Lora(rank=4, alpha=8), precision="fp32"), rows)
    said = export(model, "onnx", tmp_path / "out", base=str(folder), precision=precision)
    assert bool(re.fullmatch(r"answers as before to (6\d|5\d) of 64 texts, .*", said)) == (precision == "int8")
    assert not logging.getLogger().isEnabledFor(logging.INFO)  # which importing what rounds would turn on
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(str(tmp_path / "out"))
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    exec(code, known)
    assert capsys.readouterr().out.strip() in [str([label]) for label in model.labels]
    assert "metanlp" not in code
    new: list[Any] = [*NEW_PAIRS, *zip(MARKED, NEW, strict=True)] if model.pairs else [*NEW, *MARKED]
    for texts in (new, new[:1], new[1:3]):
        found = torch.from_numpy(known["scores"](texts))
        near(
            *((found, model.logits(texts), INNER_STEPS) if precision == "fp32" else (found.half(), model.logits(texts)))
        )
    config = json.loads(Path("config.json").read_text())
    assert (config["labels"], config["pairs"]) == (list(model.labels), model.pairs)
    assert ("token_type_ids" in config["inputs"]) == (kind == "bert")
    once = sum(value.nbytes for value in load_file(folder / "model.safetensors").values())
    assert Path("model.onnx").stat().st_size < 1.6 * once  # layers that both models share stand there once
    for path in Path().iterdir():
        for place in (folder.parent, Path(np.__file__).parents[1], Path(onnx_export.__file__).parents[1]):
            assert str(place).encode() not in path.read_bytes(), path
    if precision == "fp32":
        onnx_export.lower(Path("model.onnx"), "fp16")
        exec(code, known)
        near(torch.from_numpy(known["scores"](new)).half(), model.logits(new))


def test_plain_peft_holds_several_tasks(
    adapted: Adapted, net: Backbone, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = adapted_on(net, [(text, str(len(text) % 3)) for text, _ in (*ROWS, ("what", ""), ("who is it", ""))])
    for name, model in (("one", adapted), ("two", other)):
        export(model, "lora", tmp_path / name, base=str(tiny))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base: Any = PeftModel.from_pretrained(
            AutoModel.from_pretrained(tiny), tmp_path / "one", adapter_name="one"
        ).eval()
        base.load_adapter(tmp_path / "two", adapter_name="two")
    pages = {name: code_of(tmp_path / name, tiny, monkeypatch) for name in ("one", "two")}
    for name, model in (("one", adapted), ("two", other), ("one", adapted)):
        pages[name]["model"] = base
        base.set_adapter(name)
        near(pages[name]["scores"](NEW[0]).numpy(), model.logits(NEW[:1])[0], INNER_STEPS)


def test_an_adapter_says_on_which_commit_of_its_base_it_was_learned(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted_on(Backbone.load(str(tiny), Lora(rank=4, alpha=8), precision="fp32"))
    monkeypatch.setattr(model.net, "base", replace(model.net.base, revision="0" * 40))
    export(model, "lora", tmp_path / "out", base=str(tiny))
    for name in ("head.json", "adapter_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["revision"] == "0" * 40
    assert (tmp_path / "out" / "README.md").read_text().count('revision=head["revision"]') == 2


def code_of(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code on an adapter's page defines."""
    head = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps(head | {"base": str(model_folder)}))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    known: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, known)
    return known


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_an_adapter_of_pairs_for_a_tokenizer_without_types(
    kind: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2's puts nothing between two texts, so that the model has a line break there."""
    folder = model_folder(kind, tiny, tmp_path)
    model = adapted_on(Backbone.load(str(folder), Lora(rank=4, alpha=8), precision="fp32"), PAIRS)
    export(model, "lora", tmp_path / "out", base=str(folder))
    scores = code_of(tmp_path / "out", folder, monkeypatch)["scores"]
    assert capsys.readouterr().out.strip() in model.labels
    for pair in NEW_PAIRS[:2]:
        near(scores(*pair).numpy(), model.logits([pair])[0], INNER_STEPS)


def test_a_pipeline_of_pairs_wants_a_tokenizer_that_parts_them(tiny: Path, tmp_path: Path) -> None:
    folder = model_folder("gpt2", tiny, tmp_path)
    model = adapted_on(Backbone.load(str(folder), Lora(rank=4, alpha=8), precision="fp32"), PAIRS)
    with pytest.raises(InputError, match="puts no line break between two texts"):
        export(model, "pipeline", tmp_path / "out", base=str(folder), custom_code=True)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_pipeline_opens_a_model_with_its_own_pooling(kind: str, tiny: Path, tmp_path: Path) -> None:
    folder = model_folder(kind, tiny, tmp_path)
    lora = Lora(rank=4, alpha=8)
    net = Backbone.load(str(folder), lora, views=("adapted.4.cls",), precision="fp32")
    model = adapted_on(net)
    said = export(model, "pipeline", tmp_path / "out", base=str(folder))  # type: ignore[arg-type]
    same, of = map(int, re.findall(r"to (\d+) of (\d+) texts", said)[0])
    assert same >= 0.9 * of
    opened: Any = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    assert all("truncation=True" in page for page in (code, said))
    asked = [*NEW, *MARKED]
    answers = opened(asked, top_k=None, truncation=True)
    for ours, theirs in zip(model.scores(asked), answers, strict=True):
        by_label = {row["label"]: row["score"] for row in theirs}
        assert [by_label[label] for label in model.labels] == pytest.approx(list(ours), abs=0.15)


@pytest.mark.parametrize(
    ("kind", "views"),
    [("bert", ()), pytest.param("roberta", ("adapted.4.all", "frozen.2.last"), marks=pytest.mark.slow)],
)
def test_a_pipeline_with_its_code_reads_any_views(
    kind: str, views: tuple[str, ...], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the answers all digits are the model's; without the caller's trust it is not opened."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tiny if kind == "bert" else model_folder(kind, tiny, tmp_path)
    model = adapted_on(Backbone.load(str(folder), Lora(rank=4, alpha=8), views=views, precision="fp32"))
    said = export(model, "pipeline", tmp_path / "out", base=str(folder), custom_code=True)
    assert "answers as before to 64 of 64 texts, probabilities within 0.000" in said
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    assert all("trust_remote_code=True" in page for page in (code, said))
    copied = (tmp_path / "out" / "views_classifier.py").read_text()
    assert copied == Path(views_classifier.__file__).read_text()
    assert not re.search(r"^(from|import) metanlp", copied, re.MULTILINE)
    opened: Any = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    asked = [*NEW, *MARKED]
    answers = [{row["label"]: row["score"] for row in rows} for rows in opened(asked, top_k=None, truncation=True)]
    near(np.array([[row[label] for label in model.labels] for row in answers]), model.scores(asked), INNER_STEPS)
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline("text-classification", model=str(tmp_path / "out"), device="cpu", trust_remote_code=False)


def test_what_has_no_such_export_is_said(adapted: Adapted, net: Backbone, tiny: Path, tmp_path: Path) -> None:
    for kind in ALGORITHMS:
        made = adapted_on(net, algorithm=replace(ALGORITHMS[kind](), inner=replace(ALGORITHMS[kind]().inner, steps=0)))
        if kind in ("matching", "siamese", "mapping", "memory"):
            with pytest.raises(InputError, match="compares texts with its examples"):
                check_exportable(made)
        else:
            check_exportable(made)
    numbers = Learner(Maml(), net, Maml().init(net, torch.Generator().manual_seed(0))).adapt(
        [{"text": text, "score": float(n)} for n, (text, _) in enumerate(ROWS)])  # fmt: skip
    with pytest.raises(InputError, match="of the form 'regress' is not exported"):
        export(numbers, "onnx", tmp_path / "no", base=str(tiny))
    with pytest.raises(InputError, match=r"reads adapted\.4\.cls alone, .* --views adapted\.4\.cls"):
        export(adapted, "pipeline", tmp_path / "no", base=str(tiny))
    with pytest.raises(InputError, match="int8 is for onnx alone"):
        export(adapted, "lora", tmp_path / "no", base=str(tiny), precision="int8")
    with pytest.raises(InputError, match="--custom-code is for a pipeline alone"):
        export(adapted, "lora", tmp_path / "no", base=str(tiny), custom_code=True)
    with pytest.raises(InputError, match=r"can't say which text a token is of.*; export to onnx"):
        export(adapted_on(net, PAIRS), "pipeline", tmp_path / "no", base=str(tiny), custom_code=True)
    with pytest.raises(InputError, match="no precision is called 'int4'; there are fp32, fp16, int8"):
        export(adapted, "onnx", tmp_path / "no", base=str(tiny), precision="int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no export is called 'gguf'"):
        export(adapted, "gguf", tmp_path / "no", base=str(tiny))  # type: ignore[arg-type]


def test_a_frozen_model_is_exported_too(net: Backbone, tiny: Path) -> None:
    model = adapted_on(net, algorithm=Frozen())
    parts = parts_of(model, str(tiny))
    given = padded(parts, model, [(text,) for text in NEW])
    near(scorer_of(parts)(**given), model.logits(NEW), INNER_STEPS)


def test_a_missing_library_is_one_line(adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_library"))
    with pytest.raises(InputError, match=r"^ONNX needs no_such_library; pip install 'metanlp\[onnx\]'$"):
        export(adapted, "onnx", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_what_is_refused_leaves_nothing_behind(adapted: Adapted, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export to onnx"):
        export(adapted, "pipeline", tmp_path / "out", base=str(tiny))
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_refused(adapted: Adapted) -> None:
    ours = adapted.logits(onnx_export.PROBES)
    onnx_export.check_equal(adapted, ours)
    with pytest.raises(RuntimeError, match=r"scores differ by 0\.01"):
        onnx_export.check_equal(adapted, ours + np.float32(0.01))


def test_the_command(
    adapted: Adapted, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted.save(tmp_path / "model")
    words = ["--from", tmp_path / "model", "--to", "lora", "--out", tmp_path / "out", "--base", tiny]
    monkeypatch.setattr(sys, "argv", ["metanlp", "export", *map(str, words)])
    main()
    assert (
        capsys.readouterr().out
        == f"{tmp_path / 'out'}: exported to lora; README.md there has the lines that open it with peft\n"
    )
    expected = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.json",
        "head.safetensors",
        "phrase.py",
        "README.md",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
