"""The trace of the Hessian and the spread of its eigenvalues, by random probes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matfree import stochtrace

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import pictures as _pictures
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, LossFn, Params, RandomKey
from phihat._linalg.dense_hessian import eigh
from phihat._linalg.lanczos import ritz
from phihat.curvature import _core
from phihat.curvature._core import DENSE_SIZE

__all__ = [
    "SpectralDensity",
    "TraceEstimate",
    "estimate_trace",
    "hessian_trace",
    "spectral_density",
]


class TraceEstimate(NamedTuple):
    """A trace and how far it may be off.

    Attributes:
      trace: the estimate.
      standard_error: of that estimate; zero where it was computed exactly.
    """

    trace: Float[Array, ""]
    standard_error: Float[Array, ""]

    def __repr__(self) -> str:
        """Show numbers; arrays by their shapes."""
        return _tables.short_fields(self)


class SpectralDensity(NamedTuple):
    """How the eigenvalues are spread, smoothed by a Gaussian.

    Attributes:
      grid: points on the axis of eigenvalues [N].
      density: the share of eigenvalues per unit there [N]; its integral is 1.
      standard_error: of the density [N], over the probes; zero where it is exact.
      nodes: the eigenvalues that stand for the spectrum [S, K], a row per probe.
      weights: the share of the spectrum that each stands for [S, K]; rows sum to 1.
      width: the standard deviation of the smoothing Gaussian.
    """

    grid: Float[Array, " N"]
    density: Float[Array, " N"]
    standard_error: Float[Array, " N"]
    nodes: Float[Array, "S K"]
    weights: Float[Array, "S K"]
    width: Float[Array, ""]

    def plot(self, *, axes: Any = None) -> Any:
        """Draw how the eigenvalues are spread, by `phihat.plot.spectral_density`."""
        return _pictures.draw("spectral_density", self, axes=axes)

    def __repr__(self) -> str:
        """Show numbers; arrays by their shapes."""
        return _tables.short_fields(self)


@_calls.public
def hessian_trace(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    num_probes: int = 32,
    dense_size: int = DENSE_SIZE,
    key: RandomKey | None = None,
) -> Float[Array, ""]:
    """Return the trace of the Hessian: the sum of its eigenvalues.

    The result is `estimate_trace(...).trace`; ask that for its standard error.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      num_probes: as for `estimate_trace`.
      dense_size: likewise.
      key: likewise.

    Raises:
      TypeError: as for `hessian`.
      ValueError: as for `estimate_trace`.

    Example:
      >>> print(hessian_trace(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2)))
      -2.0
    """
    options = _trace_options("hessian_trace", params, num_probes, dense_size, key)
    return _core.run(_trace, "hessian_trace", loss_fn, params, data, *options).trace


@_calls.public
def estimate_trace(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    num_probes: int = 32,
    dense_size: int = DENSE_SIZE,
    key: RandomKey | None = None,
) -> TraceEstimate:
    r"""Estimate the trace of the Hessian, with a standard error.

    Hutchinson's estimate: the mean of $z^\top H z$ over random signs $z$, which is
    unbiased. Up to `dense_size` params it is the exact sum over the diagonal.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays.
      data: handed to `loss_fn`.
      num_probes: products to average over, >= 2.
      dense_size: up to this many params the trace is exact.
      key: draws the signs; `jax.random.key(0)` where it is None.

    Raises:
      TypeError: as for `hessian`.
      ValueError: `num_probes` below 2, or as for `hvp`.

    Example:
      >>> curved = lambda p: jnp.sum(p**2)
      >>> print(*estimate_trace(curved, jnp.zeros(600)))
      1200.0 0.0

    References:
      Hutchinson, *A stochastic estimator of the trace of the influence matrix*, 1989.
    """
    options = _trace_options("estimate_trace", params, num_probes, dense_size, key)
    return _core.run(_trace, "estimate_trace", loss_fn, params, data, *options)


@_calls.public
def spectral_density(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    num_iterations: int = 64,
    num_probes: int = 8,
    num_points: int = 512,
    width: float | None = None,
    dense_size: int = DENSE_SIZE,
    key: RandomKey | None = None,
) -> SpectralDensity:
    r"""Estimate how the eigenvalues of the Hessian are spread.

    The density $\frac{1}{P}\sum_i \mathcal{N}(x;\,\lambda_i, \sigma^2)$ by stochastic
    Lanczos quadrature: each random probe of K Lanczos steps gives K nodes and weights,
    and the density is their smoothed mean over the probes. Up to `dense_size` params
    the nodes are the eigenvalues themselves.

    Args:
      loss_fn: as for `hessian`.
      params: any pytree of float arrays, at least one number.
      data: handed to `loss_fn`.
      num_iterations: K, Lanczos steps per probe, >= 1; finer structure needs more.
      num_probes: S, >= 2; the standard error falls with its root.
      num_points: N, points of the grid, >= 2, from three widths below the smallest node
        to three above the largest.
      width: the standard deviation $\sigma$; by default a hundredth of the range of
        the nodes (of their size where they are all equal).
      dense_size: up to this many params the spectrum is exact.
      key: draws the probes; `jax.random.key(0)` where it is None.

    Raises:
      TypeError: as for `hessian`.
      ValueError: a number out of its range, no params at all, or as for `hvp`.

    Example:
      >>> result = spectral_density(lambda p: p[0] ** 2 - 2.0 * p[1] ** 2, jnp.ones(2))
      >>> print(result.nodes, result.weights)
      [[-4.  2.]] [[0.5 0.5]]

    References:
      Ghorbani, Krishnan, Xiao, *An investigation into neural net optimization via
      Hessian eigenvalue density*, 2019.
    """
    call = "spectral_density"
    _checks.check_count(call, "num_points", num_points, 2)
    _checks.check_count(call, "num_probes", num_probes, 2)
    if width is not None:
        width = _tree.as_scalar(width, call, "width")
        _checks.check_range(call, "width", width, 0.0, include_low=False)
    (steps, is_dense), key = _core.lanczos_options(
        call, params, num_iterations, dense_size, key
    )
    options = (steps, int(num_probes), int(num_points), is_dense)
    return _core.run(_density, call, loss_fn, params, data, options, (key, width))


def _trace_options(
    call: str, params: Params, num_probes: int, dense_size: int, key: Any
) -> tuple[tuple[int, bool], RandomKey]:
    _checks.check_count(call, "num_probes", num_probes, 2)
    dense_size = _checks.check_count(call, "dense_size", dense_size, 0)
    _checks.check_key(call, key)
    is_dense = _core.num_params(call, params) <= dense_size
    return (int(num_probes), is_dense), _core.default_key(key)


def _trace(
    loss_fn: LossFn,
    options: tuple[Any, ...],
    mode: Mode,
    params: Params,
    data: Batch,
    key: RandomKey,
) -> TraceEstimate:
    call, num_probes, is_dense = options
    flat, _ = products.flatten(params)
    if is_dense:
        matrix = _core.hessian(loss_fn, options, mode, params, data, ())
        return TraceEstimate(
            trace=jnp.trace(matrix), standard_error=jnp.zeros((), flat.dtype)
        )
    product_fn = _core.flat_product(loss_fn, params, data, call)
    integrand = stochtrace.monte_carlo_trace()
    sampler = stochtrace.sampler_signs(flat, num=1)

    # One probe at a time: a batch of them would hold as many networks' activations.
    def probe(probe_key: RandomKey) -> Array:
        return integrand(product_fn, sampler(probe_key)[0])

    samples = jax.lax.map(probe, jax.random.split(key, num_probes))
    return TraceEstimate(
        trace=jnp.mean(samples),
        standard_error=jnp.std(samples, ddof=1) / num_probes**0.5,
    )


def _density(
    loss_fn: LossFn,
    options: tuple[Any, ...],
    mode: Mode,
    params: Params,
    data: Batch,
    numbers: tuple[RandomKey, Any],
) -> SpectralDensity:
    call, num_iterations, num_probes, num_points, is_dense = options
    key, width = numbers
    flat, _ = products.flatten(params)
    if is_dense:
        matrix = _core.hessian(loss_fn, options, mode, params, data, ())
        nodes = eigh(matrix)[0][None]
        weights = jnp.full(nodes.shape, 1 / flat.size, nodes.dtype)
    else:
        product_fn = _core.flat_product(loss_fn, params, data, call)

        def quadrature(probe_key: RandomKey) -> tuple[Array, Array]:
            start = jax.random.normal(probe_key, flat.shape, flat.dtype)
            result = ritz(product_fn, start, num_iterations)
            return result.values, result.coefficients[0] ** 2

        keys = jax.random.split(key, num_probes)
        nodes, weights = jax.lax.map(quadrature, keys)
    low, high = jnp.min(nodes), jnp.max(nodes)
    if width is None:
        size = jnp.where(high > low, high - low, jnp.abs(high))
        width = 0.01 * jnp.where(size > 0, size, 1.0)
    width = jnp.asarray(width, flat.dtype)
    grid = jnp.linspace(low - 3 * width, high + 3 * width, num_points)

    def smoothed(node_row: Array, weight_row: Array) -> Array:
        scores = (grid[:, None] - node_row[None, :]) / width
        bells = jnp.exp(-0.5 * scores**2) / (width * (2 * jnp.pi) ** 0.5)
        return bells @ weight_row

    densities = jax.vmap(smoothed)(nodes, weights)
    spread = jnp.std(densities, axis=0, ddof=1) if not is_dense else 0 * grid
    return SpectralDensity(
        grid=grid,
        density=jnp.mean(densities, axis=0),
        standard_error=spread / num_probes**0.5,
        nodes=nodes,
        weights=weights,
        width=width,
    )
