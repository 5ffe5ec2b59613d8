"""Verify: what an exported file is, proved from the file itself and against the network that it was made of.

Three things are looked at. *Tables*: the codes and levels of each weight, and each input beside every one of
its borders; between two borders nothing can differ, so this holds for all inputs. (Of an ONNX file it does
because its nodes and numbers must be, one by one, those that qviz writes for the reference.) *Steps*: each
step of the file, given what the reference computed (local), and given what the file computed (cumulative),
as signal-to-noise ratios. *Answers*: the classes, and the largest difference of a logit.

A .safetensors file must agree to the last bit. In an ONNX file the tables must; sums are onnxruntime's, in
another order, so that each step must agree to 100 dB by itself, and the class of all images but one in a
thousand (or but one, where there are fewer): now and then a sum falls on the other side of a border, as it
does in torch when the batch has another size.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from qviz.core._files import file_sha256
from qviz.core._text import some
from qviz.export.exported import Exported
from qviz.export.program import Program
from qviz.export.proof import LayerProof, Proof
from qviz.export.subject import Packed, Subject, steps_of
from qviz.measure.metrics import sqnr_from
from qviz.nn.modules import evaluating

LOCAL, IN = 100.0, 1000
FIRST = 100
"""Images that single steps are compared on."""


def open_subject(path: str | Path) -> Subject:
    """Return a file as something to be verified.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is of another kind, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return Packed(path)
    if path.suffix == ".onnx":
        from qviz.export.onnx_file import OnnxFile

        return OnnxFile(path)
    raise ValueError(f"{path}: give a .safetensors or an .onnx file")


