"""Every recipe in one table, calibrated and moved off its starting values, for tests that treat all alike."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qviz import Quantizer, recipes

CHANNELS = 8


@dataclass(frozen=True)
class Case:
    """A recipe with its arguments, and what a test must know about it.

    Attributes:
        make: (generator-seeded input) → fresh quantizer, not calibrated.
        kind: "weight" (C, 3, 3, 3), "relu" (N, C, 5, 5) not negative, or "signed" of that shape.
        soft: The forward pass is not a level.
        fixed: x must keep its shape.
        fast: It takes the fast path.
        channels: It holds something for each channel, so x must have that axis.
        adapts: The scale follows each sample, so codes alone do not tell the output.
        mixes: Matrix products mix the inputs: NaN spreads, compiled code and autocast differ in last bits.
        largest: The largest input reaches every output: one NaN makes all of them NaN.
        blind: Data set nothing in it.
        placed: It is calibrated before it saw data.
        zeros: A tensor of zeros calibrates it.
    """

    make: Callable[[Tensor], Quantizer]
    kind: str = "weight"
    soft: bool = False
    fixed: bool = False
    fast: bool = True
    channels: bool = False
    adapts: bool = False
    mixes: bool = False
    largest: bool = False
    blind: bool = False
    placed: bool = False
    zeros: bool = True


CASES: dict[str, Case] = {
    "ste": Case(lambda x: recipes.ste(4)),
    "ste-1bit": Case(lambda x: recipes.ste(1)),
    "ste-plain": Case(lambda x: recipes.ste(3, clipped=False)),
    "ste-unsigned": Case(lambda x: recipes.ste(4, signed=False), "relu"),
    "dorefa_weight": Case(lambda x: recipes.dorefa_weight(3), largest=True, blind=True, placed=True),
    "pact_activation": Case(lambda x: recipes.pact_activation(4), "relu"),
    "lsq": Case(lambda x: recipes.lsq(4)),
    "lsq-unsigned": Case(lambda x: recipes.lsq(3, signed=False), "relu"),
    "lsq-channels": Case(lambda x: recipes.lsq(4, channels=CHANNELS), channels=True),
    "lsq_plus": Case(lambda x: recipes.lsq_plus(4), "signed"),
    "lsq_plus-channels": Case(
        lambda x: recipes.lsq_plus(3, channels=CHANNELS, axis=1), "signed", channels=True
    ),
    "lsq_plus-mse": Case(lambda x: recipes.lsq_plus(3, signed=False, start="mse"), "signed"),
    "apot_activation": Case(lambda x: recipes.apot_activation(3), "relu", placed=True),
    "apot_weight": Case(lambda x: recipes.apot_weight(4), placed=True),
    "adaround_weight": Case(lambda x: recipes.adaround_weight(3, x), fixed=True, placed=True, fast=False),
    "daq_weight": Case(lambda x: recipes.daq_weight(2)),
    "daq_weight-1bit": Case(lambda x: recipes.daq_weight(1, sigma=1.5)),
    "daq_weight-4bit": Case(lambda x: recipes.daq_weight(4, gamma=1.0, sigma=0.7)),
    "daq_activation": Case(lambda x: recipes.daq_activation(2), "relu"),
    "daq_activation-signed": Case(lambda x: recipes.daq_activation(3, signed=True), "signed"),
    "soft_argmax": Case(lambda x: recipes.soft_argmax(2, beta=4.0), soft=True, fast=False),
    "soft_argmax-unsigned": Case(
        lambda x: recipes.soft_argmax(2, beta=9.0, signed=False), "relu", soft=True, fast=False
    ),
    "asq_activation": Case(
        lambda x: recipes.asq_activation(3, CHANNELS), "relu", channels=True, adapts=True, mixes=True
    ),
    "asq_activation-softplus": Case(
        lambda x: recipes.asq_activation(4, CHANNELS, mode="softplus"),
        "relu",
        channels=True,
        adapts=True,
        mixes=True,
    ),
    "pot_weight": Case(lambda x: recipes.pot_weight(4)),
    "post_weight": Case(lambda x: recipes.post_weight(4)),
    "post_weight-channels": Case(
        lambda x: recipes.post_weight(4, channels=CHANNELS, start="quantile"), channels=True
    ),
    "post_weight-paper": Case(
        lambda x: recipes.post_weight(4, channels=CHANNELS, grid="paper"), channels=True
    ),
    "post_weight-8bit": Case(lambda x: recipes.post_weight(8)),
    "adq_weight": Case(lambda x: recipes.adq_weight(3, decay=0.9), zeros=False),
    "adq_weight-tied": Case(lambda x: recipes.adq_weight(4, tie_sign=True), zeros=False),
    "n2uq_activation": Case(lambda x: recipes.n2uq_activation(3), "relu", blind=True, placed=True),
    "n2uq_activation-1bit": Case(lambda x: recipes.n2uq_activation(1), "relu", blind=True, placed=True),
    "aquant_activation": Case(lambda x: recipes.aquant_activation(3), "relu"),
    "aquant_activation-degree0": Case(lambda x: recipes.aquant_activation(2, degree=0), "relu"),
    "aquant_activation-degree1": Case(
        lambda x: recipes.aquant_activation(3, channels=CHANNELS, degree=1), "relu", channels=True
    ),
    "aquant_activation-channels": Case(
        lambda x: recipes.aquant_activation(4, channels=CHANNELS), "relu", channels=True
    ),
    "aquant_activation-fused": Case(
        lambda x: recipes.aquant_activation(3, channels=CHANNELS, fused=True),
        "relu",
        channels=True,
        fast=False,
        mixes=True,
    ),
}


def sample(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32, batch: int = 4) -> Tensor:
    """A tensor of one kind, with some values far outside any range."""
    g = torch.Generator().manual_seed(seed)
    shape = (CHANNELS, 3, 3, 3) if kind == "weight" else (batch, CHANNELS, 5, 5)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(shape, generator=g) < 0.02, 4 * x, x)
    if kind == "relu":
        x = (x + 0.3).clamp(min=0)
    return x.to(dtype)


def fresh(name: str, seed: int = 0) -> Quantizer:
    """A new quantizer of a case, as its recipe returns it."""
    torch.manual_seed(seed)
    return CASES[name].make(sample(CASES[name].kind))


def ready(name: str, dtype: torch.dtype = torch.float32) -> Quantizer:
    """Calibrate a case, then move each parameter a little, so that none sits on a special value."""
    q = fresh(name).observe(sample(CASES[name].kind))
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, p in q.named_parameters():
            noise = torch.rand(p.shape, generator=g)
            if key.endswith(".b"):
                p.add_(2 * noise - 1)  # borders well off one half
            elif key.endswith(("shift", "lower", "start")):
                p.add_(0.1 * noise + 0.013)
            elif key.endswith("rounding.v"):
                p.add_(noise - 0.5)
            else:
                p.mul_(0.7 + 0.28 * noise)
    return q.to(dtype)


def gradients(y: Tensor, q: Quantizer, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Gradients of sum(g y) to x and to every parameter that it reaches."""
    wanted = {"x": x, **{k: p for k, p in q.named_parameters() if p.requires_grad}}
    got = torch.autograd.grad(y, list(wanted.values()), g, allow_unused=True)
    return {k: v for k, v in zip(wanted, got, strict=True) if v is not None}
