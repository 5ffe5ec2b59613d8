"""Methods: what a panel is given, a quantizer, a codebook or a function, made ready to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from qviz.core.codebook import Codebook
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed
from qviz.core.summary import Summary
from qviz.measure.measured import Measured, uncalibrated
from qviz.plot.places import Function, in_units_of_x, outputs
from qviz.plot.style import ROLES

Method = Quantizer | Codebook | Measured | Callable[[Tensor], Tensor]
Methods = Method | Mapping[str, Method]
Data = Tensor | np.ndarray | Summary

MAX_METHODS = len(ROLES)


def calibrated(methods: Methods, data: Summary | None) -> dict[str, Function]:
    """Return named methods, ready to use.

    Args:
        methods: One method, or a mapping from names to at most six.
        data: The values that a bare codebook's scale is searched for; without them it is 1, and its name
            says so.

    Raises:
        TypeError: A method is neither a quantizer, nor a codebook, nor a callable.
        ValueError: There is no method or more than six, or a quantizer is not calibrated.
    """
    ready: dict[str, Function] = {}
    for name, q in _named(methods).items():
        if isinstance(q, Measured):
            q = q.q
        if isinstance(q, Codebook) and data is None:
            name, q = f"{name} at scale 1", Quantizer(q, range=Fixed(1.0))
        elif isinstance(q, Codebook):
            q = Quantizer(q, range=MSE()).observe(data.x)
        if isinstance(q, Quantizer) and not q.calibrated:
            raise ValueError(f"{name}: {uncalibrated(q)}; call observe(x) on it first")
        ready[name] = q
    return ready


def _named(methods: Methods) -> dict[str, Method]:
    if isinstance(methods, Codebook | Measured):
        methods = {methods.name: methods}
    elif isinstance(methods, Quantizer):
        methods = {methods.recipe.name if methods.recipe else methods.codebook.name: methods}
    elif not isinstance(methods, Mapping):
        methods = {getattr(methods, "__name__", "Q"): methods}
    if not 1 <= len(methods) <= MAX_METHODS:
        raise ValueError(f"a panel shows 1 to {MAX_METHODS} methods, got {len(methods)}")
    for name, q in methods.items():
        if not isinstance(q, Measured) and not callable(q):
            raise TypeError(
                f"{name}: a method is a Quantizer, a Codebook or a callable, got {type(q).__name__}"
            )
    return dict(methods)


def measured(methods: Methods, ready: Mapping[str, Function], data: Summary) -> dict[str, Measured]:
    """Return the figures of each method; those that came in are not computed again.

    Raises:
        ValueError: A quantizer's output is in another unit than x.
    """
    given = _named(methods)
    found = {}
    for name, q in ready.items():
        if not in_units_of_x(q):
            ends = outputs(q)[[0, -1]]
            raise ValueError(
                f"{name}: its output, from {ends[0]:.3g} to {ends[1]:.3g}, is in another unit than x, so "
                "that Q(x) - x is no error; plot.staircase and plot.levels show such a quantizer"
            )
        found[name] = given[name] if isinstance(given[name], Measured) else Measured(q, data, name)
    return found


def with_levels(ready: Mapping[str, Function]) -> Mapping[str, Quantizer]:
    """Return the methods as they are, if all of them have levels.

    Raises:
        TypeError: One is a callable.
    """
    for name, q in ready.items():
        if not isinstance(q, Quantizer):
            raise TypeError(f"{name}: this panel needs a Quantizer or a Codebook, got {type(q).__name__}")
    return ready


def summary_of(x: Data) -> Summary:
    """Return ``x`` summarized; a summary comes back as it is."""
    return x if isinstance(x, Summary) else Summary(x)


def limits(data: Summary) -> tuple[float, float]:
    """Return the ends of the values, a little wider, never equal."""
    ends = data.ends()
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = 0.02 * (high - low) or 0.5 * (abs(high) or 1.0)
    return low - margin, high + margin
