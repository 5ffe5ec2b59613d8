"""How well two evaluations of an exported network agree: integers, float64, and float32 with either kernels.

    python -m tests.benchmarks.bench_agreement FILE… [--images 10000] [--only float64 integers]

prints, for each file and each pair of evaluations, the share of equal codes, the images in which one differs,
those that get another class, and the largest difference of a logit, on CIFAR-10's test images.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from qviz.core._text import table
from qviz.export import IntegerModel, read
from qviz.export.answers import Answers
from qviz.export.double import Double, codes_of
from qviz.export.exported import Exported
from qviz.export.program import Program, as_rows, run
from qviz.nn.data import cifar10
from qviz.nn.data.augment import normalize

BATCH = 50
Codes = dict[int, Tensor]


def evaluations(exported: Exported) -> dict[str, Callable[[Tensor], tuple[Tensor, Codes]]]:
    """Return what gives a network's output and codes, by name."""
    integer = IntegerModel(exported)

    def of(net: Program | Double, images: Tensor) -> tuple[Tensor, Codes]:
        codes: Codes = {}

        def make(i: int, inputs: list[Tensor]) -> Tensor:
            step, x = exported.program[i], (inputs or [images])[0]
            if i in integer.layers:
                read = exported.layers[step.name].input
                codes[i] = codes_of(read, as_rows(step, x)).view(x.shape)
            return net._value(step, inputs or [images])

        for _, value in run(exported.program, make):
            output = value
        return output, codes

    def without_onednn(images: Tensor) -> tuple[Tensor, Codes]:
        with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
            return of(program, images)

    program = Program(exported)
    double = Double(exported, real=False)
    return {
        "float32": lambda images: of(program, images),
        "float32, no oneDNN": without_onednn,
        "float64": lambda images: of(double, images),
        "integers": integer.run,
    }


@torch.no_grad()
def rows(file: str, images: Tensor, only: list[str]) -> list[tuple[str, ...]]:
    """Compare each two evaluations of a file on images, uint8; of those named, if any are."""
    exported = read(file)
    ways = {name: way for name, way in evaluations(exported).items() if name in only or not only}
    pairs = {pair: [Answers(), 0, 0, 0] for pair in combinations(ways, 2)}
    for batch in normalize(images, exported.about["mean"], exported.about["std"]).split(BATCH):
        made = {name: way(batch.contiguous()) for name, way in ways.items()}
        for (right, own), found in pairs.items():
            differ = [(made[own][1][i] != codes).flatten(1).sum(1) for i, codes in made[right][1].items()]
            found[0].add(made[own][0], made[right][0])
            if differ:
                found[1] += int(sum(differ).sum())
                found[2] += int((sum(differ) > 0).sum())
                found[3] += sum(codes.numel() for codes in made[right][1].values())
    return [
        (
            own,
            right,
            f"{100 * (1 - differ / max(codes, 1)):.4f} %",
            f"{touched:,}",
            f"{100 * answers.agreement:.2f} %",
            f"{answers.largest:.2g}",
        )
        for (right, own), (answers, differ, touched, codes) in pairs.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help=".safetensors files that qviz exported")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=[], help="the evaluations to compare")
    given = parser.parse_args()
    head = ("evaluation", "against", "codes equal", "images touched", "top-1 equal", "logits apart")
    for file in given.files:
        found = rows(file, cifar10("test", source="full").images[: given.images], given.only)
        print(f"{file}\n{table(head, found, right=(2, 3, 4, 5))}", flush=True)
