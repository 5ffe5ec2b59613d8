"""The page that to_html writes: one file, no network, no kernel, the numbers of the explorer."""

import html
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from qviz import Codebook, compare, post, pot, uniform
from qviz.measure.compare import grid_names
from qviz.widgets import GridExplorer, page

X = torch.randn(4000, generator=torch.Generator().manual_seed(11))
MINE = Codebook([-1.0, -0.3, 0.3, 1.0])
NAME = 'my "best" <grid>'
LIMIT = 3_000_000
SHORT = 50
SVG = "{http://www.w3.org/2000/svg}"


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


def keys(widths):
    """The ids of all frames, by the grids' names."""
    found = set()
    for bits in widths:
        paper = ("POT paper", "POST paper") if bits < 8 else ()
        found |= {f"{grid}|{bits}" for grid in (*grid_names(bits), *paper, NAME)}
    return found


@pytest.fixture(scope="module")
def explorer():
    """Two bit widths instead of seven: a frame takes a good part of a second."""
    e = GridExplorer(X, {NAME: MINE}, bits=7)
    e.bits.min = 7
    e.grid_a.value = "custom"
    e.value.value = e.value.value - 0.2
    return e


@pytest.fixture(scope="module")
def path(explorer, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "grids.html"
    assert explorer.to_html(path) == path
    return path


@pytest.fixture(scope="module")
def text(path):
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def document(text):
    return Document(text)


def test_it_is_one_file(path):
    assert [p.name for p in path.parent.iterdir()] == ["grids.html"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["depthwise_late (real)", "act_pooled (real)"])
def test_the_whole_page_is_small_and_has_every_frame(name, tmp_path):
    path = GridExplorer(grids={NAME: MINE}, tensor=name).to_html(tmp_path / "grids.html")
    assert set(Document(path.read_text("utf-8")).templates) == keys(range(2, 9))
    assert path.stat().st_size <= LIMIT


def test_the_only_script_is_short(document):
    (script,) = document.scripts
    assert len(script.strip().splitlines()) < SHORT
    assert not re.search(r"fetch|XMLHttpRequest|import|eval|innerHTML|//", script)


def test_nothing_outside_is_referred_to(text, document):
    assert document.references
    assert all(reference.startswith("data:image/") for reference in document.references)
    assert not re.search(r"@import|<link|<iframe|<base|url\(\s*['\"]?https?:", text)
    for image in document.images:
        picture = unquote(image["src"])
        assert not re.search(r"""(xlink:)?(href|src)\s*=\s*["']?\s*(https?:)?//""", picture)
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", picture)


def test_there_is_a_frame_for_every_grid_and_bit_width(document):
    assert set(document.templates) == keys((7, 8)) | {"custom|7"}
    assert len(document.templates) == len(set(document.templates))


def test_custom_levels_of_other_bit_widths_are_there_too(tmp_path):
    e = GridExplorer(X)
    for bits in (3, 2):  # moved at 3, not on show any more
        e.grid_a.value, e.bits.value = "custom", bits
        e.value.value = e.value.value - 0.2
    e.grid_a.value, e.bits.max = "POT", 3
    document = Document(e.to_html(tmp_path / "grids.html").read_text("utf-8"))
    assert {"custom|2", "custom|3"} < set(document.templates)


def test_the_numbers_are_text_and_those_of_the_table(text, explorer):
    frames = dict(re.findall(r'<template id="([^"]+)">(.*?)</template>', text, re.S))
    for bits in (7, 8):
        for grid, book in {"POT": pot(bits), "POST": post(bits), NAME: MINE}.items():
            cells = re.findall(r"<td[^>]*>([^<]*)</td>", frames[f"{html.escape(grid)}|{bits}"])
            (wanted,) = compare(X, {grid: book}).cells()
            assert tuple(cells) == wanted[1:]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", frames["custom|7"])
    assert tuple(cells) == explorer.scene().table.rows[0][1:]


def test_every_picture_has_a_text_with_numbers(document):
    assert len(document.images) == len(document.templates) + 2
    for image in document.images:
        assert re.search(r"RMS [\d.e-]+", image["alt"])
        assert "4,000 values" in image["alt"]


def test_it_starts_with_what_the_explorer_shows(text):
    body, _ = text.split("<template", 1)
    assert re.findall(r"<option selected>([^<]*)", body) == ["custom", "POST"]
    assert "custom, 7 bits" in body
    assert "POST, 7 bits" in body


def written(scene, path):
    return page.write(path, "title", "about", [page.Frame("g", 4, scene)], (("g", 4), ("g", 4)))


@pytest.mark.parametrize("size", [0.07, 1.0, 300.0])
def test_the_picture_says_whole_numbers_at_its_ticks(size, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SVG_BEST_BELOW", 10**9)  # an SVG, however small a PNG would be
    e = GridExplorer(size * X)
    document = Document(written(e.model.frame(e.choice(), "POT"), tmp_path / "p.html").read_text("utf-8"))
    kind, svg = document.images[0]["src"].split(",", 1)
    assert kind == "data:image/svg+xml"
    axes = [g for g in ElementTree.fromstring(unquote(svg)).iter(f"{SVG}g") if "axis" in g.get("id", "")]
    assert len(axes) == 6
    for axis in axes:
        ticks = [g for g in axis if "tick" in g.get("id", "")]
        at = [float(text.text.replace("−", "-")) for tick in ticks for text in tick.iter(f"{SVG}text")]
        assert len(at) >= 3
        np.testing.assert_allclose(np.diff(at), at[1] - at[0], rtol=1e-6)
        assert at[1] > at[0]


def test_names_are_escaped_also_inside_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SVG_BEST_BELOW", 10**9)  # an SVG, however small a PNG would be
    e = GridExplorer(X, {"<b> & 'c' %20 #1": MINE})
    text = written(e.model.frame(e.choice(), "<b> & 'c' %20 #1"), tmp_path / "p.html").read_text("utf-8")
    _, svg = Document(text).images[0]["src"].split(",", 1)
    root = ElementTree.fromstring(unquote(svg))
    said = {t.text for t in root.iter(f"{SVG}text")}
    assert "<b> & 'c' %20 #1" in said
    assert "<b>" not in text


def test_a_missing_folder_is_an_error(explorer, tmp_path):
    with pytest.raises(FileNotFoundError):
        written(explorer.model.frame(explorer.choice(), "POT"), tmp_path / "nowhere" / "p.html")


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture
def opened(path):
    """The page opened from the file system, with the network off; what it asks for is noted."""
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import find_chromium

    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=find_chromium(), args=["--disable-gpu"])
        context = browser.new_context(offline=True)
        tab = context.new_page()
        tab.asked, tab.problems = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("console", lambda m: tab.problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.goto(path.as_uri())
        yield tab
        browser.close()


def column(tab, side):
    return tab.get_by_role("region", name=f"Grid {side}")


def shown(section):
    """The table's cells, and the picture's address once it is drawn."""
    image = section.locator("img")
    image.evaluate("(e) => e.decode()")
    assert image.evaluate("(e) => e.naturalWidth") > 100
    return section.locator("td").all_inner_texts(), image.get_attribute("src")


@pytest.mark.browser
def test_select_and_slider_switch_frames_without_network(opened):
    a, b = column(opened, "A"), column(opened, "B")
    first, other = shown(a), shown(b)
    a.get_by_role("combobox", name="Grid A").select_option("uniform")
    second = shown(a)
    assert second[0] == list(compare(X, {"q": uniform(7)}).cells()[0][1:])
    assert second[0] != first[0]
    assert second[1] != first[1]
    slider = a.get_by_role("slider", name="Bits")
    slider.focus()
    slider.press("ArrowRight")
    third = shown(a)
    assert a.locator("output").inner_text() == "8"
    assert third[0] == list(compare(X, {"q": uniform(8)}).cells()[0][1:])
    assert third[1] != second[1]
    assert shown(b) == other  # the other column stays
    assert opened.problems == []
    assert all(url.startswith(("file://", "data:")) for url in opened.asked)


@pytest.mark.browser
def test_own_names_can_be_chosen_and_missing_frames_are_told(opened):
    a = column(opened, "A")
    a.get_by_role("combobox", name="Grid A").select_option(NAME)
    assert shown(a)[0] == list(compare(X, {"q": MINE}).cells()[0][1:])
    a.get_by_role("combobox", name="Grid A").select_option("POT paper")
    slider = a.get_by_role("slider", name="Bits")
    slider.focus()
    slider.press("End")
    assert "POT paper does not exist at 8 bits" in a.inner_text()
    slider.press("ArrowLeft")
    assert shown(a)[0] == list(compare(X, {"q": pot(7, grid="paper")}).cells()[0][1:])
    assert opened.problems == []


@pytest.mark.browser
def test_without_script_the_first_frames_are_there(path):
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import find_chromium

    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=find_chromium(), args=["--disable-gpu"])
        tab = browser.new_context(offline=True, java_script_enabled=False).new_page()
        tab.goto(path.as_uri())
        assert column(tab, "B").locator("td").all_inner_texts() == list(
            compare(X, {"q": post(7)}).cells()[0][1:]
        )
        assert "Without JavaScript" in tab.locator("body").inner_text()
        browser.close()
