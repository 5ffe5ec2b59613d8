import html
import json
import math

import numpy as np
import pytest
import torch

from qviz import (
    MSE,
    CellBorder,
    Codebook,
    Comparison,
    Fixed,
    Measured,
    MinMax,
    Percentile,
    Quantizer,
    Stochastic,
    apot,
    compare,
    lloyd,
    metrics,
    post,
    pot,
    quantile,
    recipes,
    uniform,
)
from tests import oracles

NAMES = ["uniform", "POT", "POST", "APoT", "quantile", "Lloyd"]
COLUMNS = {"method", "levels", "bits", "bits_per_value", "mse", "sqnr_db", "entropy", "scale", "clip", "note"}


def weights(*shape, seed=0):
    return torch.randn(*(shape or (20_000,)), generator=torch.Generator().manual_seed(seed))


def names(table):
    return [row.method for row in table.rows]


# --- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype"), [(2, torch.float32), (4, torch.bfloat16), (8, torch.float64)])
def test_every_figure_is_that_of_the_quantizer(bits, dtype):
    x = weights().to(dtype)
    table = compare(x, bits=bits)
    x = x.to(torch.float32) if dtype == torch.bfloat16 else x  # half precision is measured in float32
    books = {"uniform": uniform(bits), "POT": pot(bits), "POST": post(bits), "APoT": apot(bits)}
    books |= {"quantile": quantile(x, bits), "Lloyd": lloyd(x, bits)}
    assert names(table) == NAMES
    for name, book in books.items():
        row, q = table[name], Quantizer(book, range=MSE()).observe(x)
        counts = oracles.occupancy(q.codes(x).numpy(), len(book))
        assert row.levels == len(book)
        assert row.bits == bits
        assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=2e-3)
        assert row.sqnr_db == pytest.approx(metrics.sqnr_db(x, q(x)), abs=0.02)
        assert row.entropy == pytest.approx(oracles.entropy_bits(counts), abs=2e-3)
        assert row.scale == pytest.approx(float(q.range.scale), rel=1e-3)
        assert row.clip == pytest.approx(row.scale * book.reach, rel=1e-6)


def test_figures_are_plain_numbers():
    for row in compare(weights(), bits=3).rows:
        assert type(row.levels) is int
        assert type(row.bits) is int
        assert {type(v) for v in (row.mse, row.sqnr_db, row.entropy, row.scale, row.clip)} == {float}


def test_lloyd_is_the_best_of_the_named_grids():
    table = compare(weights(), bits=4)
    assert min(table.rows, key=lambda row: row.mse).method == "Lloyd"


def test_grids_are_unsigned_where_nothing_is_negative_and_say_so():
    x = weights().relu()
    table = compare(x, bits=3)
    for name, book in {"uniform": uniform(3, signed=False), "APoT": apot(3, signed=False)}.items():
        assert table[name].mse == pytest.approx(metrics.mse(x, Quantizer(book).observe(x)(x)), rel=1e-3)
    for name in ("uniform", "POT", "POST", "APoT"):
        assert table[name].levels == 8
        assert table[name].note.startswith("unsigned, as x has no negative value")
    assert table["quantile"].note == "5 levels, as values repeat"  # half of x is 0
    assert [line.split(":")[0] for line in table.notes()] == NAMES[:5]
    assert str(table).endswith(table.notes()[-1])
    assert not compare(weights(), ["POT", "Lloyd"], bits=3).notes()


def test_unused_levels_are_counted():
    row = compare(weights().clamp(-0.1, 3), {"POST": post(4)})["POST"]
    q = Quantizer(post(4), range=Fixed(row.scale))
    dead = 15 - len(q.codes(weights().clamp(-0.1, 3)).unique())
    assert dead > 3
    assert row.note == f"{dead} of 15 levels unused"


def test_names_are_read_in_upper_and_lower_case():
    table = compare(weights(500), ["UNIFORM", "pot", "Post", "apot", "lloyd"], bits=3)
    assert names(table) == ["uniform", "POT", "POST", "APoT", "Lloyd"]
    assert table["pOt"] is table["POT"]
    both = compare(weights(500), {"q": pot(3), "Q": post(3)})
    assert both["q"] is both.rows[0]
    assert both["Q"] is both.rows[1]


