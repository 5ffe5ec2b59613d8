"""Runs of post-training quantization: experiments, calibration images, rows, contracts."""

import json
import re
import statistics
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from qviz.nn import convert, evaluate, report
from qviz.nn.data import CifarLoader, cifar10
from qviz.nn.models import create
from qviz.nn.ptq import PTQReport, fold_batchnorm
from qviz.nn.ptq.progress import Bar, Stopped
from qviz.nn.ptq.settings import Settings
from qviz.nn.runs import (
    Experiment,
    Ledger,
    PTQExperiment,
    contract,
    prepare_ptq,
    ptq_contract,
    read_queue,
    run_ptq,
)
from qviz.nn.runs.ledger import OF_PTQ, table
from qviz.nn.weights import load_weights
from tests.nn.test_contract import entry, row

MODULE = sys.modules["qviz.nn.runs.ptq_run"]
PREPARE = sys.modules["qviz.nn.runs.ptq_prepare"]


def tiny(method="nearest", **fields):
    return PTQExperiment(method=method, **{"w_bits": 2, "images": 16, "source": "sample", **fields})


def ptq_row(experiment, **fields):
    """A row of a post-training quantization."""
    plain = {
        "kind": "PTQ",
        "method": experiment.method,
        "calibration": experiment.images,
        "iterations": experiment.iterations,
        "fp_top1": 91.5,
        "first_last": "8bit",
        "epochs": 0,
        "config_sha256": experiment.sha256("sample"),
        "data": "cifar10",
    }
    return replace(row(), **{**plain, "w_bits": experiment.w_bits, "a_bits": experiment.a_bits, **fields})


