"""CIFAR-10: the official binary files, hash-checked, or the embedded sample of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qviz.core._files import file_sha256, locked
from qviz.nn.download import cache_dir, fetch
from qviz.shipped import CIFAR10_CLASSES, cifar10_sample, data_dir

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
FILES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
SPLITS = ("train", "val", "train+val", "test")
SOURCES = ("full", "sample")
_RECORD = 1 + 3 * 32 * 32  # a label, then the planes R, G, B
_HELD_PER_CLASS, _SAMPLE_HELD, _SEED = 500, 200, 20150211


@dataclass(frozen=True, eq=False)
class Cifar10:
    """Images and labels of one split.

    Attributes:
        images: uint8, shape (N, 3, 32, 32), channels_last in memory.
        labels: int64, shape (N,).
        split: One of ``SPLITS``.
        source: "full", or "sample" for the 2,000 + 2,000 embedded images.
        classes: Names of the labels.
    """

    images: Tensor
    labels: Tensor
    split: str
    source: str
    classes: tuple[str, ...] = CIFAR10_CLASSES

    def __len__(self) -> int:
        return len(self.labels)


def cifar10(
    split: str = "train", *, root: str | Path | None = None, download: bool = False, source: str | None = None
) -> Cifar10:
    """Return one split of CIFAR-10: the full set where it is, else the embedded sample.

    ======== ============================== ===================
    split    of the full set                of the sample
    ======== ============================== ===================
    train    45,000 training images         1,800
    val      5,000 other training images    200
    test     the 10,000 test images         2,000 test images
    ======== ============================== ===================

    "train+val" is all training images. Every split is balanced. "val" is fixed: what is held out of the
    sample is held out of the full set too, so no model trained on either "train" has seen either "val".

    >>> data = cifar10("val", source="sample")
    >>> data.source, tuple(data.images.shape), data.labels.bincount().tolist()
    ('sample', (200, 3, 32, 32), [20, 20, 20, 20, 20, 20, 20, 20, 20, 20])

    Args:
        split: One of ``SPLITS``.
        root: Folder with ``cifar-10-batches-bin``, or that folder itself; None for
            :func:`~qviz.nn.download.cache_dir`.
        download: Get the full set from its official source (170 MB) where it is missing.
        source: "full" or "sample" to insist on one; None for the full set if it is there.

    Raises:
        ValueError: ``split`` or ``source`` is something else, or a file's sha256 is not the official one.
        FileNotFoundError: The full set was asked for (by ``source`` or ``root``) and is not there, or only
            a part is.
        ConnectionError: The download failed.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}.")
    if source not in (None, *SOURCES):
        raise ValueError(f"source is {source!r}; choose None or one of {', '.join(SOURCES)}.")
    if source == "sample":
        if download or root is not None:
            raise ValueError("The sample travels with qviz: source='sample' goes without root and download.")
        return _sample(split)
    if download:
        folder = _folder(root)
        if _missing(folder):
            _complete(folder)
        return _full(folder, split)
    if cifar10_source(root=root, source=source) == "sample":
        return _sample(split)
    return _full(_folder(root), split)


def cifar10_source(*, root: str | Path | None = None, source: str | None = None) -> str:
    """Return which images :func:`cifar10` would give, "full" or "sample", by the files' names alone.

    Args:
        root: The folder of the data, as for :func:`cifar10`.
        source: "full" or "sample" to insist on one.

    Raises:
        FileNotFoundError: The full set was asked for and is not there, or only a part is.
    """
    if source == "sample":
        return "sample"
    folder = _folder(root)
    missing = _missing(folder)
    if missing and (source or root is not None or len(missing) < len(FILES)):
        raise FileNotFoundError(
            f"The full CIFAR-10 is not in {folder} (no {', '.join(missing)}); "
            "cifar10(..., download=True) gets it."
        )
    return "sample" if missing else "full"


def _folder(root: str | Path | None) -> Path:
    home = cache_dir() if root is None else Path(root).expanduser()
    return home if any((home / name).is_file() for name in FILES) else home / FOLDER


