r"""The interval itself, how numbers are read into it, and the four operations."""

import fractions
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import ends, rounding

__all__ = [
    "Interval",
    "NarrowPoints",
    "add",
    "as_interval",
    "blockwise",
    "div",
    "div_is_defined",
    "entire",
    "from_array",
    "from_decimal",
    "from_rational",
    "mul",
    "neg",
    "rearrange",
    "sub",
]


class Interval:
    """The finite reals between `low` and `high`, one pair of ends for each entry.

    Args:
      low: the lower ends `[...]`, float64; `-inf` leaves an end open.
      high: the upper ends `[...]`; the same object as `low` makes a point, which
        costs no memory and is operated on once.

    Raises:
      ValueError: the shapes differ, an end is NaN, `low` lies above `high`, or no
        finite number lies between.
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
        if not _is_valid(low, high):
            wrong = ~((low <= high) & (low < np.inf) & (high > -np.inf))
            raise ValueError(
                "Interval: `low` must not lie above `high`, and a finite number must "
                f"lie between them, got low={low[wrong][0]} and high={high[wrong][0]}."
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: an interval never changes."""
        raise AttributeError(f"Interval: `{name}` cannot be set.")

    def __repr__(self) -> str:
        """Show both ends; scalars as numbers."""
        low, high = (end if end.ndim else end.item() for end in self)
        return f"Interval(low={low!r}, high={high!r})"

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the two ends: `low, high = x`."""
        return iter((self.low, self.high))

    @property
    def is_point(self) -> bool:
        """Whether both ends are one array; equal ends in two arrays are not told."""
        return self.low is self.high

    @property
    def stored(self) -> tuple[np.ndarray, ...]:
        """The numbers as they are kept: of a point one array, perhaps a narrow one."""
        return (self.low,) if self.is_point else (self.low, self.high)

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
    def middle(self) -> np.ndarray:
        """A float near the middle of each entry, finite and between its ends."""
        low = np.maximum(self.low, -rounding.LARGEST)
        high = np.minimum(self.high, rounding.LARGEST)
        return np.clip(low / 2 + high / 2, low, high)

    @property
    def width(self) -> np.ndarray:
        """An upper bound on the distance of the ends; inf where one is open."""
        finite = (np.clip(end, -rounding.LARGEST, rounding.LARGEST) for end in self)
        low, high = map(_point, finite)
        is_open = np.isinf(self.low) | np.isinf(self.high)
        return np.where(is_open, np.inf, sub(high, low).high)

    @property
    def magnitude(self) -> np.ndarray:
        """The largest absolute value in each entry; inf where an end is open."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def contains(self, value: Any) -> Any:
        """Tell which finite values, numbers or all those of an interval, lie inside."""
        inner = as_interval(value)
        inside = (self.low <= inner.low) & (inner.high <= self.high)
        return inside if inside.ndim else inside.item()

    def __getitem__(self, entry: Any) -> "Interval":
        """Take entries, as NumPy does."""
        return rearrange(lambda end: end[entry], self)

    def reshape(self, *shape: Any) -> "Interval":
        """Reshape, as NumPy does."""
        return rearrange(lambda end: end.reshape(*shape), self)

    def transpose(self, *axes: Any) -> "Interval":
        """Permute the axes, as NumPy does."""
        return rearrange(lambda end: end.transpose(*axes), self)

    def __neg__(self) -> "Interval":
        """Negate."""
        return neg(self)

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


