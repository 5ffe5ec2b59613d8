"""Train the FP32 ResNet-20 on all of CIFAR-10 and put its weights, configuration and log into this folder.

    QVIZ_DATA=... python data/make_resnet20.py

Needs the extra ``train`` and the full CIFAR-10 in ``$QVIZ_DATA`` (default ~/.cache/qviz). Some 60 minutes on
two cores; stopped or killed, it goes on where it was. The row of results.json is written by the runner.
"""

from __future__ import annotations

import json
import shutil

from card import HERE, record, sha256

from qviz.nn.runs import Experiment, Ledger, run
from qviz.nn.runs.prepare import prepare
from qviz.nn.runs.run import LAST, folder_of
from qviz.nn.train import History, evaluate
from qviz.nn.weights import load_weights

EXPERIMENT = Experiment(
    recipe="fp32",
    size="laptop",
    source="full",
    held_out=False,
    overrides={"epochs": 60, "precision": "bf16", "record_every": 0},
)
WEIGHTS, LOG = "resnet20_fp32.safetensors", "resnet20_fp32.json"


def main() -> None:
    row = run(EXPERIMENT, ledger=Ledger())
    if row is None:
        raise SystemExit("stopped; the same command goes on")
    place = folder_of(EXPERIMENT, "full") / "seed0"
    shutil.copyfile(place / LAST, HERE / WEIGHTS)
    sample = prepare(Experiment(recipe="fp32", source="sample"))
    load_weights(sample.model, HERE / WEIGHTS)
    on_sample = evaluate(sample.model.eval(), sample.test)
    history = History.load(max(place.glob("checkpoints/*/history.safetensors")))
    log = {
        "experiment": EXPERIMENT.to_dict(),
        "config": EXPERIMENT.config("full").to_dict(),
        "top1": row.top1_mean,
        "sample_top1": round(100 * on_sample["top1"], 3),
        "sha256": sha256(HERE / WEIGHTS),
        "epochs": history.epochs,
    }
    (HERE / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8", newline="\n")
    made_from = "data_batch_1.bin … data_batch_5.bin"
    record(WEIGHTS, kind="checkpoint", made_by="make_resnet20.py", made_from=made_from)
    record(LOG, kind="log", made_by="make_resnet20.py", made_from=made_from)


if __name__ == "__main__":
    main()
