"""Subject: an exported file as ``verify`` looks at it: its bits, its tables, what each of its steps gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from qviz.core._text import count, some
from qviz.export.exported import Exported, Step
from qviz.export.file import read
from qviz.export.layout import tensors_of
from qviz.export.program import Program, as_rows
from qviz.export.size import row
from qviz.export.tables import Adapter, InputTable, LayerTables, WeightTable


@dataclass(frozen=True)
class Bits:
    """The bits of a layer, from what is stored.

    Attributes:
        name: The layer.
        weights: How many.
        bits: That its codes need; 32 where the weight is in floating point.
        used: Different values among them.
        stored: How they are stored: "packed", or a type of ONNX.
        input: Of a code of the input; 32 in floating point, None where it cannot be told.
    """

    name: str
    weights: int
    bits: int
    used: int
    stored: str
    input: int | None


class Subject(Protocol):
    """What is verified.

    Attributes:
        path: The file.
        kind: "safetensors" or "onnx".
        exact: Whether its forward pass must be that of the reference to the last bit.
        steps: Operation, inputs and module of each step, empty where the file does not say.
        about: As in :class:`~qviz.export.exported.Exported`.
    """

    path: Path
    kind: str
    exact: bool
    steps: Sequence[tuple[str, tuple[int, ...], str]]
    about: Mapping[str, object]

    def bits(self) -> list[Bits]:
        """Return the bits of each layer."""

    def differences(self, reference: Exported) -> tuple[dict[str, str], list[str]]:
        """Return what of each module is not as in the reference, and remarks that are no differences."""

    def outputs(self, images: Tensor, steps: Sequence[int]) -> dict[int, Tensor]:
        """Return what some steps give for images."""

    def step(self, number: int, inputs: Sequence[Tensor], adapter: Adapter | None = None) -> Tensor:
        """Return what one step gives for inputs; ``adapter`` is the reference's, where its layer has one."""

    def codes(self, step: Step, table: InputTable, x: Tensor) -> Tensor:
        """Return the codes that the layer of a step, which has that table, reads of a map."""

    def answer(self, images: Tensor) -> Tensor:
        """Return the network's output."""


class Packed:
    """A .safetensors file of :func:`qviz.export.write`; reading it checks its hash and its schema."""

    kind, exact = "safetensors", True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exported = read(path)
        self.about = self.exported.about
        self.steps = steps_of(self.exported)
        self._program = Program(self.exported) if self.steps else None

    def bits(self) -> list[Bits]:
        """Return the bits of each layer."""
        rows = {name: row(name, layer) for name, layer in self.exported.layers.items()}
        return [
            Bits(
                name,
                rows[name].weights,
                rows[name].bits,
                rows[name].used or len(layer.weight.unique()),
                "packed" if isinstance(layer.weight, WeightTable) else "FLOAT",
                rows[name].a_bits,
            )
            for name, layer in self.exported.layers.items()
        ]

    def differences(self, reference: Exported) -> tuple[dict[str, str], list[str]]:
        """Compare each table number by number, and each other tensor."""
        own, other = self.exported.layers, reference.layers
        found = _missing(own, other)
        for name in [name for name in own if name in other]:
            if what := different(own[name], other[name]):
                found[name] = what
        return found | _unlike(self.exported.tensors, reference.tensors), []

    def outputs(self, images: Tensor, steps: Sequence[int]) -> dict[int, Tensor]:
        """Run the steps in float32."""
        return {i: value for i, value in self._program.values(images) if i in steps}

    @torch.no_grad()
    def step(self, number: int, inputs: Sequence[Tensor], adapter: Adapter | None = None) -> Tensor:
        """Run one step."""
        return self._program._value(self.exported.program[number], inputs)

    def codes(self, step: Step, table: InputTable, x: Tensor) -> Tensor:
        """Return the codes that a layer reads of a map."""
        return table.codes(as_rows(step, x)).view(x.shape)

    def answer(self, images: Tensor) -> Tensor:
        """Run the network.

        Raises:
            ValueError: The file has no steps.
        """
        if self._program is None:
            raise ValueError(f"{self.path} has no steps to run: {self.exported.untraceable}")
        return self._program(images)


def steps_of(exported: Exported) -> list[tuple[str, tuple[int, ...], str]]:
    """Return operation, inputs and module of each step."""
    return [(step.op, tuple(step.inputs), step.name) for step in exported.program]


def different(own: LayerTables, other: LayerTables) -> str:
    """Return in words which numbers of a layer are not those of another; "" where all are."""
    parts = [_plain(layer) for layer in (own, other)]
    return some([f"{key}: {what}" for key, what in _unlike(*parts).items()], 4).replace("nothing", "")


def _plain(layer: LayerTables) -> dict[str, Tensor]:
    """Return a layer's tensors by name, its codes unpacked."""
    found = {key: value for key, value in tensors_of(layer).items() if key != "codes"}
    weight = layer.weight
    return found | ({"codes": weight.codes} if isinstance(weight, WeightTable) else {})


def _missing(own: Mapping[str, object], other: Mapping[str, object]) -> dict[str, str]:
    """Return which names only one of two has."""
    found = dict.fromkeys(other.keys() - own.keys(), "not in the file")
    return found | dict.fromkeys(own.keys() - other.keys(), "not in the reference")


def _unlike(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, str]:
    """Return how tensors differ, by name."""
    found = _missing(own, other)
    for key in own.keys() & other.keys():
        a, b = own[key], other[key]
        if a.shape != b.shape:
            found[key] = f"of shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        elif wrong := int((~((a == b) | (a.isnan() & b.isnan()))).sum()):
            found[key] = f"{wrong} of {count(a.numel(), 'number')} differ"
    return dict(sorted(found.items()))
