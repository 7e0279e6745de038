"""Where a proof lost the curvature: the lines that a report blames."""

from typing import Any

from phihat.convexity.primitives.facts.call import Undecided
from phihat.convexity.primitives.facts.facts import Facts
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation
from phihat.convexity.report import Blame

__all__ = ["blame_of", "blame_of_stop"]

_SHOWN = 3


def blame_of_stop(equation: Equation | None, error: Undecided) -> Blame:
    """Name the equation that ended the proof."""
    if equation is None:
        return Blame("(unknown line)", "", str(error))
    return Blame(str(equation.source), equation.primitive, str(error))


def blame_of(interpreter: Any, number: int) -> tuple[Blame, ...]:
    """Walk back from a value without curvature to where it was lost first."""
    values, producers = interpreter.values, interpreter.producers
    found: dict[Blame, None] = {}
    seen: set[int] = set()
    stack = [number]
    while stack and len(found) < _SHOWN:
        current = stack.pop()
        equation = producers.get(current)
        if current in seen or equation is None:
            continue
        seen.add(current)
        worse = [
            n
            for n in equation.inputs
            if not values[n].is_constant
            and not all(f.curved for f in values[n].classes)
            and n in producers
        ]
        if worse:
            stack.extend(worse)
        else:
            found[_reason(interpreter, equation)] = None
    return tuple(found)


def _reason(interpreter: Any, equation: Equation) -> Blame:
    operands = [interpreter.values[n] for n in equation.inputs]
    moving = [_words(array.facts) for array in operands if not array.is_constant]
    name = equation.primitive
    what = " and of ".join(moving)
    return Blame(str(equation.source), name, record(name).lost.format(what=what))


def _words(facts: Facts) -> str:
    kind = (
        "an affine"
        if facts.affine
        else "a convex"
        if facts.convex
        else "a concave"
        if facts.concave
        else "an uncurved"
    )
    return f"{kind} value"
