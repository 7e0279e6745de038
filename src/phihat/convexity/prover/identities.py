"""Identities of real functions that a rule for one primitive cannot see.

Each looks one or two equations back:

- 1 - sigmoid(z) = sigmoid(-z), and 1 - 1/(1 + E) = E / (1 + E);
- z^a z^b = z^(a + b) for z >= 0;
- z log z is convex, x log(x / y) jointly convex, for affine arguments;
- sigmoid(u) - sigmoid(v) = sigmoid(u) sigmoid(-v) (1 - exp(v - u)), so that its
  logarithm, an ordinal likelihood, is concave for affine u > v.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from phihat.convexity.primitives.facts.arithmetic import negative
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Call, Undecided
from phihat.convexity.primitives.facts.combining import elementwise
from phihat.convexity.primitives.facts.facts import Facts, closed
from phihat.convexity.primitives.facts.functions import (
    logistic,
    relative_entropy,
    z_log_z,
)
from phihat.convexity.primitives.facts.powers import divide, power
from phihat.convexity.program.form import Equation
from phihat.convexity.prover.expressions import (
    EXPRESSIONS,
    is_number,
    joined_with_rule,
    writer,
)
from phihat.convexity.prover.means import MEANS
from phihat.convexity.prover.not_a_number import NOT_A_NUMBER_TESTS

__all__ = ["identity"]


def identity(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> tuple[list[Array], str] | None:
    """Return the output by an identity that applies, and its name; else None."""
    primitive = equation.primitive
    for name, find in _BY_PRIMITIVE.get(primitive, ()):
        mark = len(call.constraints)
        try:
            array = find(interpreter, equation, inputs, call)
        except Undecided:  # its premise fails; the rule may still hold
            array = None
        if array is not None:
            return [array], name
        del call.constraints[mark:]
    return None


def _complement(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """1 - sigmoid(z) = sigmoid(-z)."""
    source = writer(interpreter, equation.inputs[1], "logistic")
    shape = interpreter.shape(equation)
    if source is None or not is_number(inputs[0], 1.0) or inputs[1].shape != shape:
        return None
    z = interpreter.values[source.inputs[0]]
    other = elementwise(lambda f: logistic(call, negative(call, f)), [z], shape)
    return joined_with_rule(interpreter, equation, inputs, call, other)


def _complement_of_ratio(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """1 - 1 / (1 + E) = E / (1 + E) for E > 0."""
    ratio = writer(interpreter, equation.inputs[1], "div")
    shape = interpreter.shape(equation)
    if ratio is None or not is_number(inputs[0], 1.0) or inputs[1].shape != shape:
        return None
    values = interpreter.values
    below = writer(interpreter, ratio.inputs[1], "add")
    if below is None or not is_number(values[ratio.inputs[0]], 1.0):
        return None
    for one, rest in (below.inputs, below.inputs[::-1]):
        e = values[rest]
        if not is_number(values[one], 1.0) or e.shape != shape or e.is_constant:
            continue
        if all(f.positive for f in e.classes):
            sides = [e, values[ratio.inputs[1]]]
            other = elementwise(lambda x, y: divide(call, x, y), sides, shape)
            return joined_with_rule(interpreter, equation, inputs, call, other)
    return None


def _entropy(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """Z log z and x log(x / y), by `z_log_z` and `relative_entropy`."""
    shape, values = interpreter.shape(equation), interpreter.values
    if any(array.shape != shape or array.is_constant for array in inputs):
        return None
    for x, logged in (equation.inputs, equation.inputs[::-1]):
        if not all(f.affine for f in values[x].classes):
            continue
        source = writer(interpreter, logged, "log")
        if source is not None and source.inputs[0] == x:
            return elementwise(lambda f: z_log_z(call, f), [values[x]], shape)
        y = _divisor(interpreter, logged, x)
        if y is None or values[y].shape not in (shape, ()):
            continue
        if all(f.affine for f in values[y].classes):
            sides = [values[x], values[y]]
            return elementwise(lambda f, g: relative_entropy(call, f, g), sides, shape)
    return None


def _divisor(interpreter: Any, logged: int, x: int) -> int | None:
    """Return y where `logged` is log(x / y) or log(x) - log(y)."""
    source = writer(interpreter, logged, "log", "sub")
    if source is None:
        return None
    if source.primitive == "log":
        ratio = writer(interpreter, source.inputs[0], "div")
        return ratio.inputs[1] if ratio and ratio.inputs[0] == x else None
    logs = [writer(interpreter, number, "log") for number in source.inputs]
    if logs[0] is None or logs[1] is None or logs[0].inputs[0] != x:
        return None
    return logs[1].inputs[0]


def _relative_entropy(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """xlogy(x, x) - xlogy(x, y) is x log(x / y)."""
    sides = [writer(interpreter, n, "xlogy") for n in equation.inputs]
    if sides[0] is None or sides[1] is None:
        return None
    (x, again), (same, y) = sides[0].inputs, sides[1].inputs
    shape, values = interpreter.shape(equation), interpreter.values
    if not x == again == same or inputs[0].shape != shape:
        return None
    if not all(f.affine for n in (x, y) for f in values[n].classes):
        return None
    return elementwise(
        lambda f, g: relative_entropy(call, f, g), [values[x], values[y]], shape
    )


def _same_entropy(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """xlogy(z, z) is z log z, continued by 0."""
    affine = all(f.affine and not f.constant for f in inputs[0].classes)
    if equation.inputs[0] != equation.inputs[1] or not affine:
        return None
    shape = interpreter.shape(equation)
    return elementwise(lambda f: z_log_z(call, f), [inputs[0]], shape)


def _powers(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """z^a z^b = z^(a + b), for z >= 0 and a, b > 0: the cube of a norm, say."""
    (base, a), (other, b) = (_as_power(interpreter, n) for n in equation.inputs)
    z, shape = interpreter.values[base], interpreter.shape(equation)
    if base != other or a == b or z.shape != shape or z.is_constant:
        return None
    if not all(f.nonnegative and f.total for f in z.classes):
        return None
    whole = elementwise(lambda f: power(call, f, a + b), [z], shape)
    return joined_with_rule(interpreter, equation, inputs, call, whole)


def _as_power(interpreter: Any, number: int) -> tuple[int, Fraction]:
    """Return z and a > 0 where a value is z^a."""
    source = writer(interpreter, number, *_EXPONENTS, "integer_pow")
    if source is None:
        return number, Fraction(1)
    exponent = _EXPONENTS.get(source.primitive) or Fraction(source.params["y"])
    return (source.inputs[0], exponent) if exponent > 0 else (number, Fraction(1))


_EXPONENTS = {"sqrt": Fraction(1, 2), "square": Fraction(2)}


def _padded(u: Facts, v: Facts) -> Facts:
    """log(1 - sigmoid(v)) at the end u = inf, log sigmoid(u) at the end v = -inf."""
    rest = v if u.is_infinite else u
    is_an_end = not u.is_infinite or u.low > 0
    is_an_end = is_an_end and (not v.is_infinite or v.low < 0)
    if not is_an_end or rest.is_infinite:
        raise Undecided("a difference of sigmoids that is 0, 1 or nothing")
    return closed(Facts(high=0.0, concave=True, negative=True, total=rest.total))


def _ordinal(
    interpreter: Any, equation: Equation, inputs: Sequence[Array], call: Call
) -> Array | None:
    """log(sigmoid(u) - sigmoid(v)) is concave where u > v, for affine u and v.

    It is log sigmoid(u) + log sigmoid(-v) + log(1 - exp(v - u)), and log(1 - exp(d)) is
    concave for d < 0: its second derivative is -exp(d) / (1 - exp(d))^2.
    """
    values = interpreter.values
    difference = writer(interpreter, equation.inputs[0], "sub")
    if difference is None:
        return None
    sides = [writer(interpreter, n, "logistic") for n in difference.inputs]
    shape = interpreter.shape(equation)
    if sides[0] is None or sides[1] is None:
        return None
    arguments = [values[side.inputs[0]] for side in sides if side is not None]
    if not all(f.affine or f.is_infinite for z in arguments for f in z.classes):
        return None

    def function(gap: Facts, u: Facts, v: Facts) -> Facts:
        if u.is_infinite or v.is_infinite:
            return _padded(u, v)
        if not gap.positive:
            call.constraints.append("the argument of a logarithm is > 0")
        total = gap.positive and u.total and v.total
        return closed(Facts(high=0.0, concave=True, negative=True, total=total))

    return elementwise(function, [inputs[0], *arguments], shape)


Identity = Callable[[Any, Equation, Sequence[Array], Call], Array | None]

_IDENTITIES: dict[str, tuple[tuple[str, Identity], ...]] = {
    "log": (("ordinal likelihood", _ordinal),),
    "mul": (("entropy", _entropy), ("product of powers", _powers)),
    "sub": (
        ("relative entropy", _relative_entropy),
        ("1 - sigmoid", _complement),
        ("1 - 1 / (1 + E)", _complement_of_ratio),
    ),
    "xlogy": (("entropy", _same_entropy),),
}
_TABLES = (_IDENTITIES, EXPRESSIONS, MEANS, NOT_A_NUMBER_TESTS)
_BY_PRIMITIVE = {
    name: tuple(entry for table in _TABLES for entry in table.get(name, ()))
    for name in {name for table in _TABLES for name in table}
}
"""The identities to try at each primitive, with the name that certificates give."""
