"""Weights: published and own files of trained numbers, hash-checked and read without running code.

>>> PUBLISHED["mobilenet_v2"]
'https://download.pytorch.org/models/mobilenet_v2-b0353104.pth'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from qviz.core._files import file_sha256
from qviz.core._state import read, unprefixed, unwrapped
from qviz.core._text import article
from qviz.nn.download import cache_dir as cache_dir
from qviz.nn.download import check_digits
from qviz.nn.download import fetch as fetch

# torchvision's IMAGENET1K_V1 files (BSD-3-Clause); a name ends with the first 8 digits of the file's sha256
PUBLISHED = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "mobilenet_v2": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
}
_SHOWN = 4


def load_weights(
    model: nn.Module,
    path_or_url: str | Path,
    *,
    sha256: str | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> nn.Module:
    """Copy the tensors of a file into a model, and return the model.

    Every name and shape must match, else nothing is copied. Of what a training saved, the state under
    ``state_dict``, ``model_state_dict`` or ``model`` is taken, and a prefix that all names share, as that of
    ``DataParallel``, is taken off if the model has none of the names. Load before converting a model:
    quantizers add names. Batch normalization's ``num_batches_tracked`` may be missing, as in files older
    than that buffer.

    Args:
        model: changed in place; keeps its dtype and device.
        path_or_url: ``.safetensors``, or anything that ``torch.load(weights_only=True)`` reads as a state
            dict. A URL is downloaded (:func:`fetch`) once, and taken from ``folder`` from then on.
        sha256: 64 hexadecimal digits or their first 8 or more. Of a URL None means: the digits that its name
            ends with, as in ``resnet18-f37072fd.pth``; of a path: unchecked.
        folder: where downloads go; None for ``weights`` in :func:`cache_dir`.
        progress: show a bar while downloading.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the hash is wrong or, of a URL, unknown; the file is damaged, would run code, or holds no
            state dict; names or shapes differ from the model's.
        ConnectionError: the download failed.
    """
    if str(path_or_url).startswith(("http://", "https://")):
        home = cache_dir() / "weights" if folder is None else folder
        path = fetch(str(path_or_url), home, _digits(str(path_or_url), sha256), progress=progress)
    else:
        path = Path(path_or_url).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no file of weights at {path}.")
        if sha256 is not None and not (found := file_sha256(path)).startswith(check_digits(sha256)):
            raise ValueError(f"{path} has sha256 {found}, expected {sha256}; nothing was loaded.")
    content, place = unwrapped(_read(path))
    if not isinstance(content, Mapping) or not all(isinstance(k, str) for k in content):
        raise ValueError(f"{path} holds {_kind(content)}, not a state dict (names and tensors).")
    state, prefix = unprefixed(content, model.state_dict())
    done = ", ".join(filter(None, (place, prefix)))
    _compare(model, state, f"{path.name} ({done})" if done else path.name)
    model.load_state_dict(state, strict=False)  # compared above; only num_batches_tracked can be missing
    return model


def _digits(url: str, sha256: str | None) -> str:
    if sha256 is not None:
        return sha256
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    if found is None:
        raise ValueError(f"The name in {url!r} carries no hash; give sha256= to load weights from there.")
    return found.group(1)


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return read(path)
    try:
        return load_file(path)
    except OSError:
        raise
    except Exception as error:  # readers raise anything at all on damaged bytes
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as weights: {first}") from error


def _kind(state: object) -> str:
    return article(type(state).__name__)


def _compare(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    own = model.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    problems = [
        _some("missing", missing),
        _some("unexpected", [k for k in state if k not in own]),
        _some(
            "of another shape",
            [_shapes(k, own, state) for k in own if k in state and _differ(own[k], state[k])],
        ),
    ]
    if any(problems):
        raise ValueError(
            f"{name} does not fit {type(model).__name__}: {'; '.join(p for p in problems if p)}; "
            "nothing was loaded."
        )


def _some(what: str, found: list[str]) -> str:
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{what}: {', '.join(found[:_SHOWN])}{more}"


def _differ(own: object, other: object) -> bool:
    return isinstance(own, Tensor) != isinstance(other, Tensor) or (
        isinstance(own, Tensor) and own.shape != other.shape
    )


def _shapes(key: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    shapes = [str(tuple(v.shape)) if isinstance(v, Tensor) else _kind(v) for v in (own[key], state[key])]
    return f"{key} ({shapes[1]} in the file, {shapes[0]} in the model)"
