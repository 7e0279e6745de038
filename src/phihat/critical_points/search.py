"""All critical points of a loss in a box, with a check that none is missing."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import jaxprs as _jaxprs
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Box, LossFn, RandomKey
from phihat._linalg.dense_hessian import dense_hessian, eigh
from phihat.critical_points import winding
from phihat.critical_points.classification import (
    CriticalPoint,
    CriticalPointKind,
    classify_flat,
    default_tolerance,
)
from phihat.critical_points.points import CriticalPoints, WindingCheck
from phihat.curvature import _core
from phihat.curvature.boxes import flat_box, sobol

__all__ = ["find_critical_points"]

_MARGIN = 1e-6
"""Of the box's width: so far outside a point still counts as being on the border."""

_SAME = 1e-5
"""Of the box's width: closer points are one."""

_MAX_LEVEL_POINTS = 16
"""More degenerate points than this with the same loss are a flat set, not points."""

_BLOCK = 1024
"""Points of a curve that are measured at once."""


@_calls.public
def find_critical_points(
    loss_fn: LossFn,
    box: Box,
    data: Batch = None,
    *,
    num_starts: int = 1024,
    num_iterations: int = 100,
    max_rounds: int = 4,
    tolerance: float | None = None,
    key: RandomKey | None = None,
) -> CriticalPoints:
    r"""Find the minima, maxima and saddles of a loss in a box.

    Newton's method on the gradient from many Sobol points at once, in one program:
    the Levenberg-Marquardt step for $|g|^2$, $-(H^2 + \mu^2)^{-1} H g$, which goes to
    saddles and maxima as readily as to minima. What it finds is classified as by
    `classify_critical_point`, points where only $H g$ vanishes are dropped, equal ones
    are merged, and the rest is sorted by loss. For two params the winding number of the
    gradient round the box must equal the sum over the points; while it does not,
    another round of starts is tried.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None; twice
        differentiable.
      box: where to look, bounded, low < high; each leaf in its full shape. Its border
        belongs to it, and so do points within a millionth of its width.
      data: handed to `loss_fn`.
      num_starts: starts per round, >= 1; a power of two is best.
      num_iterations: steps per start, >= 1.
      max_rounds: rounds of starts while the winding number disagrees, >= 1.
      tolerance: as for `classify_critical_point`.
      key: draws the shift of the Sobol points; `jax.random.key(0)` where None.

    Returns:
      `CriticalPoints`, stacked and sorted by loss. Of a set that is no isolated point
      (a flat region, the floor of a valley) one representative is kept. In more than
      two dimensions nothing tells whether they are all.

    Raises:
      TypeError: `box` is not a Box; a loss that still wants a key; a call under jit,
        vmap or grad: how many points there are depends on values.
      ValueError: low >= high, an infinite end; a loss that is not a scalar; a number
        out of its range.

    Example:
      >>> points = find_critical_points(
      ...     lambda p: p["x"] ** 3 - 3.0 * p["x"], Box({"x": -2.0}, {"x": 2.0})
      ... )
      >>> print(points.summary, jnp.round(points.params["x"], 3))
      2 critical points: 1 minimum, 1 maximum [ 1. -1.]
    """
    call = "find_critical_points"
    for argument, number in (
        ("num_starts", num_starts),
        ("num_iterations", num_iterations),
        ("max_rounds", max_rounds),
    ):
        _checks.check_count(call, argument, number)
    _checks.check_key(call, key)
    if _jaxprs.is_tracing():
        raise TypeError(
            f"{call}: it cannot run under jit, vmap or grad, since how many points "
            "there are depends on values; call it outside."
        )
    low, _, unflatten = flat_box(call, box)
    tolerance = default_tolerance(call, tolerance, low.dtype)
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    problem = _Problem(code, box, data)
    draw = sobol(low.size, key)

    candidates = np.zeros((0, low.size))
    for _ in range(max_rounds):
        ends, norms = problem.run(
            _descend, int(num_iterations), _floats(draw(int(num_starts)))
        )
        candidates = np.concatenate([candidates, _inside(ends, norms)])
        points, places = _sorted(problem, _distinct(candidates), tolerance)
        check = _check_winding(problem, places, points)
        if check is None or check.agrees or None in (check.box, check.points):
            break  # nothing that more starts could mend
    found = {
        field.name: getattr(points, field.name)
        for field in dataclasses.fields(CriticalPoint)
    }
    found["params"] = jax.vmap(unflatten)(points.params)
    return CriticalPoints(**found, num_merged=points.num_merged, winding=check)


