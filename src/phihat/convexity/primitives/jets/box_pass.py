"""What rules of the second derivative share: the boxes, and what is known so far."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.extended import Extended
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Jet, Ridge, constant
from phihat.convexity.primitives.jets.affine import Affine, Outline
from phihat.convexity.program.flat_indices import spread_places
from phihat.convexity.program.form import Equation
from phihat.convexity.report import Blame

__all__ = ["Blocked", "Pass", "Rule", "blame_for"]

_MOST_PARTS = 256
_CHEAP_ENTRIES = 6_000
_ENTRIES_A_PASS = 60_000


def blame_for(equation: Equation, reason: str) -> Blame:
    """Return the equation's line and primitive with a reason."""
    return Blame(str(equation.source), equation.primitive, reason)


class Blocked(Exception):
    """An equation cannot be read on any box; `blame` says which."""

    def __init__(self, equation: Equation, reason: str) -> None:
        """Keep the equation's line and the reason."""
        self.blame = blame_for(equation, reason)
        super().__init__(str(self.blame))


class Pass:
    """One pass over the equations, for all boxes at once.

    Args:
      outline: the program, read once.
      box: the boxes `[C, n]`.

    Attributes:
      program: the program.
      slopes: of all scalars `[M + 1, n]`; the last is 0, for constants.
      values: what is known of the values so far, by number.
      marks: the elements that may not be finite `[C or 1, N]`, of values with such.
      is_decided: where False `[C]`, something could not be told.
      blame: the first equation that could not be told on some box.
    """

    def __init__(self, outline: Outline, box: Interval) -> None:
        """Enclose the scalars; all else follows from them."""
        self.outline = outline
        self.program = outline.program
        cells, size = box.shape
        self.is_decided = np.ones(cells, bool)
        self.blame: Blame | None = None
        self.values: dict[int, Ridge | Jet] = {}
        self.marks: dict[int, np.ndarray] = {}
        self.slopes = iv.rearrange(
            lambda end: np.concatenate([end, np.zeros((1, size))]), outline.slopes
        )
        self.scalars = self._in_parts(box)

    def _in_parts(self, box: Interval) -> Interval:
        """Enclose all scalars on all boxes, cut into closed parts `[C, M + 1, K]`."""
        outline, (cells, size) = self.outline, box.shape
        sums = iv.matmul(outline.slopes[size:], box.transpose()).transpose()
        sums = iv.add(sums, outline.offsets[size:])
        zeros = np.zeros((cells, 1))
        low, high = (
            np.concatenate([*ends, zeros], axis=1)[..., None]
            for ends in zip(box, sums, strict=True)
        )
        count = 1 if np.array_equal(low, high) else _num_parts(low.size)
        with np.errstate(all="ignore"):
            edges = low + (high - low) * (np.arange(count + 1) / count)
        edges = np.where(np.isfinite(edges), np.clip(edges, low, high), high)
        edges = np.maximum.accumulate(edges, axis=-1)
        edges[..., :1], edges[..., -1:] = low, high
        return Interval(edges[..., :-1], edges[..., 1:])

    def read(self, number: int) -> Ridge | Jet:
        """Return what is known of a value: computed, affine or constant."""
        if number not in self.values:
            if number in self.outline.affine:
                self.values[number] = self.ridge(self.outline.affine[number])
            else:
                found = self.outline.constant(number)
                assert found is not None
                self.values[number] = constant(Interval(*found).reshape(1, -1))
        return self.values[number]

    def is_known(self, number: int) -> bool:
        """Tell whether a value can be read: a random key or a NaN cannot."""
        if number in self.values or number in self.outline.affine:
            return True
        return self.outline.constant(number) is not None

    def infinite(self, number: int) -> np.ndarray | None:
        """Return which elements may not be finite; None where all are."""
        found = self.outline.constant(number)
        if isinstance(found, Extended):
            return (found.kind != 0).reshape(1, -1)
        return self.marks.get(number)

    def ridge(self, affine: Affine) -> Ridge:
        """Return elements a u + b as functions of u: they have a slope and no bend."""
        gain, offset = (x.reshape(1, -1, 1) for x in (affine.gain, affine.offset))
        value = iv.add(iv.mul(gain, self.scalars[:, affine.rows]), offset)
        return Ridge(affine.rows, value, gain, iv.mul(0.0, gain))

    def require(self, holds: np.ndarray, equation: Equation, reason: str) -> None:
        """Give up the boxes `[C or 1, ...]` on which something may not hold."""
        holds = np.asarray(holds.reshape(holds.shape[0], -1).all(1))
        if not holds.all():
            self.is_decided = self.is_decided & holds
            if self.blame is None:
                self.blame = blame_for(equation, reason)

    def spread(self, equation: Equation, inputs: Sequence[Any]) -> list[Any]:
        """Broadcast the inputs of an elementwise equation."""
        shape = self.program.shapes[equation.outputs[0]]
        return [
            x
            if self.program.shapes[number] == shape
            else x.take(spread_places(self.program.shapes[number], shape))
            for number, x in zip(equation.inputs, inputs, strict=True)
        ]


def _num_parts(num_scalars: int) -> int:
    """Cut finely what costs little beyond the calls; else 24 times, large data less."""
    size = max(num_scalars, 1)
    usual = min(max(_ENTRIES_A_PASS // size, 4), 24)
    return min(max(_CHEAP_ENTRIES // size, usual), _MOST_PARTS)


Rule = Callable[[Pass, Equation, list[Any]], "Ridge | Jet | list[Ridge | Jet]"]
"""`(pass, equation, what is known of its inputs) -> of its output or outputs`."""
