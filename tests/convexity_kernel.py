# ruff: noqa: T201, E501 - prints its score; a mutant is one line
"""The independent checker against values, and bugs planted in it.

`claims_of` lets the checker derive, from no certificate, what it would accept of each
value; the values of chords must not contradict it. `python -m tests.convexity_kernel`
plants one bug after another in the checker: each must make a claim that values
contradict, or accept what it must refuse.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

import phihat.convexity.kernel
from phihat.convexity.kernel import Checker
from phihat.convexity.kernel.facts import NOTHING, Known, Refused
from phihat.convexity.kernel.values import Value
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.facts import Facts
from tests import convexity_programs, convexity_values
from tests.convexity_programs import Case
from tests.mutation import crash

__all__ = ["MUTANTS", "claims_of", "false_claims", "survivors"]


def claims_of(
    problem: Any, checker_type: Any = Checker, refused: Any = Refused
) -> dict[int, Array]:
    """Return what the checker derives of each value, as the tests read facts."""
    checker = checker_type(problem)
    lost: set[int] = set()
    for equation in problem.program.equations:
        if lost.isdisjoint(equation.inputs):
            try:
                checker.step(equation, equation.primitive)
                continue
            except refused:
                pass
        lost.update(equation.outputs)
        for n in equation.outputs:
            checker.values[n] = Value(problem.program.shapes[n], (NOTHING,))
    return {
        n: Array(value.shape, tuple(map(_facts, value.knowns)), value.places)
        for n, value in checker.values.items()
        if n not in lost
    }


def _facts(k: Known) -> Facts:
    return Facts(
        k.low,
        k.high,
        k.convex,
        k.concave,
        k.p,
        k.q,
        k.sign > 0,
        k.sign < 0,
        k.total,
        k.constant,
    )


def false_claims(
    case: Case, count: int = 48, problem: Any = None, **kernel: Any
) -> list[Any]:
    """Return the claims of the checker that values contradict, confirmed by intervals."""
    problem = convexity_programs.posed(case) if problem is None else problem
    inputs = convexity_programs.chords(problem, np.random.default_rng(0), count)
    values = convexity_values.values_of(problem.program, inputs)
    known = claims_of(problem, **kernel)
    return convexity_programs.judged(problem, inputs, values, Facts(), known).false


class Mutant(NamedTuple):
    """One changed line of the checker; `argument` says why it alters nothing."""

    module: str
    old: str
    new: str
    argument: str = ""


def _a(module: str, old: str, new: str, argument: str = "") -> Mutant:
    return Mutant(module, old, new, argument)


MUTANTS: tuple[Mutant, ...] = (
    _a("facts", "p = Q1 if p == 0 and sign <= 0 else p", "p = p", "Only a constant factor >= 0 leaves p = 0 without a sign; where it is 0, so is the value for all params, and each theorem on p = 0 holds of it."),
    _a("facts", "convex or (p is not None and p <= 1)", "convex or p is not None"),
    _a("facts", "concave or (q is not None and q >= 1)", "concave or q is not None"),
    _a("facts", "max(x.p, y.p)", "min(x.p, y.p)"),
    _a("arithmetic", "Known(-x.high, -x.low, x.concave, x.convex", "Known(-x.high, -x.low, x.convex, x.concave"),
    _a("arithmetic", "z.p is not None and z.p <= 1", "z.p is not None"),
    _a("arithmetic", "z.q is not None and z.q >= 1", "z.q is not None"),
    _a("arithmetic", "p = max(z.p for z in moving if z.p is not None)\n        if all(z.q", "p = min(z.p for z in moving if z.p is not None)\n        if all(z.q"),
    _a("arithmetic", "convex=all(z.convex for z in zs)", "convex=any(z.convex for z in zs)"),
    _a("arithmetic", "concave=all(z.concave for z in zs)", "concave=any(z.concave for z in zs)"),
    _a("arithmetic", "if nonnegative and moving:", "if moving:"),
    _a("arithmetic", "add_up([(x, 1), (negative(ask, y), 1)])", "add_up([(x, 1), (y, 1)])"),
    _a("arithmetic", "    if c.low < 0.0:\n", "    if False:\n"),
    _a("arithmetic", "return negative(ask, times(ask, negative(ask, c), z))", "return times(ask, negative(ask, c), z)"),
    _a("arithmetic", "1 / (1 / x.q + 1 / y.q)", "max(x.q, y.q)"),
    _a("arithmetic", "p = Q0 if x.p == 0 and y.p == 0 else None", "p = Q0"),
    _a("arithmetic", "elif y.q > x.p:", "else:"),
    _a("arithmetic", "if a % 2 == 0:", "if True:"),
    _a("arithmetic", "None if x.p is None else x.p / a", "x.p"),
    _a("arithmetic", "None if x.q is None else x.q / a", "x.q"),
    _a("arithmetic", "p = Q0 if x.q is not None else None", "p = Q0"),
    _a("arithmetic", "return of_range(r, convex=x.affine, sign=sign", "return of_range(r, convex=x.convex, sign=sign"),
    _a("arithmetic", "convex=x.convex and y.convex", "convex=x.convex or y.convex"),
    _a("arithmetic", "if which.constant:\n        return result", "return result"),
    _a("functions", "p=Q0 if x.convex else None,\n            q=Q0 if x.concave", "p=Q0,\n            q=Q0 if x.concave"),
    _a("functions", "q=Q0 if x.concave else None,\n            sign=1", "q=Q0,\n            sign=1"),
    _a("functions", "concave=x.q is not None", "concave=True"),
    _a("functions", "convex=x.p == 0", "convex=x.p is not None"),
    _a("functions", "convex=x.convex and y.convex", "convex=True"),
    _a("functions", "convex = x.affine or (x.convex and up) or (x.concave and down)", "convex = x.affine or x.convex"),
    _a("functions", "concave = x.affine or (x.concave and up) or (x.convex and down)", "concave = x.affine or x.concave"),
    _a("functions", "bend.low >= 0.0 and convex", "convex"),
    _a("smooth", "_chain(s, s * t, s * t * (t - s), x)", "_chain(s, s * t, s * t * (s - t), x)"),
    _a("functions", "q = Q0 if x.concave else None\n    return normal", "q = Q0\n    return normal"),
    _a("smooth", "_chain(t, s, -2.0 * (t * s), x)", "_chain(t, s, 2.0 * (t * s), x)"),
    _a("smooth", "_chain(iv.log_ndtr(x[0]), h, bend, x)", "_chain(iv.log_ndtr(x[0]), -h, bend, x)"),
    _a("smooth", "_chain(iv.erfc(x[0]), -d, -dd, x)", "_chain(iv.erfc(x[0]), d, -dd, x)"),
    _a("smooth", "_chain(iv.sin(x[0]), iv.cos(x[0]), -iv.sin(x[0]), x)", "_chain(iv.sin(x[0]), iv.cos(x[0]), iv.sin(x[0]), x)"),
    _a("smooth", "-(x[0] * iv.integer_power(d, 3))", "x[0] * iv.integer_power(d, 3)"),
    _a("smooth", "if not ((x[0].low > 0) | p.get(\"positive\", False)).all():", "if False:"),
    _a("functions", "if not z.affine:", "if False:"),
    _a("functions", "if not (x.affine and y.affine):", "if False:"),
    _a("logic", "apart or x.high < y.low or", "apart or x.low < y.low or"),
    _a("logic", "if low == high:\n            return number(low)\n        return normal(Known(low, high, constant=x.constant))", "return normal(Known(low, high, x.convex, x.concave, constant=x.constant))"),
    _a("logic", "return _steps(iv.truncate)(ask, x)", "return x"),
    _a("array_rules", "convex=affine, concave=affine, total=all(k.total", "convex=True, concave=True, total=all(k.total"),
    _a("array_rules", '"reduce_max": _reduce(_fold("max"', '"reduce_max": _reduce(_fold("min"'),
    _a("array_rules", "hull._replace(concave=hull.constant, q=None)", "hull"),
    _a("array_rules", "hull._replace(convex=hull.constant, p=None)", "hull"),
    _a("array_rules", "convex = bool((steps <= 0).all()) and known.convex", "convex = known.convex"),
    _a("array_rules", "if all(k.affine for k in z.knowns):", "if all(k.convex for k in z.knowns):"),
    _a("array_rules", "square(ask, a, b) if s else multiply(a, b)", "square(ask, a, b)"),
    _a("array_rules", "factor = TABLE[\"mul\"](ask, factor, c)", "pass"),
    _a("elementwise", "mask = np.broadcast_to(x.ids == y.ids, tuple(shape))", "mask = np.broadcast_to(np.True_, tuple(shape))"),
    _a("shifts", "if not (np.expand_dims(first, axes) == spread).all():", "if False:"),
    _a("shifts", "if terms:\n", "if False:\n"),
    _a("shifts", "terms = _total(shape, parts[0], _scaled(Fraction(sign), parts[1]))\n    return View(hide(hidden), terms, False)", "terms = ()\n    return View(hide(hidden), terms, False)"),
    _a("moves", "if body is not None and (body.eqns or", "if False and (body.eqns or"),
    _a("checker", "elif equation.bind.__self__ is not jax_primitive(name):", "elif False:"),
    _a("checker", "outputs = [widened(v, d) for", "outputs = [v for"),
    _a("question", "_text(closed) == _text(problem.program.closed)", "True"),
    _a("question", "if problem.varied != free_leaves(problem.params, wrt):", "if False:"),
    _a("polynomials", "if pivot < 0 or (pivot == 0 and any(rows[i][k] for i in below)):", "if pivot < 0:"),
    _a("polynomials", "if pivot < 0 or (", "if ("),
    _a("pieces", "and all(j >= 0 for j in jumps)", ""),
    _a("pieces", "convex = all(b[0] for b in bends) and", "convex ="),
    _a("pieces", "if any(side != value for _, (value, *sides) in function.limits() for side in sides):", "if False:"),
    _a("smooth", "bends = [bends[0] and bool(up[done].all()),", "bends = [bends[0],"),
    _a("one_value", "up = z.affine or (z.convex and rises) or (z.concave and falls)", "up = True"),
    _a("claims", "(k.convex or not claim.convex)", "True"),
    _a("claims", "(k.concave or not claim.concave)", "True"),
    _a('expressions', '    if w != other:\n        raise', '    if False:\n        raise'),
    _a('expressions', 'if not read.is_all(zero, ZERO) or not read.is_all(two, number(2.0)):', 'if not read.is_all(zero, ZERO):'),
    _a('expressions', 'if sizes != {w}:', 'if False:'),
    _a('expressions', '    return each(lambda k: TABLE["erfc"](ask, TABLE["neg"](ask, k)), [w], read.shape)', '    return each(lambda k: TABLE["erfc"](ask, k), [w], read.shape)'),
    _a('expressions', 'if not read.is_all(one, ONE) or not read.is_all(c, number(0.5)):', 'if False:'),
    _a('expressions', 'q = Q1 if k.concave else Q0 if k.q is not None else None', 'q = Q0'),
    _a('expressions', 'normal(Known(0.0, 1.0, False, k.concave', 'normal(Known(0.0, 1.0, False, True'),
    _a('expressions', '& (c <= d)).all()', ').all()'),
    _a('expressions', '        if above != z:\n', '        if False:\n'),
    _a('expressions', 'normal(Known(convex=k.convex, total=k.total))', 'normal(Known(convex=True, total=k.total))'),
    _a('expressions', 'if not all(k.sign > 0 and k.concave for k in z.knowns):', 'if not all(k.sign > 0 for k in z.knowns):'),
    _a('expressions', 'return _weight(read, given[0]) + _weight(read, given[1])', 'return max(_weight(read, given[0]), _weight(read, given[1]))'),
    _a('expressions', '* (read.values[given[0]].size // v.size)', ''),
    _a('expressions', 'return factor * _weight(read, rest)', 'return _weight(read, rest)'),
    _a('expressions', 'if parts != _as_pairs(read, _terms(read, whole, False)):', 'if False:'),
    _a('expressions', 'if not all(k.affine and k.sign > 0 for v in values', 'if not all(k.sign > 0 for v in values'),
    _a('array_rules', 'outer[0] and all(t >= 0 for t in turns)', 'outer[0]'),
    _a('array_rules', 'outer = [k.affine or (k.convex and up) or (k.concave and down)]', 'outer = [True]'),
    _a('array_rules', 'left, right = (Q0, Q0) if clamped else', 'left, right ='),
    _a('matrices', 'Known(0.0, q=Fraction(2), sign=1', 'Known(0.0, q=Fraction(4), sign=1'),
    _a('one_value', 'or ratio.inputs[1] != t:', ':'),
    _a('one_value', 'if not all(k.affine and k.sign > 0 for k in values[t].knowns):', 'if not all(k.affine for k in values[t].knowns):'),
    _a('one_value', '(f.concave, f.convex) if is_negated else (f.convex, f.concave)', '(f.convex, f.concave)'),
    _a("matrices", "if any(entries[i, j] != entries[j, i] for j in range(size)):", "if False:"),
    _a("matrices", "if not is_semidefinite(rows):", "if False:"),
    _a("expressions", "if sorted(read.of(m, \"max\")) == sorted(pair) and both:", "if both:"),
    _a("linear_systems", "rest.append(plus(b, right, -factor))", "rest.append(b)"),
    _a("linear_systems", "if params[\"transpose_a\"] else rows", "if False else rows"),
    _a("linear_systems", "named != (factors, step, named[2], i)", "named[:2] != (factors, step)"),
    _a("matrices", "if not all(k.affine and k.total for k in knowns):\n        raise Refused(\"a transform", "if False:\n        raise Refused(\"a transform"),
    _a("not_a_number", "name == \"integer_pow\" and params[\"y\"] != 0", "name == \"integer_pow\""),
    _a("not_a_number", "if not (nans | np.broadcast_to(numbers, x.shape)).all():", "if False:"),
)  # fmt: skip


_NO_BUG = Mutant("checker", "class Checker:", "class Checker:")
"""Changes nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--only", default="", help="part of a module's name")
    parser.add_argument("--first", type=int, default=0, help="the first mutant")
    parser.add_argument("--number", type=int, default=len(MUTANTS), help="how many")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if options.only in m.module]
    chosen = chosen[options.first :][: options.number]
    left = []
    for mutant, how in survivors(chosen):
        outcome = how or (
            f"argued: {mutant.argument}" if mutant.argument else "SURVIVES"
        )
        print(f"{mutant.module:12} {mutant.old[:48]!r:52} {outcome}", flush=True)
        left += [mutant] * (how is None and not mutant.argument)
    print(f"{len(chosen)} mutants, {len(left)} survive without an argument")
    return int(bool(left))


