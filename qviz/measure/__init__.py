"""Measure: how good a quantizer is, in numbers."""

from qviz.measure import metrics as metrics
from qviz.measure.checkpoint import Checkpoint as Checkpoint
from qviz.measure.clipping import ErrorParts as ErrorParts
from qviz.measure.clipping import error_parts as error_parts
from qviz.measure.compare import build_grid as build_grid
from qviz.measure.compare import compare as compare
from qviz.measure.compare import grid_names as grid_names
from qviz.measure.descent import descend as descend
from qviz.measure.measured import Measured as Measured
from qviz.measure.mismatch import gradient_mismatch as gradient_mismatch
from qviz.measure.mismatch import quantizer_gap as quantizer_gap
from qviz.measure.mismatch import slopes as slopes
from qviz.measure.table import Comparison as Comparison
from qviz.measure.table import Row as Row
from qviz.measure.tables import Tables as Tables
from qviz.measure.tables import compare_tensors as compare_tensors
