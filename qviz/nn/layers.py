"""Layers that quantize their weight and their input: QuantConv2d and QuantLinear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qviz.nn.adoption import _after_loading as _after_loading  # models that were pickled whole name it so
from qviz.nn.quant_layer import QuantLayer as QuantLayer


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A convolution of a quantized input with a quantized weight; see :class:`QuantLayer`.

    Groups, stride, dilation and padding are the float layer's. Padding is put around the *quantized* input,
    as released code has it.

    Shapes:
        input: (N, C_in, H, W) or (C_in, H, W), in any memory format.

    Example:
        >>> from qviz import Fixed, Quantizer, uniform
        >>> to_tenths = Quantizer(uniform(8), range=Fixed(0.1))
        >>> layer = QuantConv2d(1, 1, 1, bias=False, weight_quantizer=to_tenths)
        >>> _ = nn.init.constant_(layer.weight, 0.27)
        >>> round(layer(torch.ones(1, 1, 1, 1)).item(), 4)
        0.3
    """

    float_type = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, in the shape of the float layer's."""
        y = self._compute(self._batched(input))
        return self._followed(y if input.ndim == 4 else y.squeeze(0))

    def _product(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, w, bias)

    def _batched(self, x: Tensor) -> Tensor:
        return x if x.ndim == 4 else x.unsqueeze(0)


class QuantLinear(QuantLayer, nn.Linear):
    """A product of a quantized input and a quantized weight; see :class:`QuantLayer`.

    Shapes:
        input: (..., C_in); the quantizers see (N, C_in), so that what is one for each sample (ASQ's step) is
            one for each vector.
    """

    float_type = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, shape (..., C_out)."""
        y = self._compute(self._batched(input))
        return self._followed(y if input.ndim == 2 else y.view(*input.shape[:-1], self.out_features))

    def _product(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, w, bias)

    def _batched(self, x: Tensor) -> Tensor:
        return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


@torch.no_grad()
def adapt(model: nn.Module) -> None:
    """Do what follows an optimizer step: adaptive codebooks see their weights, AQuant's borders are guarded.

    Codebooks move in train mode only, and not once they are ``frozen``. A loop that forgets to call this is
    warned after ten steps (not where it is compiled, or its optimizer writes to ``p.data``).

    Args:
        model: any module; layers that are not quantized are passed over.
    """
    for layer in model.modules():
        if not isinstance(layer, QuantLayer):
            continue
        if layer.weight_quantizer is not None:
            layer.weight_quantizer.after_step(layer.normalized_weight())
        if layer.input_quantizer is not None:
            layer.input_quantizer.after_step()
        layer._watch.adapted()
