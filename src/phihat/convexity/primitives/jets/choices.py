r"""Rules of the second derivative: jumps, comparisons and choices.

A step function is constant on a box that no jump touches, a comparison holds on a box
where both sides are apart; all other boxes are given up, for at a jump there is no
bound, and one at the face of two boxes is a jump of the whole.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Jet, Ridge, constant, range_of, select
from phihat.convexity.primitives.evaluation import computed
from phihat.convexity.primitives.jets.box_pass import Blocked, Pass, Rule
from phihat.convexity.program.flat_indices import spread_places
from phihat.convexity.program.form import Equation

__all__ = ["cast", "comparison", "is_finite", "is_whole", "jump", "logic", "select_n"]


def jump(jumps_at: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """Make a rule of a step function: constant on boxes that no jump touches."""

    def rule(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
        value = range_of(inputs[0])
        (stepped,) = computed(equation, [value])
        if isinstance(inputs[0], Jet) or inputs[0].rows is not None:
            touches = jumps_at(value.low) | jumps_at(value.high)
            is_flat = (stepped.low == stepped.high) & ~touches
            run.require(is_flat, equation, "it may jump within the box")
        return constant(stepped)

    return rule


def is_whole(x: np.ndarray) -> np.ndarray:
    """Tell which numbers are integers."""
    return np.rint(x) == x


def cast(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """Cast: to integers a jump at each of them, and to booleans one at 0."""
    dtype = np.dtype(equation.params["new_dtype"])
    if dtype.kind == "b":
        return jump(lambda x: x == 0)(run, equation, inputs)
    if dtype.kind not in "iu":
        if isinstance(inputs[0], Ridge) and inputs[0].rows is None:
            return logic(run, equation, inputs)
        raise Blocked(equation, f"a cast to {dtype} rounds")
    return jump(is_whole)(run, equation, inputs)


def comparison(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """Compare; what depends on params must be apart on all of the closed box."""
    name = equation.primitive
    x, y = run.spread(equation, inputs)
    if all(isinstance(z, Ridge) and z.rows is None for z in (x, y)):
        return logic(run, equation, inputs)
    if equation.inputs[0] == equation.inputs[1]:  # a finite number equals itself
        holds = np.full((1, x.value.shape[1]), name in ("eq", "le", "ge"))
        return constant(iv.from_array(holds))
    one, other = range_of(x), range_of(y)
    below, above = one.high < other.low, one.low > other.high
    run.require(below | above, equation, "it may change within the box")
    holds = {"lt": below, "le": below, "gt": above, "ge": above}.get(name)
    if holds is None:
        holds = np.full(below.shape, name == "ne")
    return constant(iv.from_array(holds))


def logic(run: Pass, equation: Equation, inputs: list[Any]) -> Any:
    """Combine what is constant on each box, by the rules of values."""
    inputs = run.spread(equation, inputs)
    if not all(isinstance(x, Ridge) and x.rows is None for x in inputs):
        raise Blocked(equation, "there is no rule for its second derivative")
    ranges = [Interval(*range_of(x)) for x in inputs]
    (result,) = computed(equation, ranges)
    return constant(result)


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
