"""A slider of the page, moved by keyboard, and what that shows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from playwright.sync_api import Locator
from playwright.sync_api import TimeoutError as Timeout

if TYPE_CHECKING:
    from tests.browser.lab import Lab

OPPOSITE = {"ArrowRight": "ArrowLeft", "ArrowUp": "ArrowDown", "PageUp": "PageDown", "End": "Home"}
OPPOSITE |= {back: forth for forth, back in OPPOSITE.items()}
GIVE_UP_AFTER = 3  # keys that change nothing
REST_MS = 200  # before the page is asked anything: each question takes its time and a processor's

VALUE = """(handle) => {
  const box = handle.closest('.widget-slider');
  const readout = box.querySelector('.widget-readout')?.textContent ?? '';
  return [readout, box.querySelector('.noUi-origin').style.transform];
}"""
MOVED = f"([handle, before]) => String(({VALUE})(handle)) !== String(before)"
HOLD = "(handle, keys) => window.qvizProbe.hold(handle, ...keys)"
TO_TOP = "(e) => (e.closest('.jp-OutputArea-output') || e).scrollIntoView({block: 'start'})"


class PictureUnchanged(AssertionError):
    """Nothing that is drawn has changed, though it should have."""


@dataclass(frozen=True)
class Timing:
    """One action, in ms after its event: the first changed frame, that frame painted, the last change."""

    first_ms: float
    paint_ms: float
    last_ms: float
    changes: int
    probe_ms: float


@dataclass
class SliderTimes:
    """What driving one slider showed."""

    label: str
    steps: list[Timing] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """The median time to the first changed frame."""
        return statistics.median(step.first_ms for step in self.steps)

    @property
    def p95_ms(self) -> float:
        """The time that 95 % of the steps stay within."""
        ordered = sorted(step.first_ms for step in self.steps)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.label}: no key changed the picture"
        return (
            f"{self.label}: {len(self.steps)} steps, key press to changed picture "
            f"median {self.median_ms:.1f} ms, p95 {self.p95_ms:.1f} ms, {len(self.unchanged)} unchanged"
        )


@dataclass
class Slider:
    """An ipywidgets slider."""

    lab: Lab
    label: str
    box: Locator
    handle: Locator

    def focus(self) -> None:
        """Bring the output that holds the slider to the top of the view and give it the keyboard."""
        self.box.evaluate(TO_TOP)
        self.handle.focus()

    def value(self) -> str:
        """Return what its readout says."""
        return self.handle.evaluate(VALUE)[0]

    def press(self, key: str) -> Timing | None:
        """Press a key and time the changed picture; None where the slider is at the end of its range.

        Raises:
            PictureUnchanged: the slider moved, the picture did not change.
        """
        handle = self.handle.element_handle()
        before = handle.evaluate(VALUE)
        self.lab.arm("keydown")
        handle.press(key)
        self.lab.page.wait_for_timeout(REST_MS)
        try:
            self.lab.page.wait_for_function(MOVED, arg=[handle, before], timeout=500)
        except Timeout:
            return None
        return self.lab.timing()

    def held(self, seconds: float = 2.0) -> float:
        """Hold ArrowRight, turning round at the ends, and return the pictures a second."""
        self.focus()
        rate = self.handle.evaluate(HOLD, ["ArrowRight", "ArrowLeft", 1000 * seconds])
        self.lab.wait_until_still()
        return rate

    def drive(self, keys: Sequence[str], *, repeat: int = 20, warmup: int = 2) -> SliderTimes:
        """Press ``keys`` in turn, turning round at the ends; the first ``warmup`` presses do not count."""
        times, turned = SliderTimes(self.label), False
        self.focus()
        for i in range(warmup + repeat):
            key = keys[i % len(keys)]
            try:
                timing = self.press(OPPOSITE[key] if turned else key)
                if timing is None:
                    turned = not turned
                    timing = self.press(OPPOSITE[key] if turned else key)
                if timing is None:
                    raise PictureUnchanged("the slider does not move")
            except PictureUnchanged as error:
                times.unchanged.append(f"{key} at {self.value()}: {error}")
                if len(times.unchanged) == GIVE_UP_AFTER:
                    break
            else:
                if i >= warmup:
                    times.steps.append(timing)
                    times.values.append(self.value())
        return times
