# ruff: noqa: ARG001 - rules of one table share a signature
r"""How far rounding may take a program's value: a running error analysis.

Each value is a ball: a centre in float64, and a bound on the distance of what the
user's own floats hold from the real number that the program denotes. Through each
equation the bound of its inputs is carried, and the rounding of its own dtype is added,
$|\mathrm{fl}(x \circ y) - x \circ y| \le u\,|x \circ y|$, as are some ulps for a
function that XLA computes less well. So a sum of large numbers that cancel has a large
bound, though its value is small. What no rule bounds raises `Unbounded`.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity.program.trace import trace
  >>> program = trace(lambda x: (x + 1e6) - 1e6, jnp.float32(0.0))
  >>> value, error = value_and_error(program, [np.float32(0.1)], [])
  >>> 1e-3 < error < 1.0
  True

References:
  Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 3.3.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special

from phihat.convexity.numbers import dtypes
from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.structure import (
    INDEXED,
    STRUCTURAL,
    Unknown,
    group_of_updates,
    move,
)

__all__ = ["Unbounded", "value_and_error"]


class Unbounded(Exception):
    """No bound on the rounding of some equation is known."""


class Ball(NamedTuple):
    """What floats hold lies within `error` of `value`, element by element."""

    value: np.ndarray
    error: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """The largest magnitude that it holds."""
        return np.abs(self.value) + self.error


def value_and_error(
    program: Program, params: Sequence[Any], data: Sequence[Any]
) -> tuple[float, float]:
    """Evaluate a program at a point, with a bound on the rounding in its own dtypes.

    Args:
      program: the program.
      params: the leaves of params, exact in their own dtypes.
      data: the leaves of data.

    Returns:
      The value in float64, and how far the user's floats may be from the real value.

    Raises:
      Unbounded: an equation has no rule, or its value may overflow or not exist.
    """
    values: dict[int, Ball] = {}
    given = zip((*program.params, *program.data), (*params, *data), strict=True)
    constants = {**program.constants, **{n: leaf for n, leaf in given}}

    def read(n: int) -> Ball:
        if n not in values:
            if n not in constants:
                raise Unbounded("a value that is not known")
            values[n] = _exact(constants[n])
        return values[n]

    with np.errstate(all="ignore"):
        for equation in program.equations:
            inputs = [read(n) for n in equation.inputs]
            outputs = _results(equation, inputs)
            for n, ball in zip(equation.outputs, outputs, strict=True):
                values[n] = _checked(ball, program.dtypes[n])
        value, error = read(program.output)
    return float(value), float(error)


def _exact(leaf: Any) -> Ball:
    try:
        value = np.asarray(leaf).astype(np.float64)
    except TypeError:  # a random key
        raise Unbounded("a value that holds no numbers") from None
    return Ball(value, np.zeros(()))


def _checked(ball: Ball, dtype: Any) -> Ball:
    """Refuse what overflows in its dtype, or may be no number."""
    if dtypes.is_float(dtype):
        largest, tiny = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).tiny)
        # An infinite value is met where it is a literal: the -inf of a mask.
        finite = np.isfinite(ball.value)
        if not (np.isfinite(ball.error) | ~finite).all():
            raise Unbounded("a bound that is not finite")
        if (ball.size[finite] if finite.ndim else ball.size) is None:
            raise Unbounded("no value")
        if (finite & (ball.size > largest / 2)).any() or np.isnan(ball.value).any():
            raise Unbounded("a value that overflows, or is no number")
        return Ball(ball.value, np.where(finite, ball.error + 2 * tiny, 0.0))
    if (ball.error > 0).any() and dtypes.is_integer(dtype):
        raise Unbounded("an integer that rounding may change")
    return ball


def _results(equation: Equation, inputs: list[Ball]) -> list[Ball]:
    name, dtype = equation.primitive, equation.dtype
    if name in STRUCTURAL or name in ("scatter-add",):
        return _moved(equation, inputs)
    if dtypes.is_integer(dtype) or (
        dtypes.is_boolean(dtype) and name not in _ON_BOOLEANS
    ):
        return _integers(equation, inputs)
    rule = _RULES.get(name)
    if rule is None:
        raise Unbounded(f"`{name}` has no bound")
    unit = float(jnp.finfo(dtype).eps) if dtypes.is_float(dtype) else 0.0
    return [rule(equation, unit, *inputs)]


def _moved(equation: Equation, inputs: list[Ball]) -> list[Ball]:
    where = INDEXED.get(equation.primitive, lambda _: range(0))(len(inputs))
    balls = []
    for k, ball in enumerate(inputs):
        if k in where or (equation.primitive == "scatter-add" and k == 1):
            if (ball.error > 0).any():
                raise Unbounded("an index that rounding may change")
            balls.append((ball.value.astype(np.int64),) * 2)
        else:
            balls.append((ball.value, np.broadcast_to(ball.error, ball.value.shape)))
    if equation.primitive == "scatter-add":
        return [_scattered(equation, balls)]
    try:
        values, errors = (move(equation, [b[k] for b in balls]) for k in (0, 1))
    except (Unknown, IndexError) as error:
        raise Unbounded(str(error)) from None
    return [Ball(v, e) for v, e in zip(values, errors, strict=True)]


def _scattered(equation: Equation, balls: Sequence[Any]) -> Ball:
    (start, first), (indices, _), (updates, errors) = balls
    try:
        places = group_of_updates(equation, start.shape, indices, updates.shape)
    except Unknown as error:
        raise Unbounded(str(error)) from None
    kept = places.reshape(-1) >= 0
    flat = places.reshape(-1)[kept]

    def added(base: np.ndarray, more: np.ndarray) -> np.ndarray:
        total = np.array(base, np.float64).reshape(-1)
        np.add.at(total, flat, more.reshape(-1)[kept])
        return total.reshape(start.shape)

    sizes = added(np.abs(start), np.abs(updates))
    unit = float(jnp.finfo(equation.dtype).eps) * (updates.size + 1)
    return Ball(added(start, updates), added(first, errors) + unit * sizes)


def _integers(equation: Equation, inputs: list[Ball]) -> list[Ball]:
    """Bind the equation itself, on integers that rounding cannot change."""
    if equation.bind is None or any((ball.error > 0).any() for ball in inputs):
        raise Unbounded("an integer that rounding may change")
    arrays = [
        jnp.asarray(ball.value.astype(dtype))
        for ball, dtype in zip(inputs, equation.input_dtypes, strict=True)
    ]
    results = equation.bind(*arrays, **equation.params)
    results = results if isinstance(results, (list, tuple)) else [results]
    return [_exact(result) for result in results]


# ------------------------------------------------------------------------- the rules

Rule = Callable[..., Ball]


def _rounded(
    value: np.ndarray, error: np.ndarray, unit: float, ulps: float = 1
) -> Ball:
    return Ball(value, error + ulps * unit * (np.abs(value) + error))


def _add(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    return _rounded(x.value + y.value, x.error + y.error, unit)


def _sub(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    return _rounded(x.value - y.value, x.error + y.error, unit)


def _mul(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    error = np.abs(x.value) * y.error + x.error * y.size
    return _rounded(x.value * y.value, error, unit)


def _div(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    least = np.abs(y.value) - y.error
    if (least <= 0).any():
        raise Unbounded("a divisor that may be zero")
    ratio = x.value / y.value
    return _rounded(ratio, (x.error + np.abs(ratio) * y.error) / least, unit, 4)


def _monotone(function: Callable[..., Any], ulps: float = 16) -> Rule:
    """Carry balls through a function that is monotone in each of its arguments."""

    def rule(e: Equation, unit: float, *xs: Ball) -> Ball:
        value = function(*(x.value for x in xs))
        ends = (function(*(x.value + s * x.error for x in xs)) for s in (-1, 1))
        error = functools.reduce(np.maximum, (np.abs(end - value) for end in ends))
        # An infinite argument is a literal, and its value exact.
        error = np.where(np.isfinite(value), error, 0.0)
        if np.isnan(error).any():
            raise Unbounded("a function at the edge of its domain")
        return _rounded(value, error, unit, ulps)

    return rule


def _steady(function: Callable[..., Any], ulps: float = 1) -> Rule:
    """A function whose slope is at most 1 in absolute value."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        return _rounded(function(x.value), x.error * 1.0, unit, ulps)

    return rule


