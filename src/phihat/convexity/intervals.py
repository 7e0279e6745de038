r"""Intervals of real numbers that provably hold what they are said to hold.

An interval $[l, h]$ stands for the *finite* reals between its ends: an infinite end is
open, never attained. An operation on intervals returns an interval that holds the
result for every choice of numbers in its arguments at which the operation is defined;
where it might not be, a twin such as `div_is_defined` says so. Ends are rounded
outward, and only if they must be: integers and dyadic fractions stay points.

Example:
  >>> from phihat.convexity import intervals
  >>> intervals.add(1.0, 2.0)
  Interval(low=3.0, high=3.0)
  >>> sum_ = intervals.sub(intervals.add(-1.0, 1e16), 1e16)  # in floats: 0
  >>> sum_.contains(-1.0), sum_.is_point
  (True, False)

References:
  Moore, Kearfott, Cloud, *Introduction to Interval Analysis*, 2009.
"""

import fractions
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity import _rounding

__all__ = [
    "Interval",
    "absolute",
    "add",
    "as_interval",
    "ceil",
    "cumsum",
    "div",
    "div_is_defined",
    "eq",
    "everything",
    "floor",
    "from_array",
    "from_decimal",
    "from_rational",
    "ge",
    "gt",
    "hull",
    "hull_of",
    "integer_power",
    "integer_power_is_defined",
    "intersect",
    "le",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "ne",
    "neg",
    "overlaps",
    "rearrange",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "round_half_away",
    "round_half_even",
    "sign",
    "square",
    "sub",
    "truncate",
    "where",
]

_silent = np.errstate(all="ignore")  # overflow and 0 * inf are handled, not warned of


