import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qviz import Fixed, Quantizer, Stochastic, uniform
from qviz.core._files import write_atomically, write_synced
from qviz.nn.layers import QuantLinear
from qviz.nn.train import CheckpointError, History, fit, load_checkpoint
from qviz.nn.train.checkpoint import Checkpoints
from tests.nn.training import (
    CLASSES,
    Blobs,
    assert_same_history,
    assert_same_state,
    config,
    plain,
    quantized,
)
from tests.slow import slow

VAL, TEST = Blobs(40, 16, train=False, seed=5), Blobs(30, 16, train=False, seed=6)


def run(model, folder, how=None, **rest):
    how = how or config(checkpoint_every=4)
    return fit(model, Blobs(), how, val=VAL, test=TEST, folder=folder, progress=False, **rest)


def stopped_at(step):
    def on_step(done, history):
        if done == step:
            raise KeyboardInterrupt

    return on_step


def last(folder):
    return Checkpoints(folder).last()


# exactness


KILLED = """
import os, signal, sys, torch
from tests.nn.test_resume import quantized, run
torch.set_num_threads(1)

def on_step(step, history):
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

run(quantized(), sys.argv[1], on_step=on_step)
"""


# before the first periodic checkpoint, within an epoch, at the end of one
@pytest.mark.parametrize("step", [*slow(1), 10, *slow(12)])
def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path, step, checkout):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(step)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole, resumed = quantized(), quantized(observe=False)
        expected = run(whole, tmp_path / "whole")
        history = run(resumed, tmp_path / "killed", resume=True)
    finally:
        torch.set_num_threads(threads)
    assert_same_state(whole, resumed)
    assert_same_history(expected, history)
    assert_same_history(History.load(tmp_path / "whole"), History.load(tmp_path / "killed"))
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.parametrize("step", [*slow(3, 6), 7, *slow(17)])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "lr": 0.01, "q_optimizer": "same"}])
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(tmp_path, step, options):
    whole, stopped, resumed = quantized(), quantized(), quantized(seed=7)
    expected = run(whole, None, config(**options))
    part = run(stopped, tmp_path, config(**options), on_step=stopped_at(step))
    assert part.interrupted
    assert part.curve.steps == list(range(1, step + 1))
    history = run(resumed, tmp_path, config(**options), resume=True)
    assert_same_state(whole, resumed)
    assert_same_history(expected, history)


def test_stopped_many_times(tmp_path):
    whole, resumed = quantized(), quantized()
    expected = run(whole, None)
    for step in (2, 5, 6, 11, 13):
        run(resumed, tmp_path, on_step=stopped_at(step), resume=True)
        resumed = quantized(seed=step)
    history = run(resumed, tmp_path, resume=True)
    assert_same_state(whole, resumed)
    assert_same_history(expected, history)


def test_generators_that_modules_hold_go_on_where_they_were(tmp_path):
    def net():
        draw = torch.Generator().manual_seed(3)
        q = Quantizer(uniform(4), Stochastic(generator=draw), range=Fixed(0.1))
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), QuantLinear(108, CLASSES, weight_quantizer=q))

    whole, resumed = net(), net()
    run(whole, None)
    run(net(), tmp_path, on_step=stopped_at(8))
    run(resumed, tmp_path, resume=True)
    assert_same_state(whole, resumed)


