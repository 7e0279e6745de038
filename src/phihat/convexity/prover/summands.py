"""What a scalar adds up: its summands, and those that are convex each."""

import collections
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from phihat.convexity.program.form import Equation

__all__ = ["convex_summands", "summands"]

_KINKED = {
    *("abs", "clamp", "cummax", "max", "min", "reduce_max", "reduce_min", "select_n"),
    *("sort", "sqrt", "top_k"),
}


def summands(interpreter: Any, number: int) -> Iterator[tuple[Fraction, int]]:
    """Follow scalar sums, differences and multiples back to what they add up."""
    return _summands(interpreter, number, Fraction(1), False)


def convex_summands(interpreter: Any, number: int) -> frozenset[int]:
    """Return the values, proved convex, that a sum adds with a coefficient > 0.

    Each is read by nothing else, nor is any sum on the way to it. Only those with a
    kink on their way: to enclose the curvature of smooth ones says more.
    """
    read = collections.Counter(
        n for equation in interpreter.program.equations for n in equation.inputs
    )
    terms = list(_summands(interpreter, number, Fraction(1), True))
    entered = collections.Counter(n for _, n in terms)
    found = set()
    for coefficient, n in terms:
        facts = interpreter.values[n].facts
        alone = read[n] == entered[n] == 1 and _is_read_once(
            interpreter, number, n, read
        )
        proved = coefficient > 0 and facts.convex and facts.total
        if alone and proved and _has_kink(interpreter, n):
            found.add(n)
    return frozenset(found)


def _summands(
    interpreter: Any, number: int, coefficient: Fraction, whole: bool
) -> Iterator[tuple[Fraction, int]]:
    """Follow scalar sums, differences and multiples back to what they add up.

    `whole` stops at what is proved convex, unless its summands are so each.
    """
    parts = list(_parts(interpreter, number, coefficient, whole))
    values = interpreter.values
    stands = whole and coefficient > 0 and values[number].facts.convex
    if stands and not all(c > 0 and values[n].facts.convex for c, n in parts):
        parts = [(coefficient, number)]
    yield from parts


def _parts(
    interpreter: Any, number: int, coefficient: Fraction, whole: bool
) -> Iterator[tuple[Fraction, int]]:
    equation = interpreter.producers.get(number)
    values = interpreter.values
    name = equation.primitive if equation else ""
    if equation is None or any(values[n].shape != () for n in equation.inputs):
        yield coefficient, number
    elif name in ("add", "add_any", "sub"):
        one, other = equation.inputs
        yield from _summands(interpreter, one, coefficient, whole)
        sign = -1 if name == "sub" else 1
        yield from _summands(interpreter, other, sign * coefficient, whole)
    elif name == "neg":
        yield from _summands(interpreter, equation.inputs[0], -coefficient, whole)
    elif name in ("mul", "div"):
        yield from _multiple(interpreter, equation, number, coefficient, whole)
    else:
        yield coefficient, number


def _multiple(
    interpreter: Any,
    equation: Equation,
    number: int,
    coefficient: Fraction,
    whole: bool,
) -> Iterator[tuple[Fraction, int]]:
    values = interpreter.values
    pairs = [equation.inputs, equation.inputs[::-1]]
    for x, c in pairs if equation.primitive == "mul" else pairs[:1]:
        point = values[c].point
        if point is not None and not values[x].is_constant:
            factor = Fraction(float(point))
            if equation.primitive == "div":
                factor = 1 / factor
            yield from _summands(interpreter, x, coefficient * factor, whole)
            return
    yield coefficient, number


def _has_kink(interpreter: Any, number: int) -> bool:
    """Whether an equation with a kink lies between the params and a value."""
    stack, seen = [number], set()
    while stack:
        equation = interpreter.producers.get(stack.pop())
        if equation is None or equation.outputs[0] in seen:
            continue
        if equation.primitive in _KINKED:
            return True
        seen.add(equation.outputs[0])
        stack.extend(equation.inputs)
    return False


def _is_read_once(
    interpreter: Any, number: int, target: int, read: Mapping[int, int]
) -> bool:
    """Whether the sums between a value and its summand are read once each."""
    while target != number:
        readers = [e for e in interpreter.program.equations if target in e.inputs]
        if len(readers) != 1 or read[target] != 1:
            return False
        target = readers[0].outputs[0]
    return True
