"""Optimizers: one for the weights, one for the quantizers' parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from qviz.nn.modules import split
from qviz.nn.train.config import TrainConfig


def optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Return the weights' optimizer and, where it has parameters, the quantizers' one.

    Each group carries ``base_lr``, which the schedule's factor is multiplied with.

    Raises:
        ValueError: No parameter learns.
    """
    weights, quantized = split(model)
    if not weights and not quantized:
        raise ValueError("the model has no parameter that requires a gradient")
    plain = [p for p in weights.values() if config.decay_norm_bias or p.ndim > 1]
    free = [p for p in weights.values() if not (config.decay_norm_bias or p.ndim > 1)]
    if config.q_optimizer == "same":
        plain, quantized = [*plain, *quantized.values()], {}
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((plain, config.weight_decay), (free, 0.0))
        if parameters
    ]
    made = [_optimizer(config.optimizer, groups, config.lr, config)] if groups else []
    if quantized:
        group = {"params": list(quantized.values()), "weight_decay": config.q_weight_decay}
        made.append(_optimizer(config.q_optimizer, [group], config.q_lr, config))
    return made


def _optimizer(kind: str, groups: list[dict[str, Any]], lr: float, config: TrainConfig) -> Optimizer:
    if kind == "adam":
        made: Optimizer = torch.optim.Adam(groups, lr=lr, betas=(config.momentum, 0.999))
    else:
        made = torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov)
    for group in made.param_groups:
        group["base_lr"] = lr
    return made


def set_rates(made: list[Optimizer], factor: float) -> None:
    """Set each group's learning rate to its share of the schedule."""
    for optimizer in made:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
