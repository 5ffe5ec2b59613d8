"""The training notebooks: a contract comes first, one switch has three sizes, every full schedule runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch

from qviz.methods.lsq import lsq
from qviz.methods.pairs import NAMES
from qviz.nn.data import imagenet_like
from qviz.nn.runs import Experiment, PTQExperiment, read_queue, run
from qviz.nn.runs.schedule import FULL, SIZES
from qviz.plot import panels
from tests.nn.real import MOBILENET

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "training"
EVERY = sorted(file.stem for file in FOLDER.glob("*.py"))
STEMS = [stem for stem in EVERY if not stem.startswith("ptq")]
CONTRACT = ("method", "network", "data", "schedule", "seeds", "first, last", "expected", "minutes")
SMALL = {"batch_size": 8, "max_steps": 2}
BITS = {"adq": 3}


def first_cell(file):
    """The source and the stored text of the first code cell."""
    read = nbformat.read(file, as_version=4) if file.suffix == ".ipynb" else jupytext.read(file)
    cell = next(cell for cell in read.cells if cell.cell_type == "code")
    return cell.source, "".join(output.get("text", "") for output in cell.get("outputs", []))


def experiments(stem, size, monkeypatch):
    """The experiments that a notebook's first cell is about, at a size."""
    monkeypatch.setenv("QVIZ_SIZE", size)
    scope = {"__name__": "cell"}
    exec(compile(first_cell(FOLDER / f"{stem}.py")[0], stem, "exec"), scope)
    return list(scope["experiments"].values()) if "experiments" in scope else [scope["experiment"]]


def test_the_notebooks_that_are_asked_for():
    assert [
        *(f"cifar10-{name}" for name in ("adq", "asq-post", "daq", "fp32", "lsq")),
        "imagenet-qat",
        "ptq-aquant",
    ] == EVERY


@pytest.mark.parametrize("stem", EVERY)
def test_the_contract_comes_first(stem):
    told = first_cell(FOLDER / f"{stem}.ipynb")[1]
    for part in (
        CONTRACT if stem in STEMS else ("calibration", "learning", "test", *CONTRACT[:2], *CONTRACT[4:])
    ):
        assert any(line.startswith(part) for line in told.splitlines()), f"{part}: not in {told}"


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("size", SIZES)
def test_one_switch_has_three_sizes(stem, size, monkeypatch, capsys):
    found = experiments(stem, size, monkeypatch)
    assert {experiment.size for experiment in found} == {size}
    assert "schedule" in capsys.readouterr().out


@pytest.mark.parametrize("stem", STEMS)
def test_the_laptop_is_what_one_gets(stem, monkeypatch):
    assert {experiment.size for experiment in experiments(stem, "", monkeypatch)} == {"laptop"}


def test_after_training_the_full_size_is_what_the_queue_runs(monkeypatch):
    small, usual, full = (experiments("ptq-aquant", size, monkeypatch)[0] for size in ("smoke", "", "full"))
    assert small.iterations < usual.iterations < full.iterations
    assert small.images < usual.images < full.images
    queued = read_queue(FOLDER / "ptq.toml", PTQExperiment)
    assert replace(full, seeds=(0, 1, 2), source="full") in queued


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a tree like ILSVRC's, and no CIFAR-10."""
    folder = tmp_path_factory.mktemp("data")
    imagenet_like(folder / "imagenet", per_class=12, val_per_class=1)
    return folder


def two_steps(experiment, root, folder):
    """Run two steps; on photos of eight images, from random weights where the published ones are not here."""
    if experiment.data == "cifar10":
        small = {"source": "sample", "overrides": {**experiment.overrides, "max_steps": 2}}
    else:
        small = {"overrides": {**experiment.overrides, **SMALL}}
        if experiment.model != "mobilenet_v2" or not MOBILENET.is_file():
            small["start"] = "scratch"
    return run(replace(experiment, **small), root=root, folder=folder, progress=False)


def usual(recipe):
    """The experiment of which two steps are run for every recipe, on CIFAR-10."""
    return Experiment(recipe=recipe, w_bits=BITS.get(recipe, 4), size="full")


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem not in ("cifar10-asq-post", "cifar10-fp32")])
def test_two_steps_of_a_notebooks_full_schedule(stem, root, tmp_path, monkeypatch):
    for experiment in experiments(stem, "full", monkeypatch):
        row = two_steps(experiment, root, tmp_path)
        assert row.method == experiment.recipe
        assert row.epochs == experiment.config("full").epochs


