"""Reconstruct: block after block, the quantized network learns to give what the float network gives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qviz.nn.modules import hooked
from qviz.nn.ptq.blocks import Block, find_blocks
from qviz.nn.ptq.errors import Errors, errors
from qviz.nn.ptq.gate import Gate, Verdict
from qviz.nn.ptq.inputs import collect, quantized_layers
from qviz.nn.ptq.layerwise import SEEN
from qviz.nn.ptq.learn import Learned, Task, learn
from qviz.nn.ptq.options import Options
from qviz.nn.ptq.progress import Bar, Stopped
from qviz.nn.ptq.weights import refuse_tied
from qviz.nn.quant_layer import QuantLayer
from qviz.nn.train.interrupt import Interrupt

MEASURED = 64
"""So many held-out images tell the errors before and after."""


@dataclass(frozen=True)
class Result:
    """What became of one block.

    Attributes:
        name, layers: Of the block.
        learned: Its losses on the images that it learned from; None where nothing was learned by steps.
        verdict: Its errors on held-out images, and whether the change stayed.
        before, after: What its error consists of, on held-out images; ``after`` as it stayed.
        seconds: How long it took.
    """

    name: str
    layers: tuple[str, ...]
    learned: Learned | None
    verdict: Verdict
    before: Errors
    after: Errors
    seconds: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Result:
        """Return what ``dataclasses.asdict`` of a result, read from JSON, was made of."""
        parts = {"learned": Learned, "verdict": Verdict, "before": Errors, "after": Errors}
        parts = {name: fields[name] and kind(**fields[name]) for name, kind in parts.items()}
        return cls(**{**fields, **parts, "layers": tuple(fields["layers"])})

    def __str__(self) -> str:
        """Return a line: the errors on held-out images, and what was decided."""
        v = self.verdict
        text = (
            f"{self.name}: error {v.block_before:.4g} -> {v.block_after:.4g}, of the network's output "
            f"{v.output_before:.4g} -> {v.output_after:.4g}"
        )
        return f"{text}; {self.seconds:.0f} s" if v.accepted else f"{text}: taken back; {self.seconds:.0f} s"


def reconstruct(
    model: nn.Module,
    images: Tensor,
    gate: Gate,
    *,
    order: str = "block",
    options: Options | None = None,
    blocks: Sequence[Block] | None = None,
    skip: Collection[str] = (),
    seed: int = 0,
    show: bool = True,
    done: list[Result] | None = None,
) -> list[Result]:
    """Reconstruct a quantized network block by block, in place; labels are never read.

    Each block learns from what reaches it in the network as it is quantized so far, to give what it gives in
    the float network. Roundings are learned around the float weights (AdaRound), the activations' steps
    together with them. ``options`` say what else: ``drop=0.5`` is QDrop, ``bias_lr`` learns biases; borders
    (AQuant) are learned where the input quantizers have them.

    Ctrl-C ends it between two steps: the block at work is then as it was before, and those in ``done`` are
    finished. With the same arguments and that list it goes on, and comes to the same bits.

    Args:
        model: Converted and calibrated, in eval mode.
        images: Those to learn from, samples in axis 0.
        gate: Has the float network and the held-out images, and judges each block.
        order: "block", or "layer" for each layer by itself.
        options: How a block is learned.
        blocks: Instead of those that :func:`~qviz.nn.ptq.blocks.find_blocks` finds.
        skip: Names of layers that stay as they are.
        seed: Of all random numbers, together with the block's place.
        show: Whether to show a bar for each block.
        done: The results so far, to which others are added; the blocks that it names are left out.

    Returns:
        ``done``, one result a block that has quantized layers, in order.

    Raises:
        Stopped: It was interrupted.
        ValueError: An unknown order, a block that the model does not have, or a layer that cannot be learned,
            by name: one whose weight another module holds too, for instance.

    References:
        Nagel et al., "Up or Down?", ICML 2020, arXiv:2004.10568 (layers). Li et al., "BRECQ", ICLR 2021,
        arXiv:2102.05426 (blocks, steps). Wei et al., "QDrop", ICLR 2022, arXiv:2203.05740. Li et al.,
        "AQuant", 2022, arXiv:2208.11945 (borders, INFERRED). One stage for weights and steps together is
        QDrop's way; BRECQ's code learns weights first.
    """
    options = Options() if options is None else options
    done = [] if done is None else done
    blocks = find_blocks(gate.reference, images[:2])[0] if blocks is None else blocks
    todo = jobs(model, blocks, order, skip)
    refuse_tied(model, [name for block in todo for name in block.layers], ("weight", "bias"))
    finished = {result.name for result in done}
    with Interrupt() as pressed:
        for place, block in enumerate(todo):
            if block.name in finished:
                continue
            generator = torch.Generator().manual_seed(seed * 10_007 + place)
            title = f"{block.name} ({place + 1} of {len(todo)})"
            with Bar(title, sum(stage.iterations for stage in options.stages), pressed, show=show) as bar:
                done.append(_one(model, images, gate, block, options, generator, bar))
                bar.say(str(done[-1]))
    return done


def jobs(model: nn.Module, blocks: Sequence[Block], order: str, skip: Collection[str]) -> list[Block]:
    """Return the blocks that have layers to learn, with these layers.

    Raises:
        ValueError: An unknown order, a name that the model does not have, or a layer that cannot be learned.
    """
    if order not in ("block", "layer"):
        raise ValueError(f'order must be "block" or "layer", got {order!r}')
    if order == "layer":
        blocks = [Block(name, (name,)) for block in blocks for name in block.layers]
    modules, todo = dict(model.named_modules()), []
    for block in blocks:
        if missing := [name for name in (block.name, *block.layers) if name not in modules]:
            raise ValueError(f"the blocks name {missing[0]!r}, which the model does not have")
        layers = {name: modules[name] for name in block.layers if name not in skip}
        layers = {name: layer for name, layer in layers.items() if isinstance(layer, QuantLayer)}
        for name, layer in layers.items():
            if why := obstacle(layer):
                raise ValueError(f"layer {name!r} cannot be reconstructed: {why}")
        if layers:
            todo.append(Block(block.name, tuple(layers)))
    learned = Counter(modules[name] for block in todo for name in block.layers)
    if twice := [name for block in todo for name in block.layers if learned[modules[name]] > 1]:
        raise ValueError(f"layer {twice[0]!r} is named more than once: it can be learned in one block only")
    return todo


def obstacle(layer: QuantLayer) -> str | None:
    """Return why a layer's roundings cannot be learned around its float weight, or None."""
    for what, q in (("weight", layer.weight_quantizer), ("input", layer.input_quantizer)):
        if q is not None and not q.range.rescale:
            return f"{type(q.range).__name__} maps its {what} to another unit"
    if layer.standardize or layer.output_scale is not None:
        return "it standardizes its weight or has an output scale, so that levels are not those of the weight"
    return None


