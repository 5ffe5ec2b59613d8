"""What an instructor may want to look at in a student's code. It flags, and never takes a point."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from qviz.labs.cells import parsed

_MODULES = {"qviz", "inspect", "gc", "ctypes"}
_NAMES = {"__import__", "exec", "eval"}
_ATTRIBUTES = {"ast_transformers", "fake_quantize", "f_back", "__subclasses__"}


def remarks(sources: Iterable[str]) -> list[str]:
    """Return what is notable in some cells, each thing once, such as "imports qviz"."""
    found: dict[str, None] = {}
    for source in sources:
        tree = parsed(source)
        for node in ast.walk(tree) if tree is not None else ():
            found |= dict.fromkeys(_of(node))
    return list(found)


def _of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return _imports(alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return _imports([node.module or ""])
    if isinstance(node, ast.Attribute):
        name = node.attr
        return [f"uses {name}"] if name in _ATTRIBUTES or "fake_quantize" in name else []
    if isinstance(node, ast.Name):
        return [f"uses {node.id}"] if node.id in _NAMES or "fake_quantize" in node.id else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        names = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
        return [f"uses getattr(…, {name!r})" for name in names if name in _NAMES | _ATTRIBUTES]
    return []


def _imports(names: Iterable[str]) -> list[str]:
    tops = dict.fromkeys(name.split(".")[0] for name in names)
    return [f"imports {top}" for top in tops if top in _MODULES]
