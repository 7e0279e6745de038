"""Identities that look further back, checked by the kernel; each states its theorem."""

import functools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import (
    INF,
    ONE,
    Q0,
    Q1,
    ZERO,
    Ask,
    Known,
    Refused,
    meet,
    normal,
    number,
)
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, each
from phihat.convexity.program.form import Equation

__all__ = ["EXPRESSIONS"]

_MOVES = {
    *("broadcast_in_dim", "concatenate", "expand_dims", "reshape", "rev", "row"),
    *("slice", "squeeze", "stack", "transpose"),
}


class _Reader:
    """Looks at how values are written."""

    def __init__(self, checker: Any, ask: Ask, equation: Equation) -> None:
        self.values, self.program = checker.values, checker.program
        self.writers = {**checker.writers, equation.outputs[0]: equation}
        self.ask, self.equation = ask, equation
        self.shape = self.program.shapes[equation.outputs[0]]
        self.steps = 0

    def of(self, n: int, *names: str) -> tuple[int, ...]:
        """Return the inputs of the equation that writes a value, which must be so."""
        self.steps += 1
        writer = self.writers.get(n)
        if writer is None or writer.primitive not in names or self.steps > 1000:
            raise Refused("the expression is not the one that the identity is about")
        return writer.inputs

    def name(self, n: int) -> str:
        writer = self.writers.get(n)
        return "" if writer is None else writer.primitive

    def is_all(self, n: int, k: Known) -> bool:
        return all(known == k for known in self.values[n].knowns)

    def whole(self, n: int) -> Value:
        """Return a value that must have the shape of the output."""
        if tuple(self.values[n].shape) != tuple(self.shape):
            raise Refused("an identity of values of other shapes")
        return self.values[n]

    def with_rule(self, other: Value) -> Value:
        """Return what the theorem of the primitive tells, too."""
        inputs = [self.values[n] for n in self.equation.inputs]
        rule = functools.partial(TABLE[self.equation.primitive], self.ask)
        plain = each(rule, inputs, self.shape)
        return each(meet, [plain, other], self.shape)


def _is_positive_constant(v: Value) -> bool:
    return v.constant and all(k.sign > 0 and k.total for k in v.knowns)


# -------------------------------------------------------------------- erf and erfc


def _minus_w_of_erfc(read: _Reader, n: int) -> int:
    """Return w where the value is erfc(-w): 1 + erf(w), 2 - erfc(w), or both by cases.

    For w <= 0 it is erfc(|w|), for w > 0 it is 2 - erfc(|w|).
    """
    if read.name(n) == "add":
        for one, rest in (read.of(n, "add"), read.of(n, "add")[::-1]):
            if read.name(rest) == "erf" and read.is_all(one, ONE):
                return read.of(rest, "erf")[0]
        raise Refused("not 1 + erf(w)")
    which, below, above = read.of(n, "select_n")
    try:
        w, other = _minus_w_of_erfc(read, below), _minus_w_of_erfc(read, above)
    except Refused:
        w, zero = read.of(which, "gt")
        two, high = read.of(above, "sub")
        sizes = {read.of(read.of(e, "erfc")[0], "abs")[0] for e in (below, high)}
        if not read.is_all(zero, ZERO) or not read.is_all(two, number(2.0)):
            raise Refused("not erfc by cases") from None
        if sizes != {w}:
            raise Refused("erfc of other values") from None
        return w
    if w != other:
        raise Refused("erfc of two values")
    return w


def _erfc_by_cases(checker: Any, ask: Ask, equation: Equation) -> Value:
    """The cases of a normal distribution agree: all are erfc(-w)."""
    read = _Reader(checker, ask, equation)
    w = read.whole(_minus_w_of_erfc(read, equation.outputs[0]))
    return each(lambda k: TABLE["erfc"](ask, TABLE["neg"](ask, k)), [w], read.shape)


