"""Source: from the files of a training or a quantization back to the network that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from qviz import recipes
from qviz.core import _state
from qviz.core._text import some
from qviz.core.quantizer import Quantizer
from qviz.core.recipe import Recipe
from qviz.core.rounding import CellBorder
from qviz.export.export import describe
from qviz.export.exported import Exported
from qviz.export.file import read
from qviz.export.layout import FORMAT
from qviz.export.tables import LayerTables, WeightTable
from qviz.measure import Checkpoint
from qviz.measure.checkpoint import PICKLED
from qviz.nn.adoption import STANDARDIZED
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD
from qviz.nn.models import NAMES, create
from qviz.nn.own_forward import quantized
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.train.checkpoint import BEST, LAST
from qviz.nn.train.packing import load_into, unpack_weights

IMAGES = {"cifar10": (32, CIFAR10_MEAN, CIFAR10_STD), "imagenet": (224, IMAGENET_MEAN, IMAGENET_STD)}
"""Side, mean and standard deviation of the images of a data set."""

_CLASSES = {10: "cifar10", 1000: "imagenet"}
_PARTS = ("weight_quantizer", "input_quantizer")


@dataclass(frozen=True)
class Source:
    """A network and where it came from.

    Attributes:
        model: In eval mode, converted and calibrated as it was when it was stored.
        name: One of ``qviz.nn.models.NAMES``.
        file: The file that was read.
        info: What stood beside the weights: the experiment, its figures.
        note: What of the file was taken, where that is not all of it under the names that it has; else "".
    """

    model: nn.Module
    name: str
    file: Path
    info: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def images(self) -> dict[str, Any]:
        """Shape, mean and standard deviation of the images that the network takes.

        Those of the data that the file names; where it names none, of CIFAR-10 if there are 10 classes and of
        ImageNet if there are 1000; else nothing.
        """
        classes = _classes(self.name, self.model.state_dict())
        images = IMAGES.get(self.info.get("experiment", {}).get("data", _CLASSES.get(classes)))
        if images is None:
            return {}
        side, mean, std = images
        return {"shape": (3, side, side), "mean": mean, "std": std}

    def describe(self) -> Exported:
        """Return the network as tables and steps, with what is known of its images."""
        found = describe(self.model, name=self.name, **self.images)
        policy = self.info.get("experiment", {}).get("first_last") or _policy(list(found.layers.values()))
        return replace(found, about={**found.about, "policy": policy})


def _policy(layers: Sequence[LayerTables]) -> str:
    """Return the policy of first and last layer that their levels show; "" where it is none of them."""
    weights = [layer.weight for layer in layers]
    levels = [len(weight.levels) if isinstance(weight, WeightTable) else 0 for weight in weights]
    kinds = {{0: "fp", 256: "8bit"}.get(n, "quantized") for n in (levels[0], levels[-1])}
    return kinds.pop() if any(levels) and len(kinds) == 1 else ""


def open_source(path: str | Path, model: str | None = None) -> Source:
    """Return the network of a run folder of ``qviz train``, of a result of ``qviz ptq``, or of a state dict.

    The architecture is the one of ``NAMES`` that has the file's layers. The quantizers are made anew by the
    recipes whose names and arguments stand in the file, and then get their numbers from it. Nothing in the
    file is run. Of what a training saved, the state under ``state_dict``, ``model_state_dict`` or ``model``
    is taken, and a prefix that all names share is taken off, as that of ``DataParallel``.

    Args:
        path: A folder (of several seeds the first; of a training the best weights) or a file that
            :class:`~qviz.measure.Checkpoint` reads.
        model: One of ``NAMES``, to insist on it.

    Raises:
        FileNotFoundError: There is nothing to read.
        ValueError: The file is damaged, no known network has its layers, or a quantizer in it was not made by
            a recipe of ``qviz.recipes``.
    """
    file = _file(Path(path))
    tensors, info, note = _tensors(file)
    name = _name(tensors, model, f"{file}{f' ({note})' if note else ''}")
    network = create(name, num_classes=_classes(name, tensors) or None).eval()
    if not any(key.endswith("running_mean") for key in tensors):
        side = 32 if name == "resnet20" else 64
        fold_batchnorm(network, torch.zeros(1, 3, side, side))
    _quantize(network, tensors, file)
    own = network.state_dict()
    counts = {k: v for k, v in own.items() if k.endswith("num_batches_tracked") and k not in tensors}
    load_into(network, {**tensors, **counts}, file)
    return Source(network.eval(), name, file, info, f"Of {file}: {note}." if note else "")


def open_reference(path: str | Path, model: str | None = None) -> tuple[Exported, Source | None]:
    """Return a network as tables and steps: of an exported .safetensors file, else of :func:`open_source`.

    Returns:
        The tables and steps, and what they were made of (None for an exported file).

    Raises:
        FileNotFoundError, ValueError: As :func:`open_source`.
    """
    if is_exported(Path(path)):
        exported = read(path)
        if model not in (None, exported.about.get("model")):
            raise ValueError(
                f"{path} is of {exported.about.get('model') or 'a network without a name'}, not of {model}"
            )
        return exported, None
    source = open_source(path, model)
    return source.describe(), source


def is_exported(path: Path) -> bool:
    """Whether it is a file of packed codes, as :func:`qviz.export.write` makes it.

    Raises:
        ValueError: It is a .safetensors file, and damaged.
    """
    return path.suffix == ".safetensors" and path.is_file() and _texts(path).get("format") == FORMAT


def _file(path: Path) -> Path:
    """Return the file of weights that a path means."""
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file or folder")
        return path
    for pattern in (BEST, LAST, f"seed*/{BEST}", f"seed*/{LAST}", "seed*.safetensors"):
        if found := sorted(path.glob(pattern), key=lambda p: (len(str(p)), str(p))):
            return found[0]
    raise FileNotFoundError(
        f"{path}: no run of qviz train or result of qviz ptq is in this folder ({BEST} or seed*.safetensors)"
    )


def _tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Return tensors, what stands beside them, and what was done to have them."""
    if file.suffix == ".safetensors" and "qviz" in _texts(file):
        return *unpack_weights(file.read_bytes(), file), ""
    pickled = file.suffix.lower() in PICKLED
    content, place = _state.unwrapped(_state.read(file)) if pickled else (dict(Checkpoint(file)), "")
    with torch.device("meta"):
        known = {key for name in NAMES for key, _ in create(name).named_parameters()}
    tensors, prefix = _state.unprefixed(_state.flat(content, file), known)
    return tensors, {}, ", ".join(filter(None, (place, prefix)))


