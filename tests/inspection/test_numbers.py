"""The figures of an inspection against those of tests/inspection/oracle.py, for the first layer of a network,
one in its middle and the last.

Tolerances. Counts are exact: both sides ask the quantizer for its codes. What is measured on the values
themselves is in float64 on both sides; a dequantized value is rounded to float32, 6e-8 of it, which is at
most 1e-5 of a squared error at 8 bits. A layer's own product is here in float64 and there a sum of up to
576 products in float32: its error is below -110 dB of the output and so within 1e-3 dB of ratios to 60 dB. A
weight on its grid, as PTQ leaves it, has no error but rounding: ratios above 120 dB count as equal. Losses
are of outputs in float32, of which one bit is 1e-6 of a logit.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from qviz import inspect
from qviz.inspection.tally import Tally
from qviz.methods.pairs import pair as pair_of
from qviz.nn import adapt, calibrate, convert, deconvert, load_weights
from qviz.nn.data import cifar10
from qviz.nn.data.augment import CIFAR10_MEAN, CIFAR10_STD, normalize
from qviz.nn.models import create
from qviz.nn.ptq import fold_batchnorm, ptq
from tests.inspection import oracle
from tests.slow import slow

EXACT = ("count", "channels", "dead", "bits", "levels", "used", "counts")
OWN_UNIT = ("daq", "adq", "pact")


def close(got, expected, what, **tolerance):
    np.testing.assert_allclose(got, expected, err_msg=what, **tolerance)


def check_values(found, x, axis, q, placed=None):
    """The facts of a tensor, its codes and its histogram; ``placed`` is what PTQ has made of it."""
    for name, expected in oracle.values(x, axis).items():
        if name == "tail":
            assert expected[0] <= found.tail <= expected[1]
        else:
            close(getattr(found, name), expected, name, rtol=0 if name in EXACT else 1e-6, atol=1e-12)
    made = oracle.codes(q, x, placed)
    assert (found.codes.zeros is None) is (made["zeros"] is None)
    assert found.codes.sqnr_db == pytest.approx(made.pop("sqnr_db"), rel=1e-5)
    for name, expected in made.items():
        if expected is not None:
            tolerance = {"rtol": 0 if name in EXACT else 1e-5, "atol": 1e-14}
            close(getattr(found.codes, name), expected, name, **tolerance)
    positions, heights = oracle.drawn(q, x, found.unit, np.array(found.edges))
    close(found.codes.positions, positions, "positions", rtol=1e-6, atol=1e-9)
    assert found.sample == found.count == sum(found.heights)
    assert np.abs(heights - found.heights).sum() <= 2 + 2e-3 * found.count, "more than values next to an edge"


def check(found, plain, net, images, names, folder, labels=None, *, after_ptq=False):
    """All figures of the named layers and of the whole; ``plain`` is the float network that ``net`` was."""
    y, read, made = oracle.run(plain, images, names)
    z, _, quantized = oracle.run(net, images, names)

    def loss(outputs):
        if labels is None:
            return oracle.kl(y, outputs)
        return oracle.cross_entropy(outputs, labels) - oracle.cross_entropy(y, labels)

    assert found.loss == ("kl" if labels is None else "cross-entropy")
    for name in names:
        layer, view = net.get_submodule(name), found[name]
        weight, placed = layer.normalized_weight().detach(), None
        if after_ptq:
            weight, placed = plain.get_submodule(name).weight.detach(), weight
        check_values(view.weight, weight, 0, layer.weight_quantizer, placed)
        check_values(view.input, read[name].detach(), 1, layer.input_quantizer)
        fitted = view.outputs.fitted
        own = {layer.weight_quantizer.range.rescale, layer.input_quantizer.range.rescale} != {True}
        assert fitted is own
        expected = oracle.outputs(layer, plain.get_submodule(name), read[name], fitted)
        expected["cumulative"] = oracle.decibels(made[name], quantized[name], fitted)
        for what, decibels in expected.items():
            close(getattr(view.outputs, what), decibels, f"{name}: {what}", rtol=0, atol=1e-3)
        on, _, _ = oracle.run(oracle.with_layer(plain, name, net), images, [])
        off, _, _ = oracle.run(oracle.with_layer(net, name, plain), images, [])
        close(view.sensitivity.on, loss(on), f"{name}: on", rtol=1e-3, atol=2e-6)
        close(view.sensitivity.off, loss(z) - loss(off), f"{name}: off", rtol=1e-3, atol=2e-6)
    close(found.whole.db, oracle.decibels(y, z), "whole", rtol=0, atol=1e-3)
    close(found.whole.loss, loss(z), "loss", rtol=1e-4, atol=1e-6)
    assert found.whole.agreement == float((y.argmax(1) == z.argmax(1)).double().mean())
    assert found.size.packed == oracle.packed(net, folder)
    close(found.size.average_bits, oracle.average_bits(net), "average bits")


def separable():
    """A small depthwise-separable net with linear bottlenecks, BatchNorm settled on some batches."""
    torch.manual_seed(0)

    def block(before, after, stride, groups=1, size=1, act=True):
        conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(after), *([nn.ReLU6(inplace=True)] if act else [])]

    net = nn.Sequential(
        *block(3, 8, 2, size=3),
        *block(8, 8, 1, groups=8, size=3),
        *block(8, 12, 1, act=False),
        *block(12, 12, 2, groups=12, size=3),
        *block(12, 24, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(32, 3, 16, 16))
        net[-1].weight.mul_(6)
    return net.eval()


SEPARABLE = ["0", "8", "16"]
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([3, 1, 4, 1, 5, 9])


def quantize(net, images, pair, *, first_last="8bit"):
    """The float network as it is inspected, and what becomes of it; ASQ's networks draw from seed 0."""
    plain = copy.deepcopy(net).eval()
    if not any(p.name in OWN_UNIT for p in (pair.values() if isinstance(pair, dict) else [pair])):
        fold_batchnorm(plain, images[:1])
    made = copy.deepcopy(plain)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convert(made, pair=pair, first_last=first_last, batch=images)
    calibrate(made, images)
    return plain, made


