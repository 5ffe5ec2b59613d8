"""README.md says what is true: its Python is run, in order, in one session, and its numbers are compared.

A ```python block with >>> prompts is a doctest. One without is run; if a ```text block follows, with nothing
but blank lines between, what it prints must be that text. `...` in expected output stands for anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from qviz.nn.runs import Ledger
from qviz.nn.runs.queue import read_queue
from tests.tools import readme_results

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*\n", re.DOTALL | re.MULTILINE)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Snippet:
    """A block of Python, the line it starts at, and the text that it must print, if that is given."""

    code: str
    line: int
    prints: str | None = None


def snippets(text: str) -> list[Snippet]:
    blocks = list(BLOCK.finditer(text))
    found = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] in ("python", "pycon"):
            snippet = Snippet(block[2], text.count("\n", 0, block.start()) + 2)
            if after and after[1] == "text" and not text[block.end() : after.start()].strip():
                snippet.prints = after[2]
            found.append(snippet)
    return found


def check(text: str) -> list[str]:
    """Run every snippet and return what went wrong, with its line."""
    session: dict[str, object] = {"__name__": "__main__"}
    wrong = []
    for snippet in snippets(text):
        where = f"line {snippet.line}"
        if ">>>" in snippet.code:
            wrong += run_doctest(snippet, session, where)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(snippet.code, where, "exec"), session)
        same = doctest.OutputChecker().check_output
        if snippet.prints is not None and not same(snippet.prints, printed.getvalue(), OPTIONS):
            wrong.append(f"{where} prints\n{printed.getvalue()}\nand not\n{snippet.prints}")
    return wrong


def run_doctest(snippet: Snippet, session: dict[str, object], where: str) -> list[str]:
    test = doctest.DocTestParser().get_doctest(snippet.code, {}, where, where, snippet.line)
    test.globs = session
    report = io.StringIO()
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.write, clear_globs=False)
    return [report.getvalue()] if report.getvalue() else []


def test_readme(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # what an example writes stays out of the checkout
    assert check(README.read_text("utf-8")) == []


def test_readme_has_examples_with_printed_numbers():
    found = snippets(README.read_text("utf-8"))
    assert any(snippet.prints or ">>>" in snippet.code for snippet in found)


def test_readme_links_exist(checkout):
    text = README.read_text("utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [link for link in links if "://" not in link and not (checkout / link).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```python\n>>> 1 + 1\n2\n```\n", 0),
        ("```python\n>>> 1 + 1\n3\n```\n", 1),
        ("```python\nprint(0.25)\n```\n\n```text\n0.25\n```\n", 0),
        ("```python\nprint(0.25)\n```\n\n```text\n0.26\n```\n", 1),
        ("```python\nprint(0.25)\n```\n\nwords between\n\n```text\n0.26\n```\n", 0),
        ("```python\nx = 2\n```\n\n```python\n>>> x\n2\n```\n", 0),
        ("```bash\nmake lab\n```\n", 0),
    ],
)
def test_the_convention(text, wrong):
    assert len(check(text)) == wrong


def test_an_example_that_fails_is_seen():
    with pytest.raises(ZeroDivisionError):
        check("```python\n1 / 0\n```\n")


def test_the_table_of_results_is_the_ledgers():
    text = README.read_text("utf-8")
    assert readme_results.rendered(text) == text, "run python -m tests.tools.readme_results"


def test_a_row_of_the_ablation_stands_in_its_cell(tmp_path):
    queue = read_queue(readme_results.QUEUE)
    moving = [e for e in queue if e.average_bits and "freeze_codebooks" not in e.overrides]
    one = next(e for e in moving if e.weight_options.get("init") == "uniform")
    rows = [row for row in Ledger() if row.config_sha256 == one.sha256("full")]
    ledger = Ledger(tmp_path / "results.json")
    ledger.put(dataclasses.replace(rows[0], top1_mean=12.3))
    lines = readme_results.ablation(ledger, queue).splitlines()
    assert lines[0].endswith("| moves, 3 bits on average |")
    assert lines[2:] == [
        "| random | – | – | – | – |",
        "| uniform | – | – | – | 12.30 |",
        "| quantile | – | – | – | – |",
    ]
