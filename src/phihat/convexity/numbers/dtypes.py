"""The dtypes that a program may have: floats stand for reals, integers are exact.

A value of any other dtype (float8, int4, complex, a random key) is read by no rule.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = [
    "cast_ends",
    "ends",
    "fits",
    "is_boolean",
    "is_float",
    "is_integer",
    "is_narrow_float",
    "is_readable",
    "is_widening",
]

_FLOATS = frozenset(map(np.dtype, (np.float64, np.float32, np.float16, jnp.bfloat16)))
_INTEGERS = frozenset(
    np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
)
_BOOLEAN = np.dtype(np.bool_)


def is_float(dtype: Any) -> bool:
    """Tell the dtypes that stand for the reals."""
    return _plain(dtype) in _FLOATS


def is_narrow_float(dtype: Any) -> bool:
    """Tell the floats of so few bits that no rule reads them as reals."""
    try:
        return bool(jnp.issubdtype(dtype, jnp.floating)) and not is_float(dtype)
    except TypeError:  # the dtypes of random keys
        return False


def is_integer(dtype: Any) -> bool:
    """Tell the dtypes in which division truncates and sums wrap."""
    return _plain(dtype) in _INTEGERS


def is_boolean(dtype: Any) -> bool:
    """Tell the dtype whose numbers are 0 and 1."""
    return _plain(dtype) == _BOOLEAN


def is_readable(dtype: Any) -> bool:
    """Tell whether values of a dtype have a meaning for the rules."""
    plain = _plain(dtype)
    return plain in _FLOATS or plain in _INTEGERS or plain == _BOOLEAN


def is_widening(old: Any, new: Any) -> bool:
    """Tell whether every number of the old dtype is one of the new."""
    if not (is_readable(old) and is_readable(new)):
        return False
    if is_boolean(old):
        return True
    if not is_float(old):
        return not is_boolean(new) and bool(np.can_cast(old, new, "safe"))
    if not is_float(new):
        return False
    one, two = jnp.finfo(old), jnp.finfo(new)
    return bool(two.nmant >= one.nmant and two.maxexp >= one.maxexp)


def ends(dtype: Any) -> tuple[float, float]:
    """Return the least and the greatest number of a dtype, rounded outward."""
    if is_boolean(dtype):
        return 0.0, 1.0
    info = jnp.iinfo(dtype)
    return float(info.min), float(info.max)  # 2^k - 1 is rounded to 2^k, if at all


def fits(low: Any, high: Any, dtype: Any) -> Any:
    """Tell whether all integers of a range are ones of an integer dtype.

    The greatest of 64 bits is no float, and the float nearest to it is too great.
    """
    least, greatest = ends(dtype)
    if not is_boolean(dtype) and int(greatest) > jnp.iinfo(dtype).max:
        greatest = float(np.nextafter(greatest, 0.0))
    return (low >= least) & (high <= greatest)


def cast_ends(low: Any, high: Any, dtype: Any) -> tuple[Any, Any]:
    """Enclose what a cast of integers between two ends makes of them.

    The reals are all in a float dtype, but the integers that a program casts to it are
    rounded there, as the data are: 2^24 + 1 is 2^24 in float32. Of two floats next to
    an integer either may be taken; an integer that is a float stays as it is. The range
    of one that is too large for the dtype is open.
    """
    if not is_float(dtype):
        return low, high
    limit = 2.0 ** (int(jnp.finfo(dtype).nmant) + 1)
    if np.min(low, initial=0.0) >= -limit and np.max(high, initial=0.0) <= limit:
        return low, high
    unit = 4.0 / limit

    def moved(end: Any, sign: float) -> Any:
        with np.errstate(all="ignore"):
            there = np.asarray(end).astype(dtype).astype(np.float64)
            near = np.where(there == end, end, end + sign * unit * np.abs(end))
            return np.where(np.isinf(there) & (end * sign > 0), sign * np.inf, near)

    return moved(low, -1.0), moved(high, 1.0)


def _plain(dtype: Any) -> np.dtype | None:
    try:
        return np.dtype(dtype)
    except TypeError:  # the dtypes of random keys, and None
        return None
