"""State: what PyTorch's files hold, read without running code, and the names of the tensors in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

HOLDERS = ("state_dict", "model_state_dict", "model")
"""Keys under which a training keeps its network's state, beside its epoch and its optimizer's state."""

T = TypeVar("T")


def read(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, its tensors mapped to memory where that can be done.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or holds more than tensors, numbers and texts.
    """
    try:
        with warnings.catch_warnings():  # whatever a pickle is like, weights_only opens it or refuses
            warnings.simplefilter("ignore", UserWarning)
            mmap = zipfile.is_zipfile(path) or None
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:  # torch's own text is advice to run the code
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise ValueError(f"{path} is damaged, or no file that torch.save wrote") from error
        raise ValueError(
            f"{path} holds {found[1]}, which is no tensor, number or text, and would run code to load; "
            "refused: save the state_dict of the model alone"
        ) from error
    except OSError:
        raise
    except Exception as error:  # torch raises anything at all on damaged bytes
        if "TorchScript" in str(error):  # as above
            raise ValueError(
                f"{path} is a TorchScript archive, which holds code; save the state_dict of the model alone"
            ) from error
        first = (str(error) or "it is empty or cut off").splitlines()[0]
        raise ValueError(f"{path} cannot be read: {first}") from error


def flat(value: Any, path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested dictionaries, lists and tuples under dotted names.

    Args:
        value: What :func:`read` returned, or a part of it.
        path: The file, for the error.
        prefix: The name of the part.

    Raises:
        ValueError: Two of them have the same dotted name.

    Example:
        >>> list(flat({"layers": [torch.zeros(2), {"bias": torch.zeros(1)}], "epoch": 3}, Path("m.pt")))
        ['layers.0', 'layers.1.bias']
    """
    if isinstance(value, Tensor):
        return {prefix or "tensor": value}
    items = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    found: dict[str, Tensor] = {}
    for key, item in items:
        inner = flat(item, path, f"{prefix}.{key}" if prefix else str(key))
        if twice := found.keys() & inner.keys():
            raise ValueError(f"{path}: two tensors would have the name {min(twice)!r}; rename one of them")
        found |= inner
    return found


def unwrapped(content: Any) -> tuple[Any, str]:
    """Return the state of a network that a training saved beside other things, and in words where it was.

    Example:
        >>> unwrapped({"epoch": 3, "state_dict": {"weight": 1.0}})
        ({'weight': 1.0}, "what is under 'state_dict'")
    """
    for key in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key], f"what is under {key!r}"
    return content, ""


def unprefixed(state: Mapping[str, T], own: Container[str]) -> tuple[dict[str, T], str]:
    """Return a state dict without the prefix that all its names share, and in words what was taken off.

    ``DataParallel`` and ``torch.compile`` leave such a prefix, and so does a network within another.

    Args:
        state: Names mapped to whatever; the versions of modules that torch keeps beside them go along.
        own: Names of the network. All stay as they are where one of them is in ``state``, or none would be.

    Example:
        >>> found, words = unprefixed({"module.conv.weight": 1, "module.fc.weight": 2}, {"fc.weight"})
        >>> list(found), words
        (['conv.weight', 'fc.weight'], "names without the prefix 'module.'")
    """
    prefixes = {name.partition(".")[0] + "." for name in state}
    plain = OrderedDict(state)
    if hasattr(state, "_metadata"):  # versions of modules: torchvision's MNASNet cannot be loaded without
        plain._metadata = state._metadata.copy()
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    fits = any(name in own for name in state)
    if not prefix or fits or not any(name.removeprefix(prefix) in own for name in state):
        return plain, ""
    consume_prefix_in_state_dict_if_present(plain, prefix)
    return plain, f"names without the prefix {prefix!r}"
