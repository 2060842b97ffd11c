"""Pretraining from the command line to a model that everything else opens."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Here, mini_tasks
from near import LAYERS, near
from transformers import AutoModelForMaskedLM

from metanlp.backbone import Backbone, Lora
from metanlp.backbone.masked_lm import MaskedLM
from metanlp.core.errors import InputError, StoppedError
from metanlp.core.outputs import CORPUS
from metanlp.episodes.corpus import Chunks, Epochs, MaskedChunks, Masking, Vocabulary
from metanlp.experiment.options import Pretraining
from metanlp.experiment.pretrain import Pretrained, pretrain
from metanlp.tasks.sources.corpus import held_out

RECIPE = Path(__file__).parents[2] / "recipes" / "pretrain_mlm.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    lines = [row["text"] for task in mini_tasks().values() for row in task.pools["train"] if "text" in row]
    (folder / "mini.txt").write_text("\n".join(lines))
    return folder


def asked(corpus: Path, out: Path, **others: object) -> Pretraining:
    small = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 600, "batch": 16, "max_length": 24, "steps": 6,
             "precision": "fp32", "threads": 1}  # fmt: skip
    return Pretraining(text=str(corpus), out=out, **{**small, **others})  # type: ignore[arg-type]


def done(given: Pretraining) -> Pretrained:
    found = pretrain(given)
    assert found is not None
    return found


def test_a_model_learns_and_is_whole(tmp_path: Path) -> None:
    """Twelve sentences, each of words of its own: what is left of one tells what is hidden."""
    out = tmp_path / "out"
    sentences = [" ".join(f"{letter}{other}" for other in "bcdfgh") for letter in "aeiouylmnrst"]
    text = "\n".join(f"{sentence} {number}" for number in range(40) for sentence in sentences)
    (tmp_path / "text.txt").write_text(text)
    found = done(asked(tmp_path / "text.txt", out, steps=150, lr=5e-3, held_out=0.1))
    assert found.perplexity < 0.7 * found.unigram_perplexity
    near(found.perplexity, 2**found.bits_per_token)
    told = json.loads((out / "results.json").read_text())
    assert told["perplexity"] == found.perplexity
    assert told["asked"]["steps"] == 150
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 150
    assert steps[-1]["validation"] > steps[20]["validation"]  # minus bits a token
    assert AutoModelForMaskedLM.from_pretrained(out).config.num_hidden_layers == 2
    net = Backbone.load(str(out), Lora(rank=4), max_length=24)
    assert net.depth == 2
    assert net.encode([("a text",)]).ids[0] == net.tokenizer.cls_token_id


def test_a_resumed_run_ends_with_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    done(asked(corpus, whole, dropout=0.1))
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step_6")
    for name in ("model.safetensors", "results.json"):
        (half / name).unlink()
    first = done(asked(corpus, half, dropout=0.1, resume=True))
    assert (half / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert first.bits_per_token == json.loads((whole / "results.json").read_text())["bits_per_token"]


def test_a_tokenizer_learns_from_no_held_out_text(tmp_path: Path) -> None:
    """A new word in each line: those of lines that judge are unknown as words."""
    lines = {f"w{chr(97 + n // 26)}{chr(97 + n % 26)}q": f"common words and number {n}" for n in range(60)}
    texts = {word: " ".join([text, *[word] * 5]) for word, text in lines.items()}
    (tmp_path / "text.txt").write_text("\n".join(texts.values()))
    done(asked(tmp_path / "text.txt", tmp_path / "out", steps=1, held_out=0.3))
    known = MaskedLM.load(str(tmp_path / "out"), precision="fp32").tokenizer.get_vocab()
    judge = {word for word, text in texts.items() if held_out(text, 0.3)}
    assert 5 < len(judge) < 40
    assert judge.isdisjoint(known)
    assert {*texts} - judge <= {*known}


def test_an_encoder_goes_on(corpus: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = done(asked(corpus, out, model=str(tiny), steps=4))
    assert "new weights: 6 of a vocabulary head" in capsys.readouterr().out
    assert found.steps == 4
    before, after = (MaskedLM.load(str(path), precision="fp32") for path in (tiny, out))
    assert after.tokenizer("hello there")["input_ids"] == before.tokenizer("hello there")["input_ids"]
    key = "base/bert.encoder.layer.0.output.dense.weight"
    old, new = (net.init(torch.Generator())[key] for net in (before, after))
    assert 0 < (old - new).abs().max() < 0.1


def test_two_passes_a_step_are_one_of_twice_the_size(corpus: Path, tmp_path: Path) -> None:
    """Where the halves have as many masked tokens; here nearly."""
    one, two = tmp_path / "one", tmp_path / "two"
    first = done(asked(corpus, one, batch=16, accumulate=2, steps=8))
    second = done(asked(corpus, two, batch=32, accumulate=1, steps=8))
    near(first.bits_per_token, second.bits_per_token, LAYERS * 1000)


@pytest.mark.parametrize(
    ("text", "others", "said"),
    [
        ("one document alone", {}, "too small a corpus: no document of it falls to the held-out part"),
        ("", {}, "holds no text"),
        ("a\nb\nc", {"vocabulary": 50}, "a vocabulary of 50 tokens is smaller than its alphabet"),
        ("a\nb\nc", {"width": 30, "heads": 4}, "the width a multiple of the heads"),
        ("a\nb\nc", {"max_length": 4}, "--max-length 4, from 8 up"),
        ("a\nb\nc", {"steps": None}, "give the run one length"),
        ("a\nb\nc", {"accumulate": 0}, "--accumulate 0, from 1 up"),
        ("a\nb\nc", {"seed": -1}, "--seed -1, from 0 up"),
        ("a\nb\nc", {"lr": 0.0}, "--lr 0.0, above 0"),
        ("a\nb\nc", {"held_out": 1.0}, "are shares"),
        ("a\nb\nc", {"model": "./nowhere"}, "there is no such folder"),
    ],
)
def test_what_can_not_be(
    tmp_path: Path, text: str, others: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "text.txt").write_text(text)
    with pytest.raises(InputError) as refused:
        pretrain(asked(tmp_path / "text.txt", tmp_path / "out", **others))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_mended_corpus_is_taken_where_the_broken_one_was_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"a word\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        pretrain(asked(text, tmp_path / "out"))
    text.write_text("\n".join(f"words and words {number}" for number in range(200)))
    assert done(asked(text, tmp_path / "out", steps=1)).steps == 1


def test_another_shape_at_resume(corpus: Path, tmp_path: Path) -> None:
    done(asked(corpus, tmp_path / "out"))
    with pytest.raises(InputError, match="= bert-2-layers-32, now it is bert-3-layers-32"):
        pretrain(asked(corpus, tmp_path / "out", layers=3, resume=True))


@pytest.mark.parametrize("others", [{"held_out": 0.2}, {"max_length": 16}, {"vocabulary": 500}, {"text": "elsewhere"}])
def test_other_texts_at_resume(corpus: Path, tmp_path: Path, others: dict[str, object]) -> None:
    out, (name, value) = tmp_path / "out", next(iter(others.items()))
    done(asked(corpus, out, steps=1))
    with pytest.raises(InputError, match=f"was made with --{name.replace('_', '-')} .*, now it is {value}; resume"):
        pretrain(replace(asked(corpus, out, steps=1, resume=True), **others))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{"replace": True}, {"resume": True}])
def test_a_users_own_folder_of_that_name_stays(corpus: Path, tmp_path: Path, how: dict[str, bool]) -> None:
    own = tmp_path / "out" / CORPUS / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(InputError):
        pretrain(asked(corpus, tmp_path / "out", **how))
    assert own.read_text() == "mine"


def test_a_run_that_is_stopped_before_it_learns_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise StoppedError(signal.SIGTERM, "stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Chunks, "write", stop)
        with pytest.raises(StoppedError):
            pretrain(asked(corpus, tmp_path / "out"))
    assert done(asked(corpus, tmp_path / "out", steps=1, resume=True)).steps == 1


def test_perplexity_counts_every_masked_token_alike(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = done(asked(corpus, out, steps=1, held_out=0.1))
    net, part = MaskedLM.load(str(out), precision="fp32"), Chunks.open(out / CORPUS / "held_out")
    draws = Epochs(MaskedChunks(part, Vocabulary(*net.vocabulary), Masking()), 16, seed=1)
    passes = [draws[number] for number in range(-(-len(part) // 16))]
    theta = net.init(torch.Generator())
    with torch.no_grad():
        scores, targets = (
            torch.cat([net.logits(theta, each) for each in passes]),
            torch.cat([p.targets for p in passes]),
        )
    assert len({len(each.targets) for each in passes}) > 1
    near(found.perplexity, float(torch.nn.functional.cross_entropy(scores, targets).exp()), LAYERS)


def test_the_recipe(here: Here, corpus: Path, tmp_path: Path) -> None:
    words = ["python", RECIPE, "--text", corpus, "--layers", 1, "--width", 16, "--heads", 2, "--vocabulary", 300,
             "--steps", 2, "--batch", 8, "--max-length", 16, "--out", tmp_path / "out"]  # fmt: skip
    code, out, said = here(*words)
    assert (code, said) == (0, "")
    assert "bits a masked token" in out
    assert "forecast: about" in out
    assert (tmp_path / "out" / CORPUS).is_dir()
    code, _, said = here(*words)
    assert code == 2
    assert "--replace" in said
    assert here(*words, "--replace")[0] == 0
    code, out, said = here("metanlp", "info", tmp_path / "out", "--json")
    told = json.loads(out)
    assert (code, told["kind"], told["asked"]["layers"]) == (0, "pretrained model", 1)
    assert told["use"] == [f"metanlp compare --model {tmp_path / 'out'} --data TASKS"]
    code, _, said = here("metanlp", "report", tmp_path / "out")
    assert code == 2
    assert "is of a pretraining, which compares no methods" in said
