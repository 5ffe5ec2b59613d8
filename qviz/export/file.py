"""File: a network in one safetensors file, and back; see ``qviz.export.layout`` for what stands where."""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import repr
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from qviz.core._files import write_atomically
from qviz.export.check import check
from qviz.export.export import describe, put_into
from qviz.export.exported import Exported
from qviz.export.layout import FORMAT, SCHEMA, arrays, flatten, unflatten
from qviz.export.numpy_file import digest
from qviz.export.program import Program

_DTYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_TAKEN = frozenset(dir(nn.Module()))
"""What a module inside of another cannot be called, such as "forward"."""


def save(model: nn.Module, path: str | Path, **about: Any) -> Path:
    """Write a model, converted or not, into one file and return the path.

    Args:
        model: See :func:`~qviz.export.describe`.
        path: The file; one that is there is replaced, in one go.
        **about: What :func:`~qviz.export.describe` takes besides.

    Raises:
        ValueError, RuntimeError: The model cannot be exported; see :func:`~qviz.export.describe`.
        OSError: The file cannot be written.
    """
    return write(describe(model, **about), path)


def load(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Return the model of a file, in eval mode; its output is that of the saved one, bit for bit.

    Args:
        path: A file that :func:`save` wrote.
        into: A model of the same architecture, which gets the file's layers in place. Without it the file's
            own steps are run (:class:`~qviz.export.program.Program`), without any code of the model.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another schema or not of this format; belongs to another model; or has
            no steps, and ``into`` is not given.
    """
    exported = read(path)
    if into is not None:
        return put_into(exported, into)
    if not exported.program:
        raise ValueError(
            f"{path} has no steps to run: {exported.untraceable}; give a model of its kind, into=model"
        )
    return Program(exported)


def write(exported: Exported, path: str | Path) -> Path:
    """Write a network into one file and return the path.

    Args:
        exported: What :func:`~qviz.export.describe` returned.
        path: The file; one that is there is replaced, in one go.

    Raises:
        ValueError: Its parts do not fit together, or a tensor's name is taken twice.
        OSError: The file cannot be written.
    """
    write_atomically(path, contents(exported))
    return Path(path)


def contents(exported: Exported) -> bytes:
    """Return what :func:`write` writes, after checking that it could be read; of equal networks equal bytes.

    The library's own writer puts the texts in another order each time.
    """
    check(exported, _TAKEN)
    tensors, texts = flatten(exported)
    header: dict[str, Any] = {"__metadata__": texts}
    parts: list[bytes] = []
    end = 0
    for name, value in sorted(tensors.items(), key=lambda one: (-one[1].element_size(), one[0])):  # aligned
        parts.append(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def read(path: str | Path) -> Exported:
    """Read a network from a file that :func:`write` wrote; nothing in it is run or unpickled.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, of another schema, or not of this format; says why.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            _known(texts)
            # copies: a tensor of safetensors is the file itself, and follows what is written there later
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        found = digest(arrays(tensors), texts)
        if found != texts["sha256"]:
            raise ValueError(f"its contents have the SHA-256 {found} instead of {repr(texts['sha256'])}")
        exported = unflatten(tensors, texts)
        check(exported, _TAKEN)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        said = f"it has no {problem}" if isinstance(problem, KeyError) else problem
        raise ValueError(
            f"{path} is not a network that qviz wrote, or is damaged: {said!s:.300}"
        ) from problem
    return exported


def _known(texts: dict[str, str]) -> None:
    if texts.get("format") != FORMAT:
        raise ValueError(f'its format is {repr(texts.get("format", ""))} and not "{FORMAT}"')
    if texts.get("schema") != SCHEMA:
        raise ValueError(
            f"its schema is {repr(texts.get('schema', ''))}; this version of qviz reads {SCHEMA!r}"
        )
