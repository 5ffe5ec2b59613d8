"""TrainConfig: everything that a run's result depends on, besides the model and the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

CHOICES = {
    "schedule": ("cosine", "one-cycle", "constant"),
    "optimizer": ("sgd", "adam"),
    "q_optimizer": ("adam", "sgd", "same"),
    "precision": ("fp32", "bf16"),
}
MAY_DIFFER = ("max_steps", "checkpoint_every")
"""Fields that a resumed run may change: they say when to stop and when to save, not what is computed."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training images; with the loader's length they fix the schedule.
        batch_size: Images a step, over all processes together.
        lr: The (largest) learning rate of the weights.
        momentum: SGD's momentum, or Adam's first beta.
        nesterov: Whether SGD looks ahead, as Nesterov's method does.
        weight_decay: The L2 decay of everything that is no quantizer's; the papers have one group for it all.
        decay_norm_bias: False exempts normalization layers and biases (parameters of at most one axis).
        schedule: How rates change from step to step, for all groups alike. "cosine" falls from lr to 0.
            "one-cycle" climbs from lr / 25 to lr within 30 % of the steps and falls to lr / 250,000, both
            along a cosine (torch's OneCycleLR, but the momentum stays). "constant" stays.
        optimizer: The optimizer of the weights.
        q_optimizer: The optimizer of the quantizers' parameters and DAQ's output scales; "same" puts them
            into the weights' group, with its learning rate and decay (ASQ's released code).
        q_lr: The learning rate of the quantizers' own optimizer; not used with "same".
        q_weight_decay: Its decay; not used with "same".
        freeze_codebooks: The share of the steps after which EMA codebooks stop adapting; 1 never stops them.
        label_smoothing: How far the targets of the cross-entropy are smoothed, in [0, 1).
        precision: "fp32"; or "bf16", which runs forward and loss under autocast. The weights and the
            evaluation stay float32.
        channels_last: Whether that is the memory format of weights and images.
        compile: Whether to run the training step's network through ``torch.compile``.
        clip_norm: The largest norm of the gradient of all parameters together; None does not clip.
        seed: The seed of torch's, numpy's and Python's global generators during the run (dropout, random
            rounding).
        checkpoint_every: Steps between checkpoints, besides those at the end of each epoch; 0 for none.
        max_steps: Stop after that many steps in all; the schedule is still that of ``epochs``.
        record_every: Steps between records of the quantizers in the History; 0 records losses only.

    Raises:
        TypeError, ValueError: A field is of the wrong type or out of range.

    Example:
        >>> config = TrainConfig(epochs=2, batch_size=128, lr=0.1)
        >>> config.schedule, TrainConfig.from_dict(config.to_dict()) == config
        ('cosine', True)
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norm_bias: bool = True
    schedule: str = "cosine"
    optimizer: str = "sgd"
    q_optimizer: str = "adam"
    q_lr: float = 1e-4
    q_weight_decay: float = 0.0
    freeze_codebooks: float = 1.0
    label_smoothing: float = 0.0
    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False
    clip_norm: float | None = None
    seed: int = 0
    checkpoint_every: int = 0
    max_steps: int | None = None
    record_every: int = 10

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("checkpoint_every", 0)):
            _whole(name, getattr(self, name), least)
        _whole("record_every", self.record_every, 0)
        if self.max_steps is not None:
            _whole("max_steps", self.max_steps, 1)
        for name in ("nesterov", "decay_norm_bias", "channels_last", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        self._number("lr", above=0.0)
        self._number("q_lr", above=0.0)
        self._number("momentum", least=0.0, below=1.0)
        self._number("label_smoothing", least=0.0, below=1.0)
        self._number("weight_decay", least=0.0)
        self._number("q_weight_decay", least=0.0)
        self._number("freeze_codebooks", least=0.0, most=1.0)
        if self.clip_norm is not None:
            self._number("clip_norm", above=0.0)
        if self.nesterov and (self.momentum == 0 or self.optimizer != "sgd"):
            raise ValueError(
                "nesterov needs optimizer='sgd' and a momentum above 0, "
                f"got {self.optimizer!r} and {self.momentum}"
            )

    def _number(
        self,
        name: str,
        *,
        above: float | None = None,
        least: float | None = None,
        below: float = math.inf,
        most: float | None = None,
    ) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {value!r}")
        object.__setattr__(self, name, float(value))  # 1 and 1.0 are one configuration, with one hash
        if above is not None and not above < value < below:
            raise ValueError(f"{name} must be above {above:g} and finite, got {value}")
        if least is not None and not (least <= value < below and (most is None or value <= most)):
            bound = f" and at most {most:g}" if most is not None else f" and below {below:g}"
            raise ValueError(f"{name} must be at least {least:g}{bound}, got {value}")

    def factor(self, step: int, steps: int) -> float:
        """Return the learning rate of step ``step`` (from 0) of ``steps``, as a share of ``lr``.

        Example:
            >>> config = TrainConfig(epochs=1, batch_size=8, lr=0.1)
            >>> [round(config.factor(step, 4), 3) for step in range(4)]
            [1.0, 0.854, 0.5, 0.146]
        """
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * step / steps))
        peak = max(0.3 * steps - 1.0, 1e-9)  # where torch.optim.lr_scheduler.OneCycleLR has it
        first, last = 1.0 / 25.0, 1.0 / 250_000.0
        if step <= peak:
            start, end, part = first, 1.0, step / peak
        else:
            start, end, part = 1.0, last, (step - peak) / max(steps - 1.0 - peak, 1e-9)
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(part, 1.0)))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain numbers, strings and None."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Return the configuration that :meth:`to_dict` gave.

        Raises:
            ValueError: A field that does not exist, or one without default that is missing.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        extra = sorted(set(values) - set(known))
        needed = {name for name, field in known.items() if field.default is dataclasses.MISSING}
        missing = sorted(needed - set(values))
        if extra or missing:
            raise ValueError(f"not a TrainConfig: unknown fields {extra}, missing fields {missing}")
        return cls(**values)

    @property
    def sha256(self) -> str:
        """Hash of all fields, as canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: TrainConfig) -> list[str]:
        """Name the fields, with both values, in which a resumed run must not differ and does."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [
            f"{name}: {theirs[name]!r} before, {mine[name]!r} now"
            for name in mine
            if name not in MAY_DIFFER and mine[name] != theirs[name]
        ]


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
