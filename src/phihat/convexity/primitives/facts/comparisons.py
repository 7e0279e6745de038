"""Facts of comparisons, logic, choices and roundings."""

from collections.abc import Callable, Sequence

from phihat.convexity.numbers import dtypes, intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.call import Call, Rule, Undecided
from phihat.convexity.primitives.facts.facts import (
    ONE,
    ZERO,
    Facts,
    closed,
    constant,
    join,
)

__all__ = [
    "cast",
    "choose",
    "equal",
    "exclusive_or",
    "greater",
    "greater_or_equal",
    "is_finite",
    "less",
    "less_or_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "not_equal",
    "rounded",
    "step_function",
]

_READABLE = {"float64", "float32", "float16", "bfloat16"}


def _truth(x: Facts) -> bool | None:
    return bool(x.low) if x.is_point else None


def _boolean(value: bool | None, *inputs: Facts) -> Facts:
    """A decided boolean is a constant; an open one is so only if its inputs are."""
    if value is not None:
        return constant(float(value))
    for x in inputs:
        if not x.total and not x.constant:
            raise Undecided(
                "a value that is not defined everywhere flows into a comparison"
            )
    return closed(Facts(0.0, 1.0, constant=all(x.constant for x in inputs)))


def _compared(certainly: bool, never: bool, x: Facts, y: Facts) -> Facts:
    decided = True if certainly else False if never else None
    if not all(z.total or z.is_infinite for z in (x, y)):
        decided = None  # a NaN compares as false
    return _boolean(decided, x, y)


def _below(x: Facts, y: Facts) -> bool:
    """Whether x < y wherever both are defined; a literal inf is above all reals."""
    if x.is_infinite or y.is_infinite:
        return (
            x.low < y.low
            if x.is_infinite and y.is_infinite
            else ((x.is_infinite and x.low < 0) or (y.is_infinite and y.low > 0))
        )
    return (
        x.high < y.low
        or (x.negative and y.nonnegative)
        or (x.nonpositive and y.positive)
    )


def less(call: Call, x: Facts, y: Facts) -> Facts:
    """Decided where the ranges do not meet."""
    del call
    certainly = _below(x, y)
    return _compared(certainly, not certainly and x.low >= y.high, x, y)


def less_or_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Decided where the ranges do not meet."""
    del call
    never = _below(y, x)
    return _compared(not never and x.high <= y.low, never, x, y)


def greater(call: Call, x: Facts, y: Facts) -> Facts:
    """Y < x."""
    return less(call, y, x)


def greater_or_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Y <= x."""
    return less_or_equal(call, y, x)


def _never_equal(x: Facts, y: Facts) -> bool:
    return _below(x, y) or _below(y, x)


def equal(call: Call, x: Facts, y: Facts) -> Facts:
    """False where the ranges do not meet, true for equal points."""
    del call
    same = x.low == x.high == y.low == y.high
    return _compared(same, _never_equal(x, y), x, y)


def not_equal(call: Call, x: Facts, y: Facts) -> Facts:
    """Not `eq`."""
    return logical_not(call, equal(call, x, y))


def is_finite(call: Call, x: Facts) -> Facts:
    """True where the value is proved to be a number; else undecided."""
    del call
    if x.is_infinite:
        return ZERO
    if not x.total:
        raise Undecided("a value that is not defined everywhere flows into is_finite")
    return ONE


def logical_not(call: Call, x: Facts) -> Facts:
    """Of a boolean."""
    del call
    truth = _truth(x)
    return _boolean(None if truth is None else not truth, x)


def logical_and(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans: false if either is."""
    del call
    truths = _truth(x), _truth(y)
    if False in truths:
        return ZERO
    return ONE if truths == (True, True) else _boolean(None, x, y)


def logical_or(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans: true if either is."""
    return logical_not(
        call, logical_and(call, logical_not(call, x), logical_not(call, y))
    )


def exclusive_or(call: Call, x: Facts, y: Facts) -> Facts:
    """Of booleans."""
    del call
    one, other = _truth(x), _truth(y)
    return _boolean(None if None in (one, other) else one != other, x, y)


def choose(which: Facts, cases: Sequence[Facts]) -> Facts:
    """select_n: one case, where it is known which or the same for all params.

    A choice that depends on the params may jump, so only the range is known of it.
    """
    if which.is_point:
        return cases[min(max(int(which.low), 0), len(cases) - 1)]
    result = cases[0]
    for case in cases[1:]:
        result = join(result, case)
    if which.constant:
        return result
    if any(not case.total for case in cases):
        raise Undecided("a value that is not defined everywhere flows into a choice")
    if result.is_point:
        return result
    return Facts(result.low, result.high)


def step_function(function: Callable[[Interval], Interval]) -> Rule:
    """Make the rule of a staircase."""

    def step(call: Call, x: Facts) -> Facts:
        """A staircase has jumps: only its range is known, unless it is one step."""
        del call
        if not x.total:
            raise Undecided("a value that is not defined everywhere is rounded")
        end = function(x.range)
        if float(end.low) == float(end.high):
            return constant(float(end.low))
        return closed(Facts(float(end.low), float(end.high), constant=x.constant))

    return step


def rounded(call: Call, x: Facts) -> Facts:
    """A staircase; half a step more than any rounding covers both ties."""
    return step_function(lambda r: intervals.add(r, Interval(-0.5, 0.5)))(
        call, x
    ).replace(constant=x.constant)


def cast(call: Call, x: Facts) -> Facts:
    """To an integer: a staircase; to a boolean: z != 0; of integers: the number itself.

    Floats become other floats in `trace.py`, where that is read as the identity.
    """
    kind = call.params["new_dtype"]
    if str(kind) == "bool":
        return not_equal(call, x, ZERO)
    if call.params.get("from_integers") and str(kind) in _READABLE:
        low, high = map(float, dtypes.cast_ends(x.low, x.high, kind))
        if (low, high) == (x.low, x.high):
            return x
        return closed(Facts(low, high, total=x.total, constant=x.constant))
    if "int" not in str(kind):
        raise Undecided(f"a cast to {kind}")
    return step_function(intervals.truncate)(call, x)
