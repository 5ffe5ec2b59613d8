"""Predict in a real JupyterLab: nothing is told before, and the question has its name."""

from __future__ import annotations

import jupytext
import nbformat
import pytest

from tests.browser.lab import PANEL, open_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = """# %% jupyter={"source_hidden": true}
from qviz.widgets import Predict

Predict("How many levels have 3 bits?", lambda: 2**3, why="Every bit doubles their number.")
# %% jupyter={"source_hidden": true}
Predict("Which one?", "b", options=["a", "b"])
"""


def test_the_answer_follows_the_prediction(desk, tmp_path):
    nbformat.write(jupytext.reads(NOTEBOOK, fmt="py:percent"), tmp_path / "predict.ipynb")
    with open_lab(tmp_path / "predict.ipynb", desk=desk) as lab:
        page = lab.page.locator(PANEL)
        typed = page.get_by_role("textbox", name="Predict. How many levels have 3 bits?")
        typed.wait_for()
        assert page.get_by_text("doubles").count() == 0  # nor in the cell's source, which is folded in
        assert not page.locator(".qviz-still").first.is_visible()  # the text for pages without a kernel
        typed.fill("6")
        page.get_by_role("button", name="Check").first.click()
        page.get_by_text("You said 6; it is 8. Your prediction is 2 too low.").wait_for()
        page.get_by_label("b", exact=True).check()
        page.get_by_label("b", exact=True).press("a")  # the shortcut that puts a cell above this one
        assert page.locator(".jp-CodeCell").count() == 2
        page.get_by_role("button", name="Check").nth(1).click()
        page.get_by_text("Yes: b.").wait_for()
        assert lab.errors() == []
        assert lab.console == []
        assert len(desk.server.kernels()) == 1
    assert desk.server.kernels() == []
