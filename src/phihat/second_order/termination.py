"""Where a fit ends: at a minimum, at the precision of the numbers, or stuck."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phihat._core.types import Status
from phihat._linalg import small as _small
from phihat.second_order.flat_params import Space
from phihat.second_order.quadratic_model import Model, PredictedStep
from phihat.second_order.subproblem import Proposal

__all__ = [
    "Termination",
    "TrialResult",
    "check_termination",
    "next_radius",
    "status_of",
]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]


class TrialResult(NamedTuple):
    """What a measured trial showed.

    Attributes:
      is_known: whether it was a trial, and not the first measurement of a point.
      is_good: whether it was a trial that is accepted.
      is_new: whether the point measured becomes the accepted one.
      is_finite: whether the loss and its derivatives were finite there.
      is_still: whether it was the accepted point itself but for rounding.
      falls: whether the loss fell by a fair share of what was promised, visibly.
      predicted: the fall that was promised.
      fall: by how much the loss fell.
      gain: that over what was promised.
      length: of the step.
      is_cut: whether the radius made it so short.
      radius: what is trusted from now on.
      noise: the part of a fall that the loss could not show.
      is_first: whether no trial was accepted before.
      is_exact: whether the trial was the best that the model could find.
    """

    is_known: Flag
    is_good: Flag
    is_new: Flag
    is_finite: Flag
    is_still: Flag
    falls: Flag
    predicted: Scalar
    fall: Scalar
    gain: Scalar
    length: Scalar
    is_cut: Flag
    radius: Scalar
    noise: Scalar
    is_first: Flag
    is_exact: Flag


class Termination(NamedTuple):
    """Whether a fit ends at the accepted point: at a minimum, or where it is stuck."""

    is_converged: Flag
    is_stuck: Flag


def check_termination(
    space: Space,
    model: Model,
    verdict: TrialResult,
    proposal: Proposal,
    predicted_step: PredictedStep,
    *,
    eps: float,
    relative_gradient: Vector,
    tolerance: Any,
) -> Termination:
    """Judge the accepted point."""
    limits = _limits(tolerance, model.slopes.dtype)
    own_size = model.scale * jnp.abs(model.point)
    own_length = _small.norm(own_size)
    if model.free is not None:
        relative_gradient = jnp.where(model.free, relative_gradient, 0.0)
    is_converged = verdict.is_new & (jnp.max(relative_gradient) <= limits.gradient)
    # A step that is short because the radius is says nothing about a minimum.
    is_own = verdict.is_good & ~verdict.is_cut
    if limits.loss is not None:
        change = jnp.maximum(verdict.fall, verdict.predicted)
        is_small = verdict.falls & ~verdict.is_first & (verdict.gain <= 2)
        is_small &= change <= limits.loss * model.size
        is_converged |= is_own & is_small
    if limits.params is not None:
        is_short = verdict.length <= limits.params * own_length
        is_converged |= is_own & is_short

    # The precision of the numbers; trials go on while they make the slope flatter, or
    # until the next would change nothing of note.
    undamped = proposal.undamped
    is_noise = -jnp.sum(model.slopes * undamped) <= model.noise
    is_noise |= jnp.all(jnp.abs(undamped) <= 2 * space.eps * own_size)
    # What no step improves is a minimum if no param alone promises anything of note.
    limit = model.hessian.diagonal * model.visible
    is_least = jnp.all(jnp.square(model.slopes) <= limit)
    if proposal.is_exact is not True:  # an iterative search may overlook a small unit
        is_noise &= proposal.is_exact & is_least
    is_bad = verdict.is_known & ~verdict.is_good
    is_tiny = verdict.is_known & (_small.norm(undamped) <= eps ** (2 / 3) * own_length)
    is_converged |= is_noise & (is_bad | is_tiny)

    is_stuck = verdict.is_still | (verdict.predicted <= verdict.noise)
    is_stuck &= is_bad & verdict.is_exact
    is_stuck |= ~(predicted_step.fall > 0)
    is_converged |= is_stuck & (is_noise | is_least)
    return Termination(is_converged, is_stuck & ~is_converged)


def status_of(
    verdict: TrialResult,
    end: Termination,
    is_finite: Flag,
    *,
    leaves: Flag,
    is_negative: Flag,
) -> Int[Array, ""]:
    """Return the status of a fit at this point."""
    is_stalled = ~leaves & (end.is_stuck | (end.is_converged & is_negative))
    status = jnp.where(is_stalled, np.int32(Status.STALLED), np.int32(Status.RUNNING))
    is_minimum = end.is_converged & ~is_negative
    status = jnp.where(is_minimum, np.int32(Status.CONVERGED), status)
    is_bad = ~(verdict.is_known | verdict.is_finite)
    failed = np.int32(Status.NONFINITE_GRADIENT)
    failed = jnp.where(is_finite, failed, np.int32(Status.NONFINITE_LOSS))
    return jnp.where(is_bad, failed, status)


def next_radius(
    radius: Scalar, length: Scalar, gain: Scalar, is_good: Flag, falls: Flag, cut: Flag
) -> Scalar:
    """Widen the region after a step that it cut short, narrow it after a bad one."""
    widened = jnp.where((gain > 0.75) & cut, 2 * radius, radius)
    after_fall = jnp.where(gain < 0.25, 0.5 * length, widened)
    after_good = jnp.where(falls, after_fall, radius)
    return jnp.where(is_good, after_good, 0.25 * jnp.minimum(radius, length))


class _Limits(NamedTuple):
    gradient: Any
    loss: Any
    params: Any


def _limits(tolerance: Any, dtype: Any) -> _Limits:
    """Read a tolerance as limits of relative quantities."""
    # A new field of Tolerance does not fit in here: say what it means for these fits.
    gradient, loss, params, relative, relative_gradient = tolerance or (None,) * 5

    def largest(*given: Any) -> Any:
        limits = [jnp.asarray(x).astype(dtype) for x in given if x is not None]
        return jnp.max(jnp.stack(limits)) if limits else None

    steepest = largest(gradient, relative_gradient)
    return _Limits(
        gradient=0.0 if steepest is None else steepest,
        loss=None if loss is None else largest(loss, relative),
        params=None if params is None else largest(params, relative),
    )
