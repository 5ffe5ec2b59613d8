"""Random state: seeded for a run, kept over what must not disturb it, carried in checkpoints."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed torch's, numpy's and Python's global generators, differently on each process."""
    torch.manual_seed(seed + 1_000_003 * rank)  # the accelerators' too
    np.random.seed((seed + 1_000_003 * rank) % 2**32)
    random.seed(seed + 1_000_003 * rank)


def capture(device: torch.device | None = None) -> dict[str, Any]:
    """Return the state of the global generators as tensors and plain numbers."""
    numpy_state = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy_state[1].astype(np.int64)),
        "numpy_position": [int(numpy_state[2]), int(numpy_state[3]), float(numpy_state[4])],
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": [version, gauss],
    }
    if device is not None and device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Set the global generators to what :func:`capture` returned."""
    torch.set_rng_state(state["torch"].cpu())
    position, has_gauss, gauss = state["numpy_position"]
    np.random.set_state(("MT19937", state["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, held = state["python_gauss"]
    random.setstate((version, tuple(state["python"].tolist()), held))
    if "cuda" in state and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def kept(device: torch.device | None = None) -> Iterator[None]:
    """Leave the global generators as they were found."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


def own_generators(model: nn.Module) -> dict[str, torch.Generator]:
    """Return the generators that modules hold (random rounding, say), by module and attribute."""
    return {
        f"{name}.{attribute}": value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Generator)
    }


def generator_states(model: nn.Module) -> dict[str, Tensor]:
    """Return the states of :func:`own_generators`."""
    return {name: generator.get_state() for name, generator in own_generators(model).items()}
