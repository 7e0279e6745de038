"""Identities that look one or two equations back, checked by the kernel."""

import functools
from fractions import Fraction
from typing import Any

from phihat.convexity.kernel.arithmetic import power
from phihat.convexity.kernel.expressions import EXPRESSIONS
from phihat.convexity.kernel.facts import ONE, Ask, Known, Refused, meet, normal
from phihat.convexity.kernel.functions import x_log_x_over_y, z_log_z
from phihat.convexity.kernel.not_a_number import TESTS
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, each
from phihat.convexity.program.form import Equation

__all__ = ["IDENTITIES"]


def _one(checker: Any, n: int, *names: str) -> Equation:
    """Return the equation that writes a value; it must be one of these primitives."""
    writer = checker.writers.get(n)
    if writer is None or writer.primitive not in names:
        raise Refused("the expression is not the one that the identity is about")
    return writer


def _is_one(value: Value) -> bool:
    return all(k == ONE for k in value.knowns)


def _complement(checker: Any, ask: Ask, equation: Equation) -> Value:
    """1 - sigmoid(z) = sigmoid(-z)."""
    one, s = (checker.values[n] for n in equation.inputs)
    z = checker.values[_one(checker, equation.inputs[1], "logistic").inputs[0]]
    if not _is_one(one) or z.shape != s.shape:
        raise Refused("not 1 - sigmoid")
    other = each(lambda k: TABLE["logistic"](ask, TABLE["neg"](ask, k)), [z], s.shape)
    plain = each(functools.partial(TABLE["sub"], ask), [one, s], s.shape)
    return each(meet, [plain, other], s.shape)


def _complement_of_ratio(checker: Any, ask: Ask, equation: Equation) -> Value:
    """1 - 1 / (1 + E) = E / (1 + E), for E > 0."""
    values = checker.values
    one, s = (values[n] for n in equation.inputs)
    ratio = _one(checker, equation.inputs[1], "div")
    below = _one(checker, ratio.inputs[1], "add")
    for first, rest in (below.inputs, below.inputs[::-1]):
        e = values[rest]
        ones = (one, values[ratio.inputs[0]], values[first])
        is_so = all(map(_is_one, ones)) and e.shape == s.shape and not e.constant
        if is_so and all(k.sign > 0 for k in e.knowns):
            sides = [e, values[ratio.inputs[1]]]
            other = each(functools.partial(TABLE["div"], ask), sides, s.shape)
            plain = each(functools.partial(TABLE["sub"], ask), [one, s], s.shape)
            return each(meet, [plain, other], s.shape)
    raise Refused("not 1 - 1 / (1 + E)")


def _entropy(checker: Any, ask: Ask, equation: Equation) -> Value:
    """Z log z, and x log(x / y), of affine z, x, y."""
    values, shape = checker.values, checker.program.shapes[equation.outputs[0]]
    pairs = [equation.inputs, equation.inputs[::-1]]
    if equation.primitive == "xlogy":
        if equation.inputs[0] != equation.inputs[1]:
            raise Refused("not z log z")
        z = values[equation.inputs[0]]
        return each(functools.partial(z_log_z, ask), [z], shape)
    for x, logged in pairs:
        try:
            y = _divided_by(checker, logged, x)
        except Refused:
            continue
        if values[x].shape != shape or (
            y is not None and values[y].shape not in (shape, ())
        ):
            continue
        if y is None:
            return each(functools.partial(z_log_z, ask), [values[x]], shape)
        sides = [values[x], values[y]]
        return each(functools.partial(x_log_x_over_y, ask), sides, shape)
    raise Refused("not an entropy")


