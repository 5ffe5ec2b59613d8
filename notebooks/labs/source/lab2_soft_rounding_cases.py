"""Lab 2: what checks a soft rounding, its temperature controller, and the two gaps that training has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qviz.labs.model import Case, Function, Lab, Mistake, State, Variant, Written

SATURATED, INSIDE, TIES = "outside the range", "inside the range", "ties"
KIND = "soft argmax, fixed β"
VARIANTS = tuple(
    {"SIGMA": sigma, "GAMMA": gamma, "GAP": gap}
    for sigma, gamma in ((0.8, 2.0), (1.2, 3.0), (1.5, 2.5), (2.0, 1.5))
    for gap in (0.06, 0.03)
)


def data(variant: Variant) -> dict[str, np.ndarray]:
    """The numbers that the notebook rounds, from 0 to 3."""
    return {"x": np.random.RandomState(variant.data_seed).uniform(0, 3, 400).astype(np.float32)}


def numbers(rng: np.random.RandomState, low: float, high: float, count: int) -> np.ndarray:
    """Numbers away from integers and from the middle between two, in float32."""
    cell = np.floor(rng.uniform(low, high, count))
    half = rng.randint(0, 2, count)
    return (cell + 0.5 * half + rng.uniform(0.02, 0.48, count)).astype(np.float32)


def scores(x: Tensor, kappa: float, tie_up: bool = False) -> tuple[Tensor, Tensor]:
    """The scores of the lower and the upper level; the farther one is damped by kappa."""
    return _scores_at(x - x.detach().floor(), kappa, tie_up)


def _scores_at(t: Tensor, kappa: float, tie_up: bool = False) -> tuple[Tensor, Tensor]:
    up = t >= 0.5 if tie_up else t > 0.5
    near = torch.where(up, kappa, 1.0), torch.where(up, 1.0, kappa)
    return torch.exp(-t) * near[0], torch.exp(t - 1) * near[1]


def kernel(sigma: float) -> float:
    """What the farther level's score is multiplied by."""
    return math.exp(-1 / sigma**2)


def soft_round(x: Tensor, beta: float, sigma: float) -> Tensor:
    """The right answer."""
    low, high = scores(x, kernel(sigma))
    return x.detach().floor() + torch.sigmoid(beta * (high - low))


def soft_cases(variant: Variant) -> list[Case]:
    """Numbers of both signs, cool and hot."""
    rng, cases = variant.rng(1), []
    for group, beta in (("at a low temperature β", 1.5), ("at a high temperature β", 12.0)):
        for sigma in (0.7, 1.6, 2.5):
            x = numbers(rng, -4, 5, 40)
            args = (x, beta * rng.uniform(0.8, 1.2), sigma * rng.uniform(0.9, 1.1))
            cases.append(Case(args, group, (0,), rng.uniform(0.5, 1.5, 40).astype(np.float32)))
    return cases


def _soft(x: Tensor, beta: float, kappa: float) -> Tensor:
    low, high = scores(x, kappa)
    return x.detach().floor() + torch.sigmoid(beta * (high - low))


def _soft_squared(x: Tensor, beta: float, sigma: float) -> Tensor:
    t = x - x.detach().floor()
    low, high = scores(x, kernel(sigma))
    low, high = low * torch.exp(t - t**2), high * torch.exp(1 - t - (1 - t) ** 2)
    return x.detach().floor() + torch.sigmoid(beta * (high - low))


def _soft_truncated(x: Tensor, beta: float, sigma: float) -> Tensor:
    low, high = _scores_at(x - x.detach().trunc(), kernel(sigma))
    return x.detach().trunc() + torch.sigmoid(beta * (high - low))


def _temperature_truncated(x: np.ndarray, gamma: float, sigma: float) -> np.ndarray:
    low, high = _scores_at(torch.from_numpy(x - np.trunc(x)), kernel(sigma))
    return gamma / np.abs((high - low).numpy())


TRUNCATED = "Right for positive x, wrong for negative ones. Which two integers are around −1.25, and which is the lower?"
WIDTH = "Your kernel is too wide: σ is not a standard deviation here. Read again what is divided by what in its exponent."
NO_KERNEL = "Both levels are damped alike. Which of the two scores does the kernel leave alone, and what does it do to the other?"

