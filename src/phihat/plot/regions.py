"""Maps over two params: convexity, critical points, basins of attraction."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.critical_points import CriticalPointKind, CriticalPoints
from phihat.curvature import ConvexityMap
from phihat.plot import canvas
from phihat.plot.paths import flat_rows
from phihat.plot.styles import GREY, OKABE_ITO
from phihat.plot.surfaces import symbols
from phihat.sweeps.maps import Basins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["basins", "convexity_map", "critical_points"]


@_calls.public
def convexity_map(
    found: ConvexityMap, *, names: tuple[str, str] | None = None, axes: Any = None
) -> tuple["Axes", "Axes"]:
    """Draw the determinant test of convexity beside the right test.

    Args:
      found: from `phihat.curvature.convexity_map`.
      names: of the two params, for the labels.
      axes: two axes; a new figure by default, which is `axes[0].figure`.

    Returns:
      The axes of the determinant, and those of the eigenvalues.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `ConvexityMap`.

    Example:
      >>> from phihat import Box, curvature
      >>> saddle = lambda p: p[0] ** 2 - p[1] ** 2
      >>> box = Box([-1.0, -1.0], [1.0, 1.0])
      >>> found = curvature.convexity_map(saddle, box, shape=(3, 3))
      >>> left, right = convexity_map(found)
      >>> print(left.images[0].get_array().tolist())
      [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    call = "convexity_map"
    canvas.check_kind(
        call, "found", found, ConvexityMap, "phihat.curvature.convexity_map"
    )
    both = canvas.several_axes(call, axes, 2, (12.0, 5.8))
    determinant = np.asarray(found.passes_determinant)
    convex = np.asarray(found.passes_eigenvalues)
    misleading = np.asarray(found.is_misleading)
    passes, fails, hidden = OKABE_ITO[1], GREY, OKABE_ITO[0]
    classes = (
        {"det H > 0": (determinant, passes), "det H ≤ 0": (~determinant, fails)},
        {
            "no eigenvalue < 0": (convex, passes),
            "one < 0": (~convex & ~misleading, fails),
            "both < 0, det H > 0": (misleading, hidden),
        },
    )
    titles = (
        "The determinant test: det H > 0",
        "The right test: no eigenvalue of H below 0",
    )
    for one, kinds, title in zip(both, classes, titles, strict=True):
        _draw_classes(one, found.first, found.second, kinds)
        canvas.finish(one, title, *(names or _PHI))
        canvas.legend_below(one)
    return both[0], both[1]


@_calls.public
def critical_points(
    points: CriticalPoints, *, names: tuple[str, str] | None = None, axes: Any = None
) -> "Axes":
    """Mark critical points by their kind, best on a `loss_surface`.

    Args:
      points: from `phihat.find_critical_points`, of two params.
      names: of the two params, for the labels of axes that have no title yet.
      axes: those of a `loss_surface`; a new figure by default, which is `axes.figure`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `points` is not a `CriticalPoints`.
      ValueError: there are not two params.

    Example:
      >>> import phihat
      >>> loss_fn = lambda p: (p[0] ** 2 - 1.0) ** 2 + p[1] ** 2
      >>> box = phihat.Box([-2.0, -1.0], [2.0, 1.0])
      >>> axes = critical_points(phihat.find_critical_points(loss_fn, box))
      >>> axes.get_legend_handles_labels()[1]
      ['2 minima', '1 saddle']
    """
    call = "critical_points"
    canvas.check_kind(
        call, "points", points, CriticalPoints, "phihat.find_critical_points"
    )
    places = flat_rows(points.params, 0)[0]
    if places.shape[-1] != 2:
        raise ValueError(
            f"{call}: `points` must have two params to be drawn, got "
            f"{places.shape[-1]}; print them, or draw two of their entries yourself."
        )
    axes = canvas.one_axes(call, axes, size=(7.5, 6.0))
    canvas.text_size(axes)
    kinds = np.asarray(points.kind)
    for kind, (one, many, marker, color) in _KINDS.items():
        chosen = kinds == kind
        if chosen.any():
            canvas.dots(
                axes,
                *places[chosen].T,
                marker=marker,
                color=color,
                edge="black",
                scale=0.85,
                label=f"{chosen.sum()} {one if chosen.sum() == 1 else many}",
                order=6,
            )
    if not axes.get_title():
        first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], points.params)
        labels = names or symbols(first) if len(places) else _PHI
        canvas.finish(axes, "Critical points", *labels)
    canvas.legend_below(axes)
    return axes


