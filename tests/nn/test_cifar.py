import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qviz.nn.data import CifarLoader, Loader, augment, cifar, cifar10
from qviz.nn.data.augment import CROP, crop_flip, draw_crops, generator, normalize
from qviz.shipped import cifar10_sample
from tests.nn.real import CIFAR, needs_cifar
from tests.nn.serve import serving
from tests.slow import slow


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine that has no data yet."""
    monkeypatch.setenv("QVIZ_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def sample():
    return cifar10("train", source="sample")


def records(seed, count=30):
    rng = np.random.RandomState(seed)
    out = rng.randint(0, 256, (count, 3073)).astype(np.uint8)
    out[:, 0] = np.arange(count) % 10
    return out.tobytes()


def archive(files, folder=cifar.FOLDER, extra=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member in extra:
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def official(monkeypatch):
    """A small archive that is the official one while a test runs: its files, and its bytes."""
    files = {name: records(i) for i, name in enumerate(cifar.FILES)}
    content = archive({"readme.html": b"hello", **files, "batches.meta.txt": b"cat\n"})
    monkeypatch.setattr(cifar, "FILES", {name: hashlib.sha256(b).hexdigest() for name, b in files.items()})
    monkeypatch.setattr(cifar, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return files, content


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file())


# The set


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("split", "count"), [("train", 1800), ("val", 200), ("train+val", 2000), ("test", 2000)]
)
def test_without_data_the_sample_comes(split, count):
    data = cifar10(split)
    assert (data.source, data.split, len(data), len(data.classes)) == ("sample", split, count, 10)
    assert data.images.shape == (count, 3, 32, 32)
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous(memory_format=torch.channels_last)
    assert data.labels.dtype == torch.int64
    assert data.labels.bincount().tolist() == [count // 10] * 10


def test_the_samples_splits_are_its_images():
    images, labels = cifar10_sample("train")
    train, val = cifar10("train", source="sample"), cifar10("val", source="sample")
    assert torch.equal(torch.cat([train.images, val.images]), images)
    assert torch.equal(torch.cat([train.labels, val.labels]), labels)
    assert torch.equal(cifar10("test", source="sample").images, cifar10_sample("test")[0])


def test_a_wrong_split_or_source_is_named(tmp_path):
    with pytest.raises(ValueError, match="'valid'; choose one of train, val, train\\+val, test"):
        cifar10("valid")
    with pytest.raises(ValueError, match="'both'; choose None or one of full, sample"):
        cifar10(source="both")
    with pytest.raises(ValueError, match="goes without root and download"):
        cifar10(source="sample", root=tmp_path)


def test_what_was_asked_for_and_is_not_there_is_named(bare):
    with pytest.raises(FileNotFoundError, match="download=True"):
        cifar10(source="full")
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin"):
        cifar10(root=bare / "elsewhere")
    (bare / cifar.FOLDER).mkdir()
    (bare / cifar.FOLDER / "test_batch.bin").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"no data_batch_1.bin, .*, data_batch_5.bin"):
        cifar10("test")


def test_a_file_with_another_hash_is_refused(bare, official):
    files, _ = official
    (bare / cifar.FOLDER).mkdir()
    for name, content in files.items():
        (bare / cifar.FOLDER / name).write_bytes(content)
    assert cifar10("test").source == "full"
    path = bare / cifar.FOLDER / "test_batch.bin"
    path.write_bytes(files["test_batch.bin"][:-1] + b"\x00\x00")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"{found}, the official file {cifar.FILES['test_batch.bin']}"):
        cifar10("test")


def test_download(bare, official, monkeypatch):
    files, content = official
    with serving(content, name="cifar-10-binary.tar.gz") as site:
        monkeypatch.setattr(cifar, "URL", site.url)
        data = cifar10("test", download=True)
        again = cifar10("test", download=True, root=bare / cifar.FOLDER)
    assert site.asked == [None]
    assert data.source == again.source == "full"
    wanted = np.frombuffer(files["test_batch.bin"], np.uint8).reshape(-1, 3073)
    assert torch.equal(data.labels, torch.from_numpy(wanted[:, 0].astype(np.int64)))
    assert np.array_equal(data.images.numpy().reshape(-1, 3072), wanted[:, 1:])
    assert everything(bare) == sorted(f"{cifar.FOLDER}/{name}" for name in files)
    assert len(cifar10("train+val")) == 150
    assert os.name == "nt" or (bare / cifar.FOLDER).stat().st_mode & 0o777 == 0o755


def test_a_download_completes_a_part(bare, official, monkeypatch):
    files, content = official
    (bare / cifar.FOLDER).mkdir()
    (bare / cifar.FOLDER / "data_batch_2.bin").write_bytes(files["data_batch_2.bin"])
    (bare / cifar.FOLDER / "notes.txt").write_text("mine")
    with serving(content, name="c.tar.gz") as site:
        monkeypatch.setattr(cifar, "URL", site.url)
        cifar10("test", download=True)
    assert everything(bare) == sorted(f"{cifar.FOLDER}/{name}" for name in [*files, "notes.txt"])


def test_a_wrong_archive_leaves_nothing(bare, official, monkeypatch):
    _, content = official
    with serving(content + b"x", name="c.tar.gz") as site:
        monkeypatch.setattr(cifar, "URL", site.url)
        with pytest.raises(ValueError, match=f"expected {cifar.ARCHIVE_SHA256}"):
            cifar10("test", download=True)
    assert everything(bare) == []


@pytest.mark.slow
def test_two_processes_download_once(bare, official):
    _, content = official
    code = """
