"""What kind of critical point this is, and the numbers behind the answer."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, LossFn, Params
from phihat._linalg.dense_hessian import dense_hessian, eigh
from phihat.curvature import _core

__all__ = [
    "CriticalPoint",
    "CriticalPointKind",
    "classify_critical_point",
    "classify_flat",
    "default_tolerance",
]

Vector = Float[Array, " P"]


class CriticalPointKind(enum.IntEnum):
    """The kind of a point: a minimum, a maximum, a saddle, or none of them.

    Example:
      >>> CriticalPointKind(2).name
      'SADDLE'
    """

    MINIMUM = 0
    """All eigenvalues are positive."""
    MAXIMUM = 1
    """All eigenvalues are negative."""
    SADDLE = 2
    """There are eigenvalues of both signs, and none is zero to rounding."""
    DEGENERATE = 3
    """An eigenvalue is zero to rounding, so second derivatives do not decide."""
    NOT_CRITICAL = 4
    """No critical point is near, or the loss has a kink or is not finite here."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CriticalPoint:
    """A point, its kind, and the evidence.

    Attributes:
      params: the point.
      loss: the loss there.
      kind: a `CriticalPointKind`, as int32.
      eigenvalues: of the Hessian, ascending [P]; NaN where it is not finite.
      index: Morse's index, the number of eigenvalues below `-eigenvalue_tolerance`.
      grad_norm: the Euclidean norm of the gradient.
      grad_noise: the gradient norm that rounding alone explains.
      distance: how far Newton's step goes, the estimated distance to the critical
        point; infinite where a flat direction has a slope.
      eigenvalue_tolerance: eigenvalues no larger in size count as zero.
      kink: the largest jump of a slope between the two sides of the point, along one
        coordinate; 0 where the loss is smooth.
    """

    params: Params
    loss: Float[Array, ""]
    kind: Int[Array, ""]
    eigenvalues: Float[Array, " P"]
    index: Int[Array, ""]
    grad_norm: Float[Array, ""]
    grad_noise: Float[Array, ""]
    distance: Float[Array, ""]
    eigenvalue_tolerance: Float[Array, ""]
    kink: Float[Array, ""]

    def __repr__(self) -> str:
        """Say in a line or two what it is, and why."""
        if np.ndim(self.kind) or not np.shape(self.eigenvalues):
            fields = dataclasses.fields(self)
            values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields)
            return f"{type(self).__name__}({values})"
        name = CriticalPointKind(int(self.kind)).name
        return (
            f"CriticalPoint({name}: {self._reason()}; Morse index {int(self.index)}, "
            f"loss {float(self.loss):.6g}, params={self.params})"
        )

    def _reason(self) -> str:
        values = np.asarray(self.eigenvalues)
        if not values.size:
            return "there are no params"
        if not (np.isfinite(values).all() and np.isfinite(self.grad_norm)):
            return "the gradient or the Hessian is not finite"
        if self.kink > 0:
            return f"a slope jumps by {float(self.kink):.3g} here (a kink)"
        slope = f"gradient norm {float(self.grad_norm):.3g}"
        if int(self.kind) == CriticalPointKind.NOT_CRITICAL:
            return f"{slope}, Newton's step is {float(self.distance):.3g} long"
        ends = " to ".join(f"{value:.6g}" for value in dict.fromkeys(values[[0, -1]]))
        zero = f"zero means below {float(self.eigenvalue_tolerance):.1g}"
        return f"{slope}, eigenvalues {ends} ({zero})"


