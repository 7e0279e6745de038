"""The checker: what is known of every value of a program, line by line."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.array_rules import ARRAY_RULES
from phihat.convexity.kernel.claims import claimed, follows, implies
from phihat.convexity.kernel.constants import constant
from phihat.convexity.kernel.elementwise import (
    ON_SAME,
    as_constant,
    intersection,
    known_choice,
    same_elements,
)
from phihat.convexity.kernel.facts import (
    NOTHING,
    READABLE,
    ZERO,
    Ask,
    Known,
    Refused,
    normal,
)
from phihat.convexity.kernel.identities import IDENTITIES
from phihat.convexity.kernel.logarithms import logged, positive
from phihat.convexity.kernel.moves import MOVES, moved
from phihat.convexity.kernel.objects import jax_primitive
from phihat.convexity.kernel.one_value import of_one_value, perspective
from phihat.convexity.kernel.polynomials import of_a_sum, polynomial
from phihat.convexity.kernel.rounds import run_rounds
from phihat.convexity.kernel.shifts import follow
from phihat.convexity.kernel.table import TABLE
from phihat.convexity.kernel.values import Value, each, is_discrete, widened
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.problem import Problem
from phihat.convexity.report import Line

__all__ = ["Checker", "integers_fit"]

_ATOMS = {
    *("logaddexp", "log_ndtr", "xlogy", "xlog1py", "entr", "rel_entr", "kl_div"),
    *("interp", "interp_extrapolated", "slogdet", "slogdet_sign"),
}
_OWN = {"fft", "row", "stack", "select_n"}
"""What the trace writes itself: unrolled loops, and transforms of real parts."""


def integers_fit(problem: Problem) -> bool:
    """Whether no integer of the program can wrap, by the kernel's own ranges.

    The bounds of a Hessian read integers as numbers, so none may wrap.
    """
    checker = Checker(problem)
    checker.binds = False
    for equation in problem.program.equations:
        try:
            checker.step(equation, equation.primitive)
        except Refused:
            checker.values.update(
                (n, Value(problem.program.shapes[n], (NOTHING,)))
                for n in equation.outputs
            )
            if any(jnp.issubdtype(d, jnp.integer) for d in equation.dtypes):
                return False
    return not checker.wraps


class Checker:
    """Carries what is known of every value of a program, by the kernel's own table.

    Attributes:
      problem: the question.
      program: its program.
      values: what is known of each value so far.
      conditions: conditions on the domain so far.
    """

    def __init__(
        self, problem: Problem, lines: Sequence[Line] = (), *, on_logs: bool = False
    ) -> None:
        """Read the inputs of the program.

        `on_logs` takes affine values whose logarithm is taken as > 0: the domain of the
        program lies within the half-spaces where they are.
        """
        self.problem = problem
        self.logged = logged(problem.program) if on_logs else set()
        self.program: Program = problem.program
        self.lines = tuple(lines)
        self.values: dict[int, Value] = {}
        self.writers: dict[int, Equation] = {}
        self.conditions: list[str] = []
        self.wraps, self.binds = False, True
        self.reserved: dict[int, np.ndarray] = {}
        for n, array in self.program.constants.items():
            self.values[n] = _constant(array)
        for n, r, free in zip(
            self.program.params, problem.domain, problem.varied, strict=True
        ):
            self.values[n] = self._where_logged(
                n, _leaf(r, free, self.program.dtypes[n])
            )
        for n, r in zip(self.program.data, problem.data, strict=True):
            if n in self.program.constants:
                continue  # NaN or infinite data, which the question compares
            shape = self.program.shapes[n]
            self.values[n] = (
                Value(shape, (NOTHING._replace(constant=True),))
                if r is None
                else _leaf(r, False, self.program.dtypes[n])
            )

    def run(self) -> None:
        """Check all lines, in order; `Refused` names the first that fails."""
        rest = self._check(self.lines)
        if rest:
            raise Refused(
                "the certificate has more lines than the program has equations"
            )

    def _check(self, lines: Sequence[Line]) -> Sequence[Line]:
        """Check the lines of this program; return those that are left."""
        claims: dict[int, str] = {}
        for position, equation in enumerate(self.program.equations):
            body = equation.params.get("body")
            length = len(body.equations) if isinstance(body, Program) else 0
            is_computed = (
                bool(length and lines)
                and (lines[0].primitive, lines[0].rule) == ("scan", "constant")
                and all(self.values[n].is_known for n in equation.inputs)
            )
            length = 0 if is_computed else length
            if len(lines) <= length:
                raise Refused("the certificate lacks a line")
            line = lines[length]
            if (line.number, line.primitive, line.source) != (
                position,
                equation.primitive,
                str(equation.source),
            ):
                raise Refused(f"line {position} is not about this equation")
            if len(line.inputs) != len(equation.inputs) or (
                len(line.outputs) != len(equation.outputs)
            ):
                raise Refused(f"line {position} is not about this equation")
            for n, text in zip(equation.inputs, line.inputs, strict=True):
                if not (text == claims[n] if n in claims else self._holds(n, text)):
                    raise Refused(f"line {position} reads what is not known")
            if is_computed:
                inputs = [self.values[n] for n in equation.inputs]
                found = run_rounds(equation, inputs, self._round)
                self.values.update(zip(equation.outputs, found, strict=True))
                self.writers.update(dict.fromkeys(equation.outputs, equation))
            elif length:
                self._loop(equation, line, lines[:length])
            else:
                try:
                    self.step(equation, line.rule)
                except Refused:
                    if not line.is_trusted:
                        raise
                    self._trust(equation, line)
            for n, text in zip(equation.outputs, line.outputs, strict=True):
                if not self._holds(n, text) and not self._holds_as_a_whole(
                    equation, n, text
                ):
                    raise Refused(f"line {position} claims too much: {text}")
                claims[n] = text
            lines = lines[length + 1 :]
        return lines

    def _trust(self, equation: Equation, line: Line) -> None:
        """Take a line at its word, which must be about constants; it is listed."""
        self._check_equation(equation)
        if not all(self.values[n].constant for n in equation.inputs):
            raise Refused(f"`{line.primitive}` of params")
        for n, text in zip(equation.outputs, line.outputs, strict=True):
            self.values[n] = claimed(text, self.program.shapes[n])
            self.writers[n] = equation

    def _loop(self, equation: Equation, line: Line, lines: Sequence[Line]) -> None:
        """Check that what is claimed of a carry holds at the start, and is kept.

        By induction it holds after any number of rounds.
        """
        params, shapes = equation.params, self.program.shapes
        if equation.primitive != "scan" or line.rule != "scan":
            raise Refused(f"`{equation.primitive}` is not a loop that can be read")
        consts, carry = params["num_consts"], params["num_carry"]
        inputs = [self.values[n] for n in equation.inputs]
        kept = [
            claimed(text, shapes[n])
            for n, text in zip(equation.outputs, line.outputs, strict=True)
        ]
        rows = [Value(v.shape[1:], (v.known,)) for v in inputs[consts + carry :]]
        inner = self._inside(params["body"], [*inputs[:consts], *kept[:carry], *rows])
        if inner._check(lines):
            raise Refused("the certificate of a loop has too many lines")
        results = [inner.values[n] for n in inner.program.outputs]
        for k, claim in enumerate(kept):
            (wanted,) = claim.knowns
            sources = [results[k]] + ([inputs[consts + k]] if k < carry else [])
            for source in sources:
                if not all(implies(known, wanted) for known in source.knowns):
                    raise Refused("what is claimed of a loop is not kept by its rounds")
        self.values.update(zip(equation.outputs, kept, strict=True))
        self.writers.update(dict.fromkeys(equation.outputs, equation))

    def _inside(self, body: Program, inputs: Sequence[Value]) -> "Checker":
        """Return a checker of the body of a loop, on the inputs of a round."""
        inner = Checker.__new__(Checker)
        inner.problem, inner.program = self.problem, body
        inner.values, inner.writers, inner.reserved = {}, {}, {}
        inner.logged = set()
        inner.conditions, inner.wraps, inner.binds = self.conditions, False, True
        for n, array in body.constants.items():
            inner.values[n] = _constant(array)
        inner.values.update(zip(body.params, inputs, strict=True))
        return inner

    def _round(self, body: Program, inputs: Sequence[Value]) -> list[Value]:
        """Compute the results of one round of a loop of constants."""
        inner = self._inside(body, inputs)
        for equation in body.equations:
            inner.step(equation, equation.primitive)
        return [inner.values[n] for n in body.outputs]

    def step(self, equation: Equation, rule: str) -> None:
        """Derive what is known of the outputs of one equation."""
        inputs = [self.values[n] for n in equation.inputs]
        self._check_equation(equation)
        first, *ways = rule.split("; ")
        if first in IDENTITIES and equation.primitive in IDENTITIES[first][0]:
            outputs = [IDENTITIES[first][1](self, self.ask(equation), equation)]
        elif first in _plain_names(equation.primitive):
            outputs = self.apply(equation, inputs)
        else:
            raise Refused(f"no rule is called `{first}`")
        for way in ways:
            if way not in _WAYS:
                raise Refused(f"no rule is called `{way}`")
            found = _WAYS[way](self, equation, outputs[0])
            outputs[0] = intersection(outputs[0], found) if found else outputs[0]
        dtype = self.program.dtypes[equation.outputs[0]]
        if not is_discrete(dtype) and not outputs[0].is_known:
            outputs[0] = follow(self, equation, inputs, outputs[0])
        for n, value in zip(equation.outputs, outputs, strict=True):
            if n in self.reserved and value._ids is None:
                value._ids = self.reserved[n]
            self.values[n] = self._where_logged(n, value)
            self.writers[n] = equation

    def _where_logged(self, n: int, value: Value) -> Value:
        return positive(value, self.conditions) if n in self.logged else value

    def _holds_as_a_whole(self, equation: Equation, n: int, text: str) -> bool:
        """Try what whole expressions give, where the line does not say how."""
        for way in (polynomial, of_one_value):
            value = self.values[n]
            try:
                found = way(self, equation, value) if value.size <= 64 else None
            except Refused:
                continue
            if found is not None:
                self.values[n] = intersection(value, found)
        return self._holds(n, text)

    def _check_equation(self, equation: Equation) -> None:
        """Refuse what is not jax's own primitive, or of a dtype that has no rule."""
        name = equation.primitive
        if equation.bind is None:
            if name not in _ATOMS and name not in _OWN:
                raise Refused(f"`{name}` is not a primitive")
        elif equation.bind.__self__ is not jax_primitive(name):  # type: ignore
            raise Refused(f"`{name}` is not jax's primitive of that name")
        for n in equation.outputs:
            dtype = self.program.dtypes[n]
            held = all(self.values[k].constant for k in equation.inputs)
            if not (held or is_discrete(dtype) or str(dtype) in READABLE):
                raise Refused(f"no rule reads {dtype}")

    def apply(self, equation: Equation, inputs: Sequence[Value]) -> list[Value]:
        """Return what is known of the outputs, without a second view."""
        shapes = [self.program.shapes[n] for n in equation.outputs]
        dtypes = [self.program.dtypes[n] for n in equation.outputs]
        if equation.primitive in MOVES:
            return moved(equation, inputs, shapes)
        known = constant(equation, inputs, bind=self.binds)
        if known is not None and all(v.exact is not None for v in known):
            return known
        plain = known or self._plain(equation, inputs, shapes)
        outputs = [widened(v, d) for v, d in zip(plain, dtypes, strict=True)]
        self.wraps = self.wraps or any(
            v.known.low > w.known.low or v.known.high < w.known.high
            for v, w in zip(plain, outputs, strict=True)
        )
        if all(v.constant for v in inputs):
            outputs = [as_constant(v) for v in outputs]
        return outputs

    def _plain(
        self, equation: Equation, inputs: Sequence[Value], shapes: Sequence[Any]
    ) -> list[Value]:
        name = equation.primitive
        ask = self.ask(equation)
        if name in ARRAY_RULES:
            return ARRAY_RULES[name](self, ask, equation, inputs, shapes)
        if name not in TABLE:
            raise Refused(f"no rule for `{name}`")
        dtype = self.program.dtypes[equation.inputs[0]]
        if dtype == np.bool_ and name not in _ON_BOOLS:
            raise Refused(f"no rule for `{name}` on booleans")
        if name in _OTHER_ON_INTEGERS and dtype != np.bool_ and is_discrete(dtype):
            raise Refused(f"no rule for `{name}` on integers")
        rule = functools.partial(TABLE[name], ask)
        if name == "select_n":
            chosen = known_choice(inputs)
            if chosen is not None:
                return [chosen]
        same = same_elements(inputs, shapes[0]) if name in ON_SAME else None
        if same is None:
            value = each(rule, inputs, shapes[0])
        else:
            value = each(
                lambda x, y, s: ON_SAME[name](ask, x, y) if s else rule(x, y),
                inputs,
                shapes[0],
                same,
            )
        if name in ("max", "min"):
            neutral = -math.inf if name == "max" else math.inf
            for one, other in (inputs, inputs[::-1]):
                is_neutral = all(k.infinite and k.low == neutral for k in one.knowns)
                if is_neutral and other.shape == tuple(shapes[0]):
                    return [other]
            value.anchor = same is None and not value.constant
        return [value]

    def ask(self, equation: Equation) -> Ask:
        """Return the parameters, with the dtype that a cast reads."""
        params = dict(equation.params)
        if equation.primitive == "convert_element_type":
            params["old_dtype"] = self.program.dtypes[equation.inputs[0]]
        return Ask(params, self.conditions)

    def maximum_with_zero(self, n: int) -> np.ndarray | None:
        """Return the ids of max(z, 0), where the program has it, now or later."""
        for equation in self.program.equations:
            if equation.primitive != "max" or n not in equation.inputs:
                continue
            rest = [self.values.get(k) for k in equation.inputs if k != n]
            (output,) = equation.outputs
            shape = self.program.shapes[output]
            if shape != self.program.shapes[n] or not rest or rest[0] is None:
                continue
            if not all(k == ZERO for k in rest[0].knowns):
                continue
            if output in self.values:
                return self.values[output].ids
            if output not in self.reserved:
                self.reserved[output] = Value(shape, (NOTHING,)).ids
            return self.reserved[output]
        return None

    def _holds(self, n: int, text: str) -> bool:
        """Whether what a line claims of a value follows from what is known of it.

        Anything is true of all elements of a value that has none.
        """
        return not self.values[n].size or follows(self.values[n], text)


