"""SetFit, as its authors' library does it. The door of setfit."""

from __future__ import annotations

import importlib
import logging
import random
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from metanlp.backbone.origin import folder_of
from metanlp.errors import InputError
from metanlp.forms import FORMS
from metanlp.parallel import alone
from metanlp.rivals.base import Rival, Said
from metanlp.rivals.kept import Kept
from metanlp.types import Row, Task

LEAST = 1e-9  # probability of a class that the support set lacks


@dataclass(frozen=True)
class SetFit(Rival):
    """Tunstall et al. 2022: all weights of a sentence encoder are fine-tuned on pairs of support rows, of one class or
    of two, then a logistic regression reads it. Everything at the library's defaults: nothing is searched."""

    model: str  # minilm, a folder, or an id on the Hub; the mean over tokens, if it is no sentence-transformer
    iterations: int | None = None  # pairs of each kind a row; by default all pairs, as in the library
    kept: Kept = field(default_factory=Kept, repr=False, compare=False)  # by support set

    def check(self) -> None:
        if find_spec("setfit") is None:
            raise InputError("setfit is asked for and not installed; pip install 'metanlp[setfit]', or leave it out")
        folder_of(self.model)
        try:
            with aside():
                importlib.import_module("setfit")
        except Exception as error:  # of any kind, from libraries of the wrong version
            raise InputError(f"setfit does not open beside the other libraries: {error}; install its 1.2.0") from error

    def plan(self, trials: int, rows: int) -> str:
        pairs = f"{self.iterations} pairs of each kind a row" if self.iterations else "all pairs"
        return f"trained anew on at most {trials:,} support sets, {pairs}: seconds to minutes each"

    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Said:
        read, asked = ([FORMS[task.form].texts(row)[0] for row in rows] for rows in (support, query))
        labels = [int(row["label"]) for row in support]
        question = repr((self.model, self.iterations, seed, len(task.labels), read, labels, asked))
        if question not in self.kept:
            seconds, found = fitted(folder_of(self.model), read, labels, asked, seed, self.iterations)
            values = np.full((len(query), len(task.labels)), LEAST)
            values[:, np.unique(labels)] = found
            self.kept[question] = {"adapt_s": seconds, "values": np.log(values.clip(LEAST)).round(6).tolist()}
        known = self.kept[question]
        return Said(np.array(known["values"]), known["adapt_s"])

    def settings(self) -> Mapping[str, Any]:
        return {"version": version("setfit"), "iterations": self.iterations}


def fitted(
    folder: str,
    support: Sequence[tuple[str, ...]],
    labels: Sequence[int],
    query: Sequence[tuple[str, ...]],
    seed: int,
    iterations: int | None,
) -> tuple[float, np.ndarray]:
    """Seconds to train on `support`, and the probabilities of the classes that occur there, in their order: (R, ·)."""
    with TemporaryDirectory() as out, aside(), alone():
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer
        from setfit import SetFitModel, Trainer, TrainingArguments  # pyright: ignore
        from sklearn.linear_model import LogisticRegression

        # Not `from_pretrained`, which would unpickle a head where it finds one, on the Hub too. An absolute path, as
        # a relative one of two parts is taken for a name there.
        encoder = SentenceTransformer(str(Path(folder).resolve()) if Path(folder).is_dir() else folder)
        mark = f" {encoder.tokenizer.sep_token or '|'} "  # between two texts: it takes one
        model: Any = SetFitModel(encoder, LogisticRegression())
        how = {} if iterations is None else {"num_iterations": iterations}
        told = TrainingArguments(
            output_dir=out, seed=seed, report_to="none", save_strategy="no", show_progress_bar=False, **how
        )
        rows = Dataset.from_dict({"text": [mark.join(text) for text in support], "label": list(labels)})
        trainer = Trainer(model=model, args=told, train_dataset=rows)
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
        texts = [mark.join(text) for text in query]
        return seconds, model.predict_proba(texts, as_numpy=True, show_progress_bar=False)


@contextmanager
def aside() -> Generator[None]:
    """Nothing is printed, logged or warned of in the block, and what it draws leaves the generators as they were."""
    drawn, before, muted = random.getstate(), np.random.get_state(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            with redirect_stderr(StringIO()):
                yield
    finally:
        logging.disable(muted)
        random.setstate(drawn)
        np.random.set_state(before)
