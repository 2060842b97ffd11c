"""What an experiment may be asked: the options of the recipes. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEAVE_ONE_OUT = "leave-one-out"  # in place of names of test tasks
ALL = "all"  # in place of names of methods
AUTO, NOTHING = "auto", "none"  # in place of a learner to begin from; the second of test tasks, too


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an experiment reads."""

    model: str = "bert-base-uncased"  # minilm, a folder, or a model's id on the Hub
    data: str = "glue"  # training tasks: glue, intents, topics, mini, glue/mnli, folders, Hub's owner/name; by commas
    validation: str = "auto"  # tasks that choose weights and recipes; auto: those that --data keeps for it, and mini's
    # Held-out tasks that judge; leave-one-out: each task of --data in turn, after all the others; none: only a learner.
    test: str = "leopard"


@dataclass(frozen=True, kw_only=True)
class Testing:
    """How held-out tasks are tested, and what is left of it."""

    columns: str = ""  # your files' names for our columns: text=body,label=intent; published sets have their own
    # Leave out test rows that stand in their task's training rows or support set too; else a file with such rows is
    # refused, and published support sets are scored as they are.
    drop_repeats: bool = False
    shots: tuple[int, ...] = (4, 8, 16)  # support rows a class in the test
    episodes: int = 10  # support sets a test task and shots, where it does not bring its own
    test_rows: int | None = None  # query rows a test task at the most; all where it is not given
    seed: int = 0  # of everything that is drawn
    page: bool = True  # leave report.html and plots/, which takes a second or two
    replace: bool = False  # replace what is in --out already


@dataclass(frozen=True, kw_only=True)
class Experiment(Testing, Inputs):
    """Meta-train, adapt to held-out tasks, compare with the baselines, save."""

    # Clean texts on the way in: HTML, invisible characters, prices and spaces are put in order, repeats and texts with
    # nothing to read are left out, and the report says what was changed.
    clean: bool = False
    # Begin meta-training from this learner, with its adapters and views: default, a folder, or owner/name on the Hub;
    # none; auto: default where the model is its own and it learned no task that judges. It is tested as it is, too.
    start: str | None = None
    method: str = "maml"  # the method that is saved and compared with the others
    # Others, at equal compute; all: each of metanlp's own. tfidf, logistic, setfit and llm only by their names.
    baselines: tuple[str, ...] = ("frozen", "finetune", "multitask", "protonet")
    # Of baseline llm: an OpenAI-compatible endpoint, its key in METANLP_LLM_KEY. Texts of test tasks are sent there; a
    # run without llm sends no data anywhere.
    llm_url: str | None = None
    llm_model: str | None = None  # of baseline llm: the model's name at --llm-url
    steps: int | None = None  # meta-steps; such a run is reproducible to the byte
    max_minutes: float | None = None  # of meta-training, in place of --steps
    meta_batch: int = 2  # episodes a meta-step
    mix: float = 0.3  # share of the episodes from unlabelled tasks of --data: masked:, adjacent: or recurring:CORPUS
    tasks_per_pass: int | None = None  # of these, in one call of the model; by default 1, on a GPU as many as fit
    # Highest rate of the outer AdamW; auto: each method's own, by short runs that the validation tasks judge, which are
    # 18 % more training.
    lr: float | Literal["auto"] = 1e-3
    decorrelate: float = 0.0  # weight of a regulariser of the features in the outer loss, for methods with a query loss
    inner_steps: int = 1  # gradient steps on a support set while training
    inner_lr: float = 0.1  # their size for adapters
    head_lr: float = 0.1  # their size for the head
    second_order: bool = False  # differentiate through the inner steps: exact, slower, more memory; for maml's family
    rank: int = 16  # of the LoRA adapters
    targets: Literal["query and value", "attention", "all linear"] = "all linear"  # linear layers that carry one
    layers: Literal["top half", "all"] = "top half"  # of the stack; what the model says below them is computed once
    validations: int = 8  # looks at the validation tasks, spread over the training
    validation_trials: int = 24  # support sets of validation tasks, used each time
    search_trials: int = 24  # of these, used for the search of the adaptation recipe
    exact: bool = True  # the same bits with any number of processes
    threads: int | None = None  # of each process; by default its share of the cores, or OMP_NUM_THREADS
    views: tuple[str, ...] = ()  # what is read off the encoder; by default the last and the middle layers
    gradient_checkpoint: bool = False  # compute passes again for their gradients: slower, in less memory
    prompt: str | None = None  # in front of every text; by default what the model's folder says
    max_length: int | None = None  # longer texts are cut, in tokens; by default as --start has it, or 128
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the frozen weights
    quantize: Literal["none", "4bit", "8bit"] = "none"  # of the frozen weights, by bitsandbytes
    # Memory of each process for what the frozen model says of a text, in GB, 0 for none: methods after the first, and
    # epochs, then cost their adapted layers alone.
    store_gb: float = 0.0
    overview: bool = False  # one table with a method a row, for many methods
    log_with: tuple[str, ...] = ()  # trackers beside metrics.jsonl: tensorboard, wandb, … whatever accelerate knows
    out: Path = Path("out/run")  # folder for everything that the run leaves
    publish: str | None = None  # owner/name on the Hub for what the run leaves, for its owner alone
    resume: bool = False  # go on from the newest checkpoint in --out, whose settings must be the same


