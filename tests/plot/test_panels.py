"""The numbers of the panels, against numpy on the raw values."""

import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import qviz.plot
from qviz import (
    MSE,
    Codebook,
    Fixed,
    MinMax,
    Quantizer,
    Stochastic,
    Summary,
    apot,
    lloyd,
    post,
    pot,
    recipes,
    uniform,
)
from qviz.measure.measured import Measured
from qviz.plot import panels
from qviz.plot.scene import Band, Bars, Line, Rug, Steps
from tests import oracles
from tests.slow import slow

PANELS = {
    "levels": panels.levels,
    "staircase": panels.staircase,
    "error": panels.error,
    "contribution": panels.contribution,
}
BOOKS = [uniform(3, signed=False), post(4), Codebook([-1.0, -0.3, 0.2, 1.0])]
UNLIKE = Codebook([-1.0, 0.0, 0.4, 1.0], [-0.9, 0.1, 0.3, 1.1], name="levels unlike knots")


def ids(book):
    return book.name if isinstance(book, Codebook) else None


@pytest.fixture(scope="module")
def x():
    g = torch.Generator().manual_seed(5)
    return torch.randn(9, 400, generator=g, dtype=torch.float64) * torch.linspace(0.5, 2, 9)[:, None]


def direct(x, book, scale, offset=0.0):
    """Code and output of every value, by the oracle's loop."""
    code = oracles.codes((x - offset) / scale, book.borders.tolist())
    return code, oracles.dequantize(code, book.levels.tolist(), scale, offset)


def marks(panel, kind):
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def treads(line):
    """Left end, right end and height of each step of a line that NaN breaks; checks that form."""
    xs, ys = (np.append(v, np.nan).reshape(-1, 3) for v in (line.x, line.y))
    assert np.isnan(xs).tolist() == np.isnan(ys).tolist() == [[False, False, True]] * len(xs)
    assert np.array_equal(ys[:, 0], ys[:, 1])
    return xs[:, 0], xs[:, 1], ys[:, 0]


def read(line, at):
    """Height of the staircase; a value on a border belongs to the step below."""
    left, right, y = treads(line)
    assert np.array_equal(left[1:], right[:-1])
    return y[np.clip(np.searchsorted(right, at, side="left"), 0, len(y) - 1)]


# --- levels -----------------------------------------------------------------------------------------------


def test_histogram_is_numpys_and_adds_up_to_all_values(x):
    (bars,) = marks(panels.levels(x, pot(4), bins=37), Bars)
    values = x.numpy().ravel()
    assert len(bars.heights) == 37
    assert bars.edges[0] <= values.min() < values.max() <= bars.edges[-1]
    assert bars.heights.sum() == pytest.approx(100)
    np.testing.assert_allclose(bars.heights, np.histogram(values, bars.edges)[0] / values.size * 100)


def test_a_bar_that_would_flatten_all_others_is_cut_off_and_named():
    values = torch.cat([torch.linspace(-1, 1, 1000), torch.zeros(2000)])
    panel = panels.levels(values, pot(3), bins=100)
    bars, rug = panel.marks
    heights = np.sort(bars.heights)
    assert heights[-1] > 60
    assert heights[-2] < rug.low < 3 * heights[-2]
    assert bars.label == f"x ({heights[-1]:.0f} % near 0, cut off)"
    assert f"The tallest bar, {heights[-1]:.0f} % near 0, is cut off." in panel.text
    assert panels.levels(torch.linspace(-1, 1, 1000), pot(3)).marks[0].label == "x"


@pytest.mark.parametrize("book", [post(4), UNLIKE], ids=ids)
def test_ruler_stands_at_scale_times_level(x, book):
    (rug,) = marks(panels.levels(x, Quantizer(book, range=Fixed(0.37))), Rug)
    np.testing.assert_allclose(rug.x, [0.37 * v for v in book.levels.tolist()])


def test_ruler_moves_with_the_offset(x):
    (rug,) = marks(panels.levels(x, Quantizer(uniform(2), range=Fixed(0.5, 0.1))), Rug)
    np.testing.assert_allclose(rug.x, [-0.9, -0.4, 0.1, 0.6])


def test_ruler_of_channels_has_the_median_scale(x):
    q = Quantizer(pot(3), range=MinMax(axis=0)).observe(x)
    scale = np.median(np.abs(x.numpy()).max(1))  # of nine channels; the largest level is 1
    np.testing.assert_allclose(marks(panels.levels(x, q), Rug)[0].x, scale * pot(3).levels.numpy())


