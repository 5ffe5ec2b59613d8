"""Time post-training quantization: AdaRound by moments beside the loss over images, networks, brevitas.

    THREADS=2 ITERATIONS=2000 python tests/benchmarks/bench_ptq.py [layer] [networks] [brevitas]

layer: 64 × 64 × 3 × 3 weights on 256 maps of 8 × 8, milliseconds a step: the Gram form (``adaround``) and the
same loss by a convolution of 32 maps a step (``reconstruct``), taking turns. networks: the shipped ResNet-20,
seconds: closed form at 2 bits, QDrop at 4 bits with so many iterations a block. Top-1 of the test images
stands beside, and the most memory that the process had.

brevitas: the same network, BatchNorm folded, and the same 1,024 images by qviz and by brevitas' ``gptq_mode``
and learned rounding, side by side at BITS (default 4,2), if brevitas and accelerate are installed. Weights of
both have a scale and an offset for each output channel, inputs one scale, the first and the last layer 8
bits, and all start at the least squared error. What differs: brevitas' offsets are whole numbers of steps,
its inputs are calibrated all at once, and not again behind layers that have been changed; it holds no image
out; its biases stay as they are unless ``bias_correction_mode`` follows. Its learned rounding takes ROUNDS
(1,000) steps of 32 images a layer, as its own example does but for the batch (1 there), the learning rate
(1e-3 there) and half precision.
"""

from __future__ import annotations

import io
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qviz.nn import calibrate, convert, evaluate
from qviz.nn.ptq import Options, fold_batchnorm, ptq
from qviz.nn.ptq.adaround import decide
from qviz.nn.ptq.learn import Task, learn
from qviz.nn.ptq.moments import Moments
from qviz.nn.ptq.settings import pair_of
from qviz.nn.ptq.undecided import Undecided
from qviz.nn.runs import PTQExperiment, prepare_ptq

STEPS, REPEAT = 100, 5
ROUNDING_LR = 1e-2
"""Of brevitas' learned rounding; see the first lines."""


def layer() -> tuple[nn.Conv2d, nn.Module, Tensor]:
    """Return a float layer, the same with 2-bit weights, and its input."""
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(256, 64, 8, 8).relu()
    quantized = deepcopy(plain)
    net = nn.Sequential(quantized)
    convert(net, pair=pair_of(2, 32, None), first_last="quantized", batch=x[:2])
    calibrate(net, x[:2], batchnorm=False)
    return plain, net[0].eval(), x


