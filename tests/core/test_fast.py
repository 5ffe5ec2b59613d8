"""The fast path against the composition of the parts: the same values bit for bit, the same gradients."""

import math

import pytest
import torch
from torch import Tensor

from qviz import Codebook, Quantizer, StraightThrough
from qviz.core.fast import Quantize, Spec
from qviz.core.lookup import _tree, select
from qviz.methods.lsq import LearnedStep, lsq
from qviz.methods.n2uq import LearnedKnots
from tests.methods.cases import CASES, CHANNELS, fresh, gradients, ready, sample
from tests.strategies import same_bits, steps_around

ULPS = 40
FAST = [name for name, case in CASES.items() if case.fast]
POINTWISE = [name for name in FAST if not CASES[name].mixes]


def filled(values: Tensor, kind: str) -> Tensor:
    """The values in a tensor of that kind's shape, the last one repeated where they do not fill it."""
    tail = (3, 3, 3) if kind == "weight" else (5, 5)
    if kind == "weight":  # each channel sees every value
        room = -(-values.numel() // math.prod(tail))
        row = torch.cat([values, values[-1:].expand(room * 27 - values.numel())])
        return row.reshape(1, room * 3, 3, 3).expand(CHANNELS, -1, -1, -1).clone()
    room = -(-values.numel() // math.prod(tail))
    row = torch.cat([values, values[-1:].expand(room * 25 - values.numel())]).reshape(room, 1, *tail)
    return row.expand(-1, CHANNELS, -1, -1).clone()


def turning_points(q: Quantizer, dtype: torch.dtype) -> Tensor:
    """Where q's output jumps, in units of u, then knots and ends: the values worth looking around."""
    book = q.codebook
    knots = book.knots.detach().double()
    if hasattr(q.rounding, "b"):  # u − ⌊u⌋ = B(u), found by halving
        fractions = []
        for n in range(int(book.lo), int(book.hi)):
            low, high = torch.full((CHANNELS,), float(n)).double(), torch.full((CHANNELS,), n + 1.0).double()
            for _ in range(60):
                middle = (low + high) / 2
                at = middle.view(1, -1, 1, 1).expand(1, -1, 5, 5)
                up = (at - q.rounding.element(at, book))[0, :, 2, 2].detach() > n
                low, high = torch.where(up, low, middle), torch.where(up, middle, high)
            fractions.append(high)
        borders = torch.cat(fractions)
    else:
        borders = q.rounding.borders(book).detach().double()
    return torch.cat([borders, knots]).to(dtype)


def to_x(q: Quantizer, u: Tensor) -> Tensor:
    """x whose u is near the given one, for every scale that q has."""
    if type(q.range).__name__ == "TanhRange":
        return torch.atanh((u / u.max() * 2 - 1).clamp(-1 + 1e-3, 1 - 1e-3))
    scale = torch.atleast_1d(q.range.scale).to(u.dtype)
    offset = q.range.offset
    offset = torch.zeros_like(scale) if offset is None else torch.atleast_1d(offset).to(u.dtype)
    return (offset[:, None] + scale[:, None] * u).reshape(-1)


def still(q: Quantizer) -> Quantizer:
    """ASQ with an adapter that answers a constant, so that its borders are known."""
    if hasattr(q.range, "adapter"):
        with torch.no_grad():
            q.range.adapter[-1].weight.zero_()
            q.range.adapter[-1].bias.fill_(1.0)
    return q


def twins(q: Quantizer, x: Tensor, *, rel: float, finite: bool = True) -> None:
    """Compare q(x) and q.reference(x), values and gradients."""
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(x.dtype)
    if not x.is_contiguous():
        g = torch.empty_like(x).copy_(g)
    one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    y, z = q(one), q.reference(two)
    assert same_bits(y.detach(), z.detach())
    got, want = gradients(y, q, one, g), gradients(z, q, two, g)
    assert got.keys() == want.keys()
    size = float(g.double().abs().sum())
    for key in got:
        a, b = got[key], want[key]
        assert a.dtype == b.dtype
        if key == "x":
            assert torch.equal(a.isnan(), b.isnan()), "NaN gradients"
            torch.testing.assert_close(
                a, b, rtol=rel, atol=rel * float(b.nan_to_num().abs().max()), equal_nan=True
            )
        elif finite:
            torch.testing.assert_close(a, b, rtol=rel, atol=rel * size / 10, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", FAST)
def test_twins_agree_around_every_border_and_knot(name):
    for dtype in [torch.float32, torch.float64]:
        q = still(ready(name, dtype))
        points = turning_points(q, dtype)
        if points.numel() > 64:
            points = points[:: points.numel() // 64]
        x = filled(steps_around(to_x(q, points), ULPS).reshape(-1), CASES[name].kind)
        twins(q, x, rel=1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("name", FAST)
def test_twins_agree_on_samples(name):
    for dtype in [torch.float32, torch.float64]:
        q = ready(name, dtype)
        for seed in range(3):
            twins(q, sample(CASES[name].kind, seed, dtype), rel=1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("name", FAST)
def test_twins_agree_on_awkward_numbers(name):
    q = ready(name, torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    values = [
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        tiny,
        -tiny,
        1e-300,
        -1e-300,
        1e6,
        -1e6,
        1e300,
        -1e300,
        1.0,
        -1.0,
        0.5,
    ]
    twins(q, filled(torch.tensor(values, dtype=torch.float64), CASES[name].kind), rel=1e-12, finite=False)
    constant = torch.full_like(sample(CASES[name].kind, 0, torch.float64), 0.3)
    twins(q, constant, rel=1e-12)


@pytest.mark.parametrize("name", POINTWISE)
def test_twins_agree_on_nan_and_infinity(name):
    q = ready(name, torch.float64)
    for bad in (math.inf, -math.inf) if CASES[name].largest else (math.inf, -math.inf, math.nan):
        x = sample(CASES[name].kind, 2, torch.float64)
        x[1, 2, 1, 1] = bad
        twins(q, x, rel=1e-12, finite=False)
        with torch.no_grad():
            y = q(x)
        assert bool(y.isnan().sum() == math.isnan(bad))
        assert y[1, 2, 1, 1].isnan() == math.isnan(bad)
        if not math.isnan(bad):
            assert y.isfinite().all()


@pytest.mark.parametrize("name", POINTWISE)
def test_an_infinity_leaves_the_gradients_of_the_parameters_finite(name):
    q = ready(name, torch.float64)
    for bad in (math.inf, -math.inf):
        x = sample(CASES[name].kind, 2, torch.float64)
        x[1, 2, 1, 1] = bad
        x.requires_grad_(True)
        for key, value in gradients(q(x), q, x, torch.ones_like(x)).items():
            assert value.isfinite().all(), key


@pytest.mark.parametrize("name", FAST)
def test_twins_agree_in_every_layout(name):
    q = ready(name, torch.float64)
    x = sample(CASES[name].kind, 3, torch.float64)
    for laid in (
        x.transpose(0, -1).contiguous().transpose(0, -1),
        x.contiguous(memory_format=torch.channels_last),
        torch.stack([x, -x], dim=-1)[..., 0],
        x[:, :, :1].expand_as(x),
    ):
        twins(q, laid, rel=1e-12)
        with torch.no_grad():
            assert same_bits(q(laid), q(laid.contiguous()))


@pytest.mark.parametrize("name", [n for n in FAST if not CASES[n].channels])
def test_twins_agree_in_few_dimensions(name):
    q = ready(name, torch.float64)
    x = sample(CASES[name].kind, 4, torch.float64).reshape(-1)
    for shape in ((), (1,), (7,), (2, 3)):
        twins(q, x[: math.prod(shape)].reshape(shape) + 0.1, rel=1e-12)


@pytest.mark.parametrize("name", FAST)
def test_twins_agree_in_half_precision(name):
    q = ready(name)
    for dtype in (torch.float16, torch.bfloat16):
        x = sample(CASES[name].kind, 5).to(dtype)
        g = torch.ones_like(x)
        one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
        y, z = q(one), q.reference(two)
        assert same_bits(y.detach(), z.detach())
        got, want = gradients(y, q, one, g), gradients(z, q, two, g)
        assert got["x"].dtype == dtype
        for key in got:
            a, b = got[key].double(), want[key].double()
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2 * float(b.abs().max()) + 1e-3)


@pytest.mark.parametrize("name", ["lsq", "post_weight-channels", "daq_weight", "n2uq_activation"])
def test_the_sum_of_an_expanded_gradient(name):
    q = ready(name, torch.float64)
    x = sample(CASES[name].kind, 6, torch.float64).requires_grad_(True)
    want = gradients(q.reference(x), q, x, torch.ones_like(x))
    q.zero_grad()
    q(x).sum().backward()  # its gradient is one number, expanded
    torch.testing.assert_close(x.grad, want["x"], rtol=1e-12, atol=1e-12)
    for key, p in q.named_parameters():
        torch.testing.assert_close(p.grad, want[key], rtol=1e-11, atol=1e-9)


def test_free_combinations_agree_too():
    torch.manual_seed(0)
    x = torch.randn(500, dtype=torch.float64) * 2
    odd = Codebook([-1.0, -0.3, 0.1, 0.9], [-2.0, -1.0, 0.5, 4.0])
    for clipped in (True, False):
        q = Quantizer(odd, None, StraightThrough(clipped), LearnedStep(1.0, 0.8)).double()
        twins(q, x, rel=1e-12)
    steps = torch.tensor([0.3, 0.6, 0.9, 1.2])
    for book in (odd, LearnedKnots(2, start=-0.9)):
        q = Quantizer(book, range=LearnedStep(1.0, steps, channels=4)).double()
        twins(q, x.view(4, -1), rel=1e-12)


@pytest.mark.parametrize("name", FAST)
def test_nothing_but_input_and_output_is_held(name):
    q = ready(name)
    x = sample(CASES[name].kind).requires_grad_(True)
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = q(x)
    for t in (x, y):
        held.pop(t.untyped_storage().data_ptr(), None)
    per_element = sum(held.values()) / x.numel()
    allowed = {"n2uq_activation": 8, "aquant_activation": 4, "dorefa_weight": 16}.get(name.split("-")[0], 0)
    small = (
        4 * (sum(p.numel() for p in q.parameters()) * 4 + 6 * len(q.codebook) + 64 * x.shape[0]) / x.numel()
    )
    assert per_element <= allowed + small


def test_select_is_the_count_of_borders_below():
    borders, values = torch.tensor([-0.5, 0.5, 1.5]), torch.tensor([10.0, 20.0, 30.0, 40.0])
    u = torch.tensor([-0.5, -0.4, 0.5, 0.6, 1.5, 1.6])
    want = [10.0, 20.0, 20.0, 30.0, 30.0, 40.0]
    assert select(u, borders, values).tolist() == want
    assert _tree(u, borders, values, 0, 3).tolist() == want  # what is compiled
    g = torch.Generator().manual_seed(0)
    for size in (2, 3, 16, 255):
        borders = torch.randn(size - 1, generator=g).sort().values
        u, values = torch.cat([torch.randn(500, generator=g), borders]), torch.randn(size, generator=g)
        assert torch.equal(_tree(u, borders, values, 0, size - 1), select(u, borders, values))


def test_an_operation_in_place_on_the_output_is_torchs_error():
    x = torch.randn(20, requires_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.relu_(lsq(3, step=0.5)(x)).sum().backward()


def test_a_second_derivative_is_refused_and_the_reference_has_it():
    q = fresh("lsq").observe(sample("weight"))
    x = sample("weight").requires_grad_(True)
    (dx,) = torch.autograd.grad((q(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(dx.sum(), x)
    (dx,) = torch.autograd.grad((q.reference(x) ** 2).sum(), x, create_graph=True)
    (ddx,) = torch.autograd.grad(dx.sum(), x)
    step = q.range.scale
    inside = ((x / step) >= -8) & ((x / step) <= 7)
    torch.testing.assert_close(ddx, 2.0 * inside.float())


def test_the_function_can_be_called_by_itself():
    x = torch.tensor([-3.0, 0.4, 0.5, 0.6, 9.0], requires_grad=True)
    step = torch.tensor(1.0, requires_grad=True)
    y = Quantize.apply(x, step, None, None, None, None, None, Spec(ends=(-2.0, 1.0)))
    assert y.tolist() == [-2.0, 0.0, 0.0, 1.0, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert step.grad.item() == pytest.approx(-2 - 0.4 - 0.5 + 0.4 + 1)


@pytest.mark.parametrize("gain", [0.0, -0.0, -0.7, 1e-30, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_twins_agree_for_every_gain(gain, dtype):
    q = ready("n2uq_activation", torch.float32 if dtype == torch.bfloat16 else dtype)
    with torch.no_grad():
        q.range.scale_out.fill_(gain)
    x = sample("relu", seed=1, dtype=dtype).requires_grad_(True)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    y, z = q(x), q.reference(x)
    assert same_bits(y, z)
    got, want = gradients(y, q, x, g), gradients(z, q, x, g)
    assert got.keys() == want.keys()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for key in got:
        largest = float(want[key].abs().max())
        # subnormal products are whole multiples of the smallest float
        atol = tolerance * largest + 8 * torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        torch.testing.assert_close(got[key], want[key], rtol=0, atol=atol)
    assert float(want["range.scale_out"]) != 0.0  # a gain of zero still learns


@pytest.mark.parametrize("name", ["n2uq_activation", "lsq-unsigned", "lsq-channels", "aquant_activation"])
def test_twins_agree_on_a_large_channels_last_tensor(name):
    """Read from the table and summed in memory order, by two threads."""
    q = ready(name)
    shape = (CHANNELS, 128, 33, 33) if name == "lsq-channels" else (120, CHANNELS, 33, 33)
    g = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=g).to(memory_format=torch.channels_last)
    x = (x if name == "lsq-channels" else x.relu()).requires_grad_(True)
    up = torch.randn(shape, generator=g).to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # several threads add up the composition's gradient in any order
        z = q.reference(x)
        want = gradients(z, q, x, up)
        torch.set_num_threads(2)
        y = q(x)
        got = gradients(y, q, x, up)
    finally:
        torch.set_num_threads(before)
    assert same_bits(y, z)
    for key in got:
        largest = float(want[key].abs().max())
        torch.testing.assert_close(
            got[key], want[key], rtol=0, atol=3e-4 * largest, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("name", ["post_weight", "adq_weight", "n2uq_activation"])
def test_a_table_keeps_what_is_not_finite(name):
    q = ready(name)
    x = torch.randn(1 << 18, generator=torch.Generator().manual_seed(0))
    x[::7], x[1::7], x[2::7] = math.inf, -math.inf, math.nan
    x = x.requires_grad_(True)
    y, z = q(x), q.reference(x)
    assert y.isnan().sum() == x.isnan().sum()
    assert same_bits(y, z)
    got, want = (torch.autograd.grad(value.nan_to_num().sum(), x)[0] for value in (y, z))
    finite = x.isfinite()
    torch.testing.assert_close(got[finite], want[finite])
