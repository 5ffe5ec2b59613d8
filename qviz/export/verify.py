"""Verify: what an exported file is, proved from the file itself and against the network that it was made of.

Three things are looked at. *Tables*: the codes and levels of each weight, and each input beside every one of
its borders; between two borders nothing can differ, so this holds for all inputs. (Of an ONNX file it does
because its nodes and numbers must be, one by one, those that qviz writes for the reference.) *Steps*: each
step of the file, given what the reference computed (local), and given what the file computed (cumulative),
as signal-to-noise ratios. *Answers*: the classes, and the largest difference of a logit.

A .safetensors file must agree to the last bit. In an ONNX file the tables must; sums are onnxruntime's, in
another order, so that each step must agree to 100 dB by itself. Now and then a sum falls on the other side of
a border, as it does in torch with other kernels: these codes are counted, and each image of another class is
named. It must be one of those in which a code differs so; of others, and wherever a code differs for another
reason, one in a thousand may get another class (or one, of fewer images). The same holds for the integer
arithmetic of a file, where a code that differs for another reason is a problem by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor, nn

from qviz.core._files import file_sha256
from qviz.export.exported import Exported
from qviz.export.outputs import Outputs, compare_integers, compare_outputs
from qviz.export.proof import LayerProof, Proof
from qviz.export.subject import Packed, Subject, steps_of
from qviz.nn.modules import evaluating

IN = 1000
"""Of so many images one may get another class without a reason, where sums are added in another order."""


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
    bar: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> Proof:
    """Measure an exported file, and compare it with a reference.

    Args:
        file: A .safetensors or an .onnx file, or what :func:`open_subject` returned.
        against: The network that it must be, as :func:`~qviz.export.describe` gives it. None, with a
            .safetensors file: its own tables are the reference, and integer arithmetic is compared with it.
        images: Normalized, (N, C, H, W); None compares the tables only.
        model: The network that ``against`` describes; its answers in eval mode then are the reference's.
        bar: Gives batches back one by one, and may show how far they are.

    Raises:
        FileNotFoundError, ValueError, ImportError: The file cannot be read, or the images do not fit.
    """
    subject = open_subject(file) if isinstance(file, (str, Path)) else file
    problems: list[str] = []
    differences, remarks, found = None, [], Outputs()
    if against is not None:
        differences, remarks = subject.differences(against)
        problems += [f"{name}: {what}" for name, what in differences.items()]
        if against.program and list(subject.steps) != steps_of(against):
            problems.append(_steps_differ(subject, against))
    if images is not None and len(images):
        if against is None:
            _integers(subject, images, found, bar)
        elif against.program:
            with nullcontext() if model is None else evaluating(model):
                compare_outputs(subject, against, images, model, found, bar)
        else:
            found.remarks.append(f"outputs were not compared: {against.untraceable}")
    answers = found.answers
    wrong = len(answers.flips) if found.codes is None else found.codes.unexplained
    if wrong > (0 if subject.exact and against is not None else max(1, answers.images // IN)):
        problems.append(f"{wrong} of {answers.images:,} images get another class")
    layers = tuple(
        LayerProof(
            bits,
            None if differences is None else differences.get(bits.name, ""),
            found.local.get(bits.name),
            found.cumulative.get(bits.name),
        )
        for bits in subject.bits()
    )
    return Proof(
        subject.path,
        subject.kind,
        subject.path.stat().st_size,
        file_sha256(subject.path),
        layers,
        tuple(problems + found.problems),
        tuple(remarks + found.remarks + answers.remarks()),
        found.first,
        answers,
        found.codes,
        compared=against is not None or answers.images > 0,
    )


def _integers(
    subject: Subject,
    images: Tensor,
    found: Outputs,
    bar: Callable[[Sequence[Tensor]], Iterable[Tensor]],
) -> None:
    """Compare the integer arithmetic of a file of codes with its own tables in float32."""
    if isinstance(subject, Packed):
        compare_integers(subject, images, found, bar)
    else:
        subject.answer(images[:1])
        found.remarks.append("nothing to compare with: give --against")


def _steps_differ(subject: Subject, against: Exported) -> str:
    pairs = zip(subject.steps, steps_of(against), strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(subject.steps), len(against.program)))
    return f"the steps are not the reference's, from step {at} on" if subject.steps else "it names no steps"
