import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qviz.nn.data import augment, photos
from qviz.nn.data.augment import Crops, crop_flip, draw_crops, generator, normalize, seeded
from qviz.nn.data.loader import Steps, balanced


def one_by_one(x, crops, padding):
    """The same crops, an image at a time."""
    images = []
    for image, top, left, flip in zip(x.numpy(), *(v.tolist() for v in crops), strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        cut = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        images.append(cut[:, :, ::-1] if flip else cut)
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0),
)
def test_crops_are_what_a_loop_cuts(layout, count, channels, height, width, padding, seed):
    source = generator(seed)
    x = torch.randn(count, channels, height, width, generator=source)
    crops = draw_crops(count, source, padding)
    before = x.clone()
    out = crop_flip(x.contiguous(memory_format=layout), crops, padding)
    assert torch.equal(out, one_by_one(x, crops, padding))
    assert torch.equal(x, before)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_middle_crop_is_the_image():
    x = torch.randn(3, 3, 32, 32)
    four = torch.full((3,), 4)
    assert torch.equal(crop_flip(x, Crops(four, four, torch.tensor([False] * 3))), x)
    assert torch.equal(crop_flip(x, Crops(four, four, torch.tensor([True] * 3))), x.flip(3))


def test_crops_are_uniform_over_all_places():
    crops = draw_crops(81 * 400, generator(7))
    counts = torch.bincount(crops.top * 9 + crops.left, minlength=81)
    assert len(counts) == 81
    chi2 = ((counts - 400.0) ** 2 / 400).sum()
    assert chi2 < 133, "80 degrees of freedom: exceeded once in 5,000 draws"
    assert abs(crops.flip.float().mean() - 0.5) < 0.01


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalize_is_the_formula(layout):
    x = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8).contiguous(memory_format=layout)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    wanted = (x.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    out = normalize(x, mean, std)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, wanted.float(), rtol=1e-6, atol=1e-6)


def test_empty_batches_pass():
    x = normalize(torch.empty(0, 3, 8, 8, dtype=torch.uint8), augment.CIFAR10_MEAN, augment.CIFAR10_STD)
    assert crop_flip(x, draw_crops(0, generator(0))).shape == (0, 3, 8, 8)


def test_generators_differ_by_every_part_and_by_their_order():
    parts = [(), (0,), (1,), (0, 1), (1, 0), (0, 0), (0, 0, 1), (2**40,)]
    drawn = {float(torch.rand((), generator=generator(*p), dtype=torch.float64)) for p in parts[1:]}
    assert len(drawn) == len(parts) - 1


def draw_everything():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_seeded_repeats_and_leaves_no_trace():
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    wanted = draw_everything()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    with seeded(1, 2):
        first = draw_everything()
    with seeded(1, 2):
        assert draw_everything() == first
    with pytest.raises(ZeroDivisionError), seeded(1, 2):
        draw_everything()[0][0] / 0
    with seeded(1, 3):
        assert draw_everything() != first
    assert draw_everything() == wanted


# Photos


def picture(width, height):
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_rectangles_fit_and_keep_the_ratio(width, height, seed):
    left, top, w, h = photos._rectangle(width, height, generator(seed))
    assert 0 <= left <= width - w
    assert 0 <= top <= height - h
    assert w >= 1
    assert h >= 1
    if min(w, h) > 20:
        assert 0.72 < w / h < 1.39
        if max(width, height) / min(width, height) < 4 / 3:
            assert 0.075 * width * height < w * h <= width * height


def test_rectangles_spread_over_the_image_and_over_sizes():
    source = generator(3)
    drawn = np.array([photos._rectangle(450, 450, source) for _ in range(4000)])
    area = drawn[:, 2] * drawn[:, 3] / 450**2
    assert area.min() < 0.09
    assert area.max() > 0.95
    assert 0.40 < np.median(area) < 0.52
    assert abs(np.log(drawn[:, 2] / drawn[:, 3]).mean()) < 0.02
    middle = drawn[:, :2] + drawn[:, 2:] / 2
    np.testing.assert_allclose(middle.mean(0), [225, 225], rtol=0.03)
    assert drawn[:, 0].min() == 0
    assert (drawn[:, 0] + drawn[:, 2]).max() == 450


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (40, 900), (224, 224), (30, 31)])
@pytest.mark.parametrize("side", [224, 32])
def test_crops_of_photos_have_their_size(size, side):
    for crop in (
        photos.center_crop(picture(*size), side),
        photos.random_resized_crop(picture(*size), side, generator(0)),
    ):
        assert photos.to_bytes(crop).shape == (3, side, side)
        assert photos.to_bytes(crop).dtype == torch.uint8


