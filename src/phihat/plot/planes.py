r"""Planes in the space of many params: that of a trajectory, and a random one."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params, RandomKey
from phihat.plot.paths import by_name, flat_params, trajectories
from phihat.plot.surfaces import Surface, evaluate_grid
from phihat.results import FitResult

__all__ = ["principal_plane", "random_plane"]


@_calls.public
def principal_plane(
    loss_fn: LossFn,
    results: Any,
    data: Batch = None,
    *,
    shape: tuple[int, int] = (61, 61),
    margin: float = 0.2,
) -> Surface:
    """Evaluate the loss on the plane that holds most of a trajectory's variance.

    The plane runs through the mean of all recorded params along their first two
    principal directions. Draw it by `loss_surface(surface, results)`: paths are seen at
    right angles to the plane. Its note says how much of their variance it shows, and
    how far they leave it. Even a random walk shows much of its variance in two
    dimensions, so a smooth arc alone means little.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      results: a `FitResult` with "params" recorded, or several that start from params
        of the same structure, as for `trajectories`.
      data: handed to `loss_fn`.
      shape: points along each direction, each >= 2.
      margin: how far the plane reaches beyond the paths, relative to their extent.

    Raises:
      TypeError: `results` hold no `FitResult`.
      ValueError: "params" was not recorded; fewer than two params or three rows.

    Example:
      >>> import phihat
      >>> loss_fn = lambda p: p @ p
      >>> result = phihat.fit(
      ...     loss_fn, jnp.ones(3), phihat.adam(0.1), num_steps=9, record="params"
      ... )
      >>> surface = principal_plane(loss_fn, result, shape=(3, 3))
      >>> surface.values.shape, surface.names[0]
      ((3, 3), 'principal direction 1 (100.0 %)')

    References:
      Li, Xu, Taylor, Studer, Goldstein, *Visualizing the loss landscape of neural
      nets*, 2018. Antognini, Sohl-Dickstein, *PCA of high dimensional random walks with
      comparison to neural network training*, 2018.
    """
    call = "principal_plane"
    margin = float(_tree.as_scalar(margin, call, "margin"))
    _checks.check_range(call, "margin", margin, 0.0)
    paths = [path for some in trajectories(results).values() for path in some]
    example = _example_params(call, results)
    points = np.concatenate(paths)
    if points.shape[1] < 2 or len(points) < 3:
        raise ValueError(
            f"{call}: it takes at least two params and three recorded rows, got "
            f"{points.shape[1]} and {len(points)}."
        )
    center = points.mean(axis=0)
    directions, variances = _principal(points - center)
    inside = (points - center) @ directions.T
    total = max(float(np.sum((points - center) ** 2)), np.finfo(float).tiny)
    shares = variances / total
    away = np.linalg.norm(points - center - inside @ directions, axis=1).max()
    extent = max(np.linalg.norm(points - center, axis=1).max(), np.finfo(float).tiny)
    ticks = _ticks(call, inside, shape, margin)
    values = evaluate_grid(call, loss_fn, example, center, directions, ticks, data)
    return Surface(
        *ticks,
        values=values,
        origin=center,
        directions=directions,
        names=tuple(  # type: ignore[arg-type]
            f"principal direction {k + 1} ({100 * share:.1f} %)"
            for k, share in enumerate(shares)
        ),
        note=(
            f"on the plane that shows {100 * shares.sum():.1f} % of the variance of "
            f"{'the path' if len(paths) == 1 else f'{len(paths)} paths'};\nat most "
            f"{away:.3g} away from it, {100 * away / extent:.1f} % of the extent"
        ),
    )


@_calls.public
def random_plane(
    loss_fn: LossFn,
    params: Params,
    data: Batch = None,
    *,
    key: RandomKey | None = None,
    radius: float = 1.0,
    shape: tuple[int, int] = (61, 61),
) -> Surface:
    """Evaluate the loss on a random, filter-normalised plane through given params.

    Each filter of a random direction (all weights of one output: a column of the last
    axis) gets the norm of the same filter of the params, so that planes of different
    networks can be compared. Biases and scales (leaves with fewer than two axes) stay
    as they are, unless there is nothing else.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      params: the middle of the plane, at least two numbers.
      data: handed to `loss_fn`.
      key: draws the two directions; `jax.random.key(0)` where it is None.
      radius: how far the plane reaches, in units of the filters' norms, > 0.
      shape: points along each direction, each >= 2.

    Raises:
      TypeError: params are not floats.
      ValueError: fewer than two numbers in `params`, or all of them zero.

    Example:
      >>> import phihat
      >>> key = jax.random.key(0)
      >>> params = phihat.models.init_multilayer_perceptron(key, (2, 3, 1))
      >>> loss_fn = lambda p: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))
      >>> surface = random_plane(loss_fn, params, shape=(5, 5))
      >>> bool(surface.values[2, 2] == surface.values.min())
      True

    References:
      Li, Xu, Taylor, Studer, Goldstein, *Visualizing the loss landscape of neural
      nets*, 2018.
    """
    call = "random_plane"
    _checks.check_float_leaves(call, "params", params)
    _checks.check_key(call, key)
    radius = float(_tree.as_scalar(radius, call, "radius"))
    _checks.check_range(call, "radius", radius, 0.0, include_low=False)
    flat = flat_params(params)
    if not np.all(np.isfinite(flat)):
        raise ValueError(f"{call}: `params` must be finite.")
    has_matrices = any(np.ndim(leaf) > 1 for leaf in jax.tree.leaves(params))
    key = jax.random.key(0) if key is None else key
    draws = np.asarray(jax.random.normal(key, (2, flat.size)), float)
    directions = np.stack([_scaled(params, draw, has_matrices) for draw in draws])
    if flat.size < 2 or np.linalg.matrix_rank(directions) < 2:
        raise ValueError(
            f"{call}: `params` must hold two numbers or more that are not zero, got "
            f"{flat.size}, {int(np.count_nonzero(flat))} of them not zero."
        )
    ends = [
        np.linspace(-radius, radius, _checks.check_count(call, "shape", n, 2))
        for n in shape
    ]
    ticks = (ends[0], ends[1])
    return Surface(
        *ticks,
        values=evaluate_grid(call, loss_fn, params, flat, directions, ticks, data),
        origin=flat,
        directions=directions,
        names=(
            "random direction 1 [filter norms]",
            "random direction 2 [filter norms]",
        ),
        note=f"on a random, filter-normalised plane through {flat.size:,} params",
    )


# -------------------------------------------------------------------- private helpers


def _example_params(call: str, results: Any) -> Params:
    """Return params of this structure: those of one lane of one result."""
    for result in by_name(call, results).values():
        if isinstance(result, FitResult):
            first = operator.itemgetter((0,) * np.ndim(result.status))
            return jax.tree.map(first, jax.tree.map(jnp.asarray, result.params))
    raise TypeError(
        f"{call}: `results` must hold a FitResult, whose params have the structure."
    )


def _principal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal directions [2, P] and their sums of squares."""
    _, sizes, rows = np.linalg.svd(points, full_matrices=False)
    # A direction points where its largest entry does, so that signs are settled.
    signs = np.sign(rows[np.arange(2), np.abs(rows[:2]).argmax(axis=1)])
    return rows[:2] * np.where(signs == 0, 1.0, signs)[:, None], sizes[:2] ** 2


