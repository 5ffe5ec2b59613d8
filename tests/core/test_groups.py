"""Affine and grouped ranges."""

import copy
import math

import pytest
import torch

from qviz import MSE, MinMax, Percentile, Quantizer, compare, plot, post, uniform
from qviz.core.groups import Affine, Grouped, bits_per_value, mxfp4, nvfp4
from qviz.explore.format_data import FORMATS, coded
from qviz.explore.tensors import Source


def weights(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- an integer zero point


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shift", [-0.7, 0.0, 5.0, -9.0])
def test_affine_is_pytorchs_observer(signed, shift):
    x = weights(500) + shift
    dtype = torch.qint8 if signed else torch.quint8
    observer = torch.ao.quantization.MinMaxObserver(dtype=dtype, qscheme=torch.per_tensor_affine)
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    q = Quantizer(uniform(8, signed=signed), range=Affine()).observe(x)
    assert float(q.range.scale) == pytest.approx(float(scale), rel=1e-6)
    assert int(q.range.zero_point) == int(zero_point)
    low, high = (-128, 127) if signed else (0, 255)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero_point), low, high)
    assert (q(x) - theirs).abs().max() <= 1e-5 * float(scale) * 255  # no value sits on a border here
    assert abs(float(q(torch.zeros(1)))) < 1e-6 * float(x.abs().max())


def test_affine_per_channel():
    x = weights(4, 300) + torch.tensor([0.0, 1.0, -3.0, 10.0])[:, None]
    q = Quantizer(uniform(4, signed=False), range=Affine(axis=0)).observe(x)
    for row, scale, zero in zip(x, q.range.scale, q.range.zero_point, strict=True):
        alone = Quantizer(uniform(4, signed=False), range=Affine()).observe(row)
        assert (float(scale), int(zero)) == (float(alone.range.scale), int(alone.range.zero_point))
    assert torch.equal(q.dequantize(q.codes(x)), q(x))
    again = Quantizer(uniform(4, signed=False), range=Affine(axis=0))
    again.load_state_dict(q.state_dict())
    assert torch.equal(again(x), q(x))


def test_affine_refuses_what_has_no_zero_point():
    with pytest.raises(ValueError, match="consecutive integers"):
        Quantizer(post(4), range=Affine()).observe(weights(9))
    with pytest.raises(RuntimeError, match="observe"):
        _ = Affine().zero_point
    assert int(Quantizer(uniform(4), range=Affine()).observe(torch.zeros(5)).range.zero_point) == -8


# --- groups


@pytest.mark.parametrize("rule", [MinMax(), MSE(), Percentile(90.0), Affine()])
@pytest.mark.parametrize("axis", [1, -2])
def test_every_group_is_a_tensor_of_its_own(rule, axis):
    x = weights(3, 64, 2) * torch.logspace(-2, 2, 64)[None, :, None]
    q = Quantizer(uniform(4), range=Grouped(16, axis, rule=rule)).observe(x)
    y = torch.empty_like(x)
    for i in range(3):
        for j in range(0, 64, 16):
            for k in range(2):
                part = x[i, j : j + 16, k]
                own = Quantizer(uniform(4), range=copy.deepcopy(rule)).observe(part)
                y[i, j : j + 16, k] = own(part)
    assert torch.equal(q(x), y)
    assert torch.equal(q.dequantize(q.codes(x)), y)
    assert torch.equal(q.reference(x), y)