def _one(
    model: nn.Module,
    images: Tensor,
    gate: Gate,
    block: Block,
    options: Options,
    generator: torch.Generator,
    bar: Bar,
) -> Result:
    began = time.monotonic()
    module, twin = (net.get_submodule(block.name) for net in (model, gate.reference))
    layers = {
        model.get_submodule(name): gate.reference.get_submodule(name).weight.detach() for name in block.layers
    }
    trial = gate.trial(block.name)
    x, _ = collect(model, images, block.name)
    x_float, y = collect(gate.reference, images, block.name)
    observe(module, layers, x[:SEEN])
    looked_at = gate.held[:MEASURED]
    before = errors(model, gate.reference, looked_at, block.layers)
    try:
        learned = learn(Task(module, twin, layers, x, x_float, y), options, generator, bar.step)
    except Stopped:
        trial.undo()
        raise
    verdict = trial.decide()
    after = errors(model, gate.reference, looked_at, block.layers)
    return Result(block.name, block.layers, learned, verdict, before, after, time.monotonic() - began)


def whole(model: nn.Module, images: Tensor, gate: Gate, stage: Callable[..., object]) -> Result:
    """Run a stage that works on the whole network, and keep what it did if held-out images say so.

    Args:
        model: Converted and calibrated, in eval mode.
        images: What the stage works with.
        gate: Has the float network and the held-out images.
        stage: Called as ``stage(model, images, reference=…)``.

    Raises:
        Stopped: It was interrupted; the network is then as it was before the stage.
    """
    began, name = time.monotonic(), "the network"
    layers = tuple(quantized_layers(model, images))
    trial = gate.trial("")
    before = errors(model, gate.reference, gate.held[:MEASURED], layers)
    try:
        stage(model, images, reference=gate.reference)
    except KeyboardInterrupt:
        trial.undo()
        raise Stopped(f"{name} was stopped, and is as it was before") from None
    verdict = trial.decide()
    after = errors(model, gate.reference, gate.held[:MEASURED], layers)
    return Result(name, layers, None, verdict, before, after, time.monotonic() - began)


@torch.no_grad()
def observe(module: nn.Module, layers: Iterable[QuantLayer], x: Tensor) -> None:
    """Set the input quantizers of a module's layers anew, each on what reaches it; weights stay.

    Args:
        module: The module, in eval mode.
        layers: Its layers.
        x: The module's input.
    """

    def before(layer: QuantLayer, args: tuple[Tensor], kwargs: dict[str, Any]) -> None:
        if layer.input_quantizer is not None:
            layer.input_quantizer.observe(layer._batched(args[0]))

    with hooked(layers, before=before):
        module(x)
