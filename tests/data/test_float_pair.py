# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Pairs of float32 against float64, whose 53 bits hold what they should give."""

from operator import mul, truediv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_aprilgan.data.float_pair import FloatPair

# Sizes between which no product is too small for its rest to be kept.
numbers = st.floats(-1000, 1000, width=32).filter(lambda value: abs(value) > 1e-3)


def exact(pair: FloatPair) -> torch.Tensor:
    return pair.high.double() + pair.low.double()


def pair_of(value: float) -> FloatPair:
    """A pair with both parts: a third of a value."""
    return FloatPair.of(torch.tensor([value])) / FloatPair.of(torch.tensor([3.0]))


@pytest.mark.parametrize("operation", [mul, truediv])
@given(first=numbers, second=numbers)
def test_products_and_quotients_have_45_bits(operation, first, second):
    left, right = pair_of(first), pair_of(second)
    expected = operation(exact(left), exact(right))
    assert abs(exact(operation(left, right)) - expected) <= abs(expected) * 2**-45


@given(first=numbers, second=numbers)
def test_sums_have_45_bits_of_the_larger(first, second):
    left, right = pair_of(first), torch.tensor([second])
    expected = exact(left) + right
    assert abs(exact(left + right) - expected) <= (abs(exact(left)) + abs(right)) * 2**-45


def test_scaling_by_a_power_of_two_is_exact():
    third = pair_of(1.0)
    assert exact(third * 2**22) == exact(third) * 2**22


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60))
def test_a_sum_has_43_bits(values):
    thirds = FloatPair.of(torch.tensor([values])) / FloatPair.of(torch.tensor([[3.0]]))
    total = thirds.sum(1, keepdim=True)
    assert total.high.shape == (1, 1)
    assert abs(exact(total) - exact(thirds).sum()) <= exact(thirds).abs().sum() * 2**-43 + 2**-43


def test_a_sum_keeps_what_float32_loses():
    values = FloatPair(torch.tensor([[1.0, 2.0**-20, 1.0]]), torch.tensor([[2.0**-30, 2.0**-40, 0.0]]))
    assert exact(values.sum(1, keepdim=True)).item() == 2 + 2**-20 + 2**-30 + 2**-40
    assert (values.high.sum() + values.low.sum()).item() == 2 + 2**-20


@pytest.mark.parametrize(
    ("high", "low", "nearest"),
    [(2.5, -(2.0**-30), 2), (2.5, 2.0**-30, 3), (-2.5, -(2.0**-30), -3), (2.0**22 - 0.5, 0.0, 2**22), (7.0, -0.25, 7)],
)
def test_rounding_heeds_both_parts(high, low, nearest):
    assert FloatPair(torch.tensor(high), torch.tensor(low)).round().item() == nearest
