"""What integers cost: ``OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_integer FILE…``.

For each .safetensors file that qviz exported: seconds to read it and run its first image, and, for 50 of the
sample's images in turns on one thread, how many times as long as a ResNet-20 in float32 its fake-quantized
program and its integers take, and how many images a second the runner of numpy alone does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from qviz.core._text import table
from qviz.export import IntegerModel, read
from qviz.export.numpy_file import network
from qviz.export.program import Program
from qviz.export.run_numpy import Network
from qviz.nn.data import cifar10
from qviz.nn.data.augment import normalize
from qviz.nn.models import resnet20

IMAGES, ROUNDS = 50, 7


def seconds(call: Callable[[], object]) -> float:
    """Return what one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@torch.no_grad()
def row(file: str) -> tuple[str, ...]:
    """Return a file's figures."""
    images = cifar10("test", source="sample").images[:IMAGES]
    about = read(file).about
    x = normalize(images, about["mean"], about["std"]).contiguous()
    first = seconds(lambda: IntegerModel(read(file))(x[:1]))
    plain, exported, alone = resnet20().eval(), read(file), Network(network(file))
    program, integer, numbers = Program(exported), IntegerModel(exported), x.numpy()
    ways = (lambda: plain(x), lambda: program(x), lambda: integer(x), lambda: alone(numbers))
    times = [[seconds(way) for way in ways] for _ in range(ROUNDS)][1:]
    base, fake, whole, numpy_alone = (statistics.median(column) for column in zip(*times, strict=True))
    return (
        Path(file).name,
        f"{first:.2f} s",
        f"{fake / base:.1f}",
        f"{whole / base:.1f}",
        f"{IMAGES / numpy_alone:.0f}",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help=".safetensors files that qviz exported")
    torch.set_num_threads(1)
    head = ("file", "load + image", "fake / float32", "integers / float32", "numpy images/s")
    print(table(head, [row(file) for file in parser.parse_args().files], right=(1, 2, 3, 4)))
