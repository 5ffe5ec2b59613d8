"""Experiment: which method, bits, network and data, and for how long: what a row of the ledger is about."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from qviz.core._files import file_sha256
from qviz.core._text import some
from qviz.methods.pairs import FLOAT, NAMES, pair
from qviz.nn.convert import POLICIES
from qviz.nn.models import NAMES as MODELS
from qviz.nn.runs.schedule import DATA, SIZES, SOURCES, schedule
from qviz.nn.train import TrainConfig
from qviz.nn.weights import PUBLISHED
from qviz.shipped import checkpoint

SHIPPED = "resnet20_fp32.safetensors"
STARTS = ("shipped", "published", "scratch", "made")
OF_QVIZ = {"size": "laptop", "images": None, "held_out": True, "source": None}
"""Fields, with their defaults, that say which part of qviz's data is taken, and for how long."""
SENSITIVITIES = ("fisher", "loss_rise")


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds of an experiment.

    Raises:
        ValueError: There is none, one is no whole number from 0 to 2**32 - 1, or two are equal.
    """
    found = tuple(seeds)
    if not found or any(isinstance(s, bool) or not isinstance(s, int) or not 0 <= s < 2**32 for s in found):
        raise ValueError(f"seeds must be whole numbers from 0 to 2**32 - 1, one or more, got {seeds!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"seeds must differ, because equal ones give equal runs, got {seeds!r}")
    return found


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A method on a network and a data set, at a size, with one or more seeds.

    Attributes:
        recipe: A name of ``qviz.recipes.pair``.
        w_bits: Bits of the weights.
        a_bits: Bits of the activations; None for the same as the weights.
        model: A name of ``qviz.nn.models``, or with ``make`` one of your own.
        data: "cifar10" or "imagenet", or with ``loaders`` a name of your own.
        size: "smoke" (a minute, shows that all of it runs), "laptop" (two cores) or "full" (the paper's
            schedule).
        seeds: Whole numbers, all different; one run each.
        first_last: What becomes of the first and last layer, as for ``convert``.
        start: The weights to begin with: "shipped" (the FP32 ResNet-20 in data/), "published" (torchvision's
            file), "scratch", or the path of a safetensors file; None for the usual one. A network of your own
            starts as it is "made", or from a file.
        average_bits: Mixed precision: weight bits from ``candidates`` by layer, this many on average.
        candidates: The bits to choose from.
        sensitivity: "fisher" or "loss_rise".
        images: Train on so many images only, classes taking turns; None for all.
        held_out: Whether to keep the images of "val" out of the training; False trains on them too and
            chooses no best epoch.
        source: "full" or "sample" to insist on one; None for the full set if it is there.
        weight_options: Further arguments of the weights' recipe.
        act_options: The same for activations.
        overrides: Fields of the TrainConfig to change.
        make: A function that returns a network of your own, in floating point, made anew. What random
            weights it has depends on the seed. The ledger knows it by ``model`` alone, so another network
            needs another name.
        loaders: A function from a seed to loaders of training, held-out (or None) and test samples of your
            own, as for :func:`~qviz.nn.train.fit`; targets are classes. The ledger knows them by ``data``
            alone. The schedule is that of the size "laptop" with ``overrides``.

    Raises:
        ValueError, TypeError: A name that is unknown, bits that the recipe does not have.

    Example:
        >>> daq = Experiment(recipe="daq", w_bits=2)
        >>> daq.name, daq.config("sample").epochs, daq.start
        ('resnet20-daq-w2a2-laptop', 8, 'shipped')
    """

    recipe: str
    w_bits: int = FLOAT
    a_bits: int | None = None
    model: str = "resnet20"
    data: str = "cifar10"
    size: str = "laptop"
    seeds: tuple[int, ...] = (0,)
    first_last: str = "fp"
    start: str | None = None
    average_bits: float | None = None
    candidates: tuple[int, ...] = (2, 3, 4)
    sensitivity: str = "fisher"
    images: int | None = None
    held_out: bool = True
    source: str | None = None
    weight_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    act_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    make: Callable[[], nn.Module] | None = None
    loaders: Callable[[int], tuple[Iterable[Any], Iterable[Any] | None, Iterable[Any]]] | None = None

    def __post_init__(self) -> None:
        self._check_own()
        for name, value, allowed in (
            ("recipe", self.recipe, NAMES),
            ("model", self.model, MODELS if self.make is None else (self.model,)),
            ("data", self.data, DATA if self.loaders is None else (self.data,)),
            ("size", self.size, SIZES),
            ("first_last", self.first_last, POLICIES),
            ("sensitivity", self.sensitivity, SENSITIVITIES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        seeds = checked_seeds(self.seeds)
        if self.images is not None and (
            isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1
        ):
            raise ValueError(f"images must be a whole number of at least 1, or None, got {self.images!r}")
        self._set("seeds", seeds)
        self._set("candidates", tuple(self.candidates))
        if self.recipe == "fp32":
            self._set("w_bits", FLOAT)
        self._set("a_bits", self.w_bits if self.a_bits is None else self.a_bits)
        self._set("start", self.start or self._usual_start())
        if self.start == "shipped" and (self.model, self.data) != ("resnet20", "cifar10"):
            raise ValueError(
                f"the shipped checkpoint is of resnet20 on cifar10, got {self.model}, {self.data}"
            )
        if self.start == "published" and self.model not in PUBLISHED:
            raise ValueError(
                f"no weights of {self.model} are published; there are those of {some([*PUBLISHED])}"
            )
        if self.average_bits is not None and self.recipe == "fp32":
            raise ValueError(f"average_bits={self.average_bits} needs a method that quantizes, got fp32")
        if self.average_bits is not None and not (
            min(self.candidates) <= self.average_bits <= max(self.candidates)
        ):
            few = some(list(map(str, self.candidates)), most=9)
            raise ValueError(f"layers have {few} bits, so average_bits cannot be {self.average_bits!r}")
        self.pair()  # refuses bits and options here
        self.config("sample")

    def _check_own(self) -> None:
        for what, name, names in (("make", "model", MODELS), ("loaders", "data", DATA)):
            own, value = getattr(self, what), getattr(self, name)
            if own is None:
                continue
            if not callable(own):
                raise TypeError(f"{what} must be a function, got {own!r}")
            if value in names or not (isinstance(value, str) and re.fullmatch(r"[\w.+-]+", value)):
                raise ValueError(
                    f"with {what}, {name} must be a name of your own, of letters, digits and . _ + -, "
                    f"got {value!r}"
                )
        allowed = ("made",) if self.make is not None else STARTS[:3]
        if self.start in STARTS and self.start not in allowed:
            raise ValueError(f"start must be {', '.join(allowed)} or a file, got {self.start!r}")
        if self.loaders is not None:
            if self.make is None:
                raise ValueError(f"loaders of your own need a network of your own (make), got {self.model!r}")
            for name, default in OF_QVIZ.items():
                if (value := getattr(self, name)) != default:
                    raise ValueError(f"{name}={value!r} is for the data of qviz, not for loaders of your own")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _usual_start(self) -> str:
        if self.make is not None:
            return "made"
        if self.recipe == "fp32" or (self.model == "resnet20" and self.data != "cifar10"):
            return "scratch"
        return "shipped" if self.model == "resnet20" else "published"

    def pair(self) -> Any:
        """Return the pair of recipes."""
        return pair(
            self.recipe,
            self.w_bits,
            self.a_bits,
            weight_options=self.weight_options,
            act_options=self.act_options,
        )

    def config(self, source: str, seed: int | None = None) -> TrainConfig:
        """Return the training configuration.

        Args:
            source: "full" or "sample": which data there are.
            seed: The seed; by default the first one.
        """
        fields = schedule(self.recipe, self.data, self.size, source, self.w_bits, self.model)
        return TrainConfig(**(fields | {"seed": self.seeds[0] if seed is None else seed} | self.overrides))

    @property
    def schedule_source(self) -> str:
        """Where the full schedule comes from."""
        return SOURCES.get(self.recipe, "INFERRED: as asq")

    @property
    def name(self) -> str:
        """A short name, the same for experiments that differ in details only."""
        if self.recipe == "fp32":
            return f"{self.model}-fp32-{self.size}"
        weights = f"{self.average_bits:g}" if self.average_bits is not None else self.w_bits
        return f"{self.model}-{self.recipe}-w{weights}a{self.a_bits}-{self.size}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values; functions of your own are known by the names beside them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["make"], fields["loaders"]
        return json.loads(json.dumps(fields))

    def weights(self) -> str | Path | None:
        """Return the file, or the address, of the weights to begin with; None for random ones.

        Raises:
            FileNotFoundError: The folder of shipped data is not complete.
        """
        if self.start == "shipped":
            return checkpoint(SHIPPED)
        if self.start == "published":
            return PUBLISHED[self.model]
        return None if self.start in ("scratch", "made") else Path(self.start).expanduser()

    def sha256(self, source: str) -> str:
        """Return the hash of all that a result depends on: fields, configuration, weights to begin with.

        Where a file of weights lies does not count, what is in it does.

        Raises:
            FileNotFoundError: There are no such weights.
        """
        config = {
            k: v for k, v in self.config(source).to_dict().items() if k not in ("seed", "checkpoint_every")
        }
        whole = {"experiment": self.to_dict(), "config": config, "source": source}
        weights = self.weights()
        if isinstance(weights, Path):
            whole["weights"] = file_sha256(weights)
            whole["experiment"]["start"] = "file"
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
