"""Frames: what they hold, and what is no frame."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest

from qviz.labs.sandbox import wire


def sent(header, buffers=b"", magic=b"QVZ1"):
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(struct.pack("<4sIQ", magic, len(data), len(buffers)) + data + buffers).read


def test_a_message_comes_back():
    arrays = [
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        np.array(1.5),
        np.zeros((0, 3), np.float16),
        np.array([True]),
    ]
    got = wire.receive(io.BytesIO(wire.frame({"a": (1, {"b": arrays}), "c": "µ\ud800"})).read)
    assert got["c"] == "µ?" or got["c"] == "µ\ud800"
    for one, other in zip(got["a"][1]["b"], arrays, strict=True):
        assert (one.dtype, one.shape) == (other.dtype.newbyteorder("<"), other.shape)
        np.testing.assert_array_equal(one, other)
        assert one.flags.writeable


@pytest.mark.parametrize(
    "message",
    [
        sent({"fields": {}, "arrays": []}, magic=b"QVZ2"),
        sent(b"{"),
        sent(b"\xff"),
        sent(b"[" * 900_000),
        sent([]),
        sent({"fields": {}}),
        sent({"fields": {}, "arrays": 3}),
        sent({"fields": {}, "arrays": [{"dtype": "|O8", "shape": [1]}]}, bytes(8)),
        sent({"fields": {}, "arrays": [{"dtype": "<f4", "shape": [-1]}]}, bytes(4)),
        sent({"fields": {}, "arrays": [{"dtype": "<f4", "shape": [True]}]}, bytes(4)),
        sent({"fields": {}, "arrays": [{"dtype": "<f4", "shape": [2**20, 2**20, 0.5]}]}),
        sent({"fields": {}, "arrays": [{"dtype": "<f4", "shape": [2]}]}, bytes(4)),
        sent({"fields": {}, "arrays": []}, bytes(4)),
        sent({"fields": {}, "arrays": [{"dtype": "<f4", "shape": [0]}] * 65}),
        sent({"fields": {"a": {"array": 0}}, "arrays": []}),
        sent({"fields": {"a": [1]}, "arrays": []}),
        sent({"fields": {"a": {"list": 1}}, "arrays": []}),
        sent({"fields": {"a": {"code": "x"}}, "arrays": []}),
        sent({"fields": {"a": {"dict": [[[], 1]]}}, "arrays": []}),
        sent({"fields": {"a": {"dict": [[1]]}}, "arrays": []}),
        sent(b'{"fields":{"a":' + b'{"list":[' * 9 + b"]}" * 9 + b'},"arrays":[]}'),
        sent(b'{"fields":{"a":' + b"9" * 5000 + b'},"arrays":[]}'),
    ],
)
def test_what_is_no_frame_is_malformed(message):
    with pytest.raises(wire.MalformedError):
        wire.receive(message)


@pytest.mark.parametrize(
    "value",
    [np.zeros(10**7), "x" * (1 << 20), [0] * 300_000, [np.zeros(1)] * 65],
    ids=["array", "text", "list", "many"],
)
def test_what_exceeds_a_frame_is_not_sent(value):
    with pytest.raises(wire.TooLargeError):
        wire.frame({"a": value})


def test_a_list_in_itself_ends():
    endless = []
    endless.append(endless)
    assert "list" in repr(wire.receive(io.BytesIO(wire.frame({"a": endless})).read))


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"1", 0),
        (b'{"a": [1, {"b": 2}]}', 3),
        (b'"[[["', 0),
        (b'"a\\"[["', 0),
        (b"[]" * 50, 1),
        (b"[" * 99, 11),
    ],
)
def test_nesting_counts_brackets_outside_of_strings(text, depth):
    assert wire.nesting(text, 10) == depth
