"""QuantLayer: what layers with a quantized weight and a quantized input share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from qviz.core.quantizer import Quantizer
from qviz.nn.adoption import Adopted

Reduce = Callable[[Tensor], Tensor]
"""Takes a tensor to its mean over the processes."""


def mixed(y: Tensor, x: Tensor, drop: float, generator: torch.Generator | None) -> Tensor:
    """Return y with each value, independently and with probability ``drop``, replaced by that of x (QDrop).

    Both of one shape and finite. By ``lerp`` with a mask of floats: ``where`` takes 2.5 x as long, as no
    processor predicts the branches of a random mask.
    """
    mask = torch.empty_like(x).uniform_(generator=generator).lt_(drop)
    return torch.lerp(y, x, mask)


class QuantLayer(Adopted):
    """What QuantConv2d and QuantLinear share: y = |s| (product(Q_in(x), Q_w(z(w))) + bias).

    Each part is there or is not: the input quantizer Q_in, the weight quantizer Q_w, the standardization
    z(w) = (w - mean) / std over the whole tensor (mean and std count as constants in the backward pass, std
    divides by n - 1), and the output scale s. As the product is linear, |s| multiplies weight and bias
    instead of the larger output.

    Arguments are those of the float layer, and besides, by keyword:

    Args:
        weight_quantizer, input_quantizer: a :class:`~qviz.core.quantizer.Quantizer` each, or None.
        standardize: z(w) instead of w.
        output_scale: learn s; :meth:`observe` starts it.

    Attributes:
        weight, bias: the float layer's parameters, under their own names in the state dict.
        drop: The share of input values that stay unquantized in train mode, drawn anew in each forward pass
            (QDrop, Wei et al., ICLR 2022, arXiv:2203.05740); 0 at first. Set it with :meth:`mix`.
        output_scale: s, shape (), or None; NaN until it is started or loaded.
        standardized: Whether z(w) is read, as a tensor, so that the state dict says it; None where it is as
            the weight's recipe has it (see :data:`qviz.nn.adoption.STANDARDIZED`).

    Raises:
        TypeError: a quantizer is no Quantizer.
        ValueError: standardize with a weight of one element, which has no standard deviation.
        RuntimeError: (in use) a quantizer or the output scale is not calibrated.

    References:
        Kim, Lee and Ham, "Distance-aware Quantization", ICCV 2021, arXiv:2108.06983, and its released code,
        for standardization, output scale and its start.
    """

    drop: float = 0.0
    generator: torch.Generator | None = None

    def __init__(
        self,
        *args: Any,
        weight_quantizer: Quantizer | None = None,
        input_quantizer: Quantizer | None = None,
        standardize: bool = False,
        output_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._equip(weight_quantizer, input_quantizer, standardize, output_scale)

    @property
    def calibrated(self) -> bool:
        """Whether every quantizer and the output scale have their starting values."""
        quantizers = (q for q in (self.weight_quantizer, self.input_quantizer) if q is not None)
        started = self.output_scale is None or bool(self.output_scale.isfinite())
        return started and all(q.calibrated for q in quantizers)

    @property
    def adapts(self) -> bool:
        """Whether :func:`adapt` does anything for the layer."""
        return any(q is not None and q.adapts for q in (self.weight_quantizer, self.input_quantizer))

    def misfit(self) -> str:
        """Return in words that the weight quantizer does not fit the weight any more; "" where it does.

        That is so where the weight changed after calibration, and not by training: BatchNorm was folded into
        it, or it was loaded.
        """
        return self._watch.misfit(self)

    def normalized_weight(self) -> Tensor:
        """Return what the weight quantizer reads: the weight, standardized where asked for."""
        if not self.standardize:
            return self.weight
        std, mean = torch.std_mean(self.weight.detach())
        return (self.weight - mean) / std.clamp(min=torch.finfo(torch.float32).eps)

    def quantized_weight(self) -> Tensor:
        """Return what multiplies the (quantized) input, differentiable in all that is learned."""
        w = self.normalized_weight()
        if self.weight_quantizer is not None:
            w = self.weight_quantizer(w)
        return w if self.output_scale is None else w * self.output_scale.abs()

    @torch.no_grad()
    def codes(self) -> Tensor:
        """Return the code of each weight, uint8, in the weight's shape; standardized first where asked for.

        ``weight_quantizer.dequantize`` gives the levels; :meth:`quantized_weight` has the output scale too.

        Raises:
            ValueError: The weight is not quantized, or holds NaN.
            RuntimeError: The layer is not calibrated.
        """
        if self.weight_quantizer is None:
            raise ValueError("this layer has no weight quantizer, so its weight has no codes")
        self._check()
        return self.weight_quantizer.codes(self.normalized_weight())

    def mix(self, drop: float, generator: torch.Generator | None = None) -> Self:
        """Let input values pass unquantized with probability ``drop`` in train mode; return the layer.

        Args:
            drop: The probability, from 0 (all are quantized) to 1 (none is).
            generator: Where the random numbers come from; None for torch's own generator.

        Raises:
            ValueError: ``drop`` is no probability; there is no input quantizer, or it maps its input to
                another unit (DAQ, N2UQ), where values of both kinds cannot be mixed.
        """
        if not 0.0 <= drop <= 1.0:
            raise ValueError(f"drop must be a probability, from 0 to 1, got {drop!r}")
        if self.input_quantizer is None:
            raise ValueError("this layer has no input quantizer, so there is nothing to mix")
        if not self.input_quantizer.range.rescale:
            kind = type(self.input_quantizer.range).__name__
            raise ValueError(f"{kind} maps the input to another unit: both kinds of values cannot be mixed")
        self.drop, self.generator = float(drop), generator
        return self

    def scaled_bias(self) -> Tensor | None:
        """Return what is added to the product: the bias, times the output scale where there is one."""
        if self.bias is None or self.output_scale is None:
            return self.bias
        return self.bias * self.output_scale.abs()

    def _check(self) -> None:
        if not self.calibrated:
            raise RuntimeError(
                f"{type(self).__name__}({self.extra_repr()}) is not calibrated yet: "
                "call calibrate(model, batch) of qviz.nn.convert first"
            )
        self._ready = True

    def _read(self, x: Tensor) -> Tensor:
        if self.input_quantizer is None or x.numel() == 0:
            return x
        y = self.input_quantizer(x)
        return mixed(y, x, self.drop, self.generator) if self.training and self.drop > 0.0 else y

    def _compute(self, x: Tensor) -> Tensor:
        """Return the output; of zero rows without a look at the quantizers, which nothing can have set."""
        if not self._ready and x.numel():
            self._check()
        if self._ready and not torch.compiler.is_compiling():
            self._watch.look(self)
        w = self.quantized_weight() if self._ready else self.weight
        return self._product(self._read(x), w, self.scaled_bias() if self._ready else self.bias)

    def _followed(self, y: Tensor) -> Tensor:
        """Return the output; where hooks wait for it, see what they make of it."""
        if not torch.compiler.is_compiling() and self._forward_hooks:
            self._watch.follow(self, y)
        return y

    def _product(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _batched(self, x: Tensor) -> Tensor:
        """Return x with its samples in axis 0 and its channels in axis 1."""
        raise NotImplementedError

    @torch.no_grad()
    def observe(self, x: Tensor, reduce: Reduce | None = None) -> Self:
        """Calibrate both quantizers and start the output scale: on the weight, and on the layer's input x.

        The output scale starts at mean|product(x, w) + bias| / mean|product(Q_in(x), Q_w(z(w))) + bias|, so
        that outputs keep their mean magnitude.

        Args:
            x: the layer's input, unquantized.
            reduce: takes what was found from x to its mean over the processes; default: one process.

        Raises:
            TypeError, ValueError: x or the weight is not floating point, empty, NaN or infinite.
        """
        x = self._batched(x)
        self._ready = False
        if self.weight_quantizer is not None:
            self.weight_quantizer.restart()  # a new start and not one more update
            self.weight_quantizer.observe(self.normalized_weight())
        if self.input_quantizer is not None:
            self.input_quantizer.observe(x)
            if reduce is not None:
                _share(self.input_quantizer, reduce)
        if self.output_scale is not None:
            self.output_scale.fill_(1.0)
            before = self._product(x, self.weight, self.bias)
            after = self._product(self._read(x), self.quantized_weight(), self.bias)
            mean = torch.stack([t.abs().mean(dtype=torch.float32) for t in (before, after)])
            before, after = mean if reduce is None else reduce(mean)
            self.output_scale.copy_(before / after if before > 0 and after > 0 else torch.ones(()))
        self._ready = True
        self._watch.start(self)
        return self

    def extra_repr(self) -> str:
        """Add standardization and output scale to the float layer's line."""
        parts = [super().extra_repr()]
        parts += ["standardize=True"] if self.standardize else []
        parts += ["output_scale=True"] if self.output_scale is not None else []
        return ", ".join(parts)


def _share(q: Quantizer, reduce: Reduce) -> None:
    """Replace what the range found in the data by its mean over the processes."""
    for value in (*q.range.parameters(recurse=False), *q.range.buffers(recurse=False)):
        value.copy_(reduce(value.detach()))
