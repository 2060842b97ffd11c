"""What users hold: adapting from whatever examples come in, and files that come back bit by bit or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pack_rows
from near import INNER_STEPS, LAYERS, near
from safetensors.torch import load_file, save_file

from metanlp.algorithms import ALGORITHMS, Frozen, Maml, ProtoNet
from metanlp.algorithms.inner import Inner
from metanlp.backbone import Backbone, Lora, pretrained
from metanlp.core import weights
from metanlp.core.errors import DamagedError, InputError, StorageError
from metanlp.core.storage import sha256_of
from metanlp.learner.artefact import ADAPTER, ADAPTER_CONFIG, CONFIG, META, signed
from metanlp.learner.learner import Adapted, Learner, algorithm_from_json, algorithm_to_json

ROWS = [
    {"text": "the parcel never came", "label": "delivery"},
    {"text": "my card was charged twice", "label": "payment"},
    {"text": "where is my order", "label": "delivery"},
    {"text": "please send the money back", "label": "payment"},
]
NEW = ["nothing was delivered", "a wrong amount on the bill", "thanks"]
FILES = {ADAPTER, ADAPTER_CONFIG, META, CONFIG}


@pytest.fixture(scope="module")
def learner(net: Backbone) -> Learner:
    """θ as after some training: no tensor is zero."""
    algorithm = Maml(inner=Inner(steps=2, lr=0.1, head_lr=0.1))
    generator = torch.Generator().manual_seed(5)
    theta = algorithm.init(net, generator)
    theta = {key: value + 0.1 * torch.randn(value.shape, generator=generator) for key, value in theta.items()}
    return Learner(algorithm, net, theta, {"tasks": {"train": ["taught/before"]}, "seed": 5})


@pytest.fixture(scope="module")
def adapted(learner: Learner) -> Adapted:
    return learner.adapt(ROWS)


@pytest.fixture(params=["learner", "adapted"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A folder with either of them, and the class that loads it."""
    kept = request.getfixturevalue(request.param)
    kept.save(tmp_path / "saved")
    return tmp_path / "saved", type(kept)


