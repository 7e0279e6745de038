# ruff: noqa: ARG001 - rules of one table share a signature
"""How far each primitive lets rounding move its result; ulps as measured, with room.

The bounds of the inputs are carried through, and the rounding of the dtype is added:
`refuter/rounding_errors.py` says what for.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.program.form import Equation

__all__ = [
    "LOG",
    "SQRT",
    "Ball",
    "Rule",
    "Unbounded",
    "add",
    "cast",
    "compare",
    "divide",
    "dot_general",
    "even_function",
    "extreme",
    "fourier_transform",
    "general_power",
    "is_finite",
    "largest",
    "log_sums",
    "logic",
    "monotone",
    "multiply",
    "nonexpansive",
    "power",
    "product",
    "reciprocal_root",
    "reduce_sum",
    "running",
    "select_n",
    "sort",
    "subtract",
    "xlogy",
]


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


Rule = Callable[..., Ball]


def _rounded(
    value: np.ndarray, error: np.ndarray, unit: float, ulps: float = 1
) -> Ball:
    return Ball(value, error + ulps * unit * (np.abs(value) + error))


def add(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """The errors add up."""
    return _rounded(x.value + y.value, x.error + y.error, unit)


def subtract(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """The errors add up."""
    return _rounded(x.value - y.value, x.error + y.error, unit)


def multiply(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """|x y - x' y'| <= |x| e_y + e_x (|y| + e_y)."""
    error = np.abs(x.value) * y.error + x.error * y.size
    return _rounded(x.value * y.value, error, unit)


def divide(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """(e_x + |x / y| e_y) / (|y| - e_y), where y cannot be zero."""
    least = np.abs(y.value) - y.error
    if (least <= 0).any():
        raise Unbounded("a divisor that may be zero")
    ratio = x.value / y.value
    return _rounded(ratio, (x.error + np.abs(ratio) * y.error) / least, unit, 4)


def monotone(function: Callable[..., Any], ulps: float = 16) -> Rule:
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


def nonexpansive(function: Callable[..., Any], ulps: float = 1) -> Rule:
    """A function whose slope is at most 1 in absolute value."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        return _rounded(function(x.value), x.error * 1.0, unit, ulps)

    return rule


def even_function(function: Callable[[Any], Any], ulps: float) -> Rule:
    """An even function that rises with |x|."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        value = function(np.abs(x.value))
        return _rounded(value, function(x.size) - value, unit, ulps)

    return rule


def power(e: Equation, unit: float, x: Ball) -> Ball:
    """A whole power rises with |x|; a negative one is a quotient."""
    n = int(e.params.get("y", 2))
    if n >= 0:
        error = x.size**n - np.abs(x.value) ** n
        return _rounded(x.value**n, error, unit, 2 * n + 1)
    whole = _rounded(x.value**-n, x.size**-n - np.abs(x.value) ** -n, unit, 2 - 2 * n)
    return divide(e, unit, Ball(np.ones(()), np.zeros(())), whole)


def general_power(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """X^y = exp(y log x) for x > 0."""
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


def largest(e: Equation, unit: float, *xs: Ball) -> Ball:
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


def reduce_sum(e: Equation, unit: float, x: Ball) -> Ball:
    """The errors add up; n terms are rounded n times at most."""
    axes = tuple(e.params["axes"])
    count = math.prod(x.value.shape[k] for k in axes)
    error = np.broadcast_to(x.error, x.value.shape).sum(axes)
    return Ball(x.value.sum(axes), error + (count + 1) * unit * x.size.sum(axes))


def product(e: Equation, unit: float, x: Ball) -> Ball:
    """The product of the sizes less that of the values."""
    axes = tuple(e.params["axes"])
    count = math.prod(x.value.shape[k] for k in axes)
    sizes, plain = x.size.prod(axes), np.abs(x.value).prod(axes)
    return Ball(x.value.prod(axes), sizes - plain + 2 * count * unit * sizes)


def extreme(function: Callable[..., Any]) -> Rule:
    """A maximum moves no further than its arguments do."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        axes = tuple(e.params["axes"])
        error = np.broadcast_to(x.error, x.value.shape).max(axes, initial=0.0)
        return Ball(function(x.value, axes), error)

    return rule


def running(function: Callable[..., Any], adds: bool) -> Rule:
    """Make the rule of a running sum, or of a running maximum."""

    def rule(e: Equation, unit: float, x: Ball) -> Ball:
        axis = e.params["axis"]

        def run(step: Callable[..., Any], a: np.ndarray) -> np.ndarray:
            flipped = np.flip(a, axis) if e.params["reverse"] else a
            result = step(flipped, axis)
            return np.flip(result, axis) if e.params["reverse"] else result

        errors = np.broadcast_to(x.error, x.value.shape)
        value, count = run(function, x.value), x.value.shape[axis]
        if not adds:
            return Ball(value, run(np.maximum.accumulate, errors))
        sizes = run(np.cumsum, x.size)
        return Ball(value, run(np.cumsum, errors) + (count + 1) * unit * sizes)

    return rule


