"""Windows: reconstruct a block on random parts of its map, where a part of the input is enough for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Squares of half the height and width of a map, and the rim that the layers read beyond them.

    A square at random positions, with its rim, costs about half of a whole map; over many steps every place
    is seen. At the map's own edge no rim is needed: there the layers pad with zeros as they always do.

    Attributes:
        height, width: Of the output's window.
        stride: The input's pixels for one of the output.
        rim: Pixels of the input around it, a multiple of the stride.
    """

    height: int
    width: int
    stride: int
    rim: int

    @classmethod
    def of(cls, block: Callable[[Tensor], Tensor], x: Tensor) -> Windows | None:
        """Return the windows of a block, or None where none are equal to the whole or none are smaller.

        Args:
            block: In floating point.
            x: A few inputs of it.
        """
        if x.ndim != 4:
            return None
        with torch.no_grad():
            y = block(x)
            if y.ndim != 4 or x.shape[2] % y.shape[2] or x.shape[2] // y.shape[2] != x.shape[3] // y.shape[3]:
                return None
            stride = x.shape[2] // y.shape[2]
            for rim in range(0, x.shape[2] // 4, stride):
                made = cls((y.shape[2] + 1) // 2, (y.shape[3] + 1) // 2, stride, rim)
                if all(made._equal(block, x, y, at) for at in made._trials(y)):
                    return made
        return None

    def _trials(self, y: Tensor) -> list[tuple[int, int]]:
        rows, columns = y.shape[2] - self.height, y.shape[3] - self.width
        return [(0, columns), (rows // 2, columns // 2), (rows, 0), (rows // 3, columns // 4)]

    def _equal(self, block: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, at: tuple[int, int]) -> bool:
        part, inside = self.cut(x, at)
        want = self.target(y, at)
        got = block(part)[(..., *inside)]
        return got.shape == want.shape and torch.allclose(
            got, want, rtol=1e-4, atol=1e-4 * float(y.abs().max())
        )

    def draw(self, y: Tensor, generator: torch.Generator) -> tuple[int, int]:
        """Return the place of a window in the output, anywhere with the same probability."""
        rows, columns = y.shape[2] - self.height, y.shape[3] - self.width
        return tuple(int(torch.randint(n + 1, (), generator=generator)) for n in (rows, columns))

    def cut(self, x: Tensor, at: tuple[int, int]) -> tuple[Tensor, tuple[slice, slice]]:
        """Return the part of the input for a window, and where in its output the window lies."""
        spans, inside = [], []
        for start, size, whole in zip(at, (self.height, self.width), x.shape[2:], strict=True):
            first = max(0, start * self.stride - self.rim)
            last = min(whole, (start + size) * self.stride + self.rim)
            spans.append(slice(first, last))
            inside.append(slice(start - first // self.stride, start - first // self.stride + size))
        return x[:, :, spans[0], spans[1]], (inside[0], inside[1])

    def target(self, y: Tensor, at: tuple[int, int]) -> Tensor:
        """Return the window of the output."""
        return y[:, :, at[0] : at[0] + self.height, at[1] : at[1] + self.width]
