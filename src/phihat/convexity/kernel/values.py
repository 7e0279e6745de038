"""The kernel's arrays: the distinct facts of their elements, and which has which."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, either, normal, number
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval

__all__ = [
    "Terms",
    "Value",
    "View",
    "along",
    "each",
    "grouped",
    "is_discrete",
    "widened",
]

_FEW = 64
"""Constants with more distinct values than this are told apart by their sign alone."""

_MANY = 512
"""More distinct facts than this are joined where they differ in range alone."""

_serial = itertools.count(1)


class Value:
    """What is known of the elements of one value.

    Attributes:
      shape: its shape.
      exact: the elements of a constant, in its own dtype, or None.
      interval: enclosures of the elements of a constant, or None.
      view: the value without symbols that are to cancel, or None; see the kernel.
      anchor: whether it may be such a symbol.
      order: for sorted values `(source, start, length, rows, largest_first)`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        knowns: Sequence[Known] = (),
        places: np.ndarray | None = None,
        *,
        exact: Any = None,
        interval: Interval | None = None,
        ids: Any = None,
        view: Any = None,
        anchor: bool = False,
        order: Any = None,
    ) -> None:
        """Keep the parts; the facts of constants follow from their elements."""
        self.shape = tuple(shape)
        self._knowns, self._places = tuple(knowns), places
        self.exact, self._interval, self._ids = exact, interval, ids
        self.view, self.anchor, self.order = view, anchor, order

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def is_known(self) -> bool:
        """Whether the elements of a constant are on record."""
        return self.exact is not None or self._interval is not None

    @property
    def interval(self) -> Interval | None:
        """Enclosures of a constant's elements, all finite; None where they are not."""
        if self._interval is None and self.exact is not None:
            exact = self.exact
            if exact.size and not np.isfinite(exact.astype(np.float64)).all():
                return None
            self._interval = iv.from_array(exact)
        return self._interval

    @property
    def point(self) -> np.ndarray | None:
        """The elements as float64, where that is exact."""
        r = self.interval
        if r is None or not np.array_equal(r.low, r.high):
            return None
        return r.low

    @property
    def knowns(self) -> tuple[Known, ...]:
        """The distinct facts."""
        if not self._knowns:
            self._knowns, self._places = self._classified()
        return self._knowns

    @property
    def places(self) -> np.ndarray | None:
        """Which facts each element has; None where all have the same."""
        return self._places if self.knowns else None

    @property
    def known(self) -> Known:
        """What holds of every element."""
        return functools.reduce(either, self.knowns)

    @property
    def constant(self) -> bool:
        """Whether no element depends on the params."""
        return self.is_known or all(k.constant for k in self.knowns)

    @property
    def ids(self) -> np.ndarray:
        """A number for each element; equal numbers are one and the same value."""
        if self._ids is None:
            start = next(_serial) << 40
            self._ids = np.arange(start, start + self.size).reshape(self.shape)
        elif callable(self._ids):
            self._ids = self._ids()
        return np.asarray(self._ids)

    def ranges(self) -> Interval:
        """Return the range of each element."""
        if self.interval is not None:
            return self.interval
        low, high = (
            np.array([getattr(k, end) for k in self.knowns]) for end in ("low", "high")
        )
        if self.places is None:
            return Interval(
                *(np.broadcast_to(end[0], self.shape) for end in (low, high))
            )
        return Interval(low[self.places], high[self.places])

    def _classified(self) -> tuple[tuple[Known, ...], np.ndarray | None]:
        if not self.size:
            return (number(0.0),), None
        r = self.interval
        if r is None:  # some element is no finite number
            exact = self.exact.astype(np.float64)
            distinct, places = np.unique(exact, return_inverse=True)
            return tuple(map(number, map(float, distinct))), places.reshape(self.shape)
        low, high = r
        if _is_one(low) and _is_one(high):
            first = (0,) * low.ndim
            return (number(float(low[first]), float(high[first])),), None
        is_point = np.array_equal(low, high)
        if low.size <= (1 << 16 if is_point else _FEW):
            ends = (
                [low.reshape(-1)] if is_point else [low.reshape(-1), high.reshape(-1)]
            )
            found, places = np.unique(np.stack(ends), axis=1, return_inverse=True)
            if found.shape[1] <= _FEW:
                knowns = tuple(number(*map(float, pair)) for pair in found.T)
                places = places.reshape(low.shape) if len(knowns) > 1 else None
                return knowns, places
        code = (low > 0) * 1 + (low >= 0) * 2 + (high < 0) * 4 + (high <= 0) * 8
        found = np.unique(code)
        knowns = tuple(
            number(float(low[code == c].min()), float(high[code == c].max()))
            for c in found
        )
        return knowns, np.searchsorted(found, code) if len(found) > 1 else None


