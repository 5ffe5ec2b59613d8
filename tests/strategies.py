"""Hypothesis strategies: the tensors and codebooks that a quantizer meets, the awkward ones above all."""

import math

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from qviz import Codebook, apot, post, pot, uniform

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = ("contiguous", "transposed", "strided", "channels_last", "expanded")
KINDS = ("normal", "ties", "integers", "subnormal", "tiny", "huge", "constant", "zeros", "sparse", "spread")

_N = settings().max_examples  # of the loaded profile
FEW = settings(max_examples=_N * 2 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MORE = settings(max_examples=_N * 6 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def values(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Return finite values of one kind, drawn in float64 and cast to dtype."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=g, dtype=torch.float64)
    info = torch.finfo(dtype)
    x = {
        "normal": normal,
        "ties": (4 * normal).round() / 2,
        "integers": (4 * normal).round(),
        "subnormal": normal * info.smallest_normal / 8,
        "tiny": normal * info.smallest_normal * 4,
        "huge": (normal / 4).clamp(-1, 1) * info.max,
        "constant": torch.full_like(normal, 0.3 + seed % 7),
        "zeros": torch.zeros_like(normal),
        "sparse": normal.clamp(min=0),
        "spread": normal.sign() * torch.exp2(6 * normal.roll(1)),
    }[kind]
    return x.clamp(info.min, info.max).to(dtype)


def lay_out(x: Tensor, layout: str) -> Tensor:
    """Return the same values in another memory layout; "expanded" repeats the first slice instead."""
    if layout == "transposed" and x.ndim >= 2:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided" and x.ndim >= 1:
        return torch.stack([x, x + 1], dim=-1)[..., 0]
    if layout == "channels_last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "channels_last" and x.ndim == 5:
        return x.contiguous(memory_format=torch.channels_last_3d)
    if layout == "expanded" and x.ndim >= 1:
        return x[:1].expand_as(x)
    return x


@st.composite
def tensors(draw, *, min_dims=0, max_dims=5, dtypes=DTYPES, kinds=KINDS, finite=True):
    """Tensors of 0 to 5 dimensions, any float dtype and layout; with NaN and infinities if not finite."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=min_dims, max_size=max_dims)))
    x = values(draw(st.sampled_from(kinds)), shape, draw(st.sampled_from(dtypes)), draw(st.integers(0, 999)))
    if not finite:
        flat = x.reshape(-1)
        for bad in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=4)):
            flat[draw(st.integers(0, flat.numel() - 1))] = bad
    return lay_out(x, draw(st.sampled_from(LAYOUTS)))


def standard_books() -> dict[str, Codebook]:
    """Every builder that needs no samples, at every bit width it has."""
    books: dict[str, Codebook] = {}
    for bits in range(1, 9):
        books[f"uniform{bits}"] = uniform(bits)
        books[f"unsigned{bits}"] = uniform(bits, signed=False)
        if bits >= 2:
            books[f"narrow{bits}"] = uniform(bits, narrow=True)
            books[f"apot{bits}"] = apot(bits)
            books[f"pot{bits}"] = pot(bits)
            books[f"post{bits}"] = post(bits)
        if 2 <= bits <= 7:
            books[f"pot{bits}-paper"] = pot(bits, grid="paper")
            books[f"post{bits}-paper"] = post(bits, grid="paper")
    return books


BOOKS = standard_books()


@st.composite
def custom_books(draw):
    """User codebooks: uneven knots, one knot alone, more than 64, levels that are not the knots."""
    size = draw(st.sampled_from([1, 2, 3, 5, 16, 64, 65, 66, 200, 256]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    knots = (torch.rand(size, generator=g, dtype=torch.float64) + 0.05).cumsum(0)
    knots = (knots - knots[size // 2] * draw(st.sampled_from([0.0, 1.0]))) * draw(st.sampled_from([0.1, 1.0]))
    if draw(st.booleans()):
        return Codebook(knots, torch.rand(size, generator=g, dtype=torch.float64).add(0.01).cumsum(0) - 1)
    return Codebook(knots)


def books():
    """Any codebook."""
    return st.one_of(st.sampled_from(sorted(BOOKS)).map(BOOKS.__getitem__), custom_books())


def scales():
    """Steps that are exact powers of two (so that ties occur) and steps that are not."""
    return st.one_of(st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.floats(1e-3, 1e3))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in shape, dtype and every value, NaN for NaN; −0 equals 0."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def steps_around(centres: Tensor, ulps: int) -> Tensor:
    """Return each centre and its ``ulps`` nearest floats on either side, shape (n, 2 · ulps + 1)."""
    columns = [centres]
    below = above = centres
    for _ in range(ulps):
        below = torch.nextafter(below, torch.full_like(below, -math.inf))
        above = torch.nextafter(above, torch.full_like(above, math.inf))
        columns = [below, *columns, above]
    return torch.stack(columns, dim=-1)
