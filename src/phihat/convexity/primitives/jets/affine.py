r"""What holds on every box alike: the constants of a program, and its affine values.

An affine value is kept, element by element, as $a u_r + b$ in a *scalar* $u_r$ of one
list: first the params themselves, then each sum of several of them, $u_r = s_r \cdot
\theta + t_r$. Code that depends on the params through one scalar at a time is then a
function of one variable, and its Hessian $\varphi''(u_r)\, s_r s_r'$.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import Extended, from_constant
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import agree
from phihat.convexity.numbers.sizes import check_size
from phihat.convexity.primitives.evaluation import computed
from phihat.convexity.program.flat_indices import (
    moved_places,
    paired_places,
    places_along,
    spread_places,
)
from phihat.convexity.program.form import Equation
from phihat.convexity.program.problem import Problem
from phihat.convexity.program.structure import STRUCTURAL

__all__ = ["Affine", "Outline"]


class Affine(NamedTuple):
    """Elements $a u_r + b$ of an affine value, flat.

    Attributes:
      rows: r, the scalar of each element `[N]`; -1 where a is 0.
      gain: a `[N]`.
      offset: b `[N]`.
    """

    rows: np.ndarray
    gain: Interval
    offset: Interval

    def take(self, places: np.ndarray) -> "Affine":
        """Pick elements."""
        return Affine(self.rows[places], self.gain[places], self.offset[places])


class Outline:
    """Constants, affine values, and the equations that are left for each box.

    Args:
      problem: the question.
      zeros: numbers of values that count as zero.

    Attributes:
      program: the program.
      size: the number of coordinates n.
      constants: ranges of the values that do not depend on params, by number.
      affine: the affine values, by number.
      differences: for a maximum, minimum or logaddexp of two affine values, their
        difference, by the number of the result.
      slopes: s, of all scalars `[M, n]`.
      offsets: t `[M]`.
      equations: those whose results are neither constant nor affine.

    Raises:
      Unreadable: a constant's primitive has no rule.
      TooLarge: the slopes do not fit in memory.
    """

    def __init__(self, problem: Problem, zeros: frozenset[int] = frozenset()) -> None:
        """Read the program once."""
        self.program = program = problem.program
        self.size = problem.size
        self.constants: dict[int, Interval] = {}
        self.affine: dict[int, Affine] = {}
        self.differences: dict[int, Affine] = {}
        self.equations: list[Equation] = []
        self._slopes: list[Interval] = []
        self._offsets: list[Interval] = []
        self._num_rows = 0
        self._read_inputs(problem)
        self.constants.update(
            {number: _zeros(program.shapes[number]) for number in zeros}
        )
        for equation in program.equations:
            if not zeros.issuperset(equation.outputs):
                self._read(equation)
        self.slopes = iv.rearrange(_stacked, *self._slopes)
        self.offsets = iv.rearrange(_stacked, *self._offsets)

    def constant(self, number: int) -> Interval | None:
        """Return the range of a value that does not depend on params, else None."""
        if number not in self.constants and number in self.program.constants:
            self.constants[number] = from_constant(self.program.constants[number])
        return self.constants.get(number)

    def _read_inputs(self, problem: Problem) -> None:
        unit = np.eye(self.size)
        self._new_scalars(Interval(unit, unit), _zeros((self.size,)))
        start = 0
        for number, held, varies in zip(
            problem.program.params, problem.domain, problem.varied, strict=True
        ):
            if varies:
                self.affine[number] = _scalars(start, held.size)
                start += held.size
            else:
                self.constants[number] = held
        for number, interval in zip(problem.program.data, problem.data, strict=True):
            if interval is not None:
                self.constants[number] = interval

    def _read(self, equation: Equation) -> None:
        constants = [self.constant(number) for number in equation.inputs]
        known = [constant for constant in constants if constant is not None]
        if len(known) == len(constants):
            results = computed(equation, known)
            self.constants.update(zip(equation.outputs, results, strict=True))
            return
        inputs = [self._operand(number) for number in equation.inputs]
        results = None
        is_real = all(map(dtypes.is_float, equation.dtypes))
        if is_real and all(operand is not None for operand in inputs):
            results = self._affine(equation, inputs)
        if results is None:
            self.equations.append(equation)
        else:
            self.affine.update(zip(equation.outputs, results, strict=True))

    def _operand(self, number: int) -> Affine | None:
        """Return a value as affine, constants too."""
        if number in self.affine:
            return self.affine[number]
        found = self.constant(number)
        if found is None or isinstance(found, Extended):
            return None
        offset = found.reshape(-1)
        return Affine(np.full(offset.size, -1), _zeros(offset.shape), offset)

    def _affine(self, equation: Equation, inputs: list[Any]) -> list[Affine] | None:
        name = equation.primitive
        shapes = [self.program.shapes[number] for number in equation.inputs]
        shape = self.program.shapes[equation.outputs[0]]
        if name in STRUCTURAL:
            pool = _concatenated(inputs)
            constants = [self.constant(number) for number in equation.inputs]
            places = moved_places(equation, shapes, constants)
            return None if places is None else [pool.take(place) for place in places]
        if name == "neg":
            return [_scaled(inputs[0], iv.from_array(-1.0))]
        if name in _BINARY:
            one, other = (
                operand.take(spread_places(given, shape))
                for operand, given in zip(inputs, shapes, strict=True)
            )
            return self._binary(equation, one, other)
        if name == "reduce_sum":
            places = places_along(shapes[0], equation.params["axes"])
            return [self._sum(inputs[0], places)]
        if name == "dot_general":
            return self._contraction(equation, inputs, shapes)
        return None

    def _binary(
        self, equation: Equation, one: Affine, other: Affine
    ) -> list[Affine] | None:
        name = equation.primitive
        if name in ("add", "add_any"):
            return [self._add(one, other)]
        if name == "sub":
            return [self._add(one, _scaled(other, iv.from_array(-1.0)))]
        if name in ("mul", "div") and (other.rows < 0).all():
            if name == "mul":
                return [_scaled(one, other.offset)]
            if iv.div_is_defined(1.0, other.offset).all():
                return [_divided(one, other.offset)]
        if name == "mul" and (one.rows < 0).all():
            return [_scaled(other, one.offset)]
        if name in ("max", "min", "logaddexp") and not agree(one.rows, other.rows):
            self.differences[equation.outputs[0]] = self._add(
                one, _scaled(other, iv.from_array(-1.0))
            )
        return None

    def _add(self, one: Affine, other: Affine) -> Affine:
        """Add; where the scalars differ the sum is a new scalar."""
        if agree(one.rows, other.rows):
            gain = iv.add(one.gain, other.gain)
            offset = iv.add(one.offset, other.offset)
            return Affine(np.maximum(one.rows, other.rows), gain, offset)
        size = one.rows.size
        return self._sum(
            _concatenated([one, other]), np.arange(2 * size).reshape(2, size).T
        )

    def _contraction(
        self, equation: Equation, inputs: list[Affine], shapes: list[Any]
    ) -> list[Affine] | None:
        one, other = inputs
        if (one.rows >= 0).any() and (other.rows >= 0).any():
            return None
        numbers = equation.params["dimension_numbers"]
        places = paired_places(shapes[0], shapes[1], numbers)
        shape = places[0].shape
        one, other = (
            operand.take(place.reshape(-1))
            for operand, place in zip(inputs, places, strict=True)
        )
        if (one.rows >= 0).any():
            one, other = other, one
        terms = _scaled(other, one.offset)
        return [self._sum(terms, np.arange(terms.rows.size).reshape(shape))]

    def _sum(self, terms: Affine, places: np.ndarray) -> Affine:
        """Sum groups `[G, E]` of elements; each sum of several is a new scalar."""
        terms, count = terms.take(places.reshape(-1)), places.shape
        rows = terms.rows.reshape(count)
        offset = iv.reduce_sum(terms.offset.reshape(count), 1)
        if count[1] and agree(rows, rows.max(1, keepdims=True)):
            gain = iv.reduce_sum(terms.gain.reshape(count), 1)
            return Affine(rows.max(1), gain, offset)
        slopes = self._slopes_of(rows, terms.gain.reshape(count))
        return self._new_scalars(slopes, offset)

    def _slopes_of(self, rows: np.ndarray, gain: Interval) -> Interval:
        """Return the slopes of sums of scalars `[G, n]`; exact where params differ."""
        groups, length = rows.shape
        check_size(groups * self.size)
        ordered = np.sort(rows, axis=1)
        is_apart = (ordered[:, 1:] != ordered[:, :-1]) | (ordered[:, 1:] < 0)
        if rows.max(initial=-1) < self.size and is_apart.all():
            places = np.broadcast_to(np.arange(groups)[:, None], rows.shape)

            def placed(end: np.ndarray) -> np.ndarray:
                slopes = np.zeros((groups, self.size + 1))  # the last for constants
                slopes[places, rows] = end
                return slopes[:, :-1]

            return iv.rearrange(placed, gain)
        check_size(groups * length * self.size)
        stacked = iv.rearrange(_stacked, *self._slopes, _zeros((1, self.size)))
        return iv.reduce_sum(iv.mul(gain.reshape(groups, length, 1), stacked[rows]), 1)

    def _new_scalars(self, slopes: Interval, offsets: Interval) -> Affine:
        start, count = self._num_rows, slopes.shape[0]
        self._slopes.append(slopes)
        self._offsets.append(offsets)
        self._num_rows += count
        check_size(self._num_rows * self.size)
        return _scalars(start, count)


# ------------------------------------------------------------------------ helpers


def _scalars(start: int, count: int) -> Affine:
    gain = np.ones(count)
    return Affine(
        np.arange(start, start + count), Interval(gain, gain), _zeros((count,))
    )


def _scaled(x: Affine, factor: Interval) -> Affine:
    return Affine(x.rows, iv.mul(x.gain, factor), iv.mul(x.offset, factor))


def _divided(x: Affine, divisor: Interval) -> Affine:
    return Affine(x.rows, iv.div(x.gain, divisor), iv.div(x.offset, divisor))


def _concatenated(parts: Sequence[Affine]) -> Affine:
    return Affine(
        np.concatenate([part.rows for part in parts]),
        iv.rearrange(_stacked, *(part.gain for part in parts)),
        iv.rearrange(_stacked, *(part.offset for part in parts)),
    )


def _stacked(*ends: np.ndarray) -> np.ndarray:
    return np.concatenate(ends)


def _zeros(shape: Sequence[int]) -> Interval:
    zero = np.zeros(shape)
    return Interval(zero, zero)


_BINARY = {"add", "add_any", "div", "logaddexp", "max", "min", "mul", "sub"}
