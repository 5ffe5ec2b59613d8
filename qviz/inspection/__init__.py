"""Inspection: look inside a model, layer by layer: what quantizing does to it, and why."""

from __future__ import annotations

from qviz.inspection.compare import Comparison as Comparison
from qviz.inspection.compare import compare as compare
from qviz.inspection.inspect import inspect as inspect
from qviz.inspection.inspection import Inspection as Inspection
from qviz.inspection.views import LayerView as LayerView

schema = Inspection.schema
"""The JSON Schema of the files that :meth:`Inspection.save` writes."""
