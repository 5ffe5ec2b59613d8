"""Runs: experiments, schedules, the ledger, the queue; short trainings on the embedded sample."""

import dataclasses
import json
import re
import statistics
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qviz.methods.pairs import NAMES
from qviz.nn.models import create
from qviz.nn.runs import Experiment, Ledger, Row, known, prepare, read_queue, run
from qviz.nn.runs.ledger import FIELDS, table
from qviz.nn.runs.published import PUBLISHED, published
from qviz.nn.runs.schedule import DATA, SIZES, SOURCES
from qviz.nn.train import DivergenceError, History
from tests.slow import slow

ASKED = (
    "method, w_bits, a_bits, w_levels, a_levels, first_last, model, data, epochs, n_seeds, top1_mean, "
    "top1_std, minutes, hardware, config_sha256, checkpoint_sha256, revision, paper_top1, paper_conditions"
)
QUICK = {"max_steps": 2, "batch_size": 32}


def tiny(recipe="lsq", bits=2, **fields):
    """Two steps of 32 images from random weights."""
    fields = {"size": "smoke", "start": "scratch", "images": 100, "source": "sample", **fields}
    fields["overrides"] = {**QUICK, **fields.get("overrides", {})}
    return Experiment(recipe=recipe, **({} if recipe == "fp32" else {"w_bits": bits}), **fields)


def row(**fields):
    """A row with some numbers in it."""
    plain = {
        "method": "lsq",
        "w_bits": 2,
        "a_bits": 2,
        "w_levels": 4,
        "a_levels": 4,
        "first_last": "fp",
        "model": "resnet20",
        "data": "cifar10",
        "epochs": 10,
        "n_seeds": 1,
        "top1_mean": 87.654,
        "top1_std": None,
        "minutes": 11.2,
        "hardware": "CPU",
        "config_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "revision": "c" * 12,
    }
    return Row(**{**plain, **fields})


# --- experiment and schedule


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", NAMES)
def test_every_method_has_a_schedule_at_every_size(recipe, size, data):
    model = "resnet20" if data == "cifar10" else "resnet18"
    bits = {} if recipe == "fp32" else {"w_bits": 4}
    experiment = Experiment(recipe=recipe, data=data, model=model, size=size, **bits)
    for source in ("full", "sample"):
        assert experiment.config(source, seed=3).seed == 3
    assert experiment.schedule_source == SOURCES.get(recipe, "INFERRED: as asq")


def test_the_full_schedules_are_the_papers():
    daq = Experiment(recipe="daq", w_bits=1, size="full").config("full")
    assert (daq.epochs, daq.batch_size, daq.lr, daq.weight_decay, daq.q_optimizer, daq.q_lr) == (
        400,
        256,
        0.1,
        1e-4,
        "adam",
        1e-4,
    )
    imagenet = {"data": "imagenet", "size": "full"}
    asq = Experiment(recipe="post", w_bits=4, model="resnet34", **imagenet).config("full")
    assert (asq.epochs, asq.batch_size, asq.lr, asq.q_optimizer) == (90, 256, 0.01, "same")
    decay = [
        Experiment(recipe="daq", w_bits=b, model="resnet18", **imagenet).config("full").weight_decay
        for b in (2, 3)
    ]
    assert decay == [5e-5, 1e-4]
    small = Experiment(recipe="daq", w_bits=4, model="mobilenet_v2", **imagenet).config("full")
    assert (small.batch_size, small.lr, small.weight_decay) == (160, 0.005, 4e-5)


