"""The report says what a forward pass does: small networks of the kinds that people convert."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from qviz import recipes
from qviz.nn import QuantLinear, calibrate, capture, convert, deconvert, report
from qviz.nn.batchnorm import reestimate_batchnorm
from qviz.nn.calibration import together
from qviz.nn.ptq.fold import fold_batchnorm
from qviz.nn.ptq.front import ptq
from tests.nn.small_nets import fingerprint
from tests.slow import slow

PAIR = recipes.pair("lsq", 3)


class Recurrent(nn.Module):
    """A cell whose state starts at zero: its first call sees almost nothing."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        state = 1e-3 * x[0]
        for row in x:
            state = torch.tanh(3 * self.cell(state) + row)
        return self.head(state)


class Experts(nn.Module):
    """Each row goes to one of three experts; nothing goes to the last, which runs on zero rows."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        where = (x[:, 0] > 0).long()
        return torch.cat([expert(x[where == i]) for i, expert in enumerate(self.experts)])


class Pyramid(nn.Module):
    """One head over maps of two sizes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        maps = x.view(-1, 8, 4, 4)
        return [self.head(maps), self.head(maps[:, :, ::2, ::2] * 100)]


class ByKeyword(nn.Module):
    """Keyword arguments only, and a mapping as output."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, *, pixels):
        return {"logits": self.b(input=self.a(input=pixels).relu())}


def patched():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    net[2].forward = functools.partial(nn.Linear.forward, net[2])
    return net


def computed():
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    parametrizations.weight_norm(net[0])
    prune.l1_unstructured(net[1], "weight", 0.5)
    return net


NETS = {
    "recurrent": (Recurrent, lambda x: x),
    "experts": (Experts, lambda x: x),
    "pyramid": (Pyramid, lambda x: x),
    "keywords": (ByKeyword, lambda x: {"pixels": x}),
    "patched": (patched, lambda x: x),
    "computed": (computed, lambda x: x),
    "transformer": (
        lambda: nn.Sequential(
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1),
            nn.Linear(8, 2),
        ),
        lambda x: x.view(4, -1, 8),
    ),
}


def tensors(output):
    values = output.values() if isinstance(output, dict) else output if isinstance(output, list) else [output]
    return torch.cat([value.flatten() for value in values])


def outputs(net, batch):
    with torch.no_grad():
        return tensors(net(**batch) if isinstance(batch, dict) else net(batch))


@pytest.mark.parametrize("name", NETS)
def test_a_layer_is_reported_as_quantized_if_and_only_if_it_takes_part_quantized(name):
    """Seen from outside: another step of a weight's quantizer changes the output of the network."""
    torch.manual_seed(0)
    build, shape = NETS[name]
    net = build().eval()
    batch = shape(torch.randn(64, 8))
    convert(net, pair=PAIR, batch=batch, first_last="quantized")
    calibrate(net, batch)
    want = outputs(net, batch)
    rows = {row.name: row.quantized for row in report(net).rows}
    seen = {}
    for layer in rows:
        module = net.get_submodule(layer)
        if not isinstance(module, QuantLinear) and not hasattr(module, "weight_quantizer"):
            seen[layer] = False
            continue
        step = module.weight_quantizer.range.step.data
        kept = step.clone()
        step.mul_(1.5)
        seen[layer] = not torch.equal(outputs(net, batch), want)
        step.copy_(kept)
    assert seen == rows
    assert any(rows.values())


def test_a_forward_that_is_set_afterwards_is_seen_too():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    convert(net, pair=PAIR, first_last="quantized")
    net[0].forward = functools.partial(nn.Linear.forward, net[0])
    row = report(net).row("0")
    assert (row.quantized, "a forward of its own" in row.note) == (False, True)
    with pytest.raises(ValueError, match="'0' ran without quantizing"):
        calibrate(net, torch.randn(5, 4))


