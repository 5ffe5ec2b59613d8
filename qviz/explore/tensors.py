"""Tensors to explore: synthetic distributions and the shipped real ones, made when first asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz import shipped
from qviz.core import _check
from qviz.core.summary import Summary

BIG = "Gaussian, 1e6 values"
YOURS = "your tensor"


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor that can be had.

    Attributes:
        make: Returns it.
        axis: Its channel axis, or None.
        about: What it is, in one sentence.
    """

    make: Callable[[], Tensor]
    axis: int | None
    about: str


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _laplace() -> Tensor:
    u = torch.rand(100, 1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    return (-torch.sign(u) * torch.log1p(-2 * u.abs())).float()


def _bimodal() -> Tensor:
    x = 0.35 * _normal(100, 1000, seed=2)
    return torch.cat([x[:, :500] - 1.0, x[:, 500:] + 1.0], 1)


def _outliers() -> Tensor:
    x = _normal(100, 1000, seed=3)
    x[:, ::200] *= 8.0
    return x


@functools.cache
def _shipped() -> dict[str, Source]:
    """Return the sources once, so that all explorers share their summaries."""
    found = {
        BIG: Source(
            lambda: _normal(1000, 1000),
            0,
            "standard normal, 1000 channels of 1000 values",
        ),
        "Laplace": Source(_laplace, 0, "Laplace with scale 1, 100 channels of 1000 values"),
        "bimodal": Source(_bimodal, 0, "two normals at -1 and +1, 100 channels of 1000 values"),
        "with outliers": Source(_outliers, 0, "normal, one value in 200 eight times as large"),
    }
    for name in shipped.names():
        info = shipped.info(name)
        found[f"{name} (real)"] = Source(
            lambda name=name: shipped.tensor(name), info.channel_axis, info.description
        )
    return found


def sources() -> dict[str, Source]:
    """Return every tensor that ships with the package, by the name the explorers show."""
    return dict(_shipped())


class Offer(dict[str, Source]):
    """The tensors that an explorer offers, by name.

    Attributes:
        problem: Why a user's own tensor is not among them, in a sentence; "" if nothing was left out.
    """

    problem = ""


def offered(x: Tensor | np.ndarray | None = None) -> Offer:
    """Return the tensors that an explorer offers: a user's own first, if there is one, then those that ship.

    One's own that cannot be shown (empty, NaN, infinite, not floating point) is left out; the offer says why.
    """
    problem, mine = "", {}
    try:
        mine = {} if x is None else {YOURS: own(x)}
    except (TypeError, ValueError) as error:
        problem = f"Your tensor is left out: {error}."
    offer = Offer(mine | sources())
    offer.problem = problem
    return offer


def first(offer: Offer, name: str | None, usual: str = BIG) -> str:
    """Return the name of the tensor to start with: ``name``; without one a user's own, or the usual one.

    Raises:
        ValueError: There is no such tensor.
    """
    if name is None or (name == YOURS and offer.problem):
        name = YOURS if YOURS in offer else usual
    if name not in offer:
        raise ValueError(f"unknown tensor {name!r}; there are {list(offer)}")
    return name


@functools.lru_cache(maxsize=4)
def summary(source: Source, axis: int | None = None) -> Summary:
    """Return the summary of a source; the last four are kept, for all explorers (1e6 values take 24 MB)."""
    return Summary(source.make(), axis)


def own(x: Tensor | np.ndarray) -> Source:
    """Return a user's tensor as a source; channels on axis 0 where it has more than one axis.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is empty, NaN or infinite.
    """
    x = _check.finite(_check.float_tensor(x)).detach()
    return Source(lambda: x, 0 if x.ndim > 1 else None, f"shape {tuple(x.shape)}")
