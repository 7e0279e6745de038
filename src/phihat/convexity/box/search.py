r"""Branch and bound: a box is cut until the curvature is bounded on every part of it.

`Curvature` bounds the eigenvalues of the Hessian on many boxes at once. `cover` cuts
the boxes whose bound is negative, deepest first; `refine` cuts those whose bound is
farthest from what the Hessian has at points. Boxes are closed and share their faces;
bounds hold on a neighbourhood of each (`jets`), so they hold on the whole.
"""

import math
import time
from typing import Any, NamedTuple

import numpy as np

from phihat.convexity.box.hessians import Bounds, second_derivatives
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.eigenvalue_bounds import (
    largest_eigenvalue,
    smallest_eigenvalue,
)
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.sizes import TooLarge
from phihat.convexity.primitives.jets.affine import Outline
from phihat.convexity.program.problem import Problem
from phihat.convexity.report import Blame

__all__ = [
    "Cells",
    "CertificationResult",
    "Curvature",
    "Refined",
    "cover",
    "is_cover",
    "refine",
]

_Pair = tuple[np.ndarray, np.ndarray]

_TOLERANCE = 0.005
"""Where to stop: between a bound and what was found at points, of the latter."""

_SMALLEST = 2.0**-20
"""A box this small in every direction, against the first, is not cut further."""

_MOST_BOXES = 200_000
_LOOK_AT = 8
_ENTRIES_A_PASS = 40_000


class Cells(NamedTuple):
    """Boxes `[C, n]` and bounds of the eigenvalues on them `[C]`."""

    low: np.ndarray
    high: np.ndarray
    mu: np.ndarray
    L: np.ndarray

    def take(self, chosen: np.ndarray | slice) -> "Cells":
        """Pick boxes."""
        return Cells(*(part[chosen] for part in self))


class CertificationResult(NamedTuple):
    """How a certification ended.

    Attributes:
      is_certified: whether no eigenvalue is negative anywhere in the box.
      mu: a lower bound of all eigenvalues, where certified.
      L: an upper bound, where certified.
      reason: a sentence.
      blame: the equation that stood in the way, if one did.
      cells: the boxes on which it was shown, where certified.
      suspect: where not certified, a point `[n]` at or around which the loss seems not
        to be convex, and the direction `[n]` of negative curvature there, or None.
    """

    is_certified: bool
    mu: float
    L: float
    reason: str
    blame: Blame | None = None
    cells: Cells | None = None
    suspect: tuple[np.ndarray, np.ndarray | None] | None = None


class Refined(NamedTuple):
    """Bounds of the extreme eigenvalues over a box, from both sides.

    Attributes:
      mu: no eigenvalue lies below, anywhere.
      L: none lies above.
      least: somewhere one lies at or below this.
      most: somewhere one lies at or above this.
    """

    mu: float
    L: float
    least: float
    most: float


