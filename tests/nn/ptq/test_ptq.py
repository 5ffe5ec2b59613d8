"""The front: every method on a network of one's own, the gate, stop and resume, bad input."""

import copy
import math
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune, spectral_norm, weight_norm
from torch.utils.data import DataLoader, TensorDataset

from qviz import recipes
from qviz.core.rounding import CellBorder
from qviz.methods.aquant import AdaptiveBorder
from qviz.nn import TrainConfig, calibrate, convert, deconvert, evaluate, fit
from qviz.nn.layers import QuantLayer
from qviz.nn.ptq import Block, Gate, Options, add_borders, fold_batchnorm, fold_borders, ptq, reconstruct
from qviz.nn.ptq.errors import errors
from qviz.nn.ptq.resume import taken_up
from qviz.nn.ptq.settings import METHODS
from qviz.nn.train.packing import pack_weights, unpack_weights
from tests.slow import slow

LEARNED = ("brecq", "qdrop", "aquant")


class Net(nn.Module):
    """Grouped, depthwise, linear layers, one that runs twice, BatchNorm, a shortcut in a module."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block = Residual()
        self.twice = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x):
        x = self.block(self.norm(self.stem(x)).relu())
        x = self.twice(self.twice(x).relu()).relu()
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)

    def forward(self, x):
        return x + self.grouped(self.norm(self.depthwise(x)).relu())


def network():
    torch.manual_seed(0)
    net = Net()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2.0)
    return net.eval()


def images(n=24):
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(1))


FEW = Options(iterations=30, drop=0.5)


def run(net, method="qdrop", **how):
    how = {"w_bits": 3, "first_last": "quantized", "show": False, **how}
    if method in LEARNED:
        how.setdefault("options", FEW)
    return ptq(net, images(), method=method, **how)


@pytest.mark.parametrize(
    "method",
    ["nearest", "aquant", *slow(*sorted(set(METHODS) - {"nearest", "aquant"}))],
)
def test_every_method_gives_an_ordinary_converted_network(method):
    net = network()
    before = net(images()).detach()
    done = run(net, method)
    assert done.finished
    layers = {name: m for name, m in net.named_modules() if isinstance(m, QuantLayer)}
    assert set(layers) == {"stem", "block.depthwise", "block.grouped", "twice", "head.0", "head.2"}
    assert (done.images, done.held) == (18, 6)
    x = images()
    if method in LEARNED:
        assert [result.name for result in done.results] == ["stem", "block", "head.0", "head.2"]
        assert done.notes == ["'twice' runs 2 times and is left out"]
        assert done.output_last <= done.output_first  # the gate
        for result in done.results:
            if result.verdict.accepted:
                for name in result.layers:
                    assert torch.equal(layers[name].quantized_weight(), layers[name].weight)
    other = network()
    fold_batchnorm(other, x[:1])
    assert torch.allclose(other(x), before, atol=1e-5)
    convert(other, pair=done.settings.pair, first_last="quantized", batch=x)
    if method == "aquant":
        add_borders(other)
        fold_borders(other)
        assert isinstance(layers["head.2"].input_quantizer.rounding, CellBorder)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x))
    net(x).square().mean().backward()  # it trains on
    assert layers["block.grouped"].weight.grad is not None
    assert type(deconvert(net).stem) is nn.Conv2d


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_linear_layers_alone(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight)
    x = torch.randn(128, 12)
    with torch.no_grad():
        wanted = net(x)
    how = {"options": Options(iterations=200)} if method in LEARNED else {}
    done = ptq(net, x, w_bits=3, method=method, first_last="quantized", show=False, **how)
    assert done.finished
    assert max(len(row.unique()) for layer in net[::2] for row in layer.quantized_weight()) == 8
    with torch.no_grad():
        assert (net(x) - wanted).square().mean() < 0.2 * wanted.var(0).mean()
    if method in LEARNED:
        assert [result.name for result in done.results] == ["0", "2", "4"]
        assert all(result.learned.hard < result.learned.first for result in done.results)


@pytest.mark.parametrize("pair", ["post", *slow("lsq", "pact", "asq")])
def test_other_grids(pair):
    done = run(network(), "brecq", w_bits=None, pair=recipes.pair(pair, 4), gate=False)
    assert all(result.learned.soft < result.learned.first for result in done.results)


@pytest.mark.parametrize(("pair", "why"), [("daq", "another unit"), ("apot", "standardizes")])
def test_levels_that_are_not_the_weights_are_refused_and_nothing_changes(pair, why):
    net = network()
    before, text = copy.deepcopy(net.state_dict()), repr(net)
    with pytest.raises(ValueError, match=f"layer 'stem' cannot be reconstructed: .*{why}"):
        run(net, w_bits=None, pair=recipes.pair(pair, 4))
    assert repr(net) == text
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.slow
def test_a_stage_that_fails_is_taken_back_and_the_report_says_so():
    wild = Options(iterations=5, step_lr=50.0, weights=False)
    net, nearest = network(), network()
    done = run(net, options=wild)
    run(nearest, "nearest")
    assert not any(result.verdict.accepted for result in done.results)
    assert done.output_last == done.output_first
    assert torch.equal(net(images()), nearest(images()))
    v = done.results[0].verdict
    text = str(done)
    assert "taken back, as held-out images were worse: stem, block, head.0 and 1 more" in text
    assert f"{v.block_before:.3g}" in text
    assert f"{v.block_after:.3g}" in text
    free = run(network(), options=wild, gate=False)
    assert all(result.verdict.accepted for result in free.results)
    assert free.output_last > done.output_last


class Stop:
    """Presses Ctrl-C in the n-th step of learning."""

    def __init__(self, n):
        self.n = n

    def __call__(self, module, args, out):
        if torch.is_grad_enabled() and isinstance(module.grouped, QuantLayer):
            self.n -= 1
            if self.n == 0:
                signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(("at", "elsewhere"), [(1, False), (20, True)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(at, elsewhere):
    whole, net = network(), network()
    verdicts = [result.verdict for result in run(whole, "aquant", gate=False).results]
    handle = net.block.register_forward_hook(Stop(at))
    done = run(net, "aquant", gate=False)
    handle.remove()
    assert not done.finished
    assert [result.name for result in done.results] == ["stem"]
    assert "stopped before the end" in str(done)
    assert net(images()).isfinite().all()
    with pytest.raises(ValueError, match="the run that was stopped had seed=0, got 1"):
        run(net, "aquant", gate=False, resume=done, seed=1)
    if elsewhere:
        tensors, figures = unpack_weights(pack_weights(net, done.to_dict()), "a file")
        net = network()
        done = taken_up(net, images(), done.settings, tensors, figures)
    again = run(net, "aquant", gate=False, resume=done)
    assert again is done
    assert again.finished
    assert [result.name for result in again.results] == ["stem", "block", "head.0", "head.2"]
    assert [result.verdict for result in again.results] == verdicts
    state = net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.state_dict().items())
    with pytest.raises(ValueError, match="has ended"):
        run(net, "aquant", gate=False, resume=done)


@pytest.fixture
def interrupts():
    """SIGINT raises KeyboardInterrupt; a shell's background jobs begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts")