def test_rows_can_be_walked_and_put_into_a_frame():
    table = compare(weights(500), bits=3)
    assert [row.method for row in table] == NAMES
    assert len(table) == len(NAMES)
    frame = table.to_frame()
    assert list(frame.index) == NAMES
    assert set(frame.columns) | {"method"} == COLUMNS
    assert frame.loc["POT", "mse"] == table["POT"].mse


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_all_bits_work_with_the_grids_that_exist(bits):
    table = compare(weights(500), bits=bits)
    assert names(table) == ([n for n in NAMES if n not in ("POT", "POST", "APoT")] if bits == 1 else NAMES)
    assert all(row.levels <= 2**bits for row in table.rows)


# --- what may be compared ----------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked_for():
    assert names(compare(weights(), ["POST", "uniform", "POT"], bits=3)) == ["POST", "uniform", "POT"]
    methods = {"b": post(3), "a": pot(3), "c": uniform(3)}
    assert names(compare(weights(), methods)) == ["b", "a", "c"]


def test_a_codebook_of_the_users_own():
    x, book = weights(), Codebook([-1.0, -0.3, 0.0, 0.3, 1.0])
    row = compare(x, {"mine": book})["mine"]
    q = Quantizer(book).observe(x)
    assert (row.levels, row.bits) == (5, 3)
    assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-3)
    assert row.scale == pytest.approx(float(q.range.scale), rel=1e-3)


def test_any_callable():
    x = weights()
    before = x.clone()
    row = compare(x, {"round": lambda v: v.mul(2).round().div(2)})["round"]
    y = (x * 2).round() / 2
    assert row.mse == pytest.approx(metrics.mse(x, y), rel=1e-6)
    assert row.levels == len(y.unique())
    assert row.scale is None
    counts = y.unique(return_counts=True)[1].tolist()
    assert row.entropy == pytest.approx(oracles.entropy_bits(counts), abs=1e-6)
    assert torch.equal(x, before)


def test_a_callable_that_writes_into_its_argument_cannot_spoil_the_rest():
    x = weights()
    before = x.clone()
    table = compare(x, {"vandal": lambda v: v.zero_(), "POT": pot(4)})
    assert torch.equal(x, before)
    assert table["POT"].mse == pytest.approx(compare(x, ["POT"])["POT"].mse, rel=1e-6)
    assert table["vandal"].mse == pytest.approx(float(x.double().square().mean()), rel=1e-6)


def test_a_module_is_a_callable():
    class Halves(torch.nn.Module):
        def forward(self, x):
            return (2 * x).round() / 2

    assert compare(weights(), {"halves": Halves()})["halves"].mse > 0


def test_a_calibrated_quantizer_is_used_as_it_is():
    x = weights()
    q = Quantizer(post(4), range=Fixed(1.5))
    state = {k: v.clone() for k, v in q.state_dict().items()}
    for range_ in (None, 3.0, MinMax()):
        row = compare(x, {"q": q}, range=range_)["q"]
        assert row.scale == 1.5
        assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-5)
    assert all(torch.equal(q.state_dict()[k], v) for k, v in state.items())


def test_an_uncalibrated_quantizer_is_calibrated_on_a_copy():
    x = weights()
    q = Quantizer(post(4))
    row = compare(x, {"q": q})["q"]
    assert not q.range.calibrated
    assert row.mse == pytest.approx(compare(x, ["POST"])["POST"].mse, rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quantizer(post(4), CellBorder.logarithmic(post(4)), range=Percentile(99.0)),
        lambda: Quantizer(uniform(4), range=MinMax(symmetric=False)),
        lambda: Quantizer(post(4), Stochastic(torch.Generator().manual_seed(0)), range=Fixed(2.0)),
        lambda: Quantizer(uniform(4), range=MSE(axis=0)),
        lambda: Quantizer(Codebook([-1.0, 0.0, 1.0], [-2.0, 0.0, 3.0])),
    ],
    ids=["log", "affine", "stochastic", "per channel", "levels apart"],
)
def test_quantizers_with_every_kind_of_part(make):
    x = weights(40, 500) + 0.3
    row = compare(x, {"q": make()})["q"]
    q = make().observe(x)
    assert row.mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-2)
    assert row.levels == len(q.codebook)
    assert (row.scale is None) == (q.range.scale.ndim > 0)


# --- ranges ------------------------------------------------------------------------------------------------


