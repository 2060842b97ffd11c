"""Every method, trained on the same tasks at equal compute, adapting to the same frozen episodes: one table, one page.

    python recipes/compare_all.py
    python recipes/compare_all.py --data DATA/glue --test DATA/leopard --test-rows 500 --shots 4 8 16 --steps 800

`--method` names the one that the others are compared with: it is trained for `--steps`, the others for as many tokens.
The page's plots need matplotlib: pip install 'metanlp[report]'. A run that was stopped goes on with `--resume`.
"""

from pathlib import Path

from metanlp.cli.launch import launch
from metanlp.experiment.options import ALL, Experiment

DEFAULTS = Experiment(
    model="minilm",
    data="mini",
    test="mini",
    method="multitask",
    baselines=(ALL,),
    steps=50,
    store_gb=2.0,
    meta_batch=2,
    lr="auto",  # a ranking at one rate for all is none of methods
    shots=(4, 8),
    episodes=10,
    test_rows=40,
    validations=3,
    validation_trials=5,
    search_trials=5,
    overview=True,
    out=Path("out/compare_all"),
)

if __name__ == "__main__":
    launch(DEFAULTS)
