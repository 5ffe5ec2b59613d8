"""Time reading a level among 15, and DAQ's rounding, beside the usual ways to write them.

    SIZE=1e6 REPEAT=9 python tests/benchmarks/bench_lookup.py

"bucketize" is torch.bucketize and a gather; "all levels" scores every level for every value, as a kernel soft
argmax over the whole codebook does. One thread, contestants take turns, medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from qviz.core.grids import post
from qviz.core.lookup import select, table, take
from qviz.recipes import daq_weight


def medians(contestants: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Return the median milliseconds of each function, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeat + 2):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def show(found: dict[str, float], base: str, targets: dict[str, str]) -> None:
    """Print the figures and how many times faster than ``base`` they are."""
    for name, ms in found.items():
        print(f"  {name:28} {ms:9.3f} ms  {found[base] / ms:8.1f} ×  {targets.get(name, '')}")


def lookups(size: int, repeat: int) -> None:
    """Read a level of POST with 4 bits."""
    book = post(4)
    borders, levels = book.borders.float(), book.levels.float()
    u = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 0.4
    compiled = torch.compile(lambda u: select(u, borders, levels), fullgraph=True)

    def read() -> Tensor:
        made = table(borders, size)
        return select(u, borders, levels) if made is None else take(made.of(levels), made.place(u))

    def searched() -> Tensor:
        return levels[torch.bucketize(u, borders)]

    assert torch.equal(read(), searched())
    assert torch.equal(compiled(u), searched())
    print(f"\na level among {len(levels)}, {size:g} values")
    contestants = {"bucketize": searched, "qviz eager": read, "qviz compiled": lambda: compiled(u)}
    show(
        medians(contestants, repeat),
        "bucketize",
        {"qviz eager": "target ≥ 4", "qviz compiled": "target ≥ 30"},
    )


def all_levels(x: Tensor, levels: Tensor, lower: Tensor, upper: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Return the kernel soft argmax over every level with the controller's temperature, in plain autograd."""
    top = len(levels) - 1
    u = ((x - lower) / (upper - lower) * top).clamp(0, top)
    distance = (u[..., None] - levels).abs()
    near = distance.argmin(-1, keepdim=True)
    kernel = torch.exp(-((levels - near) ** 2))
    score = torch.exp(-distance) * kernel
    best = score.topk(2, -1).values
    beta = (gamma / (best[..., 0] - best[..., 1]).abs()).detach()
    return (torch.softmax(beta[..., None] * score, -1) * levels).sum(-1)


def daq(size: int, repeat: int) -> None:
    """Round with DAQ at 4 bits, forward and backward."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=g).requires_grad_(True)
    q = daq_weight(4).observe(x.detach())
    compiled = torch.compile(q, fullgraph=True)
    levels = torch.arange(16.0)
    grad = torch.ones(size)
    contestants = {
        "all levels": lambda: all_levels(x, levels, q.range.lower, q.range.upper).backward(grad),
        "qviz eager": lambda: q(x).backward(grad),
        "qviz compiled": lambda: compiled(x).backward(grad),
    }
    print(f"\nDAQ at 4 bits, forward and backward, {size:g} values")
    show(
        medians(contestants, repeat),
        "all levels",
        {"qviz eager": "target ≥ 100", "qviz compiled": "target ≥ 300"},
    )


def main() -> None:
    """Read the environment and print both tables."""
    torch.set_num_threads(1)
    size, repeat = int(float(os.environ.get("SIZE", "1e6"))), int(os.environ.get("REPEAT", "9"))
    malloc = os.environ.get("MALLOC_MMAP_THRESHOLD_", "default")
    print(f"torch {torch.__version__}, MALLOC_MMAP_THRESHOLD_={malloc}")
    lookups(size, repeat)
    torch._dynamo.reset()
    daq(size, repeat)


if __name__ == "__main__":
    main()
