r"""Rules of the primitives that move, choose, order and sum elements.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity.intervals import Interval
  >>> from phihat.convexity.trace import trace
  >>> (equation,) = trace(jnp.sum, jnp.zeros(2)).equations
  >>> RULES["reduce_sum"](equation, [Interval([0.0, 1.0], [0.0, 2.0])])
  [Interval(low=1.0, high=2.0)]
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from phihat.convexity import intervals as iv
from phihat.convexity.intervals import Interval
from phihat.convexity.program import Equation
from phihat.convexity.structure import (
    INDEXED,
    STRUCTURAL,
    Unknown,
    group_of_updates,
    move,
)
from phihat.convexity.values.extended import (
    FINITE,
    MINUS_INFINITY,
    NOT_A_NUMBER,
    NOT_FINITE,
    PLUS_INFINITY,
    UNKNOWN,
    Extended,
    extended,
    kind_of,
    rearranged,
    unknown,
)
from phihat.convexity.values.pointwise import Rule, is_known, wrapped

__all__ = ["RULES"]


# ------------------------------------------------------------------- moving elements


def _structural(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Move the ends; where an index is not known, an element may be any of them."""
    where_to = INDEXED.get(equation.primitive, lambda _: range(0))(len(inputs))
    indices = {place: inputs[place] for place in where_to}
    if not all(map(is_known, indices.values())):
        return _unknown_index(equation, inputs, where_to)
    whole = {place: x.low.astype(np.int64) for place, x in indices.items()}

    def moved(read: Callable[[Interval], np.ndarray]) -> list[np.ndarray]:
        return move(
            equation,
            [whole[p] if p in whole else read(x) for p, x in enumerate(inputs)],
        )

    try:
        lows = moved(lambda x: x.low)
    except Unknown:
        return None
    elements = [x for place, x in enumerate(inputs) if place not in whole]
    if all(x.is_point for x in elements):
        return [Interval(low, low) for low in lows]
    highs = moved(lambda x: x.high)
    if not any(isinstance(x, Extended) for x in elements):
        return list(map(Interval, lows, highs))
    kinds = moved(_full_kind)
    return [
        extended(Interval(low, high), kind)
        for low, high, kind in zip(lows, highs, kinds, strict=True)
    ]


def _full_kind(x: Interval) -> np.ndarray:
    kind = kind_of(x)
    return np.zeros(x.shape, np.int8) if kind is None else kind


def _unknown_index(
    equation: Equation, inputs: list[Interval], where_to: range
) -> list[Interval] | None:
    """Let each element be any element; of an update, any element of either."""
    name, operand = equation.primitive, inputs[0]
    if any(isinstance(x, Extended) for x in inputs) or not operand.size:
        return None
    if name == "dynamic_slice":
        return [_hull_over(operand, equation.params["slice_sizes"])]
    if name == "gather":
        zeros = [
            x if place not in where_to else iv.from_array(np.zeros(x.shape))
            for place, x in enumerate(inputs)
        ]
        read = _structural(equation, zeros)
        if read is None or (
            "FILL" in str(equation.params["mode"])
            and not _inside(equation, operand, inputs[1])
        ):
            return None
        return [_hull_over(operand, read[0].shape)]
    updates = inputs[1] if name == "dynamic_update_slice" else inputs[2]
    if not updates.size:
        return [operand]
    return [iv.hull(operand, _hull_over(updates, operand.shape))]


def _inside(equation: Equation, operand: Interval, indices: Interval) -> bool:
    """Tell whether a gather reads within its operand whatever the indices are."""
    axes = equation.params["dimension_numbers"].start_index_map
    sizes = equation.params["slice_sizes"]
    return all(
        bool((indices.low[..., place] >= 0).all())
        and bool((indices.high[..., place] <= operand.shape[axis] - sizes[axis]).all())
        for place, axis in enumerate(axes)
    )


def _hull_over(x: Interval, shape: Sequence[int]) -> Interval:
    ends = (np.broadcast_to(e, tuple(shape)) for e in (x.low.min(), x.high.max()))
    return Interval(*ends)


