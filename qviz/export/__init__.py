"""Export: a quantized network outside of this package.

Every name loads on first use: what runs an exported file with numpy alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; _NAMES says the same
    from qviz.export.agreement import Agreement, compare_codes
    from qviz.export.cost import Costs, costs
    from qviz.export.export import describe
    from qviz.export.exported import Exported, Step
    from qviz.export.file import load, read, save, write
    from qviz.export.fold import layer_tables
    from qviz.export.integer import IntegerModel
    from qviz.export.lut import PostLUT, post_lut, split_accumulate, table_dot
    from qviz.export.onnx import to_onnx
    from qviz.export.packing import pack, unpack
    from qviz.export.proof import Proof
    from qviz.export.size import Sizes, sizes
    from qviz.export.source import open_source
    from qviz.export.tables import InputTable, LayerTables, WeightTable
    from qviz.export.verify import prove

__all__ = [
    "Agreement",
    "Costs",
    "Exported",
    "InputTable",
    "IntegerModel",
    "LayerTables",
    "PostLUT",
    "Proof",
    "Sizes",
    "Step",
    "WeightTable",
    "compare_codes",
    "costs",
    "describe",
    "layer_tables",
    "load",
    "open_source",
    "pack",
    "post_lut",
    "prove",
    "read",
    "save",
    "sizes",
    "split_accumulate",
    "table_dot",
    "to_onnx",
    "unpack",
    "write",
]

# No name is that of a file of this folder: importing the file would put the module in the name's place.
_NAMES = {
    "qviz.export.cost": "Costs costs",
    "qviz.export.agreement": "Agreement compare_codes",
    "qviz.export.export": "describe",
    "qviz.export.exported": "Exported Step",
    "qviz.export.file": "load read save write",
    "qviz.export.integer": "IntegerModel",
    "qviz.export.lut": "PostLUT post_lut split_accumulate table_dot",
    "qviz.export.onnx": "to_onnx",
    "qviz.export.packing": "pack unpack",
    "qviz.export.proof": "Proof",
    "qviz.export.size": "Sizes sizes",
    "qviz.export.source": "open_source",
    "qviz.export.fold": "layer_tables",
    "qviz.export.tables": "InputTable LayerTables WeightTable",
    "qviz.export.verify": "prove",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import the file that a public name stands in when the name is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'qviz.export' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
