"""Data: CIFAR-10 and ImageNet as batches that depend on (seed, epoch, step) alone.

>>> loader = CifarLoader(cifar10("train", source="sample"), batch_size=100)
>>> first, again = (next(loader.batches(3, start=5))[0] for _ in range(2))
>>> isinstance(loader, Loader), bool((first == again).all())
(True, True)
"""

from __future__ import annotations

from qviz.nn.data.cifar import Cifar10 as Cifar10
from qviz.nn.data.cifar import cifar10 as cifar10
from qviz.nn.data.cifar_loader import CifarLoader as CifarLoader
from qviz.nn.data.imagenet import ImageFolder as ImageFolder
from qviz.nn.data.imagenet import imagenet as imagenet
from qviz.nn.data.imagenet_loader import ImageLoader as ImageLoader
from qviz.nn.data.loader import Loader as Loader
from qviz.nn.data.photos import Undecodable as Undecodable
from qviz.nn.data.photos import photo as photo
from qviz.nn.data.stand_in import imagenet_like as imagenet_like
