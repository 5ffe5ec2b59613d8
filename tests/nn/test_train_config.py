import dataclasses
import math

import pytest
import torch
from torch import nn

from qviz import recipes
from qviz.nn.layers import QuantLinear
from qviz.nn.modules import split
from qviz.nn.train import TrainConfig
from qviz.nn.train.optim import optimizers, set_rates
from tests.nn.training import config, plain, quantized


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().lr = 1.0


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("epochs", 0, ValueError),
        ("epochs", 2.0, TypeError),
        ("epochs", True, TypeError),
        ("batch_size", 0, ValueError),
        ("lr", 0.0, ValueError),
        ("lr", math.nan, ValueError),
        ("lr", math.inf, ValueError),
        ("lr", "0.1", TypeError),
        ("momentum", 1.0, ValueError),
        ("weight_decay", -1e-4, ValueError),
        ("weight_decay", math.inf, ValueError),
        ("q_lr", -1.0, ValueError),
        ("q_weight_decay", math.nan, ValueError),
        ("label_smoothing", 1.0, ValueError),
        ("freeze_codebooks", 1.5, ValueError),
        ("clip_norm", 0.0, ValueError),
        ("schedule", "linear", ValueError),
        ("optimizer", "lion", ValueError),
        ("q_optimizer", None, ValueError),
        ("precision", "fp16", ValueError),
        ("compile", 1, TypeError),
        ("seed", -1, ValueError),
        ("max_steps", 0, ValueError),
        ("checkpoint_every", -1, ValueError),
        ("record_every", 1.5, TypeError),
    ],
)
def test_a_wrong_field_is_named_with_its_value(field, value, kind):
    with pytest.raises(kind, match=f"{field}.*{value!r}"):
        config(**{field: value})


def test_nesterov_needs_sgd_and_momentum():
    with pytest.raises(ValueError, match="nesterov"):
        config(nesterov=True, optimizer="adam")
    with pytest.raises(ValueError, match="nesterov"):
        config(nesterov=True, momentum=0.0)


def test_dict_and_hash():
    one = config(max_steps=7, clip_norm=1.0)
    assert TrainConfig.from_dict(one.to_dict()) == one
    assert config(lr=1).sha256 == config(lr=1.0).sha256
    hashes = {config(**change).sha256 for change in ({}, {"lr": 0.1}, {"seed": 1}, {"max_steps": 3})}
    assert len(hashes) == 4
    with pytest.raises(ValueError, match=r"unknown fields \['warmup'\]"):
        TrainConfig.from_dict({**one.to_dict(), "warmup": 3})
    with pytest.raises(ValueError, match=r"missing fields \['epochs'\]"):
        TrainConfig.from_dict({"batch_size": 1, "lr": 0.1})


def test_the_hash_does_not_change_between_versions():
    # rows of the ledger point at it; a new field changes it, and then this line, knowingly
    assert TrainConfig(epochs=1, batch_size=2, lr=0.5).sha256[:12] == "355efa0620b5"


def test_differences_name_both_values_and_pass_over_what_may_differ():
    assert config(max_steps=3, checkpoint_every=5).differences(config()) == []
    assert config(lr=0.1).differences(config(seed=3)) == ["lr: 0.05 before, 0.1 now", "seed: 3 before, 0 now"]


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_schedules_are_those_of_torch(steps):
    def torchs(make):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        schedule = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"] / 2.0)
            optimizer.step()
            if len(rates) < steps:
                schedule.step()
        return rates

    cosine = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=steps))
    assert [config().factor(s, steps) for s in range(steps)] == pytest.approx(cosine, abs=1e-12)
    if steps > 4:  # torch's own has no rising part in shorter runs
        one = torchs(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 2.0, steps, cycle_momentum=False))
        mine = config(schedule="one-cycle")
        assert [mine.factor(s, steps) for s in range(steps)] == pytest.approx(one, abs=1e-9)
    assert {config(schedule="constant").factor(s, steps) for s in range(steps)} == {1.0}


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_factors_are_shares(schedule, steps):
    shares = [config(schedule=schedule).factor(step, steps) for step in range(steps)]
    assert all(0.0 < share <= 1.0 for share in shares)


def scaled():
    net = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        QuantLinear(4, 2, weight_quantizer=recipes.daq_weight(2), output_scale=True),
    )
    net[2].observe(torch.randn(8, 4))
    return net


def test_quantizer_parameters_and_output_scales_are_apart():
    weights, own = split(scaled())
    assert set(own) == {f"2.weight_quantizer.range.{b}" for b in ("lower", "upper")} | {"2.output_scale"}
    assert set(weights) == {f"{i}.{p}" for i in range(3) for p in ("weight", "bias")}


def test_every_parameter_learns_in_one_group():
    net = quantized()
    net.append(net[3])  # a shared layer
    net[0].bias.requires_grad_(False)
    for how in (config(), config(q_optimizer="same"), config(decay_norm_bias=False)):
        held = [id(p) for o in optimizers(net, how) for g in o.param_groups for p in g["params"]]
        assert len(held) == len(set(held))
        assert set(held) == {id(p) for p in net.parameters() if p.requires_grad}


def test_groups_have_the_rates_and_decays_of_the_configuration():
    first, second = optimizers(scaled(), config(weight_decay=0.1, q_lr=0.3, q_weight_decay=0.2))
    assert type(first) is torch.optim.SGD
    assert type(second) is torch.optim.Adam
    set_rates([first, second], 0.5)
    found = [(g["lr"], g["weight_decay"], len(g["params"])) for o in (first, second) for g in o.param_groups]
    assert found == [(0.025, 0.1, 6), (0.15, 0.2, 3)]


def test_norm_and_bias_may_be_spared_the_decay():
    (first, _) = optimizers(scaled(), config(decay_norm_bias=False))
    assert [(g["weight_decay"], len(g["params"])) for g in first.param_groups] == [(1e-4, 2), (0.0, 4)]


def test_same_means_one_group_with_the_weights_rate():
    (only,) = optimizers(scaled(), config(q_optimizer="same", optimizer="adam"))
    assert type(only) is torch.optim.Adam
    assert [(g["lr"], g["betas"], len(g["params"])) for g in only.param_groups] == [(0.05, (0.9, 0.999), 9)]


def test_only_quantizers_may_learn():
    net = quantized()
    for p in split(net)[0].values():
        p.requires_grad_(False)
    (only,) = optimizers(net, config())
    assert type(only) is torch.optim.Adam


def test_nothing_to_learn_is_refused():
    net = plain().requires_grad_(False)
    with pytest.raises(ValueError, match="requires a gradient"):
        optimizers(net, config())
