"""Packing: a model's tensors as safetensors that carry their own hash, other state in torch's format."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core._text import some
from qviz.nn.train.errors import CheckpointError


def pack_weights(model: nn.Module, info: Mapping[str, Any]) -> bytes:
    """Return the tensors of the model's state as safetensors, with a hash of them in its metadata.

    Args:
        model: The model, not wrapped, so that the keys are its own.
        info: Plain values that travel along (step, epoch, hash of the configuration).
    """
    from safetensors.torch import save

    # copies: safetensors refuses tensors that share memory, which shared modules have
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    return save(tensors, {"qviz": json.dumps({**info, "weights_sha256": hash_weights(tensors)})})


def unpack_weights(data: bytes, source: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and info of :func:`pack_weights`, after checking the hash.

    Raises:
        CheckpointError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        info = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["qviz"])
        found, claimed = hash_weights(tensors), info["weights_sha256"]
    except (SafetensorError, ValueError, KeyError) as problem:
        raise CheckpointError(f"{source} is damaged or holds no weights of qviz: {problem}") from problem
    if found != claimed:
        raise CheckpointError(
            f"{source} is damaged: its weights have the SHA-256 {found} instead of {claimed}"
        )
    return tensors, info


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of each tensor, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


def load_into(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str | Path,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Load weights into a model that must have exactly these keys and shapes.

    Args:
        model: The model, on any device.
        tensors: The weights, as :func:`unpack_weights` gives them.
        source: Where they come from, for error messages.
        others: What modules keep in the state besides tensors (their extra state).

    Raises:
        CheckpointError: The model is another one; names what does not fit. The model stays as it was.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    # a range that was not calibrated yet has no scale of its own to compare with
    extra = [name for name in extra if name.rsplit(".", 1)[-1] not in ("scale", "offset")]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} there, {tuple(own[name].shape)} here"
        for name in sorted(set(own) & set(tensors))
        if own[name].shape != tensors[name].shape
    ]
    if missing or extra or shapes:
        raise CheckpointError(
            f"{source} belongs to another model: missing there {some(missing)}; not here {some(extra)}; "
            f"other shapes {some(shapes)}"
        )
    like = next(model.parameters(), torch.zeros(()))
    try:  # on the model's device, because a range without a scale takes over the tensor that it is given
        placed = {name: value.to(like.device) for name, value in tensors.items()}
        model.load_state_dict(placed | dict(others or {}), strict=others is not None)
    except RuntimeError as problem:
        raise CheckpointError(f"{source} belongs to another model: {problem}") from problem


def pack_state(state: Mapping[str, Any]) -> bytes:
    """Return tensors and plain values in torch's format."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpack_state(data: bytes) -> dict[str, Any]:
    """Read :func:`pack_state` with ``weights_only``: nothing in it is run."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
