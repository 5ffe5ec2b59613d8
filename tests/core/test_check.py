"""Arguments: what is taken, and what is refused with the received value."""

import math

import numpy as np
import pytest
import torch

from qviz.core import _check


def test_a_tensor_comes_back_as_it_is():
    x = torch.ones(2, requires_grad=True)
    assert _check.float_tensor(x) is x


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_keep_dtype_shape_and_values(dtype):
    for array in (
        np.arange(6, dtype=dtype).reshape(2, 3),
        np.arange(6, dtype=dtype)[::-2],
        np.array(2.5, dtype),
    ):
        x = _check.float_tensor(array)
        assert x.shape == array.shape
        assert x.tolist() == array.tolist()
        assert str(x.dtype).endswith(array.dtype.name)


@pytest.mark.parametrize("order", [">f4", ">f8", "<f4"])
def test_arrays_of_either_byte_order(order):
    assert _check.float_tensor(np.array([1.5, 2.0], dtype=order)).tolist() == [1.5, 2.0]


def test_a_list_is_float64():
    assert _check.float_tensor([0.1, 1.0]).dtype == torch.float64
    assert _check.float_tensor((0.1, 1.0)).tolist() == [0.1, 1.0]


def test_a_read_only_array_is_no_cause_for_a_warning():
    array = np.ones(3)
    array.flags.writeable = False
    assert _check.float_tensor(array).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("x", "error", "received"),
    [
        (np.arange(3), TypeError, "int64"),
        (np.array([True]), TypeError, "bool"),
        (np.array(["a"]), TypeError, "U1"),
        (np.array([1j]), TypeError, "complex128"),
        (np.array([None]), TypeError, "object"),
        (np.ones(0), ValueError, r"\(0,\)"),
        (torch.arange(3), TypeError, "int64"),
        (torch.ones(2, 0), ValueError, r"\(2, 0\)"),
        (3.0, TypeError, "float"),
        ("abc", TypeError, "str"),
        (None, TypeError, "NoneType"),
        ([], ValueError, r"\(0,\)"),
        (["a", "b"], (TypeError, ValueError), "a"),
    ],
)
def test_everything_else_is_refused_by_name(x, error, received):
    with pytest.raises(error, match=received):
        _check.float_tensor(x, "weights")


def test_finite_counts_the_bad_values():
    x = torch.tensor([1.0, 2.0])
    assert _check.finite(x) is x
    with pytest.raises(ValueError, match=r"samples.* 3 of 4"):
        _check.finite(torch.tensor([math.nan, math.inf, 0.0, -math.inf]), "samples")


@pytest.mark.parametrize("value", [2, 8, np.int64(5)])
def test_bits_in_range(value):
    assert _check.bits(value, 2, 8, "grid") == value
    assert type(_check.bits(value, 2, 8, "grid")) is int


@pytest.mark.parametrize(
    ("value", "error"),
    [(1, ValueError), (9, ValueError), (4.0, TypeError), (True, TypeError), ("4", TypeError)],
)
def test_bits_out_of_range_or_no_number(value, error):
    with pytest.raises(error, match=f"grid.*{value!r}"):
        _check.bits(value, 2, 8, "grid")


def test_axis():
    x = torch.ones(2, 3)
    assert _check.axis(None, x) is None
    assert [_check.axis(a, x) for a in (0, 1, -1, -2)] == [0, 1, 1, 0]
    assert _check.axis(-1, x, 3) == 1
    for value, channels in ((2, None), (-3, None), (0, 3)):
        with pytest.raises(ValueError, match=rf"{value}.*\(2, 3\)"):
            _check.axis(value, x, channels)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_compute_dtype(dtype, expected):
    assert _check.compute_dtype(torch.ones(1, dtype=dtype)) == expected
