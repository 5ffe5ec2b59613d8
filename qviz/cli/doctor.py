"""``qviz doctor``: versions, extras, and a self-test of what was installed; it runs whatever is missing."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qviz.cli.lab import notebooks_in
from qviz.cli.usage import EXTRAS, install, missing, one_line

NEEDED = ("torch", "numpy", "safetensors")
FRONT_END = ("@jupyter-widgets/jupyterlab-manager", "bqplot", "anywidget")
"""JupyterLab's extensions that show the explorers; their packages are jupyterlab-widgets,
bqplot and anywidget."""


def add_to(commands: Any) -> None:
    """Declare the command and its option."""
    parser = commands.add_parser("doctor", help="check the installation")
    parser.add_argument("--student", action="store_true", help="print one line to send to whoever helps you")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return 1 if something is broken."""
    found = list(findings())
    broken = [text for section, ok, text in found if not ok]
    if options.student:
        print(student(broken))
        return 1 if broken else 0
    title = ""
    for section, ok, text in found:
        if section != title:
            print(section)
            title = section
        print(f"  {'ok     ' if ok else 'BROKEN '} {text}")
    print("something is broken" if broken else "all is well")
    return 1 if broken else 0


def findings() -> Iterator[tuple[str, bool, str]]:
    """Yield section, whether it is well, and a line, for everything that is looked at."""
    from qviz import __version__

    yield "versions", True, f"qviz {__version__} in {Path(__file__).resolve().parents[1]}"
    yield "versions", True, f"python {platform.python_version()} on {platform.platform(terse=True)}"
    for module in NEEDED:
        yield "versions", *imported(module)
    for extra, modules in EXTRAS.items():
        absent = missing(extra)
        if absent:
            yield "extras", True, f"{extra}: without {', '.join(absent)}; {install(extra)}"
        for module in modules:
            if module not in absent:
                ok, text = imported(module)
                yield "extras", ok, f"{extra}: {text}"
    checks = [check_data, check_notebooks, check_levels, check_compare]
    if not missing("lab"):
        checks += [check_kernel, check_front_end]
    for check in checks:
        yield "checks", *checked(check)


def imported(module: str) -> tuple[bool, str]:
    """Import a module; return whether that worked, and its version or the reason."""
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the report names it and goes on
        return False, f"{module} cannot be imported: {type(error).__name__}: {one_line(str(error))}"
    try:
        version = importlib.metadata.version("pillow" if module == "PIL" else module)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return True, f"{module} {getattr(loaded, '__version__', version)}"


def checked(check: Callable[[], str]) -> tuple[bool, str]:
    """Run a check; return whether it passed, and its line or the reason."""
    try:
        return True, check()
    except Exception as error:  # noqa: BLE001 - as in imported
        return False, f"{check.__name__}: {type(error).__name__}: {one_line(str(error))}"


def student(broken: list[str]) -> str:
    """Return one line with what somebody who helps has to know, without folders of this computer."""
    from qviz import __version__

    modules = (*NEEDED, *EXTRAS["lab"])
    parts = [f"qviz {__version__}", f"python {platform.python_version()}", platform.platform(terse=True)]
    parts += [text if ok else f"{module} broken" for module in modules for ok, text in [imported(module)]]
    home = str(Path.home())
    return ", ".join(parts) + "; broken: " + ("; ".join(broken).replace(home, "~") or "nothing")


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

    x = torch.tensor([-2.0, -0.6, 0.05, 0.3, 0.43])
    y = torch.tensor([-1.0, -0.5, 0.0, 0.25, 0.5])
    want = float(((x - y) ** 2).mean())
    got = qviz.compare(x, {"POST": qviz.post(4)}, range=1.0).to_dict()["POST"]["mse"]
    if abs(got - want) > 1e-6:
        raise ValueError(f"compare() finds the MSE {got}, by hand it is {want}")
    return f"compare: five numbers quantized, MSE {got:.5f} as by hand"


def check_kernel() -> str:
    """Find the kernel that notebooks run in, and hold it to this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    python = Path(spec.argv[0])
    if python.is_absolute() and python.resolve() != Path(sys.executable).resolve():
        raise ValueError(
            f"the kernel python3 runs {python}, but qviz is installed for {sys.executable}; "
            f"mend it with: {sys.executable} -m ipykernel install --sys-prefix"
        )
    return f"kernel: python3 runs {python}"


def check_front_end() -> str:
    """Find the extensions with which JupyterLab shows widgets."""
    from jupyter_core.paths import jupyter_path

    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    absent = [name for name in FRONT_END if not any((f / name / "package.json").is_file() for f in folders)]
    if absent:
        raise FileNotFoundError(
            f"JupyterLab lacks {', '.join(absent)}, so explorers stay blank; "
            "pip install --force-reinstall jupyterlab-widgets bqplot anywidget"
        )
    return f"front end: {', '.join(FRONT_END)}"
