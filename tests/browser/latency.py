"""Time every slider of the explorers in JupyterLab, and of a plain bqplot page in the same minutes.

    python -m tests.browser.latency [EXPLORER ...] [--repeat 30]

A line per slider: ms from a key press to the changed picture, median and p95, and how many pictures a second
a held key shows. The plain page, three figures of one line each, comes first and last. Quiet machines only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jupytext
import nbformat

from qviz import widgets
from qviz.explore.controls import Slide
from tests.browser.lab import Desk, lab_desk, open_lab
from tests.browser.slider import Slider
from tests.browser.test_explorers import EXPLORERS, NOTEBOOK

PLAIN = """# %%
import bqplot
import ipywidgets
import numpy as np

x = np.linspace(0, 6, 200)
slider = ipywidgets.IntSlider(10, 1, 100, description="Plain")
scales = [{"x": bqplot.LinearScale(), "y": bqplot.LinearScale()} for _ in range(3)]
lines = [bqplot.Lines(x=x, y=np.sin(x), scales=both) for both in scales]


def moved(change):
    for line in lines:
        line.y = np.sin(x * change.new / 10)


slider.observe(moved, "value")
figures = [bqplot.Figure(marks=[line], layout={"width": "400px", "height": "300px"}) for line in lines]
ipywidgets.VBox([slider, ipywidgets.HBox(figures)])
"""


def sliders(name: str) -> list[str]:
    """Return the labels of the sliders that an explorer shows at its start."""
    explorer = getattr(widgets, name)()
    controls = explorer.model.controls(explorer.choice()).values()
    return [control.label for control in controls if isinstance(control, Slide) and control.shown]


def main() -> None:
    """Measure what the command line names, by default everything."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.browser.latency", description=__doc__.split("\n")[0]
    )
    parser.add_argument("explorers", nargs="*", metavar="EXPLORER", help="by default all of them")
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args()
    plain = [("plain bqplot", PLAIN, ["Plain"])]
    pages = [(name, NOTEBOOK.format(name), sliders(name)) for name in options.explorers or EXPLORERS]
    with lab_desk() as desk:
        for name, source, labels in plain + pages + plain:
            _measure(desk, name, source, labels, options.repeat)


def _measure(desk: Desk, name: str, source: str, labels: list[str], repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.ipynb")
        nbformat.write(jupytext.reads(source, fmt="py:percent"), path)
        with open_lab(path, desk=desk) as lab:
            for label in labels:
                lab.wait_until_still()
                print(f"{name:20}", _line(lab.slider(label), repeat), flush=True)


def _line(slider: Slider, repeat: int) -> str:
    times = slider.drive(["ArrowRight"], repeat=repeat, warmup=3)
    if not times.steps:
        return str(times)
    return (
        f"{slider.label:16} {times.median_ms:4.0f} {times.p95_ms:4.0f} ms, held {slider.held():4.1f} a second"
    )


if __name__ == "__main__":
    main()
