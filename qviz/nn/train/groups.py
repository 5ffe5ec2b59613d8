"""Who learns how fast: the optimisers, with the quantizers' parameters apart from the weights'."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from qviz.core.quantizer import Quantizer
from qviz.nn.train.config import TrainConfig


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers of a model by name; a shared one has its first name only."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def split(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the weights' and the quantizers' parameters, those that learn, by name; each once.

    The quantizers' are all parameters below a Quantizer and the layers' ``output_scale`` (DAQ).
    """
    own = {id(p) for q in quantizers(model).values() for p in q.parameters()}
    own |= {
        id(module.output_scale)
        for module in model.modules()
        if isinstance(getattr(module, "output_scale", None), nn.Parameter)
    }
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return (
        {name: p for name, p in learning if id(p) not in own},
        {name: p for name, p in learning if id(p) in own},
    )


def optimisers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Return the weights' optimiser and, where it has parameters, the quantizers' one.

    Each group carries ``base_lr``, which the schedule's factor is multiplied with.

    Raises:
        ValueError: no parameter learns.
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
    made = [_optimiser(config.optimizer, groups, config.lr, config)] if groups else []
    if quantized:
        group = {"params": list(quantized.values()), "weight_decay": config.q_weight_decay}
        made.append(_optimiser(config.q_optimizer, [group], config.q_lr, config))
    return made


def _optimiser(kind: str, groups: list[dict[str, Any]], lr: float, config: TrainConfig) -> Optimizer:
    if kind == "adam":
        made: Optimizer = torch.optim.Adam(groups, lr=lr, betas=(config.momentum, 0.999))
    else:
        made = torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov)
    for group in made.param_groups:
        group["base_lr"] = lr
    return made


def set_rates(made: list[Optimizer], factor: float) -> None:
    """Set each group's learning rate to its share of the schedule."""
    for optimiser in made:
        for group in optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor
