"""Photos: decoding with Pillow, and the crops that ImageNet networks are trained and measured with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qviz.nn.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpeg", ".jpg", ".png")
_SCALE, _RATIO, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
_BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, without importing it here


class Undecodable(ValueError):
    """A file that is no image, or only the beginning of one; the message names it and says why.

    Attributes:
        path: The file.
        reason: What the decoder said.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path} cannot be decoded: {reason}.")
        self.path, self.reason = str(path), reason


def decode(path: str | Path) -> Image:
    """Return an image file as a PIL image in RGB, read to its end.

    Raises:
        Undecodable: The file is missing, truncated, damaged or no image.
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Reading photos needs Pillow: pip install 'qviz-quantization[train]'") from error
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # decoders raise anything at all on damaged bytes
        raise Undecodable(path, (str(error) or type(error).__name__).splitlines()[0]) from error


def random_resized_crop(image: Image, size: int, source: torch.Generator) -> Image:
    """Cut out a random rectangle, resize it to ``size`` × ``size``, mirror it every second time.

    Its area is uniform in 0.08 … 1 of the image's, the logarithm of its width over its height uniform between
    those of 3/4 and 4/3. Where ten tries do not fit into the image, the largest central rectangle of an
    allowed ratio is taken.

    References:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6. arXiv:1409.4842
    """
    left, top, width, height = _rectangle(*image.size, source)
    image = image.crop((left, top, left + width, top + height)).resize((size, size), _BILINEAR)
    if torch.rand((), generator=source) < 0.5:
        image = image.transpose(0)  # PIL.Image.Transpose.FLIP_LEFT_RIGHT
    return image


def center_crop(image: Image, size: int) -> Image:
    """Resize the shorter side to 256/224 of ``size``, and cut the central ``size`` × ``size`` out."""
    short, (width, height) = round(size * 256 / 224), image.size
    if width < height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    image = image.resize((width, height), _BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def to_bytes(image: Image) -> Tensor:
    """Return an RGB image as uint8, shape (3, H, W), in the memory order of its pixels (channels last)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def photo(path: str | Path, size: int = 224) -> Tensor:
    """Return one photo as an ImageNet network is measured with: float32, shape (3, size, size), normalized.

    Raises:
        Undecodable: The file is no readable image.
    """
    return normalize(to_bytes(center_crop(decode(path), size))[None], IMAGENET_MEAN, IMAGENET_STD)[0]


def _rectangle(width: int, height: int, source: torch.Generator) -> tuple[int, int, int, int]:
    """Return left, top, width, height."""
    for _ in range(_TRIES):
        share, tilt, across, down = torch.rand(4, generator=source, dtype=torch.float64).tolist()
        area = width * height * (_SCALE[0] + share * (_SCALE[1] - _SCALE[0]))
        ratio = math.exp(math.log(_RATIO[0]) + tilt * math.log(_RATIO[1] / _RATIO[0]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    w = min(width, max(1, round(height * _RATIO[1])))
    h = min(height, max(1, round(width / _RATIO[0])))
    return (width - w) // 2, (height - h) // 2, w, h
