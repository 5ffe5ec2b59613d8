"""Binder's environment, built from binder/ alone, runs the first notebook in a browser."""

from __future__ import annotations

import sys

import pytest

from tests.tools.binder_env import build_and_drive


@pytest.mark.slow
@pytest.mark.browser
def test_binder(tmp_path, capfd):
    assert build_and_drive(tmp_path, sys.executable) == 0, capfd.readouterr().out