Terms = tuple[tuple[Fraction, np.ndarray], ...]


class View(NamedTuple):
    """A value without its symbols.

    Attributes:
      hidden: the value without them.
      terms: pairs of a coefficient and the ids of a symbol's elements.
      factor: whether they stand in an exponent.
    """

    hidden: Value
    terms: Terms
    factor: bool


def _is_one(a: np.ndarray) -> bool:
    return all(n == 1 or s == 0 for n, s in zip(a.shape, a.strides, strict=True))


def is_discrete(dtype: Any) -> bool:
    """Whether a dtype is of integers or booleans."""
    return dtype == np.bool_ or jnp.issubdtype(dtype, jnp.integer)


def each(
    rule: Callable[..., Known],
    values: Sequence[Value],
    shape: Sequence[int],
    same: np.ndarray | None = None,
) -> Value:
    """Apply a rule of the table to every combination of facts that occurs."""
    counts = [len(v.knowns) for v in values]
    parts = [v.places for v in values]
    if same is not None:
        counts.append(2)
        parts.append(same.astype(np.intp))
    if math.prod(counts) > 1 << 24:
        values, parts = [Value((), (v.known,)) for v in values], []
        counts, same = [1] * len(values), None
    codes: Any = None
    for count, part in zip(counts, parts, strict=False):
        codes = None if codes is None else codes * count
        if part is not None:
            codes = part if codes is None else codes + part
    if codes is None:
        return Value(shape, (rule(*(v.knowns[0] for v in values)),))
    codes = np.broadcast_to(codes, shape)
    found, inverse = np.unique(codes, return_inverse=True)
    results: dict[Known, int] = {}
    names = []
    for code in found:
        digits = np.unravel_index(int(code), counts)
        given: list[Any] = [v.knowns[d] for v, d in zip(values, digits, strict=False)]
        given += [bool(digits[-1])] if same is not None else []
        names.append(results.setdefault(rule(*given), len(results)))
    if not results:
        return Value(shape, (number(0.0),))
    return _value_of_few(
        list(results), np.array(names)[inverse.reshape(codes.shape)], shape
    )


def _value_of_few(
    knowns: list[Known], places: np.ndarray, shape: Sequence[int]
) -> Value:
    if len(knowns) > _MANY:
        names: dict[Any, int] = {}
        joined: list[Known] = []
        renamed = []
        for k in knowns:
            key = (k[2:], k.low >= 0, k.high <= 0, k.infinite)
            if key not in names:
                names[key] = len(joined)
                joined.append(k)
            renamed.append(names[key])
            joined[names[key]] = either(joined[names[key]], k)
        knowns, places = joined, np.array(renamed)[places]
    return Value(shape, knowns, places if len(knowns) > 1 else None)


def grouped(
    rule: Callable[[list[tuple[Known, int]]], Known],
    value: Value,
    groups: np.ndarray,
    num_groups: int,
    shape: Sequence[int],
) -> Value:
    """Reduce groups of elements by a rule on pairs (facts, how many)."""
    kept = groups >= 0
    places = value.places
    flat = np.zeros(value.size, int) if places is None else places.reshape(-1)
    width = len(value.knowns)
    codes = groups[kept] * width + flat[kept]
    counts = np.bincount(codes, minlength=num_groups * width)
    patterns, which = np.unique(
        counts.reshape(num_groups, width), axis=0, return_inverse=True
    )
    results = [
        rule([(k, int(n)) for k, n in zip(value.knowns, row, strict=True) if n])
        for row in patterns
    ]
    return _value_of_few(results, which.reshape(tuple(shape)), shape)


def along(
    rule: Callable[[list[tuple[Known, int]]], Known],
    value: Value,
    axes: Sequence[int],
    shape: Sequence[int],
) -> Value:
    """Reduce along axes."""
    if value.places is None:
        members = math.prod(value.shape[k] for k in axes)
        return Value(shape, (rule([(value.knowns[0], members)] if members else []),))
    kept = [1 if k in axes else n for k, n in enumerate(value.shape)]
    numbers = np.arange(math.prod(kept)).reshape(kept)
    groups = np.broadcast_to(numbers, value.shape).reshape(-1)
    return grouped(rule, value, groups, math.prod(kept), shape)


def widened(value: Value, dtype: Any) -> Value:
    """Apply the semantics of a dtype: integers that may wrap come out anywhere."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return value
    low, high = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)

    def fit(k: Known) -> Known:
        if k.low >= low and k.high <= high and (k.is_point or not k.convex):
            return k
        low_, high_ = (
            (k.low, k.high) if k.low >= low and k.high <= high else (low, high)
        )
        return normal(
            Known(float(low_), float(high_), total=k.total, constant=k.constant)
        )

    knowns = [fit(k) for k in value.knowns]
    return Value(value.shape, knowns, value.places, ids=value._ids)
