"""GridExplorer: two grids on one tensor, at one bit width, with levels that can be dragged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from torch import Tensor

from qviz.core import _check
from qviz.core.quantizer import Quantizer
from qviz.plot import panels
from qviz.plot.scene import Scene
from qviz.widgets import custom, page, tensors
from qviz.widgets.explorer import Explorer
from qviz.widgets.grid_model import CUSTOM, MANUAL, RULES, Choice, GridModel, Grids
from qviz.widgets.live import LivePanel, apply
from qviz.widgets.table import table_html

YOURS = "your tensor"
CLIP_STEPS = 200
ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "0 1em"}
WIDE = {"style": {"description_width": "5.2em"}, "layout": {"width": "23em"}}


class GridExplorer(Explorer):
    """Two grids on one tensor: levels over the histogram, staircases, errors and a table.

    Choosing the grid "custom" gives levels that can be dragged (or moved with the Level and Value boxes);
    it starts from the grid that was there before. Moving Clip switches the range rule to "manual clip".

    Args:
        x: your own tensor or array, finite, floating point; channels on axis 0. It joins the list of
            tensors and is shown first.
        grids: your own grids, from a name to a Codebook (the same at every bit width) or to a function
            of (tensor, bits) that returns one. They join the list of grids.
        bits: the bit width to start with, 2 to 8.
        tensor: the name of the tensor to start with.

    Attributes:
        tensor, bits, clip, grid_a, grid_b, rule, per_channel, level, value, mirror, reset: the controls.

    Raises:
        TypeError, ValueError: x is unfit, a grid is neither a Codebook nor callable, a name is taken.

    Example:
        >>> e = GridExplorer(bits=4)
        >>> e.bits.value = 3
        >>> {name: row["levels"] for name, row in e.data()["table"].items()}
        {'A: POT': 7, 'B: POST': 7}
    """

    def __init__(
        self,
        x: Tensor | np.ndarray | None = None,
        grids: Grids | None = None,
        *,
        bits: int = 4,
        tensor: str | None = None,
    ) -> None:
        bits = _check.bits(bits, 2, 8, "GridExplorer")
        sources = tensors.sources()
        if x is not None:
            sources = {YOURS: tensors.own(x), **sources}
        tensor = next(iter(sources)) if tensor is None else tensor
        if tensor not in sources:
            raise ValueError(f"unknown tensor {tensor!r}; there are {list(sources)}")
        self.model = GridModel(sources, grids)
        self._start, self._busy, self._followed = "POT", False, 0.0
        self._make_controls(tensor, bits)
        self._fit_clip()
        self._live = [LivePanel(panel) for panel in self.scene().panels]
        self._numbers = w.HTML()
        super().__init__([self._control_box(), self._picture_box()])
        self._connect()
        self._refresh()

    def _make_controls(self, tensor: str, bits: int) -> None:
        grids = self.model.names(4)
        self.tensor = w.Dropdown(options=list(self.model.sources), value=tensor, description="Tensor", **WIDE)
        self.bits = w.IntSlider(value=bits, min=2, max=8, description="Bits", **WIDE)
        self.clip = w.FloatSlider(min=0.0, max=1.0, description="Clip", readout_format=".3f", **WIDE)
        self.grid_a = w.Dropdown(options=grids, value="POT", description="Grid A", **WIDE)
        self.grid_b = w.Dropdown(options=grids, value="POST", description="Grid B", **WIDE)
        self.rule = w.Dropdown(options=[*RULES, MANUAL], description="Range", **WIDE)
        self.per_channel = w.Checkbox(value=False, description="Per channel", indent=False)
        self.level = w.BoundedIntText(value=1, min=1, max=15, description="Level", **WIDE)
        self.value = w.FloatText(description="Value", step=0.01, **WIDE)
        self.mirror = w.Checkbox(value=False, description="Mirror signs", indent=False)
        self.reset = w.Button(
            description="Reset",
            tooltip="Start again from the grid that custom began with",
        )
        names = (
            "tensor",
            "bits",
            "grid_a",
            "grid_b",
            "rule",
            "per_channel",
            "clip",
            "mirror",
        )
        self.controls = {name: getattr(self, name) for name in names}

    def _control_box(self) -> w.Widget:
        self._editor = w.Box([self.level, self.value, self.mirror, self.reset], layout=ROW)
        first = w.Box([self.tensor, self.bits, self.clip], layout=ROW)
        second = w.Box([self.grid_a, self.grid_b, self.rule, self.per_channel], layout=ROW)
        return w.VBox([first, second, self._editor])

    def _picture_box(self) -> w.Widget:
        columns = "repeat(auto-fit, minmax(380px, 1fr))"
        layout = {"grid_template_columns": columns, "grid_gap": "4px", "width": "100%"}
        return w.VBox(
            [
                self._numbers,
                w.GridBox([live.widget for live in self._live], layout=layout),
            ]
        )

    def _connect(self) -> None:
        for name in ("bits", "grid_a", "grid_b", "rule", "per_channel"):
            self.controls[name].observe(self._on_choice, "value")
        self.tensor.observe(self._on_tensor, "value")
        self.clip.observe(self._on_clip, "value")
        self.level.observe(self._on_level, "value")
        self.value.observe(self._on_value, "value")
        self.mirror.observe(self._on_mirror, "value")
        self.reset.on_click(self._on_reset)
        self._live[0].marks[-1].observe(self._on_drag, "x")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set controls from code without answering to it."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def choice(self) -> Choice:
        """Return the values of all controls."""
        return Choice(
            **{name: control.value for name, control in self.controls.items()},
            start=self._start,
        )

    def scene(self) -> Scene:
        """Return the three panels and the table for the controls' present values."""
        return self.model.scene(self.choice())

    def quantizers(self) -> dict[str, Quantizer]:
        """Return the two quantizers on show, calibrated, under the names of the table."""
        return self.model.quantizers(self.choice())

    # What the controls do. Each ends in one refresh; what code sets meanwhile answers to nobody.

    def _on_choice(self, change: dict[str, Any]) -> None:
        if self._busy:
            return
        slots = (self.grid_a, self.grid_b)
        if (
            change["owner"] in slots
            and sum(slot.value == CUSTOM for slot in slots) == 1
            and change["new"] == CUSTOM
        ):
            self._start = change["old"]
        with self._quietly():  # the paper grid stops at 7 bits
            for grid in (self.grid_a, self.grid_b):
                if grid.value not in self.model.names(self.bits.value):
                    grid.value = grid.value.split()[0]
        self._refresh()

    def _on_tensor(self, change: dict[str, Any]) -> None:
        if not self._busy:
            self._fit_clip()
            self._refresh()

    def _on_clip(self, change: dict[str, Any]) -> None:
        # a browser sends back what code sets, rounded its own way: that is nobody's move
        moved = self.rule.value == MANUAL or abs(change["new"] - self._followed) > self.clip.step / 2
        if not self._busy and moved:
            with self._quietly():
                self.rule.value = MANUAL
            self._refresh()

    def _on_level(self, change: dict[str, Any]) -> None:
        if not self._busy:
            self._refresh()

    def _on_value(self, change: dict[str, Any]) -> None:
        if not self._busy and self.choice().edits:
            self._move(self.level.value - 1, change["new"])

    def _on_mirror(self, change: dict[str, Any]) -> None:
        c = self.choice()
        if not self._busy and c.edits:
            if change["new"]:
                self.model.store(c.tensor, c.bits, custom.mirrored(self.model.levels(c)))
            self._refresh()

    def _on_reset(self, button: w.Button) -> None:
        self.model.custom.pop((self.tensor.value, self.bits.value), None)
        self._refresh()

    def _on_drag(self, change: dict[str, Any]) -> None:
        c = self.choice()
        if self._busy or not c.edits:
            return
        k = custom.displaced(self.model.levels(c), np.asarray(change["new"], dtype=np.float64))
        if k is not None:
            self._move(k, float(change["new"][k]))

    def _move(self, index: int, value: float) -> None:
        """Bring one custom level as near to ``value`` as its neighbours allow."""
        c = self.choice()
        low, high = panels.limits(self.model.summary(c.tensor))
        levels = custom.moved(self.model.levels(c), index, value, low, high, mirror=c.mirror)
        self.model.store(c.tensor, c.bits, levels)
        with self._quietly():
            self.level.value = index + 1
        self._refresh()

    # What follows from the controls.

    def _fit_clip(self) -> None:
        """Give the Clip slider the span of the present tensor."""
        low, high = panels.limits(self.model.summary(self.tensor.value))
        top = max(abs(low), abs(high))
        decade = 10.0 ** np.floor(np.log10(top / CLIP_STEPS))
        step = next(decade * m for m in (1, 2, 5, 10) if decade * m * CLIP_STEPS >= top)
        self._decimals = max(0, -int(np.floor(np.log10(step) + 1e-9)))
        with self._quietly():
            self.clip.min, self.clip.max = (
                0.0,
                round(np.ceil(top / step) * step, self._decimals),
            )
            self.clip.step = self.clip.min = round(step, self._decimals)
            self.clip.readout_format = f".{self._decimals}f"

    def _follow(self) -> None:
        """Let dependent controls show what holds: the clip that a rule found for A, the level chosen."""
        c = self.choice()
        if c.rule != MANUAL and c.grid_a != CUSTOM:
            q = self.model.quantizer(c, c.grid_a)
            clip = float(q.range.scale.median()) * q.codebook.reach
            clip = round(max(round(clip / self.clip.step), 1) * self.clip.step, self._decimals)
            self._followed = self.clip.value = min(clip, self.clip.max)
        self._editor.layout.display = "flex" if c.edits else "none"
        if c.edits:
            levels = self.model.levels(c)
            self.level.max = len(levels)
            self.value.value = float(f"{levels[self.level.value - 1]:.7g}")

    def _refresh(self) -> None:
        """Bring picture, table and dependent controls to the present values."""
        with self._quietly():
            self._follow()
            scene = self.scene()
            pairs = zip(self._live, scene.panels, strict=True)
            changes = [change for live, panel in pairs for change in live.changes(panel)]
            changes.append((self._numbers, {"value": table_html(scene)}))
            apply(changes)

    @property
    def state(self) -> dict[str, Any]:
        """The value of every control, the custom grids and where they start, as JSON types."""
        grids = [{"tensor": t, "bits": b, "levels": v.tolist()} for (t, b), v in self.model.custom.items()]
        return {**super().state, "start": self._start, "custom": grids}

    def _restore(self, values: dict[str, Any]) -> None:
        values = dict(values)
        with self._quietly():
            if "tensor" in values:  # first: the span of Clip depends on it
                super()._restore({"tensor": values.pop("tensor")})
                self._fit_clip()
            for grid in values.pop("custom", []):
                if set(grid) != {"tensor", "bits", "levels"}:
                    raise ValueError(f"a custom grid has tensor, bits and levels, got {sorted(grid)}")
                self.model.store(grid["tensor"], grid["bits"], grid["levels"])
            start = values.pop("start", self._start)
            if start not in self.model.names(4):
                raise ValueError(f"unknown start grid {start!r}; there are {self.model.names(4)}")
            self._start = start
            super()._restore(values)
        self._refresh()

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file: every grid at every bit width on the present tensor, two side by side.

        It works from ``file://`` without network or kernel; a select and a slider a column switch frames.

        Args:
            path: the file; its folder must exist.
        """
        c = self.choice()
        frames = []
        for bits in range(self.bits.min, self.bits.max + 1):
            for grid in self.model.names(bits):
                if grid != CUSTOM or (c.tensor, bits) in self.model.custom or (bits == c.bits and c.edits):
                    frames.append(page.Frame(grid, bits, self.model.frame(replace(c, bits=bits), grid)))
        first = ((c.grid_a, c.bits), (c.grid_b, c.bits))
        about = f"{self.model.title(c)}. The tensor: {self.model.sources[c.tensor].about}."
        return page.write(path, f"Grids on {c.tensor}", about, frames, first)
