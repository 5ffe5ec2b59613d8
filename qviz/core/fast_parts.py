"""Fast parts: what the fast path has to know of a quantizer's four parts, its spec and its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qviz.core.fast import Spec

if TYPE_CHECKING:
    from qviz.core.quantizer import Quantizer


def spec(q: Quantizer) -> Spec | None:
    """Return what the fast path needs to know besides tensors; None where only the composition serves."""
    book, slope = q.codebook, q.surrogate.closed_form()
    whole = book.unit and q.rounding.rounds_integers and (book.identity or book.affine is not None)
    if slope is None or (slope != 1.0 and not whole):
        return None
    return Spec(
        ends=(book.lo, book.hi) if whole else None,
        affine=book.affine if whole and not book.identity else None,
        slope=None if slope == 1.0 else slope,
        clipped=q.surrogate.clipped,
        open=book.open,
        soft=q.range.through == "soft",
        rescale=q.range.rescale,
    )


def tables(q: Quantizer, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return knots, levels (None where they are the knots) and borders; made once for fixed ones."""
    book = q.codebook
    sources = (book.knots, book.levels, *q.rounding.buffers(recurse=False))
    fixed = not torch.compiler.is_compiling() and not any(
        t.requires_grad or t.is_inference() for t in sources
    )
    if fixed:
        key = (dtype, *((id(t), t._version) for t in sources))
        if q._kept is not None and q._kept[0] == key:
            return q._kept[2]
    borders = q.rounding.borders(book)
    made = (
        book.knots.to(dtype),
        None if book.identity else book.levels.to(dtype),
        None if borders is None else borders.detach().to(dtype),
    )
    if fixed:  # the sources are kept too, or their ids could come again
        q._kept = key, sources, made
    return made
