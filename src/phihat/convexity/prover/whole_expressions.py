"""Find again, on a whole expression, the curvature that single rules lose.

After each equation whose output has neither curvature, three ways are tried:

- the output, as a polynomial of the params, by `polynomials.py`;
- the output, as a piecewise polynomial of one affine (or convex) value, by
  `piecewise.py`, and as a smooth function of one, by `univariate.py`;
- a sum: its polynomial summands are added up exactly, the others by their facts.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes, piecewise
from phihat.convexity.numbers.piecewise import (
    Coefficients,
    Piece,
    Piecewise,
    Shape,
    Unsupported,
)
from phihat.convexity.numbers.polynomials import Polynomial, plus
from phihat.convexity.primitives.facts.arithmetic import weighted_sum
from phihat.convexity.primitives.facts.arrays import Array
from phihat.convexity.primitives.facts.combining import elementwise, meet_arrays
from phihat.convexity.primitives.facts.facts import Facts, closed
from phihat.convexity.primitives.registry import record
from phihat.convexity.program.form import Equation
from phihat.convexity.prover import polynomials, univariate
from phihat.convexity.prover.summands import summands
from phihat.convexity.report import Blame

__all__ = ["WholeExpressions"]

_MAX_ELEMENTS = 64
"""Larger outputs are not written as polynomials."""

_MAX_DISTINCT = 256
"""More distinct sets of constants than this are not told apart."""

_MAX_DEPTH = 64
"""An expression of one value is followed back over as many equations."""


class WholeExpressions:
    """Tries three ways in turn, and remembers what it has expanded."""

    def __init__(self, interpreter: Any) -> None:
        """Belong to an interpreter, whose values and producers are read."""
        self.interpreter = interpreter
        self.expander = polynomials.Expander(interpreter)
        self.jumps: dict[str, Blame] = {}
        self.places: list[tuple[int, float]] = []

    def improve(
        self,
        equation: Equation,
        outputs: list[Array],
        how: str,
    ) -> tuple[list[Array], str]:
        """Return the outputs, better known where a way helps, and by which."""
        output = outputs[0]
        lost = any(not f.curved and not f.is_infinite for f in output.classes)
        if len(outputs) > 1 or not lost or output.is_constant or output.size == 0:
            return outputs, how
        if not dtypes.is_float(equation.dtype) or equation.primitive in _LOGICAL:
            return outputs, how
        number = equation.outputs[0]
        self.interpreter.values[number] = output
        self.interpreter.producers[number] = equation
        for name, attempt in (
            ("polynomial", self._polynomial),
            ("piecewise", self._of_one_value),
            ("sum", self._sum),
            ("perspective", self._perspective),
        ):
            found = attempt(number, output)
            if found is not None:
                better = meet_arrays(output, found)
                if all(f.curved for f in better.classes):
                    return [better], f"{how}; {name}"
        return outputs, how

    # ---------------------------------------------------------------- polynomials
    def _polynomial(self, number: int, output: Array) -> Array | None:
        equation = self.interpreter.producers[number]
        if (
            output.size > _MAX_ELEMENTS
            or equation.primitive not in polynomials.EXPANDED
        ):
            return None
        expanded = self.expander.expand(number)
        if expanded is None:
            return None
        classes: dict[Facts, int] = {}
        places = [
            classes.setdefault(_facts_of_polynomial(entry), len(classes))
            for entry in expanded.reshape(-1)
        ]
        return Array(
            output.shape,
            tuple(classes),
            np.array(places, np.intp).reshape(output.shape),
        ).pruned()

    def _perspective(self, number: int, output: Array) -> Array | None:
        """T f(x / t) is convex in (x, t) for a convex f of one variable and t > 0.

        It is the perspective of f. With an affine x that is all; a convex x needs a
        rising f, as t f(x / t) then rises in x.
        """
        equation, values = self.interpreter.producers[number], self.interpreter.values
        if equation.primitive != "mul":
            return None
        for t, value in (equation.inputs, equation.inputs[::-1]):
            negation = self.interpreter.producers.get(t)
            is_negated = negation is not None and negation.primitive == "neg"
            t = negation.inputs[0] if negation is not None and is_negated else t
            if values[t].shape != output.shape or values[value].shape != output.shape:
                continue
            if not all(f.affine and f.positive for f in values[t].classes):
                continue
            for root, inside in self._roots(value):
                ratio = self.interpreter.producers.get(root)
                if ratio is None or ratio.primitive != "div" or ratio.inputs[1] != t:
                    continue
                x = values[ratio.inputs[0]]
                if values[root].shape != output.shape or x.shape != output.shape:
                    continue
                found = self._shapes(
                    value, root, inside, values[value], values[root], x
                )
                if found is not None and all(f.curved for f in found.classes):
                    whole = elementwise(
                        lambda f, z: closed(
                            f.replace(low=-math.inf, total=f.total and z.total)
                        ),
                        [found, values[t]],
                        output.shape,
                    )
                    return whole.with_classes(_negated) if is_negated else whole
        return None

    # ------------------------------------------------------------------------ sums
    def _sum(self, number: int, output: Array) -> Array | None:
        """Group the summands of a scalar: polynomials exactly, the rest by facts."""
        if output.shape != ():
            return None
        terms = list(summands(self.interpreter, number))
        if len(terms) < 3:
            return None
        total: Polynomial = {}
        rest: list[tuple[Facts, int]] = []
        for coefficient, term in terms:
            expanded = self.expander.expand(term)
            if expanded is not None:
                total = plus(total, expanded.reshape(-1)[0], coefficient)
                continue
            facts = self.interpreter.values[term].facts
            rest.append((_scaled_facts(coefficient, facts), 1))
        known = weighted_sum([(_facts_of_polynomial(total), 1), *rest])
        return Array.of(known) if known.curved else None

    # ------------------------------------------------------------------- one value
    def _of_one_value(self, number: int, output: Array) -> Array | None:
        """Read the output as a function of one value, element by element."""
        for root, inside in self._roots(number):
            z = self.interpreter.values[root]
            if not all(f.curved for f in z.classes):
                continue
            found = self._shapes(number, root, inside, output, z)
            if found is not None and all(f.curved for f in found.classes):
                return found
            if all(f.affine for f in z.classes):
                return None  # what z is affine in shows the same function again
        return None

    def _roots(self, number: int) -> Iterator[tuple[int, list[Equation]]]:
        """Yield values through which alone the output depends on the params.

        Each with the equations between, in order; nearest first.
        """
        interpreter = self.interpreter
        frontier, inside = {number}, []
        for _ in range(_MAX_DEPTH):
            last = max(frontier)  # values are numbered in the order of equations
            equation = interpreter.producers.get(last)
            if equation is None or not _is_elementwise(equation):
                return
            if dtypes.is_integer(equation.dtype):
                return  # integers wrap, and casts to them truncate
            inside.append(equation)
            frontier.remove(last)
            frontier |= {
                n for n in equation.inputs if not interpreter.values[n].is_constant
            }
            if len(frontier) == 1:
                (root,) = frontier
                shape = interpreter.values[root].shape
                if _broadcasts_to(shape, interpreter.values[number].shape):
                    yield root, inside[::-1]

    def _shapes(
        self,
        number: int,
        root: int,
        inside: list[Equation],
        output: Array,
        z: Array,
        through: Array | None = None,
    ) -> Array | None:
        """Decide the shape for each distinct set of constants and range of z.

        `through` is what the function is composed with, where that is not z itself.
        """
        interpreter = self.interpreter
        leaves = sorted(
            {
                n
                for equation in inside
                for n in equation.inputs
                if interpreter.values[n].is_constant
            }
        )
        points = [interpreter.values[n].point for n in leaves]
        if any(point is None for point in points):
            return None
        spread = [np.broadcast_to(p, output.shape).reshape(-1) for p in points]
        z_places = np.zeros((), np.intp) if z.places is None else z.places
        spread.append(np.broadcast_to(z_places, output.shape).reshape(-1))
        if all(_is_one_number(part) for part in spread):
            rows = np.array([[part[0] for part in spread]], np.float64)
            which = None
        else:
            rows, which = np.unique(
                np.stack(spread, 1).astype(np.float64), axis=0, return_inverse=True
            )
        if len(rows) > _MAX_DISTINCT:
            return None
        classes: dict[Facts, int] = {}
        names = []
        for row in rows:
            constants = dict(zip(leaves, row[:-1], strict=True))
            facts = z.classes[int(row[-1])]
            shape = _shape(inside, root, number, constants, facts)
            if shape is None:
                return None
            if not (shape.convex or shape.concave) and through is None:
                function = _piecewise(inside, root, number, constants, facts)
                self._note_jump(root, function)
            if through is not None:
                facts = through.facts
            names.append(classes.setdefault(_composed(shape, facts), len(classes)))
        if which is None or len(classes) == 1:
            return Array.of(next(iter(classes)), output.shape)
        places = np.array(names, np.intp)[which.reshape(output.shape)]
        return Array(output.shape, tuple(classes), places)

    def _note_jump(self, root: int, function: Piecewise) -> None:
        """Say where the pieces of a function miss each other by rounding alone."""
        jump = piecewise.small_jump(function)
        current = self.interpreter.current
        if jump is None or current is None:
            return
        reason = (
            f"its pieces miss each other by {jump[1]:.2g}, as a constant is rounded, "
            "so that it is not convex; write it with pieces that meet, as "
            "q (|r| - q / 2) with q = min(|r|, d), or by `optax.huber_loss`"
        )
        self.places.append((root, jump[0]))
        where = str(current.source)
        self.jumps.setdefault(where, Blame(where, current.primitive, reason))


def _shape(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    z: Facts,
) -> Shape | None:
    """Decide a function of one variable: exactly, or by its second derivative."""
    try:
        return piecewise.curvature(_piecewise(inside, root, number, constants, z))
    except Unsupported:
        return univariate.shape(inside, root, number, constants, z)


def _composed(shape: Shape, z: Facts) -> Facts:
    """Compose with z, as a rule for one primitive does."""
    convex = shape.convex and (
        z.affine or (z.convex and shape.rising) or (z.concave and shape.falling)
    )
    concave = shape.concave and (
        z.affine or (z.concave and shape.rising) or (z.convex and shape.falling)
    )
    low = -math.inf
    if shape.lowest is not None:
        low = math.nextafter(float(shape.lowest), -math.inf)
        low = max(low, 0.0) if shape.lowest >= 0 else low
    return closed(Facts(low, math.inf, convex, concave, total=z.total))


def _facts_of_polynomial(entry: Polynomial) -> Facts:
    negated = plus({}, entry, -1)
    square = polynomials.is_sum_of_squares(entry)
    return closed(
        Facts(
            low=0.0 if square else -math.inf,
            convex=polynomials.is_convex(entry),
            concave=polynomials.is_convex(negated),
            p=Fraction(1, 2) if square else None,
        )
    )


def _negated(facts: Facts) -> Facts:
    """Return the curvature of -z."""
    return closed(Facts(convex=facts.concave, concave=facts.convex, total=facts.total))


def _scaled_facts(coefficient: Fraction, facts: Facts) -> Facts:
    """Return the curvature of a multiple; its range is not needed."""
    convex, concave = facts.convex, facts.concave
    if coefficient < 0:
        convex, concave = concave, convex
    if coefficient == 0:
        convex = concave = True
    return Facts(convex=convex, concave=concave, total=facts.total)


def _is_one_number(part: np.ndarray) -> bool:
    return part.size > 0 and bool((part == part[0]).all())


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return shape == target or math.prod(shape) == 1


def _is_elementwise(equation: Equation) -> bool:
    is_exact = record(equation.primitive).exact is not None
    return is_exact or equation.primitive in univariate.SMOOTH


def _piecewise(
    inside: Sequence[Equation],
    root: int,
    number: int,
    constants: dict[int, float],
    z: Facts,
) -> Piecewise:
    """Read an expression of one value as a piecewise polynomial on its range."""
    rules = [record(equation.primitive).exact for equation in inside]
    if None in rules or not all(map(math.isfinite, constants.values())):
        raise Unsupported
    steps: Any = list(zip(inside, rules, strict=True))
    known = {n: piecewise.trimmed([Fraction(c)]) for n, c in constants.items()}
    variable = (Fraction(0), Fraction(1))

    def on(piece: Piece) -> Coefficients:
        is_point = piece.low == piece.high
        at_root = piecewise.trimmed([piece.low]) if is_point else variable
        values = {**known, root: at_root}
        for equation, rule in steps:
            inputs = (values[n] for n in equation.inputs)
            values[equation.outputs[0]] = rule(equation, piece, *inputs)
        return values[number]

    return piecewise.read(on, z.low, z.high)


_LOGICAL = {"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "sort", "argmax"}
