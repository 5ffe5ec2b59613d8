import errno
import hashlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qviz.core._files import locked
from qviz.nn import download
from qviz.nn.weights import PUBLISHED, cache_dir, fetch, load_weights
from tests.nn.serve import serving

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def quiet(monkeypatch):
    """No wait for a server that says nothing."""
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


# fetch


@pytest.mark.parametrize("digits", [SHA256, SHA256[:8], SHA256.upper()])
def test_a_file_is_downloaded_once(tmp_path, digits):
    with serving(CONTENT) as site:
        path = fetch(site.url, tmp_path / "new" / "folder", digits, progress=False)
        assert path == tmp_path / "new" / "folder" / "file.bin"
        assert path.read_bytes() == CONTENT
        assert fetch(site.url, tmp_path / "new" / "folder", digits, progress=False) == path
    assert site.asked == [None]
    assert names(path.parent) == ["file.bin"]
    assert fetch(site.url, path.parent, digits) == path, "the server is gone, the file is there"


def test_a_wrong_hash_names_both_and_leaves_nothing(tmp_path):
    with serving(CONTENT) as site, pytest.raises(ValueError, match=f"{SHA256}, expected {'0' * 64}"):
        fetch(site.url, tmp_path, "0" * 64, progress=False)
    assert names(tmp_path) == []


def test_an_old_file_stays_until_a_right_one_is_there(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"old")
    with serving(CONTENT) as site:
        with pytest.raises(ValueError, match="nothing was kept"):
            fetch(site.url, tmp_path, "0" * 8, progress=False)
        assert (tmp_path / "file.bin").read_bytes() == b"old"
        assert fetch(site.url, tmp_path, SHA256, progress=False).read_bytes() == CONTENT


def test_without_a_length_the_hash_decides(tmp_path):
    with serving(CONTENT, length=False) as site:
        assert fetch(site.url, tmp_path, SHA256, progress=False).read_bytes() == CONTENT
    with serving(CONTENT, length=False, cuts=[1000] * 9) as site, pytest.raises(ValueError, match="expected"):
        fetch(site.url, tmp_path / "b", SHA256, progress=False)


def test_http_errors_are_one_sentence(tmp_path):
    words = r"^http\S+file.bin answered HTTP 404 \(Not Found\)\.$"
    with serving(CONTENT, status=404) as site, pytest.raises(ConnectionError, match=words):
        fetch(site.url, tmp_path, SHA256)
    assert site.asked == [None]
    assert names(tmp_path) == []


def test_offline_is_one_sentence(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"^http\S+ cannot be reached; are you offline\? \(.*refused"):
        fetch(f"http://127.0.0.1:{port}/file.bin", tmp_path, SHA256)


@pytest.mark.slow
def test_two_processes_share_one_download(tmp_path):
    code = "import sys; from qviz.nn.weights import fetch; fetch(*sys.argv[1:], progress=False)"
    with serving(CONTENT) as site:
        command = [sys.executable, "-c", code, site.url, str(tmp_path), SHA256]
        running = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
        assert [process.wait(60) for process in running] == [0, 0]
    assert site.asked == [None]
    assert names(tmp_path) == ["file.bin"]


def test_a_cut_download_is_told_and_starts_again(tmp_path):
    with serving(CONTENT, cuts=[300_000]) as site:
        with pytest.raises(ConnectionError, match=r"file\.bin stopped after [\d,]+ bytes"):
            fetch(site.url, tmp_path, SHA256, progress=False)
        assert names(tmp_path) == []
        assert fetch(site.url, tmp_path, SHA256, progress=False).read_bytes() == CONTENT


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    with pytest.raises(OSError, match=r"No space left on device.*file\.bin\.part") as caught:
        fetch("http://127.0.0.1:9/file.bin", tmp_path, SHA256, progress=False)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.usefixtures("quiet")
def test_a_silent_server_does_not_hang(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(ConnectionError, match="timed out"):
        fetch(f"http://127.0.0.1:{deaf.getsockname()[1]}/file.bin", tmp_path, SHA256)


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    inside, most = 0, 0

    def enter():
        nonlocal inside, most
        for _ in range(30):
            with locked(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_without_tqdm_there_is_no_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with serving(CONTENT) as site:
        assert fetch(site.url, tmp_path, SHA256).read_bytes() == CONTENT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.org/b", "a.org/b", "http://a.org/", "http:///b"]
)
def test_other_urls_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="url must be"):
        fetch(url, tmp_path, SHA256)


@pytest.mark.parametrize("digits", ["", "abc", "g" * 64, "0" * 65, None])
def test_half_a_hash_is_refused(tmp_path, digits):
    with pytest.raises(ValueError, match="hexadecimal digits"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path, digits)


