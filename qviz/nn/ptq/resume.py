"""Resume: a run that was stopped in another process goes on, from what was written of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from qviz.nn.ptq.front import begin
from qviz.nn.ptq.reconstruct import Result
from qviz.nn.ptq.report import PTQReport
from qviz.nn.ptq.settings import Settings, checked, split
from qviz.nn.train.packing import load_into


def taken_up(
    model: nn.Module,
    images: Tensor,
    settings: Settings,
    tensors: Mapping[str, Tensor],
    figures: Mapping[str, Any],
) -> PTQReport:
    """Bring a fresh model to where a run was stopped; return the report that ``ptq(resume=)`` goes on from.

    Args:
        model: As it was given to :func:`~qviz.nn.ptq.front.ptq`, with its own blocks.
        images: The same as then.
        settings: The same as then.
        tensors: The state of the model where it was stopped.
        figures: What :meth:`PTQReport.to_dict` of that time said.

    Raises:
        CheckpointError: The tensors are those of another model.
    """
    began = time.monotonic()
    report = begin(model, split(checked(images), settings.seed)[0], settings, None)
    load_into(model, tensors, "the run that was stopped")
    report.results = [Result.of(result) for result in figures["results"]]
    for name in ("images", "held", "source", "output_first"):
        setattr(report, name, figures[name])
    report.seconds = figures["seconds"] + time.monotonic() - began
    return report