class Curvature:
    """The eigenvalues of the Hessian on boxes.

    Args:
      problem: the question.
      convex_values: numbers of values proved convex on every box asked about, which
        enter the loss as summands with a coefficient >= 0 and nowhere else. They are
        left out, for what they add is positive semidefinite; upper bounds are then inf.
    """

    def __init__(
        self, problem: Problem, convex_values: frozenset[int] = frozenset()
    ) -> None:
        """Read the program once."""
        self.outline = Outline(problem, convex_values)
        self.is_partial = bool(convex_values)
        self.num_boxes = 0
        self.blame: Blame | None = None
        scalars = self.outline.slopes.shape[0]
        self.batch = min(max(_ENTRIES_A_PASS // (16 * scalars), 1), 64)
        self.weights = self._weights()

    def bounds(self, low: np.ndarray, high: np.ndarray) -> _Pair:
        """Return mu and L for each box `[C, n]`; infinite where nothing is known."""
        self.num_boxes += low.shape[0]
        return _joined([self._bounds(*ends) for ends in self._batches(low, high)])

    def extremes(self, points: np.ndarray) -> _Pair:
        r"""Bound the least eigenvalue from above, the greatest from below, at points.

        By the quotient $v'Hv / v'v$ in the direction of an eigenvector, in intervals.
        """
        found = []
        for low, high in self._batches(points, points):
            known = self._derivatives(low, high)
            least = _quotient(known.upper, 0).high
            most = _quotient(known.lower, -1).low
            least = np.where(known.is_decided, least, np.inf)
            found.append((least, np.where(known.is_decided, most, -np.inf)))
        least, most = _joined(found)
        if self.is_partial:
            least = np.full(least.shape, np.inf)
        return least, most

    def lowest_direction(self, point: np.ndarray) -> np.ndarray:
        """Return about an eigenvector of the least eigenvalue at a point `[n]`."""
        middle = self._derivatives(point[None], point[None]).upper.middle[0]
        return np.linalg.eigh(middle)[1][:, 0]

    def _batches(self, low: np.ndarray, high: np.ndarray) -> list[_Pair]:
        starts = range(0, low.shape[0], self.batch)
        return [(low[s : s + self.batch], high[s : s + self.batch]) for s in starts]

    def _derivatives(self, low: np.ndarray, high: np.ndarray) -> Bounds:
        known = second_derivatives(self.outline, low, high)
        if known.blame is not None:
            self.blame = known.blame
        return known

    def _bounds(self, low: np.ndarray, high: np.ndarray) -> _Pair:
        try:
            known = self._derivatives(low, high)
        except TooLarge:
            if low.shape[0] == 1:
                raise
            self.batch = low.shape[0] // 2
            return _joined([self._bounds(*ends) for ends in self._batches(low, high)])
        mu, ceiling = smallest_eigenvalue(known.lower), largest_eigenvalue(known.upper)
        # Both are bounds of one number, so the better one may be taken.
        mu = np.where(known.is_convex, np.maximum(mu, 0.0), mu)
        ceiling = np.where(known.is_concave, np.minimum(ceiling, 0.0), ceiling)
        if self.is_partial:
            ceiling = np.full(ceiling.shape, np.inf)
        mu = np.where(known.is_decided, mu, -np.inf)
        return mu, np.where(known.is_decided, ceiling, np.inf)

    def _weights(self) -> np.ndarray:
        """Return how far each coordinate moves the scalars of curved functions."""
        outline = self.outline
        used = [outline.affine.get(n) for e in outline.equations for n in e.inputs]
        used += outline.differences.values()
        rows = [affine.rows for affine in used if affine is not None]
        rows = np.unique(np.concatenate(rows)) if rows else np.arange(0)
        return outline.slopes.magnitude[rows[rows >= 0]].sum(0)

    def cut(self, cells: Cells, whole: np.ndarray) -> _Pair:
        """Halve boxes across the coordinate that moves most; return the halves."""
        width = cells.high - cells.low
        moves = width * self.weights
        still = moves.max(1, initial=0.0) <= 0
        moves[still] = (width / np.where(whole > 0, whole, 1.0))[still]
        axis, rows = moves.argmax(1), np.arange(len(width))
        middle = cells.low[rows, axis] / 2 + cells.high[rows, axis] / 2
        left, right = cells.high.copy(), cells.low.copy()
        left[rows, axis] = right[rows, axis] = middle
        low = np.stack([cells.low, right], 1).reshape(-1, width.shape[1])
        high = np.stack([left, cells.high], 1).reshape(-1, width.shape[1])
        return low, high


def cover(
    curvature: Curvature, low: np.ndarray, high: np.ndarray, deadline: float
) -> CertificationResult:
    """Prove that no eigenvalue is negative on a box `[n]`, or give up with a reason."""
    whole, before = high - low, curvature.num_boxes
    curvature.blame = None
    shown: list[Cells] = []
    todo_low, todo_high = low[None], high[None]
    given_up: tuple[str, Any] | None = None
    while len(todo_low):
        if time.monotonic() >= deadline:
            left = f"{len(todo_low)} of the boxes that cover it were left"
            given_up = f"the budget was used up; {left}", None
            break
        take = slice(max(len(todo_low) - curvature.batch, 0), None)
        part = todo_low[take], todo_high[take]
        cells = Cells(*part, *curvature.bounds(*part))
        fails = ~(cells.mu >= 0)  # NaN fails
        shown.append(cells.take(~fails))
        todo_low, todo_high = todo_low[: take.start], todo_high[: take.start]
        if not fails.any():
            continue
        failed = cells.take(fails)
        given_up = _obstacle(curvature, failed, whole)
        if given_up is None and curvature.num_boxes - before > _MOST_BOXES:
            given_up = f"{_MOST_BOXES} boxes were not enough", None
        if given_up is not None:
            break
        halves = curvature.cut(failed, whole)
        todo_low = np.concatenate([todo_low, halves[0]])
        todo_high = np.concatenate([todo_high, halves[1]])
    if given_up is not None:
        reason, suspect = given_up
        blame = curvature.blame
        return CertificationResult(
            False, -math.inf, math.inf, reason, blame, suspect=suspect
        )
    count = curvature.num_boxes - before
    boxes = "the box" if count == 1 else f"any of the {count} boxes that cover it"
    reason = f"no eigenvalue of the Hessian is negative on {boxes}"
    cells = Cells(*(np.concatenate(parts) for parts in zip(*shown, strict=True)))
    mu, ceiling = float(cells.mu.min()), float(cells.L.max())
    return CertificationResult(True, mu, ceiling, reason, cells=cells)


def _obstacle(
    curvature: Curvature, failed: Cells, whole: np.ndarray
) -> tuple[str, Any] | None:
    """Say what no cut of the boxes that failed can cure, and where."""
    centres = failed.low / 2 + failed.high / 2
    worst = np.argsort(failed.mu)[:_LOOK_AT]
    least, _ = curvature.extremes(centres[worst])
    if least.min() < 0:
        at = centres[worst[least.argmin()]]
        reason = f"an eigenvalue of the Hessian is at most {least.min():.3g} at "
        return reason + _shown(at), (at, curvature.lowest_direction(at))
    is_small = (failed.high - failed.low <= _SMALLEST * whole).all(1)
    if is_small.any():
        at = centres[is_small.argmax()]
        reason = f"no bound was found near {_shown(at)}, however small the box"
        return reason, (at, None)
    return None


def is_cover(cells: Cells, low: np.ndarray, high: np.ndarray) -> bool:
    """Tell whether boxes are what cutting a box in halves again and again can leave."""
    if len(cells.low) == 1:
        return bool((cells.low[0] == low).all() and (cells.high[0] == high).all())
    for axis in range(len(low)):
        middle = low[axis] / 2 + high[axis] / 2
        is_left = cells.high[:, axis] <= middle
        if not low[axis] < middle < high[axis] or is_left.all() or not is_left.any():
            continue
        if not (is_left | (cells.low[:, axis] >= middle)).all():
            continue
        ends = [low.copy(), high.copy()]
        ends[0][axis] = ends[1][axis] = middle
        return is_cover(cells.take(is_left), low, ends[1]) and is_cover(
            cells.take(~is_left), ends[0], high
        )
    return False


def refine(
    curvature: Curvature,
    low: np.ndarray,
    high: np.ndarray,
    deadline: float,
    *,
    sides: str = "both",
) -> Refined:
    """Bound the extreme eigenvalues over a box, until known to `_TOLERANCE`.

    With `sides` "low" only mu is refined.
    """
    cells = Cells(low[None], high[None], *curvature.bounds(low[None], high[None]))
    least, most = curvature.extremes(_points(low, high))
    found = [float(least.min()), float(-most.max())]
    for side in range(1 if sides == "low" else 2):
        start = time.monotonic()
        limit = deadline if side or sides == "low" else start + (deadline - start) / 2
        while time.monotonic() < limit:
            worst = _to_cut(cells, side, found, curvature.batch)
            chosen = cells.take(worst)
            is_small = (chosen.high - chosen.low <= _SMALLEST * (high - low)).all(1)
            if not len(worst) or is_small.any() or len(cells.mu) > _MOST_BOXES:
                break
            halves = curvature.cut(chosen, high - low)
            kept = np.ones(len(cells.mu), bool)
            kept[worst] = False
            new = Cells(*halves, *curvature.bounds(*halves))
            pairs = zip(cells.take(kept), new, strict=True)
            cells = Cells(*map(np.concatenate, pairs))
            chosen = chosen.take(slice(_LOOK_AT))
            least, most = curvature.extremes(chosen.low / 2 + chosen.high / 2)
            ends = (float(least.min()), float(-most.max()))
            found = [min(pair) for pair in zip(found, ends, strict=True)]
    return Refined(float(cells.mu.min()), float(cells.L.max()), found[0], -found[1])


def _to_cut(cells: Cells, side: int, found: list[float], most: int) -> np.ndarray:
    """Return the boxes whose bounds are not yet near what was found at points."""
    score = -cells.L if side else cells.mu
    goal = found[side] - _TOLERANCE * abs(found[side]) - _negligible(found)
    worst = np.argsort(score)[:most]
    worst = worst[~(score[worst] >= goal)]
    is_unbounded = ~np.isfinite(score[worst])
    if is_unbounded.any():
        # Deepest first: an unbounded box of no size decides the matter.
        size = (cells.high - cells.low)[worst].max(1)
        worst = worst[np.argsort(np.where(is_unbounded, size, np.inf))][:4]
    return worst


# ------------------------------------------------------------------------ helpers


def _joined(parts: list[_Pair]) -> _Pair:
    one, other = zip(*parts, strict=True)
    return np.concatenate(one), np.concatenate(other)


def _quotient(matrix: Interval, which: int) -> Interval:
    """Enclose v'Mv / v'v for the eigenvector of the middle's extreme eigenvalue."""
    middle = matrix.middle
    known = np.isfinite(matrix.low) & np.isfinite(matrix.high)
    known = np.asarray(known.all((-2, -1)))
    middle = np.where(known[..., None, None], middle, 0.0)
    v = np.linalg.eigh(middle)[1][..., which]
    image = iv.mul(iv.mul(v[..., :, None], matrix), v[..., None, :])
    quotient = iv.div(iv.reduce_sum(image, (1, 2)), iv.reduce_sum(iv.square(v), 1))
    return iv.where(known, quotient, iv.entire(known.shape))


def _points(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return where to look first: the middle, corners, and points in between."""
    rng = np.random.default_rng(0)
    share = rng.uniform(size=(64, low.size))
    share[:32] = np.rint(share[:32])
    share[0] = 0.5
    return np.clip(low + share * (high - low), low, high)


def _negligible(found: list[float]) -> float:
    """Return what is small against the curvatures found, for where one is zero."""
    return 1e-9 * max((abs(x) for x in found if math.isfinite(x)), default=0) + 1e-300


def _shown(point: np.ndarray) -> str:
    """Show a point in at most four numbers."""
    shown = ", ".join(f"{x:.4g}" for x in point[:4])
    return f"[{shown}{', ...' if point.size > 4 else ''}]"
