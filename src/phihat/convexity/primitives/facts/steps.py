"""Facts of what jumps: comparisons, logic, casts, roundings and choices."""

import functools
from collections.abc import Sequence

import numpy as np

from phihat.convexity.numbers.extended import (
    MINUS_INFINITY,
    PLUS_INFINITY,
    Extended,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.call import Call, Rule, Undecided
from phihat.convexity.primitives.facts.facts import ZERO, Facts, closed, constant, join
from phihat.convexity.primitives.registry import record
from phihat.convexity.primitives.values.rule_builders import wrapped
from phihat.convexity.program.form import Equation, Source

__all__ = ["choose", "settled"]

_LOGIC = {"and", "not", "or", "xor"}
_COMPARISONS = {"eq", "ge", "gt", "le", "lt", "ne"}


def settled(name: str) -> Rule:
    """Make the rule of a primitive that jumps: only its range is known, as of values.

    It is a constant where that is one number. What is not a number for some params may
    not flow into it.
    """
    tolerant = _COMPARISONS | _LOGIC

    def rule(call: Call, *xs: Facts) -> Facts:
        if name == "is_finite" and xs[0].is_infinite:
            return ZERO
        if str(call.params.get("new_dtype")) == "bool":
            return settled("ne")(Call(), *xs, ZERO)
        if not all(x.total or (x.constant and name in tolerant) for x in xs):
            raise Undecided(
                f"a value that is not defined everywhere flows into `{name}`"
            )
        ranges = [_range(x) for x in xs]
        if name in _COMPARISONS:
            ranges = _apart(*xs) or ranges
        elif name in _LOGIC:
            ranges = [wrapped(x, np.bool_) for x in ranges]
        kind = np.int64 if call.params.get("from_integers") else np.float64
        equation = Equation(
            name,
            call.params,
            tuple(range(len(xs))),
            (),
            Source("", 0, ""),
            None,
            np.dtype(np.bool_),
            input_dtypes=(kind,),
        )
        found = record(name).value(equation, ranges)  # type: ignore
        if found is None:
            raise Undecided(f"a cast to {call.params['new_dtype']}")
        low, high = map(float, found[0])
        if low == high:
            return constant(low)
        return closed(Facts(low, high, constant=all(x.constant for x in xs)))

    return rule


def _range(x: Facts) -> Interval:
    if x.is_infinite:
        mark = PLUS_INFINITY if x.low > 0.0 else MINUS_INFINITY
        return Extended(np.float64(0.0), np.float64(0.0), np.int8(mark))
    return x.range if x.total else unknown(())


def _apart(x: Facts, y: Facts) -> list[Interval] | None:
    """Return numbers in the order of two that are strictly on both sides of zero."""
    below, above = Interval(-1.0, -1.0), Interval(1.0, 1.0)
    if not (x.total and y.total):
        return None
    if (x.negative and y.nonnegative) or (x.nonpositive and y.positive):
        return [below, above]
    if (y.negative and x.nonnegative) or (y.nonpositive and x.positive):
        return [above, below]
    return None


def choose(which: Facts, cases: Sequence[Facts]) -> Facts:
    """select_n: one case, where it is known which or the same for all params.

    A choice that depends on the params may jump, so only the range is known of it.
    """
    if which.is_point:
        return cases[min(max(int(which.low), 0), len(cases) - 1)]
    result = functools.reduce(join, cases)
    if which.constant:
        return result
    if any(not case.total for case in cases):
        raise Undecided("a value that is not defined everywhere flows into a choice")
    if result.is_point:
        return result
    return Facts(result.low, result.high)
