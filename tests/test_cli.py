"""The command line: what it prints, what it refuses in one line and exit code 2, what it never overwrites."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import qviz
from qviz.cli import doctor, lab, main, usage
from qviz.explore import gallery
from qviz.nn.ptq.progress import Bar


def run(capsys, *args):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    try:
        code = main([str(arg) for arg in args])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def weights():
    return torch.randn(2000, generator=torch.Generator().manual_seed(0))


# --- usage


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "no command"),
        (["frob"], "invalid choice: 'frob'"),
        (["--frob"], "--frob"),
        (["lab", "--frob"], "--frob"),
        (["lab", "--no-brow"], "--no-brow"),
        (["lab", "--port", "many"], "'many'"),
        (["lab", "--port", "99999"], "got 99999"),
        (["lab", "--class", "absent", "--dir", "x", "--port", "1"], "leave out --dir, --port"),
        (["gallery", "--html", "absent", "--only", ""], "unknown explorers ['']"),
        (["lab", "no-such-notebook"], "no notebook 'no-such-notebook'"),
        (["compare"], "FILE"),
        (["compare", "absent.npy"], "absent.npy: no such file"),
        (["compare", "x.npy", "--bits", "four"], "'four'"),
        (["train"], "give --recipe"),
        (["train", "--recipe", "lsq"], "--recipe lsq needs --bits"),
        (["train", "--recipe", "lsqq", "--bits", "2"], "got 'lsqq'"),
        (
            ["train", "--recipe", "lsq", "--bits", "two"],
            "--bits takes whole numbers separated by commas, got 'two'",
        ),
        (["train", "--recipe", "lsq", "--bits", "2,2,2"], "at most 2 numbers"),
        (["train", "--recipe", "lsq", "--bits", "12"], "12"),
        (["train", "--recipe", "lsq", "--bits", "2", "--size", "huge"], "got 'huge'"),
        (["train", "--recipe", "lsq", "--bits", "2", "--seeds", "a"], "--seeds takes whole numbers"),
        (["train", "--queue", "absent.toml"], "absent.toml: no such file"),
        (["train", "--queue", "absent.toml", "--recipe", "lsq"], "leave out --recipe"),
        (["train", "--queue", "absent.toml", "--lr", "nan", "--seeds", "1"], "leave out --seeds, --lr"),
        (["train", "--queue", "absent.toml", "--compile"], "leave out --compile"),
        (["train", "--recipe", "lsq", "--bits", "2", "--seeds", "0,0"], "seeds must differ"),
        (["train", "--recipe", "lsq", "--bits", "2", "--images", "0"], "at least 1, or None, got 0"),
        (["train", "--recipe", "lsq", "--bits", "2", "--seeds", f"{2**64}"], "from 0 to 2**32 - 1"),
        (["train", "--recipe", "lsq", "--bits", "2", "--average-bits", "nan"], "average_bits cannot be nan"),
        (["train", "--recipe", "lsq", "--bits", "2", "--start", "published"], "no weights of resnet20"),
        (["train", "--recipe", "fp32", "--bits", "4"], "leave out --bits 4"),
        (["ptq"], "give --method"),
        (["ptq", "--method", "qdrop"], "give --method (such as qdrop) and --bits"),
        (["ptq", "--method", "gptqq", "--bits", "2"], "got 'gptqq'"),
        (["ptq", "--method", "qdrop", "--bits", "two"], "--bits takes whole numbers"),
        (["ptq", "--method", "qdrop", "--bits", "12"], "12"),
        (["ptq", "--method", "qdrop", "--bits", "2", "--images", "3"], "at least 8, got 3"),
        (["ptq", "--method", "qdrop", "--bits", "2", "--iterations", "0"], "at least 1, got 0"),
        (["ptq", "--method", "nearest", "--bits", "2", "--bias"], "nearest has none"),
        (["ptq", "--method", "nearest", "--bits", "2", "--border", "layer"], "nearest has no border"),
        (["ptq", "--method", "qdrop", "--bits", "2", "--start", "absent.safetensors"], "absent.safetensors"),
        (["ptq", "--queue", "absent.toml"], "absent.toml: no such file"),
        (["ptq", "--queue", "absent.toml", "--no-gate", "--images", "8"], "leave out --images, --no-gate"),
        (["results", "--ledger", "absent.json"], "absent.json: no such file"),
        (["results", "--ledger", "/"], ": Is a directory: '/'"),
        (["results", "--json", "--markdown"], "not allowed with"),
        (["export", "absent", "--to", "a.safetensors"], "absent: no such file or folder"),
        (["export", "absent", "--to", "a.pt"], "--to takes a .safetensors or .onnx file, got a.pt"),
        (["export", "absent", "--to", "a.safetensors", "--ties", "even"], "--ties is of .onnx files"),
        (["export", "absent"], "--to"),
        (["verify", "absent.safetensors"], "absent.safetensors: no such file"),
        (["run", "absent.onnx"], "--data"),
        (["run", "absent.onnx", "--data", "sample"], "absent.onnx: no such file"),
        (["run", "absent.onnx", "--data", "sample", "--integer"], "--integer is of .safetensors files"),
        (["doctor", "extra"], "extra"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, args, says):
    code, out, err = run(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("qviz")
    assert says in err
    assert err.count("\n") == 1
    assert "Errno" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_what_cannot_be_printed_is_told_once_or_not_at_all(capsys, monkeypatch):
    read, write = os.pipe()
    os.close(read)  # as `qviz results | head -1` does
    full = "qviz results: No space left on device\n"
    for stream, args, code, says in (
        (write, ["results"], usage.UNREAD, ""),
        ("/dev/full", ["results"], 2, full),
        (os.devnull, ["gallery", "--help"], 0, ""),  # with "…"
    ):
        with open(stream, "w", encoding="ascii") as out:  # noqa: PTH123 - one is a number
            monkeypatch.setattr(sys, "stdout", out)
            assert run(capsys, *args) == (code, "", says)


def test_version_and_both_names():
    script = Path(sys.executable).parent / "jupyter-qviz"
    commands = [[sys.executable, "-m", "qviz.cli"], *([[script]] if script.exists() else [])]
    for command in commands:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"qviz {qviz.__version__}\n"


# --- compare


@pytest.mark.parametrize("dtype", ["<f2", ">f8"])
def test_compare_reads_every_float_npy(capsys, tmp_path, weights, dtype):
    np.save(tmp_path / "w.npy", weights.numpy().astype(dtype))
    code, out, err = run(capsys, "compare", tmp_path / "w.npy", "--bits", "3")
    x = torch.from_numpy(weights.numpy().astype(dtype).astype(dtype[1:]))
    assert (code, err) == (0, "")
    assert out == f"{qviz.compare(x, bits=3)}\n"


def test_compare_reads_fortran_order_and_many_dimensions(capsys, tmp_path, weights):
    np.save(tmp_path / "w.npy", np.asfortranarray(weights.numpy().reshape(10, 20, 10)))
    code, out, _ = run(capsys, "compare", tmp_path / "w.npy", "--json")
    assert code == 0
    assert json.loads(out) == qviz.compare(weights, bits=4).to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_compare_reads_every_float_safetensors(capsys, tmp_path, weights, dtype):
    save_file({"w": weights.to(dtype), "b": torch.zeros(3)}, tmp_path / "m.safetensors")
    code, out, err = run(capsys, "compare", tmp_path / "m.safetensors", "--tensor", "w")
    assert (code, err) == (0, "")
    assert out == f"{qviz.compare(weights.to(dtype), bits=4)}\n"


def test_compare_needs_no_name_where_there_is_one_tensor(capsys, tmp_path, weights):
    save_file({"only": weights}, tmp_path / "m.safetensors")
    assert run(capsys, "compare", tmp_path / "m.safetensors")[0] == 0


def test_json_has_no_infinity(capsys, tmp_path):
    np.save(tmp_path / "zeros.npy", np.zeros(5))
    code, out, _ = run(capsys, "compare", tmp_path / "zeros.npy", "--json")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    rows = json.loads(out, parse_constant=refuse)
    assert code == 0
    assert rows["POT"]["mse"] == 0
    assert rows["POT"]["sqnr_db"] is None


class Bomb:
    """What unpickling it does, a test can see."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pkl", ".bin", ".npy", ".npz", ".safetensors", ".txt"])
