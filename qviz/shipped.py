"""The small real data that travels with qviz: trained weights, activations of real photos, a CIFAR-10 sample.

>>> len(names("weights"))
8
>>> names("activations")
('act_stem', 'act_depthwise', 'act_bottleneck', 'act_outlier', 'act_expand', 'act_pooled')
>>> info("stem").shape
(32, 3, 3, 3)
>>> print(f"{tensor('stem').std():.4f}")
0.2284

What each file is, its license and how it was made stands in ``data/README.md``. A file's sha256 is compared
with ``data/manifest.json`` before it is first read; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from qviz.core._files import file_sha256

KINDS = ("weights", "activations")
SPLITS = ("train", "test")
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_PACKAGE = Path(__file__).resolve().parent
_REPAIR = "restore the folder data (git checkout -- data), or reinstall qviz-quantization."


@dataclass(frozen=True)
class TensorInfo:
    """What is known about one shipped tensor.

    Attributes:
        name: the name that ``tensor`` takes.
        kind: "weights" or "activations".
        shape: the tensor's shape; (positions, channels) for activations.
        channel_axis: the axis that per-channel quantization runs along.
        source: of weights, the key in the published state dict and the rows kept; of activations, the module.
        description: one line on what is worth seeing in it.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    channel_axis: int
    source: str
    description: str


def data_dir() -> Path:
    """Return the folder of shipped data, in a checkout or in an installed wheel.

    Raises:
        FileNotFoundError: Neither place has it.
    """
    return _shared("data")


def notebooks_dir() -> Path:
    """Return the folder of shipped notebooks, in a checkout or in an installed wheel.

    Raises:
        FileNotFoundError: Neither place has it.
    """
    return _shared("notebooks")


def _shared(folder: str) -> Path:
    checkout = _PACKAGE.parent
    # pyproject.toml tells a checkout from site-packages, where a folder "data" may be anyone's
    if (checkout / "pyproject.toml").is_file() and (checkout / folder).is_dir():
        return checkout / folder
    if (_PACKAGE / "_share" / folder).is_dir():
        return _PACKAGE / "_share" / folder
    raise FileNotFoundError(
        f"The folder {folder!r} is neither beside the package (with pyproject.toml) nor in qviz/_share; "
        "reinstall qviz-quantization, or complete the checkout."
    )


def names(kind: str | None = None) -> tuple[str, ...]:
    """Return the names of the shipped tensors, in the order of the network they come from.

    Args:
        kind: Which tensors: "weights", "activations", or None for both.

    Raises:
        ValueError: Kind is something else.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; choose None or one of {', '.join(KINDS)}.")
    return tuple(n for n, i in _catalog(data_dir()).items() if kind in (None, i.kind))


def info(name: str) -> TensorInfo:
    """Return what is known about one shipped tensor.

    Raises:
        ValueError: No tensor has that name.
    """
    catalog = _catalog(data_dir())
    if name not in catalog:
        raise ValueError(f"No shipped tensor is named {name!r}; choose from {', '.join(catalog)}.")
    return catalog[name]


def tensor(name: str) -> torch.Tensor:
    """Return one shipped tensor: a fresh float32 copy on the CPU, of shape ``info(name).shape``.

    Weights are MobileNetV2's as published, batch normalization not folded. Activations are what the network
    puts out on 20 photos, at positions drawn at random; they are stored as float16, 73 dB above the rounding.

    >>> w, x = tensor("expand"), tensor("act_bottleneck")  # x is what this layer reads
    >>> tuple((x @ w.flatten(1).T).shape)
    (682, 576)

    Raises:
        ValueError: No tensor has that name, or the file's sha256 is wrong.

    References:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. arXiv:1801.04381
    """
    path = _trusted(data_dir() / _tensor_file(info(name).kind))
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name).to(torch.float32, copy=True)


def cifar10_sample(split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embedded sample of CIFAR-10: 2,000 images, 200 of each class, pixel for pixel the originals.

    "train" holds training images only, "test" holds test images only. Labels run 0, 1, ..., 9, 0, 1, ..., so
    that every prefix of 10 n images is balanced; ``CIFAR10_CLASSES`` names them.

    >>> images, labels = cifar10_sample("test")
    >>> images.shape, images.dtype, labels[:12].tolist()
    (torch.Size([2000, 3, 32, 32]), torch.uint8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    >>> print(f"{images.float().mean() / 255:.4f}")
    0.4745

    Args:
        split: Which part: "train" or "test".

    Returns:
        images, uint8, shape (2000, 3, 32, 32), planes R, G, B; and labels, int64, shape (2000,).

    Raises:
        ValueError: ``split`` is something else, or a file's sha256 is wrong.
        ImportError: Pillow is not installed.

    References:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}.")
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "The CIFAR-10 sample needs Pillow: pip install 'qviz-quantization[plot]'"
        ) from error
    index = json.loads(_trusted(data_dir() / "cifar10_sample.json").read_text(encoding="utf-8"))
    with Image.open(_trusted(data_dir() / index[split]["mosaic"])) as picture:
        pixels = np.array(picture.convert("RGB"))
    rows, columns = pixels.shape[0] // 32, index["columns"]
    tiles = pixels.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3)
    images = torch.from_numpy(np.ascontiguousarray(tiles).reshape(-1, 3, 32, 32))
    return images, torch.tensor(index[split]["labels"], dtype=torch.int64)


def checkpoint(name: str) -> Path:
    """Return the path of a shipped checkpoint, its sha256 checked.

    Args:
        name: The name of the file, such as "resnet20_fp32.safetensors".

    Raises:
        ValueError: No such file is shipped, or its sha256 is wrong.
        FileNotFoundError: it is listed but missing.
    """
    return _trusted(data_dir() / name)


def verify() -> tuple[str, ...]:
    """Hash every shipped file anew, and return the names of the files that were checked.

    Raises:
        FileNotFoundError: A file of the manifest is missing.
        ValueError: a file's sha256 is not the manifest's.
    """
    folder = data_dir()
    for name in _manifest(folder):
        _check(folder / name)
    return tuple(_manifest(folder))


def _tensor_file(kind: str) -> str:
    return f"mobilenet_v2_{kind}.safetensors"


def _manifest(folder: Path) -> dict[str, dict[str, str | int]]:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def _check(path: Path) -> Path:
    entry = _manifest(path.parent).get(path.name)
    if entry is None:
        raise ValueError(f"{path.name} is not listed in manifest.json; {_REPAIR}")
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is listed in manifest.json, but missing; {_REPAIR}")
    found = file_sha256(path)
    if found != entry["sha256"]:
        raise ValueError(
            f"{path.name} has sha256 {found}, but manifest.json says {entry['sha256']}; {_REPAIR}"
        )
    return path


# once per process and path; a failed check is not remembered, so a repaired file is read without a restart
_trusted = cache(_check)


@cache
def _catalog(folder: Path) -> dict[str, TensorInfo]:
    found = {}
    for kind in KINDS:
        with safe_open(_trusted(folder / _tensor_file(kind)), framework="pt") as file:
            for name, about in json.loads(file.metadata()["tensors"]).items():
                shape = tuple(file.get_slice(name).get_shape())
                found[name] = TensorInfo(name=name, kind=kind, shape=shape, **about)
    return found
