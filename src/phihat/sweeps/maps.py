"""Maps: which optimum each start of a grid reaches; where two rates train at all."""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import pictures as _pictures
from phihat._core import tree as _tree
from phihat._core.types import Batch, Box, LossFn, Status
from phihat.curvature.boxes import flat_box
from phihat.results import FitResult
from phihat.sweeps.grid import refuse_tracing, sweep
from phihat.sweeps.many_starts import Optima, collect
from phihat.sweeps.result import SweepResult

__all__ = ["Basins", "Outcome", "Trainability", "basins", "trainability"]


@dataclasses.dataclass(frozen=True, repr=False)
class Basins:
    """Data for a picture of the basins of attraction.

    Attributes:
      ticks: the coordinates along each side of the grid.
      label: which optimum each start reached, `shape`; -1 where it did not converge.
      num_steps: how many steps it took, `shape`.
      status: how it ended, `shape`.
      loss: the loss where it ended, `shape`.
      optima: the optima by number, with their shares of the grid.

    Example:
      >>> import phihat
      >>> loss_fn = lambda x: (x**2 - 1.0) ** 2
      >>> box = phihat.Box(-2.0, 2.0)
      >>> map = phihat.basins(loss_fn, box, phihat.adam(0.1), shape=(6,))
      >>> print(map.optima.params[map.label].round(2))
      [-1. -1. -1.  1.  1.  1.]
    """

    ticks: tuple[np.ndarray, ...]
    label: np.ndarray
    num_steps: np.ndarray
    status: np.ndarray
    loss: np.ndarray
    optima: Optima

    def plot(self, *, axes: Any = None) -> Any:
        """Draw which optimum each start reaches, by `phihat.plot.basins`."""
        return _pictures.draw("basins", self, axes=axes)

    def __repr__(self) -> str:
        """Show the shape and the optima."""
        shape = " * ".join(map(str, self.label.shape))
        return f"Basins: {shape} starts\n{self.optima!r}"


