# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorems on whole arrays: sums, extremes, products, sorts, polygons.

Each takes the checker, what it may ask for, the equation, the values that it reads and
the shapes that it writes; so do those of `matrices`.
"""

import functools
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.arithmetic import add_up
from phihat.convexity.kernel.elementwise import MAX_EXPANDED, ON_SAME, same_elements
from phihat.convexity.kernel.facts import (
    INF,
    NOTHING,
    ONE,
    Q0,
    ZERO,
    Ask,
    Known,
    Refused,
    either,
    normal,
)
from phihat.convexity.kernel.matrices import MATRIX_RULES
from phihat.convexity.kernel.moves import moved, places_of_updates, taken
from phihat.convexity.kernel.objects import jax_primitive
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, along, each, grouped
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.flat_indices import contraction
from phihat.convexity.program.form import Equation

__all__ = ["ARRAY_RULES"]


def _reduce(rule: Callable[..., Known]) -> Callable[..., list[Value]]:
    def reduce(checker, ask, equation, inputs, shapes) -> list[Value]:
        axes = equation.params["axes"]
        extreme = _extreme_of_sorted(equation, inputs[0]) if shapes[0] == () else None
        if extreme is not None:
            return [Value((), (extreme,))]
        value = along(functools.partial(rule, ask), inputs[0], axes, shapes[0])
        value.anchor = equation.primitive in ("reduce_max", "reduce_min") and (
            not value.constant
        )
        return [value]

    return reduce


def _extreme_of_sorted(equation: Equation, x: Value) -> Known | None:
    """The extreme of one sorted row is its first or its last element."""
    if x.order is None or x.places is None or "reduce_m" not in equation.primitive:
        return None
    _, start, length, rows, largest_first, _ = x.order
    ranks = x.ids.reshape(-1) - start
    if rows != 1 or not np.array_equal(np.sort(ranks), np.arange(length)):
        return None
    at_start = (equation.primitive == "reduce_max") == largest_first
    place = int(np.argmax(ranks == (0 if at_start else length - 1)))
    return x.knowns[x.places.reshape(-1)[place]]


def _fold(name: str, start: Known | None, most: int) -> Callable[..., Known]:
    def rule(ask: Ask, terms: list[tuple[Known, int]]) -> Known:
        """Fold the elements; those that share their facts are different values."""
        knowns = [k for k, n in terms for _ in range(min(n, most))]
        if start is not None:
            knowns.insert(0, start)
        if not knowns:
            raise Refused("the extreme of no elements is infinite")
        return functools.reduce(functools.partial(TABLE[name], ask), knowns)

    return rule


def _product(ask: Ask, terms: list[tuple[Known, int]]) -> Known:
    if sum(n for k, n in terms) > 64:
        return Known(total=all(k.total for k, _ in terms))
    return _fold("mul", ONE, 64)(ask, terms)


def _sum(checker, ask, equation, inputs, shapes) -> list[Value]:
    (x,) = inputs
    axes, shape = tuple(equation.params["axes"]), shapes[0]
    if checker.program.dtypes[equation.inputs[0]] == np.bool_:
        raise Refused("a sum of booleans")
    weighted = _weighted(checker, equation) if shape == () else None
    if weighted is not None:
        return [Value((), (weighted,))]
    if x.order is not None and shape == ():
        known = _sum_of_sorted(x, np.ones(x.size))
        if known is not None:
            total = add_up([(k, x.size) for k in (x.order[0].known,)])
            return [
                Value((), (normal(known._replace(low=total.low, high=total.high)),))
            ]
    return [along(add_up, x, axes, shape)]


def _weighted(checker: Any, equation: Equation) -> Known | None:
    """A sum of sorted values times constants, element by element."""
    writer = checker.writers.get(equation.inputs[0])
    if writer is None or writer.primitive != "mul":
        return None
    x, y = (checker.values[n] for n in writer.inputs)
    for value, weights in ((x, y), (y, x)):
        if value.order is None or weights.point is None:
            continue
        if value.shape == checker.program.shapes[equation.inputs[0]]:
            return _sum_of_sorted(value, np.broadcast_to(weights.point, value.shape))
    return None


def _sum_of_sorted(x: Value, weights: np.ndarray) -> Known | None:
    """Sum w_i x_[i], w >= 0 not increasing from the largest on, is a maximum of sums.

    It is sum (w_i - w_(i+1)) S_i, S_i being the sum of the i largest: convex. Of
    weights that do not decrease it is concave, if no element was left out.
    """
    source, start, length, rows, largest_first, whole = x.order
    ranks = x.ids.reshape(-1) - start
    table = np.zeros(rows * length)
    if len(np.unique(ranks)) < len(ranks):
        return None
    table[ranks] = weights.reshape(-1)
    table = table.reshape(rows, length)
    table = table if largest_first else table[:, ::-1]
    known = source.known
    steps = np.diff(table, axis=1)
    if (table < 0).any():
        return None
    convex = bool((steps <= 0).all()) and known.convex
    concave = bool((steps >= 0).all()) and known.concave and whole
    if not (convex or concave):
        return None
    return Known(convex=convex, concave=concave, total=known.total)


def _sort(checker, ask, equation, inputs, shapes) -> list[Value]:
    """A sorted value has the range of what is sorted; its sums are remembered."""
    x, params = inputs[0], equation.params
    top = equation.primitive == "top_k"
    if not all(v.known.total for v in inputs):
        raise Refused("what is not defined everywhere is sorted")
    outputs = [
        Value(s, (Known(v.known.low, v.known.high),))
        for v, s in zip(inputs, shapes, strict=False)
    ]
    axis = params.get("dimension", params.get("axis", -1))
    if axis % len(x.shape) == len(x.shape) - 1 and len(inputs) == 1 and outputs[0].size:
        first, length = outputs[0], outputs[0].shape[-1]
        start = int(first.ids.reshape(-1)[0])
        first.order = (x, start, length, first.size // length, top, not top)
    if top:
        outputs.append(Value(shapes[1], (Known(0.0, float(x.shape[-1])),)))
    return outputs


def _position(checker, ask, equation, inputs, shapes) -> list[Value]:
    """A position jumps."""
    if not inputs[0].known.total:
        raise Refused("what is not defined everywhere is compared")
    return [Value(shapes[0], (Known(0.0, float(max(inputs[0].shape, default=1))),))]


def _cumulative(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Prefixes: each is a sum, a maximum, a log-sum-exp of some of the row."""
    (x,), name, axis = inputs, equation.primitive, equation.params["axis"]
    reach = Interval(1.0, float(max(x.shape[axis], 1)))

    def rule(terms: list[tuple[Known, int]]) -> Known:
        hull = functools.reduce(either, [k for k, _ in terms])
        if any(k.infinite for k, _ in terms):
            return NOTHING
        if name == "cumsum":
            low, high = map(float, iv.mul(reach, hull.range))
            k = add_up(terms)
            return normal(k._replace(low=low, high=high, sign=hull.sign))
        if name == "cummax":
            return normal(hull._replace(concave=hull.constant, q=None))
        if name == "cummin":
            return normal(hull._replace(convex=hull.constant, p=None))
        if name == "cumlogsumexp":
            return normal(Known(hull.low, convex=hull.convex, total=hull.total))
        return Known(total=hull.total)

    kept = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    reduced = along(rule, x, (axis,), kept)
    places = reduced.places
    spread = None if places is None else np.broadcast_to(places, x.shape)
    return [Value(x.shape, reduced.knowns, spread)]


