"""Language modelling as meta-tasks: each domain of plain text is held out in turn, from the model's pretraining too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from metanlp.backbone import Lora
from metanlp.backbone.vocabulary import VocabularyBackbone
from metanlp.core.errors import InputError
from metanlp.core.outputs import CORPUS, RESULTS
from metanlp.core.torch_modes import own_modes
from metanlp.episodes.corpus import Chunks, MaskedChunks, Masking, Vocabulary
from metanlp.episodes.domains import Domains, Passages, check_passages
from metanlp.evaluation.domains import HeldOutDomain
from metanlp.experiment.in_turn import Fold, Made, in_turn, methods_of, require_least
from metanlp.experiment.options import LanguageDomains, Pretraining
from metanlp.experiment.pretrain import pretrain
from metanlp.report.in_turn import Cell, Measure
from metanlp.report.tables import say
from metanlp.tasks.sources.corpus import documents, domains_in, held_out
from metanlp.training.processes import Ranks

BITS = Measure("bits", "Bits a masked token of held-out domains, fewer are better", "bits a masked token", "passages")


@own_modes()
def lm_domains(asked: LanguageDomains) -> list[Cell]:
    """Everything, on one process. Leaves in `asked.out` a folder a pair of domains, `results.json`, a plot and a page.
    Raises InputError, DivergedError, StorageError, StoppedError."""
    methods_of(asked)  # an option that can't be is said before texts are read
    domains = domains_of(asked)
    notes = (
        f"{len(domains)} domains of text, held out in turn",
        "Two domains at a time: all others pretrain the model, unless one was given, and teach the methods; each of "
        "the two judges with steps and rates that were chosen on the other.",
    )
    return in_turn(
        asked, (asked.text, asked.model or ""), tuple(domains), partial(made, asked, domains), (BITS,), notes
    )


def domains_of(asked: LanguageDomains) -> dict[str, Path]:
    """Where each domain lies. Raises InputError, for what is certain before anything is tokenised."""
    if not 0 < asked.held_out < 1 or not asked.shots or min(asked.shots) < 1:
        raise InputError(f"--held-out {asked.held_out} is a share, between 0 and 1; --shots {asked.shots} from 1 up")
    found = domains_in(asked.text)
    require_least(asked.text, tuple(found), "domains")
    for name, path in found.items():
        # A passage has at least one letter a token.
        most = sum(-(-len(text) // (asked.max_length - 2)) for text in texts_of(asked, path, judged=False))
        check_passages(name, most, max(asked.shots), 0)
    return found


def texts_of(asked: LanguageDomains, path: Path, *, judged: bool) -> list[str]:
    """Those documents of a domain that teach, or those that judge. Equal ones stand on one side, by what they say."""
    every = (text for _, text in documents([str(path)], asked.column))
    return [text for text in every if held_out(text, asked.held_out) == judged]


def made(asked: LanguageDomains, domains: Mapping[str, Path], fold: Fold, ranks: Ranks) -> Made:
    """A model that has not seen the two domains, episodes of the others, and the two."""
    teaching = {name: path for name, path in domains.items() if name not in fold.names}
    net = net_of(asked, fold, teaching, ranks)
    sampling = Passages(asked.train_shots, asked.train_queries, asked.copies)
    taught = {name: tokenised(asked, fold, name, path, net, judged=False) for name, path in domains.items()}
    held = {
        name: HeldOutDomain(
            name, taught[name], tokenised(asked, fold, name, domains[name], net, judged=True), sampling, asked.shots,
            asked.episodes, asked.test_passages, asked.seed,
        )
        for name in fold.names
    }  # fmt: skip
    return net, Domains({name: taught[name] for name in teaching}, sampling, asked.seed), held


def net_of(asked: LanguageDomains, fold: Fold, teaching: Mapping[str, Path], ranks: Ranks) -> VocabularyBackbone:
    """The model of --model, or one that only the domains outside of the pair have taught."""
    name = asked.model
    if name is None:
        folder = fold.folder / "model"
        name, made = str(folder), (folder / RESULTS).is_file()
        if not (asked.resume and made):
            minutes = None if asked.pretrain_steps else asked.pretrain_minutes
            pretrain(Pretraining(
                text=",".join(map(str, teaching.values())), column=asked.column, vocabulary=asked.vocabulary,
                layers=asked.layers, width=asked.width, heads=asked.heads, max_length=asked.max_length,
                accumulate=1, steps=asked.pretrain_steps, max_minutes=minutes, mask_rate=asked.mask_rate,
                held_out=asked.held_out, threads=asked.threads, seed=asked.seed, out=folder, replace=not asked.resume,
                resume=asked.resume and folder.is_dir(),
            ))  # fmt: skip
    net = VocabularyBackbone.load(name, Lora(rank=asked.rank, targets="all linear"), max_length=asked.max_length,
                                  seed=asked.seed, device=ranks.device)  # fmt: skip
    if asked.model:
        new = f"; {len(net.new)} weights of its vocabulary head are new and untaught" if net.new else ""
        say({"model": f"{net.name}, which may have read the held-out domains before{new}"})
    return net


def tokenised(
    asked: LanguageDomains, fold: Fold, name: str, path: Path, net: VocabularyBackbone, *, judged: bool
) -> MaskedChunks:
    """The passages of a domain that teach, or those that judge. Raises InputError where there are none."""
    texts, side = texts_of(asked, path, judged=judged), "judge" if judged else "teach"
    if not texts:
        raise InputError(
            f"domain {name!r}: none of its documents falls to those that {side}, --held-out {asked.held_out}; give more"
        )
    chunks = Chunks.write(fold.folder / CORPUS / name / side, texts, net.tokenizer, asked.max_length)
    return MaskedChunks(chunks, Vocabulary(*net.vocabulary), Masking(asked.mask_rate))
