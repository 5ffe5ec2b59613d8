"""What every test shares: a headless matplotlib, hypothesis profiles, and browser tests only where one is."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

os.environ["MPLBACKEND"] = "agg"

# Torch gives some warnings once per process; as errors they would hit whichever test happens to come first.
torch.set_warn_always(True)

# No deadline: a busy machine is not a failing property. `make test` tries the same examples every time,
# `make test SLOW=1` more of them; --hypothesis-profile=explore looks for new ones.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, derandomize=True, max_examples=300)
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of runs on 60 images, for tests that do not ask how many there are."""
    from qviz.nn.data import cifar10

    def some(split: str, **where: Any) -> Any:
        data = cifar10(split, **where)
        rows = slice(60 if split in ("val", "test") else None)
        return replace(data, images=data.images[rows], labels=data.labels[rows])

    for module in ("prepare", "ptq_prepare"):
        monkeypatch.setattr(importlib.import_module(f"qviz.nn.runs.{module}"), "cifar10", some)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the browser tests, with the reason, where there is nothing to run them with."""
    reason = _no_browser()
    if reason:
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_browser() -> str | None:
    for module in ("playwright", "jupyterlab"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    from tests.browser.lab import NO_CHROMIUM, find_chromium

    return None if find_chromium() else NO_CHROMIUM
