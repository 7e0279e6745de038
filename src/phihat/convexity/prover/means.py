"""Identities of means and of gamma functions.

- the reciprocal of a sum of reciprocals, a harmonic mean, is concave;
- exp(sum a log z), a geometric mean, is concave for a >= 0 of a sum <= 1;
- sum lgamma(z) - lgamma(sum z), the logarithm of a beta function, is convex.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import Box
  >>> from phihat.convexity import prove_convexity
  >>> mean = lambda x: 1.0 / jnp.mean(1.0 / x)
  >>> prove_convexity(mean, jnp.ones(2), domain=Box(0.5, 2.0)).verdict.name
  'PROVED_CONCAVE'
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Call
from phihat.convexity.primitives.facts.facts import Facts, closed
from phihat.convexity.program.form import Equation
from phihat.convexity.prover.expressions import joined_with_rule, writer

__all__ = ["MEANS"]

_MOVES = {
    *("broadcast_in_dim", "concatenate", "expand_dims", "reshape", "rev", "row"),
    *("slice", "squeeze", "stack", "transpose"),
}
"""What only moves elements, and makes none of its own."""

_MAX_DEPTH = 32


def _has_concave_reciprocal(interpreter: Any, number: int, depth: int = 0) -> bool:
    """Whether all elements are > 0 and have reciprocals that are concave.

    With f_i = 1 / z_i concave, 1 / sum z_i = (sum f_i^-1)^-1 is a power mean of the
    exponent -1, concave and rising in each f_i.
    """
    values = interpreter.values
    value = values[number]
    if value.is_constant:
        return all(f.positive and f.total for f in value.classes)
    equation = interpreter.producers.get(number)
    if equation is None or depth > _MAX_DEPTH or not value.size:
        return False
    name, given = equation.primitive, equation.inputs

    def follow(n: int) -> bool:
        return _has_concave_reciprocal(interpreter, n, depth + 1)

    def is_above(n: int) -> bool:
        array = values[n]
        return array.is_constant and all(f.positive and f.total for f in array.classes)

    if name == "div" and is_above(given[0]):
        return all(f.positive and f.concave for f in values[given[1]].classes)
    if name == "integer_pow" and equation.params["y"] == -1:
        return all(f.positive and f.concave for f in values[given[0]].classes)
    if name in ("add", "add_any") or name in _MOVES:
        return all(map(follow, given))
    if name == "reduce_sum":
        return values[given[0]].size > 0 and follow(given[0])
    if name == "div":
        return is_above(given[1]) and follow(given[0])
    if name == "mul":
        return any(is_above(c) and follow(rest) for c, rest in (given, given[::-1]))
    return False


def _harmonic_mean(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """C / sum(c / z) is concave for concave z > 0 and constants > 0."""
    below = equation.inputs[-1]
    if equation.primitive == "div":
        if not inputs[0].is_constant or not all(
            f.positive and f.total for f in inputs[0].classes
        ):
            return None
    elif equation.params["y"] != -1:
        return None
    if inputs[-1].is_constant or not _has_concave_reciprocal(interpreter, below):
        return None
    total = inputs[-1].facts.total
    known = closed(Facts(low=0.0, concave=True, positive=True, total=total))
    other = Array.of(known, interpreter.shape(equation))
    if equation.primitive == "div":
        return joined_with_rule(interpreter, equation, inputs, call, other)
    return other


def _weight_of_logs(interpreter: Any, number: int, depth: int = 0) -> Fraction | None:
    """Return a bound of sum a / q where all elements are sum a log z + constant.

    The a are >= 0, and q is that of z; None where an element is anything else.
    """
    values = interpreter.values
    value = values[number]
    if value.is_constant:
        return Fraction(0) if all(f.total for f in value.classes) else None
    equation = interpreter.producers.get(number)
    if equation is None or depth > _MAX_DEPTH or not value.size:
        return None
    name, given = equation.primitive, equation.inputs

    def follow(n: int) -> Fraction | None:
        return _weight_of_logs(interpreter, n, depth + 1)

    if name == "log":
        return _largest_inverse(values[given[0]])
    if name in ("add", "add_any"):
        parts = [follow(n) for n in given]
        return None if None in parts else sum(parts, Fraction(0))  # type: ignore
    if name in _MOVES:
        parts = [follow(n) for n in given]
        return None if None in parts else max(parts)  # type: ignore
    if name == "reduce_sum":
        weight = follow(given[0])
        count = values[given[0]].size // value.size
        return None if weight is None else weight * count
    if name in ("mul", "div"):
        pairs = (given, given[::-1]) if name == "mul" else (given[::-1],)
        for c, rest in pairs:
            weight = follow(rest) if values[c].is_constant else None
            factor = _largest_factor(values[c], inverse=name == "div")
            if weight is not None and factor is not None:
                return weight * factor
    if name == "dot_general" and value.shape == ():
        for c, rest in (given, given[::-1]):
            point = values[c].point if values[c].is_constant else None
            weight = None if point is None else follow(rest)
            if weight is not None and (np.asarray(point) >= 0).all():
                entries = np.asarray(point).reshape(-1)
                return weight * sum(map(Fraction, map(float, entries)), Fraction(0))
    return None


def _largest_inverse(z: Array) -> Fraction | None:
    found = Fraction(0)
    for f in z.classes:
        if f.q is None or f.q == 0:
            return None
        found = max(found, Fraction(0) if f.q == math.inf else 1 / Fraction(f.q))
    return found


def _largest_factor(c: Array, *, inverse: bool) -> Fraction | None:
    """Return the largest of constants >= 0, or of the inverses of ones > 0."""
    found = Fraction(0)
    for f in c.classes:
        end = f.low if inverse else f.high
        if f.low < 0 or not f.total or not math.isfinite(end) or (inverse and end <= 0):
            return None
        found = max(found, 1 / Fraction(end) if inverse else Fraction(end))
    return found


def _geometric_mean(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """exp(sum a log z) is the product of powers z^a: 1/q = sum a / q (Cauchy)."""
    weight = _weight_of_logs(interpreter, equation.inputs[0])
    if not weight:
        return None
    q = 1 / weight
    known = closed(Facts(low=0.0, q=q, positive=True, total=inputs[0].facts.total))
    other = Array.of(known, interpreter.shape(equation))
    return joined_with_rule(interpreter, equation, inputs, call, other)


# --------------------------------------------------------------------- gamma functions


def _summands(
    interpreter: Any, number: int, within: str | None, times: int = 1
) -> Iterator[tuple[int, int]]:
    """Yield what a scalar adds up: the number of a value, and over how many elements.

    `within` names a function; then what it is applied to is yielded.
    """
    equation = interpreter.producers.get(number)
    name = equation.primitive if equation else ""
    if equation and within is not None and name == within:
        yield equation.inputs[0], times
    elif equation and name in ("add", "add_any") and times == 1:
        for n in equation.inputs:
            yield from _summands(interpreter, n, within)
    elif equation and name == "reduce_sum" and times == 1:
        (n,) = equation.inputs
        yield from _summands(interpreter, n, within, interpreter.values[n].size)
    elif within is None:
        yield number, times
    else:
        yield -1, times


def _in_pairs(interpreter: Any, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Replace the smaller and the larger of two scalars by the two, and sort."""
    left, found = list(parts), []
    for part in parts:
        low = writer(interpreter, part[0], "min")
        for other in left:
            high = writer(interpreter, other[0], "max")
            is_open = part in left and part[1] == other[1] == 1
            if not (low and high and is_open):
                continue
            if sorted(low.inputs) == sorted(high.inputs):
                left.remove(part)
                left.remove(other)
                found += [(n, 1) for n in low.inputs]
                break
    return sorted(left + found)


