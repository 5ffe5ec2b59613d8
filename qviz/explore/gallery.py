"""Gallery: all explorers by name, and their offline pages with an index, for the site of a course."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qviz.explore.bit_budget import BudgetModel
from qviz.explore.border import BorderModel
from qviz.explore.codebook import CodebookModel
from qviz.explore.format import FormatModel
from qviz.explore.gradient import GradientModel
from qviz.explore.grid import GridModel
from qviz.explore.layer import LayerModel
from qviz.explore.lut import LutModel
from qviz.explore.model import Model
from qviz.explore.step import StepModel
from qviz.explore.thresholds import ThresholdModel
from qviz.explore.time_machine import TimeModel
from qviz.plot import page as pages

MODELS: Mapping[str, type[Model]] = {
    "GridExplorer": GridModel,
    "GradientExplorer": GradientModel,
    "FormatExplorer": FormatModel,
    "StepExplorer": StepModel,
    "CodebookExplorer": CodebookModel,
    "ThresholdExplorer": ThresholdModel,
    "BitBudgetExplorer": BudgetModel,
    "BorderExplorer": BorderModel,
    "TimeMachine": TimeModel,
    "LayerExplorer": LayerModel,
    "LutExplorer": LutModel,
}
"""The model of each explorer, by the explorer's name, in the order of the lessons."""

INDEX = """
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem; }
article h2 { font-size: 1.1rem; margin: .4rem 0; } article p { margin: .2rem 0; }
a { color: #0b6ebf; } @media (prefers-color-scheme: dark) { a { color: #7cc4f5; } }
"""


@dataclass(frozen=True)
class Entry:
    """A page of the gallery that was written.

    Attributes:
        name: The name of the explorer.
        caption: What it shows, in a sentence.
        path: The page.
    """

    name: str
    caption: str
    path: Path


def write(folder: str | Path, names: Collection[str] = ()) -> Iterator[Entry]:
    """Write a page for each explorer into a folder and yield it; at the end write ``index.html``.

    The pages need neither kernel nor network and work from ``file://``.

    Args:
        folder: The folder; it is made if it does not exist.
        names: The explorers; all by default.

    Raises:
        ValueError: There is no explorer of a name.
    """
    unknown = sorted(set(names) - set(MODELS))
    if unknown:
        raise ValueError(f"unknown explorers {unknown}; there are {list(MODELS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in [name for name in MODELS if not names or name in names]:
        model = MODELS[name]()
        file = "-".join(re.findall("[A-Z][a-z]+", name)).lower()
        path = pages.write(folder / f"{file}.html", name, model.caption(), *model.page(model.start))
        written.append(Entry(name, model.caption(), path))
        yield written[-1]
    _index(folder / "index.html", written)


def _index(path: Path, entries: list[Entry]) -> None:
    """Write the page that leads to the others."""
    items = "".join(
        f'<article><h2><a href="{entry.path.name}">{html.escape(entry.name)}</a></h2>'
        f"<p>{html.escape(entry.caption)}</p></article>"
        for entry in entries
    )
    title = "Quantization, in your hand"
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{pages.PAGE}{INDEX}</style></head><body>'
        f"<header><h1>{title}</h1><p>Each page works offline: its pictures were computed beforehand. In a "
        "notebook, with <code>qviz.widgets</code>, the explorers are live and take your own tensors.</p>"
        f"</header><main>{items}</main></body></html>\n",
        encoding="utf-8",
    )
