"""Rules on whole arrays: sums, maxima, products of matrices, sorts and choices.

Each takes the interpreter, the equation and the arrays of its inputs. What it concludes
of classes of elements it takes from the rules of single elements.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.facts.arithmetic import (
    maximum,
    minimum,
    multiply,
    weighted_sum,
)
from phihat.convexity.primitives.facts.arrays import Array, Arrays
from phihat.convexity.primitives.facts.call import Call, Undecided
from phihat.convexity.primitives.facts.combining import elementwise, grouped
from phihat.convexity.primitives.facts.data_movement import assembled
from phihat.convexity.primitives.facts.facts import ONE, Facts, closed, join
from phihat.convexity.primitives.facts.powers import power
from phihat.convexity.primitives.facts.steps import choose, settled
from phihat.convexity.program.form import Equation

__all__ = [
    "by_axes",
    "cumulative",
    "extreme_of_windows",
    "largest",
    "logical",
    "position",
    "product",
    "reduce_extreme",
    "reduce_sum",
    "select_n",
    "smallest",
    "sort",
    "sum_of_sorted",
]

ArrayRule = Callable[..., Arrays]


def select_n(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Take the case that a known predicate names, elements and all."""
    which, cases = inputs[0], inputs[1:]
    shape = interpreter.shape(equation)
    taken = which.point
    if taken is None and len(which.classes) == 1 and which.classes[0].is_point:
        taken = np.broadcast_to(np.float64(which.classes[0].low), which.shape)
    if taken is None or not which.is_constant:
        return [elementwise(lambda w, *c: choose(w, c), inputs, shape)]
    taken = np.clip(taken.astype(np.int64), 0, len(cases) - 1)
    if taken.size and (taken == taken.reshape(-1)[0]).all():
        return [cases[int(taken.reshape(-1)[0])]]
    spread = np.broadcast_to(taken, shape)
    return assembled([shape], cases, lambda parts: [_chosen(spread, parts)])


