"""The zygote's program: has numpy and torch ready, and forks a worker for each submission.

It is started by exec with an empty environment, so nothing of the grader is in its memory. Between it and
each worker stands a warden, a process that runs nothing of a student's: it makes the namespaces, ends the
worker when the grader says so or is gone, and removes the worker's folder.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    """Get ready, then fork for every message until the grader hangs up."""
    link, settings = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    here = Path(__file__).resolve().parent
    package = types.ModuleType("sandbox")  # under a name of its own, so that qviz is never imported here
    package.__path__ = [str(here)]
    sys.modules["sandbox"] = package
    from sandbox import packages

    sites = [Path(site) for site in settings["sites"]]
    sys.path[:] = [*packages.standard(), *map(str, sites)]
    from sandbox import isolation, serve  # noqa: F401  loaded before any fork

    warm(Path(settings["home"]))
    sys.meta_path.insert(0, packages.Absent(sites))
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    link.sendall(b"ready\n")
    while True:
        data, handles, _, _ = socket.recv_fds(link, 4096, 3)
        if not data:
            remove(Path(settings["home"]))  # the grader does it too, unless it was killed
            return
        if os.fork() == 0:
            link.close()
            _to_the_end(warden, {**settings, **json.loads(data)}, handles)
        for handle in handles:
            os.close(handle)
        link.sendall(b"forked\n")


def warm(home: Path) -> None:
    """Import what takes long and let torch load what it loads at its first step, on one thread."""
    import numpy  # noqa: F401
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import matplotlib.pyplot as plt

        plt.figure()
        plt.close()
    weight = torch.zeros(4, 3, 3, 3, requires_grad=True)
    loss = torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), weight)
    torch.autograd.grad(loss, [weight], torch.zeros_like(loss))
    optimizer = torch.optim.SGD([weight], 0.1)
    weight.sum().backward()
    optimizer.step()
    os.chdir(home)


def warden(settings: dict[str, Any], handles: list[int]) -> None:
    """Start the worker, end it when told to, report how it ended, and clean up."""
    from sandbox import isolation

    link, output, control = handles
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    folder, layers = Path(settings["folder"]), tuple(settings["layers"])
    words, own = "no namespaces (switched off)", False
    if "namespaces" in layers:
        words, own = isolation.namespaces(folder, settings["limits"]["disk_mb"])
    child = os.fork()
    if child == 0:
        os.close(control)
        _to_the_end(_worker, settings, link, output, words, own)
    os.close(link)
    os.close(output)
    with socket.socket(fileno=control) as grader:
        full = _wait(grader, child, None if own else folder, settings["limits"]["disk_mb"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        report = {
            "code": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "full": full,
        }
        with contextlib.suppress(OSError):
            grader.sendall(json.dumps(report).encode() + b"\n")
        if own:
            isolation.leave(folder)
        remove(folder)


def _to_the_end(function: Callable[..., None], *args: Any) -> NoReturn:
    """Call a function in a forked process, which must never return into the program it was forked from."""
    code = 1
    try:
        function(*args)
        code = 0
    except BaseException:  # noqa: BLE001  the process is about to end; its log says why
        traceback.print_exc()
    finally:
        os._exit(code)


def remove(folder: Path) -> None:
    """Remove a worker's folder; not with shutil, which recurses: folders may be nested by the thousand."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False, timeout=60)


def _wait(grader: socket.socket, child: int, folder: Path | None, megabytes: int) -> bool:
    """Return when the worker ended, the grader spoke or is gone, or the folder is full, which is returned."""
    poll, handle = select.poll(), os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    poll.register(grader, select.POLLIN)
    if handle is not None:
        poll.register(handle, select.POLLIN)
    pause = 200 if folder or handle is None else None
    while not poll.poll(pause):
        if handle is None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        if folder is not None and _size(folder) > megabytes << 20:
            return True
    return False


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; more files than are allowed count as no end of bytes."""
    from sandbox import isolation

    total = count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            count += 1
            if count > isolation.INODES:
                return sys.maxsize
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def _worker(settings: dict[str, Any], link: int, output: int, words: str, own: bool) -> None:
    """Enclose this process and serve."""
    from sandbox import isolation, kernel, packages, serve

    if kernel.LINUX:
        kernel.prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = settings["folder"]
    os.chdir(folder)
    kept = _arranged(link, output)
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "MPLBACKEND": "Agg", "PATH": ""})
    tempfile.tempdir = None
    sys.argv[:] = [""]
    sys.path.insert(0, folder)
    isolation.limit(settings["limits"])
    sites = [Path(site) for site in settings["sites"]]
    reads, lists = packages.readable(sites)
    active = isolation.enclose(tuple(settings["layers"]), reads, lists, Path(folder), own=own)
    serve.serve(kept, f"{words}; {active}")


def _arranged(link: int, output: int) -> socket.socket:
    """Make nothing the input, the pipe both outputs, the grader's link handle 3, and close all others."""
    import fcntl

    high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 10) for handle in (link, output)]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(high[1], 1)
    os.dup2(high[1], 2)
    os.dup2(high[0], 3, inheritable=False)
    os.closerange(4, 4096)
    return socket.socket(fileno=3)


if __name__ == "__main__":
    main()
