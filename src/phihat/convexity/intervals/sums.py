r"""Sums, products, and matrix products by BLAS with a bound on its rounding.

Whatever the order in which K products of floats are added, with or without fused
operations, the result errs by at most $\gamma \sum |a||b|$ with
$\gamma = Ku / (1 - Ku)$, plus $2^{-1075}$ for each product that underflows (Higham,
section 3.1; a BLAS that multiplies matrices by Strassen's method would break this, and
none in use does).

Example:
  >>> from phihat.convexity.intervals import Interval, matmul, reduce_sum
  >>> reduce_sum([0.25, 0.5, 1e16])
  Interval(low=1e+16, high=1.0000000000000002e+16)
  >>> matmul(np.ones((1, 2)), Interval([0.0, 1.0], [1.0, np.inf]))
  Interval(low=array([1.]), high=array([inf]))

References:
  Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 2002.
  Rump, *Fast and parallel interval arithmetic*, BIT 1999.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.intervals import rounding
from phihat.convexity.intervals.core import (
    Interval,
    add,
    as_interval,
    mul,
    neg,
    rearrange,
    sub,
)
from phihat.convexity.intervals.order import maximum

__all__ = ["cumsum", "dot_general", "matmul", "reduce_prod", "reduce_sum"]


def reduce_sum(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Sum over axes, as a balanced tree of `add`: about log2 of the count roundings."""
    return _fold(add, 0.0, x, axes)


def reduce_prod(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Multiply over axes, as a balanced tree of `mul`."""
    return _fold(mul, 1.0, x, axes)


def cumsum(x: Any, axis: int = 0, *, reverse: bool = False) -> Interval:
    """Sum up along an axis by doubling strides: each entry a balanced tree of `add`.

    After the step of stride s, entry i holds the sum of the 2s entries up to it.
    """
    x = rearrange(lambda end: np.moveaxis(end, axis, 0), as_interval(x))
    x = x[::-1] if reverse else x
    stride = 1
    while stride < x.shape[0]:
        later = add(x[stride:], x[:-stride])
        x = rearrange(lambda a, b: np.concatenate([a, b]), x[:stride], later)
        stride *= 2
    x = x[::-1] if reverse else x
    return rearrange(lambda end: np.moveaxis(end, 0, axis), x)


def _fold(
    operation: Callable[..., Interval], start: float, x: Any, axes: Any
) -> Interval:
    """Combine the entries over axes in a balanced tree."""
    x = as_interval(x)
    axes = _axes(x, axes)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = tuple(x.shape[axis] for axis in kept)
    x = x.transpose((*axes, *kept)).reshape((-1, *shape)) if axes else x[None]
    if not x.shape[0]:
        return Interval(empty := np.full(shape, start), empty)
    while (count := x.shape[0]) > 1:
        half = operation(x[: count // 2], x[count // 2 : count // 2 * 2])
        rest = x[count // 2 * 2 :]
        x = rearrange(lambda a, b: np.concatenate([a, b]), half, rest)
    return x[0]


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
    """Contract two arrays as `jax.lax.dot_general` does.

    Args:
      x: an interval or array `[...]`.
      y: an interval or array `[...]`.
      dimension_numbers: ((contracted axes of x, of y), (batch axes of x, of y)).

    Returns:
      The batch axes, then the free axes of x, then those of y.
    """
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
    if np.all(size < 2.0**53) and _is_whole(x) and _is_whole(y):
        return Interval(value, value)
    radius = size * _relative_error(x.shape[-1]) + _underflow(x, y)
    low, high = (
        np.nextafter(value - radius, -np.inf),
        np.nextafter(value + radius, np.inf),
    )
    is_exact = radius == 0
    known = np.isfinite(value) & np.isfinite(radius)
    return Interval(
        np.where(known, np.where(is_exact, value, low), -np.inf),
        np.where(known, np.where(is_exact, value, high), np.inf),
    )


def _matmul_by_signs(x: Interval, y: Interval) -> Interval:
    r"""Split each number into its positive and negative part, $a = a^+ - a^-$.

    Then $ab = a^+b^+ + a^-b^- - a^+b^- - a^-b^+$, where each factor is at least zero,
    so that the bounds are products of ends. They are sharp unless both factors straddle
    zero, and then too wide by a factor of two at most.
    """
    (x_plus, x_minus), (y_plus, y_minus) = (
        (maximum(z, 0.0), maximum(neg(z), 0.0)) for z in (x, y)
    )
    agreeing = ((x_plus, y_plus), (x_minus, y_minus))
    opposed = ((x_plus, y_minus), (x_minus, y_plus))
    positive, negative = _sum_of(agreeing), _sum_of(opposed)
    return sub(positive, negative)


def _sum_of(pairs: tuple[tuple[Interval, Interval], ...]) -> Interval:
    """Add the products of pairs of matrices that are nowhere negative."""
    (a, b), (c, d) = pairs
    return add(
        Interval(_below(a.low, b.low), _above(a.high, b.high)),
        Interval(_below(c.low, d.low), _above(c.high, d.high)),
    )


def _below(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bound from below the product of finite matrices that are nowhere negative."""
    if not (x.any() and y.any()):
        return _zeros(x, y)
    value = np.minimum(np.matmul(x, y), rounding.LARGEST)
    radius = value * _relative_error(x.shape[-1]) + _underflow(x, y)
    return np.maximum(np.nextafter(value - radius, -np.inf), 0.0)


def _above(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bound from above the product of matrices that are nowhere negative.

    An infinite end makes an entry infinite if it meets a factor that is not zero. An
    entry whose products all are zero is zero, underflow or not.
    """
    if not (x.any() and y.any()):
        return _zeros(x, y)
    x_open, y_open = np.isinf(x), np.isinf(y)
    x_finite, y_finite = np.where(x_open, 0.0, x), np.where(y_open, 0.0, y)
    value = np.matmul(x_finite, y_finite)
    underflow = _underflow(x_finite, y_finite)
    radius = value * _relative_error(x.shape[-1]) + underflow
    is_zero = (value == 0) & (
        _meet(x_finite > 0, y_finite > 0) == 0 if underflow else True
    )
    bound = np.where(is_zero, 0.0, np.nextafter(value + radius, np.inf))
    if x_open.any() or y_open.any():
        meets = _meet(x_open, y > 0) + _meet(x > 0, y_open) > 0
        bound = np.where(meets, np.inf, bound)
    return bound


def _meet(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Count the products of two true factors; floats, since those BLAS multiplies."""
    return np.matmul(x.astype(np.float64), y.astype(np.float64))


def _zeros(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return np.zeros((*batch, x.shape[-2], y.shape[-1]))


def _is_whole(x: np.ndarray) -> bool:
    return bool(np.all(x == np.rint(x)))


def _relative_error(count: int) -> float:
    r"""Bound $\gamma / (1 - \gamma) = Ku / (1 - 2Ku)$, own rounding included."""
    unit = (count + 2) * rounding.UNIT
    return unit / (1 - 4 * unit)


def _underflow(x: np.ndarray, y: np.ndarray) -> float:
    """Bound what underflow adds; zero if no product of nonzero entries is so small."""
    least = [np.min(np.abs(z), where=z != 0, initial=np.inf) for z in (x, y)]
    if least[0] * least[1] >= 2.0**-1022:
        return 0.0
    return x.shape[-1] * rounding.TINIEST
