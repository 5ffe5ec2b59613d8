"""The capstone's file: the shipped ResNet-20 as codes and levels, what it costs, and what it is worth.

A file is a safetensors file. For each of the 20 convolutions and linear layers (``LAYERS``) it has

- ``NAME.codes``: uint8, the weight's shape, one code for each weight,
- ``NAME.levels``: float32, (K,) for the whole tensor or (O, K) for each output channel, K from 2 to 256,
- ``NAME.scale``: float32, (O,), optional: each output channel's levels are multiplied by it.

``FLOATS``, batch normalization and the last bias, may be in it under their usual names, float32; those that
are not are the shipped network's. A code is counted with the fewest bits that name K levels, whatever the
file spends:

    bits = Σ_l n_l ⌈log2 K_l⌉ + 32 · (numbers in all levels and scales) + 32 · (numbers in all FLOATS)

FLOATS always count, in the file or not. The file's metadata, JSON in its header, say whose it is and how it
was made.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file
from torch import Tensor, nn

from qviz.explore import network

MOST_BYTES, MOST_HEADER = 2_000_000, 1_000_000
BATCH = 100
_DTYPES = {"U8": np.uint8, "F32": np.float32}
_ABOUT = {"name": 40, "method": 400}


@functools.cache
def _shapes() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes of the layers' weights, and of the parts that stay in floating point."""
    net = network.resnet20()
    layers = {
        name: tuple(module.weight.shape)
        for name, module in net.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    weights = {f"{name}.weight" for name in layers}
    rest = {k: tuple(v.shape) for k, v in net.state_dict().items() if k not in weights and v.ndim}
    return layers, rest


def layers() -> dict[str, tuple[int, ...]]:
    """Return the layers whose weights have codes, with the weights' shapes."""
    return dict(_shapes()[0])


def floats() -> dict[str, tuple[int, ...]]:
    """Return the parts that stay in floating point, with their shapes."""
    return dict(_shapes()[1])


@dataclass(frozen=True, eq=False)
class Packed:
    """One layer's weight.

    Attributes:
        codes: Whole numbers from 0, of the weight's shape.
        levels: (K,) or (O, K).
        scale: (O,), or None.
    """

    codes: np.ndarray
    levels: np.ndarray
    scale: np.ndarray | None = None

    @property
    def bits(self) -> int:
        """What the codes and their table take."""
        table = self.levels.size + (0 if self.scale is None else self.scale.size)
        return self.codes.size * (self.levels.shape[-1] - 1).bit_length() + 32 * table

    @property
    def weight(self) -> np.ndarray:
        """The weight that they stand for, float32."""
        rows = self.codes.reshape(len(self.codes), -1)
        one_table = self.levels.ndim == 1
        found = self.levels[rows] if one_table else np.take_along_axis(self.levels, rows.astype(np.intp), 1)
        found = found if self.scale is None else found * self.scale[:, None]
        return found.reshape(self.codes.shape)


@dataclass(frozen=True, eq=False)
class Handed:
    """What a file holds.

    Attributes:
        layers: Every layer by name.
        floats: The parts that are not the shipped network's.
        about: Name and method, as the file's metadata have them.
    """

    layers: Mapping[str, Packed]
    floats: Mapping[str, np.ndarray] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The size that counts."""
        always = 32 * sum(math.prod(shape) for shape in floats().values())
        return math.ceil((sum(one.bits for one in self.layers.values()) + always) / 8)

    def network(self) -> nn.Module:
        """Return the network, in eval mode."""
        net = network.with_weights({k: torch.from_numpy(one.weight) for k, one in self.layers.items()})
        own = {name: torch.from_numpy(value) for name, value in self.floats.items()}
        net.load_state_dict(own, strict=False)
        return net.eval()


def write(path: str | Path, handed: Handed, *, name: str, method: str) -> Path:
    """Write a file.

    Args:
        path: Where to.
        handed: The layers, and other floats than the shipped ones if there are any.
        name: For the leaderboard, at most 40 characters; it need not be a real one.
        method: What was done, at most 400 characters.

    Raises:
        ValueError: It is not what :func:`read` takes.
    """
    path = Path(path)
    parts: dict[str, np.ndarray] = {k: np.asarray(v, np.float32) for k, v in handed.floats.items()}
    for layer, one in handed.layers.items():
        codes = np.asarray(one.codes)
        if codes.size and (codes.min() < 0 or codes.max() > 255 or (codes != np.rint(codes)).any()):
            raise ValueError(f"codes are whole numbers from 0 to 255, got {codes.min()} to {codes.max()}")
        parts[f"{layer}.codes"] = codes.astype(np.uint8)
        parts[f"{layer}.levels"] = np.asarray(one.levels, np.float32)
        if one.scale is not None:
            parts[f"{layer}.scale"] = np.asarray(one.scale, np.float32)
    written = {key: np.ascontiguousarray(value) for key, value in parts.items()}
    save_file(written, path, metadata={"name": name, "method": method})
    read(path)
    return path


def read(path: str | Path) -> Handed:
    """Read a file of anybody's; nothing in it is trusted.

    Raises:
        ValueError: It is too large, no safetensors file, or not of this format; one sentence.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path.name} may have {MOST_BYTES:,} bytes, got {size:,}")
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    if header > MOST_HEADER:
        raise ValueError(f"the header of {path.name} may have {MOST_HEADER:,} bytes, it claims {header:,}")
    try:
        stored = deserialize(data)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path.name} is no safetensors file: {str(error)[:200]}") from error
    parts = {name: _array(name, part) for name, part in stored}
    found = {name: _packed(name, shape, parts) for name, shape in layers().items()}
    own = {name: parts.pop(name) for name in floats() if name in parts}
    if parts:
        raise ValueError(f"{path.name} has a part {min(parts)[:80]!r} that is not of the format")
    for name, value in own.items():
        if value.dtype != np.float32 or value.shape != floats()[name]:
            raise ValueError(
                f"{name} has shape {floats()[name]} and float32, got {value.shape} {value.dtype}"
            )
        if name.endswith("running_var") and value.min() < 0:
            raise ValueError(f"{name} is a variance, got {value.min()}")
    return Handed(found, own, _about(path.name, json.loads(data[8 : 8 + header])))


