"""Arrays of facts, combined: element by element, or in groups of elements."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.facts import Facts, closed, constant, join, meet

__all__ = ["elementwise", "from_ranges", "grouped", "meet_arrays", "same_elements"]

_MAX_CLASSES = 256
"""More classes than this are joined: those that differ in range alone."""

_MAX_COMBINED = 1 << 24
"""Where operands have more combinations of classes, each counts as a whole."""


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


def elementwise(
    function: Callable[..., Facts],
    arrays: Sequence[Array],
    shape: tuple[int, ...],
    flag: np.ndarray | None = None,
) -> Array:
    """Apply a rule to each combination of classes that occurs.

    It takes one `Facts` for each array, and the element's flag where one is given.
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
    """Reduce groups of elements by a rule on pairs (facts, how often it occurs).

    `groups` is the group of each element, flat, -1 for none; None: equal groups along
    the leading axis of `array.places` laid out as `[groups, members]`.
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
