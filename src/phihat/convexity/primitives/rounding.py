"""How far rounding may move what a primitive computes, in units of its dtype."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation

__all__ = ["general_power", "interpolation", "of_sums", "whole_power"]


def whole_power(equation: Equation, inputs: list[Interval], result: Interval) -> Any:
    """As many products as the power is made of, and a quotient."""
    del inputs
    return (2 * abs(int(equation.params.get("y", 2))) + 5) * result.magnitude


def general_power(equation: Equation, inputs: list[Interval], result: Interval) -> Any:
    """x^y = exp(y log x) for x > 0: the exponent is rounded, too."""
    del equation
    base, exponent = inputs
    if not (base.low > 0).all():
        return np.inf
    logarithm = iv.mul(exponent, iv.log(base)).magnitude
    return (16 + 4 * np.max(logarithm, initial=0.0)) * result.magnitude


def interpolation(equation: Equation, inputs: list[Interval], result: Interval) -> Any:
    """In a piece, x and a knot are subtracted, and the slope multiplies the rest."""
    del result
    x, knots, heights = inputs
    sizes, reach = heights.magnitude, 2 * np.max(knots.magnitude)
    if equation.primitive == "interp_extrapolated":
        reach = reach + x.magnitude
    steepest = np.max((sizes[1:] + sizes[:-1]) / np.diff(knots.low))
    return 16 * (np.max(sizes) + steepest * reach) * np.ones(x.shape)


def of_sums(ulps: int = 1) -> Callable[..., Any]:
    """Make the bound of what adds up, or multiplies, many elements in any order.

    So many times as there are elements, of what the primitive makes of their sizes
    (Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, chapter 4).
    """

    def bound(equation: Equation, inputs: list[Interval], result: Interval) -> Any:
        del result
        sizes = [
            x if dtypes.is_integer(dtype) else iv.from_array(_finite(x.magnitude))
            for x, dtype in zip(inputs, equation.input_dtypes, strict=True)
        ]
        rule = record(equation.primitive).value
        assert rule is not None
        return ulps * (_count(equation, inputs) + 1) * rule(equation, sizes)[0].high

    return bound


def _finite(size: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(size), size, 0.0)


def _count(equation: Equation, inputs: list[Interval]) -> int:
    """Return how many elements meet, at most."""
    params, shape = equation.params, inputs[0].shape
    if "dimension_numbers" in params and "axes" not in params:
        if equation.primitive != "dot_general":
            return inputs[-1].size  # a scatter
        return math.prod(shape[k] for k in params["dimension_numbers"][0][0])
    axes = params.get("axes", (params.get("axis"),))
    return math.prod(shape[k] for k in axes)
