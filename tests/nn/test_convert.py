"""Conversion of whole models: what is quantized, in which order it is calibrated, and the way back."""

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from qviz import recipes
from qviz.methods.method import Pair
from qviz.methods.pairs import pair
from qviz.nn import allocate
from qviz.nn.convert import calibrate, convert, deconvert, report
from qviz.nn.layers import QuantConv2d, QuantLayer, QuantLinear, adapt
from tests.nn.small_nets import (
    EACH,
    INSIDE,
    QUANTIZED,
    assert_same_state,
    fingerprint,
    images,
    resnet,
    rounded,
)


def converted(name="lsq", bits=3, seed=0, **how):
    model = resnet(seed)
    convert(model, pair=pair(name, bits), batch=images(), **how)
    return model


def ready(name="lsq", bits=3, seed=0, **how):
    model = converted(name, bits, seed, **how)
    calibrate(model, images())
    return model


def quantized(model):
    return [name for name, module in model.named_modules() if isinstance(module, QuantLayer)]


# --- the report --------------------------------------------------------------------------------------------


def test_the_report_of_a_small_resnet():
    model = resnet()
    before = sum(p.numel() for p in model.parameters())
    done = convert(model, pair=pair("post", 4), batch=images())
    assert quantized(model) == INSIDE
    assert [row.name for row in done.rows] == ["conv1", *INSIDE, "fc"]
    assert [row.kind for row in done.rows] == ["Conv2d"] * 7 + ["Linear"]
    inside = done.row("layer2.0.conv1")
    assert (inside.w_bits, inside.w_levels, inside.a_bits, inside.a_levels) == (4, 15, 4, 16)
    assert (inside.parameters, inside.weights, inside.note) == (16 * 8 * 9, 16 * 8 * 9, "")
    first, last = done.rows[0], done.rows[-1]
    assert (first.w_bits, first.w_levels, first.a_bits, first.a_levels) == (32, None, 32, None)
    assert first.note == "first layer, left in floating point"
    assert last.note == "last layer, left in floating point"
    assert (last.parameters, last.weights) == (330, 320)
    assert done.parameters == before
    assert done.quantizer_parameters == sum(p.numel() for p in model.parameters()) - before
    assert done.weights == sum(m.weight.numel() for m in model.modules() if hasattr(m, "kernel_size")) + 320
    assert done.quantized_weights == done.weights - 8 * 27 - 320
    assert done.average_bits == 4.0
    assert done.first_last == "fp"


def test_the_report_prints_a_table_and_gives_plain_values():
    done = convert(resnet(), pair=pair("daq", 1, 2), batch=images())
    lines = str(done).splitlines()
    assert len(lines) == 1 + 8 + 1
    assert lines[0].split() == ["layer", "kind", "weights", "inputs", "parameters", "note"]
    assert " ".join(lines[2].split()) == (
        "layer1.0.conv1 Conv2d 1 bit, 2 levels, daq_weight 2 bits, 4 levels, daq_activation 576"
    )
    assert lines[1].split(maxsplit=5) == ["conv1", "Conv2d", "fp32", "fp32", "216", done.rows[0].note]
    assert len({line.index("Conv2d") for line in lines[1:8]}) == 1
    assert lines[-1].startswith("6 of 8 layers quantized, 18,432 of 18,968 weights (97.2 %) at 1.00 bits on")
    assert lines[-1].endswith(
        "24 more in the quantizers; first and last layer: fp"
    )  # 2 + 1 bounds and a scale
    plain = json.loads(json.dumps(done.to_dict()))
    assert plain["rows"][1] == dataclasses.asdict(done.rows[1])
    assert (plain["layers"], plain["quantized_layers"], plain["first_last"]) == (8, 6, "fp")
    with pytest.raises(KeyError):
        done.row("layer9")


def test_a_report_can_be_asked_for_later():
    model = resnet()
    assert not any(row.quantized for row in report(model).rows)
    done = convert(model, pair=pair("adq", 3, 4), batch=images())
    later = report(model)
    assert [dataclasses.replace(r, note="") for r in done.rows] == list(later.rows)
    assert (later.parameters, later.quantizer_parameters) == (done.parameters, done.quantizer_parameters)
    assert done.row(INSIDE[0]).w_levels == 7


