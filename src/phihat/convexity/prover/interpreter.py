"""The prover: an abstract interpretation of the flat program, equation by equation.

Every value gets an `Array` of facts. An equation on constants is computed in
intervals; one that moves elements moves their facts; any other has a rule in the record
of its primitive, for single elements or for whole arrays. Where a rule loses the
curvature, a look at the whole expression may find it again. An unknown primitive ends
the proof, by name.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers.extended import from_constant
from phihat.convexity.primitives.evaluation import Undefined, Unreadable, computed
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.call import Call, Rule, Undecided
from phihat.convexity.primitives.facts.combining import elementwise, same_elements
from phihat.convexity.primitives.facts.data_movement import moved
from phihat.convexity.primitives.facts.facts import TOP, Facts, closed
from phihat.convexity.primitives.facts.powers import square
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation, Program
from phihat.convexity.program.problem import Problem
from phihat.convexity.program.structure import STRUCTURAL, Unknown
from phihat.convexity.prover import cancellation
from phihat.convexity.prover.blame import blame_of, blame_of_stop
from phihat.convexity.prover.expressions import is_number
from phihat.convexity.prover.identities import identity
from phihat.convexity.prover.summands import convex_summands
from phihat.convexity.prover.whole_expressions import WholeExpressions
from phihat.convexity.report import Blame, Line

__all__ = ["Interpreter", "Proof", "prove"]


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the prover found.

    Attributes:
      facts: what is known of the loss.
      lines: one line for each equation, in order.
      constraints: conditions on the domain that the loss implies.
      assumptions: what rules took for granted.
      blame: where curvature was lost; empty where the loss has one.
      stopped: the sentence that ended the proof early, or None.
      convex_summands: the values, proved convex, that the loss adds up, where the loss
        as a whole is not proved; nothing else reads them.
      jumps: values of the program, and where the loss jumps in them by rounding.
    """

    facts: Facts
    lines: tuple[Line, ...]
    constraints: tuple[str, ...]
    assumptions: tuple[str, ...]
    blame: tuple[Blame, ...]
    stopped: Blame | None = None
    convex_summands: frozenset[int] = frozenset()
    jumps: tuple[tuple[int, float], ...] = ()


def prove(problem: Problem) -> Proof:
    """Interpret the problem's program over its domain and data.

    Where that stops, and the program takes logarithms of affine values, it is tried
    again on the domain that they leave: there these values are > 0 throughout.
    """
    proof = _interpreted(problem, frozenset())
    logged = _logged(problem.program)
    if proof.stopped is None or not logged:
        return proof
    again = _interpreted(problem, logged)
    return again if again.facts.curved else proof


_CARRIERS = {
    *("add", "add_any", "broadcast_in_dim", "concatenate", "div", "dot_general"),
    *("exp", "expand_dims", "mul", "neg", "reduce_sum", "reshape", "square"),
    *("squeeze", "stack", "sub", "transpose"),
}
"""What is no number wherever one element of any operand is none."""


def _logged(program: Program) -> frozenset[int]:
    """Return values that must be > 0 for the loss to be a number, each element.

    Each element of their logarithm reaches the loss, through primitives that leave no
    number where one of their elements is none.
    """
    carried, found = set(program.outputs), set()
    for equation in reversed(program.equations):
        shapes = [program.shapes[number] for number in equation.outputs]
        if carried.isdisjoint(equation.outputs) or not all(map(math.prod, shapes)):
            continue
        if equation.primitive == "log":
            found.update(equation.inputs)
        if equation.primitive in _CARRIERS:
            carried.update(equation.inputs)
    return frozenset(found)


def _interpreted(problem: Problem, logged: frozenset[int]) -> Proof:
    """Interpret, with the values whose logarithms are taken on the domain of these."""
    interpreter = Interpreter(problem.program, logged=logged)
    inputs = [*problem.domain, *problem.data]
    numbers = [*problem.program.params, *problem.program.data]
    varied = [*problem.varied, *([False] * len(problem.data))]
    for number, interval, varies in zip(numbers, inputs, varied, strict=True):
        if interval is None and number in problem.program.constants:
            continue  # data some of which are NaN or infinite
        if interval is None:
            array = Array.of(TOP.replace(constant=True), problem.program.shapes[number])
        else:
            array = _variable(interval) if varies else Array.known(interval)
        interpreter.values[number] = interpreter.where_logged(number, array)
    stopped = None
    try:
        interpreter.run()
        facts = interpreter.values[problem.program.output].facts
    except Undecided as error:
        facts = TOP
        stopped = blame_of_stop(interpreter.current, error)
    blame, summands = ((stopped,) if stopped else ()), frozenset()
    if not facts.curved and stopped is None:
        jumps = interpreter.whole_expressions.jumps
        blame = tuple(jumps.values()) or blame_of(interpreter, problem.program.output)
        if not interpreter.constraints:
            summands = convex_summands(interpreter, problem.program.output)
    return Proof(
        facts,
        tuple(interpreter.lines),
        tuple(dict.fromkeys(interpreter.constraints)),
        tuple(dict.fromkeys(interpreter.assumptions)),
        blame,
        stopped,
        summands,
        tuple(interpreter.whole_expressions.places),
    )


