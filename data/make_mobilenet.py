"""Write a few trained layers of MobileNetV2, and samples of the activations that feed them.

    QVIZ_DATA=... python data/make_mobilenet.py

Reads, from ``$QVIZ_DATA`` (default ~/.cache/qviz), ``weights/mobilenet_v2-b0353104.pth``, the file that
torchvision publishes as MobileNet_V2_Weights.IMAGENET1K_V1, and ``imagenet-photos/imagenet_NN_LABEL.jpg``,
twenty labelled photos. The network is written out below, so that nothing but PyTorch is needed. Nothing is
written unless it names at least 18 of the 20 photos correctly, which shows that it is the network the weights
were trained in.

Batch normalisation is NOT folded into the weights that are written: they are the numbers in the file.

Needs torch, safetensors and Pillow.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
arXiv:1801.04381
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from card import HERE, record, sha256, source_dir
from PIL import Image
from safetensors.torch import save_file

State = dict[str, torch.Tensor]

CHECKPOINT = "mobilenet_v2-b0353104.pth"
STRIDE_TWO = {2, 4, 7, 14}  # the first block of each stage that halves the map; the stem does so too
RESIDUAL = {3, 5, 6, 8, 9, 10, 12, 13, 15, 16}  # blocks with stride 1 that keep the number of channels
SEED, LIMIT = 2018, 65536  # values per activation tensor

WEIGHTS = {  # name: (key in the file, rows kept or None for all, description)
    "stem": (
        "features.0.0.weight",
        None,
        "first 3x3 convolution, on RGB; heavy-tailed, five channels nearly zero",
    ),
    "depthwise_early": (
        "features.1.conv.0.0.weight",
        None,
        "depthwise 3x3 of block 1; the heaviest tails, and channel ranges that differ 741-fold",
    ),
    "depthwise_stride": (
        "features.14.conv.1.0.weight",
        None,
        "depthwise 3x3, stride 2, of block 14; flatter than a Gaussian, and nearly every kernel has one sign",
    ),
    "depthwise_late": (
        "features.17.conv.1.0.weight",
        None,
        "depthwise 3x3 of block 17; most channels narrow, a few several times as wide",
    ),
    "project_early": (
        "features.1.conv.1.weight",
        None,
        "projection of block 1, 32 to 16; heavy-tailed, few weights",
    ),
    "expand": ("features.12.conv.0.0.weight", None, "expansion of block 12, 96 to 576; near Gaussian"),
    "project": (
        "features.13.conv.2.weight",
        None,
        "projection of block 13, 576 to 96; near Gaussian, but for one channel three times as wide as most",
    ),
    "classifier": ("classifier.1.weight", 48, "the rows of ImageNet classes 0 to 47; light tails"),
}
ACTIVATIONS = {  # name: (key of the module that puts it out, description)
    "act_stem": ("features.0", "stem after ReLU6, feeds depthwise_early; a third are zeros, none reaches 6"),
    "act_depthwise": (
        "features.1.conv.0",
        "depthwise output of block 1 after ReLU6, feeds project_early; some values reach the cap of 6",
    ),
    "act_bottleneck": (
        "features.11",
        "linear bottleneck of block 11, feeds expand; signed, tails a little heavier than Gaussian",
    ),
    "act_outlier": (
        "features.16",
        "residual sum after block 16; signed, and two positions, corners of the map, dwarf all the others",
    ),
    "act_expand": (
        "features.17.conv.0",
        "expansion of block 17 after ReLU6, feeds depthwise_late; mostly zeros",
    ),
    "act_pooled": ("pool", "pooled features, one row per photo, feed classifier; >= 0, long-tailed"),
}


def load_checkpoint() -> State:
    """Return the published state dict, after a check of its sha256."""
    path = source_dir() / "weights" / CHECKPOINT
    if not path.exists():
        raise SystemExit(f"{CHECKPOINT} not found in the folder weights of QVIZ_DATA (see data/README.md)")
    if not (found := sha256(path)).startswith("b0353104"):
        raise SystemExit(f"{CHECKPOINT}: sha256 is {found}, it must start with b0353104; nothing written")
    return torch.load(path, map_location="cpu", weights_only=True)


def preprocess(path: Path) -> torch.Tensor:
    """Read a photo: shorter side 256, central 224 x 224, ImageNet mean and std; float32 (3, 224, 224)."""
    photo = Image.open(path).convert("RGB")
    ratio = 256 / min(photo.size)
    photo = photo.resize((round(photo.width * ratio), round(photo.height * ratio)), Image.Resampling.BILINEAR)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    photo = photo.crop((left, top, left + 224, top + 224))
    x = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def conv_bn(x: torch.Tensor, state: State, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
    """Convolve without bias, grouped as the kernel's shape says, then normalise by the running statistics."""
    weight = state[f"{conv}.weight"]
    y = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
    mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return F.batch_norm(y, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])


