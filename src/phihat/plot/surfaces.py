"""The loss on a grid of two params, or of a plane among many."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Box, LossFn, Params
from phihat.curvature.boxes import flat_box
from phihat.curvature.dense import labels

__all__ = ["Surface", "evaluate_grid", "evaluate_surface", "symbols"]


@dataclasses.dataclass(frozen=True)
class Surface:
    """The loss on a grid of a plane, at `origin + a * directions[0] + b * ...[1]`.

    Attributes:
      first: the coordinates a along the first direction [A], ascending.
      second: the coordinates b along the second [B], ascending.
      values: the loss [A, B].
      origin: the flat params at a = b = 0 [P].
      directions: of the plane [2, P].
      names: names of the two coordinates, for the labels.
      note: what to say about the plane, for the title.
    """

    first: Float[np.ndarray, " A"]
    second: Float[np.ndarray, " B"]
    values: Float[np.ndarray, "A B"]
    origin: Float[np.ndarray, " P"]
    directions: Float[np.ndarray, "2 P"]
    names: tuple[str, str]
    note: str = ""

    def coordinates(self, points: Float[np.ndarray, "T P"]) -> np.ndarray:
        """Return where points lie, seen at right angles to the plane [T, 2]."""
        points = np.asarray(points, float)
        if points.shape[-1] != len(self.origin):
            raise ValueError(
                f"loss_surface: the surface is one of {len(self.origin)} params, the "
                f"path of {points.shape[-1]}."
            )
        # Equal to a least-squares solution, for directions at any angle.
        return (points - self.origin) @ np.linalg.pinv(self.directions)

    def distances(self, points: Float[np.ndarray, "T P"]) -> np.ndarray:
        """Return how far points lie from the plane [T]."""
        inside = self.coordinates(points) @ self.directions + self.origin
        return np.linalg.norm(np.asarray(points, float) - inside, axis=-1)

    @property
    def num_nonfinite(self) -> int:
        """How many points of the grid have no finite loss."""
        return int(np.sum(~np.isfinite(self.values)))


@_calls.public
def evaluate_surface(
    loss_fn: LossFn,
    box: Box,
    data: Batch = None,
    *,
    shape: tuple[int, int] = (161, 161),
) -> Surface:
    """Evaluate a loss of two params on a grid.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: what to show, bounded, with two coordinates in all, in any pytree.
      data: handed to `loss_fn`.
      shape: points along the first and the second coordinate, each >= 2.

    Raises:
      TypeError: `box` is not a `Box`; the loss needs a key.
      ValueError: not two coordinates; the loss is not a scalar.

    Example:
      >>> import phihat
      >>> box = phihat.Box({"a": -1.0, "b": 0.0}, {"a": 1.0, "b": 2.0})
      >>> surface = evaluate_surface(lambda p: p["a"] + p["b"], box, shape=(3, 2))
      >>> print(surface.names, surface.values.tolist())
      ('a', 'b') [[-1.0, 1.0], [0.0, 2.0], [1.0, 3.0]]
    """
    call = "evaluate_surface"
    low, high, unflatten = flat_box(call, box)
    if low.size != 2:
        raise ValueError(
            f"{call}: `box` must have two coordinates in all, got {low.size}; for more "
            "params call `plot.principal_plane`, the plane that holds most of a "
            "trajectory, or `plot.random_plane`."
        )
    first, second = (
        np.linspace(low[k], high[k], _checks.check_count(call, "shape", shape[k], 2))
        for k in range(2)
    )
    example = unflatten(jnp.zeros_like(low))
    plane = np.zeros(2), np.eye(2)
    values = evaluate_grid(call, loss_fn, example, *plane, (first, second), data)
    names = symbols(example)
    return Surface(first, second, values, *plane, (names[0], names[1]))


def evaluate_grid(
    call: str,
    loss_fn: LossFn,
    example: Params,
    origin: Float[np.ndarray, " P"],
    directions: Float[np.ndarray, "2 P"],
    ticks: Sequence[np.ndarray],
    data: Batch,
) -> Float[np.ndarray, "A B"]:
    """Return the loss at every point of a grid in a plane of params like an example."""
    # As many points side by side as a few million numbers hold.
    batch_size = max(1, min(1024, 2**22 // max(len(origin), 1)))
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    points = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    plane, points = (
        jnp.asarray(part, _tree.default_float())
        for part in (np.vstack([origin, directions]), points)
    )
    options = call, batch_size
    values = _programs.call(_grid, code, options, example, plane, points, data)
    return np.asarray(values, dtype=float).reshape([len(one) for one in ticks])


def symbols(params: Params) -> tuple[str, ...]:
    """Name the entries of flat params, φ with an index where leaves have no name."""
    names = labels(params)
    if names == [f"[{k}]" for k in range(len(names))]:
        return tuple(rf"$\phi_{{{k}}}$" for k in range(len(names)))
    if names == [""]:
        return (r"$\phi$",)
    return tuple(name.replace("['", "", 1).replace("']", "", 1) for name in names)


# -------------------------------------------------------------------- private helpers


def _grid(
    loss_fn: LossFn,
    options: tuple[str, int],
    mode: Mode,
    example: Params,
    plane: Float[Array, "3 P"],
    points: Float[Array, "N 2"],
    data: Batch,
) -> Float[Array, " N"]:
    del mode
    call, batch_size = options
    scalar_fn = products.bind(loss_fn, example, data, call=call)
    flat, unflatten = products.flatten(example)
    origin, one, other = _tree.cast(plane, flat.dtype)

    def at(point: Float[Array, "2"]) -> Float[Array, ""]:
        a, b = _tree.cast(point, flat.dtype)
        return scalar_fn(unflatten(origin + a * one + b * other))

    return jax.lax.map(at, points, batch_size=batch_size)
