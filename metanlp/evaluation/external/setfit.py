"""SetFit, by its authors' library. The only module that imports setfit."""

from __future__ import annotations

import importlib
import logging
import random
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from metanlp.backbone.pretrained import folder_of
from metanlp.core.errors import InputError
from metanlp.core.launched import alone
from metanlp.core.types import Row, Task
from metanlp.evaluation.external.base import Answers, ExternalBaseline
from metanlp.forms import FORMS

Texts = Sequence[tuple[str, ...]]

LEAST = 1e-9  # probability of a class without support rows


@dataclass(frozen=True)
class SetFit(ExternalBaseline):
    """SetFit (Tunstall et al. 2022, arXiv 2209.11055): contrastive fine-tuning of all weights of a sentence encoder on
    pairs of support rows, then logistic regression on its embeddings. All settings are the library's defaults."""

    model: str  # minilm, a folder, or an id on the Hub; mean pooling if it is no sentence-transformers folder
    iterations: int | None = None  # positive and negative pairs a row; None: all pairs, the library's default

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

    def answer(self, task: Task, support: Sequence[Row], query: Sequence[Row], seed: int) -> Answers:
        form = FORMS[task.form]
        read, asked = ([form.texts(row)[0] for row in rows] for rows in (support, query))
        labels = [form.shots_of(row)[0] for row in support]
        question = repr((self.model, self.iterations, seed, len(task.labels), read, labels, asked))
        if question not in self.answer_cache:
            seconds, found = self._fit(read, labels, asked, seed)
            values = np.full((len(query), len(task.labels)), LEAST)
            values[:, np.unique(labels)] = found
            self.answer_cache[question] = {"adapt_s": seconds, "values": np.log(values.clip(LEAST)).round(6).tolist()}
        known = self.answer_cache[question]
        return Answers(np.array(known["values"]), known["adapt_s"])

    def _fit(self, support: Texts, labels: Sequence[int], query: Texts, seed: int) -> tuple[float, np.ndarray]:
        """Seconds to train on `support`, and probabilities of the classes that occur there, ascending: (R, ·)."""
        folder = folder_of(self.model)
        with TemporaryDirectory() as out, aside(), alone():
            from datasets import Dataset
            from sentence_transformers import SentenceTransformer
            from setfit import SetFitModel, Trainer, TrainingArguments  # pyright: ignore
            from sklearn.linear_model import LogisticRegression

            # `from_pretrained` would unpickle a head, from the Hub too. A relative path of two parts is a Hub name.
            encoder = SentenceTransformer(str(Path(folder).resolve()) if Path(folder).is_dir() else folder)
            mark = f" {encoder.tokenizer.sep_token or '|'} "  # between two texts: it takes one
            model: Any = SetFitModel(encoder, LogisticRegression())
            told = TrainingArguments(output_dir=out, seed=seed, num_iterations=self.iterations, report_to="none",
                                     save_strategy="no", show_progress_bar=False)  # fmt: skip
            rows = Dataset.from_dict({"text": [mark.join(text) for text in support], "label": list(labels)})
            trainer = Trainer(model=model, args=told, train_dataset=rows)
            begun = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - begun
            texts = [mark.join(text) for text in query]
            return seconds, model.predict_proba(texts, as_numpy=True, show_progress_bar=False)

    def settings(self) -> Mapping[str, Any]:
        return {"version": version("setfit"), "iterations": self.iterations}


@contextmanager
def aside() -> Generator[None]:
    """Suppresses output, logs and warnings in the block, and restores all random generators after it."""
    drawn, before, muted = random.getstate(), np.random.get_state(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    quiet = warnings.catch_warnings(action="ignore")
    try:
        with torch.random.fork_rng(), quiet, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(muted)
        random.setstate(drawn)
        np.random.set_state(before)