@torch.no_grad()
def right(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return which images a network classifies correctly, bool, (N,)."""
    found = torch.cat([net(some).argmax(1) for some in images.split(BATCH)])
    return found == labels


def _array(name: str, part: Mapping[str, object]) -> np.ndarray:
    dtype, shape = str(part["dtype"]), tuple(part["shape"])
    if dtype not in _DTYPES or len(shape) > 4:
        raise ValueError(f"{name[:80]} is uint8 or float32 with at most 4 axes, got {dtype} {shape}")
    value = np.frombuffer(part["data"], dtype=np.dtype(_DTYPES[dtype]).newbyteorder("<")).reshape(shape)
    value = value.astype(_DTYPES[dtype])
    if value.dtype == np.float32 and not (np.abs(value) <= 1e4).all():
        raise ValueError(f"{name[:80]} has numbers that are not finite or beyond 10,000")
    return value


def _about(file: str, header: Mapping[str, object]) -> dict[str, str]:
    """The metadata of a header that was read without complaint before."""
    found = header.get("__metadata__")
    about = found if isinstance(found, dict) else {}
    for key, most in _ABOUT.items():
        value = about.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
            raise ValueError(f"the metadata of {file} have {key!r}, a line of 1 to {most} characters")
    return {key: about[key] for key in _ABOUT}


def _packed(name: str, shape: tuple[int, ...], parts: dict[str, np.ndarray]) -> Packed:
    """Take a layer's parts out of a file's."""
    missing = [f"{name}.{part}" for part in ("codes", "levels") if f"{name}.{part}" not in parts]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    codes, levels = parts.pop(f"{name}.codes"), parts.pop(f"{name}.levels")
    scale = parts.pop(f"{name}.scale", None)
    if codes.dtype != np.uint8 or codes.shape != shape:
        raise ValueError(f"{name}.codes has shape {shape} and uint8, got {codes.shape} {codes.dtype}")
    fits = levels.ndim in (1, 2) and levels.shape[:-1] in ((), shape[:1]) and 2 <= levels.shape[-1] <= 256
    if levels.dtype != np.float32 or not fits:
        raise ValueError(
            f"{name}.levels has shape (K,) or ({shape[0]}, K), K from 2 to 256, and float32, "
            f"got {levels.shape} {levels.dtype}"
        )
    if int(codes.max()) >= levels.shape[-1]:
        raise ValueError(f"{name}.codes has a code {codes.max()}, but there are {levels.shape[-1]} levels")
    if scale is not None and (scale.dtype != np.float32 or scale.shape != shape[:1]):
        raise ValueError(f"{name}.scale has shape {shape[:1]} and float32, got {scale.shape} {scale.dtype}")
    return Packed(codes, levels, scale)
