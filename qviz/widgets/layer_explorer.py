"""LayerExplorer: a layer of a network, quantized by itself, beside all the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from qviz.explore.layer import LayerModel
from qviz.nn.batches import Batch
from qviz.widgets.explorer import Explorer


class LayerExplorer(Explorer):
    """A layer of a network by itself: levels, ranges, the error of its output; and a table of all layers.

    A click on a row of the table, or Enter on the name in it, opens that layer. Each layer is calibrated and
    measured on what it reads in the float network, so that the figures are its own fault; BatchNorm is folded
    in where :func:`qviz.inspect` would do that.

    Args:
        model: A network of your own, in floating point (of a converted one its float twin is shown); by
            default the shipped ResNet-20.
        images: What it takes, as for :func:`qviz.inspect`; the first four samples are used. Of a layer that
            runs several times the first call counts.
        layer: The layer to open; by default the one whose output suffers most.
        recipe: The name of a pair, such as "post".
        bits: Of weight and input, or one number for both, 2 to 8.
        show: The names of the controls that are visible; by default all.

    Attributes:
        layer, recipe, bits, a_bits, ranges: The controls.
        weight, place: A weight, and which of the inputs that it meets: their product walks through the
            picture, and both dots can be dragged.
        all: The button that quantizes every layer like the open one, for the table.

    Raises:
        ValueError: There is no such layer, recipe or bit width, or only one of model and images is given.

    Example:
        >>> import torch
        >>> e = LayerExplorer(nn.Sequential(nn.Linear(8, 4)), torch.randn(4, 8))
        >>> e.layer.value, list(e.data()["table"])
        ('0', ['0'])
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        images: Batch | Iterable[Batch] | None = None,
        *,
        layer: str | None = None,
        recipe: str = "lsq",
        bits: int | tuple[int, int] = 4,
        show: Sequence[str] | None = None,
    ) -> None:
        super().__init__(LayerModel(model, images, layer=layer, recipe=recipe, bits=bits), show=show)
