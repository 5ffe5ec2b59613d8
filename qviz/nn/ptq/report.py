"""Report: what post-training quantization did, block by block, with the figures that it was judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from qviz.core import _text
from qviz.nn.ptq.blocks import Block
from qviz.nn.ptq.reconstruct import Result
from qviz.nn.ptq.settings import Settings
from qviz.nn.report import Report

HEAD = (
    "block",
    "kept",
    "error",
    "after",
    "of output",
    "after",
    "weight",
    "after",
    "act.",
    "after",
    "before it",
    "s",
)


@dataclass
class PTQReport:
    """What :func:`~qviz.nn.ptq.ptq` did; ``print`` shows a table.

    Attributes:
        settings: The arguments.
        conversion: What is quantized in the network, layer by layer.
        results: One for each block that was worked on.
        notes: What could not be done, in sentences.
        images, held: How many images were learned from, and how many judged.
        source: What the images are, in the caller's words.
        output_first, output_last: The error of the network's output on held-out images, rounded to nearest
            and at the end.
        agreement: The share of held-out images for which the quantized and the float network name the same
            class; None where the output is not (N, classes). No accuracy: no label was read.
        seconds: The time that it took.
        finished: False where it was stopped; give the report as ``resume=`` to go on.
        reference: The float network with BatchNorm folded.
        blocks: What was found to be worked on.
        skip: Names of layers that round to nearest.
    """

    settings: Settings
    conversion: Report
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    held: int = 0
    source: str = ""
    output_first: float = float("nan")
    output_last: float = float("nan")
    agreement: float | None = None
    seconds: float = 0.0
    finished: bool = False
    reference: nn.Module | None = field(default=None, repr=False)
    blocks: Sequence[Block] = ()
    skip: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain numbers and strings, for JSON."""
        kept = ("notes", "images", "held", "source", "output_first", "output_last", "agreement", "seconds")
        return {name: getattr(self, name) for name in kept} | {
            "method": self.settings.method,
            "w_bits": self.settings.pair.w_bits,
            "a_bits": self.settings.pair.a_bits,
            "finished": self.finished,
            "conversion": self.conversion.to_dict(),
            "results": [asdict(result) for result in self.results],
        }

    def __str__(self) -> str:
        """Return a table of blocks and the totals."""
        lines = []
        if self.results:
            lines.append(_text.table(HEAD, [_cells(result) for result in self.results]))
        of = f" ({self.source})" if self.source else ""
        lines.append(
            f"{self.settings.method}: {self.images} images{of}, and {self.held} held out; no label was read"
        )
        text = f"error of the output on held-out images {self.output_first:.4g} -> {self.output_last:.4g}"
        if self.agreement is not None:
            text += f"; the same class as in floating point for {self.agreement:.1%}"
        lines.append(f"{text}; {self.seconds:.0f} s")
        taken = [result.name for result in self.results if not result.verdict.accepted]
        if taken:
            lines.append(f"taken back, as held-out images were worse: {_text.some(taken)}")
        lines += self.notes
        return "\n".join(lines + ([] if self.finished else ["stopped before the end: resume= goes on"]))


def _cells(result: Result) -> list[str]:
    v, b, a = result.verdict, result.before, result.after
    pairs = (
        (v.block_before, v.block_after),
        (v.output_before, v.output_after),
        (b.weight, a.weight),
        (b.activation, a.activation),
    )
    figures = [f"{figure:.3g}" for pair in pairs for figure in pair]
    return [
        result.name,
        "yes" if v.accepted else "no",
        *figures,
        f"{a.propagated:.3g}",
        f"{result.seconds:.0f}",
    ]