class Counts(nn.Module):
    """Keeps a number in its state that is no tensor."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        return x

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_state_that_is_no_tensor_goes_along(tmp_path):
    run(plain().append(Counts()), tmp_path, on_step=stopped_at(8))
    resumed = plain().append(Counts())
    run(resumed, tmp_path, resume=True)
    assert resumed[-1].calls == 18
    load_checkpoint(plain().append(Counts()), tmp_path)  # weights alone will do here


def test_other_learning_parameters_are_refused(tmp_path):
    run(plain(), tmp_path, on_step=stopped_at(5))
    other = plain()
    other[0].requires_grad_(False)
    with pytest.raises(CheckpointError, match="other parameters learned"):
        run(other, tmp_path, resume=True)


def test_numpys_and_pythons_random_numbers_go_on_too(tmp_path):
    import random

    import numpy as np

    def loss(logits, y):
        return F.cross_entropy(logits, y) * (1.0 + 0.1 * np.random.rand() + 0.1 * random.gauss(0, 1))

    whole, resumed = plain(), plain()
    run(whole, None, loss=loss)
    run(plain(), tmp_path, on_step=stopped_at(7), loss=loss)
    run(resumed, tmp_path, resume=True, loss=loss)
    assert_same_state(whole, resumed)


def test_max_steps_may_grow(tmp_path):
    whole, longer = quantized(), quantized(seed=4)
    expected = run(whole, None, config())
    run(quantized(), tmp_path, config(max_steps=8))
    run(quantized(seed=3), tmp_path, config(max_steps=12), resume=True)
    history = run(longer, tmp_path, config(), resume=True)
    assert_same_state(whole, longer)
    assert_same_history(expected, history)


def test_a_finished_run_returns_its_history_at_once(tmp_path):
    first = run(quantized(), tmp_path)
    before = last(tmp_path)
    model = quantized(seed=9)
    again = run(model, tmp_path, resume=True, on_step=lambda *_: pytest.fail("a step was made"))
    assert_same_history(first, again)
    assert last(tmp_path) == before
    assert load_checkpoint(quantized(3), tmp_path, "last")["step"] == 18
    assert again.epochs[-1]["minutes"] == first.epochs[-1]["minutes"]


def test_resume_without_a_run_starts_one(tmp_path):
    model, twin = quantized(), quantized()
    run(model, tmp_path / "new", resume=True)
    run(twin, None)
    assert_same_state(model, twin)


def test_minutes_go_on(tmp_path):
    run(quantized(), tmp_path, on_step=stopped_at(7))
    path = last(tmp_path)
    state = torch.load(path / "state.pt", weights_only=True)
    assert state["seconds"] > 0
    with rewritten(path, "state.pt") as file:
        torch.save({**state, "seconds": 600.0}, file)
    history = run(quantized(), tmp_path, resume=True)
    assert 10.0 < history.epochs[-1]["minutes"] < 12.0


# what is stored


def test_best_is_chosen_on_val_and_last_is_the_last(tmp_path):
    model = quantized()
    history = run(model, tmp_path, config(epochs=6, lr=0.3))
    best = quantized(3)
    info = load_checkpoint(best, tmp_path)
    assert info["step"] == history.best["steps"]
    assert info["config_sha256"] == config(epochs=6, lr=0.3).sha256
    from qviz.nn.train import evaluate

    assert evaluate(best, VAL)["top1"] == history.best["val_top1"]
    newest = quantized(4)
    load_checkpoint(newest, tmp_path, "last")
    assert_same_state(newest, model)
    with pytest.raises(ValueError, match="'newest'"):
        load_checkpoint(newest, tmp_path, "newest")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(newest, tmp_path / "nowhere", "last")


def test_two_checkpoints_stay(tmp_path):
    run(quantized(), tmp_path, config(checkpoint_every=1))
    assert len(Checkpoints(tmp_path).all()) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "checkpoints",
        "last.safetensors",
    ]


def test_a_checkpoint_holds_nothing_that_could_be_run(tmp_path):
    run(quantized(), tmp_path)
    torch.load(last(tmp_path) / "state.pt", weights_only=True)
    names = {p.name for p in last(tmp_path).iterdir()}
    assert names == {"model.safetensors", "state.pt", "history.safetensors", "manifest.json"}


def test_best_and_last_are_put_in_place_after_a_kill_between_the_two(tmp_path):
    how = config(max_steps=6)
    run(quantized(), tmp_path, how)
    for name in ("best.safetensors", "last.safetensors"):
        content = (tmp_path / name).read_bytes()
        for damage in (Path.unlink, truncate):
            damage(tmp_path / name)
            run(quantized(), tmp_path, how, resume=True)
            assert (tmp_path / name).read_bytes() == content


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    run(quantized(), tmp_path, config(max_steps=4))
    half = tmp_path / "checkpoints" / ".new-000009-77"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    run(quantized(), tmp_path, config(), resume=True)
    assert not half.exists()


# what is refused


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path):
    run(quantized(), tmp_path, on_step=stopped_at(5))
    with pytest.raises(CheckpointError, match=r"lr: 0\.05 before, 0\.1 now; seed: 0 before, 3 now"):
        run(quantized(), tmp_path, config(lr=0.1, seed=3), resume=True)


def test_another_model_is_refused_and_stays_as_it_is(tmp_path):
    run(plain(), tmp_path, on_step=stopped_at(5))
    other = quantized()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"another model: missing there .*1\.bias.* and \d+ more"):
        run(other, tmp_path, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    wide = nn.Sequential(nn.Conv2d(3, 9, 3), *list(plain())[1:4], nn.Linear(36, CLASSES))
    with pytest.raises(CheckpointError, match=r"0\.bias \(8,\) there, \(9,\) here"):
        run(wide, tmp_path, resume=True)


def test_other_data_are_refused(tmp_path):
    run(quantized(), tmp_path, on_step=stopped_at(5))
    with pytest.raises(CheckpointError, match="with 6 steps an epoch; now there are 2"):
        fit(quantized(), Blobs(32), config(), folder=tmp_path, resume=True, progress=False)


def root_of_loss(logits, y):
    return F.cross_entropy(logits, y).sqrt()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"loss": root_of_loss}, r"objective \{'loss': None, .* now it is \{'loss': 'root_of_loss'"),
        ({"metric": lambda out, y: (out.argmax(1) == y).float().mean()}, "'metric': '.*<lambda>'"),
        ({"teacher": plain(5)}, "'teacher': 'Sequential with weights [0-9a-f]{12}', 'teacher_share': 1.0"),
    ],
)
def test_another_objective_is_refused_and_the_model_stays_as_it_is(tmp_path, other, says):
    run(plain(), tmp_path, on_step=stopped_at(5))
    model, before = plain(3), plain(3)
    with pytest.raises(CheckpointError, match=says):
        run(model, tmp_path, resume=True, **other)
    assert_same_state(model, before)


def test_a_teacher_is_told_by_its_weights_and_its_share(tmp_path):
    run(plain(), tmp_path, on_step=stopped_at(5), teacher=plain(5))
    for other in ({"teacher": plain(6)}, {"teacher": plain(5), "teacher_share": 0.5}, {}):
        with pytest.raises(CheckpointError, match="with the objective"):
            run(plain(), tmp_path, resume=True, **other)
    assert run(plain(), tmp_path, resume=True, teacher=plain(5)).finished


def test_a_checkpoint_that_does_not_tell_its_objective_is_gone_on_with(tmp_path):
    run(plain(), tmp_path, on_step=stopped_at(5))
    history = History.load(tmp_path)
    del history.meta["objective"]
    with rewritten(last(tmp_path), "history.safetensors") as file:
        file.write(history.pack())
    assert run(plain(), tmp_path, resume=True).meta["objective"]["loss"] is None


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    run(quantized(), tmp_path, on_step=stopped_at(5))
    with pytest.raises(FileExistsError, match=r"resume=True .* goes on"):
        run(quantized(), tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    def second(step, history):
        with pytest.raises(OSError, match="another run is at work"):
            run(quantized(), tmp_path, resume=True)
        tried.append(step)
        raise KeyboardInterrupt

    tried = []
    run(quantized(), tmp_path, on_step=second)
    assert tried == [1]
    assert run(quantized(), tmp_path, resume=True).finished


class rewritten:
    """Open a part of a checkpoint for writing and put its new hash into the manifest."""

    def __init__(self, path, name):
        self.path, self.name = path, name

    def __enter__(self):
        self.file = (self.path / self.name).open("wb")
        return self.file

    def __exit__(self, *_):
        from qviz.core._files import sha256
        from qviz.nn.train.checkpoint import _canonical

        self.file.close()
        manifest = json.loads((self.path / "manifest.json").read_bytes())
        data = (self.path / self.name).read_bytes()
        manifest["files"][self.name] = {"bytes": len(data), "sha256": sha256(data)}
        del manifest["sha256"]
        manifest["sha256"] = sha256(_canonical(manifest))
        (self.path / "manifest.json").write_text(json.dumps(manifest))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The model of a whole run, and the folder of one that was stopped."""
    whole, folder = quantized(), tmp_path_factory.mktemp("stopped")
    run(whole, None)
    run(quantized(), folder, on_step=stopped_at(11))
    return whole, folder


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "history.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_checkpoint_is_noticed_and_nothing_is_lost(tmp_path, name, damage, stopped):
    whole, folder = stopped
    model = quantized()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damage(last(tmp_path) / name)
    before = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"
    }
    with pytest.raises(CheckpointError, match=r"damaged.*remove that folder to go on from") as caught:
        run(model, tmp_path, resume=True)
    after = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"
    }
    assert before == after
    assert str(last(tmp_path)) in str(caught.value)
    shutil.rmtree(last(tmp_path))  # as the sentence says
    run(model, tmp_path, resume=True)
    assert_same_state(whole, model)