def test_all_methods_share_one_schedule_on_a_laptop():
    configs = {Experiment(recipe=name, w_bits=4).config("full").sha256 for name in NAMES if name != "fp32"}
    assert len(configs) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"recipe": "lsqq", "w_bits": 2}, "recipe must be one of fp32, ste, .* got 'lsqq'"),
        ({"recipe": "lsq", "w_bits": 9}, "9"),
        ({"recipe": "lsq", "w_bits": 2, "model": "vgg"}, "got 'vgg'"),
        ({"recipe": "lsq", "w_bits": 2, "size": "huge"}, "got 'huge'"),
        ({"recipe": "lsq", "w_bits": 2, "data": "mnist"}, "got 'mnist'"),
        ({"recipe": "lsq", "w_bits": 2, "first_last": "none"}, "got 'none'"),
        ({"recipe": "lsq", "w_bits": 2, "seeds": ()}, "seeds"),
        ({"recipe": "lsq", "w_bits": 2, "seeds": (0, -1)}, "-1"),
        ({"recipe": "lsq", "w_bits": 2, "model": "resnet18", "start": "shipped"}, "resnet18"),
        ({"recipe": "fp32", "average_bits": 2.8}, "2.8"),
        ({"recipe": "adq", "w_bits": 3, "average_bits": 2.8, "sensitivity": "trace"}, "got 'trace'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(fields, says):
    with pytest.raises(ValueError, match=says):
        Experiment(**fields)


def test_an_unknown_field_of_the_configuration_is_refused():
    with pytest.raises(TypeError, match="epoch"):
        Experiment(recipe="lsq", w_bits=2, overrides={"epoch": 3})


def test_the_hash_is_of_what_the_result_depends_on():
    base = tiny()
    assert base.sha256("sample") == tiny().sha256("sample")
    others = [
        tiny(bits=3),
        tiny(recipe="ste"),
        tiny(seeds=(1,)),
        tiny(first_last="8bit"),
        tiny(overrides={"lr": 0.5}),
        tiny(weight_options={"step": 0.1}),
    ]
    hashes = {e.sha256("sample") for e in [base, *others]} | {base.sha256("full")}
    assert len(hashes) == len(others) + 2


def test_the_hash_is_of_the_weights_wherever_they_lie(tmp_path):
    torch.manual_seed(0)
    one, same, other = (tmp_path / f"{name}.safetensors" for name in ("one", "same", "other"))
    save_file(create("resnet20").state_dict(), one)
    same.write_bytes(one.read_bytes())
    save_file(create("resnet20").state_dict(), other)
    first, second, third = (tiny(start=str(path)) for path in (one, same, other))
    assert first.sha256("sample") == second.sha256("sample") != third.sha256("sample")
    assert third.sha256("sample") != tiny().sha256("sample")
    loaded = prepare(replace(first, recipe="fp32")).model.state_dict()
    assert torch.equal(loaded["fc.weight"], load_file(one)["fc.weight"])
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        tiny(start=str(tmp_path / "none.safetensors")).sha256("sample")


# --- a network and data of one's own


def three_layers():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def largest(seed, targets=lambda x: x[:, :3].argmax(1)):
    """Batches of which the class is the largest of the first three numbers; no held-out ones."""
    x = torch.randn(128, 8, generator=torch.Generator().manual_seed(seed))
    batches = [(part, targets(part)) for part in x.split(32)]
    return batches, None, batches[:2]


OWN = {
    "recipe": "lsq",
    "w_bits": 4,
    "model": "three-layers",
    "make": three_layers,
    "data": "largest",
    "loaders": largest,
    "overrides": {"batch_size": 32, "epochs": 2},
}


def test_a_network_and_data_of_ones_own_have_a_row(tmp_path):
    ledger, mine = Ledger(tmp_path / "results.json"), Experiment(**OWN, seeds=(0, 1))
    got = run(mine, folder=tmp_path, ledger=ledger, progress=False)
    assert (got.method, got.w_levels, got.model, got.data) == ("lsq", 16, "three-layers", "largest")
    assert (got.epochs, got.n_seeds, got.paper_top1) == (2, 2, None)
    assert got.top1_std > 0
    one, other = (next(iter(prepare(mine, seed=seed).train))[0] for seed in (0, 1))
    assert not torch.equal(one, other)
    assert known(mine, ledger) == got
    for name in ("model", "data"):
        assert known(replace(mine, **{name: "another"}), ledger) is None
    mixed = run(replace(mine, average_bits=3, seeds=(0,)), folder=tmp_path, progress=False)
    assert 2 <= mixed.w_bits <= 3


def test_a_network_of_ones_own_starts_as_it_is_made_or_from_a_file(tmp_path):
    torch.manual_seed(3)
    save_file(three_layers().state_dict(), tmp_path / "w.safetensors")
    fields = OWN | {"recipe": "fp32"}
    one, two, loaded = (
        prepare(Experiment(**fields, start=start), seed=seed).model.state_dict()["0.weight"]
        for start, seed in ((None, 3), (None, 4), (str(tmp_path / "w.safetensors"), 4))
    )
    assert torch.equal(one, loaded)
    assert not torch.equal(one, two)


def test_a_network_of_ones_own_reads_the_data_of_qviz():
    ready = prepare(tiny(model="mine", make=lambda: create("resnet20"), start=None))
    assert (ready.source, ready.train.samples) == ("sample", 96)
    assert sum(row.quantized for row in ready.report.rows) == 18


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"make": None, "loaders": None}, "model must be one of"),
        ({"loaders": None}, "data must be one of"),
        ({"make": None, "model": "resnet20"}, "loaders of your own need a network of your own"),
        ({"make": "three_layers"}, "make must be a function, got 'three_layers'"),
        ({"model": 3}, "with make, model must be a name of your own, .* got 3"),
        ({"model": "resnet20"}, "with make, model must be a name of your own, .* got 'resnet20'"),
        ({"data": "../x"}, r"with loaders, data must be a name of your own, .* got '\.\./x'"),
        ({"start": "scratch"}, "start must be made or a file, got 'scratch'"),
        ({"make": None, "loaders": None, **tiny().to_dict(), "start": "made"}, "start must be shipped"),
        ({"size": "smoke"}, "size='smoke' is for the data of qviz"),
        ({"held_out": False}, "held_out=False is for the data of qviz"),
    ],
)
def test_what_does_not_go_with_ones_own_is_refused(fields, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Experiment(**{**OWN, **fields})


def test_targets_that_are_no_classes_are_refused_before_the_training(tmp_path):
    mine = Experiment(**OWN | {"loaders": lambda seed: largest(seed, lambda x: x[:, :3])})
    with pytest.raises(TypeError, match=r"'largest' must be classes \(int64\), got torch.float32"):
        run(mine, folder=tmp_path, progress=False)


# --- prepare


def test_the_held_out_images_are_held_out_unless_they_are_asked_for():
    ready = prepare(tiny("fp32", images=None))
    assert (ready.train.samples, ready.val.samples, ready.test.samples) == (384, 200, 2000)
    whole = prepare(tiny("fp32", images=None, size="laptop", held_out=False))
    assert (whole.train.samples, whole.val) == (1984, None)  # 62 whole batches of 32
    assert prepare(tiny("fp32", images=None, size="laptop")).train.samples == 1792


def test_the_report_says_what_is_quantized():
    ready = prepare(tiny("daq", 2))
    assert ready.source == "sample"
    kept = {r.name for r in ready.report.rows if r.w_bits == 2}
    assert len(kept) == 18
    assert {"conv1", "fc"}.isdisjoint(kept)


@pytest.mark.slow
def test_one_seed_prepares_the_same_model():
    one, two = (prepare(tiny("post", 4), seed=5).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    other = prepare(tiny("post", 4), seed=6).model.state_dict()
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_preparing_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    prepare(tiny())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sensitivity", ["fisher", *slow("loss_rise")])
def test_mixed_precision_keeps_the_average(sensitivity):
    experiment = tiny("adq", 3, a_bits=4, average_bits=2.81, sensitivity=sensitivity, size="laptop")
    ready = prepare(experiment)
    bits = {r.name: r.w_bits for r in ready.report.rows if r.w_bits != 32}
    sizes = {name: ready.model.get_submodule(name).weight.numel() for name in bits}
    average = sum(bits[n] * sizes[n] for n in bits) / sum(sizes.values())
    assert len(bits) == 18
    assert set(bits.values()) <= {2, 3, 4}
    assert len(set(bits.values())) > 1
    assert average <= 2.81
    assert ready.allocation.average == pytest.approx(average)
    assert {r.a_bits for r in ready.report.rows if r.name in bits} == {4}


def test_mixed_precision_of_standardized_weights_is_refused():
    with pytest.raises(ValueError, match=r"average_bits=2\.5: daq standardizes"):
        prepare(tiny("daq", 2, average_bits=2.5))


def test_full_imagenet_says_what_it_needs(tmp_path):
    experiment = Experiment(recipe="lsq", w_bits=4, model="resnet18", data="imagenet", size="full")
    with pytest.raises(FileNotFoundError, match="ILSVRC tree"):
        prepare(experiment, root=tmp_path)


# --- run


@pytest.mark.usefixtures("few")
def test_a_run_writes_one_row_with_every_field(tmp_path):
    ledger = Ledger(tmp_path / "results.json")
    experiment = tiny("post", 4)
    got = run(experiment, folder=tmp_path / "runs", ledger=ledger, progress=False)
    assert [*ledger] == [got]
    written = json.loads(ledger.path.read_text("utf-8"))["rows"][0]
    assert set(ASKED.split(", ")) <= set(written)
    assert (got.method, got.w_bits, got.a_bits, got.w_levels, got.a_levels) == ("post", 4, 4, 15, 16)
    assert (got.n_seeds, got.top1_std, got.epochs) == (1, None, 1)
    assert 0 <= got.top1_mean <= 100
    assert len(got.config_sha256) == len(got.checkpoint_sha256) == 64
    assert known(experiment, ledger) == got
    # the same again adds nothing, and trains nothing anew
    again = run(experiment, folder=tmp_path / "runs", ledger=ledger, progress=False)
    assert again.checkpoint_sha256 == got.checkpoint_sha256
    assert len(ledger.rows()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_two_seeds_have_a_mean_and_a_spread(tmp_path, capsys):
    experiment = tiny("fp32", seeds=(0, 1), images=320, overrides={"max_steps": 8, "lr": 0.05})
    got = run(experiment, folder=tmp_path, progress=False)
    alone = [
        run(replace(experiment, seeds=(seed,)), folder=tmp_path, progress=False).top1_mean for seed in (0, 1)
    ]
    assert got.n_seeds == 2
    assert got.top1_mean == pytest.approx(statistics.mean(alone), abs=1e-3)
    assert got.top1_std == pytest.approx(statistics.stdev(alone), abs=1e-3)
    assert (got.w_bits, got.w_levels) == (32, None)


@pytest.mark.usefixtures("few")
def test_a_row_has_the_last_epochs_test_accuracy_and_not_the_best(tmp_path):
    experiment = tiny("fp32", overrides={"max_steps": 9, "epochs": 3})
    got = run(experiment, folder=tmp_path, progress=False)
    history = History.load(next(tmp_path.rglob("history*")))
    assert got.top1_mean == pytest.approx(100 * history.epochs[-1]["test_top1"], abs=1e-3)
    assert "test_top1" not in history.epochs[0]


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_note_tells_what_no_column_does(tmp_path):
    options = {"precision": "bf16", "freeze_codebooks": 0.0}
    got = run(
        tiny("adq", weight_options={"init": "random"}, overrides=options), folder=tmp_path, progress=False
    )
    assert got.note == (
        "weights init random, max_steps 2, batch_size 32, codebooks stay as they start, from scratch"
    )
    assert "bf16" in got.hardware


@pytest.mark.usefixtures("few")
def test_a_row_counts_the_runs_that_made_its_start(tmp_path):
    first = run(tiny("fp32"), folder=tmp_path, progress=False)
    weights = next(tmp_path.rglob("last.safetensors"))
    second = tiny("fp32", start=str(weights), overrides={"epochs": 2})
    alone = run(second, folder=tmp_path, progress=False)
    got = run(second, folder=tmp_path, progress=False, before=[first, row(epochs=7, minutes=5.0)])
    assert (alone.epochs, got.epochs) == (2, 1 + 7 + 2)
    assert got.minutes == pytest.approx(alone.minutes + first.minutes + 5.0, abs=0.02)
    assert got.config_sha256 == alone.config_sha256
    assert f"from weights with sha256 {first.checkpoint_sha256[:12]}" in alone.note
    assert got.note == "the last of 3 runs, all counted"


@pytest.mark.usefixtures("few")
def test_a_part_of_the_data_does_not_stand_beside_the_papers_figure(tmp_path):
    got = run(tiny("daq", 1), folder=tmp_path, progress=False)
    assert published("daq", "resnet20", "cifar10", 1, 1)[0] == 85.8
    assert (got.paper_top1, got.paper_conditions) == (None, None)


@pytest.mark.usefixtures("few")
def test_a_run_that_diverges_writes_no_row(tmp_path):
    ledger = Ledger(tmp_path / "results.json")
    experiment = tiny("fp32", overrides={"lr": 1e30, "max_steps": 3})
    with pytest.raises(DivergenceError):
        run(experiment, folder=tmp_path / "runs", ledger=ledger, progress=False)
    assert ledger.rows() == []


# --- ledger


def test_fields_are_those_asked_for_and_a_note():
    of_ptq = {"kind", "calibration", "iterations", "fp_top1"}
    assert set(FIELDS) == {*ASKED.split(", "), "note", *of_ptq}


def test_a_row_replaces_the_one_of_its_configuration(tmp_path):
    ledger = Ledger(tmp_path / "deep" / "results.json")
    first, second = row(), row(config_sha256="d" * 64)
    ledger.put(first)
    ledger.put(second)
    ledger.put(row(top1_mean=90.0))
    assert [r.top1_mean for r in ledger] == [90.0, 87.654]
    assert ledger.find("d" * 64) == second
    assert ledger.find("e" * 64) is None
    assert sorted(p.name for p in ledger.path.parent.iterdir()) == [".results.json.lock", "results.json"]


def written(**changes):
    """A ledger's text with one row, some fields of which were edited; "gone" removes one."""
    fields = {**dataclasses.asdict(row()), **changes}
    return json.dumps({"rows": [{k: v for k, v in fields.items() if v != "gone"}]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("[]", 'a list "rows"'),
        ('{"rows": 3}', 'a list "rows"'),
        ('{"rows": [3]}', "row 1 must be an object with fields, got 3"),
        (written(top1_mean="gone"), "row 1 lacks top1_mean"),
        (written(top1_mean="87.6"), "row 1 has top1_mean = '87.6'"),
        (written(epochs=None), "row 1 has epochs = None"),
        (written(energy=3), "row 1 has a field 'energy' that this qviz does not know; a newer one"),
    ],
)
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path, text, says):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"is not a ledger of qviz: .*{re.escape(says)}"):
        Ledger(path).put(row())
    assert path.read_text() == text


def test_the_table():
    rows = [row(), row(method="daq", top1_std=0.123, n_seeds=3, first_last="8bit", paper_top1=85.8)]
    text = table(rows).splitlines()
    assert text[0].split()[:3] == ["method", "W", "bits"]
    assert "87.65" in text[1]
    assert "–" in text[1]
    assert "daq, first and last 8bit" in text[2]
    assert "87.65 ± 0.12" in text[2]
    assert "85.8" in text[2]
    assert table(rows, markdown=True).splitlines()[1] == "| " + " | ".join(["---"] * 10) + " |"


def test_published_figures_have_their_conditions():
    assert published("daq", "resnet20", "cifar10", 1, 1)[0] == 85.8
    assert published("ste", "resnet20", "cifar10", 2, 2) == (None, None)
    assert all(50 < top1 < 95 and words for top1, words in PUBLISHED.values())


@pytest.mark.usefixtures("few")
def test_a_result_that_cannot_be_written_is_said_all_the_same(tmp_path, monkeypatch):
    ledger, said = Ledger(tmp_path / "results.json"), []

    def full(row):
        raise OSError("disk full")

    monkeypatch.setattr(ledger, "put", full)
    with pytest.raises(OSError, match="disk full"):
        run(tiny("fp32"), folder=tmp_path / "runs", ledger=ledger, progress=False, say=said.append)
    assert re.search(r"fp32 .* resnet20 ", said[0])


# --- queue


def test_a_queue_is_read_in_order(tmp_path):
    path = tmp_path / "q.toml"
    path.write_text(
        """
        [defaults]
        size = "smoke"
        overrides = {epochs = 3}
        [[run]]
        recipe = "daq"
        w_bits = 2
        [[run]]
        recipe = "post"
        w_bits = 4
        seeds = [0, 1]
        size = "laptop"
        weight_options = {grid = "paper"}
        """
    )
    one, two = read_queue(path)
    assert (one.recipe, one.a_bits, one.size, one.config("sample").epochs) == ("daq", 2, "smoke", 3)
    assert (two.recipe, two.seeds, two.size) == ("post", (0, 1), "laptop")
    assert two.pair().weight(nn.Linear(4, 8)).codebook.name == "POST paper"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run = 3", "must hold"),
        ("", "it holds nothing"),
        ("[[run", "is not TOML"),
        ("[[run]]\nrecipe = 'lsq'\nbits = 2", r"run 1: an experiment has no field bits"),
        ("[[run]]\nrecipe = 'fp32'\n[[run]]\nrecipe = 'lsq'\nw_bits = 11", "run 2: .*11"),
        ("[[runs]]\nrecipe = 'fp32'", "it holds runs"),
    ],
)
def test_a_wrong_queue_names_the_run(tmp_path, text, says):
    path = tmp_path / "q.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_queue(path)