def in_float(layer, args, output):
    return nn.functional.linear(args[0], layer.weight, layer.bias)


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
@pytest.mark.parametrize("hook", [in_float, lambda layer, args, output: output.zero_()])
def test_a_hook_that_replaces_the_output_is_seen(hook, shape):
    net, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(shape)
    net[1].register_forward_hook(lambda layer, args, output: None)
    first = net[0].register_forward_hook(hook)
    convert(net, pair=PAIR, first_last="quantized", signed={"1": True})
    with pytest.warns(UserWarning, match="a forward hook replaces the output of '0': "):
        calibrate(net, x)
    row, other = report(net).rows
    assert not row.quantized
    assert row.note.startswith("not counted as quantized: a forward hook replaces its output")
    assert (other.quantized, other.note) == (True, "")
    assert len(net[0]._forward_hooks) == 1
    first.remove()
    assert all(row.quantized for row in report(net).rows)
    later = net[1].register_forward_hook(hook)  # after calibration: the next run shows it
    copy.deepcopy(net)(x)
    assert report(net).row("1").quantized
    for _ in range(2):
        net(x)
        assert [row.quantized for row in report(net).rows] == [True, False]
    later.remove()


@dataclass
class Held:
    """An output that is none of torch's containers."""

    scores: torch.Tensor


def beside(share):
    """Return a hook on a container that computes in float beside it, and keeps a share of its output."""
    other = nn.Linear(4, 4)
    return lambda net, args, output: Held(other(args[0]) + (share * output if share else 0))


HOOKS = {
    "container": ("", beside(0), [False, False]),
    "mixed": ("", beside(0.1), [True, True]),
    "last": ("2", in_float, [True, False]),
    "first": ("0", in_float, [False, True]),
    "LoRA": ("0", lambda layer, args, output: output + args[0] @ torch.ones(4, 4), [True, True]),
    "array": ("", lambda layer, args, output: output.numpy(force=True), [True, True]),
    "part": ("2", lambda layer, args, output: output[:, :2].mul_(2), [True, True]),
    "rest": ("0", lambda layer, args, output: (output[:, :2].zero_(), None)[1], [True, True]),
    "number": ("0", lambda layer, args, output: torch.ones(5, 4) * output.sum().item(), [True, True]),
}


@pytest.mark.parametrize("name", HOOKS)
def test_layers_count_if_what_the_network_returns_is_computed_from_them(name):
    where, hook, counted = HOOKS[name]
    net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.randn(5, 4)
    handle = net.get_submodule(where).register_forward_hook(hook)
    found = [convert(net, pair=PAIR, first_last="quantized", batch=x)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        calibrate(net, x)
    assert len(told) == (False in counted)
    found.append(report(net))
    handle.remove()
    assert all(row.quantized for row in report(net).rows)
    net.get_submodule(where).register_forward_hook(hook)
    found.append(report(net, batch=x))
    for done in found:
        assert [row.quantized for row in done.rows] == counted


def test_nothing_quantized_says_why():
    net = nn.Sequential(nn.Conv1d(3, 4, 1), nn.Conv1d(4, 2, 1))
    with pytest.raises(ValueError, match="2 layers: only Conv2d and Linear are, this is a Conv1d"):
        convert(net, pair=PAIR)


def on_meta():
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))


SHELLS = {
    "meta": (on_meta, "0.weight is on the meta device and has no values: load"),
    "lazy": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(2)), "1.weight is lazy and has no shape"),
}


@pytest.mark.parametrize("kind", SHELLS)
def test_a_model_without_values_is_refused_where_it_would_run(kind):
    build, message = SHELLS[kind]
    with pytest.raises(ValueError, match=message):
        convert(build(), pair=PAIR, batch=torch.randn(4, 8))
    net = build()
    convert(net, pair=PAIR, first_last="quantized")
    with pytest.raises(ValueError, match=message):
        calibrate(net, torch.randn(4, 8))


