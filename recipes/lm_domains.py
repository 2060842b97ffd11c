"""Language modelling as meta-tasks: domains of plain text, each held out in turn.

    python recipes/lm_domains.py --text DATA/mlm
    python recipes/lm_domains.py --text my_domains --model bert-base-uncased --max-length 128

A folder of domains, a file or a folder each. For every two of them a small model is pretrained on all the others, and
methods learn on these to lower the bits of masked tokens by a few passages; then the two judge.
"""

import sys

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import LanguageDomains


def run(asked: LanguageDomains) -> None:
    from metanlp.experiment.lm_domains import lm_domains

    lm_domains(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(LanguageDomains, sys.argv[1:])), "--resume")
