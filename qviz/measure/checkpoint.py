"""Checkpoint: the tensors of a file by name, each read when it is asked for; no file can run code."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qviz.core._state import flat, read

INDEX = "model.safetensors.index.json"
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
KINDS = (".safetensors", ".index.json", *PICKLED, ".npz", ".npy")
Readers = dict[str, Callable[[], Tensor]]


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a file by name, each read when it is asked for. No file can run code.

    Files are .safetensors (one, or the .index.json of many, or the folder that holds either), PyTorch's
    .pt, .pth, .bin and .ckpt (unpickled with ``weights_only``, which builds tensors and nothing else; nested
    dictionaries and lists give dotted names), and numpy's .npz and .npy (without pickles).

    Args:
        path: The file, or a folder as ``save_pretrained`` writes it.

    Raises:
        OSError: The file is not there or cannot be read.
        ValueError: The file is of another kind, is broken, holds objects instead of tensors, or two tensors
            under one dotted name.

    Example:
        >>> from qviz import shipped
        >>> weights = Checkpoint(shipped.data_dir() / "mobilenet_v2_weights.safetensors")
        >>> len(weights), weights["stem"].shape, weights.matching("depthwise_*")[:2]
        (8, torch.Size([32, 3, 3, 3]), ['depthwise_early', 'depthwise_late'])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._readers = _readers(self.path)

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            KeyError: There is no such tensor.
            TypeError: It holds what torch does not know, such as text.
            ValueError: The file is broken.
        """
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names, sorted."""
        return iter(sorted(self._readers))

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._readers)

    def matching(self, pattern: str = "*") -> list[str]:
        """Return the names that match a pattern with * and ?, sorted."""
        return [name for name in self if fnmatchcase(name, pattern)]


def _readers(path: Path) -> Readers:
    """Return a function for each tensor of a file, which reads it."""
    if path.is_dir():
        found = [path / name for name in (INDEX, "model.safetensors") if (path / name).is_file()]
        found = found or sorted(path.glob("*.safetensors"))
        if len(found) == 0 or (len(found) > 1 and found[0].name != INDEX):
            raise ValueError(f"{path}: the folder has neither {INDEX} nor one .safetensors file alone")
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    kind = ".index.json" if path.name.endswith(".index.json") else path.suffix.lower()
    try:
        if kind == ".safetensors":
            return _safetensors(path)
        if kind == ".index.json":
            return _sharded(path)
        if kind in (".npz", ".npy"):
            return _numpy(path)
        if kind in PICKLED:
            return {n: functools.partial(Tensor.detach, x) for n, x in flat(read(path), path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path}: broken .safetensors file ({error})") from error
    raise ValueError(f"{path}: unknown kind of file {kind!r}; give one of {', '.join(KINDS)}")


def _safetensors(path: Path) -> Readers:
    def read(name: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    with safe_open(path, framework="pt") as file:
        return {name: functools.partial(read, name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _sharded(path: Path) -> Readers:
    try:
        where = json.loads(path.read_text("utf-8"))["weight_map"]
        shards = {shard: _safetensors(_beside(path, shard)) for shard in sorted(set(where.values()))}
        for name, shard in where.items():
            if name not in shards[shard]:
                raise ValueError(f"{path}: {name!r} should be in {shard} and is not")
        return {name: shards[shard][name] for name, shard in where.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no index of a checkpoint ({type(error).__name__}: {error})") from error


def _beside(path: Path, shard: str) -> Path:
    """Return the file of a shard, which has to lie in the folder of the index."""
    if Path(shard).name != shard or not shard.endswith(".safetensors"):
        raise ValueError(f"{path}: names the shard {shard!r}, which is no .safetensors file beside it")
    return path.with_name(shard)


def _numpy(path: Path) -> Readers:
    with path.open("rb") as file:  # np.load goes by what is inside, whatever the name says
        magic = file.read(6)
    if not (magic == b"\x93NUMPY" if path.suffix.lower() == ".npy" else magic[:2] == b"PK"):
        raise ValueError(f"{path}: not an {path.suffix} file; a pickle by that name is not opened")

    def read(name: str | None) -> Tensor:
        try:
            loaded = np.load(path, allow_pickle=False)
            x = loaded if name is None else loaded[name]
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            what = (
                "holds Python objects, and unpickling runs code" if "Object arrays" in str(error) else error
            )
            raise ValueError(f"{path}: refused or broken: {what}") from error
        try:
            return torch.from_numpy(np.array(x, x.dtype.newbyteorder("="), order="C"))
        except TypeError as error:
            raise TypeError(f"it holds {x.dtype}, which torch does not know") from error

    if path.suffix.lower() == ".npy":
        return {path.stem: functools.partial(read, None)}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: broken .npz file ({error})") from error
    return {name: functools.partial(read, name) for name in names}
