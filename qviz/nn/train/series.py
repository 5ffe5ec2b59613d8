"""Series: numbers recorded over the steps of a run, thinned out so that they never outgrow their budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Series:
    """Rows of float32 numbers with the steps at which they were taken.

    Kept are the steps that are multiples of ``stride``, and the one that a run ends with. When a row no
    longer fits into ``budget``, the stride doubles and every second row goes: what is kept depends on the
    steps alone, so that a resumed run keeps the same rows as an uninterrupted one.

    Args:
        columns: How many numbers there are under each name.
        stride: Steps between rows at first, >= 1.
        budget: Bytes that steps and values may take together; two rows are always kept, and the last step's.

    Attributes:
        steps: The steps of the rows, a list.
        stride: The present distance between them.
    """

    def __init__(self, columns: Mapping[str, int], *, stride: int = 1, budget: int = 1_000_000) -> None:
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        self.columns, self.stride, self.budget = dict(columns), int(stride), int(budget)
        self.steps: list[int] = []
        self._rows: list[np.ndarray] = []
        ends = np.cumsum([0, *self.columns.values()]).tolist()
        self._at = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(self.columns)}
        self.width = ends[-1]

    def wants(self, step: int, *, last: bool = False) -> bool:
        """Whether a row of that step is kept: by :meth:`append`, or as the ``last`` one by :meth:`close`."""
        return self.width > 0 and (last or step % self.stride == 0)

    def append(self, step: int, row: np.ndarray) -> None:
        """Add the row of a step, if :meth:`wants` it.

        Raises:
            ValueError: The row has another length than the columns, or the step does not come later.
        """
        if self.wants(step):
            self._add(step, row)
            while self.nbytes > self.budget and len(self.steps) > 2:
                self._thin()

    def close(self, step: int, row: np.ndarray) -> None:
        """Add the row of the step that a run ends with, whether or not :meth:`append` would keep it.

        Raises:
            ValueError: As :meth:`append`.
        """
        self.append(step, row)
        if self.wants(step, last=True) and self.steps[-1:] != [step]:
            self._add(step, row)

    def reopen(self) -> None:
        """Drop a row that only :meth:`close` kept, so that the run can go on to a later step."""
        if self.steps and self.steps[-1] % self.stride:
            del self.steps[-1], self._rows[-1]

    def _add(self, step: int, row: np.ndarray) -> None:
        row = np.asarray(row, dtype=np.float32)
        if row.shape != (self.width,):
            raise ValueError(f"a row has {self.width} numbers, got shape {row.shape}")
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"step {step} does not come after step {self.steps[-1]}")
        self.steps.append(int(step))
        self._rows.append(row)

    def _thin(self) -> None:
        self.stride *= 2
        keep = [i for i, step in enumerate(self.steps) if step % self.stride == 0]
        self.steps = [self.steps[i] for i in keep]
        self._rows = [self._rows[i] for i in keep]

    @property
    def nbytes(self) -> int:
        """Bytes of steps and values."""
        return len(self.steps) * (8 + 4 * self.width)

    def __len__(self) -> int:
        return len(self.steps)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column, float32, shape (R,) for one number and (R, n) for several."""
        at = self._at[name]
        rows = [row[at] for row in self._rows]
        values = np.stack(rows) if rows else np.zeros((0, at.stop - at.start), np.float32)
        return values[:, 0] if values.shape[1] == 1 else values

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps, int64 (R,), and values, float32 (R, width)."""
        values = np.stack(self._rows) if self._rows else np.zeros((0, self.width), np.float32)
        return np.asarray(self.steps, dtype=np.int64), values

    def describe(self) -> dict[str, Any]:
        """Return what :meth:`rebuild` needs besides the arrays; plain types."""
        return {"columns": self.columns, "stride": self.stride, "budget": self.budget}

    @classmethod
    def rebuild(cls, described: Mapping[str, Any], steps: np.ndarray, values: np.ndarray) -> Series:
        """Return the series that :meth:`describe` and :meth:`arrays` gave.

        Raises:
            ValueError: The arrays do not have the described shape.
        """
        made = cls(described["columns"], stride=described["stride"], budget=described["budget"])
        if values.shape != (len(steps), made.width):
            raise ValueError(
                f"values have shape {values.shape} where ({len(steps)}, {made.width}) was described"
            )
        made.steps = [int(step) for step in steps]
        made._rows = [np.array(row, dtype=np.float32) for row in values]
        return made
