"""Translation as meta-tasks: each pair of languages is a task (Gu et al. 2018, arXiv 1808.08437), held out in turn from
the model's training too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from metanlp.algorithms.likelihood import Likelihood, bits_per_token
from metanlp.backbone import Lora
from metanlp.backbone.all_weights import Size
from metanlp.backbone.causal import Causal
from metanlp.backbone.languages import prompted
from metanlp.backbone.new_tokenizer import train_tokenizer
from metanlp.backbone.pretrained import base_of, open_tokenizer, to_be_had
from metanlp.backbone.seq2seq import Seq2Seq
from metanlp.backbone.writer import Writer
from metanlp.core.errors import InputError
from metanlp.core.outputs import CHECKPOINTS, CORPUS, RESULTS
from metanlp.core.settings import to_json
from metanlp.core.storage import atomic_write, disk
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import MaskedPass
from metanlp.episodes.corpus import Epochs
from metanlp.episodes.domains import Domains, Passages, check_passages
from metanlp.episodes.sentence_pairs import SentencePairs, together
from metanlp.evaluation.translations import HeldOutPair
from metanlp.experiment.in_turn import Fold, Learned, Made, NamedNet, folds_of, in_turn, methods_of, require_least
from metanlp.experiment.options import NOTHING, Translation
from metanlp.forms.generate import judges
from metanlp.learner.learner import Learner
from metanlp.report.in_turn import Cell, Measure
from metanlp.report.tables import say
from metanlp.tasks.sources.language_pairs import LanguagePair, Sentence, language_pairs, unseen
from metanlp.training.meta_train import Plan, outer_loop
from metanlp.training.processes import Ranks

MEASURES = (
    Measure("bits", "Bits a token of the targets, fewer are better", "bits a token", "sentences"),
    Measure("chrF", "chrF2 of translations, more is better", "chrF2", "sentences"),
    Measure("BLEU", "BLEU of translations, more is better", "BLEU", "sentences"),
)
MODEL = "model"  # the folder of one that was trained here
JUDGED = 64  # sentences of each teaching pair, at the most, by which a new model is judged


@own_modes()
def translation(asked: Translation) -> list[Cell]:
    """Everything, on one process. Leaves in `asked.out` a folder for every two pairs of languages, `results.json`,
    plots and a page. Raises InputError, DivergedError, StorageError, StoppedError."""
    methods_of(asked)  # options that can't be are said before texts are read
    kind_of(asked)
    judges()
    pairs = pairs_of(asked)
    names = () if asked.held_out == (NOTHING,) else asked.held_out or tuple(pairs)
    notes = (f"{len(names)} pairs of languages, held out two at a time", *notes_of(asked, pairs, names))
    kept, alone = partial(keep, asked, tuple(pairs)), len(folds_of(asked, names)) == 1
    return in_turn(asked, (asked.data, asked.model or ""), names, partial(made, asked, pairs), MEASURES, notes,
                   partial(kept, alone))  # fmt: skip


def pairs_of(asked: Translation) -> dict[str, LanguagePair]:
    """All pairs of languages. Raises InputError, for what is certain before anything is tokenised."""
    if not asked.shots or min(asked.shots) < 1 or asked.beams < 1 or asked.batch < 1 or asked.max_length < 8:
        raise InputError(
            f"--shots {asked.shots}, --beams {asked.beams} and --batch {asked.batch} are from 1 up, --max-length "
            f"{asked.max_length} from 8 up"
        )
    found = language_pairs(asked.data)
    require_least(asked.data, tuple(found), "pairs of languages")
    chosen = asked.held_out or tuple(found)
    if chosen == (NOTHING,):
        chosen = ()
    if unknown := [name for name in chosen if name not in found]:
        raise InputError(f"--held-out names {unknown[0]!r}, but {asked.data} has {', '.join(found)}")
    if len(chosen) == 1 or len({*chosen}) < len(chosen):
        raise InputError(f"--held-out {' '.join(chosen)}: give two pairs or more, each once, or {NOTHING}")
    for name, pair in found.items():
        check_passages(name, len(pair.taught), max(asked.shots) if name in chosen else 0, 1)
        check_passages(name, len(pair.taught), asked.train_shots[1], asked.train_queries)
        prompted(asked.prefix, tags_of(pair), ())
    return found


def notes_of(asked: Translation, pairs: Mapping[str, LanguagePair], names: Sequence[str]) -> list[str]:
    """What has to be known of the tables: what taught, and where a target language was not new."""
    known = f"The model is {Path(asked.model).name}, which may have read all of them. " if asked.model else ""
    taught = "the methods" if asked.model else "a model and the methods"
    notes = [
        f"{known}Of every two that are held out {taught} have learned from all others alone; each of the two judges "
        f"with steps and rates that were chosen on the other. {asked.test_sentences} sentences a pair at the most, "
        + (f"{asked.beams} beams." if asked.beams > 1 else "decoded greedily.")
    ]
    for fold in folds_of(asked, names):
        teaching = [pair for name, pair in pairs.items() if name not in fold.names]
        notes.append(f"{' and '.join(fold.names)}: taught by {', '.join(pair.name for pair in teaching)}.")
        for pair in (pairs[name] for name in fold.names):
            same = [other.name for other in teaching if other.target_lang == pair.target_lang]
            if same:
                notes.append(f"{pair.name}: its target language is also that of {', '.join(same)}, which taught.")
    return notes


def made(asked: Translation, pairs: Mapping[str, LanguagePair], fold: Fold, ranks: Ranks) -> Made:
    """A model that has not seen the two pairs, episodes of the others, and the two."""
    teaching = {name: pair for name, pair in pairs.items() if name not in fold.names}
    net = net_of(asked, fold, tuple(teaching.values()), ranks)
    sampling = Passages(asked.train_shots, asked.train_queries)
    held = dict[str, HeldOutPair]()
    for name in fold.names:
        pair = pairs[name]
        judged = unseen(pair.judged, [pair, *teaching.values()])
        if len(judged) < len(pair.judged):
            say({name: f"{len(pair.judged) - len(judged)} test sentences stand in training sentences too: left out"})
        if len(judged) < 2:
            raise InputError(
                f"{name}: {len(judged)} of its test sentences stand in no training file; give it two or more"
            )
        held[name] = HeldOutPair(
            name, pool_of(net, pair, pair.taught), pool_of(net, pair, judged), sampling, asked.shots, asked.episodes,
            asked.test_sentences, asked.seed, texts=([row.source for row in judged], [row.target for row in judged]),
            writes=net.between(tags_of(pair)), beams=asked.beams,
        )  # fmt: skip
    pools = {name: pool_of(net, pair, pair.taught) for name, pair in teaching.items()}
    return net, Domains(pools, sampling, asked.seed), held


def kind_of(asked: Translation) -> type[Writer]:
    """The class of the model. Raises InputError for one that is not to be had, or needs a prompt and has none."""
    if asked.model is None:
        return Seq2Seq
    with to_be_had(asked.model):
        if base_of(asked.model).config().is_encoder_decoder:
            return Seq2Seq
    if "{source}" not in asked.prefix:
        raise InputError(
            f"{asked.model} has no encoder, so that a prompt has to say where its answer begins; give it as --prefix, "
            "such as '{source_lang}: {source} {target_lang}:'"
        )
    return Causal


def keep(
    asked: Translation, names: Sequence[str], alone: bool, fold: Fold, net: NamedNet, learned: Mapping[str, Learned],
    cost: Mapping[str, Any],
) -> None:  # fmt: skip
    """A learner of each method that was trained, in its folder; that of the last also in --out where there is but one
    fold, `alone`, with the model beside it where that was trained here. Raises StorageError."""
    taught = [name for name in names if name not in fold.names]
    sampling = to_json(Passages(asked.train_shots, asked.train_queries))
    about = {"tasks": {"train": taught}, "sources": dict.fromkeys(taught, Path(asked.data).name), "seed": asked.seed,
             "sampling": sampling, "lr": asked.lr}  # fmt: skip
    for name, (algorithm, theta) in learned.items():
        if name in cost:
            begins = algorithm.head.init(len(net.view_names), net.width)  # what no text that is written is read by
            own = {key: value for key, value in theta.items() if key not in begins}
            learner = Learner(algorithm, cast(Writer, net), own, {**about, **cost[name]})
            learner.save(fold.folder / name)
            if alone and name == asked.methods[-1]:
                learner.save(asked.out)
    if alone and asked.model is None:
        with disk(asked.out):
            shutil.copytree(fold.folder / MODEL, asked.out / MODEL, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns(CHECKPOINTS))  # fmt: skip
    say({"learner": str(asked.out if alone else fold.folder / asked.methods[-1])})


def tags_of(pair: LanguagePair) -> tuple[str, str]:
    return pair.source_lang, pair.target_lang


def pool_of(net: Writer, pair: LanguagePair, rows: Sequence[Sentence]) -> SentencePairs:
    return SentencePairs(*net.between(tags_of(pair)).encode(*zip(*rows, strict=True)))


def net_of(asked: Translation, fold: Fold, teaching: Sequence[LanguagePair], ranks: Ranks) -> Writer:
    """The model of --model, or one that only the pairs outside of the two have taught. By the folder of its tokenizer
    the run is known as one that can go on."""
    folder = fold.folder / MODEL
    if asked.model is None and not (asked.resume and (folder / RESULTS).is_file()):
        train(asked, fold, teaching, folder, ranks)
    adapters = Lora(rank=asked.rank, layers="all", targets="all linear")
    net = kind_of(asked).load(
        asked.model or str(folder), adapters, max_length=asked.max_length, prompt=asked.prefix, device=ranks.device
    )
    with disk(fold.folder):
        net.tokenizer.save_pretrained(str(fold.folder / CORPUS))
    return net


def train(asked: Translation, fold: Fold, teaching: Sequence[LanguagePair], folder: Path, ranks: Ranks) -> None:
    """A tokenizer and a model of these pairs alone, in `folder`. Raises InputError, DivergedError, StoppedError."""
    home = fold.folder / CORPUS
    if not (asked.resume and (home / "tokenizer.json").is_file()):
        texts = (text for pair in teaching for text in texts_of(asked, pair))
        with disk(home):
            train_tokenizer(texts, "bpe", asked.vocabulary, False, written=True).save_pretrained(str(home))
    size = Size(asked.layers, asked.width, asked.heads)
    net = Seq2Seq.make(
        open_tokenizer(str(home)), size, asked.max_length, seed=asked.seed, prompt=asked.prefix, device=ranks.device
    )
    pool = together([pool_of(net, pair, pair.taught) for pair in teaching])
    draws = Epochs(pool, asked.batch, asked.seed)
    minutes = None if asked.train_steps else asked.train_minutes
    plan = Plan(steps=asked.train_steps, minutes=minutes, meta_batch=1, lr=asked.train_lr, validations=0, patience=0)
    theta = net.init(torch.Generator())
    count = sum(value.numel() for value in theta.values())
    say({"model": f"{net.name}, {count / 1e6:.1f} M weights, {len(pool):,} sentences of {len(teaching)} pairs"})
    kept = {"plan": to_json(plan), "seed": asked.seed, **net.identity(), "sentences": draws.identity()}
    theta, state = outer_loop(
        Likelihood(), net, theta, draws, plan, kept, validate=None, folder=folder, resume=asked.resume, ranks=ranks,
        name="training", trackers=(),
    )  # fmt: skip
    with disk(folder):
        net.save(theta, folder)
    passes = [judged_pass(net, pair) for pair in teaching]
    bits = {pair.name: value for pair, value in zip(teaching, bits_per_token(net, theta, passes), strict=True)}
    found = {"steps": state.step, "seconds": state.seconds, "tokens": state.tokens, "bits": bits}
    atomic_write(folder / RESULTS, (json.dumps(found, indent=1) + "\n").encode())
    shown = ", ".join(f"{name} {value:.2f}" for name, value in bits.items())
    say({"trained": f"{state.step:,} steps in {state.seconds / 60:.1f} minutes", "bits a test token": shown})


def texts_of(asked: Translation, pair: LanguagePair) -> list[str]:
    """All that a tokenizer may learn from."""
    sources, targets = zip(*pair.taught, strict=True)
    return [*prompted(asked.prefix, tags_of(pair), sources), *targets]


def judged_pass(net: Seq2Seq, pair: LanguagePair) -> MaskedPass:
    """Test sentences of a pair that teaches."""
    pool = pool_of(net, pair, pair.judged[:JUDGED])
    return pool.draw(np.arange(len(pool)), np.random.default_rng(0), 0)