def log_sums(e: Equation, unit: float, x: Ball) -> Ball:
    """As many steps of log-sum-exp as the axis is long."""
    axis = e.params["axis"]
    flipped = np.flip(x.value, axis) if e.params["reverse"] else x.value
    value = np.logaddexp.accumulate(flipped, axis)
    value = np.flip(value, axis) if e.params["reverse"] else value
    error = np.max(x.error, initial=0.0)
    steps = 16 * x.value.shape[axis] * unit
    return Ball(value, error + steps * (np.abs(value) + error + x.size.max(initial=0)))


def dot_general(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """Sums of products: see `multiply` and `reduce_sum`."""
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


def compare(test: Callable[..., Any]) -> Rule:
    """Make the rule of a comparison."""

    def rule(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
        """What rounding may turn about is a boolean with an error of 1."""
        with np.errstate(all="ignore"):
            distance = np.abs(x.value - y.value)
        error = x.error + y.error
        open_ = (distance <= error) & (error > 0)
        return Ball(test(x.value, y.value) * 1.0, open_ * 1.0)

    return rule


def logic(function: Callable[..., Any]) -> Rule:
    """Make the rule of a logical function: open where an operand is."""

    def rule(e: Equation, unit: float, *xs: Ball) -> Ball:
        value = function(*(x.value != 0 for x in xs)) * 1.0
        error = functools.reduce(np.maximum, (x.error for x in xs))
        return Ball(value, np.broadcast_to(error, np.shape(value)))

    return rule


def select_n(e: Equation, unit: float, which: Ball, *cases: Ball) -> Ball:
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


def cast(e: Equation, unit: float, x: Ball) -> Ball:
    """To booleans: open where the error reaches 0; to floats: rounded."""
    if dtypes.is_boolean(e.dtype):
        return Ball((x.value != 0) * 1.0, (np.abs(x.value) <= x.error) * (x.error > 0))
    return _rounded(x.value, x.error * 1.0, unit)


def is_finite(e: Equation, unit: float, x: Ball) -> Ball:
    """What is infinite is so exactly: a literal."""
    return Ball(np.isfinite(x.value) * 1.0, np.zeros(()))


def sort(e: Equation, unit: float, x: Ball, *more: Ball) -> Ball:
    """The k-th smallest moves no further than any element does."""
    if more:
        raise Unbounded("a sort of several arrays")
    axis = e.params["dimension"]
    error = np.broadcast_to(x.error, x.value.shape).max(axis, keepdims=True, initial=0)
    return Ball(np.sort(x.value, axis), np.broadcast_to(error, x.value.shape))


def xlogy(e: Equation, unit: float, x: Ball, y: Ball) -> Ball:
    """See `multiply`."""
    return multiply(e, unit, x, LOG(e, unit, y))


LOG = monotone(np.log, 64)
SQRT = monotone(np.sqrt, 4)


def fourier_transform(
    e: Equation, unit: float, real: Ball, imaginary: Ball
) -> list[Ball]:
    """Each part adds up parts times numbers of at most 1, in log n steps."""
    lengths = tuple(e.params["fft_lengths"])
    axes = tuple(range(-len(lengths), 0))
    count = math.prod(lengths)
    name = e.params["fft_type"].name
    function = getattr(np.fft, f"{name.lower()}n")
    options = {"s": lengths} if name == "IRFFT" else {}
    given = real.value if name == "RFFT" else real.value + 1j * imaginary.value
    found = function(given, axes=axes, **options)
    balls = (real, imaginary)
    errors = [np.broadcast_to(b.error, b.value.shape) for b in balls]
    moved = sum(2 * error.sum(axes, keepdims=True) for error in errors)
    whole = sum(2 * ball.size.sum(axes, keepdims=True) for ball in balls)
    steps = 16 * (1 + math.ceil(math.log2(max(count, 1))))
    error = np.broadcast_to(moved + steps * unit * (whole + moved), found.shape)
    parts = [found.real, found.imag][: len(e.outputs)]
    return [Ball(part, error) for part in parts]


def reciprocal_root(e: Equation, unit: float, x: Ball) -> Ball:
    """1 / sqrt(x)."""
    return divide(e, unit, Ball(np.ones(()), np.zeros(())), SQRT(e, unit, x))
