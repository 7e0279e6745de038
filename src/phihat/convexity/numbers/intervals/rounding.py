r"""Directed rounding without rounding modes: on which side of a result is the truth?

Each operation here returns its result $s$, rounded to nearest, and a number whose sign
is that of the error (truth $- s$), or NaN where the sign is not known. A bound then
moves to a neighbouring float only where it must, so exact results stay exact.

The processor is trusted to add, subtract, multiply, divide and take roots as IEEE 754
says: to nearest, with gradual underflow. The functions take arrays and scalars.

References:
  Dekker, *A floating-point technique for extending the available precision*, 1971.
  Boldo, Graillat, Muller, *On the robustness of the 2Sum algorithm*, 2017.
  Rump et al., *Computing predecessor and successor in rounding to nearest*, 2009.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "LARGEST",
    "TINIEST",
    "UNIT",
    "choose",
    "enclose",
    "in_blocks",
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


# ---------------------------------------------------------------------- directed bounds


def enclose(value: Any, error: Any) -> tuple[Any, Any]:
    """Bound `value + error`; the two bounds are one object if every error is zero."""
    if isinstance(value, float):
        return (
            (value, value) if error == 0 else (_down(value, error), _up(value, error))
        )
    if not error.any():  # NaN is no zero
        return value, value
    return round_down(value, error), round_up(value, error)


def round_down(value: Any, error: Any) -> Any:
    r"""Bound `value + error` from below: `value`, or a float just below it.

    The truth lies between `value` and its neighbour on the side that `error` tells. A
    step of $2^{-53}(1 + 2^{-52})|v| + 2^{-1074}$ exceeds half the distance to the
    neighbour, so it rounds to it, or at worst beyond it. An overflow to +inf falls back
    to the largest float, which no number that rounds to inf lies below.
    """
    if isinstance(value, float):
        return _down(value, error)
    return np.where(error >= 0, value, np.minimum(value - _step(value), LARGEST))


def round_up(value: Any, error: Any) -> Any:
    """Bound `value + error` from above, as `round_down` does from below."""
    if isinstance(value, float):
        return _up(value, error)
    return np.where(error <= 0, value, np.maximum(value + _step(value), -LARGEST))


def inflate(value: Any, ulps: float) -> tuple[Any, Any]:
    r"""Bound the truth from a result that errs by at most `ulps` units of last place.

    A unit in the last place of $v$, or of a truth beside it, is at most
    $2^{-52}|v| + 2^{-1074}$; one more unit covers the roundings here. Where a finite
    truth overflowed, the inner bound falls back to the largest float, widened.
    """
    radius = np.minimum(np.abs(value), LARGEST) * ((ulps + 1) * 2 * UNIT)
    radius = radius + (ulps + 1) * TINIEST
    return np.minimum(value, LARGEST) - radius, np.maximum(value, -LARGEST) + radius


def _down(value: float, error: float) -> float:
    return value if error >= 0 else math.nextafter(value, -math.inf)


def _up(value: float, error: float) -> float:
    return value if error <= 0 else math.nextafter(value, math.inf)


def _step(value: Any) -> Any:
    return np.minimum(np.abs(value), LARGEST) * _PHI + TINIEST


_PHI = UNIT * (1 + 2 * UNIT)


# ---------------------------------------------------------------------- signed errors


def two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """Add; the error is exact by Knuth's TwoSum, and NaN where the sum is infinite."""
    total = x + y
    y_part = total - x
    x_part = total - y_part
    return total, (x - x_part) + (y - y_part)