def test_groups_have_gradients_a_state_and_a_row():
    x = weights(4, 64).requires_grad_()
    q = Quantizer(uniform(4), range=Grouped(32)).observe(x)
    q(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # min-max cuts nothing off
    again = Quantizer(uniform(4), range=Grouped(32))
    again.load_state_dict(q.state_dict())
    assert torch.equal(again(x), q(x))
    row = compare(x, {"g": q})["g"]
    assert row.mse == pytest.approx(float((q(x) - x).detach().square().mean()), rel=1e-6)
    assert row.scale is None
    flat = Quantizer(uniform(4), range=Grouped(32)).observe(x.detach().flatten())
    assert compare(x.detach().flatten(), {"g": flat})["g"].mse == pytest.approx(row.mse, rel=1e-6)
    assert plot.panels.levels(x.detach(), {"g": q}).marks


def test_groups_beat_one_scale_where_sizes_differ():
    x = weights(8, 256) * torch.logspace(-2, 1, 256)
    table = compare(
        x, {"one": Quantizer(uniform(4)), "groups": Quantizer(uniform(4), range=Grouped(32, rule=MSE()))}
    )
    assert table["groups"].sqnr_db > table["one"].sqnr_db + 5


@pytest.mark.parametrize(
    ("call", "error", "received"),
    [
        (lambda: Grouped(0), ValueError, "got 0"),
        (lambda: Grouped(2.0), TypeError, r"got 2\.0"),
        (lambda: Grouped(32, None), TypeError, "got None"),
        (lambda: Grouped(32, rule=MSE(axis=0)), ValueError, "axis=0"),
        (lambda: Grouped(32, rule=post(4)), TypeError, "Codebook"),
        (lambda: Grouped(32).observe(weights(4, 100), uniform(4)), ValueError, "100 values.*group size 32"),
        (lambda: Grouped(32, 3).observe(weights(4, 32), uniform(4)), ValueError, "axis 3"),
        (lambda: Grouped(4).observe(torch.tensor([1.0, math.nan] * 2), uniform(4)), ValueError, "2 of 4"),
        (
            lambda: Grouped(4).observe(weights(2, 8), uniform(4))(weights(2, 4)),
            ValueError,
            r"\(2, 8\), got \(2, 4\)",
        ),
        (lambda: Quantizer(uniform(4), range=Grouped(4))(weights(4)), RuntimeError, "observe"),
    ],
)
def test_refuses_unfit_groups(call, error, received):
    with pytest.raises(error, match=received):
        call()


# --- MXFP4 and NVFP4

FP4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def nearest_fp4(value):
    size = min(abs(value), 6.0)
    return math.copysign(min(FP4, key=lambda level: (abs(level - size), level)), value)


def test_mxfp4_by_the_specifications_steps():
    x = weights(2, 64, seed=3) * torch.logspace(-4, 3, 64)
    q = mxfp4().observe(x)
    for row, wanted in zip(x.double().tolist(), q(x).tolist(), strict=True):
        for begin in (0, 32):
            block = row[begin : begin + 32]
            scale = 2.0 ** (
                math.floor(math.log2(max(map(abs, block)))) - 2
            )  # 2: the exponent of 6 = 1.5 * 2^2
            assert wanted[begin : begin + 32] == [scale * nearest_fp4(v / scale) for v in block]


def test_nvfp4_by_the_published_steps():
    x = weights(2, 32, seed=3) * torch.logspace(-1, 2, 32)
    q = nvfp4().observe(x)
    whole = torch.tensor(x.abs().max().item() / (6 * 448), dtype=torch.float32).item()
    for row, wanted in zip(x.double().tolist(), q(x).tolist(), strict=True):
        for begin in (0, 16):
            block = row[begin : begin + 16]
            stored = torch.tensor(max(map(abs, block)) / 6 / whole).to(torch.float8_e4m3fn)
            scale = float(stored) * whole
            assert wanted[begin : begin + 16] == pytest.approx(
                [scale * nearest_fp4(v / scale) for v in block]
            )


def test_blocks_of_zeros_and_of_outliers_stay_finite():
    x = torch.cat([torch.zeros(32), torch.full((32,), 3e38), torch.full((32,), 1e-42)])
    for q in (mxfp4(), nvfp4()):
        y = q.observe(x)(x)
        assert torch.isfinite(y).all()
        assert torch.equal(y[:32], torch.zeros(32))


def test_scales_are_rounded_to_what_they_are_stored_as():
    w = torch.randn(4, 64, generator=torch.Generator().manual_seed(5))
    exact = Quantizer(uniform(4), range=Grouped(16)).observe(w).range.scale
    half = Quantizer(uniform(4), range=Grouped(16, stored=torch.float16)).observe(w).range.scale
    assert not torch.equal(half, exact)
    assert torch.equal(half, torch.from_numpy(exact.numpy().astype("float16")).double())
    tiny = Quantizer(uniform(4), range=Grouped(16, stored=torch.float16)).observe(w * 1e-9)
    assert tiny.range.scale.unique().tolist() == [2.0**-24]
    with pytest.raises(TypeError, match="int8"):
        Grouped(16, stored=torch.int8)


# --- bits, scales counted


@pytest.mark.parametrize(
    ("q", "bits"),
    [
        (mxfp4(), 4 + 8 / 32),
        (nvfp4(), 4 + 8 / 16 + 32 / 8192),
        (Quantizer(uniform(4), range=Grouped(64, stored=torch.float16)), 4 + 16 / 64),
        (Quantizer(uniform(3), range=Grouped(128)), 3 + 32 / 128),
        (Quantizer(uniform(4), range=Grouped(32, rule=MinMax(symmetric=False))), 4 + 64 / 32),
        (Quantizer(uniform(4), range=Grouped(32, rule=Affine(), stored=torch.bfloat16)), 4 + 20 / 32),
        (Quantizer(uniform(8), range=MinMax(0)), 8 + 16 * 32 / 8192),
        (Quantizer(uniform(8), range=Affine()), 8 + (32 + 8) / 8192),
    ],
)
def test_bits_of_a_value_have_its_part_of_the_scales(q, bits):
    w = weights(16, 512)
    assert bits_per_value(q.observe(w), w.numel()) == bits
    row = compare(w, {"mine": q})["mine"]
    assert row.bits == q.codebook.bits
    several = q.range.scale.numel() > 1
    assert row.bits_per_value == (bits if several else row.bits)
    assert compare(w, {"mine": q}).cells()[0][2] == (f"{bits:.2f}".rstrip("0") if several else "8").rstrip(
        "."
    )


def test_the_explorer_of_formats_counts_the_same():
    w = weights(30, 99)
    for name in FORMATS:
        made = coded(Source(lambda: w, None, "w"), name, 64)
        assert made.bits == pytest.approx(bits_per_value(made.q, w.numel())), name
