"""The first notebook in a real browser: it runs, and its sliders move its pictures."""

from __future__ import annotations

import pytest

from tests.browser.lab import open_lab

SANE_MS = 2000  # says "it hangs", not "it is slow"; latency is measured by tests.browser.drive


@pytest.mark.slow
@pytest.mark.browser
def test_sliders_move_the_pictures(checkout, desk, shots, capsys):
    notebook = checkout / "notebooks" / "00-start-here.ipynb"
    with open_lab(notebook, desk=desk) as lab:
        assert lab.errors() == []
        lab.wait_until_still()
        for label, keys in (("Bits", ["ArrowRight"]), ("Clip", ["ArrowLeft"])):
            times = lab.slider(label).drive(keys, repeat=3, warmup=1)
            with capsys.disabled():
                print(f"\n  {times}", end="")
            lab.screenshot(shots / f"start-here-{label.lower()}.png")
            assert times.unchanged == []
            assert times.median_ms < SANE_MS
        assert lab.errors() == []
