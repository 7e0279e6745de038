"""What results hold, by name, as plain arrays: the trajectories of their params."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.results import FitResult
from phihat.sweeps.result import SweepResult

__all__ = [
    "by_name",
    "flat_params",
    "flat_rows",
    "history_of",
    "spent_rows",
    "trajectories",
]

Trajectories = dict[str, list[Float[np.ndarray, "T P"]]]
"""By name one array for each lane, a row before each step and one at the end."""


@_calls.public
def trajectories(results: Any) -> Trajectories:
    """Return the paths that fits took, as arrays.

    Args:
      results: a `FitResult` with "params" recorded, of one fit or of many lanes; a
        `SweepResult` of such; an array [T, P], or [N, T, P] for N paths; or several of
        these in a list, or by name in a dict.

    Returns:
      By name ("" for a single one) a list of arrays [T, P], one for each lane: the
      evaluation params before each recorded step, and at the end. Rows after a stop
      are left out.

    Raises:
      TypeError: something else was given.
      ValueError: "params" was not recorded.

    Example:
      >>> import phihat
      >>> optimizer = phihat.gradient_descent(0.25)
      >>> result = phihat.fit(
      ...     lambda x: x**2, 1.0, optimizer, num_steps=2, record="params"
      ... )
      >>> print(trajectories({"gd": result})["gd"][0].ravel())
      [1.   0.5  0.25]
    """
    call = "trajectories"
    return {
        name: _paths(call, name, one) for name, one in by_name(call, results).items()
    }


def _check_losses(call: str, losses: Any) -> None:
    """Check that an array may be the losses of fits."""
    kind = getattr(losses.dtype, "kind", "?")
    if not np.size(losses) or kind not in "biufV" or getattr(losses.dtype, "names", ()):
        raise TypeError(
            f"{call}: `results` must be FitResults or an array of their losses, got "
            f"{_checks.brief(losses)}."
        )


def by_name(call: str, results: Any) -> dict[str, Any]:
    """Return one or many results by name; "" names a single one."""
    if isinstance(results, SweepResult):
        results = results.values
    if hasattr(results, "ndim") and not isinstance(results, FitResult):
        _check_losses(call, results)
        return {"": results}
    if isinstance(results, FitResult):
        return {"": results}
    if isinstance(results, (list, tuple)):
        results = {f"fit {k}": one for k, one in enumerate(results, 1)}
    if not isinstance(results, Mapping) or not results:
        raise TypeError(
            f"{call}: `results` must be a FitResult, a list of them, or a dict from "
            f"names to them, got {_checks.brief(results)}."
        )
    unwrapped = {
        str(name): one.values if isinstance(one, SweepResult) else one
        for name, one in results.items()
    }
    for name, one in unwrapped.items():
        if not isinstance(one, FitResult) and not hasattr(one, "ndim"):
            raise TypeError(
                f"{call}: `results[{name!r}]` must be a FitResult or an array, got "
                f"{_checks.brief(one)}."
            )
    return unwrapped


def history_of(call: str, name: str, result: FitResult, entry: str) -> PyTree:
    """Return an entry of a history."""
    if entry in result.history:
        return result.history[entry]
    known = sorted(result.history)
    asked = tuple(dict.fromkeys([*(n for n in known if n != "step"), entry]))
    of = f" of results[{name!r}]" if name else ""
    raise ValueError(
        f"{call}: {entry!r} was not recorded{of}, which has {known}; record it: "
        f"`fit(..., record={asked!r})`."
    )


def spent_rows(result: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Return the recorded steps [N, R], and whether each was made [N, R]."""
    steps = np.asarray(result.history["step"])
    steps = steps.reshape(-1, steps.shape[-1])
    num_steps = np.asarray(result.num_steps).reshape(-1, 1)
    return steps, steps - steps[:, :1] < num_steps


def flat_params(params: PyTree) -> Float[np.ndarray, " P"]:
    """Lay out params in one vector, in the order of their leaves."""
    leaves = [np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(params)]
    return np.concatenate([np.zeros(0), *leaves])


def flat_rows(tree: PyTree, num_axes: int) -> Float[np.ndarray, "N T P"]:
    """Lay out the leaves [*lanes, T, ...] of stacked params as rows of numbers."""
    rows = []
    for leaf in jax.tree.leaves(tree):
        leaf = np.asarray(leaf)
        lanes, length = leaf.shape[:num_axes], leaf.shape[num_axes]
        number, inner = int(np.prod(lanes)), int(np.prod(leaf.shape[num_axes + 1 :]))
        rows.append(leaf.reshape(number, length, inner).astype(float))
    return np.concatenate(rows, axis=-1)


def _paths(call: str, name: str, result: Any) -> list[np.ndarray]:
    if not isinstance(result, FitResult):
        array = np.asarray(result, dtype=float)
        if array.ndim not in (2, 3):
            raise ValueError(
                f"{call}: a path must be an array [T, P], or [N, T, P] for many, got "
                f"shape {list(array.shape)}."
            )
        return list(array.reshape(-1, *array.shape[-2:]))
    params = history_of(call, name, result, "params")
    rows = flat_rows(params, np.ndim(result.status))
    _, made = spent_rows(result)
    # A row before each step that was made, and the end.
    return [path[: int(used.sum()) + 1] for path, used in zip(rows, made, strict=True)]
