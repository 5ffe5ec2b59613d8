"""ImageNet from a local folder of the ILSVRC shape: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qviz.nn.data.photos import SUFFIXES
from qviz.nn.download import cache_dir

SPLITS = ("train", "val", "held-out")
_SEED = 20150211


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """The files of one split, in the order of their names.

    Attributes:
        root: The folder that ``names`` start from.
        names: "<wnid>/<file>" as bytes, shape (N,): one array, because worker processes would copy a list.
        labels: int64, shape (N,): places in ``classes``.
        split: One of ``SPLITS``.
        classes: Names of the class folders, sorted.
    """

    root: Path
    names: np.ndarray
    labels: Tensor
    split: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the file of one image."""
        return self.root / os.fsdecode(bytes(self.names[index]))


def imagenet(split: str = "train", *, root: str | Path | None = None, hold_out: int = 0) -> ImageFolder:
    """Return the files of one split of an ILSVRC folder; nothing is decoded yet.

    The classes are the sorted folder names of ``train``, or of ``val`` where there is no ``train``. "val" is
    what papers report as the test set; to choose between epochs use "held-out".

    Args:
        split: "train", "val", or "held-out": the images that ``hold_out`` takes away from "train".
        root: Folder with ``train`` and ``val``; None for ``imagenet`` in :func:`~qviz.nn.download.cache_dir`.
        hold_out: Training images of each class that are not in "train" but in "held-out"; a fixed draw.

    Raises:
        ValueError: ``split`` or ``hold_out`` cannot be; or a class folder of "val" is none of "train".
        FileNotFoundError: The folder, its class folders, or images in them are missing.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}.")
    if hold_out < 0 or (split == "held-out" and not hold_out):
        raise ValueError(f"hold_out must be at least {int(split == 'held-out')}, got {hold_out}.")
    home = cache_dir() / "imagenet" if root is None else Path(root).expanduser()
    folder = home / ("val" if split == "val" else "train")
    found = _classes(folder)
    known = _classes(home / "train") if split == "val" and (home / "train").is_dir() else found
    if strange := sorted(set(found) - set(known)):
        raise ValueError(
            f"{folder / strange[0]} has no counterpart in {home / 'train'}: labels would be wrong."
        )
    names, labels = [], []
    for name in found:
        files = _images(folder / name)
        if split != "val" and hold_out:
            files = _held(files, hold_out, known.index(name), folder / name, split)
        names += [os.fsencode(f"{name}/{file}") for file in files]
        labels += [known.index(name)] * len(files)
    if not names:
        raise FileNotFoundError(f"The class folders in {folder} hold no {', '.join(SUFFIXES)} files.")
    return ImageFolder(folder, np.array(names), torch.tensor(labels), split, tuple(known))


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; ImageNet is read from train/<wnid>/ and val/<wnid>/."
        )
    with os.scandir(folder) as entries:
        found = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no class folders; sort its images into {folder.name}/<wnid>/ "
            "(ILSVRC's val comes unsorted)."
        )
    return found


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
        )


def _held(files: list[str], hold_out: int, label: int, folder: Path, split: str) -> list[str]:
    if len(files) <= hold_out:
        raise ValueError(f"hold_out is {hold_out}, but {folder} has only {len(files)} images.")
    # the legacy generator: NumPy promises never to change its stream
    order = np.random.RandomState([_SEED, label]).permutation(len(files))
    return sorted(files[i] for i in (order[:hold_out] if split == "held-out" else order[hold_out:]))