def test_rulers_lie_above_the_bars_one_above_the_other(x):
    panel = panels.levels(x, {"a": pot(4), "b": post(4), "c": apot(4), "d": uniform(4)})
    rows = [(rug.low, rug.high) for rug in marks(panel, Rug)]
    ends = [marks(panel, Bars)[0].heights.max(), *(v for row in rows for v in row), panel.y.high]
    assert len(rows) == 4
    assert ends == sorted(ends)
    assert len({rug.role for rug in marks(panel, Rug)}) == 4


def test_a_bare_codebook_gets_the_scale_with_the_least_error(x):
    (rug,) = marks(panels.levels(x, pot(4)), Rug)
    sample = x.numpy().ravel()
    best = oracles.sample_mse(sample, pot(4).levels.tolist(), rug.x[-1])
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert best < oracles.sample_mse(sample, pot(4).levels.tolist(), factor * rug.x[-1])


def test_levels_text_has_the_numbers(x):
    panel = panels.levels(x, {"mine": Quantizer(pot(4), range=Fixed(2.0))})
    inner = sum(abs(v) <= 0.5 for v in pot(4).levels.tolist())
    assert "3,600 values" in panel.text
    assert f"mine has 15 levels from -2 to 2, {inner} of them in the inner half" in panel.text


def test_levels_text_names_the_ends_of_the_values_not_of_the_axis(x):
    text = panels.levels(x, pot(4)).text
    assert f"values from {float(x.min()):.3g} to {float(x.max()):.3g}" in text


# --- staircase --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("book", "scale"), [(uniform(3, signed=False), 0.5), (post(4), 0.37), (UNLIKE, 0.5)])
def test_treads_are_the_quantizer_also_around_its_borders(book, scale):
    q = Quantizer(book, range=Fixed(scale))
    borders = scale * book.borders.numpy()
    ulp = np.spacing(np.abs(borders)) * 4
    at = np.concatenate([np.linspace(-2, 2, 999), borders - ulp, borders + ulp])
    if scale == 0.5:  # a power of two: x / scale is exact, and so is the tie
        at = np.concatenate([at, borders])
    at = np.sort(at[(at > -2) & (at < 2)])
    (line,) = marks(panels.staircase((-2, 2), q), Line)[1:]
    np.testing.assert_allclose(read(line, at), q(torch.from_numpy(at)).numpy(), rtol=1e-15)
    _, y = direct(at, book, scale)
    np.testing.assert_allclose(read(line, at), y, rtol=1e-15)


def test_treads_fill_what_is_shown_and_no_more():
    (line,) = marks(panels.staircase((-0.3, 0.8), pot(4)), Line)[1:]
    left, right, y = treads(line)
    assert (left[0], right[-1]) == (-0.3, 0.8)
    assert y.tolist() == [v for v in pot(4).levels.tolist() if -0.25 <= v <= 1.0]
    assert np.all(left < right)


def test_inside_one_cell_there_is_one_step():
    (line,) = marks(panels.staircase((0.6, 1.4), uniform(4)), Line)[1:]
    assert [v.tolist() for v in treads(line)] == [[0.6], [1.4], [1.0]]


@pytest.mark.parametrize("xlim", [(0.5, 1.5), (-8.5, 8.5)])
def test_limits_on_a_border_make_no_empty_step(xlim):
    left, right, _ = treads(marks(panels.staircase(xlim, uniform(4)), Line)[1])
    assert np.all(left < right)
    assert (left[0], right[-1]) == xlim


def test_offset_moves_borders_and_treads():
    q = Quantizer(uniform(3), range=Fixed(0.25, 0.1))
    at = np.linspace(-1.5, 1.5, 501)
    (line,) = marks(panels.staircase((-1.5, 1.5), q), Line)[1:]
    np.testing.assert_allclose(read(line, at), direct(at, uniform(3), 0.25, 0.1)[1], atol=1e-12)


@pytest.mark.parametrize("book", [uniform(3, signed=False), UNLIKE], ids=ids)
def test_band_lies_between_identity_and_staircase(book):
    panel = panels.staircase((-2, 2), Quantizer(book, range=Fixed(0.7)))
    (band,), line = marks(panel, Band), marks(panel, Line)[1]
    left, right, y = treads(line)
    at = np.random.default_rng(0).uniform(-2, 2, 400)
    stair = read(line, at)
    np.testing.assert_allclose(np.interp(at, band.x, band.low), np.minimum(at, stair), atol=1e-12)
    np.testing.assert_allclose(np.interp(at, band.x, band.high), np.maximum(at, stair), atol=1e-12)
    for crossing in y[(left <= y) & (y <= right)]:  # where the staircase meets y = x
        touching = (band.x == crossing) & (band.low == crossing) & (band.high == crossing)
        assert touching.any(), crossing


