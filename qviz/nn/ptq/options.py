"""Options: how a block is reconstructed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a block is reconstructed.

    Attributes:
        iterations: Steps of Adam, at least 1.
        batch: Images a step, drawn with replacement.
        drop: The probability that a value stays unquantized in a step (QDrop): of the block's input, and
            inside the block; 0 for BRECQ.
        round_lr: The learning rate of V, which has no unit; it stays, all others fall to 0 as a cosine.
        step_lr: Of the activations' steps, as a share of each step.
        border_lr: Of the borders' coefficients, which have no unit.
        bias_lr: Of the biases, as a share of the standard deviation of their layer's output; 0 keeps them.
        weights: Whether roundings are learned; False keeps the weights.
        regularizer: The weight of AdaRound's regularizer: so many times the block's first loss if all weights
            were undecided. Relative, because an absolute one wants another value for each network.
        warm_up: The share of the steps before it sets in.
        windows: Whether to work on half-size windows where a block allows it (see
            :class:`~qviz.nn.ptq.windows.Windows`, and no input quantizer looks at more than the value).
        borders_after: So many steps more in which borders are learned by themselves, after the rest; None
            learns them together with it.

    Raises:
        ValueError: A number is out of range.
    """

    iterations: int = 2000
    batch: int = 32
    drop: float = 0.0
    round_lr: float = 1e-1
    step_lr: float = 5e-3
    border_lr: float = 3e-2
    bias_lr: float = 0.0
    weights: bool = True
    regularizer: float = 3.0
    warm_up: float = 0.2
    windows: bool = True
    borders_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "borders_after"):
            value = getattr(self, name)
            if value is None and name == "borders_after":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("drop", "warm_up"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        for name in ("round_lr", "step_lr", "border_lr", "bias_lr", "regularizer"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)!r}")

    @property
    def stages(self) -> tuple[Options, ...]:
        """What is learned one after the other, each without ``borders_after``."""
        if self.borders_after is None:
            return (self,)
        alone = {"weights": False, "step_lr": 0.0, "bias_lr": 0.0, "iterations": self.borders_after}
        return tuple(replace(self, borders_after=None, **what) for what in ({"border_lr": 0.0}, alone))
