"""What ``qviz verify`` and ``qviz run`` share: the images of ``--data``, batch by batch with a bar."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    from torch import Tensor

DATA = (
    "cifar10 (the test set, in the cache folder), sample (the 2,000 test images that come along), or a .npy"
)


def images_of(data: str, about: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return images, normalized as an exported network takes them, and their classes where they are known.

    Args:
        data: "cifar10", "sample", or a .npy file of (N, C, H, W): uint8 pixels, which are normalized, or
            float32, which are normalized already.
        about: What the file says of itself.

    Raises:
        UsageError: There are no such images, or they do not fit.
    """
    from qviz.nn.data import cifar10

    shape = [int(n) for n in about.get("shape") or ()]
    if data not in ("cifar10", "sample"):
        return _array(Path(data), about, shape), None
    if shape not in ([], [3, 32, 32]):
        raise UsageError(f"the images of {data} are 3 x 32 x 32, the network's {' x '.join(map(str, shape))}")
    try:
        found = cifar10("test", source="full" if data == "cifar10" else "sample")
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    return _normalized(found.images, about), found.labels


def _array(path: Path, about: Mapping[str, Any], shape: list[int]) -> Tensor:
    import numpy as np
    import torch

    if path.suffix != ".npy" or not path.is_file():
        raise UsageError(f"--data takes {DATA} file; got {path}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:  # numpy advises to unpickle it
        raise UsageError(f"{path} is no .npy file of numbers, or is damaged") from error
    if (
        array.ndim != 1 + len(shape or [0] * 3)
        or (shape and list(array.shape[1:]) != shape)
        or not len(array)
    ):
        raise UsageError(f"{path} has the shape {array.shape}; the network takes images of {tuple(shape)}")
    if array.dtype == np.uint8:
        return _normalized(torch.from_numpy(array), about)
    if array.dtype != np.float32:
        raise UsageError(f"{path} holds {array.dtype}; give uint8 pixels, or float32 that are normalized")
    if not np.isfinite(array).all():
        raise UsageError(f"{path} holds pixels that are NaN or infinite")
    return torch.from_numpy(array)


def _normalized(pixels: Tensor, about: Mapping[str, Any]) -> Tensor:
    from qviz.nn.data.augment import normalize

    mean, std = about.get("mean"), about.get("std")
    if not mean or not std:
        raise UsageError("the file does not say how pixels are normalized; give float32 images that are")
    return normalize(pixels, mean, std).contiguous()


def bar(parts: Sequence[Tensor]) -> Iterable[Tensor]:
    """Return batches of images; a bar shows them where tqdm is installed and somebody looks."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        return parts
    from tqdm import tqdm

    return tqdm(parts, unit_scale=len(parts[0]), unit="image", leave=False)
