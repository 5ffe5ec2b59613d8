"""Folding: a BatchNorm's fixed scale and shift go into the layer before it.

In eval mode BatchNorm is y = γ (x - μ) / sqrt(σ² + ε) + β with fixed numbers, one each a channel. After
x = w * input + b this is one layer with

    w' = w γ / sqrt(σ² + ε)        b' = (b - μ) γ / sqrt(σ² + ε) + β

so that what is quantized is the weight that the network computes with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.layers import QuantLayer
from qviz.nn.modules import eager, evaluating

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
"""What is folded. A subclass may compute something else (an activation, say) and stays."""


def fold_batchnorm(model: nn.Module, batch: Batch) -> nn.Module:
    """Fold each BatchNorm into the nn.Conv2d or nn.Linear before it, in place; return the model.

    One run of the batch shows which BatchNorm reads the output of which layer; names and places in the model
    do not matter. The layer gets a new weight and a bias, the BatchNorm becomes an nn.Identity. A BatchNorm
    after anything else stays as it is.

    Args:
        model: A float model in eval mode.
        batch: As for :func:`~qviz.nn.calibration.calibrate`, the first of a loader; one sample is enough.

    Raises:
        ValueError: A fold would change what the model computes, or could not be seen to be right: the layer
            or its BatchNorm is called several times, has hooks or is in train mode, something else reads the
            layer's output, the BatchNorm keeps no statistics, or the layer is quantized already. Nothing is
            changed then.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> before = net(x)
        >>> torch.allclose(fold_batchnorm(net, x)(x), before, atol=1e-5)
        True
        >>> net[1], net[0].bias.shape
        (Identity(), torch.Size([4]))
    """
    names = {module: name for name, module in model.named_modules()}
    if quantized := [name for module, name in names.items() if isinstance(module, QuantLayer)]:
        raise ValueError(f"layer {quantized[0]!r} is quantized already: fold the float model before convert")
    watch = _Watch(names)
    try:
        with watch, torch.no_grad(), evaluating(model), eager():
            watch.note(forward(model, next(batches_of(batch))))
    finally:
        watch.close()
    for norm, layer in watch.pairs.items():
        if why := watch.obstacle(layer, norm):
            raise ValueError(f"BatchNorm {names[norm]!r} cannot be folded into layer {names[layer]!r}: {why}")
    for norm, layer in watch.pairs.items():
        _fold(layer, norm)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in watch.pairs:
                parent._modules[name] = nn.Identity().train(child.training)
    return model


class _Watch(TorchDispatchMode):
    """Sees, in one run, which BatchNorm reads which layer's output, and what else does.

    Every operation of torch passes here with the tensors that it reads, so that no use of an output (a view,
    a comparison, a detached copy) is missed.
    """

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.pairs: dict[nn.Module, nn.Module] = {}
        self.calls = dict.fromkeys(names, 0)
        self.hooked = {module for module in names if _has_hooks(module)}
        self.training = {module for module in names if module.training}
        self._read_elsewhere: set[nn.Module] = set()
        self._makers = WeakTensorKeyDictionary()  # a layer's output: the layer
        self._inside = False
        self._handles = []
        for module in names:
            if type(module) in (nn.Conv2d, nn.Linear) and "forward" not in vars(module):
                self._handles.append(module.register_forward_hook(self._made))
            elif type(module) in NORMS and "forward" not in vars(module):
                self._handles.append(module.register_forward_pre_hook(self._enter))
                self._handles.append(module.register_forward_hook(self._leave))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if not self._inside:
            self.note((args, kwargs))
        return func(*args, **(kwargs or {}))

    def note(self, values: Any) -> None:
        """Note that something reads the values, tensors in any nesting."""
        tensors = (t for t in tree_leaves(values) if isinstance(t, Tensor))
        self._read_elsewhere |= {self._makers[t] for t in tensors if t in self._makers}

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _made(self, layer: nn.Module, args: tuple, y: Tensor) -> None:
        self.calls[layer] += 1
        self._makers[y] = layer

    def _enter(self, norm: nn.Module, args: tuple) -> None:
        self.calls[norm] += 1
        layer = self._makers.get(args[0]) if args else None
        # channels in axis 1, as the norm has them: one vector a sample, or maps of a batch
        fits = layer is not None and args[0].ndim == (2 if type(layer) is nn.Linear else 4)
        if fits and layer not in self.pairs.values():  # a second BatchNorm is another reader
            self._inside = True
            self.pairs[norm] = layer

    def _leave(self, norm: nn.Module, args: tuple, y: Tensor) -> None:
        self._inside = False

    def obstacle(self, layer: nn.Module, norm: nn.Module) -> str | None:
        """Return why the two cannot become one, or None."""
        for what, module in (("layer", layer), ("BatchNorm", norm)):
            if self.calls[module] > 1:
                return f"the {what} is called {self.calls[module]} times"
            if module in self.hooked:
                return f"the {what} has hooks, which would see or do something else"
        if norm in self.training:
            return "it is in train mode; call model.eval() first"
        if norm.running_mean is None:
            return "it keeps no running statistics"
        if layer in self._read_elsewhere:
            return "the layer's output is read by something else too"
        return None


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(module, kind) for kind in kinds)


@torch.no_grad()
def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    w, mean, variance = layer.weight, norm.running_mean.double(), norm.running_var.double()
    factor = (variance + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.double())
    bias = (0.0 if layer.bias is None else layer.bias.double()) - mean
    bias = bias * factor + (0.0 if norm.bias is None else norm.bias.double())
    scaled = w.double() * factor.view(-1, *[1] * (w.ndim - 1))
    # parameters of its own: what else holds the old weight keeps it as it was
    layer.weight = nn.Parameter(scaled.to(w.dtype), w.requires_grad)
    layer.bias = nn.Parameter(bias.to(w.dtype), w.requires_grad)
