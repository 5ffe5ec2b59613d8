"""Peak extra memory of a quantizer, in bytes per element: ``python -m tests.benchmarks.bench_lookup_memory``.

What is counted: every allocation and release that torch's CPU allocator makes during the call, temporaries
inside kernels included, as its profiler records them (``profile_memory=True``; the "[memory]" events of the
trace carry a signed number of bytes). Their running sum starts at zero, so x itself is not in it, and the
result that the call returns is: 4 of the bytes for q(x), 1 for q.codes(x). Its largest value, over the number
of elements, is the figure. What Python or numpy allocates is outside of it; the quantizer uses neither.

The bound is 16 bytes an element for q(x) without gradient and for q.codes(x), for every codebook up to 8 bits
and every rounding with fixed borders; what does not grow with x (scales, levels, borders) may add 64 KiB.
Random rounding and the gradient path (the readable composition, forward and backward) are shown, not bounded.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes two lines a run to stderr

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from qviz import CellBorder, Fixed, Quantizer, Stochastic, apot, lloyd, post, pot, quantile, uniform

BOUND = 16
CONSTANT = 1 << 16


def bound(numel: int) -> float:
    """Return the largest permitted number of bytes an element."""
    return BOUND + CONSTANT / numel


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the largest total of live CPU allocations made since the call began."""
    call()  # whatever is allocated once and kept
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            result = call()
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    del result
    memory = [e for e in events if e.get("name") == "[memory]" and e["args"]["Device Type"] == 0]
    if not memory:
        raise RuntimeError("the profiler recorded no memory events")
    live = peak = 0
    for event in sorted(memory, key=lambda e: e["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak


def peak_bytes_per_element(function: Callable[[Tensor], object], x: Tensor) -> float:
    """Return `peak_bytes` of function(x) without gradient, over the elements of x."""
    with torch.no_grad():
        return peak_bytes(lambda: function(x)) / x.numel()


def gradient_bytes_per_element(q: Quantizer, x: Tensor) -> float:
    """Return `peak_bytes` of a forward and backward pass, dy/dx included, over the elements of x."""
    x = x.detach().requires_grad_()
    upstream = torch.ones_like(x)
    return peak_bytes(lambda: torch.autograd.grad(q(x), x, upstream)) / x.numel()


def quantizers(x: Tensor, bits: int) -> dict[str, Quantizer]:
    """Every builder at one bit width, and what changes the path: channels, an offset, other roundings."""
    books = {"uniform": uniform(bits), "unsigned": uniform(bits, signed=False)}
    if bits > 1:
        books |= {
            "narrow": uniform(bits, narrow=True),
            "POT": pot(bits),
            "POST": post(bits),
            "APoT": apot(bits),
        }
    if 1 < bits < 8:
        books |= {"POT paper": pot(bits, grid="paper"), "POST paper": post(bits, grid="paper")}
    books |= {"quantile": quantile(x, bits), "Lloyd": lloyd(x, bits)}
    made = {name: Quantizer(book, range=Fixed(2.0 / book.reach)) for name, book in books.items()}
    if bits > 1:
        grid = post(bits)
        channels = torch.linspace(1, 3, 1000)
        made["POST per channel"] = Quantizer(grid, range=Fixed(channels, axis=0))
        made["POST offset"] = Quantizer(grid, range=Fixed(2.0, 0.1))
        made["POST log"] = Quantizer(grid, CellBorder.logarithmic(grid), range=Fixed(2.0))
        made["POST stochastic"] = Quantizer(grid, Stochastic(torch.Generator()), range=Fixed(2.0))
    return made


def main() -> int:
    """Print the table; return 1 when a bounded figure exceeds the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="*", default=list(range(1, 9)))
    parser.add_argument("--numel", type=int, default=1_000_000)
    arguments = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    flat = torch.randn(arguments.numel // 1000 * 1000, generator=g)
    print(f"bytes per element at {flat.numel():,} elements; bound {BOUND} for q(x) and q.codes(x)")
    print(f"{'bits':>4}  {'grid':<18}{'layout':<12}{'q(x)':>7}{'codes':>7}{'forward + backward':>20}")
    over = 0
    for bits in arguments.bits:
        x = flat.view(1000, -1)
        for name, q in quantizers(flat, bits).items():
            for layout, tensor in (
                ("float32", x),
                ("bfloat16", x.bfloat16()),
                ("transposed", x.t().clone().t()),
            ):
                row = [peak_bytes_per_element(call, tensor) for call in (q, q.codes)]
                grad = gradient_bytes_per_element(q, tensor)
                bounded = q.rounding.borders(q.codebook) is not None
                mark = "  OVER" if bounded and max(row) > bound(x.numel()) else ""
                over += bool(mark)
                print(f"{bits:>4}  {name:<18}{layout:<12}{row[0]:>7.2f}{row[1]:>7.2f}{grad:>20.2f}{mark}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
