"""``check()`` in a cell: the public tests on the functions in the kernel, wherever the notebook runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qviz.labs import checking, manifest
from qviz.labs.manifest import Manifest

_MOST = 20_000_000


def check_names(names: Mapping[str, Any], notebook: str | Path | None = None) -> checking.Report:
    """Check the functions and data among some names.

    Args:
        names: A notebook's names and what they stand for.
        notebook: The notebook's file; None is the one that is running.

    Raises:
        ValueError: The notebook is not found, or is none of a lab.
    """
    content = read(Path(notebook)) if notebook is not None else _running(names)
    said = said_by(content)
    return checking.report(said, checking.in_kernel(said, names), checking.match_said(content, said))


def read(file: Path) -> dict[str, Any]:
    """Return a notebook's file as JSON.

    Raises:
        ValueError: It cannot be read, is too large, or is no notebook.
    """
    try:
        if file.stat().st_size > _MOST:
            raise ValueError(f"{file} has more than {_MOST / 1e6:.0f} MB: clear its outputs")
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if "clear its outputs" in str(error):
            raise
        raise ValueError(f"{file} is no notebook: it is not JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no notebook")
    return content


def said_by(content: Mapping[str, Any]) -> Manifest:
    """Return what a notebook says of its release.

    Raises:
        ValueError: It says nothing.
    """
    said = manifest.read(content)
    if said is None:
        raise ValueError(
            "the notebook says of no lab that it is its release: it is another one, or an editor has dropped "
            "its metadata (then give the release as it was handed out: qviz labs check --release FILE)"
        )
    return said


def _running(names: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook that is running: the server, VS Code or Colab tells; or the one release in the folder."""
    for told in (os.environ.get("JPY_SESSION_NAME"), names.get("__vsc_ipynb_file__")):
        if isinstance(told, str) and told.endswith(".ipynb") and Path(told).is_file():
            return read(Path(told))
    if "google.colab" in sys.modules:
        from google.colab import _message  # there is no public way to a running notebook's text

        answer = _message.blocking_request("get_ipynb", timeout_sec=30)
        if isinstance(answer, dict) and isinstance(answer.get("ipynb"), dict):
            return answer["ipynb"]
    releases = [
        content
        for file in sorted(Path.cwd().glob("*.ipynb"))
        if file.stat().st_size <= _MOST and manifest.read(content := read(file)) is not None
    ]
    if len(releases) != 1:
        raise ValueError(
            f"{len(releases)} notebooks of labs are in this folder: name yours, check('FILE.ipynb')"
        )
    return releases[0]
