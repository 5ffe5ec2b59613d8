"""Schedules: how long and how fast each method is trained, at three sizes.

"smoke" shows that everything runs; "laptop" gives a result on two cores; "full" is the paper's schedule where
it is known. What a paper does not say is chosen here and marked INFERRED in :data:`SOURCES`.
"""

from __future__ import annotations

from typing import Any

SIZES = ("smoke", "laptop", "full")
DATA = ("cifar10", "imagenet")

LAPTOP_EPOCHS = {"full": 10, "sample": 8}
"""Epochs of fine-tuning on two cores, on all of CIFAR-10 and on the embedded sample."""

FINE_TUNING: dict[str, Any] = {
    "batch_size": 128,
    "lr": 0.01,
    "weight_decay": 1e-4,
    "q_optimizer": "adam",
    "q_lr": 3e-3,
}
"""The schedule that all methods share at the size "laptop", so that their rows can be compared.

The two rates come from short runs of LSQ and DAQ at W2A2 on the embedded sample, compared on its held-out
images: with so few steps LSQ's steps, which start too large, must be able to move.
"""

FEW_IMAGES: dict[str, Any] = {"batch_size": 64, "lr": 0.005}
"""Instead, on the embedded sample: more steps an epoch, and a rate that falls with the batch."""

FROM_SCRATCH: dict[str, Any] = {
    "batch_size": 128,
    "lr": 0.4,
    "weight_decay": 5e-4,
    "nesterov": True,
    "schedule": "one-cycle",
}
"""Of the FP32 network; this project's."""

_ASQ = {"batch_size": 128, "lr": 0.04, "weight_decay": 1e-4, "q_optimizer": "same", "epochs": 200}
_ASQ_IMAGENET = {"batch_size": 256, "lr": 0.01, "weight_decay": 1e-4, "q_optimizer": "same", "epochs": 90}

FULL: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": {
        "fp32": FROM_SCRATCH | {"epochs": 200, "lr": 0.2},
        "daq": {"batch_size": 256, "lr": 0.1, "weight_decay": 1e-4, "q_lr": 1e-4, "epochs": 400},
        "adq": _ASQ | {"q_optimizer": "sgd", "q_lr": 0.004},
        "*": _ASQ,
    },
    "imagenet": {
        "fp32": {"batch_size": 256, "lr": 0.1, "weight_decay": 1e-4, "epochs": 90},
        "daq": {"batch_size": 256, "lr": 0.01, "weight_decay": 1e-4, "q_lr": 1e-4, "epochs": 100},
        "adq": _ASQ_IMAGENET | {"q_optimizer": "sgd", "q_lr": 0.001},
        "*": _ASQ_IMAGENET,
    },
}
"""Schedules of the size "full" by data and method; "*" stands for the methods that are not named."""

SOURCES: dict[str, str] = {
    "fp32": "this project's choice",
    "ste": "INFERRED: as asq",
    "lsq": "INFERRED on CIFAR-10 (as asq); ImageNet: Esser et al., section 3, 90 epochs, lr 0.01, cosine",
    "pact": "INFERRED: as asq",
    "daq": "Kim et al., section 4.1 and released code: 400 epochs of 256, lr 0.1 (the text says 0.01), Adam "
    "1e-4 for bounds and scales; ImageNet 100 epochs, lr 0.01",
    "asq": "Zhou et al., released code, on ImageNet: 90 epochs, lr 0.01, decay 1e-4 on everything; "
    "INFERRED on CIFAR-10",
    "pot": "as asq",
    "post": "as asq",
    "adq": "INFERRED: 200 epochs, lr 0.04, thresholds at a tenth of it without decay",
    "aquant": "INFERRED: the paper quantizes after training",
}


def schedule(method: str, data: str, size: str, source: str, w_bits: float, model: str) -> dict[str, Any]:
    """Return the fields of a TrainConfig.

    Args:
        method: A name of ``qviz.recipes.pair``.
        data: "cifar10" or "imagenet".
        size: "smoke", "laptop" or "full".
        source: "full" or "sample", which data there are.
        w_bits: DAQ halves the weight decay on ImageNet for 2 bits and fewer.
        model: DAQ has its own schedule for MobileNetV2.
    """
    if size == "full":
        table = FULL[data]
        found = dict(table.get(method, table["*"]))
        if (method, data) == ("daq", "imagenet"):
            if model == "mobilenet_v2":
                found |= {"batch_size": 160, "lr": 0.005, "weight_decay": 4e-5}
            elif w_bits <= 2:
                found["weight_decay"] = 5e-5
        return found
    found = dict(FROM_SCRATCH if method == "fp32" and data == "cifar10" else FINE_TUNING)
    if source == "sample":
        found["record_every"] = 1  # so few steps that all of them can be kept
    if data == "imagenet":  # the stand-in of ten classes; for the smoke run enough steps that the loss falls
        short = {"batch_size": 16, "epochs": 4} if size == "smoke" else {"batch_size": 32, "epochs": 6}
        return found | {"lr": 0.01} | short
    if size == "smoke":  # so few steps that a large rate would only do harm
        return found | {"batch_size": 64, "epochs": 1, "lr": 0.05 if method == "fp32" else 0.005}
    if source == "sample" and method != "fp32":
        found |= FEW_IMAGES
    return found | {"epochs": 30 if method == "fp32" else LAPTOP_EPOCHS[source]}
