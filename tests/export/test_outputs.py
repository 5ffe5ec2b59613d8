"""Outputs: classes that flip are named, and integers that are wrong by more than rounding are a problem."""

from __future__ import annotations

import torch
from torch import nn

from qviz import recipes
from qviz.export import IntegerModel, describe, outputs, prove, write
from qviz.export.agreement import Agreement, LayerAgreement
from qviz.export.answers import Answers, Flip
from qviz.nn import calibrate, convert


def test_an_image_of_another_class_is_named_with_the_margin_that_it_lost() -> None:
    right = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.0]])
    own = torch.tensor([[1.0, 0.0, 0.125], [0.5, 0.75, 0.0]])
    answers = Answers()
    answers.add(right, right)
    assert answers.add(own, right).tolist() == [0.125, 0.5]
    assert (answers.images, answers.agreement, answers.largest) == (4, 0.75, 0.5)
    assert answers.flips == [Flip(image=3, expected=0, found=1, ahead=0.25, apart=0.5)]
    assert answers.remarks()[0].startswith("another class for image 3: class 1 for 0, which is 0.25 ahead")


def test_a_flip_is_explained_where_a_code_on_a_border_differs_and_nowhere_else() -> None:
    found, right, own = (
        Agreement({"a": LayerAgreement()}),
        torch.eye(2),
        torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
    )
    found.add(own, right, torch.tensor([False, True]))
    assert (len(found.answers.flips), found.unexplained, found.touched) == (1, 0, 1)
    found.add(own, right, torch.tensor([True, False]))
    assert (len(found.answers.flips), found.unexplained, found.untouched_logits) == (2, 1, 1.0)
    found.layers["a"].other = 1
    assert found.unexplained == 2


def test_large_images_come_a_few_at_a_time() -> None:
    assert [len(part) for part in outputs.batches(torch.zeros(5, 3, 224, 224))] == [2, 2, 1]
    assert [len(part) for part in outputs.batches(torch.zeros(150, 1, 8, 8))] == [100, 50]


def test_codes_that_differ_for_no_good_reason_are_no_proof(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()),
        torch.rand(8, 3, 6, 6),
    )
    convert(net, pair=recipes.pair("lsq", 4), first_last="quantized", batch=x)
    calibrate(net, x)
    path = write(describe(net.eval(), shape=(3, 6, 6)), tmp_path / "net.safetensors")
    shown = []
    assert prove(path, images=x, bar=lambda parts: shown.extend(parts) or parts).ok
    assert sum(map(len, shown)) == len(x)

    def wrong(exported):
        integer = IntegerModel(exported)
        integer.layers[1]._offset += 1 << (integer.plan.f - 3)
        return integer

    monkeypatch.setattr(outputs, "IntegerModel", wrong)
    proof = prove(path, images=x)
    assert "differ by more than float32 rounds" in proof.problems[0]
    assert not proof.ok
