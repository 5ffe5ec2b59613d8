"""Where labs come from: the folder of masters, with the cases beside them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from qviz import shipped
from qviz.labs.model import Lab

_SUFFIX = "_cases.py"


def folder_of(folder: Path | None = None) -> Path:
    """Return the folder of masters: the one that is given, or the checkout's.

    Raises:
        ValueError: There is none; an installed package has no masters.
    """
    place = shipped.notebooks_dir() / "labs" / "source" if folder is None else folder
    if not place.is_dir():
        if folder is not None:
            raise ValueError(f"no folder {str(folder)!r} with masters of labs")
        raise ValueError(
            "the installed package has no masters of labs: "
            "name a checkout's notebooks/labs/source (--source DIR)"
        )
    return place


def names(folder: Path | None = None) -> list[str]:
    """Return the names of the labs in a folder.

    Raises:
        ValueError: There is no such folder.
    """
    place = folder_of(folder)
    return sorted(path.stem for path in place.glob("*.ipynb") if _cases(place, path.stem).is_file())


def load(name: str, folder: Path | None = None) -> Lab:
    """Run a lab's cases and return what they end in.

    Args:
        name: The lab's name, such as ``lab1-uniform``.
        folder: The folder of masters; None is the checkout's.

    Raises:
        ValueError: There is no such lab, or its cases make none.
    """
    place = folder_of(folder)
    path = _cases(place, name)
    if not path.is_file():
        raise ValueError(f"no lab {name!r} in {place}; there are: {', '.join(names(place)) or 'none'}")
    lab = getattr(_run(path), "LAB", None)
    if not isinstance(lab, Lab) or lab.name != name:
        raise ValueError(f"{path.name} does not end in LAB = Lab(name={name!r}, ...), got {lab!r:.80}")
    return lab


def notebook(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return a lab's master as plain JSON.

    Raises:
        ValueError: There is none, or it is no notebook.
    """
    path = folder_of(folder) / f"{name}.ipynb"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"the lab {name!r} has no master {path.name}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise ValueError(f"{path} is no notebook")
    return content


def cases_text(name: str, folder: Path | None = None) -> str:
    """Return the text of a lab's cases, none of which may reach a student."""
    return _cases(folder_of(folder), name).read_text("utf-8")


def _cases(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('-', '_')}{_SUFFIX}"


def _run(path: Path) -> ModuleType:
    """Import a file by its path, under a name that no package has."""
    module_name = f"_qviz_lab_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses in it look their module up
    spec.loader.exec_module(module)
    return module
