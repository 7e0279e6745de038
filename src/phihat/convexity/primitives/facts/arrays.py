"""Arrays of facts: one class for all elements that agree.

A loss on a million rows has a million residuals, of which nothing different is known.
So an `Array` keeps few *classes* of facts and, where there are several, the class of
each element; a uniform array costs nothing, whatever its size. Constants keep their
values as an interval instead.

Elements have *numbers*: two elements with one number are one value. Structural
primitives hand numbers on; every other result has fresh ones.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers.extended import (
    FINITE,
    MINUS_INFINITY,
    PLUS_INFINITY,
    Extended,
    rearranged,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.facts import (
    TOP,
    Facts,
    closed,
    constant,
    infinite,
    join,
    meet,
)

__all__ = [
    "Array",
    "Order",
    "Shift",
    "elementwise",
    "from_ranges",
    "grouped",
    "meet_arrays",
    "same_elements",
]

_MAX_CLASSES = 256
"""More classes than this are joined: those that differ in range alone."""

_BLOCK = 1 << 16
"""Entries that are classified at once."""

_MAX_DISTINCT = 64
"""Constants with more distinct values than this are told apart by sign alone."""

_MAX_COMBINED = 1 << 24
"""Where operands have more combinations of classes, each counts as a whole."""

_numbers = itertools.count(1)  # blocks are reserved from here; see `Array.numbers`


class Shift(NamedTuple):
    """A second view of an array: the value without a symbol that is to cancel.

    The value is `hidden + sum c_k s_k`, or `hidden * exp(sum c_k s_k)`, where `s_k` is
    the element with a given number. Nothing is concluded about the value from
    `hidden` until the sum is empty.

    Attributes:
      hidden: the array without its symbols.
      terms: pairs of an exact coefficient and the numbers of the symbols `[...]`.
      is_factor: whether the symbols stand in an exponent.
    """

    hidden: "Array"
    terms: tuple[tuple[Fraction, np.ndarray], ...]
    is_factor: bool


class Order(NamedTuple):
    """That an array's elements, by their numbers, are the sorted ones of another.

    Attributes:
      source: the array that was sorted, row by row.
      start: the number of the first element of the sorted array.
      length: how many elements each sorted row has.
      num_rows: how many rows.
      is_descending: whether the largest comes first.
      is_whole: whether no element was left out.
    """

    source: "Array"
    start: int
    length: int
    num_rows: int
    is_descending: bool
    is_whole: bool


class Array:
    """What is known of the elements of one value of the program.

    Attributes:
      shape: the shape of the value.
      classes: the distinct facts.
      places: the class of each element, or None where there is one class.
      interval: the values of a constant, `Extended` where some are infinite, or None.
      shift: a second view, or None.
      is_anchor: whether it may serve as the symbol of a shift (a maximum).
      order: of a sorted array, what it sorts, or None.
    """

    __slots__ = (
        "_classes",
        "_numbers",
        "_places",
        "interval",
        "is_anchor",
        "order",
        "origin",
        "shape",
        "shift",
    )

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: Sequence[Facts] = (),
        places: np.ndarray | None = None,
        *,
        interval: Interval | None = None,
        numbers: np.ndarray | None = None,
        shift: Shift | None = None,
        origin: Any = None,
        is_anchor: bool = False,
        order: Order | None = None,
    ) -> None:
        """Keep the parts; `interval` makes a constant, whose classes follow from it."""
        self.shape = tuple(shape)
        self._classes = tuple(classes)
        self._places = places
        self.interval = interval
        self._numbers = numbers
        self.shift = shift
        self.origin = origin if origin is not None else object()
        self.is_anchor = is_anchor
        self.order = order

    @classmethod
    def of(cls, facts: Facts, shape: tuple[int, ...] = ()) -> "Array":
        """Return an array whose elements all have the same facts."""
        return cls(shape, (facts,))

    @classmethod
    def known(cls, interval: Interval) -> "Array":
        """Return a constant."""
        return cls(interval.shape, interval=interval)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether no element depends on the params."""
        return self.interval is not None or all(f.constant for f in self.classes)

    @property
    def classes(self) -> tuple[Facts, ...]:
        """The distinct facts."""
        self._classify()
        return self._classes

    @property
    def places(self) -> np.ndarray | None:
        """The class of each element, or None where there is one."""
        self._classify()
        return self._places

    @property
    def facts(self) -> Facts:
        """What holds of every element."""
        result = self.classes[0]
        for facts in self.classes[1:]:
            result = join(result, facts)
        return result

    @property
    def point(self) -> np.ndarray | None:
        """The values, where they are known exactly."""
        if self.interval is None:
            return None
        low, high = self.interval.low, self.interval.high
        return low if low is high or np.array_equal(low, high) else None

    @property
    def numbers(self) -> np.ndarray:
        """The number of each element; taken afresh at the first call."""
        if self._numbers is None:
            start = next(_numbers) << 40
            self._numbers = np.arange(start, start + self.size).reshape(self.shape)
        return self._numbers

    def number_as(self, numbers: np.ndarray | None) -> None:
        """Take numbers that were given out before the array was known."""
        if numbers is not None and self._numbers is None:
            self._numbers = numbers

    def ranges(self) -> Interval:
        """The range of each element."""
        if self.interval is not None:
            return self.interval
        ends = [
            np.array([getattr(f, end) for f in self.classes]) for end in ("low", "high")
        ]
        if self.places is None:
            return Interval(*(np.broadcast_to(end[0], self.shape) for end in ends))
        return Interval(*(end[self.places] for end in ends))

    def _classify(self) -> None:
        if self._classes:
            return
        interval = self.interval
        if interval is None:
            raise AssertionError("an array needs classes or values")
        self._classes, self._places = _classes_of(interval)

    def moved(
        self, move: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
    ) -> "Array":
        """Apply a structural primitive of one input; numbers and views go along."""
        if self.interval is not None:
            return Array.known(rearranged(move, self.interval))
        shift = None
        if self.shift is not None:
            shift = Shift(
                self.shift.hidden.moved(move, shape),
                tuple((c, move(numbers)) for c, numbers in self.shift.terms),
                self.shift.is_factor,
            )
        places = None if self.places is None else move(self.places)
        return Array(
            shape,
            self.classes,
            places,
            numbers=move(self.numbers),
            shift=shift,
            origin=self.origin,
            is_anchor=self.is_anchor,
            order=self.order,
        ).pruned()

    def pruned(self) -> "Array":
        """Drop the classes that no element has."""
        if self._places is not None:
            used = np.flatnonzero(
                np.bincount(self._places.reshape(-1), minlength=len(self._classes))
            )
            if len(used) < len(self._classes):
                renamed = np.zeros(len(self._classes), np.intp)
                renamed[used] = np.arange(len(used))
                self._classes = tuple(self._classes[k] for k in used)
                self._places = renamed[self._places] if len(used) > 1 else None
        return self

    def with_classes(self, change: Callable[[Facts], Facts]) -> "Array":
        """Return an array with each class changed; numbers and views are kept."""
        return Array(
            self.shape,
            tuple(map(change, self.classes)),
            self.places,
            numbers=self._numbers,
            shift=self.shift,
            origin=self.origin,
        )

    def __str__(self) -> str:
        """Show as text, as certificates hold it."""
        shape = ",".join(map(str, self.shape))
        if self.interval is not None and self.size > _MAX_DISTINCT:
            return f"[{shape}] constant"  # the statement's digest holds the values
        classes = list(map(str, self.classes))
        shown = " | ".join(classes[:8]) + (" | ..." if len(classes) > 8 else "")
        view = " shifted" if self.shift is not None else ""
        return f"[{shape}] {shown}{view}"