# --- first and last ----------------------------------------------------------------------------------------


class Backwards(nn.Module):
    """Registered in the reverse of the order in which it runs; the last layer registered never runs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.middle = nn.Conv2d(4, 4, 1)
        self.stem = nn.Conv2d(3, 4, 1)
        self.spare = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.middle(self.stem(x).relu()).relu().mean((2, 3)))


def test_first_and_last_are_those_that_run_first_and_last():
    model = Backwards()
    done = convert(model, pair=pair("lsq", 4), batch=images())
    assert quantized(model) == ["middle"]
    assert done.row("stem").note.startswith("first layer")
    assert done.row("head").note.startswith("last layer")
    assert done.row("spare").note == "not quantized: the batch does not reach it"


def test_without_a_batch_they_are_those_of_registration():
    model = Backwards()
    done = convert(model, pair=pair("lsq", 4))
    assert quantized(model) == ["middle", "stem"]
    assert done.row("head").note.startswith("first layer")
    with pytest.warns(UserWarning, match="inputs of 'stem' have negative values"):
        calibrate(model, images())
    model = Backwards()
    convert(model, pair=pair("lsq", 4), signed={"stem": True}, first_last="quantized")
    with pytest.raises(ValueError, match="does not reach 'spare' in this mode"):
        calibrate(model, images())


def test_eight_bits_at_both_ends():
    model = resnet()
    done = convert(model, pair=pair("daq", 1), first_last="8bit", batch=images())
    for name, low, role in (("conv1", -128, "first"), ("fc", 0, "last")):
        layer, row = model.get_submodule(name), done.row(name)
        assert (row.w_bits, row.w_levels, row.a_bits, row.a_levels) == (8, 256, 8, 256)
        assert row.note == f"{role} layer; 8-bit LSQ"
        assert (layer.standardize, layer.output_scale) == (False, None)
        assert layer.weight_quantizer.codebook.lo == -128
        assert layer.input_quantizer.codebook.lo == low
    assert model.layer1[0].conv1.standardize
    calibrate(model, images())
    x = images()
    step = 2 * x.abs().mean() / math.sqrt(127)
    torch.testing.assert_close(model.conv1.input_quantizer.range.step.detach(), step)


def test_quantized_like_all_others():
    model = resnet()
    done = convert(model, pair=pair("daq", 2), first_last="quantized", batch=images())
    assert len(quantized(model)) == 8
    assert done.row("conv1").note == "first layer"
    assert model.conv1.input_quantizer.range.signed  # the image
    assert not model.fc.input_quantizer.range.signed
    assert {row.w_levels for row in done.rows} == {4}


def test_a_single_layer_is_first_and_last():
    model = nn.Linear(3, 2)
    assert convert(model, pair=pair("lsq", 4)).rows[0].note == "first and last layer, left in floating point"
    assert type(model) is nn.Linear
    done = convert(model, pair=pair("lsq", 4), first_last="quantized")
    assert type(model) is QuantLinear
    assert done.rows[0].note == "first and last layer"
    assert "(the model itself)" in str(done)


# --- which layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        ("layer2.0.conv1", ["layer2.0.conv1"]),
        (["layer1.*", "layer3.0.conv2"], ["layer1.0.conv1", "layer1.0.conv2", "layer3.0.conv2"]),
        ("*conv2", ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]),
        ("conv1", []),  # the first stays the first
    ],
)
def test_skip(skip, left):
    model = resnet()
    done = convert(model, pair=pair("lsq", 4), skip=skip, batch=images())
    assert quantized(model) == [name for name in INSIDE if name not in left]
    for name in left:
        assert done.row(name).note == "skipped"


def test_sharing():
    """One module in two places, and in a plain list that torch does not know of."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
            self.b = self.a
            self.fc = nn.Linear(4, 2)
            self.order = [self.a, self.b, self.a]

        def forward(self, x):
            x = self.stem(x).relu()
            for layer in self.order:
                x = layer(x).relu()
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    model = Shared()
    held = model.a
    done = convert(model, pair=pair("lsq", 4), batch=images())
    assert model.a is model.b is model.order[2] is held
    assert type(held) is QuantConv2d
    assert done.row("a").note == "also b"
    assert len(done.rows) == 3
    inputs = []
    watch = held.register_forward_pre_hook(lambda layer, args: inputs.append(args[0].clone()))
    calibrate(model, images())
    watch.remove()
    want = 2 * torch.stack(inputs).mean() / math.sqrt(15)  # all its three calls
    torch.testing.assert_close(held.input_quantizer.range.step.detach(), want)
    assert sum(1 for key in model.state_dict() if key.startswith("a.weight_quantizer")) > 0
    deconvert(model)
    assert type(held) is nn.Conv2d
    convert(model, pair=pair("lsq", 4), skip="b", batch=images())
    assert quantized(model) == []


