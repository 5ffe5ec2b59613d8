"""Do what Binder does with binder/, without a container, and drive the first notebook in what comes out.

    python -m tests.tools.binder_env [--python python3.11] [--keep FOLDER]

A fresh environment from exactly binder/requirements.txt, then binder/postBuild on a copy of the checkout,
then the browser. Prints the seconds each step took and the size of the environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "dist", "build", "__pycache__", ".*_cache", "shots")


def main() -> int:
    """Build in a temporary folder, or in the one to be kept, and drive."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.binder_env")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--keep", type=Path, help="build there and leave it")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True)
        return build_and_drive(options.keep.resolve(), options.python)
    with tempfile.TemporaryDirectory(prefix="qviz-binder-") as folder:
        return build_and_drive(Path(folder), options.python)


def build_and_drive(folder: Path, python: str) -> int:
    """Return the exit code of tests.browser.drive, run on the environment made in ``folder``."""
    repository, environment = folder / "repository", folder / "environment"
    shutil.copytree(ROOT, repository, ignore=NOT_COPIED)
    step("venv", [python, "-m", "venv", environment], cwd=folder)
    in_it = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")},
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "PIP_RETRIES": "0",  # an index that cannot be reached costs seconds instead of minutes
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    install = ["pip", "install", "-q", "-r", "binder/requirements.txt"]
    step("requirements", install, cwd=repository, env=in_it)
    step("postBuild", ["binder/postBuild"], cwd=repository, env=in_it)
    step("pip check", ["pip", "check"], cwd=repository, env=in_it)
    size = sum(path.lstat().st_size for path in environment.rglob("*") if path.is_file())
    print(f"environment: {size / 1e9:.2f} GB", flush=True)
    drive = [sys.executable, "-m", "tests.browser.drive", repository / "notebooks" / "00-start-here.ipynb"]
    drive += ["--slider", "Bits", "--slider", "Clip", "--repeat", "2", "--warmup", "1"]
    drive += ["--python", environment / "bin" / "python"]
    return subprocess.run(drive, cwd=ROOT, check=False).returncode


def step(name: str, command: list[str | Path], **how: object) -> None:
    """Run a command, print how long it took, and stop if it fails."""
    start = time.monotonic()
    done = subprocess.run(command, check=False, **how)
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if done.returncode:
        sys.exit(f"{name} failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