def test_a_stage_that_was_stopped_is_undone_and_done_again():
    nearest, whole, net = network(), network(), network()
    run(nearest, "nearest")
    stem = run(whole, "closed-form").reference.stem.weight

    def press(module, args, out):
        begun = isinstance(net.stem, QuantLayer) and not torch.equal(net.stem.weight, stem)
        if begun and module is net.block.grouped:  # and not a copy
            signal.raise_signal(signal.SIGINT)

    handle = net.block.grouped.register_forward_hook(press)
    done = run(net, "closed-form")
    handle.remove()
    assert not done.finished
    assert all(torch.equal(v, nearest.state_dict()[k]) for k, v in net.state_dict().items())
    assert run(net, "closed-form", resume=done).finished
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.slow
def test_the_seed_draws_the_batches():
    found = []
    for seed in (0, 0, 1):
        net = network()
        reference = run(net, "nearest").reference
        x = images()
        reconstruct(net, x[6:], Gate(net, reference, x[:6], strict=False), options=FEW, seed=seed, show=False)
        found.append(net.block.grouped.weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.slow
def test_the_result_trains_on():
    net = network()
    run(net, "aquant")
    x = images()
    data = DataLoader(TensorDataset(x, torch.arange(24) % 5), batch_size=8)
    before = evaluate(net, data)["loss"]
    how = TrainConfig(epochs=8, batch_size=8, lr=0.05)
    fit(net, data, how, progress=False)
    assert evaluate(net, data)["loss"] < before
    assert net.block.grouped.weight_quantizer.recipe.name == "lsq_plus"


def test_borders_fold_to_the_same_codes():
    net = network()
    x = images()
    fold_batchnorm(net, x[:1])
    convert(net, pair=recipes.pair("lsq", 3), first_last="quantized", batch=x)
    assert add_borders(net, skip=["twice"]) == [
        "stem",
        "block.depthwise",
        "block.grouped",
        "head.0",
        "head.2",
    ]
    calibrate(net, x)
    q = net.block.grouped.input_quantizer
    with torch.no_grad():
        q.rounding.b.normal_(generator=torch.Generator().manual_seed(0))
        q.rounding.guard()
    u = torch.rand(50, 8, 9, 9) * 8 * q.scale
    before, bend = q.codes(u), net(x)
    assert "block.grouped" in fold_borders(net)
    assert torch.equal(net.block.grouped.input_quantizer.codes(u), before)
    assert torch.equal(net(x), bend)


@pytest.mark.parametrize(
    "how",
    [
        {"correction": "mean"},
        *slow({"correction": "std"}),
        {"method": "closed-form"},
        *slow({"method": "adaround"}),
    ],
)
def test_a_stage_without_iterations_is_judged_as_a_whole(how):
    net = network()
    done = run(net, **{"method": "nearest", "w_bits": 2, **how})
    assert [result.name for result in done.results] == ["the network"]
    assert done.results[0].learned is None
    assert done.output_last < done.output_first
    if how.get("correction") != "mean":
        layer = net.block.grouped
        assert torch.equal(layer.quantized_weight(), layer.weight)
        with pytest.raises(ValueError, match="layer 'stem'"):
            run(network(), w_bits=None, pair=recipes.pair("daq", 2), **{"method": "nearest", **how})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer", "cell", "fused"])
def test_other_borders_learn_and_fold(kind):
    net = network()
    done = run(net, "aquant", border=kind, window=0.2 if kind == "layer" else math.inf, gate=False)
    assert done.finished
    kinds = {type(layer.input_quantizer.rounding) for layer in net.modules() if isinstance(layer, QuantLayer)}
    assert (AdaptiveBorder in kinds) == (kind == "fused")
    assert CellBorder in kinds
    assert net(images()).isfinite().all()


def test_the_errors_of_a_layer_add_up():
    net, x = network(), images()
    reference = run(net, "nearest").reference
    found = errors(net, reference, x, ["block.depthwise"])
    seen = []
    layer, twin = net.block.depthwise, reference.block.depthwise
    handles = [m.register_forward_pre_hook(lambda m, a: seen.append(a[0])) for m in (layer, twin)]
    with torch.no_grad():
        net(x), reference(x)
    for handle in handles:
        handle.remove()
    (x_tilde, u), w, w_hat = seen, twin.weight, layer.quantized_weight()
    x_hat = layer.input_quantizer(x_tilde)

    def product(a, w):
        return F.conv2d(a.double(), w.double(), padding=1, groups=8)

    with torch.no_grad():
        terms = product(x_hat, w_hat - w), product(x_hat - x_tilde, w), product(x_tilde - u, w)
        total = product(x_hat, w_hat) - product(u, w)
        torch.testing.assert_close(sum(terms), total)
    want = [t.square().mean().item() for t in (*terms, total)]
    assert [found.weight, found.activation, found.propagated, found.total] == pytest.approx(want, rel=1e-4)


def broken(value):
    x = images()
    x[3, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "how", "message"),
    [
        (torch.rand(0, 3, 12, 12), {}, "at least 8"),
        (images(7), {}, "at least 8"),
        (broken(float("nan")), {}, "1 of 24 images hold NaN"),
        (images().double().long(), {}, "floating-point"),
        (torch.rand(16, 4, 12, 12), {}, "channels"),
        (images(), {"w_bits": 9}, "9"),
        (images(), {"w_bits": None}, "give w_bits"),
        (images(), {"method": "best"}, "got 'best'"),
        (images(), {"order": "net"}, "got 'net'"),
        (images(), {"method": "nearest", "options": FEW}, "nearest has none"),
        (images(), {"border": "cell"}, "no border"),
        (images(), {"method": "aquant", "border": "cell", "window": 0.2}, "no window"),
        (images(), {"correction": "std"}, "needs no correction"),
        (images(), {"method": "nearest", "correction": "median"}, "got 'median'"),
        (images(), {"seed": -1}, "seed"),
        (images(), {"skip": "nowhere"}, "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(x, how, message):
    net = network()
    before, text = copy.deepcopy(net.state_dict()), repr(net)
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        ptq(net, x, **{"w_bits": 3, "show": False, **how})
    assert repr(net) == text
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"iterations": 1.5}, {"batch": 0}, {"drop": 1.5}, {"round_lr": -1.0}]
)
def test_options_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


