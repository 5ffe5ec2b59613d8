"""Summary: a tensor sorted once, after which the exact error of any codebook costs K searches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check


@dataclass(frozen=True)
class CellStats:
    """What each code of a quantizer gets: arrays of shape (K,), summed over channels.

    Attributes:
        count: number of values.
        sse: sum of squared errors.
        max_error: largest absolute error (0 for an unused code).
    """

    count: Tensor
    sse: Tensor
    max_error: Tensor


class Summary:
    """Rows of sorted values with prefix sums of x and x².

    With them the number of values, the squared error and the largest error of each cell follow from
    where its borders fall: O(K log n) a codebook instead of O(n). Sliders over 1e6 weights stand on it.

    Args:
        x: any shape, finite, floating point; kept as ``x``, not copied.
        axis: the channel axis (one row each), or None for one row.

    Attributes:
        x: the tensor.
        axis: its channel axis, or None.
        rows: its values sorted, (C, n).
        sum1, sum2: prefix sums of x and x², (C, n + 1).

    Raises:
        TypeError, ValueError: x is not floating point, empty, NaN, infinite, or lacks the axis.

    Example:
        >>> import torch
        >>> from qviz.core.grids import uniform
        >>> s = Summary(torch.tensor([0.2, 0.9, 1.6, 5.0]))
        >>> book = uniform(2, signed=False)
        >>> s.cells(book.levels, book.borders, torch.ones(1)).count.tolist()
        [1, 1, 1, 1]
    """

    def __init__(self, x: Tensor | np.ndarray, axis: int | None = None) -> None:
        x = _check.finite(_check.float_tensor(x)).detach()
        axis = _check.axis(axis, x)
        self.x, self.axis = x, axis
        self._fill(x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1))

    @classmethod
    def of_rows(cls, rows: Tensor) -> Summary:
        """Summarise rows (C, n) that are known to be finite."""
        self = cls.__new__(cls)
        self.x, self.axis = rows, 0
        self._fill(rows)
        return self

    def _fill(self, rows: Tensor) -> None:
        values = rows.cpu().to(_check.compute_dtype(rows)).numpy()
        self.rows = torch.from_numpy(np.ascontiguousarray(np.sort(values, axis=1)))
        zero = torch.zeros(len(self.rows), 1, dtype=torch.float64)
        wide = self.rows.double()
        self.sum1 = torch.cat([zero, wide.cumsum(1)], 1)
        self.sum2 = torch.cat([zero, wide.square().cumsum(1)], 1)

    @property
    def numel(self) -> int:
        """Number of values in all rows."""
        return self.rows.numel()

    def ends(self) -> Tensor:
        """Return the smallest and largest value of each row, float64, shape (C, 2)."""
        return self.rows[:, [0, -1]].double()

    def energy(self) -> float:
        """Return the sum of x² over all rows."""
        return float(self.sum2[:, -1].sum())

    def count_below(self, edges: Tensor) -> Tensor:
        """Count values <= each edge; edges (C, m), any order, -> int64 (C, m)."""
        return torch.searchsorted(self.rows, edges.to(self.rows.dtype).contiguous(), right=True)

    def sse(self, levels: Tensor, borders: Tensor, scales: Tensor) -> Tensor:
        """Return the squared error of each row at each candidate scale.

        Args:
            levels: (K,).
            borders: (K - 1,), in units of u.
            scales: (C, S), > 0.

        Returns:
            float64 (C, S).
        """
        budget = max(1, 2_000_000 // (len(levels) * len(scales)))
        parts = [self._split(levels, borders, part)[1].sum(-1) for part in scales.split(budget, dim=1)]
        return torch.cat(parts, 1)

    def _split(
        self, levels: Tensor, borders: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return count, squared error, cut and scaled levels, each (C, S, K) (cut has K + 1)."""
        c, s = scales.shape
        edges = (scales[:, :, None] * borders.double()).reshape(c, -1)
        cut = self.count_below(edges).view(c, s, -1)
        first = torch.zeros(c, s, 1, dtype=torch.int64)
        cut = torch.cat([first, cut, first + self.rows.shape[1]], -1)
        flat = cut.view(c, -1)
        sum1 = self.sum1.gather(1, flat).view(cut.shape).diff(dim=-1)
        sum2 = self.sum2.gather(1, flat).view(cut.shape).diff(dim=-1)
        count = cut.diff(dim=-1)
        y = scales[:, :, None] * levels.double()
        return count, (sum2 - 2 * y * sum1 + y * y * count).clamp_(min=0), cut, y

    def cells(self, levels: Tensor, borders: Tensor, scale: Tensor) -> CellStats:
        """Return count, squared error and largest error of each code.

        Args:
            levels: (K,).
            borders: (K - 1,), in units of u.
            scale: (1,) or (C,).
        """
        scales = scale.double().reshape(-1, 1).expand(len(self.rows), 1)
        count, sse, cut, y = (part[:, 0] for part in self._split(levels, borders, scales))
        n = self.rows.shape[1]
        first = self.rows.gather(1, cut[:, :-1].clamp(max=n - 1)).double()
        last = self.rows.gather(1, (cut[:, 1:] - 1).clamp(min=0)).double()
        worst = torch.maximum((first - y).abs(), (last - y).abs()) * (count > 0)
        return CellStats(count.sum(0), sse.sum(0), worst.amax(0))

    def error_counts(self, levels: Tensor, borders: Tensor, scale: Tensor, edges: Tensor) -> Tensor:
        """Count the errors y - x in each bin [edge_j, edge_j+1), shape (m - 1,), int64.

        An error in a bin means x in (y - edge_j+1, y - edge_j] inside one cell: two searches a
        level and edge, no pass over x.
        """
        scales = scale.double().reshape(-1, 1).expand(len(self.rows), 1)
        _, _, cut, y = (part[:, 0] for part in self._split(levels, borders, scales))
        at = self.count_below((y[:, :, None] - edges.double()).flatten(1)).view(*y.shape, len(edges))
        at = torch.minimum(torch.maximum(at, cut[:, :-1, None]), cut[:, 1:, None])
        return (at[..., :-1] - at[..., 1:]).sum((0, 1))

    def histogram(self, edges: Tensor) -> Tensor:
        """Count the values in each bin (edge_j, edge_j+1], over all rows, shape (m - 1,), int64."""
        at = self.count_below(edges.double().expand(len(self.rows), -1))
        return at.diff(dim=1).sum(0)
