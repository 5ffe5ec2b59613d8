"""View: how a scene is looked at, beside the one before, or on axes that hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qviz.plot.scene import Axis, Line, Mark, Panel, Rug, Scene, Steps

GHOST = "before"
"""The role and the label of curves and ticks that were kept."""

BACKGROUND = ("data", "ideal", GHOST)


@dataclass(frozen=True, eq=False)
class Kept:
    """A picture that is kept to compare with.

    Attributes:
        scene: The picture.
        headline: Its numbers by name.
    """

    scene: Scene
    headline: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class View:
    """What is added to a scene.

    Attributes:
        before: The picture to compare with, or None.
        axes: The axes of each panel, by its title, or None where they follow the scene.
        remark: A sentence that is said first.
    """

    before: Kept | None = None
    axes: Mapping[str, tuple[Axis, Axis]] | None = None
    remark: str = ""

    def of(self, scene: Scene, headline: Mapping[str, float]) -> Scene:
        """Return the scene as it is looked at: on held axes, with the curves and numbers of before."""
        if self.axes is not None:
            scene = replace(scene, panels=tuple(held(panel, self.axes) for panel in scene.panels))
        said = [self.remark]
        if self.before is not None:
            past = {panel.title: panel for panel in self.before.scene.panels}
            ghosts = (ghosted(panel, past.get(panel.title)) for panel in scene.panels)
            scene = replace(scene, panels=tuple(ghosts))
            said.append(compared(self.before.headline, headline))
        about = " ".join(text for text in (*said, scene.about) if text)
        return scene if about == scene.about else replace(scene, about=about)


def axes_of(scene: Scene) -> dict[str, tuple[Axis, Axis]]:
    """Return the axes of every panel, by its title."""
    return {panel.title: (panel.x, panel.y) for panel in scene.panels}


def held(panel: Panel, axes: Mapping[str, tuple[Axis, Axis]]) -> Panel:
    """Return a panel on the axes of its title, where these measure the same."""
    x, y = axes.get(panel.title, (panel.x, panel.y))
    same = (x.label, x.log, y.label, y.log) == (panel.x.label, panel.x.log, panel.y.label, panel.y.log)
    return replace(panel, x=x, y=y) if same else panel


def ghosted(panel: Panel, before: Panel | None) -> Panel:
    """Return a panel with the curves and ticks of before in the background, those that have changed."""
    if before is None or (before.x.label, before.y.label) != (panel.x.label, panel.y.label):
        return panel
    now = _curves(panel)
    gone = [mark for mark in _curves(before) if not any(_same(mark, other) for other in now)]
    ghosts = [replace(mark, role=GHOST, label="" if i else GHOST) for i, mark in enumerate(gone)]
    return replace(panel, marks=(*ghosts, *panel.marks))


def _curves(panel: Panel) -> list[Mark]:
    return [m for m in panel.marks if isinstance(m, Line | Steps | Rug) and m.role not in BACKGROUND]


def _same(a: Mark, b: Mark) -> bool:
    names = ("x", "y", "edges", "heights", "low", "high")
    both = [(getattr(a, name, None), getattr(b, name, None)) for name in names]
    arrays = [(one, other) for one, other in both if one is not None or other is not None]
    return type(a) is type(b) and all(np.array_equal(one, other, equal_nan=True) for one, other in arrays)


def compared(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    """Return one sentence with the numbers of before and now."""
    pairs = [(name, before[name], value) for name, value in now.items() if name in before]
    moved = [f"{name} {a:.4g} → {b:.4g}" for name, a, b in pairs if f"{a:.4g}" != f"{b:.4g}"]
    if not pairs or not moved:
        return "Before → now: the same numbers." if pairs else ""
    return f"Before → now: {', '.join(moved)}."


def changed_axes(old: Scene, new: Scene) -> str:
    """Return which axes have other limits than before, so that no zoom is taken for a change."""
    said = []
    for before, after in zip(old.panels, new.panels, strict=False):
        for name in "xy":
            a, b = getattr(before, name), getattr(after, name)
            was, now = (f"{axis.low:.3g} … {axis.high:.3g}" for axis in (a, b))
            if before.title == after.title and was != now:  # a change that the numbers do not show is no news
                said.append(f"{after.title}, {name} axis {was} → {now}")
    return f"Axes changed: {'; '.join(said)}." if said else ""
