r"""Rules of the second derivative: jumps, comparisons and choices.

A step function is constant on a box that no jump touches, a comparison holds on a box
where both sides are apart; all other boxes are given up, for at a jump there is no
bound, and one at the face of two boxes is a jump of the whole.
"""

from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Jet, constant, range_of, select
from phihat.convexity.primitives.evaluation import computed
from phihat.convexity.primitives.jets.box_pass import Blocked, Pass
from phihat.convexity.program.flat_indices import spread_places
from phihat.convexity.program.form import Equation

__all__ = ["is_finite", "select_n", "settled"]


def settled(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """What jumps, by the rule of values, must not do so on the box nor just beyond.

    So comparisons, casts and roundings are constant on a neighbourhood of the box.
    """
    inputs = run.spread(equation, inputs)
    varies = [isinstance(x, Jet) or x.rows is not None for x in inputs]
    ranges = [
        _beyond(range_of(x)) if moves else Interval(*range_of(x))
        for x, moves in zip(inputs, varies, strict=True)
    ]
    (result,) = computed(equation, ranges)
    if any(varies):
        is_one = result.low == result.high
        run.require(is_one, equation, "it may change within the box")
    return constant(result)


def _beyond(x: Interval) -> Interval:
    return Interval(np.nextafter(x.low, -np.inf), np.nextafter(x.high, np.inf))


def is_finite(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """It must be finite on all of the box."""
    value = range_of(inputs[0])
    is_finite = np.isfinite(value.low) & np.isfinite(value.high)
    run.require(is_finite, equation, "its argument may not be finite")
    return constant(iv.from_array(np.ones(value.shape)))


def select_n(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """Choose by a condition that is constant on the box."""
    which, *cases = run.spread(equation, inputs)
    if isinstance(which, Jet) or which.rows is not None:
        raise Blocked(equation, "its condition is not read")
    condition = range_of(which)
    run.require(
        condition.low == condition.high, equation, "its condition may change in the box"
    )
    chosen = np.clip(condition.low, 0, len(cases) - 1).astype(int)
    shape = run.program.shapes[equation.outputs[0]]
    marks = np.zeros(chosen.shape, bool)
    for position, number in enumerate(equation.inputs[1:]):
        mark = run.infinite(number)
        if mark is not None:
            mark = mark[:, spread_places(run.program.shapes[number], shape)]
            marks = marks | ((chosen == position) & mark)
    if marks.any():  # another choice may drop them
        run.marks[equation.outputs[0]] = marks
    return select(chosen, cases, run.slopes)
