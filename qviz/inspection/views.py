"""Views: what an inspection says of a layer, in plain numbers and words that JSON can hold."""

from __future__ import annotations

from dataclasses import dataclass

EMPTY = 1e-4
"""A channel counts as 0 below this share of the widest; the ResNet-20 has weights of 1e-23 from its decay."""

PLACED = "PTQ chose the levels for the layer's output; the error is that against the float weight"
"""What is to be known of the codes of a weight that lies on its grid, where the float weight is given."""

Floats = tuple[float, ...]
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Codes:
    """What a quantizer makes of a tensor.

    Attributes:
        recipe: The call that made the quantizer, such as "lsq(bits=4)"; "" where it is not known.
        bits: That a stored code needs, measured: of the largest code that was met.
        levels: Of the codebook.
        used: How many levels served a value.
        entropy: Of the codes, in bits: what an ideal coder would need for each.
        mse: The mean squared error, in units of the values squared.
        sqnr_db: 10 log10 (energy of the values / energy of the error).
        saturated: The share of values that lie more than half a cell beyond the outermost knots.
        zeros: The share of values that are read as 0; None where 0 is no level.
        positions: Where the levels lie, in the histogram's unit.
        counts: How many values each level served.
        note: What one should know to read the figures, or "".
    """

    recipe: str
    bits: int
    levels: int
    used: int
    entropy: float
    mse: float
    sqnr_db: float
    saturated: float
    zeros: float | None
    positions: Floats
    counts: Ints
    note: str = ""


@dataclass(frozen=True)
class Values:
    """What a weight, or all that a layer read, is made of.

    Attributes:
        count: How many values there were.
        low, high: The smallest and the largest.
        mean, std: Mean and standard deviation.
        kurtosis: The fourth moment over the squared variance: 3 of a normal distribution, 1.8 of a uniform
            one; 0 where all values are equal.
        tiny: The share of values below a millionth of the largest, exact zeros included.
        tail: The largest absolute value over the one that 99.9 % are below.
        channels: How many there are: output channels of a weight, input channels of an input.
        dead: Channels that hold zeros, or next to nothing: at most :data:`EMPTY` of the widest.
        narrowest, widest: The least and the greatest, over all other channels, of a channel's largest
            absolute value.
        ranges: Each channel's largest absolute value.
        unit: Of the histogram: "value", or "step" where channels, groups or samples have a step each.
        edges, heights: The histogram: ends of its bins and how many values are in each.
        sample: How many values the histogram, the moments, ``tiny`` and ``tail`` are of: all of them, or so
            many at equal distances.
        codes: What the quantizer makes of them; None where they stay in floating point.
    """

    count: int
    low: float
    high: float
    mean: float
    std: float
    kurtosis: float
    tiny: float
    tail: float
    channels: int
    dead: int
    narrowest: float
    widest: float
    ranges: Floats
    unit: str
    edges: Floats
    heights: Ints
    sample: int
    codes: Codes | None = None

    @property
    def spread(self) -> float:
        """How many times wider the widest channel is than the narrowest; 1 for a single one."""
        return self.widest / self.narrowest if self.narrowest > 0 else 1.0


@dataclass(frozen=True)
class Outputs:
    """Signal-to-quantization-noise ratios of a layer's output, in dB; None where that was not quantized.

    Attributes:
        local: On the inputs that the layer has in the float network.
        cumulative: In the quantized network, on the inputs that the layers before it give there.
        weight: As ``local``, with the weight alone quantized.
        input: As ``local``, with the input alone quantized.
        fitted: Whether each ratio is that after the best factor and offset of each channel, because the
            layer's output has a unit of its own, which the BatchNorm behind it takes away.
    """

    local: float | None
    cumulative: float | None
    weight: float | None
    input: float | None
    fitted: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """What one layer does to the network's loss; in the inspection's unit, see ``Inspection.loss``.

    Attributes:
        on: The loss when this layer alone is quantized, less that of the float network.
        off: The loss of the quantized network, less that with this layer alone in floating point: what
            leaving it would gain.
    """

    on: float
    off: float


@dataclass(frozen=True)
class Cause:
    """Why a layer may be bad: one figure that passed its threshold.

    Attributes:
        kind: A short name, such as "channel spread".
        figure: What was measured.
        threshold: From where on it counts.
        text: The sentence.
    """

    kind: str
    figure: float
    threshold: float
    text: str


@dataclass(frozen=True)
class Trial:
    """What was tried on a layer by itself.

    Attributes:
        what: Such as "a step for each channel".
        db: The layer's local output SQNR with it, in dB; None where it cannot be had.
        gain: By how much that is more than now, in dB; None likewise.
        note: Why it cannot be had, or what else is to be known.
    """

    what: str
    db: float | None
    gain: float | None
    note: str = ""


@dataclass(frozen=True)
class LayerView:
    """All that an inspection says of one layer.

    Attributes:
        name: The layer's, as ``model.named_modules()`` has it.
        kind: "Conv2d", "depthwise Conv2d", "Linear", or the class's name.
        shape: Of the weight.
        parameters: That the float layer has.
        quantized: Whether weight or input is.
        why: Why not, or remarks; "" for none.
        weight: The weight, standardized where the layer reads it so, or, of one that PTQ has put on its grid,
            the float one with the codes that it got; None of a layer that is not quantized.
        input: What the layer read in the float network; None likewise, and where no image reached it.
        outputs: Ratios of its output; None where it is not quantized.
        sensitivity: None where it was not asked for, or the layer is not quantized.
        causes: From the worst to the least.
        trials: What was tried, for the worst layers.
    """

    name: str
    kind: str
    shape: Ints
    parameters: int
    quantized: bool
    why: str = ""
    weight: Values | None = None
    input: Values | None = None
    outputs: Outputs | None = None
    sensitivity: Sensitivity | None = None
    causes: tuple[Cause, ...] = ()
    trials: tuple[Trial, ...] = ()
