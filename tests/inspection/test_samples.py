"""Images that cannot be inspected are refused in a sentence, before anything runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qviz import inspect
from qviz.inspection.samples import chunks

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
X = torch.randn(4, 3, 8, 8)
OTHER = torch.randn(4, 3, 9, 9)
NORMS = nn.Sequential(nn.Flatten(), nn.LayerNorm(192))

REFUSED = {
    "one channel": (X[:, :1], r"\(1, 8, 8\): in layer '0': .* to have 3 channels, but got 1 channels"),
    "whole numbers": (X.long(), r"\(3, 8, 8\): in layer '0': Input type"),
    "several sizes in a list": ([*X[:2], OTHER[0]], r"a list of 3, which are of \(3, 8, 8\), \(3, 9, 9\)"),
    "two images of two sizes": ([X[0], OTHER[0]], r"a list of 2, which are of \(3, 8, 8\), \(3, 9, 9\)"),
    "several sizes in a loader": ([(X, None), (OTHER, None)], r"one size, got \(3, 8, 8\), \(3, 9, 9\)"),
    "too few labels": ((X, torch.zeros(3, dtype=torch.int64)), "there are 4 images and 3 labels"),
    "too few labels in a mapping": ({"input": X, "labels": [0, 1]}, "there are 4 images and 2 labels"),
    "one label for all": ((X, 1), "a label for each image, got 1"),
    "classes that are not there": ((X, [0, 1, 2, 1]), "labels are from 0 to 2, and the model has 2 classes"),
    "several inputs": (((X, X), None), r"a mapping .*, got a tuple of samples \[\(3, 8, 8\), \(3, 8, 8\)\]$"),
    "several inputs in a mapping": (
        [{"input": (X, X)}, {"input": (X, OTHER)}],
        r"\[\(3, 8, 8\), \(3, 8, 8\)\], input \[\(3, 8, 8\), \(3, 9, 9\)\]: resize",
    ),
    "batches in a list": (
        [X, X],
        r"a list of 2, which are of \(4, 3, 8, 8\), could be a pair or two batches",
    ),
    "a path": ("photos/", "got the path 'photos/'"),
    "names": (["a.jpg"], "got str"),
    "none": (X[:0], "the batch has no samples"),
    "an empty list": ([], "the list is empty"),
    "NaN": (X / 0 * 0, "768 of 768 values are NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_are_refused(case):
    images, says = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=says):
        inspect(NET, images, recipe="lsq", bits=4)


def test_a_model_with_nothing_to_quantize():
    with pytest.raises(ValueError, match="Sequential has no Conv2d or Linear layer that could be quantized"):
        inspect(NORMS, X, recipe="lsq", bits=4)


def test_weights_that_are_no_numbers_are_named_by_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight[0, :3], net[2].bias[1] = torch.nan, -torch.inf
    with pytest.raises(ValueError, match=r"1.weight has 3 of 768, 2.bias has 1 of 2"):
        inspect(net, X, recipe="lsq", bits=4)


def test_labels_of_any_kind_of_whole_numbers_are_classes():
    for labels in ([0, 1, 1, 0], np.array([0, 1, 1, 0], np.uint8), torch.tensor([0, 1, 1, 0])):
        first, second = chunks((X, labels), 3)
        assert (first.labels.tolist(), second.labels.tolist()) == ([0, 1, 1], [0])
        assert first.labels.dtype == torch.int64
