"""NumPy file: a network read from its file by numpy alone; ``qviz.export.layout`` says what stands where."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from reprlib import repr
from types import SimpleNamespace
from typing import Any

import numpy as np

from qviz.export.check import check
from qviz.export.shapes import whole

DTYPES = {"F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool"}
"""What a safetensors file calls the types of numbers that a network has."""


def tensors_of(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the texts of a safetensors file that ``qviz.export`` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: It is damaged, or something else.
    """
    found, texts = _parts(Path(path).read_bytes())
    if digest(found, texts) != texts["sha256"]:
        raise ValueError("its contents do not have the SHA-256 that it states")
    return found, texts


def _parts(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"its header would have {length} bytes, and the file has {len(data)}")
    header = json.loads(data[8 : 8 + length])
    texts, body, found = header.pop("__metadata__"), data[8 + length :], {}
    left = len(body)
    if (texts.get("format"), texts.get("schema")) != ("qviz.export", "1"):
        raise ValueError("it is not of the format qviz.export, schema 1")
    for name, entry in header.items():
        (start, end), shape = entry["data_offsets"], entry["shape"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        if len(shape) > 8 or not all(0 <= n <= len(body) for n in shape):  # before they are multiplied
            raise ValueError(f"{repr(name)} would have the shape {repr(shape)}, of {len(body)} bytes")
        if not 0 <= start <= end <= len(body) or end - start != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{repr(name)} would stand at {repr(start)} to {repr(end)}, shape {shape}")
        found[name] = np.frombuffer(body[start:end], dtype).reshape(shape)
        left -= end - start
        if left < 0:
            raise ValueError("tensors would stand on top of each other")
    if left:
        raise ValueError(f"{left} of its bytes belong to no tensor")
    return found, texts


def digest(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of a file's contents, whatever its "sha256" says."""
    texts = {key: text for key, text in texts.items() if key != "sha256"}
    total = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode() + value.tobytes())
    return total.hexdigest()


@dataclass
class Weight:
    """Codes of a weight, factor × (scale × level[code] + offset)."""

    codes: np.ndarray
    levels: np.ndarray
    scale: np.ndarray | None
    offset: np.ndarray | None
    factor: np.ndarray | None
    axis: int | None
    group: int

    def value(self) -> np.ndarray:
        """Return the weight, float32."""
        w = self.levels[self.codes]
        w = w if self.scale is None else w * self._spread(self.scale)
        w = w if self.offset is None else w + self._spread(self.offset)
        return w if self.factor is None else w * self.factor

    def _spread(self, v: np.ndarray) -> np.ndarray:
        if v.ndim == 0 or self.axis is None:
            return v
        if self.group:
            return np.moveaxis(np.repeat(v, self.group, -1), -1, self.axis)
        return np.moveaxis(v.reshape(-1, *(1,) * (self.codes.ndim - 1)), 0, self.axis)


def network(path: str | Path) -> Any:
    """Return the network of a file: layers, tensors, program and about, as an ``Exported`` has them.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or its parts are not what :func:`qviz.export.check.check` demands.
    """
    try:
        found = _network(*tensors_of(path))
        check(found)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as problem:
        said = f"it has no {problem}" if isinstance(problem, KeyError) else problem
        raise ValueError(f"{path} is damaged, or no network that qviz exported: {said!s:.300}") from problem
    return found


def _network(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> Any:
    layers = {name: _layer(tensors, name, record) for name, record in json.loads(texts["layers"]).items()}
    steps = [
        SimpleNamespace(op=op, inputs=read, name=name, args=args)
        for op, read, name, args in json.loads(texts["program"])
    ]
    about, why = json.loads(texts["about"]), texts["untraceable"]
    return SimpleNamespace(layers=layers, tensors=tensors, program=steps, untraceable=why, about=about)


def _layer(tensors: Mapping[str, np.ndarray], name: str, record: Mapping[str, Any]) -> Any:
    def get(key: str) -> np.ndarray | None:
        return tensors.get(f"{name}.{key}")

    def must(key: str) -> np.ndarray:
        return tensors[f"{name}.{key}"]

    weight, read, adapter = get("weight"), None, None
    if weight is None:
        parts = (get(key) for key in ("scale", "offset", "factor"))
        codes = unpacked(must("codes"), record["bits"], record["shape"])
        weight = Weight(codes, must("levels"), *parts, record.get("axis"), record.get("group", 0))
    if get("adapter.step") is not None:
        numbers = takewhile(lambda i: get(f"adapter.{i}.weight") is not None, count())
        pairs = [(must(f"adapter.{i}.weight"), must(f"adapter.{i}.bias")) for i in numbers]
        adapter = SimpleNamespace(mode=record["mode"], layers=pairs, step=get("adapter.step"))
    if get("borders") is not None:
        read = SimpleNamespace(borders=get("borders"), values=must("values"), adapter=adapter)
    shape = (weight.codes if isinstance(weight, Weight) else weight).shape
    return SimpleNamespace(weight=weight, input=read, bias=get("bias"), shape=shape)


def unpacked(data: np.ndarray, bits: int, shape: Sequence[int]) -> np.ndarray:
    """Return codes of ``bits`` bits each from a stream of bits, the lowest bit of each byte first."""
    if not (isinstance(shape, list) and all(map(whole(1), shape)) and whole(1)(bits) and bits <= 8):
        raise ValueError(f"codes of shape {repr(shape)} with {repr(bits)} bits each")
    count = math.prod(shape)
    if data.dtype != np.uint8 or data.shape != (-(-count * bits // 8),):
        raise ValueError(f"{data.size} bytes are not those of codes of shape {shape} with {bits} bits each")
    if np.unpackbits(data[-1:], bitorder="little")[count * bits % 8 or 8 :].any():
        raise ValueError("the stream is not 0 after its last code")
    stream = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(stream, axis=1, bitorder="little").reshape(shape)
