"""Frames on a socket and the plain data in them: numbers, text, arrays, containers, all checked on arrival.

A frame is a magic word, two lengths, a JSON header and the raw little-endian bytes of its arrays. Nothing is
pickled, and an object that is no plain data crosses as the name of its type.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"QVZ1"
HEADER_BYTES = 1 << 20
BUFFER_BYTES = 64 << 20
ARRAYS = 64
DIMENSIONS = 8
DEPTH = 6
NODES = 200_000
DTYPES = {"|b1", "|i1", "|u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8"}
_START = struct.Struct("<4sIQ")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class MalformedError(ValueError):
    """What arrived is no frame, or holds what a frame may not hold."""


class TooLargeError(ValueError):
    """What is to be sent exceeds what a frame may hold."""


def nesting(data: bytes, limit: int) -> int:
    """Return how deep the brackets of a JSON text are nested, or ``limit + 1`` as soon as they exceed it."""
    depth = deepest = 0
    for mark in re.finditer(rb"[\[\]{}]", _STRING.sub(b"", data)):
        depth += 1 if mark[0] in b"[{" else -1
        deepest = max(deepest, depth)
        if depth > limit:
            return limit + 1
    return deepest


def frame(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message.

    Raises:
        TooLargeError: The header, the arrays or their number exceed the limits of a frame.
    """
    writer = _Writer()
    fields = {key: writer.encode(value, 0) for key, value in message.items()}
    header = json.dumps({"fields": fields, "arrays": writer.heads}).encode("utf-8", "replace")
    size = sum(array.nbytes for array in writer.arrays)
    if len(header) > HEADER_BYTES or size > BUFFER_BYTES or len(writer.arrays) > ARRAYS:
        raise TooLargeError(
            f"a header of {len(header)} bytes and {len(writer.arrays)} arrays of {size} bytes exceed a frame"
        )
    start = _START.pack(MAGIC, len(header), size)
    return b"".join([start, header, *(array.tobytes() for array in writer.arrays)])


def receive(read: Callable[[int], bytes], alien: Callable[[str], Any] = str) -> dict[str, Any]:
    """Return the next message.

    Args:
        read: Returns exactly as many bytes as it is asked for.
        alien: Makes what stands for an object that is no plain data, from the name of its type.

    Raises:
        MalformedError: The bytes are no frame, or its lengths exceed the limits.
    """
    magic, length, size = _START.unpack(read(_START.size))
    if magic != MAGIC or length > HEADER_BYTES or size > BUFFER_BYTES:
        raise MalformedError(f"a frame starts with {MAGIC!r} and lengths within its limits")
    header, buffers = read(length), read(size)
    try:
        head = json.loads(header)
        return _message(head, buffers, alien)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MalformedError(f"the header of a frame is malformed: {type(error).__name__}") from None


class _Writer:
    """Turns values into JSON and takes the arrays out."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.heads: list[dict[str, Any]] = []
        self.nodes = 0

    def encode(self, value: object, depth: int) -> object:
        """Return ``value`` as JSON, its arrays appended to ``arrays``."""
        self.nodes += 1
        if self.nodes > NODES:
            raise TooLargeError(f"a message holds at most {NODES} values")
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or type(value) in (bool, float, str):
            return value
        if type(value) is int:
            return value if value.bit_length() <= 256 else {"alien": "int"}
        if (array := array_of(value)) is not None:
            return self._array(array)
        return self._container(value, depth + 1) or {"alien": type(value).__name__[:80]}

    def _array(self, array: np.ndarray) -> object:
        self.heads.append({"dtype": array.dtype.str, "shape": list(array.shape)})
        self.arrays.append(array)
        return {"array": len(self.arrays) - 1}

    def _container(self, value: object, depth: int) -> dict[str, Any] | None:
        if depth > DEPTH:
            return None
        if isinstance(value, (list, tuple)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.encode(item, depth) for item in list(value)]}
        if isinstance(value, dict) and all(type(key) in (str, int, float, bool) for key in value):
            return {"dict": [[key, self.encode(item, depth)] for key, item in list(value.items())]}
        return None


def array_of(value: object) -> np.ndarray | None:
    """Return an array or tensor as a little-endian array in C order, or None where it has no counterpart.

    Raises:
        TooLargeError: It exceeds a frame by itself; it is not copied then.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16 or value.is_complex() or value.layout != torch.strided:
            return None
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        return None
    little = value.dtype.newbyteorder("<")
    if little.str not in DTYPES or value.ndim > DIMENSIONS:
        return None
    if value.nbytes > BUFFER_BYTES:
        raise TooLargeError(f"an array of {value.nbytes} bytes exceeds a frame")
    return np.array(value, dtype=little, order="C", copy=True, subok=False)


def _message(head: dict[str, Any], buffers: bytes, alien: Callable[[str], Any]) -> dict[str, Any]:
    if head.keys() != {"fields", "arrays"} or len(head["arrays"]) > ARRAYS:
        raise MalformedError("a header has fields, and a limited number of arrays")
    arrays, start = [], 0
    for entry in head["arrays"]:
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in DTYPES or len(shape) > DIMENSIONS:
            raise MalformedError("an array's type or shape is not allowed")
        if not all(type(size) is int and 0 <= size <= BUFFER_BYTES for size in shape):
            raise MalformedError("an array's sizes are whole numbers")
        count = math.prod(shape)
        end = start + count * np.dtype(dtype).itemsize
        if end > len(buffers):
            raise MalformedError("an array exceeds its buffer")
        empty = np.zeros(shape, dtype) if not count else None
        arrays.append(np.frombuffer(buffers, dtype, count, start).reshape(shape).copy() if count else empty)
        start = end
    if start != len(buffers):
        raise MalformedError("the arrays do not fill the buffer")
    decoder = _Reader(arrays, alien)
    return {key: decoder.decode(value, 0) for key, value in head["fields"].items()}


class _Reader:
    """Turns JSON into values and puts the arrays in."""

    def __init__(self, arrays: list[np.ndarray], alien: Callable[[str], Any]) -> None:
        self.arrays = arrays
        self.alien = alien

    def decode(self, value: object, depth: int) -> object:
        """Return the value, or raise MalformedError."""
        if not isinstance(value, (dict, list)):
            return value
        if isinstance(value, list) or len(value) != 1 or depth > DEPTH:
            raise MalformedError("a value is plain, or an object of one tag, and not nested too deeply")
        ((tag, inner),) = value.items()
        if tag == "array" and type(inner) is int and 0 <= inner < len(self.arrays):
            return self.arrays[inner]
        if tag == "alien" and isinstance(inner, str):
            return self.alien(inner)
        if tag in ("list", "tuple") and isinstance(inner, list):
            items = [self.decode(item, depth + 1) for item in inner]
            return items if tag == "list" else tuple(items)
        if tag == "dict" and isinstance(inner, list):
            return {key: self.decode(item, depth + 1) for key, item in inner}
        raise MalformedError("a value's tag is not known")
