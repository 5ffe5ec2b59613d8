"""Copies: a second network that nothing done to the first one reaches."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model, of pruned and weight-normed layers and of kept results too.

    Tensors that modules hold and that were computed, which torch does not copy, are detached: weights that a
    hook computes anew in each run, and results of a run.

    Raises:
        TypeError: Something in the model cannot be copied.
    """
    held = tree_leaves([vars(module) for module in model.modules()])
    computed = [t for t in held if isinstance(t, Tensor) and not t.is_leaf]
    try:
        return deepcopy(model, {id(t): t.detach().clone() for t in computed})
    except (RuntimeError, TypeError) as problem:
        raise TypeError(f"the model cannot be copied: {problem}") from problem
