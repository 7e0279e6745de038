"""Which elements meet: broadcasts, reductions, contractions and moves as flat indices.

Facts about elements are kept flat, `[N]` and whatever else follows; an array of places
then says which of them an operation combines.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.sizes import check_size
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, Unknown, move

__all__ = ["moved_places", "paired_places", "places_along", "spread_places"]


def spread_places(given: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Return which element of an array each element of its broadcast is, flat."""
    places = np.arange(math.prod(given)).reshape(given)
    if len(given) < len(shape) and given:
        places = places.reshape((1,) * (len(shape) - len(given)) + tuple(given))
    return np.broadcast_to(places, shape).reshape(-1)


def places_along(shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Return the elements that a reduction over axes combines `[G, E]`."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    places = np.arange(math.prod(shape)).reshape(shape).transpose((*kept, *axes))
    count = math.prod(shape[axis] for axis in kept)
    return places.reshape(count, math.prod(shape[axis] for axis in axes))


def paired_places(
    one: Sequence[int], other: Sequence[int], dimension_numbers: Any
) -> list[np.ndarray]:
    """Return the elements that a contraction multiplies, for both `[G, E]`."""
    (one_sum, other_sum), (one_batch, other_batch) = dimension_numbers
    free = [
        [axis for axis in range(len(shape)) if axis not in (*summed, *batch)]
        for shape, summed, batch in (
            (one, one_sum, one_batch),
            (other, other_sum, other_batch),
        )
    ]
    batch = [one[axis] for axis in one_batch]
    rows, columns = [one[a] for a in free[0]], [other[a] for a in free[1]]
    length = math.prod(one[axis] for axis in one_sum)
    groups = math.prod(batch) * math.prod(rows) * math.prod(columns)
    check_size(groups * length)
    shape = (math.prod(batch), math.prod(rows), math.prod(columns), length)
    found = []
    for given, summed, batched, kept, across in (
        (one, one_sum, one_batch, free[0], 2),
        (other, other_sum, other_batch, free[1], 1),
    ):
        places = np.arange(math.prod(given)).reshape(given)
        places = places.transpose((*batched, *kept, *summed))
        places = places.reshape(shape[0], math.prod(given[a] for a in kept), length)
        places = np.broadcast_to(np.expand_dims(places, across), shape)
        found.append(places.reshape(groups, length))
    return found


def moved_places(
    equation: Equation, shapes: Sequence[Any], constants: Sequence[Any]
) -> list[np.ndarray] | None:
    """Return which element of all inputs in a row each result of a move is, flat.

    None where an index depends on params, is not known, or lies out of range.
    """
    indexed = INDEXED.get(equation.primitive, lambda _: range(0))(len(shapes))
    arrays, start = [], 0
    for position, (shape, constant) in enumerate(zip(shapes, constants, strict=True)):
        if position in indexed:
            if constant is None or not np.array_equal(constant.low, constant.high):
                return None
            arrays.append(constant.low.astype(np.int64))
        else:
            size = math.prod(shape)
            arrays.append(np.arange(start, start + size).reshape(shape))
        start += math.prod(shape)
    try:
        return [places.reshape(-1) for places in move(equation, arrays)]
    except Unknown:
        return None