def refusal(kind: type[Exception], work: Callable[..., object], *given: Any, **named: Any) -> str:
    with pytest.raises(kind) as caught:
        work(*given, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Adapting.


def test_examples_may_come_as_rows_tuples_or_beside_their_labels(learner: Learner, adapted: Adapted) -> None:
    texts, labels = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
    forms: list[Any] = [
        [(text, label) for text, label in zip(texts, labels, strict=True)],
        (dict(row) for row in ROWS),
        [{"text": text, "label": label, "note": 7} for text, label in zip(texts, labels, strict=True)],
    ]
    others = [learner.adapt(form) for form in forms]
    others.append(learner.adapt(texts, labels))
    others.append(learner.adapt([{"text": text} for text in texts], labels))
    others.append(learner.adapt([(text,) for text in texts], labels))
    assert adapted.labels == ("delivery", "payment")
    for other in others:
        assert weights.equal(other.phi, adapted.phi)
        assert other.labels == adapted.labels


def test_pairs(learner: Learner) -> None:
    triples = [("it rains", "it is wet", "yes"), ("it snows", "it is hot", "no"), ("a cat sleeps", "a cat runs", "no")]
    rows = [{"text_a": a, "text_b": b, "label": label} for a, b, label in triples]
    three = [
        learner.adapt(triples),
        learner.adapt(rows),
        learner.adapt([t[:2] for t in triples], [t[2] for t in triples]),
    ]
    assert weights.equal(three[0].phi, three[1].phi)
    assert weights.equal(three[0].phi, three[2].phi)
    asked = [("it pours", "it is dry"), ("one", "two")]
    assert np.array_equal(three[0].scores(asked), three[0].scores([{"text_a": a, "text_b": b} for a, b in asked]))


@pytest.mark.parametrize(
    ("examples", "labels", "said"),
    [
        ([], None, "no rows"),
        (["a", "b"], ["x"], "2 texts came with 1 labels"),
        (["a", "b"], None, "example 1 is 'a'; give (text, label)"),
        ("a text", ["x"], "only the class 'x'"),
        ([("a", "b", "c", "d")], None, "example 1 is ('a', 'b', 'c', 'd')"),
        ([("a", "x"), 5], None, "example 2 is 5"),
        ([("a", "x"), None], None, "example 2 is None"),
        ([("a", "b", "c")], ["x"], "example 1 is"),
        ([{"text": "a"}, {"text": "b"}], None, "row 1: no column 'label'"),
        ([{"txt": "a", "label": "x"}], None, "did you mean 'txt'?"),
        ([("a", "x"), ("", "y")], None, "row 2: 'text' is empty"),
        ([("a", "x"), (7, "y")], None, "row 2: 'text' is an integer"),
        ([("a", "x"), ("b", "x")], None, "only the class 'x'"),
        ([("a", "x"), ("b", 1)], None, "row 2: the label is 1"),
        ([("a", "x"), ("b", 0.5)], None, "the label is the decimal 0.5"),
        ([("a", "x"), ("b", "c", "y")], None, "row 2: has `text_a`"),
    ],
)
def test_examples_that_are_refused(learner: Learner, examples: Any, labels: Sequence[str] | None, said: str) -> None:
    assert said in refusal(InputError, learner.adapt, examples, labels)


def test_adapting_leaves_the_learner_alone(learner: Learner) -> None:
    before = weights.clone(learner.theta)
    first = learner.adapt(ROWS)
    assert weights.equal(learner.theta, before)
    assert weights.equal(first.phi, learner.adapt(ROWS).phi)
    assert not any(value.requires_grad for value in first.phi.values())


def test_fast_takes_no_step(learner: Learner, adapted: Adapted) -> None:
    fast = learner.adapt(ROWS, effort="fast")
    for key, value in weights.pick(learner.theta, "lora/").items():
        assert torch.equal(fast.phi[key][0], value)
        assert not torch.equal(adapted.phi[key][0], value)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_left_out_logits_in_the_order_of_the_labels(name: str, net: Backbone) -> None:
    algorithm = ALGORITHMS[name]()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    rows = [(" ".join(["good"] * n), "up") for n in (2, 3, 4)] + [("terrible " * n, "down") for n in (2, 3, 4)]
    rows.append(("? ? ? ?", "question"))
    found = learner.left_out(rows)
    assert np.isfinite(found[:6]).all()
    assert np.isnan(found[6]).all()  # alone in its class
    labels = learner.adapt(rows).labels
    assert [labels[n] for n in found[:6].argmax(1)] == [label for _, label in rows[:6]]
    texts, given = zip(*rows, strict=True)
    assert np.array_equal(learner.left_out(texts, given), found, equal_nan=True)
    assert np.isfinite(learner.left_out(rows, effort="fast")[:6]).all()


def test_an_unknown_effort_is_refused(learner: Learner) -> None:
    for ask in (learner.adapt, learner.left_out):
        assert refusal(InputError, ask, ROWS, effort="most") == "effort is 'most'; give 'fast', 'recipe' or 'best'"


# Predicting.


def test_scores_are_probabilities_whatever_stands_beside(adapted: Adapted) -> None:
    scores = adapted.scores(NEW)
    assert scores.shape == (3, 2)
    near(scores.sum(1), np.ones(3, np.float32))
    alone = np.concatenate([adapted.scores([text]) for text in NEW])
    near(scores, alone, INNER_STEPS)
    assert adapted.predict(NEW) == [adapted.labels[n] for n in scores.argmax(1)]
    mixed = adapted.scores([(NEW[2],), NEW[0], {"text": NEW[1]}])
    near(mixed, scores[[2, 0, 1]], INNER_STEPS)


def test_one_text_is_one_row_and_none_are_none(adapted: Adapted) -> None:
    assert adapted.predict(NEW[0]) == adapted.predict(NEW[:1])
    assert adapted.predict([]) == []
    assert adapted.scores([]).shape == (0, 2)


@pytest.mark.parametrize("row", [5, None, ("a", "b", "c"), (), {"txt": "a"}, {"text_a": "a"}, ("a", 3), {"text": None}])
def test_rows_that_cannot_be_predicted(adapted: Adapted, row: Any) -> None:
    assert refusal(InputError, adapted.predict, ["fine", row]).startswith("row 2 is ")


@pytest.mark.parametrize(
    ("examples", "asked"),
    [
        ([{"tokens": ["Maria", "left"], "tags": ["B-PER", "O"]}, {"tokens": ["Rome"], "tags": ["B-LOC"]}],
         {"tokens": ["a\ud800"]}),
        ([{"question": q, "choices": ["up", "down"], "answer": n} for n, q in enumerate(["sky", "sea"])],
         ("ice", ["a\ud800", "b"])),
    ],
    ids=["tag", "choose"],
)  # fmt: skip
def test_half_a_character_in_a_part_of_a_row_is_named(net: Backbone, examples: Any, asked: Any) -> None:
    algorithm = ProtoNet()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    said = refusal(InputError, learner.adapt(examples).predict, [asked])
    assert said == "row 1 has a text with half of a surrogate pair, 'a\\ud800'; give another, or leave it out"


def test_planted_classes_are_told_apart(net: Backbone) -> None:
    algorithm = Frozen()
    plain = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    rows = [(" ".join(["good"] * n), "up") for n in (2, 3, 4)] + [
        (" ".join(["terrible"] * n), "down") for n in (2, 3, 4)
    ]
    assert plain.adapt(rows).predict(["good good good good good", "terrible terrible"]) == ["up", "down"]


# Files.


def test_a_learner_comes_back_bit_by_bit(learner: Learner, adapted: Adapted, tiny: Path, tmp_path: Path) -> None:
    learner.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    loaded = Learner.load(tmp_path, base=str(tiny))
    assert weights.equal(loaded.theta, weights.drop(learner.theta, "tasks/"))
    assert loaded.algorithm == learner.algorithm
    assert loaded.record == learner.record
    again = loaded.adapt(ROWS)
    assert weights.equal(again.phi, adapted.phi)
    assert np.array_equal(again.scores(NEW), adapted.scores(NEW))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_adapted_model_of_every_method_comes_back(name: str, net: Backbone, tiny: Path, tmp_path: Path) -> None:
    algorithm = ALGORITHMS[name]()
    algorithm = replace(algorithm, inner=replace(algorithm.inner, steps=min(1, algorithm.inner.steps)))
    adapted = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(1))).adapt(ROWS)
    adapted.save(tmp_path)
    loaded = Adapted.load(tmp_path, base=str(tiny))
    assert np.array_equal(loaded.scores(NEW), adapted.scores(NEW))
    assert (loaded.labels, loaded.algorithm) == (adapted.labels, adapted.algorithm)


