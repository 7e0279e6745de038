"""The loss over a plane of params, and the paths of fits on it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.plot import canvas
from phihat.plot.paths import trajectories
from phihat.plot.styles import Style, make_styles
from phihat.plot.surfaces import Surface

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_paths", "loss_surface"]


@_calls.public
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
      results: with "params" recorded, as for `trajectories`: one or many.
      levels: how many contours, closer where the loss is low; or their values.
      projection: "3d" draws it in perspective.
      styles: looks by name, from `make_styles`.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes. Where the loss is not finite they are blank, and the title says so.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `surface` is not a `Surface`, or `results` has the wrong type.
      ValueError: "params" was not recorded, or its size is not that of the surface.

    Example:
      >>> import numpy as np
      >>> import phihat
      >>> box = phihat.Box([-1.0, -1.0], [1.0, 1.0])
      >>> surface = phihat.plot.evaluate_surface(lambda p: p @ p, box)
      >>> axes = loss_surface(surface, np.array([[0.9, 0.9], [0.1, 0.1]]))
      >>> axes.get_xlabel(), axes.get_ylabel(), axes.get_title()
      ('$\\phi_{0}$', '$\\phi_{1}$', 'Loss L[φ] and the path of the fit')
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
    title = "Loss L[φ]" + _paths_title(paths)
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

    The markers are open and of one size, so that ends in one point are all seen.
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
            canvas.dots(
                axes,
                *lift(joined),
                color=look.color,
                edge=look.color,
                scale=0.28,
                order=4.0 + depth,
            )
        canvas.dots(
            axes,
            *lift(np.stack([path[-1] for path in some])),
            marker=look.marker,
            color=look.color,
            scale=0.9 if is_single else 0.5,
            label=name if is_single or not name else f"{name} ({len(some)} fits)",
            order=5.0 + depth,
            is_open=True,
        )
    moved = [path for some in paths.values() for path in some if len(path) > 1]
    _draw_starts(axes, [lift(path[:1]) for path in moved])
    canvas.legend_below(axes)


# -------------------------------------------------------------------- private helpers

_MAX_DOTS = 400


def _paths_title(paths: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Say what is drawn on the loss; params that do not move are points."""
    lengths = [len(path) for some in paths.values() for path in some]
    points, fits = lengths.count(1), len(lengths) - lengths.count(1)
    said = [
        "" if fits == 0 else "the path of the fit" if fits == 1 else _paths(fits),
        "" if points == 0 else "one point" if points == 1 else f"{points} points",
    ]
    return "".join(f" and {words}" for words in said if words)


def _paths(fits: int) -> str:
    return f"the paths of {fits} fits"


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
    canvas.text_size(axes)
    places = np.unique(
        np.concatenate([np.stack(one, axis=-1) for one in starts]), axis=0
    )
    canvas.dots(
        axes,
        *places.T,
        color="white",
        edge="black",
        scale=0.7 if len(places) < 10 else 0.35,
        label="start" if len(places) == 1 else f"{len(places)} starts",
        order=4.9,
    )
