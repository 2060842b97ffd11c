"""What metanlp does, in a few minutes on two cores and without a network: the embedded tasks, the packaged encoder."""

from pathlib import Path

from metanlp.cli.launch import launch
from metanlp.experiment.options import Experiment

DEFAULTS = Experiment(
    model="minilm",
    start="default",  # the learner that comes with the package
    data="mini",
    test="mini",
    baselines=("frozen", "multitask"),
    max_minutes=0.5,
    meta_batch=2,
    lr=5e-4,  # lower than from nothing: the start has learned much already
    shots=(4, 8),
    episodes=10,
    validations=3,
    validation_trials=5,
    search_trials=5,
    out=Path("out/demo"),
    replace=True,  # the demo may be run again
)

if __name__ == "__main__":
    launch(DEFAULTS)
