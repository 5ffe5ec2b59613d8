"""What is left of an explorer without its kernel: a saved notebook opened again, and an exported page."""

from __future__ import annotations

import ast
import base64

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.browser.lab import PANEL, find_chromium, open_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = """# %%
from qviz.widgets import GridExplorer

e = GridExplorer(tensor="stem (real)", bits=3)
e
# %%
e.bits.value = 5
# %%
GridExplorer(tensor="stem (real)", bits=5)._repr_mimebundle_()[0]["image/png"]
"""
SEEN = """(images) => images.filter((e) => e.checkVisibility() && e.naturalWidth)
  .map((e) => e.src.split('base64,')[1])"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """The notebook as it is saved after it was run, without the state of its widgets."""
    notebook = jupytext.reads(NOTEBOOK, fmt="py:percent")
    NotebookClient(notebook, store_widget_state=False, timeout=120).execute()
    path = tmp_path_factory.mktemp("saved") / "saved.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def wanted(notebook):
    """The picture of the last state, in base64."""
    cell = nbformat.read(notebook, 4).cells[-1]
    return base64.b64encode(ast.literal_eval(cell.outputs[0].data["text/plain"])).decode()


def test_a_notebook_opened_again_shows_the_last_state(notebook, wanted, desk):
    with open_lab(notebook, desk=desk, run=False) as lab:
        image = lab.page.locator(f"{PANEL} .jp-RenderedImage img")
        image.wait_for()
        assert image.evaluate_all(SEEN) == [wanted]
        assert lab.errors() == []
        assert lab.page.get_by_text("Run this cell to use the GridExplorer").is_visible()


def test_an_exported_page_shows_the_last_state_without_a_network(notebook, wanted, tmp_path):
    from nbconvert import HTMLExporter
    from playwright.sync_api import sync_playwright

    page = tmp_path / "page.html"
    page.write_text(HTMLExporter().from_filename(str(notebook))[0], "utf-8")
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=find_chromium(), args=["--disable-gpu"])
        context = browser.new_context(offline=True)
        tab = context.new_page()
        tab.goto(page.as_uri())
        assert tab.locator("img").evaluate_all(SEEN) == [wanted]
        browser.close()
