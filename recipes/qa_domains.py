"""Answers in passages: domains of questions are tasks; a held-out domain is learned from 16 and from 64 questions.

    python recipes/qa_domains.py --data DATA/qa,recurring:DATA/mlm/reviews --validation DATA/qa --test DATA/qa
    python recipes/qa_domains.py --data my_domains --validation my_domains/shop.jsonl --test my_domains/forum.jsonl

A domain is a file or a folder with columns question, context and answers, or answer. `recurring:CORPUS` makes questions
of plain text: where words stand once more. Exact match and F1 are printed before adaptation and after. Nothing is
downloaded.
"""

import sys
from pathlib import Path

from metanlp.cli.launch import carry_out, guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import Experiment

DEFAULTS = Experiment(
    model="minilm",
    data="qa",
    validation="qa",
    test="qa",
    baselines=("frozen", "finetune", "multitask", "reptile"),
    steps=30,
    meta_batch=1,  # an episode of questions has thousands of tokens
    store_gb=1.0,
    shots=(16, 64),
    episodes=3,
    validations=2,
    validation_trials=2,
    search_trials=0,  # every method adapts as it was trained: 64 questions take half a minute a trial
    out=Path("out/qa_domains"),
)


def run(asked: Experiment) -> None:
    found = carry_out(asked)
    if found:
        from metanlp.experiment.before_after import before_after

        before_after(asked, found)


if __name__ == "__main__":
    guarded(lambda: run(parse(Experiment, sys.argv[1:], default=DEFAULTS)), "--resume")
