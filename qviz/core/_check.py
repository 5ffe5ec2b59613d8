"""What every public entry checks before it computes: one sentence, with the received value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def float_tensor(x: Tensor | np.ndarray | list | tuple, name: str = "x") -> Tensor:
    """Return ``x`` as a non-empty floating-point tensor; a tensor comes back as it is.

    Raises:
        TypeError: ``x`` is not an array of floating-point numbers (integers are refused: a cast
            chosen in silence hides mistakes).
        ValueError: ``x`` is empty.
    """
    if isinstance(x, (list, tuple)):
        x = np.asarray(x, dtype=np.float64)
    if isinstance(x, np.ndarray):
        if x.dtype.kind != "f" or x.dtype.itemsize > 8:
            raise TypeError(f"{name} must hold floating-point numbers of up to 64 bits, got dtype {x.dtype}")
        shape, native = x.shape, x.dtype.newbyteorder("=")
        x = torch.from_numpy(np.require(x, native, ["C", "W", "O"])).view(shape)  # copies what is read-only
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor or an array, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {x.dtype}")
    if x.numel() == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")
    return x


def finite(x: Tensor, name: str = "x") -> Tensor:
    """Return ``x``; raise ValueError with the count when a value is NaN or infinite."""
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(f"{name} holds {bad} of {x.numel()} values that are NaN or infinite")
    return x


def increasing(values: Sequence[float] | np.ndarray | Tensor, what: str) -> Tensor:
    """Return a fresh float64 vector of at most 256 (a code is one byte) strictly increasing numbers.

    Raises:
        TypeError: ``values`` are no numbers.
        ValueError: they are no list, too many, not finite, or do not increase.
    """
    try:  # in float64 at once: a list must not pass through float32
        v = torch.as_tensor(values, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError) as problem:
        raise TypeError(f"{what} must be a list of numbers, got {values!r}") from problem
    if v.ndim != 1 or v.numel() == 0:
        raise ValueError(f"{what} must be a non-empty list of numbers, got shape {tuple(v.shape)}")
    if v.numel() > 256:
        raise ValueError(f"a codebook holds at most 256 {what} (one byte a code), got {v.numel()}")
    if not torch.isfinite(v).all():
        raise ValueError(f"{what} must be finite, got {v[~torch.isfinite(v)][0].item()}")
    gap = v[1:] - v[:-1]
    if (gap <= 0).any():
        i = int((gap <= 0).nonzero()[0])
        kind = "duplicate" if gap[i] == 0 else "unsorted"
        raise ValueError(f"{kind} {what}: {v[i].item()} is followed by {v[i + 1].item()}")
    return v


def codes(values: Tensor, count: int) -> None:
    """Refuse ``values`` that are not codes of a codebook of ``count`` levels.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: empty, or a code has no level.
    """
    integers = isinstance(values, Tensor) and not (values.is_floating_point() or values.is_complex())
    if not integers or values.dtype == torch.bool:
        raise TypeError(
            f"codes must be an integer tensor, got {getattr(values, 'dtype', type(values).__name__)}"
        )
    if values.numel() == 0:
        raise ValueError(f"codes is empty: shape {tuple(values.shape)}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= count:
        raise ValueError(f"codes go from {low} to {high}, but the codebook has {count} levels")


def bits(value: int, low: int, high: int, what: str) -> int:
    """Return ``value`` when it is a whole number of bits in [low, high].

    Raises:
        TypeError: not an int (True and 4.0 are refused too).
        ValueError: outside the interval.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what}: bits must be an int, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what}: bits must be between {low} and {high}, got {value}")
    return int(value)


def axis(value: int | None, x: Tensor, channels: int | None = None) -> int | None:
    """Return ``value`` as a non-negative axis of ``x`` (None stays None).

    Raises:
        ValueError: ``x`` has no such axis, or its length there is not ``channels``.
    """
    if value is None:
        return None
    if not -x.ndim <= value < x.ndim:
        raise ValueError(f"axis {value} does not exist in a tensor of shape {tuple(x.shape)}")
    value %= x.ndim
    if channels is not None and x.shape[value] != channels:
        raise ValueError(
            f"axis {value} of shape {tuple(x.shape)} has {x.shape[value]} channels, "
            f"but the range was made for {channels}"
        )
    return value


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for float64 and float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
