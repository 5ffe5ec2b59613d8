"""Modules: what is asked of any network: its quantizers, which parameters are theirs, its modes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import distributed, nn

from qviz.core.quantizer import Quantizer


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers of a model by name; one that is shared has its first name only."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def split(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the weights' and the quantizers' parameters, those that learn, by name; each once.

    The quantizers' are all parameters below a Quantizer and the layers' ``output_scale`` (DAQ). They want an
    optimizer, or at least a group, of their own: their size and their gradients are not those of weights.

    Example:
        >>> from qviz import recipes
        >>> from qviz.nn.layers import QuantLinear
        >>> weights, quantized = split(QuantLinear(4, 2, weight_quantizer=recipes.lsq(4)))
        >>> list(weights), list(quantized)
        (['weight', 'bias'], ['weight_quantizer.range.step'])
    """
    own = {id(p) for q in quantizers(model).values() for p in q.parameters()}
    scales = (getattr(module, "output_scale", None) for module in model.modules())
    own |= {id(scale) for scale in scales if isinstance(scale, nn.Parameter)}
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return (
        {name: p for name, p in learning if id(p) not in own},
        {name: p for name, p in learning if id(p) in own},
    )


def uncompiled(model: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` was given, whose names have no prefix; other modules as they are."""
    return getattr(model, "_orig_mod", model)


def eager() -> AbstractContextManager[None]:
    """Let compiled modules run as they were written, as a graph in torch's cache calls no hooks."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def hooked(
    modules: Iterable[nn.Module],
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
    first: bool = False,
) -> Iterator[None]:
    """Call ``before(module, args, kwargs)`` and ``after(module, args, output)`` around each module's runs.

    Compiled modules run eagerly meanwhile. ``first`` calls ``after`` before the hooks that are there already.
    """
    with eager(), ExitStack() as handles:
        for module in modules:
            if before is not None:
                handles.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            if after is not None:
                handles.enter_context(module.register_forward_hook(after, prepend=first))
        yield


def hooks_around(model: nn.Module) -> dict[nn.Module, frozenset[int]]:
    """Return the keys of the forward hooks on and around each module that has any."""
    found: dict[nn.Module, frozenset[int]] = {}
    for outer in model.modules():
        if outer._forward_hooks:
            for inner in outer.modules():
                found[inner] = found.get(inner, frozenset()) | outer._forward_hooks.keys()
    return found


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put each module of a model, at the end, back into the mode (train or eval) that it was in."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode and, at the end, each of its modules back into its own mode."""
    with modes_kept(model):
        model.eval()
        yield


def processes() -> tuple[int, int]:
    """Return this process's rank and how many there are: (0, 1) without ``torch.distributed``."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
