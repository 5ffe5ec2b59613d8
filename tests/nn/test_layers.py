"""Quantized layers, against the same products written out from the formulas."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qviz import MinMax, Quantizer, recipes, uniform
from qviz.methods.pairs import pair
from qviz.nn.layers import QuantConv2d, QuantLinear, adapt
from tests.nn.small_nets import QUANTIZED, assert_same_state, fingerprint, rounded

SHAPES = {
    "plain": {"args": (4, 6, 3), "kw": {}},
    "padded": {"args": (4, 6, 3), "kw": {"padding": 1, "stride": 2}},
    "same": {"args": (4, 6, (3, 1)), "kw": {"padding": "same"}},
    "no bias": {"args": (4, 6, 3), "kw": {"bias": False}},
    "groups": {"args": (4, 6, 3), "kw": {"groups": 2}},
    "depthwise": {"args": (4, 8, 3), "kw": {"groups": 4, "padding": 1}},
    "dilated": {"args": (4, 6, 3), "kw": {"dilation": 2}},
    "reflect": {"args": (4, 6, 3), "kw": {"padding": 1, "padding_mode": "reflect"}},
    "circular": {"args": (4, 6, 3), "kw": {"padding": (2, 1), "padding_mode": "circular"}},
}


def data(*shape, seed=0, relu=True):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.relu() if relu else x


def float_conv(name="plain", seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(*SHAPES[name]["args"], **SHAPES[name]["kw"])


def daq_conv(bits=2, *, bias=True, signed=False, seed=0):
    torch.manual_seed(seed)
    return QuantConv2d(
        4,
        6,
        3,
        bias=bias,
        weight_quantizer=recipes.daq_weight(bits),
        input_quantizer=recipes.daq_activation(bits, signed=signed),
        standardize=True,
        output_scale=True,
    )


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_convolution_of_codes_times_steps(name):
    layer = float_conv(name)
    x = data(2, 4, 9, 9)
    wq, xq = rounded(layer.weight, 0.06, -4, 3), rounded(x, 0.2, 0, 7)
    kw = SHAPES[name]["kw"]
    if "padding_mode" in kw:
        p = kw["padding"]
        rows, columns = (p, p) if isinstance(p, int) else p
        xq = F.pad(xq, (columns, columns, rows, rows), mode=kw["padding_mode"])
        want = F.conv2d(xq, wq, layer.bias)
    else:
        want = F.conv2d(xq, wq, layer.bias, **{k: v for k, v in kw.items() if k != "bias"})
    q = QuantConv2d.from_float(
        layer,
        weight_quantizer=recipes.lsq(3, step=0.06),
        input_quantizer=recipes.lsq(3, signed=False, step=0.2),
    )
    assert torch.equal(q(x), want)
    assert not torch.equal(layer(x), want)  # the float layer stays what it was


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_codes_times_steps(shape, bias):
    torch.manual_seed(0)
    layer = nn.Linear(5, 4, bias=bias)
    x = data(*shape, relu=False)
    want = F.linear(rounded(x, 0.3, -8, 7), rounded(layer.weight, 0.1, -8, 7), layer.bias)
    q = QuantLinear.from_float(
        layer, weight_quantizer=recipes.lsq(4, step=0.1), input_quantizer=recipes.lsq(4, step=0.3)
    )
    assert q(x).shape == want.shape
    torch.testing.assert_close(q(x), want, rtol=1e-6, atol=1e-6)


def test_an_image_without_a_batch_axis():
    q = pair("post", 4)
    layer = QuantConv2d.from_float(
        float_conv("padded"),
        weight_quantizer=q.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=q.act(nn.Linear(4, 6, device="meta"), False),
    )
    x = data(3, 4, 9, 9)
    layer.observe(x[0])
    single, batch = layer(x[0]), layer(x[:1])[0]
    assert single.shape == batch.shape
    assert torch.equal(single, batch)


def test_each_vector_has_its_own_asq_step():
    torch.manual_seed(0)
    layer = QuantLinear(8, 3, input_quantizer=recipes.asq_activation(4, 8))
    with torch.no_grad():
        layer.input_quantizer.range.adapter[-1].weight.normal_()
    x = data(2, 5, 8)
    layer.observe(x)
    assert layer.input_quantizer.range.beta(x.reshape(-1, 8)).unique().numel() > 5
    one_by_one = torch.stack([torch.stack([layer(v) for v in row]) for row in x])
    torch.testing.assert_close(layer(x), one_by_one)


def test_without_quantizers_it_is_the_float_layer():
    layer = float_conv()
    x = data(2, 4, 9, 9)
    assert torch.equal(QuantConv2d.from_float(layer)(x), layer(x))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_daq_by_its_formula(bias, signed):
    """y = |s| conv(Qa, Qw) + bias, Qw = (2 k - R) / R of standardized weights, Qa = k / R."""
    layer, bits = daq_conv(bias=bias, signed=signed), 2
    top = 2**bits - 1
    with torch.no_grad():
        layer.weight.mul_(0.3).add_(0.05)
        layer.output_scale.fill_(-0.4)
        layer.weight_quantizer.range.lower.fill_(-1.5)
        layer.weight_quantizer.range.upper.fill_(1.8)
        layer.input_quantizer.range.upper.fill_(1.2)
        if signed:
            layer.input_quantizer.range.lower.fill_(-0.9)
    layer.weight_quantizer.range._ready = layer.input_quantizer.range._ready = True
    x = data(2, 4, 9, 9, relu=not signed).requires_grad_(True)

    w = layer.weight.detach().double()
    mean = w.sum() / w.numel()
    std = ((w - mean).square().sum() / (w.numel() - 1)).sqrt()
    low = -0.9 if signed else 0.0
    k_w = rounded(top * ((w - mean) / std + 1.5) / 3.3, 1.0, 0, top)
    k_x = rounded(top * (x.detach().double() - low) / (1.2 - low), 1.0, 0, top)
    qw, qx = (2 * k_w - top) / top, (2 * k_x - top) / top if signed else k_x / top
    product = F.conv2d(qx, qw)
    b = 0 if layer.bias is None else layer.bias.detach().double().view(1, -1, 1, 1)
    y = layer(x)
    torch.testing.assert_close(y.double(), 0.4 * (product + b), rtol=1e-5, atol=1e-5)

    g = data(*y.shape, seed=3, relu=False)
    y.backward(g)
    torch.testing.assert_close(
        layer.output_scale.grad.double(), -(g * (product + b)).sum(), rtol=1e-4, atol=1e-4
    )


def test_mean_and_standard_deviation_are_constants_in_the_backward_pass():
    torch.manual_seed(0)
    layer = QuantLinear(6, 5, bias=False, standardize=True)
    x = data(3, 6, relu=False)
    layer(x).square().sum().backward()
    w = layer.weight.detach().clone()
    z = ((w - w.mean()) / w.std()).requires_grad_(True)
    F.linear(x, z).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, z.grad / w.std())


def test_a_constant_weight_is_standardised_to_zeros():
    layer = QuantLinear(6, 5, bias=False, standardize=True)
    nn.init.constant_(layer.weight, 0.3)
    assert layer.normalized_weight().abs().max() < 1.0
    assert layer(data(3, 6)).isfinite().all()


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTIZED)
def test_gradients_reach_everything(name):
    torch.manual_seed(0)
    p = pair(name, 3)
    layer = QuantConv2d(
        8,
        6,
        3,
        weight_quantizer=p.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=p.act(nn.Linear(8, 6, device="meta"), False),
        standardize=p.standardize,
        output_scale=p.output_scale,
    )
    x = data(4, 8, 9, 9).mul_(2.5).requires_grad_(True)
    layer.observe(x)
    for parameter in layer.parameters():
        parameter.data.mul_(0.9)  # some values beyond each clip
    layer(x).square().sum().backward()
    grads = {"x": x.grad} | {key: p.grad for key, p in layer.named_parameters()}
    assert {"weight", "bias"} < grads.keys()
    assert ("output_scale" in grads) == (name == "daq")
    for key, grad in grads.items():
        assert grad is not None, key
        assert grad.isfinite().all(), key
        assert grad.abs().max() > 0, key


def test_lsq_gradients_by_hand():
    """d y / d step of the weight: level - w / step inside, the end level outside, times 1 / sqrt(n q)."""
    torch.manual_seed(0)
    layer = QuantLinear(
        5, 4, bias=False, weight_quantizer=recipes.lsq(3, step=0.1), input_quantizer=recipes.lsq(3, step=0.4)
    )
    x = data(6, 5, relu=False)
    g = data(6, 4, seed=1, relu=False)
    layer(x).backward(g)
    for value, step, q, upstream in (
        (layer.weight.detach(), 0.1, layer.weight_quantizer, g.T @ rounded(x, 0.4, -4, 3)),
        (x, 0.4, layer.input_quantizer, g @ rounded(layer.weight.detach(), 0.1, -4, 3)),
    ):
        u = value / step
        slope = rounded(value, step, -4, 3) / step - torch.where((u >= -4) & (u <= 3), u, torch.zeros(()))
        want = (upstream * slope).sum() / math.sqrt(value.numel() * 3)
        torch.testing.assert_close(q.range.step.grad, want, rtol=1e-4, atol=1e-5)
    inside = (layer.weight / 0.1 >= -4) & (layer.weight / 0.1 <= 3)
    assert torch.equal(layer.weight.grad != 0, inside)


# --- calibration -------------------------------------------------------------------------------------------


def test_observe_sets_both_steps():
    layer = QuantConv2d.from_float(
        float_conv(), weight_quantizer=recipes.lsq(4), input_quantizer=recipes.lsq(4, signed=False)
    )
    x = data(2, 4, 9, 9)
    assert layer.observe(x) is layer
    torch.testing.assert_close(
        layer.weight_quantizer.range.step.detach(), 2 * layer.weight.detach().abs().mean() / math.sqrt(7)
    )
    torch.testing.assert_close(layer.input_quantizer.range.step.detach(), 2 * x.mean() / math.sqrt(15))


def test_the_output_scale_starts_at_the_ratio_of_mean_magnitudes():
    layer = daq_conv(1)
    x = data(2, 4, 9, 9)
    layer.observe(x)
    w = layer.weight.detach()
    z = (w - w.mean()) / w.std()
    qw = torch.where(z > z.mean(), 1.0, -1.0)  # one bit; the bounds are mean ± 3 std
    qx = torch.where(x > 1.5 * x.std(), 1.0, 0.0)
    before, after = F.conv2d(x, w, layer.bias), F.conv2d(qx, qw, layer.bias)  # as released code has it
    want = (before.abs().mean() / after.abs().mean()).detach()
    torch.testing.assert_close(layer.output_scale.detach(), want)


def test_the_output_scale_of_nothing_is_one():
    layer = daq_conv(2).observe(torch.zeros(2, 4, 9, 9))
    assert layer.output_scale.item() == 1.0


def test_what_is_found_in_x_is_reduced_and_the_weights_part_is_not():
    x = data(2, 4, 9, 9)
    alone, reduced = daq_conv(2), daq_conv(2)
    alone.observe(x)
    seen = []

    def reduce(t):
        seen.append(t.clone())
        assert not t.requires_grad
        return t * (torch.tensor([1.0, 2.0]) if t.ndim else 2.0)

    reduced.observe(x, reduce)
    assert torch.equal(reduced.weight_quantizer.range.upper, alone.weight_quantizer.range.upper)
    torch.testing.assert_close(reduced.input_quantizer.range.upper, 2 * alone.input_quantizer.range.upper)
    before, after = seen[-1]  # both means go through at once; the second was doubled
    torch.testing.assert_close(reduced.output_scale.detach(), before / (2 * after))


@pytest.mark.parametrize("name", ["lsq", "ste", "daq", "post", "adq"])
def test_without_calibration_it_says_so(name):
    p = pair(name, 3)
    layer = QuantConv2d(
        4,
        6,
        3,
        weight_quantizer=p.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=p.act(nn.Linear(4, 6, device="meta"), False),
        output_scale=p.output_scale,
    )
    assert not layer.calibrated
    with pytest.raises(RuntimeError, match=r"QuantConv2d\(4, 6, .*not calibrated yet: call calibrate"):
        layer(data(1, 4, 5, 5))
    layer.weight_quantizer.observe(layer.weight)  # by hand will do
    layer.input_quantizer.observe(data(1, 4, 5, 5))
    if p.output_scale:
        assert not layer.calibrated
        with torch.no_grad():
            layer.output_scale.fill_(0.5)
    assert layer.calibrated
    assert layer(data(1, 4, 5, 5)).isfinite().all()


def test_to_observe_again_is_to_start_anew():
    p = pair("adq", 3, 32)
    layer = QuantLinear(20, 10, weight_quantizer=p.weight(nn.Linear(4, 10, device="meta")))
    layer.observe(data(2, 20))
    with torch.no_grad():
        layer.weight.mul_(3.0)
    layer.observe(data(2, 20))
    fresh = p.weight(nn.Linear(4, 10, device="meta")).observe(layer.weight)
    assert torch.equal(layer.weight_quantizer.codebook.levels, fresh.codebook.levels)


def test_a_refused_start_leaves_it_uncalibrated():
    layer = QuantLinear(20, 10, weight_quantizer=pair("adq", 3).weight(nn.Linear(4, 10, device="meta")))
    layer.observe(data(2, 20))
    nn.init.constant_(layer.weight, 0.0)
    with pytest.raises(ValueError, match="distinct values"):
        layer.observe(data(2, 20))
    with pytest.raises(RuntimeError, match="not calibrated"):
        layer(data(2, 20))


# --- identity ----------------------------------------------------------------------------------------------


def test_a_twin_shares_parameters_and_leaves_the_float_layer_alone():
    layer = float_conv()
    calls = []
    layer.register_forward_hook(lambda module, args, y: calls.append(module))
    layer.tag = "mine"
    before = dict(vars(layer))
    layer.eval()
    twin = QuantConv2d.from_float(layer, weight_quantizer=recipes.lsq(4, step=0.1))
    assert type(layer) is nn.Conv2d
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert vars(layer).keys() == before.keys()
    assert not layer._load_state_dict_post_hooks
    assert twin.weight is layer.weight
    assert twin.bias is layer.bias
    assert (twin.training, twin.weight_quantizer.training, twin.tag) == (False, False, "mine")
    twin(data(1, 4, 5, 5))
    assert calls == [twin]


def test_adopt_and_release_are_inverse():
    layer = float_conv()
    weight, bias, keys = layer.weight, layer.bias, vars(layer).keys()
    before, x = fingerprint(layer), data(1, 4, 5, 5)
    y = layer(x)
    assert QuantConv2d.adopt(layer, weight_quantizer=recipes.lsq(2, step=0.1), output_scale=True) is layer
    assert type(layer) is QuantConv2d
    assert {"weight", "bias", "output_scale", "weight_quantizer.range.step"} < layer.state_dict().keys()
    assert layer.release() is layer
    assert type(layer) is nn.Conv2d
    assert layer.weight is weight
    assert layer.bias is bias
    assert vars(layer).keys() == keys
    assert_same_state(layer, before)
    assert not layer._load_state_dict_post_hooks
    assert repr(layer) == repr(float_conv())
    assert torch.equal(layer(x), y)


class Mine(nn.Conv2d):
    pass


@pytest.mark.parametrize("layer", [nn.Conv1d(1, 1, 1), nn.Linear(2, 2), Mine(1, 1, 1), QuantConv2d(1, 1, 1)])
def test_only_the_exact_type_is_taken(layer):
    kind = type(layer)
    for take in (QuantConv2d.from_float, QuantConv2d.adopt):
        with pytest.raises(TypeError, match=f"exactly a Conv2d, got {kind.__name__}"):
            take(layer)
    assert type(layer) is kind


def test_refusals_leave_the_layer_as_it_was():
    layer = float_conv()
    with pytest.raises(TypeError, match="input_quantizer must be a Quantizer or None, got Codebook"):
        QuantConv2d.adopt(layer, weight_quantizer=recipes.lsq(4), input_quantizer=uniform(4))
    assert type(layer) is nn.Conv2d
    assert vars(layer).keys() == vars(float_conv()).keys()
    with pytest.raises(ValueError, match="one element"):
        QuantConv2d.adopt(nn.Conv2d(1, 1, 1), standardize=True)


def test_a_copy_is_apart():
    layer = daq_conv().observe(data(2, 4, 9, 9))
    x = data(2, 4, 9, 9, seed=1)
    other = copy.deepcopy(layer)
    y = layer(x)
    assert torch.equal(other(x), y)
    with torch.no_grad():
        other.weight.mul_(-1.0)
        other.output_scale.mul_(2.0)
        other.input_quantizer.range.upper.mul_(0.5)
    assert torch.equal(layer(x), y)
    assert not torch.equal(other(x), y)


def test_it_prints_what_it_adds():
    assert "standardize=True, output_scale=True" in repr(daq_conv())
    assert "standardize" not in repr(QuantLinear(2, 2))
    assert "(weight_quantizer): Quantizer(" in repr(daq_conv())


# --- memory formats, dtypes, devices -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lsq", "daq", "post", "aquant"])
def test_channels_last_stays_channels_last(name):
    p = pair(name, 4)
    torch.manual_seed(0)
    layer = QuantConv2d(
        8,
        6,
        3,
        weight_quantizer=p.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=p.act(nn.Linear(8, 6, device="meta"), False),
        standardize=p.standardize,
        output_scale=p.output_scale,
    )
    x = data(2, 8, 7, 7)
    layer.observe(x)
    y = layer(x)
    last = torch.channels_last
    layer.to(memory_format=last)
    seen = []
    layer.input_quantizer.register_forward_hook(lambda module, args, out: seen.append(out))
    z = layer(x.to(memory_format=last))
    assert z.is_contiguous(memory_format=last)
    assert seen[0].is_contiguous(memory_format=last)
    assert layer.quantized_weight().is_contiguous(memory_format=last)
    torch.testing.assert_close(z, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", QUANTIZED)
def test_autocast(name):
    p = pair(name, 4)
    torch.manual_seed(0)
    layer = QuantLinear(
        32,
        6,
        weight_quantizer=p.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=p.act(nn.Linear(32, 6, device="meta"), False),
        standardize=p.standardize,
        output_scale=p.output_scale,
    )
    x = data(16, 32)
    layer.observe(x)
    want = layer(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y - want).abs().mean() < 0.03 * want.abs().mean()
    y.float().square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad.dtype == parameter.dtype == torch.float32, key
        assert parameter.grad.isfinite().all(), key


def test_float64_is_computed_in_float64():
    layer = daq_conv().double()
    x = data(2, 4, 9, 9).double()
    layer.observe(x)
    assert layer(x).dtype == torch.float64


def test_the_output_may_be_changed_in_place():
    """As by ReLU(inplace=True), for every recipe that a layer can have."""
    for name in QUANTIZED:
        p = pair(name, 3)
        layer = QuantConv2d(3, 4, 3, standardize=p.standardize, output_scale=p.output_scale)
        layer.weight_quantizer, layer.input_quantizer = p.weight(layer), p.act(layer, False)
        x = data(2, 3, 9, 9).abs()
        layer.observe(x)
        want = torch.autograd.grad(F.relu(layer(x)).sum(), layer.weight)[0]
        assert torch.equal(torch.autograd.grad(F.relu_(layer(x)).sum(), layer.weight)[0], want), name


# --- adapt -------------------------------------------------------------------------------------------------


def test_adapt_moves_a_codebook_as_its_own_update_does():
    p = pair("adq", 3, weight_options={"decay": 0.9})
    layer = QuantLinear(
        20,
        10,
        weight_quantizer=p.weight(nn.Linear(4, 10, device="meta")),
        input_quantizer=p.act(nn.Linear(20, 6, device="meta"), False),
    )
    layer.observe(data(2, 20))
    twin = copy.deepcopy(layer.weight_quantizer.codebook)
    model = nn.Sequential(nn.BatchNorm1d(20), layer)
    with torch.no_grad():
        layer.weight.add_(0.05)
    start = twin.levels.clone()
    twin.observe(layer.weight)
    adapt(model)
    book = layer.weight_quantizer.codebook
    assert torch.equal(book.levels, twin.levels)
    assert not torch.equal(book.levels, start)
    kept = book.levels.clone()
    adapt(model.eval())
    assert torch.equal(book.levels, kept)
    book.frozen = True
    adapt(model.train())
    assert torch.equal(book.levels, kept)


def test_adapt_shows_a_codebook_the_standardised_weight():
    layer = QuantLinear(
        20, 10, weight_quantizer=pair("adq", 3).weight(nn.Linear(4, 10, device="meta")), standardize=True
    )
    layer.observe(data(2, 20))
    twin = copy.deepcopy(layer.weight_quantizer.codebook)
    twin.observe((layer.weight - layer.weight.mean()) / layer.weight.std())
    adapt(layer)
    torch.testing.assert_close(layer.weight_quantizer.codebook.levels, twin.levels)


def test_adapt_guards_borders():
    p = pair("aquant", 4)
    layer = QuantConv2d(
        4,
        6,
        3,
        weight_quantizer=p.weight(nn.Linear(4, 6, device="meta")),
        input_quantizer=p.act(nn.Linear(4, 6, device="meta"), False),
    )
    layer.observe(data(2, 4, 5, 5))
    border = layer.input_quantizer.rounding
    with torch.no_grad():
        border.b[1, 0] = 200.0  # steeper than 4 R = 60
        border.b[1, 1] = 20.0
    adapt(layer)
    assert border.b[1, 0] < 60
    assert border.b[1, 1] == 20


def test_adapt_leaves_everything_else_alone():
    layer = daq_conv().observe(data(2, 4, 9, 9))
    plain = QuantLinear(3, 2, weight_quantizer=Quantizer(uniform(4), range=MinMax()))
    plain.observe(data(2, 3))
    model = nn.ModuleList([layer, plain, nn.Linear(2, 2)])
    with torch.no_grad():
        plain.weight.mul_(2)
    before = fingerprint(model)
    adapt(model)
    assert_same_state(model, before)
