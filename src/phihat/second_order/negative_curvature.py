"""Saddles: the lowest curvature where a fit would end, and a step along it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float

from phihat._linalg import small as _small
from phihat.second_order.flat_params import Space
from phihat.second_order.quadratic_model import (
    Model,
    PredictedStep,
    positive,
    trial_point,
)

__all__ = [
    "Curvature",
    "check_if_due",
    "escape_step",
    "if_any_lane",
    "if_not_mapped",
    "judge_curvature",
    "lowest_curvature",
]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]


class Curvature(NamedTuple):
    """The lowest curvature of the loss over the free params.

    Attributes:
      is_checked: whether it was looked at.
      is_negative: whether it is clearly negative.
      lowest: half of it, per squared length in the scale of D.
      direction: its direction, of length one in the scale of D, [P].
      rest: the fall that the true Hessian still promises; infinite where not known.
    """

    is_checked: Flag
    is_negative: Flag
    lowest: Scalar
    direction: Vector
    rest: Scalar


def check_if_due(
    is_due: Flag, measure: Callable[[], Curvature], model: Model
) -> Curvature:
    """Measure the curvature where it is due, else say that it was not checked."""

    def skip() -> Curvature:
        no, zero = jnp.zeros((), bool), jnp.zeros_like(model.noise)
        return Curvature(no, no, zero, jnp.zeros_like(model.slopes), zero + jnp.inf)

    return jax.lax.cond(is_due, measure, skip)


def lowest_curvature(half_hessian: Matrix, model: Model) -> Curvature:
    """Return the lowest curvature over the free params, free of their units."""
    if model.free is not None:
        free = model.free[:, None] & model.free[None, :]
        half_hessian = jnp.where(free, half_hessian, 0.0)
    scale = _equilibrate(half_hessian)
    scaled = half_hessian / (scale[:, None] * scale[None, :])
    vectors, values = jax.lax.linalg.eigh(scaled, symmetrize_input=False)
    slopes = _small.matmul(vectors.T, model.slopes * model.scale / scale)
    least = values.shape[0] * float(jnp.finfo(values.dtype).eps) * values[-1]
    rest = jnp.sum(slopes * slopes / positive(jnp.maximum(values, least)))
    found = judge_curvature(
        model,
        lowest=values[0],
        direction=vectors[:, 0] / scale,
        largest=jnp.max(jnp.abs(values)),
        own_size=scale * jnp.maximum(jnp.abs(model.point), 1.0),
    )
    return found._replace(rest=rest)


def judge_curvature(
    model: Model,
    *,
    lowest: Scalar,
    direction: Vector,
    largest: Scalar,
    own_size: Vector,
) -> Curvature:
    """Tell whether a curvature is clearly negative.

    It must be so beyond the rounding of the Hessian and beyond that of the loss: far
    out on a plain the Hessian is negative in the 100th digit.

    Args:
      model: the model at the accepted point.
      lowest: half the lowest curvature, in a scale of its own.
      direction: its direction, in the units of the params, of length one in that scale.
      largest: the size of half the largest curvature in that scale.
      own_size: the params in that scale.
    """
    eps = float(jnp.finfo(lowest.dtype).eps)
    is_negative = lowest < -(eps ** (2 / 3)) * largest
    is_negative &= -lowest * jnp.sum(own_size**2) > eps * model.size
    direction = direction * model.scale
    length = positive(_small.norm(direction))
    return Curvature(
        is_checked=jnp.ones((), bool),
        is_negative=is_negative,
        lowest=lowest / (length * length),
        direction=direction / length,
        rest=jnp.full_like(lowest, jnp.inf),
    )


def escape_step(
    space: Space, model: Model, curvature: Curvature, radius: Scalar, eps: float
) -> PredictedStep:
    """Return a step along the lowest curvature, long enough for a fall that shows."""
    lowest = jnp.where(curvature.is_negative, curvature.lowest, -1.0)
    visible = 20 * eps ** (2 / 3) * model.size + 4 * model.noise
    wanted = jnp.maximum(radius, jnp.sqrt(-visible / lowest))
    slope = jnp.sum(model.slopes * curvature.direction)
    if model.step_bounds is None:
        # Downhill, for the fall is the same both ways but for the slope.
        length = jnp.where(slope > 0, -wanted, wanted)
    else:
        ahead = _distance_to_bound(model.step_bounds, curvature.direction, wanted)
        back = _distance_to_bound(model.step_bounds, -curvature.direction, wanted)
        falls = [-x * (2 * slope + lowest * x) for x in (ahead, -back)]
        length = jnp.where(falls[0] >= falls[1], ahead, -back)
    return PredictedStep(
        trial=trial_point(space, model, length * curvature.direction, None),
        fall=-length * (2 * slope + lowest * length),
        length=jnp.abs(length),
    )


def _distance_to_bound(step_bounds: Any, direction: Vector, wanted: Scalar) -> Scalar:
    """Return how far one may go: as far as wanted, or to the first bound."""
    end = jnp.where(direction > 0, step_bounds.high, step_bounds.low)
    is_moving = direction != 0
    share = jnp.where(is_moving, end / jnp.where(is_moving, direction, 1.0), jnp.inf)
    return jnp.minimum(wanted, jnp.min(share))


def _equilibrate(matrix: Matrix) -> Vector:
    """Return the scale by which diagonal entries become one, or else their rows."""
    size = jnp.abs(matrix)
    diagonal = _small.diagonal(size)
    rows = jnp.where(diagonal > 0, diagonal, jnp.max(size, axis=1))
    return jnp.sqrt(positive(rows))


# --------------------------------------------------------------------- under vmap


@custom_vmap
def if_not_mapped(flag: Flag) -> Flag:
    """Return the flag, and False under vmap, where both branches would be computed."""
    return flag


@if_not_mapped.def_vmap
def _never(size: int, is_mapped: Any, flag: Flag) -> tuple[Flag, bool]:
    del size, is_mapped, flag
    return jnp.zeros((), bool), False


@custom_vmap
def if_any_lane(flag: Flag) -> Flag:
    """Return the flag, and under vmap whether it is set in any lane."""
    return flag


@if_any_lane.def_vmap
def _any(size: int, is_mapped: Any, flag: Flag) -> tuple[Flag, bool]:
    del size, is_mapped
    return if_any_lane(jnp.any(flag)), False
