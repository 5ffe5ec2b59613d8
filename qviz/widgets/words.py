"""Words: what stands in words around an explorer's picture."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as w

from qviz.plot.html import paragraph, rows_html, scene_html
from qviz.plot.scene import Scene
from qviz.widgets.live import Changes


class Words:
    """The heading above the picture; the table, a note, and texts that can be folded in below it.

    Attributes:
        text: The heading, with the alt text.
        rows: The table.
        note: What changed unasked.
        told: The picture in sentences.
        code: The line of code that makes it.
        folded: What holds the last two.
    """

    def __init__(self) -> None:
        self.text, self.rows, self.note, self.told, self.code = (w.HTML() for _ in range(5))
        self.folded = w.Accordion((self.told, self.code), titles=("In words", "As code"), selected_index=None)
        self.rows.add_class("qviz-rows")

    @property
    def below(self) -> tuple[w.Widget, ...]:
        """What stands below the picture."""
        return self.rows, self.note, self.folded

    def changes(self, scene: Scene, note: str, code: Callable[[], str]) -> Changes:
        """Return what has to be set so that the words are those of ``scene``."""
        alt = f'<div class="qviz-alt" role="img" aria-label="{html.escape(scene.text)}"></div>'
        return [
            (self.text, {"value": scene_html(scene) + alt}),
            *self.unfolded(scene, code),
            (self.rows, {"value": rows_html(scene)}),
            (self.note, {"value": paragraph(note)}),
        ]

    def unfolded(self, scene: Scene, code: Callable[[], str]) -> Changes:
        """Return the same for the texts that can be folded in; nobody reads them while they are."""
        if self.folded.selected_index is None:
            return []
        told = "".join(paragraph(text) for text in scene.sentences)
        return [(self.told, {"value": told}), (self.code, {"value": f"<code>{html.escape(code())}</code>"})]
