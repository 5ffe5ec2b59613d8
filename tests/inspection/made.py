"""One layer with weights, inputs and quantizers of one's own, as an inspection sees it."""

import torch
from torch import Tensor, nn

from qviz.core.quantizer import Quantizer
from qviz.inspection import LayerView, inspect
from qviz.methods.method import Pair


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(
    w: Tensor, x: Tensor, weight: Quantizer | None = None, act: Quantizer | None = None, *, top: int = 0
) -> LayerView:
    """Return the view of a linear layer, or of a depthwise one for a weight (C, 1, k, k), without bias."""
    outputs, inputs, *size = w.shape
    if size:
        net = nn.Sequential(nn.Conv2d(outputs, outputs, size, groups=outputs, bias=False))
    else:
        net = nn.Sequential(nn.Linear(inputs, outputs, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(w)
    pair = Pair("made", 4, 4, lambda _: weight, lambda _, signed: act)
    return inspect(net, x, pair=pair, first_last="quantized", sensitivity=False, top=top)["0"]