def _missing(folder: Path) -> list[str]:
    return [name for name in FILES if not (folder / name).is_file()]


def _sample(split: str) -> Cifar10:
    images, labels = cifar10_sample("test" if split == "test" else "train")
    # The sample's order is random within a class and balanced in every run of ten: its end is a fair draw.
    kept = {"train": slice(None, -_SAMPLE_HELD), "val": slice(-_SAMPLE_HELD, None)}.get(split, slice(None))
    return Cifar10(_channels_last(images[kept]), labels[kept].clone(), split, "sample")


def _full(folder: Path, split: str) -> Cifar10:
    names = [name for name in FILES if (name == "test_batch.bin") == (split == "test")]
    for name in names:
        stat = (folder / name).stat()
        _check(folder / name, FILES[name], stat.st_size, stat.st_mtime_ns)
    records = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, _RECORD) for name in names])
    if split in ("train", "val"):
        held = held_out(records[:, 0])
        records = records[held if split == "val" else ~held]
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32))
    return Cifar10(_channels_last(images), torch.from_numpy(records[:, 0].astype(np.int64)), split, "full")


def held_out(labels: np.ndarray) -> np.ndarray:
    """Return which of the 50,000 training images are "val": bool, 500 of each class.

    Of each class: the 20 that the sample holds out, and 480 drawn from those that are not in the sample.

    Args:
        labels: The labels of the training files in their order, shape (50000,).
    """
    index = json.loads((data_dir() / "cifar10_sample.json").read_text(encoding="utf-8"))
    sampled = np.array(index["train"]["source_index"])
    held, free = np.zeros(len(labels), bool), np.ones(len(labels), bool)
    held[sampled[-_SAMPLE_HELD:]] = True
    free[sampled] = False
    rng = np.random.RandomState(_SEED)  # the legacy generator: NumPy promises never to change its stream
    for label in range(len(CIFAR10_CLASSES)):
        more = _HELD_PER_CLASS - int(held[labels == label].sum())
        held[rng.permutation(np.flatnonzero(free & (labels == label)))[:more]] = True
    return held


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@cache  # once per process and version of a file: hashing the set takes a while
def _check(path: Path, sha256: str, size: int, changed: int) -> None:
    if (found := file_sha256(path)) != sha256:
        raise ValueError(
            f"{path} has sha256 {found}, the official file {sha256}; "
            "remove it, and cifar10(..., download=True) gets it anew."
        )


def _complete(folder: Path) -> None:
    """Download the archive, take the six files out, and move them to ``folder``; the archive is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{FOLDER}.lock"):
        if all((folder / name).is_file() for name in FILES):  # another process has just done it
            return
        archive = fetch(URL, folder.parent, ARCHIVE_SHA256)
        extract(archive, folder)
        archive.unlink()


def extract(archive: Path, folder: Path) -> None:
    """Take the six files out of the official archive; each is hashed before any appears in ``folder``.

    Only these six members are read, as bytes: links, paths and modes in the archive mean nothing.

    Raises:
        ValueError: A file is missing in the archive, or its sha256 is not the official one; ``folder`` is
            untouched.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=folder.parent))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix(f"{FOLDER}/")
                if name in FILES and member.isreg() and (content := tar.extractfile(member)) is not None:
                    with (temporary / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
        _same(temporary, archive.name)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)  # the whole folder at once
        except OSError:  # a part of it was there
            folder.mkdir(exist_ok=True)
            for name in FILES:
                (temporary / name).replace(folder / name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(temporary)


def _same(folder: Path, archive: str) -> None:
    for name, wanted in FILES.items():
        if not (folder / name).is_file():
            raise ValueError(f"{archive} holds no {FOLDER}/{name}; nothing was extracted.")
        if (found := file_sha256(folder / name)) != wanted:
            raise ValueError(
                f"{name} in {archive} has sha256 {found}, expected {wanted}; nothing was extracted."
            )
