"""Time every recipe, eager and compiled, beside torch's own learnable fake-quantize, in one process.

    SIZES=1e6 THREADS=1 REPEAT=15 COMPILED=1 ONLY=lsq,post_weight python tests/benchmarks/bench_recipes.py

Contestants take turns, so that a change of the machine's speed hits all of them; the figures are
medians, and the ratios within one run are what counts. "clone" is torch.clone (forward) or clone and add
(forward + backward): the floor. "native" is torch._fake_quantize_learnable_per_tensor_affine, a timing
peer and no gradient oracle (its window is half a cell wider). Memory is counted from live storages:
"held" between forward and backward besides x and y, "peak" above x and the incoming gradient. The
allocator's settings matter above 32 MiB a block (MALLOC_MMAP_THRESHOLD_ is printed).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from qviz import recipes

TARGETS = {  # eager at most (× native), compiled at least (× faster than native), peak bytes an element eager
    "lsq": (0.35, 5, 12),
    "pact_activation": (0.35, 5, 16),
    "lsq per channel": (0.45, 5, 16),
    "lsq_plus": (0.45, 5, 16),
    "asq_activation": (0.55, 3.5, 16),
    "adq_weight": (0.7, 5, 12),
    "aquant_activation": (0.7, 2, 24),
    "daq_weight": (0.85, 3, 24),
    "daq_activation": (0.65, 3, 24),
    "pot_weight": (0.95, 3, 20),
    "post_weight": (0.95, 3, 20),
    "n2uq_activation": (1.6, 1.5, 32),
}


@dataclass
class Contestant:
    """A function to time and the input it gets."""

    name: str
    call: Callable[[Tensor], Tensor]
    x: Tensor
    grad: Tensor

    def forward(self) -> float:
        """Return the milliseconds of one forward pass without gradients."""
        with torch.no_grad():
            start = time.perf_counter()
            self.call(self.x)
            return (time.perf_counter() - start) * 1e3

    def both(self) -> float:
        """Return the milliseconds of one forward and backward pass."""
        x = self.x.detach().requires_grad_(True)
        start = time.perf_counter()
        self.call(x).backward(self.grad)
        return (time.perf_counter() - start) * 1e3


def native(levels: int) -> Callable[[Tensor], Tensor]:
    """Return torch's learnable fake-quantize with a scale and a zero point that want gradients."""
    scale = torch.tensor([0.25], requires_grad=True)
    zero = torch.tensor([0.0], requires_grad=True)
    return lambda x: torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, zero, -levels // 2, levels // 2 - 1, 1.0
    )


def brevitas(x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return Brevitas' 4-bit quantizer with a learned scale, past its warm-up; None where it is absent."""
    try:
        from brevitas.nn import QuantIdentity
        from brevitas.quant import Int8ActPerTensorFloat
    except ImportError:
        return None
    q = QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4, collect_stats_steps=1)
    for _ in range(3):
        q(x)
    return q


def quantizers(channels: int) -> dict[str, tuple[torch.nn.Module, str]]:
    """Return every recipe at 4 bits (DAQ at 2) and which input it takes."""
    return {
        "ste": (recipes.ste(4), "w"),
        "dorefa_weight": (recipes.dorefa_weight(4), "w"),
        "pact_activation": (recipes.pact_activation(4), "a"),
        "lsq": (recipes.lsq(4), "w"),
        "lsq per channel": (recipes.lsq(4, channels=channels), "w"),
        "lsq_plus": (recipes.lsq_plus(4), "a"),
        "apot_weight": (recipes.apot_weight(4), "w"),
        "daq_weight": (recipes.daq_weight(2), "w"),
        "daq_activation": (recipes.daq_activation(2), "a"),
        "asq_activation": (recipes.asq_activation(4, channels), "a"),
        "pot_weight": (recipes.pot_weight(4, channels=channels), "w"),
        "post_weight": (recipes.post_weight(4, channels=channels), "w"),
        "adq_weight": (recipes.adq_weight(4), "w"),
        "n2uq_activation": (recipes.n2uq_activation(4), "a"),
        "aquant_activation": (recipes.aquant_activation(4, channels=channels), "a"),
    }


