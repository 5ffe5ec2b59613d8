"""What of a test's parameters runs with SLOW=1 only."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Return the values as parameters of a test that run with SLOW=1 only."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
