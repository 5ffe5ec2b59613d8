import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.nn.training import quantized

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch without gloo",
)


def launch(checkout, folder, *arguments, processes):
    """Run tests.nn.spread by so many processes; return what each of them found, and what was printed."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    how = [f"--nproc-per-node={processes}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *how,
        "-m",
        "tests.nn.spread",
        str(folder),
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(folder / f"{arguments[0]}-{r}.pt", weights_only=True) for r in range(processes)]
    assert [one["world"] for one in found] == [processes] * processes
    for file in folder.glob("*.threads"):  # of gloo's, one that is left may abort the process at its end
        assert "gloo" not in file.read_text()
    return found, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("task", ["quantized", "plain"])
def test_two_processes_get_what_one_gets(checkout, tmp_path, task):
    (alone,), _ = launch(checkout, tmp_path / "one", task, processes=1)
    both, out = launch(checkout, tmp_path / "two", task, processes=2)
    for one in both:
        assert one["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        for name, value in alone["state"].items():
            torch.testing.assert_close(one["state"][name], value, rtol=1e-4, atol=1e-5, msg=name)
        rows = json.loads(one["epochs"])
        assert [row["val_samples"] for row in rows] == [41] * 3
        assert rows[-1]["test_samples"] == 31
        for row, expected in zip(rows, json.loads(alone["epochs"]), strict=True):
            for key in expected:
                assert key == "minutes" or row[key] == pytest.approx(expected[key], rel=1e-4), key
        assert one["found"] == pytest.approx(alone["found"], rel=1e-4)
        assert set(one["replicas"]) <= {1}  # put back
    for name, value in both[0]["state"].items():
        assert torch.equal(value, both[1]["state"][name]), name
    assert out.count("3 epochs of 6 steps") == 1  # only one of them speaks
    assert "2 processes" in out
    assert len(list((tmp_path / "two" / "checkpoints").iterdir())) == 3  # two and the lock


@pytest.mark.slow
def test_two_processes_stop_and_go_on(checkout, tmp_path):
    whole, _ = launch(checkout, tmp_path / "whole", "stopped", processes=2)
    part, _ = launch(checkout, tmp_path / "part", "stopped", "9", processes=2)
    assert [one["interrupted"] for one in part] == [True, True]
    resumed, _ = launch(checkout, tmp_path / "part", "stopped", processes=2)
    for one, two in zip(whole, resumed, strict=True):
        assert one["loss"] == two["loss"]
        for name, value in one["state"].items():
            assert torch.equal(value, two["state"][name]), name


@pytest.mark.slow
def test_another_number_of_processes_is_refused(checkout, tmp_path):
    launch(checkout, tmp_path, "stopped", "9", processes=1)
    with pytest.raises(AssertionError, match="written with 1 processes; now there are 2"):
        launch(checkout, tmp_path, "stopped", processes=2)


def test_a_batch_that_cannot_be_dealt_out_is_refused(monkeypatch):
    from qviz.nn.train.machine import Machine
    from tests.nn.training import config

    machine = Machine(config(), "cpu")
    monkeypatch.setattr(machine, "world", 2)
    machine.check(8)
    with pytest.raises(ValueError, match="got 5 images of a batch of 16"):
        machine.check(5)


def test_inputs_are_told_how_many_share_the_batch_and_weights_are_not():
    from qviz.nn.train.machine import Machine
    from tests.nn.training import config

    model = quantized()
    Machine(config(), "cpu").share_inputs(model, 4)
    assert [model[i].input_quantizer.range.replicas for i in (3, 8)] == [4, 4]
    assert [getattr(model[i].weight_quantizer.range, "replicas", 1) for i in (3, 8)] == [1, 1]