def _variable(interval: Any) -> Array:
    """Return the facts of params: affine, with their range."""
    known = Array.known(interval)
    return Array(
        interval.shape,
        tuple(
            closed(Facts(f.low, f.high, convex=True, concave=True))
            for f in known.classes
        ),
        known.places,
    )


class Interpreter:
    """Carries the facts of all values of one program.

    Attributes:
      program: the program.
      values: the array of each value known so far.
      producers: the equation of each value known so far.
      lines: the certificate so far.
      constraints: conditions on the domain so far.
      assumptions: what was taken for granted so far.
    """

    def __init__(
        self,
        program: Program,
        outer: "Interpreter | None" = None,
        *,
        logged: frozenset[int] = frozenset(),
    ) -> None:
        """Start with the literals of the program; a body shares the outer's lists.

        `logged` are values whose logarithm the program takes: its domain is where
        they are > 0.
        """
        self.program = program
        self.logged = logged
        self.values: dict[int, Array] = {}
        self.producers: dict[int, Equation] = {}
        self.lines: list[Line] = [] if outer is None else outer.lines
        self.constraints: list[str] = [] if outer is None else outer.constraints
        self.assumptions: list[str] = [] if outer is None else outer.assumptions
        self.whole_expressions = WholeExpressions(self)
        self.current: Equation | None = None
        self.reserved: dict[int, np.ndarray] = {}
        for number, value in program.constants.items():
            self.values[number] = _literal(value)

    def run(self) -> None:
        """Interpret all equations, in order."""
        for position, equation in enumerate(self.program.equations):
            self.current = equation
            inputs = [self.value(number) for number in equation.inputs]
            outputs, how = self.apply(equation, inputs)
            outputs, how = self.whole_expressions.improve(equation, outputs, how)
            outputs = list(map(self.where_logged, equation.outputs, outputs))
            for number, output in zip(equation.outputs, outputs, strict=True):
                output.number_as(self.reserved.get(number))
                self.values[number] = output
                self.producers[number] = equation
            self.lines.append(
                Line(
                    position,
                    equation.primitive,
                    str(equation.source),
                    how,
                    tuple(map(str, inputs)),
                    tuple(map(str, outputs)),
                )
            )

    def where_logged(self, number: int, array: Array) -> Array:
        """Read an affine value as > 0 where its logarithm is taken.

        The set on which it is so is convex, as the value is affine without any other
        condition, and beyond it the logarithm leaves no number. It does not count as
        defined everywhere, so that nothing may ask what it is elsewhere.
        """
        if number not in self.logged or array.is_constant:
            return array
        if all(f.positive for f in array.classes) or not all(
            f.affine and f.total and f.high > 0 for f in array.classes
        ):
            return array
        self.constraints.append("the argument of a logarithm is > 0")

        def function(f: Facts) -> Facts:
            low = max(f.low, 0.0)
            return closed(f.replace(low=low, positive=True, total=False))

        return array.with_classes(function)

    def value(self, number: int) -> Array:
        """Return what is known of a value; of a constant random key, nothing."""
        if number not in self.values:
            unknown = TOP.replace(constant=True)
            self.values[number] = Array.of(unknown, self.program.shapes[number])
        return self.values[number]

    def apply(
        self, equation: Equation, inputs: Sequence[Array]
    ) -> tuple[list[Array], str]:
        """Return the arrays of an equation's outputs, and the rule that gave them."""
        constants = self.computed(equation, inputs)
        if constants is not None:
            return constants, "constant"
        plain, how = self.plain(equation, inputs)
        plain = list(map(_wrapped, plain, equation.dtypes))
        if all(array.is_constant for array in inputs):
            plain = [
                array if array.is_constant else array.with_classes(_constant)
                for array in plain
            ]
        return [cancellation.follow(self, equation, inputs, plain[0]), *plain[1:]], how

    def computed(
        self, equation: Equation, inputs: Sequence[Array]
    ) -> list[Array] | None:
        """Compute an equation on constants in intervals; None where that fails."""
        intervals = [a.interval for a in inputs if a.interval is not None]
        if len(intervals) < len(inputs):
            return None
        try:
            return [Array.known(value) for value in computed(equation, intervals)]
        except (Undefined, Unreadable, Unknown):
            return None

    def plain(
        self, equation: Equation, inputs: Sequence[Array]
    ) -> tuple[list[Array], str]:
        """Apply the rule of the primitive, without a second view."""
        name = equation.primitive
        if name in _OTHER_ON_INTEGERS and dtypes.is_integer(equation.dtype):
            raise Undecided(f"no rule for the primitive `{name}` on integers")
        rules = record(name)
        if name == "select_n":
            special = identity(self, equation, inputs, self.call(equation))
            if special is not None:
                return special
        if rules.facts_of_arrays is not None:
            return rules.facts_of_arrays(self, equation, inputs), name
        if name in STRUCTURAL:
            shapes = [self.program.shapes[number] for number in equation.outputs]
            return moved(equation, inputs, shapes), "moved"
        if rules.facts is not None:
            return self.element_by_element(equation, inputs, rules.facts)
        raise Undecided(f"no rule for the primitive `{name}`")

    def call(self, equation: Equation) -> Call:
        """Return what the rules may ask for, with the constraints shared."""
        params = equation.params
        if equation.primitive == "convert_element_type":
            kind = np.dtype(self.program.dtypes[equation.inputs[0]]).kind
            params = {**params, "from_integers": kind in "iub"}
        return Call(params, self.constraints)

    def shape(self, equation: Equation, output: int = 0) -> tuple[int, ...]:
        """Return the shape of an output."""
        return self.program.shapes[equation.outputs[output]]

    def element_by_element(
        self, equation: Equation, inputs: Sequence[Array], rule: Rule
    ) -> tuple[list[Array], str]:
        """Apply a rule of single elements; tell equal operands from unequal ones."""
        name, shape, call = (
            equation.primitive,
            self.shape(equation),
            self.call(equation),
        )
        special = identity(self, equation, inputs, call)
        if special is not None:
            return special
        if name in ("mul", "eq", "ne", "lt", "le", "gt", "ge", "sub", "max", "min"):
            same = same_elements(inputs[0], inputs[1], shape)
            if same is not None:
                return [_on_same(name, rule, call, inputs, shape, same)], f"{name} same"
        result = elementwise(lambda *facts: rule(call, *facts), inputs, shape)
        if name in ("max", "min") and not result.is_constant:
            result.is_anchor = True
        return [result], name

    def numbers_of_maximum(self, number: int) -> np.ndarray | None:
        """Return the numbers of `max(z, 0)`, z being a value, if the program has it.

        It may come later; then its elements get the numbers that are given out now.
        """
        for equation in self.program.equations:
            if equation.primitive != "max" or number not in equation.inputs:
                continue
            (other,) = [n for n in equation.inputs if n != number] or [number]
            output = equation.outputs[0]
            shape = self.program.shapes[output]
            zero = self.values.get(other)
            if zero is None or not is_number(zero, 0.0):
                continue
            if shape != self.program.shapes[number]:
                continue
            if output in self.values:
                return self.values[output].numbers
            if output not in self.reserved:
                self.reserved[output] = Array.of(TOP, shape).numbers
            return self.reserved[output]
        return None


