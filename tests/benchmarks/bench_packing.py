"""GB of codes a second, packed and unpacked: ``OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_packing``.

16 million codes, the best of 30 runs each, and beside it a plain copy of as many bytes. The bound is 1 GB/s
on one core. Processor time of this thread is counted, so other work shows only through the caches.
"""

import time
from collections.abc import Callable

import torch

from qviz.export import pack, unpack

COUNT = 2**24


def best(call: Callable[[], object], runs: int = 30) -> float:
    """Return the GB of codes a second of the fastest run."""
    seconds = []
    for _ in range(runs):
        start = time.thread_time()
        call()
        seconds.append(time.thread_time() - start)
    return COUNT / min(seconds) / 1e9


def main() -> None:
    """Print a line for each width."""
    torch.set_num_threads(1)
    print("bits   pack  unpack    copy")
    for bits in range(1, 9):
        codes = torch.randint(2**bits, (COUNT,), dtype=torch.uint8)
        data = pack(codes, bits)
        figures = (
            best(lambda codes=codes, bits=bits: pack(codes, bits)),
            best(lambda data=data, bits=bits: unpack(data, bits, (COUNT,))),
            best(codes.clone),
        )
        print(f"{bits:4}", *(f"{figure:7.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
