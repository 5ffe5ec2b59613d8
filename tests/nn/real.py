"""Real data that is never committed: where it is, and the marks of tests that need it."""

import pytest

from qviz.nn.data.cifar import FILES, FOLDER
from qviz.nn.download import cache_dir

CIFAR = cache_dir() / FOLDER
MOBILENET = cache_dir() / "weights" / "mobilenet_v2-b0353104.pth"
PHOTOS = sorted((cache_dir() / "imagenet-photos").glob("imagenet_*.jpg"))

needs_cifar = pytest.mark.skipif(
    not all((CIFAR / name).is_file() for name in FILES), reason=f"no full CIFAR-10 in QVIZ_DATA ({CIFAR})"
)
needs_mobilenet = pytest.mark.skipif(not MOBILENET.is_file(), reason=f"no {MOBILENET.name} in QVIZ_DATA")
needs_photos = pytest.mark.skipif(len(PHOTOS) != 20, reason="no imagenet-photos in QVIZ_DATA")