def adaround_steps() -> dict[str, float]:
    """Return milliseconds a step of both ways, medians."""
    plain, quantized, x = layer()
    with torch.no_grad():
        y = plain(x)
    rounded = quantized.weight.detach().clone()
    moments = Moments.of(quantized, [(x, y)])
    task = Task(quantized, plain, {quantized: plain.weight.detach()}, x, x, y)
    options = Options(iterations=STEPS, step_lr=0.0, windows=False)
    times: dict[str, list[float]] = {"Gram form": [], "loss over images": []}
    for turn in range(REPEAT + 1):
        begin = time.perf_counter()
        decide(Undecided(quantized.weight_quantizer, rounded), quantized, moments, STEPS, 0.1, 3.0, 0.2)
        middle = time.perf_counter()
        learn(task, options, torch.Generator().manual_seed(0))
        end = time.perf_counter()
        if turn:  # the first loads Adam
            times["Gram form"].append((middle - begin) / STEPS * 1e3)
            times["loss over images"].append((end - middle) / STEPS * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def network(method: str, bits: int, options: Options | None = None) -> str:
    """Quantize the shipped network; return seconds and top-1 in words."""
    ready = prepare_ptq(PTQExperiment(method=method, w_bits=bits))
    began = time.process_time()
    done = ptq(ready.model, ready.images, w_bits=bits, method=method, options=options, show=False)
    return _told(done.seconds, time.process_time() - began, evaluate(ready.model, ready.test)["top1"])


def _told(seconds: float, cpu: float, top1: float) -> str:
    return f"{seconds:5.0f} s ({cpu:.0f} CPU-seconds), top-1 {100 * top1:.2f} %"


def by_brevitas(bits: int) -> Iterator[tuple[str, str]]:
    """Quantize the shipped network by brevitas; yield each way with seconds and top-1 in words.

    Raises:
        ImportError: brevitas, or what its examples need, is not installed.
    """
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode

    ready = prepare_ptq(PTQExperiment(method="nearest", w_bits=bits))
    images = ready.images.split(128)

    def all_images(mode: Callable[..., Any], net: nn.Module) -> None:
        with torch.no_grad(), mode(net):
            for x in images:
                net(x)

    def done(name: str, net: nn.Module, spent: list[float]) -> tuple[str, str]:
        return name, _told(*spent, evaluate(net, ready.test)["top1"])

    for name, stage in (("nearest", None), ("gptq_mode", _gptq), ("learned rounding", _learned_round)):
        net, spent = deepcopy(ready.model), [0.0, 0.0]
        with _adding(spent):
            net = _layers_of_brevitas(fold_batchnorm(net, ready.images[:1]), bits)
            all_images(calibration_mode, net)
            with torch.no_grad():
                net(images[0])  # sets the scales of weights
            if stage is not None:
                stage(net, images)
        yield done(name, net, spent)
        with _adding(spent):
            all_images(bias_correction_mode, net)
        yield done(f"{name}, biases corrected", net, spent)


@contextmanager
def _adding(spent: list[float]) -> Iterator[None]:
    """Add what is taken here to the seconds, of the wall and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent[:] = spent[0] + time.perf_counter() - wall, spent[1] + time.process_time() - cpu


def _layers_of_brevitas(net: nn.Module, bits: int) -> nn.Module:
    """Return the network with brevitas' layers; the first one's input has a sign."""
    from brevitas.graph.quantize import layerwise_quantize
    from brevitas.nn import QuantConv2d, QuantLinear
    from brevitas.quant.scaled_int import Int8ActPerTensorFloatMSE, Uint8ActPerTensorFloatMSE
    from brevitas.quant.shifted_scaled_int import ShiftedUint8WeightPerChannelFloatMSE

    names = [name for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for chosen, width, act in (
        (names[:1], 8, Int8ActPerTensorFloatMSE),
        (names[1:-1], bits, Uint8ActPerTensorFloatMSE),
        (names[-1:], 8, Uint8ActPerTensorFloatMSE),
    ):
        weight = ShiftedUint8WeightPerChannelFloatMSE.let(bit_width=width)
        how = {"weight_quant": weight, "input_quant": act.let(bit_width=width), "return_quant_tensor": False}
        layers = {nn.Conv2d: (QuantConv2d, how), nn.Linear: (QuantLinear, how)}
        others = [name for name in names if name not in chosen]
        net = layerwise_quantize(net, compute_layer_map=layers, name_blacklist=others)
    return net.eval()


def _gptq(net: nn.Module, images: tuple[Tensor, ...]) -> None:
    from brevitas.graph.gptq import gptq_mode

    with torch.no_grad(), gptq_mode(net, act_order=True, use_quant_activations=True) as gptq:
        for _ in range(gptq.num_layers):
            for x in images:
                gptq.model(x)
            gptq.update()


def _learned_round(net: nn.Module, images: tuple[Tensor, ...]) -> None:
    from brevitas_examples.common.learned_round import learned_round_args as args
    from brevitas_examples.common.learned_round.learned_round_method import LearnedRoundArgs
    from brevitas_examples.common.learned_round.learned_round_trainer import LearnedRoundTrainer, get_blocks
    from brevitas_examples.imagenet_classification.ptq import learned_round_utils as vision

    rounds = int(os.environ.get("ROUNDS", "1000"))
    training = args.TrainingArgs(
        optimizers_args=[args.OptimizerArgs("learned_round", "Adam", ROUNDING_LR)],
        batch_size=32,
        iters=rounds,
        losses_args=[
            args.LossArgs("round_reg", {"max_count": rounds}),
            args.LossArgs("mse", {"reduction": "none", "dim": 1}),
        ],
        use_best_model=False,
        use_amp=False,
    )
    rounding = args.HandlerSpec("learned_round", LearnedRoundArgs("hard_sigmoid"))
    with redirect_stdout(io.StringIO()) as told, redirect_stderr(told):
        LearnedRoundTrainer(args.TrainerConfig(training, [rounding])).train(
            model=net,
            model_forward=vision.vision_forward,
            block_forward=vision.vision_block_forward,
            data_loader=[(x, None) for x in images],
            cache=vision.CacheVision(),
            get_blocks_fn=partial(get_blocks, block_check_fn=vision.is_layer),
        )


def beside_brevitas() -> None:
    """Print both, or why they cannot be compared."""
    for bits in map(int, os.environ.get("BITS", "4,2").split(",")):
        try:
            for name, told in by_brevitas(bits):
                print(f"W{bits}A{bits} brevitas {name:34}{told}", flush=True)
        except ImportError as missing:
            print(f"brevitas is left out: {missing}; pip install brevitas accelerate")
            return
        for method in ("nearest", "closed-form", "adaround"):
            print(f"W{bits}A{bits} qviz     {method:34}{network(method, bits)}", flush=True)


def main() -> None:
    """Print the figures of the parts that are asked for."""
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    parts = sys.argv[1:] or ["layer", "networks", "brevitas"]
    if "layer" in parts:
        found = adaround_steps()
        ratio = found["loss over images"] / found["Gram form"]
        print("  ".join(f"{name} {ms:.2f} ms a step" for name, ms in found.items()), f" {ratio:.1f} ×")
    if "networks" in parts:
        learning = Options(iterations=int(os.environ.get("ITERATIONS", "2000")), drop=0.5)
        for method, bits, options in (("closed-form", 2, None), ("qdrop", 4, learning)):
            print(f"ResNet-20 {method} W{bits}A{bits}: {network(method, bits, options)}", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"at most {peak:.2f} GiB resident, test images included")
    if "brevitas" in parts:
        beside_brevitas()


if __name__ == "__main__":
    main()
