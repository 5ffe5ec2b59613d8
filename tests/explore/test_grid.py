"""The model of GridExplorer without widgets: what choices mean, on every shipped tensor."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qviz import Summary, uniform
from qviz.explore import GridModel, tensors
from qviz.explore.grids import MANUAL
from qviz.explore.hand import CUSTOM

X = torch.randn(12, 250, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def model():
    return GridModel(X)


@pytest.mark.parametrize("name", tensors.sources())
def test_every_tensor_has_a_sound_picture(name):
    model = GridModel(tensor=name)
    signed = bool((tensors.summary(model.sources[name]).x < 0).any())
    for bits in (2, 8):
        c = model.settled(model.start, replace(model.start, bits=bits, grid_a="uniform", grid_b="POT paper"))
        assert c.grid_b == ("POT paper" if bits < 8 else "POT")
        for row in model.scene(c).table.values.values():
            assert 0 < row["mse"] < float("inf")
            assert 0 <= row["entropy"] <= row["bits"]
        assert model.quantizer(c, "uniform").codebook.lo == (uniform(bits).lo if signed else 0)


def test_explorers_share_the_summaries_of_shipped_tensors():
    one, other = GridModel(tensor="Laplace"), GridModel(tensor="Laplace")
    assert tensors.summary(one.sources["Laplace"]) is tensors.summary(other.sources["Laplace"])
    yours = [tensors.summary(GridModel(X).sources[tensors.YOURS]) for _ in range(2)]
    assert yours[0] is not yours[1]


def test_a_model_keeps_no_choice(model):
    before = model.scene(model.start).text
    edited = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    moved = model.dragged(edited, 0, 4, 14, 9.0, 0.0)
    assert moved != edited
    assert model.scene(model.start).text == before
    assert model.scene(edited).text != model.scene(moved).text


def test_picture_and_table_share_their_figures(model, monkeypatch):
    calls, cells = [], Summary.cells
    monkeypatch.setattr(Summary, "cells", lambda *args: calls.append(1) or cells(*args))
    scene = model.scene(replace(model.start, bits=5))
    assert len(scene.table.rows) == len(calls) == 2


def test_a_choice_survives_json(model):
    c = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    c = model.dragged(c, 0, 4, 14, 9.0, 0.0)
    c = model.settled(c, replace(c, clip=0.5))
    assert c.rule == MANUAL
    assert model.restored(json.loads(json.dumps(model.state(c)))) == c


def test_a_page_of_all_grids_has_one_error_axis_a_bit_width(model):
    c = replace(model.start, bits=3)
    choosers, frames, first = model.page(c)
    assert [chooser.label for chooser in choosers] == ["Bits", "Grid"]
    names = choosers[1].options
    assert first == {"A": (1, names.index("POT")), "B": (1, names.index("POST"))}
    for i in range(7):
        axes = {scene.panels[2].x.high for (bits, _), scene in frames.items() if bits == i}
        assert len(axes) == 1
    assert {names[g] for bits, g in frames if bits == 0} == set(names) - {CUSTOM}


def test_a_page_has_the_custom_grid_at_the_bits_where_it_was_moved():
    model = GridModel(X[:1])
    c = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    c = model.dragged(c, 0, 4, 14, 9.0, 0.0)
    choosers, frames, _ = model.page(replace(c, grid_a="uniform", bits=3))
    widths, names = (chooser.options for chooser in choosers)
    assert [widths[bits] for bits, grid in frames if names[grid] == CUSTOM] == ["4"]


def test_the_dots_of_a_mirrored_grid_keep_their_order(model):
    c = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    c = model.settled(c, replace(c, mirror=True))
    c = model.dragged(c, 0, 4, 12, -9.0, 0.0)
    levels = model.levels(c)
    np.testing.assert_array_equal(levels, -levels[::-1])
    assert np.all(np.diff(levels) > 0)


def test_one_number_ends_where_the_quantizers_send_it(model):
    for x in (-1.3, 0.21, 9.0):
        c = model.settled(model.start, replace(model.start, x=x))
        dots = [mark for mark in model.scene(c).panels[1].marks if type(mark).__name__ == "Points"]
        for dot, q in zip(dots, model.quantizers(c).values(), strict=True):
            assert dot.x[0] == c.x == model.controls(c)["x"].nearest(x)
            assert dot.y[0] == pytest.approx(float(q(torch.tensor([c.x]))), rel=1e-6)
    assert model.dragged(c, 1, 4, 0, -0.5, 0.0).x == pytest.approx(-0.5, abs=0.02)


def test_a_dragged_clip_is_a_manual_one(model):
    edited = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    for c, mark in ((model.start, 3), (edited, 5)):
        handle = model.scene(c).panels[0].marks[mark]
        assert (handle.label, handle.x[0]) == ("clip", c.clip)
        moved = model.dragged(c, 0, mark, 0, -1.25, 0.0)
        assert (moved.rule, moved.grid_a) == (MANUAL, c.grid_a)
        assert moved.clip == pytest.approx(1.25, abs=0.02)


def test_the_cell_of_the_chosen_level_is_shaded(model):
    c = model.settled(model.start, replace(model.start, grid_a=CUSTOM))
    c = model.settled(c, replace(c, level=1))
    levels = model.levels(c)
    for k in (1, 8, len(levels)):
        c = model.settled(c, replace(c, level=k))
        _, _, _, span, dots, _ = model.scene(c).panels[0].marks
        assert dots.moves == "x"  # in front of the cell, or it could not be taken
        x = np.linspace(*model.ends(c), 4001)
        nearest = np.abs(x[:, None] - levels).argmin(1)
        own = x[nearest == k - 1]
        assert (span.low, span.high) == pytest.approx((own[0], own[-1]), abs=2e-3)
    assert not any(type(m).__name__ == "Span" for m in model.scene(model.start).panels[0].marks)


@pytest.mark.parametrize("name", GridModel.presets)
def test_presets_are_choices_that_stay_as_they_are(model, name):
    c = model.restored(model.presets[name])
    assert model.followed(c) == c
    assert model.presets[name].items() <= model.state(c).items()
