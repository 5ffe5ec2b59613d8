"""Drive a notebook from the command line: run every cell, move sliders by keyboard, time what is drawn.

    python -m tests.browser.drive NOTEBOOK --slider Bits --keys ArrowRight --repeat 20 --shot out.png

Exit code 0: every cell ran and every key press changed the picture, fast enough; 1: not so; 2: usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from playwright.sync_api import Error as BrowserError

from tests.browser.lab import Lab, open_lab
from tests.browser.slider import SliderTimes


@dataclass
class Report:
    """What was seen; `problems` is empty when all is well."""

    notebook: str
    seconds: dict[str, float] = field(default_factory=dict)
    sliders: dict[str, SliderTimes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    server_log: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, with the median and p95 of each slider."""
        plain = asdict(self)
        for label, times in self.sliders.items():
            if times.steps:
                plain["sliders"][label] |= {"median_ms": times.median_ms, "p95_ms": times.p95_ms}
        return plain


def main() -> int:
    """Parse the command line, drive, print and write the report."""
    options = _options()
    report = Report(options.notebook.name)
    try:
        with open_lab(
            options.notebook, python=options.python, chromium=options.chromium, timeout_s=options.timeout
        ) as lab:
            try:
                _drive(lab, options, report)
            finally:
                report.seconds, report.console = lab.seconds, lab.console
                if report.problems:
                    report.server_log = lab.server.log_tail()
    except (BrowserError, LookupError, RuntimeError) as error:
        report.problems.append(f"{type(error).__name__}: {error}")
    if options.json:
        options.json.write_text(json.dumps(report.to_dict(), indent=1), "utf-8")
    print("seconds:", ", ".join(f"{name} {value}" for name, value in report.seconds.items()))
    print(*report.sliders.values(), *(f"PROBLEM {problem}" for problem in report.problems), sep="\n")
    return 1 if report.problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.drive", description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--slider", action="append", default=[], metavar="LABEL", help="may be repeated")
    parser.add_argument("--keys", default="ArrowRight", help="comma-separated, pressed in turn")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--max-median-ms", type=float)
    parser.add_argument("--max-p95-ms", type=float)
    parser.add_argument("--shot", type=Path, help="PNG at the end, and NAME-0.png before the first key")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--python", default=sys.executable, help="whose JupyterLab and kernel")
    parser.add_argument("--chromium")
    parser.add_argument("--timeout", type=float, default=120, help="seconds, for start, open and run each")
    options = parser.parse_args()
    if not options.notebook.is_file():
        parser.error(f"{options.notebook}: no such file")
    return options


def _drive(lab: Lab, options: argparse.Namespace, report: Report) -> None:
    report.problems += lab.errors()
    if options.slider:
        lab.wait_until_still()
        lab.slider(options.slider[0]).focus()
    if options.shot:
        lab.screenshot(options.shot.with_stem(options.shot.stem + "-0"))
    for label in options.slider:
        times = lab.slider(label).drive(options.keys.split(","), repeat=options.repeat, warmup=options.warmup)
        report.sliders[label] = times
        report.problems += [f"{label}: {what}" for what in times.unchanged]
        for name, limit in (("median_ms", options.max_median_ms), ("p95_ms", options.max_p95_ms)):
            if limit is not None and times.steps and getattr(times, name) > limit:
                report.problems.append(f"{label}: {name} {getattr(times, name):.1f} is above {limit}")
    report.problems += [problem for problem in lab.errors() if problem not in report.problems]
    if options.shot:
        lab.screenshot(options.shot)


if __name__ == "__main__":
    sys.exit(main())
