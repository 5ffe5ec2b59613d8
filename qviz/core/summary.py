"""Summary: a tensor sorted once, after which the exact error of any codebook costs K searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qviz.core import _check

SUMS_BELOW = 1 << 22
"""Up to this many values the sums of x and x² are kept for each value (16 bytes), above for every 64th."""
STRIDE = 64


@dataclass(frozen=True)
class CellStats:
    """What each code of a quantizer gets: arrays of shape (K,), summed over channels.

    Attributes:
        count: The number of values.
        sse: The sum of squared errors.
        max_error: The largest absolute error (0 for an unused code).
    """

    count: Tensor
    sse: Tensor
    max_error: Tensor


class Summary:
    """Rows of sorted values with prefix sums of x and x².

    With them the number of values, the squared error and the largest error of each cell follow from
    where its borders fall: O(K log n) a codebook instead of O(n). Sliders over 1e6 weights stand on it.
    A summary takes 20 bytes a float32 value up to 4 million of them, and 4.3 bytes a value above: there the
    sums are kept for every 64th value and completed when they are asked for, as exactly.

    Args:
        x: The tensor, any shape, finite, floating point; kept as ``x``, not copied.
        axis: The channel axis (one row each), or None for one row.

    Attributes:
        x: The tensor.
        axis: Its channel axis, or None.
        rows: Its values sorted, shape (C, n).

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
        """Summarize rows (C, n) that are known to be finite."""
        self = cls.__new__(cls)
        self.x, self.axis = rows, 0
        self._fill(rows)
        return self

    def _fill(self, rows: Tensor) -> None:
        values = rows.cpu().to(_check.compute_dtype(rows)).numpy()
        self.rows = torch.from_numpy(np.ascontiguousarray(np.sort(values, axis=1)))
        self._stride = 1 if self.rows.numel() <= SUMS_BELOW else STRIDE
        parts = self.rows.shape[1] // self._stride
        sums = torch.zeros(2, len(self.rows), parts + 1, dtype=torch.float64)
        for row, sum1, sum2 in zip(self.rows, *sums, strict=True):
            for begin in range(0, parts, SUMS_BELOW // STRIDE):  # in pieces: a piece in float64 stays small
                piece = row[begin * self._stride : min(begin + SUMS_BELOW // STRIDE, parts) * self._stride]
                wide = piece.double().view(-1, self._stride)
                sum1[begin + 1 : begin + 1 + len(wide)] = wide.sum(1)
                sum2[begin + 1 : begin + 1 + len(wide)] = wide.square().sum(1)
        self._sums = sums.cumsum_(-1)

    def _sums_at(self, cut: Tensor) -> Tensor:
        """Return the sums of the first ``cut`` values and of their squares; (C, m) -> float64 (2, C, m)."""
        part = cut // self._stride
        sums = self._sums.gather(2, part.expand(2, -1, -1))
        if self._stride > 1:  # the values between the last kept sum and the cut
            at = (part * self._stride)[..., None] + torch.arange(self._stride)
            rest = (
                self.rows.gather(1, at.clamp(max=self.rows.shape[1] - 1).flatten(1)).view(at.shape).double()
            )
            rest = rest.where(at < cut[..., None], 0.0)
            sums = sums + torch.stack([rest.sum(-1), rest.square().sum(-1)])
        return sums

    @property
    def numel(self) -> int:
        """Number of values in all rows."""
        return self.rows.numel()

    def ends(self) -> Tensor:
        """Return the smallest and largest value of each row, float64, shape (C, 2)."""
        return self.rows[:, [0, -1]].double()

    def energy(self) -> float:
        """Return the sum of x² over all rows."""
        n = torch.full((len(self.rows), 1), self.rows.shape[1])
        return float(self._sums_at(n)[1].sum())

    def count_below(self, edges: Tensor) -> Tensor:
        """Count values <= each edge; edges (C, m), any order, -> int64 (C, m)."""
        return torch.searchsorted(self.rows, edges.to(self.rows.dtype).contiguous(), right=True)

    def sse(self, levels: Tensor, borders: Tensor, scales: Tensor) -> Tensor:
        """Return the squared error of each row at each candidate scale.

        Args:
            levels: The levels, shape (K,).
            borders: The borders, in units of u, shape (K - 1,).
            scales: The candidates of each row, > 0, shape (C, S).

        Returns:
            float64, shape (C, S).
        """
        return self._in_parts(levels, scales, lambda part: self._split(levels, borders, part)[1].sum(-1))

    def sse_by_level(self, levels: Tensor, borders: Tensor, scales: Tensor) -> Tensor:
        """Return what each level adds to :meth:`sse`, float64, shape (C, S, K)."""
        return self._in_parts(levels, scales, lambda part: self._split(levels, borders, part)[1])

    def _in_parts(self, levels: Tensor, scales: Tensor, error: Callable[[Tensor], Tensor]) -> Tensor:
        budget = max(1, 2_000_000 // (len(levels) * len(scales) * self._stride))
        return torch.cat([error(part) for part in scales.split(budget, dim=1)], 1)

    def _split(
        self, levels: Tensor, borders: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return count, squared error, cut and scaled levels, each (C, S, K) (cut has K + 1)."""
        c, s = scales.shape
        edges = (scales[:, :, None] * borders.double()).reshape(c, -1)
        cut = self.count_below(edges).view(c, s, -1)
        first = torch.zeros(c, s, 1, dtype=torch.int64)
        cut = torch.cat([first, cut, first + self.rows.shape[1]], -1)
        sum1, sum2 = self._sums_at(cut.view(c, -1)).view(2, *cut.shape).diff(dim=-1)
        count = cut.diff(dim=-1)
        y = scales[:, :, None] * levels.double()
        return count, (sum2 - 2 * y * sum1 + y * y * count).clamp_(min=0), cut, y

    def cells(self, levels: Tensor, borders: Tensor, scale: Tensor) -> CellStats:
        """Return count, squared error and largest error of each code.

        Args:
            levels: The levels, shape (K,).
            borders: The borders, in units of u, shape (K - 1,).
            scale: One scale, shape (1,), or one for each row, shape (C,).
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
