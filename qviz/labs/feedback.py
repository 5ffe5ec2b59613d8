"""The page that a student gets: points, hints and diagnoses; never a hidden input or an expected number."""

from __future__ import annotations

import html

from qviz.labs.build import points_text
from qviz.labs.model import Lab
from qviz.labs.results import Mark, Result

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}"
    "table{border-collapse:collapse}td,th{border:1px solid #888;padding:.4rem .7rem;text-align:left;"
    "vertical-align:top}blockquote{border-left:3px solid #888;margin-left:0;padding-left:1rem;"
    "white-space:pre-wrap}"
)


def page(lab: Lab, result: Result) -> str:
    """Return a student's page as HTML that needs nothing else; everything of the student's is escaped."""
    rows = "\n".join(_row(name, mark) for name, mark in result.marks.items())
    by_hand = sum(mark.of for mark in result.marks.values() if mark.points is None)
    rest = f", and {points_text(by_hand)} that are given by hand" if by_hand else ""
    total = f"{result.total:.4g} of {points_text(lab.points - by_hand)}{rest}"
    title = f"{lab.title}: {result.student}"
    words = "\n".join(
        f"<h2>{_text(name)}</h2>\n<blockquote>{_text(mark.words)}</blockquote>"
        for name, mark in result.marks.items()
        if mark.words
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{_text(title)}</h1>\n<p>{total}</p>\n"
        f"<table>\n<tr><th>question</th><th>points</th><th>what to look at</th></tr>\n{rows}\n</table>\n"
        f"{words}\n</body></html>\n"
    )


def _row(name: str, mark: Mark) -> str:
    points = f"– / {mark.of:g}" if mark.points is None else f"{mark.points:.4g} / {mark.of:g}"
    return f"<tr><td>{_text(name)}</td><td>{points}</td><td>{_text(mark.text)}</td></tr>"


def _text(text: str) -> str:
    return html.escape(text)
