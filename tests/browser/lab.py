"""Open a notebook in JupyterLab in a headless Chromium, run it, and use it as a person would.

    with open_lab(notebook) as lab:
        assert not lab.errors()
        times = lab.slider("Bits").drive(["ArrowRight"], repeat=20)
        lab.screenshot(path)

`lab.page` is playwright's Page, for whatever else a person does; `lab.timed(action, on="pointermove")` times
any action that ends in a changed picture.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as Timeout

from tests.browser.server import Server, lab_server, write_settings
from tests.browser.slider import PictureUnchanged, Slider, Timing

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
NO_CHROMIUM = "no Chromium: install one (Debian: apt-get install chromium) or set QVIZ_CHROMIUM"
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".ipynb_checkpoints", "__pycache__")
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"

RUN_ALL = """async () => {
  await window.jupyterapp.commands.execute('notebook:run-all-cells');
  const shell = window.jupyterapp.shell;
  shell.collapseLeft(); shell.collapseRight();  // room for the pictures
}"""
IDLE = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
ALL_RAN = f"() => ({IDLE})() && !document.querySelector('{PANEL} .jp-mod-running')"
CELL_ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code')
  .flatMap((cell, i) => cell.model.outputs.toJSON()
    .filter(output => output.output_type === 'error')
    .map(output => `code cell ${i + 1}: ${output.ename}: ${output.evalue}`))"""
STILL_FOR = """(ms) => {
  const now = window.qvizProbe.fingerprint(), t = performance.now();
  if (now === null || now !== window.qvizSeen || window.qvizProbe.waiting()) {
    window.qvizSeen = now; window.qvizSince = t;
    return false;
  }
  return t - window.qvizSince > ms;
}"""
THEIRS = re.compile(
    "NotFoundError: Failed to execute 'removeChild' on 'Node'[^\n]*\n[^\n]*/static/lab/jlab_core"
)
BROKEN_WIDGET = re.compile("Error displaying widget|Loading widget|Error rendering|Failed to load model")


@dataclass
class Lab:
    """A notebook, open and run; `seconds` says how long starting, opening and running took."""

    page: Page
    server: Server
    seconds: dict[str, float] = field(default_factory=dict)
    console: list[str] = field(default_factory=list)

    def errors(self) -> list[str]:
        """Return every cell's error and every widget that could not be shown."""
        broken = self.page.locator(PANEL).get_by_text(BROKEN_WIDGET).all_inner_texts()
        return self.page.evaluate(CELL_ERRORS) + [f"widget not shown: {text[:200]}" for text in broken]

    def wait_until_still(self, ms: float = 400) -> None:
        """Wait until the kernel has dealt with every message and no picture has changed for ``ms``."""
        self.page.wait_for_function(STILL_FOR, arg=ms)

    def arm(self, on: str) -> None:
        """Let the next event of type ``on``, keydown or pointermove, start the clock."""
        self.page.evaluate("(type) => window.qvizProbe.arm(type)", on)

    def timing(self, *, within_s: float = 15, settle_ms: float = 400) -> Timing:
        """Wait for the picture to change and come to rest, and return the times.

        Raises:
            PictureUnchanged: it did not change within ``within_s``.
        """
        still = "(ms) => window.qvizProbe.still(ms)"
        try:
            self.page.wait_for_function(still, arg=settle_ms, timeout=within_s * 1000)
        except Timeout as error:
            raise PictureUnchanged(f"no picture changed and came to rest within {within_s} s") from error
        return Timing(**self.page.evaluate("() => window.qvizProbe.timing()"))

    def timed(self, action: Callable[[], Any], *, on: str, within_s: float = 15) -> Timing:
        """Do ``action``, whose first event of type ``on`` starts the clock, and time the changed picture."""
        self.arm(on)
        action()
        return self.timing(within_s=within_s)

    def slider(self, label: str) -> Slider:
        """Return the first ipywidgets slider with that description.

        Raises:
            LookupError: there is none; the message lists those that are.
        """
        name = self.page.locator(".widget-label", has_text=re.compile(rf"^\s*{re.escape(label)}\s*$"))
        box = self.page.locator(".widget-slider").filter(has=name)
        if not box.count():
            labels = self.page.locator(".widget-slider .widget-label").all_inner_texts()
            raise LookupError(f"no slider labelled {label!r}; there are {labels}")
        return Slider(self, label, box.first, box.first.locator(".noUi-handle").first)

    def screenshot(self, path: Path | str) -> None:
        """Write what is in view as PNG."""
        self.page.screenshot(path=path)


