"""Explain: what was tried on the worst layers, and why each layer may be bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from qviz.inspection.causes import causes, once
from qviz.inspection.inspection import Inspection
from qviz.inspection.networks import Networks
from qviz.inspection.samples import Chunk
from qviz.inspection.trials import trials
from qviz.nn.batches import forward
from qviz.nn.capture import tap

MOST = 2**21
"""So many input values of a layer are taken, in whole samples from the front."""


def explained(
    found: Inspection, nets: Networks, samples: Iterable[Chunk], top: int, done: Callable[[str], None]
) -> Inspection:
    """Return an inspection with trials of its worst layers, and causes of all quantized ones.

    Args:
        found: Without either.
        nets: What was inspected.
        samples: What it saw.
        top: Of so many layers.
        done: Called with the name of each of these that is done.
    """
    reached = [layer for layer in found.worst(top) if layer.outputs is not None]
    tried = {}
    for name, x in _inputs(nets, [layer.name for layer in reached], samples).items():
        tried[name] = trials(nets, name, x, found[name].outputs.fitted)
        done(name)
    layers = []
    for layer in found.layers:
        layer = replace(layer, trials=tried.get(layer.name, ()))
        layers.append(replace(layer, causes=causes(layer)))
    told, note = once(layers)
    return replace(found, layers=told, notes=(*found.notes, *filter(None, [note])))


@torch.no_grad()
def _inputs(nets: Networks, names: list[str], samples: Iterable[Chunk]) -> dict[str, Tensor]:
    """Return inputs of layers in the float network, of the first call of each chunk."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for chunk in samples:
        open_ = [name for name in names if sum(x.numel() for x in found[name]) < MOST]
        if not open_:
            break
        with tap(nets.reference, open_) as seen:
            forward(nets.reference, chunk.inputs)
        for name in open_:
            if seen[name].inputs:
                x = nets.quantized.get_submodule(name)._batched(seen[name].inputs[0])
                found[name].append(x[: max(1, MOST // x[0].numel())])
    return {name: _cut(torch.cat(parts)) for name, parts in found.items() if parts}


def _cut(x: Tensor) -> Tensor:
    return x[: max(1, MOST // x[0].numel())]
