r"""Ranges some of whose elements are infinite, or no numbers: what IEEE makes of them.

An `Interval` holds finite reals. Programs also hold a literal -inf (the start of a
maximum, a mask), and take `log(x)` at an x <= 0 that a `where` discards afterwards. An
`Extended` is an interval with a mark, its `kind`, for each element that is no finite
real for certain; there its ends are -inf and inf. Elementwise functions pass the marks
on as IEEE 754 says, `where` drops those that it does not choose.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.dtypes import is_readable
from phihat.convexity.numbers.intervals import Interval

__all__ = [
    "FINITE",
    "MINUS_INFINITY",
    "NOT_A_NUMBER",
    "NOT_FINITE",
    "PLUS_INFINITY",
    "UNKNOWN",
    "Extended",
    "elementwise",
    "extended",
    "from_constant",
    "full_kind",
    "kind_of",
    "rearranged",
    "unknown",
]

FINITE = 0
"""A finite real within the ends."""
PLUS_INFINITY = 1
"""Certainly inf."""
MINUS_INFINITY = -1
"""Certainly -inf."""
NOT_A_NUMBER = 2
"""Certainly NaN."""
NOT_FINITE = 3
"""Certainly no finite real; which of the three is not known."""
UNKNOWN = 4
"""Perhaps a finite real, perhaps not."""

_LARGEST = float(np.finfo(np.float64).max)


class Extended(Interval):
    """An interval some of whose elements are not finite for certain.

    Args:
      low: the lower ends `[...]`; of no meaning where `kind` is not `FINITE`.
      high: the upper ends `[...]`; likewise.
      kind: one of the six constants of this module for each element `[...]`.
    """

    __slots__ = ("kind",)

    kind: np.ndarray

    def __init__(self, low: Any, high: Any, kind: Any) -> None:
        """Open the ends wherever the element is not finite for certain."""
        is_finite = kind == FINITE
        super().__init__(
            np.where(is_finite, low, -np.inf), np.where(is_finite, high, np.inf)
        )
        object.__setattr__(self, "kind", np.asarray(kind, np.int8))

    def __repr__(self) -> str:
        """Show the ends and the marks."""
        return f"Extended(low={self.low!r}, high={self.high!r}, kind={self.kind!r})"


def extended(interval: Interval, kind: np.ndarray | None) -> Interval:
    """Mark elements of an interval; one without marks stays as it is."""
    if kind is None or not kind.any():
        return interval
    shape = np.broadcast_shapes(interval.shape, kind.shape)
    return Extended(*(np.broadcast_to(e, shape) for e in (*interval, kind)))


def unknown(shape: Sequence[int]) -> Extended:
    """Return elements that may be anything, or nothing."""
    shape = tuple(shape)
    return Extended(np.zeros(shape), np.zeros(shape), np.full(shape, UNKNOWN, np.int8))


def from_constant(x: Any) -> Interval:
    """Read constants: `intervals.from_array`, with marks where they are not finite.

    Nothing is known of those of a dtype that no rule reads.
    """
    array = np.asarray(x)
    if not is_readable(array.dtype):
        return unknown(array.shape)
    if array.dtype.kind in "biu":
        return intervals.from_array(array)
    values = array.astype(np.float64, copy=False)
    if np.isfinite(values).all():
        return intervals.from_array(array)
    return Extended(values, values, _kinds(values))


def kind_of(x: Interval) -> np.ndarray | None:
    """Return the marks; None where every element is finite."""
    return x.kind if isinstance(x, Extended) else None


def rearranged(fn: Callable[..., np.ndarray], *xs: Interval) -> Interval:
    """Apply a function that only moves elements to the ends and to the marks."""
    if not any(isinstance(x, Extended) for x in xs):
        return intervals.rearrange(fn, *xs)
    low, high = (fn(*(x.low for x in xs)), fn(*(x.high for x in xs)))
    kind = fn(*(full_kind(x) for x in xs))
    if not kind.any():
        return Interval(low, low if np.array_equal(low, high) else high)
    return Extended(low, high, kind)


def elementwise(
    enclose: Callable[..., Interval],
    ieee: Callable[..., Any] | None,
    xs: Sequence[Interval],
) -> Interval:
    """Apply an elementwise function, to elements that are not finite as IEEE does.

    `enclose` may mark elements itself. `ieee`, of floats, is exact where it maps inf or
    -inf to a number, and monotone in each argument as long as the others do not change;
    None if unknown.
    """
    if not any(isinstance(x, Extended) for x in xs):
        return enclose(*xs)
    inner = [Interval(*x) if isinstance(x, Extended) else x for x in xs]
    result = enclose(*inner)
    shape = result.shape
    kinds = [np.broadcast_to(full_kind(x), shape) for x in xs]
    places = np.logical_or.reduce([kind != FINITE for kind in kinds])
    low, high = (np.array(end) for end in result)
    kind = np.array(full_kind(result))
    low[places], high[places], kind[places] = _at_marks(
        ieee, [k[places] for k in kinds], [_ends_at(x, shape, places) for x in inner]
    )
    if not kind.any():
        return Interval(low, low if np.array_equal(low, high) else high)
    return Extended(low, high, kind)


def _at_marks(
    ieee: Callable[..., Any] | None,
    kinds: list[np.ndarray],
    ends: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply a function of floats to marked elements; return low, high and kind.

    Where all corners agree on the kind, so does what lies between. An element of which
    no float is known makes the result unknown.
    """
    size = kinds[0].shape
    low, high, kind = np.zeros(size), np.zeros(size), np.full(size, UNKNOWN, np.int8)
    if ieee is None:
        return low, high, kind
    corners = []
    for marks, (below, above) in zip(kinds, ends, strict=True):
        value = _VALUES[marks]
        corners.append([np.where(marks, value, end) for end in (below, above)])
    with np.errstate(all="ignore"):
        results = np.stack([ieee(*corner) for corner in itertools.product(*corners)])
    found = _kinds(results)
    is_vague = np.logical_or.reduce([marks >= NOT_FINITE for marks in kinds])
    agree = (found == found[0]).all(axis=0) & ~is_vague
    kind = np.where(agree, found[0], UNKNOWN).astype(np.int8)
    low, high = np.min(results, axis=0), np.max(results, axis=0)
    low = np.where(low <= -_LARGEST, -np.inf, low)
    high = np.where(high >= _LARGEST, np.inf, high)
    is_finite = kind == FINITE
    return np.where(is_finite, low, -np.inf), np.where(is_finite, high, np.inf), kind


_VALUES = np.array([0.0, np.inf, np.nan, np.nan, np.nan, -np.inf])
"""The float of each kind; -1 counts from the end."""


def _kinds(values: np.ndarray) -> np.ndarray:
    kinds = np.where(np.isposinf(values), PLUS_INFINITY, FINITE)
    kinds = np.where(np.isneginf(values), MINUS_INFINITY, kinds)
    return np.where(np.isnan(values), NOT_A_NUMBER, kinds).astype(np.int8)


def full_kind(x: Interval) -> np.ndarray:
    """Return the marks of all elements, in a view where there are none."""
    if isinstance(x, Extended):
        return x.kind
    return np.broadcast_to(np.int8(FINITE), x.shape)


def _ends_at(x: Interval, shape: Any, places: Any) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.broadcast_to(end, shape)[places] for end in x)
    return np.maximum(low, -_LARGEST), np.minimum(high, _LARGEST)