def test_compare_never_unpickles(capsys, tmp_path, suffix):
    file, fuse = tmp_path / f"w{suffix}", tmp_path / "exploded"
    file.write_bytes(pickle.dumps(Bomb(fuse)))
    code, _, err = run(capsys, "compare", file)
    assert code == 2
    assert err.count("\n") == 1
    assert not fuse.exists()
    pickle.loads(file.read_bytes())
    assert fuse.exists(), "the bomb is a dud: this test proved nothing"


def test_compare_refuses_object_arrays_with_the_reason(capsys, tmp_path):
    np.save(tmp_path / "w.npy", np.array([Bomb(tmp_path / "exploded"), None]), allow_pickle=True)
    code, _, err = run(capsys, "compare", tmp_path / "w.npy")
    assert code == 2
    assert "unpickling runs code" in err
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("dtype", ["int8", "complex64", "S3"])
def test_compare_refuses_other_npy_and_names_the_dtype(capsys, tmp_path, dtype):
    np.save(tmp_path / "w.npy", np.ones(4).astype(dtype))
    code, _, err = run(capsys, "compare", tmp_path / "w.npy")
    assert code == 2
    assert str(np.dtype(dtype)) in err


def test_compare_refuses_integer_safetensors_and_names_the_dtype(capsys, tmp_path):
    save_file({"codes": torch.ones(4, dtype=torch.int8)}, tmp_path / "m.safetensors")
    code, _, err = run(capsys, "compare", tmp_path / "m.safetensors")
    assert code == 2
    assert "codes: x must hold floating-point numbers, got dtype torch.int8" in err


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