def test_a_default_device_does_not_matter():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    with torch.device("meta"):
        convert(net, pair=PAIR, first_last="8bit", signed={"1": True, "2": True})
    calibrate(net, torch.randn(4, 8))
    assert not any(t.is_meta for t in (*net.parameters(), *net.buffers()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_a_layer_that_another_library_made_integer_is_named():
    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)), {nn.Linear})
    bytewise = nn.Linear(8, 4)
    bytewise.weight = nn.Parameter(torch.ones(4, 8, dtype=torch.int8), requires_grad=False)
    net.append(bytewise).append(nn.Linear(4, 2))
    done = convert(net, pair=PAIR, first_last="quantized")
    assert [(row.name, row.w_bits, row.weights, row.note) for row in done.rows] == [
        ("0", 8, 64, "not quantized: its weight is torch.qint8, not floating point"),
        ("1", 8, 32, "not quantized: its weight is torch.int8, not floating point"),
        ("2", 3, 8, "first and last layer"),
    ]
    assert "fp8" not in str(done)


def test_all_calls_of_a_layer_set_it():
    """LSQ's start by its formula, 2 mean|x| / sqrt(top), over what a hook sees."""
    torch.manual_seed(0)
    net, x, seen = Recurrent(), torch.randn(7, 5, 8), []
    convert(net, pair=PAIR, signed={"cell": True, "head": True}, first_last="quantized")
    watch = net.cell.register_forward_pre_hook(lambda layer, args: seen.append(args[0].clone()))
    calibrate(net, x)
    watch.remove()
    want = 2 * torch.cat(seen).abs().mean() / math.sqrt(3)
    torch.testing.assert_close(net.cell.input_quantizer.range.step.detach(), want)


def test_maps_of_several_sizes_count_the_same_and_lose_nothing():
    small, large = torch.full((1, 2, 1, 2), 5.0), torch.arange(18.0).view(1, 2, 3, 3)
    both = together([small, large])
    assert both.shape == (2, 2, 9, 1)
    assert torch.equal(both[0], torch.full((2, 9, 1), 5.0))
    assert torch.equal(both[1].flatten(), large.flatten())


def test_zero_rows_go_through_as_in_float():
    layer = QuantLinear(4, 3, weight_quantizer=recipes.lsq(3), input_quantizer=recipes.lsq(3))
    assert layer(torch.empty(0, 4)).shape == (0, 3)
    assert layer(torch.empty(2, 0, 4)).shape == (2, 0, 3)
    layer.observe(torch.randn(5, 4))
    layer(torch.empty(0, 4)).sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("tie", ["embedding", "layer"])
def test_baking_a_tied_weight_changes_no_output(tie):
    torch.manual_seed(0)
    if tie == "embedding":
        net = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10, bias=False))
        x = torch.arange(10)
    else:
        net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        x = torch.randn(6, 8)
    net[1].weight = net[0].weight
    by_layer = {"0": recipes.pair("lsq", 4, 32), "1": recipes.pair("lsq", 2, 32)}
    if tie == "embedding":
        del by_layer["0"]
    convert(net, pair=by_layer, first_last="quantized", batch=x)
    calibrate(net, x)
    want = net(x)
    torch.testing.assert_close(deconvert(net, bake=True)(x), want)


@pytest.mark.parametrize("tie", ["layer", "normalization"])
def test_baking_a_tied_bias_changes_no_output(tie):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8) if tie == "layer" else nn.LayerNorm(8))
    net[1].bias = net[0].bias
    x = torch.randn(64, 8)
    convert(net, pair=recipes.pair("daq", 4, 32), first_last="quantized", batch=x)
    calibrate(net, x)
    want = net(x)
    torch.testing.assert_close(deconvert(net, bake=True)(x), want)


def test_a_parameter_that_is_computed_after_convert_is_not_baked():
    for which, pair in (("weight", PAIR), ("bias", recipes.pair("daq", 4, 32))):
        net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        convert(net, pair=pair, first_last="quantized", signed={"1": True})
        calibrate(net, torch.randn(6, 8))
        prune.random_unstructured(net[0], which, 0.5)
        with pytest.raises(ValueError, match=f"'0' cannot be baked: a hook computes its {which}"):
            deconvert(net, bake=True)


