r"""Trust regions: how far a quadratic model is believed, and its minimum within.

At a point the model is $m(p) = g^\top p + \tfrac12 p^\top H p$, believed where the
scaled length of $p$ is at most a radius. A step is taken if the value falls by a fair
share of what the model promised; else the radius shrinks and another step is tried.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.second_order import trust_region as _trust_region
  >>> curvatures, slopes = jnp.array([-1.0, 2.0]), jnp.zeros(2)
  >>> print(jnp.abs(_trust_region.minimize_model(curvatures, slopes, 0.5)))
  [0.5 0. ]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "Eigenpair",
    "Outcome",
    "Point",
    "Proposal",
    "TrustRegionState",
    "equilibrate",
    "is_clearly_negative",
    "minimize_model",
    "smallest_eigenpair",
    "take_step",
    "truncated_conjugate_gradient",
]

Vector = Float[Array, " P"]
Scalar = Float[Array, ""]
Product = Callable[[Vector], Vector]

_MAX_TRIES = 12
"""Steps tried from one point; the radius has then shrunk by 4^12 at least."""


class TrustRegionState(NamedTuple):
    """What the second-order optimizers carry.

    Attributes:
      step: updates made so far, int32 [].
      radius: the length of step that the model is trusted for, in its own scale, [].
      scale: the scale of every param, [P], or None.
      negative_curvature: whether the Hessian at the point that the last update started
        from has a clearly negative eigenvalue, so that it is no minimum, bool [].
      is_stalled: whether no step from there lowers the value or the gradient any
        further at this precision, bool [].
    """

    step: Int[Array, ""]
    radius: Scalar
    scale: Vector | None
    negative_curvature: Bool[Array, ""]
    is_stalled: Bool[Array, ""]


class Point(NamedTuple):
    """Where a step starts or ends: the params, the value and its gradient."""

    params: Vector
    value: Scalar
    gradient: Vector


class Proposal(NamedTuple):
    """A step, its scaled length, and the fall of the value that the model promises."""

    step: Vector
    length: Scalar
    predicted: Scalar


class Outcome(NamedTuple):
    """The step taken, zero where none was good enough, and what was learnt."""

    step: Vector
    radius: Scalar
    is_stalled: Bool[Array, ""]


class Eigenpair(NamedTuple):
    """The smallest eigenvalue, its unit eigenvector, and the largest |eigenvalue|."""

    value: Scalar
    vector: Vector
    largest: Scalar


def is_clearly_negative(smallest: Scalar, largest: Scalar) -> Bool[Array, ""]:
    """Tell whether an eigenvalue is negative beyond what rounding explains."""
    return smallest < -(float(jnp.finfo(smallest.dtype).eps) ** (2 / 3)) * largest


# -------------------------------------------------------------------- taking a step


def take_step(
    propose_fn: Callable[[Scalar], Proposal],
    measure_fn: Callable[[Vector], tuple[Scalar, Vector]],
    here: Point,
    radius: Scalar,
    scale: Vector,
) -> Outcome:
    """Propose steps, in an ever smaller region, until one is good enough.

    Args:
      propose_fn: `radius -> Proposal`.
      measure_fn: `params -> (value, gradient)`.
      here: the point to step from.
      radius: the region to begin with.
      scale: what gradients are divided by before their lengths are compared, [P].
    """
    eps = float(jnp.finfo(here.value.dtype).eps)
    norm_here = jnp.linalg.norm(here.gradient / scale)

    class Tries(NamedTuple):
        outcome: Outcome
        is_done: Bool[Array, ""]
        num_tries: Int[Array, ""]

    def goes_on(tries: Tries) -> Bool[Array, ""]:
        return ~tries.is_done & (tries.num_tries < _MAX_TRIES)

    def attempt(tries: Tries) -> Tries:
        radius = tries.outcome.radius
        step, length, predicted = propose_fn(radius)
        value, gradient = measure_fn(here.params + step)
        fall = here.value - value
        # A model with a huge or NaN step must not pass for a success.
        is_sound = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        is_sound &= jnp.all(jnp.isfinite(step)) & (predicted >= 0)
        # Below the rounding of the value its fall says nothing, and near it not much;
        # there the length of the gradient tells whether a step helps.
        size = jnp.abs(here.value)
        is_visible = predicted > 8 * eps * size
        is_close = jnp.maximum(predicted, jnp.abs(fall)) <= eps ** (2 / 3) * size
        flattens = jnp.linalg.norm(gradient / scale) < 0.999 * norm_here
        falls = is_visible & (fall >= 1e-4 * predicted)
        # Steps of a few roundings would go to and fro for ever.
        is_still = jnp.all(jnp.abs(step) <= 4 * eps * jnp.abs(here.params))
        accepted = is_sound & ~is_still & (falls | (is_close & flattens))
        is_last = tries.num_tries == _MAX_TRIES - 1
        is_stalled = ~accepted & (is_still | (is_last & is_sound & ~is_visible))
        gain = fall / jnp.where(predicted > 0, predicted, 1.0)
        # The model was right up to the edge of the region: trust it further.
        widened = jnp.where(length >= 0.9 * radius, 2.0 * radius, radius)
        widened = jnp.where(gain > 0.75, widened, radius)
        narrowed = jnp.where(gain < 0.25, 0.5 * length, widened)
        kept = jnp.where(falls, narrowed, radius)
        smaller = 0.25 * jnp.minimum(radius, jnp.where(length > 0, length, radius))
        return Tries(
            Outcome(
                step=jnp.where(accepted, step, jnp.zeros_like(step)),
                radius=jnp.where(accepted, kept, smaller),
                is_stalled=is_stalled,
            ),
            is_done=accepted | is_stalled,
            num_tries=tries.num_tries + 1,
        )

    start = Tries(
        Outcome(jnp.zeros_like(here.params), radius, jnp.asarray(False)),
        is_done=jnp.asarray(False),
        num_tries=jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(goes_on, attempt, start).outcome


# -------------------------------------------------------------- minima of the model


def minimize_model(
    curvatures: Float[Array, " K"],
    slopes: Float[Array, " K"],
    radius: Any,
    *,
    rounding: float | None = None,
) -> Float[Array, " K"]:
    r"""Minimize $\sum_i s_i p_i + \tfrac12 c_i p_i^2$ over $\|p\| \le r$, exactly.

    On the edge $p_i = -s_i / (c_i + \lambda)$ with $\lambda \ge \max(0, -\min c)$. The
    loop finds $\mu = \lambda - \max(0, -\min c)$, so that the smallest denominator is
    exact however near the hard case is; in the hard case itself (no slope along the
    lowest curvature) a slope below rounding is put there, which leads to the edge.

    Args:
      curvatures: $c$, the eigenvalues of the model, in any order.
      slopes: $s$, the gradient in the basis of its eigenvectors.
      radius: $r > 0$.
      rounding: the relative error of the curvatures; smaller ones count as that size.
    """
    dtype = curvatures.dtype
    radius = jnp.asarray(radius, dtype)
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    largest = jnp.max(jnp.abs(curvatures), initial=0.0)
    rounding = curvatures.size * eps if rounding is None else rounding
    floor = jnp.maximum(rounding * largest, tiny)
    curvatures = jnp.where(jnp.abs(curvatures) <= floor, floor, curvatures)
    lowest = jnp.argmin(curvatures)
    smallest = curvatures[lowest]
    least_slope = eps * radius * largest
    slope = slopes[lowest]
    pushed = jnp.where(slope < 0, -1.0, 1.0) * jnp.maximum(jnp.abs(slope), least_slope)
    slopes = slopes.at[lowest].set(jnp.where(smallest < 0, pushed, slope))
    base = curvatures + jnp.maximum(0.0, -smallest)

    def step_at(shift: Scalar) -> Float[Array, " K"]:
        below = base + shift
        return jnp.where(slopes == 0, 0.0, -slopes / jnp.where(below > 0, below, tiny))

    def advance(carry: tuple[Scalar, Scalar, Int[Array, ""]]) -> Any:
        shift, _, rounds = carry
        step = step_at(shift)
        norm = jnp.linalg.norm(step)
        below = jnp.where(base + shift > 0, base + shift, tiny)
        unit = step / norm
        rate = jnp.sum(unit * unit / below)
        # Newton's method on 1/r - 1/|p|, which from the left never overshoots.
        return shift + (norm - radius) / (radius * rate), norm, rounds + 1

    def goes_on(carry: tuple[Scalar, Scalar, Int[Array, ""]]) -> Bool[Array, ""]:
        _, norm, rounds = carry
        return (norm > (1 + 1e-3) * radius) & (rounds < 60)

    inside = step_at(jnp.zeros((), dtype))
    is_inside = (smallest > 0) & (jnp.linalg.norm(inside) <= radius)
    first = jnp.max(jnp.abs(slopes) / radius - base, initial=0.0)
    norm = jnp.where(is_inside, 0.0, jnp.asarray(jnp.inf, dtype))
    shift = jax.lax.while_loop(
        goes_on, advance, (first, norm, jnp.zeros((), jnp.int32))
    )[0]
    edge = step_at(shift)
    edge = edge * jnp.minimum(1.0, radius / jnp.maximum(jnp.linalg.norm(edge), tiny))
    return jnp.where(is_inside, inside, edge)


def truncated_conjugate_gradient(
    product_fn: Product, gradient: Vector, radius: Scalar, max_iterations: int
) -> tuple[Vector, Vector, Bool[Array, ""]]:
    """Minimize the model along conjugate directions, up to the edge (Steihaug, Toint).

    Returns:
      The step, its product with the Hessian, and whether negative curvature was met.
    """
    norm = jnp.linalg.norm(gradient)
    goal = jnp.minimum(0.1, jnp.sqrt(norm)) * norm

    class Carry(NamedTuple):
        step: Vector
        product: Vector
        residual: Vector
        direction: Vector
        is_done: Bool[Array, ""]
        is_negative: Bool[Array, ""]
        num_iterations: Int[Array, ""]

    def goes_on(carry: Carry) -> Bool[Array, ""]:
        return ~carry.is_done & (carry.num_iterations < max_iterations)

    def advance(carry: Carry) -> Carry:
        step, direction = carry.step, carry.direction
        product = product_fn(direction)
        curvature = direction @ product
        square = carry.residual @ carry.residual
        is_negative = curvature <= 0
        length = square / jnp.where(is_negative, 1.0, curvature)
        # Go to the edge where the model bends down, or where the next step passes it.
        a, b = direction @ direction, step @ direction
        rest = radius**2 - step @ step
        root = jnp.sqrt(jnp.maximum(b * b + a * rest, 0.0))
        to_edge = rest / (b + root)
        leaves = is_negative | ~(length < to_edge)
        length = jnp.where(leaves, to_edge, length)
        residual = carry.residual + length * product
        new_square = residual @ residual
        return Carry(
            step=step + length * direction,
            product=carry.product + length * product,
            residual=residual,
            direction=-residual + (new_square / square) * direction,
            is_done=leaves | (jnp.sqrt(new_square) <= goal),
            is_negative=is_negative,
            num_iterations=carry.num_iterations + 1,
        )

    zero = jnp.zeros_like(gradient)
    end = jax.lax.while_loop(
        goes_on,
        advance,
        Carry(
            step=zero,
            product=zero,
            residual=gradient,
            direction=-gradient,
            is_done=norm <= 0,
            is_negative=jnp.asarray(False),
            num_iterations=jnp.zeros((), jnp.int32),
        ),
    )
    return end.step, end.product, end.is_negative


# ------------------------------------------------------------------ scales and ends


def equilibrate(matrix: Float[Array, "P P"]) -> Vector:
    """Return the scale d for which |matrix| / (d dᵀ) has rows of largest entry one.

    It follows any change of units of the params, also where the diagonal is zero. Rows
    of zeros keep the scale 1 (Ruiz's iteration).
    """
    size = jnp.abs(matrix)
    diagonal = jnp.sqrt(jnp.diagonal(size))
    start = jnp.where(diagonal > 0, diagonal, 1.0)

    def improve(_: Any, scale: Vector) -> Vector:
        rows = jnp.max(size / (scale[:, None] * scale[None, :]), axis=1, initial=0.0)
        return scale * jnp.where(rows > 0, jnp.sqrt(rows), 1.0)

    return jax.lax.fori_loop(0, 10, improve, start)


def smallest_eigenpair(product_fn: Product, start: Vector, num_steps: int) -> Eigenpair:
    """Estimate the lower end of a spectrum by Lanczos; exact for `num_steps` = P."""
    dtype = start.dtype
    num_steps = min(num_steps, start.size)

    def advance(step: Any, carry: Any) -> Any:
        basis, diagonal, off_diagonal = carry
        product = product_fn(basis[step])
        diagonal = diagonal.at[step].set(basis[step] @ product)
        for _ in range(2):  # twice is enough
            product = product - basis.T @ (basis @ product)
        norm = jnp.linalg.norm(product)
        # After an invariant subspace zeros follow, whose eigenvalue is zero.
        is_new = norm > 10 * jnp.finfo(dtype).eps * jnp.max(jnp.abs(diagonal))
        unit = jnp.where(is_new, product / jnp.where(is_new, norm, 1.0), 0.0)
        off_diagonal = off_diagonal.at[step].set(jnp.where(is_new, norm, 0.0))
        return basis.at[step + 1].set(unit), diagonal, off_diagonal

    basis = jnp.zeros((num_steps + 1, start.size), dtype)
    basis = basis.at[0].set(start / jnp.linalg.norm(start))
    zeros = jnp.zeros(num_steps, dtype)
    basis, diagonal, off_diagonal = jax.lax.fori_loop(
        0, num_steps, advance, (basis, zeros, zeros)
    )
    tridiagonal = (
        jnp.diag(diagonal)
        + jnp.diag(off_diagonal[:-1], 1)
        + jnp.diag(off_diagonal[:-1], -1)
    )
    values, vectors = jnp.linalg.eigh(tridiagonal)
    vector = basis[:-1].T @ vectors[:, 0]
    norm = jnp.linalg.norm(vector)
    return Eigenpair(
        value=values[0],
        vector=vector / jnp.where(norm > 0, norm, 1.0),
        largest=jnp.max(jnp.abs(values)),
    )
