r"""Rules of the second derivative: smooth functions, arithmetic, and kinks.

Each takes what is known of an equation's inputs and returns what follows for its output
(`jet_arithmetic` has the proofs). A function is composed only where its argument is
proved inside of its open domain; other boxes are given up.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from phihat.convexity.numbers import derivatives
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers import jet_arithmetic as jets
from phihat.convexity.numbers.derivatives import SMOOTH, Derivatives
from phihat.convexity.numbers.extended import MINUS_INFINITY, PLUS_INFINITY, Extended
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Jet, Ridge, constant, range_of
from phihat.convexity.primitives.jets.box_pass import Blocked, Pass, Rule
from phihat.convexity.program.form import Equation

__all__ = [
    "absolute",
    "add",
    "clamp",
    "divide",
    "integer_power",
    "kl_div",
    "logaddexp",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "rel_entr",
    "smooth",
    "subtract",
    "times_log",
]


# ------------------------------------------------------------------ smooth functions


def _apply(
    run: Pass,
    equation: Equation,
    x: Ridge | Jet,
    inside: np.ndarray,
    fn: Callable[[Interval], Derivatives],
    *,
    safe: float = 0.5,
) -> Ridge | Jet:
    """Compose; boxes on which the argument may leave the open domain are given up."""
    run.require(inside, equation, "its argument is not proved inside of its domain")
    return jets.compose(x, lambda value: fn(iv.where(inside, value, safe)))


def smooth(name: str) -> Rule:
    """Make the rule of a function whose derivatives `numbers/derivatives.py` has."""

    def rule(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        return _named(run, equation, name, inputs[0])

    return rule


def _named(run: Pass, equation: Equation, name: str, x: Ridge | Jet) -> Ridge | Jet:
    inside = derivatives.is_inside(name, x.value)
    safe = derivatives.SAFE.get(name, 0.5)
    return _apply(run, equation, x, inside, SMOOTH[name], safe=safe)


def _whole_power(run: Pass, equation: Equation, x: Ridge | Jet, n: int) -> Ridge | Jet:
    inside = np.ones(x.value.shape, bool)
    if n < 0:
        inside = (x.value.low > 0) | (x.value.high < 0)
    return _apply(run, equation, x, inside, lambda v: derivatives.whole_power(v, n))


def integer_power(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Z^n; for n < 0 where z has one sign."""
    return _whole_power(run, equation, inputs[0], int(equation.params["y"]))