def test_area_of_the_band_is_the_integral_of_the_error():
    q = Quantizer(post(4), range=Fixed(0.7))
    panel = panels.staircase((-2, 2), q)
    (band,) = marks(panel, Band)
    left, right, y = treads(marks(panel, Line)[1])
    exact = sum(  # d/dx of (x - y)|x - y| / 2 is |x - y|
        ((b - v) * abs(b - v) - (a - v) * abs(a - v)) / 2 for a, b, v in zip(left, right, y, strict=True)
    )
    assert np.trapezoid(band.high - band.low, band.x) == pytest.approx(exact, rel=1e-12)
    fine = np.linspace(-2, 2, 200_001)
    assert exact == pytest.approx(np.trapezoid(np.abs(direct(fine, post(4), 0.7)[1] - fine), fine), rel=1e-4)


def test_bands_of_more_than_two_methods_would_hide_each_other():
    for names, bands in (("ab", 2), ("abc", 0)):
        assert len(marks(panels.staircase((-2, 2), dict.fromkeys(names, pot(3))), Band)) == bands


def test_ideal_line_is_the_identity():
    ideal = marks(panels.staircase((-1, 2), pot(3)), Line)[0]
    assert ideal.role == "ideal"
    assert np.array_equal(ideal.x, ideal.y)
    assert (ideal.x[0], ideal.x[-1]) == (-1, 2)


def test_callable_jumps_within_one_sample():
    (line,) = marks(panels.staircase((-2, 2), torch.round, n=401), Line)[1:]
    left, right, y = treads(line)
    assert y.tolist() == [-2, -1, 0, 1, 2]
    np.testing.assert_allclose(right[:-1], [-1.5, -0.5, 0.5, 1.5], atol=0.0101)
    assert (left[0], right[-1], line.label) == (-2, 2, "round")


def test_data_scale_a_codebook_as_the_other_panels_do(x):
    line = marks(panels.staircase(x, post(4)), Line)[1]
    same = marks(
        panels.staircase(panels.limits(Summary(x)), Quantizer(post(4), range=MSE()).observe(x)), Line
    )[1]
    np.testing.assert_array_equal(line.x, same.x)
    np.testing.assert_array_equal(treads(line)[2], marks(panels.levels(x, post(4)), Rug)[0].x)


def test_without_data_a_codebooks_name_says_its_scale():
    panel = panels.staircase((-2, 2), {"mine": post(3), "half": Quantizer(post(3), range=Fixed(0.5))})
    assert [mark.label for mark in marks(panel, Line)] == ["y = x", "mine at scale 1", "half"]


def test_an_output_in_another_unit_has_a_staircase_without_band_or_unit(x):
    panel = panels.staircase((-2, 2), recipes.daq_weight(2).observe(x), unit="V")
    assert marks(panel, Band) == []
    assert (panel.x.label, panel.y.label) == ("x (V)", "y = Q(x)")


def test_random_rounding_is_sampled():
    q = Quantizer(uniform(2), Stochastic(torch.Generator().manual_seed(0)), range=Fixed(1.0))
    _, _, y = treads(marks(panels.staircase((-2, 1), q), Line)[1])
    assert set(y.tolist()) == {-2.0, -1.0, 0.0, 1.0}
    assert len(y) > 100


def test_staircase_of_an_uncalibrated_quantizer_is_refused():
    with pytest.raises(ValueError, match=r"mine: .* no scale yet"):
        panels.staircase((-2, 2), {"mine": Quantizer(pot(4))})


def test_staircase_text_has_the_numbers():
    text = panels.staircase((-4, 3), {"mine": Quantizer(uniform(2), range=Fixed(1.0))}).text
    assert "mine has 4 steps for x from -4 to 3; the widest, 2.5, is at y = -2" in text


@pytest.mark.parametrize("xlim", [(1, 1), (float("nan"), 1), (float("-inf"), float("inf")), (1, 2, 3)])
def test_xlim_must_increase(xlim):
    with pytest.raises(ValueError, match=re.escape(str(xlim))):
        panels.staircase(xlim, pot(4))


# --- error ------------------------------------------------------------------------------------------------


