"""Agreement: the codes of the integer forward pass and of the float network, each difference explained.

Float sums of float32 products are rounded, in an order that belongs to the machine; so is every real border.
A value within that rounding of a border may fall on either side of it, and no arithmetic but the same float
one can know on which. Such a code differs by one, and every later code of that image may differ for it.
Two float32 evaluations of a ResNet-20 with 4 bits, with oneDNN and without, share 99.81 to 99.94 % of codes;
the integers share 99.99 % with the former (``tests/benchmarks/bench_agreement.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qviz.export.answers import Answers
from qviz.export.double import Double, codes_of
from qviz.export.exported import Exported
from qviz.export.integer import IntegerModel
from qviz.export.program import Program, as_rows, run

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
    """How another forward pass agrees with the float network, code by code.

    Attributes:
        layers: By name.
        answers: How the outputs compare.
        touched: Images in which at least one code differs.
        untouched_logits: The largest difference of a logit over the images in which all codes agree.
        untouched_flips: Of these, the images that get another class.
    """

    layers: dict[str, LayerAgreement]
    answers: Answers = field(default_factory=Answers)
    touched: int = 0
    untouched_logits: float = 0.0
    untouched_flips: int = 0
    _sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64), repr=False)

    def add(self, own: Tensor, right: Tensor, touched: Tensor) -> None:
        """Add the outputs of a batch, the float network's to the right, and which images are touched."""
        start, before = self.answers.images, len(self.answers.flips)
        apart, right = self.answers.add(own, right), right.double()
        self.untouched_flips += sum(not touched[f.image - start] for f in self.answers.flips[before:])
        self.touched += int(touched.sum())
        self.untouched_logits = max(self.untouched_logits, *apart[~touched].tolist(), 0.0)
        self._sums += torch.stack([right.square().sum(), right.sum(), torch.tensor(float(right.numel()))])

    @property
    def spread(self) -> float:
        """The standard deviation of the float network's logits, 0 without any."""
        squares, total, count = self._sums.tolist()
        return max(squares / count - (total / count) ** 2, 0.0) ** 0.5 if count else 0.0

    def total(self, what: str) -> int:
        """Return the sum over the layers of "codes", "border", "consequence" or "other"."""
        return sum(getattr(layer, what) for layer in self.layers.values())

    @property
    def unexplained(self) -> int:
        """Images of another class that no code on a border explains; all, where codes differ otherwise."""
        return len(self.answers.flips) if self.total("other") else self.untouched_flips

    @property
    def codes_equal(self) -> float:
        """The share of equal codes, 1 where there are none."""
        different = sum(self.total(what) for what in ("border", "consequence", "other"))
        return 1 - different / max(self.total("codes"), 1)

    def __str__(self) -> str:
        border, follow, other = (self.total(what) for what in ("border", "consequence", "other"))
        answers = self.answers
        same = 1.0 if answers.agreement is None else answers.agreement
        return (
            f"{answers.images:,} images, {self.total('codes'):,} codes: {self.codes_equal:.4%} equal; of the "
            f"rest {border:,} on a border within float rounding, {follow:,} follow from these, {other:,} "
            f"other. {self.touched:,} images are touched. Top-1 equal in {same:.3%}. "
            f"Logits differ by {answers.largest:.2g} at most, where all codes agree by "
            f"{self.untouched_logits:.2g}; their standard deviation is {self.spread:.3g}"
        )


REFERENCES = ("float32", "float64", "real")


@torch.no_grad()
def compare_codes(
    exported: Exported,
    batches: Iterable[Tensor],
    *,
    integer: IntegerModel | None = None,
    reference: str = "float32",
) -> Agreement:
    """Run images through the integer and the float network, and compare every code and logit.

    Args:
        exported: The network.
        batches: Normalized images, (N, C, H, W) each.
        integer: Its integer forward pass; by default ``IntegerModel(exported)``.
        reference: "float32", as it was trained, whose own rounding counts too; "float64", the same numbers
            multiplied and summed in float64; "real", weights and inputs without float32's rounding as well,
            see :class:`~qviz.export.double.Double`, which tells what the integers do wrong.

    Raises:
        ValueError: Another reference; images that the integer forward pass refuses.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {reference!r}")
    integer = IntegerModel(exported) if integer is None else integer
    right = Program(exported) if reference == "float32" else Double(exported, real=reference == "real")
    found = Agreement({exported.program[i].name: LayerAgreement() for i in integer.layers})
    for images in (batch for batch in batches if len(batch)):
        integer.check(images)
        _batch(exported, right, integer, images, found)
    return found


def _batch(
    exported: Exported, reference: Program | Double, integer: IntegerModel, images: Tensor, found: Agreement
) -> None:
    """Run one batch step by step through both, and note what agrees."""
    touched = torch.zeros(len(images), dtype=torch.bool)

    def both(i: int, inputs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        inputs = inputs or [(images, images.contiguous())]
        step, (real, v) = exported.program[i], inputs[0]
        made = integer._value(i, [pair[1] for pair in inputs])
        if i in integer.layers:
            expected = codes_of(exported.layers[step.name].input, as_rows(step, real)).view(real.shape)
            differ = expected != integer.layers[i].codes
            other = integer.real(v) if differ.any() else real
            note(found.layers[step.name], differ, real, other, touched)
        return reference._value(step, [pair[0] for pair in inputs]), made

    for _, (expected, v) in run(exported.program, both):
        own, right = integer.real(v), expected
    found.add(own, right, touched)


def note(layer: LayerAgreement, differ: Tensor, real: Tensor, v: Tensor, touched: Tensor) -> None:
    """Add the codes of one layer and batch to the counts, and mark the images in which codes differ.

    Args:
        layer: The counts.
        differ: Which codes of the layer's input differ.
        real: The float network's input of the layer.
        v: The other one's, in real numbers.
        touched: Images in which an earlier code differs, (N,); changed.
    """
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
