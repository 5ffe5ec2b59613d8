"""Blocks: where a network can be cut into parts that have one input and one output."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qviz.core._text import article
from qviz.nn.batches import Batch, batches_of, forward
from qviz.nn.modules import eager, evaluating


@dataclass(frozen=True)
class Block:
    """A module whose layers are reconstructed together.

    Attributes:
        name: The module's name.
        layers: The names of its convolutions and linear layers, in the order in which they run.
    """

    name: str
    layers: tuple[str, ...]


@dataclass
class _Call:
    """A call of a module: the nodes of autograd's graph that gave its input and its output."""

    before: Any
    after: Any
    single: bool

    @property
    def ends(self) -> tuple[Any, Any]:
        return self.before, self.after


def find_blocks(
    model: nn.Module, batch: Batch, layers: Iterable[str] | None = None
) -> tuple[list[Block], list[str]]:
    """Cut a network into residual blocks and single layers, by the graph of one run.

    Between two tensors through which everything passes (two *cuts*) lies either a single layer or layers that
    a shortcut bridges. The latter make a block: the smallest module that holds them all. Modules of the same
    class are blocks too (MobileNetV2's inverted residuals without a shortcut). All other layers stand alone.

    Args:
        model: A network in floating point; it stays as it is.
        batch: As for :func:`~qviz.nn.calibration.calibrate`, the first of a loader; a few samples are enough.
        layers: The names of those that are to be in blocks; default: every nn.Conv2d and nn.Linear.

    Returns:
        The blocks in the order in which they run, and a sentence for whatever could not be cut as it should
        be: those layers stand alone, or are left out where they run more than once.

    Raises:
        TypeError, ValueError: The batch is nothing that the model takes.

    References:
        Li et al., "BRECQ", ICLR 2021, arXiv:2102.05426, section 3.2: blocks as the granularity; that they are
        found by the graph is this project's way.

    Example:
        >>> from qviz.nn.models import create
        >>> blocks, notes = find_blocks(create("resnet20"), torch.rand(1, 3, 32, 32))
        >>> [block.name for block in blocks][:3], blocks[1].layers, len(blocks), notes
        (['conv1', 'layer1.0', 'layer1.1'], ('layer1.0.conv1', 'layer1.0.conv2'), 11, [])
    """
    calls, out, source = _watch(model, batch)
    if layers is None:
        layers = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    several = [name for name in layers if len(calls.get(name, ())) > 1]
    notes = [f"{name!r} runs {len(calls[name])} times and is left out" for name in several]
    order = [name for name in calls if name in set(layers) and len(calls[name]) == 1]
    if not isinstance(out, Tensor):
        return _alone(order), [*notes, f"the output is {article(type(out).__name__)}: no blocks, layers only"]
    position = _positions(out.grad_fn, source)
    groups: dict[int, list[str]] = {}
    for name in order:
        between = position.get(calls[name][0].after)
        if between is not None:
            groups.setdefault(between, []).append(name)
    alone = {
        name
        for name, found in calls.items()
        if len(found) == 1 and found[0].single and {position.get(n, 0) for n in found[0].ends} == {None}
    }
    found, more = _modules(model, alone, order, list(groups.values()))
    return found, notes + more


def _watch(model: nn.Module, batch: Batch) -> tuple[dict[str, list[_Call]], Any, Any]:
    """Run the model once; return each module's calls in order, the output, and the node of the input."""
    calls: dict[str, list[_Call]] = {}
    modules = {name: module for name, module in model.named_modules() if name}
    names = {m: name for name, m in modules.items() if not isinstance(m, torch.jit.ScriptModule)}  # no hooks

    def note(module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
        single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(out, Tensor)
        call = _Call(args[0].grad_fn, out.grad_fn, True) if single else _Call(None, None, False)
        calls.setdefault(names[module], []).append(call)

    source: list[Any] = []
    with ExitStack() as stack:
        for module in names:
            stack.enter_context(module.register_forward_hook(note, with_kwargs=True))
        stack.enter_context(model.register_forward_pre_hook(lambda m, args: _follow(args, source)))
        with evaluating(model), eager(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            out = forward(model, next(batches_of(batch)))
    return calls, out, source[0] if source else None


def _follow(args: tuple, source: list[Any]) -> tuple:
    """Give the model an input whose way through it autograd records."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return args
    x = args[0].detach().requires_grad_(True) * 1.0
    source.append(x.grad_fn)
    return (x, *args[1:])


def _positions(out: Any, source: Any) -> dict[Any, int | None]:
    """Return, for each node between input and output, how many cuts lie before it; None if it is one itself.

    A node is a cut where all paths from the input to the output pass it: where (paths to it) times (paths
    from it) is the number of all paths.
    """
    order, ways, stack, seen = [source], {source: 1}, [(out, False)], {source}
    while stack:
        node, done = stack.pop()
        before = [n for n, _ in node.next_functions if n is not None]
        if done:  # all that it reads from comes before it
            ways[node] = sum(ways[n] for n in before)
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack += [(node, True), *((n, False) for n in before)]
    on = dict.fromkeys(order, 0) | {out: 1}
    for node in reversed(order):
        for n, _ in node.next_functions:
            if n in on:
                on[n] += on[node]
    position, cuts = {}, 0
    for node in order:
        if ways[node] and on[node]:
            cut = ways[node] * on[node] == ways[out]
            position[node] = None if cut else cuts
            cuts += cut
    return position


def _modules(
    model: nn.Module, alone: set[str], order: list[str], groups: list[list[str]]
) -> tuple[list[Block], list[str]]:
    """Return blocks: the modules that hold the groups, those of the same classes, and single layers.

    Args:
        model: The network.
        alone: The names of the modules that have one input and one output, both of them cuts.
        order: The layers' names in the order in which they run.
        groups: Those that a shortcut bridges, together.
    """
    found = {tuple(group): _home(group) for group in groups}
    for group, home in found.items():
        while home and home not in alone:
            home = home.rpartition(".")[0]
        found[group] = home
    notes, homes = [], {}
    for group, home in found.items():
        holds_another = any(h == home or h.startswith(home + ".") for g, h in found.items() if g != group)
        if home and not holds_another:
            homes[home] = type(model.get_submodule(home))
        else:
            notes.append(f"no module holds just {', '.join(group)}: each is taken by itself")
    kinds = set(homes.values()) - {nn.Sequential}
    homes |= {name: type(m) for name, m in model.named_modules() if type(m) in kinds and name in alone}
    blocks: dict[str, list[str]] = {}
    for name in order:
        home = min((h for h in homes if name.startswith(h + ".")), key=len, default=name)
        blocks.setdefault(home, []).append(name)
    return [Block(home, tuple(names)) for home, names in blocks.items()], notes


def _home(group: list[str]) -> str:
    """Return the name of the innermost module that holds all the layers."""
    paths = [name.split(".")[:-1] for name in group]
    shared = paths[0]
    for path in paths[1:]:
        same = [a == b for a, b in zip(shared, path, strict=False)]
        shared = shared[: same.index(False) if False in same else len(same)]
    return ".".join(shared)


def _alone(order: list[str]) -> list[Block]:
    return [Block(name, (name,)) for name in order]
