"""Controls: what can be chosen, and which values are taken, before any widget shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Control:
    """What all controls share.

    Attributes:
        label: Its name on the page.
        shown: Whether it has something to do at present.
    """

    label: str
    shown: bool = True

    def accepts(self, value: Any) -> bool:
        """Return whether ``value`` can be chosen."""
        raise NotImplementedError

    def values(self) -> tuple[Any, ...]:
        """Return the values that a static page offers."""
        raise NotImplementedError

    @property
    def fixed(self) -> bool:
        """Whether what it takes is the same for every choice."""
        return True

    @property
    def range(self) -> str:
        """What it takes, in words."""
        return " or ".join(map(repr, self.values()))


@dataclass(frozen=True)
class Pick(Control):
    """One of some names."""

    options: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Return whether it is one of the names."""
        return isinstance(value, str) and value in self.options

    def values(self) -> tuple[Any, ...]:
        """Return all names."""
        return self.options


@dataclass(frozen=True)
class Tick(Control):
    """Yes or no."""

    def accepts(self, value: Any) -> bool:
        """Return whether it is a bool."""
        return isinstance(value, bool)

    def values(self) -> tuple[Any, ...]:
        """Return both."""
        return (False, True)


@dataclass(frozen=True)
class Number(Control):
    """A number to type; whole if ``step`` is an int.

    Attributes:
        low: The least value.
        high: The largest value.
        step: The distance between neighboring values that arrow keys reach.
    """

    low: float = -math.inf
    high: float = math.inf
    step: float = 1

    def accepts(self, value: Any) -> bool:
        """Return whether it is a number of the right kind inside the limits."""
        kinds = (int,) if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    @property
    def fixed(self) -> bool:
        """Whether the limits are the same for every choice: those of whole sliders are."""
        return False

    @property
    def range(self) -> str:
        """What it takes, in words."""
        return f"{'a whole number' if self.whole else 'a number'} from {self.low:.4g} to {self.high:.4g}"

    @property
    def whole(self) -> bool:
        """Whether only integers are taken."""
        return isinstance(self.step, int)

    def values(self) -> tuple[Any, ...]:
        """Return all integers, or fifteen values over the range."""
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step)))
        return tuple(round(self.low + i * (self.high - self.low) / 14, 12) for i in range(15))


@dataclass(frozen=True)
class Slide(Number):
    """A number to slide to; it needs both limits."""

    @property
    def fixed(self) -> bool:
        """Whether the limits are the same for every choice."""
        return self.whole
