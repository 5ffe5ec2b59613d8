"""Every recipe as a module: saved, loaded, copied, cast, calibrated late, and refused bad data."""

import copy
import inspect
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from qviz import Quantizer, probe, recipes
from qviz.methods import adaround, adq, apot, aquant, asq, daq, lsq, n2uq, pact, ste
from tests.methods.cases import CASES, fresh, gradients, ready, sample

LEARNED = [name for name in CASES if list(fresh(name).parameters())]


def twin_of(name: str) -> Quantizer:
    """Another fresh quantizer with other random starts and no calibration."""
    torch.manual_seed(99)
    return CASES[name].make(1.5 * sample(CASES[name].kind, seed=5))


# --- saving and copying ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_state_dict_goes_into_a_fresh_quantizer(name):
    q, other = ready(name), twin_of(name)
    x = sample(CASES[name].kind, seed=1)
    other.load_state_dict(q.state_dict(), strict=True)
    assert torch.equal(other(x), q(x))
    assert torch.equal(other.reference(x), q.reference(x))
    assert q.state_dict().keys() == other.state_dict().keys()
    for key, value in other.state_dict().items():
        assert torch.equal(value, q.state_dict()[key]), key
        assert value.dtype == q.state_dict()[key].dtype, key


@pytest.mark.parametrize("name", CASES)
def test_a_state_dict_goes_through_safetensors(name):
    q, other = ready(name), twin_of(name)
    x = sample(CASES[name].kind, seed=1)
    other.load_state_dict(load(save(q.state_dict())))  # refuses tensors that share memory
    assert torch.equal(other(x), q(x))


def test_all_recipes_in_one_state_dict():
    whole = nn.ModuleDict({name: ready(name) for name in CASES})
    other = nn.ModuleDict({name: twin_of(name) for name in CASES})
    other.load_state_dict(load(save(whole.state_dict())))
    for name in CASES:
        x = sample(CASES[name].kind, seed=1)
        assert torch.equal(other[name](x), whole[name](x)), name


@pytest.mark.parametrize("name", ["lsq", "daq_weight", "post_weight"])
def test_a_state_that_lacks_the_range_does_not_calibrate_it(name):
    q = twin_of(name)
    state = {k: v for k, v in ready(name).state_dict().items() if not k.startswith("range.")}
    q.load_state_dict(state, strict=False)
    assert not q.range.calibrated


def test_an_adq_codebook_goes_on_where_it_was():
    q, other = ready("adq_weight"), twin_of("adq_weight")
    other.load_state_dict(q.state_dict())
    w = sample("weight", seed=8)
    q.observe(w)
    other.observe(w)  # an update, not a new start
    assert torch.equal(q.codebook.levels, other.codebook.levels)
    assert torch.equal(q.codebook.borders, other.codebook.borders)


@pytest.mark.parametrize("name", CASES)
def test_a_deep_copy_is_equal_and_apart(name):
    q = ready(name)
    x = sample(CASES[name].kind, seed=1).requires_grad_(True)
    q(x).sum().backward()  # a copy must survive gradients and whatever a pass leaves behind
    other = copy.deepcopy(q)
    assert torch.equal(other(x), q(x))
    before = q(x).detach()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5).add_(0.01)
    assert torch.equal(q(x), before)
    if list(q.parameters()):
        assert not torch.equal(other(x), before)
    shared = {t.data_ptr() for t in q.state_dict().values()} & {
        t.data_ptr() for t in other.state_dict().values()
    }
    assert not shared


def test_a_deep_copy_of_adaround_relaxes_its_own_decisions():
    q = ready("adaround_weight")
    other = copy.deepcopy(q)
    x = sample("weight", seed=0)
    other(x).sum().backward()
    assert q.rounding.v.grad is None
    assert other.rounding.v.grad is not None


def test_a_random_start_can_be_copied():
    q = recipes.adq_weight(3, init="random", generator=torch.Generator().manual_seed(0))
    other = copy.deepcopy(q)
    w = sample("weight")
    assert torch.equal(q.observe(w).codebook.levels, other.observe(w).codebook.levels)


# --- dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_output_has_the_dtype_of_the_input(name):
    for dtype in [torch.float16, torch.bfloat16, torch.float32, torch.float64]:
        q = ready(name)
        x = sample(CASES[name].kind, seed=1, dtype=dtype).requires_grad_(True)
        y = q(x)
        assert y.dtype == dtype
        got = gradients(y, q, x, torch.ones_like(y))
        assert all(v.isfinite().all() for v in got.values())
        if "x" in got:
            assert got["x"].dtype == dtype


@pytest.mark.parametrize("name", CASES)
def test_autocast(name):
    q = ready(name)
    for dtype in (torch.float32, torch.bfloat16):
        x = sample(CASES[name].kind, seed=1, dtype=dtype).requires_grad_(True)
        plain = q(x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            y = q(x)
        assert y.dtype == dtype
        for value in gradients(y, q, x, torch.ones_like(y)).values():
            assert value.isfinite().all()
        if not CASES[name].mixes:
            assert torch.equal(y, plain)
        else:
            assert (y - plain).abs().mean() < 0.05 * plain.abs().mean()


@pytest.mark.parametrize("name", CASES)
def test_in_a_network_under_autocast(name):
    kind = CASES[name].kind
    q = ready(name)
    x = sample(kind, seed=1)
    if CASES[name].fixed:
        x = sample(kind, seed=0)
    net = nn.Sequential(nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1, groups=x.shape[1]), q)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    y.float().pow(2).mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", CASES)