SOFT_ROUND = Function(
    "soft_round",
    5,
    soft_round,
    soft_cases,
    {
        "upside down": Mistake(
            lambda x, beta, sigma: soft_round(x, 1 / beta, sigma),
            "Raise β: your result gets softer. β is an inverse temperature: which way should it go?",
        ),
        "no kernel": Mistake(lambda x, beta, sigma: _soft(x, beta, 1.0), NO_KERNEL),
        "kernel too wide": Mistake(lambda x, beta, sigma: _soft(x, beta, kernel(2**0.5 * sigma)), WIDTH),
        "kernel not squared": Mistake(
            lambda x, beta, sigma: _soft(x, beta, math.exp(-1 / sigma)),
            "Right for σ = 1 only. Look at the exponent of the kernel again.",
        ),
        "kernel swapped": Mistake(
            lambda x, beta, sigma: _soft(x, beta * kernel(sigma), 1 / kernel(sigma)),
            "Close to a level your result is drawn to the other one. Which of the two levels does the kernel damp?",
        ),
        "shares swapped": Mistake(
            lambda x, beta, sigma: soft_round(x, -beta, sigma),
            "Take x just above a level: which level should have the larger share, and which one has it with you?",
        ),
        "squared distance": Mistake(
            _soft_squared,
            "Your scores fall too slowly near a level. Which distance is in the exponent of the score?",
        ),
        "level forgotten": Mistake(
            lambda x, beta, sigma: soft_round(x, beta, sigma) - x.detach().floor(),
            "All your results are between 0 and 1. What is the share of the upper level added to?",
        ),
        "truncated": Mistake(_soft_truncated, TRUNCATED),
        "no gradient": Mistake(
            lambda x, beta, sigma: soft_round(x.detach(), beta, sigma),
            "The values are right, but no gradient reaches x. Where does x leave the graph?",
        ),
    },
    arrays="torch",
    rtol=1e-4,
    atol=2e-5,
)


def temperature(x: np.ndarray, gamma: float, sigma: float) -> np.ndarray:
    """The right answer."""
    return gamma / np.abs(difference(x, kernel(sigma)))


def difference(x: np.ndarray, kappa: float) -> np.ndarray:
    """Score of the upper level less that of the lower one."""
    low, high = scores(torch.from_numpy(np.asarray(x)), kappa)
    return (high - low).numpy()


def temperature_cases(variant: Variant) -> list[Case]:
    """Numbers of both halves of the cell."""
    rng = variant.rng(2)
    return [
        Case((numbers(rng, -3, 4, 40), rng.uniform(1.2, 3.0), sigma * rng.uniform(0.9, 1.1)))
        for sigma in (0.7, 1.6, 2.5)
    ]


def _sum_of_scores(x: np.ndarray, kappa: float) -> np.ndarray:
    low, high = scores(torch.from_numpy(np.asarray(x)), kappa)
    return (high + low).numpy()


TEMPERATURE = Function(
    "temperature",
    3,
    temperature,
    temperature_cases,
    {
        "sign": Mistake(
            lambda x, gamma, sigma: gamma / difference(x, kernel(sigma)),
            "Some of your temperatures are negative. Where, and what would they do to the shares?",
        ),
        "upside down": Mistake(
            lambda x, gamma, sigma: np.abs(difference(x, kernel(sigma))) / gamma,
            "Where the two scores are nearly equal, your temperature is small. Should it be?",
        ),
        "no kernel": Mistake(lambda x, gamma, sigma: gamma / np.abs(difference(x, 1.0)), NO_KERNEL),
        "kernel too wide": Mistake(
            lambda x, gamma, sigma: gamma / np.abs(difference(x, kernel(2**0.5 * sigma))), WIDTH
        ),
        "sum": Mistake(
            lambda x, gamma, sigma: gamma / _sum_of_scores(x, kernel(sigma)),
            "Your temperature hardly changes in a cell. What about the two scores decides how clear-cut the choice is?",
        ),
        "one for all": Mistake(
            lambda x, gamma, sigma: np.full_like(x, gamma / np.abs(difference(x, kernel(sigma))).mean()),
            "Your temperature is the same for every x. Does the controller look at all numbers or at each?",
        ),
        "truncated": Mistake(_temperature_truncated, TRUNCATED),
        "gamma forgotten": Mistake(
            lambda x, gamma, sigma: 1 / np.abs(difference(x, kernel(sigma))),
            "Your temperature does not depend on γ. What is γ for?",
        ),
    },
    rtol=1e-4,
)


