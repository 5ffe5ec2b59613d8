"""GradientExplorer: it starts with any surrogate, its code makes it again, and Keep tells what moved."""

import numpy as np
import pytest

from qviz.plot.scene import Line
from qviz.widgets import GradientExplorer

SOFT, DAQ = "soft argmax, fixed β", "DAQ, controller"


def test_it_starts_with_a_surrogate_and_its_own_forward_pass():
    e = GradientExplorer(SOFT, show=["x", "beta"])
    assert (e.kind.value, e.soft.value, e.undo.disabled) == (SOFT, True, True)
    shown = [name for name, widget in e.controls.items() if widget.layout.display is None]
    assert shown == ["x", "beta"]
    e.kind.value = DAQ
    assert not e.soft.value
    again = eval(e.code, {"GradientExplorer": GradientExplorer})
    assert again.state == e.state
    with pytest.raises(ValueError, match="'magic'"):
        GradientExplorer("magic")


def test_keep_tells_that_the_controller_moves_the_gradient_alone():
    e = GradientExplorer(DAQ)
    e.keep.value = True
    e.gamma.value = 4.0
    said = e.scene().about
    assert "gradient mismatch 0.4485 → 0.1192" in said
    assert "quantizer gap" not in said
    assert "y at your x" not in said
    ghosts = [[m for m in p.marks if isinstance(m, Line) and m.role == "before"] for p in e.scene().panels]
    stairs = next(m for m in e.scene().panels[0].marks if m.label == "Q(x) in a test")
    assert len(ghosts[1]) == 1
    assert not any(np.array_equal(m.y, stairs.y, equal_nan=True) for m in ghosts[0])


def test_a_dot_is_dragged_beside_a_kept_picture():
    e = GradientExplorer(DAQ)
    e.keep.value = True
    e.gamma.value = 4.0
    for panel, place, name in ((0, (2.0, 2.0), "x"), (2, (24.0, 0.5), "target")):
        marks = e.scene().panels[panel].marks
        mark = max(i for i, m in enumerate(marks) if getattr(m, "moves", ""))
        e._live[panel].dragged(mark, 0, *place)
        assert getattr(e, name).value == (2.0 if name == "x" else 0.5)
