"""``qviz export``: a trained or quantized network as one file of packed codes, or as ONNX."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qviz.cli.usage import UsageError, require_onnx


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("export", help="write a network as packed codes or as ONNX")
    parser.add_argument(
        "source",
        type=Path,
        metavar="CHECKPOINT|RUN",
        help="a run of qviz train, a result of qviz ptq, a state dict, or an exported .safetensors file",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="a .safetensors or .onnx file")
    parser.add_argument("--model", help="resnet20, resnet18, resnet34 or mobilenet_v2, to insist on one")
    parser.add_argument("--ties", help="of ONNX: down (default) or even, as hardware rounds them")
    parser.add_argument(
        "--opset", type=int, help="of ONNX: 21 (default) or more; from 25 on, codes of 2 bits"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file and print what is in it."""
    own = {k: v for k, v in vars(options).items() if k in ("ties", "opset") and v is not None}
    if options.to.suffix not in (".safetensors", ".onnx"):
        raise UsageError(f"--to takes a .safetensors or .onnx file, got {options.to}")
    if options.to.suffix == ".safetensors" and own:
        raise UsageError(f"--{min(own)} is of .onnx files; leave it out")
    require_onnx(options.to)
    from qviz.export.source import open_reference

    try:
        exported, source = open_reference(options.source, options.model)
        if source is not None and source.note:
            print(source.note, file=sys.stderr)
        print(_written(exported, options.to, own))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    return 0


def _written(exported: Any, path: Path, own: dict[str, Any]) -> str:
    """Write the file; return what is in it."""
    if path.suffix == ".onnx":
        from qviz.core._text import table
        from qviz.export.onnx import to_onnx

        forms = to_onnx(exported, path, **own)
        rows = [(f.name, f.weight, f.stored, f.input, f"{f.ties}") for f in forms]
        text = table(("layer", "weight", "stored", "input", "ties to even"), rows, right=(4,))
        return f"{text}\n{path}: {path.stat().st_size:,} bytes"
    from qviz.export import sizes, write

    return f"{sizes(write(exported, path))}\n{path}"
