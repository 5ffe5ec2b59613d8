"""The shipped ResNet-20 against what the ledger and its log say of it."""

import json
import math

import pytest

from qviz.core._files import file_sha256
from qviz.nn.data import CifarLoader, cifar10
from qviz.nn.models import create
from qviz.nn.runs import Experiment, Ledger
from qviz.nn.train import TrainConfig, evaluate
from qviz.nn.weights import load_weights
from qviz.shipped import checkpoint, data_dir

FILE = "resnet20_fp32.safetensors"


@pytest.fixture(scope="module")
def log():
    return json.loads((data_dir() / "resnet20_fp32.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def row(log):
    rows = [
        r for r in Ledger(data_dir() / "results.json") if r.checkpoint_sha256 == log["parts"][-1]["sha256"]
    ]
    assert len(rows) == 1
    return rows[0]


@pytest.fixture(scope="module")
def found():
    model = load_weights(create("resnet20"), checkpoint(FILE)).eval()
    return evaluate(model, CifarLoader(cifar10("test", source="sample"), 500))


def test_the_sample_gives_what_the_ledger_says(found, row, log):
    assert found["samples"] == 2000
    # another processor may round a logit or two the other way
    assert 100 * found["top1"] == pytest.approx(log["sample_top1"], abs=0.1)
    share = row.top1_mean / 100
    error = math.sqrt(share * (1 - share) / found["samples"])
    assert abs(found["top1"] - share) < 3 * error


def test_row_log_and_file_belong_together(row, log):
    last = log["parts"][-1]
    assert file_sha256(checkpoint(FILE)) == last["sha256"] == row.checkpoint_sha256
    assert (row.method, row.model, row.data, row.w_bits) == ("fp32", "resnet20", "cifar10", 32)
    assert row.top1_mean == log["top1"] == pytest.approx(100 * last["epochs"][-1]["test_top1"], abs=1e-3)
    assert log["config_sha256"] == row.config_sha256


def test_every_epoch_is_in_the_log(row, log):
    for part in log["parts"]:
        assert len(part["epochs"]) == TrainConfig.from_dict(part["config"]).epochs
        assert [epoch["epoch"] for epoch in part["epochs"]] == list(range(1, len(part["epochs"]) + 1))
    assert row.epochs == sum(len(part["epochs"]) for part in log["parts"])
    assert row.minutes == pytest.approx(sum(p["epochs"][-1]["minutes"] for p in log["parts"]), abs=0.2)


def test_it_is_good_enough_to_start_from(row):
    assert row.top1_mean >= 91.5


def test_quantized_experiments_start_from_it():
    assert Experiment(recipe="lsq", w_bits=2).start == "shipped"
