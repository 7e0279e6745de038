"""The kernel on tests for NaN: which elements are none for all params."""

import contextlib
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import Ask, Refused
from phihat.convexity.kernel.moves import MOVES, moved
from phihat.convexity.kernel.values import Value
from phihat.convexity.program.form import Equation

__all__ = ["TESTS"]

_HAND_ON = {
    *("abs", "add", "add_any", "div", "exp", "log", "mul", "neg", "sqrt", "square"),
    *("sub", "tanh"),
}
"""Functions whose value at NaN, in any of their arguments, is NaN."""


def _nans(checker: Any, n: int, steps: int = 32) -> np.ndarray:
    """Mark elements that are NaN whatever the params are; others may be so, too."""
    value, writer = checker.values[n], checker.writers.get(n)
    none = np.zeros(value.shape, bool)
    if value.exact is not None:
        kinds = "biu"
        exact = value.exact
        return none if exact.dtype.kind in kinds else np.isnan(exact.astype(np.float64))
    if writer is None or value.is_known or not steps:
        return none
    name, params = writer.primitive, writer.params
    inputs = [_nans(checker, k, steps - 1) for k in writer.inputs]
    if name in _HAND_ON or (name == "integer_pow" and params["y"] != 0):
        for mask in inputs:
            none = none | mask
        return none
    if name == "select_n" and len(inputs) == 3:
        which = checker.values[writer.inputs[0]]
        if which.constant and which.point is not None:
            return np.where(which.point == 0.0, inputs[1], inputs[2])
    if name in MOVES and len(writer.outputs) == 1:
        masks = [Value(m.shape, exact=m) for m in inputs]
        with contextlib.suppress(Refused):
            return moved(writer, masks, [value.shape])[0].exact
    return none


def _test_for_nan(checker: Any, ask: Ask, equation: Equation) -> Value:
    """X != x is true of NaN alone, and NaN is not finite; numbers are the contrary."""
    del ask
    n = equation.inputs[0]
    x, nans = checker.values[n], _nans(checker, n)
    if equation.inputs != (n,) * len(equation.inputs):
        raise Refused("two values are compared")
    if tuple(checker.program.shapes[equation.outputs[0]]) != tuple(x.shape):
        raise Refused("a test of other elements")
    sure = np.array([k.total for k in x.knowns])
    numbers = sure[0 if x.places is None else x.places]
    if not (nans | np.broadcast_to(numbers, x.shape)).all():
        raise Refused("what may be NaN for some params")
    return Value(x.shape, exact=nans if equation.primitive == "ne" else ~nans)


TESTS = {"test for NaN": (("eq", "is_finite", "ne"), _test_for_nan)}
"""By the name in certificates: the primitives at which it may stand, its check."""
