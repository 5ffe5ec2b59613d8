"""Time what recording a run costs, beside the training step that it follows, in one process.

    THREADS=2 REPEAT=60 python tests/benchmarks/bench_recording.py

ResNet-20, batch 128, channels_last, W4A4; ``record_every=10`` as by default: at each step the codes of the
watched weights are compared, at each tenth the quantizers are read off. The target is 2 % of the step.
"""

from __future__ import annotations

import os
import statistics
import time

import torch
from torch.nn import functional

from qviz.methods.pairs import NAMES, pair
from qviz.nn.convert import calibrate, convert
from qviz.nn.layers import adapt
from qviz.nn.models import create
from qviz.nn.train import History
from qviz.nn.train.recorder import Recorder

BATCH, EVERY, TARGET = 128, 10, 0.02


def times(method: str, repeat: int) -> tuple[float, float, float]:
    """Return milliseconds of a step, of recording after it (mean of ten), and of that on a tenth step."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    x = x.contiguous(memory_format=torch.channels_last)
    model = create("resnet20").to(memory_format=torch.channels_last)
    convert(model, pair=pair(method, 4), batch=x)
    calibrate(model, x)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    recorder, history = Recorder(model, EVERY), History()
    recorder.start(history)
    steps, plain, full = [], [], []
    for step in range(1, repeat + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        adapt(model)
        middle = time.perf_counter()
        recorder.update(step, history)
        recorder.drain()
        end = time.perf_counter()
        steps.append(middle - start)
        (plain if step % EVERY else full).append(end - middle)
    step, compare, tenth = (1e3 * statistics.median(part) for part in (steps, plain, full))
    return step, compare + (tenth - compare) / EVERY, tenth


def main() -> None:
    """Print a line for each method."""
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    repeat = int(os.environ.get("REPEAT", "60"))
    only = os.environ.get("ONLY", ",".join(NAMES)).split(",")
    print(f"{'method':8} {'step, ms':>9} {'recording, ms':>14} {'of it':>7}   (every tenth step, ms)")
    for method in NAMES:
        if method != "fp32" and method in only:
            step, mean, tenth = times(method, repeat)
            mark = "" if mean <= TARGET * step else f"  above {TARGET:.0%}"
            print(f"{method:8} {step:9.1f} {mean:14.2f} {mean / step:7.1%}   {tenth:8.2f}{mark}")


if __name__ == "__main__":
    main()
