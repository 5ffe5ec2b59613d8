"""Measure what each layer's bits cost the shipped ResNet-20, solve for every budget, and try what was found.

    python data/make_bit_budget.py

Writes bit_budget.json, which the BitBudgetExplorer reads. About ten minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from card import HERE, record
from torch import Tensor, nn
from torch.nn import functional

from qviz.core.grids import uniform
from qviz.core.quantizer import Quantizer
from qviz.core.range import MSE, Fixed
from qviz.explore import network
from qviz.nn.allocate import exact, fisher, greedy, loss_rise

NAME = "bit_budget.json"
BITS = (2, 3, 4, 5, 6)
BUDGETS = tuple(2 + 0.25 * i for i in range(17))
IMAGES, BATCH, DIGITS = 1000, 100, 9


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    return functional.cross_entropy(model(batch[0]), batch[1])


def batches(split: str, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return the first images of the embedded sample, in batches."""
    images, labels = network.sample(split)
    return list(zip(images[:count].split(BATCH), labels[:count].split(BATCH), strict=True))


class Grids:
    """Every weight on a uniform grid of each bit width, with the steps of the least squared error."""

    def __init__(self, net: nn.Module) -> None:
        self.layers = [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        self.steps: dict[tuple[str, int], list[float]] = {}
        self.made: dict[tuple[str, int], Tensor] = {}
        for name in self.layers:
            w = net.get_submodule(name).weight.detach()
            for b in BITS:
                found = Quantizer(uniform(b), range=MSE(axis=0)).observe(w).range.scale.tolist()
                self.steps[name, b] = [float(f"{v:.{DIGITS}g}") for v in found]
                fixed = Fixed(torch.tensor(self.steps[name, b]), axis=0)
                self.made[name, b] = Quantizer(uniform(b), range=fixed)(w).detach()
            print(f"{name}: steps found", flush=True)
        self.weights = {name: net.get_submodule(name).weight.detach() for name in self.layers}

    def factory(self, bits: int) -> Callable[[Tensor], Tensor]:
        """Return what puts a layer's weight, known by its values, on its grid."""
        return lambda w: next(self.made[n, bits] for n, own in self.weights.items() if torch.equal(own, w))


@torch.no_grad()
def tried(weights: dict[str, Tensor], test: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return loss and top-1 of the test images with other weights."""
    net = network.with_weights(weights)
    outs = torch.cat([net(x) for x, _ in test])
    labels = torch.cat([y for _, y in test])
    right = float((outs.argmax(1) == labels).double().mean())
    return {"loss": float(functional.cross_entropy(outs, labels)), "top1": 100 * right}


def main() -> None:
    """Measure, solve, try, write."""
    net = network.resnet20()
    grids, test = Grids(net), batches("test", 2000)
    sizes = [grids.weights[name].numel() for name in grids.layers]
    calibration = batches("train", IMAGES)
    measures = {"loss rise": loss_rise, "Fisher": fisher}
    omega = {
        name: measure(net, grids.layers, calibration, loss, grids.factory, BITS)
        for name, measure in measures.items()
    }
    solved: dict[str, dict[str, list[list[int]]]] = {}
    for name, table in omega.items():
        rows = [[float(f"{v:.{DIGITS}g}") for v in row] for row in table.tolist()]
        omega[name] = table = torch.tensor(rows, dtype=torch.float64)
        solved[name] = {
            solver.__name__: [list(solver(table, sizes, budget, BITS).bits) for budget in BUDGETS]
            for solver in (greedy, exact)
        }
        print(f"{name}: solved", flush=True)
    wanted = {(b,) * len(sizes) for b in BITS}
    wanted |= {tuple(bits) for one in solved.values() for row in one.values() for bits in row}
    trials = []
    for i, bits in enumerate(sorted(wanted), 1):
        weights = {n: grids.made[n, b] for n, b in zip(grids.layers, bits, strict=True)}
        trials.append({"bits": list(bits), **tried(weights, test)})
        print(f"{i} of {len(wanted)}: {trials[-1]['top1']:.2f} %", flush=True)
    found = {
        "bits": BITS,
        "budgets": BUDGETS,
        "images": {"sensitivity": IMAGES, "test": 2000},
        "floating": tried({}, test),
        "layers": [
            {
                "name": name,
                "size": size,
                **{measure: omega[measure][i].tolist() for measure in omega},
                "steps": {str(b): grids.steps[name, b] for b in BITS},
            }
            for i, (name, size) in enumerate(zip(grids.layers, sizes, strict=True))
        ],
        "solved": solved,
        "trials": trials,
    }
    (HERE / NAME).write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    record(
        NAME,
        kind="measurements",
        made_by="make_bit_budget.py",
        made_from=f"{network.CHECKPOINT}, cifar10_sample",
    )


if __name__ == "__main__":
    main()
