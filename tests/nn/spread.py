"""What each process of test_distributed does: train, evaluate, and say what came out."""

import atexit
import json
import os
import sys
from pathlib import Path

import torch

from qviz.nn.train import evaluate, fit
from tests.nn.training import Blobs, config, plain, quantized


def main(folder: Path, task: str) -> None:
    torch.set_num_threads(1)
    model = plain() if task == "plain" else quantized(norm=False, dropout=0.5 if task == "stopped" else 0.0)
    stop = int(sys.argv[3]) if len(sys.argv) > 3 else None

    def on_step(step, history):
        if step == stop:
            raise KeyboardInterrupt

    history = fit(
        model,
        Blobs(),
        config(checkpoint_every=4, q_optimizer="same"),  # Adam would not see a factor in the gradient
        val=Blobs(41, 15, train=False, seed=5),  # the last batch holds 11 images: 6 and 5
        test=Blobs(31, 15, train=False, seed=6),  # the last batch holds 1: the other process has none
        folder=folder,
        resume=task == "stopped",
        on_step=on_step,
        progress=True,
    )
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    found = evaluate(model, Blobs(31, 15, train=False, seed=6))
    replicas = [getattr(m.range, "replicas", 1) for m in model.modules() if hasattr(m, "range")]
    torch.save(
        {
            "state": model.state_dict(),
            "loss": history.curve["loss"].tolist(),
            "epochs": json.dumps(history.epochs),
            "found": found,
            "world": world,
            "replicas": replicas,
            "interrupted": history.interrupted,
        },
        folder / f"{task}-{rank}.pt",
    )


def say_threads(file: Path) -> None:
    """Write down the threads of this process."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    file.write_text("\n".join(names))


if __name__ == "__main__":
    folder, task = Path(sys.argv[1]), sys.argv[2]
    if Path("/proc/self/task").is_dir():  # registered before fit's own, so that it is called after that
        atexit.register(say_threads, folder / f"{task}-{os.environ['RANK']}.threads")
    main(folder, task)
