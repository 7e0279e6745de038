"""Rules of the primitives that order elements: argmax, sort, top_k."""

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import Extended
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import Rule
from phihat.convexity.program.form import Equation

__all__ = ["position", "sort", "top_k"]


def position(is_max: bool) -> Rule:
    """Find where the extremum may lie; of ties the first counts."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        (axis,) = equation.params["axes"]
        x = Interval(*x) if isinstance(x, Extended) else x
        x = x if is_max else iv.neg(x)
        low, high = (np.moveaxis(end, axis, -1) for end in x)
        if x.is_point:
            best = np.argmax(low, axis=-1).astype(np.float64)
            return [Interval(best, best)]
        edge = np.full((*low.shape[:-1], 1), -np.inf)
        before = np.maximum.accumulate(np.concatenate([edge, low[..., :-1]], -1), -1)
        after = np.maximum.accumulate(np.concatenate([edge, low[..., :0:-1]], -1), -1)[
            ..., ::-1
        ]
        # Beaten by an element before it that is as large, or by a larger one after.
        may_win = ~((before >= high) & (before > -np.inf)) & ~(after > high)
        count = low.shape[-1]
        first = np.argmax(may_win, axis=-1).astype(np.float64)
        last = count - 1.0 - np.argmax(may_win[..., ::-1], axis=-1)
        return [Interval(first, last)]

    return rule


def sort(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Sort the ends; what is carried along moves as the key, where its order is known.

    Each order statistic grows with every element, so its ends are those of the ends.
    """
    axis, key = equation.params["dimension"], inputs[0]
    if any(isinstance(x, Extended) for x in inputs):
        return None
    if len(inputs) == 1:
        return [iv.rearrange(lambda end: np.sort(end, axis=axis), key)]
    if equation.params["num_keys"] != 1:
        return None
    order = _order(key, axis, equation.params["is_stable"])
    ordered = iv.rearrange(lambda end: np.sort(end, axis=axis), key)
    return [ordered, *(_permuted(x, order, axis) for x in inputs[1:])]


def _order(
    key: Interval, axis: int, is_stable: bool, *, tells_zeros: bool = False
) -> np.ndarray | None:
    """Return the order of the elements if there is only one that they can have.

    Where `tells_zeros`, 0 comes after -0, wherever the two stand.
    """
    order = np.argsort(key.low, axis=axis, kind="stable")
    low, high = (
        np.moveaxis(np.take_along_axis(end, order, axis), axis, -1) for end in key
    )
    places = np.moveaxis(order, axis, -1)
    follows = high[..., :-1] < low[..., 1:]
    if is_stable:
        in_place = places[..., :-1] < places[..., 1:]
        if tells_zeros:
            in_place &= high[..., :-1] != 0
        follows |= (high[..., :-1] <= low[..., 1:]) & in_place
    return order if follows.all() else None


def _permuted(x: Interval, order: np.ndarray | None, axis: int) -> Interval:
    if order is not None:
        return iv.rearrange(lambda end: np.take_along_axis(end, order, axis), x)
    ends = (
        np.broadcast_to(end, x.shape)
        for end in (x.low.min(axis, keepdims=True), x.high.max(axis, keepdims=True))
    )
    return Interval(*ends)


def top_k(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Sort in falling order and keep k; equal elements stay in their order."""
    (x,) = inputs
    count = equation.params["k"]
    axis = equation.params.get("axis", -1) % x.ndim
    if isinstance(x, Extended):
        return None
    falling = iv.neg(x)
    order = _order(falling, axis, True, tells_zeros=True)
    places = np.broadcast_to(
        np.indices(x.shape, sparse=True)[axis].astype(np.float64), x.shape
    )
    keep = (*(slice(None),) * axis, slice(0, count))
    largest = iv.neg(iv.rearrange(lambda end: np.sort(end, axis=axis), falling))
    return [largest[keep], _permuted(iv.from_array(places), order, axis)[keep]]
