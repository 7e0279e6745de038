"""Loops that are too long to unroll: facts that hold at the start and stay."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.primitives.facts.arrays import Array, Arrays
from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.combining import elementwise
from phihat.convexity.primitives.facts.facts import ONE, ZERO, Facts, closed, join
from phihat.convexity.program.form import Equation

__all__ = ["scan"]

_MAX_ROUNDS = 12
"""Facts that still change after this many rounds are not found."""


def scan(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Find facts of the carry that hold at the start and that each round keeps.

    By induction they hold after any number of rounds, which does not depend on the
    params. Numbers, symbols and exact values are dropped where the rounds meet.
    """
    params = equation.params
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts = list(inputs[:num_consts])
    carry = [
        _without_identity(array)
        for array in inputs[num_consts : num_consts + num_carry]
    ]
    rows = [
        Array.of(array.facts, array.shape[1:])
        for array in inputs[num_consts + num_carry :]
    ]
    for round_ in range(_MAX_ROUNDS):
        marks = len(interpreter.lines), len(interpreter.constraints)
        outputs = _one_round(interpreter, params["body"], [*consts, *carry, *rows])
        met = [
            elementwise(join, [old, _without_identity(new)], old.shape)
            for old, new in zip(carry, outputs[:num_carry], strict=True)
        ]
        if all(map(_agree, met, carry)):
            length = params["length"]
            return [*carry, *(_stacked(length, row) for row in outputs[num_carry:])]
        del interpreter.lines[marks[0] :], interpreter.constraints[marks[1] :]
        carry = [_widened(n, o, round_) for n, o in zip(met, carry, strict=True)]
    raise Undecided("no facts of the loop's carry were found that each round keeps")


def _one_round(interpreter: Any, body: Any, arrays: Sequence[Array]) -> list[Array]:
    """Interpret the body; its lines and constraints join those around it."""
    inner = type(interpreter)(body, interpreter)
    for number, array in zip(body.params, arrays, strict=True):
        inner.values[number] = array
    inner.run()
    return [inner.values[number] for number in body.outputs]


def _without_identity(array: Array) -> Array:
    """Drop numbers, symbols and exact values; keep what is known of the elements."""
    return Array(array.shape, array.classes, array.places)


def _agree(x: Array, y: Array) -> bool:
    agreed = elementwise(lambda a, b: ONE if a == b else ZERO, [x, y], x.shape)
    return all(facts == ONE for facts in agreed.classes)


def _widened(new: Array, old: Array, round_: int) -> Array:
    """Give up bounds that keep moving, then p and q."""

    def function(x: Facts, y: Facts) -> Facts:
        if round_ < 1:
            return x
        low = x.low if x.low == y.low else (0.0 if x.low >= 0.0 else -math.inf)
        high = x.high if x.high == y.high else (0.0 if x.high <= 0.0 else math.inf)
        keep = round_ < 4
        p = x.p if keep or x.p == y.p else None
        q = x.q if keep or x.q == y.q else None
        return closed(x.replace(low=low, high=high, p=p, q=q))

    return _without_identity(elementwise(function, [new, old], new.shape))


def _stacked(length: int, array: Array) -> Array:
    shape = (length, *array.shape)
    places = array.places
    spread = None if places is None else np.broadcast_to(places, shape)
    return Array(shape, array.classes, spread)
