"""qviz: see, touch, train and check neural-network quantization.

A quantizer has four parts: a *range* scales x, a *codebook* says where the knots and levels are, a
*rounding* decides between two knots, a *surrogate* stands in for the decision in the backward pass.
Everything named here needs only torch and numpy; ``qviz.plot`` and ``qviz.widgets`` load on first use.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from qviz import recipes as recipes
from qviz import shipped as shipped
from qviz.core.codebook import Codebook as Codebook
from qviz.core.grids import apot as apot
from qviz.core.grids import lloyd as lloyd
from qviz.core.grids import post as post
from qviz.core.grids import pot as pot
from qviz.core.grids import quantile as quantile
from qviz.core.grids import uniform as uniform
from qviz.core.quantizer import Probe as Probe
from qviz.core.quantizer import Quantizer as Quantizer
from qviz.core.quantizer import probe as probe
from qviz.core.range import MSE as MSE
from qviz.core.range import Fixed as Fixed
from qviz.core.range import MinMax as MinMax
from qviz.core.range import Percentile as Percentile
from qviz.core.range import Range as Range
from qviz.core.rounding import CellBorder as CellBorder
from qviz.core.rounding import Nearest as Nearest
from qviz.core.rounding import Rounding as Rounding
from qviz.core.rounding import Stochastic as Stochastic
from qviz.core.summary import Summary as Summary
from qviz.core.surrogate import StraightThrough as StraightThrough
from qviz.core.surrogate import Surrogate as Surrogate
from qviz.measure import metrics as metrics
from qviz.measure.compare import Comparison as Comparison
from qviz.measure.compare import compare as compare

__version__ = "0.1.0"

_LAZY = ("plot", "widgets")


def __getattr__(name: str) -> ModuleType:
    """Import ``qviz.plot`` and ``qviz.widgets`` when they are first asked for."""
    if name in _LAZY:
        return importlib.import_module(f"qviz.{name}")
    raise AttributeError(f"module 'qviz' has no attribute {name!r}")
