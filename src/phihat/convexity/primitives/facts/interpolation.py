"""The rule of linear interpolation between known points."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.primitives.facts.arrays import Arrays
from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.combining import elementwise
from phihat.convexity.primitives.facts.facts import Facts, closed
from phihat.convexity.program.form import Equation

__all__ = ["interpolation"]

_MAX_KNOTS = 4096


def interpolation(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Continuous and piecewise linear: convex where the slopes do not fall.

    The slopes are exact. Beyond the knots it is constant, or goes on as it was; only
    the pieces that the range of x meets count. It is composed with x as any function
    of one variable: with a convex x where it rises, with a concave x where it falls.
    """
    x, knots, values = inputs
    points = knots.point, values.point
    if points[0] is None or points[1] is None or len(points[0]) > _MAX_KNOTS:
        raise Undecided("an interpolation between points that are not known")
    places, heights = ([Fraction(float(v)) for v in np.asarray(p)] for p in points)
    steps = [b - a for a, b in itertools.pairwise(places)]
    if len(places) != len(heights) or not steps or min(steps) <= 0:
        raise Undecided("an interpolation between points that are not in order")
    rises = [b - a for a, b in itertools.pairwise(heights)]
    slopes = [rise / step for rise, step in zip(rises, steps, strict=True)]
    is_clamped = equation.primitive == "interp"
    ends = (Fraction(0), Fraction(0)) if is_clamped else (slopes[0], slopes[-1])
    marks = [-np.inf, *map(float, places), np.inf]

    def function(f: Facts) -> Facts:
        pieces = zip([ends[0], *slopes, ends[1]], marks[:-1], marks[1:], strict=True)
        met = [slope for slope, a, b in pieces if f.low < b and a < f.high]
        pairs = list(itertools.pairwise(met))
        bends_up = all(a <= b for a, b in pairs)
        bends_down = all(a >= b for a, b in pairs)
        rising, falling = all(s >= 0 for s in met), all(s <= 0 for s in met)
        up = f.affine or (f.convex and rising) or (f.concave and falling)
        down = f.affine or (f.concave and rising) or (f.convex and falling)
        low, high = -np.inf, np.inf
        if is_clamped:
            low, high = float(min(heights)), float(max(heights))
        return closed(
            Facts(
                low,
                high,
                convex=bool(met) and bends_up and up,
                concave=bool(met) and bends_down and down,
                total=f.total,
                constant=f.constant,
            )
        )

    return [elementwise(function, [x], interpreter.shape(equation))]
