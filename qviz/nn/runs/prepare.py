"""Prepare: from an experiment to a calibrated model, its data and its configuration."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qviz.nn.allocate import Allocation, exact, fisher, loss_rise
from qviz.nn.convert import Report, calibrate, convert
from qviz.nn.data import CifarLoader, ImageLoader, Loader, cifar10, imagenet, imagenet_like
from qviz.nn.data.cifar import cifar10_source
from qviz.nn.download import cache_dir
from qviz.nn.models import create
from qviz.nn.runs.experiment import Experiment
from qviz.nn.train import TrainConfig
from qviz.nn.train.evaluate import batches_of
from qviz.nn.weights import load_weights

ILSVRC = "imagenet"
"""Folder of the cache where an ILSVRC tree is looked for."""

SMOKE_IMAGES = 384
CALIBRATION = 8
"""Batches that sensitivities are measured on."""

HELD_OUT = 10
"""Training images of each ImageNet class on which the best epoch is chosen."""

IMAGES_A_CLASS = {"smoke": 24, "laptop": 100}
"""Training images of each class in the stand-in for ImageNet, by size."""

_PIXELS = {"smoke": 64, "laptop": 64}


@dataclass(frozen=True)
class Prepared:
    """What :func:`qviz.nn.train.fit` takes, and what it is.

    Attributes:
        model: The network, converted and calibrated (unless the method is fp32).
        train, val, test: The loaders; ``val`` has training images that ``train`` has not, or is None.
        config: The configuration of the training.
        report: The report of the conversion; None for fp32.
        allocation: The bits of each layer in mixed precision, else None.
        source: "full" or "sample".
        description: The data in words.
    """

    model: nn.Module
    train: Loader
    val: Loader | None
    test: Loader
    config: TrainConfig
    report: Report | None
    allocation: Allocation | None
    source: str
    description: str


def prepare(experiment: Experiment, *, seed: int | None = None, root: str | Path | None = None) -> Prepared:
    """Load the data and the weights, convert the model, and calibrate it on the first training batch.

    Args:
        experiment: The experiment to prepare.
        seed: The seed of order, augmentation and what is random in the model; by default the
            experiment's first.
        root: The folder of the data; by default ``$QVIZ_DATA`` or ``~/.cache/qviz``.

    Raises:
        FileNotFoundError: Data or weights that were asked for are not there.
        ValueError: A file is damaged; no allocation meets ``average_bits``.
    """
    seed = experiment.seeds[0] if seed is None else seed
    train, val, test, source, words = _data(experiment, seed, root)
    config = experiment.config(source, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(experiment, train)
        report = allocation = None
        if experiment.recipe != "fp32":
            report, allocation = _quantize(experiment, model, train)
    return Prepared(model, train, val, test, config, report, allocation, source, words)


def _model(experiment: Experiment, train: Loader) -> nn.Module:
    own = experiment.make
    model = create(experiment.model, num_classes=train.num_classes) if own is None else own()
    weights = experiment.weights()
    if experiment.start == "published":
        whole = load_weights(create(experiment.model), weights)
        own = model.state_dict()  # for other classes than ImageNet's: everything but the last layer
        kept = {k: v for k, v in whole.state_dict().items() if v.shape == own[k].shape}
        model.load_state_dict(own | kept)
    elif weights is not None:
        load_weights(model, weights)
    return model


def _quantize(experiment: Experiment, model: nn.Module, train: Loader) -> tuple[Report, Allocation | None]:
    images, _ = next(batches_of(train))
    bits = found = None
    if experiment.average_bits is not None:
        layers = quantized_layers(experiment, model, images)
        found = allocate_bits(experiment, model, layers, train)
        bits = dict(zip(layers, found.bits, strict=True))
    report = convert(model, pair=experiment.pair(), bits=bits, first_last=experiment.first_last, batch=images)
    calibrate(model, images, batchnorm=False)  # training restates it; all rows of the ledger began so
    return report, found


def quantized_layers(experiment: Experiment, model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the layers that the method quantizes at its own bits (so not the 8-bit ones)."""
    done = convert(deepcopy(model), pair=experiment.pair(), first_last=experiment.first_last, batch=images)
    return [row.name for row in done.rows if row.w_bits == experiment.w_bits]


