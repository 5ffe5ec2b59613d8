"""Lab 6: mistakes are named, right answers earn all, and a file is measured without being trusted."""

import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from qviz.explore import BudgetModel, network
from qviz.explore.bit_budget_data import costs
from qviz.labs import capstone, leaderboard
from qviz.labs.variants import variant
from tests.labs import suite

NAME = "lab6-capstone"
LAB = suite.lab_of(NAME)


def size_by_logarithm(layers, floats):
    codes = sum(n * math.ceil(math.log2(k)) for n, k, _ in layers)
    return int(np.ceil((codes + 32 * (floats + sum(t for *_, t in layers))) / 8))


def size_in_numpy(layers, floats):
    n, k, t = np.array(layers).T
    return (int((n * np.ceil(np.log2(k))).sum() + 32 * (t.sum() + floats)) + 7) // 8


def size_in_torch(layers, floats):
    n, k, t = torch.tensor(layers).double().T
    return (((n * k.log2().ceil()).sum() + 32 * (t.sum() + floats)) / 8).ceil().int()


def decoded_by_hand(codes, levels, scale):
    out = np.zeros(codes.shape)
    for at in np.ndindex(*codes.shape):
        table = levels if levels.ndim == 1 else levels[at[0]]
        out[at] = table[codes[at]] * (1 if scale is None else scale[at[0]])
    return out


def decoded_by_one_hot(codes, levels, scale):
    tables = np.broadcast_to(levels, (len(codes), levels.shape[-1])).copy()
    if scale is not None:
        tables *= scale[:, None]
    hot = codes.reshape(len(codes), -1)[..., None] == np.arange(levels.shape[-1])
    return np.einsum("onk,ok->on", hot, tables).reshape(codes.shape)


def decoded_in_torch(codes, levels, scale):
    tables = levels.expand(len(codes), -1)
    found = tables.gather(1, codes.flatten(1)).view(codes.shape)
    return found if scale is None else found * scale.view(-1, *[1] * (codes.ndim - 1))


def step_by_candidates(w, bits):
    half, rows = 2 ** (bits - 1), w.reshape(len(w), -1)
    steps = np.linspace(0.2, 1.2, 21)[:, None] * np.abs(rows).max(1) / half
    on = np.clip(np.rint(rows / steps[..., None]), -half, half - 1)
    best = ((on * steps[..., None] - rows) ** 2).sum(2).argmin(0)
    pick = np.arange(len(w))
    return (on[best, pick] + half).astype(np.uint8).reshape(w.shape), steps[best, pick]


def step_in_place(w, bits):
    half, codes, steps = 2 ** (bits - 1), np.zeros(w.shape), np.zeros(len(w))
    for o in range(len(w)):
        found = []
        for i in range(21):
            step = (0.2 + 0.05 * i) * abs(w[o]).max() / half
            q = np.round(w[o] / step)
            q[q < -half] = -half
            q[q > half - 1] = half - 1
            found.append((float(((q * step - w[o]) ** 2).sum()), step, q))
        _, steps[o], q = min(found, key=lambda one: one[0])
        codes[o] = q
    codes += half
    return codes, steps


def step_in_torch(w, bits):
    half, rows = 2 ** (bits - 1), w.flatten(1)
    steps = torch.arange(4, 25).to(w) / 20 * rows.abs().amax(1, keepdim=True) / half
    on = (rows[:, None] / steps[..., None]).round().clamp(-half, half - 1)
    best = (on * steps[..., None] - rows[:, None]).square().sum(2).argmin(1, keepdim=True)
    codes = on.gather(1, best[..., None].expand(-1, 1, rows.shape[1]))[:, 0] + half
    return codes.long().view(w.shape), steps.gather(1, best)[:, 0]


ANSWERS = {
    "size": (size_by_logarithm, size_in_numpy, size_in_torch),
    "decode": (decoded_by_hand, decoded_by_one_hot, decoded_in_torch),
    "best_step": (step_by_candidates, step_in_place, step_in_torch),
}


def test_the_lab_is_complete():
    suite.complete(NAME)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize(("question", "mistake"), suite.mistakes(NAME))
def test_a_mistake_is_hinted_with_its_own_hint(question, mistake, students):
    suite.hinted_with_its_own(NAME, question, mistake, students)