def test_a_number_is_the_clip_of_every_grid():
    x = weights()
    table = compare(x, ["uniform", "POT", "Lloyd"], bits=3, range=2.0)
    assert table["POT"].scale == pytest.approx(2.0)
    assert table["uniform"].scale == pytest.approx(2.0 / uniform(3).reach)
    book = lloyd(x, 3)
    assert table["Lloyd"].scale == pytest.approx(2.0 / book.reach, rel=1e-6)
    q = Quantizer(pot(3), range=Fixed(2.0))
    assert table["POT"].mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-5)
    assert compare(x, ["POT"], range=2)["POT"].scale == pytest.approx(2.0)


@pytest.mark.parametrize("make", [MinMax, lambda: Percentile(95.0), MSE, lambda: Fixed(0.7)])
def test_a_range_is_fitted_for_each_grid_and_not_written(make):
    x, range_ = weights(), make()
    before = range_.scale
    table = compare(x, ["uniform", "POST"], bits=4, range=range_)
    for name, book in (("uniform", uniform(4)), ("POST", post(4))):
        q = Quantizer(book, range=make()).observe(x)
        assert table[name].scale == pytest.approx(float(q.range.scale), rel=1e-6)
        assert table[name].mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-4)
    assert range_.scale is before


@pytest.mark.parametrize("axis", [0, -1])
def test_a_range_per_channel_has_no_single_scale(axis):
    x = weights(30, 40) * torch.linspace(0.1, 5, 30)[:, None]
    table = compare(x, ["POST", "uniform"], range=MSE(axis=axis))
    for name, book in (("uniform", uniform(4)), ("POST", post(4))):
        q = Quantizer(book, range=MSE(axis=axis)).observe(x)
        assert table[name].scale is None
        assert table[name].mse == pytest.approx(metrics.mse(x, q(x)), rel=1e-3)


# --- tensors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor(0.7),
        torch.zeros(5),
        torch.full((3, 4), -2.5),
        torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        torch.randn(2, 3, 4, 5, 2, generator=torch.Generator().manual_seed(0)).half(),
        torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).t(),
        torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(9, 4),
    ],
    ids=["0-d", "zeros", "constant", "three", "5-d half", "transposed", "expanded"],
)
def test_awkward_tensors(x):
    before = x.clone()
    table = compare(x, bits=3)
    assert names(table) == NAMES
    for row in table.rows:
        assert 0 <= row.mse < math.inf
        assert 0 <= row.entropy <= 3
        assert not math.isnan(row.sqnr_db)
    assert str(table)
    assert torch.equal(x, before)
    json.dumps(table.to_dict())


def test_arrays_and_tensors_that_want_gradients():
    x = weights(1000)
    expected = compare(x, bits=3).to_dict()
    assert compare(x.numpy(), bits=3).to_dict() == expected
    assert compare(x.clone().requires_grad_(), bits=3).to_dict() == expected


@pytest.mark.parametrize(
    ("x", "error", "received"),
    [
        (torch.tensor([1.0, math.nan]), ValueError, "1 of 2"),
        (torch.tensor([1.0, math.inf]), ValueError, "1 of 2"),
        (torch.empty(0, 2), ValueError, r"\(0, 2\)"),
        (torch.arange(3), TypeError, "int64"),
        (np.arange(3), TypeError, "int64"),
        ("w.npy", TypeError, "str"),
        (None, TypeError, "NoneType"),
    ],
)
def test_refuses_unfit_data(x, error, received):
    with pytest.raises(error, match=received):
        compare(x)


@pytest.mark.parametrize(
    ("arguments", "error", "received"),
    [
        ({"methods": ["uniform", "POTT"]}, ValueError, "POTT"),
        ({"methods": ["POT"], "bits": 1}, ValueError, "got 1"),
        ({"methods": ["uniform"], "bits": 9}, ValueError, "got 9"),
        ({"bits": 0}, ValueError, "got 0"),
        ({"bits": 4.0}, TypeError, r"4\.0"),
        ({"methods": {"f": lambda x: x[:3]}}, ValueError, r"f.*\(3,\)"),
        ({"methods": {"f": lambda x: 3.0}}, ValueError, "f.*float"),
        ({"methods": {"f": 3.0}}, TypeError, "f.*float"),
        ({"methods": {3: uniform(2)}}, TypeError, "3|int"),
        ({"range": 0.0}, ValueError, r"0\.0"),
        ({"range": -1.5}, ValueError, r"-1\.5"),
        ({"range": math.nan}, ValueError, "nan"),
        ({"range": math.inf}, ValueError, "inf"),
        ({"range": "wide"}, (TypeError, ValueError), "wide"),
        ({"range": MSE(axis=3)}, ValueError, "3"),
        ({"methods": 7}, TypeError, "7|int"),
        ({"methods": [post(3)]}, (TypeError, ValueError), "POST|Codebook"),
    ],
)
def test_refuses_unfit_arguments(arguments, error, received):
    with pytest.raises(error, match=received):
        compare(weights(9), **arguments)


