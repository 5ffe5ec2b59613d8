"""Explorers: ipywidgets controls over live bqplot panels.

Each explorer is an object: its controls are attributes, so ``explorer.bits.value = 3`` is the same as
moving the slider; without a browser everything but the moving picture works.
"""

from __future__ import annotations

try:
    import anywidget as _anywidget  # noqa: F401  (asked for here, so that its absence has one clear message)
    import bqplot as _bqplot  # noqa: F401
    import ipywidgets as _ipywidgets  # noqa: F401
except ImportError as problem:
    raise ImportError(
        "qviz.widgets needs ipywidgets, anywidget and bqplot: pip install 'qviz-quantization[lab]'"
    ) from problem

from qviz.widgets.bit_budget import BitBudgetExplorer as BitBudgetExplorer
from qviz.widgets.border import BorderExplorer as BorderExplorer
from qviz.widgets.codebook import CodebookExplorer as CodebookExplorer
from qviz.widgets.explorer import Explorer as Explorer
from qviz.widgets.format import FormatExplorer as FormatExplorer
from qviz.widgets.gallery import gallery as gallery
from qviz.widgets.gradient import GradientExplorer as GradientExplorer
from qviz.widgets.grid import GridExplorer as GridExplorer
from qviz.widgets.layer_explorer import LayerExplorer as LayerExplorer
from qviz.widgets.lut_explorer import LutExplorer as LutExplorer
from qviz.widgets.predict import Predict as Predict
from qviz.widgets.step import StepExplorer as StepExplorer
from qviz.widgets.thresholds import ThresholdExplorer as ThresholdExplorer
from qviz.widgets.time_machine import TimeMachine as TimeMachine