def test_loaders_iterators_and_arrays():
    """What they give counts as one batch of all the rows."""
    x, states = torch.randn(12, 8), []
    for batch in (
        x,
        x.numpy(),
        [x.numpy(), np.zeros(12)],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(12)), batch_size=12),
        iter([(x, None)]),
        ({"input": x}, None),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 4))
        if isinstance(batch, tuple):
            net = net[0]
        convert(
            net, pair=PAIR, first_last="quantized", signed={"" if isinstance(batch, tuple) else "0": True}
        )
        calibrate(net, batch)
        states.append(list(fingerprint(net).values()))
    for state in states[1:]:
        assert all(map(torch.equal, state, states[0]))
    with pytest.raises(ValueError, match="the loader gives no batch"):
        calibrate(net, iter([]))
    with pytest.raises(TypeError, match="a loader of these, got int"):
        calibrate(net, 3)
    with pytest.raises(TypeError, match="a loader of these, got str"):
        calibrate(net, "images")


def quantized_step(batch, passed):
    """Return the step of the input of a layer that was converted and calibrated on these."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 4))
    convert(net, pair=PAIR, first_last="quantized", batch=passed)
    calibrate(net, batch)
    return net[0].input_quantizer.range.step


def test_a_list_of_tensors_is_never_taken_for_its_first():
    xs = [scale * torch.randn(16, 8) for scale in (1.0, 6.0, 11.0, 16.0)]
    whole = torch.cat(xs)
    assert torch.equal(quantized_step(whole, whole), quantized_step(iter(xs), iter(xs)))
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    for batch in (xs, xs[:2], tuple(xs), [x.numpy() for x in xs[:2]]):
        for use in (
            partial(convert, net, pair=PAIR, batch=batch),
            partial(reestimate_batchnorm, net, batch),
            partial(fold_batchnorm, net.eval(), batch),
            partial(capture.inputs, net, ["0"], batch),
        ):
            with pytest.raises(
                TypeError, match=rf"a {type(batch).__name__} of {len(batch)}.* iter\(batches\)"
            ):
                use()
    convert(net, pair=PAIR, first_last="quantized")
    for batch in (xs, xs[:2]):
        with pytest.raises(TypeError, match=r"which are of \(16, 8\)"):
            calibrate(net, batch)
    noisy = torch.utils.data.TensorDataset(xs[0], xs[1])  # a pair of one shape is none the less one
    pairs = torch.utils.data.DataLoader(noisy, batch_size=16)
    for batch in (pairs, tuple(xs[:2]), [tuple(xs[:2])]):
        assert torch.equal(quantized_step(batch, batch), quantized_step(xs[0], xs[0]))


class Sum(nn.Module):
    """Takes two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(8, 4), nn.Linear(8, 4), nn.BatchNorm1d(4)

    def forward(self, x, y):
        return self.norm(self.a(x) + self.b(y))


def test_several_inputs_are_what_they_are_for_fit():
    x, y, labels = torch.randn(64, 8), torch.randn(64, 8), torch.zeros(64, dtype=torch.int64)
    states = []
    loader = torch.utils.data.DataLoader([((x[i], y[i]), labels[i]) for i in range(64)], batch_size=64)
    for batch in (
        {"x": x, "y": y},
        ((x, y), labels),
        ([x.numpy(), y], None),
        loader,
        next(iter(loader)),
    ):
        torch.manual_seed(0)
        net = Sum()
        convert(net, pair=PAIR, first_last="quantized", batch=batch)
        calibrate(net, batch)
        states.append(list(fingerprint(net).values()))
        assert net.norm.running_mean.abs().sum() > 0  # 64 samples were counted
    for state in states[1:]:
        assert all(map(torch.equal, state, states[0]))


class Holds(nn.Module):
    """Compiles what it holds, and not itself."""

    def __init__(self, net):
        super().__init__()
        self.net = torch.compile(net, backend="eager")

    def forward(self, x):
        return self.net(x)


