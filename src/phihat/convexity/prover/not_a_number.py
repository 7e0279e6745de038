"""Masks of what is certainly no number: `nanmean`, `nansum`, `where(isnan(r), 0, r)`.

NaN data are constants. Arithmetic hands a NaN on, whatever the other operand is, so the
elements of a residual that are NaN can be told, and `isnan` of it is a constant if all
others are numbers for all params.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers.extended import NOT_A_NUMBER, Extended
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Call
from phihat.convexity.program.form import Equation
from phihat.convexity.program.structure import INDEXED, STRUCTURAL, move

__all__ = ["NOT_A_NUMBER_TESTS"]

_STRICT = {
    *("abs", "add", "add_any", "div", "exp", "log", "mul", "neg", "sqrt", "square"),
    *("sub", "tanh"),
}
"""Of a NaN these make a NaN."""

_MAX_DEPTH = 32


def _certain(interpreter: Any, number: int, depth: int = 0) -> np.ndarray:
    """Return which elements of a value are NaN for all params."""
    array = interpreter.values[number]
    if isinstance(array.interval, Extended):
        return array.interval.kind == NOT_A_NUMBER
    equation = interpreter.producers.get(number)
    nowhere = np.zeros(array.shape, bool)
    if equation is None or array.interval is not None or depth > _MAX_DEPTH:
        return nowhere
    name, given = equation.primitive, equation.inputs

    def follow(n: int) -> np.ndarray:
        return _certain(interpreter, n, depth + 1)

    is_strict = name in _STRICT or (name == "integer_pow" and equation.params["y"] != 0)
    if is_strict:
        return np.logical_or.reduce(
            [np.broadcast_to(follow(n), array.shape) for n in given]
        )
    if name in STRUCTURAL and name not in INDEXED and len(equation.outputs) == 1:
        return move(equation, [follow(n) for n in given])[0]
    return nowhere


def _test(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], _: Call
) -> Array | None:
    """NaN is the one value that differs from itself; all numbers are finite."""
    number, name = equation.inputs[0], equation.primitive
    if name != "is_finite" and equation.inputs[1] != number:
        return None
    mask = _certain(interpreter, number)
    x = inputs[0]
    if not mask.any() or x.shape != interpreter.shape(equation):
        return None
    places = np.zeros(x.shape, np.intp) if x.places is None else x.places
    is_number = np.array([f.total for f in x.classes])[places]
    if not (mask | is_number).all():
        return None
    truth = (mask if name == "ne" else ~mask).astype(np.float64)
    return Array.known(Interval(truth, truth))


NOT_A_NUMBER_TESTS = {
    name: (("test for NaN", _test),) for name in ("eq", "is_finite", "ne")
}
"""The tests that tell NaN from numbers, with the name that certificates give."""
