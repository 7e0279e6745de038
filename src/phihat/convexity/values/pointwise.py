r"""Rules of the elementwise primitives: arithmetic, functions, comparisons, logic.

Each takes an equation and the ranges of its inputs and returns those of its outputs.
Where a function is not defined the element is marked (`extended.py`), never NaN: for
certain where the whole range lies outside of the domain, as unknown where some does.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity.intervals import Interval
  >>> from phihat.convexity.trace import trace
  >>> (equation,) = trace(jnp.log, 1.0).equations
  >>> RULES["log"](equation, [Interval(-2.0, -1.0)])[0].kind.item() == NOT_A_NUMBER
  True
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special

from phihat.convexity import intervals as iv
from phihat.convexity.intervals import Interval
from phihat.convexity.program import Equation
from phihat.convexity.values.extended import (
    FINITE,
    MINUS_INFINITY,
    NOT_A_NUMBER,
    NOT_FINITE,
    PLUS_INFINITY,
    UNKNOWN,
    Extended,
    elementwise,
    extended,
    kind_of,
    unknown,
)

__all__ = ["RULES", "Rule", "is_known"]

Rule = Callable[[Equation, list[Interval]], list[Interval] | None]
"""`(equation, ranges of the inputs) -> ranges of the outputs`, or None: no rule."""

_Total = Callable[[Equation, list[Interval]], list[Interval]]

_BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def is_known(x: Interval) -> bool:
    """Tell whether every element is one known finite number."""
    if isinstance(x, Extended):
        return False
    return x.is_point or bool(np.array_equal(x.low, x.high))


def is_integer(dtype: Any) -> bool:
    """Tell the dtypes on which division truncates and sums overflow."""
    return dtype is not None and jnp.issubdtype(dtype, jnp.integer)


def is_boolean(dtype: Any) -> bool:
    """Tell the dtype whose numbers are 0 and 1."""
    return dtype is not None and dtype == np.bool_


def wrapped(x: Interval, dtype: Any) -> Interval:
    """Allow for overflow: an integer that may leave its dtype may be any of them."""
    if not is_integer(dtype):
        return x
    info = jnp.iinfo(dtype)
    fits = (x.low >= info.min) & (x.high <= info.max)
    if fits.all():
        return x
    return Interval(
        np.where(fits, x.low, float(info.min)), np.where(fits, x.high, float(info.max))
    )


# ------------------------------------------------------------ the makers of rules


def _function(
    enclose: Callable[..., Interval],
    ieee: Callable[..., Any] | None = None,
    marks: Callable[..., np.ndarray | None] | None = None,
) -> _Total:
    """Make a rule of a function of intervals.

    Args:
      enclose: the function.
      ieee: the function of floats, for elements that are infinite.
      marks: returns the kind of each element of the result, or None if all are finite.
    """

    def marked(*xs: Interval) -> Interval:
        return extended(enclose(*xs), marks(*xs) if marks else None)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        return [wrapped(elementwise(marked, ieee, inputs), equation.dtype)]

    return rule


def _kinds(*cases: tuple[np.ndarray, int], defined: np.ndarray) -> np.ndarray | None:
    """Choose the first case that holds; finite where defined, else unknown."""
    if defined.all():
        return None
    conditions, kinds = zip(*cases, strict=True) if cases else ((), ())
    return np.select([defined, *conditions], [FINITE, *kinds], default=UNKNOWN).astype(
        np.int8
    )


def _is(x: Interval, value: float) -> np.ndarray:
    return (x.low == value) & (x.high == value)


def _holds_zero(x: Interval) -> np.ndarray:
    return (x.low <= 0) & (x.high >= 0)


def _below(limit: float, kind: int) -> Callable[[Interval], np.ndarray | None]:
    """Mark a function that is defined for x > limit, `kind` at it and NaN below."""

    def marks(x: Interval) -> np.ndarray | None:
        return _kinds(
            (_is(x, limit), kind),
            (x.high < limit, NOT_A_NUMBER),
            (x.high <= limit, NOT_FINITE),
            defined=x.low > limit,
        )

    return marks


def _within(low: float, high: float) -> Callable[[Interval], np.ndarray | None]:
    """Mark a function that is defined for low <= x <= high, and NaN outside."""

    def marks(x: Interval) -> np.ndarray | None:
        return _kinds(
            ((x.high < low) | (x.low > high), NOT_A_NUMBER),
            defined=(x.low >= low) & (x.high <= high),
        )

    return marks


def _strictly_within_one(x: Interval) -> np.ndarray | None:
    """Mark a function that is defined for |x| < 1, infinite at the ends, NaN beyond."""
    return _kinds(
        (_is(x, 1.0), PLUS_INFINITY),
        (_is(x, -1.0), MINUS_INFINITY),
        ((x.high < -1) | (x.low > 1), NOT_A_NUMBER),
        ((x.high <= -1) | (x.low >= 1), NOT_FINITE),
        defined=(x.low > -1) & (x.high < 1),
    )


def _where_defined(
    is_defined: Callable[..., Any],
) -> Callable[..., np.ndarray | None]:
    return lambda *xs: _kinds(defined=np.asarray(is_defined(*xs)))


# ------------------------------------------------------------------- arithmetic


def _same(equation: Equation, inputs: list[Interval]) -> bool:
    """Tell whether a binary primitive is applied to one value twice."""
    return (
        len(set(equation.inputs)) == 1
        and len(inputs) == 2
        and kind_of(inputs[0]) is None
        and inputs[0].shape == inputs[1].shape
    )


def _sub(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Subtract; a value minus itself is zero."""
    if _same(equation, inputs):
        return [iv.from_array(np.broadcast_to(0.0, inputs[0].shape))]
    return _SUB(equation, inputs)