def coarse(t):
    return torch.round(2 * t) / 2


def error_cases():
    scales = torch.linspace(0.5, 2.0, 9)
    yield "per tensor", Quantizer(pot(4), range=Fixed(1.7)), lambda x: direct(x, pot(4), 1.7)[1]
    yield (
        "per channel",
        Quantizer(post(3), range=Fixed(scales, axis=0)),
        lambda x: np.stack([direct(row, post(3), s)[1] for row, s in zip(x, scales.tolist(), strict=True)]),
    )
    yield (
        "affine",
        Quantizer(uniform(3), range=Fixed(0.6, 0.2)),
        lambda x: direct(x, uniform(3), 0.6, 0.2)[1],
    )
    yield "callable", coarse, lambda x: np.round(2 * x) / 2


@pytest.mark.parametrize(("kind", "q", "oracle"), [pytest.param(*case, id=case[0]) for case in error_cases()])
def test_error_histogram_is_numpys(x, kind, q, oracle):
    panel = panels.error(x, {kind: q}, bins=51)
    (steps,) = marks(panel, Steps)
    error = (oracle(x.numpy()) - x.numpy()).ravel()
    counts = np.histogram(error, steps.edges)[0]
    assert counts.sum() > 0.9 * error.size  # or the comparison would say little
    np.testing.assert_allclose(steps.heights, counts / error.size * 100, atol=1e-9)
    rms, worst = np.sqrt(np.mean(error**2)), np.abs(error).max()
    assert f"{kind}: error has RMS {rms:.3g} and is at most {worst:.3g}" in panel.text
    assert panel.x.high == -panel.x.low >= 3 * rms
    assert panel.y.high >= steps.heights.max()


def test_error_histogram_of_single_precision(x):
    x = x.float()
    (steps,) = marks(panels.error(x, Quantizer(post(4), range=Fixed(1.3))), Steps)
    error = direct(x.double().numpy(), post(4), 1.3)[1] - x.double().numpy()
    moved = np.abs(steps.heights / 100 * x.numel() - np.histogram(error, steps.edges)[0])
    assert moved.sum() < 4  # values within one rounding of an edge


def test_error_of_channels_on_another_axis_than_the_summarys():
    x = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = torch.linspace(0.25, 4, 8, dtype=torch.float64)
    q = Quantizer(uniform(3), range=Fixed(scales, axis=1))
    columns = zip(x.numpy().T, scales.tolist(), strict=True)
    error = np.stack([direct(column, uniform(3), scale)[1] - column for column, scale in columns])
    for data in (x, Summary(x), Summary(x, axis=1), Summary(x, axis=0)):
        (steps,) = marks(panels.error(data, q), Steps)
        np.testing.assert_allclose(steps.heights / 100 * 64, np.histogram(error, steps.edges)[0], atol=1e-9)


def test_perfect_quantizer_has_all_errors_in_the_middle_bin():
    panel = panels.error(torch.tensor([-1.0, 0.0, 1.0]), Quantizer(uniform(2), range=Fixed(1.0)), bins=21)
    (steps,) = marks(panel, Steps)
    assert steps.heights[10] == pytest.approx(100)
    assert steps.heights.sum() == pytest.approx(100)


# --- contribution -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", [*BOOKS, UNLIKE], ids=ids)
def test_contributions_are_per_cell_and_add_up_to_the_mse(x, book):
    values = x.numpy().ravel()
    panel = panels.contribution(x, {"mine": Quantizer(book, range=Fixed(0.8))})
    (bars,) = marks(panel, Bars)
    code, y = direct(values, book, 0.8)
    squared = (y - values) ** 2
    per_cell = [squared[code == k].sum() / values.size for k in range(len(book))]
    np.testing.assert_allclose(bars.heights, per_cell, rtol=1e-9, atol=1e-12)
    assert bars.heights.sum() == pytest.approx(oracles.mse(values, y))
    borders = np.clip(0.8 * book.borders.numpy(), bars.edges[0], bars.edges[-1])
    np.testing.assert_allclose(bars.edges[1:-1], borders)
    assert bars.edges[0] <= values.min() < values.max() <= bars.edges[-1]
    assert f"MSE {squared.mean():.4g}" in panel.text
    k = int(np.argmax(per_cell))
    ends = f"the cell from {bars.edges[k]:.3g} to {bars.edges[k + 1]:.3g}"
    assert f"{ends} gives {per_cell[k] / squared.mean():.0%}" in panel.text


