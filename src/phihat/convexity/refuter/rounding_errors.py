r"""How far rounding may take a program's value: a running error analysis.

Each value is a ball: a centre in float64, and a bound on the distance of what the
user's own floats hold from the real number that the program denotes. Through each
equation the bound of its inputs is carried, and the rounding of its own dtype is added,
$|\mathrm{fl}(x \circ y) - x \circ y| \le u\,|x \circ y|$, as are some ulps for a
function that XLA computes less well. So a sum of large numbers that cancel has a large
bound, though its value is small. What no rule bounds raises `Unbounded`.

References:
  Higham, *Accuracy and Stability of Numerical Algorithms*, 2002, section 3.3.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.primitives.errors import Ball, Unbounded
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.structure import (
    INDEXED,
    STRUCTURAL,
    Unknown,
    group_of_updates,
    move,
)

__all__ = ["Unbounded", "value_and_error"]


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
            values[n] = _narrowed(_exact(constants[n]), program.narrowed.get(n))
        return values[n]

    with np.errstate(all="ignore"):
        for equation in program.equations:
            inputs = [read(n) for n in equation.inputs]
            outputs = _results(equation, inputs)
            if any(map(_is_infinite, outputs)) and not any(map(_is_infinite, inputs)):
                raise Unbounded("a value that overflows")
            for n, ball in zip(equation.outputs, outputs, strict=True):
                ball = _narrowed(ball, program.narrowed.get(n))
                values[n] = _checked(ball, program.dtypes[n])
        value, error = read(program.output)
    return float(value), float(error)


def _is_infinite(ball: Ball) -> bool:
    return not np.isfinite(ball.value).all()


def _narrowed(ball: Ball, dtype: Any) -> Ball:
    """Add the rounding of a cast that the program reads as the identity."""
    if dtype is None:
        return ball
    kind = jnp.finfo(dtype)
    if (ball.size > float(kind.max) / 2).any():
        raise Unbounded("a value that overflows in a cast")
    return Ball(ball.value, ball.error + float(kind.eps) * ball.size + float(kind.tiny))


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
    rule = record(name).error
    if rule is None:
        raise Unbounded(f"`{name}` has no bound")
    unit = float(jnp.finfo(dtype).eps) if dtypes.is_float(dtype) else 0.0
    found = rule(equation, unit, *inputs)
    return [found] if isinstance(found, Ball) else found


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


_ON_BOOLEANS = {
    *("and", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "not", "or", "xor"),
    *("convert_element_type", "reduce_and", "reduce_or", "select_n"),
}
