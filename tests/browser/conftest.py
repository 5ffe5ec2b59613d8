"""What the browser tests share: one server for all notebooks, and a folder for pictures to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import Desk, lab_desk


@pytest.fixture(scope="package")
def desk() -> Iterator[Desk]:
    """A server that the tests use one after another."""
    with lab_desk() as desk:
        yield desk


@pytest.fixture(scope="package")
def shots(checkout: Path) -> Path:
    """The folder for screenshots."""
    folder = checkout / "tests" / "shots"
    folder.mkdir(exist_ok=True)
    return folder
