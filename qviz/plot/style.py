"""Style: what each role looks like. Colour is never the only difference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one role is drawn.

    Attributes:
        color: hex, from seaborn's "colorblind" palette, readable on white and on dark grey.
        dash: "solid", "dashed", "dotted" or "dash_dotted".
        marker: matplotlib's marker letter. hatch: matplotlib's hatch for filled areas.
    """

    color: str
    dash: str = "solid"
    marker: str = "o"
    hatch: str | None = None


LOOKS = {
    "data": Look("#949494"),
    "ideal": Look("#949494", dash="dotted"),
    "a": Look("#0173b2", marker="o", hatch="///"),
    "b": Look("#de8f05", dash="dashed", marker="s", hatch="\\\\\\"),
    "c": Look("#029e73", dash="dash_dotted", marker="^", hatch="..."),
    "d": Look("#cc78bc", dash="dotted", marker="D", hatch="xxx"),
}

ROLES = ("a", "b", "c", "d")
"""Roles of compared methods, in order."""