def daq_round(x: Tensor, gamma: float, sigma: float, top: int) -> Tensor:
    """The right answer: the temperature is a constant for the gradient, the rescale is about the middle."""
    return _daq(x.clamp(0, top), gamma, kernel(sigma))


def _share(x: Tensor, gamma: float, kappa: float, fixed: bool = True, tie_up: bool = False) -> Tensor:
    low, high = scores(x, kappa, tie_up)
    beta = gamma / (high - low).abs()
    return torch.sigmoid((beta.detach() if fixed else beta) * (high - low))


def _stretched(m: Tensor, gamma: float) -> Tensor:
    return (m - 0.5) / (1 - 2 / (1 + math.exp(gamma))) + 0.5


def _daq(x: Tensor, gamma: float, kappa: float, **options: bool) -> Tensor:
    return x.detach().floor() + _stretched(_share(x, gamma, kappa, **options), gamma)


def daq_cases(variant: Variant) -> list[Case]:
    """Inside and outside the range, and ties."""
    rng, cases = variant.rng(3), []
    for top in (3, 7):
        for sigma in (0.9, 2.0):
            x, out = numbers(rng, 0, top, 40), numbers(rng, 1, 4, 20)
            for group, some in ((INSIDE, x), (SATURATED, np.concatenate([x[:20], -out, top + out]))):
                args = (some, rng.uniform(1.3, 2.7), sigma * rng.uniform(0.9, 1.1), top)
                cases.append(Case(args, group, (0,), rng.uniform(0.5, 1.5, len(some)).astype(np.float32)))
    return [*cases, Case((np.array([0.5, 1.5, 2.5, 4.5], np.float32), 2.0, 1.0, 7), TIES)]


def _value_with_slope(value: Tensor, through: Tensor) -> Tensor:
    return value.detach() + through - through.detach()


def _unscaled(x: Tensor, gamma: float, sigma: float, top: int) -> Tensor:
    x = x.clamp(0, top)
    return x.detach().floor() + _share(x, gamma, kernel(sigma))


def _about_the_level(x: Tensor, gamma: float, sigma: float, top: int) -> Tensor:
    x = x.clamp(0, top)
    return x.detach().floor() + _share(x, gamma, kernel(sigma)) / (1 - 2 / (1 + math.exp(gamma)))