def _log_beta(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """Sum lgamma(z) - lgamma(sum z) is convex for affine z > 0.

    It is the logarithm of the integral of prod t^(z - 1) over the simplex (Dirichlet),
    of exponentials of affine functions of z. The difference may be the second summand.
    """
    above, difference = [equation.inputs[0]], equation
    if equation.primitive == "add":
        inner = writer(interpreter, equation.inputs[1], "sub")
        if inner is None:
            return None
        above, difference = [equation.inputs[0], inner.inputs[0]], inner
    whole = writer(interpreter, difference.inputs[1], "lgamma")
    if whole is None or interpreter.shape(equation) != ():
        return None
    parts = [p for n in above for p in _summands(interpreter, n, "lgamma")]
    parts = _in_pairs(interpreter, parts)
    total = _in_pairs(interpreter, [*_summands(interpreter, whole.inputs[0], None)])
    if parts != total or not parts:
        return None
    arrays = [interpreter.values[n] for n, _ in parts]
    if not all(f.affine and f.positive for z in arrays for f in z.classes):
        return None
    if any(z.size != times for z, (_, times) in zip(arrays, parts, strict=True)):
        return None
    is_total = all(z.facts.total for z in arrays)
    other = Array.of(closed(Facts(convex=True, total=is_total)))
    return joined_with_rule(interpreter, equation, inputs, call, other)


MEANS: dict[str, tuple[tuple[str, Any], ...]] = {
    "add": (("log-beta", _log_beta),),
    "div": (("harmonic mean", _harmonic_mean),),
    "exp": (("geometric mean", _geometric_mean),),
    "integer_pow": (("harmonic mean", _harmonic_mean),),
    "sub": (("log-beta", _log_beta),),
}
"""The identities to try at each primitive, with the name that certificates give."""
