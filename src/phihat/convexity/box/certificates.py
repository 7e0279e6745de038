"""Convexity certified on a box: bounds of the Hessian that hold on all of it.

A loss that is convex only near its minimum, as most are, has a box on which it is.
Where a cut of the box meets negative curvature instead, a chord there refutes it.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core.types import Box
from phihat.convexity.box.posing import UNREADABLE, check_budget, ends, posed
from phihat.convexity.box.search import (
    Cells,
    CertificationResult,
    Curvature,
    cover,
    is_cover,
)
from phihat.convexity.program.problem import Problem
from phihat.convexity.refuter import chord_alarm, witnesses
from phihat.convexity.report import Cell, ConvexityReport, Verdict

__all__ = ["certify", "certify_convexity", "is_certificate"]


@_calls.public
def certify_convexity(
    loss_fn: Callable[..., Any], box: Box, data: PyTree = None, *, budget: float = 10.0
) -> ConvexityReport:
    r"""Certify that a loss is convex on a box, by bounds of its Hessian there.

    The box is cut until the Hessian's eigenvalues are bounded by zero from below on
    each part. A box on which the loss has a concave kink or a jump is never certified.
    Where an eigenvalue is negative, a chord nearby that the loss rises above refutes
    convexity; `check_convexity` looks for one on the whole box.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: where; both ends are like params, with a number for each entry.
      data: a pytree of arrays, or a `Box` of two such trees: for all data in between.
      budget: the seconds it may take; 0 leaves it undecided.

    Returns:
      A report with the verdict CERTIFIED_ON_BOX and the bounds `mu` and `L` of all
      eigenvalues; or REFUTED, with the witness; or UNDECIDED, with the reason.

    Raises:
      TypeError: the box is no `Box`; the loss has no real scalar value.
      ValueError: the box is unbounded or empty, or the budget is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_fn = lambda w: -jnp.sum(jnp.cos(w))
      >>> certify_convexity(loss_fn, Box([-1.0, 0.0], [1.0, 1.5])).verdict.name
      'CERTIFIED_ON_BOX'
      >>> report = certify_convexity(loss_fn, Box([-1.0], [1.7]))
      >>> report.verdict.name, report.reason
      ('REFUTED', 'an eigenvalue of the Hessian is at most -0.0448 at [1.616]')
    """
    begin = time.monotonic()
    check_budget("certify_convexity", budget)
    problem, blame = posed("certify_convexity", loss_fn, box, data)
    if problem is None:
        return ConvexityReport(
            Verdict.UNDECIDED,
            "on the box given",
            str(blame),
            blame=(blame,) if blame else (),
            seconds=time.monotonic() - begin,
        )
    report = certify(problem, begin + budget)
    return chord_alarm.guarded(report, problem, loss_fn, data, budget / 10)


def certify(
    problem: Problem, deadline: float, *, convex_values: frozenset[int] = frozenset()
) -> ConvexityReport:
    """Certify a problem that is already posed, on its own bounded domain.

    `convex_values` are numbers of values that are proved convex on the domain and enter
    the loss as summands with a coefficient >= 0, and nowhere else. They are bounded
    like all others for half of the time, as their curvature helps; then left out.
    """
    begin = time.monotonic()
    outcome = _covered(problem, frozenset(), (begin, deadline), bool(convex_values))
    if convex_values and not outcome.is_certified:
        left = (time.monotonic(), deadline)
        outcome = _covered(problem, convex_values, left, False)
    known, blame, reason = outcome.is_certified, outcome.blame, outcome.reason
    verdict, witness = Verdict.UNDECIDED, None
    if outcome.suspect is not None:
        point, direction = outcome.suspect
        witness = witnesses.through(problem, point, direction, deadline=deadline)
        if witness is not None:
            verdict = Verdict.REFUTED
            if direction is None:
                reason = witness.reason
    return ConvexityReport(
        Verdict.CERTIFIED_ON_BOX if known else verdict,
        problem.scope,
        reason,
        mu=outcome.mu if known else None,
        L=outcome.L if known and np.isfinite(outcome.L) else None,
        witness=witness,
        assumptions=problem.program.assumptions,
        blame=(blame,) if blame and not known and witness is None else (),
        statement=problem.digest(),
        cells=tuple(map(Cell, *outcome.cells)) if known and outcome.cells else (),
        seconds=time.monotonic() - begin,
    )


def is_certificate(
    report: ConvexityReport, problem: Problem, convex_values: frozenset[int]
) -> bool:
    """Check a certificate: do its boxes cover the domain, and do the bounds hold there?

    Bounds that are computed anew on each box must be nonnegative and lie within those
    on record, to 1e-9 of them: sums of many boxes at once are rounded otherwise than
    those of few.
    """
    if not report.cells or report.statement != problem.digest() or report.mu is None:
        return False
    cells = Cells(*map(np.array, zip(*report.cells, strict=True)))
    low, high = ends(problem)
    if cells.low.shape[1:] != low.shape or not is_cover(cells, low, high):
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
    except UNREADABLE:
        return False
    room = 1e-9 * np.abs(cells.mu), 1e-9 * np.abs(cells.L)
    with np.errstate(invalid="ignore"):
        is_below = (ceiling <= cells.L + room[1]) | np.isposinf(cells.L)
        return bool(((mu >= 0) & (mu >= cells.mu - room[0]) & is_below).all())


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
        return CertificationResult(False, -np.inf, np.inf, "the budget leaves no time")
    limit = begin + (deadline - begin) / 2 if is_half else deadline
    try:
        return cover(Curvature(problem, convex_values), *ends(problem), limit)
    except UNREADABLE as error:
        blame = getattr(error, "blame", None)
        return CertificationResult(False, -np.inf, np.inf, str(error), blame)
