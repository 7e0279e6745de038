r"""Directed rounding without rounding modes: how far is a rounded result from the truth?

Each operation here returns its result $s$, rounded to nearest, and a number whose sign
is that of the error (truth $- s$), or NaN where the sign is not known. A bound then
moves to the neighbouring float only where it must, so exact results stay exact.

The processor is trusted to add, subtract, multiply, divide and take roots as IEEE 754
says: to nearest, with gradual underflow.

Example:
  >>> total, error = two_sum(1.0, 1e-30)
  >>> total, error
  (1.0, 1e-30)
  >>> float(round_down(total, error)), float(round_up(total, error))
  (1.0, 1.0000000000000002)

References:
  Dekker, *A floating-point technique for extending the available precision*, 1971.
  Boldo, Graillat, Muller, *On the robustness of the 2Sum algorithm*, 2017.
"""

from typing import Any

import numpy as np

__all__ = [
    "LARGEST",
    "TINIEST",
    "UNIT",
    "inflate",
    "round_down",
    "round_up",
    "two_product",
    "two_quotient",
    "two_root",
    "two_sum",
]

UNIT = 2.0**-53
"""The unit roundoff: half the distance from 1 to the next float."""

TINIEST = 2.0**-1074
"""The smallest positive float."""

LARGEST = float(np.finfo(np.float64).max)
"""The largest finite float."""


def round_down(value: Any, error: Any) -> Any:
    """Return the largest float known to lie below `value + error`, at most one off.

    The truth lies within one float of `value`, on the side that `error` tells. An
    overflow to +inf comes back as the largest float, below which no sum rounds to inf.
    """
    return np.where(error >= 0, value, np.nextafter(value, -np.inf))


def round_up(value: Any, error: Any) -> Any:
    """Return the smallest float known to lie above `value + error`, at most one off."""
    return np.where(error <= 0, value, np.nextafter(value, np.inf))


def two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """Add; the error is exact by Knuth's TwoSum, and NaN where the sum overflows."""
    total = x + y
    y_part = total - x
    x_part = total - y_part
    return total, (x - x_part) + (y - y_part)


def two_product(x: Any, y: Any) -> tuple[Any, Any]:
    r"""Multiply; the error is exact by Dekker's product, and NaN where that may fail.

    It holds where every partial product is a multiple of $2^{-1074}$ and finite: for
    $2^{-960} \le |xy| \le 2^{1000}$. A factor above $2^{996}$ overflows in the split
    and gives NaN by itself; a factor of zero gives zero, that of infinity too, since
    an infinite end is never attained.
    """
    product = x * y
    x_head, x_tail = _split(x)
    y_head, y_tail = _split(y)
    error = x_tail * y_tail - (
        ((product - x_head * y_head) - x_tail * y_head) - x_head * y_tail
    )
    size = np.abs(product)
    safe = (size >= _SAFE_LOW) & (size <= _SAFE_HIGH)
    if not np.all(safe):
        is_zero = (x == 0) | (y == 0)
        error = np.where(safe, error, np.where(is_zero, 0.0, np.nan))
        product = np.where(is_zero, 0.0, product)
    return product, error


def two_quotient(x: Any, y: Any) -> tuple[Any, Any]:
    r"""Divide by $y \ne 0$; the sign is that of the remainder $(x - qy)\,y$.

    With $qy = p + e$ exactly, $x - p$ is exact (Sterbenz: $p$ is within a factor of
    two of $x$) and one last rounding keeps the sign. Dividing by infinity gives zero,
    a bound that the quotients by finite numbers never cross.
    """
    quotient = x / y
    product, product_error = two_product(quotient, y)
    error = ((x - product) - product_error) * np.sign(y)
    return quotient, np.where(np.isinf(y), 0.0, error)


def two_root(x: Any) -> tuple[Any, Any]:
    r"""Take the root of $x \ge 0$; the sign is that of $x - s^2$, as in a quotient."""
    root = np.sqrt(x)
    square, square_error = two_product(root, root)
    return root, (x - square) - square_error


def inflate(value: Any, ulps: float) -> tuple[Any, Any]:
    r"""Widen the result of a function that errs by at most `ulps` units of last place.

    A unit in the last place of $v$ or of its neighbours in value is at most
    $2^{-52}|v| + 2^{-1074}$; one more unit covers the roundings here. Where a finite
    truth overflowed, the inner bound falls back to the largest float, widened.
    """
    size = np.minimum(np.abs(value), LARGEST)
    radius = size * ((ulps + 1) * 2 * UNIT) + (ulps + 1) * TINIEST
    return np.minimum(value, LARGEST) - radius, np.maximum(value, -LARGEST) + radius


_SAFE_LOW, _SAFE_HIGH = 2.0**-960, 2.0**1000


def _split(x: Any) -> tuple[Any, Any]:
    """Split into a head and a tail of 26 bits, by Veltkamp: x = head + tail."""
    scaled = x * 134217729.0  # 2^27 + 1
    head = scaled - (scaled - x)
    return head, x - head
