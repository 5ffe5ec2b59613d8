"""The cost table: every operation of a tiny network counted by a loop, and what is known of ResNet-20."""

import pytest
import torch
from torch import nn

import qviz
from qviz.export import describe
from qviz.export.cost import FLOAT, costs
from qviz.nn import calibrate, convert, models

X = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(5)).relu()


def network(method, bits=4):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    if method != "fp32":
        convert(model, pair=qviz.recipes.pair(method, bits), batch=X, first_last="quantized")
        calibrate(model, X)
    return describe(model.eval(), shape=(2, 5, 5))


def walked(level, places):
    """Count one product at every place: (shifts, adds, multiplications) of a level in the method's unit."""
    counts = [0, 0, 0]
    for _ in range(places):
        if level:
            counts[1] += 1
            if level > 1:
                counts[0 if level in (2, 4, 8, 16, 32, 64) else 2] += 1
    return counts


UNITS = {
    "lsq": lambda u, k: (round(abs(u[k])), 0),
    "pot": lambda u, k: (round(64 * abs(u[k])), 0),
    "post": lambda u, k: (
        0 if u[k] == 0 else 2 ** (3 - round(-2 * torch.tensor(abs(u[k])).log2().item()) // 2),
        0 if u[k] == 0 else round(-2 * torch.tensor(abs(u[k])).log2().item()) % 2,
    ),
    "adq": lambda u, k: (int(u[k] != 0), k),
}
"""What a code multiplies its activation with, and which accumulator it goes to."""


@pytest.mark.parametrize("method", UNITS)
def test_operations_are_those_of_a_loop(method):
    exported = network(method)
    found = costs(exported)
    for name, places, values in (("0", 9, 50), ("3", 1, 36)):
        table = exported.layers[name].weight
        u = table.levels.tolist()
        total, sums = [0, 0, 0], set()
        for o, codes in enumerate(table.codes.flatten(1).tolist()):
            for k in codes:
                level, accumulator = UNITS[method](u, k)
                total = [a + b for a, b in zip(total, walked(level, places), strict=True)]
                sums |= {(o, accumulator)} if level else set()
        ends, offsets = len(sums) * places, len(table.codes) * places
        row = found.row(name)
        shifted = len({o for o, _ in sums}) * places
        expected = total[0] + shifted, total[1] + ends + offsets, total[2] + ends
        assert (row.shifts, row.adds, row.multiplications) == expected, name
        assert (row.macs, row.lookups) == (table.codes.numel() * places, values)


def test_a_table_of_products_takes_a_look_up_for_each_of_them():
    exported = network("post")
    shifts, products = costs(exported), costs(exported, how="products")
    codes = exported.layers["0"].weight.codes
    used = int((codes != 7).sum())
    assert products.row("0").lookups == 50 + 9 * used
    assert products.row("0").shifts == products.row("0").multiplications == 9 * 4
    assert products.totals["multiplications"] < shifts.totals["multiplications"]


def test_the_network_in_floating_point_and_its_bytes():
    model = models.create("resnet20")
    float_model = costs(describe(model, shape=(3, 32, 32)))
    assert float_model.totals["macs"] == float_model.totals["multiplications"] == 40_551_040
    assert {row.arithmetic for row in float_model.rows} == {FLOAT}
    stored = sum(v.numel() for k, v in model.state_dict().items() if "num_batches" not in k)
    assert float_model.totals["size"] == 4 * stored
    row = costs(network("lsq", 2)).row("3")
    tensors = 36 * 3 * 2 // 8 + 4 * (4 + 1 + 3 + 3 + 4)  # codes; levels, step, bias, borders, values
    assert (row.w_bits, row.a_bits, row.size) == (2, 2, tensors)
    text = str(float_model)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "40,551,040" in text.splitlines()[-1]
    assert "floating point" in float_model.by_arithmetic()


def test_what_cannot_be_counted_is_refused():
    net = nn.Sequential(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match="shape="):
        costs(describe(net))
    with pytest.raises(ValueError, match="Sigmoid"):
        costs(describe(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sigmoid()), shape=(2, 4, 4)))
