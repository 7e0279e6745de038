"""Identities that look further back: normal distributions, complements, units.

- the normal distribution as jax writes it, by cases, is erfc(-w) / 2 throughout, and
  1 - erfc(w) / 2 = erfc(-w) / 2;
- z or exp(z) - 1, by the sign of z, is convex;
- 1 - exp(-z) is log-concave for a log-concave z > 0, concave for a concave one.

Example:
  >>> import jax
  >>> from phihat.convexity import prove_convexity
  >>> prove_convexity(jax.nn.elu, 0.0).verdict.name
  'PROVED_CONVEX'
"""

from collections.abc import Sequence
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

__all__ = ["EXPRESSIONS", "is_number", "joined_with_rule", "writer"]


def writer(interpreter: Any, number: int, *primitives: str) -> Equation | None:
    """Return the equation that writes a value, if it is of one of these primitives."""
    equation = interpreter.producers.get(number)
    return equation if equation and equation.primitive in primitives else None


def is_number(array: Array, value: float) -> bool:
    """Whether all elements of an array are one known number."""
    return all(f.constant and f.is_point and f.low == value for f in array.classes)


def joined_with_rule(
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


def _minus_argument_of_erfc(interpreter: Any, number: int) -> int | None:
    """Return w where a value is erfc(-w), however it is written."""
    values = interpreter.values
    one = writer(interpreter, number, "add")
    if one is not None:  # 1 + erf(w)
        for first, rest in (one.inputs, one.inputs[::-1]):
            source = writer(interpreter, rest, "erf")
            if source is not None and is_number(values[first], 1.0):
                return source.inputs[0]
        return None
    choice = writer(interpreter, number, "select_n")
    if choice is None or len(choice.inputs) != 3:
        return None
    which, below, above = choice.inputs
    found = [_minus_argument_of_erfc(interpreter, n) for n in (below, above)]
    if found[0] is not None and found[0] == found[1]:
        return found[0]
    # erfc(|w|) where w <= 0 and 2 - erfc(|w|) where w > 0
    test = writer(interpreter, which, "gt")
    two = writer(interpreter, above, "sub")
    low = writer(interpreter, below, "erfc")
    if test is None or two is None or low is None:
        return None
    high = writer(interpreter, two.inputs[1], "erfc")
    if high is None or not is_number(values[two.inputs[0]], 2.0):
        return None
    sizes = [writer(interpreter, side.inputs[0], "abs") for side in (low, high)]
    w = test.inputs[0]
    if (
        sizes[0] is None
        or sizes[1] is None
        or not is_number(values[test.inputs[1]], 0.0)
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
    w = _minus_argument_of_erfc(interpreter, equation.outputs[0])
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
    half = writer(interpreter, equation.inputs[1], "mul")
    shape, values = interpreter.shape(equation), interpreter.values
    if half is None or not is_number(inputs[0], 1.0):
        return None
    for c, rest in (half.inputs, half.inputs[::-1]):
        w = _minus_argument_of_erfc(interpreter, rest)
        if w is None or values[w].shape != shape or not is_number(values[c], 0.5):
            continue

        def function(c: Facts, f: Facts) -> Facts:
            return multiply(call, c, complementary_error_function(call, f))

        other = elementwise(function, [values[c], values[w]], shape)
        return joined_with_rule(interpreter, equation, inputs, call, other)
    return None


# ------------------------------------------------------------ complements in logarithms


def _complemented(interpreter: Any, number: int, call: Call) -> Array | None:
    """Return 1 - s where a value is -s, for s = sigmoid(z): it is sigmoid(-z)."""
    negation = writer(interpreter, number, "neg")
    if negation is None:
        return None
    source = writer(interpreter, negation.inputs[0], "logistic")
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
        source = writer(interpreter, equation.inputs[1], "exp")
        source = source if is_number(inputs[0], 1.0) else None
    else:
        source = writer(interpreter, equation.inputs[0], "expm1")
    if source is None:
        return None
    values, shape = interpreter.values, interpreter.shape(equation)
    exponent = values[source.inputs[0]]
    negation = writer(interpreter, source.inputs[0], "neg")
    if negation is None:
        z = elementwise(lambda f: negative(call, f), [exponent], exponent.shape)
    else:
        z = values[negation.inputs[0]]
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

    return joined_with_rule(
        interpreter, equation, inputs, call, elementwise(function, [z], shape)
    )


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
    equation = writer(interpreter, number, *names)
    if equation is None or not is_number(interpreter.values[equation.inputs[1]], 0.0):
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
    multiple = writer(interpreter, number, "mul")
    if multiple is not None:
        c, number = multiple.inputs
        if not values[c].is_constant:
            c, number = number, c
        if not values[c].is_constant or values[c].point is None:
            return False
        factor = np.asarray(values[c].point)
    source = writer(interpreter, number, "expm1")
    if source is None:
        return False
    (number,) = source.inputs
    ratio = writer(interpreter, number, "div")
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
    inner = writer(interpreter, number, "select_n")
    return number == z or (
        inner is not None
        and len(inner.inputs) == 3
        and inner.inputs[:2] == (which, z)
        and is_number(values[inner.inputs[2]], 0.0)
    )


EXPRESSIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    "add": (("exponential linear unit", _elu),),
    "log1p": (("log(1 - sigmoid)", _log_of_complement),),
    "neg": (("1 - exp(-z)", _saturation),),
    "select_n": (
        ("erfc by cases", _erfc_by_cases),
        ("exponential linear unit", _elu),
    ),
    "sub": (
        ("1 - erfc / 2", _complement_of_normal),
        ("1 - exp(-z)", _saturation),
    ),
    "xlog1py": (("log(1 - sigmoid)", _log_of_complement),),
}
"""The identities to try at each primitive, with the name that certificates give."""
