"""Answers: what two evaluations of a network say of the same images, and where they name another class."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qviz.core._text import some


@dataclass(frozen=True)
class Flip:
    """An image that gets another class.

    Attributes:
        image: Its number.
        expected: The class that the reference names.
        found: The other one.
        ahead: How far the reference's logit of ``expected`` is above its logit of ``found``.
        apart: The largest difference of a logit of this image; a flip needs half of ``ahead`` at least.
    """

    image: int
    expected: int
    found: int
    ahead: float
    apart: float

    def __str__(self) -> str:
        return (
            f"image {self.image}: class {self.found} for {self.expected}, which is {self.ahead:.2g} ahead "
            f"where logits differ by {self.apart:.2g}"
        )


@dataclass
class Answers:
    """The answers of two evaluations, compared.

    Attributes:
        images: How many.
        flips: Those that get another class.
        largest: The largest difference of a logit.
    """

    images: int = 0
    flips: list[Flip] = field(default_factory=list)
    largest: float = 0.0

    def add(self, own: Tensor, right: Tensor) -> Tensor:
        """Add the outputs of a batch, (N, classes) each; return the largest difference of each image."""
        own, right = own.double(), right.double()
        apart = (own - right).abs().flatten(1).amax(1)
        found, expected = (y.argmax(1, keepdim=True) for y in (own, right))
        ahead = (right.gather(1, expected) - right.gather(1, found)).flatten(1).amax(1)
        for i in (found != expected).flatten(1).any(1).nonzero().flatten().tolist():
            pair = expected[i].flatten()[0].item(), found[i].flatten()[0].item()
            self.flips.append(Flip(self.images + i, *pair, ahead[i].item(), apart[i].item()))
        self.images += len(own)
        self.largest = torch.cat([apart, apart.new_tensor([self.largest])]).max().item()
        return apart

    @property
    def agreement(self) -> float | None:
        """The share of images that get the same class, None of no image."""
        return 1 - len(self.flips) / self.images if self.images else None

    def remarks(self) -> list[str]:
        """Return a sentence on the images that get another class, if any."""
        return [f"another class for {some([f'{flip}' for flip in self.flips], 4)}"] if self.flips else []
