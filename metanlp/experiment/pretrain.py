"""Pretraining by masked words: a corpus in, a model that transformers opens out. The outer loop is that of
meta-training."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metanlp.algorithms.likelihood import Likelihood, bits_per_token
from metanlp.backbone.all_weights import Size
from metanlp.backbone.masked_lm import MaskedLM
from metanlp.backbone.new_tokenizer import train_tokenizer
from metanlp.backbone.pretrained import open_tokenizer
from metanlp.core import signals, storage
from metanlp.core.errors import InputError, StoppedError
from metanlp.core.outputs import CORPUS, OF_CORPUS, RESULTS, OutputFolder
from metanlp.core.settings import to_json
from metanlp.core.torch_modes import own_modes
from metanlp.core.types import MaskedPass, Weights
from metanlp.core.versions import versions
from metanlp.episodes.corpus import Chunks, Epochs, MaskedChunks, Masking, Vocabulary
from metanlp.evaluation.results import PRETRAINING
from metanlp.experiment.options import Pretraining
from metanlp.report.tables import say
from metanlp.tasks.sources.corpus import documents, held_out, local_files
from metanlp.training.meta_train import Plan, State, outer_loop
from metanlp.training.processes import Ranks

JUDGED = 32  # passes of held-out texts, at the most, that a look reads
FOR_TOKENIZER = 200_000_000  # characters of the corpus, at the most, from which a tokenizer is learned
DONE = "complete.json"  # written when a corpus is tokenised
DECIDES = ("text", "column", "tokenizer", "vocabulary", "lower", "max_length", "held_out")  # what the tokens are


@dataclass(frozen=True)
class Pretrained:
    """How good the model is on held-out texts."""

    bits_per_token: float  # of masked tokens
    perplexity: float  # of masked tokens
    unigram_perplexity: float  # of a model that knows how often each token occurs in the corpus, and no more
    best_step: int
    steps: int
    seconds: float  # of training
    tokens_per_second: float  # that were read, forward and backward
    train_tokens: int  # of the corpus
    held_out_tokens: int
    masked_tokens: int  # that judged


@own_modes()
def pretrain(asked: Pretraining) -> Pretrained | None:
    """Everything, on as many processes as the launcher started. Leaves in `asked.out` a model and its tokenizer, as
    transformers saves them, `results.json`, `metrics.jsonl` and checkpoints. Returns the result, on rank 0. Raises
    InputError, DivergedError, StorageError, StoppedError."""
    plan = _plan(asked)
    masking, size = Masking(asked.mask_rate, asked.whole_words), Size(asked.layers, asked.width, asked.heads)
    sources = [name.strip() for name in asked.text.split(",")]
    ranks = Ranks.start(threads=asked.threads)
    out = OutputFolder(asked.out, (*sources, asked.model or ""), asked.replace, asked.resume)
    ranks.on_main(out.check)
    with ExitStack() as held:
        ranks.on_main(lambda: held.enter_context(out.claimed() if not asked.resume else storage.lock(asked.out)))
        ranks.on_main(partial(_prepare, asked, sources))
        net = _net(asked, size, ranks.device)
        parts = [Chunks.open(asked.out / CORPUS / side) for side in ("train", "held_out")]
        vocabulary = Vocabulary(*net.vocabulary)
        taught, judged = (
            Epochs(MaskedChunks(part, vocabulary, masking), asked.batch, seed)
            for part, seed in zip(parts, (asked.seed, asked.seed + 1), strict=True)
        )
        looked_at = [judged[number] for number in range(min(JUDGED, -(-len(parts[1]) // asked.batch)))]
        method = Likelihood()
        theta = net.init(torch.Generator())
        ranks.on_main(lambda: say(_begins(asked, net, parts[0], taught, theta, plan, ranks.size)))
        identity = {"method": type(method).__name__, "plan": to_json(plan), "seed": asked.seed, **net.identity(),
                    "corpus": taught.identity()}  # fmt: skip
        theta, state = outer_loop(
            method, net, theta, taught, plan, identity, validate=_validator(net, looked_at, ranks), folder=asked.out,
            resume=asked.resume, ranks=ranks, name="pretraining", trackers=asked.log_with,
        )  # fmt: skip
        ranks.close()
        if not ranks.main:
            return None
        found = _found(net, theta, parts, looked_at, state)
        _save(asked, net, theta, found)
        say(_ends(asked, found))
        return found


def _plan(asked: Pretraining) -> Plan:
    if not 0 <= asked.dropout < 1 or not 0 < asked.held_out < 1:
        raise InputError(
            f"--dropout {asked.dropout} and --held-out {asked.held_out} are shares, below 1 and the second above 0"
        )
    if asked.batch < 1 or asked.accumulate < 1 or asked.max_length < 8 or asked.seed < 0:
        raise InputError(
            f"--batch is {asked.batch} and --accumulate {asked.accumulate}, from 1 up; --max-length "
            f"{asked.max_length}, from 8 up; --seed {asked.seed}, from 0 up"
        )
    lr = (1e-3 if asked.model is None else 1e-4) if asked.lr is None else asked.lr
    return Plan(steps=asked.steps, minutes=asked.max_minutes, meta_batch=asked.accumulate, lr=lr, patience=0,
                weight_decay=asked.weight_decay, validations=asked.validations, exact=asked.exact)  # fmt: skip


def _prepare(asked: Pretraining, sources: list[str]) -> None:
    """The corpus as tokens, and the tokenizer of a new model, in the folder of the run; a resumed run has them. Of a
    corpus that is refused nothing is left. Raises InputError where a resumed run had other texts, or cut them in
    another way, and for a folder of the user's own in its place."""
    home, told = asked.out / CORPUS, asked.out / OF_CORPUS
    options = {name: getattr(asked, name) for name in DECIDES}
    if asked.resume and (home / DONE).is_file():
        _check_options(told, options)
        return
    if home.exists() and not told.is_file():
        raise InputError(f"{home} is there, and no pretraining has written it; give another --out")
    local_files(sources)  # what is not there is said before any work
    try:
        with storage.disk(home):
            shutil.rmtree(home, ignore_errors=True)
        storage.atomic_write(told, json.dumps(options).encode())
        _tokenise(asked, sources, home)
    except Exception:  # a run that is stopped goes on from there
        shutil.rmtree(home, ignore_errors=True)
        with suppress(OSError):  # the user's own files stay
            asked.out.rmdir()
        raise
    storage.atomic_write(home / DONE, b"{}\n")


