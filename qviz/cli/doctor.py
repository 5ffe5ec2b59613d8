"""``qviz doctor``: versions, extras, and a self-test of what was installed."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qviz.cli.lab import notebooks_in
from qviz.cli.usage import EXTRAS, install, missing, one_line


def add_to(commands: Any) -> None:
    """Declare the command."""
    commands.add_parser("doctor", help="check the installation").set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the report; return 1 if a check failed."""
    for title, lines in (("versions", versions()), ("extras", extras())):
        print(title, *lines, sep="\n  ")
    print("checks")
    broken = 0
    for check in (check_data, check_notebooks, check_levels, check_compare):
        try:
            print("  ok     ", check())
        except Exception as error:  # noqa: BLE001 - whatever is broken, the report names it and goes on
            broken += 1
            print(f"  BROKEN  {check.__name__}: {type(error).__name__}: {one_line(str(error))}")
    print("something is broken" if broken else "all is well")
    return 1 if broken else 0


def versions() -> Iterator[str]:
    """Yield what runs, in which version (torch's names its build, CPU or CUDA), and where."""
    import torch

    import qviz

    yield f"qviz {qviz.__version__} in {Path(qviz.__file__).parent}"
    yield f"python {platform.python_version()} on {platform.platform(terse=True)}"
    yield f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    for package in ("numpy", "safetensors"):
        yield f"{package} {importlib.metadata.version(package)}"


def extras() -> Iterator[str]:
    """Yield for every extra the versions of its packages, or how to install what is missing."""
    for extra, modules in EXTRAS.items():
        if absent := missing(extra):
            yield f"{extra}: without {', '.join(absent)}; {install(extra)}"
        else:
            packages = ["pillow" if module == "PIL" else module for module in modules]
            yield f"{extra}: " + ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)


def check_data() -> str:
    """Hold the shipped data to the recorded hashes."""
    from qviz import shipped

    shipped.verify()
    return f"data: {len(shipped.names())} tensors, every sha256 as recorded"


def check_notebooks() -> str:
    """Find the notebooks."""
    from qviz import shipped

    folder = shipped.notebooks_dir()
    found = notebooks_in(folder)
    if not found:
        raise FileNotFoundError(f"no notebook in {folder}")
    return f"notebooks: {len(found)} in {folder}"


def check_levels() -> str:
    """Hold the 4-bit grids to the published level lists."""
    import torch

    import qviz

    published = {
        "uniform": [float(k) for k in range(-8, 8)],
        "pot": mirrored(2.0**-j for j in range(7)),
        "post": mirrored(2.0 ** (-j / 2) for j in range(7)),
    }
    for name, levels in published.items():
        got, want = getattr(qviz, name)(4).levels, torch.tensor(levels)
        if got.shape != want.shape or not torch.allclose(got.cpu().float(), want, rtol=1e-6, atol=0):
            raise ValueError(f"{name}(4).levels is {got.tolist()}, published are {levels}")
    return f"levels: {', '.join(published)} as published at 4 bits"


def mirrored(positive: Iterator[float]) -> list[float]:
    """Return 0, the given numbers and their negatives, sorted."""
    return sorted({0.0} | {sign * level for level in positive for sign in (-1, 1)})


def check_compare() -> str:
    """Quantize five numbers with POST at clip 1 and hold the error to the one worked out by hand."""
    import torch

    import qviz

    x, y = (
        torch.tensor([-2.0, -0.6, 0.05, 0.3, 0.43]),
        torch.tensor([-1.0, -0.5, 0.0, 0.25, 0.5]),
    )
    want = float(((x - y) ** 2).mean())
    got = qviz.compare(x, {"POST": qviz.post(4)}, range=1.0).to_dict()["POST"]["mse"]
    if abs(got - want) > 1e-6:
        raise ValueError(f"compare() finds the MSE {got}, by hand it is {want}")
    return f"compare: five numbers quantized, MSE {got:.5f} as by hand"
