"""Integer: the forward pass on codes: integer sums, integer requantization, integer thresholds.

The arithmetic, exactly (:mod:`qviz.export.arithmetic`, :mod:`~qviz.export.fixed` and :mod:`~qviz.export.plan`
say where the integers come from):

1. A layer reads codes: code = #{thresholds < v} of a fixed map v, #{borders < x} of a float map x.
2. Each plane p of its weight is multiplied with the integers that the codes stand for and summed into an
   accumulator A_p, an int32: that it fits is proved from codes and tables before anything is run. Padding is
   the value 0.
3. v = offset + (sum over p of A_p × multiplier_p + 2^(shift - 1)) >> shift, in int64: rounded to nearest,
   halves upward; multipliers of 31 bits for each plane and output channel, with BatchNorm's factor in them;
   the offset is bias and BatchNorm's rest. With "products", A is the sum over all planes.
4. v is in units of 2^-f, one f for the network. ReLU, clip, sums, maxima, slices and padding act on v as they
   are; a mean is floor((2 sum + n) / 2n), that is to nearest, halves upward.

Layers left in floating point are computed in float64 and rounded once to float32, so that another runner gets
the same bits. With an adaptive step (ASQ) the network that reads the sample and the step are floating point,
codes and accumulators are integers; thresholds and multipliers are made for each sample.

What is exact: the reading of codes and the accumulators, for every method, so a layer's sums are right to
the last bit wherever its codes agree with the float network's. Its output is as exact as its factors. Where
steps, scales and BatchNorm's factors are powers of two and levels whole numbers or powers of two (LSQ, PACT,
DAQ at one bit, POT), nothing is rounded on either side, and the logits are the float network's to the last
bit. Elsewhere the float network rounds its products and sums to 24 bits, this one its factors to 31 and its
maps to the unit: POST has sqrt(2), DAQ above one bit thirds, APoT its normalization, ADQ levels of any value,
ASQ a step from a network. A code then differs only where its value is that close to a border, and what
follows from it in the same image; :mod:`qviz.export.agreement` finds and counts these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from qviz.export.codes import CodesLayer
from qviz.export.exported import Exported, Step
from qviz.export.fixed import mean
from qviz.export.plan import affine, pixel, plan, sample_steps
from qviz.export.program import product, run, simple
from qviz.export.shapes import shapes
from qviz.export.tables import InputTable, LayerTables


class IntegerModel(nn.Module):
    """The network of an :class:`~qviz.export.exported.Exported`, its layers of codes in integers alone.

    A reference to be read and checked, on the CPU. Maps are float32 (float maps) or int64 (fixed maps).

    Args:
        exported: The network; its program must not be empty.
        width: The bits of a fixed map: 64, or 32, which leaves fewer bits behind the point.
        how: "auto", or "levels" or "products" for that arithmetic in every layer of codes.

    Attributes:
        plan: All its integers.
        layers: Its layers of codes, by the number of their step.

    Raises:
        ValueError: What :func:`qviz.export.plan.plan` refuses.

    Example:
        >>> from qviz import recipes
        >>> from qviz.export import describe
        >>> from qviz.nn import calibrate, convert
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> x = torch.rand(8, 3, 4, 4)
        >>> _ = convert(net, pair=recipes.pair("lsq", 4), first_last="quantized")
        >>> calibrate(net, x)
        >>> integer = IntegerModel(describe(net))
        >>> bool((integer(x) - net(x)).abs().max() < 1e-5)
        True
    """

    def __init__(self, exported: Exported, *, width: int = 64, how: str = "auto") -> None:
        super().__init__()
        self.exported = exported
        self.plan = plan(exported, width=width, how=how)
        self.layers = {
            i: CodesLayer(
                exported.program[i], exported.layers[exported.program[i].name].input, made, self.plan.f
            )
            for i, made in self.plan.products.items()
        }

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the output for normalized images, float32."""
        return self.run(images)[0]

    def run(self, images: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the output, float32, and the codes that each layer read, uint8, by its step's number."""
        codes: dict[int, Tensor] = {}
        output = images
        for i, v in self.values(images):
            output = v
            if i in self.layers:
                codes[i] = self.layers[i].codes
        return self.real(output), codes

    def real(self, v: Tensor) -> Tensor:
        """Return a map as float32."""
        return v if v.is_floating_point() else (v.double() * 2.0**-self.plan.f).float()

    def fixed(self, x: Tensor) -> Tensor:
        """Return a map in units of 2^-f, int64; rounded to nearest, halves to even."""
        return (x.double() * 2.0**self.plan.f).round().long() if x.is_floating_point() else x

    def values(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each step and its map."""
        self.check(images)
        return run(self.exported.program, lambda i, inputs: self._value(i, inputs or [images.contiguous()]))

    def check(self, images: Tensor) -> None:
        """See that images are such that every map fits.

        Raises:
            ValueError: A pixel is NaN or larger than normalized pixels are; images of this size do not fit.
        """
        largest, top = pixel(self.exported.about), images.abs().max().item() if images.numel() else 0.0
        if not top <= largest:
            raise ValueError(f"pixels of normalized images must be within ±{largest:.6g}, got {top:.6g}")
        shapes(self.exported, images.shape[1:])

    def _value(self, i: int, inputs: Sequence[Tensor]) -> Tensor:
        step, x = self.exported.program[i], inputs[0]
        if step.op == "input" or i in self.plan.folded:
            return x
        if step.op == "linear" and x.ndim > 2:
            y = self._value(i, [x.flatten(0, -2)])
            if i in self.layers:
                self.layers[i].codes = self.layers[i].codes.view(x.shape)
            return y.view(*x.shape[:-1], y.shape[-1])
        if i in self.layers:
            return self.layers[i](x)
        if step.op in ("conv", "linear"):
            return self._float_layer(i, step, self.real(x))
        if step.op == "batchnorm":
            return _affine(self.real(x).double(), *affine(step, self.exported.tensors)).float()
        if x.is_floating_point() and not self.plan.fixed[i]:
            return (
                x.double().mean((2, 3), keepdim=True).float() if step.op == "mean" else simple(step, inputs)
            )
        return self._of_integers(step, [self.fixed(v) for v in inputs])

    def _float_layer(self, i: int, step: Step, x: Tensor) -> Tensor:
        layer: LayerTables = self.exported.layers[step.name]
        if layer.input is not None:
            x = layer.input.value(x, self._steps(step, layer.input, x))
        weight = layer.weight if isinstance(layer.weight, Tensor) else layer.weight.value()
        bias = None if layer.bias is None else layer.bias.double()
        y = product(step, x.double(), weight.double(), bias)
        return (_affine(y, *self.plan.norms[i]) if i in self.plan.norms else y).float()

    def _steps(self, step: Step, read: InputTable, x: Tensor) -> Tensor | None:
        """Return the adaptive step of each sample, float32, (N, 1, …), of a layer in floating point."""
        if read.adapter is None:
            return None
        steps = sample_steps(step.name, read.adapter, x.numpy(), self.plan.f)
        return torch.from_numpy(steps).float().view(-1, *(1,) * (x.ndim - 1))

    def _of_integers(self, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        v = inputs[0]
        if step.op == "clip":
            low, high = (round(step.args[key] * 2**self.plan.f) for key in ("low", "high"))
            return v.clamp(low, high)
        if step.op == "mean":
            return torch.from_numpy(mean(v.numpy()))
        if step.op == "maxpool":
            return simple(step, [v.double()]).long()
        return simple(step, inputs)


def _affine(x: Tensor, factor: object, offset: object) -> Tensor:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return x * torch.as_tensor(factor).view(shape) + torch.as_tensor(offset).view(shape)