# ------------------------------------------------------------------------- programs


class _Problem(NamedTuple):
    """A loss on a box; `run` calls a program in the unit cube's coordinates."""

    code: Any
    box: Box
    data: Batch

    def run(self, body: Callable[..., Any], options: Any, *arrays: Any) -> Any:
        return _programs.call(body, self.code, options, self.box, self.data, *arrays)


def _unit_fn(
    loss_fn: LossFn, box: Box, data: Batch
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], Any]:
    """Return the loss on the unit cube, the map from there, and the loss on params."""
    low, high, unflatten = flat_box("find_critical_points", box)
    scalar_fn = products.bind(
        loss_fn, unflatten(low), data, call="find_critical_points"
    )
    place = lambda unit: low + (high - low) * unit  # noqa: E731
    return lambda unit: scalar_fn(unflatten(place(unit))), place, (scalar_fn, unflatten)


def _descend(
    loss_fn: LossFn, num_iterations: int, mode: Mode, box: Box, data: Batch, starts
) -> tuple[Array, Array]:
    """Run every start to where the gradient's norm no longer falls."""
    del mode
    value_fn, _, _ = _unit_fn(loss_fn, box, data)
    gradient_fn = jax.grad(value_fn)
    eps = float(jnp.finfo(starts.dtype).eps)

    def measure(unit: Array) -> tuple[Array, Array, Array]:
        gradient = gradient_fn(unit)
        return gradient, dense_hessian(gradient_fn, unit), _core.norm(gradient)

    def is_open(carry: tuple[Any, ...]) -> Array:
        *_, is_done, rounds = carry
        return ~is_done & (rounds < num_iterations)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        unit, gradient, matrix, norm, damping, _, rounds = carry
        values, vectors = eigh(matrix)
        largest = jnp.max(jnp.abs(values))
        # Both are divided by the largest eigenvalue, so that squares cannot underflow.
        scale = jnp.where(largest > 0, largest, 1.0)
        ratios = values / scale
        filtered = ratios / jnp.maximum(
            ratios**2 + damping**2, jnp.finfo(unit.dtype).tiny
        )
        move = -vectors @ (filtered * (vectors.T @ (gradient / scale)))
        trial = unit + move
        trial_gradient, trial_matrix, trial_norm = measure(trial)
        is_better = trial_norm < norm  # False where it is NaN
        is_still = _core.norm(move) <= 4 * eps * (1 + _core.norm(unit))
        has_left = jnp.max(jnp.abs(unit - 0.5)) > 2.0
        unit, gradient, matrix, norm = _tree.select(
            is_better,
            (trial, trial_gradient, trial_matrix, trial_norm),
            (unit, gradient, matrix, norm),
        )
        damping = jnp.where(is_better, 0.2 * damping, 5.0 * damping)
        is_done = (norm == 0) | is_still | has_left | ~jnp.isfinite(norm)
        return unit, gradient, matrix, norm, damping, is_done, rounds + 1

    def run(start: Array) -> tuple[Array, Array]:
        init = (start, *measure(start))
        no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        damping = jnp.full((), 0.1, start.dtype)
        end = jax.lax.while_loop(is_open, step, (*init, damping, no, zero))
        return end[0], end[3]

    return jax.vmap(run)(starts)


def _classify_all(
    loss_fn: LossFn,
    options: Any,
    mode: Mode,
    box: Box,
    data: Batch,
    units,
    tolerance,
) -> CriticalPoint:
    del options, mode
    _, place, (scalar_fn, unflatten) = _unit_fn(loss_fn, box, data)

    def classify(unit: Array) -> CriticalPoint:
        return classify_flat(scalar_fn, place(unit), unflatten, tolerance)

    points = jax.vmap(classify)(units)
    flat = jax.vmap(lambda params: products.flatten(params)[0])(points.params)
    return dataclasses.replace(points, params=flat)


def _gradients(
    loss_fn: LossFn, options: Any, mode: Mode, box: Box, data: Batch, units: Any
) -> Array:
    del options, mode
    value_fn, _, _ = _unit_fn(loss_fn, box, data)
    return jax.vmap(jax.grad(value_fn))(units)


# ----------------------------------------------------------------------------- host