@_calls.public
def classify_critical_point(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    tolerance: float | None = None,
) -> CriticalPoint:
    r"""Tell whether a point is a minimum, a maximum, a saddle, or not critical at all.

    The point counts as critical where Newton's step $|H^{-1} g|$ is no longer than
    `tolerance * (1 + max|params|)`, or the gradient is no more than rounding. So the
    verdict does not depend on the loss's scale: a gradient that is merely small because
    the loss is flat (a tail; small $H g$ with $g \neq 0$) is refused. An eigenvalue
    counts as zero where rounding could have made it, or where it changes as much over
    the remaining Newton step. Slopes are compared on the two sides of the point along
    every coordinate: at a kink there is no Hessian, and the kind is NOT_CRITICAL.

    Args:
      loss_fn: $L$, `(params, data) -> []`, or `(params) -> []` where `data` is None;
        twice differentiable.
      params: the point, any pytree of float arrays, up to some thousand numbers.
      data: handed to `loss_fn`.
      tolerance: the distance from the true critical point that is allowed, relative
        to `1 + max|params|`; the cube root of eps by default (6e-6 in float64).

    Returns:
      A `CriticalPoint`; where the loss, gradient or Hessian is not finite its kind is
      NOT_CRITICAL and its eigenvalues are NaN.

    Raises:
      TypeError: params that are not floats; a loss that still wants a key.
      ValueError: a loss that is not a scalar; a negative tolerance; more params than a
        dense Hessian can serve.

    Example:
      >>> tail = lambda x: jnp.exp(-x)
      >>> point = classify_critical_point(tail, 40.0)
      >>> float(point.grad_norm) < 1e-16, CriticalPointKind(int(point.kind)).name
      (True, 'NOT_CRITICAL')
    """
    call = "classify_critical_point"
    _core.check_dense(call, params, 2**30)
    tolerance = default_tolerance(call, tolerance, products.flatten(params)[0].dtype)
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    return _programs.call(_classify, code, (), params, data, tolerance)


def default_tolerance(call: str, tolerance: Any, dtype: Any) -> Any:
    """Return a checked tolerance, or the cube root of eps."""
    if tolerance is None:
        return float(jnp.finfo(dtype).eps) ** (1 / 3)
    tolerance = _tree.as_scalar(tolerance, call, "tolerance")
    _checks.check_range(call, "tolerance", tolerance, 0.0)
    return tolerance


def _classify(
    loss_fn: LossFn,
    options: tuple[Any, ...],
    mode: Mode,
    params: Params,
    data: Batch,
    tolerance: Any,
) -> CriticalPoint:
    del options, mode
    scalar_fn = products.bind(loss_fn, params, data, call="classify_critical_point")
    flat, unflatten = products.flatten(params)
    return classify_flat(scalar_fn, flat, unflatten, tolerance)


