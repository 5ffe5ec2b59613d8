"""Each layer is reported in words, holds by itself, and needs no root."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qviz.labs.sandbox import isolation, kernel, seccomp

HERE = Path(isolation.__file__).parent
needs_landlock = pytest.mark.skipif(not isolation.landlock(), reason="this kernel has no Landlock")
needs_filter = pytest.mark.skipif(not seccomp.available(), reason="no seccomp for this machine")


def tried(zygote, layers, source):
    """The isolation in words, and how a cell ends within some layers only."""
    with zygote.worker(layers=layers) as worker:
        return worker.isolation, worker.cell(source)


def test_what_is_available_is_what_a_worker_has(zygote):
    here = isolation.available()
    words, _ = tried(zygote, isolation.LAYERS, "")
    assert (f"landlock {here['landlock']}" in words) == bool(here["landlock"])
    assert words.endswith("; seccomp") == here["seccomp"]
    assert words.startswith("user,pid,net,mount,ipc,uts") == here["namespaces"]


def test_what_is_switched_off_is_said(zygote):
    words, _ = tried(zygote, (), "")
    assert words == "no namespaces (switched off); no landlock (switched off); no seccomp (switched off)"


@pytest.mark.parametrize("layers", [("landlock", "seccomp"), ("landlock",)])
@needs_landlock
def test_landlock_alone_protects_files(zygote, tmp_path, layers):
    hidden = tmp_path / "hidden.txt"
    hidden.write_text("hidden")
    assert tried(zygote, (), f"open({str(hidden)!r}).read()")[1].error is None
    for source in (f"open({str(hidden)!r}).read()", f"open({str(tmp_path / 'new')!r}, 'w')"):
        assert tried(zygote, layers, source)[1].error == "PermissionError"
    assert (
        tried(zygote, layers, "open('own', 'w').write('x'); assert open('own').read() == 'x'")[1].error
        is None
    )


@pytest.mark.parametrize("source", ["import os; os.fork()", "import socket; socket.socket()"])
@needs_filter
def test_seccomp_alone_refuses_processes_and_sockets(zygote, source):
    assert tried(zygote, ("seccomp",), source)[1].error == "PermissionError"


@needs_filter
def test_threads_and_socket_pairs_are_let_be(zygote):
    source = "import threading, socket\nt = threading.Thread(); t.start(); t.join()\nsocket.socketpair()"
    assert tried(zygote, isolation.LAYERS, source)[1].error is None


def test_memory_is_limited_above_the_start(zygote):
    """Limits in absolute numbers would not fit another build of torch."""
    for size, error in ((200 << 20, None), (2 << 30, "MemoryError")):
        assert tried(zygote, isolation.LAYERS, f"x = bytearray({size})")[1].error == error


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become somebody else"
)
@pytest.mark.skipif(not kernel.LINUX, reason="the layers are Linux's")
def test_every_layer_works_without_root(tmp_path):
    """As another user from the start, which must have read everything that it needs by then."""
    code = f"""
        import ctypes, os, pathlib, resource, struct, subprocess, sys, types
        package = sys.modules["sandbox"] = types.ModuleType("sandbox")
        package.__path__ = [{str(HERE)!r}]
        from sandbox import isolation, kernel, landlock, seccomp
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        kernel.prctl(4, 1)
        folder = pathlib.Path({str(tmp_path / "own")!r})
        words, own = isolation.namespaces(folder, 8)
        if os.fork() == 0:
            os.chdir(folder)
            print(words, isolation.enclose(isolation.LAYERS, [], [], folder, own=own), sep="; ", flush=True)
            open("x", "w").write("mine")
            for attempt in (lambda: open("/etc/passwd"), os.fork, lambda: os.kill(os.getppid() or 1, 0)):
                try:
                    attempt()
                    print("let", flush=True)
                except PermissionError:
                    print("refused", flush=True)
            os._exit(0)
        os.wait()
    """
    folder = tmp_path / "own"
    folder.mkdir()
    for path in (folder, *folder.parents):
        if "pytest-of-" in str(path):
            path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    here = isolation.available()
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert f"landlock {here['landlock']}" in lines[0] or not here["landlock"]
    assert lines[1:] == ["refused"] * 3
    assert list(folder.iterdir()) == [] or "tmpfs" not in lines[0]


@pytest.mark.parametrize("machine", list(kernel.ARCHITECTURES))
def test_a_filter_jumps_within_itself_and_names_no_call_twice(machine):
    steps = [struct.unpack("<HBBI", chunk) for chunk in chunks(seccomp.program(machine))]
    jumps = [(place, max(yes, no)) for place, (code, yes, no, _) in enumerate(steps) if code & 7 == 5]
    assert all(place + 1 + far < len(steps) for place, far in jumps)
    assert steps[-1] == (0x06, 0, 0, 0x7FFF0000)
    numbers = [n for group in kernel.FORBIDDEN[machine].values() for n in group]
    assert len(numbers) == len(set(numbers))
    assert not set(numbers) & set(kernel.SPECIAL[machine].values())


def chunks(data):
    return [data[start : start + 8] for start in range(0, len(data), 8)]
