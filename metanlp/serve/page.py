"""The page to try a learner or to ask an adapted model, built with gradio, and how pages are served. `trial` and
`result_html` compute what it shows."""

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
from metanlp.forms import DEFAULT
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.prediction_table import as_table, rounded
from metanlp.serve import guide, result_html, textbox, trial
from metanlp.serve.address import check_free
from metanlp.serve.textbox import Columns
from metanlp.serve.trial import Trial

TITLE = """# Try a learner
Label a few texts, adapt, see what it makes of others and why. Everything stays on the machine that serves this page."""
TITLE_ADAPTED = """# Ask a model
See what it makes of texts and why. Everything stays on the machine that serves this page."""
HINT = "The printer jams again | equipment\nMy badge stopped working | access\nMonitor stays black | equipment\n…"
STYLE = f"""
body {{--bar: 4.2rem; background: var(--body-background-fill) !important}}
gradio-app {{flex: none !important; height: calc(100dvh - var(--bar)) !important; overflow-y: auto}}
.gradio-container {{max-width: 76rem !important; width: 100% !important; min-height: 0 !important;
    margin: 0 auto !important}}
#said p {{position: fixed; inset: auto 0 0 0; height: var(--bar); z-index: 50; margin: 0; padding: .6rem 1rem;
    overflow-y: auto; overflow-wrap: anywhere; box-sizing: border-box; background: var(--body-background-fill);
    border-top: 1px solid var(--border-color-primary)}}
#said .wrong {{color: #b3261e; font-weight: 600}}
.dark #said .wrong {{color: #ff9d94}}
#answers .wrap {{flex-direction: column; flex-wrap: nowrap; max-height: 26rem; overflow-y: auto}}
#about, #about * {{padding: 0 !important}}
#dropped .icon-wrap, #more .icon-wrap {{display: none}}
#answers label {{width: 100%; overflow-wrap: anywhere}}
{result_html.STYLE}
{guide.STYLE}
"""
EFFORTS = [("the learner's recipe", "recipe"), ("fast, no gradient step", "fast"), ("as many steps as pay", "best")]
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
    """The components of the page and their event handlers. The state of a visitor is in two gr.State. Of an adapted
    model there are no examples, and it is the same for every visitor."""

    def __init__(self, model: Learner | Adapted, name: str = "", columns: Columns = None) -> None:
        self.columns = columns
        self.learner = model if isinstance(model, Learner) else None
        self.served = None if isinstance(model, Learner) else Trial(model)
        with gr.Blocks(title="metanlp", analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self.trial, self.rows = gr.State(None), gr.State([])
            gr.Markdown(TITLE if self.learner else TITLE_ADAPTED)
            gr.HTML(result_html.about(model, name), padding=False, elem_id="about")
            self.said = gr.HTML("", elem_id="said")
            with gr.Row():
                with gr.Column(min_width=300, visible=self.learner is not None):
                    self._examples()
                with gr.Column(min_width=300):
                    self._texts()
            with gr.Row():
                with gr.Column(min_width=300):
                    self._answers()
                with gr.Column(min_width=300):
                    self._closer()
            self._wire()

    def _examples(self) -> None:
        gr.Markdown("## Examples")
        self.examples = gr.Textbox(
            label="One a line: text | label", lines=8, max_lines=14, placeholder=HINT, elem_id="examples"
        )
        self.dropped = gr.File(label="Or drop a CSV or JSONL file", height=130, elem_id="dropped")
        self.effort = gr.Radio(EFFORTS, value="recipe", label="Adapt by", elem_id="effort")
        self.adapt = gr.Button("Adapt", variant="primary", elem_id="adapt")

    def _texts(self) -> None:
        ready = self.served is not None
        gr.Markdown("## Texts")
        self.texts = gr.Textbox(label="Without labels, one a line", lines=8, max_lines=14, elem_id="texts")
        self.more = gr.File(label="Or drop a file: lines, CSV or JSONL", height=130, elem_id="more")
        self.classify = gr.Button("Answer", variant="primary", interactive=ready, elem_id="classify")
        with gr.Accordion("Advanced: which text to label next", open=False, elem_id="advanced"):
            self.by = gr.Radio(DOUBTS, value="margin", label="The most doubtful first, by", elem_id="by")
            self.rank = gr.Button("Which to label next", interactive=ready, elem_id="rank")

    def _answers(self) -> None:
        self.answers = gr.Radio([], label="Answers; choose one to look closer", visible=False, elem_id="answers")
        self.csv = gr.DownloadButton("Download the answers (CSV)", visible=False, elem_id="csv")
        self.pack = gr.Button(
            "Pack the adapted model", interactive=False, visible=self.learner is not None, elem_id="pack"
        )
        self.zip = gr.File(label="The adapted model", visible=False, interactive=False, elem_id="zip")

    def _closer(self) -> None:
        self.right = gr.Dropdown(
            [], label="Its right label", allow_custom_value=True, interactive=True, visible=False, elem_id="right"
        )
        self.correct = gr.Button("Correct and re-adapt", visible=False, elem_id="correct")
        self.closer = gr.HTML("", elem_id="closer")

    def _wire(self) -> None:
        parts = [self.trial, self.rows, self.said, self.examples, self.dropped, self.texts, self.more, self.pack,
                 self.zip, self.classify, self.rank, self.answers, self.csv, self.right, self.correct,
                 self.closer]  # fmt: skip
        for event, action, given in (
            (self.dropped.upload, self.on_drop, [self.dropped]),
            (self.more.upload, self.on_drop_texts, [self.more, self.trial]),
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
        loses it while the page is open. Of an adapted model it is that one."""

        @wraps(action)
        def told(first: Any, *given: Any) -> Shown:
            first = self.served if first is None else first
            try:
                if first in (None, []):
                    raise InputError("there is nothing to work on yet; press Adapt first")
                return action(first, *given)
            except tuple(EXIT_CODES) as error:
                said = told_as(" ".join(str(error).split()), "wrong")
                return {self.said: said, self.dropped: None, self.more: None}

        return told

    def on_drop(self, path: str) -> Shown:
        """Puts the file's examples into the text box, where they can be seen and edited."""
        return {self.examples: textbox.dropped(Path(path), self.columns), self.dropped: None, self.said: ""}

    def on_drop_texts(self, path: str, found: Trial | None) -> Shown:
        asked = found or self.served
        texts = textbox.dropped_texts(Path(path), asked.form if asked else DEFAULT, self.columns)
        return {self.texts: texts, self.more: None, self.said: ""}

    def on_adapt(self, examples: str, effort: Effort, rows: Sequence[Row], chosen: int | None) -> Shown:
        """Adapts to the examples, and answers the previous texts again if they have the same columns."""
        assert self.learner
        found = trial.adapt(self.learner, textbox.examples(examples, self.columns), effort)
        support, labels = found.examples, found.adapted.label_words
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
        return {self.said: "", **self._answered(found, self._read(found, texts), 0)}

    def on_rank(self, found: Trial, texts: str, by: Literal["margin", "entropy"]) -> Shown:
        rows = trial.next_to_label(found, self._read(found, texts), by)
        return {self.said: told_as("The first is worth a label most."), **self._answered(found, rows, 0)}

    def on_choose(self, found: Trial, rows: Sequence[Row], chosen: int) -> Shown:
        """A closer look at one text; the label that it has got is the one to be corrected."""
        shown: Shown = {self.closer: result_html.closer(found, rows[chosen])}
        if found.form.single_label and self.learner:
            answer = found.adapted.predict([rows[chosen]])[0]
            shown[self.right] = gr.Dropdown(choices=list(found.adapted.label_words), value=answer, visible=True)
        return shown

    def on_correct(self, rows: Sequence[Row], chosen: int, label: str | None, examples: str, effort: Effort) -> Shown:
        examples = textbox.corrected(examples, rows[chosen], label or "", self.columns)
        return {self.examples: examples, **self.on_adapt(examples, effort, rows, chosen)}

    def on_pack(self, found: Trial) -> Shown:
        return {self.zip: gr.File(value=self._kept(trial.zipped(found.adapted), "adapted.zip"), visible=True)}

    def _kept(self, content: bytes, name: str) -> str:
        """The path of a file that the page may send, for an hour."""
        return save_bytes_to_cache(content, name, self.zip.GRADIO_CACHE)

    def _read(self, found: Trial, texts: str) -> list[Row]:
        return textbox.texts(texts, found.form, found.adapted.pairs, self.columns)

    def _answered(self, found: Trial, rows: Sequence[Row], chosen: int) -> Shown:
        """All texts with their answers, and one of them closely."""
        told = found.adapted.answers(rows)
        table = as_table([{**row, **rounded(answer)} for row, answer in zip(rows, told, strict=True)], "csv")
        file = self._kept(table.encode(), "answers.csv") if rows else None
        lines = [(line, number) for number, line in enumerate(result_html.lines(found, rows, told))]
        corrects = bool(rows) and found.form.single_label and self.learner is not None
        chosen = chosen if chosen < len(rows) else 0
        closer = self.on_choose(found, rows, chosen) if rows else {self.closer: ""}
        return {
            self.rows: list(rows),
            self.answers: gr.Radio(choices=lines, value=chosen if rows else None, visible=bool(rows)),
            self.csv: gr.DownloadButton(value=file, visible=bool(rows)),
            self.right: gr.Dropdown(visible=corrects),
            self.correct: gr.Button(visible=corrects),
            **closer,
        }
