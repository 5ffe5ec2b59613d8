"""What the tests of training share: a set of images that can be learned, small nets, comparisons."""

import torch
from torch import nn

from qviz import recipes
from qviz.nn.layers import QuantConv2d, QuantLinear
from qviz.nn.train import TrainConfig

CLASSES = 6


class Blobs:
    """Noise with a class-dependent pattern; the order of a training epoch depends on (seed, epoch) alone."""

    num_classes = CLASSES

    def __init__(self, count=96, batch_size=16, *, train=True, seed=0):
        draw = torch.Generator().manual_seed(seed)
        pattern = torch.randn(CLASSES, 3, 6, 6, generator=torch.Generator().manual_seed(99))
        self.y = torch.arange(count) % CLASSES
        self.x = torch.randn(count, 3, 6, 6, generator=draw) + pattern[self.y]
        self.batch_size, self.train, self.seed = batch_size, train, seed
        self.samples = len(self) * batch_size if train else count

    def __len__(self):
        return len(self.y) // self.batch_size if self.train else -(-len(self.y) // self.batch_size)

    def batches(self, epoch, *, start=0, rank=0, world=1, device=None):
        draw = torch.Generator().manual_seed(1000 * self.seed + epoch)
        order = torch.randperm(len(self.y), generator=draw) if self.train else torch.arange(len(self.y))
        for step in range(start, len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size][rank::world]
            yield self.x[rows].to(device), self.y[rows].to(device)


def quantized(seed=1, *, norm=True, dropout=0.2, observe=True):
    """A net with LSQ, an EMA codebook, a learned clip per channel, BatchNorm and dropout."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        QuantConv2d(
            8,
            8,
            3,
            padding=1,
            weight_quantizer=recipes.adq_weight(3) if norm else recipes.lsq(3, channels=8),
            input_quantizer=recipes.lsq(3, signed=False),
        ),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        QuantLinear(
            32,
            CLASSES,
            weight_quantizer=recipes.post_weight(4, channels=CLASSES) if norm else recipes.lsq(4),
            input_quantizer=recipes.lsq(4, signed=False),
        ),
    )
    if observe:
        with torch.no_grad():
            x = Blobs().x
            net[3].observe(net[:3](x))
            net[8].observe(net[:8](x))
    return net


def plain(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def config(**changes):
    return TrainConfig(**{"epochs": 3, "batch_size": 16, "lr": 0.05, "record_every": 2, **changes})


def assert_same_state(one, two):
    """Every tensor of two models' states is equal, bit for bit."""
    a, b = one.state_dict(), two.state_dict()
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, b[name]), name


def assert_same_history(one, two):
    """Two Histories are equal, except for the time that it took."""
    assert without_time(one) == without_time(two)


def without_time(history):
    series = {}
    for name in ("curve", "scalars", "vectors"):
        held = getattr(history, name)
        if held is not None:
            steps, values = held.arrays()
            series[name] = (held.describe(), steps.tolist(), values.tobytes())
    epochs = [{key: row[key] for key in row if key != "minutes"} for row in history.epochs]
    return series, epochs, history.best, history.meta, history.interrupted, history.finished
