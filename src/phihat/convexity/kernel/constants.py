"""What does not depend on params, computed: exactly where possible, else in intervals.

Integers and booleans are computed by binding the program's own equation, in its own
dtype, so that they wrap as they do there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special

from phihat.convexity.kernel.values import Value, is_discrete
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.form import Equation

__all__ = ["constant"]

_EXACT = {
    *("abs", "argmax", "argmin", "bitcast_convert_type", "ceil", "clamp", "eq"),
    *("floor", "ge", "gt", "is_finite", "le", "lt", "max", "min", "ne", "neg"),
    *("iota", "reduce_max", "reduce_min", "round", "select_n", "sign", "sort"),
}
"""Exact on floats, too: no rounding."""

_ENCLOSED: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(iv, name) for name in ("add", "sub", "mul", "neg", "exp", "expm1")
    },
    **{
        name: getattr(iv, name) for name in ("tanh", "logistic", "square", "sin", "cos")
    },
    "abs": iv.absolute,
    "max": iv.maximum,
    "min": iv.minimum,
}

_ON_INTEGERS = {
    *("abs", "add", "max", "min", "mul", "neg", "square", "sub", "integer_pow", "sort"),
    *("cummax", "cummin", "cumsum", "cumprod", "dot_general", "reduce_max"),
    *("reduce_min", "reduce_prod", "reduce_sum"),
}
"""On integers these are what they are on reals, as long as nothing wraps."""

_RUNNING: dict[str, Callable[..., Any]] = {
    "cumlogsumexp": iv.logaddexp,
    "cummax": iv.maximum,
    "cummin": iv.minimum,
    "cumprod": iv.mul,
    "cumsum": iv.add,
}

_AXES = {
    "reduce_prod": iv.reduce_prod,
    "reduce_sum": iv.reduce_sum,
    "reduce_max": iv.reduce_max,
    "reduce_min": iv.reduce_min,
}


def constant(
    equation: Equation, inputs: Sequence[Value], *, bind: bool = True
) -> list[Value] | None:
    """Compute an equation on constants: exactly, or in intervals; None if neither."""
    if not all(v.is_known for v in inputs):
        return None
    found = _exact(equation, inputs) if bind else None
    if found is not None:
        return found
    name, params, dtypes = equation.primitive, equation.params, equation.dtypes
    ranges: list[Any] = [v.interval for v in inputs]
    if any(r is None for r in ranges):
        return None
    if name == "convert_element_type" and not is_discrete(equation.input_dtypes[0]):
        return _truncated(ranges[0], np.dtype(params["new_dtype"]))
    if any(map(is_discrete, (*dtypes, *equation.input_dtypes))):
        if name == "div" and ((ranges[1].low > 0) | (ranges[1].high < 0)).all():
            return [_enclosed(iv.truncate(iv.div(*ranges)))]
        if name == "rem" and (ranges[0].low >= 0).all() and (ranges[1].low > 0).all():
            high = np.minimum(ranges[0].high, ranges[1].high - 1.0)
            return [_enclosed(Interval(np.zeros(high.shape), high))]
        if name not in _ON_INTEGERS or dtypes[0] == np.bool_:
            return None
    if name == "sub" and inputs[0] is inputs[1]:
        zeros = np.broadcast_to(np.float64(0.0), inputs[0].shape)
        return [_enclosed(Interval(zeros, zeros))]
    if name == "mul" and inputs[0] is inputs[1]:
        return [_enclosed(iv.square(ranges[0]))]
    if name in _ENCLOSED:
        return [_enclosed(_ENCLOSED[name](*ranges))]
    if name == "cholesky":
        return _cholesky(ranges[0])
    if name == "erf_inv":
        return _erf_inv(ranges[0])
    if name in ("div", "log", "sqrt", "integer_pow", "log1p", "rsqrt"):
        return _partly_defined(name, params, ranges)
    if name in _AXES and inputs[0].size:
        return [_enclosed(_AXES[name](ranges[0], tuple(params["axes"])))]
    if name == "sort" and len(inputs) == 1:  # each order statistic is nondecreasing
        axis = params["dimension"]
        return [_enclosed(Interval(*(np.sort(end, axis) for end in ranges[0])))]  # type: ignore
    if name in _RUNNING and inputs[0].size:
        return [_running(_RUNNING[name], ranges[0], params)]  # type: ignore
    if name == "dot_general":
        return [_enclosed(iv.dot_general(*ranges, params["dimension_numbers"]))]  # type: ignore
    return None


def _exact(equation: Equation, inputs: Sequence[Value]) -> list[Value] | None:
    """Bind the equation, where its inputs are known exactly and nothing is rounded."""
    exact: list[Any] = list(map(_exactly, inputs, equation.input_dtypes))
    if equation.primitive == "convert_element_type" and exact[0] is not None:
        old, new = exact[0].dtype, np.dtype(equation.params["new_dtype"])
        is_safe = np.can_cast(old, new, "safe") or _is_exact(exact[0], new)
        if not is_discrete(new) and is_safe:
            return [Value(exact[0].shape, exact=exact[0].astype(new))]
    if equation.bind is None or any(e is None for e in exact):
        return None
    dtypes = [*equation.dtypes, *(e.dtype for e in exact)]
    if equation.primitive not in _EXACT and not all(map(is_discrete, dtypes)):
        return None
    results = equation.bind(*map(jnp.asarray, _alike(exact)), **equation.params)
    results = results if isinstance(results, (list, tuple)) else [results]
    return [Value(r.shape, exact=np.asarray(r)) for r in results]


def _alike(arrays: Sequence[Any]) -> list[Any]:
    """Give floats the widest of their dtypes: casts between floats change no number."""
    floats = [a.dtype for a in arrays if not is_discrete(a.dtype)]
    wide = functools.reduce(jnp.promote_types, floats) if floats else None
    return [a if is_discrete(a.dtype) else a.astype(wide) for a in arrays]


def _is_exact(exact: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a float dtype has all digits of these integers: others are rounded."""
    wide = exact.astype(np.float64)
    return (
        is_discrete(exact.dtype)
        and bool((np.abs(wide) <= 2.0**53).all())
        and np.array_equal(exact.astype(dtype).astype(np.float64), wide)
    )