def test_contributions_of_channels_add_up_to_the_mse(x):
    q = Quantizer(post(3), range=MinMax(axis=0)).observe(x)
    heights = marks(panels.contribution(x, q), Bars)[0].heights
    y = np.stack([direct(row, post(3), np.abs(row).max())[1] for row in x.numpy()])
    assert heights.sum() == pytest.approx(oracles.mse(x.numpy(), y))


def test_contributions_of_an_affine_quantizer_add_up_to_the_mse(x):
    q = Quantizer(uniform(3), range=Fixed(0.6, 0.2))
    (bars,) = marks(panels.contribution(x, q), Bars)
    _, y = direct(x.numpy(), uniform(3), 0.6, 0.2)
    assert bars.heights.sum() == pytest.approx(oracles.mse(x.numpy(), y))


def unfixed(x):
    """Quantizers whose values of one level have no fixed borders."""
    yield recipes.aquant_activation(2).observe(x.relu())
    yield recipes.adaround_weight(2, x, axis=None).observe(x)
    yield Quantizer(uniform(2), Stochastic(torch.Generator().manual_seed(3)), range=Fixed(1.0))


def test_where_borders_are_not_fixed_contributions_are_between_knots(x):
    for q in unfixed(x):
        values = x.relu() if "Border" in type(q.rounding).__name__ else x
        seen = []
        handle = q.register_forward_hook(lambda q, args, y, seen=seen: seen.append(y.detach()))
        (bars,) = marks(panels.contribution(values, {"mine": q}), Bars)
        handle.remove()
        squared = ((seen[-1] - values) ** 2).numpy().ravel()
        knots = float(q.range.scale) * q.codebook.knots.numpy()
        code = np.searchsorted(knots, values.numpy().ravel(), side="left")
        per_cell = np.bincount(code, squared, len(knots) + 1) / squared.size
        np.testing.assert_allclose(bars.heights, per_cell, rtol=1e-5, atol=1e-7)
        assert bars.heights.sum() == pytest.approx(squared.mean())


@pytest.mark.parametrize("name", ["error", "contribution"])
def test_an_output_in_another_unit_has_no_error(x, name):
    for q in (recipes.daq_weight(2), recipes.dorefa_weight(2)):
        with pytest.raises(ValueError, match="mine: its output, from -1 to 1, is in another unit than x"):
            PANELS[name](x, {"mine": q.observe(x)})


def test_where_the_grid_sees_a_function_of_x_levels_stand_on_x_and_treads_are_sampled(x):
    q = recipes.dorefa_weight(2).observe(x)
    panel = panels.levels(x, q)
    (rug,) = marks(panel, Rug)
    largest = np.tanh(x.abs().max().item())
    wanted = np.arctanh(np.array([-1, -1 / 3, 1 / 3, 1]) * largest)
    np.testing.assert_allclose(rug.x, wanted.clip(float(x.min()), float(x.max())), atol=0.02)
    assert rug.label == "dorefa_weight"
    at = torch.linspace(-2, 2, 2001)
    line = marks(panels.staircase((-2, 2), q), Line)[1]
    np.testing.assert_allclose(read(line, at.numpy() + 1e-4)[:-1], q(at).numpy()[:-1], atol=1e-6)


def test_a_quantizer_of_one_shape_has_no_one_staircase(x):
    with pytest.raises(ValueError, match="mine takes no row of 2001 values"):
        panels.staircase((-2, 2), {"mine": recipes.adaround_weight(2, x).observe(x)})
    with pytest.raises(ValueError, match=r"mine gives the shape \(3,\) for a row of 2001 values"):
        panels.staircase((-2, 2), {"mine": lambda x: x[:3]})


def test_several_methods_are_outlines_not_bars(x):
    panel = panels.contribution(x, {"a": pot(4), "b": post(4)})
    assert [type(m) for m in panel.marks] == [Steps, Steps]
    assert [m.role for m in panel.marks] == ["a", "b"]


# --- what every panel does --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", PANELS.values(), ids=PANELS)
def test_a_summary_gives_the_same_numbers(x, make):
    one, other = make(x, {"q": pot(4)}), make(Summary(x), {"q": pot(4)})
    assert one.text == other.text
    for a, b in zip(one.marks, other.marks, strict=True):
        for name, value in vars(a).items():
            np.testing.assert_array_equal(value, vars(b)[name])