def _ticks(
    call: str, inside: np.ndarray, shape: tuple[int, int], margin: float
) -> tuple[np.ndarray, np.ndarray]:
    low, high = inside.min(axis=0), inside.max(axis=0)
    # A straight path needs some width too.
    half = np.maximum(0.5 * (high - low), 0.05 * (high - low).max())
    half = np.where(half > 0, half, 1.0) * (1.0 + 2.0 * margin)
    middle = 0.5 * (low + high)
    first, second = (
        np.linspace(
            middle[k] - half[k],
            middle[k] + half[k],
            _checks.check_count(call, "shape", shape[k], 2),
        )
        for k in range(2)
    )
    return first, second


def _scaled(params: Params, draw: np.ndarray, has_matrices: bool) -> np.ndarray:
    """Give each filter of a draw the norm of the same filter of the params."""
    parts, begin = [], 0
    for leaf in jax.tree.leaves(params):
        leaf = np.asarray(leaf, float)
        part = draw[begin : begin + leaf.size].reshape(leaf.shape)
        begin += leaf.size
        axes = tuple(range(leaf.ndim - 1)) if leaf.ndim > 1 else None
        norm, drawn = (
            np.sqrt(np.sum(one * one, axis=axes, keepdims=True)) for one in (leaf, part)
        )
        is_still = leaf.ndim < 2 and has_matrices
        parts.append(part * (norm / np.where(drawn > 0, drawn, 1.0)) * (not is_still))
    return np.concatenate([np.zeros(0), *(part.ravel() for part in parts)])
