"""What `bench_engine.py` may be asked for: its keys with their targets, and its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metanlp.core.errors import InputError

TARGETS = {
    "plain_all": ">= 3.0", "plain_top_half": ">= 4.5", "padded128": ">= 8", "of_gemm_limit": ">= 0.60",
    "cosine_bf16": ">= 0.999", "cosine_fp32": ">= 0.999999", "memory_steps": "<= 1.02", "memory_plain": "<= 1.0",
    "adapt_seconds": "<= 1.5", "adapt_vs_setfit": ">= 40", "adapt_accuracy": "not lower", "setfit_accuracy": "",
    "adapt_recipe_seconds": "<= 10", "predict_vs_pipeline": ">= 3", "predict_vs_sorted": ">= 1.5",
    "batch_growth": "<= 1.10", "processes": ">= 0.95", "episodes_per_s": ">= 2000",
    "stored_multitask": ">= 1.6", "stored_protonet": ">= 1.6", "stored_maml": ">= 1.2",
    "steps_multitask": "", "steps_protonet": "", "steps_maml": "",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Measure the engine; a table, and bench.json in --out."""

    model: str = "minilm"  # minilm, a folder, or an id on the Hub; the plain loop needs BERT's names of layers
    data: str = "mini"  # tasks with at least three classes, from which episodes are drawn
    eight: str = "mini/intents_banking"  # the task with eight classes that is adapted to
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the engine, where a row says nothing else
    repeats: int = 5  # of each comparison; slow ones take 3, prediction 3 at the most
    only: tuple[str, ...] = ()  # keys to measure; all where none is named
    out: Path = Path("out/bench")  # folder for bench.json
    replace: bool = False  # replace the bench.json that is there
    probe: str = ""  # measure this one thing in this process and print it: what the rows of memory and processes start

    def __post_init__(self) -> None:
        if unknown := {*self.only} - {*TARGETS}:
            raise InputError(f"--only {', '.join(sorted(unknown))}: no such key; there are {', '.join(TARGETS)}")
