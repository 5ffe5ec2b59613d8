"""Objective: the loss of a batch, and its score."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qviz.nn.batches import call
from qviz.nn.train import batch as batches
from qviz.nn.train.job import Job


class Objective:
    """What a job makes the network learn, and how it is scored.

    Args:
        job: With its loss, metric and teacher.
        device: Where the model is.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device
        self.looked = False  # at the values of the first batch's targets

    def loss(self, output: Any, x: Any, y: Any) -> Tensor:
        """Return the loss of a batch: by its targets, by the teacher's scores, or by both."""
        share = self.job.teacher_share if self.job.teacher is not None else 0.0
        value: Tensor | float = 0.0
        if share < 1.0:
            smoothing = self.job.config.label_smoothing
            own = self.job.loss
            if own is None:
                by_targets = batches.cross_entropy(output, y, smoothing, look=not self.looked)
                self.looked = True
            else:
                by_targets = batches.taught(own, output, y)
            value = by_targets if share == 0.0 else (1.0 - share) * by_targets
        if share > 0.0:
            with torch.no_grad():
                goal = batches.logits(call(self.job.teacher, x)).softmax(1)
            value = value + share * functional.cross_entropy(batches.logits(output), goal)
        return value

    def weight(self, y: Any, count: int) -> Tensor:
        """Return how many samples the loss of a batch is the mean of: of a teacher's scores, all."""
        share = self.job.teacher_share if self.job.teacher is not None else 0.0
        return share * count + (1.0 - share) * batches.counted(y, count)

    @torch.no_grad()
    def score(self, output: Any, y: Any, count: int) -> Tensor:
        """Return the sum of the samples' scores; NaN where targets are no classes and no metric was given."""
        if self.job.metric is not None:
            weight = batches.counted(y, count)
            score = batches.weighted(torch.as_tensor(self.job.metric(output, y)), weight)
        else:
            score = batches.right(output, y)
        return torch.tensor(math.nan, device=self.device) if score is None else score
