r"""The rigorous value of a flat program: intervals that hold it, over ranges or points.

`evaluate` runs the equations in order, each by the value rule in its primitive's
record. A primitive without a rule is `Unreadable`, by name; a value that is not
certainly a finite real is `Undefined`. Atoms are evaluated as the ideal functions that
they stand for, and casts between floats as the identity. One dispatcher applies the
meaning of the dtypes after every rule: no rule has to think of integers that wrap.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from phihat.convexity.numbers.extended import (
    MINUS_INFINITY,
    NOT_A_NUMBER,
    NOT_FINITE,
    PLUS_INFINITY,
    Extended,
    from_constant,
    rearranged,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.primitives.registry import record
from phihat.convexity.primitives.values.rule_builders import wrapped
from phihat.convexity.program.form import Equation, Program, Source

__all__ = ["Undefined", "Unreadable", "applied", "computed", "evaluate"]


class Unreadable(Exception):
    """No rule tells the value of an equation.

    Attributes:
      primitive: the name of the primitive.
      source: where it was written.
    """

    def __init__(self, primitive: str, source: Source) -> None:
        """Say so in one sentence."""
        super().__init__(f"{source}: no rule reads `{primitive}`")
        self.primitive = primitive
        self.source = source


class Undefined(Exception):
    """A value is not certainly a finite real number.

    Attributes:
      primitive: the name of the primitive that wrote it.
      source: where it was written.
      certain: whether it certainly is none; else it may be one.
      value: what floats hold instead, where that is certain: inf, -inf or NaN.
    """

    def __init__(
        self, primitive: str, source: Source, certain: bool, value: float = math.nan
    ) -> None:
        """Say so in one sentence."""
        how = "is no finite number" if certain else "may be no finite number"
        super().__init__(f"{source}: the value of `{primitive}` {how}")
        self.primitive = primitive
        self.source = source
        self.certain = certain
        self.value = value


def evaluate(
    program: Program,
    inputs: Mapping[int, Interval],
    wanted: Iterable[int] | None = None,
    step: "Step | None" = None,
) -> dict[int, Interval]:
    """Enclose values of a program for all inputs in their ranges.

    Those of the outputs, or of `wanted`: all are finite reals, or it is `Undefined`; a
    primitive without a rule, or an input without a range, is `Unreadable`. `step` is
    what an equation makes of its inputs, in place of `applied`.
    """
    targets = tuple(program.outputs if wanted is None else wanted)
    values = _run(program, inputs, targets, step or _plainly)
    writers = program.producers()
    for number in targets:
        value = values[number]
        if isinstance(value, Extended):
            writer = writers.get(number)
            name, source = (
                (writer.primitive, writer.source)
                if writer
                else ("constant", Source("", 0, ""))
            )
            raise Undefined(name, source, _is_certain(value), _in_floats(value))
    return values


Step = Callable[[Program, Equation, list[Interval]], list[Interval]]


def _plainly(
    program: Program, equation: Equation, inputs: list[Interval]
) -> list[Interval]:
    del program
    return applied(equation, inputs)


def _run(
    program: Program, inputs: Mapping[int, Interval], targets: Iterable[int], step: Step
) -> dict[int, Interval]:
    """Evaluate what the targets need, and keep no value longer than it is needed."""
    needed, steps = set(targets), []
    for equation in reversed(program.equations):
        if not needed.isdisjoint(equation.outputs):
            dying = set(equation.inputs) - needed
            needed.update(equation.inputs)
            steps.append((equation, dying))
    values: dict[int, Interval] = {}

    def read(number: int, equation: Equation | None = None) -> Interval:
        if number in values:
            return values[number]
        if number in program.constants:
            found = from_constant(program.constants[number])
        elif number in inputs:
            found = inputs[number]
        else:
            source = equation.source if equation else Source("", 0, "")
            raise Unreadable("an input without a range", source)
        values[number] = found
        return found

    for equation, dying in reversed(steps):
        if equation.primitive != "scan" and record(equation.primitive).value is None:
            raise Unreadable(equation.primitive, equation.source)
        given = [read(n, equation) for n in equation.inputs]
        if equation.primitive == "scan":
            results = _scan(equation, given, step)
        else:
            results = step(program, equation, given)
        values.update(zip(equation.outputs, results, strict=True))
        for number in dying:
            values.pop(number, None)
    return {number: read(number) for number in targets}


def _scan(equation: Equation, inputs: list[Interval], step: Step) -> list[Interval]:
    """Run the body round by round, as the program would."""
    params = equation.params
    body: Program = params["body"]
    split = params["num_consts"] + params["num_carry"]
    consts, carry = inputs[: params["num_consts"]], inputs[params["num_consts"] : split]
    columns = inputs[split:]
    order = range(params["length"])
    rows: list[list[Interval]] = [[] for _ in body.outputs[params["num_carry"] :]]
    for k in reversed(order) if params["reverse"] else order:
        elements = [rearranged(lambda end, k=k: end[k], column) for column in columns]
        given = dict(zip(body.params, [*consts, *carry, *elements], strict=True))
        values = _run(body, given, body.outputs, step)
        results = [values[number] for number in body.outputs]
        carry = results[: params["num_carry"]]
        for row, result in zip(rows, results[params["num_carry"] :], strict=True):
            row.append(result)
    stacked = [
        rearranged(
            lambda *ends: np.stack(ends), *(reversed(row) if params["reverse"] else row)
        )
        for row in rows
    ]
    return [*carry, *stacked]


def _is_certain(value: Extended) -> bool:
    certain = (PLUS_INFINITY, MINUS_INFINITY, NOT_A_NUMBER, NOT_FINITE)
    return bool(np.isin(value.kind, certain).any())


def _in_floats(value: Extended) -> float:
    """Return the infinity that all elements are; NaN where they are none."""
    for kind, number in ((PLUS_INFINITY, math.inf), (MINUS_INFINITY, -math.inf)):
        if (value.kind == kind).all():
            return number
    return math.nan


def applied(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Apply the rule of a primitive, then the meaning of the dtypes."""
    if equation.primitive == "scan":
        return _scan(equation, inputs, _plainly)
    rule = record(equation.primitive).value
    results = None if rule is None else rule(equation, inputs)
    if results is None:
        raise Unreadable(equation.primitive, equation.source)
    kinds = equation.dtypes or [equation.dtype] * len(results)
    return [wrapped(x, kind) for x, kind in zip(results, kinds, strict=True)]


def computed(equation: Equation, inputs: list[Interval]) -> list[Interval]:
    """Enclose the outputs of one equation; infinities pass, marked.

    An element that is certainly inf or -inf, as the -inf of a mask or log(0), comes
    back in an `Extended`, of which every rule takes account; what may be no number is
    `Undefined`.
    """
    results = applied(equation, inputs)
    for result in results:
        if isinstance(result, Extended) and np.any(result.kind > PLUS_INFINITY):
            raise Undefined(equation.primitive, equation.source, _is_certain(result))
    return results
