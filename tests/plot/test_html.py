"""Tables and pages in HTML: one file, no network, no kernel, the numbers of its scenes."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from qviz.plot import page as pages
from qviz.plot import picture
from qviz.plot.html import legend_html, scene_html, table_html
from qviz.plot.page import Chooser
from qviz.plot.scene import Axis, Bars, Heat, Line, Panel, Points, Scene, Table
from qviz.plot.style import LOOKS, ROLES

NAME = "my \"best\" <b> & 'c' %20 #1"
SVG = "{http://www.w3.org/2000/svg}"


def scene(number, name="curve"):
    x = np.array([0.0, 1.0])
    panel = Panel(
        "Curve", Axis("x", 0, 1), Axis("y", 0, 9), (Line("a", x, number * x, label=name),), f"RMS {number}."
    )
    return Scene(f"Number {number}", (panel,), Table(("name", "value"), ((name, str(number)),), ("a",)))


BITS = Chooser("Bits", ("2", "3"), slider=True)
GRID = Chooser("Grid", ("POT", NAME), own=True)
FRAMES = {(0, 0): scene(1), (0, 1): scene(2, NAME), (1, 0): scene(3)}


class Document(HTMLParser):
    """What a test asks of the page: its templates, scripts, and everything that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.templates, self.scripts, self.references, self.images = [], [], [], []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._script = tag == "script"
        if tag == "template":
            self.templates.append(attrs["id"])
        if tag == "img":
            self.images.append(attrs)
        refers = ("src", "href", "srcset", "data", "action", "poster")
        self.references += [attrs[name] for name in refers if attrs.get(name)]
        assert not [name for name in attrs if name.startswith("on")], tag

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "grids.html"
    first = {"A": (0, 0), "B": (0, 1)}
    assert pages.write(path, "Title", "What it is.", (BITS, GRID), FRAMES, first) == path
    return path


@pytest.fixture(scope="module")
def document(path):
    return Document(path.read_text("utf-8"))


def test_a_table_escapes_its_cells_and_shows_its_roles():
    text = table_html(Table(("<h>", "v"), (("<r>", "<c>"),), ("b",)), "<caption>")
    assert all(f"&lt;{part}&gt;" in text for part in ("h", "r", "c", "caption"))
    assert "#de8f05" in text
    assert "dashed" in text
    assert "qviz-swatch" not in table_html(Table(("h",), (("r",),)))


def test_a_tables_notes_stand_below_it():
    text = table_html(Table(("h", "v"), (("r", "c"),), notes=("r: <note>", "another")))
    assert text.index("<tfoot") > text.index("</tbody>")
    assert '<td colspan="2">r: &lt;note&gt;<br>another</td>' in text
    assert "tfoot" not in table_html(Table(("h",), (("r",),)))


def test_without_a_table_there_is_a_legend():
    panels = FRAMES[0, 1].panels
    assert "my &quot;best&quot; &lt;b&gt;" in legend_html(panels)
    assert "qviz-legend" in scene_html(Scene("t", panels))
    assert "qviz-legend" not in scene_html(FRAMES[0, 1])


def test_a_table_without_swatches_leaves_the_legend():
    text = scene_html(Scene("t", FRAMES[0, 1].panels, Table(("step", "value"), (("u", "1"),))))
    assert text.index("</table>") < text.index("qviz-legend")


def test_it_is_one_file_with_a_frame_for_every_picture(path, document):
    assert [p.name for p in path.parent.iterdir()] == ["grids.html"]
    assert document.templates == ["f0-0", "f0-1", "f1-0"]


def test_the_only_script_is_short_and_each_picture_there_once(document):
    pictures, script = document.scripts
    assert [uri.split(",")[0] for uri in json.loads(pictures)] == ["data:image/svg+xml"] * 3
    assert len(script.strip().splitlines()) < 30
    assert not re.search(r"fetch|XMLHttpRequest|import|eval|innerHTML|//", script)


def test_nothing_outside_is_referred_to(path, document):
    assert document.references
    assert all(reference.startswith("data:image/") for reference in document.references)
    assert not re.search(r"@import|<link|<iframe|<base|url\(\s*['\"]?https?:", path.read_text("utf-8"))
    for uri in json.loads(document.scripts[0]):
        picture = unquote(uri)
        assert not re.search(r"""(xlink:)?(href|src)\s*=\s*["']?\s*(https?:)?//""", picture)
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", picture)


def test_every_picture_has_a_text_that_names_its_panel(document):
    assert len(document.images) == len(document.templates) + 2
    assert ["src" in image for image in document.images] == [True] * 2 + [False] * 3
    assert {image["alt"] for image in document.images} == {f"Curve: RMS {n}." for n in (1, 2, 3)}


def test_it_starts_with_the_first_pictures(path):
    body, _ = path.read_text("utf-8").split("<template", 1)
    assert re.findall(r"<caption>([^<]*)", body) == ["Number 1", "Number 2"]
    assert re.findall(r"<option[^>]*selected>([^<]{3})", body) == ["POT", "my "]


