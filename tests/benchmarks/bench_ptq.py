"""Time post-training quantization: AdaRound by moments beside the loss over images, and whole networks.

    THREADS=2 ITERATIONS=2000 python tests/benchmarks/bench_ptq.py

First a layer of 64 × 64 × 3 × 3 weights on 256 maps of 8 × 8, milliseconds a step: the Gram form
(``adaround``) and the same loss by a convolution of 32 maps a step (``reconstruct``), taking turns. Then the
shipped ResNet-20, seconds: closed form at 2 bits, QDrop at 4 bits with so many iterations a block. Top-1 of
the test images stands beside.
"""

from __future__ import annotations

import os
import statistics
import time
from copy import deepcopy

import torch
from torch import Tensor, nn

from qviz.nn import calibrate, convert, evaluate
from qviz.nn.ptq import Options, ptq
from qviz.nn.ptq.adaround import decide
from qviz.nn.ptq.learn import Task, learn
from qviz.nn.ptq.moments import Moments
from qviz.nn.ptq.settings import pair_of
from qviz.nn.ptq.undecided import Undecided
from qviz.nn.runs import PTQExperiment, prepare_ptq

STEPS, REPEAT = 100, 5


def layer() -> tuple[nn.Conv2d, nn.Module, Tensor]:
    """Return a float layer, the same with 2-bit weights, and its input."""
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(256, 64, 8, 8).relu()
    quantized = deepcopy(plain)
    net = nn.Sequential(quantized)
    convert(net, pair=pair_of(2, 32, None), first_last="quantized", batch=x[:2])
    calibrate(net, x[:2], batchnorm=False)
    return plain, net[0].eval(), x


def adaround_steps() -> dict[str, float]:
    """Return milliseconds a step of both ways, medians."""
    plain, quantized, x = layer()
    with torch.no_grad():
        y = plain(x)
    rounded = quantized.weight.detach().clone()
    moments = Moments.of(quantized, [(x, y)])
    task = Task(quantized, plain, {quantized: plain.weight.detach()}, x, x, y)
    options = Options(iterations=STEPS, step_lr=0.0, windows=False)
    times: dict[str, list[float]] = {"Gram form": [], "loss over images": []}
    for turn in range(REPEAT + 1):
        begin = time.perf_counter()
        decide(Undecided(quantized.weight_quantizer, rounded), quantized, moments, STEPS, 0.1, 3.0, 0.2)
        middle = time.perf_counter()
        learn(task, options, torch.Generator().manual_seed(0))
        end = time.perf_counter()
        if turn:  # the first loads Adam
            times["Gram form"].append((middle - begin) / STEPS * 1e3)
            times["loss over images"].append((end - middle) / STEPS * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def network(method: str, bits: int, options: Options | None) -> tuple[float, float]:
    """Return seconds and top-1 in percent."""
    ready = prepare_ptq(PTQExperiment(method=method, w_bits=bits))
    done = ptq(ready.model, ready.images, w_bits=bits, method=method, options=options, show=False)
    return done.seconds, 100 * evaluate(ready.model, ready.test)["top1"]


def main() -> None:
    """Print all figures."""
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    found = adaround_steps()
    ratio = found["loss over images"] / found["Gram form"]
    print("  ".join(f"{name} {ms:.2f} ms a step" for name, ms in found.items()), f" {ratio:.1f} ×")
    iterations = int(os.environ.get("ITERATIONS", "2000"))
    for method, bits, options in (
        ("closed-form", 2, None),
        ("qdrop", 4, Options(iterations=iterations, drop=0.5)),
    ):
        seconds, top1 = network(method, bits, options)
        print(f"ResNet-20 {method} W{bits}A{bits}: {seconds:.0f} s, top-1 {top1:.2f} %")


if __name__ == "__main__":
    main()