def classify_flat(
    scalar_fn: Callable[[Params], Any],
    flat: Vector,
    unflatten: Callable[[Any], Params],
    tolerance: Any,
) -> CriticalPoint:
    """Classify one point given as a flat vector; for use inside a program."""
    value_fn = lambda vector: scalar_fn(unflatten(vector))  # noqa: E731
    gradient_fn = jax.grad(value_fn)
    hessian_fn = lambda vector: dense_hessian(gradient_fn, vector)  # noqa: E731
    eps = float(jnp.finfo(flat.dtype).eps)

    value, gradient = jax.value_and_grad(value_fn)(flat)
    value = jnp.asarray(value).astype(flat.dtype)
    eigenvalues, vectors = eigh(hessian_fn(flat))
    largest = jnp.max(jnp.abs(eigenvalues), initial=0.0)
    size = jnp.max(jnp.abs(flat), initial=0.0)
    # What rounding leaves of a zero gradient: the point's own rounding times H, and
    # that of a sum of terms, which for a sum of squares is about sqrt(|H| L).
    grad_noise = (
        100 * eps * (largest * size + jnp.sqrt(largest) * jnp.sqrt(jnp.abs(value)))
    )
    grad_norm = _core.norm(gradient)

    rounding = 10 * max(flat.size, 1) * eps * largest
    slopes = vectors.T @ gradient
    is_flat = jnp.abs(eigenvalues) <= rounding
    is_level = jnp.abs(slopes) <= grad_noise / max(flat.size, 1) ** 0.5
    steps = jnp.where(is_flat, 0.0, -slopes / jnp.where(is_flat, 1.0, eigenvalues))
    has_slope = jnp.any(is_flat & ~is_level)
    distance = jnp.where(has_slope, jnp.inf, _core.norm(steps))
    allowed = jnp.asarray(tolerance, flat.dtype) * (1 + size)
    is_near = (distance <= allowed) | (grad_norm <= grad_noise)

    # The Hessian at the true point is known only to its change over the step to it.
    step = jnp.where(is_near & (distance <= allowed), vectors @ steps, 0.0)
    change = jnp.abs(hessian_fn(flat + step) - hessian_fn(flat))
    eigenvalue_tolerance = jnp.maximum(
        rounding, 10 * jnp.max(jnp.sum(change, axis=1), initial=0.0)
    )
    kink = _largest_jump(gradient_fn, flat, (1 + size) * eps ** (1 / 3), grad_noise)

    num_negative = jnp.sum(eigenvalues < -eigenvalue_tolerance).astype(jnp.int32)
    num_positive = jnp.sum(eigenvalues > eigenvalue_tolerance).astype(jnp.int32)
    is_finite = jnp.all(jnp.isfinite(eigenvalues)) & jnp.isfinite(grad_norm + value)
    is_critical = is_finite & is_near & (kink == 0)
    return CriticalPoint(
        params=unflatten(flat),
        loss=value,
        kind=_kind_of(is_critical, num_negative, num_positive, flat.size),
        eigenvalues=eigenvalues,
        index=num_negative,
        grad_norm=grad_norm,
        grad_noise=grad_noise,
        distance=distance,
        eigenvalue_tolerance=eigenvalue_tolerance,
        kink=kink,
    )


def _kind_of(
    is_critical: Array, num_negative: Array, num_positive: Array, size: int
) -> Array:
    """Return the kind of a point with so many eigenvalues of either sign."""
    kinds = (
        (~is_critical, CriticalPointKind.NOT_CRITICAL),
        (num_negative + num_positive < size, CriticalPointKind.DEGENERATE),
        (num_negative == 0, CriticalPointKind.MINIMUM),
        (num_positive == 0, CriticalPointKind.MAXIMUM),
    )
    return jnp.select(
        [condition for condition, _ in kinds],
        [jnp.asarray(kind, jnp.int32) for _, kind in kinds],
        jnp.asarray(CriticalPointKind.SADDLE, jnp.int32),
    )


def _largest_jump(
    gradient_fn: Callable[[Vector], Vector], flat: Vector, width: Array, noise: Array
) -> Array:
    """Return the largest jump of a slope that persists as the two sides close in."""
    eps = float(jnp.finfo(flat.dtype).eps)

    def persistent(position: Array) -> Array:
        unit = (jnp.arange(flat.size) == position).astype(flat.dtype)

        def measure(offset: Array) -> tuple[Array, Array]:
            return jax.jvp(gradient_fn, (flat + offset * unit,), (unit,))

        gaps = width * jnp.array([1.0, 0.125], flat.dtype)
        above, rate_above = jax.vmap(measure)(gaps)
        below, rate_below = jax.vmap(measure)(-gaps)
        # The trapezoidal rule leaves of a smooth gradient its third derivative only.
        rise = gaps[:, None] * (rate_above + rate_below)
        wide, narrow = jnp.max(jnp.abs(above - below - rise), axis=1)
        size = jnp.max(jnp.abs(above) + jnp.abs(below) + jnp.abs(rise))
        is_jump = (narrow > 0.5 * wide) & (narrow > 1e3 * (noise + eps * size))
        return jnp.where(is_jump, narrow, 0.0)

    found = jax.lax.map(persistent, jnp.arange(flat.size), batch_size=64)
    return jnp.max(found, initial=0.0)
