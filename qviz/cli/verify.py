"""``qviz verify FILE``: what an exported file is, proved; exit code 1 where it is not what it should be."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qviz.cli.images import DATA, bar, images_of
from qviz.cli.usage import UsageError, require_onnx

IMAGES = 200
"""Of the sample, where ``--data`` is not given."""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("verify", help="prove what an exported file is")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors or .onnx file")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKPOINT",
        help="what it was made of, or an exported .safetensors file",
    )
    parser.add_argument("--model", help="resnet20, resnet18, resnet34 or mobilenet_v2, to insist on one")
    parser.add_argument(
        "--data", metavar="DATA", help=f"{DATA} file (default: the first {IMAGES} images of the sample)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the proof; return 1 if there is none."""
    require_onnx(options.file)
    from qviz.export.source import open_reference
    from qviz.export.verify import open_subject, prove

    try:
        subject = open_subject(options.file)
        against, source = open_reference(options.against, options.model) if options.against else (None, None)
        if source is not None and source.note:
            print(source.note, file=sys.stderr)
        known = subject.about if subject.about.get("shape") or against is None else against.about
        images = _images(options.data, known)
        proof = prove(subject, against, images, model=source and source.model, bar=bar)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    print(proof)
    return 0 if proof.ok else 1


def _images(data: str | None, about: Any) -> Any:
    if data is not None:
        return images_of(data, about)[0]
    return images_of("sample", about)[0][:IMAGES] if about.get("shape") == [3, 32, 32] else None
