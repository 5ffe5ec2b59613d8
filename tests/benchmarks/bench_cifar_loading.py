"""Time of a CIFAR-10 batch and of a training step: ``python -m tests.benchmarks.bench_cifar_loading``.

Batches of 128 with crop and flip, from the full set if QVIZ_DATA has it, else from the sample; a step is
forward, backward and SGD of ResNet-20 in float32, channels_last. Medians in milliseconds. The two take
turns, so both see the same machine. The bound: loading takes at most 5 % of a step.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from qviz.nn.data import CifarLoader, cifar10
from qviz.nn.models import create

BOUND = 0.05


def measure(steps: int) -> tuple[float, float, str]:
    """Return the median milliseconds of a batch and of a step, and where the images came from."""
    data = cifar10("train")
    loader = CifarLoader(data, 128)
    model = create("resnet20").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches, epoch = loader.batches(0), 0
    loading, training = [], []
    for _ in range(steps + 3):
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            epoch += 1
            batches = loader.batches(epoch)
            start = time.perf_counter()
            batch = next(batches)
        middle = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
        loading.append(middle - start)
        training.append(time.perf_counter() - middle)
    return 1e3 * statistics.median(loading[3:]), 1e3 * statistics.median(training[3:]), data.source


def main() -> None:
    """Print the two medians and their ratio; exit 1 where it is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loading, training, source = measure(arguments.steps)
    print(f"{source}, {arguments.threads} threads: batch {loading:.2f} ms, step {training:.1f} ms")
    print(f"loading is {loading / training:.2%} of a step (at most {BOUND:.0%})")
    raise SystemExit(loading > BOUND * training)


if __name__ == "__main__":
    main()
