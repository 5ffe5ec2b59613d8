"""A folder of the ILSVRC shape, made from the CIFAR-10 sample: to try what is meant for ImageNet."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from qviz.shipped import CIFAR10_CLASSES, cifar10_sample

_NOTE = "imagenet_like.json"
_MOST = 200  # images of one class in the sample
_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, without importing it here


def imagenet_like(
    folder: str | Path, *, per_class: int = 50, val_per_class: int = 10, size: int = 80
) -> Path:
    """Write CIFAR-10's sample, enlarged, as ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``.

    Ten classes, n00000000 … n00000009 in the order of CIFAR-10's labels; training images from training
    images, validation images from test images. The pixels are blurred and say nothing about ImageNet. The
    folder appears at once, complete; one that was made before with the same numbers is left as it is.

    Args:
        folder: Must not exist, or be such a folder.
        per_class: Training images of each class, 1 … 200.
        val_per_class: Validation images of each class, 1 … 200.
        size: Pixels on each side, at least 32.

    Returns:
        The folder, to be read by ``imagenet(split, root=folder)``.

    Raises:
        ValueError: A number is out of range, or ``folder`` holds something else.
        ImportError: Pillow is not installed.
    """
    if not (1 <= per_class <= _MOST and 1 <= val_per_class <= _MOST and size >= 32):
        raise ValueError(
            f"per_class and val_per_class must be in 1..{_MOST} and size at least 32, "
            f"got {per_class}, {val_per_class} and {size}."
        )
    folder = Path(folder).expanduser()
    note = {"per_class": per_class, "val_per_class": val_per_class, "size": size}
    if folder.exists():
        if (folder / _NOTE).is_file() and json.loads((folder / _NOTE).read_text("utf-8")) == note:
            return folder
        raise ValueError(f"{folder} exists and was not made with {note}; name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(temporary / "train", "train", per_class, size)
        _write(temporary / "val", "test", val_per_class, size)
        (temporary / _NOTE).write_text(json.dumps(note) + "\n", "utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _write(folder: Path, split: str, per_class: int, size: int) -> None:
    images, labels = cifar10_sample(split)
    from PIL import Image  # the sample needs it as well, and says how to get it

    for label in range(len(CIFAR10_CLASSES)):
        home = folder / f"n{label:08d}"
        home.mkdir(parents=True)
        for number, index in enumerate((labels == label).nonzero().flatten()[:per_class].tolist()):
            image = Image.fromarray(images[index].permute(1, 2, 0).contiguous().numpy())
            name = f"n{label:08d}_{number}.JPEG"
            image.resize((size, size), _BICUBIC).save(home / name, "JPEG", quality=90)