def _mul(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Multiply; a value times itself is its square."""
    if _same(equation, inputs):
        return [wrapped(iv.square(inputs[0]), equation.dtype)]
    return _MUL(equation, inputs)


def _div(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Divide; integers are truncated towards zero."""
    if not is_integer(equation.dtype):
        return _DIV(equation, inputs)
    x, y = inputs
    if _holds_zero(y).any():
        return [
            wrapped(
                iv.everything(np.broadcast_shapes(x.shape, y.shape)), equation.dtype
            )
        ]
    return [wrapped(iv.truncate(iv.div(x, y)), equation.dtype)]


def _div_marks(x: Interval, y: Interval) -> np.ndarray | None:
    shape = np.broadcast_shapes(x.shape, y.shape)
    kind = _kinds((_is(y, 0.0), NOT_FINITE), defined=~_holds_zero(y))
    return None if kind is None else np.broadcast_to(kind, shape)


def _ieee_div(x: Any, y: Any) -> Any:
    """Divide floats; a zero, whose sign is not known, gives NaN rather than inf."""
    return np.where(y == 0, np.nan, x) / y


def _rem(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Take x - y trunc(x / y), which has the sign of x and is smaller than |y|."""
    x, y = (Interval(*z) if isinstance(z, Extended) else z for z in inputs)
    shape = np.broadcast_shapes(x.shape, y.shape)
    if any(isinstance(z, Extended) for z in inputs):
        return [unknown(shape)]
    if is_known(x) and is_known(y) and (y.low != 0).all():
        rest = np.fmod(x.low, y.low)  # exact
        return [Interval(rest, rest)]
    quotient = iv.truncate(iv.div(x, y))
    known = (quotient.low == quotient.high) & np.isfinite(quotient.low)
    exact = iv.sub(x, iv.mul(y, iv.from_array(np.where(known, quotient.low, 0.0))))
    size = y.magnitude
    low = np.where(x.low >= 0, 0.0, np.maximum(-size, x.low))
    high = np.where(x.high <= 0, 0.0, np.minimum(size, x.high))
    bound = Interval(
        np.where(known, np.maximum(exact.low, low), low),
        np.where(known, np.minimum(exact.high, high), high),
    )
    if is_integer(equation.dtype):
        zero = _holds_zero(y)
        return [iv.where(zero, wrapped(iv.everything(shape), equation.dtype), bound)]
    return [extended(bound, _div_marks(x, y))]


def _integer_pow(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    exponent = equation.params["y"]

    def ieee(x: Any) -> Any:
        return _ieee_div(1.0, x**-exponent) if exponent < 0 else x**exponent

    def marks(x: Interval) -> np.ndarray | None:
        if exponent >= 0:
            return None
        return _kinds((_is(x, 0.0), NOT_FINITE), defined=~_holds_zero(x))

    raised = functools.partial(_raised, exponent=exponent)
    return _function(raised, ieee, marks)(equation, inputs)


def _raised(x: Interval, exponent: int) -> Interval:
    return iv.square(x) if exponent == 2 else iv.integer_power(x, exponent)


def _pow(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Raise to a power: a whole exponent allows a base of any sign."""
    x, y = inputs
    shape = np.broadcast_shapes(x.shape, y.shape)
    if any(isinstance(z, Extended) for z in inputs):
        return [unknown(shape)]
    if (
        is_known(y)
        and (y.low == np.rint(y.low)).all()
        and y.magnitude.max(initial=0) < 2**31
    ):
        exponents = np.unique(y.low)
        if exponents.size <= 16:
            result = None
            for exponent in exponents:
                (power,) = _integer_pow(
                    equation._replace(params={"y": int(exponent)}), [x]
                )
                power = _spread(power, shape)
                result = (
                    power
                    if result is None
                    else _choose(
                        np.broadcast_to(y.low == exponent, shape), power, result
                    )
                )
            if result is not None:
                return [wrapped(result, equation.dtype)]
    return [extended(iv.power(x, y), _pow_marks(x, y))]


def _pow_marks(x: Interval, y: Interval) -> np.ndarray | None:
    fractional = (y.low == y.high) & (y.low != np.rint(y.low))
    return _kinds(
        (_is(x, 0.0) & (y.high < 0), NOT_FINITE),
        ((x.high < 0) & fractional, NOT_A_NUMBER),
        defined=np.asarray(iv.power_is_defined(x, y)),
    )


def _spread(x: Interval, shape: tuple[int, ...]) -> Interval:
    spread = iv.rearrange(lambda end: np.broadcast_to(end, shape), x)
    kind = kind_of(x)
    return extended(spread, None if kind is None else np.broadcast_to(kind, shape))


def _choose(condition: np.ndarray, x: Interval, y: Interval) -> Interval:
    chosen = iv.where(
        condition, *(Interval(*z) if kind_of(z) is not None else z for z in (x, y))
    )
    kinds = [kind_of(z) for z in (x, y)]
    if kinds[0] is None and kinds[1] is None:
        return chosen
    filled = [0 if kind is None else kind for kind in kinds]
    return extended(chosen, np.where(condition, *filled).astype(np.int8))


# ------------------------------------------------------- rounding, casts, logic


def _round(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    to_even = int(equation.params["rounding_method"]) == 1
    rounded = iv.round_half_even if to_even else iv.round_half_away
    return _function(rounded, np.rint)(equation, inputs)


def _clamp(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    del equation
    low, x, high = inputs
    raised = elementwise(iv.maximum, np.maximum, [low, x])
    return [elementwise(iv.minimum, np.minimum, [raised, high])]


def _convert(equation: Equation, inputs: list[Interval]) -> list[Interval] | None:
    """Cast: to integers by truncation, to booleans by `!= 0`, to floats not at all."""
    (x,), dtype = inputs, equation.params["new_dtype"]
    if is_boolean(dtype):
        zero = iv.from_array(0.0)
        return [_truth(elementwise(_compared(iv.ne), np.not_equal, [x, zero]))]
    if is_integer(dtype):
        if isinstance(x, Extended):
            return [wrapped(iv.everything(x.shape), dtype)]
        return [wrapped(iv.truncate(x), dtype)]
    if np.dtype(dtype) not in _READABLE:
        return None
    return [x]


_READABLE = tuple(map(np.dtype, (np.float64, np.float32, np.float16, jnp.bfloat16)))


def _compared(
    compare: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> Callable[..., Interval]:
    """Make truth a number: 1 where it holds for certain, 0 where certainly not."""

    def enclose(x: Interval, y: Interval) -> Interval:
        holds, fails = compare(x, y)
        low = np.asarray(holds, np.float64)
        if np.all(holds | fails):
            return Interval(low, low)
        return Interval(low, 1.0 - fails)

    return enclose


def _truth(x: Interval) -> Interval:
    """Bound what is not known: a comparison is true or false, whatever is compared."""
    kind = kind_of(x)
    if kind is None:
        return x
    return Interval(np.where(kind, 0.0, x.low), np.where(kind, 1.0, x.high))


def _comparison(
    compare: Callable[..., Any], ieee: Callable[..., Any], reflexive: bool
) -> Rule:
    enclose = _compared(compare)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        if _same(equation, inputs):  # a finite number equals itself
            return [iv.from_array(np.broadcast_to(float(reflexive), inputs[0].shape))]
        return [_truth(elementwise(enclose, lambda *x: ieee(*x) * 1.0, inputs))]

    return rule


def _total_order(compare: Callable[..., Any], ieee: Callable[..., Any]) -> Rule:
    """Make the rule of a comparison that tells -0 from 0, which intervals do not."""

    def apart(x: Interval, y: Interval) -> tuple[np.ndarray, np.ndarray]:
        holds, fails = compare(x, y)
        may_be_zeros = _holds_zero(x) & _holds_zero(y)
        return holds & ~may_be_zeros, fails & ~may_be_zeros

    return _comparison(apart, ieee, ieee(0.0, 0.0))


def _is_finite(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    del equation
    kind = kind_of(inputs[0])
    if kind is None:
        return [iv.from_array(np.broadcast_to(1.0, inputs[0].shape))]
    low = (kind == FINITE).astype(np.float64)
    return [Interval(low, ((kind == FINITE) | (kind == UNKNOWN)).astype(np.float64))]


def _not(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Invert: 1 - x for booleans, and -1 - x for integers."""
    if equation.dtype is None:
        return [unknown(inputs[0].shape)]
    if is_boolean(equation.dtype):
        return [iv.sub(1.0, inputs[0])]
    if jnp.issubdtype(equation.dtype, jnp.unsignedinteger):
        return [iv.sub(float(jnp.iinfo(equation.dtype).max), inputs[0])]
    return [iv.sub(-1.0, inputs[0])]


def _logic(name: str) -> Rule:
    monotone = {"and": iv.minimum, "or": iv.maximum}.get(name)

    def rule(equation: Equation, inputs: list[Interval]) -> list[Interval]:
        x, y = inputs
        if monotone is not None and is_boolean(equation.dtype):
            return [monotone(x, y)]
        if is_known(x) and is_known(y):
            bits = _BITS[name](x.low.astype(np.int64), y.low.astype(np.int64))
            return [iv.from_array(bits)]
        shape = np.broadcast_shapes(x.shape, y.shape)
        if is_boolean(equation.dtype):
            decided = (x.low == x.high) & (y.low == y.high)
            differ = (x.low != y.low).astype(np.float64)
            return [
                Interval(np.where(decided, differ, 0.0), np.where(decided, differ, 1.0))
            ]
        if equation.dtype is None:
            return [unknown(shape)]
        return [wrapped(iv.everything(shape), equation.dtype)]

    return rule


def _shift(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Shift known integers; of others nothing but the dtype is told."""
    x, y = inputs
    shape = np.broadcast_shapes(x.shape, y.shape)
    if equation.dtype is None:
        return [unknown(shape)]
    return [wrapped(iv.everything(shape), equation.dtype)]


# ------------------------------------------------------------ special functions


def _erf_inv(x: Interval) -> Interval:
    """Invert erf: a float that erf proves to lie below, and one above."""
    low, high = (np.clip(end, -1.0, 1.0) for end in x)
    return Interval(_erf_inv_bound(low, -1.0), _erf_inv_bound(high, 1.0))


def _erf_inv_bound(value: np.ndarray, side: float) -> np.ndarray:
    guess = np.asarray(scipy.special.erfinv(value))
    bound = np.where(value == 0, 0.0, np.full(guess.shape, side * np.inf))
    for ulps in (0, *(4**k for k in range(1, 24))):
        open_ = np.isinf(bound) & np.isfinite(guess)
        if not open_.any():
            break
        near = guess + side * (np.abs(guess) * ulps * 2.0**-52)
        erf = iv.erf(iv.from_array(np.where(np.isfinite(near), near, 0.0)))
        proved = erf.low >= value if side > 0 else erf.high <= value
        bound = np.where(open_ & proved, near, bound)
    return bound


def _poles(x: Interval) -> np.ndarray | None:
    """Mark the functions with a pole at 0, -1, -2, ..."""
    whole = (x.low == x.high) & (x.low <= 0) & (x.low == np.rint(x.low))
    free = (x.low > 0) | (np.floor(x.high) < np.ceil(x.low))
    return _kinds((whole, NOT_FINITE), defined=free)


def _polygamma(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Take the nth derivative of digamma, for one known n and x > 0."""
    del equation
    order, x = inputs
    shape = np.broadcast_shapes(order.shape, x.shape)
    if not is_known(order) or isinstance(x, Extended) or not order.size:
        return [unknown(shape)]
    n = float(order.low.flat[0])
    if n < 0 or n != int(n) or not (order.low == n).all():
        return [unknown(shape)]
    marks = _kinds(defined=np.asarray(x.low > 0))
    return [_spread(extended(iv.polygamma(int(n), x), marks), shape)]


def _xlogy(x: Interval, y: Interval) -> Interval:
    r"""Take x log y, and 0 where x = 0, whatever y is."""
    product = iv.mul(x, iv.log(y))
    result = iv.where(_is(x, 0.0), 0.0, product)
    kind = _kinds(
        ((y.high < 0) & ~_holds_zero(x), NOT_A_NUMBER),
        (_is(y, 0.0) & (x.low > 0), MINUS_INFINITY),
        (_is(y, 0.0) & (x.high < 0), PLUS_INFINITY),
        defined=_is(x, 0.0) | (y.low > 0),
    )
    return extended(result, kind)


def _xlog1py(x: Interval, y: Interval) -> Interval:
    r"""Take x log(1 + y), and 0 where x = 0, whatever y is."""
    result = iv.where(_is(x, 0.0), 0.0, iv.mul(x, iv.log1p(y)))
    kind = _kinds(
        ((y.high < -1) & ~_holds_zero(x), NOT_A_NUMBER),
        (_is(y, -1.0) & (x.low > 0), MINUS_INFINITY),
        (_is(y, -1.0) & (x.high < 0), PLUS_INFINITY),
        defined=_is(x, 0.0) | (y.low > -1),
    )
    return extended(result, kind)


def _entr(x: Interval) -> Interval:
    r"""Take -x log x, 0 at 0: it rises up to 1/e at 1/e, then it falls."""
    ends = [_entr_at(np.clip(end, 0.0, None)) for end in x]
    peak = iv.exp(-1.0)
    has_peak = (x.low <= peak.high) & (x.high >= peak.low)
    low = np.minimum(*(end.low for end in ends))
    high = np.maximum(*(end.high for end in ends))
    low = np.where(np.isinf(x.high), -np.inf, low)
    high = np.where(has_peak, np.maximum(high, peak.high), high)
    kind = _kinds((x.high < 0, MINUS_INFINITY), defined=x.low >= 0)
    return extended(Interval(low, high), kind)


def _entr_at(x: np.ndarray) -> Interval:
    finite = np.minimum(x, _LARGEST)
    safe = iv.from_array(np.where(finite > 0, finite, 1.0))
    return iv.where(finite > 0, iv.neg(iv.mul(safe, iv.log(safe))), 0.0)


_LARGEST = float(np.finfo(np.float64).max)


def _rel_entr(x: Interval, y: Interval) -> Interval:
    r"""Take x log(x / y); 0 where x = 0 <= y, and inf outside of x >= 0, y > 0."""
    zero = _is(x, 0.0)
    direct = iv.mul(x, iv.log(iv.div(x, y)))
    # x log x - x log y is the tighter where x is near 0, where log(x / y) is unbounded
    entropy = _entr(x)
    inner = Interval(*entropy) if kind_of(entropy) is not None else entropy
    apart = iv.sub(iv.neg(inner), iv.mul(x, iv.log(y)))
    result = iv.where(x.low > 0, direct, apart)
    kind = _kinds(
        ((x.high < 0) | (y.high < 0) | ((x.low > 0) & (y.high <= 0)), PLUS_INFINITY),
        defined=(zero & (y.low >= 0)) | ((x.low >= 0) & (y.low > 0)),
    )
    return extended(iv.where(zero, 0.0, result), kind)


def _kl_div(x: Interval, y: Interval) -> Interval:
    """Take x log(x / y) - x + y, at least 0; inf outside of x >= 0, y > 0."""
    entropy = _rel_entr(x, y)
    inner = Interval(*entropy) if kind_of(entropy) is not None else entropy
    # rounded outward, so that cutting at zero leaves the truth inside
    value = iv.maximum(iv.add(iv.sub(inner, x), y), 0.0)
    return extended(value, kind_of(entropy))


_ADD = _function(iv.add, np.add)
_SUB = _function(iv.sub, np.subtract)
_MUL = _function(iv.mul, np.multiply)
_DIV = _function(iv.div, _ieee_div, _div_marks)

RULES: dict[str, Rule] = {
    "abs": _function(iv.absolute, np.abs),
    "acos": _function(iv.acos, None, _within(-1.0, 1.0)),
    "acosh": _function(iv.acosh, np.arccosh, _within(1.0, np.inf)),
    "add": _ADD,
    "add_any": _ADD,
    "and": _logic("and"),
    "asin": _function(iv.asin, None, _within(-1.0, 1.0)),
    "asinh": _function(iv.asinh, np.arcsinh),
    "atan": _function(iv.atan),
    "atan2": _function(iv.atan2, None, _where_defined(iv.atan2_is_defined)),
    "atanh": _function(iv.atanh, np.arctanh, _strictly_within_one),
    "cbrt": _function(iv.cbrt, np.cbrt),
    "ceil": _function(iv.ceil, np.ceil),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "cos": _function(iv.cos),
    "cosh": _function(iv.cosh, np.cosh),
    "digamma": _function(iv.digamma, None, _poles),
    "div": _div,
    "entr": _function(_entr, lambda x: np.where(np.isnan(x), x, -np.inf)),
    "eq": _comparison(iv.eq, np.equal, True),
    "erf": _function(iv.erf, scipy.special.erf),
    "erf_inv": _function(_erf_inv, None, _strictly_within_one),
    "erfc": _function(iv.erfc, scipy.special.erfc),
    "exp": _function(iv.exp, np.exp),
    "exp2": _function(iv.exp2, np.exp2),
    "expm1": _function(iv.expm1, np.expm1),
    "floor": _function(iv.floor, np.floor),
    "ge": _comparison(iv.ge, np.greater_equal, True),
    "gt": _comparison(iv.gt, np.greater, False),
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "kl_div": _function(_kl_div),
    "le_to": _total_order(iv.le, np.less_equal),
    "lt_to": _total_order(iv.lt, np.less),
    "le": _comparison(iv.le, np.less_equal, True),
    "lgamma": _function(iv.lgamma, None, _poles),
    "log": _function(iv.log, np.log, _below(0.0, MINUS_INFINITY)),
    "log1p": _function(iv.log1p, np.log1p, _below(-1.0, MINUS_INFINITY)),
    "log_ndtr": _function(iv.log_ndtr),
    "logaddexp": _function(iv.logaddexp, np.logaddexp),
    "logistic": _function(iv.logistic, scipy.special.expit),
    "lt": _comparison(iv.lt, np.less, False),
    "max": _function(iv.maximum, np.maximum),
    "min": _function(iv.minimum, np.minimum),
    "mul": _mul,
    "ne": _comparison(iv.ne, np.not_equal, False),
    "neg": _function(iv.neg, np.negative),
    "not": _not,
    "or": _logic("or"),
    "polygamma": _polygamma,
    "pow": _pow,
    "rel_entr": _function(_rel_entr),
    "rem": _rem,
    "round": _round,
    "rsqrt": _function(iv.rsqrt, None, _below(0.0, PLUS_INFINITY)),
    "shift_left": _shift,
    "shift_right_arithmetic": _shift,
    "shift_right_logical": _shift,
    "sign": _function(iv.sign, np.sign),
    "sin": _function(iv.sin),
    "sinh": _function(iv.sinh, np.sinh),
    "sqrt": _function(iv.sqrt, np.sqrt, _within(0.0, np.inf)),
    "square": _function(iv.square, np.square),
    "sub": _sub,
    "tan": _function(iv.tan, None, _where_defined(iv.tan_is_defined)),
    "tanh": _function(iv.tanh, np.tanh),
    "xlog1py": _function(_xlog1py),
    "xlogy": _function(_xlogy),
    "xor": _logic("xor"),
}
"""The rules, by the name of the primitive or of the atom."""
