"""Facts on the move: gathers, scatters, slices and stacks of arrays of facts."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.extended import rearranged
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arithmetic import weighted_sum
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.combining import grouped
from phihat.convexity.primitives.facts.facts import Facts, closed, join
from phihat.convexity.primitives.values.data_movement import reads_within
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, Unknown, group_of_updates, move

__all__ = ["assembled", "moved", "scattered"]

Moves = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def moved(
    equation: Equation, inputs: Sequence[Array], shapes: Sequence[tuple[int, ...]]
) -> list[Array]:
    """Apply a structural primitive to facts; known indices move elements exactly."""
    where = INDEXED.get(equation.primitive, lambda _: range(0))(len(inputs))
    points = {k: inputs[k].point for k in where}
    indices = {k: p.astype(np.int64) for k, p in points.items() if p is not None}
    if len(indices) < len(points):
        return [_anywhere(equation, inputs, list(where), shapes[0])]
    arrays = [array for k, array in enumerate(inputs) if k not in indices]

    def go(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        given = iter(parts)
        return move(
            equation,
            [indices[k] if k in indices else next(given) for k in range(len(inputs))],
        )

    try:
        if len(arrays) == 1:
            return [
                arrays[0].moved(lambda part, k=k: go([part])[k], shape)
                for k, shape in enumerate(shapes)
            ]
        return assembled(shapes, arrays, go)
    except Unknown as error:
        raise Undecided(str(error)) from None


def assembled(
    shapes: Sequence[tuple[int, ...]], arrays: Sequence[Array], go: Moves
) -> list[Array]:
    """Move elements of several arrays into others; classes and numbers go along."""
    known = [array.interval for array in arrays if array.interval is not None]
    if len(known) == len(arrays):
        return [
            Array.known(rearranged(lambda *parts, k=k: go(parts)[k], *known))
            for k in range(len(shapes))
        ]
    classes: dict[Facts, int] = {}
    parts = []
    for array in arrays:
        names = [classes.setdefault(facts, len(classes)) for facts in array.classes]
        renamed = np.array(names, np.intp)
        parts.append(
            np.broadcast_to(renamed[0], array.shape)
            if array.places is None
            else renamed[array.places]
        )
    origins = {id(a.origin): a.origin for a in arrays if not a.is_constant}
    origin = next(iter(origins.values())) if len(origins) == 1 else None
    return [
        Array(shape, tuple(classes), places, numbers=numbers, origin=origin).pruned()
        for shape, places, numbers in zip(
            shapes, go(parts), go([array.numbers for array in arrays]), strict=True
        )
    ]


def _anywhere(
    equation: Equation,
    inputs: Sequence[Array],
    where: list[int],
    shape: tuple[int, ...],
) -> Array:
    """Read or write at indices that are not known: what all elements share holds.

    Where the indices are the same for all params, each result is one fixed element;
    where they depend on the params it may jump, and only its range is known. Reading
    out of range must be impossible where it would give NaN.
    """
    is_filled = equation.primitive == "gather" and "FILL" in str(
        equation.params["mode"]
    )
    if is_filled and not reads_within(equation, inputs[0].shape, inputs[1].ranges()):
        raise Undecided("an index is not proved to lie within the array")
    facts = functools.reduce(
        join, (a.facts for k, a in enumerate(inputs) if k not in where)
    )
    if not all(inputs[k].is_constant for k in where):
        if not facts.total:
            raise Undecided("an index that depends on the params")
        facts = Facts(facts.low, facts.high)
    return Array.of(facts, shape)


def scattered(
    equation: Equation,
    inputs: Sequence[Array],
    shape: tuple[int, ...],
    function: Callable[[list[tuple[Facts, int]]], Facts] = weighted_sum,
) -> Array:
    """scatter-add: each place holds its old element plus the updates that go there.

    With another function of classes and their counts, another scatter.
    """
    operand, indices, updates = inputs
    known = indices.point
    if known is None and function is not weighted_sum:
        raise Undecided("a scatter to places that are not known")
    if known is None:
        return _scattered_anywhere(operand, indices, updates, shape)
    targets = group_of_updates(
        equation.params, operand.shape, known.astype(np.int64), updates.shape
    )
    groups = np.concatenate([np.arange(operand.size), targets.reshape(-1)])
    (both,) = assembled(
        [(operand.size + updates.size,)],
        [operand, updates],
        lambda parts: [np.concatenate([part.reshape(-1) for part in parts])],
    )
    return grouped(function, both, groups, operand.size, shape)


def _scattered_anywhere(
    operand: Array, indices: Array, updates: Array, shape: tuple[int, ...]
) -> Array:
    """Where the places are not known, each may get any number of the updates."""
    if not indices.is_constant:
        raise Undecided("a scatter to places that depend on the params")
    known = weighted_sum([(operand.facts, 1), (updates.facts, 1)])
    reach = Interval(0.0, float(max(updates.size, 1)))
    total = intervals.add(
        operand.facts.range, intervals.mul(reach, updates.facts.range)
    )
    return Array.of(
        closed(
            Facts(
                float(total.low),
                float(total.high),
                known.convex,
                known.concave,
                total=known.total,
            )
        ),
        shape,
    )
