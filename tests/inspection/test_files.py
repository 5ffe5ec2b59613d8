"""Files: strict JSON, equal objects back, a schema that real inspections fulfil."""

import json
from dataclasses import replace

import jsonschema
import pytest

from qviz.inspection import Inspection, schema
from tests.inspection.small import inspection
from tests.slow import slow

KINDS = {
    "uniform": lambda: inspection("lsq"),
    "with a unit of its own": lambda: inspection("daq", 2),
    "two layers in floating point": lambda: inspection("post", 3, first_last="fp", sensitivity=False),
}


@pytest.mark.parametrize("kind", [*slow(*list(KINDS)[:-1]), list(KINDS)[-1]])
def test_what_is_saved_is_strict_follows_the_schema_and_comes_back_equal(kind, tmp_path):
    found = KINDS[kind]()
    found = replace(found, whole=replace(found.whole, db=float("inf"), loss=float("-inf")))
    path = found.save(tmp_path / "found.json")
    content = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert (content["whole"]["db"], content["whole"]["loss"]) == ("inf", "-inf")
    jsonschema.Draft202012Validator(schema()).validate(content)
    assert Inspection.load(path) == found


def test_the_schema_is_one_and_describes_every_field():
    jsonschema.Draft202012Validator.check_schema(schema())
    layers = schema()["properties"]["layers"]
    assert layers["items"] == {"$ref": "#/$defs/LayerView"}
    assert layers["description"] == "Every layer, in order of registration."
    for kind in schema()["$defs"].values():
        assert all(len(field["description"]) > 5 for field in kind["properties"].values())


SPOILED = {
    "an unknown field": (lambda top: top.update(layer=1), "the top has 'layer', which Inspection has not"),
    "a missing field": (lambda top: top["layers"][1].pop("kind"), r"layers\[1\] has no 'kind'"),
    "a number as text": (lambda top: top["whole"].update(db="high"), "whole.db must be a number, or"),
    "a broken number": (lambda top: top.update(samples=6.5), "samples must be a whole number, got 6.5"),
    "truth for a number": (lambda top: top.update(samples=True), "samples must be a whole number, got True"),
    "truth for a ratio": (
        lambda top: top["whole"].update(db=True),
        "whole.db must be a number, or one of nan",
    ),
    "no list": (lambda top: top.update(layers={}), "layers must be a list, got {}"),
    "nothing where something is": (lambda top: top.update(size=None), "size must be the fields of Size"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_the_schema_refuses_is_refused_with_its_place(what):
    spoil, message = SPOILED[what]
    content = inspection().to_dict()
    spoil(content)
    assert not jsonschema.Draft202012Validator(schema()).is_valid(content)
    with pytest.raises(ValueError, match=message):
        Inspection.from_dict(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("[1]", 'this is no qviz.inspection file: it does not say "schema": "qviz.inspection"'),
        ('{"schema": "qviz.inspection", "version": 2}', "is read in version 1, got version 2"),
        ("[" * 100_000, "cannot be read: "),
        ("\xff", "cannot be read: "),
    ],
)
def test_another_file_is_refused_in_a_sentence(text, message, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as refused:
        Inspection.load(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.json"):
        Inspection.load(tmp_path / "none.json")
