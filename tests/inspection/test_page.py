"""The page: the figures of JSON and text, alone in one file, and usable by keyboard on any screen."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from qviz.inspection import panels
from qviz.inspection.views import Cause, Outputs, Trial
from tests.browser import axe, looks
from tests.inspection.small import inspection


class Document(HTMLParser):
    """The cells of every table by the label of its region, and the attributes of all images."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.words, self.references = {}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("role") == "region":
            self.rows = self.tables[attrs["aria-label"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.words.append("cell")
        elif tag == "img":
            self.images.append(attrs)
        self.references += [attrs[name] for name in ("src", "href", "srcset", "data") if attrs.get(name)]
        assert not [name for name in attrs if name.startswith("on")], tag

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.words.remove("cell")

    def handle_data(self, data):
        if "cell" in self.words:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def found():
    """An inspection with a cause, something tried, and a name that HTML would read as a tag."""
    found = inspection("lsq")
    cause = Cause("spread", 380.0, 16.0, "one channel is <380> times wider")
    trials = (Trial("one bit more", 21.5, 6.1), Trial("per channel", None, None, "it has that & more"))
    bad = replace(found["wide"], name="wide<b>", causes=(cause,), trials=trials)
    return replace(found, layers=(found.layers[0], bad, *found.layers[2:]))


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    return found.to_html(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def document(path):
    return Document(path.read_text("utf-8"))


def test_json_page_and_text_say_the_same(found, document):
    rows = document.tables["Table of all layers"]
    content = json.loads(json.dumps(found.to_dict()))
    lines = [re.split(r"\s{2,}", line) for line in found.table(found.layers).splitlines()]
    assert len(rows) == len(lines) == 1 + len(content["layers"])
    assert rows[0] == lines[0]
    for row, line, layer in zip(rows[1:], lines[1:], content["layers"], strict=True):
        assert [cell for cell in row if cell] == line
        assert row[0] == layer["name"]
        if layer["quantized"]:
            sqnr = [layer[what]["codes"]["sqnr_db"] for what in ("weight", "input")]
            ratios = [*sqnr, layer["outputs"]["local"], layer["outputs"]["cumulative"]]
            assert row[4:8] == [f"{value:.1f}" for value in ratios]
            assert row[8:] == [f"{layer['sensitivity'][key]:.3g}" for key in ("on", "off")]


def test_the_bit_budget_is_that_of_the_text(found, document, path):
    page = path.read_text("utf-8")
    rows = document.tables["What bits of weights buy"]
    lines = [re.split(r"\s{2,}", line.strip()) for line in found.budget.table().splitlines()]
    assert rows == lines
    assert all(f"<li>{line}</li>" in page and line in found.text() for line in found.budget.correlations())


def test_losses_stand_with_their_units(found, path):
    page, text = path.read_text("utf-8"), " ".join(found.text().split())
    kl = "KL divergence of the outputs from those of the float network, in nats"
    for said in (f"what is gained if it alone is not; both in {kl}", f"predicted and measured: {kl}"):
        assert said in " ".join(page.split())
        assert said in text
    with_labels = replace(found, loss="cross-entropy").text()
    assert "both in cross-entropy of the outputs, in nats)" in with_labels
    assert f"(predicted and measured: {kl})" in with_labels


def test_causes_and_what_was_tried_stand_at_the_top_and_with_the_layer(found, path):
    text = path.read_text("utf-8")
    for said in (
        "one channel is &lt;380&gt; times wider",
        "tried: one bit more: +6.1 dB",
        "it has that &amp; more",
    ):
        assert text.count(f"{said}</li>") == 2
    assert "<b>" not in text
    assert "not quantized: only Conv2d and Linear are, this is a ConvTranspose2d" in text


def test_nothing_outside_is_referred_to_and_every_picture_has_its_text(found, document, path):
    assert all(ref.startswith(("data:image/", "#layer-")) for ref in document.references)
    assert not re.search(
        r"@import|<link|<iframe|url\(\s*['\"]?https?:|fetch|eval|innerHTML", path.read_text("utf-8")
    )
    assert len(document.images) == 3 + 2 * 3
    worst = min(found.quantized, key=lambda one: one.outputs.local)
    assert f"local: from {worst.outputs.local:.1f} dB (layer 2, wide<b>)" in document.images[0]["alt"]
    assert "levels serve a value" in document.images[-1]["alt"]


def test_a_histogram_has_all_values_and_all_levels(found):
    whole = found["wide<b>"].weight
    codes = replace(whole.codes, counts=tuple(2 * n for n in whole.codes.counts))
    sampled = replace(whole, count=2 * whole.count, codes=codes)
    for values in (found["first"].weight, whole, sampled):
        bars, levels, *unused = panels.histogram(values, "weight").marks
        seen = bars.heights[bars.heights * values.sample / 100 > 0.6]
        assert seen.sum() == pytest.approx(100)
        positions = {float(x) for x in levels.x if x == x} | {float(x) for mark in unused for x in mark.x}
        assert positions == set(values.codes.positions)
        share = max(values.codes.counts) / values.count * 100
        assert levels.y[levels.y == levels.y].max() == pytest.approx(share)


def test_without_figures_there_are_no_empty_pictures(found):
    bare = [replace(layer, sensitivity=None, outputs=None) for layer in found.layers]
    assert panels.ratios(bare) is panels.costs(bare, "kl") is None
    perfect = Outputs(float("inf"), None, None, None)
    assert panels.ratios([replace(layer, outputs=perfect) for layer in bare]) is None
    nothing = [replace(choice, predicted=0.0, measured=-1.0) for choice in found.budget.choices]
    assert panels.pareto(replace(found.budget, choices=tuple(nothing), all_equal=())) is None


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
    """Return what opens the page from the file system without a network; any error of it fails the test."""
    problems = []

    def open_(width=1500, scheme="light"):
        how = {"offline": True, "color_scheme": scheme, "viewport": {"width": width, "height": 900}}
        tab = browser.new_context(**how).new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield open_
    assert problems == []


@pytest.mark.browser
@pytest.mark.slow
def test_it_sorts_marks_and_opens_by_keyboard(opened, found):
    tab = opened()
    rows = tab.locator(".layers tbody tr")

    def names():
        return [text.split("\t")[0] for text in rows.all_inner_texts()]

    assert names() == [layer.name for layer in found.layers]
    rising = sorted(found.quantized, key=lambda layer: layer.outputs.local)
    button = tab.get_by_role("button", name="local dB")
    for order, state in ((rising, "ascending"), (rising[::-1], "descending")):
        button.press("Enter")
        assert names() == [*(layer.name for layer in order), "up"], "a layer without the figure is last"
        assert button.locator("xpath=..").get_attribute("aria-sort") == state
    tab.get_by_role("button", name="layer").press("Enter")
    assert names() == [layer.name for layer in found.layers]
    assert tab.locator("[aria-sort]").count() == 1

    slider = tab.get_by_role("slider", name="Mark layers whose local ratio is below")
    slider.press("End")
    assert tab.locator("#counted").inner_text() == "3 of 3 layers are below"
    slider.press("Home")
    slider.press("ArrowRight")
    level = float(slider.get_attribute("aria-valuetext").removesuffix(" dB"))
    below = [layer.name for layer in found.quantized if layer.outputs.local < level]
    assert tab.locator("#counted").inner_text() == f"{len(below)} of 3 layers are below"
    slider.press("End")
    tab.get_by_role("checkbox", name="show only these").press("Space")
    assert rows.locator("visible=true").count() == 3

    tab.get_by_role("table").get_by_role("link", name="wide<b>").press("Enter")
    assert tab.locator("details[open] summary strong").all_inner_texts() == ["wide<b>"]
    tab.locator("summary").first.press("Tab")
    assert tab.evaluate(looks.RING) >= 2


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_and_axe_finds_nothing(opened, scheme, tmp_path):
    tab = opened(400, scheme)
    tab.locator("details").evaluate_all("(all) => all.forEach((e) => { e.open = true; })")
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 400
    ground = tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(17, 17, 17)") == (scheme == "dark")
    script = axe.fetched(tmp_path) or pytest.skip("axe-core cannot be fetched from the npm registry")
    tab.evaluate(script)
    assert tab.evaluate(axe.RUN, "body") == []


@pytest.mark.browser
@pytest.mark.slow
def test_print_shows_the_layers_and_no_controls(opened):
    tab = opened()
    assert not tab.locator("details img").first.is_visible()
    tab.emulate_media(media="print")
    assert not tab.get_by_role("slider").is_visible()
    assert tab.locator("details img").first.is_visible()