def test_a_manifest_that_was_altered_is_noticed(tmp_path):
    run(quantized(), tmp_path, on_step=stopped_at(11))
    path = last(tmp_path) / "manifest.json"
    path.write_text(path.read_text().replace('"lr": 0.05', '"lr": 0.06'))
    with pytest.raises(CheckpointError, match="does not have the hash that it states"):
        run(quantized(), tmp_path, config(lr=0.06), resume=True)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_damaged_best_weights_are_noticed(tmp_path, damage):
    run(quantized(), tmp_path)
    damage(tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(quantized(), tmp_path)


# a disk that does not take it


@pytest.mark.parametrize("part", [*slow("model.safetensors", "state.pt"), "manifest.json"])
def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(tmp_path, monkeypatch, part):
    from qviz.nn.train import checkpoint

    def full(path, content):
        if path.name == part and len(writes) >= 2:  # the first two checkpoints find room
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writes.extend([1] * (path.name == part))
        real(path, content)

    writes, real = [], checkpoint.write_synced
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_synced", full)
        with pytest.raises(OSError, match=r"step 6 could not be written.*No space left.*is intact") as caught:
            run(quantized(), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert load_checkpoint(quantized(), tmp_path, "last")["step"] == 4
    assert not list(tmp_path.rglob(".new-*"))
    whole, model = quantized(), quantized()
    run(whole, None)
    run(model, tmp_path, resume=True)
    assert_same_state(whole, model)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_really_full_device_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "history.safetensors"
    write_atomically(target, b"old")
    (tmp_path / f".{target.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"history\.safetensors could not be written: No space left"):
        write_atomically(target, b"new" * 10000)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_is_full_at_the_best_weights_names_them_and_loses_nothing(tmp_path, monkeypatch):
    def full(path, content):
        if "best" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_synced(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("qviz.core._files.write_synced", full)
        with pytest.raises(OSError, match=r"best\.safetensors could not be written: No space left on device"):
            run(quantized(), tmp_path)
    whole, model = quantized(), quantized()
    run(whole, None)
    run(model, tmp_path, resume=True)
    assert_same_state(whole, model)
    assert load_checkpoint(quantized(), tmp_path, "best")["step"] > 0


def test_a_manifest_that_is_none_is_told_in_a_sentence(tmp_path):
    run(quantized(), tmp_path)
    (sorted(tmp_path.glob("checkpoints/[0-9]*"))[-1] / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"is damaged: manifest.json is not a manifest of qviz; remove"):
        run(quantized(), tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", Path("/proc/qviz")):
        with pytest.raises(OSError, match=f"cannot be written to {folder}"):
            run(quantized(), folder, on_step=lambda *_: pytest.fail("a step was made"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="cannot be written to"):
            run(quantized(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


def test_losing_the_disk_while_resuming_loses_nothing(tmp_path, monkeypatch):
    run(quantized(), tmp_path, on_step=stopped_at(5))
    names = sorted(p.name for p in Checkpoints(tmp_path).all())

    def broken(path, content):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("qviz.core._files.write_synced", broken)
    with pytest.raises(OSError, match=r"cannot be written to .*Read-only"):
        run(quantized(), tmp_path, resume=True)
    assert sorted(p.name for p in Checkpoints(tmp_path).all()) == names
