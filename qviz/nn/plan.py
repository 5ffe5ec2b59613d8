"""Plan: what `convert` will do to each layer, settled before anything is changed."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed, nn

from qviz.core.quantizer import Quantizer
from qviz.methods.lsq import lsq
from qviz.methods.method import Pair
from qviz.nn.batches import Batch, batches_of
from qviz.nn.calibration import run, several
from qviz.nn.flow import Flow
from qviz.nn.own_forward import quantized
from qviz.nn.past import Past
from qviz.nn.quant_layer import QuantLayer

Bits = int | tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What one layer gets; the arguments of :class:`~qviz.nn.layers.QuantLayer`, and a note."""

    weight_quantizer: Quantizer | None
    input_quantizer: Quantizer | None
    standardize: bool = False
    output_scale: bool = False
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether it changes nothing."""
        return self.weight_quantizer is None and self.input_quantizer is None

    def carry_out(self, layer: nn.Module) -> QuantLayer:
        """Quantize the layer and return it."""
        return quantized(type(layer)).adopt(
            layer,
            weight_quantizer=self.weight_quantizer,
            input_quantizer=self.input_quantizer,
            standardize=self.standardize,
            output_scale=self.output_scale,
        )


def pairs(
    pair: Pair | Mapping[str, Pair | None], bits: Mapping[str, Bits] | None, names: Names
) -> tuple[dict[str, Pair | None], set[str]]:
    """Return the pair of each layer, and the layers that were named.

    Raises:
        TypeError: a pair is none.
        ValueError: a name is that of no layer; bits without one pair for all; what the recipes refuse.
    """
    if isinstance(pair, Mapping):
        if bits:
            raise ValueError(f"bits by layer go with one pair, and not with a pair by layer; got bits={bits}")
        given = {names.one(name, "pair"): value for name, value in pair.items()}
    else:
        given = dict.fromkeys(names.layers, pair)
    for one in given.values():
        if not (isinstance(one, Pair) or (one is None and isinstance(pair, Mapping))):
            raise TypeError(f"pair must be a Pair as qviz.recipes.pair returns it, got {one!r}")
    exceptions = {names.one(name, "bits"): value for name, value in (bits or {}).items()}
    for name, value in exceptions.items():
        given[name] = pair.with_bits(*value) if isinstance(value, tuple) else pair.with_bits(value)
    return given, set(given if isinstance(pair, Mapping) else exceptions)


def plan(pair: Pair | None, name: str, layer: nn.Module, signed: bool) -> Plan:
    """Make the quantizers of one layer; none for None.

    Raises:
        ValueError: what the recipes refuse.
        TypeError: what a recipe returns is no quantizer.
    """
    if pair is None:
        return Plan(None, None)
    with torch.device("cpu"):  # whatever the default is: they follow the layer later
        w = None if pair.weight is None else _quantizer(pair.weight(layer), "weight", name)
        a = None if pair.act is None else _quantizer(pair.act(layer, signed), "act", name)
    return Plan(w, a, pair.standardize, pair.output_scale, _substitute(pair.act, a))


def eight_bits(signed: bool) -> Plan:
    """Return the plan of the policy "8bit": LSQ."""
    with torch.device("cpu"):
        return Plan(lsq(8), lsq(8, signed=signed), note="8-bit LSQ")


def _quantizer(made: Any, what: str, name: str) -> Quantizer | None:
    if made is not None and not isinstance(made, Quantizer):
        raise TypeError(f"{what} must return a Quantizer for layer {name!r}, got {type(made).__name__}")
    return made


def _substitute(act: Callable[..., Quantizer] | None, made: Quantizer | None) -> str:
    """Return a note where a signed input gets another recipe than the pair is named for."""
    usual = getattr(act, "name", "")
    if not usual or made is None or made.recipe is None or made.recipe.name == usual:
        return ""
    return f"signed input: {made.recipe.name} instead of {usual}"


@dataclass(frozen=True)
class Order:
    """In which order the layers run, and whether their inputs may be negative.

    Attributes:
        names: of the layers that run, by their first call.
        last: the one whose call is the last.
        negative: by name, for these layers.
        past: those whose weight something else reads too.
        replaced: the forward hooks that replace the output of those that run, see
            :meth:`qviz.nn.flow.Flow.replaced`.
    """

    names: tuple[str, ...]
    last: str | None
    negative: Mapping[str, bool]
    past: frozenset[str] = frozenset()
    replaced: Mapping[nn.Module, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, layers: Mapping[str, nn.Module], batch: Batch | None) -> Order:
        """Watch one pass of the batch; without one, take the order of registration."""
        if batch is None:
            names = tuple(layers)
            return cls(names, names[-1] if names else None, {name: i == 0 for i, name in enumerate(names)})
        calls: list[str] = []
        negative: dict[str, Any] = dict.fromkeys(layers, False)
        known = {layer: name for name, layer in layers.items()}

        def watch(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            if x.numel():  # zero rows, of an expert that nothing was sent to, do not reach it
                calls.append(known[layer])
                negative[known[layer]] |= (x < 0).any()  # no number yet, which could steer what follows

        with Past(known) as past, Flow(known) as flow:
            for one in batches_of(batch):
                flow.see(run(model, one, known, watch))
        negative = {name: bool(any_is) for name, any_is in negative.items()}
        if several():  # another process may see a negative value where this one does not
            device = next(iter(known)).weight.device
            seen = torch.tensor(list(negative.values()), dtype=torch.int32, device=device)
            distributed.all_reduce(seen, distributed.ReduceOp.MAX)
            negative = dict(zip(negative, seen.bool().tolist(), strict=True))
        elsewhere = frozenset(known[layer] for layer in past.layers)
        last = calls[-1] if calls else None
        return cls(tuple(dict.fromkeys(calls)), last, negative, elsewhere, flow.replaced(model))

    def roles(self) -> dict[str, str]:
        """Return which layers are first and last."""
        if not self.names:
            return {}
        first = self.names[0]
        return {first: "first and last"} if first == self.last else {first: "first", self.last: "last"}


class Names:
    """Every name of every layer: a shared one has several.

    Args:
        model: that has them.
        layers: by their first name.

    Attributes:
        layers: these first names.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        first = {layer: name for name, layer in layers.items()}
        self.layers = tuple(layers)
        everywhere = model.named_modules(remove_duplicate=False)
        self._first = {name: first[module] for name, module in everywhere if module in first}

    def one(self, name: str, what: str) -> str:
        """Return the first name of the layer that has ``name``.

        Raises:
            ValueError: no layer has it.
        """
        if name not in self._first:
            raise ValueError(f"{what} names {name!r}, which is no layer that can be quantized")
        return self._first[name]

    def matching(self, patterns: str | Iterable[str]) -> set[str]:
        """Return the first names of the layers that match any of the patterns.

        Raises:
            ValueError: a pattern matches none.
        """
        found: set[str] = set()
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            hits = {first for name, first in self._first.items() if fnmatch.fnmatchcase(name, pattern)}
            if not hits:
                raise ValueError(f"skip names {pattern!r}, which matches no layer that can be quantized")
            found |= hits
        return found

    def aliases(self, name: str) -> str:
        """Return a note with the other names of a layer, if it has any."""
        others = [alias for alias, first in self._first.items() if first == name != alias]
        return f"also {', '.join(others)}" if others else ""
