"""Settings: what a post-training quantization is to do, checked before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from qviz.methods.lsq import lsq
from qviz.methods.lsq_plus import lsq_plus
from qviz.methods.method import Method, Pair, outputs
from qviz.nn.ptq.borders import KINDS
from qviz.nn.ptq.options import Options

LEARNED = {"brecq": Options(), "qdrop": Options(drop=0.5), "aquant": Options(drop=0.5)}
"""The methods that reconstruct, and how."""

WHOLE = ("closed-form", "adaround")
"""The methods that go through all layers in one stage."""

METHODS = ("nearest", *WHOLE, *LEARNED)

CORRECTIONS = ("mean", "std")

LEAST = 8
"""The fewest images: a quarter of them is held out."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of :func:`~qviz.nn.ptq.front.ptq`, described there.

    Raises:
        ValueError, TypeError: A name is unknown, bits are out of range, or arguments exclude one another.
    """

    pair: Pair
    method: str = "qdrop"
    first_last: str = "8bit"
    skip: str | Sequence[str] = ()
    order: str = "block"
    options: Options | None = None
    correction: str | None = None
    border: str | None = None
    window: float = math.inf
    gate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.order not in ("block", "layer"):
            raise ValueError(f'order must be "block" or "layer", got {self.order!r}')
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        if self.options is not None and self.method not in LEARNED:
            raise ValueError(f"options are those of {', '.join(LEARNED)}; {self.method} has none")
        if self.correction not in (None, *CORRECTIONS):
            raise ValueError(f"correction must be one of {', '.join(CORRECTIONS)}, got {self.correction!r}")
        if self.correction and self.method != "nearest":
            raise ValueError(f"{self.method} needs no correction; nearest has it, got {self.correction!r}")
        if self.border is not None and self.method != "aquant":
            raise ValueError(f"{self.method} has no border; aquant has, got border={self.border!r}")
        if self.window != math.inf and self.method != "aquant":
            raise ValueError(f"{self.method} has no border; aquant has, got window={self.window}")
        if self.order == "layer" and self.method not in LEARNED:
            raise ValueError(f"order is that of {', '.join(LEARNED)}; {self.method} learns no blocks")
        if self.border not in (None, *KINDS):
            raise ValueError(f"border must be one of {', '.join(KINDS)}, got {self.border!r}")

    @property
    def learning(self) -> Options:
        """How a block is learned."""
        return self.options or LEARNED[self.method]

    def difference(self, other: Settings) -> str | None:
        """Return the name of a field in which the two differ, or None."""
        return next((f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)), None)


def pair_of(w_bits: int | None, a_bits: int | None, pair: Pair | None) -> Pair:
    """Return the pair that is given, or uniform quantizers at the given bits.

    Raises:
        ValueError: Neither or both are given, or bits are out of range.
        TypeError: ``pair`` is no Pair.
    """
    if pair is None:
        if w_bits is None:
            raise ValueError("give w_bits and a_bits, or a pair")
        return UNIFORM.pair("uniform", w_bits, w_bits if a_bits is None else a_bits, {}, {})
    if not isinstance(pair, Pair):
        raise TypeError(f"pair must be a Pair as qviz.recipes.pair returns it, got {pair!r}")
    if w_bits is not None or a_bits is not None:
        raise ValueError(f"the pair has the bits: leave out w_bits={w_bits} and a_bits={a_bits}")
    return pair


def checked(images: Tensor) -> Tensor:
    """Return the images after a look at them.

    Raises:
        TypeError: They are no floating-point tensor.
        ValueError: They are too few to hold a quarter out, or hold NaN or infinity.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating-point tensor, samples in axis 0, got {got}")
    if images.ndim < 2 or len(images) < LEAST:
        raise ValueError(
            f"images must be at least {LEAST}, a quarter of which is held out, got {tuple(images.shape)}"
        )
    if wrong := int((~images.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"{wrong} of {len(images)} images hold NaN or infinity")
    return images


def split(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the images to learn from and the quarter that is held out, drawn at random."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
    held = len(images) // 4
    return images[order[held:]], images[order[:held]]


def _weight(bits: int, layer: nn.Module, **options: object) -> object:
    return lsq_plus(bits, channels=outputs(layer), **{"start": "mse", **options})


def _act(bits: int, layer: nn.Module, signed: bool, **options: object) -> object:
    return lsq(bits, signed=signed, **{"start": "mse", **options})


UNIFORM = Method(_weight, _act)
"""Weights: uniform levels with a step and an offset for each output channel. Inputs: uniform levels. All
start at the least squared error."""
