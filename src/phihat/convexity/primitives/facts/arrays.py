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
from phihat.convexity.primitives.facts.facts import TOP, Facts, constant, infinite, join

__all__ = ["Array", "Arrays", "Order", "Shift"]

_BLOCK = 1 << 16
"""Entries that are classified at once."""

_MAX_DISTINCT = 64
"""Constants with more distinct values than this are told apart by sign alone."""

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
        if self.interval.is_point:
            return self.interval.low
        low, high = self.interval
        return low if np.array_equal(low, high) else None

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

    def sorts(self, source: "Array", *, is_descending: bool, is_whole: bool) -> "Array":
        """Note that the rows are sorted ones of another array, none of them empty."""
        start, length = int(self.numbers.reshape(-1)[0]), self.shape[-1]
        num_rows = self.size // length
        self.order = Order(source, start, length, num_rows, is_descending, is_whole)
        return self

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
        """Drop the classes that no element has; an array without elements is zero."""
        if self._places is not None and not self._places.size:
            self._classes, self._places = (constant(0.0),), None
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


Arrays = list[Array]


def _classes_of(interval: Interval) -> tuple[tuple[Facts, ...], np.ndarray | None]:
    """Tell constants apart: by value where they are few, else by sign."""
    if isinstance(interval, Extended):
        return _classes_of_marked(interval)
    low, high = interval.stored[0], interval.stored[-1]
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


def _is_uniform(array: np.ndarray) -> bool:
    """Whether all entries are one and the same in memory."""
    return all(
        size == 1 or stride == 0
        for size, stride in zip(array.shape, array.strides, strict=True)
    )
