"""Descent: a learned step on its way down the error, moved by its recipe's own gradients."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz import recipes
from qviz.core.quantizer import Quantizer

METHODS = ("LSQ", "PACT", "ASQ")
RATE = 0.05
"""The rate of Adam, as a part of the step with the least error; LSQ and PACT."""
ASQ_RATES = (0.02, 0.01)
"""The same for ASQ's step, and the rate of its small network."""


@dataclass(frozen=True)
class Place:
    """Where a descent is after some iterations.

    Attributes:
        steps: The step of each sample, float64; shape (1,) where all samples share one.
        learned: The learned number: the step s, of PACT the clip α.
        rounding: The part of its gradient that comes from values inside the range.
        clipping: The part that comes from values that are cut off.
    """

    steps: Tensor
    learned: float
    rounding: float
    clipping: float


class Descent:
    """The places of a learned step, computed as far as they are asked for and then kept.

    The loss is the mean of (Q(x) - x)², for ASQ the mean over samples of Σ(Q(x) - x)² / Σx², so that each
    sample counts the same. The gradient is what the recipe's backward pass hands to the optimizer: Adam with
    the betas 0.9 and 0.95. Tensors of more than 65,536 values are thinned to about as many.

    Args:
        method: One of :data:`METHODS`.
        x: The tensor; for ASQ (N, C, ...), one sample each N.
        bits: The bit width.
        step: Where the step starts, > 0.
        best: The step with the least error: the unit of Adam's rate.
        decay: λ of PACT's regularizer λ α².
    """

    def __init__(
        self, method: str, x: Tensor, bits: int, step: float, best: float, decay: float = 0.0
    ) -> None:
        x = x.detach().float()
        self.x = x if method == "ASQ" else x.flatten()[:: math.ceil(x.numel() / 65_536)]
        self.decay = decay if method == "PACT" else 0.0
        self.q, groups = _made(method, self.x, bits, step, best)
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.95))
        self._energy = self.x.flatten(1).square().sum(1).clamp(min=1e-30) if method == "ASQ" else None
        self._places: list[Place] = []
        self._lock = threading.Lock()

    def at(self, iteration: int) -> Place:
        """Return the place after some iterations."""
        return self.way(iteration)[-1]

    def way(self, iteration: int) -> list[Place]:
        """Return the places from the start to an iteration."""
        with self._lock:
            while len(self._places) <= iteration:
                if self._places:
                    self._adam.step()
                self._places.append(self._look())
            return self._places[: iteration + 1]

    @torch.enable_grad()
    def _look(self) -> Place:
        """Return the present place, and leave its gradient for the next step of the optimizer."""
        learned = next(self.q.range.parameters())
        y, p = self.q(self.x), list(self.q.parameters())
        error = (y - self.x).detach()
        if self._energy is None:
            push = 2.0 * error / error.numel()
        else:
            push = 2.0 * error / (self._energy * len(error)).view(-1, *(1,) * (error.ndim - 1))
        scale = self.q.range(self.x)[0].detach()
        u = self.x / scale
        inside = (u >= self.q.codebook.lo) & (u <= self.q.codebook.hi)
        parts = [
            torch.autograd.grad(y, p, push * where, retain_graph=keep)
            for where, keep in ((inside, True), (~inside, False))
        ]
        for parameter, *grads in zip(p, *parts, strict=True):
            parameter.grad = sum(grads) + 2.0 * self.decay * parameter.detach()
        steps = scale.double().flatten().clone()
        return Place(steps, float(learned.detach()), *(float(part[0]) for part in parts))


def _made(method: str, x: Tensor, bits: int, step: float, best: float) -> tuple[Quantizer, list[dict]]:
    """Return the recipe's quantizer and Adam's groups of parameters, the learned number first."""
    if method == "ASQ":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            q = recipes.asq_activation(bits, x.shape[1], step=step)
        rates = ASQ_RATES[0] * best, ASQ_RATES[1]
        groups = [{"params": [q.range.step], "lr": rates[0]}]
        return q, [*groups, {"params": list(q.range.adapter.parameters()), "lr": rates[1]}]
    if method == "PACT":
        q = recipes.pact_activation(bits, alpha=step * (2**bits - 1))
        return q, [{"params": [q.range.clip], "lr": RATE * best * (2**bits - 1)}]
    q = recipes.lsq(bits, signed=bool((x < 0).any()), step=step)
    return q, [{"params": [q.range.step], "lr": RATE * best}]
