"""The page to try a learner, built with gradio, and how pages are served. `trial` and `result_html` compute what it
shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from threading import Event
from typing import Any, Literal

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.themes import Base

from metanlp.core.effort import Effort
from metanlp.core.errors import EXIT_CODES, InputError
from metanlp.core.types import Row
from metanlp.learner.learner import Learner
from metanlp.serve import guide, result_html, textbox, trial
from metanlp.serve.address import check_free
from metanlp.serve.textbox import Columns
from metanlp.serve.trial import Trial

TITLE = """# Try a learner
Label a few texts, adapt, see what it makes of others and why. Everything stays on the machine that serves this page."""
HINT = "The printer jams again | equipment\nMy badge stopped working | access\nMonitor stays black | equipment\n…"
STYLE = f"""
body {{--bar: 4.2rem}}
gradio-app {{flex: none !important; height: calc(100dvh - var(--bar)) !important; overflow-y: auto}}
.gradio-container {{max-width: 76rem !important; min-height: 0 !important; margin: 0 auto !important}}
#said p {{position: fixed; inset: auto 0 0 0; height: var(--bar); z-index: 50; margin: 0; padding: .6rem 1rem;
    overflow-y: auto; overflow-wrap: anywhere; box-sizing: border-box; background: var(--body-background-fill);
    border-top: 1px solid var(--border-color-primary)}}
#said .wrong {{color: #b3261e; font-weight: 600}}
.dark #said .wrong {{color: #ff9d94}}
#answers .wrap {{flex-direction: column}}
#answers label {{width: 100%; overflow-wrap: anywhere}}
{result_html.STYLE}
{guide.STYLE}
"""
EFFORTS = [("fast, no gradient step", "fast"), ("the learner's recipe", "recipe"), ("as many steps as pay", "best")]
DOUBTS = [("smallest margin of two classes", "margin"), ("highest entropy", "entropy")]

Shown = dict[Any, Any]
"""Components of the page and their new values; others are not changed."""


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Serves a page until SIGINT or SIGTERM raises StoppedError. It contacts no other machine: no share link, no
    analytics, the browser's own fonts. Raises InputError if the port cannot be used."""
    check_free(host, port)  # gradio itself would retry for long without a message
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        max_file_size=10 * textbox.MOST_BYTES,  # a hard limit; `textbox` refuses smaller sizes with a message
        theme=Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    print(f"{page.local_url} (Ctrl-C ends it)", flush=True)
    try:
        Event().wait()
    finally:
        page.close(verbose=False)


def told_as(line: str, kind: Literal["said", "wrong"] = "said") -> str:
    """A status line, fixed at the lower edge of the window."""
    return f"<p class={kind} role={'alert' if kind == 'wrong' else 'status'}>{escape(line)}</p>"


class Page:
    """The components of the page and their event handlers. The state of a visitor is in two gr.State."""

    def __init__(self, learner: Learner, columns: Columns = None) -> None:
        self.learner, self.columns = learner, columns
        with gr.Blocks(title="metanlp", analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self.trial, self.rows = gr.State(None), gr.State([])
            gr.Markdown(TITLE)
            self.said = gr.HTML("", elem_id="said")
            with gr.Row():
                with gr.Column(min_width=300):
                    self._examples()
                with gr.Column(min_width=300):
                    self._texts()
                    self._closer()
            self._wire()

    def _examples(self) -> None:
        gr.Markdown("## Examples")
        self.examples = gr.Textbox(
            label="One a line: text | label", lines=8, max_lines=20, placeholder=HINT, elem_id="examples"
        )
        self.dropped = gr.File(label="Or drop a CSV or JSONL file", height=140, elem_id="dropped")
        self.effort = gr.Radio(EFFORTS, value="fast", label="Adapt by", elem_id="effort")
        self.adapt = gr.Button("Adapt", variant="primary", elem_id="adapt")
        self.pack = gr.Button("Pack the adapted model", interactive=False, elem_id="pack")
        self.zip = gr.File(label="The adapted model", visible=False, interactive=False, elem_id="zip")

    def _texts(self) -> None:
        gr.Markdown("## Texts")
        self.texts = gr.Textbox(label="Without labels, one a line", lines=5, max_lines=16, elem_id="texts")
        self.classify = gr.Button("Answer", variant="primary", interactive=False, elem_id="classify")
        self.by = gr.Radio(DOUBTS, value="margin", label="Or look for the text to label next, by", elem_id="by")
        self.rank = gr.Button("Which to label next", interactive=False, elem_id="rank")

    def _closer(self) -> None:
        self.answers = gr.Radio([], label="Choose one to look closer", visible=False, elem_id="answers")
        self.right = gr.Dropdown(
            [], label="Its right label", allow_custom_value=True, interactive=True, visible=False, elem_id="right"
        )
        self.correct = gr.Button("Label it so, and adapt again", visible=False, elem_id="correct")
        self.closer = gr.HTML("", elem_id="closer")

    def _wire(self) -> None:
        parts = [self.trial, self.rows, self.said, self.examples, self.dropped, self.pack, self.zip, self.classify,
                 self.rank, self.answers, self.right, self.correct, self.closer]  # fmt: skip
        for event, action, given in (
            (self.dropped.upload, self.on_drop, [self.dropped]),
            (self.adapt.click, self.on_adapt, [self.examples, self.effort, self.rows, self.answers]),
            (self.classify.click, self.on_classify, [self.trial, self.texts]),
            (self.rank.click, self.on_rank, [self.trial, self.texts, self.by]),
            (self.answers.input, self.on_choose, [self.trial, self.rows, self.answers]),
            (self.correct.click, self.on_correct, [self.rows, self.answers, self.right, self.examples, self.effort]),
            (self.pack.click, self.on_pack, [self.trial]),
        ):
            event(self._told(action), given, parts, api_visibility="private")

    def _told(self, action: Callable[..., Shown]) -> Callable[..., Shown]:
        """Wraps a handler: an error becomes a line on the page. The first argument is required; a restart of the server
        loses it while the page is open."""

        @wraps(action)
        def told(*given: Any) -> Shown:
            try:
                if given[0] in (None, []):
                    raise InputError("there is nothing to work on yet; press Adapt first")
                return action(*given)
            except tuple(EXIT_CODES) as error:
                return {self.said: told_as(" ".join(str(error).split()), "wrong"), self.dropped: None}

        return told

    def on_drop(self, path: str) -> Shown:
        """Puts the file's examples into the text box, where they can be seen and edited."""
        return {self.examples: textbox.dropped(Path(path), self.columns), self.dropped: None, self.said: ""}

    def on_adapt(self, examples: str, effort: Effort, rows: Sequence[Row], chosen: int | None) -> Shown:
        """Adapts to the examples, and answers the previous texts again if they have the same columns."""
        found = trial.adapt(self.learner, textbox.examples(examples, self.columns), effort)
        support, labels = found.task.pools["train"], found.task.labels
        asked = rows if rows and {*rows[0]} <= {*support[0]} else []
        of = f" of {', '.join(labels)}" if labels else ""
        said = f"Adapted to {len(support)} examples{of} in {found.seconds:.1f} s."
        return {
            self.trial: found,
            self.said: told_as(said),
            self.pack: gr.Button(interactive=True),
            self.zip: gr.File(value=None, visible=False),
            self.classify: gr.Button(interactive=True),
            self.rank: gr.Button(interactive=found.form.single_label),
            **self._answered(found, asked, chosen or 0),
        }

    def on_classify(self, found: Trial, texts: str) -> Shown:
        return {self.said: "", **self._answered(found, textbox.texts(texts, found.task), 0)}

    def on_rank(self, found: Trial, texts: str, by: Literal["margin", "entropy"]) -> Shown:
        rows = trial.next_to_label(found, textbox.texts(texts, found.task), by)
        return {self.said: told_as("The first is worth a label most."), **self._answered(found, rows, 0)}

    def on_choose(self, found: Trial, rows: Sequence[Row], chosen: int) -> Shown:
        """A closer look at one text; the label that it has got is the one to be corrected."""
        shown: Shown = {self.closer: result_html.closer(found, rows[chosen])}
        if found.form.single_label:
            answer = found.adapted.predict([rows[chosen]])[0]
            shown[self.right] = gr.Dropdown(choices=list(found.adapted.label_words), value=answer, visible=True)
        return shown

    def on_correct(self, rows: Sequence[Row], chosen: int, label: str | None, examples: str, effort: Effort) -> Shown:
        examples = textbox.corrected(examples, rows[chosen], label or "", self.columns)
        return {self.examples: examples, **self.on_adapt(examples, effort, rows, chosen)}

    def on_pack(self, found: Trial) -> Shown:
        path = save_bytes_to_cache(trial.zipped(found.adapted), "adapted.zip", self.zip.GRADIO_CACHE)
        return {self.zip: gr.File(value=path, visible=True)}

    def _answered(self, found: Trial, rows: Sequence[Row], chosen: int) -> Shown:
        """All texts with their answers, and one of them closely."""
        classes = bool(rows) and found.form.single_label
        lines = [(line, number) for number, line in enumerate(result_html.answers(found, rows))]
        chosen = chosen if chosen < len(rows) else 0
        closer = self.on_choose(found, rows, chosen) if rows else {self.closer: ""}
        return {
            self.rows: list(rows),
            self.answers: gr.Radio(choices=lines, value=chosen if rows else None, visible=bool(rows)),
            self.right: gr.Dropdown(visible=classes),
            self.correct: gr.Button(visible=classes),
            **closer,
        }
