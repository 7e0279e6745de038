r"""Convexity certified on a box: bounds of the Hessian that hold on all of it.

A loss that is convex only near its minimum, as most are, has a box on which it is, and
on it a least and a greatest curvature. All that is returned here is proved: for the
real function that the program denotes, with every rounding bounded, and kinks counted
at their value, whatever automatic differentiation says of them.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box, Params
from phihat.convexity.box.hessians import Blocked
from phihat.convexity.box.search import (
    Cells,
    CertificationResult,
    Curvature,
    cover,
    is_cover,
    refine,
)
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.sizes import TooLarge
from phihat.convexity.primitives.evaluation import Undefined, Unreadable
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.program.trace import Untraceable
from phihat.convexity.refuter import chord_alarm
from phihat.convexity.report import Blame, Cell, ConvexityReport, Verdict

__all__ = [
    "RidgeBracket",
    "certified_radius",
    "certify",
    "certify_convexity",
    "curvature_floor",
    "is_certificate",
    "minimal_ridge",
]

_UNREADABLE = (Blocked, TooLarge, Undefined, Unreadable, Untraceable)
"""What stops the reading of a loss: nothing is then known of its curvature."""


class RidgeBracket(NamedTuple):
    r"""Two numbers around the least r for which $L + r\|\theta\|^2$ is convex.

    Attributes:
      refuted_below: with any smaller r it is not convex on the box.
      certified_at: with this r, and any greater, it is.
    """

    refuted_below: float
    certified_at: float


@_calls.public
def certify_convexity(
    loss_fn: Callable[..., Any], box: Box, data: PyTree = None, *, budget: float = 10.0
) -> ConvexityReport:
    r"""Certify that a loss is convex on a box, by bounds of its Hessian there.

    The box is cut until the Hessian's eigenvalues are bounded by zero from below on
    each part. A box on which the loss has a concave kink or a jump is never certified.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: where; both ends are like params, with a number for each entry.
      data: a pytree of arrays, or a `Box` of two such trees: for all data in between.
      budget: the seconds it may take; 0 leaves it undecided.

    Returns:
      A report with the verdict CERTIFIED_ON_BOX and the bounds `mu` and `L` of all
      eigenvalues, or UNDECIDED with the reason. A refutation is the refuter's.

    Raises:
      TypeError: the box is no `Box`; the loss has no real scalar value.
      ValueError: the box is unbounded or empty, or the budget is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_fn = lambda w: -jnp.sum(jnp.cos(w))
      >>> certify_convexity(loss_fn, Box([-1.0, 0.0], [1.0, 1.5])).verdict.name
      'CERTIFIED_ON_BOX'
      >>> print(certify_convexity(loss_fn, Box([-1.0], [1.7])).reason)
      an eigenvalue of the Hessian is at most -0.0448 at [1.616]
    """
    begin = time.monotonic()
    _check_budget("certify_convexity", budget)
    problem, blame = _posed("certify_convexity", loss_fn, box, data)
    if problem is None:
        return _undecided("on the box given", str(blame), begin, blame)
    report = certify(problem, begin + budget)
    return chord_alarm.guarded(report, problem, loss_fn, data, budget / 10)


def certify(
    problem: Problem, deadline: float, *, convex_values: frozenset[int] = frozenset()
) -> ConvexityReport:
    """Certify a problem that is already posed, on its own domain.

    Args:
      problem: the question; its domain is bounded.
      deadline: when to give up, by `time.monotonic`.
      convex_values: numbers of values that are proved convex on the domain and enter
        the loss as summands with a coefficient >= 0, and nowhere else. They are bounded
        like all others for half of the time, as their curvature helps; then left out.

    Returns:
      As `certify_convexity`.
    """
    begin = time.monotonic()
    outcome = _covered(problem, frozenset(), (begin, deadline), bool(convex_values))
    if convex_values and not outcome.is_certified:
        left = (time.monotonic(), deadline)
        outcome = _covered(problem, convex_values, left, False)
    blame = outcome.blame
    known = outcome.is_certified
    return ConvexityReport(
        Verdict.CERTIFIED_ON_BOX if known else Verdict.UNDECIDED,
        problem.scope,
        outcome.reason,
        mu=outcome.mu if known else None,
        L=outcome.L if known and np.isfinite(outcome.L) else None,
        assumptions=problem.program.assumptions,
        blame=() if blame is None or known else (blame,),
        statement=problem.digest(),
        cells=tuple(map(Cell, *outcome.cells)) if known and outcome.cells else (),
        seconds=time.monotonic() - begin,
    )


def is_certificate(
    report: ConvexityReport, problem: Problem, convex_values: frozenset[int]
) -> bool:
    """Check a certificate: do its boxes cover the domain, and do the bounds hold there?

    Args:
      report: with the verdict CERTIFIED_ON_BOX.
      problem: the question, posed anew.
      convex_values: as in `certify`, proved anew.

    Returns:
      Whether bounds that are computed anew on each box are nonnegative and lie within
      the ones on record, to 1e-9 of them: sums of many boxes at once are rounded
      otherwise than those of few.
    """
    if not report.cells or report.statement != problem.digest() or report.mu is None:
        return False
    cells = Cells(*map(np.array, zip(*report.cells, strict=True)))
    ends = _ends(problem)
    if cells.low.shape[1:] != ends[0].shape or not is_cover(cells, *ends):
        return False
    highest = np.inf if report.L is None else report.L
    if report.mu != cells.mu.min() or highest != cells.L.max():
        return False
    left_out = [frozenset[int](), convex_values] if convex_values else [convex_values]
    return any(_holds(Curvature(problem, values), cells) for values in left_out)


def _holds(curvature: Curvature, cells: Cells) -> bool:
    """Compute the bounds anew on each box."""
    try:
        mu, ceiling = curvature.bounds(cells.low, cells.high)
    except _UNREADABLE:
        return False
    room = 1e-9 * np.abs(cells.mu), 1e-9 * np.abs(cells.L)
    with np.errstate(invalid="ignore"):
        is_below = (ceiling <= cells.L + room[1]) | np.isposinf(cells.L)
        return bool(((mu >= 0) & (mu >= cells.mu - room[0]) & is_below).all())


@_calls.public
def certified_radius(
    loss_fn: Callable[..., Any],
    params: Params,
    data: PyTree = None,
    *,
    scale: PyTree = 1.0,
    budget: float = 10.0,
) -> float:
    r"""Find a radius r for which the loss is certified convex on params $\pm\, r s$.

    It is *a* radius, found by bisection to 1 % where the budget allows: the loss may be
    convex on a larger box, and is on every smaller one.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      params: the middle of the box, any pytree of float arrays.
      data: a pytree of arrays, or a `Box` of two such trees.
      scale: s > 0: a number, or a pytree like params.
      budget: the seconds it may take.

    Returns:
      r; 0.0 where no box could be certified.

    Raises:
      ValueError: params are not finite, the scale not positive, or the budget negative.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{certified_radius(lambda w: -jnp.cos(w), jnp.asarray(0.0)):.2f}")
      1.57
    """
    call = "certified_radius"
    deadline = time.monotonic() + budget
    _check_budget(call, budget)
    try:
        problem = pose(call, loss_fn, params, data)
        factors = _scale(call, scale, problem)
        curvature = Curvature(problem)
        middle = np.concatenate([leaf.reshape(-1) for leaf in problem.start])
        radius = _largest(curvature, middle, factors, deadline)
    except _UNREADABLE:
        return 0.0
    reached = _within(problem, middle, radius * factors)
    is_false = chord_alarm.contradicts(
        reached, loss_fn, data, (0.0, np.inf), budget / 10
    )
    return 0.0 if radius == 0 or is_false else radius


@_calls.public
def curvature_floor(
    loss_fn: Callable[..., Any], box: Box, data: PyTree = None, *, budget: float = 10.0
) -> tuple[float, float]:
    r"""Bound the eigenvalues of the Hessian over a box: $\mu I \preceq H \preceq L I$.

    $\mu > 0$ certifies strong convexity, and a gradient step of 1/L from a point of the
    box does not overshoot as long as it stays in the box.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: where; both ends are like params, with a number for each entry.
      data: a pytree of arrays, or a `Box` of two such trees: for all data in between.
      budget: the seconds it may take; it stops once both are known to 0.5 %.

    Returns:
      (mu, L). mu is -inf where there is, or may be, a concave kink or a jump, and L is
      inf where there is, or may be, a convex one.

    Raises:
      TypeError: the box is no `Box`; the loss has no real scalar value.
      ValueError: the box is unbounded or empty, or the budget is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> mu, L = curvature_floor(lambda w: jnp.sum(w**4), Box([1.0], [2.0]))
      >>> print(f"{mu:.2f} {L:.2f}")
      12.00 48.00
      >>> curvature_floor(lambda w: jnp.sum(jnp.abs(w)), Box([-1.0], [1.0]))[1]
      inf
    """
    deadline = time.monotonic() + budget
    _check_budget("curvature_floor", budget)
    problem, _ = _posed("curvature_floor", loss_fn, box, data)
    if problem is None or budget <= 0:
        return -np.inf, np.inf
    try:
        found = refine(Curvature(problem), *_ends(problem), deadline)
    except _UNREADABLE:
        return -np.inf, np.inf
    bounds = found.mu, found.L
    if chord_alarm.contradicts(problem, loss_fn, data, bounds, budget / 10):
        return -np.inf, np.inf
    return bounds


@_calls.public
def minimal_ridge(
    loss_fn: Callable[..., Any], box: Box, data: PyTree = None, *, budget: float = 10.0
) -> RidgeBracket | None:
    r"""Bracket the least r for which $L(\theta) + r\|\theta\|^2$ is convex on a box.

    The penalty adds 2r to every eigenvalue, so that r is minus half the least one: a
    negative r says how much of a penalty the loss could spare.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: where; both ends are like params, with a number for each entry.
      data: a pytree of arrays, or a `Box` of two such trees: for all data in between.
      budget: the seconds it may take; it stops once r is known to 0.5 %.

    Returns:
      The bracket; None where no r is certified, as at a concave kink.

    Raises:
      TypeError: the box is no `Box`; the loss has no real scalar value.
      ValueError: the box is unbounded or empty, or the budget is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_fn = lambda w: jnp.sum(jnp.cos(w))
      >>> bracket = minimal_ridge(loss_fn, Box([-1.0], [1.0]))
      >>> print(f"{bracket.refuted_below:.3f} {bracket.certified_at:.3f}")
      0.500 0.500
    """
    deadline = time.monotonic() + budget
    _check_budget("minimal_ridge", budget)
    problem, _ = _posed("minimal_ridge", loss_fn, box, data)
    if problem is None or budget <= 0:
        return None
    try:
        found = refine(Curvature(problem), *_ends(problem), deadline, sides="low")
    except _UNREADABLE:
        return None
    bounds = found.mu, np.inf
    is_false = chord_alarm.contradicts(problem, loss_fn, data, bounds, budget / 10)
    if is_false or not np.isfinite(found.mu):
        return None
    return RidgeBracket(-found.least / 2, -found.mu / 2)  # halves are exact


# ------------------------------------------------------------------------ helpers


def _covered(
    problem: Problem,
    convex_values: frozenset[int],
    span: tuple[float, float],
    is_half: bool,
) -> CertificationResult:
    """Cover the domain in a span of time, or in the first half of it."""
    begin, deadline = span
    if deadline <= begin:
        return CertificationResult(
            False, -np.inf, np.inf, 0, "the budget leaves no time"
        )
    limit = begin + (deadline - begin) / 2 if is_half else deadline
    try:
        return cover(Curvature(problem, convex_values), *_ends(problem), limit)
    except _UNREADABLE as error:
        blame = getattr(error, "blame", None)
        return CertificationResult(False, -np.inf, np.inf, 0, str(error), blame)


def _largest(
    curvature: Curvature, middle: np.ndarray, scale: np.ndarray, deadline: float
) -> float:
    """Double or halve until certified at `good` but not at `bad`; then bisect."""

    def is_good(radius: float) -> bool:
        reach = iv.mul(radius, scale)
        low, high = iv.sub(middle, reach).low, iv.add(middle, reach).high
        now = time.monotonic()
        if not np.isfinite(high - low).all() or now >= deadline:
            return False
        limit = now + (deadline - now) / 3
        try:
            least, _ = curvature.extremes(np.stack([middle, low, high]))
            return (
                not least.min() < 0 and cover(curvature, low, high, limit).is_certified
            )
        except _UNREADABLE:
            return False

    good, bad, radius = 0.0, np.inf, 0.125
    while 1e-9 < radius < 1e9 and (good == 0 or bad == np.inf):
        if is_good(radius):
            good, radius = radius, radius * 2
        else:
            bad, radius = radius, radius / 2
        if time.monotonic() >= deadline:
            return good
    while good > 0 and bad < np.inf and bad > good * 1.005:
        radius = float(np.sqrt(good * bad))
        good, bad = (radius, bad) if is_good(radius) else (good, radius)
        if time.monotonic() >= deadline:
            break
    return good


def _within(problem: Problem, middle: np.ndarray, reach: np.ndarray) -> Problem:
    """Return the question on the box around the middle."""
    ends, place = [], 0
    for leaf in problem.start:
        part = slice(place, place + leaf.size)
        low, high = middle[part] - reach[part], middle[part] + reach[part]
        ends.append(Interval(low.reshape(leaf.shape), high.reshape(leaf.shape)))
        place += leaf.size
    return dataclasses.replace(problem, domain=tuple(ends), is_box=True)


def _scale(call: str, scale: PyTree, problem: Problem) -> np.ndarray:
    leaves = jax.tree.leaves(scale)
    if len(leaves) == 1 and np.ndim(leaves[0]) == 0:
        leaves = leaves * len(problem.start)
    elif jax.tree.structure(scale) != jax.tree.structure(problem.params):
        raise ValueError(
            f"{call}: `scale` must be a number or a tree like params, got "
            f"{jax.tree.structure(scale)}."
        )
    leaves = [_checks.as_floats(call, "scale", leaf) for leaf in leaves]
    smallest = min(float(np.min(leaf)) for leaf in leaves)
    _checks.check_range(call, "scale", smallest, 0.0, include_low=False)
    parts = [
        np.broadcast_to(np.asarray(leaf, np.float64), start.shape).reshape(-1)
        for leaf, start in zip(leaves, problem.start, strict=True)
    ]
    return np.concatenate(parts)


def _posed(
    call: str, loss_fn: Callable[..., Any], box: Box, data: PyTree
) -> tuple[Problem | None, Blame | None]:
    """Pose the question at the middle of the box; None with the blame if unreadable."""
    if not isinstance(box, Box):
        raise TypeError(
            f"{call}: `box` must be a `phihat.Box(low, high)`, got a "
            f"{type(box).__name__}."
        )
    lows, tree = jax.tree.flatten(box.low)
    highs = [np.asarray(high, np.float64) for high in jax.tree.leaves(box.high)]
    lows = [np.asarray(low, np.float64) for low in lows]
    for label, low, high in zip(_tree.leaf_paths(box.low), lows, highs, strict=True):
        at = f" at leaf {label}" if label else ""
        if low.shape != high.shape:
            raise ValueError(
                f"{call}: both ends of `box` must have the shape of params, got "
                f"{list(low.shape)} and {list(high.shape)}{at}."
            )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                f"{call}: `box` must be bounded, got low={low} and high={high}{at}; "
                "prove_convexity asks about unbounded domains."
            )
        if not np.all(low <= high):
            raise ValueError(
                f"{call}: `box` must not be empty, got low={low} above high={high}{at}."
            )
    middles = [low / 2 + high / 2 for low, high in zip(lows, highs, strict=True)]
    domain = Box(jax.tree.unflatten(tree, lows), jax.tree.unflatten(tree, highs))
    middle = jax.tree.unflatten(tree, middles)
    like = jax.tree.map(_prototype, box.low, box.high)
    try:
        return pose(call, loss_fn, middle, data, domain=domain, like=like), None
    except Untraceable as error:
        return None, Blame("", "", str(error))


def _prototype(low: Any, high: Any) -> jax.ShapeDtypeStruct:
    """Return the params that a box stands for: of its dtype, or the default float."""
    shape = np.shape(low)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(low, high)
    if not jnp.issubdtype(dtype, jnp.floating):
        low, high, dtype = 0.0, 0.0, jnp.result_type(float)
    weak = all(jax.typeof(end).weak_type for end in (low, high))
    return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)


def _ends(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    ranges = [
        interval
        for interval, varies in zip(problem.domain, problem.varied, strict=True)
        if varies
    ]
    low = np.concatenate([interval.low.reshape(-1) for interval in ranges])
    return low, np.concatenate([interval.high.reshape(-1) for interval in ranges])


def _check_budget(call: str, budget: float) -> None:
    _checks.check_range(call, "budget", budget, 0.0, np.inf)


def _undecided(
    scope: str, reason: str, begin: float, blame: Blame | None
) -> ConvexityReport:
    return ConvexityReport(
        Verdict.UNDECIDED,
        scope,
        reason,
        blame=() if blame is None else (blame,),
        seconds=time.monotonic() - begin,
    )
