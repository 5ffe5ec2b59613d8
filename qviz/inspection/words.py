"""Words: the figures of an inspection as texts, the same wherever they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qviz.core._text import count
from qviz.inspection.loss import UNITS
from qviz.inspection.views import Codes, LayerView, Trial, Values

if TYPE_CHECKING:
    from qviz.inspection.choices import Budget
    from qviz.inspection.inspection import Inspection

WORTH = 1.0
"""In dB: a gain that is spoken of."""

HEAD = (
    "layer",
    "kind",
    "weights",
    "bits",
    "weight dB",
    "input dB",
    "local dB",
    "cumulative dB",
    "alone",
    "without",
)
"""The columns of the table of layers."""


def legend(found: Inspection) -> str:
    """Return what the columns mean, in two lines."""
    costs = "alone: what the layer costs if it alone is quantized; without: what is gained if it alone is not"
    return (
        "bits of weight/input; local: on the inputs of the float network; cumulative: in the quantized one;\n"
        f"{costs}; both in {UNITS[found.loss]}"
    )


def bought(budget: Budget) -> tuple[str, str]:
    """Return the title of a bit budget, and what its losses are."""
    return (
        f"What bits of weights buy, by the estimate {budget.by!r}",
        f"predicted and measured: {UNITS[budget.loss]}",
    )


def figures(layer: LayerView) -> tuple[float | None, ...]:
    """Return the numbers behind the last six columns: ratios in dB, and what the layer costs."""
    codes = [None if values is None else values.codes for values in (layer.weight, layer.input)]
    ratios = [None if one is None else one.sqnr_db for one in codes]
    outputs = [None] * 2 if layer.outputs is None else [layer.outputs.local, layer.outputs.cumulative]
    costs = [None] * 2 if layer.sensitivity is None else [layer.sensitivity.on, layer.sensitivity.off]
    return (*ratios, *outputs, *costs)


def cells(layer: LayerView) -> tuple[str, ...]:
    """Return the line of a layer in the table."""
    found = figures(layer)
    return (
        called(layer.name),
        layer.kind,
        "x".join(map(str, layer.shape)),
        widths(layer),
        *map(db, found[:4]),
        *map(cost, found[4:]),
    )


def widths(layer: LayerView) -> str:
    """Return the measured bits of weight and input; "fp" for what stays in floating point."""
    codes = [None if values is None else values.codes for values in (layer.weight, layer.input)]
    return "/".join("fp" if one is None else str(one.bits) for one in codes)


def called(name: str) -> str:
    """Return a layer's name; the model itself has none."""
    return name or "(the model itself)"


def db(value: float | None) -> str:
    """Return a ratio to a tenth of a decibel; "" where there is none."""
    return "" if value is None else f"{value:z.1f}"


def cost(value: float | None) -> str:
    """Return a difference of losses to three digits; "" where there is none."""
    return "" if value is None else f"{value:.3g}"


def tried(trial: Trial) -> str:
    """Return what was tried on a layer, and what it gained."""
    if trial.gain is None:
        return f"{trial.what}: {trial.note}"
    return f"{trial.what}: {trial.gain:+z.1f} dB" + (f" ({trial.note})" if trial.note else "")


def trials(layer: LayerView) -> list[str]:
    """Return what was tried on a layer, in lines: what gained most, what did not, what cannot be had."""
    had = sorted((trial for trial in layer.trials if trial.gain is not None), key=lambda trial: -trial.gain)
    good, idle = ([trial for trial in had if (trial.gain >= WORTH) is worth] for worth in (True, False))
    lines = [f"tried: {'; '.join(map(tried, good))}"] if good else []
    if idle:
        ends = dict.fromkeys(f"{trial.gain:+z.1f}" for trial in (idle[-1], idle[0]))
        lines.append(f"tried, {' to '.join(ends)} dB: {'; '.join(trial.what for trial in idle)}")
    whys: dict[str, list[str]] = {}
    for trial in layer.trials:
        if trial.gain is None:
            whys.setdefault(trial.note, []).append(trial.what)
    return lines + [f"not tried: {'; '.join(whats)}, as {why}" for why, whats in whys.items()]


def heading(found: Inspection) -> str:
    """Return what was inspected, and its totals, in three lines."""
    agree = "" if found.whole.agreement is None else f", the same class for {found.whole.agreement:.1%}"
    packed = (
        f"cannot be packed: {found.size.why}"
        if found.size.packed is None
        else f"{found.size.packed:,} bytes packed"
    )
    return (
        f"{found.model}, {found.pair}: {len(found.quantized)} of {count(len(found.layers), 'layer')} "
        f"quantized, {count(found.samples, 'sample')}\n"
        f"outputs: {found.whole.db:z.1f} dB{agree}; {UNITS[found.loss]}: {found.whole.loss:+.4g}\n"
        f"{found.size.floats:,} bytes in float32, {packed}"
    )


def facts(layer: LayerView) -> list[tuple[str, str, str]]:
    """Return names, figures of a layer's weight and figures of its input; "" where there is none."""
    columns = [{} if values is None else _facts(values) for values in (layer.weight, layer.input)]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [(name, *(column.get(name, "") for column in columns)) for name in names]


def _facts(values: Values) -> dict[str, str]:
    found = {
        "values": f"{values.count:,}",
        "range": f"{values.low:.4g} to {values.high:.4g}",
        "mean": f"{values.mean:.4g}",
        "standard deviation": f"{values.std:.4g}",
        "kurtosis": f"{values.kurtosis:.4g}",
        "largest / 99.9 % lie below": f"{values.tail:.4g}",
        "below a millionth of the largest": f"{values.tiny:.2%}",
        "channels": f"{values.channels:,}",
        "channels of next to nothing": f"{values.dead:,}",
        "narrowest to widest channel": f"{values.narrowest:.4g} to {values.widest:.4g}",
        "widest / narrowest": f"{values.spread:.4g}",
    }
    return found | ({"quantizer": "none, floating point"} if values.codes is None else _coded(values.codes))


def _coded(codes: Codes) -> dict[str, str]:
    found = {
        "quantizer": codes.recipe or "not known",
        "bits, measured": str(codes.bits),
        "levels that serve a value": f"{codes.used:,} of {codes.levels:,}",
        "entropy of the codes (bits)": f"{codes.entropy:.2f}",
        "mean squared error": f"{codes.mse:.4g}",
        "signal to noise (dB)": db(codes.sqnr_db),
        "saturated": f"{codes.saturated:.2%}",
        "read as 0": "0 is no level" if codes.zeros is None else f"{codes.zeros:.2%}",
    }
    return found | ({"to be known": codes.note} if codes.note else {})


def outputs(layer: LayerView) -> list[tuple[str, str]]:
    """Return what is known of a layer's output: names and ratios, and what the layer costs."""
    found = []
    if layer.outputs is not None:
        of = layer.outputs
        both = (("local", of.local), ("cumulative", of.cumulative))
        alone = (("weight alone", of.weight), ("input alone", of.input))
        found += [(f"output, {name} (dB)", db(value)) for name, value in (*both, *alone) if value is not None]
    if layer.sensitivity is not None:
        found += [
            ("cost, quantized alone", cost(layer.sensitivity.on)),
            ("gain, left in floating point", cost(layer.sensitivity.off)),
        ]
    return found