import json, sys
from qviz.nn.data import cifar
cifar.URL, cifar.ARCHIVE_SHA256, files = sys.argv[1:]
cifar.FILES.clear(); cifar.FILES.update(json.loads(files))
assert len(cifar.cifar10("test", download=True)) == 30
"""
    with serving(content, name="c.tar.gz") as site:
        command = [sys.executable, "-c", code, site.url, cifar.ARCHIVE_SHA256, json.dumps(cifar.FILES)]
        running = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
        assert [process.wait(60) for process in running] == [0, 0]
    assert site.asked == [None]


@pytest.mark.parametrize("fault", ["missing", "changed", "link", "outside"])
def test_a_strange_archive_is_not_extracted(tmp_path, official, fault):
    files, _ = official
    extra = []
    if fault == "missing":
        del files["data_batch_3.bin"]
    elif fault == "changed":
        files["data_batch_3.bin"] = records(99)
    elif fault == "link":
        del files["data_batch_3.bin"]
        extra = [tarfile.TarInfo(f"{cifar.FOLDER}/data_batch_3.bin")]
        extra[0].type, extra[0].linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        (tmp_path / "secret").write_bytes(records(2))
    folder = "../up" if fault == "outside" else cifar.FOLDER
    (tmp_path / "a.tar.gz").write_bytes(archive(files, folder, extra))
    (tmp_path / "home").mkdir()
    with pytest.raises(ValueError, match=r"(data_batch_3|data_batch_1)\.bin.*; nothing was extracted"):
        cifar.extract(tmp_path / "a.tar.gz", tmp_path / "home" / cifar.FOLDER)
    assert everything(tmp_path / "home") == []
    assert not (tmp_path / "up").exists()


@needs_cifar
@pytest.mark.slow
def test_the_full_set():
    train, val = (cifar10(split, root=CIFAR.parent) for split in ("train", "val"))
    whole, test = (cifar10(split, root=CIFAR.parent) for split in ("train+val", "test"))
    assert [len(d) for d in (train, val, whole, test)] == [45_000, 5_000, 50_000, 10_000]
    assert {d.source for d in (train, val, whole, test)} == {"full"}
    for data in (train, val, whole, test):
        assert data.labels.bincount().tolist() == [len(data) // 10] * 10
    parts = [part.permute(1, 0, 2, 3).reshape(3, -1).float() / 255 for part in whole.images.split(5000)]
    mean, square = (torch.stack([(p**k).mean(1, dtype=torch.float64) for p in parts]).mean(0) for k in (1, 2))
    std = (square - mean**2).sqrt()
    torch.testing.assert_close(mean, torch.tensor(augment.CIFAR10_MEAN).double(), rtol=0, atol=5e-5)
    torch.testing.assert_close(std, torch.tensor(augment.CIFAR10_STD).double(), rtol=0, atol=5e-5)


@needs_cifar
def test_what_the_sample_holds_out_is_held_out_of_the_full_set():
    def keys(data):
        return {image.tobytes() for image in data.images.numpy()}

    val, train = (keys(cifar10(split, root=CIFAR.parent)) for split in ("val", "train"))
    assert keys(cifar10("val", source="sample")) <= val
    assert keys(cifar10("train", source="sample")) <= train
    assert len(val) + len(train) > 49_900
    assert not val & train


@needs_cifar
def test_the_held_out_images_never_change():
    labels = np.concatenate(
        [np.fromfile(CIFAR / f"data_batch_{i}.bin", np.uint8).reshape(-1, 3073)[:, 0] for i in range(1, 6)]
    )
    held = np.flatnonzero(cifar.held_out(labels)).astype("<i4")
    assert (
        hashlib.sha256(held.tobytes()).hexdigest()
        == "16237b92627e8182ab7d6717b40ff25eb7fe92055ab0f3b6dc3e4a5e0e5b35a2"
    )


# The loader


def pairs(iterator):
    return [(x.clone(), y.clone()) for x, y in iterator]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, second, strict=True)
    )


def noisy(x):
    """A transform that draws from everybody's generators."""
    return x + torch.rand(len(x), 1, 1, 1) + np.random.rand() + random.random()