def test_a_network_that_is_quantized_already_or_in_train_mode():
    net = network()
    run(net, "nearest")
    with pytest.raises(ValueError, match="quantized already"):
        run(net)
    with pytest.raises(ValueError, match="train mode"):
        run(network().train())


def test_the_report_has_the_figures():
    net = network()
    done = run(net, "aquant", source="drawn at random")
    gate = Gate(net, done.reference, images()[:6])
    assert gate.agreement() is not None
    figures = done.to_dict()
    assert figures["method"] == "aquant"
    assert figures["results"][1]["layers"] == ("block.depthwise", "block.grouped")
    assert [row["a_recipe"][:6] for row in figures["conversion"]["rows"]][1] == "aquant"
    assert "18 images (drawn at random), and 6 held out; no label was read" in str(done)


class Branching(nn.Module):
    """Some images have a BatchNorm of their own."""

    def __init__(self, other):
        super().__init__()
        self.conv, self.head, self.other = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), other
        self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.conv(x)
        y = self.two(y) if self.other(x) else self.one(y)
        return self.head(y.relu().mean((2, 3)))


@pytest.mark.parametrize("other", [lambda x: len(x) > 1, lambda x: x.max() > 1])
def test_a_fold_that_is_wrong_for_some_images_is_refused(other):
    x = images(400)
    last = torch.randperm(400, generator=torch.Generator().manual_seed(0))[-1]
    x[last] += 1  # one that is not held out, and runs in the last batch
    net = Branching(other).eval()
    with pytest.raises(ValueError, match="into layer 'conv': the layer's output is read by something else"):
        ptq(net, x, w_bits=8, method="nearest", show=False)
    assert type(net.conv) is nn.Conv2d
    assert isinstance(net.one, nn.BatchNorm2d)