class Interval:
    """The finite reals between `low` and `high`, one pair of ends for each entry.

    Args:
      low: the lower ends `[...]`, float64; `-inf` leaves an end open.
      high: the upper ends `[...]`; the same object as `low` makes a point, which
        costs no memory and is operated on once.

    Raises:
      ValueError: an end is NaN, `low` lies above `high`, or no finite number is left.

    Example:
      >>> x = Interval(np.array([0.0, -1.0]), np.array([1.0, np.inf]))
      >>> 2.0 * x - 1.0
      Interval(low=array([-1., -3.]), high=array([ 1., inf]))
    """

    __slots__ = ("high", "low")
    __array_ufunc__ = None  # so that array * interval asks the interval

    low: np.ndarray
    high: np.ndarray

    def __init__(self, low: Any, high: Any) -> None:
        """Check and keep the two ends."""
        is_point = low is high
        low = np.asarray(low, np.float64)
        high = low if is_point else np.asarray(high, np.float64)
        if low.shape != high.shape:
            raise ValueError(
                "Interval: `low` and `high` must have the same shape, got "
                f"{list(low.shape)} and {list(high.shape)}."
            )
        if is_point:
            is_sound = np.isfinite(low)
        else:
            is_sound = (low <= high) & (low < np.inf) & (high > -np.inf)
        if not is_sound.all():
            wrong = np.argmin(is_sound)
            raise ValueError(
                "Interval: `low` must not lie above `high`, and between them must lie "
                f"a finite number, got low={low.flat[wrong]} and "
                f"high={high.flat[wrong]}."
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: an interval never changes."""
        raise AttributeError(f"Interval: `{name}` cannot be set.")

    def __repr__(self) -> str:
        """Show both ends; scalars as numbers."""
        low, high = (end.item() if not end.ndim else end for end in self)
        return f"Interval(low={low!r}, high={high!r})"

    def __iter__(self) -> Any:
        """Yield the two ends, so that `low, high = x`."""
        return iter((self.low, self.high))

    @property
    def is_point(self) -> bool:
        """Whether both ends are one array; equal ends in two arrays are not told."""
        return self.low is self.high

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of either end."""
        return self.low.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.low.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.low.size

    @property
    @_silent
    def middle(self) -> np.ndarray:
        """A finite float near the middle of each entry, within its ends."""
        low = np.maximum(self.low, -_rounding.LARGEST)
        high = np.minimum(self.high, _rounding.LARGEST)
        return np.clip(low / 2 + high / 2, low, high)

    @property
    @_silent
    def width(self) -> np.ndarray:
        """An upper bound on `high - low`."""
        return _rounding.round_up(*_rounding.two_sum(self.high, -self.low))

    @property
    def magnitude(self) -> np.ndarray:
        """The largest absolute value in each entry, or inf."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def contains(self, value: Any) -> Any:
        """Tell which finite values, floats or another interval, lie inside."""
        inner = as_interval(value)
        inside = (self.low <= inner.low) & (inner.high <= self.high)
        return inside.item() if not inside.ndim else inside

    def __getitem__(self, entry: Any) -> "Interval":
        """Take entries, as numpy does."""
        return rearrange(lambda end: end[entry], self)

    def reshape(self, *shape: Any) -> "Interval":
        """Reshape, as numpy does."""
        return rearrange(lambda end: end.reshape(*shape), self)

    def transpose(self, *axes: Any) -> "Interval":
        """Permute the axes, as numpy does."""
        return rearrange(lambda end: end.transpose(*axes), self)

    def __neg__(self) -> "Interval":
        """Negate."""
        return neg(self)

    def __abs__(self) -> "Interval":
        """Take the absolute value."""
        return absolute(self)

    def __add__(self, other: Any) -> "Interval":
        """Add."""
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Interval":
        """Subtract."""
        return sub(self, other)

    def __rsub__(self, other: Any) -> "Interval":
        """Subtract from `other`."""
        return sub(other, self)

    def __mul__(self, other: Any) -> "Interval":
        """Multiply."""
        return mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Interval":
        """Divide."""
        return div(self, other)

    def __rtruediv__(self, other: Any) -> "Interval":
        """Divide `other`."""
        return div(other, self)


# ------------------------------------------------------------------- from numbers


def as_interval(x: Any) -> Interval:
    """Return an interval as it is, and anything else through `from_array`."""
    return x if isinstance(x, Interval) else from_array(x)


def from_array(x: Any) -> Interval:
    """Read numbers of any real dtype: points wherever float64 holds them exactly.

    Narrower floats, bools and integers up to 2^53 widen without error; a larger
    integer is the sum of its two halves, rounded outward. An infinite or NaN entry is
    a number that is not known: it becomes [-inf, inf].

    Raises:
      TypeError: the numbers are complex, wider than float64, or no numbers.
    """
    if isinstance(x, int) and abs(x) > 2**53:
        return from_rational(x)
    array = np.asarray(x)
    dtype = array.dtype
    if dtype.kind in "iu" and dtype.itemsize == 8:
        upper = _point((array >> 32).astype(np.float64) * 2.0**32)
        return add(upper, (array & 0xFFFFFFFF).astype(np.float64))
    if dtype.kind not in "biuf" and not _is_narrow_float(dtype):
        raise TypeError(f"from_array: `x` must hold real numbers, got {dtype}.")
    if dtype.itemsize > 8:
        raise TypeError(f"from_array: `x` must be float64 or narrower, got {dtype}.")
    values = array.astype(np.float64, copy=False)
    known = np.isfinite(values)
    if known.all():
        return Interval(values, values)
    return Interval(np.where(known, values, -np.inf), np.where(known, values, np.inf))


def from_rational(x: int | fractions.Fraction) -> Interval:
    """Enclose one integer or fraction of any size as tightly as floats can.

    Python divides integers with correct rounding, and compares a float with a fraction
    exactly; so the error's sign is known.
    """
    exact = fractions.Fraction(x)
    try:
        nearest = float(exact)
    except OverflowError:
        ends = (_rounding.LARGEST, np.inf)
        return Interval(*ends) if exact > 0 else neg(Interval(*ends))
    error = float((exact > nearest) - (exact < nearest))
    return _enclose(np.float64(nearest), np.float64(error))


def from_decimal(digits: str) -> Interval:
    """Enclose a constant whose decimal digits are cut off, not rounded, at the end."""
    last_place = fractions.Fraction(10) ** -len(digits.partition(".")[2])
    below = fractions.Fraction(digits)
    return hull(from_rational(below), from_rational(below + last_place))


def hull_of(low: Any, high: Any) -> Interval:
    """Return the smallest interval that holds both numbers, broadcast together."""
    return hull(from_array(low), from_array(high))


def everything(shape: Sequence[int] = ()) -> Interval:
    """Return [-inf, inf], of which nothing is known, in views that cost no memory."""
    ends = (np.broadcast_to(np.float64(end), shape) for end in (-np.inf, np.inf))
    return Interval(*ends)


# --------------------------------------------------------------------- arithmetic


@_silent
def add(x: Any, y: Any) -> Interval:
    """Add: rounded outward by the sign of the exact error (TwoSum)."""
    x, y = as_interval(x), as_interval(y)
    if x.is_point and y.is_point:
        return _enclose(*_rounding.two_sum(x.low[()], y.low[()]))
    return Interval(
        _rounding.round_down(*_rounding.two_sum(x.low[()], y.low[()])),
        _rounding.round_up(*_rounding.two_sum(x.high[()], y.high[()])),
    )


def sub(x: Any, y: Any) -> Interval:
    """Subtract: add the negative, which is exact."""
    return add(x, neg(y))


def neg(x: Any) -> Interval:
    """Negate: exact, and the ends change places."""
    x = as_interval(x)
    if x.is_point:
        return _point(-x.low)
    return Interval(-x.high, -x.low)


@_silent
def mul(x: Any, y: Any) -> Interval:
    """Multiply: a bilinear function on a box is extremal at a corner.

    Each corner is rounded outward by the sign of its exact error (Dekker). A corner of
    zero times infinity is zero, since the infinite end is not attained. Both arguments
    vary on their own: for x * x see `square`.
    """
    x, y = as_interval(x), as_interval(y)
    x_ends, y_ends = (({id(end): end[()] for end in z}).values() for z in (x, y))
    corners = [_rounding.two_product(a, b) for a in x_ends for b in y_ends]
    if len(corners) == 1:
        return _enclose(*corners[0])
    return Interval(
        functools.reduce(np.minimum, (_rounding.round_down(*c) for c in corners)),
        functools.reduce(np.maximum, (_rounding.round_up(*c) for c in corners)),
    )


@_silent
def div(x: Any, y: Any) -> Interval:
    """Divide: monotone in either argument where y keeps its sign.

    Where zero lies inside y, or y is zero, the result is [-inf, inf]; where zero is
    but an end of y the quotients by its other numbers are enclosed.
    """
    x, y = as_interval(x), as_interval(y)
    if x.is_point and y.is_point and (y.low != 0).all():
        return _enclose(*_rounding.two_quotient(x.low[()], y.low[()]))
    unknown = ((y.low < 0) & (y.high > 0)) | ((y.low == 0) & (y.high == 0))
    flip = y.low < 0  # x / y = (-x) / (-y), so that y > 0
    x_low, x_high = np.where(flip, -x.high, x.low), np.where(flip, -x.low, x.high)
    y_low = np.abs(np.where(flip, y.high, y.low))  # a negative zero would be fatal
    y_high = np.where(flip, -y.low, y.high)
    low = _end_of_quotient(_rounding.round_down, x_low, x_low >= 0, y_low, y_high)
    high = _end_of_quotient(_rounding.round_up, x_high, x_high <= 0, y_low, y_high)
    return Interval(np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high))


def _end_of_quotient(
    rounded: Callable[..., Any], x: Any, is_towards_zero: Any, y_low: Any, y_high: Any
) -> Any:
    """Divide an end of x by that end of y > 0 which leads farthest out; 0 / 0 is 0."""
    y = np.where(is_towards_zero, y_high, y_low)
    return rounded(*_rounding.two_quotient(x, np.where(x == 0, 1.0, y)))


def div_is_defined(x: Any, y: Any) -> np.ndarray:
    """Tell where y holds no zero."""
    x, y = as_interval(x), as_interval(y)
    return np.broadcast_to(~_holds_zero(y), np.broadcast_shapes(x.shape, y.shape))


def absolute(x: Any) -> Interval:
    """Take the absolute value: exact; zero is the least where x holds it."""
    x = as_interval(x)
    if x.is_point:
        return _point(np.abs(x.low))
    return Interval(np.maximum(np.maximum(x.low, -x.high), 0.0), x.magnitude)


def maximum(x: Any, y: Any) -> Interval:
    """Take the larger: exact, and monotone in both arguments."""
    return _monotone_exact(np.maximum, x, y)


def minimum(x: Any, y: Any) -> Interval:
    """Take the smaller: exact, and monotone in both arguments."""
    return _monotone_exact(np.minimum, x, y)


def sign(x: Any) -> Interval:
    """Take the sign, -1, 0 or 1: exact and monotone."""
    return _monotone_exact(np.sign, x)


def floor(x: Any) -> Interval:
    """Round to the integer below: exact and monotone."""
    return _monotone_exact(np.floor, x)


def ceil(x: Any) -> Interval:
    """Round to the integer above: exact and monotone."""
    return _monotone_exact(np.ceil, x)


def truncate(x: Any) -> Interval:
    """Round to the next integer towards zero, as a cast does: exact and monotone."""
    return _monotone_exact(np.trunc, x)


def round_half_even(x: Any) -> Interval:
    """Round to the nearest integer, halves to the even one: exact and monotone."""
    return _monotone_exact(np.rint, x)


def round_half_away(x: Any) -> Interval:
    """Round to the nearest integer, halves away from zero: exact and monotone.

    A number and its fraction are split exactly; to add 0.5 first would round.
    """

    def nearest(end: Any) -> Any:
        fraction, whole = np.modf(end)
        return whole + np.sign(end) * (np.abs(fraction) >= 0.5)

    return _monotone_exact(nearest, x)


@_silent
def square(x: Any) -> Interval:
    """Square: monotone in |x|."""
    size = absolute(x)
    if size.is_point:
        return _enclose(*_rounding.two_product(size.low[()], size.low[()]))
    return Interval(
        _rounding.round_down(*_rounding.two_product(size.low[()], size.low[()])),
        _rounding.round_up(*_rounding.two_product(size.high[()], size.high[()])),
    )


def integer_power(x: Any, n: int) -> Interval:
    """Raise to an integer power: monotone in x for odd n >= 0, in |x| for even n.

    The ends are raised by repeated squaring, each step rounded outward; a negative
    power is the reciprocal of the positive one, as `div` treats it at zero.
    """
    x = as_interval(x)
    if n < 0:
        return div(1.0, integer_power(x, -n))
    if n == 0:
        return _point(np.ones(x.shape))
    base = absolute(x) if n % 2 == 0 else x
    if base.is_point:
        return _point_power(base, n)
    ends = (_point_power(_interval_end(end), n) for end in base)
    least, greatest = ends
    return Interval(
        np.where(np.isinf(base.low), -np.inf, least.low),
        np.where(np.isinf(base.high), np.inf, greatest.high),
    )


def integer_power_is_defined(x: Any, n: int) -> np.ndarray:
    """Tell where x holds no zero, if n is negative; everywhere, if not."""
    x = as_interval(x)
    return ~_holds_zero(x) if n < 0 else np.ones(x.shape, bool)


def _point_power(x: Interval, n: int) -> Interval:
    """Multiply out x^n for a point; intermediate results never change their order."""
    result = None
    while True:
        if n % 2:
            result = x if result is None else mul(result, x)
        n //= 2
        if not n:
            return result if result is not None else x
        x = square(x)


def _interval_end(end: np.ndarray) -> Interval:
    """Make a point of an end; an infinite one is replaced, as its power is known."""
    return _point(np.where(np.isinf(end), 0.0, end))


# ------------------------------------------------------------------- sets of numbers


def hull(x: Any, y: Any) -> Interval:
    """Return the smallest interval that holds both: exact."""
    x, y = as_interval(x), as_interval(y)
    return Interval(np.minimum(x.low, y.low), np.maximum(x.high, y.high))


def overlaps(x: Any, y: Any) -> np.ndarray:
    """Tell where the two have a number in common."""
    x, y = as_interval(x), as_interval(y)
    return (x.low <= y.high) & (y.low <= x.high)


def intersect(x: Any, y: Any) -> Interval:
    """Return what two enclosures of the same numbers have in common: exact.

    Raises:
      ValueError: they have nothing in common somewhere (see `overlaps`).
    """
    x, y = as_interval(x), as_interval(y)
    if not overlaps(x, y).all():
        raise ValueError("intersect: `x` and `y` have nothing in common.")
    return Interval(np.maximum(x.low, y.low), np.minimum(x.high, y.high))


def where(condition: Any, x: Any, y: Any) -> Interval:
    """Choose x where the condition, an array of bools, holds, and y elsewhere."""
    return rearrange(lambda a, b: np.where(condition, a, b), x, y)


def rearrange(fn: Callable[..., np.ndarray], *intervals: Any) -> Interval:
    """Apply a function that only moves or copies entries to both ends.

    Such as a reshape, a gather or a concatenation; points stay points.
    """
    xs = [as_interval(x) for x in intervals]
    low = fn(*(x.low for x in xs))
    return Interval(
        low, low if all(x.is_point for x in xs) else fn(*(x.high for x in xs))
    )


# ------------------------------------------------------------------------ reductions


def reduce_sum(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Sum over axes, as a balanced tree of `add`: about log2 of the count roundings."""
    return _fold(add, 0.0, x, axes)


def reduce_prod(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Multiply over axes, as a balanced tree of `mul`."""
    return _fold(mul, 1.0, x, axes)


def reduce_max(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Take the largest over axes: exact, and monotone in each entry."""
    x = as_interval(x)
    return _monotone_exact(lambda end: np.max(end, axis=_axes(x, axes)), x)


def reduce_min(x: Any, axes: int | Sequence[int] | None = None) -> Interval:
    """Take the smallest over axes: exact, and monotone in each entry."""
    x = as_interval(x)
    return _monotone_exact(lambda end: np.min(end, axis=_axes(x, axes)), x)


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
        return _point(np.full(shape, start))
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


# ------------------------------------------------------------------------ comparisons


def lt(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x < y certainly holds, and where it certainly does not."""
    x, y = as_interval(x), as_interval(y)
    return x.high < y.low, x.low >= y.high


def le(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x <= y certainly holds, and where it certainly does not."""
    x, y = as_interval(x), as_interval(y)
    return x.high <= y.low, x.low > y.high


def gt(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x > y certainly holds, and where it certainly does not."""
    return lt(y, x)


def ge(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x >= y certainly holds, and where it certainly does not."""
    return le(y, x)


def eq(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x = y certainly holds (equal points), and where certainly not."""
    x, y = as_interval(x), as_interval(y)
    is_certain = (x.low == x.high) & (y.low == y.high) & (x.low == y.low)
    return is_certain, ~overlaps(x, y)


def ne(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tell where x differs from y certainly, and where certainly not."""
    equal, different = eq(x, y)
    return different, equal


# --------------------------------------------------------------------------- helpers


def _point(value: Any) -> Interval:
    return Interval(value, value)


def _enclose(value: Any, error: Any) -> Interval:
    """Enclose `value + error`; one array serves both ends if every error is zero."""
    if not np.any(error):  # NaN is no zero
        return _point(value)
    return Interval(
        _rounding.round_down(value, error), _rounding.round_up(value, error)
    )


def _monotone_exact(fn: Callable[..., Any], *intervals: Any) -> Interval:
    """Apply a function that grows with each argument and never rounds."""
    return rearrange(fn, *intervals)


def _holds_zero(x: Interval) -> np.ndarray:
    return (x.low <= 0) & (x.high >= 0)


def _is_narrow_float(dtype: np.dtype) -> bool:
    """Tell bfloat16 and the like, which numpy knows by name alone."""
    return dtype.kind == "V" and dtype.name.startswith(("bfloat", "float"))
