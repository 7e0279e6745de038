"""Smooth functions of one value: the second derivative enclosed on the whole line.

u tanh(u) + 2 log cosh(u), or a loss with its own stable form, is convex though no rule
for one step says so. As a function of one affine value its second derivative is
enclosed, by the rules of the box certifier, on cells that cover the whole range; the
outermost are half-lines, and cells that do not settle the sign are halved. A sign
counts only where the enclosure has it, so that what touches zero stays open.
"""

import math
import types
from collections.abc import Sequence

import numpy as np

from phihat.convexity.numbers import derivatives
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Ridge
from phihat.convexity.numbers.piecewise import Shape
from phihat.convexity.primitives.facts.facts import Facts
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation

__all__ = ["SMOOTH", "shape"]

_MAX_CELLS = 4096
_MAX_ROUNDS = 16


class _NotSmooth(Exception):
    pass


def shape(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    z: Facts,
) -> Shape | None:
    """Decide the shape of an expression of one value z over the range of z.

    `inside` are the equations between z, whose number is `root`, and the expression, in
    order; `constants` the exact values of what else they read. None where the second
    derivative has no sign, or is not read.
    """
    cells = _cells(z.low, z.high)
    convex = concave = rising = falling = True
    try:
        for _ in range(_MAX_ROUNDS):
            found = _evaluate(inside, root, number, constants, cells)
            if found.first is None or found.second is None:
                return None
            first, second = (
                _on_all_cells(cells, x) for x in (found.first, found.second)
            )
            up, down = second.low >= 0.0, second.high <= 0.0
            settled = up | down
            convex = convex and bool(up[settled].all())
            concave = concave and bool(down[settled].all())
            rising = rising and bool((first.low[settled] >= 0.0).all())
            falling = falling and bool((first.high[settled] <= 0.0).all())
            if not (convex or concave):
                return None
            if settled.all():
                return Shape(convex, concave, rising, falling, None)
            cells = _halved(cells, ~settled)
            if cells.size > _MAX_CELLS:
                return None
    except _NotSmooth:
        return None
    return None


def _on_all_cells(cells: Interval, x: Interval) -> Interval:
    """Write a derivative out for all cells; it may be the same on each."""
    return iv.rearrange(lambda end: np.broadcast_to(end[0, 0], cells.shape), x)


def _cells(low: float, high: float) -> Interval:
    """Cover a range: fine near 0, then doubling, then the half-lines."""
    fine, coarse = np.arange(0.0, 4.0, 0.25), 4.0 * 2.0 ** np.arange(0.0, 8.0)
    marks = np.concatenate([-coarse[::-1], -fine[:0:-1], fine, coarse])
    marks = np.concatenate([[low], marks[(marks > low) & (marks < high)], [high]])
    return Interval(marks[:-1], marks[1:])


def _halved(cells: Interval, which: np.ndarray) -> Interval:
    """Halve some cells; a half-line is cut at twice its end."""
    low, high = cells.low[which], cells.high[which]
    with np.errstate(all="ignore"):
        middle = np.where(np.isinf(low), 2.0 * high - 1.0, low / 2 + high / 2)
        middle = np.where(np.isinf(high), 2.0 * low + 1.0, middle)
    if not ((low < middle) & (middle < high) & np.isfinite(middle)).all():
        raise _NotSmooth
    return Interval(np.concatenate([low, middle]), np.concatenate([middle, high]))


class _Line:
    """What the rules of second derivatives ask for, on cells of one scalar."""

    def __init__(self) -> None:
        self.outline = types.SimpleNamespace(differences={}, constant=lambda _: None)
        self.slopes = None

    def spread(self, equation: Equation, inputs: list[Ridge]) -> list[Ridge]:
        """Return the inputs: all have one element."""
        del equation
        return inputs

    def infinite(self, number: int) -> None:
        """Tell that none is infinite."""
        del number

    def require(self, holds: np.ndarray, equation: Equation, reason: str) -> None:
        """Give up where the argument may leave its domain."""
        del equation, reason
        if not holds.all():
            raise _NotSmooth


def _evaluate(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    cells: Interval,
) -> Ridge:
    """Carry the enclosures through the equations, on all cells at once."""
    z = cells.reshape(1, 1, -1)
    one, zero = (iv.from_array(np.full((1, 1, 1), end)) for end in (1.0, 0.0))
    values = {root: Ridge(np.array([0]), z, one, zero)}
    for n, value in constants.items():
        if not math.isfinite(value):
            raise _NotSmooth
        values[n] = Ridge(None, iv.from_array(np.full((1, 1, 1), float(value))))
    run = _Line()
    with np.errstate(all="ignore"):
        for equation in inside:
            inputs = [values[n] for n in equation.inputs]
            rule = record(equation.primitive).jet
            varies = equation.primitive == "pow" and inputs[1].rows is not None
            if rule is None or equation.primitive not in SMOOTH or varies:
                raise _NotSmooth
            values[equation.outputs[0]] = rule(run, equation, inputs)
    return values[number]


SMOOTH: set[str] = {
    *("add", "add_any", "div", "integer_pow", "logaddexp", "mul", "neg", "pow", "sub"),
    *derivatives.SMOOTH,
}
"""The primitives that are read; each is smooth where it is defined."""
