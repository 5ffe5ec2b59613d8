"""The live table: the comparison of a scene as HTML, each row with the look of its curves."""

from __future__ import annotations

from qviz.plot import html
from qviz.plot.scene import Scene


def table_html(scene: Scene) -> str:
    """Return the scene's table under its title.

    Raises:
        ValueError: The scene has no table.
    """
    if scene.table is None:
        raise ValueError(f"the scene {scene.title!r} has no table")
    return f"<style>{html.STYLE}</style>{html.table_html(scene.table, scene.title)}"
