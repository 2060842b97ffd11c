"""The shopping page, built with gradio: tick what you like and what you don't, see the ranking change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from metanlp.core.errors import EXIT_CODES
from metanlp.core.types import Row
from metanlp.learner.learner import Learner
from metanlp.serve import guide
from metanlp.serve.guide import Place
from metanlp.serve.page import Shown, told_as

TITLE = """# Shopping guide
Tick products that you like, and some that you don't: every tick adapts the model anew and ranks the list. Everything
stays on the machine that serves this page."""


class GuidePage:
    """The components and their event handlers. A visitor's last ranking is in a gr.State."""

    def __init__(self, learner: Learner, products: Sequence[Row]) -> None:
        self.learner, self.products = learner, products
        start = guide.in_order(products)
        with gr.Blocks(title="metanlp", analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self.places = gr.State(start)
            gr.Markdown(TITLE)
            self.said = gr.HTML("", elem_id="said")
            with gr.Row():
                with gr.Column(min_width=300):
                    self.liked = self._ticks("I like", "liked", start)
                    self.disliked = self._ticks("Not for me", "disliked", start)
                with gr.Column(min_width=300):
                    gr.Markdown("## Ranking")
                    self.table = gr.HTML(guide.table(products, start), elem_id="table")
            parts = [self.places, self.said, self.liked, self.disliked, self.table]
            for box in (self.liked, self.disliked):
                # Of ticks that come while one is at work the last counts, as it holds them all.
                box.input(self.on_tick, [self.liked, self.disliked, self.places], parts, trigger_mode="always_last",
                          api_visibility="private")  # fmt: skip

    def _ticks(self, label: str, name: str, start: Sequence[Place]) -> Any:
        return gr.CheckboxGroup(guide.choices(self.products, start, ()), label=label, elem_id=name)

    def on_tick(self, liked: Sequence[int], disliked: Sequence[int], before: Sequence[Place]) -> Shown:
        """Ranks anew; a mistake becomes a line on the page, and the ranking stays."""
        try:
            places = guide.placed(self.learner, self.products, liked, disliked, before)
        except tuple(EXIT_CODES) as error:
            return {self.said: told_as(" ".join(str(error).split()), "wrong")}
        counts = f"{len(liked)} liked, {len(disliked)} not" if liked or disliked else "nothing ticked"
        alone = ": products drawn from the list stand for those that are not liked" if liked and not disliked else ""
        ticks = {self.liked: liked, self.disliked: disliked}
        return {
            self.places: places,
            self.said: told_as(f"Ranked from {counts}{alone}."),
            self.table: guide.table(self.products, places),
            **{
                box: gr.CheckboxGroup(choices=guide.choices(self.products, places, chosen), value=list(chosen))
                for box, chosen in ticks.items()
            },
        }