def _check_options(told: Path, options: dict[str, Any]) -> None:
    """Raises InputError where the tokens were made with others."""
    before = json.loads(told.read_text())
    for name in (name for name in options if before[name] != options[name]):
        raise InputError(
            f"{told.parent} was made with --{name.replace('_', '-')} {before[name]}, now it is {options[name]}; resume "
            "with the same settings, or take another --out"
        )


def _tokenise(asked: Pretraining, sources: list[str], home: Path) -> None:
    def read(judges: bool) -> Iterator[str]:
        """The documents that teach, or those that judge."""
        return (text for _, text in documents(sources, asked.column) if held_out(text, asked.held_out) == judges)

    if asked.model is None:
        train_tokenizer(_first(read(False)), asked.tokenizer, asked.vocabulary, asked.lower).save_pretrained(str(home))
    tokenizer = open_tokenizer(asked.model or str(home))
    for side, judges in (("train", False), ("held_out", True)):
        texts = read(judges)
        first = next(texts, None)
        if first is None:
            raise InputError(
                f"{asked.text}: too small a corpus: no document of it falls to the {side.replace('_', '-')} part, "
                f"--held-out {asked.held_out}; give more documents, or another share"
            )
        Chunks.write(home / side, chain([first], texts), tokenizer, asked.max_length)


def _first(texts: Iterator[str]) -> Iterator[str]:
    """The texts, up to `FOR_TOKENIZER` characters."""
    left = FOR_TOKENIZER
    for text in texts:
        yield text
        left -= len(text)
        if left < 0:
            return


def _net(asked: Pretraining, size: Size, device: torch.device) -> MaskedLM:
    if asked.model is not None:
        net = MaskedLM.load(asked.model, dropout=asked.dropout, seed=asked.seed, precision=asked.precision,
                            device=device)  # fmt: skip
    else:
        tokenizer = open_tokenizer(str(asked.out / CORPUS))
        net = MaskedLM.make(tokenizer, size, asked.max_length, dropout=asked.dropout, seed=asked.seed,
                            precision=asked.precision, device=device)  # fmt: skip
    if asked.max_length > net.most:
        raise InputError(f"{net.name} reads at most {net.most} tokens, --max-length is {asked.max_length}; lower it")
    return net


