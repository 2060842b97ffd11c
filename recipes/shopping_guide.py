"""A shopping guide: reptile on product categories, shops and conditions, new ones from 4, 8 and 16 examples, and
products ranked for shoppers who ticked a few.

    METANLP_DATA=DATA python recipes/shopping_guide.py
    METANLP_DATA=DATA python recipes/shopping_guide.py --method maml --out out/shopping_maml

With the data of data_cards/shopping.md; how long it took says docs/shopping_guide.md. Your own tasks:
`--data by:shop:titles.csv` makes each value of a column a task. A run that was stopped goes on with `--resume`.
"""

import sys
from pathlib import Path

from metanlp.cli.launch import guarded
from metanlp.core.settings import parse
from metanlp.experiment.options import ShoppingGuide

DEFAULTS = ShoppingGuide(
    model="minilm",
    # Sentiment and "the same product?" by category; the category of a title by shop; sentiment of drugs by condition.
    data="shopping,by:merchant:shopping/product_category/train.jsonl,by:condition:shopping/drug_reviews/train.jsonl",
    test="shopping,shopping/product_category/test.jsonl",  # other categories, and the titles of other shops
    clean=True,
    method="reptile",
    baselines=("tfidf", "logistic", "frozen", "multitask"),
    inner_steps=3,  # of reptile, which learns from where they lead
    steps=80,
    store_gb=1.0,
    test_rows=100,
    episodes=5,
    validations=4,
    validation_trials=12,
    search_trials=6,
    draws=1,
    out=Path("out/shopping_guide"),
)


def run(asked: ShoppingGuide) -> None:
    from metanlp.experiment.shopping_guide import shopping_guide

    shopping_guide(asked)


if __name__ == "__main__":
    guarded(lambda: run(parse(ShoppingGuide, sys.argv[1:], default=DEFAULTS)), "--resume")
