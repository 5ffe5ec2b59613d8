"""What a post-training quantization begins with: a network's weights, calibration images, test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qviz.nn.data import Cifar10, CifarLoader, Loader, cifar10
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.data.cifar import cifar10_source
from qviz.nn.data.loader import balanced
from qviz.nn.models import create
from qviz.nn.runs.ptq_experiment import PTQExperiment
from qviz.nn.weights import load_weights


@dataclass(frozen=True)
class PTQPrepared:
    """What :func:`qviz.nn.ptq.ptq` takes, and what tests it.

    Attributes:
        model: The network in floating point, in eval mode.
        images: Those to calibrate on, normalized, shape (N, 3, 32, 32).
        test: The test images.
        source: "full" or "sample".
        description: The data in words.
        origin: The calibration images in words.
    """

    model: nn.Module
    images: Tensor
    test: Loader
    source: str
    description: str
    origin: str


def prepare_ptq(
    experiment: PTQExperiment, *, seed: int | None = None, root: str | Path | None = None
) -> PTQPrepared:
    """Load the weights, and draw the calibration images.

    These are training images without augmentation, drawn at random by the seed while classes take turns; all
    methods see the same ones.

    Args:
        experiment: The experiment to prepare.
        seed: The seed; by default the experiment's first.
        root: The folder of the data; by default ``$QVIZ_DATA`` or ``~/.cache/qviz``.

    Raises:
        FileNotFoundError: Data or weights that were asked for are not there.
        ValueError: A file is damaged, or there are fewer training images than were asked for.
    """
    seed = experiment.seeds[0] if seed is None else seed
    source = source_of_ptq(experiment, root)
    where = {"source": source} if source == "sample" else {"source": source, "root": root}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_weights(create(experiment.model, num_classes=10), experiment.weights()).eval()
    return PTQPrepared(
        model.to(device),
        _drawn(cifar10("train", **where), experiment.images, seed).to(device),
        CifarLoader(cifar10("test", **where), 1000),
        source,
        "cifar10" if source == "full" else "cifar10 sample (2,000 + 2,000 images)",
        origin_of(experiment),
    )


def origin_of(experiment: PTQExperiment) -> str:
    """Return what the calibration images are, in words."""
    return "training images of " + ("this network" if experiment.start == "shipped" else "cifar10")


def source_of_ptq(experiment: PTQExperiment, root: str | Path | None = None) -> str:
    """Return "full" or "sample": the data that :func:`prepare_ptq` would take.

    Raises:
        FileNotFoundError: The data that the experiment asks for are not there.
    """
    if experiment.source == "sample":
        return "sample"
    return cifar10_source(source=experiment.source, root=root)


def _drawn(data: Cifar10, number: int, seed: int) -> Tensor:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = order[balanced(data.labels[order], number)]
    return normalize(data.images[rows], CIFAR10_MEAN, CIFAR10_STD)