def forward(state: State, x: torch.Tensor) -> tuple[torch.Tensor, State]:
    """Run MobileNetV2 on x (N, 3, 224, 224): logits (N, 1000), and every module's output by its key."""
    taps: State = {}
    x = taps["features.0"] = F.relu6(conv_bn(x, state, "features.0.0", "features.0.1", stride=2))
    for block in range(1, 18):
        key = f"features.{block}.conv"
        y = x
        if block > 1:  # block 1 has no expansion, so its parts are numbered one lower
            y = taps[f"{key}.0"] = F.relu6(conv_bn(y, state, f"{key}.0.0", f"{key}.0.1"))
        part = 1 if block > 1 else 0
        stride = 2 if block in STRIDE_TWO else 1
        y = F.relu6(conv_bn(y, state, f"{key}.{part}.0", f"{key}.{part}.1", stride=stride))
        taps[f"{key}.{part}"] = y
        y = conv_bn(y, state, f"{key}.{part + 1}", f"{key}.{part + 2}")
        x = taps[f"features.{block}"] = x + y if block in RESIDUAL else y
    x = F.relu6(conv_bn(x, state, "features.18.0", "features.18.1"))
    x = taps["pool"] = x.mean(dim=(2, 3))
    return F.linear(x, state["classifier.1.weight"], state["classifier.1.bias"]), taps


def sample_positions(y: torch.Tensor, rng: np.random.RandomState) -> torch.Tensor:
    """Draw positions over all photos, in random order, with all channels: shape (positions, channels)."""
    channels = y.shape[1]
    rows = y.movedim(1, -1).reshape(-1, channels)
    order = rng.permutation(len(rows))[: LIMIT // channels]
    return rows[torch.from_numpy(order)].contiguous()


def write(kind: str, tensors: State, about: dict[str, dict[str, object]], made_from: str) -> None:
    """Write one safetensors file; its metadata is a single JSON string, so that its bytes can be repeated."""
    name = f"mobilenet_v2_{kind}.safetensors"
    save_file(tensors, HERE / name, metadata={"tensors": json.dumps(about)})
    (HERE / name).chmod(0o644)  # save_file leaves 0600, which an installed copy would inherit
    record(name, kind=kind, made_by="make_mobilenet.py", made_from=made_from)


def write_weights(state: State) -> None:
    """Write the chosen layers as they are in the checkpoint, float32, channel axis 0."""
    tensors, about = {}, {}
    for name, (key, rows, description) in WEIGHTS.items():
        tensors[name] = state[key][:rows].clone()
        source = key if rows is None else f"{key}[:{rows}]"
        about[name] = {"source": source, "channel_axis": 0, "description": description}
    write("weights", tensors, about, CHECKPOINT)


def write_activations(taps: State, made_from: str) -> None:
    """Write sampled activations as float16, channel axis 1, and print what the rounding to float16 costs."""
    rng = np.random.RandomState(SEED)  # the legacy generator: NumPy promises never to change its stream
    tensors, about = {}, {}
    for name, (key, description) in ACTIVATIONS.items():
        exact = sample_positions(taps[key], rng)
        tensors[name] = exact.half()
        noise = (exact - tensors[name].float()).double().square().sum()
        print(f"{name}: float16 keeps {10 * torch.log10(exact.double().square().sum() / noise):.1f} dB")
        about[name] = {"source": key, "channel_axis": 1, "description": description}
    write("activations", tensors, about, made_from)


def main() -> None:
    """Check the network on the photos, then write both files."""
    state = load_checkpoint()
    photos = sorted((source_dir() / "imagenet-photos").glob("imagenet_*_*.jpg"))
    if len(photos) != 20:
        raise SystemExit(f"found {len(photos)} photos in imagenet-photos of QVIZ_DATA, 20 are needed")
    labels = torch.tensor([int(path.stem.split("_")[2]) for path in photos])
    with torch.inference_mode():
        logits, taps = forward(state, torch.stack([preprocess(path) for path in photos]))
    correct = int((logits.argmax(1) == labels).sum())
    print(f"top-1 on the photos: {correct}/20")
    if correct < 18:
        raise SystemExit(f"only {correct} of 20 photos are named correctly, 18 are needed; nothing written")
    photos_hash = hashlib.sha256(b"".join(path.read_bytes() for path in photos)).hexdigest()
    write_weights(state)
    write_activations(taps, f"{CHECKPOINT}; 20 photos, sha256 of their bytes in order of name {photos_hash}")


if __name__ == "__main__":
    main()
