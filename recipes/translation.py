"""Translation as meta-tasks: pairs of languages, held out two at a time.

    python recipes/translation.py --data DATA/mt --held-out multi30k_en_fr xquadq_en_ro
    python recipes/translation.py --data my_pairs --model Helsinki-NLP/opus-mt-en-mul --rank 8

A folder for each pair of languages. For every two of them a small model is trained on all the others, and methods learn
on these to translate after a few sentences; then the two judge, by the bits of their targets, chrF and BLEU.
"""

import sys

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import Translation


def run(asked: Translation) -> None:
    from metanlp.experiment.translation import translation

    translation(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(Translation, sys.argv[1:])), "--resume")