class NarrowPoints(Interval):
    """Many finite numbers in a narrow dtype; widened, without error, where asked for.

    Args:
      values: the numbers, float32 or float16.
    """

    __slots__ = ("values",)

    values: np.ndarray

    def __init__(self, values: np.ndarray) -> None:
        """Keep the numbers."""
        object.__setattr__(self, "values", values)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield one array twice."""
        wide = self.low
        return iter((wide, wide))

    @property
    def low(self) -> np.ndarray:  # type: ignore[override]
        """The numbers in float64, widened anew."""
        return self.values.astype(np.float64)

    high = low  # type: ignore[assignment]

    is_point = True  # type: ignore[assignment]
    stored = property(lambda self: (self.values,))  # type: ignore[assignment]
    shape = property(lambda self: self.values.shape)  # type: ignore[assignment]
    ndim = property(lambda self: self.values.ndim)  # type: ignore[assignment]
    size = property(lambda self: self.values.size)  # type: ignore[assignment]


_MANY = 1 << 22
"""Points that are fewer are widened at once."""


def _is_valid(low: np.ndarray, high: np.ndarray) -> bool:
    """Tell whether each entry is a set of finite reals that is not empty; NaN is not.

    The order is checked entry by entry; given it, no entry can be [inf, inf] or
    [-inf, -inf] if the lower ends stay below inf and the upper ones above -inf.
    """
    if low.ndim == 0:
        return -math.inf < high.item() >= low.item() < math.inf
    if low is high:
        return bool(np.isfinite(low).all())
    return bool(
        (low <= high).all()
        and low.max(initial=-np.inf) < np.inf
        and high.min(initial=np.inf) > -np.inf
    )


def rearrange(fn: Callable[..., np.ndarray], *intervals: Any) -> Interval:
    """Apply to both ends a function that only moves entries; points stay points.

    Such as a reshape, a gather, a concatenation, or anything exact that grows with
    each of its arguments.
    """
    xs = [as_interval(x) for x in intervals]
    low = fn(*(x.low for x in xs))
    is_point = all(x.is_point for x in xs)
    return Interval(low, low if is_point else fn(*(x.high for x in xs)))


def blockwise(fn: Callable[..., Interval]) -> Callable[..., Interval]:
    """Evaluate an elementwise function of intervals in blocks that fit the cache."""

    @functools.wraps(fn)
    def evaluate(*xs: Any) -> Interval:
        intervals = [as_interval(x) for x in xs]
        counts = [1 if x.is_point else 2 for x in intervals]

        def bounds(*pieces: Any) -> tuple[Any, Any]:
            rest = iter(pieces)
            pairs = ([next(rest) for _ in range(count)] for count in counts)
            low, high = fn(*(Interval(pair[0], pair[-1]) for pair in pairs))
            return low, high

        arrays = (list(x)[:count] for x, count in zip(intervals, counts, strict=True))
        return _evaluate(bounds, *itertools.chain.from_iterable(arrays))

    return evaluate


# ---------------------------------------------------------------------- from numbers


def as_interval(x: Any) -> Interval:
    """Return an interval as it is, and anything else through `from_array`."""
    return x if isinstance(x, Interval) else from_array(x)


def from_array(x: Any) -> Interval:
    """Read numbers of any real dtype: points wherever float64 holds them exactly.

    Narrower floats, bools and integers up to 2^53 widen without error; a larger
    integer is the sum of its two halves, rounded outward. An infinite or NaN entry is
    a number of which nothing is known: it becomes [-inf, inf].

    Raises:
      TypeError: the numbers are complex, wider than float64, or no numbers.
    """
    if isinstance(x, float):
        return _point(x) if math.isfinite(x) else entire()
    if isinstance(x, int):
        return from_rational(x)
    array = np.asarray(x)
    dtype = array.dtype
    if dtype.kind in "iu" and dtype.itemsize == 8:
        upper = _point((array >> 32).astype(np.float64) * 2.0**32)
        return add(upper, _point((array & 0xFFFFFFFF).astype(np.float64)))
    is_narrow = dtype.kind == "V" and dtype.name.startswith(("bfloat", "float"))
    if not (is_narrow or (dtype.kind in "biuf" and dtype.itemsize <= 8)):
        raise TypeError(
            f"from_array: `x` must hold real numbers of at most 64 bits, got {dtype}."
        )
    if array.size >= _MANY and dtype in (np.float32, np.float16):
        blocks = (array[k : k + 4096] for k in range(0, len(array), 4096))
        if all(np.isfinite(block).all() for block in blocks):
            return NarrowPoints(array)
    values = array.astype(np.float64, copy=False)
    known = np.isfinite(values)
    if known.all():
        return _point(values)
    return Interval(np.where(known, values, -np.inf), np.where(known, values, np.inf))


def from_rational(x: int | fractions.Fraction) -> Interval:
    """Enclose one integer or fraction of any size as tightly as floats can.

    Python divides integers with correct rounding, and compares a float with a fraction
    exactly; so the sign of the error is known.
    """
    try:
        nearest = float(x)
    except OverflowError:
        ends = Interval(rounding.LARGEST, math.inf)
        return ends if x > 0 else neg(ends)
    return Interval(*rounding.enclose(nearest, float((x > nearest) - (x < nearest))))


def from_decimal(digits: str) -> Interval:
    """Enclose a positive constant whose digits are cut off, not rounded, at the end."""
    last_place = fractions.Fraction(10) ** -len(digits.partition(".")[2])
    below = fractions.Fraction(digits)
    return Interval(from_rational(below).low, from_rational(below + last_place).high)


def entire(shape: Sequence[int] = ()) -> Interval:
    """Return [-inf, inf], of which nothing is known, in views that cost no memory."""
    return Interval(
        np.broadcast_to(np.float64(-np.inf), shape),
        np.broadcast_to(np.float64(np.inf), shape),
    )


# ---------------------------------------------------------------------- arithmetic


def add(x: Any, y: Any) -> Interval:
    """Add: rounded outward by the sign of the exact error (TwoSum)."""
    x, y = as_interval(x), as_interval(y)
    if x.is_point and y.is_point:
        return _evaluate(ends.sum_of_points, x.low, y.low)
    return _evaluate(ends.sum_between, *x, *y)


def neg(x: Any) -> Interval:
    """Negate: exact, and the ends change places."""
    x = as_interval(x)
    return _point(-x.low) if x.is_point else Interval(-x.high, -x.low)


def sub(x: Any, y: Any) -> Interval:
    """Subtract: add the negative, which is exact."""
    return add(x, neg(y))


def mul(x: Any, y: Any) -> Interval:
    """Multiply: a bilinear function on a box is extremal at a corner.

    Each corner is rounded outward by the sign of its exact error (Dekker). A corner of
    zero times infinity is zero, since the infinite end is not attained. The arguments
    are taken to vary on their own: for x * x see `square`.
    """
    x, y = as_interval(x), as_interval(y)
    if y.is_point:
        x, y = y, x
    if x.is_point and y.is_point:
        return _evaluate(ends.product_of_points, x.low, y.low)
    if x.is_point:
        return _evaluate(ends.product_with_point, x.low, *y)
    return _evaluate(ends.product_between, *x, *y)


def div(x: Any, y: Any) -> Interval:
    """Divide: monotone in either argument where y keeps its sign.

    Where zero lies inside y, or y is zero, the result is [-inf, inf]. Where zero is but
    an end of y, the quotients by its other numbers are enclosed.
    """
    x, y = as_interval(x), as_interval(y)
    if x.is_point and y.is_point and (y.low != 0).all():
        return _evaluate(ends.quotient_of_points, x.low, y.low)
    return _evaluate(ends.quotient_between, *x, *y)


def div_is_defined(x: Any, y: Any) -> np.ndarray:
    """Tell where y holds no zero."""
    x, y = as_interval(x), as_interval(y)
    is_defined = (y.low > 0) | (y.high < 0)
    return np.broadcast_to(is_defined, np.broadcast_shapes(x.shape, y.shape))


# ---------------------------------------------------------------------- helpers


def _evaluate(bounds: Callable[..., tuple[Any, Any]], *ends: np.ndarray) -> Interval:
    return Interval(*rounding.in_blocks(bounds, *ends))


def _point(value: Any) -> Interval:
    return Interval(value, value)