def survivors(mutants: Iterable[Mutant]) -> Iterable[tuple[Mutant, str | None]]:
    """Yield each mutant with what notices it, or None.

    First without a bug, which must not be noticed.
    """
    prepared = _prepared()
    noticed = _noticed(_NO_BUG, prepared)
    if noticed is not None:
        raise AssertionError(f"without a bug, this was noticed: {noticed}")
    for mutant in mutants:
        yield mutant, _noticed(mutant, prepared)


def _prepared() -> list[Any]:
    cases = []
    with jax.enable_x64(True):
        for case in convexity_programs.directed():
            problem = convexity_programs.posed(case)
            inputs = convexity_programs.chords(problem, np.random.default_rng(0), 32)
            values = convexity_values.values_of(problem.program, inputs)
            known = {n: _text(a) for n, a in claims_of(problem).items()}
            cases.append((case, problem, inputs, values, known))
    return cases


def _text(array: Array) -> Any:
    places = None if array.places is None else array.places.tobytes()
    return tuple(map(str, array.classes)), places


def _noticed(mutant: Mutant, prepared: Sequence[Any]) -> str | None:
    """Run the programs, then the faults, with a bug in the checker."""
    from tests import convexity_faults, convexity_zoo

    kernel = _mutated(mutant)
    checker, refused = kernel["checker"].Checker, kernel["facts"].Refused
    with jax.enable_x64(True):
        for case, problem, inputs, values, known in prepared:
            try:
                claims = claims_of(problem, checker, refused)
            except Exception as error:
                return crash(error, case.name)
            new = {n for n, a in claims.items() if _text(a) != known.get(n)}
            found = convexity_programs.judged(
                problem, inputs, values, Facts(), claims, only=new
            )
            if found.false:
                return f"false claim: {found.false[0].claim} in {case.name}"
    with (
        mock.patch.object(
            phihat.convexity.kernel, "accepts", kernel["certificates"].accepts
        ),
        mock.patch.object(
            phihat.convexity.kernel,
            "is_the_question",
            kernel["question"].is_the_question,
        ),
        mock.patch.object(
            phihat.convexity.kernel, "integers_fit", kernel["checker"].integers_fit
        ),
    ):
        for name, fault in convexity_faults.FAULTS.items():
            try:
                if not convexity_faults.tried(fault).refused:
                    return f"accepts: {name}"
            except Exception as error:
                return crash(error, name)
    return _forged(kernel, convexity_zoo.FALSE_FRIENDS)