def _texts(file: Path) -> dict[str, str]:
    """Return the texts in the header of a .safetensors file."""
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file}: broken .safetensors file ({error!s:.300})") from error


def _classes(name: str, tensors: Mapping[str, Tensor]) -> int:
    """Return how wide a network's last layer is in a state dict, 0 where that is not there."""
    with torch.device("meta"):
        last = [key for key, value in create(name).named_parameters() if value.ndim > 1][-1]
    return len(tensors[last]) if last in tensors and tensors[last].ndim else 0


def _name(tensors: Mapping[str, Tensor], model: str | None, file: str) -> str:
    if model is not None and model not in NAMES:
        raise ValueError(f"model must be one of {', '.join(NAMES)}, got {model!r}")
    unlike: dict[str, list[str]] = {}
    for name in NAMES if model is None else (model,):
        with torch.device("meta"):
            network = create(name, num_classes=_classes(name, tensors) or None)
        weights = {k: v.shape for k, v in network.named_parameters() if v.ndim > 1}
        unlike[name] = [
            _unlike(k, shape, tensors)
            for k, shape in weights.items()
            if k not in tensors or tensors[k].shape != shape
        ]
        if not unlike[name]:
            return name
    near = min(unlike, key=lambda name: len(unlike[name]))
    what = f"not of {model}" if model else f"of none of {', '.join(NAMES)}; {near} is the nearest"
    raise ValueError(
        f"{file}: the layers in it are {what}: {some(unlike[near])}; for a network of your own call "
        "qviz.export.describe(model) or qviz.inspect(model, images) from Python"
    )


def _unlike(key: str, shape: torch.Size, tensors: Mapping[str, Tensor]) -> str:
    """Say how a file differs from a network at one of its weights."""
    found = f"is {tuple(tensors[key].shape)}" if key in tensors else "is not there"
    return f"{key} {found} and should be {tuple(shape)}"


def _quantize(network: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Make the quantizers that the file has numbers of."""
    layers = dict(network.named_modules())
    for name in sorted(
        {key.rsplit(f".{part}.", 1)[0] for part in _PARTS for key in tensors if f".{part}." in key}
    ):
        if name not in layers:
            raise ValueError(f"{file}: holds a quantizer of {name!r}, which is no layer of the network")
        made = {part: _quantizer(f"{name}.{part}", tensors, file) for part in _PARTS}
        weight = made["weight_quantizer"]
        standardize = weight is not None and weight.recipe is not None and weight.recipe.name in STANDARDIZED
        quantized(type(layers[name])).adopt(
            layers[name],
            **made,
            standardize=bool(tensors.get(f"{name}.standardized", standardize)),
            output_scale=f"{name}.output_scale" in tensors,
        )


def _quantizer(key: str, tensors: Mapping[str, Tensor], file: Path) -> Quantizer | None:
    if not any(name.startswith(f"{key}.") for name in tensors):
        return None
    border = tensors.get(f"{key}.rounding.border")  # of AQuant, learned and folded
    try:
        recipe = Recipe.from_tensor(tensors.get(f"{key}._extra_state", torch.zeros(0, dtype=torch.uint8)))
        stored = recipe
        if recipe is None and border is not None:
            recipe = Recipe("aquant_activation", {"bits": len(border).bit_length()})
        if recipe is None or recipe.name not in recipes.__all__:
            raise ValueError(f"the recipe is {'unknown' if recipe is None else recipe.name!r}")
        arguments = dict(recipe.arguments)
        if recipe.name == "adaround_weight":
            arguments["weight"] = tensors[key.rsplit(".", 1)[0] + ".weight"]
        made = getattr(recipes, recipe.name)(**arguments)
        if border is not None:
            made.rounding = CellBorder(made.codebook, border)
            made.recipe = stored
        return made
    except (ValueError, TypeError, KeyError, UnicodeDecodeError) as problem:
        raise ValueError(
            f"{file}: {key} was not made by a recipe that this version of qviz has ({problem})"
        ) from problem