@dataclass(frozen=True, kw_only=True)
class ShoppingGuide(Experiment):
    """Meta-train on product categories, shops and conditions, test on new ones, then rank products for simulated
    shoppers who ticked a few. Products are the texts of test tasks of three classes or more, a shopper each class, and
    of reviews, a shopper each category who likes what is well reviewed."""

    praise: str = "positive"  # the label of well-reviewed products
    ticks: tuple[int, ...] = (4, 8, 16)  # products that a shopper ticks, half of them liked where there are dislikes
    draws: int = 5  # times that each shopper ticks anew
    listed: int = 100  # products that are ranked for each, a fifth of them liked


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Pretrain a model by masked words, from nothing or from a checkpoint, and save it."""

    text: str  # the corpus: files of text, JSON lines, CSV or Parquet, folders, data sets of the Hub; by commas
    column: str = "text"  # of the texts, where the corpus has columns
    model: str | None = None  # go on from this one: minilm, a folder, or a model's id on the Hub; none makes a new one
    tokenizer: Literal["wordpiece", "bpe"] = "wordpiece"  # of a new model, learned from the corpus
    vocabulary: int = 8_000  # most tokens of a new tokenizer
    lower: bool = True  # whether a new tokenizer makes letters small
    layers: int = 4  # of a new model
    width: int = 256  # of a new model, in numbers a token
    heads: int = 4  # of a new model
    max_length: int = 128  # longer documents are cut into several texts, in tokens
    batch: int = 32  # texts a pass
    accumulate: int = 2  # passes a step, whose gradients are added
    steps: int | None = None  # such a run is reproducible to the byte
    max_minutes: float | None = None  # in place of --steps
    lr: float | None = None  # highest rate of AdamW; by default 1e-3 for a new model, 1e-4 for one that goes on
    weight_decay: float = 0.01  # of AdamW
    mask_rate: float = 0.15  # share of the tokens that are hidden
    whole_words: bool = True  # hide all pieces of a word or none
    dropout: float = 0.0  # while it learns
    held_out: float = 0.05  # share of the documents that judge and do not teach
    validations: int = 8  # looks at the held-out texts, spread over the run
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the passes; weights and their steps are always fp32
    exact: bool = True  # the same bits with any number of processes
    threads: int | None = None  # of each process; by default its share of the cores, or OMP_NUM_THREADS
    seed: int = 0  # of everything that is drawn
    log_with: tuple[str, ...] = ()  # trackers beside metrics.jsonl: tensorboard, wandb, … whatever accelerate knows
    out: Path = Path("out/pretrained")  # folder for the model, and for the checkpoints while it learns
    replace: bool = False  # replace what is in --out already
    resume: bool = False  # go on from the newest checkpoint in --out, whose settings must be the same


@dataclass(frozen=True, kw_only=True)
class Trail:
    """From plain text to a learner: pretrain a model, train it on many tasks at once, meta-train it; held-out tasks
    judge after each stage. With --resume, stages that are done stay as they are."""

    text: str  # the corpus, which also gives tasks without labels: files, folders, data sets of the Hub; by commas
    column: str = "text"  # of the texts, where the corpus has columns
    data: str = "mini"  # labelled training tasks, as in --data of the other recipes
    validation: str = "auto"  # tasks that choose weights and recipes; auto: those that --data keeps for it, and mini's
    test: str = "mini"  # held-out tasks that judge after each stage
    columns: str = ""  # your task files' names for our columns: text=body,label=intent
    method: str = "maml"  # of meta-training, which begins where multi-task training ended
    mix: float = 0.3  # share of the episodes of meta-training from tasks that --text gives without labels
    # These: which word was masked; whether a sentence follows another, for documents of four sentences or more.
    unlabelled: tuple[Literal["masked", "adjacent"], ...] = ("masked", "adjacent")
    layers: int = 4  # of the model
    width: int = 256  # of the model, in numbers a token
    heads: int = 4  # of the model
    vocabulary: int = 8_000  # most tokens of its tokenizer
    minutes: tuple[float, float, float] = (12.0, 4.0, 5.0)  # of pretraining, multi-task training and meta-training
    steps: tuple[int, int, int] | None = None  # of these, in place of minutes; reproducible to the byte
    meta_batch: int = 4  # episodes a step of multi-task training and of meta-training
    lr: float = 1e-3  # highest rate of multi-task training and of meta-training
    trials: int = 24  # support sets of validation tasks, by which weights and recipes are chosen
    shots: tuple[int, ...] = (4, 8)  # support rows a class in the test
    episodes: int = 10  # support sets a test task and shots, where it does not bring its own
    test_rows: int | None = None  # query rows a test task at the most; all where it is not given
    threads: int | None = None  # by default all cores, or OMP_NUM_THREADS
    seed: int = 0  # of everything that is drawn
    out: Path = Path("out/trail")  # folder for a folder a stage, results.json and plots/
    replace: bool = False  # replace what is in --out already
    resume: bool = False  # go on where a run in --out was stopped, whose settings must be the same


@dataclass(frozen=True, kw_only=True)
class InTurn:
    """What runs that hold out tasks in turn have in common. A text is a passage, or a sentence with its translation."""

    methods: tuple[str, ...] = ("finetune", "multitask", "reptile", "maml")  # the last sets the compute of the others
    steps: int = 100  # meta-steps of the last method
    meta_batch: int = 2  # episodes a meta-step
    train_shots: tuple[int, int] = (4, 16)  # fewest and most support texts of a training episode
    train_queries: int = 8  # query texts of a training episode
    lr: float = 1e-3  # highest rate of the outer AdamW
    inner_steps: int = 3  # gradient steps on a support set while training
    inner_lr: float = 1.0  # their size for adapters
    head_lr: float = 10.0  # their size for the biases of words
    optimiser: Literal["sgd", "adam"] = "sgd"  # of the inner loop; adam wants rates of about 0.005 and 0.2
    rank: int = 16  # of the LoRA adapters, on all linear layers
    shots: tuple[int, ...] = (4, 16, 64)  # support texts in the test
    episodes: int = 6  # support sets a task and shots
    search_trials: int = 1  # support sets of the other held-out task, by which steps and rates are chosen
    search_at: Literal["each", "fewest"] = "each"  # of --shots: chosen for each of them, or at the fewest for all
    search_steps: tuple[int, ...] = (0, 1, 2, 5)  # inner steps that are tried beside --inner-steps
    threads: int | None = None  # by default all cores, or OMP_NUM_THREADS
    seed: int = 0  # of everything that is drawn
    replace: bool = False  # replace what is in --out already
    resume: bool = False  # go on from the newest checkpoints in --out, whose settings must be the same
    out: Path  # folder for everything that the run leaves


@dataclass(frozen=True, kw_only=True)
class LanguageDomains(InTurn):
    """Hold out each domain of plain text in turn: how far do k of its passages lower the bits of its masked tokens?"""

    text: str  # a folder; each file or folder in it is a domain of at least three: text, JSON lines, CSV or Parquet
    column: str = "text"  # of the texts, where files have columns
    # With a vocabulary head: a folder, or a model's id on the Hub. Without it one is pretrained for every two domains
    # that are held out, on all the others.
    model: str | None = None
    pretrain_steps: int | None = None  # of such a model; then a run is reproducible to the byte
    pretrain_minutes: float = 4.0  # in place of --pretrain-steps, for each of them
    vocabulary: int = 4_000  # most tokens of its tokenizer
    layers: int = 2  # of such a model
    width: int = 256  # of such a model, in numbers a token
    heads: int = 4  # of such a model
    max_length: int = 64  # a passage's most tokens; longer documents are cut into several
    copies: int = 1  # maskings of each support passage
    mask_rate: float = 0.15  # share of the tokens that are hidden
    test_passages: int = 100  # query passages of a domain at the most
    held_out: float = 0.1  # share of a domain's documents that judge and do not teach
    out: Path = Path("out/lm_domains")  # folder for everything that the run leaves


@dataclass(frozen=True, kw_only=True)
class Students:
    """Every student is a task: predict the next answers from the first ones, and leave the page of a class."""

    # A folder with train and test files and, if there is one, skills.json with the skills' names; or one file. Rows are
    # student, skill and correct, an answer each in their order; or student, skills and correct, lists, a student each.
    traces: str
    judged: Path | None = None  # students who judge and are on the page: a class of yours, in place of the test file
    columns: str = ""  # your files' names for our columns: student=user_id,skill=topic,correct=score,time=when
    held_out: float = 0.25  # share of the students who judge, where no file says which
    choose: float = 0.1  # share of the teaching students who choose settings and do not teach
    once: bool = False  # leave out an answer that looks like the one before it under another skill of the same question
    most_answers: int = 200  # of a student's first answers, that teach
    model: str = "minilm"  # encoder that reads the skills' names: minilm, a folder, or an id on the Hub; none for none
    # Meta-learners: by metric, by model and by gradient steps. Those after the first get the compute of the last.
    methods: tuple[str, ...] = ("multitask", "siamese", "protonet", "memory", "mapping", "reptile", "maml")
    steps: int = 600  # meta-steps of the last method; runs are reproducible
    meta_batch: int = 16  # students a meta-step
    shots: tuple[int, int] = (2, 20)  # fewest and most first answers of a training episode
    queries: int = 30  # answers that follow, in a training episode
    lr: float = 3e-3  # highest rate of the outer AdamW
    weight_decay: float = 0.01  # of the outer AdamW
    inner_steps: int = 3  # gradient steps on a student's first answers while training
    inner_lr: float = 0.1  # their size, for the network
    head_lr: float = 0.1  # their size, for the head
    draws: int = 1_000  # bootstrap draws of students, of which intervals are made
    target: float = 0.7  # chance of success at which to practise next
    practise: int = 3  # skills to practise next, a student
    warn: float = 0.5  # predicted success below which a student is on the early-warning list
    shown: int = 40  # students with all their skills on the page
    threads: int | None = None  # by default all cores, or OMP_NUM_THREADS
    seed: int = 0  # of everything that is drawn
    out: Path = Path("out/student")  # folder for results.json, report.html and plots/
    replace: bool = False  # replace what is in --out already


@dataclass(frozen=True, kw_only=True)
class Translation(InTurn):
    """Hold out pairs of languages: how well does a model translate one after k of its sentences?"""

    data: str  # a folder with a folder for each pair of languages, three or more, with train and test files
    # Pairs that judge, two at a time, each after the other; by default all, and with `none` all teach.
    held_out: tuple[str, ...] = ()
    # With an encoder and a decoder: a folder, or a model's id on the Hub. Without it one is trained for every two pairs
    # that are held out, on all the others.
    model: str | None = None
    prefix: str = ">>{target_lang}<< "  # in front of every source, or around {source}
    train_steps: int | None = None  # of such a model; then a run is reproducible to the byte
    train_minutes: float = 6.0  # in place of --train-steps, for each of them
    batch: int = 32  # pairs of sentences a step of its training
    train_lr: float = 2e-3  # highest rate of its AdamW
    vocabulary: int = 2_000  # most tokens of its tokenizer
    layers: int = 2  # of such a model, of its encoder and as many of its decoder
    width: int = 128  # of such a model, in numbers a token
    heads: int = 4  # of such a model
    max_length: int = 48  # most tokens of a sentence; longer ones are cut
    steps: int = 30  # meta-steps of the last method
    train_shots: tuple[int, int] = (8, 32)  # fewest and most support sentences of a training episode
    train_queries: int = 16  # query sentences of a training episode
    optimiser: Literal["sgd", "adam"] = "adam"  # of the inner loop
    inner_lr: float = 0.005  # size of its steps for adapters
    head_lr: float = 0.2  # size of its steps for the biases of words
    shots: tuple[int, ...] = (50, 200, 350)  # support sentences in the test
    episodes: int = 3  # support sets a pair and shots
    search_at: Literal["each", "fewest"] = "fewest"  # of --shots: steps and rates are chosen for each, or for all
    search_steps: tuple[int, ...] = (0, 2, 5)  # inner steps that are tried beside --inner-steps
    test_sentences: int = 60  # query sentences of a pair at the most
    beams: int = 1  # of the decoding; 1 is greedy
    out: Path = Path("out/translation")  # folder for everything that the run leaves