# --- experiments


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "gptqq"}, "method must be one of nearest, .* got 'gptqq'"),
        ({"w_bits": 12}, "12"),
        ({"model": "vgg"}, "got 'vgg'"),
        ({"model": "resnet18"}, "the shipped checkpoint is of resnet20: give start="),
        ({"first_last": "none"}, "got 'none'"),
        ({"source": "none"}, "got 'none'"),
        ({"images": 7}, "images must be a whole number of at least 8, got 7"),
        ({"seeds": (1, 1)}, "seeds must differ"),
        ({"iterations": 3}, "iterations: options of brecq, .* nearest has none"),
        ({"bias": True}, "bias_lr: options of brecq, .* nearest has none"),
        ({"border": "layer"}, "nearest has no border"),
        ({"method": "qdrop", "window": 0.2}, "qdrop has no border; aquant has, got window=0.2"),
        ({"order": "layer"}, "order is that of brecq, .* nearest learns no blocks"),
        ({"correction": "median"}, "correction must be one of mean, std, got 'median'"),
        ({"method": "qdrop", "iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"method": "aquant", "border": "row"}, "border must be one of channel, .* got 'row'"),
        ({"method": "qdrop", "order": "net"}, "order must be .* got 'net'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(fields, says):
    with pytest.raises(ValueError, match=says) as caught:
        tiny(**fields)
    assert "\n" not in str(caught.value)


def test_the_hash_is_of_what_the_result_depends_on(tmp_path):
    base = tiny("qdrop")
    others = [
        tiny("brecq"),
        tiny(),
        tiny(correction="mean"),
        tiny(correction="std"),
        tiny("qdrop", a_bits=4),
        tiny("qdrop", images=32),
        tiny("qdrop", iterations=7),
        tiny("qdrop", bias=True),
        tiny("qdrop", gate=False),
        tiny("qdrop", order="layer"),
        tiny("qdrop", first_last="fp"),
        tiny("qdrop", seeds=(1,)),
        tiny("qdrop", overrides={"regularizer": 1.0}),
    ]
    hashes = [e.sha256("sample") for e in [base, *others]] + [base.sha256("full")]
    assert len(set(hashes)) == len(hashes)
    assert tiny("qdrop", a_bits=2, iterations=2000).sha256("sample") == hashes[0]
    one, same, other = (tmp_path / f"{name}.safetensors" for name in ("one", "same", "other"))
    save_file(create("resnet20").state_dict(), one)
    same.write_bytes(one.read_bytes())
    save_file(create("resnet20").state_dict(), other)
    first, second, third = (tiny(start=str(path)).sha256("sample") for path in (one, same, other))
    assert first == second != third


def test_the_queue_of_the_project_can_be_read(checkout):
    found = read_queue(checkout / "notebooks" / "training" / "ptq.toml", PTQExperiment)
    assert len({e.sha256("full") for e in found}) == len(found)
    bits = {(e.w_bits, e.a_bits) for e in found}
    assert bits == {(4, 4), (3, 3), (2, 4), (2, 2)}
    compared = [e for e in found if (e.a_bits, e.iterations) == (2, 1000) and not e.overrides]
    plain = [e for e in compared if e.border == "channel" and e.window == float("inf")]
    assert {(e.bias, len(e.seeds)) for e in plain} == {(False, 3), (True, 3)}
    with pytest.raises(ValueError, match="an experiment has no field method"):
        read_queue(checkout / "notebooks" / "training" / "ptq.toml")


# --- calibration images


def test_calibration_images_are_training_images_drawn_by_the_seed():
    data = cifar10("train", source="sample")
    everything = next(CifarLoader(data, len(data), train=False).batches(0))[0].flatten(1)
    found = []
    for seed in (0, 0, 1):
        images = prepare_ptq(tiny(images=40), seed=seed).images.flatten(1)
        at = torch.cdist(images, everything).argmin(1)
        assert torch.equal(images, everything[at])
        assert data.labels[at].bincount().tolist() == [4] * 10
        found.append(at.tolist())
    assert found[0] == found[1]
    assert len({*found[0], *found[2]}) > 60


def test_more_images_than_there_are_is_one_sentence():
    with pytest.raises(ValueError, match=r"limit must be in 1\.\.1800, got 5000"):
        prepare_ptq(tiny(images=5000))


# --- ledger


def test_rows_of_trainings_are_written_as_before_and_read_beside_the_new_ones(tmp_path):
    ledger = Ledger(tmp_path / "results.json")
    ledger.put(row())
    old = json.loads(ledger.path.read_text("utf-8"))["rows"][0]
    assert not set(OF_PTQ) & set(old)
    new = ptq_row(tiny("qdrop"))
    ledger.put(new)
    assert ledger.rows() == [row(), new]
    assert json.loads(ledger.path.read_text("utf-8"))["rows"][0] == old


def test_each_kind_has_a_table_of_its_own():
    one = ptq_row(tiny("qdrop", iterations=1500), top1_mean=84.5, top1_std=0.25, n_seeds=3, note="no gate")
    told = table([one, row(), ptq_row(tiny())])
    trained, quantized = told.split("\n\n")
    assert trained == table([row()])
    assert quantized == table([one, ptq_row(tiny())])
    cells = [re.split(r"\s{2,}", line) for line in quantized.splitlines()]
    by_head = [dict(zip(cells[0], line, strict=True)) for line in cells[1:]]
    assert by_head[0]["method"] == "qdrop (no gate)"
    assert (by_head[0]["top-1 %"], by_head[0]["from FP"]) == ("84.50 ± 0.25", "-7.00")
    assert (by_head[0]["training images"], by_head[0]["iterations"]) == ("16", "1,500")
    assert (by_head[1]["method"], by_head[1]["iterations"]) == ("nearest", "–")


# --- contracts


def test_the_contract_says_what_is_done_and_what_the_ledger_expects(tmp_path):
    ledger = Ledger(tmp_path / "results.json")
    experiment = tiny("aquant", images=1024, bias=True)
    text = ptq_contract(experiment, ledger=ledger)
    assert text.startswith("resnet20-aquant-w2a2-ptq\n")
    assert entry(text, "method") == (
        "aquant: weights 2 bits, inputs 2 bits, borders by channel; uniform levels"
    )
    assert entry(text, "calibration").startswith("1,024 training images of this network, drawn by the seed")
    assert "256 of them are held out" in entry(text, "calibration")
    assert entry(text, "learning").startswith("2,000 steps of 32 images a block")
    assert entry(text, "learning").endswith("biases too")
    assert entry(text, "expected").startswith("not known")
    ledger.put(ptq_row(experiment))
    ledger.put(ptq_row(tiny("qdrop"), top1_mean=79.0))
    ledger.put(ptq_row(tiny("qdrop", w_bits=4), top1_mean=89.0))
    ledger.put(row(top1_mean=88.0))
    text = ptq_contract(experiment, ledger=ledger)
    assert entry(text, "expected").startswith("80.00 % of the 2,000 test images, after quantization")
    assert entry(text, "beside it") == "qdrop: 79.00 % on cifar10"
    assert text.count("beside it") == 1


def test_the_contract_of_a_training_does_not_list_quantizations(tmp_path):
    ledger = Ledger(tmp_path / "results.json")
    ledger.put(ptq_row(tiny("aquant")))
    assert "beside it" not in contract(Experiment(recipe="aquant", w_bits=2, source="sample"), ledger=ledger)


# --- run


@pytest.fixture
def quantizations(monkeypatch):
    """The seeds that were begun; instead of a quantization the classifier's bias moves, by the seed.

    ``stop_at`` holds the seeds that are stopped by hand.
    """
    begun, stop_at = [], set()

    def ptq(model, images, *, seed, source, show, resume, **settings):
        begun.append(seed)
        done = PTQReport(Settings(**settings, seed=seed), report(model), reference=deepcopy(model))
        model.fc.bias.data[seed] += 20.0 - 7.0 * seed
        done.finished, done.seconds = seed not in stop_at, 60.0 * (seed + 1)
        return done

    monkeypatch.setattr(MODULE, "ptq", ptq)
    monkeypatch.setattr(MODULE, "revision", lambda: "abc")
    return begun, stop_at


@pytest.mark.usefixtures("few")
def test_a_stopped_run_goes_on_with_the_seeds_that_are_left(tmp_path, quantizations):
    begun, stop_at = quantizations
    ledger = Ledger(tmp_path / "results.json")
    experiment = tiny("qdrop", seeds=(0, 1, 2))
    options = {"folder": tmp_path / "runs", "ledger": ledger, "progress": False}
    stop_at.add(1)
    assert run_ptq(experiment, **options) is None
    assert ledger.rows() == []
    stop_at.clear()
    got = run_ptq(experiment, **options)
    assert begun == [0, 1, 1, 2]
    assert ledger.rows() == [got]
    assert (got.n_seeds, got.minutes, got.revision) == (3, 2.0, "abc")


@pytest.mark.usefixtures("few")
def test_a_seed_is_done_again_by_other_code_only(tmp_path, quantizations, monkeypatch):
    begun, _ = quantizations
    for revision, count in (("abc", 1), ("abc", 1), ("def", 2), ("def+", 3), ("def+", 4)):
        monkeypatch.setattr(MODULE, "revision", lambda text=revision: text)
        run_ptq(tiny(), folder=tmp_path, progress=False)
        assert len(begun) == count, revision


@pytest.mark.usefixtures("few")
def test_the_figures_of_a_row_are_those_of_its_networks(tmp_path, quantizations):
    got = run_ptq(tiny("qdrop", seeds=(0, 1, 2)), folder=tmp_path, progress=False)
    loader = CifarLoader(PREPARE.cifar10("test", source="sample"), 60)
    whole = load_weights(create("resnet20"), tiny().weights())
    top1 = []
    for seed in (0, 1, 2):
        (file,) = tmp_path.glob(f"*/seed{seed}.safetensors")
        net = create("resnet20")
        net.load_state_dict(load_file(file))
        top1.append(100 * evaluate(net, loader)["top1"])
    assert len({*top1, got.fp_top1}) > 2
    assert got.fp_top1 > top1[0]
    assert got.top1_mean == pytest.approx(statistics.mean(top1), abs=1e-3)
    assert got.top1_std == pytest.approx(statistics.stdev(top1), abs=1e-3)
    assert got.fp_top1 == pytest.approx(100 * evaluate(whole, loader)["top1"], abs=1e-3)
    assert (got.kind, got.calibration, got.iterations, got.epochs) == ("PTQ", 16, 2000, 0)
    assert got.note == "calibrated on training images of this network"


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_real_run_keeps_a_network_that_can_be_loaded(tmp_path):
    experiment = tiny("qdrop", a_bits=3, iterations=3)
    got = run_ptq(experiment, folder=tmp_path, progress=False)
    assert (got.w_levels, got.a_levels) == (4, 8)
    (file,) = tmp_path.glob("*/seed0.safetensors")
    net = load_weights(create("resnet20"), experiment.weights()).eval()
    images = prepare_ptq(experiment).images
    fold_batchnorm(net, images[:1])
    convert(net, pair=experiment.settings(0).pair, first_last="8bit", batch=images)
    net.load_state_dict(load_file(file))
    loader = CifarLoader(PREPARE.cifar10("test", source="sample"), 60)
    assert got.top1_mean == pytest.approx(100 * evaluate(net, loader)["top1"], abs=1e-3)
    assert got.fp_top1 - got.top1_mean > 5.0
    codes = [q.codes(w).unique().numel() for q, w in _weights(net)]
    assert all(a <= 4 for a in codes[1:-1])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_stopped_seed_goes_on_behind_its_last_block(tmp_path, monkeypatch):
    titles = []

    def step(bar, number, loss):
        titles.append(bar.title.split()[0])
        if len(titles) == 14:
            raise Stopped("by hand")

    monkeypatch.setattr(Bar, "step", step)
    monkeypatch.setattr(MODULE, "revision", lambda: "abc")
    experiment, said = tiny("qdrop", iterations=3), []
    assert run_ptq(experiment, folder=tmp_path, progress=False) is None
    (part,) = tmp_path.glob("*/*")
    half = load_file(part)
    run_ptq(experiment, folder=tmp_path, say=said.append)
    assert titles[13] == titles[14] == "layer2.1"
    assert "goes on behind layer2.0, where it was stopped" in said
    (file,) = tmp_path.glob("*/*")
    whole = load_file(file)
    same = {name for name, value in half.items() if torch.equal(value, whole[name])}
    assert {"layer1.0.conv1.weight", "layer2.0.conv2.weight"} <= same
    assert "layer3.2.conv1.weight" not in same


def _weights(net):
    return [(m.weight_quantizer, m.weight) for m in net.modules() if getattr(m, "weight_quantizer", None)]
