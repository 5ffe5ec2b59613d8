"""Pairs: each name gives the recipes that its paper puts together, and refuses what they refuse at once."""

import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.methods import pairs
from qviz.methods.method import Method, Pair
from qviz.methods.pairs import METHODS, NAMES, pair, register

OUT, IN = 6, 8
LAYER = nn.Conv2d(IN, OUT, 3)

# What each name stands for, spelled out: weight of OUT channels, activation of IN channels.
WEIGHTS = {
    "ste": lambda b: recipes.ste(b),
    "lsq": lambda b: recipes.lsq(b),
    "pact": lambda b: recipes.dorefa_weight(b),
    "daq": lambda b: recipes.daq_weight(b),
    "asq": lambda b: recipes.lsq(b, channels=OUT),
    "pot": lambda b: recipes.pot_weight(b, channels=OUT),
    "post": lambda b: recipes.post_weight(b, channels=OUT),
    "adq": lambda b: recipes.adq_weight(b),
    "aquant": lambda b: recipes.lsq(b, channels=OUT),
    "apot": lambda b: recipes.apot_weight(b),
    "lsq_plus": lambda b: recipes.lsq(b),
    "adaround": lambda b: recipes.adaround_weight(b, LAYER.weight),
}
INPUTS = {
    "ste": lambda b: recipes.ste(b, signed=False),
    "lsq": lambda b: recipes.lsq(b, signed=False),
    "pact": lambda b: recipes.pact_activation(b),
    "daq": lambda b: recipes.daq_activation(b),
    "asq": lambda b: recipes.asq_activation(b, IN),
    "pot": lambda b: recipes.asq_activation(b, IN),
    "post": lambda b: recipes.asq_activation(b, IN),
    "adq": lambda b: recipes.n2uq_activation(b),
    "aquant": lambda b: recipes.aquant_activation(b, channels=IN),
    "apot": lambda b: recipes.apot_activation(b),
    "lsq_plus": lambda b: recipes.lsq_plus(b, signed=False, start="mse"),
    "adaround": lambda b: recipes.ste(b, signed=False),
}
SIGNED = {
    "ste": lambda b: recipes.ste(b),
    "daq": lambda b: recipes.daq_activation(b, signed=True),
    "apot": lambda b: recipes.apot_activation(b, signed=True),
    "lsq_plus": lambda b: recipes.lsq_plus(b, start="mse"),
    "adaround": lambda b: recipes.ste(b),
}


def same(make, expected, x):
    """Both, made from one seed and calibrated on x, have the same state and the same values."""
    torch.manual_seed(0)
    got = make().observe(x)
    torch.manual_seed(0)
    want = expected().observe(x)
    assert repr(got) == repr(want)
    assert got.state_dict().keys() == want.state_dict().keys()
    for key, value in want.state_dict().items():
        assert torch.equal(got.state_dict()[key], value), key
    assert torch.equal(got(x), want(x))


def test_the_names_are_those_of_the_table():
    assert set(NAMES) == {"fp32", *WEIGHTS} == {"fp32", *INPUTS}


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weight_recipe(name, bits):
    w = LAYER.weight.detach()
    p = pair(name, bits, 7)
    assert (p.name, p.w_bits, p.a_bits) == (name, bits, 7)
    same(lambda: p.weight(LAYER), lambda: WEIGHTS[name](bits), w)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", INPUTS)
def test_the_activation_recipe(name, bits):
    x = torch.randn(4, IN, 5, 5, generator=torch.Generator().manual_seed(1))
    p = pair(name, 8, bits)
    same(lambda: p.act(LAYER, False), lambda: INPUTS[name](bits), x.relu())
    same(lambda: p.act(LAYER, True), lambda: SIGNED.get(name, recipes.lsq)(bits), x)


@pytest.mark.parametrize("name", NAMES)
def test_daq_and_apot_change_the_layer(name):
    p = pair(name, 3, 2)
    assert (p.standardize, p.output_scale) == (name in ("daq", "apot"), name == "daq")


