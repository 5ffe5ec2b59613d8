"""A student's cells: run one after the other in one module, as in a notebook without a shell and magics."""

from __future__ import annotations

import ast
import asyncio
import linecache
import re
import sys
import types

_MAGIC_LINES = 500
_SKIPPED_CELLS = {"bash", "sh", "script", "html", "javascript", "js", "latex", "markdown", "svg", "writefile"}
_SHELL = re.compile(r"^(?P<indent>\s*)(?P<target>[\w, ]+=\s*)?(?P<sign>[!%?]{1,2})(?P<text>.*)$", re.DOTALL)
_HELP = re.compile(r"^(?P<indent>\s*)[\w.]+\?{1,2}\s*$")


class Notebook:
    """The module in which the cells run, and the lines of a failure in it."""

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.names = self.module.__dict__
        self.names.update(get_ipython=get_ipython, display=display, __builtins__=__builtins__)
        self.cells = 0
        sys.modules["__main__"] = self.module
        for name, stub in stand_ins().items():
            sys.modules.setdefault(name, stub)

    def run(self, source: str) -> tuple[str | None, int | None]:
        """Run a cell; return the type of what it raised and the line, or two times None."""
        self.cells += 1
        name = f"<cell {self.cells}>"
        try:
            tree, text = parse(source, name)
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            code = compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            result = eval(code, self.names)
            if isinstance(result, types.CoroutineType):
                asyncio.run(result)
        except BaseException as error:  # noqa: BLE001  SystemExit and KeyboardInterrupt end a cell, not the worker
            return type(error).__name__, line_of(error)
        return None, None


def line_of(error: BaseException) -> int | None:
    """Return the line of the innermost frame that is a student's, or that of a syntax error."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<cell "):
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None and isinstance(error, SyntaxError):
        return error.lineno
    return line


def parse(source: str, name: str) -> tuple[ast.Module, str]:
    """Parse a cell. Lines for a shell or of magics do nothing, and a note says so; all others stay in place.

    Raises:
        SyntaxError: A line is wrong that is neither.
    """
    lines = source.splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if first.startswith("%%") and first[2:].split(" ")[0] in _SKIPPED_CELLS:
        print(f"[{first}: such a cell is not run here]")
        return ast.parse(""), source
    for _ in range(_MAGIC_LINES):
        text = "\n".join(lines)
        try:
            return compile(text, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), text
        except SyntaxError as error:
            place = (error.lineno or 0) - 1
            plain = _without_magic(lines[place]) if 0 <= place < len(lines) else None
            if plain is None:
                raise
            lines[place] = plain
    raise SyntaxError(f"a cell has more than {_MAGIC_LINES} lines of magics")


def _without_magic(line: str) -> str | None:
    """Return what stands in for a line of a shell or magic, or None if it is no such line."""
    if found := _HELP.match(line):
        return f"{found['indent']}pass"
    found = _SHELL.match(line)
    if found is None:
        return None
    if found["sign"] == "%" and found["text"].startswith("time ") and not found["target"]:
        return found["indent"] + found["text"].removeprefix("time ").lstrip()
    print(f"[{line.strip()}: lines for a shell and magics are not run here]")
    if found["target"]:
        return f"{found['indent']}{found['target']}{'[]' if found['sign'] == '!' else None}"
    return f"{found['indent']}pass"


class _Nothing:
    """In place of IPython's shell: every attribute is there, and calling it does nothing."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> None:
        return None


def get_ipython() -> _Nothing:
    """Return a shell that does nothing."""
    return _Nothing()


def display(*values: object, **_: object) -> None:
    """Print what a notebook would show."""
    for value in values:
        print(repr(value))


def stand_ins() -> dict[str, types.ModuleType]:
    """Return modules in place of IPython, with the names that notebooks import from it."""
    top, shown = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    top.get_ipython, top.display = get_ipython, shown
    shown.display = display
    shown.__getattr__ = _Nothing().__getattr__
    top.__path__ = []
    return {"IPython": top, "IPython.display": shown}
