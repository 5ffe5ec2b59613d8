"""What judges a network's outputs, by the labels that come with them, and labels that fit nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from qviz import inspect
from qviz.inspection.panels import LOSSES
from qviz.methods.pairs import pair
from qviz.nn import calibrate, convert

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
PLACES = torch.arange(6 * 36).view(6, 6, 6) % 4
HOW = {"recipe": "lsq", "bits": 2, "first_last": "quantized", "top": 0}


def maps():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def scores():
    return nn.Sequential(*maps(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def both(net):
    """A network and its quantized copy."""
    quantized = copy.deepcopy(net)
    convert(quantized, pair=pair("lsq", 2), first_last="quantized")
    calibrate(quantized, X)
    return net, quantized


def target(net):
    return torch.full_like(net(X), 0.25).detach()


def share(y, z, _):
    return (z - y).square().sum() / y.square().sum()


CASES = {
    "mse of maps": (maps, target, "mse", lambda y, z, t: (z - t).square().mean() - (y - t).square().mean()),
    "mse of vectors": (
        scores,
        lambda net: target(net).double().numpy(),
        "mse",
        lambda y, z, t: functional.mse_loss(z, torch.tensor(t)) - functional.mse_loss(y, torch.tensor(t)),
    ),
    "segments": (
        maps,
        lambda _: PLACES,
        "cross-entropy",
        lambda y, z, t: functional.cross_entropy(z, t) - functional.cross_entropy(y, t),
    ),
    "a column of classes": (
        scores,
        lambda _: torch.tensor([[0], [1], [2], [3], [0], [1]]),
        "cross-entropy",
        lambda y, z, t: functional.cross_entropy(z, t[:, 0]) - functional.cross_entropy(y, t[:, 0]),
    ),
    "maps without labels": (maps, lambda _: None, "error", share),
}


@pytest.mark.parametrize("case", CASES)
def test_labels_say_what_judges_the_outputs(case):
    build, labels_of, kind, expected = CASES[case]
    net, quantized = both(build())
    labels = labels_of(net)
    found = inspect(quantized, (X, labels), reference=net, top=0)
    with torch.no_grad():
        loss = expected(net(X), quantized(X), labels)
    assert found.loss == kind
    assert found.whole.loss == pytest.approx(float(loss), rel=1e-4)
    assert found.unit in found.text()
    assert found.loss in LOSSES
    assert (found.whole.agreement is None) is (case != "a column of classes")
    alone = inspect(net, (X, labels), **HOW)
    assert alone.budget.loss == ("kl" if kind == "cross-entropy" else "error")


def test_a_loss_of_the_callers():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = maps()

        def forward(self, x):
            return {"depths": self.net(x)}

    def l1(output, labels):
        return (output["depths"][:, 0] - labels).abs().mean()

    labels = torch.arange(6 * 36.0).view(6, 6, 6)
    net, quantized = both(Named().eval())
    found = inspect(quantized, (X, labels), reference=net, top=0, loss=l1)
    with torch.no_grad():
        rise = l1(quantized(X), labels) - l1(net(X), labels)
    assert (found.loss, found.whole.loss) == ("given", pytest.approx(float(rise), rel=1e-5))
    assert "the loss that was given: " in found.text()
    with pytest.raises(TypeError, match=r"loss must return a tensor of one number, got shape \(6, 6, 6\)"):
        inspect(net, (X, labels), **HOW, loss=lambda output, y: output["depths"][:, 0] - y)


REFUSED = {
    "numbers of another shape": (
        maps,
        torch.rand(6, 4),
        r"of shape \(6, 4\), torch.float32, do not fit .*\(6, 4, 6, 6\)",
    ),
    "classes of other places": (maps, PLACES[:, :3], r"of shape \(6, 3, 6\), torch.int64, do not fit"),
    "truth values": (scores, torch.ones(6, 4) > 0, r"of shape \(6, 4\), torch.bool, do not fit"),
    "classes of one output": (
        lambda: nn.Sequential(*scores(), nn.Linear(4, 1)),
        torch.zeros(6, dtype=torch.int64),
        r"of shape \(6,\), torch.int64, do not fit outputs of shape \(6, 1\)",
    ),
    "NaN": (scores, torch.full((6, 4), torch.nan), "labels must be finite; 24 of 24 are NaN"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_fit_nothing_are_refused(case):
    build, labels, says = REFUSED[case]
    with pytest.raises(ValueError, match=says):
        inspect(build(), (X, labels), **HOW)


def test_labels_of_some_batches_only_are_refused():
    with pytest.raises(ValueError, match="labels of one kind, got some for mse and some for kl"):
        inspect(scores(), [(X, torch.rand(6, 4)), (X, None)], **HOW)


@pytest.mark.parametrize("labels", [[-100, 1, 2, 3], [-100, -100, 2, 3]])
def test_batches_count_by_their_labels_also_where_one_has_none(labels):
    (net, quantized), labels = both(scores()), torch.tensor(labels)
    batches = [(X[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    with torch.no_grad():
        z, y = quantized(X[:4]), net(X[:4])
    want = functional.cross_entropy(z, labels) - functional.cross_entropy(y, labels)
    for how in ({}, {"loss": lambda output, y: functional.cross_entropy(output, y)}):
        found = inspect(quantized, batches, reference=net, top=0, **how)
        assert found.whole.loss == pytest.approx(want.item(), rel=1e-4)


def test_labels_of_which_none_counts_are_refused():
    net, quantized = both(scores())
    with pytest.raises(ValueError, match="all labels are -100"):
        inspect(quantized, (X, torch.full((6,), -100)), reference=net, top=0)