def test_activations_have_the_weights_bits_by_default():
    assert pair("lsq", 3).a_bits == 3


def test_32_bits_are_floating_point():
    weights_only, inputs_only = pair("daq", 1, 32), pair("daq", 32, 2)
    assert weights_only.act is None
    assert weights_only.standardize
    assert weights_only.output_scale
    assert inputs_only.weight is None
    assert not inputs_only.standardize  # nothing reads the standardized weight
    assert inputs_only.output_scale  # levels are k / R, without the bound
    both = pair("daq", 32)
    assert (both.weight, both.act, both.output_scale) == (None, None, False)


@pytest.mark.parametrize("bits", [(), (4,), (2, 4), (32, 32)])
def test_fp32_quantizes_nothing(bits):
    p = pair("fp32", *bits)
    assert (p.w_bits, p.a_bits, p.weight, p.act) == (32, 32, None, None)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("nearest", 4), ValueError, "one of fp32, ste, lsq, .*got 'nearest'"),
        (("lsq", 9), ValueError, "weights of lsq: bits must be between 1 and 8, got 9"),
        (("lsq", 4, 0), ValueError, "activations of lsq: bits must be between 1 and 8, got 0"),
        (("lsq", 4.0), TypeError, "bits must be an int, got 4.0"),
        (("lsq", 4, "4"), TypeError, "bits must be an int, got '4'"),
        (("post", 1, 4), ValueError, "POST: bits must be between 2 and 8, got 1"),
        (("adq", 1, 4), ValueError, "ADQ: bits must be between 2 and 8, got 1"),
    ],
)
def test_refusals_come_at_once(arguments, kind, message):
    with pytest.raises(kind, match=message):
        pair(*arguments)


def test_options_reach_the_recipes_and_wrong_ones_are_refused():
    p = pair("adq", 3, 4, weight_options={"decay": 0.5, "init": "uniform"}, act_options={"start": 0.25})
    assert (p.weight(LAYER).codebook.decay, p.weight(LAYER).codebook.init) == (0.5, "uniform")
    assert p.act(LAYER, False).codebook.lo == 0.25
    assert p.act(LAYER, True).codebook.lo == -8  # lsq is not given n2uq's options
    with pytest.raises(TypeError, match="momentum"):
        pair("adq", 3, 4, weight_options={"momentum": 0.5})


def test_with_bits_keeps_the_rest():
    p = pair("adq", 3, 4, weight_options={"decay": 0.5})
    other = p.with_bits(2)
    assert (other.w_bits, other.a_bits, len(other.weight(LAYER).codebook)) == (2, 4, 3)
    assert other.weight(LAYER).codebook.decay == 0.5
    assert p.with_bits(2, 3).a_bits == 3
    assert p.with_bits(3) == p
    with pytest.raises(ValueError, match="'mine' has no method"):
        Pair("mine", 4, 4, None, None).with_bits(2)


def test_a_pair_can_be_a_users_own():
    p = Pair("mine", 4, 32, lambda layer: recipes.lsq(4, channels=layer.out_channels), None)
    assert p.weight(LAYER).range.channels == OUT


def test_asking_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    pair("post", 4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_quantizers_are_fresh():
    p = pair("lsq", 4)
    assert p.weight(LAYER) is not p.weight(LAYER)


def test_a_registered_method_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(pairs, "METHODS", dict(METHODS))
    own = Method(
        lambda bits, layer: recipes.lsq(bits), lambda bits, layer, signed: recipes.lsq(bits, signed=signed)
    )
    register("mine", own)
    assert pair("mine", 3).act(LAYER, False).codebook.lo == 0
    assert pair("mine", 3).with_bits(2).w_bits == 2
    for taken in ("lsq", "fp32"):
        with pytest.raises(ValueError, match="is taken"):
            register(taken, own)
