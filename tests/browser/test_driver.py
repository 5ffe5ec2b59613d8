"""The driver itself, on a notebook of its own: it sees what works, and above all what does not."""

from __future__ import annotations

import json
import subprocess
import sys

import jupytext
import nbformat
import pytest

from tests.browser.lab import open_lab
from tests.browser.slider import PictureUnchanged

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = """# %%
import bqplot
import ipywidgets as widgets
import numpy as np

x = np.linspace(-2, 2, 400)
scales = {"x": bqplot.LinearScale(), "y": bqplot.LinearScale()}
line = bqplot.Lines(x=x, y=np.round(x), scales=scales)
dot = bqplot.Scatter(x=[0.0], y=[0.0], scales=scales, enable_move=True)
live, dead = (widgets.IntSlider(description=name, value=3, min=2, max=5) for name in ("Live", "Dead"))


def update(change):
    step = 4 / 2**change.new
    line.y = np.round(x / step) * step


live.observe(update, "value")
widgets.VBox([live, dead, bqplot.Figure(marks=[line, dot])])
# %%
1 / 0
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "scratch.ipynb"
    nbformat.write(jupytext.reads(NOTEBOOK, fmt="py:percent"), path)
    return path


@pytest.fixture(scope="module")
def lab(notebook, desk):
    with open_lab(notebook, desk=desk) as lab:
        lab.wait_until_still()
        yield lab


def test_a_cell_error_is_seen(lab):
    assert lab.errors() == ["code cell 2: ZeroDivisionError: division by zero"]


def test_a_live_slider_is_timed_and_turns_round_at_its_ends(lab):
    times = lab.slider("Live").drive(["ArrowRight"], repeat=5, warmup=1)
    assert times.values == ["5", "4", "3", "2", "3"]
    assert times.unchanged == []
    assert all(0 < step.first_ms <= step.last_ms for step in times.steps)


def test_a_dead_slider_is_seen(lab):
    slider = lab.slider("Dead")
    slider.focus()
    slider.lab.arm("keydown")
    slider.handle.press("ArrowRight")
    with pytest.raises(PictureUnchanged):
        slider.lab.timing(within_s=1)
    assert slider.value() == "4"


def test_a_missing_slider_is_named_with_those_that_are_there(lab):
    with pytest.raises(LookupError, match=r"no slider labelled 'Bits'; there are \['Live', 'Dead'\]"):
        lab.slider("Bits")


def test_a_dragged_mark_is_timed(lab):
    box = lab.page.locator(".bqplot .dot_grp path, .bqplot .dot").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    lab.page.mouse.move(x, y)
    lab.page.mouse.down()
    timing = lab.timed(lambda: lab.page.mouse.move(x + 40, y, steps=4), on="pointermove")
    lab.page.mouse.up()
    assert timing.changes >= 1


def test_the_command_reports_and_fails(notebook, checkout, tmp_path):
    command = [sys.executable, "-m", "tests.browser.drive", notebook, "--slider", "Live", "--repeat", "3"]
    command += ["--json", tmp_path / "out.json", "--shot", tmp_path / "out.png", "--max-median-ms", "0.1"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 1, done.stderr
    assert [p.split(":")[0] for p in report["problems"]] == ["code cell 2", "Live"]
    assert report["sliders"]["Live"]["median_ms"] > 0.1
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert (tmp_path / "out-0.png").exists()