def inputs(size: int) -> dict[str, Tensor]:
    """Return weights (64, n) and activations (n / 4096, 64, 8, 8), normal and half-normal."""
    g = torch.Generator().manual_seed(0)
    w = torch.randn(64, size // 64, generator=g)
    a = torch.randn(max(1, size // 4096), 64, 8, 8, generator=g).relu_()
    return {"w": w, "a": a}


def memory(contestant: Contestant) -> tuple[float, float]:
    """Return bytes an element held between forward and backward (besides x and y), and at peak."""
    n = contestant.x.numel()
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x = contestant.x.detach().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = contestant.call(x)
    for known in (x, y):
        saved.pop(known.untyped_storage().data_ptr(), None)
    held = sum(size for size in saved.values() if size >= n) / n
    del y
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        contestant.call(x).backward(contestant.grad)
    live = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return held, peak / n


def medians(contestants: list[Contestant], repeat: int) -> dict[str, tuple[float, float]]:
    """Return median milliseconds (forward, forward + backward), the contestants taking turns."""
    times: dict[str, tuple[list[float], list[float]]] = {c.name: ([], []) for c in contestants}
    for turn in range(repeat + 2):
        for c in contestants:
            figures = c.forward(), c.both()
            if turn >= 2:  # the first turns warm up caches and compilers
                for kept, ms in zip(times[c.name], figures, strict=True):
                    kept.append(ms)
    return {name: (statistics.median(f), statistics.median(b)) for name, (f, b) in times.items()}


def bench(size: int, repeat: int, compiled: bool, only: set[str]) -> None:
    """Print one table for one size."""
    data = inputs(size)
    grads = {k: torch.ones_like(v) for k, v in data.items()}
    print(f"\n{size:g} elements, {torch.get_num_threads()} thread(s), medians of {repeat} interleaved runs")
    heads = (
        "recipe",
        "forward",
        "fwd+bwd",
        "× native",
        "target",
        "compiled",
        "fwd+bwd",
        "× faster",
        "target",
    )
    print("{:18} {:>9} {:>9} {:>9} {:>7}   {:>9} {:>9} {:>9} {:>7}".format(*heads), end="")
    print(f"   {'held B':>7} {'peak B':>7} {'target':>7}")
    for name, (q, kind) in quantizers(64).items():
        if only and name not in only:
            continue
        q.observe(data[kind])
        x, grad = data[kind], grads[kind]
        field = [
            Contestant(
                "clone",
                lambda t: t.clone() + 0 if t.requires_grad else t.clone(),
                x,
                grad,
            ),
            Contestant("native", native(16), x, grad),
            Contestant("eager", q, x, grad),
        ]
        other = brevitas(x) if name == "lsq" else None
        if other is not None:
            field.append(Contestant("brevitas", other, x, grad))
        if compiled:
            torch._dynamo.reset()
            field.append(Contestant("compiled", torch.compile(q, fullgraph=True), x, grad))
        ms = medians(field, repeat)
        held, peak = memory(field[2])
        goal = TARGETS.get(name, (None, None, None))
        line = (
            f"{name:18} {ms['eager'][0]:9.2f} {ms['eager'][1]:9.2f} {ms['eager'][1] / ms['native'][1]:9.2f}"
        )
        line += f" {_goal('≤', goal[0])}   "
        if compiled:
            faster = ms["native"][1] / ms["compiled"][1]
            line += f"{ms['compiled'][0]:9.2f} {ms['compiled'][1]:9.2f} {faster:9.2f} {_goal('≥', goal[1])}"
        else:
            line += f"{'–':>9} {'–':>9} {'–':>9} {'':>7}"
        print(f"{line}   {held:7.1f} {peak:7.1f} {_goal('≤', goal[2])}", flush=True)
        if other is not None:
            forward, both = ms["brevitas"]
            print(f"{'(brevitas)':18} {forward:9.2f} {both:9.2f} {both / ms['native'][1]:9.2f}")
    for name in ("native", "clone"):
        print(f"{name}: forward {ms[name][0]:.2f} ms, forward + backward {ms[name][1]:.2f} ms")


def _goal(sign: str, value: float | None) -> str:
    return f"{sign + ' ' + format(value, 'g') if value is not None else '':>7}"


def main() -> None:
    """Read the environment and print the tables."""
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    only = {name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()}
    malloc = os.environ.get("MALLOC_MMAP_THRESHOLD_", "default")
    print(f"torch {torch.__version__}, MALLOC_MMAP_THRESHOLD_={malloc}")
    for size in os.environ.get("SIZES", "1e6").split(","):
        bench(
            int(float(size)),
            int(os.environ.get("REPEAT", "15")),
            os.environ.get("COMPILED", "1") == "1",
            only,
        )


if __name__ == "__main__":
    main()
