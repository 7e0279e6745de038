"""Rules of the primitives that move elements, choose among them, and scatter them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import (
    UNKNOWN,
    Extended,
    extended,
    full_kind,
    rearranged,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import is_known
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, Unknown, group_of_updates, move

__all__ = ["iota", "reads_within", "scatter", "scatter_sub", "select_n", "structural"]


def structural(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Move the ends; where an index is not known, an element may be any of them."""
    where_to = INDEXED.get(equation.primitive, lambda _: range(0))(len(inputs))
    indices = {place: inputs[place] for place in where_to}
    if not all(map(is_known, indices.values())):
        return _unknown_index(equation, inputs, where_to)
    whole = {place: x.low.astype(np.int64) for place, x in indices.items()}

    def moved(read: Callable[[Interval], np.ndarray]) -> list[np.ndarray]:
        return move(
            equation,
            [whole[p] if p in whole else read(x) for p, x in enumerate(inputs)],
        )

    try:
        lows = moved(lambda x: x.low)
    except Unknown:
        return None
    elements = [x for place, x in enumerate(inputs) if place not in whole]
    if all(x.is_point for x in elements):
        return [Interval(low, low) for low in lows]
    highs = moved(lambda x: x.high)
    if not any(isinstance(x, Extended) for x in elements):
        return list(map(Interval, lows, highs))
    kinds = moved(full_kind)
    return [
        extended(Interval(low, high), kind)
        for low, high, kind in zip(lows, highs, kinds, strict=True)
    ]


def _unknown_index(
    equation: Equation, inputs: list[Interval], where_to: range
) -> list[Interval] | None:
    """Let each element be any element; of an update, any element of either."""
    name, operand = equation.primitive, inputs[0]
    if any(isinstance(x, Extended) for x in inputs) or not operand.size:
        return None
    if name == "dynamic_slice":
        return [_hull_over(operand, equation.params["slice_sizes"])]
    if name == "gather":
        zeros = [
            x if place not in where_to else iv.from_array(np.zeros(x.shape))
            for place, x in enumerate(inputs)
        ]
        read = structural(equation, zeros)
        if read is None or (
            "FILL" in str(equation.params["mode"])
            and not reads_within(equation, operand.shape, inputs[1])
        ):
            return None
        return [_hull_over(operand, read[0].shape)]
    updates = inputs[1] if name == "dynamic_update_slice" else inputs[2]
    if not updates.size:
        return [operand]
    return [iv.hull(operand, _hull_over(updates, operand.shape))]


def reads_within(equation: Equation, shape: Sequence[int], indices: Interval) -> bool:
    """Tell whether a gather reads within its operand whatever the indices are."""
    axes = equation.params["dimension_numbers"].start_index_map
    sizes = equation.params["slice_sizes"]
    return all(
        bool((indices.low[..., place] >= 0).all())
        and bool((indices.high[..., place] <= shape[axis] - sizes[axis]).all())
        for place, axis in enumerate(axes)
    )


def _hull_over(x: Interval, shape: Sequence[int]) -> Interval:
    ends = (np.broadcast_to(e, tuple(shape)) for e in (x.low.min(), x.high.max()))
    return Interval(*ends)


def select_n(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Choose; where the choice is not known, take the hull of what may be chosen."""
    del equation
    which, *cases = inputs
    if isinstance(which, Extended):
        which = Interval(*which)
    last = len(cases) - 1
    first_of = np.clip(np.ceil(which.low), 0, last).astype(np.int64)
    last_of = np.clip(np.floor(which.high), 0, last).astype(np.int64)
    if np.array_equal(first_of, last_of):
        if (first_of == first_of.flat[0]).all() if first_of.size else True:
            return [cases[int(first_of.flat[0]) if first_of.size else 0]]
        return [rearranged(functools.partial(_chosen, first_of), *cases)]
    shape = cases[0].shape
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    least, most = np.full(shape, 9), np.full(shape, -9)
    for place, case in enumerate(cases):
        may_be = np.broadcast_to((first_of <= place) & (place <= last_of), shape)
        kind = full_kind(case)
        low = np.where(may_be, np.minimum(low, case.low), low)
        high = np.where(may_be, np.maximum(high, case.high), high)
        least = np.where(may_be, np.minimum(least, kind), least)
        most = np.where(may_be, np.maximum(most, kind), most)
    kind = np.where(least == most, least, UNKNOWN).astype(np.int8)
    return [extended(Interval(low, high), kind)]


def _chosen(which: np.ndarray, *ends: np.ndarray) -> np.ndarray:
    if len(ends) == 2:
        return np.where(which == 0, *ends)
    result = np.array(ends[0])
    for place, end in enumerate(ends):
        np.copyto(result, end, where=which == place)
    return result


def iota(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """The places along an axis."""
    del inputs
    axis, shape = equation.params["dimension"], equation.params["shape"]
    places = np.indices(shape, sparse=True)[axis].astype(np.float64)
    return [iv.from_array(np.broadcast_to(places, shape))]


def scatter(
    combine: Callable[[Any, Any], Interval],
) -> Callable[[Equation, list[Interval]], list[Interval] | None]:
    """Make the rule of a scatter that combines what meets in one place."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
        operand, indices, updates = inputs
        if not is_known(indices) or any(isinstance(x, Extended) for x in inputs):
            return None
        targets = group_of_updates(
            equation.params, operand.shape, indices.low.astype(np.int64), updates.shape
        ).reshape(-1)
        kept = np.nonzero(targets >= 0)[0]
        order = kept[np.argsort(targets[kept], kind="stable")]
        places, values = _merged(targets[order], updates.reshape(-1)[order], combine)
        flat = operand.reshape(-1)
        met = combine(flat[places], values)

        def put(end: np.ndarray, new: np.ndarray) -> np.ndarray:
            result = np.array(end)
            result[places] = new
            return result

        return [iv.rearrange(put, flat, met).reshape(operand.shape)]

    return rule


def scatter_sub(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Add what is negative."""
    operand, indices, updates = inputs
    if isinstance(updates, Extended):
        return None
    return scatter(iv.add)(equation, [operand, indices, iv.neg(updates)])


def _merged(
    places: np.ndarray, values: Interval, combine: Callable[..., Interval]
) -> tuple[np.ndarray, Interval]:
    """Combine neighbours with the same place in pairs until each place is there once.

    The places are sorted. In each round the members of odd rank in their group join
    those before them, so the roundings number about log2 of the largest group.
    """
    while True:
        is_first = np.ones(len(places), bool)
        is_first[1:] = places[1:] != places[:-1]
        if is_first.all():
            return places, values
        starts = np.maximum.accumulate(np.where(is_first, np.arange(len(places)), 0))
        odd = (np.arange(len(places)) - starts) % 2 == 1
        joins = np.nonzero(odd)[0]
        pairs = combine(values[joins - 1], values[joins])

        def put(
            end: np.ndarray,
            new: np.ndarray,
            joins: np.ndarray = joins,
            odd: np.ndarray = odd,
        ) -> np.ndarray:
            result = np.array(end)
            result[joins - 1] = new
            return result[~odd]

        values = iv.rearrange(put, values, pairs)
        places = places[~odd]
