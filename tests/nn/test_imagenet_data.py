import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qviz.nn.data import ImageLoader, Loader, Undecodable, augment, imagenet, imagenet_like, photos
from qviz.nn.data.augment import CROP, generator, normalize
from qviz.shipped import cifar10_sample
from tests.nn.real import PHOTOS, needs_photos
from tests.slow import slow

CLASSES = tuple(f"n{i:08d}" for i in range(10))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return imagenet_like(tmp_path_factory.mktemp("tree") / "like", per_class=8, val_per_class=3, size=40)


@pytest.fixture
def own(tmp_path):
    """A tree of a test's own, with 3 classes of 4 images."""
    for label in range(3):
        for number in range(4):
            path = tmp_path / "train" / f"n{label}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), (80 * label, 60 * number, 0)).save(path)
    return tmp_path


def truncate(path):
    """Leave the first half of a photo: the header is whole, rows are missing."""
    noise = np.random.RandomState(0).randint(0, 256, (90, 90, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pairs(iterator):
    return [(x.clone(), y.clone()) for x, y in iterator]


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, second, strict=True)
    )


# The folder


def test_the_tree_is_read_in_order(tree):
    train, val = imagenet("train", root=tree), imagenet("val", root=tree)
    assert train.classes == val.classes == CLASSES
    assert (len(train), len(val)) == (80, 30)
    assert train.labels.bincount().tolist() == [8] * 10
    assert train.path(0) == tree / "train" / "n00000000" / "n00000000_0.JPEG"
    assert [train.path(i) for i in range(80)] == sorted(train.path(i) for i in range(80))
    assert all(CLASSES.index(train.path(i).parent.name) == train.labels[i] for i in range(80))


@pytest.mark.parametrize(("split", "origin"), [("train", "train"), ("val", "test")])
def test_the_tree_holds_the_samples_images(tree, split, origin):
    images, labels = cifar10_sample(origin)
    for label in (0, 9):
        with Image.open(tree / split / CLASSES[label] / f"{CLASSES[label]}_1.JPEG") as image:
            assert (image.format, image.size) == ("JPEG", (40, 40))
            small = np.asarray(image.resize((32, 32)), np.float32)
        wanted = images[labels == label][1].permute(1, 2, 0).numpy()
        assert np.abs(small - wanted).mean() < 12


