"""What an experiment may be asked: the options of the recipes. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEAVE_ONE_OUT = "leave-one-out"  # in place of names of test tasks
ALL = "all"  # in place of names of methods


@dataclass(frozen=True)
class Experiment:
    """Meta-train, adapt to held-out tasks, compare with the baselines, save."""

    model: str = "bert-base-uncased"  # minilm, a folder, or a model's id on the Hub
    data: str = "glue"  # training tasks: glue, intents, topics, mini, glue/mnli, folders, Hub's owner/name; by commas
    validation: str = "auto"  # tasks that choose weights and recipes; auto: those that --data keeps for it, and mini's
    test: str = "leopard"  # held-out tasks that judge; leave-one-out: each task of --data in turn, after all the others
    columns: str = ""  # your files' names for our columns: text=body,label=intent; published sets have their own
    method: str = "maml"  # the method that is saved and compared with the others
    # Others, at equal compute; all: each of metanlp's own. setfit and llm only by their names.
    baselines: tuple[str, ...] = ("frozen", "finetune", "multitask", "protonet")
    # Of baseline llm: an OpenAI-compatible endpoint, its key in METANLP_LLM_KEY. Texts of test tasks are sent there; a
    # run without llm sends no data anywhere.
    llm_url: str | None = None
    llm_model: str | None = None  # of baseline llm: the model's name at --llm-url
    steps: int | None = None  # meta-steps; such a run is reproducible to the byte
    max_minutes: float | None = None  # of meta-training, in place of --steps
    meta_batch: int = 2  # episodes a meta-step
    tasks_per_pass: int | None = None  # of these, in one call of the model; by default 1, on a GPU as many as fit
    lr: float = 1e-3  # highest rate of the outer AdamW
    inner_steps: int = 1  # gradient steps on a support set while training
    inner_lr: float = 0.1  # their size for adapters
    head_lr: float = 0.1  # their size for the head
    second_order: bool = False  # differentiate through the inner steps: exact, slower, more memory; for maml's family
    rank: int = 16  # of the LoRA adapters
    # Layers that carry one, in the top half of the stack.
    targets: Literal["query and value", "attention", "all linear"] = "all linear"
    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class in the test
    episodes: int = 10  # support sets a test task and shots, where it does not bring its own
    test_rows: int | None = None  # query rows a test task at the most, for a quicker look
    validations: int = 8  # looks at the validation tasks, spread over the training
    validation_trials: int = 24  # support sets of validation tasks, used each time
    search_trials: int = 24  # of these, used for the search of the adaptation recipe
    seed: int = 0  # of everything that is drawn
    exact: bool = True  # the same bits with any number of processes
    threads: int | None = None  # of each process; by default its share of the cores, or OMP_NUM_THREADS
    views: tuple[str, ...] = ()  # what is read off the encoder; by default the last and the middle layers
    gradient_checkpoint: bool = False  # compute passes again for their gradients: slower, in less memory
    prompt: str | None = None  # in front of every text; by default what the model's folder says
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the frozen weights
    quantize: Literal["none", "4bit", "8bit"] = "none"  # of the frozen weights, by bitsandbytes
    overview: bool = False  # one table with a method a row, for many methods
    page: bool = True  # leave report.html and plots/, which takes a second or two
    log_with: tuple[str, ...] = ()  # trackers beside metrics.jsonl: tensorboard, wandb, … whatever accelerate knows
    out: Path = Path("out/run")  # folder for everything that the run leaves
    publish: str | None = None  # owner/name on the Hub for what the run leaves, for its owner alone
    resume: bool = False  # go on from the newest checkpoint in --out