def test_half_of_the_module_keeps_the_codebook(name):
    q = ready(name)
    levels = q.codebook.levels.clone()
    q.to(torch.bfloat16)
    assert torch.equal(q.codebook.levels, levels)
    y = q(sample(CASES[name].kind, seed=1, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


# --- calibration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNED)
def test_an_optimiser_made_before_observe_goes_on_working(name):
    q = fresh(name)
    before = {k: (p, p.data_ptr()) for k, p in q.named_parameters()}
    optimiser = torch.optim.SGD(q.parameters(), lr=0.05)
    x = sample(CASES[name].kind)
    q.observe(x)
    for key, p in q.named_parameters():
        assert p is before[key][0], key
        assert p.data_ptr() == before[key][1], key
    values = {k: p.detach().clone() for k, p in q.named_parameters()}
    x = 2 * x  # something to cut off
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).abs()
    (q(x) * g).sum().backward()
    optimiser.step()
    assert any(not torch.equal(p, values[k]) for k, p in q.named_parameters())
    assert q(x).isfinite().all()


@pytest.mark.parametrize("name", LEARNED)
def test_observe_leaves_no_gradient_and_no_graph(name):
    q = fresh(name).observe(sample(CASES[name].kind).requires_grad_(True))
    for p in q.parameters():
        assert p.is_leaf
        assert p.requires_grad
        assert p.grad is None


def test_no_constructor_asks_for_a_device():
    for module in (adaround, adq, apot, aquant, asq, daq, lsq, n2uq, pact, ste):
        for name, thing in vars(module).items():
            if isinstance(thing, type) and thing.__module__ == module.__name__:
                assert not {"device", "dtype"} & inspect.signature(thing).parameters.keys(), name


@pytest.mark.parametrize("name", CASES)
def test_everything_moves_with_the_module(name):
    q = ready(name).to("meta")
    for key, value in {**dict(q.named_parameters()), **dict(q.named_buffers())}.items():
        assert value.device.type == "meta", key


@pytest.mark.parametrize("name", CASES)
def test_bad_data_leave_the_state_as_it_was(name):
    for bad in [math.nan, math.inf]:
        q = ready(name)
        before = copy.deepcopy(q.state_dict())
        x = sample(CASES[name].kind, seed=3)
        x[0, 1, 2, 2] = bad
        if CASES[name].blind:
            q.observe(x)
        else:
            with pytest.raises(ValueError, match="1 of"):
                q.observe(x)
        assert q.state_dict().keys() == before.keys()
        assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.placed])
def test_bad_data_at_first_leave_it_uncalibrated(name):
    q = fresh(name)
    x = sample(CASES[name].kind)
    x[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        q.observe(x)
    assert not q.calibrated
    q.observe(sample(CASES[name].kind))
    assert q(sample(CASES[name].kind)).isfinite().all()


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.zeros])  # the others: see test_adq.py
def test_zeros_calibrate_to_something_that_works(name):
    x = torch.zeros_like(sample(CASES[name].kind))
    q = fresh(name).observe(x)
    leaf = x.clone().requires_grad_(True)
    y = q(leaf)
    assert y.isfinite().all()
    assert all(v.isfinite().all() for v in gradients(y, q, leaf, torch.ones_like(y)).values())


# --- codes, probe, modes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.soft and not c.adapts])
def test_codes_stand_for_the_output(name):
    q = ready(name)
    x = sample(CASES[name].kind, seed=0 if CASES[name].fixed else 1)
    codes = q.codes(x)
    assert codes.dtype == torch.uint8
    assert codes.shape == x.shape
    assert torch.equal(q.dequantize(codes), q(x))


def test_codes_alone_do_not_tell_asqs_output():
    # the step depends on x: what the codes stand for cannot be said without it, and must not be guessed
    q = ready("asq_activation")
    with pytest.raises((RuntimeError, ValueError)):
        q.dequantize(q.codes(sample("relu", seed=1)))


@pytest.mark.parametrize("name", CASES)
def test_probe_shows_every_recipe(name):
    q = ready(name)
    x = sample(CASES[name].kind, seed=0 if CASES[name].fixed else 1)
    p = probe(q, x)
    assert torch.equal(p.y, q(x).detach())
    assert p.dydx.shape == p.u.shape == p.t.shape == p.cell.shape == x.shape
    assert ((p.t >= 0) & (p.t <= 1)).all()


@pytest.mark.parametrize("name", CASES)
def test_train_and_eval_give_the_same(name):
    q = ready(name)
    x = sample(CASES[name].kind, seed=1)
    assert torch.equal(q.train()(x), q.eval()(x))


@pytest.mark.parametrize("name", CASES)
def test_the_input_is_left_alone(name):
    q = ready(name)
    x = sample(CASES[name].kind, seed=1)
    before = x.clone()
    y = q(x)
    y.sum().backward() if y.requires_grad else None
    assert torch.equal(x, before)
    assert y.data_ptr() != x.data_ptr()
    state = copy.deepcopy(q.state_dict())
    q(3 * x)
    assert all(torch.equal(v, state[k]) for k, v in q.state_dict().items())


# --- values on the ends of the range -----------------------------------------------------------------------
