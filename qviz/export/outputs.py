"""Outputs: what the steps of a file give for images, beside those of a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qviz.core._text import some
from qviz.export.agreement import Agreement, LayerAgreement, compare_codes, note
from qviz.export.answers import Answers
from qviz.export.exported import Exported
from qviz.export.integer import IntegerModel
from qviz.export.program import Program, as_rows
from qviz.export.subject import Packed, Subject, steps_of
from qviz.measure.metrics import sqnr_from

LOCAL = 100.0
FIRST = 100
"""Images at a time, and those that single steps are compared on; fewer where they are large."""

_PIXELS = 3 * 32 * 32
Bar = Callable[[Sequence[Tensor]], Iterable[Tensor]]


@dataclass
class Outputs:
    """What was found.

    Attributes:
        answers: How classes and logits compare.
        codes: How codes compare, where that was looked at.
        local: SQNR of a layer's output given the reference's input, by name.
        cumulative: The same given the file's own input.
        first: The first layer of which that is too low, "" for none.
        problems: What is not as it should be.
        remarks: What else is worth knowing.
    """

    answers: Answers = field(default_factory=Answers)
    codes: Agreement | None = None
    local: dict[str, float] = field(default_factory=dict)
    cumulative: dict[str, float] = field(default_factory=dict)
    first: str = ""
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def batches(images: Tensor) -> Sequence[Tensor]:
    """Return parts of images, each of about as many pixels as 100 images of 32 x 32 have, or fewer."""
    return images.split(max(1, min(FIRST, FIRST * _PIXELS // images[0].numel())))


def compare_integers(subject: Packed, images: Tensor, found: Outputs, bar: Bar) -> None:
    """Compare a file's integer arithmetic with its own tables in float32, code by code."""
    try:
        integer = IntegerModel(subject.exported)
    except ValueError as reason:
        found.remarks.append(f"integer arithmetic was not compared: {reason}")
        return
    found.codes = compare_codes(subject.exported, bar(batches(images)), integer=integer)
    found.answers = found.codes.answers
    found.remarks.append(f"compared: integer arithmetic with float32, both from this file; {found.codes}")
    if other := found.codes.total("other"):
        found.problems.append(f"{other:,} codes differ by more than float32 rounds")


@torch.no_grad()
def compare_outputs(
    subject: Subject, against: Exported, images: Tensor, model: nn.Module | None, found: Outputs, bar: Bar
) -> None:
    """Compare each step by itself (of the first images), then layers, codes and answers from end to end."""
    reference, program, last = Program(against), against.program, len(against.program) - 1
    walked = bool(subject.steps) and list(subject.steps) == steps_of(against)
    layers = [i for i, step in enumerate(program) if walked and step.op in ("conv", "linear")]
    coded = [i for i in layers if not subject.exact and against.layers[program[i].name].input is not None]
    wanted = {*layers, last, *(program[i].inputs[0] for i in coded)}
    codes = Agreement({program[i].name: LayerAgreement() for i in coded})
    if walked:
        _local(subject, against, reference, batches(images)[0], found)
    sums = {i: torch.zeros(2, dtype=torch.float64) for i in layers}
    for batch in bar(batches(images)):
        right = {i: value for i, value in reference.values(batch) if i in wanted}
        if model is not None and not torch.equal(model(batch), right[last]):
            raise ValueError("the reference's own steps do not give the reference's output")
        own = {last: subject.answer(batch)} if not walked else {0: batch}
        own |= subject.outputs(batch, sorted(wanted - own.keys())) if walked else {}
        if own[last].shape != right[last].shape:
            found.problems.append(f"its output has the shape {tuple(own[last].shape)}")
            return
        for i in layers:
            sums[i] += _energies(own[i], right[i])
        codes.add(own[last], right[last], _touched(subject, against, coded, own, right, codes))
    found.answers = codes.answers
    if coded:
        found.codes = codes
        found.remarks.append(f"{codes}")
    _ratios(subject, against, sums, found)


def _touched(
    subject: Subject,
    against: Exported,
    coded: Sequence[int],
    own: Mapping[int, Tensor],
    right: Mapping[int, Tensor],
    found: Agreement,
) -> Tensor:
    """Compare the codes that layers read, and return the images in which any differs."""
    touched = torch.zeros(len(own[max(own)]), dtype=torch.bool)
    for i in coded:
        step = against.program[i]
        table, (real, v) = against.layers[step.name].input, (maps[step.inputs[0]] for maps in (right, own))
        differ = table.codes(as_rows(step, real)).view(real.shape) != subject.codes(step, table, v)
        note(found.layers[step.name], differ, real, v, touched)
    return touched


def _ratios(subject: Subject, against: Exported, sums: Mapping[int, Tensor], found: Outputs) -> None:
    """Note the cumulative ratio of each layer, and the first layer where it is too low."""
    enough = math.inf if subject.exact else LOCAL
    for i, pair in sums.items():
        name, ratio = against.program[i].name, sqnr_from(*pair.tolist())
        found.cumulative[name] = ratio
        found.first = found.first or ("" if ratio >= enough else name)
    if subject.exact and found.first:
        found.problems.append(f"{found.first} is the first layer whose output differs")


def _local(subject: Subject, against: Exported, reference: Program, images: Tensor, found: Outputs) -> None:
    """Note the SQNR of each layer by itself, and the steps where it is too low."""
    kept: dict[int, Tensor] = {}
    uses = {
        i: max((n for n, s in enumerate(against.program) if i in s.inputs), default=i)
        for i in range(len(against.program))
    }
    wrong: list[str] = []
    for i, value in reference.values(images):
        step = against.program[i]
        kept[i] = value
        if step.op != "input":
            layer = against.layers.get(step.name)
            adapter = None if layer is None or layer.input is None else layer.input.adapter
            own = subject.step(i, [kept[n] for n in step.inputs], adapter)
            ratio = sqnr_from(*_energies(own, value).tolist()) if own.shape == value.shape else -math.inf
            if layer is not None:
                found.local[step.name] = ratio
            if not ratio >= (math.inf if subject.exact else LOCAL):
                wrong.append(f"{step.name or step.op} (step {i}, {ratio:.1f} dB)")
        for n in [n for n in kept if uses[n] <= i]:
            del kept[n]
    if wrong:
        found.problems.append(f"given the reference's input, the output differs of {some(wrong, 4)}")


def _energies(own: Tensor, right: Tensor) -> Tensor:
    """Return the sums of right² and of (own - right)²."""
    right = right.double()
    return torch.stack([right.square().sum(), (own.double() - right).square().sum()])
