"""Where a run computes: device, processes, precision, through Hugging Face accelerate."""

from __future__ import annotations

import atexit
import gc
import os
import platform
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qviz.core._text import count
from qviz.core.learned import LearnedRange
from qviz.core.quantizer import Quantizer
from qviz.nn.train.batch import each
from qviz.nn.train.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


class Machine:
    """The device and the processes of a run.

    Precision is this class's own autocast, not accelerate's: that one is fixed for the whole process when
    the first Accelerator is made and rewrites ``model.forward``; in a notebook one run may be bf16 and the
    next not.

    Args:
        config: The configuration, of which precision, channels_last and compile count.
        device: "cpu" or "cuda"; by default a CUDA device where there is one, else the CPU. (Apple's MPS has
            no float64, which codebooks are kept in.)

    Attributes:
        device: The device of this process.
        rank: Its number, from 0.
        world: How many processes there are.

    Raises:
        ImportError: Accelerate is not installed.
        ValueError: The batch cannot be dealt out evenly to the processes.
    """

    def __init__(self, config: TrainConfig, device: torch.device | str | None = None) -> None:
        self.config = config
        self.accelerator = _accelerator(device)
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        if config.batch_size % self.world:
            raise ValueError(
                f"batch_size must be a multiple of the {self.world} processes, got {config.batch_size}"
            )

    def place(self, model: nn.Module) -> None:
        """Bring the model, in place, to the device and into the memory format."""
        model.to(self.device)
        if self.config.channels_last:
            model.to(memory_format=torch.channels_last)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what is called in training: the model, its gradients averaged over processes, compiled."""
        net = self.accelerator.prepare_model(model) if self.world > 1 else model
        return torch.compile(net) if self.config.compile else net

    def share_inputs(self, model: nn.Module, processes: int) -> None:
        """Tell the layers' input quantizers over how many processes the batch is spread.

        LSQ's gradient scale counts the values that share a step; each process sees its part of them only.
        """
        for module in model.modules():
            quantizer = getattr(module, "input_quantizer", None)
            if isinstance(quantizer, Quantizer) and isinstance(quantizer.range, LearnedRange):
                quantizer.range.replicas = processes

    def check(self, images: int) -> None:
        """See that every process has an equal part of the batch; gradients are averaged as if it had.

        Raises:
            ValueError: This one has more or less, or none.
        """
        if images == 0:
            raise ValueError("train gave a batch without samples, which has no mean loss: leave it out")
        if self.world > 1 and images * self.world != self.config.batch_size:
            raise ValueError(
                f"process {self.rank} of {self.world} got {images} images of a batch of "
                f"{self.config.batch_size}; train must leave out a last, partial batch"
            )

    def images(self, x: Any) -> Any:
        """Return a batch's inputs with images in the memory format of the run."""

        def ordered(x: Tensor) -> Tensor:
            return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

        return each(x, ordered) if self.config.channels_last else x

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in bfloat16 where the configuration says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def agree(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def gather(self, value: object) -> list[object]:
        """Return every process's value, in the order of the ranks."""
        if self.world == 1:
            return [value]
        everyone: list[object] = [None] * self.world
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def facts(self) -> dict[str, Any]:
        """Return what the History says about where the run took place."""
        return {
            "device": str(self),
            "threads": torch.get_num_threads(),
            "processes": self.world,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def __str__(self) -> str:
        parts = [
            torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU",
            count(torch.get_num_threads(), "thread") if self.device.type == "cpu" else "",
            f"{self.world} processes" if self.world > 1 else "",
            self.config.precision,
            "channels_last" if self.config.channels_last else "",
            "compiled" if self.config.compile else "",
        ]
        return ", ".join(part for part in parts if part)


def _accelerator(device: torch.device | str | None) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as problem:
        raise ImportError("training needs accelerate: pip install 'qviz-quantization[train]'") from problem
    wanted = torch.device(device).type if device is not None else None
    if wanted not in (None, "cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch finds no CUDA device here")
    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    cpu = wanted == "cpu" or not torch.cuda.is_available() or (wanted is None and forced)
    _expect_group()
    made = _made(Accelerator, cpu)
    if made is None:  # an earlier run of this process was on another device, or in another precision
        AcceleratorState._reset_state(reset_partial_state=True)
        made = _made(Accelerator, cpu)
    if made is None:
        raise ValueError(f"accelerate does not give a {'CPU' if cpu else 'CUDA'} device here")
    return made


@cache
def _expect_group() -> None:
    """Destroy the gloo process group at exit.

    A gloo thread that still holds a tensor would abort the interpreter.
    ``torch.distributed.nn.functional`` captures the group in default arguments, so it is imported before.
    """
    if torch.distributed.is_available():
        import_module("torch.distributed.nn.functional")
        atexit.register(_end_group)


def _end_group() -> None:
    gc.collect()  # DistributedDataParallel holds the group
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _made(kind: type[Accelerator], cpu: bool) -> Accelerator | None:
    try:
        made = kind(cpu=cpu, mixed_precision="no")
    except ValueError:
        return None
    return made if (made.device.type == "cpu") == cpu else None
