# ruff: noqa: ARG001, ARG005 - rules of one table share a signature
"""The kernel on operands that are one and the same element, and on known choices."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from phihat.convexity.kernel.facts import ONE, ZERO, Ask, Known, Refused, meet, normal
from phihat.convexity.kernel.moves import moved, taken
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, each
from phihat.convexity.program.form import Equation

__all__ = [
    "MAX_EXPANDED",
    "ON_SAME",
    "as_constant",
    "intersection",
    "known_choice",
    "same_elements",
]

MAX_EXPANDED = 1 << 22


def as_constant(value: Value) -> Value:
    """What is computed from constants is one; with a number everywhere, affine."""
    if value.is_known:
        return value
    knowns = [
        normal(k._replace(constant=True)) if k.total else k._replace(constant=True)
        for k in value.knowns
    ]
    if all(k.total and math.isfinite(k.low) and math.isfinite(k.high) for k in knowns):
        return Value(value.shape, interval=value.ranges())
    return Value(value.shape, knowns, value.places)


def intersection(value: Value, found: Value) -> Value:
    """Return what both say of one value; its elements and views are kept."""
    result = each(meet, [value, found], value.shape)
    result._ids, result.view, result.order = value._ids, value.view, value.order
    result.anchor = value.anchor
    return result


def same_elements(inputs: Sequence[Value], shape: Sequence[int]) -> np.ndarray | None:
    """Tell where two operands are one and the same element."""
    x, y = inputs
    if x is y:
        return np.broadcast_to(np.True_, tuple(shape))
    if x.constant or y.constant or (x._ids is None and y._ids is None):
        return None
    if math.prod(shape) > MAX_EXPANDED:
        return None
    mask = np.broadcast_to(x.ids == y.ids, tuple(shape))
    return mask if mask.any() else None


def known_choice(inputs: Sequence[Value]) -> Value | None:
    """Return the case that a known predicate names for all elements."""
    which, *cases = inputs
    if not which.constant or not all(k.is_point for k in which.knowns):
        return None
    if len(which.knowns) == 1:
        return cases[min(max(int(which.knowns[0].low), 0), len(cases) - 1)]
    shape = cases[0].shape
    index = np.broadcast_to(which.ranges().low, shape).astype(int)
    stacked = Equation("stack", {"axis": 0}, (), (), None, None)  # type: ignore
    (whole,) = moved(stacked, cases, [(len(cases), *shape)])
    flat = np.arange(len(cases) * math.prod(shape)).reshape(len(cases), *shape)
    places = np.take_along_axis(flat, index[None], 0)[0]
    return taken([whole], lambda parts: parts[0].reshape(-1)[places], shape)


def _of_same(decided: bool) -> Callable[[Ask, Known, Known], Known]:
    def rule(ask: Ask, x: Known, y: Known) -> Known:
        if not x.total:
            raise Refused("what is not defined everywhere is compared")
        return ONE if decided else ZERO

    return rule


ON_SAME: dict[str, Callable[[Ask, Known, Known], Known]] = {
    "mul": lambda ask, x, y: TABLE["square"](ask, x),
    "sub": lambda ask, x, y: ZERO if x.total else TABLE["sub"](ask, x, y),
    "max": lambda ask, x, y: x,
    "min": lambda ask, x, y: x,
    **{name: _of_same(True) for name in ("eq", "le", "ge")},
    **{name: _of_same(False) for name in ("ne", "lt", "gt")},
}
"""z z = z^2, z - z = 0, max(z, z) = z: where z is a number."""