def test_the_geometry_of_a_layer_is_kept():
    torch.manual_seed(0)
    kinds = {"groups": 4, "dilation": 2, "stride": (2, 1), "padding": 3, "padding_mode": "reflect"}
    layer = nn.Conv2d(8, 8, 3, bias=False, **kinds)
    fine = copy.deepcopy(layer)
    own = Pair("mine", 8, 32, weight=lambda layer: recipes.lsq(8, channels=layer.out_channels), act=None)
    convert(fine, pair=own, first_last="quantized")
    x = torch.randn(2, 8, 12, 12)
    calibrate(fine, x)
    with torch.no_grad():
        fine.weight_quantizer.range.step.copy_(fine.weight.abs().amax((1, 2, 3)) / 127)
    assert fine(x).shape == layer(x).shape
    assert (fine(x) - layer(x)).abs().max() < 0.02 * layer(x).abs().max()


class Odd(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


def zoo():
    """One layer of each sort that cannot be quantized, after one that can."""
    torch.manual_seed(0)
    model = nn.Module()
    model.plain = nn.Conv2d(3, 4, 1)
    model.up = nn.ConvTranspose2d(4, 4, 2)
    model.line = nn.Conv1d(4, 4, 1)
    model.words = nn.Embedding(5, 4)
    model.odd = Odd(4, 4, 1)
    model.attention = nn.MultiheadAttention(4, 2)
    model.encoder = nn.TransformerEncoderLayer(4, 2, 8)
    model.spectral = parametrizations.spectral_norm(nn.Linear(4, 4))
    model.pruned = prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    model.lazy = nn.LazyConv2d(4, 1)
    model.complex = nn.Linear(4, 4, dtype=torch.complex64)
    model.norm = nn.BatchNorm2d(4)
    return model


def test_what_cannot_be_quantized_is_in_the_report_with_the_reason():
    model = zoo()
    types = {name: type(module) for name, module in model.named_modules()}
    done = convert(model, pair=pair("lsq", 4), first_last="quantized")
    assert quantized(model) == ["plain"]
    del types["plain"]
    assert {name: type(model.get_submodule(name)) for name in types} == types
    notes = {row.name: row.note.removeprefix("not quantized: ") for row in done.rows}
    assert notes == {
        "plain": "first and last layer",
        "up": "only Conv2d and Linear are, this is a ConvTranspose2d",
        "line": "only Conv2d and Linear are, this is a Conv1d",
        "words": "only Conv2d and Linear are, this is an Embedding",
        "odd": "Odd, a subclass of Conv2d, is not named by also=",
        "attention": "only Conv2d and Linear are, this is a MultiheadAttention",
        "attention.out_proj": "nn.MultiheadAttention reads this weight past the layer",
        "encoder.self_attn": "only Conv2d and Linear are, this is a MultiheadAttention",
        "encoder.self_attn.out_proj": "nn.MultiheadAttention reads this weight past the layer",
        "encoder.linear1": "nn.TransformerEncoderLayer reads this weight past the layer in eval mode",
        "encoder.linear2": "nn.TransformerEncoderLayer reads this weight past the layer in eval mode",
        "spectral": "its parameters are parametrized",
        "pruned": "a hook computes its weight (weight norm, spectral norm or pruning)",
        "lazy": "lazy, its shape is not known before a first batch",
        "complex": "its weight is torch.complex64, not floating point",
    }
    assert (done.row("spectral").weights, done.row("pruned").weights, done.row("lazy").weights) == (16, 16, 0)
    assert parametrize.is_parametrized(model.spectral)
    str(done)


def test_a_lazy_layer_that_has_run_is_an_ordinary_one():
    model = nn.Sequential(nn.LazyConv2d(4, 1), nn.ReLU(), nn.LazyConv2d(4, 1))
    model(images())
    convert(model, pair=pair("lsq", 4), first_last="quantized")
    assert quantized(model) == ["0", "2"]


# --- signs -------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """The second inner layer reads values of both signs, as in an inverted residual."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.squeeze = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.expand(self.squeeze(self.stem(x).relu())).relu().mean((2, 3)))


def test_signs_are_seen_in_the_batch():
    model = Bottleneck()
    done = convert(model, pair=pair("post", 4), batch=images(), first_last="quantized")
    lows = {name: model.get_submodule(name).input_quantizer.codebook.lo for name in quantized(model)}
    assert lows == {"stem": -8, "squeeze": 0, "expand": -8, "fc": 0}
    assert done.row("expand").note == "signed input: lsq instead of asq_activation"
    assert done.row("stem").note == "first layer; signed input: lsq instead of asq_activation"
    assert done.row("squeeze").note == ""
    calibrate(model, images())


def test_without_a_batch_only_the_first_is_signed_unless_told():
    model = Bottleneck()
    convert(model, pair=pair("lsq", 4), first_last="quantized")
    assert [model.get_submodule(n).input_quantizer.codebook.lo for n in quantized(model)] == [-8, 0, 0, 0]
    with pytest.warns(UserWarning, match="inputs of 'expand' have negative values, .*signed="):
        calibrate(model, images())
    model = Bottleneck()
    convert(model, pair=pair("lsq", 4), signed={"expand": True, "stem": False}, first_last="quantized")
    assert [model.get_submodule(n).input_quantizer.codebook.lo for n in quantized(model)] == [0, 0, -8, 0]


def test_told_signs_override_the_batch():
    model = Bottleneck()
    convert(model, pair=pair("lsq", 4), signed={"expand": False}, batch=images())
    assert model.expand.input_quantizer.codebook.lo == 0


def test_an_offset_makes_an_unsigned_grid_signed():
    model = Bottleneck()
    own = Pair("mine", 32, 4, weight=None, act=lambda layer, signed: recipes.lsq_plus(4, signed=False))
    convert(model, pair=own)
    calibrate(model, images())  # and no warning


# --- calibration -------------------------------------------------------------------------------------------


def test_layers_are_calibrated_in_order_each_on_the_quantized_output_of_the_last():
    """By the formulas: lsq's step is 2 mean|x| / sqrt(top)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(32, 6)
    convert(model, pair=pair("lsq", 3), first_last="quantized", batch=x)
    calibrate(model, x)
    with torch.no_grad():
        for i, (low, high) in ((0, (-4, 3)), (2, (0, 7)), (4, (0, 7))):
            layer = model[i]
            step = 2 * x.abs().mean() / math.sqrt(high)
            torch.testing.assert_close(layer.input_quantizer.range.step, step)
            w_step = 2 * layer.weight.abs().mean() / math.sqrt(3)
            torch.testing.assert_close(layer.weight_quantizer.range.step, w_step)
            x = F.linear(rounded(x, step, low, high), rounded(layer.weight, w_step, -4, 3), layer.bias).relu()


@pytest.mark.parametrize("training", [True, False])
def test_calibration_changes_nothing_but_quantizers(training):
    model = nn.Sequential(resnet(), nn.Dropout(0.5)).train(training)
    before = fingerprint(model)
    rng = torch.random.get_rng_state()
    convert(model, pair=pair("daq", 2), batch=images())
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert_same_state_of_float_part(model, before)
    calibrate(model, images())
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert_same_state_of_float_part(model, before)
    assert all(m.training == training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def assert_same_state_of_float_part(model, before):
    now = model.state_dict()
    for key, value in before.items():
        assert torch.equal(now[key], value), key


def test_batchnorm_works_in_the_mode_the_model_is_in():
    class Spy(nn.Module):
        def forward(self, x):
            self.seen = x
            return x

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Spy(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
    )
    x = 5 + images()
    convert(model, pair=pair("lsq", 4), batch=x)
    calibrate(model.train(), x)
    assert model[2].seen.mean().abs() < 1e-4  # the batch's statistics
    calibrate(model.eval(), x)
    assert model[2].seen.mean().abs() > 0.1  # the running ones, which are still 0 and 1
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert model[1].num_batches_tracked == 0


@pytest.mark.parametrize("name", EACH)
def test_calibrating_again_is_calibrating_anew(name):
    model, fresh = ready(name), converted(name)
    calibrate(model, images(seed=5))
    calibrate(fresh, images(seed=5))
    assert_same_state(model, fingerprint(fresh))


def test_batches_come_in_three_forms():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet()

        def forward(self, pixels, scale=1.0):
            return self.net(pixels * scale)

    x = images()
    states = []
    for batch in (x, (x, torch.zeros(8)), [x], {"pixels": x / 2, "scale": 2.0}):
        model = Named()
        convert(model, pair=pair("lsq", 4), batch=batch)
        calibrate(model, batch)
        states.append(fingerprint(model))
    for state in states[1:]:
        for key, value in states[0].items():
            torch.testing.assert_close(state[key], value)


def test_inputs_by_keyword():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(input=self.a(input=x).relu())

    model = ByName()
    convert(model, pair=pair("lsq", 4), batch=torch.randn(3, 4), first_last="quantized")
    calibrate(model, torch.randn(3, 4))
    assert model.a.calibrated
    assert model.b.calibrated


def test_one_reduce_for_all_layers():
    model, other = converted("lsq"), converted("lsq")
    calibrate(model, images(), reduce=lambda t: t)
    calibrate(other, images(), reduce=lambda t: 2 * t)
    torch.testing.assert_close(
        other.layer1[0].conv1.input_quantizer.range.step, 2 * model.layer1[0].conv1.input_quantizer.range.step
    )
    a, b = (m.layer1[0].conv1.weight_quantizer.range.step for m in (model, other))
    assert torch.equal(a, b)


def test_refusals_of_calibrate():
    with pytest.raises(ValueError, match="no quantized layer: convert it first"):
        calibrate(resnet(), images())
    bad = images()
    bad[0, 0, 0, 0] = math.nan
    model = converted(first_last="quantized")
    before = fingerprint(model)
    with pytest.raises(ValueError, match=r"layer 'conv1': x holds 1 of .* NaN"):
        calibrate(model, bad)
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model.bn1.running_mean, before["bn1.running_mean"])
    with pytest.raises(RuntimeError, match=r"QuantConv2d\(3, 8.*not calibrated yet"):
        model(images())


PROCESSES = """
import sys, torch
from torch import distributed
from qviz.methods.pairs import pair
from qviz.nn.convert import calibrate, convert
from tests.nn.small_nets import images, resnet
distributed.init_process_group("gloo")
rank, world = distributed.get_rank(), distributed.get_world_size()
assert world == 2
model = resnet().eval()
x = images().abs()
x[1, 0, 0, 0] = -1.0  # only the second process sees that the image is signed
convert(model, pair=pair(sys.argv[1], 3), batch=x[rank::world], first_last="quantized")
calibrate(model, x[rank::world])
torch.save(model.state_dict(), f"{sys.argv[2]}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsq", "daq", "ste"])
def test_two_processes_end_with_one_set_of_quantizers(name, tmp_path, checkout):
    script = tmp_path / "calibrate.py"
    script.write_text(PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), name, str(tmp_path)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    whole = resnet().eval()
    x = images().abs()
    x[1, 0, 0, 0] = -1.0
    convert(whole, pair=pair(name, 3), batch=x, first_last="quantized")
    calibrate(whole, x)
    close = {"lsq": 1e-3, "daq": 0.05, "ste": 0.15}[
        name
    ]  # a mean of deviations, or of clips, is not the whole's
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(states[0][key], value, rtol=close, atol=1e-5)


