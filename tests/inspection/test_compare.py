"""Two inspections beside each other: differences by hand, what only one has, JSON, text and picture."""

import json
import math
import re
from dataclasses import replace

import jsonschema
import pytest

from qviz.inspection import Comparison, compare
from tests.inspection.small import inspection


@pytest.fixture(scope="module")
def two():
    return inspection("lsq", 4), inspection("lsq", 3)


@pytest.fixture(scope="module")
def found(two):
    return compare(*two)


def test_every_difference_is_after_less_before(two, found):
    a, b = two
    assert [one.name for one in found.layers] == ["first", "wide", "last"]
    for one in found.layers:
        before, after = a[one.name], b[one.name]
        assert one.local == after.outputs.local - before.outputs.local
        assert one.cumulative == after.outputs.cumulative - before.outputs.cumulative
        assert (one.on, one.off) == (
            after.sensitivity.on - before.sensitivity.on,
            after.sensitivity.off - before.sensitivity.off,
        )
    assert (found.layers[1].first.bits, found.layers[1].second.bits) == ("4/4", "3/3")
    assert -8 < found.layers[1].local < -4
    assert [size.packed for size in found.size] == [a.size.packed, b.size.packed]


def test_the_text_starts_with_the_worst_change_and_has_its_figures(two, found):
    head, *lines = found.text().split("\n\n")[2].splitlines()
    assert head.startswith("layer")
    name, bits, local, change, *_ = re.split(r"\s{2,}", lines[0])
    assert (name, bits) == ("wide", "4/4 to 3/3")
    assert local == f"{two[1]['wide'].outputs.local:.1f}"
    assert change == f"{found.layers[1].local:+.1f}"
    assert len(found.text(top=1).split("\n\n")[2].splitlines()) == 2
    assert "small, lsq W3A3" in found.text()


def test_it_is_saved_by_its_own_schema_and_comes_back_equal(found, two, tmp_path):
    path = found.save(tmp_path / "change.json")
    jsonschema.Draft202012Validator(Comparison.schema()).validate(json.loads(path.read_text("utf-8")))
    assert Comparison.load(path) == found
    with pytest.raises(ValueError, match=r"this is no qviz\.inspection\.comparison file"):
        Comparison.load(two[0].save(tmp_path / "found.json"))


def test_layers_that_one_has_alone_and_ratios_that_are_missing(two):
    a, b = two
    perfect = replace(a["first"], outputs=replace(a["first"].outputs, local=math.inf))
    b = replace(b, layers=(perfect, replace(b["wide"], name="broad"), replace(b["last"], outputs=None)))
    a = replace(a, layers=(perfect, *a.layers[1:]), loss="error")
    found = compare(a, b)
    assert (found.only_first, found.only_second) == (("wide",), ("broad",))
    assert [(one.name, one.local, one.on) for one in found.layers] == [
        ("first", None, None),
        ("last", None, None),
    ]
    text = found.text()
    assert "Only before: 1 layer, wide" in text
    assert "Only after: 1 layer, broad" in text
    assert "The losses are not the same (error and kl), so costs do not compare." in text


def test_the_picture_shows_both_ratios(found, two, tmp_path):
    panel = found.panel()
    for mark, one in zip(panel.marks[1::2], two, strict=True):
        assert mark.y.tolist() == [layer.outputs.local for layer in one.quantized]
    assert [mark.label for mark in panel.marks[1::2]] == ["before", "after"]
    assert found.picture(tmp_path / "change.png").read_bytes()[1:4] == b"PNG"


def test_what_cannot_be_compared_is_said_in_a_sentence(two):
    with pytest.raises(TypeError, match="compare takes two inspections, got str"):
        compare(two[0], "b.json")
    with pytest.raises(ValueError, match="small and small have no quantized layer of one name"):
        compare(two[0], replace(two[1], layers=two[1].layers[2:3]))