def test_a_tree_is_made_once(tree, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert imagenet_like(tree, per_class=8, val_per_class=3, size=40) == tree
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before
    with pytest.raises(ValueError, match=r"exists and was not made with .*'per_class': 9"):
        imagenet_like(tree, per_class=9, val_per_class=3, size=40)
    with pytest.raises(ValueError, match="name a new folder"):
        imagenet_like(tmp_path)
    for wrong in ({"per_class": 0}, {"val_per_class": 201}, {"size": 31}):
        with pytest.raises(ValueError, match="must be in"):
            imagenet_like(tmp_path / "b", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match="No space left"):
        imagenet_like(tmp_path / "like", per_class=1)
    assert list(tmp_path.iterdir()) == []


def test_suffixes_and_what_is_passed_over(own):
    folder = own / "train" / "n0"
    (folder / "9.JPEG").write_bytes((folder / "0.JPEG").read_bytes())
    for name in ("a.jpg", "b.PNG", "c.jpeg", ".hidden.jpg", "notes.txt"):
        (folder / name).write_bytes(b"")
    (own / "train" / ".cache").mkdir()
    (own / "train" / "list.txt").write_text("")
    data = imagenet("train", root=own)
    assert data.classes == ("n0", "n1", "n2")
    names = ["0.JPEG", "1.JPEG", "2.JPEG", "3.JPEG", "9.JPEG", "a.jpg", "b.PNG", "c.jpeg"]
    assert [data.path(i).name for i in range(8)] == names
    assert len(data) == 16


def test_names_need_not_be_ascii(own):
    (own / "train" / "n0").rename(own / "train" / "n0 日本")
    (own / "train" / "n1" / "0.JPEG").rename(own / "train" / "n1" / "ü 0.JPEG")
    data = imagenet("train", root=own)
    assert all(data.path(i).is_file() for i in range(12))


def test_where_the_folder_is(own, monkeypatch, tmp_path):
    monkeypatch.setenv("QVIZ_DATA", str(tmp_path / "home"))
    with pytest.raises(FileNotFoundError, match=r"home.imagenet.train"):
        imagenet()
    (tmp_path / "home" / "imagenet").mkdir(parents=True)
    (own / "train").rename(tmp_path / "home" / "imagenet" / "train")
    assert len(imagenet()) == 12


def test_faults_of_a_folder_are_named(own):
    (own / "val").mkdir()
    Image.new("RGB", (8, 8)).save(own / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(FileNotFoundError, match=r"no class folders; sort its images into val/<wnid>/"):
        imagenet("val", root=own)
    (own / "val" / "n7").mkdir()
    with pytest.raises(ValueError, match=r"val.n7 has no counterpart in .*train: labels would be wrong"):
        imagenet("val", root=own)
    (own / "val" / "n7").rename(own / "val" / "n2")
    with pytest.raises(FileNotFoundError, match=r"hold no \.jpeg, \.jpg, \.png files"):
        imagenet("val", root=own)
    with pytest.raises(ValueError, match="'test'; choose one of train, val, held-out"):
        imagenet("test", root=own)


def test_labels_of_val_are_those_of_train(own):
    (own / "val" / "n2").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(own / "val" / "n2" / "a.png")
    assert imagenet("val", root=own).labels.tolist() == [2]
    assert imagenet("val", root=own).classes == ("n0", "n1", "n2")


def test_held_out_images_are_the_same_every_time(tree):
    train, held = (imagenet(split, root=tree, hold_out=2) for split in ("train", "held-out"))
    assert train.labels.bincount().tolist() == [6] * 10
    assert held.labels.bincount().tolist() == [2] * 10
    names = [set(data.names.tolist()) for data in (train, held)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == set(imagenet("train", root=tree).names.tolist())
    numbers = [held.path(i).stem.split("_")[1] for i in range(20)]
    assert "".join(numbers) == "27012457270713455715", "the same on every machine, for ever"
    assert len(imagenet("val", root=tree, hold_out=2)) == 30
    assert not ImageLoader(held, 5).train
    with pytest.raises(ValueError, match="hold_out must be at least 1, got 0"):
        imagenet("held-out", root=tree)
    with pytest.raises(ValueError, match="has only 8 images"):
        imagenet("train", root=tree, hold_out=8)


# The loader


def noisy(image):
    pixels = torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255
    return pixels + torch.rand(3, 1, 1) + np.random.rand() + random.random()


def test_what_a_batch_is(tree):
    data = imagenet("train", root=tree)
    loader = ImageLoader(data, 24, size=32, seed=5, workers=0)
    assert isinstance(loader, Loader)
    assert (len(loader), loader.samples, loader.batch_size, loader.num_classes) == (3, 72, 24, 10)
    batches = pairs(loader.batches(2))
    x, y = batches[1]
    assert len(batches) == 3
    assert (x.shape, x.dtype, y.dtype) == ((24, 3, 32, 32), torch.float32, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    for place, row in enumerate(loader._steps.rows(2)[1].tolist()):
        image = photos.random_resized_crop(photos.decode(data.path(row)), 32, generator(5, CROP, 2, row))
        wanted = normalize(photos.to_bytes(image)[None], augment.IMAGENET_MEAN, augment.IMAGENET_STD)[0]
        assert torch.equal(x[place], wanted)
        assert y[place] == data.labels[row]


def test_evaluation_is_the_set_in_its_order(tree):
    data = imagenet("val", root=tree)
    loader = ImageLoader(data, 8, size=32, workers=0)
    batches = pairs(loader.batches(0))
    assert [len(y) for _, y in batches] == [8, 8, 8, 6]
    assert (len(loader), loader.samples) == (4, 30)
    assert same(batches, pairs(loader.batches(9)))
    x = torch.cat([x for x, _ in batches])
    for index in range(30):
        assert torch.equal(x[index], photos.photo(data.path(index), 32))
    assert torch.equal(torch.cat([y for _, y in batches]), data.labels)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [{}, {"transform": noisy}])
def test_workers_change_nothing(tree, workers, kind):
    data = imagenet("train", root=tree)
    alone, helped = (ImageLoader(data, 20, size=16, workers=n, **kind) for n in (0, workers))
    for epoch in (0, 1):
        assert same(pairs(alone.batches(epoch)), pairs(helped.batches(epoch)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [*slow({}), {"transform": noisy}, *slow({"limit": 40})])
def test_a_batch_does_not_depend_on_what_ran_before(tree, workers, kind):
    data = imagenet("train", root=tree)
    loader = ImageLoader(data, 20, size=16, workers=workers, seed=1, **kind)
    whole = pairs(loader.batches(1))
    torch.rand(3), np.random.rand(3), random.random()
    left = loader.batches(4)
    next(left)  # a pass that nobody finishes
    for start in range(len(loader) + 1):
        assert same(pairs(loader.batches(1, start=start)), whole[start:])
    assert not same(pairs(loader.batches(2)), whole)
    assert not same(pairs(ImageLoader(data, 20, size=16, workers=0, seed=2, **kind).batches(1)), whole)


def test_every_image_has_its_own_randomness(tree):
    loader = ImageLoader(
        imagenet("train", root=tree), 20, workers=0, transform=lambda image: torch.rand(1, 1, 1)
    )
    drawn = torch.cat([x for epoch in (0, 1) for x, _ in loader.batches(epoch)]).flatten()
    assert len(drawn.unique()) == 160
    still = ImageLoader(imagenet("val", root=tree), 20, workers=0, transform=noisy)
    assert same(pairs(still.batches(0)), pairs(still.batches(1)))


@pytest.mark.parametrize("kind", [{}, {"transform": noisy}])
def test_the_ranks_together_have_the_batch(tree, kind):
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=0, **kind)
    shares = [pairs(loader.batches(3, rank=rank, world=4)) for rank in range(4)]
    for step, (x, y) in enumerate(pairs(loader.batches(3))):
        for rank in range(4):
            assert torch.equal(shares[rank][step][0], x[rank::4])
            assert torch.equal(shares[rank][step][1], y[rank::4])


def test_in_evaluation_a_rank_may_be_left_with_nothing(tree):
    loader = ImageLoader(imagenet("val", root=tree), 29, size=16, workers=0)
    shares = [pairs(loader.batches(0, rank=rank, world=2)) for rank in range(2)]
    assert [[len(y) for _, y in share] for share in shares] == [[15, 1], [14, 0]]
    assert shares[1][1][0].shape == (0, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [{}, {"transform": noisy}])
def test_the_global_generators_are_left_alone(tree, workers, kind):
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    wanted = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    pairs(ImageLoader(imagenet("train", root=tree), 20, size=16, workers=workers, **kind).batches(0))
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted


def test_workers_live_as_long_as_the_loader(tree):
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=2)
    before = set(multiprocessing.active_children())
    pairs(loader.batches(0))
    first = set(multiprocessing.active_children()) - before
    pairs(loader.batches(1))
    assert set(multiprocessing.active_children()) - before == first
    assert len(first) == 2
    del loader
    gc.collect()
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [0, 2])
def test_two_passes_at_once_are_refused(tree, workers):
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=workers)
    first, second = loader.batches(0), loader.batches(1)
    next(first), next(second)
    with pytest.raises(RuntimeError, match="one loader for each"):
        next(first)
    assert len(pairs(second)) == 3


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_an_interrupt_does_not_end_the_workers(tree):
    """A notebook's stop button signals every process; then training goes on with the same loader."""
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=2)
    whole = pairs(loader.batches(0))
    left = loader.batches(1)
    next(left)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)
    assert same(pairs(loader.batches(0)), whole)


