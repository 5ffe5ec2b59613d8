import pytest
import torch
from torch import nn

from qviz.nn import models
from qviz.nn.data import photo
from qviz.nn.weights import load_weights
from tests.nn.real import MOBILENET, PHOTOS, needs_mobilenet, needs_photos
from tests.slow import slow

IMAGE = {"resnet20": 32, "resnet18": 64, "resnet34": 64, "mobilenet_v2": 64}


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "layers"),
    [
        ("resnet20", 269_722, 116, 19),
        ("resnet18", 11_689_512, 122, 20),
        ("resnet34", 21_797_672, 218, 36),
        ("mobilenet_v2", 3_504_872, 314, 52),
    ],
)
def test_sizes_are_the_published_ones(name, parameters, tensors, layers):
    model = models.create(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert len(convolutions(model)) == layers
    assert model.training


@pytest.mark.parametrize("name", models.NAMES)
def test_every_size_of_output(name):
    model = models.create(name, num_classes=7).eval()
    for side in (IMAGE[name], IMAGE[name] + 5):
        assert model(torch.randn(2, 3, side, side)).shape == (2, 7)
    assert torch.equal(model(torch.empty(0, 3, 64, 64)), torch.empty(0, 7))


@pytest.mark.parametrize("name", models.NAMES)
def test_channels_last_goes_through_and_changes_nothing(name):
    torch.manual_seed(0)
    model = models.create(name).eval().double()
    x = torch.randn(2, 3, IMAGE[name], IMAGE[name], dtype=torch.float64)
    y = model(x)
    formats = []
    model = model.to(memory_format=torch.channels_last)
    for layer in convolutions(model):
        layer.register_forward_hook(
            lambda layer, args, out: formats.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), y)
    assert all(formats)
    assert len(formats) == len(convolutions(model))


@pytest.mark.parametrize("name", models.NAMES)
def test_no_layer_is_shared_and_none_writes_into_its_input(name):
    """Quantizers and hooks sit on single layers, and look at what came in after the layer has run."""
    model = models.create(name).eval()
    leaves = [m for m in model.modules() if not list(m.children())]
    calls, changed = dict.fromkeys(leaves, 0), []

    def before(layer, args):
        calls[layer] += 1
        layer.seen = args[0].clone()

    def after(layer, args, out):
        if not torch.equal(layer.seen, args[0]):
            changed.append(layer)

    for layer in leaves:
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
    model(torch.randn(1, 3, IMAGE[name], IMAGE[name]))
    assert set(calls.values()) == {1}
    assert changed == []


@pytest.mark.parametrize("name", ["resnet20", *slow(*(n for n in models.NAMES if n != "resnet20"))])
def test_gradients_reach_every_parameter_and_the_loss_starts_near_chance(name):
    torch.manual_seed(1)
    model = models.create(name)
    y = model(torch.randn(16, 3, IMAGE[name], IMAGE[name]))
    loss = nn.functional.cross_entropy(y, torch.arange(16) % 10)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert loss < 2 * torch.tensor(float(y.shape[1])).log()


def test_the_option_a_shortcut():
    """Every second pixel, zeros in the new channels; the residual branch is silenced."""
    block = models.resnet20().layer2[0].eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()
    same = models.resnet20().layer2[1].eval()
    nn.init.zeros_(same.bn2.weight)
    assert torch.equal(same(y), y)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "resnet18",
            ["conv1.weight", "bn1.running_var", "layer1.1.bn2.bias", "layer4.1.conv2.weight", "fc.bias"],
        ),
        (
            "resnet34",
            ["layer3.5.conv1.weight", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_mean"],
        ),
        ("mobilenet_v2", ["features.1.conv.1.weight", "features.17.conv.3.bias", "classifier.1.weight"]),
    ],
)
def test_keys_are_torchvisions(name, keys):
    assert set(keys) <= set(models.create(name).state_dict())


def test_downsample_is_where_shapes_change():
    for name in ("resnet18", "resnet34"):
        keys = [k for k in models.create(name).state_dict() if k.endswith("downsample.0.weight")]
        assert keys == [f"layer{i}.0.downsample.0.weight" for i in (2, 3, 4)]


def test_mobilenet_has_the_linear_bottleneck_and_its_residuals():
    blocks = [m for m in models.mobilenet_v2().modules() if isinstance(m, models.mobilenet.InvertedResidual)]
    assert [b.residual for b in blocks].count(True) == 10
    nn.init.zeros_(blocks[2].eval().conv[-1].weight)
    x = torch.randn(2, 24, 5, 5)
    assert torch.equal(blocks[2](x), x)
    assert all(isinstance(b.conv[-1], nn.BatchNorm2d) for b in blocks)
    assert [b.conv[-2].out_channels for b in blocks][::4] == [16, 32, 64, 96, 320]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (("resnet50", None), ValueError, "resnet50.*resnet20, resnet18, resnet34, mobilenet_v2"),
        (("resnet20", 0), ValueError, "at least 1, got 0"),
        (("resnet20", 2.5), TypeError, "whole number, got 2.5"),
        (("resnet20", True), TypeError, "whole number, got True"),
    ],
)
def test_wrong_requests_are_named(wrong, error, words):
    name, classes = wrong
    with pytest.raises(error, match=words):
        models.create(name, num_classes=classes)


@needs_mobilenet
def test_the_published_mobilenet_fits_strictly():
    state = torch.load(MOBILENET, weights_only=True)
    own = models.mobilenet_v2().state_dict()
    assert list(state) == list(own)
    assert [v.shape for v in state.values()] == [v.shape for v in own.values()]
    models.mobilenet_v2().load_state_dict(state, strict=True)


@needs_mobilenet
@needs_photos
def test_the_published_mobilenet_names_the_photos():
    model = load_weights(models.mobilenet_v2(), MOBILENET, sha256="b0353104").eval()
    x = torch.stack([photo(path) for path in PHOTOS])
    y = torch.tensor([int(path.stem.rsplit("_", 1)[1]) for path in PHOTOS])
    with torch.no_grad():
        best = model(x).topk(5).indices
    assert (best[:, 0] == y).sum() >= 18
    assert (best == y[:, None]).any(1).sum() == 20
