"""How inspect behaves: what it leaves alone, what it takes, and what it says of what it cannot take."""

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from qviz import inspect
from qviz.export import load, save
from qviz.methods.pairs import pair as pair_of
from qviz.nn import calibrate, convert
from qviz.nn.ptq import ptq
from tests.nn.small_nets import assert_same_state, fingerprint

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
QUICK = {"recipe": "lsq", "bits": 4, "top": 0, "sensitivity": False}


def small(*, inplace=False, norm=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(inplace),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Around(nn.Module):
    """A network, and something done to its input or its answer."""

    def __init__(self, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.net, self.before, self.after = small(), before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def figures(found):
    """All figures of the layers' outputs, and of the whole."""
    ratios = [
        (v.outputs.local, v.outputs.cumulative, v.outputs.weight, v.outputs.input) for v in found.quantized
    ]
    return np.array([*ratios, (found.whole.db, found.whole.loss, 0.0, 0.0)], dtype=float)


def alike(found, other, atol=1e-3):
    np.testing.assert_allclose(figures(found), figures(other), rtol=0, atol=atol)


@pytest.mark.parametrize("recipe", ["post", "daq"])
def test_the_model_and_the_random_generator_stay_as_they_were(recipe):
    net = small(norm=True)
    net.train()[3].eval()
    net[0].weight.requires_grad_(False)
    images, labels = X.clone(), torch.tensor([0, 1, 2, 3, 4, 0])
    kept, modes = fingerprint(net), [m.training for m in net.modules()]
    state = torch.get_rng_state()
    found = inspect(net, (images, labels), recipe=recipe, bits=4, top=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_state(net, kept)
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(images, X)
    torch.manual_seed(77)
    assert (
        figures(inspect(net, (images, labels), recipe=recipe, bits=4, top=0)).tolist()
        == figures(found).tolist()
    )


def test_images_may_come_in_any_form():
    whole = inspect(small(), X, **QUICK)
    for images in (X.numpy(), [X], iter([X]), (X, None)):
        assert figures(inspect(small(), images, **QUICK)).tolist() == figures(whole).tolist()

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, *, pixels, scale, flag):
            assert flag
            return {"steps": torch.ones(1, dtype=torch.int64), "logits": self.net(pixels) * scale}

    named = {"pixels": X, "scale": torch.tensor(1.0), "flag": True}
    alike(inspect(Named(), named, **QUICK), whole)


def test_chunks_of_one_image_give_the_figures_of_all_at_once(monkeypatch):
    images = torch.cat([X, X.flip(0) + 0.1, X[:1] - 0.2])
    ways = {}
    for chunk in (1, 4, 13):
        monkeypatch.setattr(sys.modules["qviz.inspection.inspect"], "CHUNK", chunk)
        ways[chunk] = inspect(small(norm=True), images, recipe="lsq", bits=4, top=0)
        assert ways[chunk].samples == 13
    for chunk in (4, 13):
        alike(ways[chunk], ways[1])
        for one, other in zip(ways[1].quantized, ways[chunk].quantized, strict=True):
            assert one.input.codes.counts == other.input.codes.counts
            assert one.sensitivity.on == pytest.approx(other.sensitivity.on, rel=1e-3, abs=1e-7)
    alone = inspect(small(), X[:1], **QUICK)
    assert (alone.samples, alone.whole.agreement in (0.0, 1.0)) == (1, True)


def test_a_relu_in_place_changes_no_figure():
    found, plain = (inspect(small(inplace=way), X, recipe="lsq", bits=3, top=0) for way in (True, False))
    assert figures(found).tolist() == figures(plain).tolist()
    assert [v.sensitivity for v in found.quantized] == [v.sensitivity for v in plain.quantized]


def test_a_model_that_changes_its_input_or_draws_at_random_has_no_other_noise():
    images = X.clone()
    found = inspect(Around(before=lambda x: x.sub_(0.5)), images, **QUICK)
    alike(found, inspect(small(), X - 0.5, **QUICK))
    assert torch.equal(images, X)
    drops = inspect(Around(before=lambda x: functional.dropout(x, 0.3, training=True)), X, **QUICK)
    first = drops["net.0"].outputs
    assert first.cumulative == pytest.approx(first.local, abs=1e-3)


class Twice(nn.Module):
    """A layer that is called twice and has two names, and one that is not called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.idle, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(2, 2), nn.Linear(3, 4)
        self.b = self.a

    def forward(self, x):
        return self.last(self.b(self.a(x).relu_()).mean((2, 3)))


def test_a_layer_that_is_called_twice_is_one_row_with_both_inputs():
    net = Twice()
    found = inspect(net, X, **QUICK, first_last="quantized")
    read = torch.cat([X, net.a(X).relu()]).detach()
    shared = found["a"]
    assert [v.name for v in found.layers] == ["a", "idle", "last"]
    assert "also b" in shared.why
    assert shared.input.count == read.numel()
    assert (shared.input.low, shared.input.high) == (float(read.min()), pytest.approx(float(read.max())))
    assert shared.outputs.cumulative < shared.outputs.local


def test_a_layer_that_no_image_reaches_says_so():
    found = inspect(Twice(), X, **QUICK)
    assert not found["idle"].quantized
    assert "does not reach" in found["idle"].why
    net = Twice()
    convert(net, pair=pair_of("lsq", 4), first_last="quantized")
    for layer in (net.a, net.idle, net.last):
        layer.observe(torch.rand(4, *((3, 5, 5) if layer is net.a else (layer.in_features,))))
    idle = inspect(net, X, top=0)["idle"]
    assert idle.quantized
    assert "do not reach" in idle.why
    assert idle.weight.codes.bits == 4
    assert (idle.input, idle.outputs) == (None, None)
    assert (idle.sensitivity.on, idle.sensitivity.off) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_work_or_say_what_they_need(dtype):
    found = inspect(small().to(dtype), X.to(dtype), **QUICK)
    alike(found, inspect(small(), X, **QUICK), atol=2.0 if dtype == torch.bfloat16 else 1e-3)
    assert found.size.packed is None
    assert str(dtype) in found.size.why
    with pytest.raises(ValueError, match=r"does not run on samples of shape.*in layer '0'"):
        inspect(small(), X.to(dtype), **QUICK)


def test_pairs_by_layer_patterns_and_policies():
    net = small()
    pairs = {"0": None, "3": pair_of("post", 3), "7": pair_of("lsq", 4, 32)}
    found = inspect(net, X, pair=pairs, first_last="quantized", top=0)
    assert [v.name for v in found.quantized] == ["3", "7"]
    assert "floating point" in found["0"].why
    assert (found["3"].weight.codes.bits, found["7"].input.codes) == (3, None)
    assert (found["7"].outputs.input, found["7"].outputs.local) == (None, found["7"].outputs.weight)
    bits = {
        policy: [v.weight.codes.bits for v in inspect(net, X, **QUICK, first_last=policy).quantized]
        for policy in ("8bit", "quantized", "fp")
    }
    assert bits == {"8bit": [8, 4, 8], "quantized": [4, 4, 4], "fp": [4]}
    skipped = inspect(net, X, **QUICK, skip=["[07]"])
    assert [v.name for v in skipped.quantized] == ["3"]
    assert skipped["0"].why == "skipped"


def test_only_the_float_network_of_a_model_is_its_reference():
    net = small(norm=True).eval()
    quantized = copy.deepcopy(net)
    report = ptq(quantized, X.repeat(2, 1, 1, 1), w_bits=4, method="closed-form", show=False)
    found = inspect(quantized, X, reference=report.reference, **{"top": 0, "sensitivity": False})
    assert any("lie on their grids" in note for note in found.notes)
    unknown = small()
    nn.init.constant_(unknown[0].weight, float("nan"))
    wrong = {
        "only the reference has the BatchNorm '1'": net,
        "the reference is quantized itself": quantized,
        "layer '0' is a Conv2d with a weight .8, 3, 3, 3.; the reference has no such layer": Twice(),
        r"layer '3' .* the reference has Conv2d\(8, 8, kernel_size=\(1, 1\)": nn.Sequential(
            *small()[:3], nn.Conv2d(8, 8, 1), *small()[4:]
        ),
        "numbers of the reference are NaN or infinite: 0.weight has 216 of 216": unknown,
        r"does not run on samples of shape \(3, 8, 8\)": nn.Sequential(
            *small()[:5], nn.Identity(), *small()[6:]
        ),
    }
    for sentence, reference in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            inspect(quantized, X, reference=reference)
    with pytest.raises(ValueError, match="belongs to a converted model"):
        inspect(small(), X, reference=small(), **QUICK)


def test_a_converted_model_says_what_its_float_network_is():
    net = small(norm=True).eval()
    convert(net, pair=pair_of("daq", 4), first_last="quantized", batch=X)
    with pytest.raises(RuntimeError, match="layer '0' is not calibrated"):
        inspect(net, X)
    calibrate(net, X)
    found = inspect(net, X, top=0, sensitivity=False)
    assert "better give the float network" in found.notes[0]
    assert "standardized" in found["0"].why
    assert found["0"].outputs.fitted
    bare = inspect(small(), X, **{**QUICK, "recipe": "daq"})
    assert "no BatchNorm is there to take it away" in bare.notes[0]
    with pytest.raises(ValueError, match="inspected as it is: leave out"):
        inspect(net, X, skip="0")


def test_models_that_keep_results_masks_or_state_are_copied():
    class Keeps(Around):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.last = super().forward(x)
            return self.last, self.mask

        def get_extra_state(self):
            return {"version": 2}

        def set_extra_state(self, state):
            pass

    net = Keeps()
    prune.l1_unstructured(net.net[3], "weight", 0.5)
    net(X)
    last = net.last
    found = inspect(net, X, **QUICK)
    assert net.calls == 1
    assert net.last is last
    assert "a hook computes its weight" in found["net.3"].why
    assert (found.loss, found.whole.agreement) == ("error", None)
    assert inspect(torch.compile(small(), backend="eager"), X, **QUICK).model == "Sequential"


def test_a_batchnorm_that_only_one_image_reads_is_not_folded():
    net = small(norm=True).eval()
    many = nn.BatchNorm2d(8).eval()
    many.running_mean.fill_(1.0)

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.many = net, many

        def forward(self, x):
            norm = self.net[1] if len(x) == 1 else self.many
            return self.net[2:](norm(self.net[0](x)))

    found = inspect(Branching().eval(), X, **QUICK)
    assert any("BatchNorm was not folded: BatchNorm 'net.1' cannot be folded" in note for note in found.notes)


@pytest.mark.parametrize(
    ("model", "images", "how", "sentence"),
    [
        ("resnet20", X, {}, "model must be a torch.nn.Module, got 'resnet20'"),
        (nn.Linear, X, {}, "model must be a torch.nn.Module"),
        (small(), X, {"bits": (2, 3, 4)}, "bits must be one number, or those of weights and inputs"),
        (small(), X, {"bits": None}, "needs bits="),
        (small(), X, {"recipe": None}, "belong to a recipe="),
        (small(), X, {"skip": "*"}, "no layer is quantized"),
        (small(), X, {"recipe": "fp32", "bits": 32, "first_last": "quantized"}, "no layer is quantized"),
        (small(), torch.tensor(1.0), {}, "needs tensors"),
        (small(), X[:0], {}, "no images"),
        (small(), X / 0, {}, "images must be finite"),
        (small(), iter([X, X[..., 1:]]), {}, "images must be of one size"),
        (Around(after=lambda y: y[(y * 1e4).round() % 2 == 0]), X, {}, "outputs cannot be compared"),
        (Around(after=lambda y: None), X, {}, "no tensor to compare"),
    ],
)
def test_what_cannot_be_inspected_is_one_sentence(model, images, how, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as raised:
        inspect(model, images, **{**QUICK, **how})
    assert "\n" not in str(raised.value)


def test_an_exported_model_is_sent_back_to_the_one_it_was_saved_from(tmp_path):
    net = small().eval()
    convert(net, pair=pair_of("lsq", 4), batch=X)
    calibrate(net, X)
    with pytest.raises(ValueError, match="holds codes and no weights"):
        inspect(load(save(net, tmp_path / "net.qviz")), X, **QUICK)


def test_weights_that_are_no_numbers_are_named():
    net = small(norm=True)
    net[3].weight.data[0, 0] = float("nan")
    net[7].bias.data[1] = float("inf")
    net[1].running_var[2] = float("nan")
    with pytest.raises(
        ValueError, match=r"3.weight has 9 of 576, 7.bias has 1 of 5, 1.running_var has 1 of 8"
    ):
        inspect(net, X, **QUICK)