def test_after_an_error_the_next_pass_has_new_workers(tree):
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=2)
    whole = pairs(loader.batches(0))
    broken = loader.batches(0)
    next(broken)
    with pytest.raises(KeyboardInterrupt):
        broken.throw(KeyboardInterrupt)
    assert same(pairs(loader.batches(0)), whole)


# Files that are no images


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_a_bad_file_is_replaced_by_the_next_good_one(own, workers):
    for name in ("n0/3.JPEG", "n1/0.JPEG", "n2/3.JPEG"):
        truncate(own / "train" / name)
    data = imagenet("train", root=own)
    loader = ImageLoader(data, 12, size=16, workers=workers, transform=color)
    with pytest.warns(UserWarning, match="is skipped, it cannot be decoded") as warned:
        x, y = next(loader.batches(0))
    named = {str(w.message).split(" is skipped")[0] for w in warned}
    bad = {str(own / "train" / name) for name in ("n0/3.JPEG", "n1/0.JPEG", "n2/3.JPEG")}
    assert named == bad == set(loader.skipped)
    assert "truncated" in loader.skipped[str(own / "train" / "n0" / "3.JPEG")]
    taken = {3: 5, 4: 5, 11: 0}
    rows = [taken.get(row, row) for row in loader._steps.rows(0)[0].tolist()]
    assert y.tolist() == data.labels[rows].tolist()
    wanted = torch.stack([color(photos.decode(data.path(row))) for row in rows])
    assert torch.equal(x, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(pairs(loader.batches(0)), [(x, y)]), "a file is reported once"


def color(image):
    return torch.tensor(image.getpixel((0, 0))).view(3, 1, 1).float()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_evaluation_a_bad_file_is_left_out(own, workers):
    (own / "train").rename(own / "val")
    (own / "val" / "n1" / "2.JPEG").write_bytes(b"<html>403</html>")
    for number in range(4):
        (own / "val" / "n2" / f"{number}.JPEG").write_bytes(b"")
    loader = ImageLoader(imagenet("val", root=own), 4, size=16, workers=workers)
    with pytest.warns(UserWarning, match="is skipped"):
        batches = pairs(loader.batches(0))
    assert [y.tolist() for _, y in batches] == [[0] * 4, [1] * 3, []]
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 16, 16), (3, 3, 16, 16), (0, 3, 16, 16)]
    assert len(loader.skipped) == 5
    assert "cannot identify image file" in loader.skipped[str(own / "val" / "n1" / "2.JPEG")]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_can_be_fatal(own, workers):
    truncate(own / "train" / "n1" / "2.JPEG")
    loader = ImageLoader(imagenet("train", root=own), 12, size=16, workers=workers, on_error="raise")
    with pytest.raises(Undecodable, match=r"n1/2\.JPEG cannot be decoded: .*truncated") as caught:
        next(loader.batches(0))
    assert "\n" not in str(caught.value)
    assert loader.skipped == {}


