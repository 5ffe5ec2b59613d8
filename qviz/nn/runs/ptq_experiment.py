"""PTQExperiment: which method of post-training quantization, bits and network, from how many images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qviz.core._files import file_sha256
from qviz.nn.convert import POLICIES
from qviz.nn.models import NAMES as MODELS
from qviz.nn.ptq.options import Options
from qviz.nn.ptq.settings import LEARNED, LEAST, METHODS, Settings, pair_of
from qviz.nn.runs.experiment import SHIPPED, checked_seeds
from qviz.shipped import checkpoint

BIAS_LR = 1e-2
"""The learning rate of biases where they are learned: a share of their layer's output's spread."""


@dataclass(frozen=True, kw_only=True)
class PTQExperiment:
    """A method of :func:`qviz.nn.ptq.ptq` on a network that was trained on CIFAR-10, with one or more seeds.

    Attributes:
        method: A method of :func:`~qviz.nn.ptq.ptq`.
        w_bits: Bits of the weights.
        a_bits: Bits of the activations; None for the same as the weights.
        model: A name of ``qviz.nn.models``.
        images: How many training images it sees, classes taking turns; the seed says which.
        iterations: Steps a block; None for the method's usual number. Only methods that reconstruct have it.
        seeds: Whole numbers, all different; one run each.
        correction: For "nearest": "mean" or "std", what each output channel is given back of its statistics.
        border: For "aquant": the kind of its borders.
        window: For "aquant": how far from its border a value may lie to move it, as a fraction of a cell.
        bias: Whether biases are learned together with the rest.
        first_last: What becomes of the first and last layer, as for ``convert``.
        order: "block", or "layer" to learn each layer by itself.
        gate: Whether held-out images decide which blocks stay as they were learned.
        start: The weights to begin with: "shipped" (the FP32 ResNet-20 in data/), or the path of a
            safetensors file.
        source: "full" or "sample" to insist on one; None for all of CIFAR-10 if it is there.
        overrides: Fields of :class:`~qviz.nn.ptq.Options` to change.

    Raises:
        ValueError, TypeError: A name that is unknown, a number out of range, or an option that the method
            has no use for.

    Example:
        >>> control = PTQExperiment(method="qdrop", w_bits=2, bias=True)
        >>> control.name, control.a_bits, control.options.iterations, control.options.bias_lr
        ('resnet20-qdrop-w2a2-ptq', 2, 2000, 0.01)
    """

    method: str
    w_bits: int
    a_bits: int | None = None
    model: str = "resnet20"
    images: int = 1024
    iterations: int | None = None
    seeds: tuple[int, ...] = (0,)
    correction: str | None = None
    border: str | None = None
    window: float = math.inf
    bias: bool = False
    first_last: str = "8bit"
    order: str = "block"
    gate: bool = True
    start: str = "shipped"
    source: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("model", self.model, MODELS),
            ("method", self.method, METHODS),
            ("first_last", self.first_last, POLICIES),
            ("source", self.source, (None, "full", "sample")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < LEAST:
            raise ValueError(f"images must be a whole number of at least {LEAST}, got {self.images!r}")
        if self.start == "shipped" and self.model != "resnet20":
            raise ValueError(
                f"the shipped checkpoint is of resnet20: give start=, a safetensors file of a {self.model} "
                "that was trained on cifar10"
            )
        self._set("seeds", checked_seeds(self.seeds))
        self._set("a_bits", self.w_bits if self.a_bits is None else self.a_bits)
        if self.method == "aquant" and self.border is None:
            self._set("border", "channel")
        options = self.options  # refuses what the method has no use for
        self._set("iterations", None if options is None else options.iterations)
        self.settings(self.seeds[0])

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def options(self) -> Options | None:
        """How a block is reconstructed; None where none is.

        Raises:
            ValueError: The method reconstructs nothing, and has an option for that.
            TypeError: An override that is no field of Options.
        """
        asked = {"iterations": self.iterations, "bias_lr": BIAS_LR if self.bias else None}
        asked = {name: value for name, value in asked.items() if value is not None} | dict(self.overrides)
        if self.method in LEARNED:
            return dataclasses.replace(LEARNED[self.method], **asked)
        if asked:
            raise ValueError(f"{', '.join(asked)}: options of {', '.join(LEARNED)}; {self.method} has none")
        return None

    def settings(self, seed: int) -> Settings:
        """Return the arguments of :func:`~qviz.nn.ptq.ptq` for one seed, checked."""
        return Settings(
            pair=pair_of(self.w_bits, self.a_bits, None),
            method=self.method,
            first_last=self.first_last,
            order=self.order,
            options=self.options,
            correction=self.correction,
            border=self.border,
            window=self.window,
            gate=self.gate,
            seed=seed,
        )

    @property
    def name(self) -> str:
        """A short name, the same for experiments that differ in details only."""
        return f"{self.model}-{self.method}-w{self.w_bits}a{self.a_bits}-ptq"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def weights(self) -> Path:
        """Return the file of the weights to begin with.

        Raises:
            FileNotFoundError: The folder of shipped data is not complete.
        """
        return checkpoint(SHIPPED) if self.start == "shipped" else Path(self.start).expanduser()

    def sha256(self, source: str) -> str:
        """Return the hash of all that a result depends on: fields, options, weights to begin with, data.

        Where the file of weights lies does not count, what is in it does. Fields that are None do not count
        either, so that one which is added later leaves the hashes of older rows as they are.

        Args:
            source: "full" or "sample": the data that there are.

        Raises:
            FileNotFoundError: There are no such weights.
        """
        options = None if self.options is None else _given(dataclasses.asdict(self.options))
        whole = {
            "ptq": _given(self.to_dict() | {"start": "file", "source": source}),
            "options": options,
            "weights": file_sha256(self.weights()),
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
