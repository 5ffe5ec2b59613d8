"""Proof: what the verification of an exported file found, as figures and as a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from qviz.core._text import count, table
from qviz.export.agreement import Agreement
from qviz.export.answers import Answers
from qviz.export.subject import Bits

_HEAD = ("layer", "weights", "bits", "values", "stored", "input bits", "tables", "local dB", "cumulative dB")


@dataclass(frozen=True)
class LayerProof:
    """A layer of the file.

    Attributes:
        bits: As measured.
        difference: How its tables differ from the reference's, "" where they do not; None without reference.
        local: SQNR of its output, in dB, given the reference's input; None if it was not compared.
        cumulative: The same given the file's own input.
    """

    bits: Bits
    difference: str | None
    local: float | None
    cumulative: float | None


@dataclass(frozen=True)
class Proof:
    """What :func:`prove` found; ``print`` shows it.

    It is a proof where something was compared, and nothing is other than it should be.

    Attributes:
        path: The file. kind: "safetensors" or "onnx". bytes: Its size. sha256: Its hash.
        layers: One record a layer.
        problems: What is not as it should be, in sentences; empty where the proof holds.
        remarks: What else is worth knowing.
        first: The first layer whose cumulative output is not the reference's; "" if there is none.
        answers: How classes and logits compare.
        codes: How the codes of an ONNX file, or of integer arithmetic, compare; None where they were not.
        compared: Whether the file was compared with anything, be it only its own integer arithmetic.
    """

    path: Path
    kind: str
    bytes: int
    sha256: str
    layers: tuple[LayerProof, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    first: str = ""
    answers: Answers = field(default_factory=Answers)
    codes: Agreement | None = None
    compared: bool = True

    @property
    def ok(self) -> bool:
        """Whether the file was compared with something, and there is no problem."""
        return self.compared and not self.problems

    def __str__(self) -> str:
        """Return the table and the sentences."""
        weights = sum(layer.bits.weights for layer in self.layers)
        bits = sum(layer.bits.weights * layer.bits.bits for layer in self.layers) / max(weights, 1)
        lines = [
            f"{self.path.name}: {self.kind}, {self.bytes:,} bytes, SHA-256 {self.sha256[:16]}…",
            f"{count(weights, 'weight')} of {bits:.2f} bits on average, as measured",
            table(_HEAD, [_cells(layer) for layer in self.layers], right=(1, 2, 3, 5, 7, 8)),
        ]
        if (images := self.answers.images) > 0:
            lines.append(
                f"same class for {images - len(self.answers.flips):,} of {count(images, 'image')}; "
                f"largest difference of a logit {self.answers.largest:.3g}"
            )
        lines += [*self.remarks, *(f"DIFFERS: {problem}" for problem in self.problems)]
        end = "proved" if self.ok else "not proved" if self.problems else "measured, not compared"
        return "\n".join([*lines, end])


def _cells(layer: LayerProof) -> tuple[str, ...]:
    b = layer.bits
    tables = {None: "", "": "equal"}.get(layer.difference, "DIFFER")
    ratios = [
        "" if v is None else "equal" if v == math.inf else f"{v:.1f}" for v in (layer.local, layer.cumulative)
    ]
    read = "" if b.input is None else f"{b.input}"
    return (b.name, f"{b.weights:,}", f"{b.bits}", f"{b.used}", b.stored, read, tables, *ratios)
