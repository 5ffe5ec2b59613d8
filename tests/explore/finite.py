"""What every scene of an explorer is: numbers, but for the breaks of lines."""

import numpy as np

from qviz.plot.scene import Line, Scene


def finite(scene: Scene) -> None:
    """Refuse NaN and infinity, and axes without extent."""
    for panel in scene.panels:
        for axis in (panel.x, panel.y):
            assert np.isfinite([axis.low, axis.high]).all(), (panel.title, axis)
            assert axis.low < axis.high, (panel.title, axis)
        for mark in panel.marks:
            for name, value in vars(mark).items():
                if name in ("x", "y") and isinstance(mark, Line):
                    assert not np.isinf(value).any(), (panel.title, mark)
                elif isinstance(value, np.ndarray | float):
                    assert np.isfinite(value).all(), (panel.title, mark)
