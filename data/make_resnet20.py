"""Train the FP32 ResNet-20 on all of CIFAR-10 and put its weights, configuration and log into this folder.

    QVIZ_DATA=... python data/make_resnet20.py

Two cycles with a warm restart between them (Loshchilov and Hutter 2017, arXiv:1608.03983): 60 epochs in one
cycle up to a rate of 0.4, then 40 along a cosine from 0.1. Needs the extra ``train`` and the full CIFAR-10 in
``$QVIZ_DATA`` (default ~/.cache/qviz). Some two hours on two cores; killed, it goes on.
The row of results.json is written by the runner.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from card import HERE, record, sha256

from qviz.nn.runs import Experiment, Ledger, Row, run
from qviz.nn.runs.experiment import SHIPPED
from qviz.nn.runs.prepare import prepare
from qviz.nn.runs.run import LAST, folder_of
from qviz.nn.train import History, evaluate
from qviz.nn.weights import load_weights

LOG = "resnet20_fp32.json"
FIRST = Experiment(
    recipe="fp32",
    source="full",
    held_out=False,
    overrides={"epochs": 60, "precision": "bf16", "record_every": 0},
)
RESTART = {"epochs": 40, "lr": 0.1, "schedule": "cosine"}


def finished(experiment: Experiment, ledger: Ledger | None = None) -> tuple[Row, Path]:
    """Train, or go on, and return the row and the folder of the run."""
    row = run(experiment, ledger=ledger)
    if row is None:
        raise SystemExit("stopped; the same command goes on")
    return row, folder_of(experiment, "full") / "seed0"


def cycle(experiment: Experiment, place: Path) -> dict[str, Any]:
    """Return what a cycle was, and its epochs."""
    history = History.load(max(place.glob("checkpoints/*/history.safetensors")))
    return {
        "config": experiment.config("full").to_dict(),
        "sha256": sha256(place / LAST),
        "epochs": history.epochs,
    }


def main() -> None:
    """Train what is not trained yet, then write weights, log, manifest and row."""
    _, before = finished(FIRST)
    second = replace(FIRST, start=str(before / LAST), overrides={**FIRST.overrides, **RESTART})
    row, place = finished(second, Ledger())
    shutil.copyfile(place / LAST, HERE / SHIPPED)
    sample = prepare(Experiment(recipe="fp32", source="sample"))
    load_weights(sample.model, HERE / SHIPPED)
    log = {
        "top1": row.top1_mean,
        "sample_top1": round(100 * evaluate(sample.model.eval(), sample.test)["top1"], 3),
        "config_sha256": row.config_sha256,
        "cycles": [cycle(FIRST, before), cycle(second, place)],
    }
    (HERE / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8", newline="\n")
    made_from = "data_batch_1.bin … data_batch_5.bin"
    record(SHIPPED, kind="checkpoint", made_by="make_resnet20.py", made_from=made_from)
    record(LOG, kind="log", made_by="make_resnet20.py", made_from=made_from)


if __name__ == "__main__":
    main()
