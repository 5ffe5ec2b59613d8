"""Costs of bits: what each layer of the shipped ResNet-20 loses at each bit width, and runs of the whole."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qviz import shipped
from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import Fixed
from qviz.explore import network
from qviz.nn.ptq.fold import fold_batchnorm

Bits = tuple[int, ...]
FILE = "bit_budget.json"
BATCH = 100


@dataclass(frozen=True)
class Trial:
    """A network that was run with its layers at these bits.

    Attributes:
        bits: One a layer.
        loss: The mean cross-entropy of the 2,000 embedded test images.
        top1: Their top-1 accuracy in percent.
    """

    bits: Bits
    loss: float
    top1: float

    def added(self, now: Any) -> Any:
        """Return a choice with this trial among its own."""
        return replace(now, trials=(*now.trials, self))


@dataclass(frozen=True, eq=False)
class Costs:
    """Sensitivities and what was found with them.

    Attributes:
        bits: The candidates.
        names, sizes: Of the L layers; sizes are numbers of weights.
        omega: Ω_l(b), shape (L, B), by the name of the estimate.
        steps: The steps of each layer's grid, by layer and bits.
        budgets: Average bits, from the least up.
        solved: The allocation of each solver at each budget, by estimate and solver.
        trials: The allocations that were run, by their bits.
        floating: The network in floating point.
    """

    bits: Bits
    names: tuple[str, ...]
    sizes: np.ndarray
    omega: dict[str, np.ndarray]
    steps: dict[tuple[str, int], tuple[float, ...]]
    budgets: tuple[float, ...]
    solved: dict[str, dict[str, tuple[Bits, ...]]]
    trials: dict[Bits, Trial]
    floating: Trial

    def average(self, bits: Bits) -> float:
        """Return the average bits of a weight: Σ n_l b_l / Σ n_l."""
        return float(self.sizes @ np.array(bits)) / float(self.sizes.sum())

    def kilobytes(self, bits: Bits) -> float:
        """Return what the codes of all weights take, in kB of 1,000 bytes."""
        return float(self.sizes @ np.array(bits)) / 8000.0

    def spent(self, way: str, estimate: str, budget: float) -> Bits:
        """Return how a way that needs no hand spends a budget."""
        if way in self.solved[estimate]:
            return self.solved[estimate][way][self.budgets.index(budget)]
        return (max(b for b in self.bits if b <= budget),) * len(self.names)

    def shares(self, bits: Bits, estimate: str) -> np.ndarray:
        """Return Ω_l(b_l) of each layer."""
        at = [self.bits.index(b) for b in bits]
        return self.omega[estimate][np.arange(len(at)), at]

    def weight(self, name: str, bits: int) -> Tensor:
        """Return the weight of a layer on its grid."""
        w = network.resnet20().get_submodule(name).weight.detach()
        return Quantizer(uniform(bits), range=Fixed(torch.tensor(self.steps[name, bits]), axis=0))(w)

    @torch.no_grad()
    def run(self, bits: Bits, count: int = 2000) -> Iterator[float | Trial]:
        """Run the network on embedded test images; yield how far it is, from 0 to 1, and then the trial."""
        images, labels = network.sample("test")
        weights = {name: self.weight(name, b) for name, b in zip(self.names, bits, strict=True)}
        net, outs = network.with_weights(weights), []
        fold_batchnorm(net, images[:1])  # the same function in two thirds of the time
        for i in range(0, count, BATCH):
            outs.append(net(images[i : i + BATCH]))
            yield (i + BATCH) / count
        out = torch.cat(outs)
        right = float((out.argmax(1) == labels[:count]).double().mean())
        yield Trial(bits, float(functional.cross_entropy(out, labels[:count])), 100 * right)


@functools.cache
def costs() -> Costs:
    """Return the shipped measurements."""
    found = json.loads(shipped.checkpoint(FILE).read_text(encoding="utf-8"))
    layers, bits = found["layers"], tuple(found["bits"])
    return Costs(
        bits=bits,
        names=tuple(layer["name"] for layer in layers),
        sizes=np.array([layer["size"] for layer in layers]),
        omega={name: np.array([layer[name] for layer in layers]) for name in found["solved"]},
        steps={(layer["name"], b): tuple(layer["steps"][str(b)]) for layer in layers for b in bits},
        budgets=tuple(found["budgets"]),
        solved={
            estimate: {solver: tuple(map(tuple, rows)) for solver, rows in one.items()}
            for estimate, one in found["solved"].items()
        },
        trials={(t := trial(row)).bits: t for row in found["trials"]},
        floating=trial({"bits": (), **found["floating"]}),
    )


def trial(row: dict[str, Any]) -> Trial:
    """Return a trial from its JSON.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(row, dict) or set(row) != {"bits", "loss", "top1"}:
        raise ValueError(f"a trial has bits, loss and top1, got {row!r}")
    return Trial(tuple(row["bits"]), float(row["loss"]), float(row["top1"]))


def checked(state: Mapping[str, Any], known: Costs) -> dict[str, Any]:
    """Return a state with its bits and trials as such.

    Raises:
        ValueError: There are other layers, or bits that are no candidates.
    """
    bits, trials = tuple(state.get("bits", ())), tuple(map(trial, state.get("trials", ())))
    for some in (*([bits] if bits else []), *(t.bits for t in trials)):
        if len(some) != len(known.names) or not set(some) <= set(known.bits):
            raise ValueError(f"{len(known.names)} layers need bits of {known.bits}, got {some}")
    return {**state, "bits": bits, "trials": trials}