def _chosen(which: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    result = np.array(parts[0])
    for k, part in enumerate(parts[1:], 1):
        np.copyto(result, part, where=which == k)
    return result


# ---------------------------------------------------------------------- reductions


def by_axes(function: Callable[[list[tuple[Facts, int]]], Facts]) -> ArrayRule:
    """Make a rule that reduces over axes from one on classes and their counts."""

    def reduce(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
        axes = tuple(equation.params["axes"])
        shape = interpreter.shape(equation)
        groups = _groups(inputs[0], axes)
        return [grouped(function, inputs[0], groups, math.prod(shape), shape)]

    return reduce


def _groups(array: Array, axes: tuple[int, ...]) -> np.ndarray | None:
    """Return the group of each element, flat; None where all are of one class."""
    if array.places is None:
        return None
    return _all_groups(array, axes)


def _all_groups(array: Array, axes: tuple[int, ...]) -> np.ndarray:
    kept = [1 if k in axes else n for k, n in enumerate(array.shape)]
    numbers = np.arange(math.prod(kept)).reshape(kept)
    return np.broadcast_to(numbers, array.shape).reshape(-1)


def largest(terms: list[tuple[Facts, int]]) -> Facts:
    """Return what is known of the largest of some values; see `maximum`."""
    return _extreme(maximum, terms)


def smallest(terms: list[tuple[Facts, int]]) -> Facts:
    """Return what is known of the smallest of some values; see `minimum`."""
    return _extreme(minimum, terms)


def _extreme(
    rule: Callable[[Call, Facts, Facts], Facts], terms: list[tuple[Facts, int]]
) -> Facts:
    """Combine; elements of one class are different values that share their facts."""
    call = Call()
    each = [facts for facts, count in terms for _ in range(min(count, 2))]
    return functools.reduce(lambda x, y: rule(call, x, y), each)


def product(terms: list[tuple[Facts, int]]) -> Facts:
    """Multiply; n factors of one class are different values that share their facts."""
    call = Call()
    result = ONE
    for facts, count in terms:
        if facts.constant and facts.is_point:
            result = multiply(call, result, power(call, facts, Fraction(count)))
        elif count > _MAX_FACTORS:
            result = Facts(total=result.total and facts.total)
        else:
            for _ in range(count):
                result = multiply(call, result, facts)
    return result


_MAX_FACTORS = 64


def logical(name: str, start: Facts) -> Callable[[list[tuple[Facts, int]]], Facts]:
    """Make the rule of "all" or "any" from that of "and" or "or"."""
    rule = functools.partial(settled(name), Call())
    return lambda terms: functools.reduce(rule, [f for f, n in terms if n], start)


def reduce_extreme(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """The largest of convex functions is convex; it may serve as a symbol."""
    function = largest if equation.primitive == "reduce_max" else smallest
    if 0 in inputs[0].shape:
        raise Undecided("the extreme of no elements is infinite")
    if interpreter.shape(equation) == ():
        sorted_extreme = _extreme_of_sorted(equation, inputs[0])
        if sorted_extreme is not None:
            return [Array.of(sorted_extreme)]
    (result,) = by_axes(function)(interpreter, equation, inputs)
    result.is_anchor = not result.is_constant
    return [result]


def _extreme_of_sorted(equation: Equation, array: Array) -> Facts | None:
    """The extreme of one row that is sorted is its first or last element."""
    order = array.order
    if order is None or order.num_rows != 1 or array.places is None:
        return None
    positions = array.numbers.reshape(-1) - order.start
    if not np.array_equal(np.sort(positions), np.arange(order.length)):
        return None
    at_start = (equation.primitive == "reduce_max") == order.is_descending
    rank = 0 if at_start else order.length - 1
    return array.classes[array.places.reshape(-1)[int(np.argmax(positions == rank))]]


def reduce_sum(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """See `weighted_sum`; a sum over a sorted array may be convex as a whole."""
    (array,) = inputs
    axes, shape = tuple(equation.params["axes"]), interpreter.shape(equation)
    if array.order is not None and 0 < array.size <= _MAX_SORTED:
        facts = sum_of_sorted(array, _all_groups(array, axes), math.prod(shape))
        if facts is not None:
            return [Array.of(facts, shape)]
    weighted = _sum_of_weighted(interpreter, equation)
    if weighted is not None and shape == ():
        return [Array.of(weighted)]
    return by_axes(weighted_sum)(interpreter, equation, inputs)


def _sum_of_weighted(interpreter: Any, equation: Equation) -> Facts | None:
    """A sum of sorted values times constants, element by element: see below."""
    product = interpreter.producers.get(equation.inputs[0])
    if product is None or product.primitive != "mul":
        return None
    sides = [interpreter.values[number] for number in product.inputs]
    for array, weights in (sides, sides[::-1]):
        point = weights.point
        if array.order is None or point is None or array.size > _MAX_SORTED:
            continue
        if array.shape == interpreter.program.shapes[equation.inputs[0]]:
            amounts = np.broadcast_to(point, array.shape).reshape(-1)
            return sum_of_sorted(array, np.zeros(array.size, int), 1, amounts)
    return None


_MAX_SORTED = 1 << 14


def sum_of_sorted(
    array: Array, groups: np.ndarray, num_groups: int, weights: np.ndarray | None = None
) -> Facts | None:
    """The sum of the k largest is the largest sum of k: convex, and nondecreasing.

    With weights w >= 0 that do not increase from the largest on, sum w_i x_[i] is
    sum (w_i - w_{i+1}) S_i + w_n S_n, S_i the sum of the i largest. Turned about, the
    sum of the k smallest is concave. The weights are added up exactly: counts, or one
    float each.
    """
    order = array.order
    assert order is not None  # the caller asked
    positions = array.numbers.reshape(-1) - order.start
    source = order.source.facts
    amounts = np.ones(len(positions)) if weights is None else weights
    rows, ranks = np.divmod(positions, order.length)
    sums = np.zeros((num_groups, order.num_rows, order.length))
    hits = np.zeros(sums.shape, int)
    np.add.at(sums, (groups, rows, ranks), amounts)
    np.add.at(hits, (groups, rows, ranks), 1)
    if weights is not None and (hits > 1).any():
        return None
    if not order.is_descending:
        sums = sums[..., ::-1]
    nonnegative = bool((sums >= 0).all())
    falling = nonnegative and bool((np.diff(sums, axis=-1) <= 0).all())
    rising = nonnegative and bool((np.diff(sums, axis=-1) >= 0).all())
    convex = falling and source.convex
    concave = rising and source.concave and order.is_whole
    if not (convex or concave):
        return None
    low, high = -math.inf, math.inf
    if weights is None:
        total = weighted_sum([(source, len(positions) // num_groups)])
        low, high = total.low, total.high
    return closed(Facts(low, high, convex, concave, total=source.total))


def sort(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """A sorted value has only a range; what may be summed is remembered."""
    array = inputs[0]
    shapes = [interpreter.shape(equation, k) for k in range(len(equation.outputs))]
    largest = equation.primitive == "top_k"
    axis = equation.params.get("dimension", equation.params.get("axis", -1))
    along_last = bool(array.shape) and axis % len(array.shape) == len(array.shape) - 1
    outputs = [Array.of(_uncurved(array.facts), shapes[0])]
    if along_last and (largest or len(inputs) == 1) and outputs[0].size:
        outputs[0].sorts(array, is_descending=largest, is_whole=not largest)
    for position, shape in enumerate(shapes[1:], 1):
        facts = (
            Facts(0.0, float(array.shape[-1]))
            if largest
            else _uncurved(inputs[position].facts)
        )
        outputs.append(Array.of(facts, shape))
    return outputs


def _uncurved(facts: Facts) -> Facts:
    if not facts.total:
        raise Undecided("a value that is not defined everywhere is sorted")
    return Facts(facts.low, facts.high)


def position(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """A position jumps."""
    _uncurved(inputs[0].facts)
    count = max(inputs[0].shape, default=1)
    return [Array.of(Facts(0.0, float(count)), interpreter.shape(equation))]


# ---------------------------------------------------------------------- cumulative


def cumulative(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """Any prefix has what the whole row has; its range covers all prefixes."""
    del interpreter
    (array,) = inputs
    axis, name = equation.params["axis"], equation.primitive
    if array.size == 0:
        return [array]
    reach = Interval(1.0, float(array.shape[axis]))
    kept = tuple(1 if k == axis else n for k, n in enumerate(array.shape))

    def function(terms: list[tuple[Facts, int]]) -> Facts:
        return _PREFIXES[name](
            terms, functools.reduce(join, [f for f, _ in terms]), reach
        )

    groups = _groups(array, (axis,))
    reduced = grouped(function, array, groups, math.prod(kept), kept)
    places = reduced.places
    spread = None if places is None else np.broadcast_to(places, array.shape)
    return [Array(array.shape, reduced.classes, spread)]


def _sums(terms: list[tuple[Facts, int]], hull: Facts, reach: Interval) -> Facts:
    if any(facts.is_infinite for facts, _ in terms):
        return Facts(total=False)
    total = intervals.mul(reach, hull.range)
    return closed(
        weighted_sum(terms).replace(
            low=float(total.low),
            high=float(total.high),
            positive=hull.positive,
            negative=hull.negative,
        )
    )


def extreme_of_windows(interpreter: Any, equation: Equation, inputs: Arrays) -> Arrays:
    """The extreme of any elements has what all of them have; see `_PREFIXES`.

    A window may lie in the padding alone, where the extreme is infinite, unless the
    padding is narrower than it and it has no holes.
    """
    (array,), params = inputs, equation.params
    holes = (*params["base_dilation"], *params["window_dilation"])
    is_filled = all(
        max(low, high) < size and min(low, high) >= 0
        for (low, high), size in zip(
            params["padding"], params["window_dimensions"], strict=True
        )
    )
    if not is_filled or set(holes) != {1} or not array.size:
        raise Undecided("a window may hold no element")
    name = "cummax" if equation.primitive == "reduce_window_max" else "cummin"
    facts = _PREFIXES[name]([], array.facts, None)
    return [Array.of(facts, interpreter.shape(equation))]


_PREFIXES: dict[str, Callable[..., Facts]] = {
    "cumsum": _sums,
    "cummax": lambda _, hull, __: closed(hull.replace(concave=hull.constant, q=None)),
    "cummin": lambda _, hull, __: closed(hull.replace(convex=hull.constant, p=None)),
    "cumlogsumexp": lambda _, hull, __: closed(
        Facts(hull.low, convex=hull.convex, total=hull.total)
    ),
    "cumprod": lambda _, hull, __: Facts(total=hull.total),
}
"""What holds of every prefix of a row: of sums, maxima, minima, log-sum-exps."""