def _dot(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Sums of products."""
    shape, dims = tuple(shapes[0]), equation.params["dimension_numbers"]
    x, y = inputs
    for c, z in ((x, y), (y, x)):
        if not c.is_known or c.interval is None:
            continue
        if all(k.affine for k in z.knowns):
            total = all(k.total for k in z.knowns)
            template = Known(convex=True, concave=True, total=total)
            if any(math.isinf(k.low) or math.isinf(k.high) for k in z.knowns):
                return [Value(shape, (template,))]
            r = iv.dot_general(x.ranges(), y.ranges(), dims)
            return [_ranged(template, r, shape)]
        if z.order is not None and shape == () and c.point is not None:
            known = _sum_of_sorted(z, c.point)
            if known is not None:
                return [Value((), (known,))]
    terms, spreads = contraction(x.shape, y.shape, dims)
    multiply = functools.partial(TABLE["mul"], ask)
    if math.prod(terms) > MAX_EXPANDED:
        known = multiply(x.known, y.known)
        low = 0.0 if known.low >= 0.0 else -math.inf
        high = 0.0 if known.high <= 0.0 else math.inf
        hull = Known(low, high, known.convex, known.concave, total=known.total)
        return [Value(shape, (normal(hull),))]
    factor, bare = ONE, []
    for n, value in zip(equation.inputs, inputs, strict=True):
        c, z = _multiple(checker, n, value)
        factor = TABLE["mul"](ask, factor, c)
        bare.append(z)
    left, right = (
        taken([v], lambda parts, spread=spread: spread(parts[0]), terms)
        for v, spread in zip(bare, spreads, strict=True)
    )
    same = same_elements([left, right], terms)
    if same is None:
        summands = each(multiply, [left, right], terms)
    else:
        square = ON_SAME["mul"]
        summands = each(
            lambda a, b, s: square(ask, a, b) if s else multiply(a, b),
            [left, right],
            terms,
            same,
        )
    total = along(add_up, summands, (len(terms) - 1,), shape)
    if factor == ONE:
        return [total]
    return [each(functools.partial(TABLE["mul"], ask, factor), [total], shape)]


def _multiple(checker: Any, n: int, value: Value) -> tuple[Known, Value]:
    """Read a value as one constant times another: (c x) @ x = c (x @ x)."""
    writer = checker.writers.get(n)
    if writer is not None and writer.primitive == "mul" and checker.values[n] is value:
        sides = [checker.values[k] for k in writer.inputs]
        for c, z in (sides, sides[::-1]):
            if c.constant and c.shape == () and z.shape == value.shape:
                return c.known, z
    return ONE, value


def _ranged(template: Known, r: Interval, shape: tuple[int, ...]) -> Value:
    known = Value(shape, interval=Interval(r.low.reshape(shape), r.high.reshape(shape)))
    if r.low.size <= 1 << 12:
        pairs = np.stack([r.low.reshape(-1), r.high.reshape(-1)], 1)
        found, places = np.unique(pairs, axis=0, return_inverse=True)
        if len(found) <= 512:
            knowns = [
                normal(template._replace(low=float(a), high=float(b))) for a, b in found
            ]
            places = places.reshape(shape) if len(knowns) > 1 else None
            return Value(shape, knowns or (ZERO,), places)
    knowns = [normal(template._replace(low=k.low, high=k.high)) for k in known.knowns]
    return Value(shape, knowns, known.places)


def _convolution(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Affine, where one side is constant and the other affine."""
    knowns = [v.known for v in inputs]
    affine = any(k.constant for k in knowns) and all(k.affine for k in knowns)
    return [
        Value(
            shapes[0],
            (Known(convex=affine, concave=affine, total=all(k.total for k in knowns)),),
        )
    ]


def _interp(checker, ask, equation, inputs, shapes) -> list[Value]:
    """A polygon is convex where each knot lies below the chord of its neighbours.

    A clamped one has level ends, so that each end is a knot, too, if x may go beyond.
    """
    x, *data = inputs
    xs, ys = (v.point if v.constant else None for v in data)
    if xs is None or ys is None or xs.shape != ys.shape or not 2 <= xs.size <= 4096:
        raise Refused("an interpolation between points that are not known")
    if not (np.diff(xs) > 0).all():
        raise Refused("an interpolation between points that are not in order")
    knots = [
        (Fraction(float(a)), Fraction(float(b))) for a, b in zip(xs, ys, strict=True)
    ]
    slopes = [(d - b) / (c - a) for (a, b), (c, d) in itertools.pairwise(knots)]
    clamped = equation.primitive == "interp"
    left, right = (Q0, Q0) if clamped else (slopes[0], slopes[-1])
    pieces = [(-INF, xs[0], left)]
    pieces += [
        (a, b, s) for (a, b), s in zip(itertools.pairwise(xs), slopes, strict=True)
    ]
    pieces.append((xs[-1], INF, right))

    def rule(k: Known) -> Known:
        inside = [s for a, b, s in pieces if k.high > a and k.low < b]
        turns = [b - a for a, b in itertools.pairwise(inside)]
        up, down = min(inside, default=0) >= 0, max(inside, default=0) <= 0
        outer = [k.affine or (k.convex and up) or (k.concave and down)]
        outer.append(k.affine or (k.concave and up) or (k.convex and down))
        return normal(
            Known(
                float(ys.min()) if clamped else -INF,
                float(ys.max()) if clamped else INF,
                bool(inside) and outer[0] and all(t >= 0 for t in turns),
                bool(inside) and outer[1] and all(t <= 0 for t in turns),
                total=k.total,
                constant=k.constant,
            )
        )

    return [each(rule, [x], shapes[0])]


def _scatter_add(checker, ask, equation, inputs, shapes) -> list[Value]:
    """Each place holds its old element and the updates that go there."""
    operand, indices, updates = inputs
    body = equation.params.get("update_jaxpr")
    names = [eqn.primitive for eqn in getattr(body, "jaxpr", body).eqns] if body else []
    if body is not None and names not in (
        [jax_primitive("add")],
        [jax_primitive("add_any")],
    ):
        raise Refused("a scatter that adds by a program of its own")
    if indices.exact is None:
        return [_scattered_anywhere(operand, indices, updates, shapes[0])]
    places = places_of_updates(equation, inputs)
    if operand.is_known and updates.is_known and operand.interval is None:
        raise Refused("a scatter of what is not finite")
    groups = np.concatenate([np.arange(operand.size), places.reshape(-1)])
    stack = Equation("concatenate", {"dimension": 0}, (), (), None, None)  # type: ignore
    flat = [
        taken([v], lambda parts: parts[0].reshape(-1), (v.size,))
        for v in (operand, updates)
    ]
    (both,) = moved(stack, flat, [(operand.size + updates.size,)])
    return [grouped(add_up, both, groups, operand.size, shapes[0])]


def _scattered_anywhere(
    operand: Value, indices: Value, updates: Value, shape: tuple[int, ...]
) -> Value:
    """Where the places are constant but not known, each gets any of the updates."""
    if not indices.constant:
        raise Refused("a scatter to places that depend on the params")
    k = add_up([(operand.known, 1), (updates.known, 1)])
    reach = iv.mul(Interval(0.0, float(max(updates.size, 1))), updates.known.range)
    low, high = map(float, iv.add(operand.known.range, reach))
    return Value(shape, (normal(Known(low, high, k.convex, k.concave, total=k.total)),))


ARRAY_RULES: dict[str, Any] = {
    **MATRIX_RULES,
    "argmax": _position,
    "argmin": _position,
    "conv_general_dilated": _convolution,
    **dict.fromkeys(
        ("cumsum", "cummax", "cummin", "cumlogsumexp", "cumprod"), _cumulative
    ),
    "dot_general": _dot,
    "interp": _interp,
    "interp_extrapolated": _interp,
    "reduce_and": _reduce(_fold("and", ONE, 1)),
    "reduce_max": _reduce(_fold("max", None, 2)),
    "reduce_min": _reduce(_fold("min", None, 2)),
    "reduce_or": _reduce(_fold("or", ZERO, 1)),
    "reduce_prod": _reduce(_product),
    "reduce_sum": _sum,
    "scatter-add": _scatter_add,
    "sort": _sort,
    "top_k": _sort,
}