def _complement_of_normal(checker: Any, ask: Ask, equation: Equation) -> Value:
    """1 - erfc(-w) / 2 = erfc(w) / 2, as erfc(w) + erfc(-w) = 2."""
    read = _Reader(checker, ask, equation)
    one, rest = equation.inputs
    pair = read.of(rest, "mul")
    c, e = pair if read.values[pair[0]].constant else pair[::-1]
    if not read.is_all(one, ONE) or not read.is_all(c, number(0.5)):
        raise Refused("not 1 - erfc / 2")
    w = read.whole(_minus_w_of_erfc(read, e))

    def rule(k: Known) -> Known:
        return TABLE["mul"](ask, number(0.5), TABLE["erfc"](ask, k))

    return read.with_rule(each(rule, [w], read.shape))


# ------------------------------------------------------------------- complements


def _log_of_complement(checker: Any, ask: Ask, equation: Equation) -> Value:
    """log(1 - sigmoid(z)) = log sigmoid(-z), which is concave and falls."""
    read = _Reader(checker, ask, equation)
    (s,) = read.of(equation.inputs[-1], "neg")
    z = read.whole(read.of(s, "logistic")[0])

    def log(k: Known) -> Known:
        return TABLE["log"](ask, TABLE["logistic"](ask, TABLE["neg"](ask, k)))

    if equation.primitive == "log1p":
        return each(log, [z], read.shape)
    x = read.values[equation.inputs[0]]
    if not x.constant:
        raise Refused("x log(1 - sigmoid) of an x that varies")
    return each(lambda c, k: TABLE["mul"](ask, c, log(k)), [x, z], read.shape)


def _saturation(checker: Any, ask: Ask, equation: Equation) -> Value:
    """1 - exp(-z): with z = e^v, log of it has the slope z / (e^z - 1) in v.

    That is > 0 and falls as v rises, so a log-concave z > 0 gives a log-concave value;
    and 1 - exp(-z) is concave and rises in z.
    """
    read = _Reader(checker, ask, equation)
    if equation.primitive == "sub":
        if not read.is_all(equation.inputs[0], ONE):
            raise Refused("not 1 - exp(-z)")
        (exponent,) = read.of(equation.inputs[1], "exp")
    else:
        (exponent,) = read.of(equation.inputs[0], "expm1")
    if read.name(exponent) == "neg":
        z = read.whole(read.of(exponent, "neg")[0])
    else:
        turn = functools.partial(TABLE["neg"], ask)
        z = each(turn, [read.whole(exponent)], read.shape)

    def rule(k: Known) -> Known:
        if k.sign <= 0:
            raise Refused("1 - exp(-z) of a z that may be negative")
        q = Q1 if k.concave else Q0 if k.q is not None else None
        return normal(Known(0.0, 1.0, False, k.concave, None, q, 1, k.total))

    return read.with_rule(each(rule, [z], read.shape))


def _elu(checker: Any, ask: Ask, equation: Equation) -> Value:
    """Z above 0, c (exp(z / d) - 1) below: convex and rising where 0 <= c <= d."""
    read = _Reader(checker, ask, equation)
    which = None
    if equation.primitive == "add":
        pair = equation.inputs
        part, rest = pair if read.name(pair[0]) == "max" else pair[::-1]
        z, zero = read.of(part, "max")
    else:
        which, rest, above = read.of(equation.outputs[0], "select_n")
        z, zero = read.of(which, "gt", "ge")
        if above != z:
            raise Refused("not z above 0")
    if not read.is_all(zero, ZERO):
        raise Refused("a kink that is not at 0")
    c = d = np.ones(())
    if read.name(rest) == "mul":
        pair = read.of(rest, "mul")
        k, rest = pair if read.values[pair[0]].constant else pair[::-1]
        c = _points(read.values[k])
    (inner,) = read.of(rest, "expm1")
    if inner != z and read.name(inner) == "div":
        inner, k = read.of(inner, "div")
        d = _points(read.values[k])
    if not ((c >= 0) & (d > 0) & (c <= d)).all():
        raise Refused("a slope above 1 below 0")
    if read.name(inner) == "min":
        cut = read.of(inner, "min")
        is_same = cut[0] == z and read.is_all(cut[1], ZERO)
    elif which is None:
        is_same = False
    elif read.name(inner) == "select_n":
        test, *cases = read.of(inner, "select_n")
        is_same = test == which and cases[0] == z and read.is_all(cases[-1], ZERO)
        is_same = is_same and len(cases) == 2
    else:
        is_same = inner == z
    if not is_same:
        raise Refused("two branches of different values")

    def rule(k: Known) -> Known:
        return normal(Known(convex=k.convex, total=k.total))

    return each(rule, [read.whole(z)], read.shape)


