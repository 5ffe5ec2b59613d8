import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qviz import CellBorder, Fixed, Quantizer, Stochastic, post, recipes, uniform
from qviz.nn.layers import QuantConv2d, QuantLinear
from qviz.nn.train import History, Series, fit
from qviz.nn.train.history import BUDGETS
from qviz.nn.train.oscillation import Oscillations, Places, QuantizedWeights
from qviz.nn.train.recorder import Recorder
from tests.nn.training import Blobs, assert_same_history, config, quantized


def trained(model, **rest):
    how = rest.pop("how", None) or config()
    return fit(model, Blobs(), how, progress=False, **rest)


# series


def filled(steps, *, stride=1, budget=10**6, start=None):
    series = Series({"a": 1, "b": 2}, stride=stride, budget=budget) if start is None else start
    for step in steps:
        series.append(step, [step, 2 * step, -step])
    return series


@given(
    count=st.integers(0, 300), stride=st.integers(1, 5), budget=st.integers(0, 2000), cut=st.integers(0, 300)
)
def test_a_series_keeps_its_budget_and_forgets_nothing_on_the_way(count, stride, budget, cut):
    whole = filled(range(count), stride=stride, budget=budget)
    assert whole.steps == list(range(0, count, whole.stride))
    assert whole.nbytes <= budget or len(whole) <= 2
    assert (
        whole.stride == stride or len(whole) * 4 * 20 > budget or len(whole) <= 2
    )  # not thinner than needed
    assert (whole["a"] == whole.steps).all()
    assert (whole["b"] == np.stack([2 * whole["a"], -whole["a"]], 1)).all()
    part = filled(range(min(cut, count)), stride=stride, budget=budget)
    part = filled(range(min(cut, count), count), start=Series.rebuild(part.describe(), *part.arrays()))
    assert part.describe() == whole.describe()
    assert part.steps == whole.steps
    assert (part.arrays()[1] == whole.arrays()[1]).all()


def test_a_full_series_keeps_every_second_record():
    assert filled(range(10), budget=10 * 20).steps == list(range(10))
    assert filled(range(11), budget=10 * 20).steps == [0, 2, 4, 6, 8, 10]


@given(ends=st.lists(st.integers(1, 60), min_size=1, max_size=4), budget=st.integers(0, 800))
def test_a_series_that_was_closed_goes_on_as_if_it_had_not_been(ends, budget):
    closed, begin = filled([], stride=3, budget=budget), 0
    for end in np.cumsum(ends).tolist():
        closed.reopen()
        for step in range(begin, end):
            closed.append(step, [step, 0, 0])
        closed.close(end, [end, 0, 0])
        whole = filled(range(end + 1), stride=3, budget=budget)
        assert closed.steps == whole.steps + [end] * (end not in whole.steps)
        assert closed["a"].tolist() == closed.steps
        begin = end + 1