def find_chromium() -> str | None:
    """Return the path of a Chromium: $QVIZ_CHROMIUM, else the first of the usual ones, else None."""
    if named := os.environ.get("QVIZ_CHROMIUM"):
        return named
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    return found or (str(MAC_CHROME) if MAC_CHROME.exists() else None)


@dataclass(frozen=True)
class Desk:
    """A running server, the folder that it serves, and the home of what the server and its browser keep."""

    root: Path
    home: Path
    server: Server


@contextmanager
def lab_desk(*, python: str = sys.executable, timeout_s: float = 120) -> Iterator[Desk]:
    """Start a server for one notebook after another; they share nothing but it and the browser's cache."""
    with tempfile.TemporaryDirectory(prefix="qviz-lab-", ignore_cleanup_errors=True) as temporary:
        home, root = Path(temporary, "home"), Path(temporary, "work")
        home.mkdir()
        root.mkdir()
        with lab_server(root, home, python=python, timeout_s=timeout_s) as server:
            yield Desk(root, home, server)


@contextmanager
def open_lab(
    notebook: Path | str,
    *,
    desk: Desk | None = None,
    python: str = sys.executable,
    chromium: str | None = None,
    viewport: tuple[int, int] = (1500, 1000),
    timeout_s: float = 120,
    run: bool = True,
) -> Iterator[Lab]:
    """Open a copy of ``notebook`` and its folder, run every cell, and yield it.

    Args:
        notebook: an .ipynb file; nothing beside it is changed.
        desk: a server to use, by one notebook at a time; by default one is started.
        python: the interpreter whose JupyterLab and kernel are used.
        chromium: the browser, default :func:`find_chromium`.
        viewport: width and height in pixels.
        timeout_s: for each of: server start, opening, running.
        run: whether to run the cells; else what was saved is shown.

    Raises:
        RuntimeError: no Chromium; the server does not start; the notebook does not open or does not end.
    """
    notebook = Path(notebook).resolve()
    chromium = chromium or find_chromium()
    if chromium is None:
        raise RuntimeError(NO_CHROMIUM)
    start = time.monotonic()
    shared = nullcontext(desk) if desk else lab_desk(python=python, timeout_s=timeout_s)
    with shared as desk, sync_playwright() as pw:
        folder = Path(tempfile.mkdtemp(dir=desk.root))
        shutil.copytree(notebook.parent, folder, ignore=NOT_COPIED, dirs_exist_ok=True)
        write_settings(desk.home)
        context = pw.chromium.launch_persistent_context(
            desk.home / "profile",
            executable_path=chromium,
            args=["--disable-gpu", "--disable-quic", "--disable-sync"],
            viewport={"width": viewport[0], "height": viewport[1]},
        )
        try:
            lab = Lab(context.pages[0], desk.server, {"start": round(time.monotonic() - start, 2)})
            lab.page.set_default_timeout(timeout_s * 1000)
            _open(lab, f"lab/tree/{folder.name}/{notebook.name}", run=run)
            yield lab
        finally:
            context.close()
            desk.server.end_kernels()


def _note(lab: Lab, problem: str) -> None:
    """Keep an uncaught error of the page, unless JupyterLab's own panels stumble when a theme changes."""
    if not THEIRS.match(problem):
        lab.console.append(problem)


def _open(lab: Lab, address: str, *, run: bool) -> None:
    """Open the notebook, run it, and set the probe on it."""
    page = lab.page
    page.on("console", lambda message: lab.console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: _note(lab, error.stack or error.message))
    start = time.monotonic()
    try:
        page.goto(lab.server.url(address) + "&reset", wait_until="domcontentloaded")
        page.wait_for_selector(f"{PANEL} .jp-Cell")
        page.wait_for_function(IDLE)
        opened = time.monotonic()
        if run:
            page.evaluate(RUN_ALL)
            page.wait_for_function(ALL_RAN)
    except Timeout as error:
        asked = " | ".join(page.locator(".jp-Dialog-content").all_inner_texts())
        raise RuntimeError(f"{address} did not open and run; Lab asks: {asked or 'nothing'}") from error
    lab.seconds |= {"open": round(opened - start, 2), "run": round(time.monotonic() - opened, 2)}
    page.evaluate(Path(__file__).with_name("probe.js").read_text("utf-8"), f"{PANEL} .jp-Notebook")