def _points(v: Value) -> np.ndarray:
    if not v.constant or v.point is None:
        raise Refused("a constant that is not known exactly")
    return np.asarray(v.point)


# -------------------------------------------------------------------------- means


def _check_reciprocals(read: _Reader, n: int) -> None:
    """Refuse what is not a sum of c / z, for constants c > 0 and concave z > 0."""
    v, name = read.values[n], read.name(n)
    if v.constant:
        if not _is_positive_constant(v):
            raise Refused("a constant that may be negative")
        return
    given = read.of(n, name)
    if name == "div" and _is_positive_constant(read.values[given[0]]):
        z = read.values[given[1]]
    elif name == "integer_pow" and read.writers[n].params["y"] == -1:
        z = read.values[given[0]]
    else:
        if name == "mul":
            c, rest = given if read.values[given[0]].constant else given[::-1]
            inner, held = [rest], [c]
        elif name == "div":
            inner, held = [given[0]], [given[1]]
        elif name in ("add", "add_any", "reduce_sum") or name in _MOVES:
            inner, held = list(given), []
        else:
            raise Refused(f"`{name}` in a sum of reciprocals")
        if not all(_is_positive_constant(read.values[k]) for k in held):
            raise Refused("a factor that may be negative")
        for k in inner:
            if not read.values[k].size:
                raise Refused("an empty sum of reciprocals")
            _check_reciprocals(read, k)
        return
    if not all(k.sign > 0 and k.concave for k in z.knowns):
        raise Refused("the reciprocal of what is not concave and positive")


def _harmonic_mean(checker: Any, ask: Ask, equation: Equation) -> Value:
    """1 / sum(1 / f) is a power mean of positive f, concave and rising in each."""
    read = _Reader(checker, ask, equation)
    if equation.primitive == "integer_pow":
        if equation.params["y"] != -1:
            raise Refused("not a reciprocal")
    elif not _is_positive_constant(read.values[equation.inputs[0]]):
        raise Refused("a harmonic mean times what may be negative")
    below = read.values[equation.inputs[-1]]
    if below.constant:
        raise Refused("not a mean of what varies")
    _check_reciprocals(read, equation.inputs[-1])
    known = normal(Known(0.0, concave=True, sign=1, total=below.known.total))
    other = Value(read.shape, (known,))
    return other if equation.primitive == "integer_pow" else read.with_rule(other)