def test_a_folder_of_rubbish_stops(own):
    for path in (own / "train").rglob("*.JPEG"):
        path.write_bytes(b"rubbish")
    loader = ImageLoader(imagenet("train", root=own), 12, size=16, workers=0)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="12 files in a row"):
        next(loader.batches(0))


def test_a_file_that_vanished_is_named(own):
    data = imagenet("train", root=own)
    data.path(0).unlink()
    with pytest.raises(Undecodable, match="No such file"):
        pairs(ImageLoader(data, 12, size=16, workers=0, on_error="raise").batches(0))


def test_a_fault_in_your_transform_is_not_a_bad_file(own):
    def broken(image):
        raise OSError("mine")

    loader = ImageLoader(imagenet("train", root=own), 12, workers=0, transform=broken)
    with pytest.raises(OSError, match="mine"):
        next(loader.batches(0))
    assert loader.skipped == {}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"on_error": "ignore"}, ValueError, "'ignore'; choose one of skip, raise"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"workers": -1}, ValueError, "workers at least 0"),
        ({"limit": 11}, ValueError, "only 11 images"),
        ({"transform": lambda image: image}, TypeError, "got Image"),
        ({"transform": photos.to_bytes}, TypeError, r"got torch.uint8 of shape \(3, 20, 30\)"),
    ],
)
def test_wrong_arguments_are_named(own, arguments, error, words):
    with pytest.raises(error, match=words):
        next(ImageLoader(imagenet("train", root=own), 12, **{"workers": 0, **arguments}).batches(0))


@pytest.mark.slow
def test_without_pillow_the_extra_is_named():
    code = """
import sys
sys.modules["PIL"] = None
from qviz.nn.data import photo
try:
    photo("a.jpg")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'qviz-quantization[train]'" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="no fork")
@pytest.mark.slow
def test_spawned_workers_give_the_same(tree):
    """macOS and Windows start workers anew: what they are given must travel."""
    code = f"""
import multiprocessing, torch
from qviz.nn.data import ImageLoader, imagenet
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    data = imagenet("train", root={str(tree)!r})
    one, two = (next(ImageLoader(data, 20, size=16, workers=n).batches(0)) for n in (0, 1))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
"""
    script = tree.parent / "spawned.py"
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, script], env=os.environ | {"PYTHONPATH": root}, check=True, timeout=120)


@needs_photos
def test_real_photos_go_through(tmp_path):
    for number, path in enumerate(PHOTOS[:4]):
        (tmp_path / "train" / f"n{number}").mkdir(parents=True)
        (tmp_path / "train" / f"n{number}" / "a.jpg").write_bytes(path.read_bytes())
    x, _ = next(ImageLoader(imagenet("train", root=tmp_path), 4, workers=0).batches(0))
    assert x.shape == (4, 3, 224, 224)
    assert x.std() > 0.3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gets_the_same_batches(tree):
    loader = ImageLoader(imagenet("train", root=tree), 20, size=16, workers=1)
    here, there = pairs(loader.batches(0)), pairs(loader.batches(0, device="cuda"))
    assert there[0][0].device.type == "cuda"
    assert same(here, [(x.cpu(), y.cpu()) for x, y in there])
