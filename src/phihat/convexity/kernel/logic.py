# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorems on comparisons, booleans, staircases and casts."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from phihat.convexity.kernel.facts import (
    INF,
    ONE,
    READABLE,
    ZERO,
    Ask,
    Known,
    Refused,
    normal,
    number,
)
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval

__all__ = ["LOGIC"]


def _bool(decided: bool | None, *xs: Known) -> Known:
    if decided is not None:
        return ONE if decided else ZERO
    if not all(x.total or x.constant for x in xs):
        raise Refused("what is not defined everywhere flows into a comparison")
    return normal(Known(0.0, 1.0, constant=all(x.constant for x in xs)))


def _less(x: Known, y: Known, strictly: bool) -> bool:
    """Whether x < y, or x <= y, is certain where both are numbers."""
    if x.infinite or y.infinite:
        below = x.low < y.low if x.infinite and y.infinite else False
        return (
            below
            or (x.infinite and not y.infinite and x.low < 0)
            or (y.infinite and not x.infinite and y.low > 0)
            or (not strictly and x.infinite and x.low == y.low)
        )
    apart = (x.sign < 0 and y.low >= 0.0) or (x.high <= 0.0 and y.sign > 0)
    return apart or x.high < y.low or (not strictly and x.high <= y.low)


def _compare(strictly: bool, swapped: bool) -> Callable[[Ask, Known, Known], Known]:
    def rule(ask: Ask, x: Known, y: Known) -> Known:
        """Decided where the ranges do not meet, of values that are numbers."""
        if swapped:
            x, y = y, x
        decided = None
        if all(z.total or z.infinite for z in (x, y)):
            if _less(x, y, strictly):
                decided = True
            elif _less(y, x, not strictly):
                decided = False
        return _bool(decided, x, y)

    return rule


def _total_order(reflexive: bool) -> Callable[[Ask, Known, Known], Known]:
    def rule(ask: Ask, x: Known, y: Known) -> Known:
        """As `<=` or `<` of numbers apart; of zeros, whose sign counts, nothing."""
        decided = None
        if all(z.total or z.infinite for z in (x, y)):
            if _less(x, y, True):
                decided = True
            elif _less(y, x, True):
                decided = False
            elif x.low == x.high == y.low == y.high != 0.0:
                decided = reflexive
        return _bool(decided, x, y)

    return rule


def _eq(ask: Ask, x: Known, y: Known) -> Known:
    """True of equal points, false of ranges that do not meet."""
    decided = None
    if all(z.total or z.infinite for z in (x, y)):
        if x.low == x.high == y.low == y.high:
            decided = True
        elif _less(x, y, True) or _less(y, x, True):
            decided = False
    return _bool(decided, x, y)


def _not(ask: Ask, x: Known) -> Known:
    """Of a boolean."""
    return _bool(x.low == 0.0 if x.is_point else None, x)


def _and(ask: Ask, x: Known, y: Known) -> Known:
    """Of booleans."""
    if ZERO in (x, y):
        return ZERO
    return _bool(True if x == y == ONE else None, x, y)


def _or(ask: Ask, x: Known, y: Known) -> Known:
    """Of booleans."""
    return _not(ask, _and(ask, _not(ask, x), _not(ask, y)))


def _xor(ask: Ask, x: Known, y: Known) -> Known:
    """Of booleans."""
    return _bool(x.low != y.low if x.is_point and y.is_point else None, x, y)


def _is_finite(ask: Ask, x: Known) -> Known:
    """True of what is a number everywhere."""
    if x.infinite:
        return ZERO
    if not x.total:
        raise Refused("what is not defined everywhere flows into is_finite")
    return ONE


def _steps(function: Callable[[Interval], Any]) -> Callable[[Ask, Known], Known]:
    def rule(ask: Ask, x: Known) -> Known:
        """A staircase has jumps: only its range is known, unless it is one step."""
        if not x.total:
            raise Refused("what is not defined everywhere is rounded")
        low, high = map(float, function(x.range))
        if low == high:
            return number(low)
        return normal(Known(low, high, constant=x.constant))

    return rule


def _round(ask: Ask, x: Known) -> Known:
    """To the nearest integer, halves away from zero or to an even one."""
    to_even = int(ask.params["rounding_method"]) == 1
    return _steps(iv.round_half_even if to_even else iv.round_half_away)(ask, x)


def _cast(ask: Ask, x: Known) -> Known:
    """To bool: z != 0; to integers: a staircase; of integers to floats: the number."""
    new, old = str(ask.params["new_dtype"]), str(ask.params.get("old_dtype", "float"))
    if new == "bool":
        return _not(ask, _eq(ask, x, ZERO))
    if "int" in new:
        if old == "bool" or "int" in old:
            return x
        return _steps(iv.truncate)(ask, x)
    if ("int" in old or old == "bool") and new in READABLE:
        return x if old == "bool" else _rounded(x, ask.params["new_dtype"])
    raise Refused(f"a cast from {old} to {new}")


def _rounded(x: Known, dtype: Any) -> Known:
    """Integers beyond the digits of a float dtype are rounded: faithfully."""
    digits = int(jnp.finfo(dtype).nmant) + 1
    if max(abs(x.low), abs(x.high)) <= 2.0**digits:
        return x
    wide = [end * (1.0 + 2.0 ** (2 - digits)) for end in (x.low, x.high)]
    narrow = [end * (1.0 - 2.0 ** (2 - digits)) for end in (x.low, x.high)]
    low, high = min(wide[0], narrow[0]), max(wide[1], narrow[1])
    largest = float(jnp.finfo(dtype).max)
    low, high = (-INF if low < -largest else low), (INF if high > largest else high)
    return normal(Known(low, high, total=x.total, constant=x.constant))


LOGIC: dict[str, Callable[..., Known]] = {
    "and": _and,
    "ceil": _steps(iv.ceil),
    "convert_element_type": _cast,
    "eq": _eq,
    "floor": _steps(iv.floor),
    "ge": _compare(False, True),
    "gt": _compare(True, True),
    "is_finite": _is_finite,
    "le": _compare(False, False),
    "le_to": _total_order(True),
    "lt": _compare(True, False),
    "lt_to": _total_order(False),
    "ne": lambda ask, x, y: _not(ask, _eq(ask, x, y)),
    "not": _not,
    "or": _or,
    "round": _round,
    "sign": _steps(iv.sign),
    "xor": _xor,
}
