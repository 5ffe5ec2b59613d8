"""What the tests of a paper share: awkward numbers, one backward pass, one comparison."""

import numpy as np
import torch
from torch import Tensor

from tests import oracles

VALUE, GRADIENT = 1e-12, 1e-9
KINDS = ("normal", "ties", "integers", "bounds", "subnormal", "saturated", "constant", "zeros")


def numbers(kind: str, scale: float, low: float, high: float, offset: float = 0.0, seed: int = 0) -> Tensor:
    """64 values of one kind for a grid of that step and those end levels, float64."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(64, generator=g, dtype=torch.float64)
    k = torch.arange(64, dtype=torch.float64)
    ends = torch.tensor([low, high], dtype=torch.float64)
    near = torch.cat([ends, torch.nextafter(ends, ends + 1), torch.nextafter(ends, ends - 1)])
    u = {
        "normal": normal * (high - low) / 3 + (high + low) / 2,
        "ties": low - 2 + k % (high - low + 4) + 0.5,
        "integers": low - 2 + k % (high - low + 4),
        "bounds": near.repeat(11)[:64],
        "subnormal": normal * 1e-309,
        "saturated": normal.sign() * torch.exp2(10 * normal.abs()) * (high - low),
        "constant": torch.full_like(normal, low + 0.3),
        "zeros": torch.where(k % 2 == 0, 0.0, -0.0).double(),
    }[kind]
    return u * scale + offset


def run(q, x: Tensor, g: Tensor) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """y, the gradient of x, and those of the parameters by their own names."""
    leaf = x.clone().requires_grad_(True)
    q.zero_grad()
    y = q(leaf)
    y.backward(g)
    named = {k.split(".", 1)[1]: p.grad.numpy() for k, p in q.named_parameters() if p.grad is not None}
    return y.detach().numpy(), leaf.grad.numpy(), named


def close(got, want, tolerance: float, size: float = 1.0) -> None:
    """|got − want| ≤ tolerance (size + |want|)."""
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * size)


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_of(f, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    (dx,) = torch.autograd.grad(f(leaf).sum(), leaf)
    return dx


def difference(f, at: float, h: float = 1e-5) -> float:
    return float(oracles.numeric_gradient(lambda a: f(float(a[0])), np.array([at]), h)[0])
