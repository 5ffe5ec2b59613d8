"""Own forward: quantized layers of subclasses of Conv2d and Linear, whose forward pass runs as it is.

It finds the quantized weight and the bias under their own names, and gets the quantized input. That is exact
where it only pads or casts before the product, as timm's ``Conv2dSame`` and ``Linear`` do.
"""

from __future__ import annotations

import functools
from typing import Any, Self

import torch
from torch import Tensor, nn

from qviz.nn.layers import QuantConv2d, QuantLinear
from qviz.nn.quant_layer import QuantLayer, Reduce


class OwnForward(QuantLayer):
    """A quantized layer that computes by the forward pass of its float class; :func:`quantized` makes one."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the float class: the layer's own is made at run time, and has no place."""
        return _blank, (self.float_type,), vars(self)

    def _product(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        own = vars(self)  # read before the parameters
        own["weight"], own["bias"] = w, bias
        try:
            return self.float_type.forward(self, x)
        finally:
            del own["weight"], own["bias"]

    @torch.no_grad()
    def observe(self, x: Tensor, reduce: Reduce | None = None) -> Self:
        """Calibrate as every layer does, after a check that the forward pass is a product.

        Raises:
            ValueError: The output does not double with the input, or with the weight, and the bias: the
                forward pass standardizes one of them, for instance, after it was quantized.
        """
        z, w = self._batched(x), self.weight
        once, bias = self._product(z, w, self.bias), None if self.bias is None else 2 * self.bias
        for what, twice in (
            ("input", self._product(2 * z, w, bias)),
            ("weight", self._product(z, 2 * w, bias)),
        ):
            if (twice - 2 * once).norm() > 1e-3 * once.norm():  # not so of NaN, which is refused below
                raise ValueError(
                    f"the forward pass of {self.float_type.__name__} is not proportional to its {what}: it "
                    "would compute with something else than what is quantized; leave it out of also="
                )
        return super().observe(x, reduce)


@functools.cache
def quantized(kind: type[nn.Module]) -> type[QuantLayer]:
    """Return the quantized class of Conv2d, of Linear, or of a subclass.

    Raises:
        TypeError: It is none of these.
    """
    for base in (QuantConv2d, QuantLinear):
        if kind is base.float_type:
            return base
        if isinstance(kind, type) and issubclass(kind, base.float_type):
            return type(f"Quant{kind.__name__}", (OwnForward, base, kind), {"float_type": kind})
    raise TypeError(f"Conv2d, Linear and subclasses of them can be quantized, got {kind!r}")


def _blank(kind: type[nn.Module]) -> nn.Module:
    made = quantized(kind)
    return made.__new__(made)