BROKEN = {
    "empty.npy": lambda path: path.write_bytes(b""),
    "cut.npy": lambda path: (np.save(path, np.ones(1000)), path.write_bytes(path.read_bytes()[:500])),
    "zip.npy": npz,
    "cut.npz": lambda path: (npz(path), path.write_bytes(path.read_bytes()[:-40])),
    "cut.pt": lambda path: (
        torch.save({"a": torch.ones(999)}, path),
        path.write_bytes(path.read_bytes()[:900]),
    ),
    "x.index.json": lambda path: path.write_text('{"weight_map": {"a": "../outside.safetensors"}}'),
    "y.index.json": lambda path: path.write_text("[]"),
    "z.index.json": lambda path: (
        save_file({"a": torch.ones(2)}, path.with_name("one.safetensors")),
        path.write_text('{"weight_map": {"z.index.json": "one.safetensors"}}'),
    ),
    "code.pt": lambda path: (
        torch.save({"a": torch.ones(2)}, path),
        zipfile.ZipFile(path, "a").writestr("code/constants.pkl", b""),  # by this torch knows TorchScript
    ),
    "none.npy": lambda path: np.save(path, np.ones(0)),
    "nan.npy": lambda path: np.save(path, np.full(3, np.nan)),
    "cut.safetensors": lambda path: path.write_bytes(b"\x40\0\0\0\0\0\0\0{"),
    "folder.npy": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_compare_refuses_broken_files(capsys, tmp_path, name):
    BROKEN[name](tmp_path / name)
    code, out, err = run(capsys, "compare", tmp_path / name)
    assert (code, out) == (2, "")
    assert name in err
    assert err.count("\n") == 1
    assert "weights_only" not in err, "torch advises to run code"


def test_compare_takes_a_whole_checkpoint(capsys, tmp_path, weights):
    file = tmp_path / "m.safetensors"
    tensors = {"a.proj.weight": weights, "b.proj.weight": weights * 2, "b.bias": weights[:40].clone()}
    save_file({**tensors, "steps": torch.tensor(7)}, file)
    code, out, err = run(capsys, "compare", file)
    assert code == 0
    assert "skipped steps: " in err
    assert [line.split()[0] for line in out.splitlines()[:4]] == [
        "tensor",
        "a.proj.weight",
        "b.bias",
        "b.proj.weight",
    ]
    assert f"{qviz.compare(weights)['POST'].sqnr_db:.2f}" in out.splitlines()[1]
    unused = [qviz.compare(x)["POT"].note.split()[0] for x in tensors.values()]
    assert f"POT: {min(unused)} to {max(unused)} levels unused" in out.splitlines()[4:]
    code, out, err = run(capsys, "compare", file, "--tensor", "*.proj.*", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 12)
    assert [row["tensor"] for row in rows] == ["a.proj.weight"] * 6 + ["b.proj.weight"] * 6
    assert float(rows[1]["mse"]) == qviz.compare(weights)["POT"].mse
    code, out, _ = run(capsys, "compare", file, "--tensor", "b.*", "--json")
    assert json.loads(out)["b.bias"] == qviz.compare(tensors["b.bias"]).to_dict()


def test_compare_names_what_is_there(capsys, tmp_path, weights):
    save_file({"a.weight": weights, "b.weight": weights.clone()}, tmp_path / "m.safetensors")
    code, _, err = run(capsys, "compare", tmp_path / "m.safetensors", "--tensor", "c.weight")
    assert code == 2
    assert "no tensor matches 'c.weight'; there are a.weight, b.weight" in err


@pytest.mark.parametrize(("option", "value"), [("--bits", "99"), ("--sample", "0")])
def test_compare_refuses_numbers_out_of_range(capsys, tmp_path, weights, option, value):
    np.save(tmp_path / "w.npy", weights.numpy())
    code, _, err = run(capsys, "compare", tmp_path / "w.npy", option, value)
    assert code == 2
    assert f"got {value}" in err


# --- gallery


def test_the_gallery_has_a_page_for_each_explorer_and_an_index(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("qviz.plot.page.picture", lambda scene: "data:,")
    code, out, _ = run(capsys, "gallery", "--html", tmp_path / "pages", "--only", "ThresholdExplorer")
    assert code == 0
    assert "threshold-explorer.html  " in out
    index = (tmp_path / "pages" / "index.html").read_text("utf-8")
    assert '<a href="threshold-explorer.html">ThresholdExplorer</a>' in index
    assert gallery.MODELS["ThresholdExplorer"].caption() in html.unescape(index)
    assert "<template" in (tmp_path / "pages" / "threshold-explorer.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "give --html DIR"),
        (["--html", "pages", "--only", "Nine"], "unknown explorers ['Nine']"),
        (["--html", "file"], "cannot write to file"),
    ],
)
def test_a_gallery_that_cannot_be_written(capsys, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    code, _, err = run(capsys, "gallery", *args)
    assert code == 2
    assert says in err
    assert not Path("pages").exists()


# --- lab


def notebook(text, *, spoiled=True):
    """The text of a notebook with one cell, which has been run."""
    output = {"output_type": "stream", "name": "stdout", "text": ["the answer"]}
    outputs, count = ([output], 1) if spoiled else ([], None)
    cell = {"cell_type": "code", "source": [text], "outputs": outputs, "execution_count": count}
    return json.dumps({"cells": [cell], "nbformat": 4}, indent=1) + "\n"


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / "shipped"
    (folder / "training" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("00-start-here.ipynb", "training/cifar10.ipynb"):
        (folder / name).write_text(notebook(f"{name}, first edition"))
    (folder / "training" / ".ipynb_checkpoints" / "old.ipynb").write_text("not wanted")
    return folder


def test_copies_follow_the_shipped_files_until_they_are_changed(shipped, tmp_path):
    folder, name = tmp_path / "mine", "00-start-here.ipynb"
    assert "(2 files new or updated)" in list(lab.copy_notebooks(shipped, folder))[-1]
    copied = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert copied == [lab.MANIFEST, name, "training/cifar10.ipynb"]

    (shipped / name).write_text(notebook("second edition"))
    assert "(1 files new or updated)" in list(lab.copy_notebooks(shipped, folder))[-1]
    assert (folder / name).read_text() == notebook("second edition", spoiled=False)

    (folder / name).write_text("my work")
    assert len(list(lab.copy_notebooks(shipped, folder))) == 1  # nothing new to offer: nothing to say
    (shipped / name).write_text(notebook("third edition"))
    for _ in range(2):
        lines = list(lab.copy_notebooks(shipped, folder))
        assert lines[0].startswith(f"kept your {name}")
        assert (folder / name).read_text() == "my work"

    (folder / name).rename(folder / "mine.ipynb")
    list(lab.copy_notebooks(shipped, folder, asked=name))
    assert (folder / name).read_text() == notebook("third edition", spoiled=False)
    assert (folder / "mine.ipynb").read_text() == "my work"


def test_a_class_gets_lessons_without_outputs_and_nothing_opens(capsys, started, tmp_path):
    folder = tmp_path / "class"
    code, out, _ = run(capsys, "lab", "--class", folder)
    assert (code, started) == (0, [])
    assert f"notebooks are in {folder}" in out
    lesson, training = (folder / name for name in ("00-start-here.ipynb", "training/cifar10.ipynb"))
    assert "the answer" not in lesson.read_text()
    assert "the answer" in training.read_text()  # nobody computes that anew to read it


def test_deleted_notebooks_stay_away_until_they_are_asked_for(capsys, started, tmp_path):
    folder = tmp_path / "mine"
    assert run(capsys, "lab", "--dir", folder)[0] == 0
    (folder / "00-start-here.ipynb").unlink()
    _, out, _ = run(capsys, "lab", "--dir", folder)
    assert "not copied again, as you removed them: 00-start-here" in out
    assert not (folder / "00-start-here.ipynb").exists()
    assert "--LabApp.default_url=/lab" in started[-1]
    assert run(capsys, "lab", "00-start-here", "--dir", folder)[0] == 0
    assert (folder / "00-start-here.ipynb").exists()
    assert "--LabApp.default_url=/lab/tree/00-start-here.ipynb" in started[-1]


def test_an_unknown_name_writes_nothing(capsys, started, tmp_path):
    code, _, err = run(capsys, "lab", "nine", "--dir", tmp_path / "mine")
    assert code == 2
    assert "there are: 00-start-here, training/cifar10" in err
    assert not (tmp_path / "mine").exists()


def test_a_file_that_was_there_before_is_never_overwritten(shipped, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "00-start-here.ipynb").write_text("somebody's")
    lines = list(lab.copy_notebooks(shipped, folder))
    assert lines[0].startswith("kept your 00-start-here.ipynb")
    assert (folder / "00-start-here.ipynb").read_text() == "somebody's"


def test_a_file_in_the_place_of_the_folder_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "lab", "--dir", tmp_path / "file")
    assert code == 2
    assert "cannot copy the notebooks" in err


@pytest.mark.parametrize(
    "name", ["training/cifar10", "training/cifar10.ipynb", "shipped/training/cifar10", "cifar10"]
)
def test_a_notebook_is_found_by_name_and_by_path(monkeypatch, shipped, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert lab.find_notebook(shipped, name) == "training/cifar10.ipynb"


@pytest.mark.parametrize("name", ["nine", "../outside", "training"])
def test_a_notebook_outside_the_folder_is_not_found(shipped, tmp_path, name):
    (tmp_path / "outside.ipynb").write_text("")
    with pytest.raises(usage.UsageError, match="there are: 00-start-here, training/cifar10"):
        lab.find_notebook(shipped, name)


@pytest.fixture
def started(monkeypatch, shipped):
    """The JupyterLab command that would have been run; the notebooks are those of `shipped`, in place."""
    from qviz import shipped as module

    commands = []
    monkeypatch.setattr(lab, "_become", lambda command: commands.append(command) or 0)
    monkeypatch.setattr(module, "notebooks_dir", lambda: shipped)
    return commands


def test_lab_passes_its_options_on(capsys, monkeypatch, started, shipped):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    args = ("training/cifar10", "--no-browser", "--port", "8899", "--", "--ServerApp.quit_button=False")
    assert run(capsys, "lab", *args)[0] == 0
    assert started == [
        [
            *(sys.executable, "-m", "jupyterlab"),
            f"--ServerApp.root_dir={shipped}",
            "--ServerApp.kernel_websocket_connection_class=qviz.cli.websocket.PromptConnection",
            "--LabApp.default_url=/lab/tree/training/cifar10.ipynb",
            "--no-browser",
            "--ServerApp.port=8899",
            "--ServerApp.quit_button=False",
        ]
    ]


def test_lab_as_root_says_so(capsys, monkeypatch, started):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--allow-root" in run(capsys, "lab")[1]
    run(capsys, "lab", "--", "--allow-root")
    assert [command.count("--allow-root") for command in started] == [1, 1]


def test_lab_in_a_folder_of_ones_own(capsys, started, tmp_path):
    code, out, _ = run(capsys, "lab", "--dir", tmp_path / "mine")
    assert code == 0
    assert str(tmp_path / "mine") in out
    assert f"--ServerApp.root_dir={tmp_path / 'mine'}" in started[0]
    assert (tmp_path / "mine" / "00-start-here.ipynb").exists()


def test_lab_without_jupyterlab_names_the_extra(capsys, monkeypatch):
    monkeypatch.setattr(lab, "missing", lambda extra: ["jupyterlab"])
    code, _, err = run(capsys, "lab")
    assert code == 2
    assert "pip install 'qviz-quantization[lab]'" in err


# --- doctor


def test_doctor_is_well(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0, out
    assert out.splitlines()[-1] == "all is well"
    assert f"torch {torch.__version__}" in out


@pytest.mark.parametrize("name", ["pot", "post", "uniform"])
def test_doctor_notices_wrong_levels(capsys, monkeypatch, name):
    right = getattr(qviz, name)(3)
    monkeypatch.setattr(qviz, name, lambda bits: right)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert f"{name}(4).levels" in out


def test_doctor_notices_wrong_arithmetic(capsys, monkeypatch):
    real = qviz.compare
    monkeypatch.setattr(qviz, "compare", lambda x, *args, **kwargs: real(x * 1.01, *args, **kwargs))
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "by hand it is" in out


def test_doctor_notices_damaged_data(capsys, monkeypatch, tmp_path):
    from qviz import shipped

    def damaged():
        raise ValueError("the sha256 differs")

    monkeypatch.setattr(shipped, "verify", damaged)
    monkeypatch.setattr(shipped, "notebooks_dir", lambda: tmp_path)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "the sha256 differs" in out
    assert "no notebook" in out


def test_doctor_says_how_to_install_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "missing", lambda extra: ["onnx", "onnxruntime"] if extra == "export" else [])
    monkeypatch.setattr(doctor, "imported", lambda module: (True, f"{module} 1"))
    assert (
        "export: without onnx, onnxruntime; pip install 'qviz-quantization[export]'"
        in run(capsys, "doctor")[1]
    )


@pytest.mark.parametrize("error", ["OSError", "SystemExit"])
def test_doctor_imports_what_it_lists(capsys, monkeypatch, tmp_path, error):
    (tmp_path / "bqplot.py").write_text(
        f"raise {error}('half of it is missing')"
    )  # installed, and yet broken
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bqplot", raising=False)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert f"BROKEN  lab: bqplot cannot be imported: {error}: half of it is missing" in out
    code, out, _ = run(capsys, "doctor", "--student")
    assert (code, out.count("\n")) == (1, 1)
    assert "bqplot broken" in out
    assert "broken: lab: bqplot cannot be imported" in out
    assert str(Path.home()) not in out


def test_doctor_notices_a_front_end_that_is_not_there(capsys, monkeypatch):
    import jupyter_core.paths

    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *parts: [])
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "JupyterLab lacks @jupyter-widgets/jupyterlab-manager, bqplot, anywidget" in out


def test_doctor_notices_a_kernel_of_another_python(capsys, monkeypatch):
    from jupyter_client import kernelspec

    spec = kernelspec.KernelSpec(argv=["/elsewhere/bin/python", "-m", "ipykernel_launcher"])
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", lambda self, name: spec)
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "the kernel python3 runs /elsewhere/bin/python" in out


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "safetensors"])
def test_doctor_lives_without_what_qviz_needs(module):
    code = f"""
        import sys
        sys.modules[{module!r}] = None  # as if it were not installed
        from qviz.cli import main
        print(main(["doctor"]))
        import qviz
        qviz.compare
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"BROKEN  {module} cannot be imported" in done.stdout
    assert done.stdout.endswith("something is broken\n1\n")
    assert (
        done.stderr.rstrip()
        .splitlines()[-1]
        .startswith("ImportError: qviz needs torch, numpy and safetensors")
    )


def test_the_extras_are_those_of_pyproject(checkout):
    declared = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    modules = {"Pillow": "PIL"}
    for extra, names in usage.EXTRAS.items():
        own = [modules.get(name, name) for name in declared[extra] if not name.startswith("qviz-")]
        assert sorted(own) == sorted(names), extra
    assert set(declared) == {*usage.EXTRAS, "test", "all"}


# --- train and results


def trained(tmp_path, *more):
    return [
        *("train", "--recipe", "lsq", "--bits", "2,3", "--size", "smoke", "--start", "scratch"),
        *("--source", "sample", "--images", "64", "--batch-size", "32", "--max-steps", "1"),
        *("--ledger", tmp_path / "results.json", "--folder", tmp_path / "runs", *more),
    ]


@pytest.mark.usefixtures("few")
def test_train_writes_a_row_and_results_prints_it(capsys, tmp_path):
    code, out, err = run(capsys, *trained(tmp_path))
    assert (code, err) == (0, "")
    assert "resnet20-lsq-w2a3-smoke, seed 0" in out
    assert re.match(
        r"lsq \(batch_size 32, max_steps 1, from scratch\) +2 +3 +resnet20 ", out.splitlines()[-1]
    )
    code, out, err = run(capsys, "results", "--ledger", tmp_path / "results.json")
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    code, out, _ = run(capsys, "results", "--ledger", tmp_path / "results.json", "--json")
    (row,) = json.loads(out)
    assert (row["w_bits"], row["a_bits"], row["w_levels"], row["a_levels"]) == (2, 3, 4, 8)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_second_train_needs_resume(capsys, tmp_path):
    assert run(capsys, *trained(tmp_path))[0] == 0
    code, _, err = run(capsys, *trained(tmp_path))
    assert code == 2
    assert "resume" in err
    code, out, _ = run(capsys, *trained(tmp_path, "--resume"))
    assert code == 0
    assert "going on from step 1" in out
    assert "starts anew" not in out
    code, out, _ = run(capsys, *trained(tmp_path, "--resume", "--lr", "0.3"))
    assert code == 0
    assert re.search(r"no run with exactly these options .* resnet20-lsq-w2a3-smoke-", out)


@pytest.mark.usefixtures("few")
def test_the_contract_stands_before_the_training(capsys, tmp_path):
    _, out, _ = run(capsys, *trained(tmp_path))
    assert out.startswith("resnet20-lsq-w2a3-smoke\nmethod ")
    assert out.index("\nminutes ") < out.index("seed 0: ")


def test_a_ledger_or_folder_that_takes_nothing_is_told_before_the_work(capsys, tmp_path):
    (tmp_path / "torn.json").write_text("{}")
    (tmp_path / "file").touch()
    for name, says in (("torn.json", "is not a ledger"), ("file/r.json", "results cannot be written to")):
        code, out, err = run(capsys, *trained(tmp_path, "--ledger", tmp_path / name))
        assert (code, out) == (2, "")
        assert says in err
    ptq = ["ptq", "--method", "nearest", "--bits", "2", "--source", "sample", "--images", "8"]
    code, _, err = run(capsys, *ptq, "--ledger", tmp_path / "r.json", "--folder", tmp_path / "file/x")
    assert code == 2
    assert "quantized networks cannot be written to" in err


def test_ctrl_c_anywhere_is_one_line(capsys, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("qviz.nn.runs.contract", stop)
    assert run(capsys, *trained(tmp_path)) == (130, "", "qviz train: stopped\n")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_results_go_through_a_pipe_of_any_encoding(encoding):
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    ledger = qviz.shipped.data_dir() / "results.json"
    command = [sys.executable, "-m", "qviz.cli", "results", "--ledger", str(ledger)]
    done = subprocess.run(command, capture_output=True, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"resnet20" in done.stdout
    assert b"?" not in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_queue_skips_what_the_ledger_has(capsys, tmp_path):
    queue = tmp_path / "q.toml"
    common = 'size = "smoke"\nstart = "scratch"\nsource = "sample"\nimages = 64\n'
    common += "overrides = {max_steps = 1, batch_size = 32}\n"
    runs = '[[run]]\nrecipe = "ste"\nw_bits = 2\n'
    queue.write_text(f"[defaults]\n{common}{runs}")
    args = ("train", "--queue", queue, "--ledger", tmp_path / "r.json", "--folder", tmp_path / "runs")
    assert run(capsys, *args)[0] == 0
    queue.write_text(f'[defaults]\n{common}{runs}[[run]]\nrecipe = "daq"\nw_bits = 1\n')
    code, out, err = run(capsys, *args)
    assert (code, err) == (0, "")
    assert "resnet20-ste-w2a2-smoke: in" in out
    assert "already" in out
    assert [row["method"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]] == ["ste", "daq"]


# --- ptq


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_stopped_queue_of_quantizations_goes_on(capsys, tmp_path, monkeypatch):
    queue, ledger = tmp_path / "q.toml", tmp_path / "r.json"
    queue.write_text(
        '[defaults]\nsource = "sample"\nimages = 8\nw_bits = 2\n'
        '[[run]]\nmethod = "nearest"\n[[run]]\nmethod = "qdrop"\niterations = 3\n'
    )
    args = ("ptq", "--queue", queue, "--ledger", ledger, "--folder", tmp_path / "runs")
    step = Bar.step

    def pressed(*told):
        signal.raise_signal(signal.SIGINT)
        step(*told)

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "step", pressed)
        code, out, err = run(capsys, *args)
    assert (code, err) == (usage.STOPPED, "")
    assert out.endswith("stopped; the same command goes on\n")
    assert out.index("resnet20-nearest-w2a2-ptq\nmethod ") < out.index("seed 0: 8 images, into ")
    assert [row["method"] for row in json.loads(ledger.read_text())["rows"]] == ["nearest"]
    code, out, err = run(capsys, *args)
    assert (code, err) == (0, "")
    assert out.startswith(f"resnet20-nearest-w2a2-ptq: in {ledger} already\n")
    rows = json.loads(ledger.read_text())["rows"]
    assert [(row["kind"], row["method"], row["iterations"]) for row in rows] == [
        ("PTQ", "nearest", None),
        ("PTQ", "qdrop", 3),
    ]
    code, out, err = run(capsys, "results", "--ledger", ledger)
    assert (code, err, len(out.splitlines())) == (0, "", 3)


def test_an_empty_ledger_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("qviz.nn.runs.ledger.data_dir", lambda: tmp_path)
    monkeypatch.setattr("qviz.nn.runs.ledger.default_ledger", lambda: tmp_path / "results.json")
    code, out, _ = run(capsys, "results")
    assert code == 0
    assert "no results yet" in out
