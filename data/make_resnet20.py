"""Train the FP32 ResNet-20 on all of CIFAR-10 and put its weights, configuration and log into this folder.

    QVIZ_DATA=... python data/make_resnet20.py

Two cycles with a warm restart between them (Loshchilov and Hutter 2017, arXiv:1608.03983): 60 epochs in one
cycle up to a rate of 0.4, then 40 along a cosine from 0.1. Then the mean of the weights at the ends of 16
epochs at a rate of 0.03 (stochastic weight averaging, Izmailov et al. 2018, arXiv:1803.05407), and two epochs
from 0.01 that also let batch normalisation see the averaged network. Needs the extra ``train`` and the full
CIFAR-10 in ``$QVIZ_DATA`` (default ~/.cache/qviz). Two hours and a half on two cores; killed, it goes on.
The row of results.json is written by the runner.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from card import HERE, record, sha256
from safetensors.torch import load_file, save_file
from torch import Tensor

from qviz.nn.runs import Experiment, Ledger, Row, folder_of, run
from qviz.nn.runs.experiment import SHIPPED
from qviz.nn.runs.prepare import prepare
from qviz.nn.train import History, evaluate
from qviz.nn.train.checkpoint import LAST
from qviz.nn.weights import load_weights

LOG = "resnet20_fp32.json"
FIRST = Experiment(
    recipe="fp32",
    source="full",
    held_out=False,
    overrides={"epochs": 60, "precision": "bf16", "record_every": 0},
)
RESTART = {"epochs": 40, "lr": 0.1, "schedule": "cosine"}
WANDER = {"epochs": 1, "lr": 0.03, "schedule": "constant"}
WANDERED = 16
SETTLE = {"epochs": 2, "lr": 0.01, "schedule": "cosine"}


def after(weights: Path, fields: dict[str, Any], seed: int = 0) -> Experiment:
    """Return the experiment that goes on from a file of weights."""
    return replace(FIRST, start=str(weights), seeds=(seed,), overrides={**FIRST.overrides, **fields})


def finished(experiment: Experiment, **options: Any) -> tuple[Row, Path]:
    """Train, or go on, and return the row and the weights."""
    row = run(experiment, **options)
    if row is None:
        raise SystemExit("stopped; the same command goes on")
    return row, folder_of(experiment, "full") / f"seed{experiment.seeds[0]}" / LAST


def mean(files: list[Path]) -> dict[str, Tensor]:
    """Return the mean of some networks' weights and statistics; counts of batches are those of the last."""
    states = [load_file(file) for file in files]
    floats = {key for key, value in states[0].items() if value.is_floating_point()}
    return states[-1] | {key: torch.stack([state[key] for state in states]).mean(0) for key in floats}


def told(experiment: Experiment, weights: Path) -> dict[str, Any]:
    """Return what a part of the training was, and its epochs."""
    history = History.load(max(weights.parent.glob("checkpoints/*/history.safetensors")))
    return {
        "config": experiment.config("full").to_dict(),
        "sha256": sha256(weights),
        "epochs": history.epochs,
    }


def main() -> None:
    """Train what is not trained yet, then write weights, log, manifest and row."""
    rows, parts, wandered = [], [], []

    def train(experiment: Experiment, **options: Any) -> Path:
        row, weights = finished(experiment, **options)
        rows.append(row)
        parts.append(told(experiment, weights))
        return weights

    weights = train(FIRST)
    weights = train(after(weights, RESTART))
    for seed in range(1, WANDERED + 1):
        weights = train(after(weights, WANDER, seed))
        wandered.append(weights)
    averaged = weights.with_name("mean.safetensors")
    save_file(mean(wandered), averaged)
    weights = train(after(averaged, SETTLE), ledger=Ledger(), before=tuple(rows))
    row = rows[-1]

    shutil.copyfile(weights, HERE / SHIPPED)
    sample = prepare(Experiment(recipe="fp32", source="sample"))
    load_weights(sample.model, HERE / SHIPPED)
    log = {
        "top1": row.top1_mean,
        "sample_top1": round(100 * evaluate(sample.model.eval(), sample.test)["top1"], 3),
        "config_sha256": row.config_sha256,
        "parts": parts,
    }
    (HERE / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8", newline="\n")
    made_from = "data_batch_1.bin … data_batch_5.bin"
    record(SHIPPED, kind="checkpoint", made_by="make_resnet20.py", made_from=made_from)
    record(LOG, kind="log", made_by="make_resnet20.py", made_from=made_from)


if __name__ == "__main__":
    main()
