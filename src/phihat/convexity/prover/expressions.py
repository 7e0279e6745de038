"""Identities that look further back: means, normal distributions, gamma functions.

- the normal distribution as jax writes it, by cases, is erfc(-w) / 2 throughout, and
  1 - erfc(w) / 2 = erfc(-w) / 2;
- z or exp(z) - 1, by the sign of z, is convex;
- 1 - exp(-z) is log-concave for a log-concave z > 0, concave for a concave one;
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

from phihat.convexity.primitives.facts.arithmetic import multiply, negative
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Call
from phihat.convexity.primitives.facts.combining import elementwise
from phihat.convexity.primitives.facts.facts import Facts, closed, meet
from phihat.convexity.primitives.facts.functions import (
    complementary_error_function,
    logistic,
)
from phihat.convexity.primitives.facts.powers import logarithm
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation

__all__ = ["FURTHER"]

_MOVES = {
    *("broadcast_in_dim", "concatenate", "expand_dims", "reshape", "rev", "row"),
    *("slice", "squeeze", "stack", "transpose"),
}
"""What only moves elements, and makes none of its own."""

_MAX_DEPTH = 32


def _writer(interpreter: Any, number: int, *primitives: str) -> Equation | None:
    equation = interpreter.producers.get(number)
    return equation if equation and equation.primitive in primitives else None


def _is_number(array: Array, value: float) -> bool:
    return all(f.constant and f.is_point and f.low == value for f in array.classes)


def _met(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call, to: Array
) -> Array:
    """Return what both the rule and the identity know of the output."""
    rule = record(equation.primitive).facts
    shape = interpreter.shape(equation)
    if rule is None:
        return to
    plain = elementwise(lambda *facts: rule(call, *facts), inputs, shape)
    return elementwise(meet, [plain, to], shape)


# -------------------------------------------------------------- the normal distribution


def _turned_erfc(interpreter: Any, number: int) -> int | None:
    """Return w where a value is erfc(-w), however it is written."""
    values = interpreter.values
    one = _writer(interpreter, number, "add")
    if one is not None:  # 1 + erf(w)
        for first, rest in (one.inputs, one.inputs[::-1]):
            source = _writer(interpreter, rest, "erf")
            if source is not None and _is_number(values[first], 1.0):
                return source.inputs[0]
        return None
    choice = _writer(interpreter, number, "select_n")
    if choice is None or len(choice.inputs) != 3:
        return None
    which, below, above = choice.inputs
    found = [_turned_erfc(interpreter, n) for n in (below, above)]
    if found[0] is not None and found[0] == found[1]:
        return found[0]
    # erfc(|w|) where w <= 0 and 2 - erfc(|w|) where w > 0
    test = _writer(interpreter, which, "gt")
    two = _writer(interpreter, above, "sub")
    low = _writer(interpreter, below, "erfc")
    if test is None or two is None or low is None:
        return None
    high = _writer(interpreter, two.inputs[1], "erfc")
    if high is None or not _is_number(values[two.inputs[0]], 2.0):
        return None
    sizes = [_writer(interpreter, side.inputs[0], "abs") for side in (low, high)]
    w = test.inputs[0]
    if (
        sizes[0] is None
        or sizes[1] is None
        or not _is_number(values[test.inputs[1]], 0.0)
    ):
        return None
    return w if sizes[0].inputs[0] == sizes[1].inputs[0] == w else None


def _erfc_by_cases(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """Each case is 1 + erf(w) = 2 - erfc(w) = erfc(-w), so the choice is, too."""
    if len(inputs) != 3:
        return None
    interpreter.producers[equation.outputs[0]] = equation
    w = _turned_erfc(interpreter, equation.outputs[0])
    shape = interpreter.shape(equation)
    if w is None or interpreter.values[w].shape != shape:
        return None
    return elementwise(
        lambda f: complementary_error_function(call, negative(call, f)),
        [interpreter.values[w]],
        shape,
    )


def _complement_of_normal(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """1 - erfc(-w) / 2 = erfc(w) / 2."""
    half = _writer(interpreter, equation.inputs[1], "mul")
    shape, values = interpreter.shape(equation), interpreter.values
    if half is None or not _is_number(inputs[0], 1.0):
        return None
    for c, rest in (half.inputs, half.inputs[::-1]):
        w = _turned_erfc(interpreter, rest)
        if w is None or values[w].shape != shape or not _is_number(values[c], 0.5):
            continue

        def function(c: Facts, f: Facts) -> Facts:
            return multiply(call, c, complementary_error_function(call, f))

        other = elementwise(function, [values[c], values[w]], shape)
        return _met(interpreter, equation, inputs, call, other)
    return None


# ------------------------------------------------------------ complements in logarithms


def _complemented(interpreter: Any, number: int, call: Call) -> Array | None:
    """Return 1 - s where a value is -s, for s = sigmoid(z): it is sigmoid(-z)."""
    turned = _writer(interpreter, number, "neg")
    if turned is None:
        return None
    source = _writer(interpreter, turned.inputs[0], "logistic")
    if source is None:
        return None
    z = interpreter.values[source.inputs[0]]
    return elementwise(lambda f: logistic(call, negative(call, f)), [z], z.shape)


def _log_of_complement(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """log(1 - sigmoid(z)) = log sigmoid(-z), in log1p and in x log(1 + y)."""
    rest = _complemented(interpreter, equation.inputs[-1], call)
    shape = interpreter.shape(equation)
    if rest is None or rest.shape != shape:
        return None
    if equation.primitive == "log1p":
        return elementwise(lambda f: logarithm(call, f), [rest], shape)
    if not inputs[0].is_constant:
        return None
    return elementwise(
        lambda x, f: multiply(call, x, logarithm(call, f)), [inputs[0], rest], shape
    )


def _saturation(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """1 - exp(-z) for z > 0 is concave in z and rises; in log z its log is, too.

    With z = e^v, h(v) = log(1 - exp(-z)) has h' = z / (e^z - 1) > 0, which falls as z
    rises. So a log-concave z gives a log-concave 1 - exp(-z), and a concave z a concave
    one. It is written so, or as -expm1(-z).
    """
    if equation.primitive == "sub":
        source = _writer(interpreter, equation.inputs[1], "exp")
        source = source if _is_number(inputs[0], 1.0) else None
    else:
        source = _writer(interpreter, equation.inputs[0], "expm1")
    if source is None:
        return None
    values, shape = interpreter.values, interpreter.shape(equation)
    exponent = values[source.inputs[0]]
    turned = _writer(interpreter, source.inputs[0], "neg")
    if turned is None:
        z = elementwise(lambda f: negative(call, f), [exponent], exponent.shape)
    else:
        z = values[turned.inputs[0]]
    if z.shape != shape or not all(f.positive for f in z.classes):
        return None

    def function(f: Facts) -> Facts:
        return closed(
            Facts(
                0.0,
                1.0,
                concave=f.concave,
                q=None if f.q is None else Fraction(f.concave),
                positive=True,
                total=f.total,
            )
        )

    return _met(interpreter, equation, inputs, call, elementwise(function, [z], shape))


# ------------------------------------------------------------ exponential linear units


def _elu(
    interpreter: Any, equation: Equation, _: Sequence[Array], __: Call
) -> Array | None:
    """Z where z > 0, and c (exp(z / d) - 1) where not: convex and rising for c <= d.

    Both pieces are 0 at 0, where the slope goes from c / d up to 1. It is written as a
    choice, or as max(z, 0) + c expm1(min(z, 0) / d).
    """
    if equation.primitive == "add":
        for part, rest in (equation.inputs, equation.inputs[::-1]):
            z = _compared_with_zero(interpreter, part, "max")
            if z is not None and _below_zero(interpreter, rest, z):
                break
        else:
            return None
    else:
        if len(equation.inputs) != 3:
            return None
        which, rest, z = equation.inputs
        if _compared_with_zero(interpreter, which, "gt", "ge") != z:
            return None
        if not _below_zero(interpreter, rest, z, which):
            return None
    value, shape = interpreter.values[z], interpreter.shape(equation)
    if value.shape != shape:
        return None
    return elementwise(
        lambda f: closed(Facts(convex=f.convex, total=f.total)), [value], shape
    )


def _compared_with_zero(interpreter: Any, number: int, *names: str) -> int | None:
    """Return z of max(z, 0), of min(z, 0) or of z > 0."""
    equation = _writer(interpreter, number, *names)
    if equation is None or not _is_number(interpreter.values[equation.inputs[1]], 0.0):
        return None
    return equation.inputs[0]


def _below_zero(
    interpreter: Any, number: int, z: int, which: int | None = None
) -> bool:
    """Whether a value is c expm1(z / d) with 0 <= c <= d, where z is not above 0.

    Without `which`, it must be so of min(z, 0) in place of z.
    """
    values = interpreter.values
    factor, scale = np.ones(()), np.ones(())
    multiple = _writer(interpreter, number, "mul")
    if multiple is not None:
        c, number = multiple.inputs
        if not values[c].is_constant:
            c, number = number, c
        if not values[c].is_constant or values[c].point is None:
            return False
        factor = np.asarray(values[c].point)
    source = _writer(interpreter, number, "expm1")
    if source is None:
        return False
    (number,) = source.inputs
    ratio = _writer(interpreter, number, "div")
    if ratio is not None and number != z:
        number, d = ratio.inputs
        if not values[d].is_constant or values[d].point is None:
            return False
        scale = np.asarray(values[d].point)
    if not ((factor >= 0) & (scale > 0) & (factor <= scale)).all():
        return False
    if _compared_with_zero(interpreter, number, "min") == z:
        return True
    if which is None:
        return False
    inner = _writer(interpreter, number, "select_n")
    return number == z or (
        inner is not None
        and len(inner.inputs) == 3
        and inner.inputs[:2] == (which, z)
        and _is_number(values[inner.inputs[2]], 0.0)
    )


# ------------------------------------------------------------------------------- means


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
        return _met(interpreter, equation, inputs, call, other)
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
    return _met(interpreter, equation, inputs, call, other)


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


def _log_beta(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """Sum lgamma(z) - lgamma(sum z) is convex for affine z > 0.

    It is the logarithm of the integral of prod t^(z - 1) over the simplex (Dirichlet),
    of exponentials of affine functions of z.
    """
    whole = _writer(interpreter, equation.inputs[1], "lgamma")
    if whole is None or interpreter.shape(equation) != ():
        return None
    parts = sorted(_summands(interpreter, equation.inputs[0], "lgamma"))
    if parts != sorted(_summands(interpreter, whole.inputs[0], None)) or not parts:
        return None
    arrays = [interpreter.values[n] for n, _ in parts]
    if not all(f.affine and f.positive for z in arrays for f in z.classes):
        return None
    if any(z.size != times for z, (_, times) in zip(arrays, parts, strict=True)):
        return None
    total = all(z.facts.total for z in arrays)
    other = Array.of(closed(Facts(convex=True, total=total)))
    return _met(interpreter, equation, inputs, call, other)


FURTHER: dict[str, tuple[tuple[str, Any], ...]] = {
    "add": (("exponential linear unit", _elu),),
    "div": (("harmonic mean", _harmonic_mean),),
    "exp": (("geometric mean", _geometric_mean),),
    "integer_pow": (("harmonic mean", _harmonic_mean),),
    "log1p": (("log(1 - sigmoid)", _log_of_complement),),
    "neg": (("1 - exp(-z)", _saturation),),
    "select_n": (
        ("erfc by cases", _erfc_by_cases),
        ("exponential linear unit", _elu),
    ),
    "sub": (
        ("1 - erfc / 2", _complement_of_normal),
        ("1 - exp(-z)", _saturation),
        ("log-beta", _log_beta),
    ),
    "xlog1py": (("log(1 - sigmoid)", _log_of_complement),),
}
"""The identities to try at each primitive, with the name that certificates give."""