@_calls.public
def basins(
    loss_fn: LossFn,
    box: Box,
    optimizer: Any,
    data: Batch = None,
    *,
    shape: Sequence[int],
    num_steps: int = 1000,
    tolerance: float | Any = 1e-3,
    merge_distance: float = 1e-3,
    projection: Any = None,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> Basins:
    """Fit from every point of a grid, and tell which optimum each one reaches.

    Args:
      loss_fn: as in `multistart`, like all that is not named here.
      box: the grid's extent, its ends included, with as many coordinates as `shape`.
      optimizer: as in `fit`.
      data: as in `fit`.
      shape: how many starts along each coordinate, each >= 2.
      num_steps: the budget of each fit.
      tolerance: when a fit has converged.
      merge_distance: relative to the box's widths.
      projection: as in `fit`.
      max_bytes: as in `sweep`.
      mesh: as in `sweep`.

    Returns:
      `Basins`.

    Raises:
      TypeError: an argument has the wrong type; a call under jit, vmap or grad.
      ValueError: `shape` does not fit the box, or another argument has a wrong value.

    Example:
      >>> import phihat
      >>> box = phihat.Box({"x": -2.0, "y": -1.0}, {"x": 2.0, "y": 1.0})
      >>> loss_fn = lambda p: (p["x"] ** 2 - 1.0) ** 2 + p["y"] ** 2
      >>> map = phihat.basins(loss_fn, box, phihat.adam(0.1), shape=(4, 3))
      >>> print(map.label[:, 0] == map.label[:, 2], map.optima.share)
      [ True  True  True  True] [0.5 0.5]
    """
    call = "basins"
    refuse_tracing(call)
    low, high, unflatten = flat_box(call, box)
    sizes = [_checks.check_count(call, "shape", size, 2) for size in shape]
    if len(sizes) != low.size:
        raise ValueError(
            f"{call}: `shape` must name one size per coordinate of the box, "
            f"{low.size}, got {len(sizes)}."
        )
    ends = zip(np.asarray(low), np.asarray(high), sizes, strict=True)
    ticks = tuple(np.linspace(one, other, size) for one, other, size in ends)
    grid = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
    starts = jax.vmap(unflatten)(jnp.asarray(grid.reshape(-1, low.size), low.dtype))
    optima = collect(
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
    return Basins(
        ticks=ticks,
        label=optima.label.reshape(sizes),
        num_steps=optima.ends.num_steps.reshape(sizes),
        status=optima.ends.status.reshape(sizes),
        loss=optima.ends.loss.reshape(sizes),
        optima=optima,
    )


class Outcome(enum.IntEnum):
    """How a fit in a map of trainability ended.

    Example:
      >>> Outcome(1).name
      'SLOW'
    """

    CONVERGED = 0
    """It reached the target, or its tolerance."""
    SLOW = 1
    """It fell short of the target, but got no worse."""
    DIVERGED = 2
    """It ended above its first loss, or met what is not finite."""


@dataclasses.dataclass(frozen=True, repr=False)
class Trainability:
    """A map of outcomes over hyperparameters.

    Attributes:
      outcome: an `Outcome` each, of the shape of the axes.
      final: the loss at the end, of the shape of the axes.
      fastness: a number for shading: the mean of the losses over the steps, relative
        to the first; infinite where the fit diverged.
      sweep: the sweep itself, with `axes` and `values`.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import fit, gradient_descent, sweeps
      >>> def function(rate):
      ...     return fit(lambda x: x**2, 1.0, gradient_descent(rate), num_steps=9)
      >>> rates = jnp.asarray([0.001, 0.4, 1.5])
      >>> sweeps.trainability(function, {"rate": rates}, target=0.01)
      Trainability: 3 rate: 1 CONVERGED, 1 SLOW, 1 DIVERGED
    """

    outcome: np.ndarray
    final: np.ndarray
    fastness: np.ndarray
    sweep: SweepResult

    def plot(self, *, axes: Any = None) -> Any:
        """Draw where fits converge, by `phihat.plot.trainability`."""
        return _pictures.draw("trainability", self, axes=axes)

    def __repr__(self) -> str:
        """Show how many fits ended in which way."""
        axes = " * ".join(f"{size} {name}" for name, size in self.sweep.sizes.items())
        counts = [
            f"{int((self.outcome == outcome).sum())} {outcome.name}"
            for outcome in Outcome
        ]
        return f"Trainability: {axes}: {', '.join(counts)}"


@_calls.public
def trainability(
    function: Callable[..., FitResult],
    axes: Mapping[str | tuple[str, ...], Any],
    *,
    target: float,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Trainability:
    """Map where fits converge, where they are slow, and where they diverge.

    Args:
      function: returns a `FitResult` with "loss" on record, as by default.
      axes: as in `sweep`, usually two hyperparameters.
      target: the loss at which a fit counts as converged.
      max_bytes: as in `sweep`.
      mesh: as in `sweep`.
      progress: as in `sweep`.

    Returns:
      `Trainability`.

    Raises:
      TypeError: the function returns no fit with a history of losses.
      ValueError: an axis is wrong, as in `sweep`.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import fit, momentum, sweeps
      >>> def function(rate, decay):
      ...     return fit(lambda x: x**2, 1.0, momentum(rate, decay), num_steps=50)
      >>> axes = {"rate": jnp.geomspace(1e-4, 9.0, 4), "decay": jnp.array([0.0, 0.9])}
      >>> sweeps.trainability(function, axes, target=1e-3).outcome
      array([[1, 1],
             [1, 1],
             [0, 1],
             [2, 1]])
    """
    target = _tree.as_scalar(target, "trainability", "target")
    _checks.check_range("trainability", "target", target, -np.finfo(float).max)
    function = _tree.as_partial(function, "trainability", "function")
    measure = Partial(_measure, function)
    found = sweep(measure, axes, max_bytes=max_bytes, mesh=mesh, progress=progress)
    values = found.values
    status, final, first = values["status"], values["loss"], values["first"]
    failed = (status >= Status.NONFINITE_LOSS) | ~(final <= first)
    reached = (final <= target) | (status == Status.CONVERGED)
    outcome = np.where(reached, Outcome.CONVERGED, Outcome.SLOW)
    outcome = np.where(failed, Outcome.DIVERGED, outcome)
    fastness = np.where(failed, math.inf, values["mean"] / first)
    return Trainability(outcome, final, fastness, found)


def _measure(function: Callable[..., Any], /, **row: Any) -> dict[str, Any]:
    result = function(**row)
    if not isinstance(result, FitResult) or "loss" not in result.history:
        raise TypeError(
            "trainability: `function` must return a FitResult with 'loss' on record, "
            f"got {_checks.brief(result)}."
        )
    history = result.history["loss"]
    return {
        "first": history[0],
        "mean": jnp.mean(history),
        "loss": result.loss,
        "status": result.status,
    }
