"""``qviz gallery``: the offline pages of all explorers, with an index."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qviz.cli.usage import UsageError, install, missing


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("gallery", help="write all explorers as offline pages with an index")
    parser.add_argument("--html", type=Path, metavar="DIR", help="the folder for the pages")
    parser.add_argument("--only", metavar="NAME[,NAME…]", help="some explorers, such as GridExplorer")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the pages, and print each with its size."""
    if options.html is None:
        raise UsageError("give --html DIR, the folder for the pages")
    if absent := missing("plot"):
        raise UsageError(f"{', '.join(absent)} not installed: {install('plot')}")
    from qviz.explore import gallery

    try:
        for entry in gallery.write(options.html, options.only.split(",") if options.only is not None else ()):
            print(f"{entry.path}  {entry.path.stat().st_size / 1e6:.1f} MB", flush=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot write to {options.html}: {error.strerror}") from error
    print(options.html / "index.html")
    return 0
