"""The page: the figures of JSON and text, alone in one file, and usable by keyboard on any screen."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from qviz.inspection import panels
from qviz.inspection.views import Cause, Outputs, Trial
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


def test_the_bit_budget_is_that_of_the_text(found, document):
    rows = document.tables["What bits of weights buy"]
    lines = [re.split(r"\s{2,}", line.strip()) for line in found.budget.table().splitlines()]
    assert rows == lines


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
    for values in (found["first"].weight, found["wide<b>"].weight):
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
