"""qviz: see, touch, train and check neural-network quantization.

A quantizer has four parts: a *range* scales x, a *codebook* says where the knots and levels are, a
*rounding* decides between two knots, a *surrogate* stands in for the decision in the backward pass.
Every name loads on first use, so that ``import qviz`` takes no time. All of them need torch, numpy and
safetensors; ``qviz.plot`` and ``qviz.widgets`` need their extras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; _NAMES says the same
    from qviz import export, inspection, nn, plot, recipes, shipped, widgets
    from qviz.core.codebook import Codebook, LearnedLevels
    from qviz.core.formats import fp4, fp8_e4m3, fp8_e5m2, nf4
    from qviz.core.grids import apot, lloyd, post, pot, quantile, uniform
    from qviz.core.groups import Affine, Grouped, mxfp4, nvfp4
    from qviz.core.probe import Probe, probe
    from qviz.core.quantizer import Quantizer
    from qviz.core.range import MSE, Fixed, MinMax, Percentile, Range
    from qviz.core.recipe import recipe
    from qviz.core.rounding import CellBorder, Nearest, Rounding, Stochastic
    from qviz.core.summary import Summary
    from qviz.core.surrogate import StraightThrough, Surrogate
    from qviz.inspection import Inspection, inspect
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
    "Inspection",
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
    "export",
    "fp4",
    "fp8_e4m3",
    "fp8_e5m2",
    "inspect",
    "inspection",
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

_NAMES = {
    "qviz.core.codebook": "Codebook LearnedLevels",
    "qviz.core.formats": "fp4 fp8_e4m3 fp8_e5m2 nf4",
    "qviz.core.grids": "apot lloyd post pot quantile uniform",
    "qviz.core.groups": "Affine Grouped mxfp4 nvfp4",
    "qviz.core.probe": "Probe probe",
    "qviz.core.quantizer": "Quantizer",
    "qviz.core.range": "MSE Fixed MinMax Percentile Range",
    "qviz.core.recipe": "recipe",
    "qviz.core.rounding": "CellBorder Nearest Rounding Stochastic",
    "qviz.core.summary": "Summary",
    "qviz.core.surrogate": "StraightThrough Surrogate",
    "qviz.inspection": "Inspection inspect",
    "qviz.measure": "Checkpoint Comparison Measured compare compare_tensors metrics",
    "qviz.methods.method": "Method Pair",
    "qviz.methods.pairs": "pair register",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
_ROOMS = {"core", "measure", "methods", *(set(__all__) - set(_HOME))}
_NEEDED = ("numpy", "safetensors", "torch")


def __getattr__(name: str) -> Any:
    """Import what is first asked for: one of the public names, or a room such as ``qviz.plot``.

    Raises:
        ImportError: The name needs torch, numpy or safetensors, and one of them is missing or broken.
    """
    if name not in _HOME and name not in _ROOMS:
        raise AttributeError(f"module 'qviz' has no attribute {name!r}")
    if name != "export":  # its numpy-only runner has no use for torch
        try:
            for needed in _NEEDED:
                importlib.import_module(needed)
        except (ImportError, OSError) as problem:
            raise ImportError(f"qviz needs torch, numpy and safetensors: {problem}") from problem
    if name in _ROOMS:
        return importlib.import_module(f"qviz.{name}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the public names, most of which load on first use."""
    return [*__all__, "__version__"]
