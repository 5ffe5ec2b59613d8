"""Predict: a question that is answered before the notebook shows the answer."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets as w
from IPython.display import display

from qviz.explore.question import Answer, Question, Verdict
from qviz.widgets.display import HIDDEN, VIEW
from qviz.widgets.frame import KEYS

MARKS = {True: "✓", False: "✗", None: "→"}


class Predict(w.VBox):
    """A question; the answer appears once somebody has made a prediction, with how far off it was.

    The first prediction counts; run the cell again for another try.

    Args:
        question: The question.
        answer: The answer, a number or one of the options, or a function that returns it. It is called only
            when a prediction was made.
        options: What can be chosen; without options the answer is a number to type.
        unit: The unit of the number.
        within: How far off a number may be and still be right, in the same unit.
        why: What explains the answer, shown after it.

    Attributes:
        verdict: What was said of the prediction; None before there is one.

    Raises:
        ValueError: The question is empty, there is one option, or the answer is not among them.
        TypeError: The answer is no number where there are no options.

    Example:
        >>> p = Predict("How many levels have 3 bits?", 8, why="Every bit doubles their number.")
        >>> p.guess(6).text
        'You said 6; it is 8. Your prediction is 2 too low. Every bit doubles their number.'
    """

    def __init__(
        self,
        question: str,
        answer: Answer | Callable[[], Answer],
        *,
        options: Sequence[str] = (),
        unit: str = "",
        within: float | None = None,
        why: str = "",
    ) -> None:
        self.question = Question(question, answer, options, unit, within, why)
        self.verdict: Verdict | None = None
        text, label = w.HTML(f"<b>Predict.</b> {html.escape(question)}"), "Your prediction"
        if options:
            self.entry = w.RadioButtons(options=list(options), value=None, layout={"width": "auto"})
        else:
            wide = {"description_width": "auto"}
            self.entry = w.Text(description=label, placeholder=unit or "a number", style=wide)
        self.check = w.Button(description="Check", tooltip="Show the answer", layout={"width": "auto"})
        self.reveal = w.HTML(layout={"min_height": "1.6em"})
        self.check.on_click(lambda _: self._check())
        super().__init__([text, w.HBox([self.entry, self.check]), self.reveal])
        style = f'<style onload="{NAME}">{HIDDEN.format(self.model_id)}</style>'
        self.children = (*self.children, w.HTML(style, layout={"display": "none"}))
        self.add_class("qviz-predict").add_class(f"qviz-{self.model_id}")

    def guess(self, value: Answer) -> Verdict:
        """Make a prediction and return what is said of it; only the first one counts.

        Raises:
            ValueError: It is neither a number nor one of the options.
        """
        if self.verdict is None:
            verdict = self.question.verdict(value)
            self.verdict, self.entry.disabled, self.check.disabled = verdict, True, True
            mark = MARKS[verdict.right]
            self.reveal.value = f'<div role="status">{mark} {html.escape(verdict.text)}</div>'
        return self.verdict

    def _check(self) -> None:
        try:
            self.guess(self.entry.value if self.entry.value is not None else "")
        except ValueError as problem:
            self.reveal.value = f'<div role="status">{html.escape(str(problem))}</div>'

    def _ipython_display_(self) -> None:
        """Show the live question, and below it the same as text for pages where there is no kernel."""
        view = self._repr_mimebundle_()
        view = view[0] if isinstance(view, tuple) else view
        plain = f"Predict: {self.question.text}"
        display({VIEW: view[VIEW], "text/plain": plain}, raw=True)
        choices = f" ({', '.join(self.question.options)})" if self.question.options else ""
        still = f'<p class="qviz-still"><b>Predict.</b> {html.escape(self.question.text + choices)}</p>'
        display({"text/html": still, "text/plain": plain}, raw=True)


NAME = (
    KEYS
    + """
const root = this.closest('.qviz-predict');
const entry = root?.querySelector('input[type=text], .widget-radio-box');
entry?.setAttribute('aria-label', root.firstElementChild.textContent);
"""
)
"""What names the entry by the question: ipywidgets has no trait for it."""