def pruned(*layers):
    net = network()
    net.norm, net.block.norm = nn.Identity(), nn.Identity()
    for name in layers:
        prune.l1_unstructured(net.get_submodule(name), "weight", 0.5)
    net(images())  # the hook's weight is now the result of a computation
    return net


@pytest.mark.parametrize("method", ["nearest", *slow("brecq")])
def test_a_pruned_layer_stays_in_floating_point_with_its_zeros(method):
    net, plain = pruned("block.grouped", "head.0"), pruned("block.grouped", "head.0")
    for layer in (plain.block.grouped, plain.head[0]):
        prune.remove(layer, "weight")
    done = run(net, method)
    run(plain, method, skip=["block.grouped", "head.0"])
    x = images()
    assert torch.equal(net(x), plain(x))
    assert (net.block.grouped.weight == 0).double().mean() == 0.5
    assert [row.name for row in done.conversion.rows if "a hook computes" in row.note] == [
        "block.grouped",
        "head.0",
    ]


def test_zeros_that_are_made_permanent_stay_where_zero_is_a_level():
    net = pruned("twice", "head.0")
    for layer in (net.twice, net.head[0]):
        prune.remove(layer, "weight")
    zeros = net.twice.weight == 0
    run(net, "nearest", w_bits=None, pair=recipes.pair("lsq", 4))
    assert (net.twice.quantized_weight()[zeros] == 0).all()
    assert zeros.double().mean() == 0.5