@pytest.mark.parametrize("stem", ["cifar10-asq-post", "cifar10-fp32"])
def test_the_full_schedules_of_the_others_are_the_usual_ones(stem, monkeypatch):
    for experiment in experiments(stem, "full", monkeypatch):
        assert experiment == usual(experiment.recipe)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("recipe", NAMES)
def test_two_steps_of_every_full_schedule_on_cifar10(recipe, root, tmp_path):
    row = two_steps(usual(recipe), root, tmp_path)
    assert (row.method, row.data) == (recipe, "cifar10 sample (2,000 + 2,000 images)")
    assert row.epochs == usual(recipe).config("full").epochs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "bits", "model"),
    [
        ("fp32", 32, "resnet18"),
        ("daq", 2, "resnet18"),
        ("daq", 4, "mobilenet_v2"),
        ("adq", 3, "resnet18"),
        ("lsq", 4, "resnet34"),  # as all the others
    ],
)
def test_two_steps_of_every_full_schedule_on_imagenet(recipe, bits, model, root, tmp_path):
    experiment = Experiment(
        recipe=recipe, w_bits=bits, model=model, data="imagenet", size="full", held_out=False
    )
    row = two_steps(experiment, root, tmp_path)
    assert (row.method, row.model, row.data) == (recipe, model, "imagenet")


def test_no_full_schedule_on_imagenet_is_forgotten():
    assert set(FULL["imagenet"]) == {"fp32", "daq", "adq", "*"}


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem.startswith("cifar10")])
def test_the_queue_of_the_sample_runs_what_the_notebooks_run(stem, monkeypatch):
    queued = read_queue(FOLDER / "sample.toml")
    for experiment in experiments(stem, "laptop", monkeypatch):
        assert replace(experiment, seeds=(0, 1, 2)) in queued


# --- pictures that say something

SPIKE = 90
"""A histogram of which one bar has so many percent of the values shows that bar, and nothing else."""


def picture_problems(text):
    """What is wrong with a picture, by the words that stand for it."""
    found = []
    if "held-out goes" in text and re.search(r"FP32[^.]* is \d", text):
        found.append("an FP32 line, which is of test images, over curves of held-out ones")
    if re.search(r" is \S+ at \w", text):
        found.append("a curve of one point")
    if any(int(share) >= SPIKE for share in re.findall(r"tallest bar, (\d+) %", text)):
        found.append("a histogram of one bar")
    spreads = re.findall(r"values from (\S+) to (\S+), mean \S+, standard deviation (\S+)\.(?: |$)", text)
    if any(float(std) < 0.02 * (float(high) - float(low)) for low, high, std in spreads):
        found.append("a histogram that is one spike")
    return found


@pytest.mark.parametrize("stem", STEMS)
def test_every_picture_says_something(stem):
    read = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    outputs = [output for cell in read.cells for output in cell.get("outputs", [])]
    told = [output.data["text/plain"] for output in outputs if "image/png" in output.get("data", {})]
    assert told
    assert {text: wrong for text in told if (wrong := picture_problems(text))} == {}


HELD_OUT = {"held-out": ([28, 56], [0.5, 0.6])}
WIDE, NARROW = np.linspace(-1, 1, 4001), np.r_[-1, np.full(9998, 0.001), 1]


@pytest.mark.parametrize(
    ("panel", "wrong"),
    [
        (panels.curve(HELD_OUT, references={"FP32, the start": 0.9}), ["an FP32 line"]),
        (panels.curve({"test": HELD_OUT["held-out"]}, references={"FP32": 0.9}), []),
        (panels.curve(HELD_OUT, references={"guessing": 0.1}), []),
        (panels.curve({"held-out": ([28], [0.5])}), ["a curve of one point"]),
        (panels.histogram({"w": NARROW}), ["a histogram that is one spike"]),
        (panels.histogram({"w": WIDE}), []),
        (panels.levels(torch.tensor(NARROW), {"q": lsq(2, step=0.5)}), ["a histogram of one bar"]),
        (panels.levels(torch.tensor(WIDE), {"q": lsq(2, step=0.5)}), []),
    ],
)
def test_a_picture_that_says_nothing_is_seen(panel, wrong):
    found = picture_problems(panel.text)
    assert len(found) == len(wrong)
    assert all(what.startswith(start) for what, start in zip(found, wrong, strict=True))
