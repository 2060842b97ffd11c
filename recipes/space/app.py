"""A Hugging Face Space where people try a learner. Copy this folder into the Space, and name a learner of the Hub here,
or as the Space's variable METANLP_LEARNER; HF_TOKEN as a secret lets it read a private one."""

import os
from pathlib import Path

from metanlp.cli.launch import guarded
from metanlp.cli.serving import Serve

LEARNER = "your-name/your-learner"

if __name__ == "__main__":
    guarded(Serve(source=Path(os.environ.get("METANLP_LEARNER", LEARNER)), host="0.0.0.0").run)