def test_qviz_data_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("QVIZ_DATA", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("QVIZ_DATA", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("QVIZ_DATA")
    assert cache_dir() == Path.home() / ".cache" / "qviz"


# load_weights


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def changed(model):
    return {k: v + 1 for k, v in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files_of_both_kinds(tmp_path, suffix):
    model = Net()
    state, path = changed(model), tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert load_weights(model, path, sha256=digest(path)) is model
    assert equal(model.state_dict(), state)
    assert equal(load_weights(Net(), str(path)).state_dict(), state)


def test_a_url_brings_its_hash_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("QVIZ_DATA", str(tmp_path / "home"))
    model = Net()
    torch.save(changed(model), tmp_path / "w.pth")
    content, digits = (tmp_path / "w.pth").read_bytes(), digest(tmp_path / "w.pth")
    with serving(content, name=f"net-{digits[:8]}.pth") as site:
        load_weights(model, site.url, progress=False)
        load_weights(model, site.url, progress=False)
    assert len(site.asked) == 1
    assert names(tmp_path / "home" / "weights") == [f"net-{digits[:8]}.pth"]
    with serving(content, name="net-00000000.pth") as site, pytest.raises(ValueError, match=digits):
        load_weights(model, site.url, progress=False)
    with serving(content, name="net.pth") as site:
        with pytest.raises(ValueError, match="carries no hash"):
            load_weights(model, site.url)
        load_weights(model, site.url, sha256=digits, folder=tmp_path / "here", progress=False)
    assert names(tmp_path / "here") == ["net.pth"]


def test_a_wrong_hash_loads_nothing(tmp_path):
    model = Net()
    torch.save(changed(model), tmp_path / "w.pth")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"{digest(tmp_path / 'w.pth')}, expected {'0' * 64}"):
        load_weights(model, tmp_path / "w.pth", sha256="0" * 64)
    assert equal(model.state_dict(), before)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    model = Net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = changed(model)
    state["2.weight"] = torch.zeros(2, 5)
    del state["0.bias"]
    state |= {f"more.{i}": torch.zeros(1) for i in range(6)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not fit Net") as caught:
        load_weights(model, tmp_path / "w.pth")
    assert str(caught.value) == (
        "w.pth does not fit Net: missing: 0.bias; unexpected: more.0, more.1, more.2, more.3 and 2 more; "
        "of another shape: 2.weight ((2, 5) in the file, (2, 4) in the model); nothing was loaded."
    )
    assert equal(model.state_dict(), before)


def test_old_files_lack_a_counter(tmp_path):
    model = Net()
    state = changed(model)
    del state["1.num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()["1.running_var"], state["1.running_var"])
    assert model.state_dict()["1.num_batches_tracked"] == 0


def test_dtype_and_grad_of_the_model_stay(tmp_path):
    torch.save(changed(Net().half()), tmp_path / "w.pth")
    model = load_weights(Net().requires_grad_(False), tmp_path / "w.pth")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.parameters())


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize(
    "save", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap, protocol=2))]
)
def test_code_in_a_file_is_never_run(tmp_path, save):
    save({"0.weight": Trap(tmp_path / "proof")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="run code"):
        load_weights(Net(), tmp_path / "w.pth")
    assert names(tmp_path) == ["w.pth"]


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"<html>no</html>" * 9]
)
def test_damaged_files_are_named(tmp_path, name, damage):
    state, path = Net().state_dict(), tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{name} (cannot be read|is damaged)"):
        load_weights(Net(), path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [([torch.zeros(2)], "a list"), ({1: torch.zeros(2)}, "a dict"), (torch.zeros(2), "a Tensor")],
)
def test_other_contents_are_named(tmp_path, content, kind):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"{kind}, not a state dict"):
        load_weights(Net(), tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_what_a_training_saved_loads(tmp_path, key):
    state = changed(Net())
    torch.save({key: {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "w.pth")
    assert equal(load_weights(Net(), tmp_path / "w.pth").state_dict(), state)
    with pytest.raises(
        ValueError, match=rf"w.pth \(what is under '{key}', names without .*'module.'\) does not"
    ):
        load_weights(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "w.pth")
    wrapped = torch.nn.DataParallel(Net())
    assert equal(load_weights(wrapped, tmp_path / "w.pth").module.state_dict(), state)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_weights(Net(), tmp_path / "none.pth")


def test_published_names_carry_their_hashes():
    assert {name: url.rsplit("-", 1)[1] for name, url in PUBLISHED.items()} == {
        "resnet18": "f37072fd.pth",
        "resnet34": "b627a593.pth",
        "mobilenet_v2": "b0353104.pth",
    }


@pytest.mark.slow
def test_importing_the_rooms_is_light():
    code = """
import json, sys, torch
before = set(sys.modules)
import qviz.nn, qviz.nn.models, qviz.nn.weights, qviz.nn.data
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"PIL", "tqdm", "accelerate", "matplotlib"} & set(json.loads(done.stdout))


def test_versions_of_modules_reach_their_loading(tmp_path):
    """torchvision's MNASNet reads its version from a state dict's metadata, and refuses without."""

    class Versioned(torch.nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *rest):
            self.seen = metadata.get("version")
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    model = Versioned(2, 2)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    load_weights(model, tmp_path / "net.pth")
    assert model.seen == 2