def two_product(x: Any, y: Any) -> tuple[Any, Any]:
    r"""Multiply; the error is exact by Dekker's product, and NaN where that may fail.

    It holds where every partial product is finite and a multiple of $2^{-1074}$: for
    $2^{-960} \le |xy| \le 2^{1000}$. A factor above $2^{996}$ overflows in the split
    and gives NaN by itself. A product that underflows to zero keeps the sign of its
    truth. A factor of zero gives zero, times infinity too, since an infinite end is
    never attained.
    """
    product = x * y
    x_head, x_tail = _split(x)
    y_head, y_tail = _split(y)
    error = x_tail * y_tail - (
        ((product - x_head * y_head) - x_tail * y_head) - x_head * y_tail
    )
    size = abs(product)
    if isinstance(size, float):
        if _SAFE_LOW <= size <= _SAFE_HIGH:
            return product, error
        if x == 0 or y == 0:
            return 0.0, 0.0
        return product, math.copysign(1.0, product) if size == 0 else math.nan
    is_safe = (size >= _SAFE_LOW) & (size <= _SAFE_HIGH)
    if is_safe.all():
        return product, error
    unsafe = np.where(size == 0, np.copysign(1.0, product), np.nan)
    is_zero = (x == 0) | (y == 0)
    error = np.where(is_safe, error, np.where(is_zero, 0.0, unsafe))
    return np.where(is_zero, 0.0, product), error


def two_quotient(x: Any, y: Any) -> tuple[Any, Any]:
    r"""Divide by $y \ne 0$; the sign is that of the remainder, $(x - qy) / y$.

    With $qy = p + e$ exactly, $x - p$ is exact since p is within a factor of two of x
    (Sterbenz), and one last rounding keeps the sign. Dividing by infinity gives zero
    and the sign of the quotients by finite numbers, which approach it.
    """
    quotient = x / y
    product, product_error = two_product(quotient, y)
    return quotient, ((x - product) - product_error) * np.sign(y)


def two_root(x: Any) -> tuple[Any, Any]:
    r"""Take the root of $x \ge 0$; the sign is that of $x - s^2$, as in a quotient."""
    root = np.sqrt(x)
    square, square_error = two_product(root, root)
    return root, (x - square) - square_error


_SAFE_LOW, _SAFE_HIGH = 2.0**-960, 2.0**1000


def _split(x: Any) -> tuple[Any, Any]:
    """Split into a head and a tail of 26 bits, by Veltkamp: x = head + tail."""
    scaled = x * 134217729.0  # 2^27 + 1
    head = scaled - (scaled - x)
    return head, x - head


# ---------------------------------------------------------------------- evaluation


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """Choose entry by entry, as `np.where`, which is slow on scalars."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)
    return yes if condition else no


@np.errstate(all="ignore")  # overflow and 0 * inf are handled, so nobody is warned
def in_blocks(fn: Callable[..., tuple[Any, Any]], *arrays: np.ndarray) -> Any:
    """Apply an elementwise `(*arrays) -> (low, high)` in blocks that fit the cache.

    Scalars are handed over as scalars, which are fifty times as fast as arrays of one
    entry. If each block is exact, its bounds being one object, then so is the whole.
    """
    shapes = {array.shape for array in arrays}
    if shapes == {()}:
        return fn(*(array[()] for array in arrays))
    if math.prod(np.broadcast_shapes(*shapes)) <= _BLOCK:
        return fn(*(np.broadcast_arrays(*arrays) if len(shapes) > 1 else arrays))
    blocks: Any = np.nditer(  # pyright: ignore[reportCallIssue]
        [*arrays, None, None],
        flags=["buffered", "external_loop"],
        op_flags=[  # pyright: ignore[reportArgumentType]
            *[["readonly"]] * len(arrays),
            *[["writeonly", "allocate"]] * 2,
        ],
        op_dtypes=[np.float64] * (len(arrays) + 2),
        buffersize=_BLOCK,
    )
    is_exact = True
    with blocks:
        for *inputs, low, high in blocks:
            bounds = fn(*inputs)
            low[...], high[...] = bounds
            is_exact = is_exact and bounds[0] is bounds[1]
        low, high = blocks.operands[-2:]
    return low, low if is_exact else high


_BLOCK = 16384
