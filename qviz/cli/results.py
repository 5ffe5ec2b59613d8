"""``qviz results``: the ledger, as a table, in Markdown or as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from qviz.cli.usage import UsageError


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser("results", help="print the ledger of trainings")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="another file of results")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print JSON with every field")
    kind.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the rows."""
    from qviz.nn.runs.ledger import Ledger, as_dict, table, with_shipped

    ledger = Ledger(options.ledger)
    if options.ledger is not None and not options.ledger.exists():
        raise UsageError(f"{options.ledger}: no such file")
    try:
        rows, own = with_shipped(ledger), len(ledger.rows())
    except ValueError as error:
        raise UsageError(str(error)) from error
    if options.json:
        print(json.dumps([as_dict(row) for row in rows], indent=1))
    elif not rows:
        print(f"{ledger.path} has no results yet; qviz train writes them")
    else:
        print(table(rows, markdown=options.markdown))
        if len(rows) > own:
            print(f"\n{own} of these rows stand in {ledger.path}; the others come with qviz")
    return 0