def _leaf(r: Interval, free: bool, dtype: Any) -> Value:
    """Params that vary are affine, within their range; others are constants."""
    known = Value(r.shape, interval=r)
    if not free:
        exact = np.asarray(r.low).astype(dtype)
        if np.array_equal(r.low, r.high) and np.array_equal(exact, r.low):
            known.exact = exact
        return known
    knowns = [normal(Known(k.low, k.high, True, True)) for k in known.knowns]
    return Value(r.shape, knowns, known.places)


def _constant(array: Any) -> Value:
    kind = str(getattr(array, "dtype", ""))
    if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
        return Value(np.shape(array), (NOTHING._replace(constant=True),))
    return Value(np.shape(array), exact=np.asarray(array))


_OTHER_ON_INTEGERS = {"and", "or", "xor", "not", "div", "pow"}
_ON_BOOLS = {
    *("and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge", "max", "min"),
    *("select_n", "convert_element_type"),
}


def _plain_names(primitive: str) -> tuple[str, ...]:
    return (primitive, f"{primitive} same", "constant", "moved")


_WAYS: dict[str, Callable[[Checker, Equation, Value], Value | None]] = {
    "perspective": perspective,
    "piecewise": of_one_value,
    "polynomial": polynomial,
    "sum": of_a_sum,
}
"""The ways in which whole expressions are judged."""
