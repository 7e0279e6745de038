"""What intervals and doubts rest on, measured as one program.

Params that a box holds (its ends agree there) are no params of the problem: all is
measured over the free ones, F of P.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phihat import losses, products
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Box, LossFn, Params
from phihat._linalg import pseudo_inverse
from phihat._linalg.dense_hessian import dense_hessian, dense_jacobian
from phihat.error_bars.doubts import Evidence, Setting
from phihat.error_bars.profiles import profile
from phihat.second_order import covariance
from phihat.second_order.parameter_covariance import decompose

__all__ = ["Places", "measure", "spread_out"]

_CALL = "confidence_intervals"


class Places(NamedTuple):
    """Which of the params are free: static, one flag for each number."""

    free: tuple[bool, ...]

    @property
    def indices(self) -> np.ndarray:
        """Where the free ones lie."""
        return np.flatnonzero(self.free)


def measure(
    loss_fn: LossFn,
    options: tuple[Setting, Any],
    mode: Mode,
    params: Params,
    data: Batch,
    quantile: Float[Array, ""],
    box: Box | None,
    status: Array,
) -> tuple[Any, ...]:
    """Return the fields of `ConfidenceIntervals` that are arrays."""
    del mode
    setting, _ = options
    places = Places(setting.free)
    whole, unflatten = products.flatten(params)
    indices = places.indices
    point = whole[indices]
    # Data may be wider than params; a scatter must not mix dtypes.
    complete = lambda free: unflatten(  # noqa: E731
        whole.at[indices].set(free.astype(whole.dtype))
    )
    wide = jax.tree.map(
        lambda leaf: jnp.asarray(leaf).astype(_tree.accumulator_dtype(leaf)), params
    )
    as_tree = products.flatten(wide)[1]
    value, gradient, hessian, kind = _measure_loss(
        loss_fn, setting, params, data, complete, point
    )
    spread = kind.covariance
    errors = jnp.sqrt(jnp.diagonal(spread))
    edges = _edges(box, as_tree, whole)[:, indices]
    bounds = None if box is None else edges
    found = _intervals(setting, kind, point, quantile.astype(point.dtype), bounds)
    is_finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
    is_finite &= jnp.all(jnp.isfinite(hessian)) & ~jnp.any(jnp.isnan(spread))
    lowest, _ = spectrum(hessian)
    at_edge = _at_edge(edges, point, errors)
    downhill = jnp.stack([gradient > 0, gradient < 0])  # that is, out of the box
    active = jnp.any(at_edge & downhill, axis=0)
    distances = _distances(found.correlation, found.lengths, gradient, active)
    ends = found.ends
    full = lambda vector: spread_out(places, vector)  # noqa: E731
    evidence = Evidence(
        status=status,
        is_finite=is_finite,
        distances=full(distances / (2.0 * kind.unit)),
        lowest=lowest,
        weakest=full(kind.weakest),
        rounding=kind.rounding,
        # Where a bound holds the minimum the loss falls beyond it: no parabola is due.
        rises=full(jnp.where(jnp.any(active), 1.0, found.rises)),
        at_bound=full(jnp.any(at_edge, axis=0)),
        beyond_bound=full((point + ends[0] < edges[0]) | (point + ends[1] > edges[1])),
        chi_square=kind.chi_square,
        is_exact=kind.is_exact,
        num_empty=kind.num_empty,
        wald=full(found.wald),
        lowest_rise=found.lowest_rise,
    )
    failed = jnp.where(is_finite, 0.0, jnp.nan)
    low, high = (as_tree(whole + full(end + failed)) for end in ends)
    matrix = jnp.zeros((whole.size, whole.size), point.dtype)
    matrix = matrix.at[np.ix_(indices, indices)].set(spread + failed)
    return wide, low, high, as_tree(full(errors + failed)), matrix, evidence


def spread_out(places: Places, vector: Array) -> Array:
    """Return an array over the free params, [..., F], as one over all, [..., P]."""
    zeros = jnp.zeros((*vector.shape[:-1], len(places.free)), vector.dtype)
    return zeros.at[..., places.indices].set(vector)


def spectrum(hessian: Float[Array, "P P"]) -> tuple[Array, Array]:
    """Return the lowest eigenvalue over the largest, and its vector, both scaled."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    scale = jnp.where(scale > 0, scale, 1.0)
    values, vectors = jnp.linalg.eigh(hessian / (scale[:, None] * scale[None, :]))
    largest = jnp.max(jnp.abs(values))
    return values[0] / jnp.where(largest > 0, largest, 1.0), vectors[:, 0]


