"""Whole: what is said of a network and not of its layers: outputs, bytes, and what bits buy."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qviz.export.export import describe
from qviz.export.size import sizes
from qviz.inspection.answers import answer, scored
from qviz.inspection.budget import budget, of_pair
from qviz.inspection.choices import Budget
from qviz.inspection.inspection import Size
from qviz.inspection.networks import Networks
from qviz.inspection.noise import Noise
from qviz.inspection.passes import Measurement
from qviz.inspection.samples import Chunk
from qviz.methods.method import Pair

BITS = (2, 3, 4, 6, 8)
"""Candidates of the bit budget, as far as the pair has them."""


@torch.no_grad()
def outputs(
    samples: list[Chunk], measured: Measurement, step: Callable[[str], None]
) -> tuple[float, float | None]:
    """Run all samples; return the ratio of the outputs and the share of equal classes.

    Raises:
        ValueError: The two networks' outputs have other shapes.
    """
    noise, alike, n = Noise(), 0, 0
    for chunk in samples:
        step("images")
        expected, found = measured.add(chunk.inputs)
        y, z = answer(expected), answer(found)
        if y.shape != z.shape:
            raise ValueError(
                f"the outputs cannot be compared: {tuple(y.shape)} of the float network, {tuple(z.shape)} of "
                "the quantized one"
            )
        noise.add(y, z)
        if scored(expected) and y.ndim == 2 and y.shape[1] > 1:
            alike += int((y.argmax(1) == z.argmax(1)).sum())
            n += len(y)
    return noise.db, alike / n if n else None


def bytes_of(nets: Networks) -> Size:
    """Return the bytes of a network, in floating point and packed."""
    state = nets.reference.state_dict().values()
    floats = 4 * sum(value.numel() for value in state if isinstance(value, torch.Tensor))
    try:
        found = sizes(describe(nets.quantized))
    except (ValueError, RuntimeError) as problem:
        return Size(floats, None, nets.report.average_bits, str(problem))
    return Size(4 * found.parameters, found.total, found.average_bits)


def spending(
    nets: Networks, pair: object, samples: list[Chunk], step: Callable[[str], None]
) -> tuple[Budget | None, str]:
    """Return what bits of weights buy, or None and the sentence that says why that is not known."""
    if not isinstance(pair, Pair):
        return None, "no bit budget: it needs one pair that can be had at other bits"
    layers = [name for name in nets.layers if nets.quantized.get_submodule(name).weight_quantizer is not None]
    try:
        make = of_pair(pair)
        found = budget(
            nets.reference,
            layers,
            [(chunk.inputs, chunk.labels) for chunk in samples],
            quantizer=make,
            bits=_candidates(pair),
            done=step,
        )
    except (ValueError, RuntimeError) as problem:
        return None, f"no bit budget: {problem}"
    return found, ""


def _candidates(pair: Pair) -> tuple[int, ...]:
    """Return the bits that a pair can be had at."""
    found = []
    for bits in BITS:
        try:
            pair.with_bits(bits)
        except ValueError:
            continue
        found.append(bits)
    return tuple(found)
