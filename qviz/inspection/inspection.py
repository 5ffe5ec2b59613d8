"""Inspection: what was found in a model, layer by layer, and how it prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qviz.core._text import count, table
from qviz.inspection.choices import Budget
from qviz.inspection.files import Filed
from qviz.inspection.loss import UNITS
from qviz.inspection.views import LayerView
from qviz.inspection.words import HEAD, bought, called, cells, heading, legend, trials

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class Whole:
    """The network's outputs, quantized against floating point.

    Attributes:
        db: Their signal-to-quantization-noise ratio.
        agreement: The share of samples whose highest score is at the same class; None without classes.
        loss: Of the quantized network, less that of the float network; see ``Inspection.loss``.
    """

    db: float
    agreement: float | None
    loss: float


@dataclass(frozen=True)
class Size:
    """Bytes.

    Attributes:
        floats: Of the network's numbers in float32.
        packed: Of the file that :func:`qviz.export.save` writes; None where it cannot be written.
        average_bits: Of a quantized weight, from the codes; None where there is none.
        why: Why there is no packed size, or "".
    """

    floats: int
    packed: int | None
    average_bits: float | None
    why: str = ""


@dataclass(frozen=True)
class Inspection(Filed):
    """What was found in a model; ``print`` shows the worst layers, with causes and what was tried.

    Attributes:
        model: The network's name.
        pair: What quantized it, in words.
        samples: How many samples it saw.
        loss: What sensitivities are in: "cross-entropy" (with classes as labels), "mse" (with other labels),
            "kl" (without labels, of scores), "error" (without labels, of anything else), or "given".
        layers: Every layer, in order of registration.
        whole: The outputs.
        size: Bytes.
        budget: What bits of weights buy; None where that was not asked for, or is not known.
        notes: What was done, and what is to be known.
        seconds: What it took.
    """

    SCHEMA: ClassVar[str] = "qviz.inspection"
    VERSION: ClassVar[int] = 1

    model: str
    pair: str
    samples: int
    loss: str
    layers: tuple[LayerView, ...]
    whole: Whole
    size: Size
    budget: Budget | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def __getitem__(self, name: str) -> LayerView:
        """Return a layer by its name.

        Raises:
            KeyError: There is none of that name.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def unit(self) -> str:
        """What the sensitivities are, in words."""
        return UNITS[self.loss]

    @property
    def quantized(self) -> tuple[LayerView, ...]:
        """The layers that are quantized."""
        return tuple(layer for layer in self.layers if layer.quantized)

    def worst(self, most: int | None = None) -> tuple[LayerView, ...]:
        """Return quantized layers from the worst on: by what they cost alone, then by their local ratio."""

        def key(layer: LayerView) -> tuple[float, float]:
            cost = layer.sensitivity.on if layer.sensitivity is not None else 0.0
            local = layer.outputs.local if layer.outputs is not None else None
            return -cost, float("inf") if local is None else local

        return tuple(sorted(self.quantized, key=key)[:most])

    def table(self, layers: Iterable[LayerView]) -> str:
        """Return the lines of some layers as text."""
        return table(HEAD, [cells(layer) for layer in layers], right=range(2, len(HEAD)))

    def text(self, top: int = 10) -> str:
        """Return totals, the worst layers, their causes and what was tried, as text.

        Args:
            top: How many layers.
        """
        worst = self.worst(top)
        parts = [heading(self), f"{self.table(worst)}\n({legend(self)})"]
        for layer in worst:
            lines = [f"  {cause.text}" for cause in layer.causes]
            lines += [f"  {line}" for line in trials(layer)]
            if lines:
                parts.append("\n".join([called(layer.name), *lines]))
        if self.budget is not None:
            title, unit = bought(self.budget)
            alike = [f"  {line}" for line in self.budget.correlations()]
            alike = ["Do the estimates rank the layers alike? Rank correlations:", *alike] if alike else []
            parts.append("\n".join([title, str(self.budget.table()), f"({unit})", *alike]))
        left = [layer for layer in self.layers if not layer.quantized]
        if left:
            parts.append(
                "\n".join(
                    [f"Not quantized: {count(len(left), 'layer')}", *(f"  {x.name}: {x.why}" for x in left)]
                )
            )
        return "\n\n".join([*parts, *self.notes])

    def to_html(self, path: str | Path) -> Path:
        """Write one page that works without a network, and return its path.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: The file cannot be written.
        """
        from qviz.inspection.page import write

        return write(self, path)

    def to_model_explorer(
        self, path: str | Path, program: ExportedProgram | None = None, figure: str = "local"
    ) -> Path:
        """Write node data for Google's Model Explorer; see :func:`qviz.inspection.model_explorer.write`."""
        from qviz.inspection.model_explorer import write

        return write(self, path, program, figure)

    def __str__(self) -> str:
        """Return :meth:`text` of the ten worst layers."""
        return self.text()