def _powers(checker: Any, ask: Ask, equation: Equation) -> Value:
    """z^a z^b = z^(a + b), of z >= 0 that is a number everywhere, for a, b > 0."""
    bases, exponents = [], []
    for n in equation.inputs:
        writer = checker.writers.get(n)
        name = getattr(writer, "primitive", "")
        exponent = {"sqrt": Fraction(1, 2), "square": Fraction(2)}.get(name)
        if name == "integer_pow":
            exponent = Fraction(writer.params["y"])
        bases.append(writer.inputs[0] if exponent and exponent > 0 else n)
        exponents.append(exponent if exponent and exponent > 0 else Fraction(1))
    z, shape = checker.values[bases[0]], checker.program.shapes[equation.outputs[0]]
    if bases[0] != bases[1] or z.shape != shape:
        raise Refused("not two powers of one value")
    if not all(k.low >= 0.0 and k.total for k in z.knowns):
        raise Refused("powers of what is not >= 0 everywhere")
    whole = each(lambda k: power(ask, k, sum(exponents, Fraction(0))), [z], shape)
    sides = [checker.values[n] for n in equation.inputs]
    return each(
        meet, [each(functools.partial(TABLE["mul"], ask), sides, shape), whole], shape
    )


def _divided_by(checker: Any, logged: int, x: int) -> int | None:
    """Return y of log(x / y) or log x - log y; None of log x."""
    source = _one(checker, logged, "log", "sub")
    if source.primitive == "log":
        if source.inputs[0] == x:
            return None
        ratio = _one(checker, source.inputs[0], "div")
        if ratio.inputs[0] == x:
            return ratio.inputs[1]
    else:
        above, below = (_one(checker, n, "log") for n in source.inputs)
        if above.inputs[0] == x:
            return below.inputs[0]
    raise Refused("not log(x / y)")


def _relative_entropy(checker: Any, ask: Ask, equation: Equation) -> Value:
    """xlogy(x, x) - xlogy(x, y) = x log(x / y)."""
    shape = checker.program.shapes[equation.outputs[0]]
    sides = [_one(checker, n, "xlogy").inputs for n in equation.inputs]
    (x, again), (same, y) = sides
    if not x == again == same:
        raise Refused("not a relative entropy")
    pair = [checker.values[n] for n in (x, y)]
    return each(functools.partial(x_log_x_over_y, ask), pair, shape)


def _ordinal(checker: Any, ask: Ask, equation: Equation) -> Value:
    """log(s(u) - s(v)) = log s(u) + log s(-v) + log(1 - exp(v - u)), all concave."""
    difference = _one(checker, equation.inputs[0], "sub")
    sides = [
        checker.values[_one(checker, n, "logistic").inputs[0]]
        for n in difference.inputs
    ]
    if not all(k.affine or k.infinite for v in sides for k in v.knowns):
        raise Refused("an ordinal likelihood of arguments that are not affine")

    def rule(gap: Known, u: Known, v: Known) -> Known:
        if u.infinite or v.infinite:  # one sigmoid is 1 or 0: the other is left alone
            rest = v if u.infinite else u
            ends = (not u.infinite or u.low > 0, not v.infinite or v.low < 0)
            if rest.infinite or not all(ends):
                raise Refused("a difference of sigmoids that is 0, 1 or nothing")
            return normal(Known(high=0.0, concave=True, sign=-1, total=rest.total))
        if gap.sign <= 0:
            ask.conditions.append("the argument of a logarithm is > 0")
        total = gap.sign > 0 and u.total and v.total
        return normal(Known(high=0.0, concave=True, sign=-1, total=total))

    shape = checker.program.shapes[equation.outputs[0]]
    return each(rule, [checker.values[equation.inputs[0]], *sides], shape)


IDENTITIES: dict[str, tuple[tuple[str, ...], Any]] = {
    **EXPRESSIONS,
    **TESTS,
    "1 - 1 / (1 + E)": (("sub",), _complement_of_ratio),
    "1 - sigmoid": (("sub",), _complement),
    "entropy": (("mul", "xlogy"), _entropy),
    "ordinal likelihood": (("log",), _ordinal),
    "product of powers": (("mul",), _powers),
    "relative entropy": (("sub",), _relative_entropy),
}
"""By the name in certificates: the primitives at which each may stand, its check."""
