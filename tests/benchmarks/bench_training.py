"""Time one training step of a quantized ResNet-20 beside the same step in floating point, in one process.

    THREADS=2 REPEAT=9 COMPILED=1 ONLY=lsq,daq python tests/benchmarks/bench_training.py

CIFAR-10 shapes, batch 128, channels_last, W4A4 (first and last layer in floating point): forward, backward
and SGD step. Contestants take turns; the figures are medians, and the ratios within one run are what counts.
Compiled nets are compared with the compiled floating-point net.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from qviz.methods.pairs import NAMES, pair
from qviz.nn.convert import calibrate, convert
from qviz.nn.layers import adapt
from qviz.nn.models import create

BATCH = 128
TARGETS = {"lsq": (1.5, 1.10), "daq": (1.5, 1.10)}  # eager, compiled; every other method 2.2 eager


def net(method: str, x: torch.Tensor) -> nn.Module:
    """Return a ResNet-20 for training, quantized with 4 bits and calibrated."""
    torch.manual_seed(0)
    model = create("resnet20").to(memory_format=torch.channels_last)
    if method != "fp32":
        convert(model, pair=pair(method, 4), batch=x)
        calibrate(model, x)
    return model


def step_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, compiled: bool) -> Callable[[], None]:
    """Return a function that makes one training step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    run = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(run(x), y).backward()
        optimizer.step()
        adapt(model)

    return step


def medians(steps: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Return the median milliseconds of each step, the contestants taking turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= 2:  # the first turns warm up caches and compilers
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def bench(methods: list[str], x: torch.Tensor, y: torch.Tensor, repeat: int, *, compiled: bool) -> None:
    """Print a table for eager or compiled nets."""
    steps = {}
    for method in ["fp32", *methods]:
        torch._dynamo.reset()
        steps[method] = step_of(net(method, x), x, y, compiled=compiled)
        if compiled:
            steps[method]()
    found = medians(steps, repeat)
    print(f"\n{'compiled' if compiled else 'eager'}: fp32 {found['fp32']:.1f} ms a step")
    for method in methods:
        goal = TARGETS.get(method, (2.2, None))[compiled]
        aim = "" if goal is None else f"   target ≤ {goal}"
        print(f"  {method:8} {found[method]:8.1f} ms  {found[method] / found['fp32']:6.2f} × fp32{aim}")


def main() -> None:
    """Read the environment and print the tables."""
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    repeat = int(os.environ.get("REPEAT", "9"))
    only = [name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()]
    methods = [name for name in NAMES if name != "fp32" and (not only or name in only)]
    g = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=g).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (BATCH,), generator=g)
    malloc = os.environ.get("MALLOC_MMAP_THRESHOLD_", "default")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, MALLOC_MMAP_THRESHOLD_={malloc}")
    bench(methods, x, y, repeat, compiled=False)
    if os.environ.get("COMPILED", "1") == "1":
        some = [name for name in methods if name in TARGETS]
        bench(some, x, y, repeat, compiled=True)


if __name__ == "__main__":
    main()
