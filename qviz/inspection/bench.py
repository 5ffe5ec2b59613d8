"""Bench: one layer by itself, quantized in other ways, and the ratio of its output with each."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from qviz.core.codebook import Codebook
from qviz.core.grids import apot, post, pot, uniform
from qviz.core.groups import Grouped
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Range, StaticRange
from qviz.core.rounding import Nearest
from qviz.inspection.networks import Networks, same_unit
from qviz.inspection.noise import Noise
from qviz.measure.compare import build_grid
from qviz.nn.ptq.gptq import gptq
from qviz.nn.ptq.nearest import nearest
from qviz.nn.quant_layer import QuantLayer

LARGEST = 2**28
"""Outputs times squared inputs of an output, up to which the closed form is tried: above it, a 3 x 3 layer of
256 channels takes 18 s."""


class Same(Exception):
    """What is asked for is what the layer has."""


class Bench:
    """A layer with its inputs in the float network: steps are set on the first half, ratios are of the rest.

    Every quantizer that is tried is set on the float weight, with steps of the least squared error.

    Args:
        nets: The two networks.
        name: Of a quantized layer.
        x: Its inputs in the float network, some samples.
        fitted: As in :class:`~qviz.inspection.views.Outputs`.
    """

    @torch.no_grad()
    def __init__(self, nets: Networks, name: str, x: Tensor, fitted: bool) -> None:
        self.layer: QuantLayer = nets.quantized.get_submodule(name)
        self.twin, self.fitted = nets.reference.get_submodule(name), fitted
        x = self.layer._batched(x)
        half = len(x) // 2
        self.fit, self.rest = (x[:half], x[half:]) if half else (x, x)
        self.target = self.layer._product(self.rest, self.twin.weight, self.twin.bias)
        self.now = self.db(self.layer)

    @torch.no_grad()
    def db(self, layer: QuantLayer) -> float:
        """Return the ratio of the output of a layer in place of this one, in dB."""
        noise = Noise(self.fitted)
        read = layer._read(self.rest)
        noise.add(self.target, layer._product(read, layer.quantized_weight(), layer.scaled_bias()))
        return noise.db

    def _copy(self) -> QuantLayer:
        """Return a copy of the layer with the float weight and bias."""
        layer = copy.deepcopy(self.layer)
        layer.weight.copy_(self.twin.weight)
        if layer.bias is not None:
            layer.bias.copy_(torch.zeros(()) if self.twin.bias is None else self.twin.bias)
        return layer

    @torch.no_grad()
    def weight(self, *, more: int = 0, channels: bool = False, grid: str = "") -> QuantLayer:
        """Return the layer with another weight quantizer, the input's as it is.

        Args:
            more: Bits.
            channels: Give each output channel a step of its own.
            grid: The name of another grid.

        Raises:
            ValueError: It cannot be had.
            Same: The layer has these levels.
        """
        layer = self._copy()
        q, w = _given(layer.weight_quantizer, "weight"), layer.normalized_weight()
        if grid:
            book = build_grid(grid, w / q.range(q.range.transform(w))[0], q.bits)
            if torch.equal(book.levels, q.levels):
                raise Same
            layer.weight_quantizer = Quantizer(book, range=_range(q.range)).observe(w)
        else:
            layer.weight_quantizer = _changed(q, more, channels).observe(w)
        return layer

    @torch.no_grad()
    def input(self, *, more: int = 0) -> QuantLayer:
        """Return the layer with another input quantizer, the weight's as it is.

        Args:
            more: Bits.

        Raises:
            ValueError: It cannot be had.
        """
        layer = copy.deepcopy(self.layer)
        layer.input_quantizer = _changed(_given(layer.input_quantizer, "input"), more, False)
        layer.input_quantizer.observe(self.fit)
        return layer

    @torch.no_grad()
    def closed_form(self) -> QuantLayer:
        """Return the layer with the weight that :func:`~qviz.nn.ptq.gptq.gptq` chooses.

        Raises:
            ValueError: It cannot be had.
        """
        _given(self.layer.weight_quantizer, "weight")
        if self.fitted:
            raise ValueError("the closed form needs outputs in the unit of the float layer's")
        outputs, inputs = len(self.twin.weight), self.twin.weight[0].numel()
        if outputs * inputs**2 > LARGEST:
            raise ValueError(f"{inputs:,} inputs for each of {outputs:,} outputs take too long here")
        places = len(self.fit) * self.target[0, 0].numel()
        if places < inputs:
            raise ValueError(f"{places:,} places are too few for {inputs:,} inputs an output")
        nets = (nn.Sequential(copy.deepcopy(one)) for one in (self._copy(), self.twin))
        quantized, reference = (net.eval() for net in nets)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "inputs of .* have negative values", UserWarning)
            nearest(quantized, self.fit)
            gptq(quantized, self.fit, reference=reference)
        return quantized[0]


def _given(q: Quantizer | None, what: str) -> Quantizer:
    if q is None:
        raise ValueError(f"the {what} is not quantized")
    return q


def _changed(q: Quantizer, more: int, channels: bool) -> Quantizer:
    """Return a copy to be observed: with more bits, a step for each channel, or the step of least error."""
    _check(q, more, channels)
    made = copy.deepcopy(q)
    if more:
        made.codebook, made.rounding = _wider(q.codebook, more), Nearest()
    if channels:
        made.range = MSE(0)
    elif hasattr(q.range, "start"):
        made.range.start = "mse"
    elif q.range.offset is None:
        made.range = _range(q.range)
    return made


def _check(q: Quantizer, more: int, channels: bool) -> None:
    if not same_unit(q):
        raise ValueError("its quantizer gives what it reads a unit of its own")
    if type(q.codebook).observe is not Codebook.observe:
        raise ValueError("its levels are placed by the values themselves")
    if more and q.bits + more > 8:
        raise ValueError(f"it has {q.bits} bits already")
    if channels and q.range.axis is not None:
        raise ValueError("it has steps of that kind already")
    if q.range.offset is not None and (channels or not (more or hasattr(q.range, "start"))):
        raise ValueError("its range has an offset, for which there is no search of the least error")


def _range(now: Range) -> StaticRange:
    """Return a range of least squared error with as many steps as there are now."""
    return Grouped(now.size, now.axis, rule=MSE()) if isinstance(now, Grouped) else MSE(now.axis)


def _wider(book: Codebook, more: int) -> Codebook:
    """Return the same grid with more bits."""
    for build, options in _GRIDS:
        try:
            same = torch.equal(build(book.bits, **options).levels, book.levels)
        except ValueError:
            continue
        if same:
            return build(book.bits + more, **options)
    raise ValueError(f"there is no rule for what {book.name} levels are at {book.bits + more} bits")


_GRIDS = (
    (uniform, {}),
    (uniform, {"signed": False}),
    (uniform, {"narrow": True}),
    (pot, {}),
    (post, {}),
    (apot, {}),
    (apot, {"signed": False}),
)
"""The grids that exist at several bits, with their options."""
