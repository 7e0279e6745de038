"""A loop of which every input is known: run round by round, as the program would."""

from collections.abc import Callable, Sequence

import numpy as np

from phihat.convexity.kernel.facts import Refused
from phihat.convexity.kernel.values import Value
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.form import Equation, Program

__all__ = ["run_rounds"]

_MAX_STEPS = 20_000
"""Equations that are computed at most, those of all rounds together."""


def run_rounds(
    equation: Equation,
    inputs: Sequence[Value],
    run: Callable[[Program, Sequence[Value]], list[Value]],
) -> list[Value]:
    """Return the outputs of a scan of constants; `run` computes one round."""
    params = equation.params
    body: Program = params["body"]
    if equation.primitive != "scan" or not all(v.is_known for v in inputs):
        raise Refused("a loop of what is not known")
    if params["length"] * len(body.equations) > _MAX_STEPS:
        raise Refused("a loop of constants that is too long to be run again")
    consts, carry = params["num_consts"], params["num_carry"]
    state = list(inputs[consts : consts + carry])
    rows: list[list[Value]] = [[] for _ in body.outputs[carry:]]
    order = range(params["length"])
    for step in reversed(order) if params["reverse"] else order:
        elements = [_row(v, step) for v in inputs[consts + carry :]]
        results = run(body, [*inputs[:consts], *state, *elements])
        if not all(v.is_known for v in results):
            raise Refused("a round of a loop that is not known")
        state = results[:carry]
        for row, value in zip(rows, results[carry:], strict=True):
            row.append(value)
    return [*state, *(_stacked(row[:: -1 if params["reverse"] else 1]) for row in rows)]


def _row(value: Value, step: int) -> Value:
    if value.exact is not None:
        return Value(value.shape[1:], exact=value.exact[step])
    return Value(value.shape[1:], interval=_range(value)[step])


def _stacked(rows: Sequence[Value]) -> Value:
    shape = (len(rows), *rows[0].shape)
    exact = [v.exact for v in rows]
    if all(e is not None for e in exact):
        return Value(shape, exact=np.stack(exact))  # type: ignore
    lows, highs = zip(*map(_range, rows), strict=True)
    return Value(shape, interval=Interval(np.stack(lows), np.stack(highs)))


def _range(value: Value) -> Interval:
    if value.interval is None:
        raise Refused("an infinite value in a loop")
    return value.interval