def allocate_bits(experiment: Experiment, model: nn.Module, layers: list[str], train: Loader) -> Allocation:
    """Return the bits of each layer: sensitivities on some training batches, then the best for the average.

    Args:
        experiment: An experiment with ``average_bits``, ``candidates`` and ``sensitivity``.
        model: The network in floating point.
        layers: The names of those that share the budget.
        train: The training data, of which the first batches are taken.

    Raises:
        ValueError: No allocation meets the average; the method's weights have no common unit with the
            network's (DAQ).
    """
    pair = experiment.pair()
    if pair.standardize:
        raise ValueError(
            f"average_bits={experiment.average_bits}: {pair.name} standardizes weights, so that their "
            "quantization error cannot be compared with a loss"
        )

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(net(batch[0]), batch[1])

    def quantizer(bits: int) -> Callable[[Tensor], Tensor]:
        recipe = pair.with_bits(bits).weight
        return lambda w: recipe(SimpleNamespace(weight=w)).observe(w)(w)

    measure = fisher if experiment.sensitivity == "fisher" else loss_rise
    batches = list(islice(batches_of(train), CALIBRATION))
    omega = measure(model, layers, batches, loss, quantizer, experiment.candidates)
    sizes = [model.get_submodule(name).weight.numel() for name in layers]
    return exact(omega, sizes, experiment.average_bits, experiment.candidates)


def source_of(experiment: Experiment, root: str | Path | None = None) -> str:
    """Return "full" or "sample": the data that :func:`prepare` would take.

    Raises:
        FileNotFoundError: The data that the experiment asks for are not there.
    """
    if experiment.loaders is not None:
        return "full"
    if experiment.data == "imagenet":
        return "full" if "full" in (experiment.size, experiment.source) else "sample"
    return cifar10_source(**_where(experiment, root))


def _where(experiment: Experiment, root: str | Path | None) -> dict[str, Any]:
    smoke = experiment.size == "smoke" and experiment.source is None
    source = "sample" if smoke else experiment.source
    return {"source": source} if source == "sample" else {"source": source, "root": root}


def _data(
    experiment: Experiment, seed: int, root: str | Path | None
) -> tuple[Loader, Loader | None, Loader, str, str]:
    if experiment.loaders is not None:
        train, val, test = experiment.loaders(seed)
        _, classes = next(batches_of(test))
        if not (isinstance(classes, Tensor) and classes.dtype == torch.int64):
            raise TypeError(
                f"a row of the ledger has an accuracy, so the targets of {experiment.data!r} must be classes "
                f"(int64), got {getattr(classes, 'dtype', type(classes).__name__)}; trials() takes any"
            )
        return train, val, test, "full", experiment.data
    return (_cifar10 if experiment.data == "cifar10" else _imagenet)(experiment, seed, root)


def _cifar10(
    experiment: Experiment, seed: int, root: str | Path | None
) -> tuple[Loader, Loader | None, Loader, str, str]:
    where = _where(experiment, root)
    whole = cifar10("train" if experiment.held_out else "train+val", **where)
    config = experiment.config(whole.source)
    limit = experiment.images or (SMOKE_IMAGES if experiment.size == "smoke" else None)
    train = CifarLoader(whole, config.batch_size, seed=seed, limit=limit)
    val = CifarLoader(cifar10("val", **where), 1000) if experiment.held_out else None
    test = CifarLoader(cifar10("test", **where), 1000)
    words = "cifar10" if whole.source == "full" else "cifar10 sample (2,000 + 2,000 images)"
    if limit is not None:
        words += f", {limit:,} training images"
    return train, val, test, whole.source, words


def _imagenet(
    experiment: Experiment, seed: int, root: str | Path | None
) -> tuple[Loader, Loader | None, Loader, str, str]:
    folder = (cache_dir() if root is None else Path(root).expanduser()) / ILSVRC
    if experiment.size == "full" or experiment.source == "full":
        if not (folder / "train").is_dir():
            raise FileNotFoundError(
                f"The size {experiment.size!r} needs an ILSVRC tree (train/<wnid>/*.JPEG, val/<wnid>/*.JPEG) "
                f"in {folder}; link or unpack it there, or set QVIZ_DATA."
            )
        source, size, words = "full", 224, "imagenet"
    else:
        made = IMAGES_A_CLASS[experiment.size]
        folder = imagenet_like(cache_dir() / f"imagenet-like-{made}", per_class=made)
        source, size = "sample", _PIXELS[experiment.size]
        words = f"10 classes of CIFAR-10, enlarged, {made} training images a class"
    config = experiment.config(source)
    held = {"root": folder, "hold_out": HELD_OUT if experiment.held_out else 0}
    train = ImageLoader(
        imagenet("train", **held), config.batch_size, size=size, seed=seed, limit=experiment.images
    )
    val = ImageLoader(imagenet("held-out", **held), 100, size=size) if experiment.held_out else None
    test = ImageLoader(imagenet("val", root=folder), 100, size=size)
    return train, val, test, source, words
