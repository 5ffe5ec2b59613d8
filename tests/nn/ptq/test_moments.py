"""Moments against sums over all samples and places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qviz.nn.ptq.moments import Moments, columns, matrix, rows
from tests.nn.ptq import oracles

LAYERS = {
    "linear": lambda: nn.Linear(5, 4),
    "stride and padding": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2)),
    "groups and dilation": lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same"),
    "reflected": lambda: nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_columns_times_weights_are_the_layers_output(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]().double()
    x = torch.randn(3, 7, 5) if kind == "linear" else torch.randn(3, 4, 8, 7)
    x = x.double()
    got = matrix(layer, layer.weight) @ columns(layer, x)
    torch.testing.assert_close(got, rows(layer, layer(x) - layer(torch.zeros_like(x))))


@pytest.mark.parametrize("kind", LAYERS)
def test_error_is_the_mean_squared_error_with_the_best_bias(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    shape = (3, 7, 5) if kind == "linear" else (3, 4, 8, 7)
    batches = [torch.randn(shape) for _ in range(2)]
    targets = [layer(x + 0.3 * torch.randn(shape)).detach() for x in batches]
    moments = Moments.of(layer, zip(batches, targets, strict=True))
    w = torch.randn_like(matrix(layer, layer.weight)).double()
    y = torch.cat([rows(layer, y) for y in targets], -1).double()
    out = w @ torch.cat([columns(layer, x) for x in batches], -1).double()
    bias = moments.bias(w)
    torch.testing.assert_close(bias, (y - out).mean(-1), rtol=1e-6, atol=1e-6)
    direct = (out + bias[..., None] - y).square().mean(-1)
    torch.testing.assert_close(moments.error(w), direct, rtol=1e-6, atol=1e-6)
    assert moments.count == y.shape[-1]


def test_the_gram_matrix_is_the_oracles():
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2).double()
    moments = Moments.of(layer, [(x, layer(x).detach())])
    geometry = oracles.Geometry((2, 2), (1, 1), (1, 1), 2)
    want = torch.from_numpy(oracles.gram(x.numpy(), (3, 3), geometry))
    mean = moments.x[..., :, None] * moments.x[..., None, :]
    torch.testing.assert_close((moments.xx + mean) * moments.count, want)


def test_no_more_batches_than_are_enough():
    layer, taken = nn.Linear(2, 1), []

    def batches():
        for k in range(9):
            taken.append(k)
            yield torch.randn(10, 2), torch.randn(10, 1)

    assert Moments.of(layer, batches(), enough=15).count == 20
    assert taken == [0, 1]
