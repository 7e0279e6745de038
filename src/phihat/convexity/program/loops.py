"""Loops in a flat program: unrolled where they are short, else kept whole."""

from typing import Any

import jax
import numpy as np

from phihat._core.jaxprs import scan_counts
from phihat.convexity.program.form import Equation, Source
from phihat.convexity.program.jaxprs import num_equations, opened

__all__ = ["MAX_EQUATIONS", "Untraceable", "scan", "while_loop"]

MAX_EQUATIONS = 40_000
"""A program longer than this is not unrolled further."""


class Untraceable(Exception):
    """The program holds something that cannot be read; the sentence says what."""


def scan(
    flattener: Any, eqn: Any, inputs: tuple[int, ...], source: Source
) -> list[int]:
    """Unroll a scan; one that is too long stays whole, with its body flat."""
    params = eqn.params
    length, (num_consts, num_carry) = params["length"], scan_counts(params)
    body = params["jaxpr"]
    cost = length * (num_equations(body) + 2 * len(inputs))
    if cost > MAX_EQUATIONS // 4:
        return _long_scan(flattener, eqn, inputs, source)
    consts = inputs[:num_consts]
    carry = list(inputs[num_consts : num_consts + num_carry])
    xs = inputs[num_consts + num_carry :]
    rows: list[list[int]] = [[] for _ in eqn.outvars[num_carry:]]
    order = range(length)
    for step in reversed(order) if params["reverse"] else order:
        elements = [_row(flattener, x, step, source) for x in xs]
        results = flattener.inline(body, [*consts, *carry, *elements], source)
        carry = results[:num_carry]
        for row, value in zip(rows, results[num_carry:], strict=True):
            row.append(value)
    stacked = [
        flattener.make(
            "stack",
            tuple(reversed(row) if params["reverse"] else row),
            variable.aval,
            source,
            axis=0,
        )
        if row
        else flattener.constant(np.zeros(variable.aval.shape, variable.aval.dtype))
        for row, variable in zip(rows, eqn.outvars[num_carry:], strict=True)
    ]
    return [*carry, *stacked]


def _row(flattener: Any, number: int, step: int, source: Source) -> int:
    """Write `x[step]`, computed at once where x is an exact constant."""
    if number in flattener.constants:
        return flattener.constant(flattener.constants[number][step])
    key = ("row", number, step)
    if key not in flattener.known:
        shape, dtype = flattener.shapes[number], flattener.dtypes[number]
        aval = jax.ShapeDtypeStruct(shape[1:], dtype)
        flattener.known[key] = (
            flattener.make("row", (number,), aval, source, row=step),
        )
    return flattener.known[key][0]


def _long_scan(
    flattener: Any, eqn: Any, inputs: tuple[int, ...], source: Source
) -> list[int]:
    body = type(flattener)()
    body_inputs = [
        body.new_value(v.aval) for v in opened(eqn.params["jaxpr"])[0].invars
    ]
    outputs = body.inline(eqn.params["jaxpr"], body_inputs, source)
    flattener.assumptions.update(body.assumptions)
    flattener.rules_of_ad.update(body.rules_of_ad)
    numbers = [flattener.new_value(variable.aval) for variable in eqn.outvars]
    params = {
        "body": body.program(body_inputs, [], outputs),
        **{key: eqn.params[key] for key in ("length", "reverse")},
        **dict(zip(("num_consts", "num_carry"), scan_counts(eqn.params), strict=True)),
    }
    flattener.append(Equation("scan", params, inputs, tuple(numbers), source, None))
    return numbers


def while_loop(
    flattener: Any, eqn: Any, inputs: tuple[int, ...], source: Source
) -> list[int]:
    """Run a while loop whose condition can be computed; others stay unread."""
    params = eqn.params
    split = params["cond_nconsts"]
    cond_consts = inputs[:split]
    body_consts = inputs[split : split + params["body_nconsts"]]
    start = list(inputs[split + params["body_nconsts"] :])
    carry, before = start, len(flattener.equations)
    bodies = params["cond_jaxpr"], params["body_jaxpr"]
    cost = max(sum(map(num_equations, bodies)), 1)
    for _ in range(1 + MAX_EQUATIONS // 8 // cost):
        (going,) = flattener.inline(
            params["cond_jaxpr"], [*cond_consts, *carry], source
        )
        if going not in flattener.constants:
            del flattener.equations[before:]
            flattener.known.clear()
            numbers = [flattener.new_value(variable.aval) for variable in eqn.outvars]
            flattener.append(
                Equation("while", eqn.params, inputs, tuple(numbers), source, None)
            )
            return numbers
        if not bool(flattener.constants[going]):
            return carry
        carry = flattener.inline(params["body_jaxpr"], [*body_consts, *carry], source)
    raise Untraceable(f"{source}: a `while` of more rounds than can be unrolled")
