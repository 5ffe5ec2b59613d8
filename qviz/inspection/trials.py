"""Trials: what would help a layer, tried on the layer by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.core.rounding import Nearest
from qviz.inspection.bench import Bench, Same
from qviz.inspection.networks import Networks
from qviz.inspection.views import Trial
from qviz.measure.compare import grid_names
from qviz.nn.quant_layer import QuantLayer

WEIGHT_STEP = "the weight's step of least squared error"
CHANNELS = "a step for each output channel"
WEIGHT_BIT = "one bit more for the weight"
INPUT_STEP = "the input's step of least squared error"
INPUT_BIT = "one bit more for the input"
CLOSED_FORM = "closed-form rounding (gptq)"


def trials(nets: Networks, name: str, x: Tensor, fitted: bool) -> tuple[Trial, ...]:
    """Quantize a layer in other ways and return what each would gain, as a :class:`Bench` measures it.

    Args:
        nets: The two networks.
        name: Of a quantized layer.
        x: Its inputs in the float network, some samples.
        fitted: Whether ratios are those after the best factor and offset of each channel.
    """
    bench = Bench(nets, name, x, fitted)
    w, a = bench.layer.weight_quantizer, bench.layer.input_quantizer
    changes: dict[str, tuple[Callable[[], QuantLayer], str]] = {}
    if w is not None:
        note = _note(bench, w)
        changes[WEIGHT_STEP] = bench.weight, note
        changes[CHANNELS] = lambda: bench.weight(channels=True), note
        changes[WEIGHT_BIT] = lambda: bench.weight(more=1), note
        for grid in grid_names(w.bits):
            if grid != "quantile":
                changes[f"{grid} levels"] = lambda grid=grid: bench.weight(grid=grid), note
        changes[CLOSED_FORM] = bench.closed_form, ""
    if a is not None:
        changes[INPUT_STEP] = bench.input, ""
        changes[INPUT_BIT] = lambda: bench.input(more=1), _rounded(a)
    found = []
    for what, (change, note) in changes.items():
        with suppress(Same):
            found.append(_tried(bench, what, change, note))
    return tuple(found)


def _tried(bench: Bench, what: str, change: Callable[[], QuantLayer], note: str) -> Trial:
    try:
        db = bench.db(change())
    except (ValueError, RuntimeError) as problem:  # a recipe that has no meaning for it says why
        return Trial(what, None, None, str(problem).removeprefix("layer '0': "))
    if not math.isfinite(bench.now):
        return Trial(what, db, None, f"now the ratio is {bench.now:.0f}, so that there is no gain")
    return Trial(what, db, db - bench.now, note)


def _note(bench: Bench, q: Quantizer) -> str:
    own = torch.equal(bench.layer.weight, bench.twin.weight)
    return "; ".join(filter(None, ("" if own else "of the weight in floating point", _rounded(q))))


def _rounded(q: Quantizer) -> str:
    return "" if type(q.rounding) is Nearest else "rounded to the nearest"
