"""Every explorer in a real JupyterLab: controls, dots, undo; readable and named in all themes and widths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jupytext
import nbformat
import pytest
from playwright.sync_api import TimeoutError as Timeout

from qviz import widgets
from qviz.explore.controls import Number, Pick, Slide, Text, Tick
from qviz.plot.scene import Points
from qviz.widgets import Explorer
from tests.browser import axe
from tests.browser.lab import PANEL, Lab, open_lab
from tests.browser.looks import CONTRAST, FILLED, HUED, NAMELESS, RING, TEXTS, THEME, THEMED, TO_TOP
from tests.explore.test_all_models import numbers, others

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EXPLORERS = sorted(
    name
    for name, value in vars(widgets).items()
    if isinstance(value, type) and issubclass(value, Explorer) and value is not Explorer
)
NOTEBOOK = "# %%\nfrom qviz.widgets import {0}\n\n{0}()\n"
ROOT = f"{PANEL} .qviz-explorer"
OTHER = "(before) => { const now = window.qvizProbe.fingerprint(); return now !== null && now !== before; }"
SEEN = """() => [...document.querySelectorAll('.qviz-explorer .bqplot')].map((figure) => {
  const all = [...figure.querySelectorAll('path, line, rect, text, image')];
  const at = figure.getBoundingClientRect();
  return all.filter((e) => e.getClientRects().length).map((e) => {
    const b = e.getBoundingClientRect(), said = e.tagName === 'text' ? e.textContent : e.getAttribute('d');
    return [e.tagName, said, ...[b.x - at.x, b.y - at.y, b.width, b.height].map(Math.round)].join(' ');
  }).sort().join('\\n');
}).join('\\n')"""
AGAIN = f"(before) => ({SEEN})() === before"
WAIT_MS = 8000
PASTED = "0.5 -1.25 3 0.01 -0.2 0.75"


@dataclass
class Page:
    """An explorer on its page, and the same one here, which says what there is to use."""

    name: str
    lab: Lab
    explorer: Explorer

    @property
    def picture(self) -> str:
        return self.lab.page.evaluate("() => window.qvizProbe.fingerprint()")

    @property
    def seen(self) -> str:
        """Everything visible in the pictures, whatever marks lie in store."""
        return self.lab.page.evaluate(SEEN)

    def changed(self, before: str, ms: int = WAIT_MS) -> bool:
        """Wait until the picture is another one, and at rest."""
        try:
            self.lab.page.wait_for_function(OTHER, arg=before, timeout=ms)
        except Timeout:
            return False
        self.lab.wait_until_still()
        return True

    def locator(self, selector: str):
        return self.lab.page.locator(f"{ROOT} {selector}")

    def labeled(self, label: str):
        return self.lab.page.locator(ROOT).get_by_label(label, exact=True)

    def undo_to(self, seen: str) -> None:
        """Press Undo; the pictures are as they were."""
        self.locator("button:has-text('Undo')").click()
        self.lab.page.wait_for_function(AGAIN, arg=seen, timeout=WAIT_MS)


@pytest.fixture(scope="module", params=EXPLORERS)
def page(request, desk, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "explorer.ipynb"
    nbformat.write(jupytext.reads(NOTEBOOK.format(request.param), fmt="py:percent"), path)
    with open_lab(path, desk=desk) as lab:
        assert lab.errors() == []
        lab.wait_until_still()
        lab.page.locator(ROOT).evaluate(TO_TOP)
        yield Page(request.param, lab, getattr(widgets, request.param)())
        assert lab.errors() == []
        assert lab.console == []


def attempts(page, control, value):
    """Ways to move a control, of which one must change the picture."""
    field = page.labeled(control.label).first
    match control:
        case Pick():
            for option in control.options:
                if option != value:
                    yield lambda option=option: field.select_option(option)
        case Tick():
            yield lambda: field.click()
        case Slide():
            handle = page.lab.slider(control.label).handle
            for key in ("ArrowRight", "ArrowLeft", "PageUp", "PageDown", "End", "Home"):
                yield lambda key=key: handle.press(key)
        case Text():
            yield lambda: (field.fill(PASTED), field.blur())
        case Number():
            for by in (control.step, -control.step, 10 * control.step):
                typed = min(max(value + by, control.low), control.high)
                yield lambda typed=typed: (field.fill(f"{typed:.9g}"), field.press("Enter"))


def same(model, start, choice):
    """Whether another choice has the same pictures."""
    scenes = model.scene(start), model.scene(model.settled(start, choice))
    before, after = (numbers(replace(scene, title="", about="", table=None)) for scene in scenes)
    return before == after


def test_each_control_changes_the_picture_and_undo_takes_it_back(page):
    explorer, still = page.explorer, []
    model, start = explorer.model, explorer.choice()
    shown = {n: c for n, c in model.controls(start).items() if c.shown}
    for name, control in shown.items():
        values = others(control, getattr(start, name))
        if all(same(model, start, replace(start, **{name: value})) for value in values):
            continue  # it matters in other choices only; test_all_models.py asks for one
        before, seen = page.picture, page.seen
        for move in attempts(page, control, getattr(explorer.choice(), name)):
            move()
            if page.changed(before, WAIT_MS if isinstance(control, Tick) else 2500):  # it has one way
                break
        else:
            still.append(control.label)
            continue
        page.undo_to(seen)
    assert still == []


def test_each_button_changes_the_picture(page):
    model, start = page.explorer.model, page.explorer.choice()
    for action in model.actions(start).values():
        if action.shown and action.work is None and not same(model, start, action.do(start)):
            before, seen = page.picture, page.seen
            page.lab.page.locator(ROOT).get_by_role("button", name=action.label, exact=True).click()
            assert page.changed(before), action.label
            page.undo_to(seen)


def test_a_long_action_that_a_move_offers_runs_and_is_undone(page):
    model, start = page.explorer.model, page.explorer.choice()
    long = any(action.work is not None for action in model.actions(start).values())
    found = long and [
        (name, value, action.label)
        for name, control in model.controls(start).items()
        if control.shown and isinstance(control, Slide)
        for value in others(control, getattr(start, name))
        for action in model.actions(model.settled(start, replace(start, **{name: value}))).values()
        if action.shown and action.work is not None
    ]
    if not found:
        pytest.skip(f"{page.name} has no long action one slider's move from its start")
    name, _, label = found[0]
    first, before = page.seen, page.picture
    page.lab.slider(model.controls(start)[name].label).handle.press("ArrowRight")
    assert page.changed(before)
    seen, before = page.seen, page.picture
    page.lab.page.locator(ROOT).get_by_role("button", name=label, exact=True).click()
    assert page.changed(before, 30_000)
    page.undo_to(seen)
    page.undo_to(first)


def dot_to_drag(explorer):
    """The number of a panel, that of a dot on it, and where it can be dragged; None where nothing can."""
    for number, panel in enumerate(explorer.scene().panels):
        count = 0
        for mark in panel.marks:
            if isinstance(mark, Points):
                if mark.moves and len(mark.x):
                    return number, count + len(mark.x) // 2, mark.moves
                count += len(mark.x)
    return None


def test_a_dot_can_be_dragged_and_undone(page):
    found = dot_to_drag(page.explorer)
    if found is None:
        pytest.skip(f"{page.name} starts without dots that move")
    panel, number, moves = found
    figure, mouse = page.locator(".bqplot").nth(panel), page.lab.page.mouse
    figure.scroll_into_view_if_needed()
    box, area = figure.locator("path.dot").nth(number).bounding_box(), figure.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    right, down = (1 if p < a + s / 2 else -1 for p, a, s in (
        (x, area["x"], area["width"]), (y, area["y"], area["height"])))  # fmt: skip
    before, seen = page.picture, page.seen
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 50 * right * ("x" in moves), y + 35 * down * ("y" in moves), steps=8)
    mouse.up()
    assert page.changed(before)
    page.undo_to(seen)


def test_a_row_of_the_table_opens_what_it_names(page):
    row = page.locator("[data-opens]:not([aria-current])")
    if not row.count():
        pytest.skip(f"{page.name} has no table whose rows open")
    before, seen, name = page.picture, page.seen, row.nth(2).get_attribute("value")
    row.nth(2).press("Enter")
    assert page.changed(before)
    assert page.locator("[aria-current]").get_attribute("value") == name
    assert page.lab.page.evaluate("() => document.activeElement.value") == name
    page.undo_to(seen)


def test_everything_has_a_name_and_a_ring_where_the_keys_go(page):
    assert page.lab.page.locator(ROOT).evaluate(NAMELESS) == []
    page.locator("select:visible, .noUi-handle:visible, input:visible").first.focus()
    thin = []
    for _ in range(6):
        page.lab.page.keyboard.press("Tab")
        said = page.lab.page.evaluate("() => document.activeElement.outerHTML.slice(0, 120)")
        if page.lab.page.evaluate(RING) < 2:
            thin.append(said)
    assert thin == []


@pytest.fixture(scope="module")
def axe_core(tmp_path_factory):
    return axe.fetched(tmp_path_factory.mktemp("axe")) or pytest.skip(
        "axe-core cannot be fetched from the npm registry"
    )


def test_axe_finds_nothing(page, axe_core):
    page.lab.page.evaluate(axe_core)
    assert page.lab.page.evaluate(axe.RUN, ROOT) == []


def fill(tab, width, height):
    """Give the window a size, and wait until the figures have followed.

    With many figures bqplot leaves some at the size of before, until the window changes once more.
    """
    for by in (0, -2, 0, -2):
        tab.set_viewport_size({"width": width + by, "height": height})
        tab.wait_for_timeout(800)  # until the page has laid itself out: the old sizes fit the old window
        tab.locator(f"{ROOT} .bqplot").last.scroll_into_view_if_needed()  # what nobody sees is not laid out
        try:
            tab.wait_for_function(FILLED, timeout=WAIT_MS / 2)
        except Timeout:
            continue
        return
    pytest.fail(f"the figures do not fill their places at {width} px")


@pytest.mark.parametrize(
    ("theme", "width", "height"),
    [("JupyterLab Light", 1500, 1000), ("JupyterLab Dark", 1024, 1000), ("JupyterLab Dark", 700, 1400)],
)
def test_everything_can_be_read(page, shots, theme, width, height):
    tab, root = page.lab.page, page.lab.page.locator(ROOT)
    tab.evaluate(THEME, theme)
    tab.wait_for_function(THEMED, arg=theme)
    fill(tab, width, height)
    root.evaluate(TO_TOP)
    page.lab.wait_until_still()
    page.lab.screenshot(shots / f"{page.name}-{theme.split()[1].lower()}-{width}.png")
    problems = [found for figure in page.locator(".bqplot").all() for found in figure.evaluate(TEXTS)]
    contrast, hued = root.evaluate(CONTRAST), root.evaluate(HUED)
    overflow = root.evaluate("(e) => e.scrollWidth - e.clientWidth")
    tab.evaluate(THEME, "JupyterLab Light")
    tab.wait_for_function(THEMED, arg="JupyterLab Light")  # a theme that is asked for meanwhile gets lost
    tab.set_viewport_size({"width": 1500, "height": 1000})
    assert problems == []
    assert {kind: found for kind, found in contrast.items() if found[0] < 4.5} == {}
    assert hued == []
    assert overflow <= 0
