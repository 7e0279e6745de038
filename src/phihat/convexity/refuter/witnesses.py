"""Witnesses: the proof, in intervals, that the loss rises above a chord.

Floats and derivatives only say where to look; the value of the flat program in
intervals decides. Where intervals cannot read the program, an overwhelming gap is
reported as what it is, not rigorous.
"""

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval, from_array
from phihat.convexity.primitives.evaluation import Undefined, Unreadable, evaluate
from phihat.convexity.program.floating import function_of
from phihat.convexity.program.jaxprs import rounds_on_purpose
from phihat.convexity.program.problem import Problem
from phihat.convexity.refuter import chords
from phihat.convexity.report import Witness

__all__ = ["data_sets", "proved", "through"]

_OVERWHELMING = 1e-3
"""Where intervals cannot read the program, a gap must exceed this times the values."""

_LENGTHS = 2.0 ** -np.arange(1.0, 22.0)
"""Of chords through a point, in units of the domain."""

_MOST_AXES = 64

_LEAST = 8
"""So many chords are tried whatever the deadline."""


def through(
    problem: Problem,
    point: np.ndarray,
    direction: np.ndarray | None,
    *,
    deadline: float,
) -> Witness | None:
    """Prove that a chord through a point is broken: long ones first.

    Args:
      problem: the question, on a bounded domain.
      point: flat in the coordinates that vary `[n]`.
      direction: in which the loss seems concave `[n]`; None tries each axis.
      deadline: when to give up, by `time.monotonic`, after the least number of chords.
    """
    space = chords.space_of(problem)
    if not len(space.free):
        return None  # a domain of one point has no chords
    middle, width = space.start.copy(), space.high - space.low
    is_varied = np.concatenate(
        [
            np.full(leaf.size, varies)
            for leaf, varies in zip(problem.start, problem.varied, strict=True)
        ]
    )
    middle[is_varied] = point
    directions = np.zeros((1, len(middle)))
    if direction is None:
        directions = np.eye(len(middle))[space.free[:_MOST_AXES]]
    else:
        directions[0, is_varied] = direction
    directions *= width.max() / np.abs(directions).max(axis=1, keepdims=True)
    steps = (_LENGTHS[:, None, None] * directions).reshape(-1, len(middle))
    middles = np.broadcast_to(middle, steps.shape)
    pairs = list(zip(*chords.snapped(space, middles, steps), strict=True))
    tried = itertools.product(pairs, data_sets(problem))
    for number, ((m, s), (_, data)) in enumerate(tried):
        if number >= _LEAST and time.monotonic() >= deadline:
            return None
        found = proved(problem, m, s, data) if s.any() else None
        if found is not None:
            return found
    return None


def proved(
    problem: Problem,
    middle: np.ndarray,
    step: np.ndarray,
    data: Sequence[Any],
    values: np.ndarray | None = None,
) -> Witness | None:
    """Prove that a chord is broken, or that its middle has no value.

    Args:
      problem: the question.
      middle: the middle of the chord, flat in all leaves of params `[N]`.
      step: from the middle to either end `[N]`.
      data: the leaves of the data.
      values: the loss at the middle and both ends, in float64, if known: they count
        where intervals cannot read the program, and are shown where they lie in their
        enclosures.
    """
    left, right = middle - step, middle + step
    a, b = (problem.unflatten(problem.cut(end)) for end in (left, right))
    try:
        ends = [_enclosed(problem, end, data) for end in (left, right)]
        try:
            between = _enclosed(problem, middle, data)
        except Undefined as error:
            if not error.certain:
                return None
            at_left, at_right = (float(end.middle) for end in ends)
            values_of = (at_left, error.value, at_right)
            return Witness(a, b, 0.5, math.inf, True, values_of)
    except Undefined:
        return None
    except Unreadable:
        return None if values is None else _overwhelming(problem, a, b, values)
    gap = float(iv.sub(between, iv.mul(0.5, iv.add(*ends))).low)
    if not gap > 0.0:
        return None
    found = (between, *ends)
    if values is None:
        is_wide = any(float(x.width) > 1e-6 * (1 + float(x.magnitude)) for x in found)
        points = (middle, left, right) if is_wide else ()
        values = np.array([_value(problem, x, data) for x in points] or [math.nan] * 3)
    at_middle, at_left, at_right = map(_within, found, values)
    return Witness(a, b, 0.5, gap, True, (at_left, at_middle, at_right))


def _value(problem: Problem, point: np.ndarray, data: Sequence[Any]) -> float:
    with chords.in_float64():
        try:
            return float(function_of(problem.program)(problem.cut(point), data))
        except Exception:  # a primitive that has no value in float64
            return math.nan


def _within(enclosure: Interval, value: float) -> float:
    """Return a value as floats give it, or else the nearest number of its enclosure."""
    if not math.isfinite(value):
        return float(enclosure.middle)
    return float(np.clip(value, enclosure.low, enclosure.high))


def _enclosed(problem: Problem, point: np.ndarray, data: Sequence[Any]) -> Interval:
    """Enclose the loss at a flat point."""
    program = problem.program
    leaves = map(from_array, problem.cut(point))
    inputs = dict(zip(program.params, leaves, strict=True))
    known = zip(program.data, data, problem.data, strict=True)
    inputs.update(
        # An integer beyond 2^53 is its own range, and no float.
        (number, given if not problem.has_data_range else from_array(leaf))
        for number, leaf, given in known
        if given is not None
    )
    return evaluate(program, inputs)[program.output]


def _overwhelming(
    problem: Problem, a: Any, b: Any, values: np.ndarray
) -> Witness | None:
    """Return a witness where floats alone convince: a huge gap, and no atoms."""
    between, at_left, at_right = (float(value) for value in values)
    gap = between - (at_left + at_right) / 2
    program = problem.program
    if not np.isfinite(values).all() or program.assumptions:
        return None
    if rounds_on_purpose(program.closed):  # the real function may lie on the chord
        return None
    if not gap > _OVERWHELMING * float(np.abs(values).sum()):
        return None
    return Witness(a, b, 0.5, gap, False, (at_left, between, at_right))


def data_sets(problem: Problem) -> list[tuple[str, list[Any]]]:
    """Return the data to try: as they are, or both ends and the middle of a range."""
    if not problem.has_data_range:
        return [("", [None if leaf is None else leaf.low for leaf in problem.data])]
    named: dict[str, list[Any]] = {"low ends": [], "high ends": [], "middle": []}
    for number, leaf in zip(problem.program.data, problem.data, strict=True):
        if leaf is None:
            ends: Any = (None, None, None)
        else:
            dtype = problem.program.dtypes[number]
            middle = np.floor(leaf.middle)
            if dtypes.is_float(dtype):  # a number that the program can be given
                middle = leaf.middle.astype(dtype).astype(np.float64)
            middle = np.clip(middle, leaf.low, leaf.high)
            ends = (leaf.low, leaf.high, middle)
        for leaves, end in zip(named.values(), ends, strict=True):
            leaves.append(end)
    return [
        (name, leaves)
        for name, leaves in named.items()
        if all(
            leaf is None or _is_given(leaf, problem.program.dtypes[number])
            for leaf, number in zip(leaves, problem.program.data, strict=True)
        )
    ]


def _is_given(leaf: np.ndarray, dtype: Any) -> bool:
    """Tell whether a leaf of data holds numbers that are its own, not their bounds."""
    limit = np.inf if dtypes.is_float(dtype) else 2.0**53
    return bool((np.abs(leaf) < limit).all())