def _classes_of(interval: Interval) -> tuple[tuple[Facts, ...], np.ndarray | None]:
    """Tell constants apart: by value where they are few, else by sign."""
    if isinstance(interval, Extended):
        return _classes_of_marked(interval)
    low, high = interval.low, interval.high
    if low.size == 1:
        return (constant(float(low.reshape(-1)[0]), float(high.reshape(-1)[0])),), None
    if low.size == 0:
        return (constant(0.0),), None
    if _is_uniform(low) and _is_uniform(high):
        first = (0,) * low.ndim
        return (constant(float(low[first]), float(high[first])),), None
    if interval.is_point and low.size <= 1 << 16:
        distinct, places = np.unique(low, return_inverse=True)
        if len(distinct) <= _MAX_DISTINCT:
            return tuple(map(constant, map(float, distinct))), places.reshape(low.shape)
    return _classes_of_signs(low, high)


_SIGN_OF = np.array([3, 4, 5, 1, 3, 2, 3, 3, 3, 3, 0, 3, 3, 3, 3, 3], np.int8)
"""0: below zero, 1: zero, 2: above zero, 3: may be either, 4: >= 0, 5: <= 0; by four
bits: `low >= 0`, `high <= 0`, `low > 0`, `high < 0`."""


def _classes_of_signs(
    low: np.ndarray, high: np.ndarray
) -> tuple[tuple[Facts, ...], np.ndarray | None]:
    """Tell constants apart by sign, in blocks that stay in the processor's cache."""
    signs = np.empty(low.shape, np.int8)
    least, most = np.full(6, np.inf), np.full(6, -np.inf)
    length = max(_BLOCK * len(low) // low.size, 1)
    for start in range(0, len(low), length):
        part = slice(start, start + length)
        below, above = low[part], high[part]
        key = (below >= 0) | (above <= 0).view(np.int8) << 1
        key = key | (below > 0).view(np.int8) << 2 | (above < 0).view(np.int8) << 3
        here = signs[part] = np.take(_SIGN_OF, key)
        for sign in range(6):
            mask = here == sign
            if mask.any():
                least[sign] = min(least[sign], np.where(mask, below, np.inf).min())
                most[sign] = max(most[sign], np.where(mask, above, -np.inf).max())
    found = np.flatnonzero(least <= most)
    classes = tuple(constant(float(least[k]), float(most[k])) for k in found)
    if len(classes) == 1:
        return classes, None
    renamed = np.zeros(6, np.intp)
    renamed[found] = np.arange(len(found))
    return classes, renamed[signs]


def _classes_of_marked(
    interval: Extended,
) -> tuple[tuple[Facts, ...], np.ndarray | None]:
    """Tell constants apart some of which are infinite, or may be no numbers."""
    kind = interval.kind
    ends = (np.where(kind == FINITE, end, 0.0) for end in interval)
    classes, places = _classes_of(Interval(*ends))
    places = np.zeros(kind.shape, np.intp) if places is None else np.array(places)
    known = {PLUS_INFINITY: infinite(1.0), MINUS_INFINITY: infinite(-1.0)}
    for mark in set(kind[kind != FINITE].tolist()):
        places[kind == mark] = len(classes)
        classes = (*classes, known.get(mark, TOP.replace(constant=True)))
    marked = Array(kind.shape, classes, places).pruned()
    return marked.classes, marked.places


def from_ranges(template: Facts, ranges: Interval) -> Array:
    """Return an array with the facts of a template, and each element's own range."""
    if ranges.size <= 1 << 12:
        pairs = np.stack([ranges.low.reshape(-1), ranges.high.reshape(-1)], 1)
        distinct, places = np.unique(pairs, axis=0, return_inverse=True)
        facts = [
            closed(template.replace(low=float(low), high=float(high)))
            for low, high in distinct
        ]
        return _bounded(facts, places.reshape(ranges.shape), ranges.shape)
    known = Array.known(ranges)
    facts = [closed(template.replace(low=f.low, high=f.high)) for f in known.classes]
    return Array(ranges.shape, facts, known.places)


def _is_uniform(array: np.ndarray) -> bool:
    """Whether all entries are one and the same in memory."""
    return all(
        size == 1 or stride == 0
        for size, stride in zip(array.shape, array.strides, strict=True)
    )


def elementwise(
    function: Callable[..., Facts],
    arrays: Sequence[Array],
    shape: tuple[int, ...],
    flag: np.ndarray | None = None,
) -> Array:
    """Apply a rule to each combination of classes that occurs.

    Args:
      function: takes one `Facts` for each array, and the flag where one is given.
      arrays: they broadcast to `shape`.
      shape: of the result.
      flag: a boolean for each element, told to the function.
    """
    counts = [len(array.classes) for array in arrays]
    parts = [array.places for array in arrays]
    if flag is not None:
        counts.append(2)
        parts.append(flag.astype(np.intp) if flag.any() else None)
    if math.prod(counts) > _MAX_COMBINED:
        parts = []
        arrays = [Array.of(array.facts) for array in arrays]
    combined: Any = None
    for count, part in zip(counts, parts, strict=bool(parts)):
        if combined is not None:
            combined = combined * count
        if part is not None:
            combined = part if combined is None else combined + part
    if combined is None:
        facts = [array.classes[0] for array in arrays]
        return Array.of(function(*facts, *([False] if flag is not None else [])), shape)
    combined = np.broadcast_to(combined, shape)
    present = np.flatnonzero(np.bincount(combined.reshape(-1)))
    renamed = np.zeros(int(present[-1]) + 1 if len(present) else 1, np.intp)
    results: dict[Facts, int] = {}
    for code in present:
        digits = np.unravel_index(code, counts)
        arguments: list[Any] = [
            array.classes[digit] for array, digit in zip(arrays, digits, strict=False)
        ]
        if flag is not None:
            arguments.append(bool(digits[-1]))
        result = function(*arguments)
        renamed[code] = results.setdefault(result, len(results))
    if not results:
        return Array.of(constant(0.0), shape)
    return _bounded(list(results), renamed[combined], shape)


def _bounded(
    classes: Sequence[Facts], places: np.ndarray, shape: tuple[int, ...]
) -> Array:
    """Build an array, joining classes that differ in range alone when they are many."""
    if len(classes) == 1:
        return Array.of(classes[0], shape)
    if len(classes) <= _MAX_CLASSES:
        return Array(shape, classes, places)
    groups: dict[Any, int] = {}
    joined: list[Facts] = []
    renamed = np.zeros(len(classes), np.intp)
    for k, facts in enumerate(classes):
        key = (
            facts.replace(low=0.0, high=0.0),
            facts.nonnegative,
            facts.nonpositive,
            facts.is_infinite,
        )
        if key not in groups:
            groups[key] = len(joined)
            joined.append(facts)
        else:
            joined[groups[key]] = join(joined[groups[key]], facts)
        renamed[k] = groups[key]
    if len(joined) == 1:
        return Array.of(joined[0], shape)
    return Array(shape, joined, renamed[places])


def grouped(
    function: Callable[[list[tuple[Facts, int]]], Facts],
    array: Array,
    groups: np.ndarray | None,
    num_groups: int,
    shape: tuple[int, ...],
) -> Array:
    """Reduce groups of elements by a rule on classes and how often each occurs.

    Args:
      function: takes pairs (facts, count), count > 0.
      array: the elements.
      groups: the group of each element, flat, -1 for none; None: equal groups along
        the leading axis of `array.places` laid out as `[groups, members]`.
      num_groups: how many groups there are.
      shape: of the result.
    """
    if array.places is None and groups is None:
        members = array.size // max(num_groups, 1)
        return Array.of(function([(array.classes[0], members)]), shape)
    places = array.places
    if places is None:
        places = np.zeros(array.shape, np.intp)
    flat = places.reshape(-1)
    if groups is None:
        groups = np.repeat(np.arange(num_groups), array.size // max(num_groups, 1))
    kept = groups >= 0
    num_classes = len(array.classes)
    counts = np.bincount(
        groups[kept] * num_classes + flat[kept], minlength=num_groups * num_classes
    ).reshape(num_groups, num_classes)
    patterns, which = np.unique(counts, axis=0, return_inverse=True)
    results = [
        function([(f, int(n)) for f, n in zip(array.classes, row, strict=True) if n])
        for row in patterns
    ]
    return _bounded(results, which.reshape(shape), shape)


def same_elements(x: Array, y: Array, shape: tuple[int, ...]) -> np.ndarray | None:
    """Tell where two arrays hold one and the same value; None for nowhere."""
    if x is y:
        return np.broadcast_to(np.True_, shape)
    if x.interval is not None or y.interval is not None:
        return None
    if x.origin is not y.origin or x._numbers is None or y._numbers is None:
        return None
    mask = np.broadcast_to(x.numbers == y.numbers, shape)
    return mask if mask.any() else None


def meet_arrays(x: Array, y: Array) -> Array:
    """Return what both know of one value; numbers are those of x."""
    result = elementwise(meet, [x, y], x.shape)
    result._numbers = x._numbers
    result.origin = x.origin
    result.shift = x.shift
    return result