def pil(image):
    assert image.size == (32, 32)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() + torch.rand(3, 1, 1) + random.random()


KINDS = [{}, {"transform": noisy}, {"transform": pil, "per_image": True}, {"limit": 500}, {"augment": False}]


def test_what_a_batch_is(sample):
    loader = CifarLoader(sample, 128, seed=3)
    assert isinstance(loader, Loader)
    assert (len(loader), loader.samples, loader.batch_size, loader.num_classes) == (14, 1792, 128, 10)
    batches = pairs(loader.batches(2))
    assert len(batches) == 14
    x, y = batches[5]
    assert x.shape == (128, 3, 32, 32)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    rows = loader._steps.rows(2)[5]
    plain = normalize(sample.images[rows], augment.CIFAR10_MEAN, augment.CIFAR10_STD)
    assert torch.equal(x, crop_flip(plain, draw_crops(128, generator(3, CROP, 2, 5))))
    assert torch.equal(y, sample.labels[rows])


def test_an_epoch_shows_every_image_once_in_a_new_order(sample):
    loader = CifarLoader(sample, 100, augment=False)
    first, second = (torch.cat([x for x, _ in loader.batches(e)]) for e in (0, 1))
    assert not torch.equal(first, second)
    as_set = [sorted(hash(image.numpy().tobytes()) for image in images) for images in (first, second)]
    assert as_set[0] == as_set[1]
    assert len(set(as_set[0])) == 1800


