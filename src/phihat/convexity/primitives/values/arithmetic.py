"""Rules of arithmetic: sums, products, quotients, remainders and powers."""

import functools
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.dtypes import is_integer
from phihat.convexity.numbers.extended import (
    NOT_A_NUMBER,
    NOT_FINITE,
    Extended,
    extended,
    unknown,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.values.rule_builders import (
    anything,
    choose,
    function,
    holds_zero,
    is_known,
    is_same,
    is_value,
    kinds,
    spread,
)
from phihat.convexity.program.form import Equation

__all__ = [
    "ADD",
    "MUL",
    "SUB",
    "divide",
    "integer_power",
    "multiply",
    "power",
    "remainder",
    "subtract",
]


def subtract(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Subtract; a value minus itself is zero."""
    if is_same(equation, inputs):
        return [iv.from_array(np.broadcast_to(0.0, inputs[0].shape))]
    return SUB(equation, inputs)


def multiply(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Multiply; a value times itself is its square."""
    if is_same(equation, inputs):
        return [iv.square(inputs[0])]
    return MUL(equation, inputs)


def divide(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Divide; integers are truncated towards zero."""
    x, y = inputs
    if not is_integer(equation.dtype):
        (ratio,) = _DIV(equation, inputs)
        if not isinstance(ratio, Extended):
            return [ratio]
        # An infinity by a zero is an infinity, of a sign that is not known.
        is_open = is_value(y, 0.0) & (ratio.kind == NOT_A_NUMBER)
        return [extended(ratio, np.where(is_open, NOT_FINITE, ratio.kind))]
    if holds_zero(y).any():
        shape = np.broadcast_shapes(x.shape, y.shape)
        return [anything(shape, equation.dtype)]
    return [iv.truncate(iv.div(x, y))]


def _div_marks(x: Interval, y: Interval) -> np.ndarray | None:
    shape = np.broadcast_shapes(x.shape, y.shape)
    kind = kinds((is_value(y, 0.0), NOT_FINITE), defined=~holds_zero(y))
    return None if kind is None else np.broadcast_to(kind, shape)


def _ieee_div(x: Any, y: Any) -> Any:
    """Divide floats; a zero, whose sign is not known, gives NaN rather than inf."""
    return np.where(y == 0, np.nan, x) / y


def remainder(equation: Equation, inputs: list[Interval]) -> list[Interval]:
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
        zero = holds_zero(y)
        return [iv.where(zero, anything(shape, equation.dtype), bound)]
    return [extended(bound, _div_marks(x, y))]


def integer_power(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """X^n, for n < 0 where x is not zero."""
    exponent = equation.params["y"]

    def ieee(x: Any) -> Any:
        return _ieee_div(1.0, x**-exponent) if exponent < 0 else x**exponent

    def marks(x: Interval) -> np.ndarray | None:
        if exponent >= 0:
            return None
        return kinds((is_value(x, 0.0), NOT_FINITE), defined=~holds_zero(x))

    raised = functools.partial(_raised, exponent=exponent)
    return function(raised, ieee, marks)(equation, inputs)


def _raised(x: Interval, exponent: int) -> Interval:
    return iv.square(x) if exponent == 2 else iv.integer_power(x, exponent)


def power(equation: Equation, inputs: list[Interval]) -> list[Interval]:
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
                (power,) = integer_power(
                    equation._replace(params={"y": int(exponent)}), [x]
                )
                power = spread(power, shape)
                result = (
                    power
                    if result is None
                    else choose(
                        np.broadcast_to(y.low == exponent, shape), power, result
                    )
                )
            if result is not None:
                return [result]
    return [extended(iv.power(x, y), _pow_marks(x, y))]


def _pow_marks(x: Interval, y: Interval) -> np.ndarray | None:
    fractional = (y.low == y.high) & (y.low != np.rint(y.low))
    return kinds(
        (is_value(x, 0.0) & (y.high < 0), NOT_FINITE),
        ((x.high < 0) & fractional, NOT_A_NUMBER),
        defined=np.asarray(iv.power_is_defined(x, y)),
    )


ADD = function(iv.add, np.add)

SUB = function(iv.sub, np.subtract)

MUL = function(iv.mul, np.multiply)

_DIV = function(iv.div, _ieee_div, _div_marks)