def _inside(ends: Any, norms: Any) -> Any:
    """Keep what ended in the box, best first."""
    ends, norms = np.asarray(ends), np.asarray(norms)
    is_inside = np.all((ends >= -_MARGIN) & (ends <= 1 + _MARGIN), axis=1)
    kept = is_inside & np.isfinite(norms)
    return ends[kept][np.argsort(norms[kept], kind="stable")]


def _distinct(units: Any) -> Any:
    """Keep the first of every cluster of equal points."""
    kept: list[int] = []
    is_left = np.ones(len(units), bool)
    for position in range(len(units)):
        if is_left[position]:
            kept.append(position)
            near = np.abs(units - units[position]).max(axis=1) <= _SAME
            is_left &= ~near
    return units[kept]


def _sorted(
    problem: _Problem, units: Any, tolerance: Any
) -> tuple[CriticalPoints, Any]:
    """Classify, drop what is not critical, merge flat sets, and sort by loss."""
    # Blocks of one size: else every number of candidates is a program of its own.
    padded = _padded(units, 64)
    blocks = [
        problem.run(_classify_all, None, _floats(block), tolerance)
        for block in padded.reshape(-1, 64, padded.shape[1])
    ]
    points = jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)
    kept = np.arange(len(padded)) < len(units)
    kept &= points.kind != CriticalPointKind.NOT_CRITICAL
    merged = np.ones(len(padded), np.int32)
    for group in _level_sets(points, kept):
        if len(group) > _MAX_LEVEL_POINTS:
            middle = np.abs(padded[group] - 0.5).max(axis=1)
            kept[group] = False
            kept[group[np.argmin(middle)]] = True
            merged[group] = len(group)
    order = np.flatnonzero(kept)
    order = order[np.lexsort((*points.params[order].T[::-1], points.loss[order]))]
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf[order]), points)
    fields = {field.name: getattr(stacked, field.name) for field in _FIELDS}
    found = CriticalPoints(
        **fields, num_merged=jnp.asarray(merged[order]), winding=None
    )
    return found, padded[order]


_FIELDS = dataclasses.fields(CriticalPoint)


def _level_sets(points: CriticalPoint, kept: Any) -> list[Any]:
    """Group the degenerate points by equal losses."""
    degenerate = np.flatnonzero(kept & (points.kind == CriticalPointKind.DEGENERATE))
    if not degenerate.size:
        return []
    degenerate = degenerate[np.argsort(points.loss[degenerate], kind="stable")]
    losses = np.asarray(points.loss[degenerate])
    gap = (
        1e3 * np.finfo(losses.dtype).eps * max(np.abs(points.loss[kept]).max(), 1e-300)
    )
    return np.split(degenerate, np.flatnonzero(np.diff(losses) > gap) + 1)


def _check_winding(
    problem: _Problem, units: Any, points: CriticalPoints
) -> WindingCheck | None:
    if units.shape[1] != 2:
        return None

    def gradient_fn(places: Any) -> Any:
        blocks = _padded(places, _BLOCK).reshape(-1, _BLOCK, 2)
        fields = [problem.run(_gradients, None, _floats(block)) for block in blocks]
        return np.concatenate(fields)[: len(places)]

    total: int | None = 0
    for position, kind in enumerate(np.asarray(points.kind)):
        turns: int | None = -1 if kind == CriticalPointKind.SADDLE else 1
        if kind == CriticalPointKind.DEGENERATE:
            turns = _local_winding(gradient_fn, units, position, points.num_merged)
        total = None if total is None or turns is None else total + turns
    box = winding.winding_number(gradient_fn, winding.square(_MARGIN))
    return WindingCheck(box=box, points=total, agrees=box is not None and box == total)


def _local_winding(
    gradient_fn: Callable[[Any], Any], units: Any, position: int, num_merged: Any
) -> int | None:
    if int(num_merged[position]) > 1:
        return None
    others = np.delete(units, position, axis=0)
    gaps = np.linalg.norm(others - units[position], axis=1)
    radius = min(0.01, gaps.min(initial=1.0) / 3)
    return winding.winding_number(gradient_fn, winding.circle(units[position], radius))


def _floats(values: Any) -> Array:
    return jnp.asarray(values, _tree.default_float())


def _padded(units: Any, block: int) -> Any:
    """Fill up with the box's centre to a whole number of blocks, at least one."""
    num_blocks = max(-(-len(units) // block), 1)
    padded = np.full((num_blocks * block, units.shape[1]), 0.5)
    padded[: len(units)] = units
    return padded
