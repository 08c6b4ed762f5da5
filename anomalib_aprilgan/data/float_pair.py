# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Numbers of about 48 bits as sums of two of float32, for graphs that run where float64 becomes float32.

They have as much of a tensor's interface as the weights of a resize need.

Source: Dekker, "A floating-point technique for extending the available precision", Numerische Mathematik 18 (1971).
"""

from dataclasses import dataclass

import torch

SPLITTER = 2.0**12 + 1  # cuts the 24 bits of a float32 into halves whose products are exact
COARSE, MIDDLE = 2.0**11, 2.0**25  # sums of multiples of their inverses are exact, see FloatPair.sum


@dataclass(frozen=True)
class FloatPair:
    """Exact sums of two tensors, the second of which is what the first one rounds away.

    Attributes:
        high (torch.Tensor): Nearest float32.
        low (torch.Tensor): The rest, float32, of the same shape.

    Example:
        >>> third = FloatPair.of(torch.ones(1)) / FloatPair.of(torch.full((1,), 3.0))
        >>> abs(third.high.double() + third.low.double() - 1 / 3).item() < 2**-48
        True
    """

    high: torch.Tensor
    low: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor) -> "FloatPair":
        """Whole numbers below 2^24, and what else float32 holds."""
        high = values.float()
        return cls(high, torch.zeros_like(high))

    def __add__(self, other: torch.Tensor) -> "FloatPair":
        """Sum with what float32 holds."""
        total = _sum(self.high, other)
        return _settled(total.high, total.low + self.low)

    def __mul__(self, other: "FloatPair | int") -> "FloatPair":
        """Product, with other pairs or with a power of two."""
        if isinstance(other, int):
            return FloatPair(self.high * other, self.low * other)
        exact = _product(self.high, other.high)
        return _settled(exact.high, exact.low + (self.high * other.low + self.low * other.high))

    def __truediv__(self, other: "FloatPair") -> "FloatPair":
        """Quotient, by one step of long division."""
        quotient = self.high / other.high
        exact = _product(quotient, other.high)
        rest = ((self.high - exact.high) - exact.low) + (self.low - quotient * other.low)
        return _settled(quotient, rest / other.high)

    def __lt__(self, limit: float) -> torch.Tensor:
        """Whether they are below a limit, but for what the first part rounds away."""
        return self.high < limit

    def sum(self, dim: int, *, keepdim: bool) -> "FloatPair":
        """Sum along a dimension of at most 2^11 values that are not zero, whose sizes make at most 2^13 together."""
        coarse = (self.high * COARSE).round() / COARSE
        rest = self.high - coarse  # exact, at most 2^-12
        middle = (rest * MIDDLE).round() / MIDDLE
        fine = (rest - middle) + self.low
        total = _sum(coarse.sum(dim, keepdim=keepdim), middle.sum(dim, keepdim=keepdim))
        return _settled(total.high, total.low + fine.sum(dim, keepdim=keepdim))

    def round(self) -> torch.Tensor:
        """Nearest whole number, float32; halves go up."""
        whole = self.high.floor()
        return whole + (((self.high - whole) - 0.5) + self.low).floor() + 1


def _sum(first: torch.Tensor, second: torch.Tensor) -> FloatPair:
    total = first + second
    added = total - first
    return FloatPair(total, (first - (total - added)) + (second - added))


def _settled(large: torch.Tensor, small: torch.Tensor) -> FloatPair:
    """As ``_sum``, where the first is not the smaller one."""
    total = large + small
    return FloatPair(total, small - (total - large))


def _product(first: torch.Tensor, second: torch.Tensor) -> FloatPair:
    product = first * second
    (left, left_rest), (right, right_rest) = _halves(first), _halves(second)
    rest = ((left * right - product) + left * right_rest + left_rest * right) + left_rest * right_rest
    return FloatPair(product, rest)


def _halves(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    large = values * SPLITTER
    high = large - (large - values)
    return high, values - high
