"""One fit from many starts: which optima there are, and how often each is reached."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Params, RandomKey, Status
from phihat._engine import spec as _arguments
from phihat._result_text import count_statuses
from phihat.critical_points import CriticalPointKind, classify_critical_point
from phihat.curvature.boxes import flat_box, sobol
from phihat.sweeps import clusters
from phihat.sweeps.compaction import Descents, descend
from phihat.sweeps.grid import as_mesh, refuse_tracing
from phihat.sweeps.polishing import polish

__all__ = ["Optima", "collect", "draw_starts", "draw_units", "multistart"]

_MAX_DENSE = 128
"""More params than this get no kind: it takes a dense Hessian."""


@dataclasses.dataclass(frozen=True, repr=False)
class Optima:
    """The optima that many starts reached, the best first.

    Attributes:
      params: stacked, leaves [K, ...]: the best end of each group of equal ends, after
        the steps of Newton's method that curvature allows.
      loss: [K], ascending.
      share: of all starts, those that reached it [K].
      kind: a `CriticalPointKind` each [K]; None where no curvature was available.
      label: which of the K each start reached [N], -1 for those that did not converge.
      starts: leaves [N, ...].
      ends: how every start ended: params, loss, status, num_steps, and the share of
        lane-steps that were useful.

    Example:
      >>> import phihat
      >>> loss_fn = lambda x: (x**2 - 1.0) ** 2 + 0.1 * x
      >>> box = phihat.Box(-2.0, 2.0)
      >>> print(phihat.multistart(loss_fn, box, phihat.adam(0.05), num_starts=32))
      Optima: 2 from 32 starts (32 CONVERGED)
        loss     -0.100617  share 50.0%  MINIMUM  at -1.0123
        loss      0.099367  share 50.0%  MINIMUM  at 0.98726
    """

    params: PyTree
    loss: np.ndarray
    share: np.ndarray
    kind: np.ndarray | None
    label: np.ndarray
    starts: PyTree
    ends: Descents

    def __repr__(self) -> str:
        """Show a line for each of the first twenty optima."""
        counted = count_statuses(self.ends.status)
        lines = [f"Optima: {len(self.loss)} from {len(self.label)} starts ({counted})"]
        for number in range(min(len(self.loss), _SHOWN_OPTIMA)):
            loss, share, kind, place = self._row(number)
            text = f"  loss {loss:>13}  share {share:>5}  {kind}"
            lines.append(text.rstrip() + (f"  at {place}" if place else ""))
        more = len(self.loss) - _SHOWN_OPTIMA
        return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)

    def _repr_html_(self) -> str:
        """Show a row for each of the first twenty optima in a notebook."""
        shown = range(min(len(self.loss), _SHOWN_OPTIMA))
        rows = [(number, *self._row(number)) for number in shown]
        title = repr(self).split("\n")[0]
        return _tables.table(title, rows, ("", "loss", "share", "kind", "params"))

    def _row(self, number: int) -> tuple[str, str, str, str]:
        """Return the loss, the share, the kind and the params of one, as text."""
        kind = ""
        if self.kind is not None:
            kind = CriticalPointKind(int(self.kind[number])).name
        loss, share = f"{self.loss[number]:.6g}", f"{self.share[number]:.1%}"
        return loss, share, kind, self._place(number)

    def _place(self, number: int) -> str:
        """Show the params of one optimum where they are few."""
        leaves = [np.asarray(leaf[number]) for leaf in jax.tree.leaves(self.params)]
        entries = np.concatenate([leaf.ravel() for leaf in leaves]) if leaves else []
        if not 0 < len(entries) <= _SHOWN_ENTRIES:
            return ""
        return ", ".join(f"{entry:.5g}" for entry in entries)


_SHOWN_OPTIMA = 20
_SHOWN_ENTRIES = 4
"""Params of an optimum that its line has room for."""


@_calls.public
def multistart(
    loss_fn: LossFn,
    box: Box,
    optimizer: Any,
    data: Batch = None,
    *,
    num_starts: int | None = None,
    starts: Params | None = None,
    method: str = "sobol",
    num_steps: int = 1000,
    tolerance: float | Any = 1e-3,
    merge_distance: float = 1e-3,
    projection: Any = None,
    key: RandomKey | None = None,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> Optima:
    """Fit from many starts at once, and tell which optima they reach.

    All starts run side by side; those that have converged are dropped, so that the
    others do not wait for them. Where the Hessian at an end is positive definite, a few
    steps of Newton's method find the minimum nearby. Ends that are then closer than
    `merge_distance` count as one optimum.

    Args:
      loss_fn: as in `fit`, deterministic.
      box: where starts are drawn, bounded, each leaf in its full shape; its widths are
        the unit of distances.
      optimizer: as in `fit`.
      data: as in `fit`, used whole at every step.
      num_starts: N >= 1, a power of two is best; either this or `starts`.
      starts: stacked params, leaves [N, ...].
      method: "sobol" or "latin_hypercube".
      num_steps: the budget of each fit.
      tolerance: when a fit has converged, as in `fit`; None lets all use their budget.
      merge_distance: relative to the box's widths, > 0.
      projection: as in `fit`; the same box keeps the fits inside.
      key: shifts the starts; `jax.random.key(0)` where None.
      max_bytes: as in `sweep`.
      mesh: as in `sweep`.

    Returns:
      `Optima`, sorted by loss; the same call gives the same bits.

    Raises:
      TypeError: an argument has the wrong type; a call under jit, vmap or grad.
      ValueError: an argument has a wrong value.

    Example:
      >>> import phihat
      >>> box = phihat.Box({"x": -2.0}, {"x": 2.0})
      >>> found = phihat.multistart(
      ...     lambda p: (p["x"] ** 2 - 1.0) ** 2, box, phihat.adam(0.1), num_starts=8
      ... )
      >>> print(found.params["x"].round(2), found.share)
      [-1.  1.] [0.5 0.5]
    """
    call = "multistart"
    refuse_tracing(call)
    _checks.check_choice(call, "method", method, _METHODS)
    _checks.check_key(call, key)
    if (num_starts is None) == (starts is None):
        given = "neither" if starts is None else "both"
        raise ValueError(f"{call}: give either `num_starts` or `starts`, got {given}.")
    if num_starts is not None:
        num_starts = _checks.check_count(call, "num_starts", num_starts)
        starts = draw_starts(call, box, num_starts, method, key)
    return collect(
        call,
        loss_fn,
        box,
        optimizer,
        data,
        starts=starts,
        num_steps=num_steps,
        tolerance=tolerance,
        merge_distance=merge_distance,
        projection=projection,
        max_bytes=max_bytes,
        mesh=mesh,
    )


def collect(
    call: str,
    loss_fn: LossFn,
    box: Box,
    optimizer: Any,
    data: Batch,
    *,
    starts: Any,
    num_steps: int,
    tolerance: Any,
    merge_distance: Any,
    projection: Any,
    max_bytes: int | None,
    mesh: Mesh | None,
) -> Optima:
    """Descend from stacked starts, and group the ends."""
    low, high, unflatten = flat_box(call, box)
    _check_starts(call, starts, unflatten(low))
    _checks.check_range(call, "merge_distance", merge_distance, 0.0, include_low=False)
    num_steps = _checks.check_count(call, "num_steps", num_steps)
    max_bytes = _checks.check_max_bytes(call, max_bytes)
    ends = descend(
        call,
        _tree.as_partial(loss_fn, call, "loss_fn"),
        starts,
        _arguments.as_optimizer(call, optimizer),
        data,
        num_steps=num_steps,
        tolerance=_arguments.as_tolerance(call, tolerance),
        projection=projection,
        max_bytes=max_bytes,
        mesh=as_mesh(call, mesh),
    )
    # An optimizer that measures itself converges without a tolerance too.
    wanted = [Status.CONVERGED] + [Status.COMPLETED] * (tolerance is None)
    kept = np.flatnonzero(np.isin(ends.status, wanted) & np.isfinite(ends.loss))
    width = np.asarray(high - low, float)
    places = jax.tree.map(lambda leaf: leaf[kept], ends.params)
    losses = ends.loss[kept]
    if projection is None and kept.size and width.size <= _MAX_DENSE:
        places, losses = polish(call, loss_fn, places, losses, data, width)
    groups, founders = clusters.label(
        _flatten_rows(places) / width, losses, float(merge_distance)
    )
    label = np.full(len(ends.loss), -1)
    label[kept] = groups
    params = jax.tree.map(lambda leaf: leaf[founders], places)
    return Optima(
        params=params,
        loss=losses[founders],
        share=np.bincount(groups, minlength=len(founders)) / len(label),
        kind=_kinds(loss_fn, params, data, len(founders), width.size),
        label=label,
        starts=jax.tree.map(np.asarray, starts),
        ends=ends,
    )


def draw_starts(
    call: str, box: Box, num_starts: int, method: str, key: RandomKey | None
) -> Params:
    """Return stacked starts that fill a box evenly."""
    low, high, unflatten = flat_box(call, box)
    key = jax.random.key(0) if key is None else key
    units = draw_units(method, low.size, num_starts, key)
    places = np.asarray(low) + np.asarray(high - low) * units
    starts = jax.vmap(unflatten)(jnp.asarray(places, low.dtype))
    return jax.tree.map(np.asarray, starts)


def draw_units(method: str, size: int, number: int, key: RandomKey) -> np.ndarray:
    """Return points [number, size] that fill the unit cube evenly."""
    return _METHODS[method](size, number, key)


# -------------------------------------------------------------------- private helpers


def _sobol(size: int, num_starts: int, key: RandomKey) -> np.ndarray:
    return sobol(size, key)(num_starts)


def _latin_hypercube(size: int, num_starts: int, key: RandomKey) -> np.ndarray:
    from scipy.stats import qmc

    seed = np.asarray(jax.random.key_data(key), np.uint32).ravel()
    generator = np.random.default_rng(seed)
    return qmc.LatinHypercube(size, rng=generator).random(num_starts)


_METHODS = {"sobol": _sobol, "latin_hypercube": _latin_hypercube}


def _flatten_rows(params: PyTree) -> np.ndarray:
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(params)]
    rows = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in leaves]
    return np.concatenate(rows, axis=1)


def _check_starts(call: str, starts: Any, example: Params) -> None:
    _checks.check_float_leaves(call, "starts", starts)
    one, other = jax.tree.structure(starts), jax.tree.structure(example)
    if one != other:
        raise ValueError(
            f"{call}: `starts` must have the structure of the box, "
            f"{_checks.in_words(other)}, got {_checks.in_words(one)}."
        )
    _checks.check_rows(call, "starts", starts)
    leaves = zip(
        _tree.leaf_paths(starts),
        jax.tree.leaves(starts),
        jax.tree.leaves(example),
        strict=True,
    )
    for path, leaf, bound in leaves:
        if np.shape(leaf)[1:] != np.shape(bound):
            raise ValueError(
                f"{call}: `starts{path}` must have shape [N, "
                f"{', '.join(map(str, np.shape(bound)))}], got {list(np.shape(leaf))}."
            )


def _kinds(
    loss_fn: LossFn, params: PyTree, data: Batch, number: int, size: int
) -> np.ndarray | None:
    if size > _MAX_DENSE:
        return None
    kinds = []
    for place in range(number):
        point = jax.tree.map(lambda leaf: jnp.asarray(leaf[place]), params)  # noqa: B023
        try:
            found = classify_critical_point(loss_fn, point, data)
        except TypeError:  # a loss that has no second derivative
            return None
        kinds.append(int(found.kind))
    return np.asarray(kinds, np.int32)
