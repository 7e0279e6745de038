r"""Rules of the second derivative: moves, sums, contractions and other reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers import jet_arithmetic as jets
from phihat.convexity.numbers.jets import Jet, Ridge, concatenate, constant, sum_groups
from phihat.convexity.primitives.jets.box_pass import Blocked, Pass, Rule
from phihat.convexity.program.flat_indices import (
    moved_places,
    paired_places,
    places_along,
)
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import group_of_updates

__all__ = ["accumulated", "dot_general", "folded", "moved", "reduce_sum", "scatter_add"]


def moved(run: Pass, equation: Equation, inputs: list[Any]) -> list[Ridge | Jet]:
    """Elements that only move keep their bounds."""
    shapes = [run.program.shapes[number] for number in equation.inputs]
    constants = [run.outline.constant(number) for number in equation.inputs]
    places = moved_places(equation, shapes, constants)
    if places is None:
        raise Blocked(equation, "an index depends on params, or lies out of range")
    pool = concatenate(inputs, run.slopes)
    return [pool.take(place) for place in places]


def reduce_sum(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Bounds add up."""
    shape = run.program.shapes[equation.inputs[0]]
    places = places_along(shape, equation.params["axes"])
    return sum_groups(inputs[0], places, run.slopes)


def dot_general(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Sums of products."""
    shapes = [run.program.shapes[number] for number in equation.inputs]
    dimension_numbers = equation.params["dimension_numbers"]
    places = paired_places(shapes[0], shapes[1], dimension_numbers)
    x, y = (z.take(place.reshape(-1)) for z, place in zip(inputs, places, strict=True))
    products = jets.product(x, y, run.slopes)
    numbers = np.arange(places[0].size).reshape(places[0].shape)
    return sum_groups(products, numbers, run.slopes)


def folded(combine: Callable[..., Ridge | Jet]) -> Rule:
    """Make a rule of a reduction by pairs, as a balanced tree."""

    def rule(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        shape = run.program.shapes[equation.inputs[0]]
        places = places_along(shape, equation.params["axes"])
        groups, length = places.shape
        x = inputs[0].take(places.T.reshape(-1))
        while length > 1:
            half = length // 2 * groups
            one, other = x.take(np.arange(half)), x.take(np.arange(half, 2 * half))
            rest = x.take(np.arange(2 * half, length * groups))
            x = concatenate([combine(one, other, run.slopes), rest], run.slopes)
            length -= length // 2
        return x

    return rule


def accumulated(combine: Callable[..., Ridge | Jet]) -> Rule:
    """Make a rule of a cumulative operation, step by step along its axis."""

    def rule(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        shape = run.program.shapes[equation.inputs[0]]
        places = places_along(shape, (equation.params["axis"],))
        order = places[:, ::-1] if equation.params["reverse"] else places
        steps = [inputs[0].take(column) for column in order.T]
        for position in range(1, len(steps)):
            steps[position] = combine(steps[position - 1], steps[position], run.slopes)
        where_to = np.empty(order.size, int)
        where_to[order.T.reshape(-1)] = np.arange(order.size)
        return concatenate(steps, run.slopes).take(where_to)

    return rule


def scatter_add(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Add to each element of the operand the updates that go there."""
    operand, _, updates = inputs
    indices = run.outline.constant(equation.inputs[1])
    if indices is None or not np.array_equal(indices.low, indices.high):
        raise Blocked(equation, "an index depends on params")
    given, shape = (run.program.shapes[equation.inputs[k]] for k in (0, 2))
    targets = group_of_updates(equation.params, given, indices.low.astype(int), shape)
    targets = targets.reshape(-1)
    size, none = operand.value.shape[1], np.array([0])
    zero = constant(iv.from_array(np.zeros((1, 1))))
    pool = concatenate([operand, updates, zero], run.slopes)
    groups = [
        np.append(none + e, size + np.flatnonzero(targets == e)) for e in range(size)
    ]
    places = np.full((size, max(map(len, groups), default=1)), pool.value.shape[1] - 1)
    for row, group in zip(places, groups, strict=True):
        row[: len(group)] = group
    return sum_groups(pool, places, run.slopes)
