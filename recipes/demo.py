"""What metanlp does, in a few minutes on two cores and without a network: the embedded tasks, the packaged encoder."""

from pathlib import Path

from metanlp.launch import launch
from metanlp.options import Experiment

DEFAULTS = Experiment(
    model="minilm",
    data="mini",
    test="mini/urgency,mini/answer_match,mini/student_answers",
    baselines=("frozen", "finetune", "multitask"),
    max_minutes=0.5,
    meta_batch=2,
    lr=2e-3,
    shots=(4, 8),
    episodes=10,
    test_rows=60,
    validations=3,
    validation_trials=5,
    search_trials=5,
    out=Path("out/demo"),
)

if __name__ == "__main__":
    launch(DEFAULTS)
