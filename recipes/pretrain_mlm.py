"""BERT-style pretraining by masked words: a model of your own from plain text, or a checkpoint made at home in it.

    python recipes/pretrain_mlm.py --text corpus/ --max-minutes 10
    python recipes/pretrain_mlm.py --text corpus/ --model minilm --max-minutes 10 --out out/at_home
    accelerate launch recipes/pretrain_mlm.py --text corpus/ --steps 10000

What it leaves opens with `AutoModelForMaskedLM`, and with `--model` of every other recipe.
"""

import sys

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import Pretraining


def run(asked: Pretraining) -> None:
    from metanlp.experiment.pretrain import pretrain

    pretrain(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(Pretraining, sys.argv[1:])), "--resume")
