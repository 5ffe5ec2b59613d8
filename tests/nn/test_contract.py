"""The contract: what a run says of itself before it starts."""

import math
from dataclasses import replace

import pytest

from qviz.cli import main
from qviz.nn.data.cifar import FILES
from qviz.nn.runs import Experiment, Ledger, Row, contract, run_folder, source_of
from qviz.nn.runs.run import folder_of

LSQ = Experiment(recipe="lsq", w_bits=2, source="sample")


def row(experiment=LSQ, **fields):
    """A row of an experiment."""
    plain = {
        "method": experiment.recipe,
        "w_bits": experiment.w_bits,
        "a_bits": experiment.a_bits,
        "w_levels": 4,
        "a_levels": 4,
        "first_last": "fp",
        "model": "resnet20",
        "data": "cifar10",
        "epochs": 8,
        "n_seeds": len(experiment.seeds),
        "top1_mean": 80.0,
        "top1_std": None if len(experiment.seeds) == 1 else 1.25,
        "minutes": 0.75,
        "hardware": "a slide rule",
        "config_sha256": experiment.sha256("sample"),
        "checkpoint_sha256": "0" * 64,
        "revision": "1",
        "paper_top1": None,
        "paper_conditions": None,
    }
    return Row(**plain | fields)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "results.json")


def entry(text, key):
    """What a contract says under a key, on one line."""
    lines, found = text.splitlines(), []
    start = next(i for i, line in enumerate(lines) if line.startswith(key))
    for i, line in enumerate(lines[start:]):
        if i and not line.startswith(" "):
            break
        found.append(line[len(key) :].strip() if i == 0 else line.strip())
    return " ".join(found)


def test_an_empty_ledger_expects_nothing(ledger):
    text = contract(LSQ, ledger=ledger)
    assert text.startswith("resnet20-lsq-w2a2-laptop\n")
    assert entry(text, "expected").startswith("not known: the ledger (results.json)")
    assert entry(text, "minutes").startswith("not measured yet")
    assert "beside it" not in text
    assert entry(text, "data").startswith("the embedded sample of CIFAR-10: 1,800 training, 200 held-out")
    assert entry(text, "first, last") == "first and last layer left in floating point"
    assert "8 epochs of 64 images a step; sgd, lr 0.005, cosine" in entry(text, "schedule")


def test_the_row_of_one_seed_is_told_with_what_it_cannot_tell(ledger):
    ledger.put(row())
    error = 100 * math.sqrt(0.8 * 0.2 / 2000)
    assert entry(contract(LSQ, ledger=ledger), "expected") == (
        "80.00 % of the 2,000 test images, after the last epoch; one seed, so the spread over seeds is not "
        f"known; so many images leave a standard error of {error:.2f}"
    )
    assert entry(contract(LSQ, ledger=ledger), "minutes") == "0.8 a seed on a slide rule"


def test_a_smoke_run_says_that_its_accuracy_means_nothing(ledger):
    smoke = replace(LSQ, size="smoke")
    ledger.put(row(smoke))
    told = entry(contract(smoke, ledger=ledger), "expected")
    assert told.startswith("nothing: a smoke run")
    assert told.endswith("its accuracy means nothing")


def test_three_seeds_tell_the_spread_for_one(ledger):
    ledger.put(row())
    ledger.put(row(replace(LSQ, seeds=(0, 1, 2)), top1_mean=81.0))
    text = contract(LSQ, ledger=ledger)
    assert entry(text, "expected").startswith("81.00 ± 1.25 % of the 2,000")
    assert "± is the standard deviation of 3 seeds" in entry(text, "expected")
    assert entry(text, "beside it").startswith("80.00 % on cifar10, 8 epochs, 1 seed, first and last fp")


@pytest.mark.parametrize(
    "other",
    [replace(LSQ, overrides={"lr": 0.2}), replace(LSQ, first_last="8bit"), replace(LSQ, images=900)],
)
def test_the_row_of_another_experiment_is_beside_it(ledger, other):
    ledger.put(row(other))
    text = contract(LSQ, ledger=ledger)
    assert entry(text, "expected").startswith("not known")
    assert entry(text, "beside it").startswith("80.00 %")


@pytest.mark.parametrize("fields", [{"method": "daq"}, {"w_bits": 3}, {"a_bits": 3}, {"model": "resnet18"}])
def test_rows_of_other_methods_are_not(ledger, fields):
    ledger.put(row(config_sha256="1" * 64, **fields))
    assert "beside it" not in contract(LSQ, ledger=ledger)


def test_full_says_where_the_schedule_comes_from(ledger):
    text = entry(
        contract(Experiment(recipe="daq", w_bits=2, size="full", source="sample"), ledger=ledger), "schedule"
    )
    assert "400 epochs of 256 images a step" in text
    assert "Kim et al." in text
    text = entry(
        contract(Experiment(recipe="post", w_bits=4, size="full", source="sample"), ledger=ledger), "schedule"
    )
    assert "INFERRED on CIFAR-10" in text


def test_only_cifar10_is_offered_where_the_sample_of_it_is_used(ledger):
    assert "qviz.nn.data.cifar10(download=True)" in contract(LSQ, ledger=ledger)
    photos = Experiment(recipe="lsq", w_bits=4, model="resnet18", data="imagenet", start="scratch")
    assert "download=True" not in contract(photos, ledger=ledger)
    assert "stand-in" in entry(contract(photos, ledger=ledger), "data")


def test_an_installed_package_expects_what_the_shipped_rows_say(tmp_path, monkeypatch, capsys):
    shipped = tmp_path / "shipped"
    Ledger(shipped / "results.json").put(row())
    monkeypatch.setattr("qviz.nn.runs.ledger.data_dir", lambda: shipped)
    monkeypatch.setattr("qviz.nn.runs.ledger.default_ledger", lambda: tmp_path / "cache" / "results.json")
    assert entry(contract(LSQ), "expected").startswith("80.00 %")
    Ledger().put(row(top1_mean=70.0))
    assert entry(contract(LSQ), "expected").startswith("70.00 %")
    Ledger(shipped / "results.json").put(row(config_sha256="f" * 64))
    assert main(["results"]) == 0
    told = capsys.readouterr().out
    assert told.count("lsq ") == 2
    assert "1 of these rows stand in" in told


def test_telling_the_data_does_not_read_them(tmp_path):
    for name in FILES:
        (tmp_path / name).touch()
    assert source_of(Experiment(recipe="lsq", w_bits=2), tmp_path) == "full"


def test_a_smoke_run_never_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("QVIZ_DATA", str(tmp_path))
    smoke = replace(LSQ, size="smoke")
    assert run_folder(smoke, "sample") != run_folder(smoke, "sample")
    assert run_folder(LSQ, "sample") == folder_of(LSQ, "sample") / "seed0"
    assert run_folder(LSQ, "sample", seed=2).name == "seed2"
