import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qviz import Checkpoint, compare, compare_tensors, post
from qviz.measure import tables


def weights(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TENSORS = {"a.weight": weights(30, 20), "a.bias": weights(30, seed=1), "b.weight": weights(8, 5, seed=2)}


def sharded(folder):
    save_file({"a.weight": TENSORS["a.weight"], "a.bias": TENSORS["a.bias"]}, folder / "one.safetensors")
    save_file({"b.weight": TENSORS["b.weight"]}, folder / "two.safetensors")
    where = {"a.weight": "one.safetensors", "a.bias": "one.safetensors", "b.weight": "two.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def write(kind, folder):
    file = folder / f"m{kind}"
    if kind == "folder":
        sharded(folder)
        return folder
    if kind == ".safetensors":
        save_file(TENSORS, file)
    elif kind == ".npz":
        np.savez_compressed(file, **{name: x.numpy() for name, x in TENSORS.items()})
    else:
        torch.save(TENSORS, file, _use_new_zipfile_serialization=kind != ".bin")
    return file


@pytest.mark.parametrize("kind", [".safetensors", ".npz", ".pt", ".bin", "folder"])
def test_every_kind_of_file_gives_its_tensors(tmp_path, kind):
    checkpoint = Checkpoint(write(kind, tmp_path))
    assert list(checkpoint) == sorted(TENSORS)
    assert checkpoint.matching("a.*") == ["a.bias", "a.weight"]
    assert all(torch.equal(checkpoint[name], x) for name, x in TENSORS.items())
    with pytest.raises(KeyError):
        checkpoint["c"]


def test_nested_dictionaries_get_dotted_names(tmp_path):
    torch.save({"epoch": 3, "state_dict": TENSORS, "best": {"top1": torch.ones(2)}}, tmp_path / "m.ckpt")
    names = [f"state_dict.{name}" for name in sorted(TENSORS)]
    assert list(Checkpoint(tmp_path / "m.ckpt")) == ["best.top1", *names]


def test_no_tensor_is_lost(tmp_path):
    a, b = TENSORS["a.weight"], TENSORS["a.bias"]
    torch.save({"layers": [a, (b, 3)], "x": a}, tmp_path / "m.pt")
    assert list(Checkpoint(tmp_path / "m.pt")) == ["layers.0", "layers.1.0", "x"]
    torch.save({"a.b": a, "a": {"b": b}}, tmp_path / "twice.pt")
    with pytest.raises(ValueError, match=r"twice.pt: two tensors would have the name 'a.b'"):
        Checkpoint(tmp_path / "twice.pt")
    torch.save({"w": a.to_sparse(), "v": a, "m": a.to("meta")}, tmp_path / "sparse.pt")
    done = compare_tensors(Checkpoint(tmp_path / "sparse.pt"), ["POT"])
    assert list(done) == ["v"]
    assert "its layout is torch.sparse_coo" in done.skipped["w"]
    assert "meta device" in done.skipped["m"]


def test_every_tensor_gets_the_table_that_compare_gives():
    state = {**TENSORS, "steps": torch.tensor(3), "holes": torch.tensor([1.0, float("nan")])}
    seen = []
    done = compare_tensors(state, ["pot", "POST"], bits=3, progress=lambda names: seen.extend(names) or names)
    assert seen == list(state)
    assert list(done) == list(TENSORS)
    assert set(done.skipped) == {"steps", "holes"}
    assert "NaN" in done.skipped["holes"]
    for name, x in TENSORS.items():
        assert done[name] == compare(x, ["POT", "POST"], bits=3)
    frame = done.to_frame()
    assert frame.loc[("a.bias", "POST"), "mse"] == done["a.bias"]["POST"].mse
    assert frame.loc[("a.weight", "POT"), "values"] == 600
    json.dumps(done.to_dict(), allow_nan=False)
    lines = str(done).splitlines()
    assert lines[0].split() == ["tensor", "values", "POT", "POST"]
    table, notes = lines[: 1 + len(TENSORS)], lines[1 + len(TENSORS) :]
    assert len({len(line) for line in table}) == 1
    assert notes == done.notes()


def test_a_sample_is_near_and_the_same_each_time():
    x = {"w": weights(200_000)}
    whole, part, again = (
        compare_tensors(x, {"POST": post(4)}, sample=n)["w"]["POST"] for n in (None, 20_000, 20_000)
    )
    assert part == again
    assert part != whole
    assert part.mse == pytest.approx(whole.mse, rel=0.05)
    assert compare_tensors(x, {"POST": post(4)}, sample=200_000)["w"]["POST"] == whole


def test_fp8_tensors_are_widened():
    x = weights(500).to(torch.float8_e4m3fn)
    assert compare_tensors({"w": x}, ["POT"])["w"] == compare(x.float(), ["POT"])


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"pattern": "c.*"}, r"'c\.\*'; there are a\.weight, a\.bias, b\.weight"),
        ({"bits": 9}, "got 9"),
        ({"sample": 0}, "got 0"),
        ({"methods": ["POTT"]}, "POTT"),
    ],
)
def test_refuses_unfit_arguments(arguments, received):
    with pytest.raises(ValueError, match=received):
        compare_tensors(TENSORS, **arguments)


def test_long_lists_of_names_are_cut():
    assert tables._some([f"t{i}" for i in range(25)]).endswith("t19 and 5 more")


def test_refuses_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        Checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        Checkpoint(tmp_path / "absent.pt")


def test_the_table_of_tensors_says_what_each_table_says():
    few, many = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0] * 8), torch.linspace(0, 1, 999)
    found = compare_tensors({"few": few, "many": many, "signed": many - 0.5}, ["uniform", "quantile"])
    for line in (
        "uniform: unsigned, as x has no negative value: few, many",
        "quantile: 7 levels, as values repeat: few",
    ):
        assert line in str(found).splitlines()
    same = compare_tensors({"a": many, "b": many}, ["uniform"])
    assert str(same).splitlines()[-1] == "uniform: unsigned, as x has no negative value"
    five = compare_tensors(dict.fromkeys("abcde", many) | {"f": -many}, ["uniform"])
    assert five.notes()[0] == "uniform: unsigned, as x has no negative value: a, b, c and 2 more"
