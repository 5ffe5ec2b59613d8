"""Quantize the shipped ResNet-20 in two ways, learn the borders of one layer, and record what judges them.

    python data/make_borders.py

Writes borders.safetensors, which the BorderExplorer reads. Some ten minutes on one core.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from card import HERE, record
from safetensors.torch import save_file
from torch import Tensor, nn

from qviz.explore import border_data as d
from qviz.explore import network
from qviz.nn.layers import QuantLayer
from qviz.nn.ptq import Block, Gate, Options, add_borders, ptq, reconstruct
from qviz.nn.ptq.inputs import collect
from qviz.nn.ptq.reconstruct import observe
from qviz.nn.ptq.room import choices

NETWORKS = {"nearest": "nearest", "least squares": "closed-form"}
BITS = (2, 3, 4)
FROM, SHOWN, OTHERS, STEPS, BIAS_LR = 128, 8, 256, 300, 1e-2


def learned(base: nn.Module, reference: nn.Module, border: bool, bias_lr: float) -> QuantLayer:
    """Return the layer with a border for each channel, learned biases, or both; weights and step stay."""
    net = copy.deepcopy(base)
    if border:
        layers = [name for name, module in net.named_modules() if isinstance(module, QuantLayer)]
        add_borders(net, skip=[name for name in layers if name != d.NAME])
    images, _ = network.sample("train")
    gate = Gate(net, reference, network.sample("test")[0][:SHOWN], strict=False)
    options = Options(iterations=STEPS, weights=False, step_lr=0.0, bias_lr=bias_lr)
    blocks = [Block(d.NAME, (d.NAME,))]
    reconstruct(net, images[:FROM], gate, blocks=blocks, options=options, show=False)
    return net.get_submodule(d.NAME)


def recording(name: str, bits: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the numbers of one network."""
    fit, test = network.sample("train")[0][:FROM], network.sample("test")[0][: SHOWN + OTHERS]
    base = copy.deepcopy(network.resnet20())
    report = ptq(base, fit, w_bits=bits, method=NETWORKS[name], show=False)
    reference, layer = report.reference, base.get_submodule(d.NAME)
    x_fit, _ = collect(base, fit, d.NAME)
    observe(layer, [layer], x_fit)
    q, twin = layer.input_quantizer, reference.get_submodule(d.NAME)
    ways = {d.LEARNED: (True, 0.0), d.BIAS: (False, BIAS_LR), d.BOTH: (True, BIAS_LR)}
    found = {way: learned(base, reference, *how) for way, how in ways.items()}
    x, u = (collect(net, test, d.NAME)[0].half() for net in (base, reference))
    tensors = {
        "w": twin.weight.detach(),
        "bias": twin.bias.detach(),
        "u": u[:SHOWN],
        f"{name}/{bits}/w_hat": layer.quantized_weight().detach(),
        f"{name}/{bits}/bias_hat": layer.bias.detach(),
        f"{name}/{bits}/x": x[:SHOWN],
        f"{name}/{bits}/border": found[d.LEARNED].input_quantizer.rounding.b.detach(),
        f"{name}/{bits}/with_bias": found[d.BOTH].input_quantizer.rounding.b.detach(),
        **{f"{name}/{bits}/{way}": found[way].bias.detach() for way in (d.BIAS, d.BOTH)},
    }
    about = {"network": name, "bits": bits, "step": q.range.scale.item()}

    def on(u: Tensor, x: Tensor) -> d.Layer:
        held = {key.split("/")[-1]: value for key, value in tensors.items()} | {
            "u": u.float(),
            "x": x.float(),
        }
        biases = {way: held.pop(way) for way in (d.BIAS, d.BOTH)}
        return d.Layer(**held, biases=biases, **about, learned_from={}, others={}, oracle=0.0)

    shown = on(u[:SHOWN], x[:SHOWN])
    quantized = shown.layer(shown.rounding(d.HALF))
    how = {"iterations": 100, "lr": 0.3, "regularizer": 1.0}
    chosen, flipped, free = choices(quantized, shown.x, shown.wanted, **how)
    out = quantized._product(chosen, shown.w_hat, shown.bias_hat)
    numbers = {**about, "oracle": float(d.loss(out, shown.wanted))}
    fitted = on(collect(reference, fit, d.NAME)[0], x_fit)
    for key, one in (("learned_from", fitted), ("others", on(u[SHOWN:], x[SHOWN:]))):
        numbers[key] = {way: error for way, error in one.known.items() if way != d.ORACLE}
    half = shown.known[d.HALF]
    shares = {
        way: round(error / half, 3) for way, error in {**shown.known, d.ORACLE: numbers["oracle"]}.items()
    }
    print(f"{name}, {bits} bits: {shares}, {flipped / free:.0%} not to the nearest", flush=True)
    return tensors, numbers


def main() -> None:
    """Record, write."""
    tensors, found = {}, []
    for name in NETWORKS:
        for bits in BITS:
            some, numbers = recording(name, bits)
            tensors |= {key: value.contiguous() for key, value in some.items()}
            found.append(numbers)
    save_file(tensors, HERE / d.FILE, metadata={"recordings": json.dumps(found)})
    made_from = f"{network.CHECKPOINT}, cifar10_sample_train.webp, cifar10_sample_test.webp"
    record(d.FILE, kind="recording", made_by="make_borders.py", made_from=made_from)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