DAQ_ROUND = Function(
    "daq_round",
    6,
    daq_round,
    daq_cases,
    {
        "temperature in the graph": Mistake(
            lambda x, gamma, sigma, top: _daq(x.clamp(0, top), gamma, kernel(sigma), fixed=False),
            "The values are right and the gradient is 0. Do you round? If not: which factor, as a function of x, cancels the slope?",
        ),
        "no rescale": Mistake(
            _unscaled,
            "Every result is off by the same amount. Which amount is that, and what undoes it?",
        ),
        "rescale about the level": Mistake(
            _about_the_level,
            "Your results are all too large by one amount. Which point should the stretching leave in its place?",
        ),
        "value alone rescaled": Mistake(
            lambda x, gamma, sigma, top: _value_with_slope(
                daq_round(x, gamma, sigma, top), _unscaled(x, gamma, sigma, top)
            ),
            "The values are right and the gradient is too small by a constant. Does the gradient pass through the rescale?",
        ),
        "straight-through": Mistake(
            lambda x, gamma, sigma, top: _value_with_slope(daq_round(x, gamma, sigma, top), x.clamp(0, top)),
            "That is the straight-through estimator: your slope is 1 wherever x is. What should be left of the softness?",
        ),
        "no clip": Mistake(
            lambda x, gamma, sigma, top: _daq(x, gamma, kernel(sigma)),
            "Your results leave the range. Which levels exist?",
        ),
        "no mask": Mistake(
            lambda x, gamma, sigma, top: _value_with_slope(
                daq_round(x, gamma, sigma, top), _daq(x, gamma, kernel(sigma))
            ),
            "Right inside the range. Move a number far outside a little: does the output move?",
        ),
        "temperature not controlled": Mistake(
            lambda x, gamma, sigma, top: soft_round(x.clamp(0, top), gamma, sigma),
            "Your results are not levels, and their error depends on x. Is your temperature the same for every x?",
        ),
        "no kernel": Mistake(
            lambda x, gamma, sigma, top: _daq(x.clamp(0, top), gamma, 1.0),
            "The values are right, but your slope grows without limit near the middle of a cell. What keeps the two scores apart there?",
        ),
        "kernel too wide": Mistake(
            lambda x, gamma, sigma, top: _daq(x.clamp(0, top), gamma, kernel(2**0.5 * sigma)), WIDTH
        ),
        "ties up": Mistake(
            lambda x, gamma, sigma, top: _daq(x.clamp(0, top), gamma, kernel(sigma), tie_up=True),
            "Only ties are wrong. Just in the middle, which of the two levels counts as the nearer one?",
        ),
    },
    arrays="torch",
    apart=(TIES,),
    rtol=1e-4,
    atol=1e-5,
)


