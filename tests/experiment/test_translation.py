"""Pairs of languages from the command line to tables and a page: each is judged by what has never read it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from causal_models import model_of
from conftest import Here
from languages import sentences, write_languages
from near import LAYERS, near
from seq2seq_models import TOKENIZER
from transformers import AutoTokenizer

from metanlp.algorithms import Finetune
from metanlp.algorithms.base import Inner
from metanlp.backbone import Lora
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.core.errors import InputError
from metanlp.core.weights import from_safetensors
from metanlp.episodes.domains import Passages
from metanlp.episodes.sentence_pairs import SentencePairs
from metanlp.evaluation.translations import HeldOutPair
from metanlp.experiment.options import Translation
from metanlp.experiment.translation import translation
from metanlp.learner.learner import Adapted, Learner
from metanlp.share.publish import Publication, stage_folder

RECIPE = Path(__file__).parents[2] / "recipes" / "translation.py"
METHODS = ("none", "finetune", "multitask", "reptile", "maml")
SMALL = {"train_steps": 4, "vocabulary": 300, "layers": 1, "width": 16, "heads": 2, "max_length": 24, "steps": 2,
         "meta_batch": 1, "batch": 8, "train_shots": (2, 3), "train_queries": 2, "rank": 4, "shots": (4, 8),
         "episodes": 2, "test_sentences": 6, "search_steps": (0, 1), "inner_steps": 1, "beams": 2,
         "threads": 1}  # fmt: skip


def asked(data: Path, out: Path, **others: Any) -> Translation:
    return Translation(data=str(data), out=out, **{**SMALL, **others})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Translation:
    """A whole run over three pairs: the third has the first beside it, which has been judged before."""
    home = tmp_path_factory.mktemp("mt")
    given = asked(write_languages(home / "pairs", 3), home / "out")
    translation(given)
    return given


def learned(out: Path) -> dict[str, Any]:
    files = [*out.rglob("*.safetensors")]
    return {str(path.relative_to(out)): from_safetensors(path.read_bytes()) for path in files}


def test_what_it_leaves(made: Translation) -> None:
    found = json.loads((made.out / "results.json").read_text())
    cells = {(c["domain"], c["method"], c["shots"], c["measure"]): c for c in found["cells"]}
    names = [(d, m, k) for d in ("en_l0", "en_l1", "en_l2") for m in METHODS for k in (4, 8)]
    assert cells.keys() == {(*name, measure) for name in names for measure in ("bits", "chrF", "BLEU")}
    assert all(len(cell["sets"]) == 2 and len(cell["blocks"]) == 6 for cell in cells.values())
    assert all(0 < min(cells[(*name, "bits")]["sets"]) < 12 for name in names)
    assert all(0 <= min(cell["sets"]) <= 100 for cell in cells.values())
    assert {(each["a"], each["b"]) for each in found["paired"]} == {(name, "multitask") for name in METHODS} - {
        ("multitask", "multitask")}  # fmt: skip
    for cost in found["costs"]:
        main = cost["maml"]["tokens"]
        assert all(main <= cost[name]["tokens"] < 3 * main for name in ("multitask", "reptile"))
    page = (made.out / "report.html").read_text()
    assert all(said in page for said in ("BLEU of translations", "en_l2 and en_l0: taught by en_l1", "<svg", "maml"))


def test_a_pair_that_judges_has_taught_nothing(made: Translation, tmp_path: Path) -> None:
    """Tokenizer, model and θ are the same whatever the two that are held out say, sources included."""
    first = AutoTokenizer.from_pretrained(made.out / "en_l0+en_l1" / "model")
    words = {word for _, target in sentences(0, 30) for word in target.split() if word.isalpha()}
    other = {word for _, target in sentences(2, 30) for word in target.split() if word.isalpha()}
    assert {word for word in other - words if len(first.tokenize(f" {word}")) == 1}
    assert not {word for word in words - other if len(first.tokenize(f" {word}")) == 1}
    given = replace(made, model=str(made.out / "en_l0+en_l1" / "model"), methods=("multitask", "maml"), shots=(4,),
                    held_out=("en_l0", "en_l1"))  # fmt: skip
    kept = list[dict[str, Any]]()
    for out, said in ((tmp_path / "one", "nobody reads this"), (tmp_path / "two", "nor this, ever")):
        data = write_languages(out / "data", 3)
        for name in ("en_l0", "en_l1"):
            path = data / name / "train.jsonl"
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row | {"target": f"{said} {n}"}) + "\n" for n, row in enumerate(rows)))
        translation(replace(given, data=str(data), out=out / "out"))
        kept.append(learned(out / "out"))
    one, two = kept
    assert one.keys() == two.keys() != set()
    for name, tensors in one.items():
        assert all(value.equal(two[name][key]) for key, value in tensors.items()), name


def test_resuming_takes_what_is_done(made: Translation, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "out")
    given = replace(made, out=tmp_path / "out", resume=True)
    (given.out / "en_l2+en_l0" / "results.json").unlink()
    (given.out / "results.json").unlink()
    translation(given)
    first, again = (json.loads((out / "results.json").read_text()) for out in (made.out, given.out))
    assert first["cells"] == again["cells"]
    with pytest.raises(InputError, match=r"en_l0\+en_l1 was made with beams = 2, now it is 1; resume with the same"):
        translation(replace(given, beams=1))


def test_scores_are_those_of_sacrebleu_and_of_the_model(made: Translation) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    net = Seq2Seq.load(str(made.out / "en_l0+en_l1" / "model"), Lora(rank=4, layers="all"), max_length=24)
    rows = sentences(2, 20)
    sources, targets = [source for source, _ in rows], [target for _, target in rows]
    pool, method = SentencePairs(*net.encode(sources, targets)), Finetune(Inner(1, 0.1, 1.0))
    held = HeldOutPair("en_l2", pool, pool, Passages(), (4,), 2, 20, 0, texts=(sources, targets), writes=net,
                       beams=1)  # fmt: skip
    phi = method.adapt(net, method.init(net, torch.Generator().manual_seed(0)), held.supports[4][0])
    found = held.measures(method, net, phi)
    written = net.generate(phi, sources, 1)
    near(float(found["chrF"][0]), CHRF().corpus_score(written, [targets]).score)
    near(float(found["BLEU"][0]), BLEU().corpus_score(written, [targets]).score)
    batch = pool.draw(np.arange(20), np.random.default_rng(0), 0).batch
    with torch.no_grad():
        loss = method.scores_loss(method.scores(net, phi, batch), batch)
    near(float(found["bits"][0]), float(loss[0]) / np.log(2), LAYERS)
    assert all(len(values) == 11 for values in found.values())
    left = [n for n in range(20) if n not in held.rows[3]]
    near(float(found["chrF"][4]), CHRF().corpus_score([written[n] for n in left], [[targets[n] for n in left]]).score)


def test_the_command_line(made: Translation, tmp_path: Path, here: Here) -> None:
    code, out, said = here(
        "python", RECIPE, "--data", made.data, "--model", made.out / "en_l0+en_l1" / "model", "--held-out", "en_l1",
        "en_l0", "--max-length", 24, "--steps", 1, "--meta-batch", 1, "--train-shots", 2, 3, "--train-queries", 2,
        "--shots", 4, "--episodes", 2, "--test-sentences", 4, "--methods", "finetune", "maml", "--search-steps", 0,
        "--inner-steps", 1, "--rank", 4, "--beams", 1, "--threads", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, said
    assert "chrF2 of translations" in out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(each["a"], each["b"]) for each in found["paired"]} == {("none", "finetune"), ("maml", "finetune")}
    use_it(tmp_path, made.out / "en_l0+en_l1" / "model", here)


def use_it(home: Path, base: Path, here: Here) -> None:
    """The learner of a run, by the commands that all learners have."""
    names = ("english", "other", "a", "b")
    rows = [f"{source},{target},en,new" for source, target in sentences(4, 9)]
    for name, some in (("pairs", rows[:6]), ("more", rows[6:])):
        (home / f"{name}.csv").write_text("\n".join([",".join(names), *some]) + "\n")
    columns = "source=english,target=other,source_lang=a,target_lang=b"
    adapt = ("metanlp", "adapt", "--from", home / "out", "--base", base, "--columns", columns)
    code, out, said = here(*adapt, "--examples", home / "pairs.csv", "--out", home / "new")
    assert (code, out.splitlines()[-1]) == (0, f"{home / 'new'}: adapted to 6 examples"), said
    (home / "texts.txt").write_text("the dog\nmy old cat\n")
    ask = ("metanlp", "predict", "--from", home / "new", "--base", base)
    greedy, beams = (here(*ask, home / "texts.txt", *more) for more in ((), ("--beams", "2", "--format", "csv")))
    told = [json.loads(line) for line in greedy[1].splitlines()]
    assert [row["source"] for row in told] == ["the dog", "my old cat"]
    assert all(isinstance(row["target"], str) for row in told)
    assert beams[1].splitlines()[0] == "source,target"
    code, out, said = here(*ask, home / "more.csv", "--columns", columns)
    assert (code, len(out.splitlines())) == (0, 3)
    assert "nll" in said
    judge = ("metanlp", "score", "--from", home / "new", "--base", base, "--json", "--columns", columns)
    code, out, _ = here(*judge, home / "more.csv")
    found = json.loads(out)
    assert found.keys() == {"rows", "nll", "chrf", "bleu"}
    near(
        found["nll"], Adapted.load(home / "new", base=str(base)).score([(*row.split(","),) for row in rows[6:]])["nll"]
    )
    export = ("metanlp", "export", "--from", home / "new", "--base", base, "--out", home / "peft", "--to")
    assert "is exported to lora alone, not to onnx; give --to lora" in here(*export, "onnx")[2]
    assert here(*export, "lora")[0] == 0
    assert "form: generate" in here("metanlp", "info", home / "out")[1]
    (home / "tagless.csv").write_text("source,target\na,b\n")
    code, _, said = here(*adapt[:-2], "--examples", home / "tagless.csv", "--out", home / "no")
    assert (code, said.count("\n")) == (2, 1)
    assert "a language tag is missing" in said


def test_the_learners_that_it_leaves(made: Translation, tmp_path: Path) -> None:
    """One for each two that are held out and each method that was trained, with its model beside it."""
    fold = made.out / "en_l0+en_l1"
    assert {path.parent.name for path in fold.glob("*/meta_config.json")} == {"multitask", "reptile", "maml"}
    learner = Learner.load(fold / "maml")
    assert learner.record["tasks"]["train"] == ["en_l2"]
    assert learner.record["steps"] == 2
    found = learner.adapt([(source, target, "en", "l0") for source, target in sentences(0, 4)])
    assert len(found.predict(["the dog"])) == 1
    stage = tmp_path / "stage"
    stage.mkdir()
    stage_folder(fold / "maml", stage, "lab/words", Publication())
    page = (stage / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in page
    assert '("A dog sleeps.", "Ein Hund schläft.", "en", "de")' in page


def test_all_pairs_may_teach(made: Translation, tmp_path: Path) -> None:
    given = replace(made, held_out=("none",), out=tmp_path / "out", methods=("maml",), steps=1)
    assert translation(given) == []
    learner = Learner.load(given.out)
    assert learner.record["tasks"]["train"] == ["en_l0", "en_l1", "en_l2"]
    assert learner.net.base.folder == str(given.out / "model")


def test_a_model_without_an_encoder_reads_a_prompt(made: Translation, tmp_path: Path) -> None:
    model_of("llama").save_pretrained(str(tmp_path / "model"))
    TOKENIZER.save_pretrained(str(tmp_path / "model"))
    given = replace(made, model=str(tmp_path / "model"), out=tmp_path / "out", held_out=("en_l0", "en_l1"), beams=1)
    with pytest.raises(InputError, match="has no encoder, so that a prompt has to say where its answer begins"):
        translation(given)
    assert not (tmp_path / "out").exists()
    cells = translation(replace(given, prefix="{source_lang}: {source} {target_lang}:"))
    assert {cell.domain for cell in cells} == {"en_l0", "en_l1"}
    assert all(np.isfinite(cell.sets).all() for cell in cells)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"held_out": ("en_l0", "fr")}, r"--held-out names 'fr', but .* has en_l0, en_l1, en_l2"),
        ({"held_out": ("en_l0",)}, r"--held-out en_l0: give two pairs or more, each once, or none"),
        ({"held_out": ("en_l0", "en_l0")}, r"give two pairs or more, each once"),
        ({"shots": (50,)}, r"'en_l0' has 30 .* but 50 shots"),
        ({"train_queries": 40}, r"'en_l0' has 30 .* but 3 shots and 40 beside them"),
        ({"prefix": "{language}: "}, r"--prefix '\{language\}: ' can't be filled in \('language'\); it may hold"),
        ({"beams": 0}, r"--beams 0 and --batch 8 are from 1 up"),
        ({"methods": ("maml", "finetune")}, "the last of --methods has to be one that is meta-trained"),
    ],
)
def test_bad_input(made: Translation, tmp_path: Path, others: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        translation(replace(made, out=tmp_path / "out", **others))
    assert not (tmp_path / "out").exists()


def test_too_few_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has en_l0, en_l1 alone; give 3 pairs of languages or more"):
        translation(asked(write_languages(tmp_path / "data", 2), tmp_path / "out"))
