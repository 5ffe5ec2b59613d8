"""Model Explorer: figures of layers as node data that Google's Model Explorer lays over a network's graph.

The file is what its "custom node data" takes: results by node, and a gradient of colors. Its adapter for
PyTorch names nodes as the exported program does ("conv2d_3"), which says in each node's ``nn_module_stack``
what layer it is of; so a program leads from layers to nodes.

References:
    ai-edge-model-explorer 0.1.34: ``node_data_builder.py``, ``pytorch_exported_program_adapter_impl.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from qviz.core._files import write_atomically
from qviz.inspection.samples import chunks
from qviz.nn.batches import Batch
from qviz.nn.convert import deconvert
from qviz.nn.copies import deep_copy
from qviz.nn.modules import evaluating

if TYPE_CHECKING:
    from qviz.inspection.inspection import Inspection

BAD, GOOD = "#e69f00", "#ffffff"

FIGURES = {
    "local": ("local output SQNR (dB)", False, ("outputs", "local")),
    "cumulative": ("cumulative output SQNR (dB)", False, ("outputs", "cumulative")),
    "on": ("cost, quantized alone", True, ("sensitivity", "on")),
    "off": ("gain, left in floating point", True, ("sensitivity", "off")),
}
"""What can be laid over a graph: its title, whether more of it is worse, and where it is found."""


def write(
    found: Inspection, path: str | Path, program: ExportedProgram | None = None, figure: str = "local"
) -> Path:
    """Write node data and return the path; a file that is there is replaced in one go.

    Args:
        found: The inspection.
        path: The JSON file.
        program: The network as it is shown, from :func:`exported` or ``torch.export.export``. Without it the
            layers' own names are the keys, for graphs whose nodes or output tensors are called so.
        figure: A key of :data:`FIGURES`.

    Raises:
        ValueError: There is no such figure, or it was not measured, or the program has none of the layers.
        OSError: The file cannot be written.
    """
    if figure not in FIGURES:
        raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {figure!r}")
    title, rising, (part, field) = FIGURES[figure]
    known = {layer.name: getattr(getattr(layer, part), field, None) for layer in found.quantized}
    known = {name: value for name, value in known.items() if value is not None and math.isfinite(value)}
    if not known:
        raise ValueError(f"there is no {title} of any layer: it was not measured")
    keys = {name: [name] for name in known} if program is None else nodes(program, known)
    if not any(keys.values()):
        raise ValueError(f"the program has no node of the layer {next(iter(known))!r}, nor of any other")
    colors = (GOOD, BAD) if rising else (BAD, GOOD)
    content = {
        "name": f"{found.model}, {found.pair}: {title}",
        "results": {key: {"value": value} for name, value in known.items() for key in keys[name]},
        "gradient": [{"stop": stop, "bgColor": color} for stop, color in enumerate(colors)],
    }
    write_atomically(path, json.dumps(content, allow_nan=False, indent=1).encode())
    return Path(path)


def nodes(program: ExportedProgram, layers: Iterable[str]) -> dict[str, list[str]]:
    """Return names of the nodes that answer for some layers: of each call the last one inside the layer."""
    found: dict[str, dict[str, str]] = {name: {} for name in layers}
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        for call, (name, _) in stack.items():
            if name in found:
                found[name][call] = node.name
    return {name: list(calls.values()) for name, calls in found.items()}


def exported(model: nn.Module, images: Batch | Iterable[Batch]) -> ExportedProgram:
    """Return a network, in floating point, as a program that Model Explorer can open.

    Save it with ``torch.export.save(program, "model.pt2")``.

    Args:
        model: In floating point, or converted; it stays as it is.
        images: What it takes; the first sample is enough.

    Raises:
        RuntimeError: It cannot be exported; says why.
    """
    inputs = chunks(images, 1)[0].inputs
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
    twin = deconvert(deep_copy(model))
    with evaluating(twin):
        try:
            return torch.export.export(twin, args, kwargs)
        except Exception as problem:  # an exporter raises anything at all, on dozens of lines
            lines: list[Any] = str(problem).strip().splitlines() or [type(problem).__name__]
            raise RuntimeError(f"torch.export cannot export the network: {lines[0]}") from problem
