"""Model: what every explorer is without its widgets."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from qviz.explore.controls import Control, Slide, declared
from qviz.explore.tensors import Offer
from qviz.plot.page import Chooser, Key
from qviz.plot.scene import Scene

C = TypeVar("C")
MAX_PICTURES = 400
USUAL_PICTURES = 48
"""What a page has at most where nobody says which controls it has: some 2 MB."""

Progress = float | Callable[[Any], Any]
"""What a long action yields: how far it is, from 0 to 1, and at last a function from a choice to another."""


@dataclass(frozen=True)
class Action(Generic[C]):
    """A button.

    Attributes:
        label: What it says.
        help: What it does, in a sentence.
        do: Returns the choice after it was pressed.
        shown: Whether it has something to do at present.
        work: What it does instead where that takes seconds: given the choice, it yields how far it is, from
            0 to 1, and at last a function from the choice of then to the one with the result.
    """

    label: str
    help: str
    do: Callable[[C], C] = lambda choice: choice
    shown: bool = True
    work: Callable[[C], Iterator[Progress]] | None = None


class Page(NamedTuple):
    """What :func:`qviz.plot.page.write` makes a page of, beside its heading."""

    choosers: list[Chooser]
    frames: dict[Key, Scene]
    first: dict[str, Key]


class Model(Generic[C]):
    """From a choice (a frozen dataclass, the values of all controls) to a scene; nothing else is kept.

    The fields of the choice are declared with :func:`~qviz.explore.controls.control`. A subclass sets
    ``start`` and writes :meth:`scene`; :meth:`limits` where what a control takes depends on the choice,
    :meth:`followed` and :meth:`settled` where controls depend on each other, :meth:`dragged` where points
    move.

    Attributes:
        start: The choice to begin with.
        presets: Choices worth seeing: a name and the fields that differ from the start.
        sources: The tensors on offer.
        rescales: The fields with which axes that were held are no longer of use.
    """

    start: C
    presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    sources: Offer = Offer()
    rescales: tuple[str, ...] = ("tensor",)

    @classmethod
    def caption(cls) -> str:
        """Return what the explorer shows, in a sentence: the first of the model's documentation."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    def limits(self, choice: C) -> dict[str, dict[str, Any]]:
        """Return how controls differ from their declarations: field → {options, low, high, step, shown}."""
        return {}

    def controls(self, choice: C) -> dict[str, Control]:
        """Return the controls by the names of the choice's fields; ``tensor`` picks one of the sources."""
        offered = {"tensor": {"options": tuple(self.sources)}} if self.sources else {}
        return declared(choice, {**offered, **self.limits(choice)})

    def inside(self, choice: C, *names: str) -> C:
        """Return the choice with some of its numbers brought to the nearest ones that their controls take."""
        controls = self.controls(choice)
        return replace(choice, **{name: controls[name].nearest(getattr(choice, name)) for name in names})

    def scene(self, choice: C) -> Scene:
        """Return the picture."""
        raise NotImplementedError

    def headline(self, choice: C) -> dict[str, float]:
        """Return the numbers that a picture is compared with another by, by name and unit."""
        return {}

    def followed(self, choice: C) -> C:
        """Return the choice with the fields that follow from others brought up to date."""
        return choice

    def settled(self, before: C, after: C) -> C:
        """Return what a change from ``before`` to ``after`` ends in."""
        return self.followed(after)

    def dragged(self, choice: C, panel: int, mark: int, index: int, x: float, y: float) -> C:
        """Return the choice after a dot was dragged to (x, y).

        Args:
            choice: The choice before.
            panel: The index of the dot's panel.
            mark: The index of its mark in the panel.
            index: The index of the dot in its mark.
            x: Where it was dropped on the x axis.
            y: Where it was dropped on the y axis.
        """
        return choice

    def actions(self, choice: C) -> dict[str, Action[C]]:
        """Return the buttons by name."""
        return {}

    def state(self, choice: C) -> dict[str, Any]:
        """Return the choice as JSON types."""
        return json.loads(json.dumps(asdict(choice)))

    def parsed(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a state's values as the choice has them, where JSON has them otherwise."""
        return state

    def restored(self, state: Mapping[str, Any]) -> C:
        """Return the choice that a state describes; fields that it leaves out are those of the start.

        Raises:
            ValueError: A name is no field, or a value cannot be chosen.
        """
        known = [field.name for field in fields(self.start)]
        unknown = sorted(set(state) - set(known))
        if unknown:
            raise ValueError(f"unknown controls {unknown}; there are {known}")
        fixed = {name: c for name, c in self.controls(self.start).items() if c.fixed}
        _check(fixed, state)  # first: the limits of the others may depend on them
        _check(declared(self.start, self.limits(self.start), "kept"), state)
        choice = replace(self.start, **self.parsed(state))
        controls = self.controls(choice)
        _check(controls, state)
        made = self.followed(self.inside(choice, *(n for n, c in controls.items() if isinstance(c, Slide))))
        for name in fixed.keys() & state.keys():
            if getattr(made, name) != state[name]:
                got = getattr(made, name)
                raise ValueError(f"control {name!r} does not take {state[name]!r} here; it made {got!r}")
        return made

    def scenes(self, choice: C, values: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[Key, Scene]]:
        """Yield the scene at every combination of some controls' values, with the values' indices."""
        for key in itertools.product(*(range(len(some)) for some in values.values())):
            chosen = {name: some[i] for (name, some), i in zip(values.items(), key, strict=True)}
            yield key, self.scene(self.settled(choice, replace(choice, **chosen)))

    def paged(self, choice: C) -> dict[str, tuple[Any, ...]]:
        """Return the controls that a page has by default, with their values on it.

        They are the first three sliders on show, with as many of their values as there is room for.
        """
        sliders = {name: c for name, c in self.controls(choice).items() if isinstance(c, Slide) and c.shown}
        return _thinned({name: sliders[name].values() for name in tuple(sliders)[:3]})

    def page(self, choice: C, names: tuple[str, ...] = ()) -> Page:
        """Return a static page: a picture for every combination of some controls' values.

        Args:
            choice: What the page starts with; controls that it does not have keep their values.
            names: The controls that the page has; by default those of :meth:`paged`.

        Raises:
            ValueError: A name is no control, or there would be more than 400 pictures.
        """
        controls = self.controls(choice)
        unknown = sorted(set(names) - set(controls))
        if unknown:
            raise ValueError(f"unknown controls {unknown}; there are {list(controls)}")
        values = {name: controls[name].values() for name in names} or self.paged(choice)
        count = math.prod(map(len, values.values()))
        if count > MAX_PICTURES:
            raise ValueError(f"{' × '.join(values)} would be {count} pictures; {MAX_PICTURES} is the most")
        choosers = [
            Chooser(controls[name].label, tuple(_text(v) for v in some), isinstance(controls[name], Slide))
            for name, some in values.items()
        ]
        now = tuple(_nearest(some, getattr(choice, name)) for name, some in values.items())
        return Page(choosers, dict(self.scenes(choice, values)), {"picture": now})


def changed(before: Any, after: Any) -> set[str]:
    """Return the names of the fields in which two choices differ."""
    return {f.name for f in fields(after) if getattr(before, f.name) != getattr(after, f.name)}


def _check(controls: Mapping[str, Control], state: Mapping[str, Any]) -> None:
    for name, control in controls.items():
        if name in state and not control.accepts(state[name]):
            raise ValueError(f"control {name!r} does not take {state[name]!r}; it takes {control.range}")


def _thinned(values: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Return fewer values, from one end to the other, so that a page has room for all combinations."""
    values = dict(values)
    while math.prod(map(len, values.values())) > USUAL_PICTURES:
        name = max(values, key=lambda name: len(values[name]))
        some, count = values[name], math.ceil(len(values[name]) * 0.75)
        values[name] = tuple(some[round(i * (len(some) - 1) / (count - 1))] for i in range(count))
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _nearest(values: tuple[Any, ...], value: Any) -> int:
    """Return the index of ``value`` among ``values``, or of the number nearest to it."""
    if value in values:
        return values.index(value)
    return min(range(len(values)), key=lambda i: abs(values[i] - value))
