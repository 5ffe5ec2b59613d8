"""The grader's side of a worker: ask it, with a time limit on everything, and believe only plain data."""

from __future__ import annotations

import builtins
import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qviz.labs.model import Answer, Arrays
from qviz.labs.sandbox import wire
from qviz.labs.sandbox.channel import Channel, FloodError
from qviz.labs.sandbox.nursery import remove
from qviz.labs.sandbox.serve import MISSING, TOO_LARGE

TIME, ENDED, MALFORMED = "time limit", "process ended", "malformed answer"
_START_SECONDS = 30.0
_CLEAN_UP_SECONDS = 10.0
_EXCEPTIONS = {name for name, kind in vars(builtins).items() if isinstance(kind, type)} | {
    "LinAlgError",
    "OutOfMemoryError",
    TOO_LARGE,
    MISSING,
}


@dataclass(frozen=True)
class Limits:
    """What a submission may use; memory is what it may take above what it starts with.

    Args:
        call_seconds: wall time of one call or cell.
        wall_seconds: wall time of all together.
        cpu_seconds: CPU time of all together.
        memory_mb: memory above that of a worker which has run nothing.
        disk_mb: what may be written in its folder.
        output_mb: what may be printed.
    """

    call_seconds: float = 5
    wall_seconds: float = 60
    cpu_seconds: int = 30
    memory_mb: int = 700
    disk_mb: int = 32
    output_mb: int = 50

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")


@dataclass(frozen=True)
class Done:
    """How a cell ended: the type of what it raised and the line, and what it printed."""

    error: str | None = None
    line: int | None = None
    output: str = ""


class Worker:
    """A process that runs one student's code. Made by :meth:`Zygote.worker`; a context manager.

    Attributes:
        ended: None while it runs; else why it does not: "time limit", "process ended", "malformed answer" or
            "output over 50 MB".
        isolation: the layers that are active, in words.
    """

    def __init__(
        self, link: socket.socket, output: int, warden: socket.socket, folder: Path, limits: Limits
    ) -> None:
        self.ended: str | None = None
        self.isolation = ""
        self._channel = Channel(link, output, limits.output_mb)
        self._warden, self._folder, self._limits = warden, folder, limits
        self._until = time.monotonic() + limits.wall_seconds
        self._lines = 0
        self._report: dict[str, Any] | None = None
        self._closed = False
        hello = self._guarded(self._channel.receive, _START_SECONDS)
        if hello is None:
            last = self._channel.printed.decode("utf-8", "replace").strip().splitlines()[-1:]
            self.close()
            raise RuntimeError(f"a worker did not start: {' '.join(last) or self.ended}")
        self.isolation = str(hello["isolation"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove its folder."""
        if self._closed:
            return
        self._closed = True
        self._hang_up()
        self._channel.close()
        self._warden.close()
        remove(self._folder)

    def cell(self, source: str) -> Done:
        """Run a cell of the student's notebook."""
        self._channel.printed.clear()
        self._lines = max(self._lines, source.count("\n") + 1)
        reply = self._ask({"do": "cell", "source": source})
        text = self._channel.printed.decode("utf-8", "replace")
        if reply is None:
            return Done(self.ended, None, text)
        return Done(self._name(reply.get("error")), self._line(reply.get("line")), text)

    def has(self, name: str) -> bool:
        """Whether the student has defined something of this name that can be called."""
        reply = self._ask({"do": "has", "name": name})
        return reply is not None and reply.get("has") is True

    def call(
        self,
        name: str,
        args: Sequence[Any],
        *,
        arrays: Arrays = "numpy",
        wrt: Sequence[int] = (),
        cotangent: Any = None,
    ) -> Answer:
        """Call a student's function.

        Args:
            name: the function.
            args: numbers, strings, None, arrays, tensors, and containers of those.
            arrays: what the function receives; its results come as numpy arrays in any case.
            wrt: positions of the arguments to differentiate by. If the student defined ``<name>_backward``
                it is called with the same arguments and the cotangent; else torch differentiates.
            cotangent: what the gradient starts from.
        """
        request = {"do": "call", "name": name, "args": tuple(args), "arrays": arrays}
        reply = self._ask({**request, "wrt": tuple(wrt), "cotangent": cotangent})
        if reply is None:
            return Answer(failure=self.ended)
        failure, gradients = self._name(reply.get("failure")), reply.get("gradients")
        if failure is not None:
            return Answer(failure=failure, line=self._line(reply.get("line")))
        if gradients is not None and (not isinstance(gradients, tuple) or len(gradients) != len(wrt)):
            return Answer(reply.get("value"), failure="wrong number of gradients")
        return Answer(reply.get("value"), gradients)

    def _name(self, value: object) -> str | None:
        """Only names that are known: a student could make an exception whose name tells a hidden input."""
        if value is None or (isinstance(value, str) and value in _EXCEPTIONS):
            return value
        return "Exception"

    def _line(self, value: object) -> int | None:
        return value if type(value) is int and 1 <= value <= self._lines else None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Send a request and return its answer, or None where the worker has ended or is ended for it."""
        if self.ended:
            return None
        return self._guarded(lambda until: self._channel.ask(request, until), self._limits.call_seconds)

    def _guarded(self, exchange: Callable[[float], dict[str, Any]], seconds: float) -> dict[str, Any] | None:
        try:
            return exchange(min(time.monotonic() + seconds, self._until))
        except TimeoutError:
            self.ended = TIME
        except wire.MalformedError:
            self.ended = MALFORMED
        except FloodError:
            self.ended = f"output over {self._limits.output_mb} MB"
        except OSError:
            self._channel.drain(judged=False)
            self.ended = self._why()
        self._hang_up()
        return None

    def _why(self) -> str:
        """What the warden says of a worker that ended by itself."""
        self._hang_up()
        report = self._report or {}
        if report.get("full"):
            return f"files over {self._limits.disk_mb} MB"
        return TIME if report.get("cpu", 0.0) > self._limits.cpu_seconds - 0.5 else ENDED

    def _hang_up(self) -> None:
        """Tell the warden to end the worker, and wait until it has cleaned up."""
        if self._report is not None:
            return
        self._report = {}
        data = bytearray()
        with contextlib.suppress(OSError):
            self._warden.settimeout(_CLEAN_UP_SECONDS)
            self._warden.shutdown(socket.SHUT_WR)
            while chunk := self._warden.recv(4096):
                data += chunk
        with contextlib.suppress(ValueError):
            self._report = json.loads(data)