@pytest.mark.parametrize("students", suite.STUDENTS)
@pytest.mark.parametrize("question", suite.functions(NAME))
def test_right_answers_of_every_style_earn_all(question, students):
    solved = suite.as_handed_out(NAME, True)[question]
    for answer in (solved, *ANSWERS[question]):
        suite.earns_all(NAME, question, students, answer, "torch" if "torch" in answer.__name__ else "numpy")


@pytest.mark.parametrize("question", suite.functions(NAME))
def test_public_tests_pass_with_the_solution_and_a_blank_earns_nothing(question):
    suite.public_tests(NAME, question, suite.as_handed_out(NAME, True))
    torch_space = {**suite.as_handed_out(NAME, True, ARRAYS="torch"), question: ANSWERS[question][2]}
    suite.public_tests(NAME, question, torch_space)
    space = suite.as_handed_out(NAME, False)
    with pytest.raises(NotImplementedError, match=question):
        suite.public_tests(NAME, question, space)
    assert suite.verdict(NAME, question, 0, space[question]).points == 0


def test_bits_spent_by_hand_are_judged_by_average_and_sum():
    asked = LAB.question("spent")
    for params in LAB.variants:
        mine = replace(variant(LAB, suite.SECRET), params=params)
        best = asked.answer(mine)
        explorer = BudgetModel()
        assert all(asked.check(mine, explorer.state(explorer.restored(best))).values()), params
        assert list(asked.check(mine, {**best, "bits": [6] * 20}).values()) == [True, False, False]
        assert list(asked.check(mine, {**best, "bits": [2] * 20}).values()) == [True, True, False]
        assert not any(asked.check(mine, {**best, "way": "exact"}).values())
    with pytest.raises(ValueError, match="20 layers"):
        asked.check(mine, {**best, "bits": [2]})
    written = json.loads(suite.as_handed_out(NAME, True)["spent"])
    assert all(asked.check(replace(mine, params=LAB.variants[0]), written).values())


@pytest.fixture(scope="module")
def parts():
    """A file's parts with every code 0 and two levels."""
    found = {}
    for name, shape in capstone.layers().items():
        found[f"{name}.codes"] = np.zeros(shape, np.uint8)
        found[f"{name}.levels"] = np.array([0.0, 1.0], np.float32)
    return found


ABOUT = {"name": "Zoë", "method": "zeros"}


def test_a_file_comes_back_and_its_size_is_that_of_the_formula(parts, tmp_path):
    path = tmp_path / "network.safetensors"
    save_file(parts, path, metadata=ABOUT)
    plain = capstone.read(str(path))
    assert plain.about == ABOUT
    assert plain.bytes == math.ceil((268_336 + 32 * 20 * 2 + 32 * (2 * 2 * 688 + 10)) / 8)
    fc = capstone.Packed(np.full((10, 64), 2), np.tile([1.0, 2.0, 3.0], (10, 1)), np.arange(10.0))
    bias = np.arange(10.0)
    own = capstone.Handed({**plain.layers, "fc": fc}, {"fc.bias": bias})
    read = capstone.read(capstone.write(path, own, name="n", method="m"))
    assert read.bytes == plain.bytes + 640 // 8 + 4 * (30 + 10 - 2)
    net = read.network()
    assert torch.equal(net.fc.weight.detach(), (3 * torch.arange(10.0))[:, None].expand(10, 64))
    assert net.fc.bias.tolist() == bias.tolist()
    assert torch.equal(net.bn1.weight, network.resnet20().bn1.weight)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fc.codes": np.zeros((64, 10), np.uint8)}, r"fc.codes has shape \(10, 64\)"),
        ({"fc.codes": np.zeros((10, 64), np.float32)}, "uint8, got"),
        ({"fc.codes": np.full((10, 64), 2, np.uint8)}, "a code 2, but there are 2 levels"),
        ({"fc.levels": np.zeros(1, np.float32)}, "K from 2 to 256"),
        ({"fc.levels": np.zeros((9, 2), np.float32)}, r"\(K,\) or \(10, K\)"),
        ({"fc.levels": np.zeros(2, np.float64)}, "got F64"),
        ({"fc.levels": np.array([0, np.nan], np.float32)}, "not finite"),
        ({"fc.levels": np.array([0, 1e30], np.float32)}, "beyond 10,000"),
        ({"fc.scale": np.zeros(9, np.float32)}, r"fc.scale has shape \(10,\)"),
        ({"bn1.running_var": np.full(16, -1, np.float32)}, "is a variance"),
        ({"bn1.weight": np.zeros(1, np.float32)}, r"bn1.weight has shape \(16,\)"),
        ({"conv1.weight": np.zeros((16, 3, 3, 3), np.float32)}, "'conv1.weight' that is not of the format"),
        ({"fc.codes": None}, "fc.codes is missing"),
    ],
)
def test_a_file_of_another_form_is_refused_in_a_sentence(parts, tmp_path, change, says):
    path = tmp_path / "network.safetensors"
    changed = {key: value for key, value in {**parts, **change}.items() if value is not None}
    save_file(changed, path, metadata=ABOUT)
    with pytest.raises(ValueError, match=says):
        capstone.read(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no safetensors file"),
        (b"\x80\x04\x95pickled?", "the header"),
        (struct.pack("<Q", 2**60) + b"{}", "the header"),
        (struct.pack("<Q", 900_000) + b'{"a":' + b"[" * 899_995, "no safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "conv1.codes is missing"),
        (bytes(2_000_001), "2,000,000 bytes"),
        (
            struct.pack("<Q", 65)
            + b'{"a":{"dtype":"F32","shape":[1073741824,4],"data_offsets":[0,4]}}'
            + bytes(4),
            "no safetensors",
        ),
    ],
)
def test_garbage_is_refused_in_a_sentence(tmp_path, data, says):
    path = tmp_path / "network.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=says):
        capstone.read(path)


