"""Gate: a change to a block stays only if images that it was not made from say so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qviz.nn.modules import eager, evaluating
from qviz.nn.ptq.inputs import BATCH, collect
from qviz.nn.ptq.learn import loss


@dataclass(frozen=True)
class Verdict:
    """What held-out images say of a change; errors are :func:`distance` from the float network.

    Attributes:
        accepted: Whether the change stayed.
        block_before, block_after: The error of the block's output.
        output_before, output_after: The error that the network's output has if everything after the block is
            in floating point.
    """

    accepted: bool
    block_before: float
    block_after: float
    output_before: float
    output_after: float


class Gate:
    """Accepts a change to a block, or takes it back.

    It stays if neither the block's nor the network's error on held-out images has grown: a block's error can
    fall while the network gets worse. The network's is measured with the blocks so far as they are and the
    rest in floating point. With the rest rounded to nearest instead, two bits wide, what comes later drowns
    the block's own share: on the shipped ResNet-20 two good blocks of nine were taken back.

    Args:
        model: The quantized network, changed block by block.
        reference: The same in floating point.
        held: Images that no change is made from, samples in axis 0.
        strict: False measures the same and accepts everything.

    Raises:
        ValueError: There is no image, or the network's output is no tensor.
    """

    def __init__(self, model: nn.Module, reference: nn.Module, held: Tensor, *, strict: bool = True) -> None:
        if len(held) == 0:
            raise ValueError("there is no image to hold out: give more images, or gate=False")
        self.model, self.reference, self.held, self.strict = model, reference, held, strict
        self._wanted = _run(reference, held)

    def output_error(self) -> float:
        """Return the error of the network's output."""
        return distance(_run(self.model, self.held), self._wanted)

    def error_after(self, name: str, y: Tensor) -> float:
        """Return the error of the float network's output if the named module gave y."""
        parts = iter(y.split(BATCH))
        module = self.reference.get_submodule(name)
        with eager(), module.register_forward_hook(lambda *_: next(parts)):
            return distance(_run(self.reference, self.held), self._wanted)

    def agreement(self) -> float | None:
        """Return the share of images that get the same class as in floating point; None without classes."""
        if self._wanted.ndim != 2 or self._wanted.shape[1] < 2:
            return None
        same = _run(self.model, self.held).argmax(1) == self._wanted.argmax(1)
        return float(same.double().mean())

    def trial(self, name: str) -> Trial:
        """Remember a block as it is; :meth:`Trial.decide` then judges what became of it.

        Args:
            name: A module with one tensor in and one out.
        """
        return Trial(self, name)


class Trial:
    """One change to one block."""

    def __init__(self, gate: Gate, name: str) -> None:
        self._gate, self._name, self._block = gate, name, gate.model.get_submodule(name)
        self._x, _ = collect(gate.model, gate.held, name)
        _, self._y = collect(gate.reference, gate.held, name)
        self._kept = [
            (module, dict(module._parameters), {k: _copy(t) for k, t in _tensors(module).items()})
            for module in self._block.modules()
            if not isinstance(module, torch.jit.ScriptModule)  # none of its parameters changes
        ]
        self._before = self._errors()

    def decide(self) -> Verdict:
        """Measure again, and undo the change if it is not accepted."""
        after = self._errors()
        better = all(new <= old for new, old in zip(after, self._before, strict=True))  # False for NaN
        accepted = better or not self._gate.strict
        if not accepted:
            self.undo()
        return Verdict(accepted, self._before[0], after[0], self._before[1], after[1])

    @torch.no_grad()
    def undo(self) -> None:
        """Put parameters and buffers back, in the same parameter objects."""
        for module, parameters, values in self._kept:
            module._parameters.update(parameters)
            for name, value in values.items():
                if name not in parameters:
                    module._buffers[name] = value
                elif value is not None:
                    parameters[name].copy_(value)

    def _errors(self) -> tuple[float, float]:
        with evaluating(self._block):
            y = _run(self._block, self._x)
        return distance(y, self._y), self._gate.error_after(self._name, y)


@torch.no_grad()
def distance(out: Tensor, wanted: Tensor) -> float:
    """Return :func:`~qviz.nn.ptq.learn.loss` as a number."""
    return float(loss(out, wanted))


@torch.no_grad()
def _run(model: nn.Module, x: Tensor) -> Tensor:
    with evaluating(model):
        parts = [model(part) for part in x.split(BATCH)]
    if not isinstance(parts[0], Tensor):
        raise ValueError(f"the output must be a tensor to be compared, got {type(parts[0]).__name__}")
    return torch.cat(parts)


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return module._parameters | module._buffers


def _copy(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.detach().clone()
