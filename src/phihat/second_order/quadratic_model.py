r"""The quadratic model of the loss at the accepted point, and what it predicts.

$f + 2\, b^\top p + p^\top A\, p$, with $b$ half the gradient and $A$ half the Hessian
(for a sum of squares $J^\top r$ and $J^\top J$), in the scale of $D$.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phihat._linalg import small as _small
from phihat.second_order.flat_params import Space
from phihat.second_order.subproblem import Bounds, Proposal, Solver, search_step

__all__ = [
    "Model",
    "Point",
    "PredictedStep",
    "ScaledHessian",
    "positive",
    "predict_step",
    "relative_gradient",
    "scale_dense_hessian",
    "search_dense",
    "trial_point",
]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]


class Point(NamedTuple):
    """The loss at a point, half its gradient b [P], and half its Hessian A [P, P]."""

    value: Scalar
    half_gradient: Vector
    half_hessian: Matrix


class ScaledHessian(NamedTuple):
    """The curvature A of the model, scaled.

    Attributes:
      multiply: `v [P] -> A v`.
      diagonal: the sizes of its diagonal, or of what stands for them, [P].
      factors: what the search for a step needs.
    """

    multiply: Callable[[Vector], Vector]
    diagonal: Vector
    factors: Any


class Model(NamedTuple):
    """The quadratic model at the accepted point.

    Attributes:
      here: the loss, its gradient and curvature.
      point: the accepted point, [P].
      scale: D, [P], positive.
      slopes: b in the scale of D, and zero for params that are held at a bound.
      slope: their norm.
      free: the params that may move, bool [P], or None for all.
      step_bounds: how far each may move down and up in the scale of D, or None.
      hessian: the curvature in the scale of D.
      size: the absolute value of the loss, [].
      noise: the part of a fall that the loss cannot show for rounding, [].
      visible: a fall that is of note, [].
    """

    here: Point
    point: Vector
    scale: Vector
    slopes: Vector
    slope: Scalar
    free: Bool[Array, " P"] | None
    step_bounds: Bounds | None
    hessian: ScaledHessian
    size: Scalar
    noise: Scalar
    visible: Scalar


class PredictedStep(NamedTuple):
    """What the model predicts of a trial.

    Attributes:
      trial: the point to measure next, [P].
      fall: the fall of the loss, [].
      length: the length of the step in the scale of D, [].
    """

    trial: Vector
    fall: Scalar
    length: Scalar


def trial_point(space: Space, model: Model, step: Vector, sides: Any) -> Vector:
    """Return the trial point, with params that meet a bound on exactly that bound."""
    trial = space.clip(space.round(model.point + step / model.scale))
    if sides is None or space.bounds is None:
        return trial
    low, high = space.bounds
    return jnp.where(sides < 0, low, jnp.where(sides > 0, high, trial))


def predict_step(model: Model, trial: Vector) -> PredictedStep:
    """Return what the model predicts for the step as it is, rounding included."""
    step = (trial - model.point) * model.scale
    # The slopes of params that are held meet steps of zero.
    fall = -jnp.sum(step * (2 * model.slopes + model.hessian.multiply(step)))
    return PredictedStep(trial, fall, _small.norm(step))


def scale_dense_hessian(
    solver: Solver, here: Point, point: Vector, scale: Vector, free: Any
) -> ScaledHessian:
    """Scale a dense Hessian and prepare its systems."""
    del point
    matrix = here.half_hessian / (scale[:, None] * scale[None, :])
    return ScaledHessian(
        multiply=lambda vector: _small.matmul(matrix, vector),
        diagonal=jnp.abs(_small.diagonal(matrix)),
        factors=(matrix, solver.prepare(matrix, free)),
    )


def search_dense(
    solver: Solver, model: Model, radius: Scalar, forcing: None
) -> Proposal:
    """Search the step of a model whose Hessian is dense."""
    del forcing
    matrix, factors = model.hessian.factors
    return search_step(
        solver,
        factors,
        matrix,
        model.slopes,
        radius,
        free=model.free,
        step_bounds=model.step_bounds,
    )


def relative_gradient(model: Model) -> Vector:
    """Return the relative change of the loss for a relative change of each param."""
    slopes = 2 * jnp.abs(model.here.half_gradient) / model.scale
    steep = jnp.where(model.size > 0, slopes / positive(model.size), jnp.inf)
    return jnp.where(slopes > 0, steep, 0.0)


def positive(values: Array) -> Array:
    """Return the values, with one in the place of those that are not positive."""
    return jnp.where(values > 0, values, 1.0)
