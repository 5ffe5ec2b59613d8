"""Report: what of a model is quantized, to how many bits and levels, and what is not and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from qviz.core._text import table
from qviz.core.quantizer import Quantizer
from qviz.nn.batches import Batch, batches_of
from qviz.nn.calibration import look_at_hooks
from qviz.nn.modules import uncompiled
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.survey import held, survey


@dataclass(frozen=True)
class Row:
    """One layer: a module that itself holds a parameter of two or more dimensions.

    Attributes:
        name: the first under which the model has it.
        kind: "Conv2d", "grouped Conv2d", "depthwise Conv2d", "Linear", or the class's name.
        w_bits, a_bits: bits that a stored code of the weight and of the input needs; those of the
            floating-point dtype where it is not quantized.
        w_levels, a_levels: levels of the codebooks; None where not quantized.
        parameters: that the float layer has, biases included.
        weights: of these, those of the weight.
        note: Remarks: why it is not quantized, or which substitute it got.
        w_recipe, a_recipe: The calls that made the quantizers, such as "lsq(bits=4)"; empty where none is
        known.
    """

    name: str
    kind: str
    w_bits: int
    w_levels: int | None
    a_bits: int
    a_levels: int | None
    parameters: int
    weights: int
    note: str = ""
    w_recipe: str = ""
    a_recipe: str = ""

    @property
    def quantized(self) -> bool:
        """Whether the weight or the input is quantized."""
        return self.w_levels is not None or self.a_levels is not None


@dataclass(frozen=True)
class Report:
    """What is quantized in a model; ``print`` shows a table.

    Attributes:
        rows: one for each layer, in order of registration.
        parameters: of the whole model, without what quantization adds.
        quantizer_parameters: what quantization adds: steps, borders, small networks, output scales.
        first_last: the policy for the first and the last layer; None where it is not known.
    """

    rows: tuple[Row, ...]
    parameters: int
    quantizer_parameters: int
    first_last: str | None = None

    @property
    def weights(self) -> int:
        """Number of weights in all rows."""
        return sum(row.weights for row in self.rows)

    @property
    def quantized_weights(self) -> int:
        """Number of weights that are quantized."""
        return sum(row.weights for row in self.rows if row.w_levels is not None)

    @property
    def average_bits(self) -> float | None:
        """Bits of a quantized weight, averaged over these weights; None if there is none.

        Layers left in floating point are not in it; the first and the last are in it where the policy
        quantizes them.
        """
        n = self.quantized_weights
        return sum(r.weights * r.w_bits for r in self.rows if r.w_levels is not None) / n if n else None

    def row(self, name: str) -> Row:
        """Return the row of one layer.

        Raises:
            KeyError: there is none of that name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return rows and totals as plain numbers and strings, for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "first_last": self.first_last,
            "layers": len(self.rows),
            "quantized_layers": sum(row.quantized for row in self.rows),
            "parameters": self.parameters,
            "quantizer_parameters": self.quantizer_parameters,
            "weights": self.weights,
            "quantized_weights": self.quantized_weights,
            "average_bits": self.average_bits,
        }

    def __str__(self) -> str:
        """Return a table with a line of totals."""
        head = ("layer", "kind", "weights", "inputs", "parameters", "note")
        rows = [
            (
                row.name or "(the model itself)",
                row.kind,
                _shown(row.w_bits, row.w_levels, row.w_recipe),
                _shown(row.a_bits, row.a_levels, row.a_recipe),
                f"{row.parameters:,}",
                row.note,
            )
            for row in self.rows
        ]
        return f"{table(head, rows, right=[4])}\n{self._totals()}"

    def _totals(self) -> str:
        done = sum(row.quantized for row in self.rows)
        share = 100.0 * self.quantized_weights / max(self.weights, 1)
        text = (
            f"{done} of {len(self.rows)} layers quantized, {self.quantized_weights:,} of {self.weights:,} "
            f"weights ({share:.1f} %)"
        )
        if self.average_bits is not None:
            text += f" at {self.average_bits:.2f} bits on average"
        text += f"; {self.parameters:,} parameters, {self.quantizer_parameters:,} more in the quantizers"
        return text if self.first_last is None else f"{text}; first and last layer: {self.first_last}"


def report(
    model: nn.Module,
    *,
    notes: Mapping[str, str] | None = None,
    first_last: str | None = None,
    batch: Batch | None = None,
) -> Report:
    """Look at a model, converted or not, and report what is quantized in it.

    A layer whose output forward hooks replace, its own or those of modules around it, is not counted. What
    they do is seen when ``convert`` or ``calibrate`` runs a batch: a layer counts as long as what the model
    returns is computed from its output, however scaled or added to. Of hooks that are set later, those on
    the layer itself are seen to return something else in the next run; ``batch`` tells more.

    Args:
        model: any module.
        notes: remarks by layer name; a layer without one that is not quantized gets the reason that can be
            seen.
        first_last: the policy, if it is known.
        batch: as for :func:`~qviz.nn.convert`: a pass of it shows what forward hooks do now.
    """
    model, notes = uncompiled(model), notes or {}
    for one in itertools.islice(batches_of(batch), 1) if batch is not None else ():
        look_at_hooks(model, one)
    found = survey(model)
    rows = tuple(
        _row(name, module, reason, _note(module, reason, notes.get(name)))
        for name, (module, reason) in found.items()
    )
    added = {id(p): p for m in model.modules() if isinstance(m, Quantizer) for p in m.parameters()}
    scales = (m.output_scale for m in model.modules() if isinstance(m, QuantLayer))
    added |= {id(p): p for p in scales if p is not None}
    own = [p for p in model.parameters() if id(p) not in added]
    return Report(rows, _count(own), _count(added.values()), first_last)


def _note(module: nn.Module, reason: str | None, given: str | None) -> str:
    if not isinstance(module, QuantLayer):
        return given or reason or ""
    return reason or given or module.misfit()


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(0 if is_lazy(p) else p.numel() for p in parameters)


def _row(name: str, module: nn.Module, reason: str | None, note: str) -> Row:
    own = held(module)
    weights = [p for p in own.values() if is_lazy(p) or p.ndim > 1]
    width = 8 * weights[0].dtype.itemsize
    runs = isinstance(module, QuantLayer) and reason is None
    w, a = (module.weight_quantizer, module.input_quantizer) if runs else (None, None)
    return Row(
        name,
        _kind(module),
        width if w is None else w.codebook.bits,
        None if w is None else len(w.codebook),
        width if a is None else a.codebook.bits,
        None if a is None else len(a.codebook),
        _count(own.values()),
        _count(weights),
        note,
        *(str(q.recipe) if q is not None and q.recipe is not None else "" for q in (w, a)),
    )


def _kind(module: nn.Module) -> str:
    kind = module.float_type if isinstance(module, QuantLayer) else type(module)
    if issubclass(kind, nn.Conv2d) and module.groups > 1:
        return f"{'depthwise' if module.groups == module.in_channels else 'grouped'} {kind.__name__}"
    return kind.__name__


def _shown(bits: int, levels: int | None, recipe: str) -> str:
    if levels is None:
        return f"fp{bits}" if bits > 8 else f"{bits} bits"
    made_by = f", {recipe.partition('(')[0]}" if recipe else ""
    return f"{bits} bit{'s' * (bits > 1)}, {levels} levels{made_by}"