def test_what_a_series_refuses():
    series = filled(range(3))
    with pytest.raises(ValueError, match="a row has 3 numbers"):
        series.append(3, [1.0])
    with pytest.raises(ValueError, match="step 2 does not come after step 2"):
        series.append(2, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        Series({"a": 1}, stride=0)
    with pytest.raises(ValueError, match=r"shape \(3, 2\) where \(3, 3\)"):
        Series.rebuild(series.describe(), series.arrays()[0], series.arrays()[1][:, :2])


def test_an_empty_series_takes_nothing():
    series = Series({})
    series.append(0, [])
    series.close(1, [])
    assert len(series) == 0


# history


def test_save_and_load(tmp_path):
    history = trained(quantized(), val=Blobs(20, 10, train=False))
    history.save(tmp_path / "h.safetensors")
    again = History.load(tmp_path / "h.safetensors")
    assert_same_history(history, again)
    assert again.epochs == history.epochs
    assert again.names == history.names
    for name in history.names:
        for one, two in zip(history[name], again[name], strict=True):
            assert one.dtype == two.dtype
            assert (one == two).all()
    with pytest.raises(KeyError, match="no column 'accuracy'"):
        history["accuracy"]


def test_load_from_a_runs_folder(tmp_path):
    history = trained(quantized(), folder=tmp_path)
    assert_same_history(history, History.load(tmp_path))
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / "checkpoints" / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        History.load(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_history_is_named(tmp_path, content):
    path = tmp_path / "h.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is no History, or is damaged"):
        History.load(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_run_of_a_large_net_takes_at_most_5_megabytes(tmp_path):
    history = History({"config": "x" * 3000})
    history.scalars = Series({f"s{i}": 17 for i in range(60)}, stride=10, budget=BUDGETS["scalars"])
    history.vectors = Series({f"v{i}": 48 for i in range(60)}, stride=100, budget=BUDGETS["vectors"])
    for step in range(1, 120_001):
        history.curve.append(step, [1.0, 2.0, 3.0])
        for series in (history.scalars, history.vectors):
            if series.wants(step):
                series.append(step, np.zeros(series.width))
    history.epochs = [dict.fromkeys(("epoch", "val_top1", "train_loss"), 0.123456789) for _ in range(400)]
    history.save(tmp_path / "h")
    assert 2_500_000 < (tmp_path / "h").stat().st_size < 5_000_000
    assert len(history.curve) > 20_000
    assert len(history.scalars) > 350


def test_the_best_epoch_is_the_first_of_the_highest_on_val():
    history = History()
    tops = [0.5, 0.7, 0.6, 0.7, None, 0.9]
    found = [
        history.add(
            {"epoch": i + 1, "steps": 10 * i} | ({} if top is None else {"val_top1": top}), full=i != 5
        )
        for i, top in enumerate(tops)
    ]
    assert found == [True, True, False, False, False, False]  # the last one was cut short
    assert history.best == {"epoch": 2, "steps": 10, "val_top1": 0.7}
    assert len(history.epochs) == 6


def test_lines_are_ready_to_be_drawn():
    history = trained(quantized(), val=Blobs(20, 10, train=False))
    for figure in ("loss", "top1"):
        found = history.lines(figure)
        assert list(found) == ["training", "held-out"]
        for got, wanted in zip(found["training"], history[figure], strict=True):
            assert (got == wanted).all()
        steps, values = found["held-out"]
        assert steps.tolist() == [row["steps"] for row in history.epochs] == [6, 12, 18]
        assert values.tolist() == pytest.approx([row[f"val_{figure}"] for row in history.epochs])
    assert list(history.lines("loss", "DAQ W2A2")) == ["DAQ W2A2 training", "DAQ W2A2 held-out"]
    with pytest.raises(ValueError, match="figure must be 'loss' or 'top1', got 'lr'"):
        history.lines("lr")


def test_without_held_out_images_there_is_one_line():
    assert list(trained(quantized()).lines("top1")) == ["training"]
    history = History()
    history.epochs = [{"steps": 6, "val_loss": 2.0}, {"steps": 12}]  # the second was cut short
    assert history.lines("loss")["held-out"][0].tolist() == [6]


def test_one_number_a_layer_is_ready_to_be_drawn():
    history = History()
    history.scalars = Series({"a.step": 1, "b.step": 1, "c.levels": 2}, budget=1000)
    history.scalars.append(0, [2.0, -4.0, 0.0, 1.0])
    history.scalars.append(5, [-1.0, -6.0, 0.0, 1.0])
    steps, values = history.layers("step")
    assert steps.tolist() == [0, 5]
    assert values.tolist() == [[2.0, -4.0], [-1.0, -6.0]]
    assert history.layers("step", relative=True)[1].tolist() == [[1.0, 1.0], [0.5, 1.5]]
    with pytest.raises(ValueError, match=r"c\.levels holds 2 numbers"):
        history.layers("levels")
    with pytest.raises(KeyError, match="ends with 'nowhere'"):
        history.layers("nowhere")


def test_repr_says_how_it_went():
    text = repr(trained(quantized(), test=Blobs(20, 10, train=False)))
    assert text.startswith("History(18 steps, 3 epochs, finished, test_top1 0.")


# recorder


def test_the_records_are_what_the_model_had():
    model, seen = quantized(), {}

    def look(step, history):
        clip = model[8].weight_quantizer.range.clip.detach()
        seen[step] = {
            "3.input_quantizer.range.step": model[3].input_quantizer.range.step.item(),
            "8.weight_quantizer.range.clip": clip.tolist(),
            "master": model[3].weight.detach().flatten().clone(),
            "quantized": model[3].weight_quantizer(model[3].weight).detach().flatten(),
            "levels": model[3].weight_quantizer.codebook.levels.tolist(),
        }

    look(0, None)
    history = trained(model, on_step=look, how=config(epochs=5))
    steps, values = history["3.input_quantizer.range.step"]
    assert steps.tolist() == list(range(0, 31, 2))
    assert values.tolist() == [np.float32(seen[s]["3.input_quantizer.range.step"]) for s in steps]
    steps, values = history["8.weight_quantizer.range.clip"]
    assert values.shape == (16, 6)
    assert values.tolist() == [np.float32(seen[s]["8.weight_quantizer.range.clip"]).tolist() for s in steps]
    at = np.array(history.meta["tracked"]["3"])
    flat = np.ravel_multi_index(tuple(at.T), model[3].weight.shape)
    for kind in ("master", "quantized"):
        steps, values = history[f"3.weight.{kind}"]
        assert values.shape == (16, 8)
        assert (values == np.stack([seen[s][kind].numpy()[flat] for s in steps])).all(), kind
    steps, values = history["3.weight_quantizer.codebook.levels"]
    assert steps.tolist() == [0, 20, 30]  # every 20 steps, and the last one
    assert values.tolist() == [np.float32(seen[s]["levels"]).tolist() for s in steps]


def test_many_channels_are_recorded_by_three_figures():
    wide = QuantConv2d(3, 9, 3, weight_quantizer=recipes.lsq(3, channels=9))
    wide.weight_quantizer.observe(wide.weight)
    history = History()
    Recorder(nn.Sequential(wide), 1).start(history)
    step = wide.weight_quantizer.range.step.detach()
    for figure in ("mean", "min", "max"):
        value = history[f"0.weight_quantizer.range.step.{figure}"][1].item()
        assert value == getattr(step, figure)().item()


def test_the_three_figures_of_clips_and_steps_are_those_of_magnitudes():
    layer = QuantLinear(8, 20, weight_quantizer=recipes.post_weight(4, channels=20))
    layer.observe(torch.randn(9, 8))
    layer.weight_quantizer.range.clip.data[:10].neg_()
    scale = layer.weight_quantizer.scale
    history = History()
    Recorder(nn.Sequential(layer), 1).start(history)
    found = [history[f"0.weight_quantizer.range.clip.{name}"][1][0] for name in ("mean", "min", "max")]
    assert found == pytest.approx([float(v) for v in (scale.mean(), scale.min(), scale.max())])


def test_borders_knots_scales_and_levels_are_recorded():
    layers = {
        "aquant": QuantLinear(4, 3, input_quantizer=recipes.aquant_activation(3, channels=4)),
        "n2uq": QuantLinear(3, 3, input_quantizer=recipes.n2uq_activation(2)),
        "daq": QuantLinear(3, 3, weight_quantizer=recipes.daq_weight(2), standardize=True, output_scale=True),
        "ste": QuantLinear(3, 3, weight_quantizer=recipes.ste(3)),
        "asq": QuantLinear(3, 2, input_quantizer=recipes.asq_activation(2, 3)),
    }
    model = nn.Sequential()
    torch.manual_seed(0)
    x = torch.rand(16, 4)
    for name, layer in layers.items():
        layer.observe(x)
        x = layer(x).detach().abs()
        model.add_module(name, layer)
    history = History()
    Recorder(model, 3).start(history)
    assert history["aquant.input_quantizer.rounding.b"][1].shape == (1, 12)
    knots = layers["n2uq"].input_quantizer.codebook.knots.detach().numpy()
    assert (history["n2uq.input_quantizer.codebook.knots"][1][0] == knots).all()
    assert {"daq.output_scale", "daq.weight_quantizer.range.lower"} <= set(history.names)
    assert not any("adapter" in name for name in history.names)
    scale = layers["ste"].weight_quantizer.range.scale.item()
    assert history.meta["scales"] == {"ste.weight_quantizer": [scale]}
    assert history.meta["levels"]["ste.weight_quantizer"] == [-4, -3, -2, -1, 0, 1, 2, 3]
    master = history["daq.weight.master"][1][0]
    assert master.mean() == pytest.approx(0, abs=1.0)
    assert (master != layers["daq"].weight.detach().flatten().numpy()[:8]).all()  # standardized
    assert set(np.unique(history["daq.weight.quantized"][1].round(4))) <= {
        -1.0,
        np.float32(-0.3333),
        np.float32(0.3333),
        1.0,
    }


def test_recording_can_be_left_out():
    history = trained(quantized(), how=config(record_every=0))
    assert history.scalars is None
    assert history.vectors is None
    assert len(history.curve) == 18


def test_a_net_without_quantizers_is_recorded_too(tmp_path):
    from tests.nn.training import plain

    history = trained(plain(), folder=tmp_path)
    assert history.names == ["loss", "lr", "top1"]
    assert_same_history(history, History.load(tmp_path))


# oscillations


def oscillations_one_by_one(codes):
    """Count, for codes (T, n), the changes against the change before: the definition, in loops."""
    flips = [0] * len(codes[0])
    for i in range(len(codes[0])):
        before = 0
        for now, then in zip(codes[1:], codes[:-1], strict=True):
            change = int(now[i]) - int(then[i])
            if change and before and (change > 0) != (before > 0):
                flips[i] += 1
            before = change or before
    return flips


def test_oscillations_are_those_of_the_definition():
    model, codes = quantized(), {"3": [], "8": []}

    def look(step=0, history=None):
        for name in codes:
            layer = model[int(name)]
            codes[name].append(layer.weight_quantizer.codes(layer.weight).flatten())

    look()
    history = trained(model, on_step=look, how=config(epochs=6, lr=0.8))
    for name, seen in codes.items():
        layer = QuantizedWeights(name, model[int(name)])
        flat = list(layer.spread(512).flat)
        flips = oscillations_one_by_one([step[flat] for step in seen])
        assert sum(flips) > 20
        assert history[f"{name}.oscillations"][1][-1] == pytest.approx(np.mean(flips))


def test_a_worked_case():
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.zeros(4))
    layer.weight_quantizer = Quantizer(uniform(4), range=Fixed(1.0))
    counter = Oscillations([QuantizedWeights("w", layer)])
    counter.begin()
    path = [(0, 0, 0, 0), (1, 1, 2, 1), (0, 2, 2, 1), (0, 3, 1, 1), (1, 2, 2, 1), (0, 2, 3, 0)]
    for values in path[1:]:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(values, dtype=torch.float32))
        counter.update()
    assert counter.by_layer().item() == (3 + 1 + 2 + 1) / 4


