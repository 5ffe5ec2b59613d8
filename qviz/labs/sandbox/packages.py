"""What a student's code may read and import: the standard library, and some packages but never qviz."""

from __future__ import annotations

import sys
import sysconfig
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

PACKAGES = (
    *("numpy", "numpy.libs", "scipy", "scipy.libs", "pandas", "tzdata", "pytz", "dateutil", "six.py"),
    *(
        "torch",
        "torchgen",
        "functorch",
        "nvidia",
        "triton",
        "sympy",
        "mpmath",
        "networkx",
        "jinja2",
        "markupsafe",
    ),
    *("fsspec", "filelock", "typing_extensions.py", "packaging"),
    *("matplotlib", "mpl_toolkits", "pylab.py", "PIL", "pillow.libs", "kiwisolver", "contourpy", "cycler"),
    *("cycler.py", "fontTools", "pyparsing", "seaborn"),
)
"""What of the installed packages a student's code may read. qviz, which holds the answers, is not in it."""

SYSTEM = ("/usr/lib", "/lib", "/lib64", "/usr/share/fonts", "/usr/share/zoneinfo", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero")


def readable(sites: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return what a student's code may read, and the folders whose names it may list: imports need that."""
    reads = [Path(path) for path in (*SYSTEM, *DEVICES)]
    reads += [site / name for site in sites for name in PACKAGES]
    lists = list(sites)
    for folder in map(Path, standard()):
        if folder.is_dir():
            reads += [
                entry for entry in folder.iterdir() if entry.name not in ("site-packages", "dist-packages")
            ]
            lists.append(folder)
        elif folder.is_file():
            reads.append(folder)
    libraries = Path(sys.base_prefix) / "lib"
    reads += [entry for entry in libraries.glob("*.so*") if entry.is_file()]
    return reads, lists


def standard() -> list[str]:
    """Return where the standard library is."""
    paths = sysconfig.get_paths()
    library = paths["stdlib"]
    archive = str(Path(library).parent / f"python{sys.version_info[0]}{sys.version_info[1]}.zip")
    return list(dict.fromkeys([archive, library, paths["platstdlib"], str(Path(library) / "lib-dynload")]))


class Absent(MetaPathFinder):
    """Says of an installed package that a student's code may not read that it is not there."""

    def __init__(self, sites: list[Path]) -> None:
        found = {entry.name.split(".")[0] for site in sites for entry in site.iterdir()}
        self.names = (found | {"qviz"}) - {name.split(".")[0] for name in PACKAGES}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Refuse the names of absent packages and leave all others to the usual finders."""
        if path is None and name in self.names:
            raise ModuleNotFoundError(f"{name} is not there while a lab is graded", name=name)
