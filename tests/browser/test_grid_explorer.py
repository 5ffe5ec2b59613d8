"""GridExplorer in a real JupyterLab: levels moved by mouse and by keyboard; light, dark and narrow."""

from __future__ import annotations

import re

import jupytext
import nbformat
import pytest

from tests.browser.lab import PANEL, open_lab
from tests.browser.looks import CONTRAST, FILLED, HUED, TEXTS, THEME, THEMED, TO_TOP

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = """# %%
from qviz.widgets import GridExplorer

e = GridExplorer(tensor="stem (real)", bits=3)
e.grid_a.value = "custom"
e
"""
LEVELS = 7
FILL, GREEN = (
    "(e) => getComputedStyle(e).fill",
    "rgb(2, 158, 115)",
)  # of the custom levels

CAPTIONED = """(text) => document.querySelector('.qviz-table caption').textContent.includes(text)"""
# The output with the picture, once its text has the wanted words in the notebook as it would be saved.
SAVED = """(text) => {
  const cell = window.jupyterapp.shell.currentWidget.content.widgets.find((w) => w.model.type === 'code');
  const still = cell.model.outputs.toJSON().find((output) => 'image/png' in (output.data || {}));
  if (!still?.data['text/plain'].includes(text)) return null;
  const image = document.querySelector('.jp-OutputArea-child .jp-RenderedImage');
  const shown = getComputedStyle(image.closest('.jp-OutputArea-child')).display;
  return { data: Object.keys(still.data).sort(), shown };
}"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "explorer.ipynb"
    nbformat.write(jupytext.reads(NOTEBOOK, fmt="py:percent"), path)
    return path


@pytest.fixture(scope="module")
def lab(notebook, desk):
    with open_lab(notebook, desk=desk) as lab:
        assert lab.errors() == []
        lab.wait_until_still()
        table(lab).evaluate(TO_TOP)
        yield lab
        assert lab.errors() == []
        assert lab.console == []


@pytest.fixture(autouse=True)
def fresh(lab):
    """Every test begins with the levels as the grid made them."""
    lab.page.get_by_role("checkbox", name="Mirror signs").uncheck()
    reset(lab)


def reset(lab):
    """Press Reset by keyboard; it may have nothing to change."""
    lab.page.get_by_role("button", name=re.compile("Reset")).press("Enter")
    lab.page.wait_for_timeout(300)
    lab.wait_until_still()


def table(lab):
    return lab.page.locator(f"{PANEL} .qviz-table")


def custom(lab):
    """Levels, bits, MSE, … of grid A, as the page shows them."""
    return table(lab).locator("tbody tr").first.locator("td").all_inner_texts()


def dots(lab):
    """The middle of each dot of the custom grid, from left to right, in pixels."""
    all_dots = lab.page.locator(f"{PANEL} .bqplot path.dot").all()
    boxes = [dot.bounding_box() for dot in all_dots if dot.evaluate(FILL) == GREEN]
    return sorted((b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes)


def drag(lab, k, to):
    """Drag the k-th dot to the place ``to`` on the x axis, and let go."""
    x, y = dots(lab)[k]
    lab.page.mouse.move(x, y)
    lab.page.mouse.down()
    timing = lab.timed(lambda: lab.page.mouse.move(to, y, steps=12), on="pointermove")
    lab.page.mouse.up()
    lab.wait_until_still()
    return timing


def box(lab, label):
    """The input that ipywidgets shows for a description."""
    name = lab.page.locator(".widget-label", has_text=re.compile(rf"^\s*{label}\s*$"))
    return lab.page.locator(f"{PANEL} .widget-text").filter(has=name).locator("input")


def number(lab, label):
    return float(box(lab, label).input_value())


def enter(lab, label, text):
    """Type into a box, and wait until the kernel has answered in the table or in the boxes."""
    before = custom(lab), number(lab, "Value")
    box(lab, label).fill(text)
    box(lab, label).press("Enter")
    typed = float(text)
    for _ in range(100):
        lab.page.wait_for_timeout(50)
        now = custom(lab), number(lab, "Value")
        if now != before and (label == "Level" or now[0] != before[0] or now[1] != typed):
            break
    lab.wait_until_still()


def test_a_dragged_level_changes_the_table(lab, shots):
    before, places = custom(lab), dots(lab)
    assert len(places) == LEVELS
    target = (places[5][0] + 3 * places[4][0]) / 4
    timing = drag(lab, 5, target)
    after, moved = custom(lab), dots(lab)
    lab.screenshot(shots / "grid-explorer-dragged.png")
    assert timing.changes > 1  # the picture follows while the mouse moves
    assert after[:2] == before[:2]
    assert float(after[2]) != float(before[2])
    assert moved[5][0] == pytest.approx(target, abs=3)
    assert moved[5][1] == pytest.approx(places[5][1], abs=1)  # along x only
    assert [m[0] for i, m in enumerate(moved) if i != 5] == pytest.approx(
        [p[0] for i, p in enumerate(places) if i != 5], abs=1
    )
    assert number(lab, "Level") == 6


def test_a_level_dragged_far_stops_at_its_neighbour(lab, shots):
    before, places = custom(lab), dots(lab)
    drag(lab, 5, places[0][0])
    moved = dots(lab)
    lab.screenshot(shots / "grid-explorer-stopped.png")
    assert custom(lab)[2] != before[2]
    assert 0 <= moved[5][0] - moved[4][0] < 4
    assert [m[0] for m in moved[:5]] == pytest.approx([p[0] for p in places[:5]], abs=1)
    reset(lab)
    assert custom(lab) == before
    assert [m[0] for m in dots(lab)] == pytest.approx([p[0] for p in places], abs=1)


def test_a_level_can_be_dragged_again_after_it_stopped(lab):
    places = dots(lab)
    drag(lab, 5, places[0][0])
    stopped = custom(lab)
    drag(lab, 5, places[5][0])
    assert dots(lab)[5][0] == pytest.approx(places[5][0], abs=3)
    assert custom(lab) != stopped


def test_the_same_by_keyboard(lab):
    before, places = custom(lab), dots(lab)
    enter(lab, "Level", "3")
    enter(lab, "Level", "2")
    value = number(lab, "Value")
    enter(lab, "Value", f"{value + 0.05:.6f}")
    assert number(lab, "Value") == pytest.approx(value + 0.05, abs=2e-6)
    assert custom(lab)[2] != before[2]
    assert dots(lab)[1][0] > places[1][0] + 2
    enter(lab, "Value", "99")
    assert number(lab, "Value") < 1
    assert 0 <= dots(lab)[2][0] - dots(lab)[1][0] < 4
    reset(lab)
    assert custom(lab) == before


def test_tab_reaches_every_control_in_reading_order(lab):
    first = lab.page.locator(f"{PANEL} .widget-dropdown select").first
    first.focus()
    names = []
    for _ in range(20):
        names.append(
            lab.page.evaluate("""() => {
              const e = document.activeElement, box = e.closest('.jupyter-widgets');
              const label = box?.querySelector('.widget-label-basic') || box?.querySelector('.widget-label');
              return (label || e).textContent.trim();
            }""")
        )
        lab.page.keyboard.press("Tab")
    wanted = ["Preset", "Tensor", "Bits", "Clip", "x", "Grid A", "Grid B", "Range", "Per channel"]
    wanted += ["Level", "Value", "Mirror signs", "Reset to POT", "Keep", "Hold axes"]
    reached = [name for i, name in enumerate(names) if name in wanted and name not in names[:i]]
    assert reached == wanted


def test_mirror_moves_the_twin(lab):
    mirror = lab.page.get_by_role("checkbox", name="Mirror signs")
    mirror.check()
    lab.wait_until_still()
    places = dots(lab)
    drag(lab, 6, places[6][0] - 30)
    moved = dots(lab)
    mirror.uncheck()
    assert moved[6][0] == pytest.approx(places[6][0] - 30, abs=3)
    assert moved[0][0] == pytest.approx(places[0][0] + 30, abs=3)


def test_mirrored_drags_end_where_they_were_dropped(lab):
    lab.page.get_by_role("checkbox", name="Mirror signs").check()
    lab.wait_until_still()
    for k, by in ((6, -20), (0, 12), (5, 8), (6, 15), (1, -6)):
        places = dots(lab)
        drag(lab, k, places[k][0] + by)
        moved = dots(lab)
        assert moved[k][0] == pytest.approx(places[k][0] + by, abs=3)
        assert moved[6 - k][0] == pytest.approx(places[6 - k][0] - by, abs=3)


def select(lab, label):
    return lab.page.locator(f"{PANEL} .qviz-explorer").get_by_label(label, exact=True)


def test_another_tensor_leaves_the_range_alone(lab):
    names = [name.replace("\xa0", " ") for name in select(lab, "Tensor").locator("option").all_inner_texts()]
    select(lab, "Grid A").select_option("POT")
    for name in (*names[1:], "stem (real)"):
        select(lab, "Tensor").select_option(name)
        lab.page.wait_for_function(CAPTIONED, arg=name)
        lab.page.wait_for_timeout(300)  # what the page answers to the new limits of Clip
        assert select(lab, "Range").input_value() == "MSE search", name
    select(lab, "Grid A").select_option("custom")
    lab.wait_until_still()


def test_a_move_comes_in_one_message(lab):
    lab.page.evaluate("() => { window.qvizProbe.came.length = 0; }")
    lab.slider("Clip").press("ArrowRight")
    lab.wait_until_still()
    came = lab.page.evaluate("() => window.qvizProbe.came")
    assert came.count("custom") == 1
    assert came.count("update") <= 3  # what is enabled and disabled, and not a dozen marks


def test_a_letter_typed_into_a_list_is_no_shortcut_and_shift_enter_is_one(lab):
    cells = lab.page.locator(f"{PANEL} .jp-Cell")
    before = cells.count()
    select(lab, "Tensor").press("a")  # would put a cell above this one
    assert select(lab, "Tensor").get_attribute("data-lm-suppress-shortcuts") is not None
    select(lab, "Tensor").press("Shift+ArrowDown")  # marks more cells
    assert select(lab, "Tensor").get_attribute("data-lm-suppress-shortcuts") is None
    assert cells.count() == before
    lab.wait_until_still()


def test_everything_that_can_be_used_has_a_name(lab):
    output = lab.page.locator(f"{PANEL} .qviz-explorer")
    lab.page.get_by_role("slider", name="Clip").wait_for()
    nodes = lab.page.context.new_cdp_session(lab.page).send("Accessibility.getFullAXTree")["nodes"]
    used = {"slider", "combobox", "checkbox", "spinbutton", "textbox", "image", "button"}
    named = [(n["role"]["value"], n["name"]["value"]) for n in nodes if not n["ignored"] and n.get("name")]
    found = {role: [name for its, name in named if its == role] for role in used}
    assert found["slider"] == ["Bits", "Clip", "x"]
    assert {"Tensor", "Grid A", "Grid B", "Range"} <= set(found["combobox"])
    assert found["checkbox"] == ["Per channel", "Mirror signs"]
    assert found["spinbutton"] == ["Level", "Value"]
    assert any("stem (real), 3 bits" in name and "A: custom" in name for name in found["image"])
    assert output.locator("button:visible").count() == 5


def test_the_saved_notebook_shows_what_was_done_last(lab):
    lab.slider("Bits").focus()
    lab.page.keyboard.press("ArrowRight")
    lab.page.wait_for_function(CAPTIONED, arg="4 bits")
    picture = lab.page.wait_for_function(SAVED, arg="4 bits").json_value()
    lab.page.keyboard.press("ArrowLeft")
    lab.page.wait_for_function(CAPTIONED, arg="3 bits")
    assert picture["shown"] == "none"  # as long as the live view is there
    assert picture["data"] == ["image/png", "text/plain"]


def test_no_tool_covers_the_title_under_the_mouse(lab):
    figure = lab.page.locator(f"{PANEL} .bqplot").first
    figure.hover()
    lab.page.wait_for_timeout(300)
    covered = figure.evaluate("""(figure) => {
      const title = figure.querySelector('.mainheading').getBoundingClientRect();
      return [...figure.querySelectorAll('button')].map((b) => b.getBoundingClientRect())
        .filter((b) => b.width && b.left < title.right && b.right > title.left)
        .filter((b) => b.top < title.bottom).length;
    }""")
    assert covered == 0


@pytest.mark.parametrize(("width", "height"), [(1500, 1000), (900, 1500)])
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_everything_can_be_read(lab, shots, theme, width, height):
    lab.page.set_viewport_size({"width": width, "height": height})
    lab.page.evaluate(THEME, theme)
    lab.page.wait_for_function(THEMED, arg=theme)
    table(lab).evaluate(TO_TOP)
    lab.page.wait_for_function(FILLED)
    lab.wait_until_still()
    lab.screenshot(shots / f"grid-explorer-{theme.split()[1].lower()}-{width}.png")
    figures = lab.page.locator(f"{PANEL} .bqplot")
    assert figures.count() == 3
    output = table(lab).locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')]")
    problems = [found for figure in figures.all() for found in figure.evaluate(TEXTS)]
    contrast = output.evaluate(CONTRAST)
    hued = output.evaluate(HUED)
    overflow = output.evaluate("(e) => e.scrollWidth - e.clientWidth")
    lab.page.evaluate(THEME, "JupyterLab Light")
    lab.page.set_viewport_size({"width": 1500, "height": 1000})
    assert problems == []
    assert set(contrast) == {"picture", "table", "label"}
    assert all(ratio >= 4.5 for ratio, _ in contrast.values()), contrast
    assert hued == []
    assert overflow <= 0