def gap(soft: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """The right answer."""
    size = np.abs(soft.astype(np.float64) - np.rint(x))
    return float(size.mean()), float(size.max())


def gap_cases(variant: Variant) -> list[Case]:
    """Soft values of numbers, cool and hot; some of them are nearer to a level that x is not rounded to."""
    rng = variant.rng(4)
    cases = []
    for beta in (2.0, 6.0):
        x = numbers(rng, 0, 4, 50 + rng.randint(20))
        shifted = torch.from_numpy(x + rng.uniform(-0.2, 0.2, len(x)).astype(np.float32))
        cases.append(Case((soft_round(shifted, beta, 1.2).numpy(), x)))
    return cases


def _summary(size: np.ndarray) -> tuple[float, float]:
    return float(size.mean()), float(size.max())


GAP = Function(
    "gap",
    2,
    gap,
    gap_cases,
    {
        "signed": Mistake(
            lambda soft, x: _summary(soft - np.rint(x)),
            "Your mean is nearly 0. What happens to differences of two signs in a mean?",
        ),
        "against x": Mistake(
            lambda soft, x: _summary(np.abs(soft - x)),
            "That is the error of the soft value. The gap compares training with a test: what does a test compute?",
        ),
        "soft value rounded": Mistake(
            lambda soft, x: _summary(np.abs(soft - np.rint(soft))),
            "You round the soft value. Which number does a test round?",
        ),
        "squared": Mistake(
            lambda soft, x: (float(((soft - np.rint(x)) ** 2).mean() ** 0.5), gap(soft, x)[1]),
            "Your first number weights large differences more. Which mean is asked for?",
        ),
        "sum": Mistake(
            lambda soft, x: (gap(soft, x)[0] * len(x), gap(soft, x)[1]),
            "Your first number grows with the number of values. Is that a mean?",
        ),
        "order": Mistake(lambda soft, x: gap(soft, x)[::-1], "Which of the two numbers comes first?"),
        "floor": Mistake(
            lambda soft, x: _summary(np.abs(soft - np.floor(x))),
            "Your gap is larger than half a step. To which level does a test bring x?",
        ),
    },
)


def mismatch(slope: np.ndarray, below: np.ndarray, above: np.ndarray, width: float) -> float:
    """The right answer."""
    return float(np.abs(slope - (above - below) / width).mean())


def mismatch_cases(variant: Variant) -> list[Case]:
    """Slopes and the values of a staircase at both ends of windows."""
    rng = variant.rng(5)
    cases = []
    for width in (0.3, 0.7):
        x, width = numbers(rng, 0, 4, 60), width * rng.uniform(0.9, 1.1)
        ends = (np.rint(x - width / 2).astype(np.float32), np.rint(x + width / 2).astype(np.float32))
        cases.append(Case((rng.uniform(0.4, 1.2, 60).astype(np.float32), *ends, width)))
    return cases


MISMATCH = Function(
    "mismatch",
    2,
    mismatch,
    mismatch_cases,
    {
        "width forgotten": Mistake(
            lambda slope, below, above, width: mismatch(slope, below, above, 1.0),
            "A slope is a rise over a run. How long is the run?",
        ),
        "half the width": Mistake(
            lambda slope, below, above, width: mismatch(slope, below, above, width / 2),
            "How far apart are the two places at which `below` and `above` were computed?",
        ),
        "signed": Mistake(
            lambda slope, below, above, width: float((slope - (above - below) / width).mean()),
            "Your mean is too small. What happens to differences of two signs in a mean?",
        ),
        "difference of means": Mistake(
            lambda slope, below, above, width: float(abs((slope - (above - below) / width).mean())),
            "You compare two means. First compare at every x, then take the mean.",
        ),
        "ends swapped": Mistake(
            lambda slope, below, above, width: mismatch(slope, above, below, width),
            "Take a rising staircase: is your slope of the forward pass positive?",
        ),
        "squared": Mistake(
            lambda slope, below, above, width: float(((slope - (above - below) / width) ** 2).mean() ** 0.5),
            "Your number weights large differences more. Which mean is asked for?",
        ),
    },
)


def smallest_beta(variant: Variant, state: Mapping[str, Any]) -> dict[str, bool]:
    """Check the state of a GradientExplorer."""
    from qviz.explore.gradient import GradientModel

    model, wanted = GradientModel(), variant.params["GAP"]
    choice = model.restored({"kind": KIND, "soft": True, **state})
    asked = choice.kind == KIND and choice.soft and abs(choice.sigma - variant.params["SIGMA"]) < 1e-6
    good = asked and _gap(model, choice) <= wanted
    return {
        "gradient, soft forward and σ are those asked for, and the gap is small enough": good,
        "at the slider's next smaller β it is too large": good
        and _gap(model, replace(choice, beta=choice.beta - 0.5)) > wanted,
    }


def _gap(model: Any, choice: Any) -> float:
    return model.headline(choice)["quantizer gap (units of x)"] / choice.step


def smallest_beta_answer(variant: Variant) -> dict[str, Any]:
    """The state with the smallest β of the slider whose gap is small enough."""
    from qviz.explore.gradient import GradientModel

    model = GradientModel()
    choice = replace(model.of(KIND), sigma=variant.params["SIGMA"], beta=0.5)
    while _gap(model, choice) > variant.params["GAP"]:
        choice = replace(choice, beta=choice.beta + 0.5)
    return model.state(choice)


WHY = Written(
    "why",
    2,
    "- 1 point: a small β leaves a gap, so that training works on another network than the one that is tested; a large β "
    "closes the gap, and the gradient goes to 0 with it.\n"
    "- 1 point: the controller gives each x its own β, so the mixture is equally clear-cut everywhere; the constant error "
    "that is left is undone by the rescale. The forward pass is rounding, softness remains in the backward pass alone.\n"
    "- Half a point off where the temperature is said to be learned or lowered during training: DAQ does neither.",
    "At a small β the soft value is far from the level that a test uses, so what training learns fits the wrong network. At "
    "a large β the soft value is nearly a level, but then it is nearly flat, and no gradient is left. The controller makes "
    "the difference of the scores times β the same for every x, so the error is one constant, which a rescale removes. The "
    "forward pass then rounds, exactly; the slope, with the temperature held fixed, is what remains of the softness.",
)

LAB = Lab(
    name="lab2-soft-rounding",
    title="Soft rounding, its temperature, and what training gets wrong",
    version=1,
    minutes=85,
    questions=(
        SOFT_ROUND,
        TEMPERATURE,
        DAQ_ROUND,
        GAP,
        MISMATCH,
        State("smallest_beta", 2, smallest_beta, smallest_beta_answer),
        WHY,
    ),
    variants=VARIANTS,
    data=data,
)