# --- as a table --------------------------------------------------------------------------------------------


def test_to_dict_is_json_of_plain_numbers():
    table = compare(weights(500), {"POST": post(4), "f": torch.tanh, "exact": lambda v: v.clone()}, bits=4)
    plain = table.to_dict()
    assert list(plain) == ["POST", "f", "exact"]
    for name, row in plain.items():
        assert set(row) | {"method"} == COLUMNS, name
    text = json.dumps(plain, allow_nan=True)
    assert json.loads(text)["POST"]["levels"] == 15
    assert plain["POST"]["mse"] == table["POST"].mse
    assert plain["f"]["scale"] is None


def test_to_dict_of_an_exact_method_is_strict_json():
    plain = compare(weights(50), {"exact": lambda v: v.clone()}).to_dict()
    json.dumps(plain, allow_nan=False)


def test_lookup_by_name_and_its_error():
    table = compare(weights(99), ["POT"])
    assert isinstance(table, Comparison)
    assert table["POT"] is table.rows[0]
    with pytest.raises(KeyError, match="POST"):
        table["POST"]


def test_a_codebook_that_is_not_placed_is_placed_on_a_copy():
    x, q = weights(), recipes.adq_weight(4)
    assert (
        compare(x, {"adq": q})["adq"].mse == compare(x, {"adq": recipes.adq_weight(4).observe(x)})["adq"].mse
    )
    assert not q.calibrated
    with pytest.raises(ValueError, match="mine: the quantizer's codebook has no levels yet"):
        Measured(q, x, "mine")


def test_a_soft_forward_pass_is_named():
    x = weights()
    soft = {"uniform": Quantizer(uniform(4), soft=True), "daq": recipes.soft_argmax(4, beta=4.0)}
    notes = [row.note for row in compare(x, soft)]
    assert "outputs lie between the levels, and codes cannot hold them" in notes[0]
    assert "outputs lie between the levels, and they do not have the error shown" in notes[1]


def test_text_is_aligned_and_names_every_row():
    table = compare(weights(), {"a long name": post(4), "f": torch.round, "uniform": uniform(4)})
    lines = str(table).splitlines()[:4]
    assert repr(table) == str(table)
    assert len(lines) >= 4
    assert len({len(line.rstrip()) for line in lines}) == 1
    for word in ("method", "levels", "bits", "MSE", "SQNR dB", "entropy", "clip", "a long name"):
        assert word in str(table)
    column = lines[0].index("levels") + len("levels")
    assert all(line[column - 1].strip() and not line[column : column + 1].strip() for line in lines)


def test_html_holds_every_cell_and_escapes_names():
    evil = "<script>alert('&\"')</script>"
    table = compare(weights(99), {evil: post(4), "POT": pot(4)})
    text = table._repr_html_()
    assert "<script>" not in text
    assert html.escape(evil) in text or html.escape(evil, quote=False) in text
    for row in table.cells():
        for cell in row:
            assert html.escape(cell) in text or html.escape(cell, quote=False) in text
    assert text.count("<tr") == 4  # a head, two rows, the notes
    assert text.count("<table") == text.count("</table>") == 1


def test_cells_are_text_in_the_order_of_the_rows():
    cells = compare(weights(99), ["POT", "uniform"]).cells()
    assert [row[0] for row in cells] == ["POT", "uniform"]
    assert all(isinstance(cell, str) and cell for row in cells for cell in row)


def test_an_exact_and_a_constant_method_print():
    x = torch.zeros(4)
    text = str(compare(x, {"exact": lambda v: v, "POT": pot(2)}))
    assert "inf" in text or "∞" in text