@_calls.public
def basins(found: Basins, *, num_shown: int = 6, axes: Any = None) -> "Axes":
    """Draw which optimum each start of a grid reaches.

    Args:
      found: from `phihat.basins`, over two params.
      num_shown: how many optima get a colour of their own, the best first, at most 7.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes; starts that did not converge are white.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `Basins`.
      ValueError: there are not two params.

    Example:
      >>> import phihat
      >>> loss_fn = lambda p: (p[0] ** 2 - 1.0) ** 2 + p[1] ** 2
      >>> box = phihat.Box([-2.0, -1.0], [2.0, 1.0])
      >>> found = phihat.basins(
      ...     loss_fn, box, phihat.gradient_descent(0.05), shape=(4, 3)
      ... )
      >>> axes = basins(found)
      >>> axes.get_title()
      'Which minimum each start reaches: 2 in all'
    """
    call = "basins"
    canvas.check_kind(call, "found", found, Basins, "phihat.basins")
    if len(found.ticks) != 2:
        raise ValueError(
            f"{call}: `found` must be a grid over two params, got {len(found.ticks)}."
        )
    num_shown = min(_checks.check_count(call, "num_shown", num_shown), len(OKABE_ITO))
    axes = canvas.one_axes(call, axes, size=(7.5, 6.2))
    canvas.text_size(axes)
    label, optima = found.label, found.optima
    kinds = {}
    for k in range(min(num_shown, len(optima.loss))):
        share = float(optima.share[k])
        text = f"{share:.0%}" if share >= 0.005 else "< 1%"
        name = f"loss {optima.loss[k]:.4g}: {text}"
        kinds[name] = (label == k, OKABE_ITO[k])
    if (label >= num_shown).any():
        count, share = len(optima.loss) - num_shown, np.mean(label >= num_shown)
        kinds[f"{count} more: {share:.0%}"] = (label >= num_shown, GREY)
    if (label < 0).any():
        kinds[f"not converged: {np.mean(label < 0):.0%}"] = (label < 0, "white")
    _draw_classes(axes, *found.ticks, kinds)
    limits = axes.get_xlim(), axes.get_ylim()
    places = flat_rows(optima.params, 0)[0][:num_shown]
    canvas.dots(
        axes,
        *places.T,
        marker="*",
        color="white",
        edge="black",
        scale=1.2,
        order=4,
    )
    axes.set(xlim=limits[0], ylim=limits[1])
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], optima.starts)
    title = f"Which minimum each start reaches: {len(optima.loss)} in all"
    canvas.finish(axes, title, *symbols(first))
    canvas.legend_below(axes)
    return axes


# -------------------------------------------------------------------- private helpers

_PHI = (r"$\phi_{0}$", r"$\phi_{1}$")

_KINDS = {
    CriticalPointKind.MINIMUM: ("minimum", "minima", "v", OKABE_ITO[2]),
    CriticalPointKind.MAXIMUM: ("maximum", "maxima", "^", OKABE_ITO[0]),
    CriticalPointKind.SADDLE: ("saddle", "saddles", "X", "white"),
    CriticalPointKind.DEGENERATE: ("degenerate", "degenerate", "D", OKABE_ITO[4]),
    CriticalPointKind.NOT_CRITICAL: ("not critical", "not critical", "o", GREY),
}


def _draw_classes(axes: "Axes", first: Any, second: Any, kinds: dict[str, Any]) -> None:
    """Colour a grid by classes, each `name: (mask [A, B], colour)`."""
    from matplotlib.colors import ListedColormap

    masks, colors = zip(*kinds.values(), strict=True)
    number = np.zeros(masks[0].shape, int)
    for k, mask in enumerate(masks):
        number[mask] = k
    first, second = np.asarray(first, float), np.asarray(second, float)
    dx, dy = (0.5 * (ticks[1] - ticks[0]) for ticks in (first, second))
    axes.imshow(
        number.T,
        origin="lower",
        extent=(first[0] - dx, first[-1] + dx, second[0] - dy, second[-1] + dy),
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(colors),
        vmin=-0.5,
        vmax=len(colors) - 0.5,
    )
    for name, mask, color in zip(kinds, masks, colors, strict=True):
        share = "" if "%" in name else f" ({np.mean(mask):.1%})"
        axes.scatter(
            [],
            [],
            marker="s",
            s=200,
            color=color,
            edgecolors="black",
            label=name + share,
        )
