"""The loss over a plane of params, and the paths of fits on it.

Example:
  >>> import phihat
  >>> from phihat.plot import evaluate_surface, loss_surface
  >>> problem = phihat.problems.booth()
  >>> result = phihat.fit(
  ...     problem.loss_fn,
  ...     problem.start,
  ...     phihat.adam(0.5),
  ...     num_steps=50,
  ...     record="params",
  ... )
  >>> surface = evaluate_surface(problem.loss_fn, problem.box)
  >>> axes = loss_surface(surface, {"Adam": result})
  >>> axes.get_legend_handles_labels()[1]
  ['Adam', 'start']
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat import _checks, _programs, _tree, products
from phihat._types import Batch, Box, LossFn, Params
from phihat.curvature.boxes import flat_box
from phihat.curvature.dense import labels
from phihat.plot import canvas
from phihat.plot.paths import trajectories
from phihat.plot.styles import Style, make_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Surface",
    "draw_paths",
    "evaluate_grid",
    "evaluate_surface",
    "loss_surface",
    "symbols",
]


@dataclasses.dataclass(frozen=True)
class Surface:
    """The loss on a grid of a plane, at `origin + a * directions[0] + b * ...[1]`.

    Attributes:
      first: the coordinates a along the first direction [A], ascending.
      second: the coordinates b along the second [B], ascending.
      values: the loss [A, B].
      origin: the flat params at a = b = 0 [P].
      directions: of the plane [2, P].
      names: what the two coordinates are called, for the labels.
      note: what is to be said of the plane, for the title.
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
      TypeError: `box` is no Box; a loss that still wants a key.
      ValueError: another number of coordinates than two; a loss that is no scalar.

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
    origin = unflatten(jnp.zeros_like(low))
    directions = [unflatten(row) for row in jnp.eye(2, dtype=low.dtype)]
    values = evaluate_grid(call, loss_fn, origin, directions, (first, second), data)
    names = symbols(origin)
    return Surface(first, second, values, np.zeros(2), np.eye(2), (names[0], names[1]))