def compiled_in_place(net):
    net.compile(backend="eager")
    return net


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Dynamo
@pytest.mark.parametrize(
    "compiled",
    [*slow(partial(torch.compile, backend="eager")), compiled_in_place, *slow(Holds)],
    ids=["whole", "in place", "part"],
)
def test_a_compiled_network_that_ran_before_is_quantized_as_any_other(compiled):
    torch._dynamo.reset()
    x = torch.randn(64, 8)

    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).eval()

    results = []
    for net in (made(), compiled(made())):
        with torch.no_grad():
            net(x)  # caches a graph, which calls no hooks
        done = convert(net, pair=PAIR, batch=x, first_last="quantized")
        calibrate(net, x)
        rows = [(row.name.removeprefix("net._orig_mod."), row.note) for row in done.rows]
        with torch.no_grad():
            results.append((rows, net(x)))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Dynamo
def test_ptq_of_a_compiled_network_that_ran_before():
    torch._dynamo.reset()
    x, results = torch.randn(64, 8), []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).eval()
        net = torch.compile(net, backend="eager") if compiled else net
        with torch.no_grad():
            net(x)
            found = ptq(net, x, w_bits=4, method="closed-form", show=False).to_dict()
            results.append((found["conversion"], net(x)))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1])


class Twice(nn.Module):
    """Uses a layer, and what ``read`` makes of the layer."""

    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.read = nn.Linear(8, 8), nn.Linear(8, 8), read

    def forward(self, x):
        return self.b(self.a(x)) + self.read(self.a, x)


@pytest.mark.parametrize(
    ("read", "past"),
    [
        (lambda a, x: nn.functional.linear(x, a.weight), True),
        (lambda a, x: x @ a.weight.data.t(), True),
        (lambda a, x: nn.functional.embedding(x[:, 0].long() * 0, a.weight), True),
        (lambda a, x: a(x), False),
        (lambda a, x: x.to(a.weight.dtype).to(a.weight) + a.weight.new_zeros(a.weight.shape[0]), False),
    ],
    ids=["functional", "data", "embedding", "layer", "type and shape"],
)
def test_a_weight_that_is_read_past_its_layer_is_told(read, past):
    done = convert(Twice(read), pair=PAIR, batch=torch.randn(4, 8), first_last="quantized")
    assert ("its weight is also read past the layer" in done.row("a").note) == past
    assert "past" not in done.row("b").note


def test_a_batch_that_reaches_nothing_is_no_conversion():
    class Elsewhere(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.a(x)

    for how in ({"first_last": "fp"}, {"first_last": "quantized", "skip": "a"}):
        with pytest.raises(
            ValueError, match="reaches none of the layers to be quantized, which are 'b', 'c'"
        ):
            convert(Elsewhere(), pair=PAIR, batch=torch.randn(4, 8), **how)


def test_codes_are_those_of_the_weight_that_the_quantizer_reads():
    torch.manual_seed(0)
    p = recipes.pair("daq", 2)
    layer = QuantLinear(6, 5, standardize=True, output_scale=True)
    layer.weight_quantizer = p.weight(layer)
    layer.observe(torch.rand(9, 6))
    got = layer.weight_quantizer.dequantize(layer.codes()) * layer.output_scale.abs()
    torch.testing.assert_close(got, layer.quantized_weight())
    with pytest.raises(ValueError, match="no weight quantizer"):
        QuantLinear(2, 2).codes()


def test_mixing_quantized_and_float_inputs():
    layer = QuantLinear(1, 1, bias=False, input_quantizer=recipes.lsq(2))
    nn.init.ones_(layer.weight)
    x = torch.randn(4000, 1)
    layer.observe(x)
    q = layer.eval()(x)
    layer.mix(0.25, torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), q)  # all of it in eval mode
    y = layer.train()(x)
    assert ((y == x) | (y == q)).all()
    assert abs((y == x).float().mean() - 0.25) < 0.03
    with pytest.raises(ValueError, match=r"a probability, from 0 to 1, got 1\.5"):
        layer.mix(1.5)
    with pytest.raises(ValueError, match="maps the input to another unit"):
        QuantLinear(2, 2, input_quantizer=recipes.daq_activation(2)).mix(0.5)