def _weight(read: _Reader, n: int) -> Fraction:
    """Bound sum a / q of sum a log z + constant, a >= 0, for every element."""
    v, name = read.values[n], read.name(n)
    if v.constant:
        if not all(k.total for k in v.knowns):
            raise Refused("a constant that may be infinite")
        return Q0
    given = read.of(n, name)
    if name == "log":
        qs = [k.q for k in read.values[given[0]].knowns]
        if any(q is None or q == 0 for q in qs):
            raise Refused("a logarithm of what has no concave power")
        return max(Q0 if q == INF else 1 / Fraction(q) for q in qs)  # type: ignore
    if name in ("add", "add_any"):
        return _weight(read, given[0]) + _weight(read, given[1])
    if name == "reduce_sum":
        return _weight(read, given[0]) * (read.values[given[0]].size // v.size)
    if name in ("mul", "div", "dot_general"):
        pair = given[::-1] if name == "div" else given
        c, rest = pair if read.values[pair[0]].constant else pair[::-1]
        if name == "dot_general":
            entries = _points(read.values[c]).reshape(-1)
            if v.shape != () or not (entries >= 0).all():
                raise Refused("weights that are not a vector of nonnegative numbers")
            return sum(map(Fraction, map(float, entries)), Q0) * _weight(read, rest)
        known = read.values[c].known
        end = known.high if name == "mul" else known.low
        if (
            not known.constant
            or known.low < 0
            or not math.isfinite(end)
            or (name == "div" and end <= 0)
        ):
            raise Refused("a weight that may be negative")
        factor = Fraction(end) if name == "mul" else 1 / Fraction(end)
        return factor * _weight(read, rest)
    if name in _MOVES and v.size:
        return max(_weight(read, k) for k in given)
    raise Refused(f"`{name}` in a sum of logarithms")


def _geometric_mean(checker: Any, ask: Ask, equation: Equation) -> Value:
    """Products of powers z^a have 1/q = sum a / q: (sum t)^2 <= sum t^2/a sum a."""
    read = _Reader(checker, ask, equation)
    weight = _weight(read, equation.inputs[0])
    if weight <= 0:
        raise Refused("a mean without weights")
    total = read.values[equation.inputs[0]].known.total
    known = normal(Known(0.0, q=1 / weight, sign=1, total=total))
    return read.with_rule(Value(read.shape, (known,)))


# ---------------------------------------------------------------- gamma functions


def _terms(read: _Reader, n: int, of_gamma: bool) -> Counter[tuple[int, int]]:
    """Count what a scalar adds up: which value, and how many of its elements."""
    name = read.name(n)
    if name in ("add", "add_any"):
        one, two = read.of(n, name)
        return _terms(read, one, of_gamma) + _terms(read, two, of_gamma)
    count = 1
    if name == "reduce_sum":
        (n,) = read.of(n, name)
        count = read.values[n].size
    if of_gamma:
        (n,) = read.of(n, "lgamma")
    return Counter({(n, count): 1})


def _as_pairs(read: _Reader, terms: Counter[tuple[int, int]]) -> Counter:
    """Read min(a, b) and max(a, b), counted alike, as a and b: the sum is the same."""
    result = Counter(terms)
    for n, count in terms:
        if count == 1 and read.name(n) == "min":
            pair = read.of(n, "min")
            for m, of_m in terms:
                if of_m == 1 and read.name(m) == "max":
                    both = min(result[n, 1], result[m, 1])
                    if sorted(read.of(m, "max")) == sorted(pair) and both:
                        result.subtract({(n, 1): both, (m, 1): both})
                        result.update({(k, 1): both for k in set(pair)})
                        if pair[0] == pair[1]:
                            result.update({(pair[0], 1): both})
    return +result


def _log_beta(checker: Any, ask: Ask, equation: Equation) -> Value:
    """Sum lgamma(z) - lgamma(sum z) is a logarithm of an integral (Dirichlet).

    The integrand, prod t^(z - 1) on the simplex, is an exponential of an affine
    function of z, so the logarithm of its integral is convex (Hoelder). The last
    summand of a sum may be the difference.
    """
    read = _Reader(checker, ask, equation)
    if tuple(read.shape) != ():
        raise Refused("a logarithm of many beta functions")
    (one, other), parts = equation.inputs, Counter()
    if equation.primitive == "add":
        parts = _terms(read, one, True)
        one, other = read.of(other, "sub")
    (whole,) = read.of(other, "lgamma")
    parts = _as_pairs(read, parts + _terms(read, one, True))
    if parts != _as_pairs(read, _terms(read, whole, False)):
        raise Refused("not the gamma functions of a sum and of its parts")
    values = [read.values[n] for n, _ in parts]
    if any(v.size != count for v, (_, count) in zip(values, parts, strict=True)):
        raise Refused("a sum along some of the axes")
    if not all(k.affine and k.sign > 0 for v in values for k in v.knowns):
        raise Refused("a beta function of what is not affine and positive")
    known = normal(Known(convex=True, total=all(v.known.total for v in values)))
    return read.with_rule(Value((), (known,)))


EXPRESSIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "1 - erfc / 2": (("sub",), _complement_of_normal),
    "1 - exp(-z)": (("neg", "sub"), _saturation),
    "erfc by cases": (("select_n",), _erfc_by_cases),
    "exponential linear unit": (("add", "select_n"), _elu),
    "geometric mean": (("exp",), _geometric_mean),
    "harmonic mean": (("div", "integer_pow"), _harmonic_mean),
    "log(1 - sigmoid)": (("log1p", "xlog1py"), _log_of_complement),
    "log-beta": (("add", "sub"), _log_beta),
}
"""By the name in certificates: the primitives at which each may stand, its check."""