def power(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Raise to a power: a whole one as such, else for x > 0, by exp(y log x)."""
    x, y = run.spread(equation, inputs)
    if isinstance(y, Ridge) and y.rows is None:
        exponent = range_of(y)
        first = float(exponent.low.flat[0]) if exponent.size else 1.0
        is_whole = first == np.rint(first) and abs(first) < 2**31
        if (
            is_whole
            and (exponent.low == first).all()
            and (exponent.high == first).all()
        ):
            return _whole_power(run, equation, x, int(first))
        wide = exponent[..., None] if isinstance(x, Ridge) else exponent
        power = functools.partial(derivatives.power, exponent=wide)
        return _apply(run, equation, x, x.value.low > 0, power)
    logarithm = _named(run, equation, "log", x)
    return _named(run, equation, "exp", jets.product(y, logarithm, run.slopes))


def logaddexp(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take y + log(1 + exp(x - y))."""
    x, y = run.spread(equation, inputs)
    return jets.total(
        y,
        _named(run, equation, "softplus", _difference(run, equation, x, y)),
        run.slopes,
    )


def times_log(name: str) -> Rule:
    """Take x log y or x log(1 + y), which is 0 where x is the constant 0."""

    def rule(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
        x, y = run.spread(equation, inputs)
        inside = derivatives.is_inside(name, y.value)
        if isinstance(x, Ridge) and x.rows is None:
            is_zero = (range_of(x).low == 0) & (range_of(x).high == 0)
            inside = inside | (is_zero[..., None] if isinstance(y, Ridge) else is_zero)
        logarithm = _apply(run, equation, y, inside, SMOOTH[name])
        return jets.product(x, logarithm, run.slopes)

    return rule


def rel_entr(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take x (log x - log y), for x, y > 0."""
    x, y = run.spread(equation, inputs)
    one, other = (_named(run, equation, "log", z) for z in (x, y))
    ratio = jets.total(one, jets.negative(other), run.slopes)
    return jets.product(x, ratio, run.slopes)


def kl_div(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take x (log x - log y) - x + y."""
    x, y = run.spread(equation, inputs)
    shift = jets.total(y, jets.negative(x), run.slopes)
    return jets.total(rel_entr(run, equation, inputs), shift, run.slopes)


# ---------------------------------------------------------------- arithmetic, kinks


def add(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Bounds add up."""
    x, y = run.spread(equation, inputs)
    return jets.total(x, y, run.slopes)


def negative(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Bounds change places."""
    del run, equation
    return jets.negative(inputs[0])


def subtract(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Subtract; a value minus itself is 0."""
    x, y = run.spread(equation, inputs)
    if equation.inputs[0] == equation.inputs[1]:
        return constant(iv.from_array(np.zeros((1, x.value.shape[1]))))
    return jets.total(x, jets.negative(y), run.slopes)


def multiply(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Multiply; a value times itself is its square."""
    if equation.inputs[0] == equation.inputs[1]:
        return _whole_power(run, equation, inputs[0], 2)
    x, y = run.spread(equation, inputs)
    return jets.product(x, y, run.slopes)


def divide(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """X times 1 / y."""
    x, y = run.spread(equation, inputs)
    return jets.product(x, _whole_power(run, equation, y, -1), run.slopes)


def _difference(run: Pass, equation: Equation, x: Any, y: Any) -> Ridge | Jet:
    """Take x - y, as one scalar where x and y are affine."""
    number = equation.outputs[0]
    if number in run.outline.differences:
        return run.ridge(run.outline.differences[number])
    return jets.total(x, jets.negative(y), run.slopes)


def maximum(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take max(x, y), for affine ones as y + max(x - y, 0)."""
    x, y = run.spread(equation, inputs)
    other = _beside_infinity(run, equation, x, y)
    if other is not None:
        return other
    if equation.outputs[0] not in run.outline.differences:
        return jets.maximum(x, y, run.slopes)
    return jets.total(y, _excess(run, equation, x, y), run.slopes)


def minimum(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Take min(x, y), for affine ones as x - max(x - y, 0)."""
    x, y = run.spread(equation, inputs)
    other = _beside_infinity(run, equation, x, y)
    if other is not None:
        return other
    if equation.outputs[0] not in run.outline.differences:
        return jets.minimum(x, y, run.slopes)
    return jets.total(x, jets.negative(_excess(run, equation, x, y)), run.slopes)


def _beside_infinity(run: Pass, equation: Equation, x: Any, y: Any) -> Any:
    """Return the other of max(x, -inf) or min(x, inf), which reductions begin with."""
    idle = {"max": MINUS_INFINITY, "min": PLUS_INFINITY}[equation.primitive]
    for number, other in zip(equation.inputs, (y, x), strict=True):
        if run.infinite(number) is None:
            continue
        found = run.outline.constant(number)
        if isinstance(found, Extended) and (found.kind == idle).all():
            return other
        raise Blocked(equation, "it takes a constant that is not finite")
    return None


def _excess(run: Pass, equation: Equation, x: Any, y: Any) -> Ridge | Jet:
    zero = constant(iv.from_array(np.zeros((1, x.value.shape[1]))))
    return jets.maximum(_difference(run, equation, x, y), zero, run.slopes)


def absolute(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Max(z, -z)."""
    del equation
    return jets.maximum(inputs[0], jets.negative(inputs[0]), run.slopes)


def clamp(run: Pass, equation: Equation, inputs: list[Any]) -> Ridge | Jet:
    """Min(max(z, low), high)."""
    low, x, high = run.spread(equation, inputs)
    return jets.minimum(jets.maximum(x, low, run.slopes), high, run.slopes)