@pytest.mark.parametrize("make", PANELS.values(), ids=PANELS)
def test_arrays_are_taken_and_nothing_is_changed(x, make):
    q = Quantizer(pot(4), range=Fixed(1.0))
    array = x.numpy().copy()
    make(array, q)
    assert np.array_equal(array, x.numpy())
    assert float(q.range.scale) == 1.0


@pytest.mark.parametrize("make", PANELS.values(), ids=PANELS)
def test_seven_methods_are_too_many(x, make):
    q = Quantizer(pot(3), range=Fixed(1.0))
    assert {mark.role for mark in make(x, dict.fromkeys("abcdef", q)).marks} >= set("abcdef")
    for names in ("abcdefg", ""):
        with pytest.raises(ValueError, match=f"1 to 6 methods, got {len(names)}"):
            make(x, dict.fromkeys(names, q))


@pytest.mark.parametrize("name", ["levels", "error", "contribution"])
def test_an_uncalibrated_quantizer_is_refused(x, name):
    with pytest.raises(ValueError, match=r"mine: .* no scale yet"):
        PANELS[name](x, {"mine": Quantizer(pot(4))})


def test_what_was_measured_is_drawn_and_not_measured_again(x, monkeypatch):
    q = Quantizer(post(3), range=Fixed(1.0))
    plain = {name: make(x, {"mine": q}).text for name, make in PANELS.items()}
    figures = Measured(q, x, "mine")
    figures.cells, figures.error_counts(np.linspace(-1, 1, 9))
    monkeypatch.setattr(Summary, "cells", None)
    for name, make in PANELS.items():
        assert make(x, figures).text == make(x, {"mine": figures}).text == plain[name]


@pytest.mark.parametrize("name", ["levels", "contribution"])
def test_a_callable_has_no_levels_to_show(x, name):
    with pytest.raises(TypeError, match="round"):
        PANELS[name](x, torch.round)


@pytest.mark.parametrize("name", PANELS)
def test_a_number_is_no_method(x, name):
    with pytest.raises(TypeError, match="got int"):
        PANELS[name](x, 3)


@pytest.mark.parametrize("name", ["levels", "error"])
def test_no_bins_are_refused_by_name(x, name):
    with pytest.raises(ValueError, match=r"bins.*0"):
        PANELS[name](x, pot(4), bins=0)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([1.0, np.nan]), torch.tensor([np.inf])])
@pytest.mark.parametrize("name", ["levels", "error", "contribution"])
def test_unfit_data_is_refused(name, bad):
    with pytest.raises(ValueError, match=r"empty|NaN or infinite"):
        PANELS[name](bad, pot(4))


def test_a_callable_that_returns_another_shape_is_refused(x):
    with pytest.raises(ValueError, match=r"mine.*shape"):
        panels.error(x, {"mine": torch.mean})


ODD = {
    "constant": torch.full((50,), 7.0),
    "negative constant": torch.full((50,), -7.0),
    "zeros": torch.zeros(50),
    "one value": torch.tensor([0.3]),
    "no dimension": torch.tensor(0.3),
    "outlier": torch.cat([torch.linspace(-1, 1, 101), torch.tensor([1e6])]),
    "tiny": torch.linspace(-1, 1, 101) * 1e-30,
    "huge": torch.linspace(-1, 1, 101) * 1e30,
    "far from zero": torch.linspace(-1, 1, 101) * 1e-4 + 1000,
    "half": torch.linspace(-1, 1, 101).half(),
    "bfloat16": torch.linspace(-1, 1, 101).bfloat16(),
}


@pytest.mark.parametrize("values", [*list(ODD.values())[:-4], *slow(*list(ODD.values())[-4:])], ids=ODD)
def test_odd_data_draw_without_warnings(values):
    methods = {"POT": Quantizer(pot(4), range=MSE()).observe(values), "Lloyd": lloyd(values, 4)}
    for make in PANELS.values():
        panel = make(values, methods)
        assert panel.x.low < panel.x.high
        assert panel.y.low < panel.y.high
        for mark in panel.marks:
            for name in ("edges", "heights", "low", "high"):
                assert np.isfinite(getattr(mark, name, 0.0)).all()
        ax = qviz.plot.draw(panel, Figure().add_subplot())
        ax.figure.draw_without_rendering()
        np.testing.assert_allclose(ax.get_xlim(), (panel.x.low, panel.x.high), rtol=1e-6)


@pytest.mark.parametrize("name", PANELS)
def test_units_are_in_the_labels(x, name):
    methods = pot(4)
    panel = PANELS[name](x, methods, unit="V")
    assert panel.x.label.endswith("(V)")
