"""A table of the published tasks, with their licences and roles: GLUE with SNLI (Wang et al. 2019; Bowman et
al. 2015), LEOPARD (Bansal et al. 2020), intents (Larson et al. 2019; Liu et al. 2019), topics (Zhang et al. 2015; Li
& Roth 2002), questions about passages (Artetxe et al. 2020; Bjerva et al. 2020; Miller et al. 2020) and shopping
(Blitzer et al. 2007; Mudgal et al. 2018; Akritidis et al. 2020; Gräßer et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metanlp.core.hub import HubName
from metanlp.core.types import Task

Role = Literal["train", "validation", "test", "named"]


@dataclass(frozen=True)
class Published:
    """What the files of a published task, or of a set of many tasks, do not say themselves."""

    name: str  # source/folder
    licence: str  # of its texts, as its data card says
    about: str = ""  # one sentence
    labels: tuple[str, ...] = ()  # label words in the order of the published integers; () as the files have them
    written: tuple[str, ...] = ()  # the same words as the files have them, where these differ
    metric: str = "accuracy"  # what its publishers report, or the first of two
    # What `--validation auto` or `--test SOURCE` takes, and what then does not teach; "named" teaches only where it is
    # named itself.
    role: Role = "train"
    group_by: str = ""  # column by which it is many tasks, source/folder/group
    choosing: tuple[str, ...] = ()  # groups of the role "validation"
    fixed: bool = False  # whether it comes as fixed support sets
    alone: bool = False  # whether it is read by its own name only, and not as a part of the source
    unusable: str = ""  # why it is not read
    columns: Mapping[str, str] = field(default_factory=dict)  # our columns -> the Hub's; our own files have our names
    hub: str = ""  # id of the data set on the Hub
    config: str | None = None  # its configuration there
    hidden: float | None = None  # what stands there for a score that is kept back; types of classes say so themselves

    @property
    def source(self) -> str:
        return self.name.partition("/")[0]

    @property
    def folder(self) -> str:
        return self.name.partition("/")[2]


def _glue(name: str, licence: str, about: str, labels: tuple[str, ...], columns: str, metric: str = "accuracy",
          role: Role = "train", score: bool = False) -> Published:  # fmt: skip
    theirs = columns.split()
    ours = ("text_a", "text_b") if len(theirs) > 1 else ("text",)
    hub = "stanfordnlp/snli" if name == "snli" else "nyu-mll/glue"
    return Published(
        f"glue/{name}", licence, about, labels, metric=metric, role=role, alone=score, hub=hub,
        columns=dict(zip(ours, theirs, strict=True)) | ({"score": "label"} if score else {}),
        config=None if name == "snli" else name, hidden=-1.0 if score else None,
    )  # fmt: skip


ENTAILMENT = ("entailment", "neutral", "contradiction")
ENTAILED = ("entailment", "not entailment")
FEELING = ("negative", "positive")
TAGS = ("I-LOC", "I-MISC", "I-ORG", "I-PER")
NO_LICENCE = "the repository states none"
REVIEWS: dict[str, Role] = {
    "apparel": "test", "baby": "test", "books": "train", "camera_photo": "train", "electronics": "train",
    "health_personal_care": "train", "kitchen_housewares": "test", "magazines": "train", "toys_games": "validation",
}  # fmt: skip
MATCHES: dict[str, Role] = {
    "abt_buy": "train", "amazon_google": "validation", "beer": "test", "wdc_computers": "train", "wdc_shoes": "test",
}  # fmt: skip

PUBLISHED = (
    _glue("mnli", "OANC and others", "Whether a hypothesis follows from a premise, over ten kinds of text.",
          ENTAILMENT, "premise hypothesis"),
    _glue("qnli", "CC BY-SA 4.0", "Whether a sentence answers a question.", ENTAILED, "question sentence"),
    # Entailment and paraphrase are still taught by GLUE's other tasks.
    _glue("rte", "research use", "Whether a hypothesis follows from a news text.", ENTAILED, "sentence1 sentence2",
          role="validation"),
    _glue("mrpc", "research use", "Whether two sentences from the news say the same.",
          ("not equivalent", "equivalent"), "sentence1 sentence2", "f1", role="validation"),
    _glue("qqp", "Quora's non-commercial terms", "Whether two questions from a forum ask the same.",
          ("not duplicate", "duplicate"), "question1 question2", "f1"),
    _glue("sst2", "research use", "Whether a film critic's sentence praises or blames.", FEELING, "sentence"),
    _glue("cola", "research use", "Whether a sentence is grammatical English.", ("unacceptable", "acceptable"),
          "sentence", "matthews"),
    # Its validation split is adversarial: it asks about the premises of training, with answers set against them.
    _glue("wnli", "CC BY 4.0", "Whether a sentence with its pronoun resolved follows from the one before.",
          ENTAILED[::-1], "sentence1 sentence2", role="named"),
    _glue("snli", "CC BY-SA 4.0", "Whether a hypothesis follows from the caption of a picture.", ENTAILMENT,
          "premise hypothesis"),
    # Not part of `glue`, which is all classes: what scores beside them teach is not measured yet.
    _glue("stsb", "CC BY-SA 4.0", "How alike in meaning two sentences are, from 0 to 5.", (), "sentence1 sentence2",
          "pearson", score=True),
    Published("glue/ax", "CC BY-SA 4.0", unusable="has a test split only"),
    Published("leopard/airline", NO_LICENCE, "How a tweet to an airline feels about it.",
              ("negative", "neutral", "positive"), fixed=True),
    Published("leopard/conll", NO_LICENCE,
              "What kind of entity the phrase in the second field is, in the sentence of the first.",
              ("location", "miscellaneous", "organisation", "person"), written=TAGS, fixed=True),
    Published("leopard/scitail", NO_LICENCE, "Whether a statement of science follows from a sentence.",
              ("entails", "neutral"), fixed=True),
    Published("leopard/sentiment_books", NO_LICENCE, "Whether a review recommends the book.", FEELING, fixed=True),
    # What CLINC150's domains teach is judged by a set of other makers, with other words for its labels. Of the two
    # domains that choose, one is near to what HWU64 asks, a helper in the house, and one is far from it.
    Published("intents/clinc150", "CC BY 3.0", group_by="domain", choosing=("home", "banking")),
    Published("intents/hwu64", "CC BY 4.0", role="test"),
    Published("topics/agnews", "non-commercial research"),
    Published("topics/dbpedia14", "CC BY-SA 3.0"),
    # It asks what kind of answer a question wants: a new kind of task after topics of news and of encyclopaedias.
    Published("topics/trec", "none stated", role="test"),
    # What two kinds of reviews and an encyclopaedia teach is judged by a third shop and other askers.
    Published("qa/xquad_en", "CC BY-SA 4.0", "Where a paragraph of an encyclopaedia answers a question.", metric="f1"),
    Published("qa/subjqa_books", "research use", "Where a review of a book answers a question.", metric="f1"),
    Published("qa/subjqa_grocery", "research use", "Where a review of food answers a question.", metric="f1"),
    Published("qa/subjqa_electronics", "research use", "Where a review of a device answers a question.", metric="f1",
              role="validation"),
    Published("qa/squadshifts_amazon", "CC BY 4.0", "Where a review on Amazon answers a question.", metric="f1",
              role="test"),
    # One category a task. Of each kind, "does the reviewer like it?" and "is it the same product?", some choose and
    # some judge. Titles by shop and reviews by condition are read as by:COLUMN:FILE, a task each.
    *(Published(f"shopping/reviews_{name}", "none stated", "Whether a review of a product praises or blames.", FEELING,
                role=role)
      for name, role in REVIEWS.items()),
    *(Published(f"shopping/match_{name}", "research use", "Whether two offers are of the same product.",
                ("different", "same_product"), role=role)
      for name, role in MATCHES.items()),
    Published("shopping/product_category", "CC BY 4.0", "The category of a product, by its title.", alone=True),
    Published("shopping/drug_reviews", "CC BY 4.0", "Whether a patient's review praises or blames.", alone=True),
)  # fmt: skip
BY_NAME = {record.name: record for record in PUBLISHED}
SOURCES = tuple(dict.fromkeys(record.source for record in PUBLISHED))

# What the Hub had when this was written, so that everybody reads the same rows.
COMMITS = {
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "stanfordnlp/snli": "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
}
OF_THE_HUB, UNKNOWN = "as its page on the Hub says", "not stated"


def of_source(source: str) -> tuple[Published, ...]:
    """The records of a source, in the order of the table."""
    return tuple(record for record in PUBLISHED if record.source == source)


def record_of(task: str, source: str) -> Published | None:
    """The record of a task. Its source is compared too, as a user's own task may have the name of a published one."""
    record = BY_NAME.get("/".join(task.split("/")[:2]))
    hub = HubName.parse(source)
    of_ours = record and (source == record.source or (hub is not None and hub.repo_id == record.hub))
    return record if of_ours else None


def role_of(task: Task) -> Role | None:
    """The role of a published task, None for any other."""
    record = record_of(task.name, task.source)
    if record is None:
        return None
    return "validation" if task.name.rpartition("/")[2] in record.choosing else record.role


def licence_of(task: str, source: str) -> str:
    """The licence of the texts of a task, by its name and its source."""
    if source == "mini" and task.startswith("mini/"):
        return "Apache-2.0"
    record = record_of(task, source)
    return record.licence if record else OF_THE_HUB if HubName.parse(source) else UNKNOWN