# ------------------------------------------------------------------------- private


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What differs between sums of squares and likelihoods.

    Attributes:
      covariance: of the free params, [F, F].
      finite: the same, with a finite choice where they are not determined.
      rise_fn: `offset [F] -> ` the rise of the loss.
      unit: the rise at one standard error.
      weakest: the scaled direction of least curvature.
      rounding: the share of a standard error that rounding may take.
    """

    covariance: Array
    finite: Array
    rise_fn: Callable[[Array], Array]
    unit: Array
    weakest: Array
    rounding: Array
    chi_square: Array
    is_exact: Array
    num_empty: Array


def _measure_loss(
    loss_fn: LossFn,
    setting: Setting,
    params: Params,
    data: Batch,
    complete: Callable[[Array], Params],
    point: Array,
) -> tuple[Array, Array, Array, _Kind]:
    """Return the loss, its derivatives by the free params, and its kind."""
    scalar_fn = products.bind(loss_fn, params, data, call=_CALL)
    flat_fn = lambda free: scalar_fn(complete(free)).astype(point.dtype)  # noqa: E731
    value, gradient = jax.value_and_grad(flat_fn)(point)
    hessian = dense_hessian(jax.grad(flat_fn), point)
    if not setting.is_squares:
        kind = _of_likelihood(flat_fn, point, value, hessian)
        return value, gradient, hessian, kind
    arguments = () if data is None else (data,)
    residual_fn = losses.residual_fn(loss_fn)
    flat_residual_fn = lambda free: residual_fn(complete(free), *arguments)  # noqa: E731
    num_empty = _num_empty(loss_fn, data, setting)
    kind = _of_squares(flat_residual_fn, point, setting, num_empty)
    return value, gradient, hessian, kind


def _of_squares(
    residual_fn: Callable[[Array], Array],
    point: Array,
    setting: Setting,
    num_empty: Array,
) -> _Kind:
    residuals, jacobian = residual_fn(point), dense_jacobian(residual_fn, point)
    singular, right, unscaled = decompose(jacobian)
    eps = float(jnp.finfo(point.dtype).eps)
    spare = (setting.num_residuals or 0) - point.size
    total = residuals @ residuals
    chi_square = total / spare if spare > 0 else jnp.full_like(total, jnp.nan)
    unit = jnp.ones_like(total) if setting.absolute_sigma else chi_square
    scatter = 1.0 if setting.absolute_sigma else chi_square
    is_short = spare <= 0 and not setting.absolute_sigma
    spread = pseudo_inverse.covariance(scatter, unscaled, jnp)
    spread = jnp.full_like(spread, jnp.inf) if is_short else spread
    # Zero to rounding: no larger than what one rounding of every param moves, and of
    # the size of rounding beside the data too. The first alone would call honest noise
    # exact where a param is large and its derivative too, as of a peak far from zero.
    moved = jnp.abs(jacobian) @ jnp.abs(point)
    bound = jnp.linalg.norm(moved)

    def rise_fn(offset: Array) -> Array:
        after = residual_fn(point + offset)
        return (after - residuals) @ (after + residuals)

    return _Kind(
        covariance=spread,
        finite=scatter * unscaled.matrix,
        rise_fn=rise_fn,
        unit=unit,
        weakest=right[-1],
        rounding=eps * singular[0] / singular[-1],
        chi_square=chi_square,
        is_exact=jnp.sqrt(total) <= 2 * eps * bound,
        num_empty=num_empty,
    )


def _of_likelihood(
    flat_fn: Callable[[Array], Array], point: Array, value: Array, hessian: Array
) -> _Kind:
    lowest, weakest = spectrum(hessian)
    eps = float(jnp.finfo(hessian.dtype).eps)
    spread = covariance(flat_fn, point)
    return _Kind(
        covariance=spread,
        finite=jnp.where(jnp.isinf(spread), 0.0, spread),
        rise_fn=lambda offset: flat_fn(point + offset) - value,
        unit=jnp.full_like(value, 0.5),
        weakest=weakest,
        rounding=eps / jnp.maximum(lowest, eps),
        chi_square=jnp.full_like(value, jnp.nan),
        is_exact=jnp.asarray(False),
        num_empty=jnp.asarray(0, jnp.int32),
    )


class _Intervals(NamedTuple):
    """Both ends of each interval, as offsets [2, F], and what was measured for them."""

    ends: Array
    wald: Array
    rises: Array
    lowest_rise: Array
    correlation: Array
    lengths: Array


def _intervals(
    setting: Setting, kind: _Kind, point: Array, quantile: Array, edges: Array | None
) -> _Intervals:
    """Find the ends of the intervals, and how the loss rises at those of a parabola."""
    errors = jnp.sqrt(jnp.diagonal(kind.covariance))
    # Where nothing determines a param its interval is the whole line, not NaN.
    reach = jnp.where(errors > 0, quantile * errors, 0.0)
    correlation, lengths = _paths(kind.finite)
    offsets = quantile * lengths
    rise_fn = lambda unit: kind.rise_fn(offsets * unit) / (kind.unit * quantile**2)  # noqa: E731
    signs = jnp.asarray([-1.0, 1.0], point.dtype)
    wald = signs[:, None] * reach[None]
    ends, lowest_rise = wald, jnp.zeros((), point.dtype)
    if setting.method == "profile":
        bounds = _offsets(edges, point, offsets)
        ends, lowest_rise = _profile_ends(rise_fn, correlation, bounds, wald)
    rises = jax.vmap(jax.vmap(rise_fn))(signs[:, None, None] * correlation[None])
    return _Intervals(ends, wald, rises, lowest_rise, correlation, lengths)


def _paths(spread: Array) -> tuple[Array, Array]:
    """Return the correlations and the standard errors of a finite covariance."""
    errors = jnp.sqrt(jnp.maximum(jnp.diagonal(spread), 0.0))
    outer = errors[:, None] * errors[None, :]
    alone = jnp.eye(errors.size, dtype=errors.dtype)
    return jnp.where(
        outer > 0, spread / jnp.where(outer > 0, outer, 1.0), alone
    ), errors


def _num_empty(loss_fn: LossFn, data: Batch, setting: Setting) -> Array:
    """Count the residuals whose weight is zero, and nothing that underflowed."""
    weights = losses.weights_of(loss_fn, data)
    if weights is None:
        return jnp.asarray(0, jnp.int32)
    per_row = max((setting.num_residuals or 0) // max(weights.size, 1), 1)
    return (jnp.sum(weights == 0) * per_row).astype(jnp.int32)


def _edges(
    box: Box | None, as_tree: Callable[[Array], Params], whole: Array
) -> Float[Array, "2 P"]:
    """Return the ends of the box, infinite where there is none."""
    infinite = jnp.full_like(whole, jnp.inf)
    if box is None:
        return jnp.stack([-infinite, infinite])
    ends = (box.clip(as_tree(-infinite)), box.clip(as_tree(infinite)))
    return jnp.stack([products.flatten(end)[0].astype(whole.dtype) for end in ends])


def _offsets(
    edges: Array | None, point: Array, reach: Array
) -> Float[Array, "2 F"] | None:
    """Return the ends of the box as seen from the params, in units of their reach."""
    if edges is None:
        return None
    scale = jnp.where(reach > 0, reach, 1.0)
    offsets = (edges - point[None]) / scale[None]
    return jnp.stack([jnp.minimum(offsets[0], 0.0), jnp.maximum(offsets[1], 0.0)])


def _profile_ends(
    rise_fn: Callable[[Array], Array], correlation: Array, offsets: Any, wald: Array
) -> tuple[Float[Array, "2 F"], Array]:
    """Return the ends by profiles, and the lowest rise that was met."""
    found = profile(rise_fn, correlation, offsets)
    units = jnp.stack([found.low, found.high])
    reach = wald[1]
    is_known = (reach > 0) & (reach < jnp.inf)
    return jnp.where(is_known[None], units * reach[None], wald), found.lowest


def _at_edge(edges: Array, point: Array, errors: Array) -> Bool[Array, "2 F"]:
    """Tell which params lie within a hundredth of an error of a lower or upper edge."""
    near = 0.01 * jnp.where(jnp.isfinite(errors), errors, 0.0)
    return jnp.stack([point - near <= edges[0], point + near >= edges[1]])


def _distances(
    correlation: Array, errors: Array, gradient: Array, active: Bool[Array, " F"]
) -> Float[Array, " F"]:
    """Return how far the minimum is with the active params held, in errors times 2.

    The correlations given that the active ones are held: their Schur complement.
    """
    held = active.astype(errors.dtype)
    inner = correlation * held[:, None] * held[None, :] + jnp.diag(1.0 - held)
    slope = jnp.where(active, 0.0, errors * gradient)
    step = correlation @ slope
    solved = jnp.linalg.solve(inner, held * step)
    return jnp.abs(step - correlation @ (held * solved)) * (1.0 - held)
