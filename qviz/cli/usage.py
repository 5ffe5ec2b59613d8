"""What the commands share: the user's errors, and the extras with the modules they bring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DISTRIBUTION = "qviz-quantization"
EXTRAS = {
    "plot": ("matplotlib", "seaborn"),
    "lab": ("jupyterlab", "ipywidgets", "anywidget", "bqplot"),
    "train": ("accelerate", "PIL", "pooch", "tqdm"),
    "grade": ("nbgrader",),
    "export": ("onnx", "onnxruntime"),
}


STOPPED = 130
"""Exit code of a command that was stopped by hand, as of any program that Ctrl-C ends."""

UNREAD = 141
"""Exit code of a command whose reader left, as in ``qviz results | head -1``."""


class UsageError(Exception):
    """What the user asked for cannot be done; the message says why."""


def one_line(message: str) -> str:
    """Return ``message`` with every run of white space, line breaks included, as one space."""
    return " ".join(message.split())


def missing(extra: str) -> list[str]:
    """Return the modules of ``extra`` that are not installed."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def install(extra: str) -> str:
    """Return the command that installs ``extra``."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require_onnx(file: Path) -> None:
    """Refuse an .onnx file, in or out, where what it needs is not installed.

    Raises:
        UsageError: It is not.
    """
    absent = missing("export") if file.suffix == ".onnx" else []
    if absent:
        raise UsageError(f"an .onnx file needs {', '.join(absent)}: {install('export')}")
