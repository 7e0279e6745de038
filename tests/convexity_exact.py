"""Values of a flat program to thousands of bits, which decide what floats blur.

exp(-z^2) is positive where its float is 0, and so is 1 - sigmoid(z) where the float of
the sigmoid is 1. The interpreter is written apart from the package's intervals and from
the one of floats beside it; atoms are the ideal functions that they stand for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.structure import (
    INDEXED,
    STRUCTURAL,
    group_of_updates,
    move,
)

__all__ = ["PRECISIONS", "Unread", "values_of"]

PRECISIONS = (256, 2048, 16384)
"""Bits to try, one after the other, until two agree."""

_HUGE = mpf(2) ** 2000
"""Beyond it an exponential or a sine would take all memory."""


class Unread(Exception):
    """This interpreter does not know the primitive, or not for such an argument."""


def values_of(
    program: Program, inputs: Mapping[int, np.ndarray], wanted: int, bits: int
) -> np.ndarray:
    """Evaluate one value at one point.

    Args:
      program: the program.
      inputs: the leaves of params and data, without an axis for rows.
      wanted: the number of the value.
      bits: the working precision.

    Returns:
      An array of `mpf` where the value is real, else of integers or booleans.

    Raises:
      Unread: a step is not known here.
    """
    with mpmath.workprec(bits):
        return _run(program, inputs, (wanted,))[0]


def _run(
    program: Program, inputs: Mapping[int, Any], wanted: tuple[int, ...]
) -> list[np.ndarray]:
    values: dict[int, np.ndarray] = {}

    def read(number: int) -> np.ndarray:
        if number not in values:
            found = inputs.get(number)
            found = program.constants[number] if found is None else found
            values[number] = _lifted(np.asarray(found))
        return values[number]

    needed, steps = set(wanted), []
    for equation in reversed(program.equations):
        if not needed.isdisjoint(equation.outputs):
            needed.update(equation.inputs)
            steps.append(equation)
    for equation in reversed(steps):
        results = _apply(equation, [read(n) for n in equation.inputs])
        values.update(zip(equation.outputs, results, strict=True))
    return [read(number) for number in wanted]


def _lifted(x: np.ndarray) -> np.ndarray:
    """Make floats of any kind to `mpf`, which holds each of them."""
    if x.dtype == object or x.dtype.kind in "iub":
        return x
    return _objects(lambda v: mpf(float(v)), x.astype(np.float64))


def _objects(function: Callable[..., Any], *inputs: np.ndarray) -> np.ndarray:
    result = np.frompyfunc(function, len(inputs), 1)(*inputs)
    return np.asarray(result, dtype=object)


def _apply(equation: Equation, inputs: list[np.ndarray]) -> list[np.ndarray]:
    name = equation.primitive
    if name in STRUCTURAL:
        where = set(INDEXED.get(name, lambda _: range(0))(len(inputs)))
        return move(
            equation,
            [x.astype(np.int64) if k in where else x for k, x in enumerate(inputs)],
        )
    if name in _OTHERS:
        result = _OTHERS[name](equation, *inputs)
        return result if isinstance(result, list) else [result]
    if name in _COMPARISONS:
        return [np.asarray(_COMPARISONS[name](*inputs)).astype(bool)]
    if name in _LOGIC:
        return [np.asarray(_LOGIC[name](*inputs))]
    if name in _REAL and any(x.dtype == object for x in inputs):
        return [_objects(_REAL[name], *inputs)]
    if name in _ON_INTEGERS:
        return [np.asarray(_ON_INTEGERS[name](*inputs)).astype(equation.dtype)]
    raise Unread(name)


# ------------------------------------------------------------------ of real numbers


def _moderate(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def guarded(x: Any) -> Any:
        if mpmath.isfinite(x) and abs(x) > _HUGE:
            raise Unread("a huge argument")
        return function(x)

    return guarded


def _within(is_inside: Callable[[Any], bool], function: Callable[..., Any]) -> Any:
    return lambda x: function(x) if is_inside(x) else mp.nan


_exp = _moderate(mpmath.exp)


def _divided(x: Any, y: Any) -> Any:
    if y == 0:
        return mp.nan if x == 0 or mpmath.isnan(x) else mp.inf * mpmath.sign(x)
    return x / y


def _power(x: Any, y: Any) -> Any:
    if x < 0 and y != mpmath.floor(y):
        return mp.nan
    if x == 0 and y < 0:
        return mp.inf
    if x > 0 and abs(y) > 1e9:
        raise Unread("a huge exponent")
    return mpmath.power(x, y)


def _log(x: Any) -> Any:
    if x == 0:
        return -mp.inf
    return mpmath.log(x) if x > 0 else mp.nan


def _log1p(x: Any) -> Any:
    if x == -1:
        return -mp.inf
    return mpmath.log1p(x) if x > -1 else mp.nan


def _logaddexp(x: Any, y: Any) -> Any:
    low, high = min(x, y), max(x, y)
    return high if low == -mp.inf else high + mpmath.log1p(_exp(low - high))


def _logistic(x: Any) -> Any:
    return 1 / (1 + _exp(-x)) if x >= 0 else _exp(x) / (1 + _exp(x))


def _log_ndtr(x: Any) -> Any:
    return mpmath.log(mpmath.ncdf(x)) if x < 0 else mpmath.log1p(-mpmath.ncdf(-x))


def _largest(x: Any, y: Any) -> Any:
    return mp.nan if mpmath.isnan(x) or mpmath.isnan(y) else max(x, y)


def _smallest(x: Any, y: Any) -> Any:
    return -_largest(-x, -y)


def _xlogy(x: Any, y: Any) -> Any:
    return mpf(0) if x == 0 and not mpmath.isnan(y) else x * _log(y)


def _rounded(equation: Equation, x: np.ndarray) -> np.ndarray:
    if "EVEN" in str(equation.params["rounding_method"]):
        return _objects(mpmath.nint, x)
    return _objects(lambda v: mpmath.sign(v) * mpmath.floor(abs(v) + mpf(0.5)), x)


_REAL: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "acos": _within(lambda x: -1 <= x <= 1, mpmath.acos),
    "add": lambda x, y: x + y,
    "add_any": lambda x, y: x + y,
    "asin": _within(lambda x: -1 <= x <= 1, mpmath.asin),
    "asinh": mpmath.asinh,
    "atan": mpmath.atan,
    "atan2": mpmath.atan2,
    "atanh": _within(lambda x: -1 < x < 1, mpmath.atanh),
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "ceil": mpmath.ceil,
    "clamp": lambda low, x, high: _smallest(_largest(x, low), high),
    "cos": _moderate(mpmath.cos),
    "cosh": _moderate(mpmath.cosh),
    "digamma": mpmath.digamma,
    "div": _divided,
    "erf": mpmath.erf,
    "erfc": _moderate(mpmath.erfc),
    "exp": _exp,
    "exp2": lambda x: _exp(x * mpmath.log(2)),
    "expm1": _moderate(mpmath.expm1),
    "floor": mpmath.floor,
    "log": _log,
    "log1p": _log1p,
    "log_ndtr": _moderate(_log_ndtr),
    "logaddexp": _logaddexp,
    "logistic": _logistic,
    "max": _largest,
    "min": _smallest,
    "mul": lambda x, y: x * y,
    "neg": lambda x: -x,
    "pow": _power,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x) if x > 0 else mp.nan,
    "sign": mpmath.sign,
    "sin": _moderate(mpmath.sin),
    "sinh": _moderate(mpmath.sinh),
    "sqrt": _within(lambda x: x >= 0, mpmath.sqrt),
    "square": lambda x: x * x,
    "sub": lambda x, y: x - y,
    "tan": _moderate(mpmath.tan),
    "tanh": _moderate(mpmath.tanh),
    "xlog1py": lambda x, y: mpf(0) if x == 0 else x * _log1p(y),
    "xlogy": _xlogy,
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": lambda x: (
        _objects(mpmath.isfinite, x) if x.dtype == object else np.ones(x.shape, bool)
    ),
    "le": np.less_equal,
    "lt": np.less,
    "ne": np.not_equal,
}
_LOGIC: dict[str, Callable[..., Any]] = {
    "and": np.bitwise_and,
    "not": np.invert,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
_ON_INTEGERS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "sign": np.sign,
    "sub": np.subtract,
}


# ---------------------------------------------------------------------- of an array


def _cast(equation: Equation, x: np.ndarray) -> np.ndarray:
    new = np.dtype(equation.params["new_dtype"])
    if new.kind not in "iub":
        return x if x.dtype == object else _objects(lambda v: mpf(int(v)), x)
    if x.dtype != object:
        return x.astype(new)
    if new.kind == "b":
        return (x != 0).astype(bool)
    info = np.iinfo(new)
    cut = lambda v: max(min(int(v), int(info.max)), int(info.min))
    return _objects(cut, x).astype(new)


def _chosen(equation: Equation, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    del equation
    result = cases[0]
    for k, case in enumerate(cases[1:], 1):
        result = np.where(which == k, case, result)
    return np.asarray(result)


def _dot(equation: Equation, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (contract_x, contract_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    if batch_x or batch_y:
        raise Unread("a batch of products")
    return np.asarray(np.tensordot(x, y, (contract_x, contract_y)), dtype=object)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda equation, x: np.asarray(
        function(x, axis=tuple(equation.params["axes"]))
    )


def _cumulative(step: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    accumulate = np.frompyfunc(step, 2, 1).accumulate

    def rule(equation: Equation, x: np.ndarray) -> np.ndarray:
        axis = equation.params["axis"]
        if equation.params["reverse"]:
            return np.flip(accumulate(np.flip(x, axis), axis=axis), axis)
        return accumulate(x, axis=axis)

    return rule


def _sorted(equation: Equation, *inputs: np.ndarray) -> list[np.ndarray]:
    axis = equation.params["dimension"]
    if equation.params["num_keys"] != 1:
        raise Unread("sort")
    order = np.argsort(inputs[0], axis=axis, kind="stable")
    return [np.take_along_axis(x, order, axis) for x in inputs]


def _scattered(
    equation: Equation, x: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    places = group_of_updates(equation.params, x.shape, indices, updates.shape).reshape(
        -1
    )
    total = np.array(x).reshape(-1)
    for place, update in zip(places, updates.reshape(-1), strict=True):
        if place >= 0:
            total[place] += update
    return total.reshape(x.shape)


def _scan(equation: Equation, *inputs: np.ndarray) -> list[np.ndarray]:
    params = equation.params
    body: Program = params["body"]
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
    columns = inputs[num_consts + num_carry :]
    rows: list[list[np.ndarray]] = [[] for _ in body.outputs[num_carry:]]
    order = range(params["length"])
    for step in reversed(order) if params["reverse"] else order:
        elements = [np.asarray(column[step]) for column in columns]
        given = dict(zip(body.params, [*consts, *carry, *elements], strict=True))
        results = _run(body, given, body.outputs)
        carry = results[:num_carry]
        for row, result in zip(rows, results[num_carry:], strict=True):
            row.append(result)
    return [*carry, *(np.stack(r[::-1] if params["reverse"] else r) for r in rows)]


_OTHERS: dict[str, Callable[..., Any]] = {
    "convert_element_type": _cast,
    "cumlogsumexp": _cumulative(_logaddexp),
    "cummax": _cumulative(_largest),
    "cummin": _cumulative(_smallest),
    "cumprod": _cumulative(lambda x, y: x * y),
    "cumsum": _cumulative(lambda x, y: x + y),
    "dot_general": _dot,
    "integer_pow": lambda equation, x: _objects(
        lambda v: _power(v, mpf(equation.params["y"])), x
    ),
    "reduce_and": _reduction(np.all),
    "reduce_max": _reduction(np.frompyfunc(_largest, 2, 1).reduce),
    "reduce_min": _reduction(np.frompyfunc(_smallest, 2, 1).reduce),
    "reduce_or": _reduction(np.any),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "round": _rounded,
    "scan": _scan,
    "scatter-add": _scattered,
    "select_n": _chosen,
    "sort": _sorted,
}
