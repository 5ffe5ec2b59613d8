"""Nearest: every value goes to the level next to it, at the step with the least squared error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.nn.calibration import calibrate
from qviz.nn.modules import evaluating, quantizers
from qviz.nn.ptq.layerwise import SEEN


@torch.no_grad()
def nearest(model: nn.Module, images: Tensor) -> None:
    """Set each quantizer on the step of the least squared error, layer by layer in running order, in place.

    Weights first, then inputs, which are those behind layers that are quantized already. A recipe whose start
    can be chosen (LSQ, LSQ+, POT, POST, APoT) starts by least squared error; others as they always do.
    BatchNorm's statistics stay as they are.

    Args:
        model: A converted model.
        images: What it takes, samples in axis 0; the first 256 are used.

    Raises:
        ValueError, TypeError: As for :func:`~qviz.nn.calibration.calibrate`.
    """
    for q in quantizers(model).values():
        if hasattr(q.range, "start"):
            q.range.start = "mse"
    with evaluating(model):
        calibrate(model, images[:SEEN], batchnorm=False)