def test_saving_twice_gives_the_same_bytes(learner: Learner, tmp_path: Path) -> None:
    for name in "ab":
        learner.save(tmp_path / name)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", [ADAPTER, ADAPTER_CONFIG, META])
def test_every_flipped_bit_is_found(saved: tuple[Path, Any], tiny: Path, name: str) -> None:
    folder, kind = saved
    rng, data = np.random.default_rng(0), (folder / name).read_bytes()
    for at in [0, len(data) - 1, *rng.integers(0, len(data), 20)]:
        (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
        assert name in refusal(DamagedError, kind.load, folder, base=str(tiny))
    (folder / name).write_bytes(data[: len(data) // 2])
    assert name in refusal(DamagedError, kind.load, folder, base=str(tiny))
    (folder / name).unlink()
    assert name in refusal(DamagedError, kind.load, folder, base=str(tiny))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "5", "null", "[" * 100_000, '{"schema": 1, "kind": "learner"}', "\udce9"],
    ids=["empty", "cut", "list", "object", "number", "null", "deep", "short", "no UTF-8"],
)
def test_a_damaged_configuration_is_found(saved: tuple[Path, Any], tiny: Path, text: str) -> None:
    folder, kind = saved
    (folder / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert CONFIG in refusal(DamagedError, kind.load, folder, base=str(tiny))


@pytest.mark.parametrize("key", ["files", "base", "backbone", "algorithm", "record", "schema", "kind"])
def test_a_configuration_that_lacks_a_key_is_found(saved: tuple[Path, Any], tiny: Path, key: str) -> None:
    folder, kind = saved
    config = json.loads((folder / CONFIG).read_text())
    del config[key]
    (folder / CONFIG).write_text(json.dumps(config))
    assert key in refusal(DamagedError, kind.load, folder, base=str(tiny))


def test_an_altered_configuration_is_found(saved: tuple[Path, Any], tiny: Path) -> None:
    folder, kind = saved
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config))  # laid out otherwise, and the same
    kind.load(folder, base=str(tiny))
    (folder / CONFIG).write_text(json.dumps(config | {"record": {"steps": 1_000}}))
    assert "not the file that was saved" in refusal(DamagedError, kind.load, folder, base=str(tiny))


