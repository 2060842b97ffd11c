"""One example is a question with choices, of which one is right: one score a choice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from metanlp.core.errors import InputError
from metanlp.core.types import Batch, Meaning, Row
from metanlp.forms.base import Form, Scored, folded, mean_per_task, softmax
from metanlp.forms.metrics import calibration
from metanlp.forms.reading import INTEGER, MISSING, Cells, LabelledRow, Untyped, texts

if TYPE_CHECKING:
    from torch import Tensor

    from metanlp.forms.heads.ridge import RidgeHead


def choice_loss(scores: Tensor, batch: Batch, weight: Tensor | None = None) -> Tensor:
    """The loss of `Choose`: (N, 1) -> (T,)."""
    import torch

    values, group, right = scores[:, 0], batch.group, batch.targets
    top = torch.full_like(values, -torch.inf).scatter_reduce(0, group, values.detach(), "amax")
    log_sums = torch.zeros_like(values).index_add(0, group, (values - top[group]).exp()).log() + top
    each = (log_sums.index_select(0, group) - values) * right
    return mean_per_task(each, batch, right if weight is None else right * weight)


class Choose(Form):
    """Cross-entropy over the choices of a question. The model reads the question once with each choice."""

    name, metric, answer, shown = "choose", "accuracy", "answer", "choice"
    asks = "(question, choices), or a row with `question` and `choices`"
    question_columns, answer_columns = ("question", "choices"), ("answer",)
    untyped, lists = ("answer",), ("choices",)
    usual: ClassVar = {"question": ("question",), "choices": ("choices",), "answer": ("answer", "answerKey", "label")}
    prefix = "choose/"
    loss = staticmethod(choice_loss)
    by_class, class_targets = False, False
    hub_task = "multiple-choice"
    example: ClassVar = ("What is ice?", ["frozen water", "warm air"])

    def make_head(self) -> RidgeHead:
        from metanlp.forms.heads.ridge import RidgeHead

        return RidgeHead(choice_loss, contrast=True, learned=True)

    def read(self, cells: Cells) -> Row:
        return {"question": cells.text("question"), "choices": read_choices(cells)[0]}

    def read_answer(self, cells: Cells, row: Row) -> int | Untyped:
        """The place of the right choice, given as its number from 0, its letter or its text; `Untyped` where it spells
        a place and may be a text too."""
        value, choices, letters = cells["answer"], row["choices"], read_choices(cells)[1]
        text = str(value).strip()
        if text in letters:
            return letters.index(text)
        if isinstance(value, Untyped) and readings(text, choices):
            return Untyped(text)
        if isinstance(value, str) and value in choices:
            return choices.index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
            return value
        found, allowed = "missing" if value is MISSING else brief(value), [*letters, "a number from 0 to"]
        raise InputError(
            f"{cells.where}: the answer is {found}; write {', '.join(allowed)} {len(choices) - 1} or the choice"
        )

    def typed(self, rows: Sequence[LabelledRow], known: Collection[str] = ()) -> Callable[[LabelledRow], LabelledRow]:
        """What spells a place alone, or a text alone, is that, and says what the numbers are that spell both. Raises
        InputError for one that spells both where no other row decides."""
        untyped = [row for row in rows if isinstance(row.label, Untyped)]
        read = [readings(row.label, row.texts["choices"]) for row in untyped]
        kinds = {kind for each in read if len(each) == 1 for kind in each}
        unclear = [row for row, each in zip(untyped, read, strict=True) if len({*each.values()}) > 1]
        if unclear and len(kinds) != 1:
            where, number, choices = unclear[0].where, unclear[0].label, unclear[0].texts["choices"]
            raise InputError(
                f"{where}: the answer {number} may be the choice {number!s} or the one at place {number} from 0, "
                f'{brief(choices[int(number)])}, and no other row says which; write JSON lines, where "{number}" is '
                f"a choice and {number} a place"
            )
        kind = next(iter(kinds), "place")

        def chosen(row: LabelledRow) -> LabelledRow:
            if not isinstance(row.label, Untyped):
                return row
            each = readings(row.label, row.texts["choices"])
            return replace(row, label=each.get(kind, next(iter(each.values()))))

        return chosen

    def question(self, item: Any) -> Row | None:
        if isinstance(item, Mapping):
            item = (item.get("question"), item.get("choices"))
        question, choices = item if isinstance(item, Sequence) and len(item) == 2 else (None, None)
        if isinstance(choices, Mapping):  # with letters, as `read_choices` has them
            choices = choices.get("text")
        if isinstance(choices, str) or not isinstance(choices, Sequence) or len(choices) < 2:
            return None
        whole = all(isinstance(text, str) for text in (question, *choices))
        return {"question": question, "choices": tuple(choices)} if whole else None

    def texts(self, row: Row) -> tuple[tuple[str, ...], ...]:
        return tuple((row["question"], choice) for choice in row["choices"])

    def title(self, row: Row) -> tuple[str, ...]:
        return (row["question"],)

    def key(self, row: Row) -> tuple[str, ...]:
        """The question and its choices, in any order."""
        return folded(row["question"]), *sorted(map(folded, row["choices"]))

    def gold(self, row: Row, meaning: Meaning) -> Sequence[float]:
        return [float(number == row.get("answer", 0)) for number in range(len(row["choices"]))]

    def answers(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> list[dict[str, Any]]:
        return [
            {"answer": int(p.argmax()), "choice": row["choices"][int(p.argmax())], "probability": float(p.max())}
            for row, p in zip(rows, self.probabilities(scored), strict=True)
        ]

    def metrics(self, scored: Scored, rows: Sequence[Row], meaning: Meaning) -> dict[str, float]:
        confidence, right = self.sure(scored, rows)
        return {"accuracy": float(right.mean()), "ece": calibration(confidence, right)}

    def truth(self, row: Row, meaning: Meaning) -> str:
        return row["choices"][row["answer"]]

    def sure(self, scored: Scored, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        probabilities = self.probabilities(scored)
        right = np.array([p.argmax() == row["answer"] for p, row in zip(probabilities, rows, strict=True)])
        return np.array([p.max() for p in probabilities]), right

    def probabilities(self, scored: Scored) -> list[np.ndarray]:
        """Of the choices of each question: R arrays (choices,)."""
        return [softmax(values[:, 0]) for values in scored.rows()]


def readings(answer: str, choices: Sequence[str]) -> dict[str, int]:
    """The choices that the text of a cell may mean: the one that it is, as "text", the one that it counts, "place"."""
    found = {"text": choices.index(answer)} if answer in choices else {}
    place = int(answer) if INTEGER.fullmatch(answer) else -1
    return found | ({"place": place} if 0 <= place < len(choices) else {})


def read_choices(cells: Cells) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two choices or more, and their letters where there are: {"text": […], "label": ["A", …]}. Raises InputError."""
    value, where, letters = cells["choices"], cells.where, ()
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value)
        letters = texts(parts.get("label", []), f"{where}: 'label' of the choices")
        value = parts.get("text", MISSING)
    choices = texts(value, f"{where}: 'choices'")
    if len(choices) < 2 or len({*choices}) < len(choices) or (letters and len(letters) != len(choices)):
        raise InputError(
            f"{where}: the choices are {brief(choices)}; give two different ones or more, lettered all or none"
        )
    return choices, letters
