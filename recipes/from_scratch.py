"""From plain text to a learner of your own, and what each stage is worth: pretraining by masked words, many tasks at
once, meta-training over labelled tasks and such as the text gives without labels, adaptation to held-out tasks.

    python recipes/from_scratch.py --text corpus/
    METANLP_DATA=DATA python recipes/from_scratch.py --text DATA/mlm --data glue,mini --test mini

Twenty-one minutes of training, and the tests between. A run that was stopped goes on with `--resume`; a
stage that is done stays as it is.
"""

import sys

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import Trail


def run(asked: Trail) -> None:
    from metanlp.experiment.trail import trail

    trail(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(Trail, sys.argv[1:])), "--resume")