def test_a_pruned_layer_before_batchnorm_is_refused_with_what_to_do():
    net = network()
    prune.l1_unstructured(net.stem, "weight", 0.5)
    with pytest.raises(ValueError, match=r"layer 'stem': a hook computes its weight .*prune\.remove"):
        run(net, "nearest")
    prune.remove(net.stem, "weight")
    assert run(net, "nearest").finished


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")  # torch's old one is meant
def test_normed_weights_and_kept_results_are_copied():
    net = network()
    weight_norm(net.twice)
    spectral_norm(net.head[0])
    net.register_forward_hook(lambda module, args, y: setattr(module, "kept", {"y": [y]}))
    net(images())
    x, done = images(), run(net, "nearest")
    assert [row.w_levels for row in done.conversion.rows if row.name in ("twice", "head.0")] == [None, None]
    assert torch.allclose(done.reference(x), net(x), atol=0.2)


class TimeFirst(nn.Module):
    """A part that is scripted, and a layer whose rows are steps in time."""

    def __init__(self):
        super().__init__()
        self.first, self.time, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))

    def forward(self, x):
        x = self.scripted(self.first(x)).transpose(0, 1)
        return self.head(self.time(x).relu().mean(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_a_scripted_part_and_rows_that_are_no_images(dtype):
    torch.manual_seed(0)
    net, x = TimeFirst().to(dtype).eval(), torch.rand(24, 5, 8, dtype=dtype)
    done = ptq(net, x, w_bits=4, method="qdrop", options=FEW, first_last="quantized", show=False)
    assert done.notes == ["'time' has 5 rows for 18 images and is left out"]
    assert [result.name for result in done.results] == ["first", "head"]
    assert net(x).dtype == dtype


class Tied(nn.Module):
    """Two layers of one weight, another bias each, and two that share a bias."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))
        self.b.weight, self.d.bias = self.a.weight, self.c.bias

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x).relu()).relu()).relu())


@pytest.mark.parametrize(
    ("how", "layers"),
    [
        ({"method": "aquant"}, "'a' and 'b' hold one weight"),
        *(
            pytest.param({"method": method}, "'a' and 'b' hold one weight", marks=pytest.mark.slow)
            for method in METHODS
            if method not in ("nearest", "aquant")
        ),
        ({"method": "nearest", "correction": "std"}, "'a' and 'b' hold one weight"),
        ({"method": "nearest", "correction": "mean"}, "'c' and 'd' hold one bias"),
        ({"method": "adaround", "skip": "a"}, "'b' and 'a' hold one weight"),
        ({"method": "adaround", "skip": ("a", "b")}, "'c' and 'd' hold one bias"),
    ],
)
def test_what_two_layers_hold_is_not_written_twice(how, layers):
    net, x = Tied().eval(), torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    before, text = copy.deepcopy(net.state_dict()), repr(net)
    with pytest.raises(ValueError, match=f"layers {layers}.*skip=, or take method='nearest' "):
        ptq(net, x, w_bits=3, first_last="quantized", show=False, **how)
    assert repr(net) == text
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_layers_that_hold_one_weight_round_to_nearest_and_parts_of_one_tensor_are_learned():
    net, x = Tied().eval(), torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    before = net.a.weight.clone()
    ptq(net, x, w_bits=3, first_last="quantized", method="nearest", show=False)
    assert net.b.weight is net.a.weight
    assert torch.equal(net.a.weight, before)
    both = torch.randn(8, 8)
    net = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    net[0].weight = nn.Parameter(both[:4])
    net[1].weight = nn.Parameter(both[4:, :4])
    assert ptq(net, x, w_bits=3, method="adaround", show=False).finished


def test_blocks_name_a_layer_once_and_none_that_runs_twice():
    for blocks, why in (
        ([Block("head", ("head.0", "head.2")), Block("head.0", ("head.0",))], "'head.0' is named more than"),
        ([Block("twice", ("twice",))], "'twice', which runs 2 times"),
    ):
        net = network()
        with pytest.raises(ValueError, match=why):
            run(net, "qdrop", blocks=blocks)
        assert type(net.twice) is nn.Conv2d