def _literal(value: np.ndarray) -> Array:
    """Return the array of a constant of the program."""
    if not dtypes.is_readable(value.dtype):
        return Array.of(TOP.replace(constant=True), value.shape)
    return Array.known(from_constant(value))


def _constant(facts: Facts) -> Facts:
    """Note that what is computed from constants is one."""
    known = facts.replace(constant=True)
    return closed(known) if facts.total else known


_OTHER_ON_INTEGERS = {"and", "div", "not", "or", "reduce_and", "reduce_or", "xor"}
"""On integers these work bit by bit, and division truncates."""


def _wrapped(array: Array, dtype: Any) -> Array:
    """Widen the range of integers that may overflow: they come out anywhere."""
    if not (dtypes.is_integer(dtype) or dtypes.is_boolean(dtype)):
        return array
    low, high = dtypes.ends(dtype)

    def function(x: Facts) -> Facts:
        if dtypes.fits(x.low, x.high, dtype):
            return x
        return Facts(low, high, total=x.total, constant=x.constant)

    if all(function(facts) is facts for facts in array.classes):
        return array
    return array.with_classes(function)


def _on_same(
    name: str,
    rule: Any,
    call: Call,
    inputs: Sequence[Array],
    shape: tuple[int, ...],
    same: np.ndarray,
) -> Array:
    """Apply a rule of two operands that are one value where `same` says so.

    z z = z^2, z - z = 0, z = z, max(z, z) = z: where z is a number.
    """

    def function(x: Facts, y: Facts, is_same: bool) -> Facts:
        if not is_same:
            return rule(call, x, y)
        if name == "mul":
            return square(call, x)
        if name in ("max", "min"):
            return x
        if not x.total:
            return rule(call, x, y)
        one_or_zero = name in ("eq", "le", "ge")
        return closed(Facts(float(one_or_zero), float(one_or_zero), constant=True))

    return elementwise(function, inputs, shape, same)