def evaluate_grid(
    call: str,
    loss_fn: LossFn,
    origin: Params,
    directions: Sequence[Params],
    ticks: Sequence[np.ndarray],
    data: Batch,
) -> Float[np.ndarray, "A B"]:
    """Return the loss at every point of a grid in a plane of params."""
    size = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(origin))
    # As many points side by side as a few million numbers hold.
    batch_size = max(1, min(1024, 2**22 // max(size, 1)))
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    points = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    points = jnp.asarray(points, _tree.default_float())
    values = _programs.call(
        _grid, code, (call, batch_size), origin, tuple(directions), points, data
    )
    return np.asarray(values, dtype=float).reshape([len(one) for one in ticks])


def loss_surface(
    surface: Surface,
    results: Any = None,
    *,
    levels: int | Sequence[float] = 20,
    projection: str | None = None,
    styles: Mapping[str, Style] | None = None,
    axes: Any = None,
) -> "Axes":
    r"""Draw a loss over a plane, and the paths that fits took on it.

    Args:
      surface: from `evaluate_surface`, `principal_plane` or `random_plane`.
      results: with "params" on record, as for `trajectories`: one or many.
      levels: how many contours, closer where the loss is low; or their values.
      projection: "3d" draws it in perspective.
      styles: looks by name, from `make_styles`.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes. Where the loss is not finite they are blank, and the title says so.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `surface` is no Surface, or `results` are no results.
      ValueError: "params" is not on record, or of another size than the surface.

    Example:
      >>> import numpy as np
      >>> import phihat
      >>> surface = evaluate_surface(lambda p: p @ p, phihat.Box([-1.0] * 2, [1.0] * 2))
      >>> axes = loss_surface(surface, np.array([[0.9, 0.9], [0.1, 0.1]]))
      >>> axes.get_xlabel(), axes.get_ylabel(), axes.get_title()
      ('$\\phi_{0}$', '$\\phi_{1}$', 'Loss L[φ]')
    """
    call = "loss_surface"
    if not isinstance(surface, Surface):
        raise TypeError(
            f"{call}: `surface` must be a Surface: call "
            "`plot.evaluate_surface(loss_fn, box, data)` for two params, "
            f"`plot.principal_plane` for more; got {_checks.brief(surface)}."
        )
    if projection is not None:
        _checks.check_choice(call, "projection", projection, ("3d",))
    paths = {} if results is None else trajectories(results)
    inside = {
        name: [surface.coordinates(path) for path in some]
        for name, some in paths.items()
    }
    axes = canvas.one_axes(call, axes, projection=projection, size=(7.5, 6.0))
    values = np.ma.masked_invalid(surface.values)
    heights = _levels(values, levels)
    title = "Loss L[φ]"
    if surface.num_nonfinite:
        title += f" ({surface.num_nonfinite} of {values.size} points not finite)"
    title += f"\n{surface.note}" if surface.note else ""
    if projection == "3d":
        _draw_relief(axes, surface, values)
        canvas.finish(axes, title, *surface.names)
        size = canvas.text_size(axes)
        axes.set_zlabel("loss L[φ]", fontsize=1.1 * size, labelpad=0.5 * size)  # type: ignore[attr-defined]
        for label in (axes.xaxis, axes.yaxis):
            label.labelpad = 0.5 * size
    else:
        _draw_map(axes, surface, values, heights)
        canvas.finish(axes, title, *surface.names)
    draw_paths(axes, surface, inside, styles=styles)
    axes.set(xlim=surface.first[[0, -1]], ylim=surface.second[[0, -1]])
    return axes


def draw_paths(
    axes: "Axes",
    surface: Surface,
    paths: Mapping[str, Sequence[np.ndarray]],
    *,
    styles: Mapping[str, Style] | None = None,
) -> None:
    """Draw paths in the coordinates of a surface: dots for steps, a marker at the end.

    Args:
      axes: where to draw, flat or in perspective.
      surface: for the heights in perspective.
      paths: by name, arrays [T, 2].
      styles: looks by name, from `make_styles`.
    """
    from matplotlib.patheffects import withStroke

    size = canvas.text_size(axes)
    looks = make_styles(paths) | dict(styles or {})
    halo = [withStroke(linewidth=0.28 * size, foreground="white")]
    is_flat = not hasattr(axes, "get_zlim")

    def lift(path: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(path.T) if is_flat else (*path.T, _heights(surface, path))

    # The short above the long, which would hide them.
    longest = sorted(paths, key=lambda name: -max(map(len, paths[name])))
    for name, some in paths.items():
        look, depth = looks[name], longest.index(name) / 100
        below = len(paths) - 1 - longest.index(name)
        is_single = len(some) == 1
        share = 1.0 if is_single else 0.6
        # Many paths in one artist, with a gap after each.
        gap = np.full((1, 2), np.nan)
        joined = np.concatenate([part for path in some for part in (path, gap)][:-1])
        axes.plot(
            *lift(joined),
            color=look.color,
            linewidth=0.14 * size * share,
            zorder=4.0 + depth,
            path_effects=halo if is_flat and is_single else None,
        )
        if is_single and len(joined) <= _MAX_DOTS:
            axes.plot(
                *lift(joined),
                linestyle="none",
                marker="o",
                color=look.color,
                markersize=0.28 * size,
                zorder=4.0 + depth,
            )
        axes.plot(
            *lift(np.stack([path[-1] for path in some])),
            linestyle="none",
            marker=look.marker,
            color=look.color,
            # The larger below the smaller: paths may end in one point.
            markersize=0.75 * size * share * min(1.0 + 0.25 * below, 2.0),
            markeredgecolor="black",
            label=name if is_single or not name else f"{name} ({len(some)} fits)",
            zorder=5.0 + depth,
        )
    moved = [path for some in paths.values() for path in some if len(path) > 1]
    _draw_starts(axes, [lift(path[:1]) for path in moved])
    canvas.legend_below(axes)


# -------------------------------------------------------------------- private helpers

_MAX_DOTS = 400


def symbols(params: Params) -> tuple[str, ...]:
    """Name the entries of flat params, φ with an index where leaves have no name."""
    names = labels(params)
    if names == [f"[{k}]" for k in range(len(names))]:
        return tuple(rf"$\phi_{{{k}}}$" for k in range(len(names)))
    if names == [""]:
        return (r"$\phi$",)
    return tuple(name.replace("['", "", 1).replace("']", "", 1) for name in names)


def _grid(
    loss_fn: LossFn,
    options: tuple[str, int],
    is_eager: bool,
    origin: Params,
    directions: tuple[Params, Params],
    points: Float[Array, "N 2"],
    data: Batch,
) -> Float[Array, " N"]:
    del is_eager
    call, batch_size = options
    scalar_fn = products.bind(loss_fn, origin, data, call=call)

    def at(point: Float[Array, "2"]) -> Float[Array, ""]:
        def move(start: Array, one: Array, other: Array) -> Array:
            a, b = (_tree.cast(point[k], start.dtype) for k in range(2))
            return start + a * one + b * other

        return scalar_fn(jax.tree.map(move, origin, *directions))

    return jax.lax.map(at, points, batch_size=batch_size)


def _levels(values: Any, levels: Any) -> np.ndarray:
    if np.ndim(levels):
        return np.asarray(levels, float)
    count = _checks.check_count("loss_surface", "levels", levels)
    if values.count() == 0:
        return np.array([0.0])
    low, high = float(values.min()), float(values.max())
    # Even steps of the root show the floor of the valleys, where fits end.
    return low + (high - low) * np.linspace(0.0, 1.0, count + 2)[1:-1] ** 2


def _draw_map(axes: "Axes", surface: Surface, values: Any, heights: np.ndarray) -> None:
    from matplotlib.colors import PowerNorm

    (left, right), (low, high) = surface.first[[0, -1]], surface.second[[0, -1]]
    # Values belong to points: half a cell sticks out on each side, and is cut off.
    dx, dy = (0.5 * (ticks[1] - ticks[0]) for ticks in (surface.first, surface.second))
    image = axes.imshow(
        values.T,
        origin="lower",
        extent=(left - dx, right + dx, low - dy, high + dy),
        aspect="auto",
        interpolation="bilinear",
        cmap="cividis",
        norm=PowerNorm(0.5),
    )
    if values.count() and values.min() < values.max():
        axes.contour(
            surface.first,
            surface.second,
            values.T,
            levels=np.unique(heights),
            colors="white",
            linestyles="solid",
            linewidths=0.5,
            alpha=0.8,
        )
    canvas.add_colorbar(axes, image, "loss L[φ]")


def _draw_relief(axes: Any, surface: Surface, values: Any) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator

    x, y = np.meshgrid(surface.first, surface.second, indexing="ij")
    axes.plot_surface(
        x,
        y,
        values.filled(np.nan),
        cmap="cividis",
        norm=PowerNorm(0.5),
        rcount=80,
        ccount=80,
        linewidth=0,
        antialiased=False,
        alpha=0.8,
    )
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.computed_zorder = False


def _heights(surface: Surface, path: np.ndarray) -> np.ndarray:
    """Return the loss on a path, between the points of the grid; NaN outside."""
    from scipy.interpolate import RegularGridInterpolator  # slow to import

    ticks = (surface.first, surface.second)
    return RegularGridInterpolator(ticks, surface.values, bounds_error=False)(path)


def _draw_starts(axes: "Axes", starts: Sequence[tuple[np.ndarray, ...]]) -> None:
    if not starts:
        return
    size = canvas.text_size(axes)
    places = np.unique(
        np.concatenate([np.stack(one, axis=-1) for one in starts]), axis=0
    )
    axes.plot(
        *places.T,
        linestyle="none",
        marker="o",
        color="white",
        markeredgecolor="black",
        markersize=0.7 * size if len(places) < 10 else 0.35 * size,
        label="start" if len(places) == 1 else f"{len(places)} starts",
        zorder=4.9,
    )
