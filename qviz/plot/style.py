"""Style: what each role looks like. Color is never the only difference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one role is drawn.

    Attributes:
        color: A hex color of seaborn's "colorblind" palette, readable on white and on dark gray.
        dash: The name of the line's pattern: "solid", "dashed", "dotted", "dash_dotted", "long_dashed" or
            "dash_dot_dotted".
        marker: matplotlib's letter for the marker.
    """

    color: str
    dash: str = "solid"
    marker: str = "o"

    @property
    def plain_dash(self) -> str:
        """The nearest of the four patterns that bqplot knows."""
        return {"long_dashed": "dashed", "dash_dot_dotted": "dash_dotted"}.get(self.dash, self.dash)


LOOKS = {
    "data": Look("#949494"),
    "ideal": Look("#949494", dash="dotted"),
    "before": Look("#949494", dash="dashed"),
    "a": Look("#0173b2", marker="o"),
    "b": Look("#de8f05", dash="dashed", marker="s"),
    "c": Look("#029e73", dash="dash_dotted", marker="^"),
    "d": Look("#cc78bc", dash="dotted", marker="D"),
    "e": Look("#d55e00", dash="long_dashed", marker="v"),
    "f": Look("#56b4e9", dash="dash_dot_dotted", marker="P"),
}

ROLES = ("a", "b", "c", "d", "e", "f")
"""Roles of compared methods, in order."""

HEAT = "viridis"
"""The color map of heat maps, matplotlib's name: even in lightness, so readable without color vision."""