@pytest.mark.parametrize(
    "make",
    [
        lambda w: recipes.lsq(3),
        lambda w: recipes.lsq(3, channels=6),
        lambda w: recipes.lsq(3, channels=5, axis=1),
        lambda w: recipes.lsq_plus(3),
        lambda w: recipes.daq_weight(3),
        lambda w: recipes.adq_weight(4),
        lambda w: recipes.dorefa_weight(3),
        lambda w: recipes.post_weight(4, channels=6),
        lambda w: recipes.adaround_weight(3, w),
        lambda w: recipes.aquant_activation(3, channels=5),
        lambda w: Quantizer(post(4), CellBorder.logarithmic(post(4)), range=Fixed(0.3)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_codes_of_watched_weights_are_the_quantizers(make, layout):
    torch.manual_seed(2)
    layer = QuantConv2d(5, 6, 3)
    layer.to(memory_format=layout)
    layer.weight_quantizer = make(layer.weight.detach())
    layer.weight_quantizer.observe(layer.weight)
    watched = QuantizedWeights("w", layer)
    at = watched.spread(100)
    assert len(at) == 100
    codes = layer.weight_quantizer.codes(layer.weight).flatten()[list(at.flat)]
    assert len(codes.unique()) > 2
    assert watched.codes(at).tolist() == codes.tolist()
    master, values = watched.values(at)
    assert torch.equal(master, layer.weight.detach().flatten()[list(at.flat)])
    assert torch.equal(values, layer.weight_quantizer(layer.weight).detach().flatten()[list(at.flat)])


def test_places_in_any_memory_order():
    x = torch.arange(120.0).view(2, 3, 4, 5)
    at = Places(x, (0, 7, 64, 119))
    for y in (x, x.to(memory_format=torch.channels_last), x.transpose(0, 3).contiguous().transpose(0, 3)):
        assert at.of(y).tolist() == [0, 7, 64, 119]
    assert at.of(torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 4, 5)).tolist() == [0, 0, 0, 2]


def test_random_roundings_are_not_watched():
    layer = QuantLinear(3, 3, weight_quantizer=Quantizer(uniform(3), Stochastic(), range=Fixed(0.1)))
    assert QuantizedWeights.of(nn.Sequential(layer)) == []
