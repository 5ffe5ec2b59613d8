"""Watch: which BatchNorm reads which layer's output, and what speaks against making the two one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from qviz.nn.modules import hooked
from qviz.nn.survey import HOOK

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
"""What is folded. A subclass may compute something else (an activation, say) and stays."""

TF32 = 2.0**-10
"""The spacing of numbers in a GPU's products of float32, which may round to TF32."""


class Watch(TorchDispatchMode):
    """Sees, run after run, which BatchNorm reads which layer's output, and what else does.

    Every operation of torch passes here with the tensors that it reads, so that no use of an output (a view,
    a comparison, a detached copy) is missed.

    Attributes:
        pairs: Each BatchNorm that reads a layer's output, and the layer.
        calls: How often each module was called in the last run.
        eps: The largest machine epsilon of what a layer returned.
    """

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.pairs: dict[nn.Module, nn.Module] = {}
        self.calls: dict[nn.Module, int] = {}
        self.eps = 0.0
        self.hooked = {module for module in names if _has_hooks(module)}
        self.training = {module for module in names if module.training}
        self._read_elsewhere: set[nn.Module] = set()
        self._astray: set[nn.Module] = set()
        self._makers = WeakTensorKeyDictionary()  # a layer's output: the layer
        self._versions = WeakTensorKeyDictionary()  # rises with each change in place
        self._inside = False
        own = [module for module in names if "forward" not in vars(module)]
        self._layers = [module for module in own if type(module) in (nn.Conv2d, nn.Linear)]
        self._norms = [module for module in own if type(module) in NORMS]

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Watch one run."""
        self.calls = dict.fromkeys((*self._layers, *self._norms), 0)
        with (
            hooked(self._layers, after=self._made),
            hooked(self._norms, before=self._enter, after=self._leave),
            self,
        ):
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if not self._inside:
            self.note((args, kwargs))
        return func(*args, **(kwargs or {}))

    def note(self, values: Any) -> None:
        """Note that something reads the values, tensors in any nesting."""
        tensors = (t for t in tree_leaves(values) if isinstance(t, Tensor))
        self._read_elsewhere |= {self._makers[t] for t in tensors if t in self._makers}

    def _made(self, layer: nn.Module, args: tuple, y: Tensor) -> None:
        self.calls[layer] += 1
        self._makers[y] = layer
        self._versions[y] = y._version
        tf32 = y.is_cuda and y.dtype == torch.float32
        self.eps = max(self.eps, TF32 if tf32 else torch.finfo(y.dtype).eps)

    def _enter(self, norm: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.calls[norm] += 1
        made = bool(args) and self._versions.get(args[0]) == args[0]._version
        layer = self._makers[args[0]] if made else None
        # channels in axis 1, as the norm has them: one vector a sample, or maps of a batch
        fits = layer is not None and args[0].ndim == (2 if type(layer) is nn.Linear else 4)
        if fits and norm not in self.pairs and layer not in self.pairs.values():
            self.pairs[norm] = layer
        if fits and self.pairs.get(norm) is layer:
            self._inside = True
        else:  # a second BatchNorm of a layer is another reader
            self._astray.add(norm)

    def _leave(self, norm: nn.Module, args: tuple, y: Tensor) -> None:
        self._inside = False

    def obstacle(self, layer: nn.Module, norm: nn.Module) -> str | None:
        """Return why the two cannot become one, or None."""
        for what, module in (("layer", layer), ("BatchNorm", norm)):
            if self.calls[module] > 1:
                return f"the {what} is called {self.calls[module]} times"
            if "weight" not in module._parameters:
                return f"{HOOK}: make it a parameter first, as torch.nn.utils.prune.remove does"
            if module in self.hooked:
                return f"the {what} has hooks, which would see or do something else"
        if norm in self.training:
            return "it is in train mode; call model.eval() first"
        if norm.running_mean is None:
            return "it keeps no running statistics"
        if layer in self._read_elsewhere:
            return "the layer's output is read by something else too"
        if norm in self._astray:
            return "with some of the images the BatchNorm reads something else"
        return None


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(module, kind) for kind in kinds)