def _even(function: Callable[[Any], Any], ulps: float) -> Rule:
    """An even function that rises with |x|."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        value = function(np.abs(x.value))
        return _rounded(value, function(x.size) - value, unit, ulps)

    return rule


def _power(e: Equation, unit: float, x: Ball) -> Ball:
    n = int(e.params.get("y", 2))
    if n >= 0:
        error = x.size**n - np.abs(x.value) ** n
        return _rounded(x.value**n, error, unit, 2 * n + 1)
    whole = _rounded(x.value**-n, x.size**-n - np.abs(x.value) ** -n, unit, 2 - 2 * n)
    return _div(e, unit, Ball(np.ones(()), np.zeros(())), whole)


def _general_power(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    if (x.value - x.error <= 0).any():
        raise Unbounded("a power of what may not be positive")
    value = np.power(x.value, y.value)
    exponents = np.abs(y.value) + y.error
    relative = np.expm1(
        exponents * (np.log(x.value) - np.log(x.value - x.error))
        + y.error * np.abs(np.log(x.value))
    )
    ulps = 16 + 4 * float(np.max(np.abs(y.value * np.log(x.value)), initial=0.0))
    return _rounded(value, value * relative, unit, ulps)


def _largest(e: Equation, unit: float, *xs: Ball) -> Ball:
    """Maxima, minima and clips move no further than their arguments do."""
    function = {"max": np.maximum, "min": np.minimum}.get(e.primitive)
    values = [x.value for x in xs]
    if function is None:
        low, x, high = values
        value = np.minimum(np.maximum(x, low), high)
    else:
        value = function(*values)
    error = functools.reduce(np.maximum, (x.error for x in xs))
    return Ball(value, np.where(np.isfinite(value), error, 0.0))


def _sum(e: Equation, unit: float, x: Ball) -> Ball:
    axes = tuple(e.params["axes"])
    count = math.prod(x.value.shape[k] for k in axes)
    error = np.broadcast_to(x.error, x.value.shape).sum(axes)
    return Ball(x.value.sum(axes), error + (count + 1) * unit * x.size.sum(axes))


def _product(e: Equation, unit: float, x: Ball) -> Ball:
    axes = tuple(e.params["axes"])
    count = math.prod(x.value.shape[k] for k in axes)
    sizes, plain = x.size.prod(axes), np.abs(x.value).prod(axes)
    return Ball(x.value.prod(axes), sizes - plain + 2 * count * unit * sizes)


def _extreme(function: Callable[..., Any]) -> Rule:
    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        axes = tuple(e.params["axes"])
        error = np.broadcast_to(x.error, x.value.shape).max(axes, initial=0.0)
        return Ball(function(x.value, axes), error)

    return rule


def _running(function: Callable[..., Any], adds: bool) -> Rule:
    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        axis = e.params["axis"]

        def run(step: Callable[..., Any], a: np.ndarray) -> np.ndarray:
            turned = np.flip(a, axis) if e.params["reverse"] else a
            result = step(turned, axis)
            return np.flip(result, axis) if e.params["reverse"] else result

        errors = np.broadcast_to(x.error, x.value.shape)
        value, count = run(function, x.value), x.value.shape[axis]
        if not adds:
            return Ball(value, run(np.maximum.accumulate, errors))
        sizes = run(np.cumsum, x.size)
        return Ball(value, run(np.cumsum, errors) + (count + 1) * unit * sizes)

    return rule


def _log_sums(e: Equation, unit: float, x: Ball) -> Ball:
    axis = e.params["axis"]
    turned = np.flip(x.value, axis) if e.params["reverse"] else x.value
    value = np.logaddexp.accumulate(turned, axis)
    value = np.flip(value, axis) if e.params["reverse"] else value
    error = np.max(x.error, initial=0.0)
    steps = 16 * x.value.shape[axis] * unit
    return Ball(value, error + steps * (np.abs(value) + error + x.size.max(initial=0)))


def _dot(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    dims = e.params["dimension_numbers"]
    count = math.prod(x.value.shape[k] for k in dims[0][0])
    times = functools.partial(_contract, dims)
    sizes = times(np.abs(x.value), np.abs(y.value))
    error = (count + 1) * unit * sizes
    if x.error.any():
        errors = np.broadcast_to(x.error, x.value.shape)
        error = error + (1 + count * unit) * times(errors, y.size)
    if y.error.any():
        errors = np.broadcast_to(y.error, y.value.shape)
        error = error + (1 + count * unit) * times(np.abs(x.value), errors)
    return Ball(times(x.value, y.value), error)


def _contract(dims: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (cx, cy), (bx, by) = dims
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    left = [next(letters) for _ in x.shape]
    right = [next(letters) for _ in y.shape]
    for i, j in zip((*cx, *bx), (*cy, *by), strict=True):
        right[j] = left[i]
    batch = [left[k] for k in bx]
    free = [c for k, c in enumerate(left) if k not in (*cx, *bx)]
    free += [c for k, c in enumerate(right) if k not in (*cy, *by)]
    text = f"{''.join(left)},{''.join(right)}->{''.join(batch + free)}"
    return np.einsum(text, x, y, optimize=True)


def _compare(test: Callable[..., Any]) -> Rule:
    def rule(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
        """What rounding may turn about is a boolean with an error of 1."""
        with np.errstate(all="ignore"):
            distance = np.abs(x.value - y.value)
        error = x.error + y.error
        open_ = (distance <= error) & (error > 0)
        return Ball(test(x.value, y.value) * 1.0, open_ * 1.0)

    return rule


def _logic(function: Callable[..., Any]) -> Rule:
    def rule(e: Equation, unit: float, *xs: Ball) -> Ball:
        value = function(*(x.value != 0 for x in xs)) * 1.0
        error = functools.reduce(np.maximum, (x.error for x in xs))
        return Ball(value, np.broadcast_to(error, np.shape(value)))

    return rule


def _select(e: Equation, unit: float, which: Ball, *cases: Ball) -> Ball:
    """Where the choice is open, any of the cases may be taken."""
    shape = np.broadcast_shapes(*(case.value.shape for case in cases))
    index = np.broadcast_to(which.value.astype(int), shape)
    values = np.stack([np.broadcast_to(case.value, shape) for case in cases])
    errors = np.stack([np.broadcast_to(case.error, shape) for case in cases])
    value = np.take_along_axis(values, index[None], 0)[0]
    error = np.take_along_axis(errors, index[None], 0)[0]
    spread = (np.abs(values - value) + errors).max(0)
    is_open = np.broadcast_to(which.error, shape) > 0
    return Ball(value, np.where(is_open, spread, error))


def _cast(e: Equation, unit: float, x: Ball) -> Ball:
    if dtypes.is_boolean(e.dtype):
        return Ball((x.value != 0) * 1.0, (np.abs(x.value) <= x.error) * (x.error > 0))
    return _rounded(x.value, x.error * 1.0, unit)


def _is_finite(e: Equation, unit: float, x: Ball) -> Ball:
    return Ball(np.isfinite(x.value) * 1.0, np.zeros(()))


def _sort(e: Equation, unit: float, x: Ball, *more: Ball) -> Ball:
    if more:
        raise Unbounded("a sort of several arrays")
    axis = e.params["dimension"]
    error = np.broadcast_to(x.error, x.value.shape).max(axis, keepdims=True, initial=0)
    return Ball(np.sort(x.value, axis), np.broadcast_to(error, x.value.shape))


def _log_ndtr(x: Any) -> Any:
    return scipy.special.log_ndtr(x)


def _xlogy(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    return _mul(e, unit, x, _RULES["log"](e, unit, y))


_ON_BOOLEANS = {
    *("and", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "not", "or", "xor"),
    *("convert_element_type", "reduce_and", "reduce_or", "select_n"),
}
_RULES: dict[str, Rule] = {
    "abs": _steady(np.abs, 0),
    "add": _add,
    "add_any": _add,
    "and": _logic(np.logical_and),
    "asinh": _monotone(np.arcsinh, 64),
    "atan": _monotone(np.arctan, 64),
    "cbrt": _monotone(np.cbrt, 64),
    "ceil": _monotone(np.ceil, 0),
    "clamp": _largest,
    "convert_element_type": _cast,
    "cos": _steady(np.cos, 64),
    "cosh": _even(np.cosh, 64),
    "cumlogsumexp": _log_sums,
    "cummax": _running(np.maximum.accumulate, False),
    "cummin": _running(np.minimum.accumulate, False),
    "cumsum": _running(np.cumsum, True),
    "div": _div,
    "dot_general": _dot,
    "eq": _compare(np.equal),
    "erf": _monotone(scipy.special.erf, 256),
    "erfc": _monotone(scipy.special.erfc, 4096),
    "exp": _monotone(np.exp),
    "exp2": _monotone(np.exp2),
    "expm1": _monotone(np.expm1, 256),
    "floor": _monotone(np.floor, 0),
    "ge": _compare(np.greater_equal),
    "gt": _compare(np.greater),
    "integer_pow": _power,
    "is_finite": _is_finite,
    "le": _compare(np.less_equal),
    "log": _monotone(np.log, 64),
    "log1p": _monotone(np.log1p, 512),
    "logaddexp": _monotone(np.logaddexp, 512),
    "logistic": _monotone(scipy.special.expit, 64),
    "lt": _compare(np.less),
    "max": _largest,
    "min": _largest,
    "mul": _mul,
    "ne": _compare(np.not_equal),
    "neg": _steady(np.negative, 0),
    "not": _logic(np.logical_not),
    "or": _logic(np.logical_or),
    "pow": _general_power,
    "reduce_max": _extreme(np.max),
    "reduce_min": _extreme(np.min),
    "reduce_prod": _product,
    "reduce_sum": _sum,
    "round": _monotone(np.round, 0),
    "rsqrt": lambda e, unit, x: _div(
        e, unit, Ball(np.ones(()), np.zeros(())), _RULES["sqrt"](e, unit, x)
    ),
    "select_n": _select,
    "sign": _monotone(np.sign, 0),
    "sin": _steady(np.sin, 64),
    "sinh": _monotone(np.sinh, 64),
    "sort": _sort,
    "sqrt": _monotone(np.sqrt, 4),
    "square": _power,
    "sub": _sub,
    "tanh": _monotone(np.tanh, 64),
    "xlogy": _xlogy,
    "xor": _logic(np.logical_xor),
}
"""What bounds the rounding of each primitive; ulps as measured, with room to spare."""
