"""The grader's side of the zygote: started once, it has a worker ready within milliseconds."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from qviz.labs.sandbox.isolation import LAYERS
from qviz.labs.sandbox.worker import Limits, Worker

START_SECONDS = 180.0
_ANSWER_SECONDS = 30.0
_PROGRAM = Path(__file__).with_name("nursery.py")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MPLBACKEND": "Agg",
}


class Zygote:
    """A process with numpy and torch loaded that forks workers; it starts again by itself if it dies.

    Raises:
        RuntimeError: The process does not start, with its last line; or this system cannot fork.
    """

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise RuntimeError(
                f"students' code is run in a forked process, which {sys.platform} does not have"
            )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._home = Path(tempfile.mkdtemp(prefix="qviz-labs-"))
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """End the process. Workers that are still open go on until they are closed."""
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def worker(self, limits: Limits | None = None, layers: Sequence[str] = LAYERS) -> Worker:
        """Return a new worker.

        Args:
            limits: What the submission may use.
            layers: Those of "namespaces", "landlock" and "seccomp" that are wanted; where the machine has not
                one, the worker's ``isolation`` says why.

        Raises:
            ValueError: A layer is not known.
            RuntimeError: No worker starts, not even from a new zygote.
        """
        if unknown := set(layers) - set(LAYERS):
            raise ValueError(f"layers are among {', '.join(LAYERS)}, got {', '.join(sorted(unknown))!r}")
        limits = Limits() if limits is None else limits
        with self._lock:
            for _ in range(2):
                try:
                    return self._fork(limits, layers)
                except OSError:
                    self._start()
        raise RuntimeError("the process that forks workers ended twice in a row")

    def _fork(self, limits: Limits, layers: Sequence[str]) -> Worker:
        folder = Path(tempfile.mkdtemp(dir=self._home))
        link, inner = socket.socketpair()
        warden, outer = socket.socketpair()
        output, printed = os.pipe()
        message = json.dumps({"folder": str(folder), "limits": vars(limits), "layers": list(layers)}).encode()
        assert self._link is not None
        try:
            socket.send_fds(self._link, [message], [inner.fileno(), printed, outer.fileno()])
            if self._line(self._link) != "forked":
                raise ConnectionResetError
        except OSError:
            for end in (link, warden):
                end.close()
            os.close(output)
            folder.rmdir()
            raise
        finally:
            inner.close()
            outer.close()
            os.close(printed)
        return Worker(link, output, warden, folder, limits)

    def _start(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._link is not None:
            self._link.close()
        self._link, inner = socket.socketpair()
        settings = {"sites": _sites(), "home": str(self._home)}
        log = self._home / "zygote.log"
        with inner, log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM), str(inner.fileno()), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[inner.fileno()],
                env={**_ENVIRONMENT, "HOME": str(self._home), "MPLCONFIGDIR": str(self._home)},
                start_new_session=True,
            )
        self._link.settimeout(START_SECONDS)
        try:
            ready = self._line(self._link)
        except TimeoutError:
            ready = f"not ready after {START_SECONDS:g} s"
        if ready != "ready":
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimeError(f"the process that forks workers did not start: {' '.join(last) or ready}")
        self._link.settimeout(_ANSWER_SECONDS)

    @staticmethod
    def _line(link: socket.socket) -> str:
        data = b""
        while not data.endswith(b"\n"):
            chunk = link.recv(64)
            if not chunk:
                break
            data += chunk
        return data.decode("ascii", "replace").strip()


def _sites() -> list[str]:
    """Return the folders in which numpy, torch and their friends are installed."""
    found = []
    for name in ("numpy", "torch", "matplotlib"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(found))
