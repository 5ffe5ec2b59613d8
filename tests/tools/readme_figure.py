"""Make the figure of the README: python -m tests.tools.readme_figure"""

from __future__ import annotations

from pathlib import Path

from qviz.plot.draw import png
from qviz.widgets import GridExplorer

FIGURE = Path(__file__).resolve().parents[2] / ".github" / "figure.png"


def main() -> None:
    """Write the figure."""
    FIGURE.write_bytes(png(GridExplorer().figure(), dpi=96))


if __name__ == "__main__":
    main()