def test_another_format_names_both(saved: tuple[Path, Any], tiny: Path) -> None:
    folder, kind = saved
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"schema": 7}))
    message = refusal(DamagedError, kind.load, folder, base=str(tiny))
    assert "format 7" in message
    assert "format 1" in message


def test_an_unknown_method_or_setting_is_named(saved: tuple[Path, Any], tiny: Path) -> None:
    folder, kind = saved
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_bytes(signed(config | {"algorithm": config["algorithm"] | {"name": "mamll"}}))
    assert "'mamll'" in refusal(InputError, kind.load, folder, base=str(tiny))
    (folder / CONFIG).write_bytes(signed(config | {"algorithm": config["algorithm"] | {"guidance": 1}}))
    assert "'guidance' is unknown" in refusal(InputError, kind.load, folder, base=str(tiny))


def test_the_wrong_kind_and_no_model_are_input_errors(saved: tuple[Path, Any], tiny: Path, tmp_path: Path) -> None:
    folder, kind = saved
    other: Any = Adapted if kind is Learner else Learner
    assert "kind" in refusal(InputError, other.load, folder, base=str(tiny))
    assert "holds no meta_config.json" in refusal(InputError, kind.load, tmp_path / "nowhere", base=str(tiny))
    assert "could not be loaded" in refusal(InputError, kind.load, folder, base=str(tmp_path / "no_model"))


def test_another_base_is_refused_by_its_sha256(saved: tuple[Path, Any], tiny: Path, tmp_path: Path) -> None:
    folder, kind = saved
    shutil.copytree(tiny, tmp_path / "other")
    model = tmp_path / "other" / "model.safetensors"
    save_file({key: value * 1.01 for key, value in load_file(model).items()}, model, metadata={"format": "pt"})
    assert "sha256" in refusal(InputError, kind.load, folder, base=str(tmp_path / "other"))


def test_a_folder_is_not_taken_for_a_model_of_the_hub(
    adapted: Adapted, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted.save(tmp_path / "model")
    said = json.loads((tmp_path / "model" / CONFIG).read_text())["base"]
    assert said == {"name": "./tiny-bert", "revision": "", "sha256": sha256_of(tiny / "model.safetensors")}
    message = refusal(InputError, Adapted.load, tmp_path / "model")
    assert "'./tiny-bert' could not be loaded (there is no such folder)" in message
    assert message.endswith("this is the base model, whose folder `base`, --base, may name")
    monkeypatch.chdir(tiny.parent)
    assert np.array_equal(Adapted.load(tmp_path / "model").scores(NEW), adapted.scores(NEW))


def test_shards_are_weights_too(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = tmp_path / "sharded"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    AutoModel.from_pretrained(tiny).save_pretrained(folder, max_shard_size="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    net = Backbone.load(str(folder), Lora(rank=4, alpha=8), precision="fp32")
    assert net.base.sha256 == sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    algorithm = ProtoNet()
    model = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0))).adapt(ROWS)
    model.save(tmp_path / "model")
    assert np.array_equal(Adapted.load(tmp_path / "model", base=str(folder)).scores(NEW), model.scores(NEW))
    for other in (tiny, folder):
        tensors = load_file(shards[1])
        save_file({key: value * 1.01 for key, value in tensors.items()}, shards[1], metadata={"format": "pt"})
        assert "sha256" in refusal(InputError, Adapted.load, tmp_path / "model", base=str(other))
    shards[1].unlink()
    assert f"{shards[1].name} is missing" in refusal(InputError, Backbone.load, str(folder))


def test_weights_of_other_files_are_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "it has no model.safetensors; other files" in refusal(InputError, Backbone.load, str(folder))


