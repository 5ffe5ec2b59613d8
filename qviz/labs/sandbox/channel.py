"""What passes between the grader and a worker: frames one way and the other, and what is printed."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import time
from typing import Any

from qviz.labs.model import Alien
from qviz.labs.sandbox import wire

KEPT_OUTPUT = 20_000
_CHUNK = 1 << 18
_TYPES = {
    *("bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "range", "object"),
    *(
        "Tensor",
        "Parameter",
        "ndarray",
        "matrix",
        "MaskedArray",
        "DataFrame",
        "Series",
        "Fraction",
        "Decimal",
    ),
    *("function", "method", "generator", "map", "zip", "module", "type", "NotImplementedType", "ellipsis"),
}


class FloodError(Exception):
    """More was printed than is allowed."""


class Channel:
    """A socket for frames, and a pipe for what is printed, with a time limit on every exchange.

    Args:
        link: the grader's end of the socket.
        output: the grader's end of the pipe.
        megabytes: what may be printed in all.

    Attributes:
        printed: the start of what was printed since it was last cleared.
    """

    def __init__(self, link: socket.socket, output: int, megabytes: float) -> None:
        self.printed = bytearray()
        self._link, self._output, self._allowed = link, output, megabytes * 1e6
        self._inbox, self._total = bytearray(), 0
        link.setblocking(False)
        os.set_blocking(output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(link, selectors.EVENT_READ)
        self._selector.register(output, selectors.EVENT_READ)

    def close(self) -> None:
        """Close both."""
        self._selector.close()
        self._link.close()
        os.close(self._output)

    def ask(self, request: dict[str, Any], until: float) -> dict[str, Any]:
        """Send a request and return the answer to it, not one that was prepared before it was known.

        Raises:
            TimeoutError: There is no answer until then, of ``time.monotonic()``.
            MalformedError: What came is no answer to it.
            FloodError: Too much was printed.
            OSError: The other side ended.
        """
        nonce = secrets.token_hex(8)
        self._send(wire.frame({"nonce": nonce, **request}), until)
        reply = self.receive(until)
        if reply.pop("nonce", None) != nonce:
            raise wire.MalformedError("an answer belongs to its request")
        self.drain()
        return reply

    def receive(self, until: float) -> dict[str, Any]:
        """Return the next message; raises what :meth:`ask` raises."""
        return wire.receive(lambda count: self._read(count, until), alien)

    def drain(self, *, judged: bool = True) -> None:
        """Take what was printed; keep the start of it, and count all.

        Args:
            judged: Whether too much raises FloodError.
        """
        while True:
            try:
                chunk = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(self._output)
                return
            self._total += len(chunk)
            self.printed += chunk[: max(0, KEPT_OUTPUT - len(self.printed))]
            if judged and self._total > self._allowed:
                raise FloodError

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        self._selector.modify(self._link, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while view:
            try:
                view = view[self._link.send(view[:_CHUNK]) :]
            except BlockingIOError:
                self._wait(until)
        self._selector.modify(self._link, selectors.EVENT_READ)

    def _read(self, count: int, until: float) -> bytes:
        while len(self._inbox) < count:
            self._wait(until)
        data = bytes(self._inbox[:count])
        del self._inbox[:count]
        return data

    def _wait(self, until: float) -> None:
        """Take in what comes next, an answer's bytes or printed ones."""
        left = until - time.monotonic()
        ready = self._selector.select(left) if left > 0 else []
        if not ready:
            raise TimeoutError
        for key, events in ready:
            if key.fileobj == self._output:
                self.drain()
            elif events & selectors.EVENT_READ:
                chunk = self._link.recv(_CHUNK)
                if not chunk:
                    raise ConnectionResetError
                self._inbox += chunk


def alien(name: str) -> Alien:
    """Return what stands for an object; a name that is not known could tell a student a hidden input."""
    return Alien(name if name in _TYPES else "object")
