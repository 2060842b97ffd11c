"""Learners that write, with an encoder and a decoder or after a prompt: saved, adapted, asked, judged, refused."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from causal_models import model_of as causal_of
from languages import sentences
from near import LAYERS, near
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from seq2seq_models import LORA, TOKENIZER, model_of, stirred

from metanlp.algorithms import Maml
from metanlp.algorithms.base import Inner
from metanlp.backbone import Backbone
from metanlp.backbone.models import kind_of
from metanlp.core import weights
from metanlp.core.errors import DamagedError, InputError
from metanlp.episodes.sentence_pairs import SentencePairs
from metanlp.learner.artefact import CONFIG
from metanlp.learner.learner import Adapted, Learner, load_model
from metanlp.share.export import export
from metanlp.tasks.reading.build import task_from_rows

OPENS = {"marian": "AutoModelForSeq2SeqLM", "llama": "AutoModelForCausalLM"}
PROMPT = {"marian": ">>{target_lang}<< ", "llama": "{source_lang}: {source} {target_lang}:"}
PAIRS = [(source, target, "en", "l0") for source, target in sentences(0, 12)]
INNER = Inner(3, 0.05, 1.0, optimiser="adam")


@pytest.fixture(scope="module", params=OPENS)
def learner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learner:
    kind: str = request.param
    base = tmp_path_factory.mktemp(kind) / "model"
    (causal_of if kind == "llama" else model_of)(kind).save_pretrained(str(base))
    TOKENIZER.save_pretrained(str(base))
    net = kind_of(OPENS[kind]).load(str(base), LORA, max_length=24, prompt=PROMPT[kind])
    theta = stirred(net.init(torch.Generator().manual_seed(0)))
    return Learner(Maml(INNER), net, theta, {"tasks": {"train": ["en_l1"]}})


def base_of(learner: Learner) -> str:
    return learner.net.base.folder


def test_a_learner_comes_back_as_it_was(learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path)
    again = Learner.load(tmp_path, base=base_of(learner))
    assert again.net.options == learner.net.options
    assert weights.equal({key: again.theta[key] for key in learner.theta}, learner.theta)
    one, other = (each.adapt(PAIRS) for each in (learner, again))
    assert weights.equal(one.phi, other.phi)
    one.save(tmp_path / "adapted")
    loaded = load_model(tmp_path / "adapted", base=base_of(learner))
    assert isinstance(loaded, Adapted)
    assert weights.equal(loaded.phi, one.phi)
    assert loaded.predict(["the old dog", "my cat"]) == one.predict(["the old dog", "my cat"])
    assert json.loads((tmp_path / "adapted" / CONFIG).read_text())["backbone"]["languages"] == ["en", "l0"]
    with pytest.raises(InputError, match=r"holds a model of kind 'adapted', and one of kind 'learner' is needed here"):
        Learner.load(tmp_path / "adapted", base=base_of(learner))
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="is not the file that was saved"):
        Learner.load(tmp_path, base=base_of(learner))


def test_adapting_is_the_methods_own_and_teaches(learner: Learner) -> None:
    """Support sets in any container; a model that was adapted has them cheaper than one that was not."""
    adapted, fast = learner.adapt(PAIRS), learner.adapt(PAIRS, effort="fast")
    assert adapted.score(PAIRS)["nll"] < fast.score(PAIRS)["nll"]
    assert (adapted.form, adapted.labels) == ("generate", ())
    net = learner.net.between(("en", "l0"))
    sources, targets = [row[0] for row in PAIRS], [row[1] for row in PAIRS]
    pool = SentencePairs(*net.encode(sources, targets))
    assert weights.equal(learner.algorithm.adapt(net, learner.theta, pool.whole()), adapted.phi)
    names = ("source", "target", "source_lang", "target_lang")
    rows = [dict(zip(names, pair, strict=True)) for pair in PAIRS]
    columns = {"english": sources, "other": targets, "a": ["en"] * len(PAIRS), "b": ["l0"] * len(PAIRS)}
    mapped = learner.adapt(columns, columns=dict(zip(names, columns, strict=True)))
    assert weights.equal(learner.adapt(rows).phi, adapted.phi)
    assert weights.equal(mapped.phi, adapted.phi)


def test_answers_and_scores_are_those_of_the_model(learner: Learner) -> None:
    adapted = learner.adapt(PAIRS[:6])
    rows, phi, net = PAIRS[6:], adapted.phi, adapted.net
    sources, targets = [row[0] for row in rows], [row[1] for row in rows]
    written = net.generate(phi, sources, 2)
    assert adapted.predict(sources, beams=2) == written
    assert adapted.answers([{"source": sources[0]}], beams=2) == [{"target": written[0]}]
    found = adapted.score(rows)
    greedy = net.generate(phi, sources, 1)
    near(found["chrf"], CHRF().corpus_score(greedy, [targets]).score)
    near(found["bleu"], BLEU(force=True).corpus_score(greedy, [targets]).score)
    batch = SentencePairs(*net.encode(sources, targets)).whole()
    with torch.no_grad():
        loss = adapted.algorithm.scores_loss(adapted.algorithm.scores(net, phi, batch), batch)
    near(found["nll"], float(loss[0]), LAYERS)
    assert found["rows"] == 6
    assert adapted.predict([]) == []


def test_the_export_writes_the_same_with_plain_peft(learner: Learner, tmp_path: Path) -> None:
    """By the code of its page, in its folder, with the model beside."""
    adapted = learner.adapt(PAIRS)
    export(adapted, "lora", tmp_path / "peft")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "peft" / "README.md").read_text(), re.DOTALL)
    (tmp_path / "peft" / "model").symlink_to(base_of(learner))
    space: dict[str, Any] = {}
    with contextlib.chdir(tmp_path / "peft"):
        exec(code, space)
    asked = [row[0] for row in PAIRS[:3]]
    assert [space["write"](text) for text in asked] == adapted.predict(asked)


def test_plain_pairs_need_no_tags_where_no_prompt_names_them(learner: Learner) -> None:
    kind = type(learner.net)
    plain = kind.load(base_of(learner), LORA, max_length=24, prompt="say: ")
    pairs = [pair[:2] for pair in PAIRS]
    bare = Learner(learner.algorithm, plain, learner.theta)
    adapted = bare.adapt(pairs)
    assert weights.equal(bare.adapt([pair[0] for pair in pairs], [pair[1] for pair in pairs]).phi, adapted.phi)
    assert len(adapted.predict("a dog sees the cat")) == 1
    assert np.isfinite(adapted.score(PAIRS)["nll"])  # languages that the model was not told are passed over


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([pair[:2] for pair in PAIRS], {}, "a language tag is missing: the prompt .* names languages; give each"),
        ([{"source": "a", "target": "b", "source_lang": "en"}], {}, "row 1: has no language tag 'target_lang'; write"),
        ([{"source": "a", "target": " "}], {}, "row 1: has a source without a target; add it, or remove the row"),
        ([{"source": None, "target": "b"}], {}, "row 1: has a target without a source; add it, or remove the row"),
        ([*PAIRS, ("a", "b", "en", "fr")], {}, "row 13: is en to fr, but examples: row 1 is en to l0; give"),
        (PAIRS, {"effort": "best"}, "a learner that writes does not try numbers of steps"),
        (PAIRS, {"label_names": {"a": "b"}}, "the examples are of the form 'generate', whose answers have no names"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {}, ".classify.; .* method knows generate"),
        (["a", "b"], {}, r"example 1 is 'a'; give \(source, target\), \(source, target, source_lang, target_lang\)"),
    ],
)  # fmt: skip
def test_what_it_can_not_learn_from(learner: Learner, given: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        learner.adapt(given, **options)


def test_what_it_can_not_answer(learner: Learner) -> None:
    adapted = learner.adapt(PAIRS[:4], effort="fast")
    with pytest.raises(InputError, match="row 2 is ' '; give a text, or a row with `source`"):
        adapted.predict(["a", " "])
    with pytest.raises(InputError, match="the rows are en to fr, the model writes en to l0; give such rows"):
        adapted.score([("a", "b", "en", "fr")])
    with pytest.raises(InputError, match="0 beams are asked for; give 1"):
        adapted.predict(["a"], beams=0)
    with pytest.raises(InputError, match="of the form 'generate' has no probabilities of classes"):
        adapted.scores(["a"])
    with pytest.raises(InputError, match="of the form 'generate'; give texts with one label each"):
        learner.left_out(task_rows())


def task_rows() -> list[dict[str, str]]:
    return [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]


def test_a_learner_that_reads_takes_no_translations(net: Backbone) -> None:
    method = Maml(INNER)
    tiny_learner = Learner(method, net, method.init(net, torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="of the form 'generate'; this learner's method knows classify, tag, "):
        tiny_learner.adapt_to(task_from_rows("rows", task_rows()))
    few = tiny_learner.adapt([("good coffee", "praise"), ("bad train", "complaint")], effort="fast")
    with pytest.raises(InputError, match="2 beams are asked for, but a model of the form 'classify' writes no text"):
        few.predict(["good"], beams=2)
