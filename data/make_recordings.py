"""Fine-tune the shipped ResNet-20 on the embedded sample in four ways, and record one layer of each run.

    python data/make_recordings.py [NAME ...]

Weights and activations have 3 bits, first and last layer stay in floating point, and all runs see the same
batches. They start from the same network: STE's grid stays where the search put it, DAQ's bounds are learned,
ADQ's codebook stays at its quantiles or follows the weights (EMA). BatchNorm is re-estimated before the first
step. Needs the extra ``train``; five minutes on one core. The last bits depend on the processor.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from card import HERE, record

from qviz.nn import LayerRecorder, LayerRecording, evaluate, fit, reestimate_batchnorm
from qviz.nn.runs import Experiment
from qviz.nn.runs.prepare import prepare
from qviz.nn.train.evaluate import batches_of

LAYER, BITS, WEIGHTS = "layer2.0.conv2", 3, 256
SCHEDULE = {"epochs": 6, "lr": 0.01, "record_every": 0}
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ste": ("STE", {"recipe": "ste"}, {}),
    "daq": ("DAQ", {"recipe": "daq"}, {}),
    "adq_static": ("ADQ, codebook stays", {"recipe": "adq"}, {"freeze_codebooks": 0.0}),
    "adq_ema": ("ADQ, codebook follows", {"recipe": "adq", "weight_options": {"decay": 0.9}}, {}),
}


def recorded(name: str, fields: dict[str, Any], overrides: dict[str, Any]) -> LayerRecording:
    """Train and return the recording."""
    run = prepare(
        Experiment(w_bits=BITS, source="sample", held_out=False, overrides=SCHEDULE | overrides, **fields)
    )
    reestimate_batchnorm(run.model, batches_of(run.train))
    about = {"bits": BITS, **fields, "config": run.config.to_dict(), "start_top1": top1(run)}
    recorder = LayerRecorder(run.model, LAYER, weights=WEIGHTS, name=name, about=about)
    fit(run.model, run.train, run.config, on_step=recorder, progress=False)
    recorder.about["end_top1"] = top1(run)
    return recorder.recording()


def top1(run: Any) -> float:
    """Return the share of the sample's test images that are right."""
    return round(evaluate(run.model.eval(), run.test)["top1"], 4)


def main() -> None:
    """Train, record and write the named runs, or all."""
    torch.set_num_threads(1)
    for key in sys.argv[1:] or RUNS:
        made = recorded(*RUNS[key])
        made.save(HERE / f"recording_{key}.safetensors")
        about = made.about
        print(f"{made.name}: {len(made)} frames, top-1 {about['start_top1']:.2%} → {about['end_top1']:.2%}")
        record(
            f"recording_{key}.safetensors",
            kind="recording",
            made_by="make_recordings.py",
            made_from="resnet20_fp32.safetensors, cifar10_sample_train.webp",
        )


if __name__ == "__main__":
    main()