def _forged(kernel: dict[str, Any], friends: dict[str, Case]) -> str | None:
    """Claim that a loss is convex which only looks so; the checker must refuse."""
    with jax.enable_x64(True):
        for case in friends.values():
            problem = convexity_programs.posed(case)
            checker = kernel["checker"].Checker(problem)
            ways = kernel["checker"]._WAYS
            try:
                for equation in problem.program.equations:
                    _step(checker, equation, kernel)
                    value = checker.values[equation.outputs[0]]
                    for way in ways.values():
                        try:
                            found = (
                                way(checker, equation, value)
                                if value.size <= 64
                                else None
                            )
                        except kernel["facts"].Refused:
                            continue
                        if found is not None:
                            value = kernel["elementwise"].intersection(value, found)
                    checker.values[equation.outputs[0]] = value
            except kernel["facts"].Refused:
                continue
            except Exception as error:
                return crash(error, case.name)
            if checker.values[problem.program.output].known.convex:
                return f"accepts as convex: {case.name}"
    claim, known = kernel["claims"].parsed("affine"), kernel["facts"].Known
    for weak in (known(convex=True), known(concave=True)):
        if kernel["claims"].implies(weak, claim):
            return "takes a convex value for an affine one"
    return None


def _step(checker: Any, equation: Any, kernel: dict[str, Any]) -> None:
    """Check a line by the first identity that is accepted, else by the rule."""
    for name, (primitives, _) in kernel["identities"].IDENTITIES.items():
        if equation.primitive in primitives:
            try:
                checker.step(equation, name)
                return
            except kernel["facts"].Refused:
                continue
    checker.step(equation, equation.primitive)


def _mutated(mutant: Mutant) -> dict[str, Any]:
    """Import the checker's modules anew, one of them with a line changed."""
    package = "phihat.convexity.kernel"
    kept = {name: m for name, m in sys.modules.items() if name.startswith(package)}
    target = f"{package}.{mutant.module}"
    path = str(kept[target].__file__)
    with open(path, encoding="utf-8") as file:
        source = file.read()
    if mutant.old not in source:
        raise LookupError(f"{mutant.module}: no line {mutant.old!r}")
    code = compile(source.replace(mutant.old, mutant.new, 1), path, "exec")
    names = [name for name in kept if name != package]
    for name in kept:
        del sys.modules[name]
    original = SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        return code if fullname == target else original(self, fullname)

    try:
        with mock.patch.object(SourceFileLoader, "get_code", get_code):
            return {n.rsplit(".", 1)[-1]: importlib.import_module(n) for n in names}
    finally:
        for name in [n for n in sys.modules if n.startswith(package)]:
            del sys.modules[name]
        sys.modules.update(kept)
        phihat.convexity.kernel = kept[package]


if __name__ == "__main__":
    sys.exit(main())