def test_the_centre_is_the_centre():
    """A 256-pixel image is not resized, and its central 224 rows are 16 … 239."""
    pixels = photos.to_bytes(photos.center_crop(picture(256, 256), 224))
    assert torch.equal(pixels[0, :, 0], torch.arange(16, 240, dtype=torch.uint8))
    assert torch.equal(pixels[1, 0], torch.arange(16, 240, dtype=torch.uint8))
    wide = photos.to_bytes(photos.center_crop(picture(512, 256), 224))
    assert wide[1, 0, 0] == 144


def test_half_of_the_random_crops_are_mirrored():
    columns = [
        photos.to_bytes(photos.random_resized_crop(picture(200, 200), 16, generator(i)))[1, 0]
        for i in range(400)
    ]
    mirrored = sum(int(c[0]) > int(c[-1]) for c in columns)
    assert 160 < mirrored < 240


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpeg" if mode == "CMYK" else "a.png")
    image = Image.new("I;16", (9, 7)) if mode == "I;16" else picture(9, 7).convert(mode)
    image.save(path)
    assert photos.decode(path).mode == "RGB"
    assert photos.photo(path, 32).shape == (3, 32, 32)


def test_photo_is_normalized_with_imagenets_numbers(tmp_path):
    Image.new("RGB", (50, 60), (255, 0, 51)).save(tmp_path / "a.png")
    out = photos.photo(tmp_path / "a.png", 8)
    wanted = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(out, torch.tensor(wanted)[:, None, None].expand(3, 8, 8))


# Orders


def test_balanced_takes_turns():
    labels = torch.tensor([2, 0, 0, 1, 0, 1, 2, 0])
    assert balanced(labels, None).tolist() == list(range(8))
    assert balanced(labels, 3).tolist() == [0, 1, 3]
    assert balanced(labels, 6).tolist() == [0, 1, 2, 3, 5, 6]
    assert balanced(labels, 8).tolist() == list(range(8))
    many = torch.arange(1000).remainder(10).flip(0)
    assert many[balanced(many, 25)].bincount().tolist() == [3] * 5 + [2] * 5
    for wrong in (0, 9, -1):
        with pytest.raises(ValueError, match=rf"1\.\.8, got {wrong}"):
            balanced(labels, wrong)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0))
def test_balanced_subsets_are_nested_and_even(labels, number):
    labels = torch.tensor(labels)
    limit = number % len(labels) + 1
    rows = balanced(labels, limit)
    assert len(rows) == limit
    assert (rows.diff() > 0).all()
    assert set(rows.tolist()) <= set(balanced(labels, min(limit + 1, len(labels))).tolist())
    counts, most = labels[rows].bincount(minlength=5), labels.bincount(minlength=5)
    for a in range(5):
        assert counts[a] >= min(int(most[a]), int(counts.max()) - 1)


def test_steps_of_training_and_of_evaluation():
    train, rest = Steps(10, 4, True, 0), Steps(10, 4, False, 0)
    assert (train.steps, train.samples, rest.steps, rest.samples) == (2, 8, 3, 10)
    assert [len(rows) for rows in train.rows(0)] == [4, 4]
    assert torch.cat(rest.rows(5)).tolist() == list(range(10))
    order = torch.cat(train.rows(1)).tolist()
    assert len(set(order)) == 8
    assert order == torch.cat(train.rows(1)).tolist()
    assert order != torch.cat(train.rows(2)).tolist()
    assert order != torch.cat(Steps(10, 4, True, 1).rows(1)).tolist()


@pytest.mark.parametrize(("count", "size", "train"), [(3, 4, True), (0, 4, False), (8, 0, True)])
def test_sets_smaller_than_a_batch_are_refused(count, size, train):
    with pytest.raises(ValueError, match="batch_size"):
        Steps(count, size, train, 0)
    with pytest.raises(ValueError, match="seed"):
        Steps(8, 2, True, -1)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ((-1, 0, 0, 1), "epoch must be at least 0"),
        ((0, 3, 0, 1), r"start in 0\.\.2, got 0 and 3"),
        ((0, 0, 2, 2), "got 2 of 2"),
        ((0, 0, 0, 0), "got 0 of 0"),
        ((0, 0, 0, 3), "batch_size 4 cannot be shared evenly by 3"),
    ],
)
def test_requests_that_no_epoch_has(request_, words):
    with pytest.raises(ValueError, match=words):
        Steps(10, 4, True, 0).check(*request_)
    Steps(10, 4, False, 0).check(0, 3, 2, 3)
