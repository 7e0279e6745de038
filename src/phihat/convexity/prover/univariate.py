"""Smooth functions of one value: the second derivative enclosed, tails and all.

u tanh(u) + 2 log cosh(u), or a loss with its own stable form, is convex though no rule
for one step says so. As a function of one affine value its second derivative is
enclosed by interval jets on cells that cover the whole range, the outermost of which
are half-lines; cells that do not settle the sign are halved. A sign counts only where
the enclosure has it, so that what touches zero stays open.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity import prove_convexity
  >>> loss_fn = lambda u: u**2 + jnp.sin(u)
  >>> prove_convexity(loss_fn, 0.0).verdict.name
  'PROVED_CONVEX'
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from phihat.convexity.numbers import derivatives, intervals
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.piecewise import Shape
from phihat.convexity.primitives.facts.facts import Facts
from phihat.convexity.program.form import Equation

__all__ = ["SMOOTH", "shape"]

_MAX_CELLS = 4096
_MAX_ROUNDS = 16

Jet = tuple[Interval, Interval, Interval]
"""A function on cells `[C]`, its first and its second derivative."""


class _NotSmooth(Exception):
    pass


def shape(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    z: Facts,
) -> Shape | None:
    """Decide the shape of an expression of one value z over the range of z.

    Args:
      inside: the equations between z and the expression, in order.
      root: the number of z.
      number: the number of the expression.
      constants: the exact values of what else they read.
      z: the facts of z.

    Returns:
      The shape, or None where the second derivative has no sign, or is not read.
    """
    cells = _cells(z.low, z.high)
    signs: set[int] = set()
    slopes: set[int] = set()
    try:
        for _ in range(_MAX_ROUNDS):
            jet = _evaluate(inside, root, number, constants, cells)
            up, down = jet[2].low >= 0.0, jet[2].high <= 0.0
            signs |= ({1} if up.any() else set()) | (
                {-1} if (down & ~up).any() else set()
            )
            rising, falling = jet[1].low >= 0.0, jet[1].high <= 0.0
            settled = up | down
            slopes.add(_slope_sign(rising[settled], falling[settled]))
            if len(signs) > 1:
                return None
            if settled.all():
                return _shape_of(signs, slopes)
            cells = _halved(cells, ~settled)
            if cells.size > _MAX_CELLS:
                return None
    except _NotSmooth:
        return None
    return None


def _shape_of(signs: set[int], slopes: set[int]) -> Shape:
    convex = signs <= {1}
    return Shape(
        convex=convex,
        concave=not convex,
        rising=slopes <= {1, 2},
        falling=slopes <= {-1, 2},
        lowest=None,
    )


def _slope_sign(rising: np.ndarray, falling: np.ndarray) -> int:
    """1: nowhere falls; -1: nowhere rises; 2: no cells; 0: neither is known."""
    if not rising.size:
        return 2
    return 1 if rising.all() else -1 if falling.all() else 0


def _cells(low: float, high: float) -> Interval:
    """Cover a range: fine near 0, then doubling, then the half-lines."""
    fine = np.arange(0.0, 4.0, 0.25)
    coarse = 4.0 * 2.0 ** np.arange(0.0, 8.0)
    marks = np.concatenate([-coarse[::-1], -fine[:0:-1], fine, coarse])
    marks = np.concatenate([[low], marks[(marks > low) & (marks < high)], [high]])
    if low == high:
        return Interval(np.array([low]), np.array([high]))
    return Interval(marks[:-1], marks[1:])


def _halved(cells: Interval, which: np.ndarray) -> Interval:
    """Halve some cells; a half-line is cut at twice its end."""
    low, high = cells.low[which], cells.high[which]
    with np.errstate(all="ignore"):
        middle = np.where(
            np.isinf(low),
            np.where(np.isinf(high), 0.0, -2.0 * np.abs(high) - 1.0),
            np.where(np.isinf(high), 2.0 * np.abs(low) + 1.0, low / 2 + high / 2),
        )
    middle = np.clip(middle, low, high)
    inner = np.isfinite(middle) & (low < middle) & (middle < high)
    if not inner.all():
        raise _NotSmooth
    return Interval(np.concatenate([low, middle]), np.concatenate([middle, high]))


def _evaluate(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    cells: Interval,
) -> Jet:
    """Carry the jet through the equations, on all cells at once."""
    zero = _filled(cells, 0.0)
    values: dict[int, Jet] = {root: (cells, _filled(cells, 1.0), zero)}
    for n, value in constants.items():
        if not math.isfinite(value):
            raise _NotSmooth
        values[n] = (_filled(cells, float(value)), zero, zero)
    for equation in inside:
        inputs = [values[n] for n in equation.inputs]
        rule = _RULES.get(equation.primitive)
        if rule is not None:
            values[equation.outputs[0]] = rule(equation, *inputs)
        elif equation.primitive in derivatives.SMOOTH and len(inputs) == 1:
            values[equation.outputs[0]] = _smooth(equation.primitive, inputs[0])
        else:
            raise _NotSmooth
    return values[number]


def _filled(cells: Interval, value: float) -> Interval:
    filled = np.full(cells.shape, value)
    return Interval(filled, filled)


def _chain(outer: Jet, x: Jet) -> Jet:
    """(f(x), f' x', f'' x'^2 + f' x'')."""
    value, first, second = outer
    return (
        value,
        first * x[1],
        second * intervals.square(x[1]) + first * x[2],
    )


def _smooth(name: str, x: Jet) -> Jet:
    if not np.all(derivatives.is_inside(name, x[0])):
        raise _NotSmooth
    return _chain(derivatives.SMOOTH[name](x[0]), x)


def _add(_: Equation, x: Jet, y: Jet) -> Jet:
    return x[0] + y[0], x[1] + y[1], x[2] + y[2]


def _neg(_: Equation, x: Jet) -> Jet:
    return -x[0], -x[1], -x[2]


def _sub(equation: Equation, x: Jet, y: Jet) -> Jet:
    return _add(equation, x, _neg(equation, y))


def _mul(_: Equation, x: Jet, y: Jet) -> Jet:
    return (
        x[0] * y[0],
        x[1] * y[0] + x[0] * y[1],
        x[2] * y[0] + 2.0 * (x[1] * y[1]) + x[0] * y[2],
    )


def _power(equation: Equation, x: Jet) -> Jet:
    return _whole_power(x, int(equation.params.get("y", 2)))


def _whole_power(x: Jet, exponent: int) -> Jet:
    if exponent < 0 and not np.all((x[0].low > 0) | (x[0].high < 0)):
        raise _NotSmooth
    return _chain(derivatives.whole_power(x[0], exponent), x)


def _div(equation: Equation, x: Jet, y: Jet) -> Jet:
    return _mul(equation, x, _whole_power(y, -1))


def _general_power(_: Equation, x: Jet, y: Jet) -> Jet:
    exponent = float(y[0].low[0])
    if not (y[0].is_point and np.all(y[0].low == exponent)):
        raise _NotSmooth
    if exponent == int(exponent):
        return _whole_power(x, int(exponent))
    if not np.all(x[0].low > 0):
        raise _NotSmooth
    return _chain(derivatives.power(x[0], y[0]), x)


def _logaddexp(_: Equation, x: Jet, y: Jet) -> Jet:
    """With s = sigmoid(x - y): s x + (1 - s) y, and s (1 - s) (x' - y')^2 more."""
    s, rest = intervals.logistic(x[0] - y[0]), intervals.logistic(y[0] - x[0])
    return (
        intervals.logaddexp(x[0], y[0]),
        s * x[1] + rest * y[1],
        s * x[2] + rest * y[2] + s * rest * intervals.square(x[1] - y[1]),
    )


_RULES: dict[str, Callable[..., Jet]] = {
    "add": _add,
    "add_any": _add,
    "div": _div,
    "integer_pow": _power,
    "logaddexp": _logaddexp,
    "mul": _mul,
    "neg": _neg,
    "pow": _general_power,
    "square": _power,
    "sub": _sub,
}
SMOOTH: set[str] = {*_RULES, *derivatives.SMOOTH}
"""The primitives that are read; each is smooth where it is defined."""