def mixed(net, name, *bits):
    """A pair for each layer, of the given bits in turn."""
    layers = [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return {layer: pair_of(name, bits[i % len(bits)], 4) for i, layer in enumerate(layers)}


@pytest.mark.parametrize("name", ["adq", *slow("lsq", "post", "daq")])
def test_a_depthwise_separable_net(name, tmp_path):
    net = separable()
    pair = mixed(net, "adq", 2, 4, 3) if name == "adq" else pair_of(name, 3, 4)
    labels = LABELS if name in ("post", "daq") else None
    given = IMAGES if labels is None else (IMAGES, labels)
    found = inspect(net, given, pair=pair, first_last="quantized", top=0)
    plain, made = quantize(net, IMAGES, pair, first_last="quantized")
    check(found, plain, made, IMAGES, SEPARABLE, tmp_path, labels)


def test_dorefa_weights_have_a_unit_of_their_own():
    net, pair = separable(), pair_of("pact", 8)
    found = inspect(net, IMAGES, pair=pair, first_last="quantized", top=0, sensitivity=False)
    plain, made = quantize(net, IMAGES, pair, first_last="quantized")
    _, read, _ = oracle.run(plain, IMAGES, SEPARABLE)
    for name in SEPARABLE:
        expected = oracle.outputs(made.get_submodule(name), plain.get_submodule(name), read[name], True)
        close(found[name].outputs.local, expected["local"], name, rtol=0, atol=1e-3)
        close(found[name].outputs.weight, expected["weight"], name, rtol=0, atol=1e-3)
    assert found["8"].outputs.fitted


def test_a_model_that_was_trained_is_inspected_as_it_is(tmp_path):
    net = separable()
    convert(net, pair=pair_of("lsq", 3, 4), first_last="quantized", batch=IMAGES)
    calibrate(net, IMAGES)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(IMAGES), LABELS).backward()
        optimizer.step()
        adapt(net)
    found = inspect(net, (IMAGES, LABELS), top=0)
    plain = deconvert(copy.deepcopy(net.eval()))
    check(found, plain, net, IMAGES, SEPARABLE, tmp_path, LABELS)


def test_a_model_after_ptq_against_its_reference(tmp_path):
    net = separable()
    report = ptq(net, IMAGES.repeat(2, 1, 1, 1), w_bits=3, a_bits=4, method="closed-form", show=False)
    found = inspect(net, IMAGES, reference=report.reference, top=0)
    check(found, report.reference, net, IMAGES, SEPARABLE, tmp_path, after_ptq=True)
    assert found["8"].weight.codes.sqnr_db < 40
    assert "said of the reference's, with the codes that it got" in " ".join(found.notes)
    alone = inspect(net, IMAGES, sensitivity=False, top=0)
    assert alone["8"].weight.codes.sqnr_db > 120
    assert "give the float network as reference" in " ".join(alone.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsq", "post", "adq", "daq"])
def test_the_shipped_resnet(name, checkout, tmp_path):
    net = create("resnet20")
    load_weights(net, checkout / "data" / "resnet20_fp32.safetensors")
    sample = cifar10("test", source="sample")
    images = normalize(sample.images[:4], CIFAR10_MEAN, CIFAR10_STD).contiguous()
    pair = mixed(net, "adq", 2, 4, 3) if name == "adq" else pair_of(name, 3, 4)
    labels = sample.labels[:4] if name in ("post", "daq") else None
    policy = "quantized" if name == "adq" else "8bit"
    given = images if labels is None else (images, labels)
    found = inspect(net, given, pair=pair, first_last=policy, top=0)
    plain, made = quantize(net, images, pair, first_last=policy)
    check(found, plain, made, images, ["conv1", "layer2.0.conv2", "fc"], tmp_path, labels)


def test_what_is_kept_of_a_large_weight_has_all_taps_of_its_kernels():
    tally = Tally(None, 0)
    weight = torch.zeros(512, 512, 3, 3)
    weight[:, :, 1, 1] = 1.0
    tally.add(weight)
    found = tally.values()
    assert found.sample < found.count
    close(found.mean, 1 / 9, "mean", rtol=1e-3)
    close(found.tiny, 8 / 9, "tiny", rtol=1e-3)
