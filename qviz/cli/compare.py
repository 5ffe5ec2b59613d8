"""``qviz compare FILE``: one tensor of a file through every grid, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qviz.cli.usage import UsageError

if TYPE_CHECKING:
    import torch

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("compare", help="one tensor of a file through every grid")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .npy or .safetensors file")
    parser.add_argument("--tensor", metavar="NAME", help="which one of a .safetensors file")
    parser.add_argument("--bits", type=int, default=4, help="bits per value (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what ``qviz.compare`` says of the tensor."""
    import qviz

    x = load_tensor(options.file, options.tensor)
    try:
        table = qviz.compare(x, bits=options.bits)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{options.file}: {error}") from error
    print(json.dumps(_finite(table.to_dict()), indent=1, allow_nan=False) if options.json else table)
    return 0


def _finite(value: Any) -> Any:
    """Return ``value`` with every inf and nan replaced by None: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_tensor(path: Path, name: str | None = None) -> torch.Tensor:
    """Read one floating-point tensor from a .npy or .safetensors file; nothing is ever unpickled.

    Args:
        path: the file.
        name: which tensor of a .safetensors file; not needed where it holds only one.

    Raises:
        UsageError: no such file or tensor, another kind of file, or values that are not real floats.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if kind in PICKLES:
        raise UsageError(
            f"{path}: refused; a {kind} file is usually a pickle, and opening a pickle can run any code. "
            "Save the tensor as .npy or .safetensors"
        )
    if kind not in (".npy", ".safetensors"):
        raise UsageError(f"{path}: unknown kind of file {kind!r}; give a .npy or a .safetensors file")
    if kind == ".npy" and name is not None:
        raise UsageError(f"{path}: a .npy file holds one array without a name; leave out --tensor {name}")
    try:
        return _read_npy(path) if kind == ".npy" else _read_safetensors(path, name)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_npy(path: Path) -> torch.Tensor:
    import numpy as np
    import torch

    with path.open("rb") as file:  # np.load would also open a zip archive under this name
        if file.read(6) != b"\x93NUMPY":
            raise UsageError(f"{path}: not an .npy file; a pickle or an archive by that name is not opened")
    try:
        x = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        if "Object arrays" in str(error):
            raise UsageError(f"{path}: refused; it holds Python objects, and unpickling runs code") from error
        raise UsageError(f"{path}: broken .npy file ({error})") from error
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise UsageError(f"{path}: holds {x.dtype}; give float16, float32 or float64")
    return torch.from_numpy(x.astype(x.dtype.newbyteorder("="), order="C"))


def _read_safetensors(path: Path, name: str | None) -> torch.Tensor:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if name is None and len(names) == 1:
                name = names[0]
            if name not in names:
                what = "choose a tensor with --tensor" if name is None else f"no tensor {name!r}"
                raise UsageError(f"{path}: {what}; there are: {', '.join(names) or 'none'}")
            x = file.get_tensor(name)
    except SafetensorError as error:
        raise UsageError(f"{path}: broken .safetensors file ({error})") from error
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        dtype = str(x.dtype).removeprefix("torch.")
        raise UsageError(f"{path}: {name} holds {dtype}; give float16, bfloat16, float32 or float64")
    return x
