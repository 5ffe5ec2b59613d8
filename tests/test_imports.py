"""Imports run one way, and heavy packages load only when asked for."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "qviz"

# A room imports itself and rooms of lower rank. The top level (qviz itself) re-exports those below it.
RANK = {
    "core": 0,
    "shipped": 1,
    "methods": 1,
    "measure": 2,
    "recipes": 2,
    "qviz": 3,
    "nn": 4,
    "plot": 4,
    "export": 5,
    "inspection": 6,
    "explore": 7,
    "widgets": 8,
    "labs": 8,
    "cli": 9,
}
CORE_NEEDS = {"filelock", "numpy", "torch", "safetensors"}
CORE_MAY = {  # imported when that is asked for: the image sample, a table as a data frame
    ("shipped.py", "PIL.Image"),
    ("measure/table.py", "pandas"),
    ("measure/tables.py", "pandas"),
}


def room(module: str) -> str:
    """qviz.core.grids -> core; qviz -> qviz, and so are names of qviz that are no module."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "qviz"


def module_of(file: Path, package: Path) -> str:
    parts = [package.name, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, package: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    home = module_of(file, package).split(".")
    if file.stem != "__init__":
        home = home[:-1]
    names = set()
    tree = ast.parse(file.read_text("utf-8"))
    if (
        file == package / "__init__.py"
    ):  # what it names for type checkers alone, rooms above it, it does not load
        tree.body = [
            n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*home[: len(home) - node.level + 1], *([node.module] if node.module else [])])
            origin = base if node.level else node.module
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def violations(package: Path) -> list[str]:
    found = []
    for file in sorted(package.rglob("*.py")):
        here, path = room(module_of(file, package)), file.relative_to(package).as_posix()
        for name in sorted(imported(file, package)):
            top = name.split(".")[0]
            there = room(name) if top == "qviz" else None
            if there and there != here and RANK[there] >= RANK[here]:
                found.append(f"{path} imports {name}: {here} may not import {there}")
            allowed = {*CORE_NEEDS, "qviz", *sys.stdlib_module_names}
            if RANK[here] < RANK["qviz"] and top not in allowed and (path, name) not in CORE_MAY:
                found.append(f"{path} imports {name}: {here} knows {sorted(CORE_NEEDS)} only")
    return found


def test_imports_run_one_way():
    assert violations(PACKAGE) == []


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(RANK), "a new folder of qviz needs a rank in this file"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/grids.py", "import qviz.plot"),
        ("core/grids.py", "from qviz import compare"),
        ("core/grids.py", "from .. import plot"),
        ("core/grids.py", "def f():\n    from ..plot import draw"),
        ("core/grids.py", "import scipy"),
        ("core/__init__.py", "from ..nn import layers"),
        ("plot/draw.py", "from qviz.widgets import live"),
        ("plot/draw.py", "from qviz.nn import layers"),
        ("nn/layers.py", "from qviz import cli"),
        ("widgets/grid.py", "import qviz.labs.checks"),
        ("__init__.py", "from qviz.plot import draw"),
        ("__init__.py", "from qviz import plot"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path, file, line):
    path = tmp_path / "qviz" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert len(violations(tmp_path / "qviz")) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/grids.py", "from . import metrics\nfrom .codebook import Codebook\nimport torch, math"),
        ("core/grids.py", "from __future__ import annotations"),
        ("plot/draw.py", "from qviz import Codebook\nfrom qviz.measure import metrics\nimport matplotlib"),
        ("widgets/grid.py", "from qviz import plot\nfrom .live import Live"),
        ("cli/lab.py", "from qviz.widgets import grid"),
        ("__init__.py", "from qviz.core.grids import pot"),
    ],
)
def test_a_right_import_is_let_be(tmp_path, file, line):
    path = tmp_path / "qviz" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert violations(tmp_path / "qviz") == []


def python(code: str) -> object:
    """Run code in a fresh interpreter and return what it prints as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_qviz_is_light():
    code = """
        import json, sys
        before = set(sys.modules)
        import qviz, qviz.cli, qviz.export
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    new = set(python(code))
    assert {name.split(".")[0] for name in new} - set(sys.stdlib_module_names) == {"qviz"}
    rooms = {name.split(".")[1] for name in new if name.startswith("qviz.")}
    assert rooms == {"cli", "core", "export"}  # of core, text and files


@pytest.mark.parametrize("package", ["qviz", "qviz.export"])
def test_the_lists_of_a_lazy_package_agree(package):
    loaded = importlib.import_module(package)
    file = Path(loaded.__file__)
    seen = {
        alias.name: node.module
        for block in ast.parse(file.read_text("utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    rooms = {name for name, module in seen.items() if module == "qviz"}
    assert {name: module for name, module in seen.items() if name not in rooms} == loaded._HOME
    assert sorted(loaded.__all__) == sorted(seen)
    assert not {path.stem for path in file.parent.glob("*.py")} & set(loaded._HOME), "a file takes a name"


@pytest.mark.parametrize("package", ["qviz", "qviz.export"])
def test_the_public_names_are_listed_and_there(package):
    loaded = importlib.import_module(package)
    names = dir(loaded)
    assert set(loaded.__all__) <= set(names)
    assert len(names) == len(set(names))
    assert not {"importlib", "ModuleType", "annotations"} & set(names)
    for name in names:
        assert getattr(loaded, name) is not None, name


@pytest.mark.slow
def test_rooms_load_when_asked_for():
    code = """
        import json, sys, qviz
        rooms = ["core", "methods", "measure", "recipes", "nn", "export", "plot", "widgets"]
        before = [room for room in rooms if f"qviz.{room}" in sys.modules]
        loaded = [getattr(qviz, room) is sys.modules[f"qviz.{room}"] for room in rooms]
        print(json.dumps([before, all(loaded)]))
    """
    assert python(code) == [[], True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "absent", "extra"),
    [
        ("plot", "matplotlib", "plot"),
        *(("widgets", name, "lab") for name in ("ipywidgets", "bqplot", "anywidget")),
    ],
)
def test_a_missing_extra_is_named(name, absent, extra):
    code = f"""
        import json, sys
        sys.modules["{absent}"] = None  # as if it were not installed
        import qviz
        try:
            qviz.{name}
        except ImportError as error:
            print(json.dumps(str(error)))
    """
    assert f"pip install 'qviz-quantization[{extra}]'" in python(code)


def test_an_unknown_name_is_an_attribute_error():
    import qviz

    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        _ = qviz.plots