def test_evaluation_is_the_set_in_its_order():
    data = cifar10("val", source="sample")
    loader = CifarLoader(data, 64)
    assert (len(loader), loader.samples) == (4, 200)
    batches = pairs(loader.batches(0))
    assert [len(y) for _, y in batches] == [64, 64, 64, 8]
    assert same(batches, pairs(loader.batches(7)))
    assert torch.equal(torch.cat([y for _, y in batches]), data.labels)
    x = torch.cat([x for x, _ in batches])
    mean, std = (torch.tensor(v)[:, None, None] for v in (augment.CIFAR10_MEAN, augment.CIFAR10_STD))
    torch.testing.assert_close(x, (data.images / 255 - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_does_not_depend_on_what_ran_before(sample, kind):
    loader = CifarLoader(sample, 250 if "limit" in kind else 600, seed=1, **kind)
    whole = pairs(loader.batches(1))
    torch.rand(3), np.random.rand(3), random.random()
    next(loader.batches(4))
    for start in range(len(loader) + 1):
        assert same(pairs(loader.batches(1, start=start)), whole[start:])
    assert same(pairs(CifarLoader(sample, loader.batch_size, seed=1, **kind).batches(1)), whole)
    assert not same(pairs(CifarLoader(sample, loader.batch_size, seed=2, **kind).batches(1)), whole)
    one, two = loader.batches(1), loader.batches(1)
    interleaved = [(next(one), next(two)) for _ in range(len(loader))]
    assert same([a for a, _ in interleaved], whole)


@pytest.mark.slow
def test_every_image_has_its_own_randomness(sample):
    loader = CifarLoader(sample, 900, transform=lambda image: torch.rand(1, 1, 1), per_image=True)
    drawn = torch.cat([x for epoch in (0, 1) for x, _ in loader.batches(epoch)]).flatten()
    assert len(drawn.unique()) > 3590, "float32 has 2^24 such numbers: a few may coincide"
    for kind in KINDS[1:3]:
        still = CifarLoader(sample, 900, train=False, **kind)
        assert same(pairs(still.batches(0)), pairs(still.batches(1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [*slow(2), 5])
def test_the_ranks_together_have_the_batch(sample, kind, world):
    loader = CifarLoader(sample, 250, **kind)
    shares = [pairs(loader.batches(3, rank=rank, world=world)) for rank in range(world)]
    for step, (x, y) in enumerate(pairs(loader.batches(3))):
        for rank in range(world):
            assert torch.equal(shares[rank][step][0], x[rank::world])
            assert torch.equal(shares[rank][step][1], y[rank::world])


def test_in_evaluation_a_rank_may_be_left_with_nothing():
    loader = CifarLoader(cifar10("val", source="sample"), 199)
    shares = [pairs(loader.batches(0, rank=rank, world=3)) for rank in range(3)]
    assert [[len(y) for _, y in share] for share in shares] == [[67, 1], [66, 0], [66, 0]]
    assert shares[1][1][0].shape == (0, 3, 32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_global_generators_are_left_alone(sample, kind):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    wanted = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    next(CifarLoader(sample, 100, **kind).batches(0))
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted


def test_the_data_are_not_changed(sample):
    before = sample.images.clone(), sample.labels.clone()
    for x, y in CifarLoader(sample, 900, transform=lambda x: x.mul_(2)).batches(0):
        x.zero_(), y.zero_()
    for x, y in CifarLoader(sample, 900, train=False).batches(0):
        x.zero_(), y.zero_()
    assert torch.equal(sample.images, before[0])
    assert torch.equal(sample.labels, before[1])


def test_limits_are_balanced_and_nested(sample):
    for limit in (10, 25, 1000):
        loader = CifarLoader(sample, 5, train=False, limit=limit)
        counts = torch.cat([y for _, y in loader.batches(0)]).bincount(minlength=10)
        assert counts.sum() == limit
        assert counts.max() - counts.min() <= 1


def test_a_transform_may_change_the_size(sample):
    loader = CifarLoader(sample, 300, transform=lambda x: x[:, :1, ::2, ::2])
    assert next(loader.batches(0))[0].shape == (300, 1, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"transform": lambda x: x[:5]},
            TypeError,
            "100 images as a float tensor, got torch.float32 of shape",
        ),
        ({"transform": lambda x: x.to(torch.uint8)}, TypeError, "got torch.uint8"),
        ({"transform": lambda x: None}, TypeError, "got NoneType"),
        ({"transform": lambda x: x, "per_image": True}, TypeError, "float tensor .C, H, W., got Image"),
        ({"per_image": True}, ValueError, "transform is None"),
        ({"per_image": True, "transform": pil, "augment": True}, ValueError, "leave augment out"),
        ({"limit": 5000}, ValueError, r"1\.\.1800, got 5000"),
        ({"limit": 50}, ValueError, "batch_size is 100, but there are only 50 images"),
        ({"seed": -1}, ValueError, "seed at least 0"),
    ],
)
def test_wrong_arguments_are_named(sample, arguments, error, words):
    with pytest.raises(error, match=words):
        next(CifarLoader(sample, 100, **arguments).batches(0))


def test_a_wrong_request_is_refused_at_once(sample):
    loader = CifarLoader(sample, 100)
    with pytest.raises(ValueError, match="shared evenly by 3"):
        loader.batches(0, world=3)
    with pytest.raises(ValueError, match=r"start in 0\.\.18"):
        loader.batches(0, start=19)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_the_same_batches(sample):
    loader = CifarLoader(sample, 256)
    for (x, y), (a, b) in zip(loader.batches(1), loader.batches(1, device="cuda"), strict=True):
        assert a.device.type == "cuda"
        assert torch.equal(a.cpu(), x)
        assert torch.equal(b.cpu(), y)
    drawing = CifarLoader(sample, 256, transform=lambda x: x + torch.rand_like(x))
    one, two = (next(drawing.batches(1, device="cuda"))[0] for _ in range(2))
    assert torch.equal(one, two)
