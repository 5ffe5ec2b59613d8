"""The photos of a folder, prepared for a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def photos_of(folder: Path, about: Mapping[str, Any], most: int) -> Tensor:
    """Return photos as a network takes them: shorter side resized, center cut out, normalized.

    Args:
        folder: With photos in it, or in folders below it.
        about: Shape, mean and standard deviation of the network's images.
        most: Of more than so many, those at equal distances are taken.

    Raises:
        UsageError: There are none, or it is not known how to prepare them.
        ValueError: One of them cannot be decoded.
    """
    import torch

    from qviz.nn.data.augment import normalize
    from qviz.nn.data.photos import SUFFIXES, center_crop, decode, to_bytes

    if not about:
        raise UsageError("the file does not say what images it takes; give a .npy file of float32 images")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise UsageError(f"the folder {folder} holds no photos ({', '.join(SUFFIXES)})")
    if len(found) > most:
        found = [found[i * len(found) // most] for i in range(most)]
    pixels = torch.stack([to_bytes(center_crop(decode(path), about["shape"][-1])) for path in found])
    return normalize(pixels, about["mean"], about["std"]).contiguous()
