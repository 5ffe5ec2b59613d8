"""Running statistics of the network as it is; inputs and outputs of its layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn import calibrate, convert, reestimate_batchnorm, tap
from qviz.nn.capture import inputs


def test_statistics_are_means_over_batches_and_everything_else_stays():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5))
    net[2].train()
    net[1].eval()
    net[1].num_batches_tracked.fill_(7)
    unused = net.register_module("unused", nn.BatchNorm1d(2)) or net.unused
    net.forward = lambda x: net[2](net[1](net[0](x)))
    batches = [torch.randn(9, 3) + i for i in range(3)]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.cat(batches)), batch_size=9)
    reestimate_batchnorm(net, loader)
    outs = [net[0](x).detach() for x in batches]
    torch.testing.assert_close(net[1].running_mean, torch.stack([y.mean(0) for y in outs]).mean(0))
    torch.testing.assert_close(net[1].running_var, torch.stack([y.var(0) for y in outs]).mean(0))
    assert (net[1].momentum, int(net[1].num_batches_tracked), net[1].training) == (0.3, 7, False)
    assert net[2].training
    assert torch.equal(unused.running_var, torch.ones(2))


def test_a_refused_batch_leaves_the_statistics():
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(5.0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        reestimate_batchnorm(norm, torch.ones(1, 2))
    assert torch.equal(norm.running_mean, torch.full((2,), 5.0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize(("count", "same"), [(64, True), (8, False)])
def test_where_statistics_are_estimated_again_the_mode_does_not_matter(count, same):
    torch.manual_seed(0)
    steps = {}
    for mode in (True, False):
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 2))
        net.load_state_dict(steps.setdefault("weights", net.state_dict()))
        convert(net, pair=recipes.pair("pact", 4))
        calibrate(net.train(mode), 5 + 3 * torch.randn(count, 3, generator=torch.Generator().manual_seed(1)))
        assert net[1].training is mode
        steps[mode] = net[3].input_quantizer.range.clip.detach().clone()
    assert torch.equal(steps[True], steps[False]) is same


def test_each_call_is_tapped_once_and_no_hook_stays():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(inplace=True), shared)
    x = torch.randn(3, 2)
    with tap(net, ["0"]) as seen:
        y = net(x)
    first = shared(x)
    for got, want in zip(seen["0"].inputs + seen["0"].outputs, [x, first.relu(), first, y], strict=True):
        assert torch.equal(got, want)
    net(x)
    assert len(seen["0"].inputs) == 2
    with pytest.raises(ValueError, match="no layer 'nowhere'"), tap(net, ["nowhere"]):
        pass


def test_inputs_from_a_loader_of_keyword_batches():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, *, pixels):
            return self.a(input=pixels)

    x = torch.randn(4, 2)
    got = inputs(ByName(), ["a"], iter([{"pixels": x}]))
    assert torch.equal(got["a"], x)


def test_a_list_of_pairs_is_a_list_of_batches():
    a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [9.0]])
    means = []
    for given in ([(a, 0), (b, 1)], iter([a, b])):
        norm = nn.BatchNorm1d(1).eval()
        reestimate_batchnorm(norm, given)
        means.append(norm.running_mean.item())
    assert means == [4.5, 4.5]


@pytest.mark.parametrize(
    ("count", "batchnorm", "moves"),
    [(64, None, True), (63, None, False), (64, False, False), (8, True, True)],
)
def test_calibrate_re_estimates_where_there_are_enough_samples(count, batchnorm, moves):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = torch.randn(count, 4)
    convert(net, pair=recipes.pair("lsq", 3), batch=x, first_last="quantized")
    calibrate(net, x, batchnorm=batchnorm)
    h = net[0](x).detach()
    want = (h.mean(0), h.var(0)) if moves else (torch.zeros(8), torch.ones(8))
    torch.testing.assert_close(net[1].running_mean, want[0])
    torch.testing.assert_close(net[1].running_var, want[1])
    assert not net[1].training