def _truncated(x: Interval, dtype: np.dtype) -> list[Value] | None:
    """Cast to integers what lies between the same two, and within their dtype."""
    whole = iv.truncate(x)
    if not jnp.issubdtype(dtype, jnp.integer) or not np.array_equal(
        whole.low, whole.high
    ):
        return None
    least, most = max(jnp.iinfo(dtype).min, -(2**53)), min(jnp.iinfo(dtype).max, 2**53)
    if not ((whole.low >= least) & (whole.low <= most)).all():
        return None
    return [Value(x.shape, exact=whole.low.astype(dtype))]


def _exactly(value: Value, dtype: Any) -> np.ndarray | None:
    """Return the elements of a constant in its own dtype, where they are known."""
    if value.exact is None and is_discrete(dtype) and value.point is not None:
        return value.point.astype(dtype)
    return value.exact


def _cholesky(matrix: Interval) -> list[Value] | None:
    """Factor the lower triangle, column by column; the upper one is not known."""
    size = matrix.shape[-1]
    if matrix.ndim != 2 or size > 32:
        return None
    zero = Interval(0.0, 0.0)
    rows: list[list[Any]] = [[iv.entire()] * size for _ in range(size)]
    for j in range(size):
        for i in range(j, size):
            entry = matrix[i, j]
            for k in range(j):
                entry = entry - (rows[i][k] * rows[j][k] if i > j else zero)
                entry = entry - (iv.square(rows[j][k]) if i == j else zero)
            if i == j and not entry.low > 0:
                return None
            rows[i][j] = iv.sqrt(entry) if i == j else iv.div(entry, rows[j][j])
    ends = (
        np.array([[float(list(e)[s]) for e in row] for row in rows]) for s in (0, 1)
    )
    return [_enclosed(Interval(*ends))]


def _erf_inv(x: Interval) -> list[Value] | None:
    """Guess both ends, and hold the guesses against erf, which rises."""
    for room in (1e-13, 1e-10, 1e-7):
        with np.errstate(all="ignore"):
            low, high = (scipy.special.erfinv(end) for end in x)
            low, high = low - room * (1 + np.abs(low)), high + room * (1 + np.abs(high))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            return None
        below, above = (iv.erf(Interval(end, end)) for end in (low, high))
        if ((below.high <= x.low) & (above.low >= x.high)).all():
            return [_enclosed(Interval(low, high))]
    return None


def _partly_defined(
    name: str, params: Any, ranges: Sequence[Any]
) -> list[Value] | None:
    x = ranges[0]
    if name == "div":
        y = ranges[1]
        if not ((y.low > 0) | (y.high < 0)).all():
            return None
        return [_enclosed(iv.div(x, y))]
    if name == "integer_pow":
        n = params["y"]
        if n < 0 and not ((x.low > 0) | (x.high < 0)).all():
            return None
        return [_enclosed(iv.integer_power(x, n))]
    lowest = {"sqrt": x.low >= 0, "log1p": x.low > -1}.get(name, x.low > 0)
    return [_enclosed(getattr(iv, name)(x))] if lowest.all() else None


def _running(step: Callable[..., Any], x: Interval, params: Any) -> Value:
    """Fold a row, and keep each result."""
    axis = params["axis"]
    low, high = (np.moveaxis(end, axis, 0) for end in x)
    order = range(len(low))
    rows: list[Any] = []
    for k in reversed(order) if params["reverse"] else order:
        entry = Interval(low[k], high[k])
        rows.append(step(rows[-1], entry) if rows else entry)
    rows = rows[::-1] if params["reverse"] else rows
    ends = (np.moveaxis(np.stack([list(r)[k] for r in rows]), 0, axis) for k in (0, 1))
    return _enclosed(Interval(*ends))


def _enclosed(r: Interval) -> Value:
    return Value(r.shape, interval=r)
