"""``qviz lab``: open the notebooks in JupyterLab; in place in a checkout, else as copies of one's own."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qviz.cli.usage import UsageError, install, missing
from qviz.core._files import file_sha256

MANIFEST = ".qviz-manifest.json"
FIRST = "00-start-here"
PROMPT = "--ServerApp.kernel_websocket_connection_class=qviz.cli.websocket.PromptConnection"


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        epilog="What follows -- goes to jupyter lab: qviz lab -- --ServerApp.ip=0.0.0.0",
    )
    parser.add_argument("notebook", nargs="?", help=f"its name or path (default: {FIRST})")
    parser.add_argument("--dir", type=Path, help="copy the notebooks there and work on the copies")
    parser.add_argument(
        "--class",
        type=Path,
        dest="handout",
        metavar="DIR",
        help="copy them for a class; open nothing",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument("--port", type=int)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Find or copy the notebooks, then become a JupyterLab server."""
    from qviz import shipped

    source = shipped.notebooks_dir().resolve()
    if options.handout is not None:
        others = {"NAME": options.notebook, "--dir": options.dir, "--port": options.port}
        others |= {"--no-browser": options.no_browser or None, "--": options.passed_on or None}
        if given := [name for name, value in others.items() if value is not None]:
            raise UsageError(f"--class opens nothing; leave out {', '.join(given)}")
        for line in copy_notebooks(source, options.handout.resolve()):
            print(line)
        return 0
    if options.port is not None and not 0 <= options.port < 2**16:
        raise UsageError(f"--port must be 0 to 65535, got {options.port}")
    if absent := missing("lab"):
        raise UsageError(f"{', '.join(absent)} not installed: {install('lab')}")
    in_package = Path(__file__).resolve().parents[1] in source.parents
    folder = source
    if options.dir or in_package:
        folder = (options.dir or Path("qviz-notebooks")).resolve()
        asked = None
        if options.notebook is not None:  # before anything is written
            asked = _known(options.notebook, folder, source)
        for line in copy_notebooks(source, folder, asked):
            print(line)
    try:
        notebook = find_notebook(folder, options.notebook or FIRST)
    except UsageError:
        if options.notebook is not None:
            raise
        notebook = ""  # the first one was deleted: open the folder
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if "JUPYTER_GATEWAY_URL" not in os.environ and not any("gateway" in o.lower() for o in options.passed_on):
        command.append(PROMPT)  # kernels behind a gateway have a connection of their own
    command.append(f"--LabApp.default_url=/lab/tree/{notebook}" if notebook else "--LabApp.default_url=/lab")
    if options.no_browser:
        command.append("--no-browser")
    if options.port is not None:
        command.append(f"--ServerApp.port={options.port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in options.passed_on:
        print("running as root: adding --allow-root")
        command.append("--allow-root")
    return _become([*command, *options.passed_on])


def _become(command: list[str]) -> int:
    """Replace this process by ``command``, so that Ctrl-C reaches it alone; on Windows, wait for it."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    return subprocess.call(command)


def notebooks_in(folder: Path) -> list[Path]:
    """Return every notebook below ``folder``, checkpoints left out."""
    return [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]


def find_notebook(folder: Path, name: str) -> str:
    """Return the path, relative to ``folder``, of the notebook called ``name``, with or without suffix.

    A name without a folder is looked for in every folder below.

    Raises:
        UsageError: There is none, or there are several; the message lists those that are there.
    """
    wanted = name if name.endswith(".ipynb") else f"{name}.ipynb"
    for path in ((folder / wanted).resolve(), Path(wanted).resolve()):
        if path.is_file() and path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    inside = [path.relative_to(folder).as_posix() for path in notebooks_in(folder)]
    found = [path for path in inside if path.rsplit("/", 1)[-1] == wanted]
    if len(found) == 1:
        return found[0]
    known = ", ".join(path.removesuffix(".ipynb") for path in found or inside)
    raise UsageError(f"no notebook {name!r} in {folder}; there are: {known or 'none'}")


def _known(name: str, folder: Path, source: Path) -> str:
    """Return the path of a notebook that is in ``folder``, or will be once the shipped ones are copied."""
    try:
        return find_notebook(folder, name)
    except UsageError:
        return find_notebook(source, name)


def handed_out(path: Path) -> bytes:
    """Return a file as readers get it: lessons, the notebooks with a number, have no outputs."""
    content = path.read_bytes()
    if path.suffix != ".ipynb" or not path.name[:2].isdigit():
        return content
    notebook = json.loads(content)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def copy_notebooks(source: Path, folder: Path, asked: str | None = None) -> Iterator[str]:
    """Copy the shipped notebooks into ``folder`` and yield lines that say what happened.

    Lessons are copied without their outputs, which would answer their questions.

    A manifest in ``folder`` holds the sha256 of every file as it was copied. A file that is still as it was
    copied follows the shipped one; a file that was changed, or was there before, is never touched. A notebook
    that was copied once and is gone stays away, unless it is asked for.

    Args:
        source: The folder of the shipped notebooks.
        folder: The folder of the copies.
        asked: The path below ``folder`` of the notebook that the user named.

    Raises:
        UsageError: ``folder`` cannot be made, read or written.
    """
    manifest_file = folder / MANIFEST
    copied, gone = 0, []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = json.loads(manifest_file.read_text("utf-8")) if manifest_file.exists() else {}
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            if ".ipynb_checkpoints" in path.parts or "__pycache__" in path.parts:
                continue
            name = path.relative_to(source).as_posix()
            content = handed_out(path)
            last, new = manifest.get(name), hashlib.sha256(content).hexdigest()
            mine = file_sha256(folder / name) if (folder / name).exists() else None
            if mine is None and last is not None and path.suffix == ".ipynb" and name != asked:
                gone.append(name.removesuffix(".ipynb"))
                continue
            if mine not in (None, last, new):  # the user's own work
                if last != new:
                    again = f"rename yours, then qviz lab {name.removesuffix('.ipynb')}"
                    yield f"kept your {name}; the shipped one differs (to get it, {again})"
                continue
            if mine != new:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
                copied += 1
            manifest[name] = new
        manifest_file.write_text(json.dumps(manifest, indent=1), "utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot copy the notebooks to {folder}: {error}") from error
    if gone:
        yield f"not copied again, as you removed them: {', '.join(gone)} (qviz lab NAME brings one back)"
    yield f"notebooks are in {folder} ({copied} files new or updated)"
