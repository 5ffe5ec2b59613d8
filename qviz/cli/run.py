"""``qviz run FILE``: the accuracy of an exported file, computed from the file alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qviz.cli.images import DATA, bar, images_of
from qviz.cli.usage import UsageError, require_onnx


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("run", help="run an exported file on images")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors or .onnx file")
    parser.add_argument("--data", required=True, metavar="DATA", help=f"{DATA} file")
    parser.add_argument(
        "--integer", action="store_true", help="of a .safetensors file: by integer arithmetic on its codes"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the accuracy; of a .npy file, the class of each image."""
    require_onnx(options.file)
    if options.integer and options.file.suffix != ".safetensors":
        raise UsageError(f"--integer is of .safetensors files, got {options.file}")
    import torch

    from qviz.export.outputs import batches

    try:
        answer, about = _network(options.file, options.integer)
        images, labels = images_of(options.data, about)
        begin = time.perf_counter()
        classes = torch.cat([answer(batch).argmax(1) for batch in bar(batches(images))])
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    if labels is None:
        print("\n".join(map(str, classes.tolist())))
        return 0
    right, seconds = int((classes == labels).sum()), time.perf_counter() - begin
    print(
        f"{options.file.name}: {100 * right / len(labels):.2f} % right, {right:,} of {len(labels):,} images "
        f"of {options.data}, in {seconds:.1f} s"
    )
    return 0


def _network(file: Path, integer: bool) -> tuple[Callable[[Any], Any], Any]:
    """Return what answers images, and what the file says of itself."""
    from qviz.export.verify import open_subject

    subject = open_subject(file)
    if integer:
        from qviz.export import IntegerModel

        return IntegerModel(subject.exported), subject.about
    return subject.answer, subject.about