# --- and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUANTIZED)
def test_deconvert_gives_the_float_model_back(name):
    model = resnet().eval()
    x, y = images(), resnet().eval()(images())
    before, held = fingerprint(model), dict(model.named_parameters())
    names = {key: type(module) for key, module in model.named_modules()}
    convert(model, pair=pair(name, 2), first_last="quantized", batch=x)
    calibrate(model, x)
    assert not torch.allclose(model(x), y)
    assert deconvert(model) is model
    assert {key: type(module) for key, module in model.named_modules()} == names
    now = dict(model.named_parameters())
    assert now.keys() == held.keys()
    assert all(now[key] is held[key] for key in held)
    assert_same_state(model, before)
    assert torch.equal(model(x), y)
    convert(model, pair=pair(name, 2), batch=x)  # and again


@pytest.mark.parametrize("name", ["lsq", "post", "adq", "pact", "daq"])
def test_baked_weights_compute_what_the_quantized_ones_did(name):
    model = resnet().eval()
    convert(model, pair=pair(name, 3, 32), batch=images())
    calibrate(model, images())
    y = model(images())
    held = dict(model.named_parameters())["layer1.0.conv1.weight"]
    deconvert(model, bake=True)
    assert type(model.layer1[0].conv1) is nn.Conv2d
    assert model.layer1[0].conv1.weight is held
    assert len(model.layer1[0].conv1.weight.unique()) <= 8 * (8 if name == "post" else 1)
    torch.testing.assert_close(model(images()), y)


