"""Models of the explorers: from the values of their controls to a scene, without widgets.

Each model has a frozen dataclass, the *choice*, whose fields are the values of the controls, and turns it
into a :class:`~qviz.plot.scene.Scene`. So labs, static pages and tests use an explorer without a browser.
"""

from __future__ import annotations

from qviz.explore.bit_budget import BudgetModel as BudgetModel
from qviz.explore.border import BorderModel as BorderModel
from qviz.explore.codebook import CodebookModel as CodebookModel
from qviz.explore.format import FormatModel as FormatModel
from qviz.explore.gradient import GradientModel as GradientModel
from qviz.explore.grid import GridModel as GridModel
from qviz.explore.layer import LayerModel as LayerModel
from qviz.explore.lut import LutModel as LutModel
from qviz.explore.model import Model as Model
from qviz.explore.question import Question as Question
from qviz.explore.step import StepModel as StepModel
from qviz.explore.thresholds import ThresholdModel as ThresholdModel
from qviz.explore.time_machine import TimeModel as TimeModel