def _begins(
    asked: Pretraining, net: MaskedLM, corpus: Chunks, taught: Epochs, theta: Weights, plan: Plan, processes: int
) -> dict[str, str]:
    """What stands before the run: what learns, from what, and how long it will take where every process is as fast as
    this one now."""
    count = sum(value.numel() for value in theta.values())
    facts = {"model": f"{net.name}, {count / 1e6:.1f} M weights, {net.precision}"}
    if net.new:
        facts["new weights"] = f"{len(net.new)} of a vocabulary head that the checkpoint lacks, tied to its embeddings"
    facts["corpus"] = f"{corpus.tokens:,} tokens in {len(corpus):,} texts"
    Likelihood().meta_grad(net, theta, taught[0])  # the first pass is slower
    begun = time.perf_counter()
    Likelihood().meta_grad(net, theta, taught[1])
    step = (time.perf_counter() - begun) * -(-asked.accumulate // processes)
    if plan.steps:
        facts["forecast"] = f"about {plan.steps * step / 60:.1f} minutes"
    elif plan.minutes:
        facts["forecast"] = f"about {plan.minutes * 60 / step:,.0f} steps"
    return facts


def _validator(net: MaskedLM, looked_at: list[MaskedPass], ranks: Ranks) -> Callable[[Weights], list[float]]:
    """Minus the bits a masked token of each held-out pass, dealt over the ranks."""

    def validate(theta: Weights) -> list[float]:
        mine = ranks.mine(len(looked_at))
        found = zip(mine, bits_per_token(net, theta, [looked_at[number] for number in mine]), strict=True)
        return [-bits for _, bits in sorted(ranks.gather(list(found)))]

    return validate


def _found(
    net: MaskedLM, theta: Weights, parts: Sequence[Chunks], looked_at: list[MaskedPass], state: State
) -> Pretrained:
    """What θ is worth on the held-out texts; `parts` are the chunks that taught and those that judge."""
    masked = [len(each.targets) for each in looked_at]
    bits = float(np.average(bits_per_token(net, theta, looked_at), weights=masked))
    return Pretrained(
        bits_per_token=bits,
        perplexity=2**bits,
        unigram_perplexity=_unigram(parts[0], looked_at, len(net.tokenizer)),
        best_step=state.best_step,
        steps=state.step,
        seconds=state.seconds,
        tokens_per_second=state.tokens / 2 / state.seconds,
        train_tokens=parts[0].tokens,
        held_out_tokens=parts[1].tokens,
        masked_tokens=sum(masked),
    )


def _ends(asked: Pretraining, found: Pretrained) -> dict[str, str]:
    """What stands after the run."""
    return {
        "held-out texts": f"{found.bits_per_token:.3f} bits a masked token, perplexity {found.perplexity:.1f}, of a "
        f"unigram model {found.unigram_perplexity:.1f}; {found.masked_tokens:,} masked of {found.held_out_tokens:,} "
        "tokens",
        "trained on": f"{found.train_tokens:,} tokens, {found.tokens_per_second:,.0f} a second",
        "model": f"{asked.out}, for AutoModelForMaskedLM or as --model",
    }


def _unigram(taught: Chunks, looked_at: list[MaskedPass], vocabulary: int) -> float:
    """Perplexity of the masked tokens where each counts as often as in the corpus, and once more."""
    counts = taught.counts(vocabulary) + 1
    targets = np.concatenate([each.targets.numpy() for each in looked_at])
    return float(np.exp(-np.log(counts[targets] / counts.sum()).mean()))


def _save(asked: Pretraining, net: MaskedLM, theta: Weights, found: Pretrained) -> None:
    """The model, each file whole or not at all, and its results last."""
    with signals.deferred() as told, storage.disk(asked.out):
        beside = storage.temporary_beside(asked.out / "model")
        try:
            net.save(theta, beside)
            for path in sorted(beside.iterdir()):
                storage.atomic_write(asked.out / path.name, path.read_bytes())
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        told_options = {key: value for key, value in to_json(asked).items() if key not in ("out", "replace", "resume")}
        content: dict[str, Any] = {
            "schema": 1,
            "kind": PRETRAINING,
            **asdict(found),
            "asked": told_options,
            "versions": versions(),
        }
        storage.atomic_write(asked.out / RESULTS, (json.dumps(content, indent=1) + "\n").encode())
    if told():
        raise StoppedError(told(), f"stopped when {asked.out} was saved")
