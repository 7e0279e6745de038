"""Which elements meet: broadcasts, reductions, contractions and moves as flat indices.

Facts about elements are kept flat, `[N]` and whatever else follows; an array of places
then says which of them an operation combines.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.sizes import check_size
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, Unknown, move

__all__ = [
    "contraction",
    "moved_places",
    "paired_places",
    "places_along",
    "spread_places",
]


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


def contraction(
    one: Sequence[int], other: Sequence[int], dimension_numbers: Any
) -> tuple[tuple[int, ...], list[Callable[[np.ndarray], np.ndarray]]]:
    """Lay out both sides of a contraction so that they multiply element by element.

    Returns the shape `[batch..., left..., right..., contracted]`, and for each side the
    function that spreads it to that shape.
    """
    contracts, batches = dimension_numbers
    shapes = one, other
    free = [
        [k for k in range(len(shape)) if k not in (*summed, *batch)]
        for shape, summed, batch in zip(shapes, contracts, batches, strict=True)
    ]
    batch = [one[k] for k in batches[0]]
    sides = [[s[k] for k in axes] for s, axes in zip(shapes, free, strict=True)]
    length = math.prod(one[k] for k in contracts[0])
    terms = (*batch, *sides[0], *sides[1], length)

    def spread(array: np.ndarray, side: int) -> np.ndarray:
        ones = [[1] * len(sizes) for sizes in sides]
        ones[side] = sides[side]
        axes = [*batches[side], *free[side], *contracts[side]]
        laid_out = array.transpose(axes).reshape([*batch, *ones[0], *ones[1], length])
        return np.broadcast_to(laid_out, terms)

    return terms, [functools.partial(spread, side=side) for side in (0, 1)]


def paired_places(
    one: Sequence[int], other: Sequence[int], dimension_numbers: Any
) -> list[np.ndarray]:
    """Return the elements that a contraction multiplies, for both `[G, E]`."""
    terms, spreads = contraction(one, other, dimension_numbers)
    check_size(math.prod(terms))
    return [
        spread(np.arange(math.prod(shape)).reshape(shape)).reshape(
            math.prod(terms[:-1]), terms[-1]
        )
        for spread, shape in zip(spreads, (one, other), strict=True)
    ]


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
