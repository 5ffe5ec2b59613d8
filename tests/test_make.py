"""The Makefile's promises that do not need an environment: clear refusals, stamps, arguments passed on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

FILES = ("Makefile", "pyproject.toml", "constraints.txt")


@pytest.fixture
def make(checkout, tmp_path):
    """A function that calls make in a folder with nothing but the files it depends on."""
    for name in FILES:
        shutil.copy(checkout / name, tmp_path)

    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "ARGS", "SLOW"}  # of the make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}

    def call(*args):
        command = ["make", *args]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    call.folder = tmp_path
    return call


def stub(folder, change):
    """A python that differs from this one in what `change` says; it understands `-c CODE` only."""
    path = folder / "stub-python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; {change}; exec(sys.argv[1])" "$2"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["lab", "test"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("sys.version_info = (3, 10, 14)", "qviz needs Python 3.11 or newer"),
        ("sys.modules['ensurepip'] = None", "install it (Debian, Ubuntu: apt-get install python3-venv)"),
        ("sys.modules['venv'] = None", "install it (Debian, Ubuntu: apt-get install python3-venv)"),
        (None, "qviz needs Python 3.11 or newer"),
    ],
)
def test_an_unfit_python_is_one_line(make, target, change, says):
    python = stub(make.folder, change) if change else "no-such-python"
    done = make(target, f"PYTHON={python}")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(lines) == 1
    assert says in lines[0]
    assert not (make.folder / ".venv").exists()


def test_a_fit_stub_is_let_through(make):
    """The stubs above are refused for what they change, not for being stubs."""
    assert "qviz needs" not in make("lab", f"PYTHON={stub(make.folder, 'pass')}").stderr


@pytest.fixture
def environment(make):
    """An environment that looks finished."""
    (make.folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".lab", ".test"):
        (make.folder / ".venv" / name).touch()


def test_a_second_call_installs_nothing(make, environment):
    planned = make("-n", "lab", "ARGS=--no-browser --port 8899").stdout
    assert planned == ".venv/bin/qviz lab 00-start-here --no-browser --port 8899\n"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_requirement_installs_again(make, environment, name):
    os.utime(make.folder / name, (time.time() + 60,) * 2)
    assert "install -c constraints.txt -e '.[lab]'" in make("-n", "lab").stdout


def test_slow_tests_are_asked_for(make, environment):
    fast = make("-n", "test").stdout
    assert '-m "not slow"' in fast
    assert fast.endswith(" notebooks/00-start-here.ipynb\n")
    slow = make("-n", "test", "SLOW=1").stdout
    assert "not slow" not in slow
    assert "--hypothesis-profile=thorough" in slow
    assert slow.endswith(" notebooks\n")


def test_torch_is_installed_alone_and_first(make):
    """The only index that has the CPU build is asked for torch and nothing else."""
    plan = make("-n", ".venv/.lab").stdout.replace("\\\n", "")
    lines = [line for line in plan.splitlines() if "install" in line and "pip" in line]
    assert "--no-deps --retries 0 --extra-index-url" in lines[-2]
    assert "torch==2.13.*" in lines[-2]
    assert "extra-index-url" not in lines[-1]
