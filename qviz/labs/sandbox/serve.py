"""The worker: answers the grader's requests with what a student's functions return. It knows no test."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import wire
from .cells import Notebook, line_of

TOO_LARGE = "answer too large"
MISSING = "no such function"


def serve(link: socket.socket, isolation: str) -> None:
    """Say what is active, then answer until the grader hangs up."""
    sys.stdout = sys.stderr = io.TextIOWrapper(
        io.FileIO(1, "w", closefd=False), encoding="utf-8", errors="replace", write_through=True
    )
    notebook = Notebook()
    link.sendall(wire.frame({"isolation": isolation}))
    while True:
        try:
            request = wire.receive(lambda count: _exactly(link, count))
        except EOFError:
            return
        reply = _reply(notebook, request)
        try:
            data = wire.frame({"nonce": request["nonce"], **reply})
        except BaseException as error:  # noqa: BLE001  objects of a student's may fail in any way when read
            name = TOO_LARGE if isinstance(error, wire.TooLargeError) else type(error).__name__
            data = wire.frame({"nonce": request["nonce"], "failure": name, "line": line_of(error)})
        link.sendall(data)


def _reply(notebook: Notebook, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "cell":
        error, line = notebook.run(request["source"])
        return {"error": error, "line": line}
    if request["do"] == "has":
        return {"has": callable(notebook.names.get(request["name"]))}
    try:
        return _call(notebook.names, request)
    except BaseException as error:  # noqa: BLE001  whatever a student's function raises is its answer
        return {"failure": type(error).__name__, "line": line_of(error)}


def _call(names: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    name, torch_wanted = request["name"], request["arrays"] == "torch"
    function, backward = names.get(name), names.get(f"{name}_backward")
    if not callable(function):
        return {"failure": MISSING, "line": None}
    if not request["wrt"]:
        return {"value": function(*given(request["args"], torch_wanted))}
    if torch_wanted and not callable(backward):
        return _differentiated(function, request)
    value = function(*given(request["args"], torch_wanted))
    gradients = None
    with contextlib.suppress(Exception):  # the value counts by itself
        if callable(backward):
            cotangent = given(request["cotangent"], torch_wanted)
            gradients = backward(*given(request["args"], torch_wanted), cotangent)
            gradients = tuple(gradients) if isinstance(gradients, (list, tuple)) else (gradients,)
        else:
            gradients = _differentiated(function, request)["gradients"]
    return {"value": value, "gradients": gradients}


def _differentiated(function: Callable[..., Any], request: dict[str, Any]) -> dict[str, Any]:
    """Call a function and torch's autograd from the cotangent; an argument without a path gets zeros."""
    import torch

    args = list(given(request["args"], True))
    leaves = [torch.as_tensor(args[place]).detach().clone().requires_grad_() for place in request["wrt"]]
    for place, leaf in zip(request["wrt"], leaves, strict=True):
        args[place] = leaf.clone()  # not the leaf itself: a function may write into its argument
    value = function(*args)
    starts = request["cotangent"]
    starts = given(starts if isinstance(starts, (list, tuple)) else [starts], True)
    pairs = [
        (output, torch.as_tensor(start, dtype=output.dtype))
        for output, start in zip(value if isinstance(value, (list, tuple)) else [value], starts, strict=False)
        if isinstance(output, torch.Tensor) and output.requires_grad
    ]
    gradients: Sequence[Any] | None = [None] * len(leaves)
    if pairs:
        try:
            outputs, given_starts = zip(*pairs, strict=True)
            gradients = torch.autograd.grad(outputs, leaves, given_starts, allow_unused=True)
        except Exception:  # noqa: BLE001  the value counts by itself
            return {"value": value, "gradients": None}
    zeros = [torch.zeros_like(leaf) for leaf in leaves]
    found = [zero if one is None else one for zero, one in zip(zeros, gradients, strict=True)]
    return {"value": value, "gradients": tuple(found)}


def given(value: Any, torch_wanted: bool) -> Any:
    """Return a copy of a request's value, its arrays as what the function takes."""
    if hasattr(value, "dtype"):
        if not torch_wanted:
            return value.copy()
        import torch

        return torch.from_numpy(value.copy())
    if isinstance(value, (list, tuple)):
        return type(value)(given(item, torch_wanted) for item in value)
    if isinstance(value, dict):
        return {key: given(item, torch_wanted) for key, item in value.items()}
    return value


def _exactly(link: socket.socket, count: int) -> bytes:
    """Read so many bytes, or raise EOFError where the grader hung up."""
    data = bytearray()
    while len(data) < count:
        chunk = link.recv(min(count - len(data), 1 << 20))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
