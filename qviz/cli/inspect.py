"""``qviz inspect``: what quantization does to each layer of a model, and why."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.experiments import numbers
from qviz.cli.images import images_of
from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    from torch import nn

    from qviz.export.source import Source
    from qviz.methods.method import Pair

IMAGES = 64
OUTPUTS = {"json": "save", "html": "to_html", "model_explorer": "to_model_explorer"}
"""Options that name a file, and what writes it."""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("inspect", help="look inside a model: which layer is bad, and why")
    parser.add_argument(
        "source",
        metavar="CHECKPOINT|MODEL",
        help="a run of qviz train, a result of qviz ptq, a state dict, or a network with published weights: "
        "resnet20, resnet18, resnet34 or mobilenet_v2",
    )
    parser.add_argument("--model", help="resnet20, resnet18, resnet34 or mobilenet_v2, to insist on one")
    parser.add_argument("--recipe", help="of a network in floating point: what quantizes it, such as post")
    parser.add_argument("--bits", metavar="W[,A]", help="bits of weights and inputs, such as 4 or 4,8")
    parser.add_argument(
        "--per-channel",
        dest="per_channel",
        action="store_true",
        help="with a --recipe: a step for each output channel of a weight",
    )
    parser.add_argument(
        "--reference",
        metavar="CHECKPOINT|MODEL",
        help="of a quantized network: the float one that it was made of, to compare with",
    )
    parser.add_argument(
        "--first-last",
        dest="first_last",
        choices=("8bit", "fp", "quantized"),
        help="what becomes of the first and the last layer (default: 8bit)",
    )
    parser.add_argument(
        "--data",
        help="a folder of photos, cifar10 (the test set, in the cache folder), sample (the 2,000 test images "
        "that come along) or a .npy file (default: sample, of a network for CIFAR-10)",
    )
    parser.add_argument("--images", type=int, default=IMAGES, help=f"how many of them (default: {IMAGES})")
    parser.add_argument("--top", type=int, default=10, help="how many of the worst layers (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as a page that works offline")
    parser.add_argument(
        "--model-explorer",
        dest="model_explorer",
        type=Path,
        metavar="FILE",
        help="write node data for Google's Model Explorer, and FILE.pt2, the network that it shows",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found, and write the files that were asked for."""
    files = {name: path for name in OUTPUTS if (path := getattr(options, name)) is not None}
    for name, path in files.items():
        _check_file(name.replace("_", "-"), path)
    for name in ("images", "top"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}")
    bits = None if options.bits is None else numbers("bits", options.bits, most=2)
    try:
        pair = _pair(options, bits)
        source = _open(options.source, options.model)
        images, found = _inspect(options, source, pair)
        print(found.text(options.top))
        for name, path in files.items():
            more = () if name != "model_explorer" else (_program(source, images, path),)
            getattr(found, OUTPUTS[name])(path, *more)
            print(path)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise UsageError(str(error)) from error
    return 0


def _check_file(option: str, path: Path) -> None:
    """Refuse a file that cannot be written, before the work and not after it."""
    if path.is_dir():
        raise UsageError(f"--{option} takes a file, and {path} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"--{option}: {path} cannot be written, there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--{option}: {path} cannot be written, permission denied")


def _pair(options: argparse.Namespace, bits: list[int] | None) -> Pair | None:
    from qviz.methods.pairs import pair
    from qviz.methods.ranges import each_channel

    if options.recipe is None:
        for name in ("bits", "per-channel"):
            if getattr(options, name.replace("-", "_")):
                raise UsageError(f"--{name} belongs to a --recipe, such as lsq")
        return None
    if options.recipe == "fp32":
        raise UsageError("--recipe fp32 quantizes nothing; give one that does, such as post")
    if bits is None:
        raise UsageError(f"--recipe {options.recipe} needs --bits, such as 4 or 4,8")
    made = pair(options.recipe, *bits)
    return each_channel(made) if options.per_channel else made


def _open(source: str, model: str | None) -> Source:
    """Return the network of a file or a folder, or one of those that have a name, with its weights."""
    from qviz import shipped
    from qviz.export.source import Source, is_exported, open_source
    from qviz.nn.models import NAMES, create
    from qviz.nn.weights import PUBLISHED, load_weights

    if source not in NAMES:
        if not Path(source).exists() and not Path(source).suffix and os.sep not in source:
            raise UsageError(f"{source} is no file, no folder and none of {', '.join(NAMES)}")
        if is_exported(Path(source)):
            raise UsageError(f"{source} holds packed codes: inspect what it was made of")
        return open_source(source, model)
    if model not in (None, source):
        raise UsageError(f"{source} is a network of its own: leave out --model {model}")
    weights = PUBLISHED.get(source) or shipped.checkpoint(f"{source}_fp32.safetensors")
    return Source(load_weights(create(source), weights).eval(), source, Path(weights))


def _program(source: Source, images: Any, path: Path) -> Any:
    """Return the network as Model Explorer shows it, and write it beside the node data that fit it alone."""
    import torch

    from qviz.inspection.model_explorer import exported

    beside = path.with_name(f"{path.name}.pt2")
    program = exported(source.model, images)
    torch.export.save(program, beside)
    print(f"{beside}  open it in Model Explorer, and lay {path.name} over it")
    return program


def _inspect(options: argparse.Namespace, source: Source, pair: Pair | None) -> tuple[Any, Any]:
    """Return the images and what is found."""
    from qviz.inspection import inspect
    from qviz.nn.quant_layer import QuantLayer

    if any(isinstance(module, QuantLayer) for module in source.model.modules()):
        if pair is not None or options.first_last is not None:
            raise UsageError(
                f"{source.file} is quantized already and is inspected as it is: leave out --recipe, --bits, "
                "--per-channel and --first-last"
            )
    elif options.reference is not None:
        raise UsageError(
            f"--reference belongs to a quantized network, and {source.name} is in floating point"
        )
    elif pair is None:
        raise UsageError(
            f"{source.name} is in floating point: say how to quantize it, such as --recipe post --bits 4"
        )
    images = _images(options, source)
    found = inspect(
        source.model,
        images,
        pair=pair,
        first_last=options.first_last or "8bit",
        reference=_reference(options.reference, source, images),
        name=source.name,
        top=options.top,
        show=True,
    )
    return images, replace(found, notes=(source.note, *found.notes)) if source.note else found


def _reference(given: str | None, source: Source, images: Any) -> nn.Module | None:
    """Return the float network, its BatchNorm folded where the quantized one has none."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from qviz.nn.ptq.fold import fold_batchnorm

    if given is None:
        return None
    model = _open(given, None).model
    if not any(isinstance(module, _BatchNorm) for module in source.model.modules()):
        fold_batchnorm(model, (images[0] if isinstance(images, tuple) else images)[:1])
    return model


def _images(options: argparse.Namespace, source: Source) -> Any:
    """Return images as the network takes them, with their classes where these are known."""
    data = options.data
    if data is None:
        if source.images.get("shape") != (3, 32, 32):
            raise UsageError(f"give --data, images for {source.name}: a folder of photos or a .npy file")
        data = "sample"
    if Path(data).is_dir():
        from qviz.cli.photos import photos_of

        return photos_of(Path(data), source.images, options.images)
    images, labels = images_of(data, source.images)
    images = images[: options.images].clone()
    return images if labels is None else (images, labels[: options.images])