def test_a_mark_of_few_pixels_keeps_its_color():
    rng = np.random.default_rng(0)
    many = Heat("data", np.arange(60.0), np.arange(60.0), rng.random((60, 60)), label="many colors")
    x, y = Axis("x", 0, 59), Axis("y", 0, 59)
    dots = [Points(role, np.array([5.0 + 9 * i]), np.array([30.0])) for i, role in enumerate(ROLES)]
    lines = [Line("data", np.arange(4000.0) / 70, 59 * rng.random(4000)) for _ in range(3)]  # no SVG then
    uri = picture.picture(Panel("p", x, y, (many, *lines, *dots), "A panel."))
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    colors = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 16)}
    assert {"#ffffff", *(LOOKS[role].color for role in ROLES)} <= colors


def test_a_legend_shows_what_its_marks_look_like():
    at = np.arange(2.0)
    marks = (
        Heat("data", at, at, np.eye(2), label="error"),
        Points("c", at, at, label="dots"),
        Bars("b", np.arange(3.0), at, label="bars"),
        Line("b", at, at, label="line"),
        Line("a", at, at, label="in the table"),
    )
    panels = (Panel("p", Axis("x", 0, 1), Axis("y", 0, 1), marks, "A."),)
    made = legend_html(panels, ["in the table"])
    heat, dots, bars, line = re.findall(r'style="(.*?)">(.?)</span>(\w+)', made)
    assert [its[1:] for its in (heat, dots, bars, line)] == [
        ("", "error"), ("▲", "dots"), ("", "bars"), ("", "line")
    ]  # fmt: skip
    assert re.search("gradient.*#440154.*#fde725", heat[0])
    assert dots[0] == "color:#029e73"
    assert "background:#de8f05" in bars[0]
    assert line[0] == "border-top:4px dashed #de8f05"


def test_ticks_are_text_inside_pictures_and_names_above_them(path, monkeypatch, tmp_path):
    monkeypatch.setattr(picture, "SVG_BEST_BELOW", 10**9)  # an SVG, however small a PNG would be
    page = pages.write(tmp_path / "p.html", "t", "a", (GRID,), {(0,): FRAMES[0, 1]}, {"A": (0,)})
    kind, svg = Document(page.read_text("utf-8")).images[0]["src"].split(",", 1)
    assert kind == "data:image/svg+xml"
    assert len(svg) < 7_000
    said = {t.text for t in ElementTree.fromstring(unquote(svg)).iter(f"{SVG}text")}
    assert {"x", "0.2"} < said
    assert f"<strong>Curve</strong>{legend_html(FRAMES[0, 1].panels)}" in page.read_text("utf-8")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        pages.write(tmp_path / "nowhere" / "p.html", "t", "a", (BITS, GRID), FRAMES, {"A": (0, 0)})


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import find_chromium

    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=find_chromium(), args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, path):
    """The page opened from the file system, with the network off; what it asks for is noted."""
    tab = browser.new_context(offline=True).new_page()
    tab.asked, tab.problems = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("console", lambda m: tab.problems.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.goto(path.as_uri())
    return tab


def shown(tab, side):
    """The value in a column's table, once its picture is drawn."""
    column = tab.get_by_role("region", name=side, exact=True)
    image = column.locator("img")
    image.evaluate("(e) => e.decode()")
    assert image.evaluate("(e) => e.naturalWidth") > 100
    return column.locator("td").inner_text()


@pytest.mark.browser
def test_controls_switch_pictures_without_network(opened):
    assert (shown(opened, "A"), shown(opened, "B")) == ("1", "2")
    opened.get_by_role("combobox", name="Grid A").select_option(NAME)
    assert (shown(opened, "A"), shown(opened, "B")) == ("2", "2")
    opened.get_by_role("combobox", name="Grid A").select_option("POT")
    bits = opened.get_by_role("slider", name="Bits")
    bits.press("ArrowRight")
    assert opened.locator("output").inner_text() == bits.get_attribute("aria-valuetext") == "3"
    assert shown(opened, "A") == "3"
    missing = f"There is no picture for Bits 3, Grid B {NAME}."
    assert missing in opened.get_by_role("region", name="B", exact=True).inner_text()
    assert opened.problems == []
    assert all(url.startswith(("file://", "data:")) for url in opened.asked)


@pytest.mark.slow
@pytest.mark.browser
def test_without_script_the_first_pictures_are_there(browser, path):
    tab = browser.new_context(offline=True, java_script_enabled=False).new_page()
    tab.goto(path.as_uri())
    assert shown(tab, "B") == "2"
    assert "Without JavaScript" in tab.locator("body").inner_text()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_and_dark_is_dark(browser, path, scheme):
    tab = browser.new_context(
        offline=True, color_scheme=scheme, viewport={"width": 390, "height": 800}
    ).new_page()
    tab.goto(path.as_uri())
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 390
    widths = tab.locator(".frame").evaluate_all("(all) => all.map((e) => e.scrollWidth - e.clientWidth)")
    assert widths == [0, 0]
    ground = tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
    filtered = tab.locator("img").first.evaluate("(e) => getComputedStyle(e).filter")
    assert (ground == "rgb(17, 17, 17)") == filtered.startswith("invert") == (scheme == "dark")
