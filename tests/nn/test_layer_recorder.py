"""LayerRecorder: what it writes down is what happened, recomputed from the weights themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from qviz import recipes
from qviz.nn import LayerRecorder, LayerRecording, TrainConfig, adapt, calibrate, convert, fit

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(64, 6, generator=GENERATOR).relu()
Y = torch.randint(3, (64,), generator=GENERATOR)


def net(method: str = "lsq", bits: int = 3) -> torch.nn.Module:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    convert(model, pair=recipes.pair(method, bits), batch=X, first_last="quantized")
    calibrate(model, X, batchnorm=False)
    return model.train()


def trained(method: str, steps: int = 12, lr: float = 0.5, **how) -> tuple[LayerRecording, list]:
    """A recording, and the float64 weight and the quantizer's output at each step."""
    model = net(method)
    recorder, layer = LayerRecorder(model, "0", **how), model[0]
    optimizer = torch.optim.SGD(model.parameters(), lr)
    seen = []

    def see():
        with torch.no_grad():
            w = layer.normalized_weight()
            seen.append((w.flatten().double().numpy(), layer.weight_quantizer(w).flatten().double().numpy()))

    see()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        adapt(model)
        recorder(step, loss=loss.item())
        see()
    return recorder.recording(), seen


@pytest.mark.parametrize("method", ["ste", "lsq", "daq", "adq", "post"])
def test_codes_levels_and_counts_are_those_of_the_layer(method):
    made, seen = trained(method, weights=96)
    assert made.steps.tolist() == list(range(13))
    assert made.about["places"] == list(range(96))
    last, count = np.zeros(96), []
    for r, (w, y) in enumerate(seen):
        code = made.codes[r].astype(int)
        if method != "post":
            np.testing.assert_allclose(made.master[r], w, rtol=1e-6)
        if method in ("ste", "lsq", "adq"):  # their output is the level, in the weight's unit
            np.testing.assert_allclose(made.quantized[r], y, rtol=1e-5, atol=1e-7)
        below = (made.values["weight borders"][r][:, None] < made.master[r]).sum(0)
        assert (below != code).mean() < 0.02  # float32 ties aside, the code counts the borders below
        if r:
            change = np.sign(code - made.codes[r - 1].astype(int))
            count.append(((change != 0).mean(), (change * last < 0).mean()))
            last = np.where(change != 0, change, last)
    np.testing.assert_allclose(made.changed[1:], [c for c, _ in count], rtol=1e-6)
    np.testing.assert_allclose(made.returned[1:], [c for _, c in count], rtol=1e-6)
    assert made.changed[1:].max() > 0
    assert made.changed[0] == made.returned[0] == 0


def test_cells_are_fractions_of_codes():
    made, _ = trained("adq")
    assert np.abs(made.in_cells - made.codes).max() <= 0.5 + 1e-5
    at, levels = made.in_cells[3, 7], made.levels[3]
    k = int(at)
    assert made.master[3, 7] == pytest.approx(levels[k] + (at - k) * (levels[k + 1] - levels[k]), rel=1e-6)


def test_chosen_steps_become_frames_and_counts_stay_a_step():
    every, _ = trained("lsq")
    some, _ = trained("lsq", every=[4, 12])
    assert some.steps.tolist() == [0, 4, 12]
    np.testing.assert_array_equal(some.codes, every.codes[[0, 4, 12]])
    for name in ("changed", "returned"):
        rows = getattr(every, name)
        wanted = [0, rows[1:5].mean(), rows[5:].mean()]
        np.testing.assert_allclose(getattr(some, name), wanted, rtol=1e-5)
    assert trained("lsq", every=5)[0].steps.tolist() == [0, 5, 10]
    assert [some.frame(step) for step in (0, 3, 4, 11, 12, 99)] == [0, 0, 1, 1, 2, 2]


def test_parameters_of_both_quantizers_are_recorded():
    made, _ = trained("daq")
    low, high, levels = (made.values[f"weight {name}"] for name in ("range.lower", "range.upper", "levels"))
    np.testing.assert_allclose(levels[:, [0]], low, rtol=1e-5)
    np.testing.assert_allclose(levels[:, [-1]], high, rtol=1e-5)
    assert {"input range.upper", "input borders", "output scale"} <= set(made.values)


def test_fit_hands_over_the_losses():
    class Batches(list):
        batch_size = 16

    train = Batches((X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16))
    model = net()
    recorder = LayerRecorder(model, "2", name="mine")
    history = fit(
        model, train, TrainConfig(epochs=2, batch_size=16, lr=0.1), on_step=recorder, progress=False
    )
    made = recorder.recording()
    assert (made.name, len(made)) == ("mine", 9)
    assert np.isnan(made.loss[0])
    np.testing.assert_array_equal(made.loss[1:], history["loss"][1])
    np.testing.assert_array_equal(made.top1[1:], history["top1"][1])


def test_recording_disturbs_nothing():
    ends = []
    for watch in (False, True):
        model = net("adq")
        step = LayerRecorder(model, "0") if watch else None
        fit(model, [(X, Y)] * 3, TrainConfig(epochs=1, batch_size=64, lr=0.1), on_step=step, progress=False)
        ends.append({k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_file_holds_all_of_it(tmp_path):
    made, _ = trained("adq", name="an own run", about={"bits": 3})
    made.save(tmp_path / "run.safetensors")
    read = LayerRecording.load(tmp_path / "run.safetensors")
    assert read.about == made.about
    assert set(read.values) == set(made.values)
    for name in ("steps", "master", "codes", "loss", "changed", "levels"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))


def test_other_files_are_refused_by_name(tmp_path):
    import pickle

    from safetensors.numpy import save

    path = tmp_path / "run.safetensors"
    for content in (b"", b"PK\x03\x04", pickle.dumps({"steps": 1}), save({"steps": np.arange(3)})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.safetensors is no LayerRecording"):
            LayerRecording.load(path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", np.array([0, 1, 1]), "increase"),
        ("steps", np.array([0, 1]), "do not fit"),
        ("codes", np.full((3, 4), 9, np.uint8), "code 9 has no level"),
        ("codes", np.zeros((3, 5), np.uint8), "do not fit"),
        ("master", np.full((3, 4), np.nan, np.float32), "NaN"),
        ("about", {"name": "x"}, "about needs"),
    ],
)
def test_what_does_not_fit_is_refused(field, value, says):
    row = np.zeros(3, np.float32)
    fields = {
        "steps": np.arange(3),
        "master": np.zeros((3, 4), np.float32),
        "codes": np.zeros((3, 4), np.uint8),
        **dict.fromkeys(("loss", "top1", "changed", "returned"), row),
        "values": {"weight levels": np.tile(np.arange(4.0), (3, 1))},
        "about": {"name": "x", "layer": "0", "shape": [4], "places": [0, 1, 2, 3]},
    }
    LayerRecording(**fields)
    with pytest.raises(ValueError, match=says):
        LayerRecording(**fields | {field: value})


def test_wrong_arguments_are_named():
    model = net()
    for how, says in (({"layer": "1"}, "no layer '1'"), ({"weights": 0}, "weights"), ({"every": 0}, "every")):
        with pytest.raises(ValueError, match=says):
            LayerRecorder(**{"model": model, "layer": "0"} | how)