def test_baking_refuses_what_it_cannot_do():
    for name, kind in (("daq", "LearnedBounds"), ("adq", "InOutScale")):
        model = ready(name)
        before = fingerprint(model)
        with pytest.raises(ValueError, match=f"'layer1.0.conv1' cannot be baked: {kind} maps"):
            deconvert(model, bake=True)
        assert_same_state(model, before)
    with pytest.raises(RuntimeError, match=r"'layer1.0.conv1' is not calibrated"):
        deconvert(converted("lsq"), bake=True)


# --- copies and states -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_a_deep_copy_is_equal_and_apart(name):
    model = ready(name).eval()
    y = model(images())
    other = copy.deepcopy(model)
    assert torch.equal(other(images()), y)
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in other.parameters()}
    assert not shared
    before = fingerprint(model)
    other.train()
    other(images()).square().sum().backward()
    torch.optim.SGD(other.parameters(), 0.1).step()
    adapt(other)
    deconvert(other)
    assert quantized(model) == INSIDE
    assert_same_state(model, before)
    assert torch.equal(model(images()), y)


@pytest.mark.parametrize("name", EACH)
def test_a_state_goes_into_a_freshly_converted_model(name):
    model = ready(name)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(2):  # codebooks and all else move off their starts
        model(images()).square().mean().backward()
        optimizer.step()
        adapt(model)
    model.eval()
    other = converted(name, seed=1).eval()
    other.load_state_dict(load(save(model.state_dict())))
    assert all(m.calibrated for m in other.modules() if isinstance(m, QuantLayer))
    assert all(m._ready for m in other.modules() if isinstance(m, QuantLayer))
    assert torch.equal(other(images()), model(images()))
    assert_same_state(other, fingerprint(model))


