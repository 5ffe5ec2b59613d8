"""Agreement: the codes of the integer forward pass and of the float network, each difference explained.

Float sums of float32 products are rounded, in an order that belongs to the machine; so is every real border.
A value within that rounding of a border may fall on either side of it, and no arithmetic but the same float
one can know on which. Such a code differs by one, and every later code of that image may differ for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from qviz.export.arithmetic import whole
from qviz.export.exported import Exported, Step
from qviz.export.fixed import adaptive_steps, below
from qviz.export.integer import IntegerModel
from qviz.export.program import Program, as_rows, norm, product, run, simple
from qviz.export.tables import InputTable, WeightTable

ROUNDING = 2.0**-18
"""How far two evaluations of a map may lie apart by float32 rounding: 64 roundings of its largest value."""


@dataclass
class LayerAgreement:
    """How the codes that one layer read agree.

    Attributes:
        codes: How many there were.
        border: Codes that differ because the float value and the integer one, within rounding of each other,
            have a border between them; in images in which all earlier codes agree.
        consequence: Codes that differ in images in which an earlier code differs.
        other: Codes that differ for another reason. There should be none.
        farthest: The largest distance of the two values of a "border" or "other", by the map's largest value.
    """

    codes: int = 0
    border: int = 0
    consequence: int = 0
    other: int = 0
    farthest: float = 0.0


@dataclass
class Agreement:
    """How an integer forward pass agrees with the float network.

    Attributes:
        layers: By name.
        images: How many were run.
        touched: Images in which at least one code differs.
        top1: Images of which the class is the same.
        logits: The largest difference of a logit.
        untouched_logits: The same over images in which all codes agree.
        spread: The standard deviation of the float network's logits.
    """

    layers: dict[str, LayerAgreement] = field(default_factory=dict)
    images: int = 0
    touched: int = 0
    top1: int = 0
    logits: float = 0.0
    untouched_logits: float = 0.0
    spread: float = 0.0

    def total(self, what: str) -> int:
        """Return the sum over the layers of "codes", "border", "consequence" or "other"."""
        return sum(getattr(layer, what) for layer in self.layers.values())

    @property
    def codes_equal(self) -> float:
        """The share of equal codes, 1 where there are none."""
        different = sum(self.total(what) for what in ("border", "consequence", "other"))
        return 1 - different / max(self.total("codes"), 1)

    def __str__(self) -> str:
        border, follow, other = (self.total(what) for what in ("border", "consequence", "other"))
        return (
            f"{self.images:,} images, {self.total('codes'):,} codes: {self.codes_equal:.4%} equal; of the "
            f"rest {border:,} on a border within float rounding, {follow:,} follow from these, {other:,} "
            f"other. {self.touched:,} images are touched. Top-1 equal in "
            f"{self.top1 / max(self.images, 1):.3%}. Logits differ by {self.logits:.2g} at most, where all "
            f"codes agree by {self.untouched_logits:.2g}; their standard deviation is {self.spread:.3g}"
        )


@torch.no_grad()
def compare_codes(
    exported: Exported,
    batches: Iterable[Tensor],
    *,
    integer: IntegerModel | None = None,
    double: bool = False,
) -> Agreement:
    """Run images through the integer and the float network, and compare every code and logit.

    Args:
        exported: The network.
        batches: Normalized images, (N, C, H, W) each.
        integer: Its integer forward pass; by default ``IntegerModel(exported)``.
        double: Compare with the network in real numbers, see :class:`Double`, which tells what the integers
            do wrong. By default with the one in float32, as it was trained, whose own rounding counts too.
    """
    integer = IntegerModel(exported) if integer is None else integer
    reference = Double(exported) if double else Program(exported)
    found = Agreement({exported.program[i].name: LayerAgreement() for i in integer.layers})
    squares = mean = count = 0.0
    for images in (batch for batch in batches if len(batch)):
        expected = _batch(exported, reference, integer, images, found).double()
        squares, mean = squares + float((expected**2).sum()), mean + float(expected.sum())
        count += expected.numel()
        found.spread = max(squares / count - (mean / count) ** 2, 0.0) ** 0.5
    return found


def _batch(
    exported: Exported, reference: Program | Double, integer: IntegerModel, images: Tensor, found: Agreement
) -> Tensor:
    """Run one batch step by step through both, note what agrees, and return the float network's output."""
    touched = torch.zeros(len(images), dtype=torch.bool)

    def both(i: int, inputs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        inputs = inputs or [(images, images.contiguous())]
        step, (real, v) = exported.program[i], inputs[0]
        made = integer._value(i, [pair[1] for pair in inputs])
        if i in integer.layers:
            expected = codes_of(exported.layers[step.name].input, as_rows(step, real)).view(real.shape)
            _note(
                found.layers[step.name], expected != integer.layers[i].codes, real, integer.real(v), touched
            )
        return reference._value(step, [pair[0] for pair in inputs]), made

    for _, (expected, v) in run(exported.program, both):
        output, exact = integer.real(v), expected
    apart = (output.double() - exact).abs().flatten(1).amax(1)
    found.images += len(images)
    found.touched += int(touched.sum())
    found.top1 += int((output.argmax(1) == exact.argmax(1)).sum())
    found.logits = max(found.logits, apart.max().item())
    found.untouched_logits = max(
        found.untouched_logits, apart[~touched].max().item() if (~touched).any() else 0.0
    )
    return exact


def _note(layer: LayerAgreement, differ: Tensor, real: Tensor, v: Tensor, touched: Tensor) -> None:
    """Add the codes of one layer and batch to the counts, and mark the images in which codes differ."""
    layer.codes += differ.numel()
    rows = differ.flatten(1).any(1)
    layer.consequence += int(differ[touched].sum())
    fresh = rows & ~touched
    if fresh.any():
        largest = real.abs().max().item()
        apart = (real - v).abs()[fresh][differ[fresh]] / largest
        layer.border += int((apart <= ROUNDING).sum())
        layer.other += int((apart > ROUNDING).sum())
        layer.farthest = max(layer.farthest, apart.max().item())
    touched |= rows


def codes_of(read: InputTable, x: Tensor) -> Tensor:
    """Return the codes of float32 or float64 values; of float64 ones by the same borders."""
    if x.dtype == torch.float32:
        return read.codes(x)
    u = x if read.adapter is None else x / _steps(read, x)
    return torch.from_numpy(below(u.numpy(), read.borders.double().numpy()))


class Double:
    """The network in real numbers, as far as float64 has them: no product and no sum is rounded to float32.

    Weights are scale × level, and what the codes of an input stand for are multiples of one unit where they
    are that to within float32's rounding, as in the integer forward pass. Borders are the same.

    Args:
        exported: The network.
    """

    def __init__(self, exported: Exported) -> None:
        self.exported = exported
        self._tensors = {name: v.double() for name, v in exported.tensors.items()}
        self._weights = {name: _weight(layer.weight) for name, layer in exported.layers.items()}
        self._values = {
            name: _unrounded(layer.input.values)
            for name, layer in exported.layers.items()
            if layer.input is not None
        }

    def _value(self, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        x = inputs[0]
        if step.op == "input":
            return x.double()
        if step.op == "batchnorm":
            return norm(step, x, self._tensors)
        if step.op not in ("conv", "linear"):
            return simple(step, inputs)
        layer = self.exported.layers[step.name]
        if layer.input is not None:
            x = self._read(step.name, layer.input, as_rows(step, x)).view(x.shape)
        return product(step, x, self._weights[step.name], None if layer.bias is None else layer.bias.double())

    def _read(self, name: str, read: InputTable, x: Tensor) -> Tensor:
        codes, table = codes_of(read, x).long(), self._values[name]
        if table.ndim == 2:
            y = table.T[torch.arange(x.shape[1]).view(1, -1, *(1,) * (x.ndim - 2)), codes]
        else:
            y = table[codes]
        return y if read.adapter is None else y * _steps(read, x)


def _weight(weight: WeightTable | Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        return weight.double()
    parts = {key: getattr(weight, key) for key in ("levels", "scale", "offset", "factor")}
    return replace(weight, **{key: None if v is None else v.double() for key, v in parts.items()}).value()


def _unrounded(values: Tensor) -> Tensor:
    """Return what codes stand for, (K,) or (K, C), as multiples of one unit where they nearly are."""
    columns = [values] if values.ndim == 1 else list(values.unbind(1))
    found = [whole(column.numpy()) for column in columns]
    made = [
        column.double() if one is None else torch.from_numpy(one[0] * one[1])
        for column, one in zip(columns, found, strict=True)
    ]
    return made[0] if values.ndim == 1 else torch.stack(made, 1)


def _steps(read: InputTable, x: Tensor) -> Tensor:
    """Return the adaptive step of each sample, float64, (N, 1, …)."""
    seen = x.flatten(2).mean(2) if x.ndim > 2 else x
    return torch.from_numpy(adaptive_steps(read.adapter, seen.numpy())).view(-1, *(1,) * (x.ndim - 1))
