"""Trials: several seeds of one's own model on one's own data."""

import statistics

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qviz.nn import fit
from qviz.nn.runs.several import Trials, table, trials
from tests.nn.training import Blobs, config, plain


def run(folder=None, **options):
    options = {"seeds": (0, 1), "test": Blobs(30, 10, train=False, seed=5), **options}
    return trials("plain", plain, lambda seed: Blobs(seed=seed), config(epochs=1), folder=folder, **options)


def test_each_seed_has_its_model_its_data_and_its_configuration():
    got = run()
    test = Blobs(30, 10, train=False, seed=5)
    alone = [
        fit(plain(seed), Blobs(seed=seed), config(epochs=1, seed=seed), test=test, progress=False)
        for seed in (0, 1)
    ]
    values = [history.epochs[-1]["test_top1"] for history in alone]
    assert (got.seeds, got.figure, got.values) == ((0, 1), "test_top1", values)
    assert [history.meta["config"]["seed"] for history in got.histories] == [0, 1]
    assert (got.mean, got.std) == (statistics.mean(values), statistics.stdev(values))
    assert f"{100 * got.mean:.2f} ± {100 * got.std:.2f}" in str(got)
    one = Trials("one", got.seeds[:1], got.histories[:1])
    lines = table([got, one], markdown=True).splitlines()
    assert len(lines) == 4
    assert f"| {100 * values[0]:.2f} | 1 |" in lines[3]


def test_a_metric_or_a_loss_is_shown_as_it_is():
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    data = [(x, x.sum(1, keepdim=True))]

    def make(seed):
        torch.manual_seed(seed)
        return nn.Linear(4, 1)

    got = trials("line", make, data, config(epochs=1), seeds=(3,), loss=F.mse_loss, val=data)
    assert (got.figure, got.std) == ("val_loss", None)
    assert f"val loss  {got.mean:.4g} " in str(got)


def test_trials_with_a_folder_go_on(tmp_path):
    first = run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed0", "seed1"]
    started = []
    again = run(tmp_path, seeds=(0, 1, 2), on_step=lambda step, history: started.append(step))
    assert again.values[:2] == first.values
    assert started == list(range(1, 7)), "only the third one trains"


@pytest.mark.parametrize("seeds", [(), (0, 0)])
def test_seeds_that_cannot_be_are_refused(seeds):
    with pytest.raises(ValueError, match="all different, got"):
        run(seeds=seeds)


def test_a_run_that_is_stopped_ends_the_trials():
    def stop(step, history):
        if history.meta["config"]["seed"] == 1:
            raise KeyboardInterrupt

    assert run(on_step=stop, seeds=(0, 1, 2)).seeds == (0,)
    with pytest.raises(KeyboardInterrupt, match="before the first run"):
        run(on_step=stop, seeds=(1, 2))