def test_a_check_does_not_pass_because_one_side_is_unknown(net: Backbone, tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    memory = Backbone(AutoModel.from_pretrained(tiny), net.tokenizer, net.options, base="mine")
    for made, name in ((memory, "memory"), (net, "file")):
        algorithm = ProtoNet()
        learner = Learner(algorithm, made, algorithm.init(made, torch.Generator().manual_seed(0)))
        learner.save(tmp_path / name)
        assert weights.equal(Learner.load(tmp_path / name, net=made).theta, learner.theta)
    assert "with sha256 unknown" in refusal(InputError, Learner.load, tmp_path / "memory", base=str(tiny))
    assert "with sha256 unknown" in refusal(InputError, Learner.load, tmp_path / "memory", net=net)
    assert "has none, as it came from no file" in refusal(InputError, Learner.load, tmp_path / "file", net=memory)


def test_weights_are_hashed_once(learner: Learner, tiny: Path, tmp_path: Path) -> None:
    learner.save(tmp_path)
    before = pretrained._sha256_of_unchanged.cache_info()  # pyright: ignore[reportPrivateUsage]
    for _ in range(2):
        Learner.load(tmp_path, base=str(tiny)).save(tmp_path / "again")
    after = pretrained._sha256_of_unchanged.cache_info()  # pyright: ignore[reportPrivateUsage]
    assert after.misses == before.misses
    assert after.hits > before.hits


def test_adapters_that_do_not_fit_the_base_are_found(learner: Learner, tiny: Path, tmp_path: Path) -> None:
    learner.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["backbone"]["adapt"]["rank"] = 8
    (tmp_path / CONFIG).write_bytes(signed(config))
    assert "lora/" in refusal(DamagedError, Learner.load, tmp_path, base=str(tiny))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_never_saved(learner: Learner, tmp_path: Path, bad: float) -> None:
    for key in ("head/scale", next(iter(weights.pick(learner.theta, "lora/")))):
        theta = learner.theta | {key: torch.full_like(learner.theta[key], bad)}
        with pytest.raises(ValueError, match="not saved"):
            replace(learner, theta=theta).save(tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder(learner: Learner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refusal(StorageError, learner.save, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_file_tells_of_this_machine(saved: tuple[Path, Any], tiny: Path) -> None:
    folder, _ = saved
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(tiny).encode() not in content
        assert str(tiny.parent).encode() not in content
        assert str(Path.home()).encode() + b"/" not in content
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "./tiny-bert"


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_plain_peft_opens_the_adapter(learner: Learner, tiny: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    learner.save(tmp_path)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny), tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    views = learner.net.view_names
    for text in NEW:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            features = ours(learner, text)
        near(hidden.mean(0), features[views.index(f"adapted.{learner.net.depth}.all")], LAYERS)
        assert not torch.allclose(hidden.mean(0), features[views.index(f"frozen.{learner.net.depth}.all")], atol=1e-2)


def ours(learner: Learner, text: str) -> torch.Tensor:
    """What every view reads of one text: (V, D)."""
    batch = pack_rows([{"text": text, "label": 0}], 2, learner.net.encode)
    return learner.net.features(learner.theta, batch)[0]


def test_heads_of_training_tasks_are_not_kept(learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path)
    assert not any(key.startswith("tasks/") for key in load_file(tmp_path / META))
    assert set(load_file(tmp_path / ADAPTER)) == {
        key.removeprefix("lora/") for key in weights.pick(learner.theta, "lora/")
    }


def test_a_prototype_learner_adapts_without_a_step(net: Backbone) -> None:
    algorithm = ProtoNet()
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    assert weights.equal(learner.adapt(ROWS).phi, learner.adapt(ROWS, effort="fast").phi)


def test_settings_of_earlier_versions_that_decide_nothing_are_passed_over() -> None:
    """Training tasks with a head in θ, and what protonet had from maml."""
    former = {"classes": [["mini/emotions", 6]], "head_only": False, "second_order": False, "multi_step": 0.0}
    written = json.loads(json.dumps(algorithm_to_json(ProtoNet())))
    assert algorithm_from_json(written | former) == ProtoNet()
    with pytest.raises(InputError):
        algorithm_from_json(written | {"unknown": 1})


def test_a_learner_of_before_a_setting_came_is_read_and_does_what_it_did(
    net: Backbone, tiny: Path, tmp_path: Path
) -> None:
    algorithm = Maml(Inner(steps=2))
    learner = Learner(algorithm, net, algorithm.init(net, torch.Generator().manual_seed(0)))
    learner.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    for settings, key in ((config["algorithm"], "classifier"), (config["algorithm"], "c")):
        del settings[key]
    del config["algorithm"]["inner"]["optimiser"]
    (tmp_path / CONFIG).write_bytes(signed(config))
    loaded = Learner.load(tmp_path, base=str(tiny))
    assert loaded.algorithm == algorithm
    assert weights.equal(loaded.adapt(ROWS).phi, learner.adapt(ROWS).phi)
    config["algorithm"]["classifer"] = "logistic"
    (tmp_path / CONFIG).write_bytes(signed(config))
    assert "'classifer' is unknown" in refusal(InputError, Learner.load, str(tmp_path), base=str(tiny))
