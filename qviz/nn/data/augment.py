"""Augment: crops, flips and normalization of whole batches, and randomness that has no memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CIFAR10_MEAN, CIFAR10_STD = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# what a stream of random numbers is for: streams of one (seed, epoch, …) must differ
ORDER, CROP, OWN = 0, 1, 2


class Crops(NamedTuple):
    """One crop an image, as drawn by :func:`draw_crops`.

    Attributes:
        top: First row in the padded image, int64 (N,).
        left: First column, int64 (N,).
        flip: Whether columns run backwards, bool (N,).
    """

    top: Tensor
    left: Tensor
    flip: Tensor


def generator(*parts: int) -> torch.Generator:
    """Return a fresh CPU generator whose numbers depend on the parts (whole numbers) alone.

    >>> torch.equal(torch.rand(3, generator=generator(0, 1)), torch.rand(3, generator=generator(0, 1)))
    True
    """
    return torch.Generator().manual_seed(_mix(parts))


@contextmanager
def seeded(*parts: int, device: torch.device | str | None = None) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python from the parts, and put them back afterwards.

    For transforms that others wrote: they draw from the global generators.
    """
    seed = _mix(parts)
    gpus = [torch.device(device)] if device is not None and torch.device(device).type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=gpus):
            torch.default_generator.manual_seed(seed)
            for gpu in gpus:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (x / 255 − mean) / std, channel by channel.

    Args:
        x: uint8, shape (N, C, H, W).
        mean: The mean of x / 255, one number a channel.
        std: The standard deviation of x / 255, one number a channel.

    Returns:
        float32, shape (N, C, H, W), channels_last: free where x is channels_last.
    """
    count, channels, height, width = x.shape
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    # one long row an image: a broadcast over a last axis of 3 is not vectorised and costs five times as much
    scale, shift = (v.float().to(x.device).repeat(height * width) for v in (scale, shift))
    flat = x.permute(0, 2, 3, 1).reshape(count, len(scale)).float().mul_(scale).add_(shift)
    return flat.view(count, height, width, channels).permute(0, 3, 1, 2)


def draw_crops(count: int, source: torch.Generator, padding: int = 4) -> Crops:
    """Draw a crop for each of ``count`` images: places uniform in 0 … 2·padding, a flip every second time."""
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=source)
    return Crops(top, left, torch.rand(count, generator=source) < 0.5)


def crop_flip(x: Tensor, crops: Crops, padding: int = 4) -> Tensor:
    """Pad with zeros, cut each image's crop out, mirror it where it says so: one gather for the whole batch.

    Args:
        x: Shape (N, C, H, W).
        crops: Crops of N images, on any device.
        padding: Pixels added on each side; ``crops`` was drawn with the same.

    Returns:
        As x, channels_last: free where x is channels_last.

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. arXiv:1512.03385
    """
    count, channels, height, width = x.shape
    top, left, flip = (v.to(x.device) for v in crops)
    row, column = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    rows = top[:, None] + row
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - column, column)
    tall, wide = height + 2 * padding, width + 2 * padding
    images = torch.arange(count, device=x.device)[:, None] * tall
    pixels = ((images + rows) * wide)[:, :, None] + columns[:, None, :]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    cut = padded.reshape(-1, channels).index_select(0, pixels.reshape(-1))
    return cut.view(count, height, width, channels).permute(0, 3, 1, 2)


def _mix(parts: Sequence[int]) -> int:
    # 32 bits: the CPU's generator ignores the rest. Hashed, because to numpy's SeedSequence (1,) is (1, 0).
    text = ",".join(str(int(part)) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