def test_a_float_checkpoint_does_not_calibrate():
    for name in ("lsq", "adq", "daq"):
        model = converted(name)
        missing = model.load_state_dict(resnet(1).state_dict(), strict=False).missing_keys
        assert "layer1.0.conv1.weight_quantizer.codebook.knots" in missing
        assert torch.equal(model.layer1[0].conv1.weight, resnet(1).layer1[0].conv1.weight)
        with pytest.raises(RuntimeError, match="not calibrated yet"):
            model(images())


def test_the_float_keys_stay():
    assert resnet().state_dict().keys() < converted("daq").state_dict().keys()


# --- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_every_parameter_of_a_converted_model_learns(name):
    model = ready(name, 4)
    x, labels = images(16, seed=2), torch.arange(16) % 10
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        if not losses:
            for key, p in model.named_parameters():
                assert p.grad is not None, key
                assert p.grad.isfinite().all(), key
        optimizer.step()
        adapt(model)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", QUANTIZED)
def test_autocast(name):
    model = ready(name, 4, first_last="quantized").eval()
    y = model(images()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        z = model(images())
    assert z.dtype == torch.bfloat16
    assert (z - y).abs().mean() < 0.25 * y.abs().mean()  # bfloat16 moves some values across a border
    z.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_channels_last():
    model = ready("daq", 4).eval()
    y = model(images())
    model.to(memory_format=torch.channels_last)
    seen = []
    model.layer3.register_forward_hook(lambda m, args, out: seen.append(out))
    z = model(images().to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(z, y, rtol=1e-3, atol=1e-3)


def tiny(name, seed=0):
    """Two quantized layers, one of them with a bias, and what stands between layers."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()
    )
    convert(model, pair=pair(name, 4), batch=images(), first_last="quantized")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_is_eager(name):
    torch._dynamo.reset()
    source, model = tiny(name), tiny(name, seed=1).eval()
    calibrate(source, images())
    model.load_state_dict(source.state_dict())  # ready without a first pass
    compiled = torch.compile(model, fullgraph=True)
    x = images()
    y = compiled(x)
    y.square().sum().backward()
    got = {key: p.grad for key, p in model.named_parameters()}
    model.zero_grad()
    z = model(x)
    torch.testing.assert_close(y, z, rtol=1e-3, atol=1e-3)
    z.square().sum().backward()
    for key, p in model.named_parameters():
        scale = p.grad.abs().max().item()
        assert (got[key] - p.grad).abs().max() < 0.02 * scale + 1e-6, key
    torch._dynamo.reset()


# --- recipes by layer --------------------------------------------------------------------------------------


def test_an_allocation_is_applied():
    model = resnet()
    sizes = [model.get_submodule(name).weight.numel() for name in INSIDE]
    p = pair("adq", 3, 4)
    omega = allocate.fisher(
        model,
        INSIDE,
        [(images(), torch.arange(8))],
        lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        lambda bits: p.with_bits(bits).weight(nn.Conv2d(1, 1, 1)),
    )
    found = allocate.exact(omega, sizes, 2.81)
    assert len(set(found.bits)) > 1
    done = convert(
        model, pair=p, bits=dict(zip(INSIDE, found.bits, strict=True)), batch=images(), first_last="fp"
    )
    for name, bits in zip(INSIDE, found.bits, strict=True):
        row = done.row(name)
        assert (row.w_bits, row.w_levels, row.a_bits, row.a_levels) == (bits, 2**bits - 1, 4, 16)
    assert done.average_bits == pytest.approx(found.average)
    calibrate(model, images())
    model(images())


def test_bits_of_some_layers():
    model = resnet()
    bits = {"layer1.0.conv1": 8, "layer2.0.conv1": (2, 6), "layer3.0.conv2": (32, 3)}
    done = convert(model, pair=pair("daq", 4), bits=bits, batch=images())
    assert [(done.row(n).w_bits, done.row(n).a_bits) for n in INSIDE] == [
        (8, 4),
        (4, 4),
        (2, 6),
        (4, 4),
        (4, 4),
        (32, 3),
    ]
    assert not model.layer3[0].conv2.standardize
    assert model.layer3[0].conv2.output_scale is not None


def test_a_pair_by_layer():
    model = resnet()
    given = dict.fromkeys(INSIDE, pair("lsq", 4, 3))
    given["layer1.0.conv2"] = pair("daq", 2)
    given["layer2.0.conv1"] = None
    done = convert(model, pair=given, batch=images())
    assert [(done.row(n).w_levels, done.row(n).a_levels) for n in INSIDE[:3]] == [
        (16, 8),
        (4, 4),
        (None, None),
    ]
    assert done.row("layer2.0.conv1").note == "left in floating point"
    assert type(model.layer2[0].conv1) is nn.Conv2d
    assert [model.get_submodule(n).standardize for n in INSIDE[:2]] == [False, True]


def test_fp32_changes_nothing():
    model = resnet()
    done = convert(model, pair=pair("fp32"), batch=images(), first_last="quantized")
    assert quantized(model) == []
    assert {row.note for row in done.rows} == {"left in floating point"}
    assert done.average_bits is None
    assert done.to_dict()["quantized_layers"] == 0
    str(done)


# --- refusals ----------------------------------------------------------------------------------------------


def broken(layer):
    if layer.out_channels == 32:
        raise ValueError("no such width")
    return recipes.lsq(4)


REFUSED = {
    "policy": ({"pair": pair("lsq", 4), "first_last": "float"}, ValueError, "one of fp, 8bit, .*got 'float'"),
    "skip": ({"pair": pair("lsq", 4), "skip": ["fc", "layer9.*"]}, ValueError, "'layer9.*', which matches"),
    "skip norm": ({"pair": pair("lsq", 4), "skip": "bn1"}, ValueError, "'bn1', which matches no layer"),
    "name": ({"pair": "lsq"}, TypeError, "must be a Pair .*got 'lsq'"),
    "name by layer": ({"pair": dict.fromkeys(INSIDE, "lsq")}, TypeError, "must be a Pair .*got 'lsq'"),
    "nothing": ({"pair": None}, TypeError, "must be a Pair .*got None"),
    "bits and a pair by layer": (
        {"pair": {INSIDE[0]: pair("lsq", 4)}, "bits": {INSIDE[0]: 4}},
        ValueError,
        "bits by layer go with one pair",
    ),
    "a pair for the first": (
        {"pair": dict.fromkeys([*INSIDE, "conv1"], pair("lsq", 4))},
        ValueError,
        "pair names 'conv1', which skip= or first_last=",
    ),
    "bits nowhere": ({"pair": pair("lsq", 4), "bits": {"layer9": 4}}, ValueError, "bits names 'layer9'"),
    "bits of the first": ({"pair": pair("lsq", 4), "bits": {"conv1": 4}}, ValueError, "bits names 'conv1'"),
    "bits of the first at 8": (
        {"pair": pair("lsq", 4), "bits": {"conv1": 4}, "first_last": "8bit"},
        ValueError,
        "bits names 'conv1'",
    ),
    "bits of the skipped": (
        {"pair": pair("lsq", 4), "bits": {INSIDE[0]: 4}, "skip": INSIDE[0]},
        ValueError,
        "which skip= or first_last=",
    ),
    "bits": ({"pair": pair("post", 4), "bits": {INSIDE[-1]: 1}}, ValueError, "between 2 and 8, got 1"),
    "signed": ({"pair": pair("lsq", 4), "signed": {"layer9": True}}, ValueError, "signed names 'layer9'"),
    "recipe": ({"pair": Pair("mine", 4, 32, broken, None)}, ValueError, "no such width"),
    "type": (
        {"pair": Pair("mine", 32, 4, None, lambda layer, signed: "lsq")},
        TypeError,
        "act must return a Quantizer .*got str",
    ),
    "missing": (
        {"pair": {INSIDE[0]: pair("lsq", 4)}},
        ValueError,
        "pair has no entry for layer 'layer1.0.conv2'",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_refusal_changes_nothing(why):
    how, kind, message = REFUSED[why]
    model = resnet()
    before = fingerprint(model)
    with pytest.raises(kind, match=message):
        convert(model, **how)
    assert quantized(model) == []
    assert_same_state(model, before)


def test_a_layer_that_refuses_undoes_those_before_it():
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 3, 1))
    with pytest.raises(ValueError, match="layer '1': a weight of one element"):
        convert(model, pair=pair("daq", 2), first_last="quantized")
    assert quantized(model) == []


def test_models_that_cannot_be_converted():
    with pytest.raises(ValueError, match=r"'layer1.0.conv1' is quantized already: deconvert"):
        convert(converted(), pair=pair("lsq", 4))
    with pytest.raises(ValueError, match="Sequential has no Conv2d or Linear layer"):
        convert(nn.Sequential(nn.Conv1d(1, 1, 1)), pair=pair("lsq", 4))
