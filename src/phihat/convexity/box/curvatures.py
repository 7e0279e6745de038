r"""Bounds of the curvature on boxes, and what follows from them.

All that is returned here is proved: for the real function that the program denotes,
with every rounding bounded, and kinks counted at their value, whatever automatic
differentiation says of them.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Box, Params
from phihat.convexity.box.posing import UNREADABLE, check_budget, ends, posed
from phihat.convexity.box.search import Curvature, Refined, cover, refine
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.program.problem import Problem, pose
from phihat.convexity.refuter import chord_alarm

__all__ = ["RidgeBracket", "certified_radius", "curvature_floor", "minimal_ridge"]


class RidgeBracket(NamedTuple):
    r"""Two numbers around the least r for which $L + r\|\theta\|^2$ is convex.

    Attributes:
      refuted_below: with any smaller r it is not convex on the box.
      certified_at: with this r, and any greater, it is.
    """

    refuted_below: float
    certified_at: float


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
    check_budget(call, budget)
    try:
        problem = pose(call, loss_fn, params, data)
        factors = _scale(call, scale, problem)
        curvature = Curvature(problem)
        middle = np.concatenate([leaf.reshape(-1) for leaf in problem.start])
        radius = _largest(curvature, middle, factors, deadline)
    except UNREADABLE:
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
    found = _bounded("curvature_floor", loss_fn, box, data, budget, "both")
    return (-np.inf, np.inf) if found is None else (found.mu, found.L)


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
    found = _bounded("minimal_ridge", loss_fn, box, data, budget, "low")
    if found is None or not np.isfinite(found.mu):
        return None
    return RidgeBracket(-found.least / 2, -found.mu / 2)  # halves are exact


def _bounded(
    call: str,
    loss_fn: Callable[..., Any],
    box: Box,
    data: PyTree,
    budget: float,
    sides: str,
) -> Refined | None:
    """Bound the curvature on a box; None where nothing is known, or chords object."""
    deadline = time.monotonic() + budget
    check_budget(call, budget)
    problem, _ = posed(call, loss_fn, box, data)
    if problem is None or budget <= 0:
        return None
    try:
        found = refine(Curvature(problem), *ends(problem), deadline, sides=sides)
    except UNREADABLE:
        return None
    bounds = found.mu, found.L if sides == "both" else np.inf
    is_false = chord_alarm.contradicts(problem, loss_fn, data, bounds, budget / 10)
    return None if is_false else found


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
        except UNREADABLE:
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