@pytest.mark.parametrize(
    "about", [None, {"name": "x"}, {"name": "x\ny", "method": "m"}, {"name": "x", "method": "m" * 401}]
)
def test_a_file_says_whose_it_is_and_how_it_was_made(parts, tmp_path, about):
    path = tmp_path / "network.safetensors"
    save_file(parts, path, metadata=about)
    with pytest.raises(ValueError, match="a line of 1 to"):
        capstone.read(path)


def test_the_reference_curves_are_those_of_the_committed_measurements():
    at_three_bits = math.ceil((3 * 268_336 + 32 * (688 + 10 + 20 * 8 + 2762)) / 8)
    plain, spent = leaderboard.reference(at_three_bits)
    assert plain == pytest.approx(91.15 - 64.55, abs=0.01)
    assert 3 < spent < 8
    for params in LAB.variants:
        plain, spent = leaderboard.reference(params["BUDGET"])
        assert plain - spent > 15, "points go by a difference that 500 images can tell"


def handed(bits):
    grids = suite.cases_of(NAME).best_step
    found = {}
    for name, b in bits.items():
        codes, steps = grids(network.resnet20().get_submodule(name).weight.detach().numpy(), b)
        found[name] = capstone.Packed(codes, np.arange(-(2 ** (b - 1)), 2 ** (b - 1)), steps)
    return capstone.Handed(found)


@pytest.mark.slow
def test_a_file_earns_by_accuracy_within_its_budget(tmp_path):
    asked = LAB.question("network")
    mine = replace(variant(LAB, suite.SECRET), params=LAB.variants[4])
    spent = dict(zip(costs().names, costs().spent("exact", "Fisher", 2.75), strict=True))
    earned = {}
    for name, bits in (
        ("equal", dict.fromkeys(spent, 2)),
        ("allocated", spent),
        ("large", dict.fromkeys(spent, 4)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        path = capstone.write(folder / asked.file, handed(bits), name=name, method="rounded")
        earned[name], sentences = asked.measure(mine, path)
        assert all(sentence.endswith(".") for sentence in sentences)
    assert earned["equal"] == 3
    assert 7 < earned["allocated"] <= 12
    assert earned["large"] == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / asked.file).write_bytes(b"no file")
    ranked = leaderboard.ranked(tmp_path, images=100)
    assert [entry.folder for entry in ranked] == ["large", "allocated", "equal", "broken"]
    assert leaderboard.text(ranked).count("\n") == 4
