"""Controls: what can be chosen, and which values are taken, before any widget shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Control:
    """What all controls share.

    Attributes:
        label: Its name on the page.
        help: What it does, in a sentence.
        shown: Whether it has something to do at present.
    """

    label: str
    help: str = ""
    shown: bool = True

    def accepts(self, value: Any) -> bool:
        """Return whether ``value`` can be chosen."""
        raise NotImplementedError

    def values(self) -> tuple[Any, ...]:
        """Return the values that a static page offers."""
        raise NotImplementedError

    def taken(self, value: Any, now: Any) -> Any:
        """Return what is chosen when the page sends ``value`` and ``now`` is chosen."""
        return value

    @property
    def fixed(self) -> bool:
        """Whether what it takes is the same for every choice."""
        return True

    @property
    def plays(self) -> bool:
        """Whether a button runs through its values."""
        return False

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
        """Return whether it is a finite number of the right kind inside the limits."""
        kinds = (int,) if self.whole else (int, float)
        number = isinstance(value, kinds) and not isinstance(value, bool)
        return number and math.isfinite(value) and self.low <= value <= self.high

    def taken(self, value: Any, now: Any) -> Any:
        """Return the value; the present one where nothing but the page's rounding is between them."""
        return now if math.isclose(value, now, rel_tol=1e-9) else value

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

    def nearest(self, value: float) -> float:
        """Return the number inside the limits that is nearest to ``value``."""
        return min(max(value, self.low), self.high)

    def values(self) -> tuple[Any, ...]:
        """Return all integers, or fifteen values over the range."""
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step)))
        return tuple(round(self.low + i * (self.high - self.low) / 14, 12) for i in range(15))


@dataclass(frozen=True)
class Text(Control):
    """A text to type or to paste.

    Attributes:
        rows: How many lines of it are seen.
        most: The largest number of characters.
    """

    rows: int = 3
    most: int = 1_000_000

    def accepts(self, value: Any) -> bool:
        """Return whether it is a text that is not too long."""
        return isinstance(value, str) and len(value) <= self.most

    def values(self) -> tuple[Any, ...]:
        """Refuse: a static page has no texts to choose from."""
        raise ValueError(f"{self.label} is a text; a page cannot offer it")

    @property
    def range(self) -> str:
        """What it takes, in words."""
        return f"a text of at most {self.most:,} characters"


@dataclass(frozen=True)
class Slide(Number):
    """A number to slide to; it needs both limits, which are multiples of the step.

    Attributes:
        play: Whether a whole number has a button that runs through its values.
    """

    play: bool = False

    @property
    def plays(self) -> bool:
        """Whether a button runs through its values."""
        return self.play

    @property
    def fixed(self) -> bool:
        """Whether the limits are the same for every choice."""
        return self.whole

    def nearest(self, value: float) -> float:
        """Return the number on the slider that is nearest to ``value``."""
        count = round(super().nearest(value) / self.step)
        return count * self.step if self.whole else float(f"{count * self.step:.12g}")

    def taken(self, value: Any, now: Any) -> Any:
        """Return the nearest number on the slider.

        A page may round what it was sent its own way and send it back: so nobody has moved the slider.
        """
        return self.nearest(value)


def steps(top: float) -> dict[str, float]:
    """Return low, high and step of a slider over (0, top] in about 200 round steps."""
    decade = 10.0 ** math.floor(math.log10(top / 200))
    step = float(f"{next(decade * m for m in (1, 2, 5, 10) if decade * m * 200 >= top):.12g}")
    return {"low": step, "high": float(f"{math.ceil(top / step - 1e-9) * step:.12g}"), "step": step}


def between(low: float, high: float, least: int = 200) -> dict[str, float]:
    """Return low, high and step of a number on an axis; the step is a power of ten, ``least`` or more fit."""
    return {"low": low, "high": high, "step": 10.0 ** math.floor(math.log10((high - low) / least))}


def control(default: Any, shown: Control) -> Any:
    """Return a field of a choice that has a control; the model may change its limits."""
    return field(default=default, metadata={"control": shown})


def kept(default: Any, taken: Control) -> Any:
    """Return a field of a choice that has no control of its own; ``taken`` says what a state may hold."""
    return field(default=default, metadata={"kept": taken})


def declared(
    choice: Any, limits: Mapping[str, Mapping[str, Any]], kind: str = "control"
) -> dict[str, Control]:
    """Return the controls that the fields of a choice were declared with.

    Args:
        choice: The choice.
        limits: What differs from the declaration at present, by the name of the field.
        kind: "control", or "kept" for the fields that have none.
    """
    found = {f.name: f.metadata[kind] for f in fields(choice) if kind in f.metadata}
    return {name: replace(spec, **limits.get(name, {})) for name, spec in found.items()}
