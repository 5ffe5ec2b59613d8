"""What is built is complete: the sdist makes the wheel, and the wheel works without a checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

import qviz
from qviz.labs import source

NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "dist", "build", "__pycache__", ".*_cache", "shots")


def run(*command, **how):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder with the sdist, built from a copy of the checkout, and the wheel, built from the sdist."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(Path(__file__).resolve().parents[1], folder / "checkout", ignore=NOT_COPIED)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "checkout")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel, names) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in names if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.mark.slow
def test_the_wheel_has_package_notebooks_and_data(checkout, names):
    shipped = [path.relative_to(checkout) for path in (checkout / "notebooks").rglob("*.ipynb")]
    data = [Path("data", name) for name in json.loads((checkout / "data" / "manifest.json").read_text())]
    for path in [*shipped, *data, Path("data/manifest.json"), Path("data/README.md")]:
        if ".ipynb_checkpoints" not in path.parts and "source" not in path.parts:
            assert f"qviz/_share/{path.as_posix()}" in names
    modules = {path.relative_to(checkout).as_posix() for path in (checkout / "qviz").rglob("*.py")}
    assert modules | {"qviz/py.typed"} <= names


@pytest.mark.slow
def test_the_wheel_has_nothing_else(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"qviz"}
    share = {name for name in names if name.startswith("qviz/_share/")}
    assert not {name for name in share if "/data/" in name and name.endswith(".py")}
    assert not {name for name in names if "/." in name or "__pycache__" in name}


@pytest.mark.slow
def test_the_sdist_can_be_tested(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"Makefile", "constraints.txt", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert {"tests/conftest.py", "binder/postBuild", "notebooks/00-start-here.py"} <= names


@pytest.mark.slow
def test_no_answer_of_a_lab_travels(dist, wheel, names):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        everything = names | set(archive.getnames())
    assert not {name for name in everything if "labs/source/" in name or "tests/labs/" in name}
    assert not {name for name in everything if re.search(r"/lab\w+_cases\.py$", name)}
    hints = [
        mistake.hint
        for lab in map(source.load, source.names())
        for question in lab.questions
        for mistake in getattr(question, "mistakes", {}).values()
    ]
    assert len(hints) >= 60
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            if name.endswith((".py", ".ipynb", ".md")):
                text = archive.read(name).decode()
                assert not [hint for hint in hints if hint in text], name


@pytest.mark.slow
def test_metadata(metadata):
    assert metadata["Name"] == "qviz-quantization"
    assert metadata["Version"] == qviz.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    core = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert sorted(core) == ["filelock", "numpy", "safetensors", "torch"]  # and no upper bounds


def test_no_file_installs_somebody_elses_package(checkout):
    """On the package index, plain `qviz` is another project."""
    theirs = re.compile(r"pip install\s+(-\S+\s+)*['\"\\]*qviz(?!-quantization)\b")
    folders = [checkout / name for name in ("qviz", "notebooks", "binder", ".github")]
    for path in [*checkout.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]:
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".ipynb", ""}:
            found = theirs.search(path.read_text("utf-8"))
            assert not found, f"{path}: {found[0]}"


def test_constraints_cover_what_is_asked_for(checkout):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = {need.split(">=")[0].lower() for group in groups for need in group}
    names = {name for name in asked if not name.startswith("qviz-")}
    pinned = {
        line.split("==")[0].lower(): line.split("==")[1]
        for line in (checkout / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert names - set(pinned) == set()
    for line in (checkout / "binder" / "requirements.txt").read_text().splitlines()[1:]:
        name, version = line.split("==")
        assert pinned[name] == version, f"binder/ and constraints.txt disagree on {name}"


# --- the wheel, installed elsewhere


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs the installed wheel's command line in an empty folder."""
    site, here = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("here")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def call(*args, module="qviz.cli"):
        return run(sys.executable, "-m", module, *args, cwd=here, env=environment)

    call.here, call.site, call.environment = here, site, environment
    return call


@pytest.mark.slow
def test_the_wheel_is_what_runs(installed):
    out = installed("doctor")
    assert str(installed.site / "qviz" / "_share" / "notebooks") in out
    assert out.endswith("all is well\n")


@pytest.mark.slow
def test_the_wheel_compares(installed):
    np.save(installed.here / "w.npy", np.linspace(-1, 1, 100))
    rows = json.loads(installed("compare", "w.npy", "--bits", "3", "--json"))
    assert rows["POT"]["levels"] == 7


@pytest.mark.slow
def test_the_wheel_shows_ones_own_results_and_the_projects(installed, checkout):
    shipped = json.loads((checkout / "data" / "results.json").read_text())["rows"]
    own = {**shipped[0], "config_sha256": "0" * 64, "top1_mean": 12.34}
    (installed.here / "results.json").write_text(json.dumps({"rows": [own, {**shipped[1], "note": "mine"}]}))
    environment = {**installed.environment, "QVIZ_DATA": str(installed.here)}
    command = [sys.executable, "-m", "qviz.cli", "results", "--json"]
    rows = json.loads(run(*command, cwd=installed.here, env=environment))
    assert [row["config_sha256"] for row in rows[:2]] == ["0" * 64, shipped[1]["config_sha256"]]
    assert rows[1]["note"] == "mine"
    theirs = [shipped[0], *shipped[2:]]
    assert [{name: row[name] for name in want} for row, want in zip(rows[2:], theirs, strict=True)] == theirs


@pytest.mark.slow
def test_the_wheel_opens_its_notebooks(installed):
    """`qviz lab` copies the notebooks, starts a server on that folder, and ends with it."""
    import signal
    import time
    import urllib.request

    from tests.browser.server import free_port

    port, token = free_port(), "a-token-for-this-test"
    command = [sys.executable, "-m", "qviz.cli", "lab", "--no-browser", "--port", str(port)]
    command += ["--", f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    server = subprocess.Popen(
        command,
        cwd=installed.here,
        env=installed.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}/api/contents/00-start-here.ipynb?content=0&token={token}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    assert json.load(answer)["type"] == "notebook"
                break
            except OSError:  # not up yet
                assert server.poll() is None, "the server ended"
                time.sleep(0.1)
        else:
            pytest.fail("the server did not answer within 30 s")
        assert (installed.here / "qviz-notebooks" / "00-start-here.ipynb").exists()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