def _select_n(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Choose; where the choice is not known, take the hull of what may be chosen."""
    del equation
    which, *cases = inputs
    if isinstance(which, Extended):
        which = Interval(*which)
    last = len(cases) - 1
    first_of = np.clip(np.ceil(which.low), 0, last).astype(np.int64)
    last_of = np.clip(np.floor(which.high), 0, last).astype(np.int64)
    if np.array_equal(first_of, last_of):
        if (first_of == first_of.flat[0]).all() if first_of.size else True:
            return [cases[int(first_of.flat[0]) if first_of.size else 0]]
        return [rearranged(functools.partial(_chosen, first_of), *cases)]
    shape = cases[0].shape
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    least, most = np.full(shape, 9), np.full(shape, -9)
    for place, case in enumerate(cases):
        may_be = np.broadcast_to((first_of <= place) & (place <= last_of), shape)
        kind = _full_kind(case)
        low = np.where(may_be, np.minimum(low, case.low), low)
        high = np.where(may_be, np.maximum(high, case.high), high)
        least = np.where(may_be, np.minimum(least, kind), least)
        most = np.where(may_be, np.maximum(most, kind), most)
    kind = np.where(least == most, least, UNKNOWN).astype(np.int8)
    return [extended(Interval(low, high), kind)]


def _chosen(which: np.ndarray, *ends: np.ndarray) -> np.ndarray:
    if len(ends) == 2:
        return np.where(which == 0, *ends)
    result = np.array(ends[0])
    for place, end in enumerate(ends):
        np.copyto(result, end, where=which == place)
    return result


def _iota(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    del inputs
    axis, shape = equation.params["dimension"], equation.params["shape"]
    places = np.indices(shape, sparse=True)[axis].astype(np.float64)
    return [iv.from_array(np.broadcast_to(places, shape))]


# ------------------------------------------------------------------------ scattering


def _scatter(
    combine: Callable[[Any, Any], Interval],
) -> Callable[[Equation, list[Interval]], list[Interval] | None]:
    """Make the rule of a scatter that combines what meets in one place."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
        operand, indices, updates = inputs
        if not is_known(indices) or any(isinstance(x, Extended) for x in inputs):
            return None
        targets = group_of_updates(
            equation, operand.shape, indices.low.astype(np.int64), updates.shape
        ).reshape(-1)
        kept = np.nonzero(targets >= 0)[0]
        order = kept[np.argsort(targets[kept], kind="stable")]
        places, values = _merged(targets[order], updates.reshape(-1)[order], combine)
        flat = operand.reshape(-1)
        met = combine(flat[places], values)

        def put(end: np.ndarray, new: np.ndarray) -> np.ndarray:
            result = np.array(end)
            result[places] = new
            return result

        return [iv.rearrange(put, flat, met).reshape(operand.shape)]

    return rule


def _scatter_sub(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    operand, indices, updates = inputs
    if isinstance(updates, Extended):
        return None
    return _scatter(iv.add)(equation, [operand, indices, iv.neg(updates)])


def _merged(
    places: np.ndarray, values: Interval, combine: Callable[..., Interval]
) -> tuple[np.ndarray, Interval]:
    """Combine neighbours with the same place in pairs until each place is there once.

    The places are sorted. In each round the members of odd rank in their group join
    those before them, so the roundings number about log2 of the largest group.
    """
    while True:
        is_first = np.ones(len(places), bool)
        is_first[1:] = places[1:] != places[:-1]
        if is_first.all():
            return places, values
        starts = np.maximum.accumulate(np.where(is_first, np.arange(len(places)), 0))
        odd = (np.arange(len(places)) - starts) % 2 == 1
        joins = np.nonzero(odd)[0]
        pairs = combine(values[joins - 1], values[joins])

        def put(
            end: np.ndarray,
            new: np.ndarray,
            joins: np.ndarray = joins,
            odd: np.ndarray = odd,
        ) -> np.ndarray:
            result = np.array(end)
            result[joins - 1] = new
            return result[~odd]

        values = iv.rearrange(put, values, pairs)
        places = places[~odd]


# ------------------------------------------------------------------------ reductions


def _reduction(reduce: Callable[..., Interval]) -> Rule:
    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        kind = kind_of(x)
        if kind is None:
            return [wrapped(reduce(x, axes), equation.dtype)]
        plain = iv.where(kind == FINITE, Interval(*x), 0.0)
        return [extended(reduce(plain, axes), _sum_kind(kind, axes))]

    return rule


def _sum_kind(kind: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Add infinities as IEEE does: inf - inf is NaN, NaN stays."""
    nan, vague, plus, minus = (
        np.any(found, axis=axes)
        for found in (
            kind == NOT_A_NUMBER,
            kind >= NOT_FINITE,
            kind == PLUS_INFINITY,
            kind == MINUS_INFINITY,
        )
    )
    return np.select(
        [nan, vague, plus & minus, plus, minus],
        [NOT_A_NUMBER, UNKNOWN, NOT_A_NUMBER, PLUS_INFINITY, MINUS_INFINITY],
        default=FINITE,
    ).astype(np.int8)


def _product(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    (x,) = inputs
    axes = tuple(equation.params["axes"])
    if isinstance(x, Extended):
        return [unknown(np.any(x.kind, axis=axes).shape)]
    return [wrapped(iv.reduce_prod(x, axes), equation.dtype)]


def _extremum(reduce: Any, worst: int) -> Rule:
    """Make the rule of a maximum (worst: -1, minus infinity) or of a minimum."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        kind = _full_kind(x) if isinstance(x, Extended) or not x.size else None
        if kind is None:
            return [iv.rearrange(lambda end: reduce(end, axis=axes), x)]
        start = worst * np.inf
        low, high = (
            reduce(np.where(kind == worst, start, end), axis=axes, initial=start)
            for end in x
        )
        nan, vague, top = (
            np.any(found, axis=axes)
            for found in (kind == NOT_A_NUMBER, kind >= NOT_FINITE, kind == -worst)
        )
        marks = np.select(
            [nan, vague, top, np.all(kind == worst, axis=axes)],
            [NOT_A_NUMBER, UNKNOWN, -worst, worst],
            default=FINITE,
        ).astype(np.int8)
        return [
            extended(
                Interval(
                    np.where(marks == FINITE, low, -np.inf),
                    np.where(marks == FINITE, high, np.inf),
                ),
                marks,
            )
        ]

    return rule


def _cumulative(combine: Callable[[Any, Any], Interval]) -> Rule:
    """Make the rule of a running sum and its kin, by doubling strides."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        if isinstance(x, Extended):
            return [unknown(x.shape)]
        x = iv.rearrange(lambda end: np.moveaxis(end, axis, 0), x)
        x = x[::-1] if reverse else x
        stride = 1
        while stride < x.shape[0]:
            later = combine(x[stride:], x[:-stride])
            x = iv.rearrange(lambda a, b: np.concatenate([a, b]), x[:stride], later)
            stride *= 2
        x = x[::-1] if reverse else x
        return [
            wrapped(
                iv.rearrange(lambda end: np.moveaxis(end, 0, axis), x), equation.dtype
            )
        ]

    return rule


def _running(accumulate: Callable[..., np.ndarray]) -> Rule:
    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        (x,) = inputs
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        if isinstance(x, Extended):
            return [unknown(x.shape)]

        def run(end: np.ndarray) -> np.ndarray:
            if reverse:
                return np.flip(accumulate(np.flip(end, axis), axis=axis), axis)
            return accumulate(end, axis=axis)

        return [iv.rearrange(run, x)]

    return rule


# ----------------------------------------------------------------------- contractions


def _dot_general(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    x, y = inputs
    numbers = equation.params["dimension_numbers"]
    if any(isinstance(z, Extended) for z in inputs):
        return [
            unknown(iv.dot_general(np.zeros(x.shape), np.zeros(y.shape), numbers).shape)
        ]
    return [wrapped(iv.dot_general(x, y, numbers), equation.dtype)]


def _convolution(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Read the patches by their positions, and multiply them with the kernel."""
    x, kernel = inputs
    params = equation.params
    if any(isinstance(z, Extended) for z in inputs) or params["batch_group_count"] != 1:
        return None
    numbers = params["dimension_numbers"]
    out_features, in_features, *window = (
        kernel.shape[axis] for axis in numbers.rhs_spec
    )
    with jax.enable_x64(True):
        # Each patch entry is a position times 1, plus zeros: exact.
        read = jax.lax.conv_general_dilated_patches(
            jax.numpy.arange(1.0, 1.0 + x.size).reshape(x.shape),
            tuple(window),
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            dimension_numbers=numbers,
            precision=jax.lax.Precision.HIGHEST,
        )
    spec = numbers.out_spec
    places = np.rint(np.asarray(read).transpose(spec)).astype(np.int64)
    batch, _, *spatial = places.shape
    groups = params["feature_group_count"]
    padded = iv.rearrange(lambda end: np.concatenate([np.zeros(1), end.reshape(-1)]), x)
    places = places.reshape(
        (batch, groups, in_features * math.prod(window), math.prod(spatial))
    )
    weights = kernel.transpose(numbers.rhs_spec).reshape(
        (groups, out_features // groups, in_features * math.prod(window))
    )
    # [groups, batch * spatial, window] @ [groups, window, features]
    patches = padded[places].transpose((1, 0, 3, 2))
    patches = patches.reshape((groups, batch * math.prod(spatial), -1))
    product = iv.matmul(patches, weights.transpose((0, 2, 1)))
    product = product.reshape((groups, batch, math.prod(spatial), -1))
    product = product.transpose((1, 0, 3, 2)).reshape((batch, out_features, *spatial))
    return [product.transpose(tuple(np.argsort(spec)))]


def _window(reduce: Callable[..., Interval], start: float) -> Rule:
    """Make the rule of a sum, maximum or minimum over sliding windows."""

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
        (x,) = inputs
        params = equation.params
        if isinstance(x, Extended) or any(d != 1 for d in params["base_dilation"]):
            return None
        dilation = params["window_dilation"]
        span = [
            (size - 1) * step + 1
            for size, step in zip(params["window_dimensions"], dilation, strict=True)
        ]

        def windows(end: np.ndarray, filler: float) -> np.ndarray:
            padded = np.pad(end, params["padding"], constant_values=filler)
            views = np.lib.stride_tricks.sliding_window_view(padded, span)
            places = tuple(slice(None, None, s) for s in params["window_strides"])
            inner = tuple(slice(None, None, step) for step in dilation)
            views = views[places + inner]
            return views.reshape((*views.shape[: end.ndim], -1))

        if start == 0.0:
            return [reduce(iv.rearrange(lambda end: windows(end, 0.0), x), -1)]
        # A maximum starts at -inf, which no element has; a finite one stands for it.
        if not windows(np.ones(x.shape), 0.0).any(axis=-1).all():
            return None
        return [
            iv.rearrange(
                lambda end: getattr(np, "max" if start < 0 else "min")(
                    windows(end, start), axis=-1
                ),
                x,
            )
        ]

    return rule


# --------------------------------------------------------------------------- ordering


def _arg(is_max: bool) -> Rule:
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


def _sort(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
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
    return [ordered, *(_carried(x, order, axis) for x in inputs[1:])]


def _order(key: Interval, axis: int, is_stable: bool) -> np.ndarray | None:
    """Return the order of the elements if there is only one that they can have."""
    order = np.argsort(key.low, axis=axis, kind="stable")
    low, high = (
        np.moveaxis(np.take_along_axis(end, order, axis), axis, -1) for end in key
    )
    places = np.moveaxis(order, axis, -1)
    follows = high[..., :-1] < low[..., 1:]
    if is_stable:
        in_place = places[..., :-1] < places[..., 1:]
        follows |= (high[..., :-1] <= low[..., 1:]) & in_place
    return order if follows.all() else None


def _carried(x: Interval, order: np.ndarray | None, axis: int) -> Interval:
    if order is not None:
        return iv.rearrange(lambda end: np.take_along_axis(end, order, axis), x)
    ends = (
        np.broadcast_to(end, x.shape)
        for end in (
            x.low.min(axis, keepdims=True),
            x.high.max(axis, keepdims=True),
        )
    )
    return Interval(*ends)


def _top_k(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Sort in falling order and keep k; equal elements stay in their order."""
    (x,) = inputs
    count = equation.params["k"]
    axis = equation.params.get("axis", -1) % x.ndim
    if isinstance(x, Extended):
        return None
    falling = iv.neg(x)
    order = _order(falling, axis, True)
    places = np.broadcast_to(
        np.indices(x.shape, sparse=True)[axis].astype(np.float64), x.shape
    )
    keep = (*(slice(None),) * axis, slice(0, count))
    largest = iv.neg(iv.rearrange(lambda end: np.sort(end, axis=axis), falling))
    return [largest[keep], _carried(iv.from_array(places), order, axis)[keep]]


_EXTREMA = {
    "reduce_max": _extremum(np.max, MINUS_INFINITY),
    "reduce_min": _extremum(np.min, PLUS_INFINITY),
}

RULES: dict[str, Rule] = {
    **dict.fromkeys(STRUCTURAL, _structural),
    **_EXTREMA,
    "argmax": _arg(True),
    "argmin": _arg(False),
    "conv_general_dilated": _convolution,
    "cumlogsumexp": _cumulative(iv.logaddexp),
    "cummax": _running(np.maximum.accumulate),
    "cummin": _running(np.minimum.accumulate),
    "cumprod": _cumulative(iv.mul),
    "cumsum": _cumulative(iv.add),
    "dot_general": _dot_general,
    "iota": _iota,
    "reduce_and": _EXTREMA["reduce_min"],
    "reduce_or": _EXTREMA["reduce_max"],
    "reduce_prod": _product,
    "reduce_sum": _reduction(iv.reduce_sum),
    "reduce_window_max": _window(iv.reduce_max, -np.inf),
    "reduce_window_min": _window(iv.reduce_min, np.inf),
    "reduce_window_sum": _window(iv.reduce_sum, 0.0),
    "scatter-add": _scatter(iv.add),
    "scatter-max": _scatter(iv.maximum),
    "scatter-min": _scatter(iv.minimum),
    "scatter-mul": _scatter(iv.mul),
    "scatter-sub": _scatter_sub,
    "select_n": _select_n,
    "sort": _sort,
    "top_k": _top_k,
}
"""The rules, by the name of the primitive."""