def prove(
    file: str | Path | Subject,
    against: Exported | None = None,
    images: Tensor | None = None,
    *,
    model: nn.Module | None = None,
) -> Proof:
    """Measure an exported file, and compare it with a reference.

    Args:
        file: A .safetensors or an .onnx file, or what :func:`open_subject` returned.
        against: The network that it must be, as :func:`~qviz.export.describe` gives it. None, with a
            .safetensors file: its own tables are the reference, and integer arithmetic is compared with it.
        images: Normalized, (N, C, H, W); None compares the tables only.
        model: The network that ``against`` describes; its answers in eval mode then are the reference's.

    Raises:
        FileNotFoundError, ValueError, ImportError: The file cannot be read, or the images do not fit.
    """
    subject = open_subject(file) if isinstance(file, (str, Path)) else file
    problems: list[str] = []
    differences, remarks, ratios, answers = None, [], {}, ("", 0, None, None)
    if against is not None:
        differences, remarks = subject.differences(against)
        problems += [f"{name}: {what}" for name, what in differences.items()]
        if against.program and list(subject.steps) != steps_of(against):
            problems.append(_steps_differ(subject, against))
    if images is not None and len(images):
        if against is None:
            answers, more = _integers(subject, images)
            remarks += more
        elif against.program:
            walked = bool(subject.steps) and list(subject.steps) == steps_of(against)
            with nullcontext() if model is None else evaluating(model):
                ratios, answers = _compare(subject, against, images, model, walked, problems)
        else:
            remarks.append(f"outputs were not compared: {against.untraceable}")
    layers = tuple(
        LayerProof(
            bits,
            None if differences is None else differences.get(bits.name, ""),
            *ratios.get(bits.name, (None, None)),
        )
        for bits in subject.bits()
    )
    agreement = answers[2]
    if agreement is not None:
        wrong, count = round((1.0 - agreement) * answers[1]), answers[1]
        if wrong > (0 if subject.exact and against is not None else max(1, count // IN)):
            problems.append(f"{wrong} of {count:,} images get another class")
    facts = subject.path.stat().st_size, file_sha256(subject.path)
    compared = against is not None or agreement is not None
    return Proof(
        subject.path, subject.kind, *facts, layers, tuple(problems), tuple(remarks), *answers, compared
    )


def _steps_differ(subject: Subject, against: Exported) -> str:
    pairs = zip(subject.steps, steps_of(against), strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(subject.steps), len(against.program)))
    return f"the steps are not the reference's, from step {at} on" if subject.steps else "it names no steps"


def _integers(subject: Subject, images: Tensor) -> tuple[tuple, list[str]]:
    """Compare integer arithmetic with the file's own tables in float32."""
    if not isinstance(subject, Packed):
        subject.answer(images[:1])
        return ("", 0, None, None), ["nothing to compare with: give --against"]
    from qviz.export.integer import IntegerModel

    few = images[:FIRST]
    try:
        integer = IntegerModel(subject.exported)(few)
    except ValueError as reason:
        return ("", 0, None, None), [f"integer arithmetic was not compared: {reason}"]
    own = subject.answer(few)
    same = (integer.argmax(1) == own.argmax(1)).float().mean().item()
    text = "compared: integer arithmetic with float32, both from this file"
    return ("", len(few), same, (integer - own).abs().max().item()), [text]


@torch.no_grad()
def _compare(
    subject: Subject,
    against: Exported,
    images: Tensor,
    model: nn.Module | None,
    walked: bool,
    problems: list[str],
) -> tuple[dict[str, tuple[float, float | None]], tuple[str, int, float, float]]:
    """Return local and cumulative SQNR of the layers, and what is said of the answers."""
    reference, last = Program(against), len(against.program) - 1
    layers = [i for i, step in enumerate(against.program) if step.op in ("conv", "linear")]
    local = _local(subject, against, reference, images[:FIRST], problems) if walked else {}
    sums = {i: torch.zeros(2, dtype=torch.float64) for i in layers}
    same, largest = 0, 0.0
    for batch in images.split(FIRST):
        right = {i: value for i, value in reference.values(batch) if i in layers or i == last}
        if model is not None and not torch.equal(model(batch), right[last]):
            raise ValueError("the reference's own steps do not give the reference's output")
        own = (
            subject.outputs(batch, list(dict.fromkeys([*layers, last])))
            if walked
            else {last: subject.answer(batch)}
        )
        if own[last].shape != right[last].shape:
            problems.append(f"its output has the shape {tuple(own[last].shape)}")
            return {}, ("", 0, None, None)
        for i in layers if walked else ():
            sums[i] += _energies(own[i], right[i])
        same += int((own[last].argmax(1) == right[last].argmax(1)).sum())
        largest = max(largest, (own[last] - right[last]).abs().max().item())
    ratios, first = {}, ""
    for i in layers if walked else ():
        name, total = against.program[i].name, sqnr_from(*sums[i].tolist())
        ratios[name] = (local.get(i), total)
        first = first or ("" if total >= (math.inf if subject.exact else LOCAL) else name)
    if subject.exact and first:
        problems.append(f"{first} is the first layer whose output differs")
    return ratios, (first, len(images), same / len(images), largest)


def _local(
    subject: Subject, against: Exported, reference: Program, images: Tensor, problems: list[str]
) -> dict[int, float]:
    """Return the SQNR of each step by itself; note the steps where it is too low."""
    kept: dict[int, Tensor] = {}
    found: dict[int, float] = {}
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
            found[i] = sqnr_from(*_energies(own, value).tolist()) if own.shape == value.shape else -math.inf
            if not found[i] >= (math.inf if subject.exact else LOCAL):
                wrong.append(f"{step.name or step.op} (step {i}, {found[i]:.1f} dB)")
        for n in [n for n in kept if uses[n] <= i]:
            del kept[n]
    if wrong:
        problems.append(f"given the reference's input, the output differs of {some(wrong, 4)}")
    return found


def _energies(own: Tensor, right: Tensor) -> Tensor:
    """Return the sums of right² and of (own - right)²."""
    right = right.double()
    return torch.stack([right.square().sum(), (own.double() - right).square().sum()])
