r"""Sums, products, and matrix products by BLAS with a bound on its rounding.

Whatever the order in which K products of floats are added, with or without fused
operations, the result errs by at most $\gamma \sum |a||b|$ with
$\gamma = Ku / (1 - Ku)$, plus $2^{-1075}$ for each product that underflows (Higham,
section 3.1; a BLAS that multiplies matrices by Strassen's method would break this, and
none in use does).

References:
  Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 2002.
  Rump, *Fast and parallel interval arithmetic*, BIT 1999.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers.intervals import rounding
from phihat.convexity.numbers.intervals.core import (
    Interval,
    add,
    as_interval,
    mul,
    neg,
    rearrange,
    sub,
)
from phihat.convexity.numbers.intervals.order import maximum

__all__ = ["dot_general", "matmul", "reduce_prod", "reduce_sum"]


def reduce_sum(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Sum over axes, as a balanced tree of `add`: about log2 of the count roundings."""
    return _fold(add, 0.0, x, axes)


def reduce_prod(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Multiply over axes, as a balanced tree of `mul`."""
    return _fold(mul, 1.0, x, axes)


def _fold(
    operation: Callable[..., Interval], start: float, x: Any, axes: Any
) -> Interval:
    """Combine the entries over axes in a balanced tree."""
    x = as_interval(x)
    axes = _axes(x, axes)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept]
    count = math.prod(x.shape[axis] for axis in axes)
    if not count:
        empty = np.full(shape, start)
        return Interval(empty, empty)
    x = x.transpose((*axes, *kept)).reshape((count, *shape))
    while count > 1:
        half = count // 2
        folded = operation(x[:half], x[half : 2 * half])
        if count % 2:
            folded = rearrange(_concatenate, folded, x[2 * half :])
        x, count = folded, count - half
    return x[0]


def _concatenate(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([one, other])


def _axes(x: Interval, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(x.ndim))
    axes = (axes,) if isinstance(axes, int) else axes
    return tuple(axis % x.ndim for axis in axes)


# ---------------------------------------------------------------------- contractions


def matmul(x: Any, y: Any) -> Interval:
    """Multiply matrices or vectors, as `numpy.matmul` does."""
    x, y = as_interval(x), as_interval(y)
    product = _matmul(
        x[None, :] if x.ndim == 1 else x, y[:, None] if y.ndim == 1 else y
    )
    if x.ndim == 1:
        product = product[..., 0, :]
    return product[..., 0] if y.ndim == 1 else product


def dot_general(
    x: Any,
    y: Any,
    dimension_numbers: tuple[
        tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]
    ],
) -> Interval:
    """Contract two arrays as `jax.lax.dot_general` does."""
    x, y = as_interval(x), as_interval(y)
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    x_free = [axis for axis in range(x.ndim) if axis not in (*x_sum, *x_batch)]
    y_free = [axis for axis in range(y.ndim) if axis not in (*y_sum, *y_batch)]
    batch, rows, columns = (
        [z.shape[axis] for axis in axes]
        for z, axes in ((x, x_batch), (x, x_free), (y, y_free))
    )
    count = math.prod(x.shape[axis] for axis in x_sum)
    x = x.transpose((*x_batch, *x_free, *x_sum))
    y = y.transpose((*y_batch, *y_sum, *y_free))
    product = _matmul(
        x.reshape((*batch, math.prod(rows), count)),
        y.reshape((*batch, count, math.prod(columns))),
    )
    return product.reshape((*batch, *rows, *columns))


_FEW_PRODUCTS = 2048


@np.errstate(all="ignore")  # what overflows is bounded by infinity
def _matmul(x: Interval, y: Interval) -> Interval:
    """Multiply stacks of matrices; few products one by one, exactly where possible."""
    if x.size * y.shape[-1] <= _FEW_PRODUCTS:
        y = rearrange(lambda end: np.swapaxes(end, -1, -2), y)
        return reduce_sum(mul(x[..., :, None, :], y[..., None, :, :]), -1)
    if x.is_point and y.is_point:
        return _matmul_of_points(x.low, y.low)
    return _matmul_by_signs(x, y)


def _matmul_of_points(x: np.ndarray, y: np.ndarray) -> Interval:
    r"""Multiply once for the value and once for $\sum |a||b|$, which bounds its error.

    If all entries are whole and that sum stays below 2^53, every partial sum is exact.
    """
    value = np.matmul(x, y)
    size = np.matmul(np.abs(x), np.abs(y))
    if (size < 2.0**53).all() and _is_whole(x) and _is_whole(y):
        return Interval(value, value)
    radius = _radius(size, x.shape[-1])
    low = np.nextafter(value - radius, -np.inf)
    high = np.nextafter(value + radius, np.inf)
    is_zero = _is_zero(size, x != 0, y != 0)
    unknown = ~(np.isfinite(value) & np.isfinite(radius))
    low = np.where(is_zero, 0.0, np.where(unknown, -np.inf, low))
    return Interval(low, np.where(is_zero, 0.0, np.where(unknown, np.inf, high)))


def _matmul_by_signs(x: Interval, y: Interval) -> Interval:
    r"""Split each number into its positive and negative part, $a = a^+ - a^-$.

    Then $ab = a^+b^+ + a^-b^- - a^+b^- - a^-b^+$, where no factor is negative, so that
    the bounds of each product are products of ends. They are sharp unless both factors
    straddle zero, and then too wide by a factor of two at most.
    """
    x_plus, x_minus, y_plus, y_minus = (_part(z) for z in (x, neg(x), y, neg(y)))
    zero = np.zeros(
        (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    )
    total = Interval(zero, zero)
    for sign, a, b in (
        (add, x_plus, y_plus),
        (add, x_minus, y_minus),
        (sub, x_plus, y_minus),
        (sub, x_minus, y_plus),
    ):
        if a is not None and b is not None:
            total = sign(total, _matmul_of_parts(a, b))
    return total


class _Part(NamedTuple):
    """A matrix of intervals that are nowhere negative.

    Attributes:
      low: the lower ends.
      high: the upper ends, where finite, else 0.
      is_open: where the upper ends are infinite.
    """

    low: np.ndarray
    high: np.ndarray
    is_open: np.ndarray | None


def _part(x: Interval) -> _Part | None:
    """Take the positive part of each number; None if all are zero."""
    x = maximum(x, 0.0)
    if not x.high.any():
        return None
    if x.is_point:
        return _Part(x.low, x.low, None)
    is_open = np.isinf(x.high)
    if not is_open.any():
        return _Part(x.low, x.high, None)
    return _Part(x.low, np.where(is_open, 0.0, x.high), is_open)


def _matmul_of_parts(x: _Part, y: _Part) -> Interval:
    """Multiply the lower ends and the upper ends; an error is relative to its result.

    An infinite end makes an entry infinite if it meets a factor that is not zero.
    """
    count = x.low.shape[-1]
    is_point = x.low is x.high and y.low is y.high
    least = np.matmul(x.low, y.low)
    most = least if is_point else np.matmul(x.high, y.high)
    least = np.minimum(least, rounding.LARGEST)
    low = np.nextafter(least - _radius(least, count), -np.inf)
    high = np.nextafter(most + _radius(most, count), np.inf)
    high = np.where(_is_zero(most, x.high > 0, y.high > 0), 0.0, high)
    if x.is_open is not None:
        high = np.where(_meet(x.is_open, _is_positive(y)), np.inf, high)
    if y.is_open is not None:
        high = np.where(_meet(_is_positive(x), y.is_open), np.inf, high)
    return Interval(np.maximum(low, 0.0), high)


def _is_positive(x: _Part) -> np.ndarray:
    return x.high > 0 if x.is_open is None else (x.high > 0) | x.is_open


def _is_zero(size: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which sums hold no product of two factors other than zero.

    Asked only where the computed sum of sizes is zero: it may have underflowed.
    """
    is_zero = size == 0
    return is_zero & ~_meet(x, y) if is_zero.any() else is_zero


def _meet(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which sums hold a product of two that are true; BLAS multiplies floats."""
    return np.matmul(x.astype(np.float64), y.astype(np.float64)) > 0


def _radius(size: np.ndarray, count: int) -> np.ndarray:
    r"""Bound the error of sums of `count` products from the computed sum of sizes.

    That sum errs itself: the factor is $\gamma / (1 - \gamma)$, and some units to spare
    for the roundings here.
    """
    unit = (count + 2) * rounding.UNIT
    return size * (unit / (1 - 4 * unit)) + count * rounding.TINIEST


def _is_whole(x: np.ndarray) -> bool:
    first = x[(0,) * (x.ndim - 1)]  # settles most cases at once
    return bool((first == np.rint(first)).all() and (x == np.rint(x)).all())
