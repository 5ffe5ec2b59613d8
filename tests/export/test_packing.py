"""Packing: the stream of bits is the number Σ code_i 2^(i b), the lowest byte first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qviz.export import pack, unpack


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1)))))
def test_the_stream_is_one_number_and_comes_back(case):
    bits, codes = case
    number = sum(code << i * bits for i, code in enumerate(codes))
    data = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert bytes(data.tolist()) == number.to_bytes(-(-len(codes) * bits // 8), "little")
    assert unpack(data, bits, (len(codes),)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_long_stream_is_that_of_the_bits_one_by_one(bits):
    codes = np.random.default_rng(bits).integers(0, 2**bits, 2**19 + 13, dtype=np.uint8)
    columns = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits]
    data = pack(torch.from_numpy(codes), bits)
    assert np.array_equal(data.numpy(), np.packbits(columns, bitorder="little"))
    assert np.array_equal(unpack(data, bits, codes.shape).numpy(), codes)


def test_the_order_is_that_of_flatten_and_the_shape_comes_back():
    codes = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).transpose(0, 2)
    assert torch.equal(pack(codes, 5), pack(codes.flatten(), 5))
    assert torch.equal(unpack(pack(codes, 5), 5, codes.shape), codes)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: pack(torch.tensor([4], dtype=torch.uint8), 2), ValueError, "include 4, which 2 bits"),
        (lambda: pack(torch.tensor([1]), 2), TypeError, "uint8 tensor, got torch.int64"),
        (lambda: pack(torch.zeros(1, dtype=torch.uint8), 9), ValueError, "between 1 and 8, got 9"),
        (lambda: unpack(torch.zeros(2, dtype=torch.uint8), 3, (2,)), ValueError, "2 bytes are not those"),
        (lambda: unpack(torch.tensor([64], dtype=torch.uint8), 3, (2,)), ValueError, "not 0 after"),
        (lambda: unpack(torch.zeros(0, dtype=torch.uint8), 3, (10**9, 10)), ValueError, "3750000000"),
    ],
)
def test_what_cannot_be_packed_is_refused(act, error, words):
    with pytest.raises(error, match=words):
        act()
