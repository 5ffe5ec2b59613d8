"""qviz: see, touch, train and check neural-network quantization.

A quantizer has four parts: a *range* scales x, a *codebook* says where the knots and levels are, a
*rounding* decides between two knots, a *surrogate* stands in for the decision in the backward pass.
Everything named here needs only torch and numpy; ``qviz.plot``, ``qviz.widgets`` and ``qviz.nn`` load on
first use.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_PROBLEM: Exception | None = None
try:
    import numpy  # noqa: F401 - asked for first, so that a broken one can be named
    import safetensors  # noqa: F401 - likewise
    import torch  # noqa: F401 - likewise
except (ImportError, OSError) as problem:  # `qviz doctor` runs all the same and says what is broken
    _PROBLEM = problem
else:
    from qviz import recipes, shipped
    from qviz.core.codebook import Codebook, LearnedLevels
    from qviz.core.formats import fp4, fp8_e4m3, fp8_e5m2, nf4
    from qviz.core.grids import apot, lloyd, post, pot, quantile, uniform
    from qviz.core.groups import Affine, Grouped, mxfp4, nvfp4
    from qviz.core.quantizer import Probe, Quantizer, probe
    from qviz.core.range import MSE, Fixed, MinMax, Percentile, Range
    from qviz.core.recipe import recipe
    from qviz.core.rounding import CellBorder, Nearest, Rounding, Stochastic
    from qviz.core.summary import Summary
    from qviz.core.surrogate import StraightThrough, Surrogate
    from qviz.measure import Checkpoint, Comparison, Measured, compare, compare_tensors, metrics
    from qviz.methods.method import Method, Pair
    from qviz.methods.pairs import pair, register

__version__ = "0.1.0"
__all__ = [
    "MSE",
    "Affine",
    "CellBorder",
    "Checkpoint",
    "Codebook",
    "Comparison",
    "Fixed",
    "Grouped",
    "LearnedLevels",
    "Measured",
    "Method",
    "MinMax",
    "Nearest",
    "Pair",
    "Percentile",
    "Probe",
    "Quantizer",
    "Range",
    "Rounding",
    "Stochastic",
    "StraightThrough",
    "Summary",
    "Surrogate",
    "apot",
    "compare",
    "compare_tensors",
    "fp4",
    "fp8_e4m3",
    "fp8_e5m2",
    "lloyd",
    "metrics",
    "mxfp4",
    "nf4",
    "nn",
    "nvfp4",
    "pair",
    "plot",
    "post",
    "pot",
    "probe",
    "quantile",
    "recipe",
    "recipes",
    "register",
    "shipped",
    "uniform",
    "widgets",
]

_LAZY = ("nn", "plot", "widgets")


def __getattr__(name: str) -> ModuleType:
    """Import ``qviz.nn``, ``qviz.plot`` or ``qviz.widgets`` when it is first asked for."""
    if name in _LAZY:
        return importlib.import_module(f"qviz.{name}")
    if _PROBLEM is not None and name in __all__:
        raise ImportError(f"qviz needs torch, numpy and safetensors: {_PROBLEM}") from _PROBLEM
    raise AttributeError(f"module 'qviz' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, those that load on first use among them."""
    return [*__all__, "__version__"]
