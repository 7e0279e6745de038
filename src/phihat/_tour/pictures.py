"""The tour's pictures: 1600 by 900 pixels, to be read from the back of a room.

Colours are those of Okabe and Ito on a map (cividis) of even lightness, so that no one
is left out; each path also has a marker of its own.

Example:
  >>> from phihat._tour import PICTURES
  >>> sorted(PICTURES)
  ['gabor', 'linear_regression', 'losses', 'parabola']
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from phihat._tour.deck import PROBLEMS, Problem, Run, losses_at, parabola

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw"]

Runs = Mapping[str, Sequence[Run]]
"""The runs of the parabola and of each problem, by name."""

_TEXT, _TITLE = 18, 22  # points; at 100 dots an inch a slide is 16 by 9 inches

_PHI = (r"$\phi_0$", r"$\phi_1$")

_STYLES = {
    "gradient descent": ("#D55E00", "o", 17),
    "line search": ("#0072B2", "P", 11),
    "SGD": ("#E69F00", "s", 14),
    "momentum": ("#56B4E9", "^", 23),
    "Nesterov": ("#CC79A7", "D", 13),
    "normalized": ("#000000", "X", 13),
    "Adam": ("#009E73", "v", 8),
}
"""Colour, marker and its size at the end of a path, where several may meet."""


def draw(name: str, runs: Runs, folder: Path) -> Path:
    """Draw one picture into a folder, and return its path.

    Raises:
      ImportError: matplotlib is missing.
      OSError: the folder cannot be written.
    """
    # The object-oriented interface alone: pyplot would change the caller's state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.2, h_pad=0.2)
    figure = Figure(figsize=(16, 9), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    PICTURES[name](figure, runs)
    path = folder / f"{name}.png"
    figure.savefig(path)
    return path


def _parabola(figure: "Figure", runs: Runs) -> None:
    (run,) = runs["parabola"]
    axes = figure.subplots()
    x = np.linspace(-1.0, 5.0, 200)
    axes.plot(x, parabola(x), color="black", linewidth=3, label="y = x² − 4x + 5")
    for place in (0.0, 1.0, 2.0, 3.5):
        height, slope = parabola(place), 2.0 * place - 4.0
        ends = np.array([-0.6, 0.6])
        axes.plot(
            place + ends, height + slope * ends, color="#0072B2", linewidth=3, zorder=3
        )
        axes.annotate(
            f"dy/dx = {slope:.0f}".replace("-", "−"),
            (place, height),
            xytext=(14, 10) if place < 2 else (0, -34) if place == 2 else (18, -22),
            textcoords="offset points",
            fontsize=_TEXT,
            color="#0072B2",
        )
    axes.plot(
        run.path,
        run.losses,
        "o",
        color="#D55E00",
        markersize=11,
        zorder=4,
        markeredgecolor="white",
        label="gradient descent",
    )
    _finish(axes, "A parabola, its derivative 2x − 4, and its descent", "x", "y")
    axes.set_ylim(-0.2, 10.4)
    axes.legend(fontsize=_TEXT, loc="upper center")


def _linear_regression(figure: "Figure", runs: Runs) -> None:
    problem = PROBLEMS["linear regression"]
    shown = [
        run
        for run in runs["linear regression"]
        if run.name in ("gradient descent", "line search", "momentum")
    ]
    left, right = figure.subplots(1, 2)
    _surface(figure, left, problem, (0.0, 2.0, -1.0, 1.0))
    _paths(left, shown)
    _finish(left, f"Loss of {problem.title}", *_PHI)
    left.legend(fontsize=_TEXT, loc="lower left")

    x, y = map(np.asarray, problem.data)
    run = shown[0]
    ends = np.array([0.0, 2.0])
    for step, shade in zip((0, 1, 4, 16, len(run.path) - 1), _shades(5), strict=True):
        intercept, slope = run.path[step]
        right.plot(
            ends,
            intercept + slope * ends,
            color=shade,
            linewidth=3,
            label=f"after {step} step" + "s" * (step != 1),
        )
    right.plot(x, y, "o", color="#D55E00", markersize=10, markeredgecolor="white")
    right.set_ylim(0.0, 2.0)
    _finish(right, "The line, step by step", "x", "y")
    right.legend(fontsize=_TEXT, loc="lower center", ncols=2)


def _gabor(figure: "Figure", runs: Runs) -> None:
    problem = PROBLEMS["gabor"]
    shown = [run for run in runs["gabor"] if run.name != "normalized"]
    left, right = figure.subplots(1, 2)
    _surface(figure, right, problem, (-3.0, 3.0, 3.5, 18.0), bar=False)
    _surface(figure, left, problem, (-10.0, 10.0, 2.5, 22.5))
    for axes in (left, right):
        _paths(axes, shown)
    _finish(left, f"Loss of {problem.title}", *_PHI)
    _finish(right, "The same paths, closer", *_PHI)
    handles, labels = right.get_legend_handles_labels()
    _legend_below(figure, dict(zip(labels, handles, strict=True)))


def _losses(figure: "Figure", runs: Runs) -> None:
    ticks = ((0.2, 0.5, 1, 2, 5), (0.5, 1, 2, 5, 10, 20))
    handles = {}
    for axes, name, marks in zip(figure.subplots(1, 2), PROBLEMS, ticks, strict=True):
        for depth, run in enumerate(runs[name]):
            colour, marker, _ = _STYLES[run.name]
            (handles[run.name],) = axes.plot(
                run.losses,
                color=colour,
                linewidth=2.5,
                marker=marker,
                markersize=10,
                markevery=(0, 20),
                markeredgecolor="white",
                zorder=9 - depth,
            )
        axes.set_yscale("log")
        axes.set_yticks(marks, labels=map(str, marks))
        axes.minorticks_off()
        _finish(axes, f"Loss of {PROBLEMS[name].title}", "step", "loss L[φ], all data")
    _legend_below(figure, handles)


PICTURES = {
    "parabola": _parabola,
    "linear_regression": _linear_regression,
    "gabor": _gabor,
    "losses": _losses,
}


def _surface(
    figure: "Figure",
    axes: "Axes",
    problem: Problem,
    box: tuple[float, float, float, float],
    bar: bool = True,
) -> None:
    """Colour a box (left, right, bottom, top) by the loss there."""
    phi_0, phi_1 = np.linspace(*box[:2], 161), np.linspace(*box[2:], 161)
    points = np.stack(np.meshgrid(phi_0, phi_1), axis=-1).reshape(-1, 2)
    points = jnp.asarray(points, jnp.result_type(float))
    values = losses_at(problem.loss_fn, points, problem.data).reshape(161, 161)
    low, high = float(values.min()), float(values.max())
    # Even steps of the root show the floor of the valleys, where the fits end.
    levels = np.linspace(low**0.5, high**0.5, 24) ** 2
    filled = axes.contourf(phi_0, phi_1, values, levels=levels, cmap="cividis")
    axes.contour(phi_0, phi_1, values, levels=levels, colors="white", linewidths=0.4)
    if bar:
        colours = figure.colorbar(filled, ax=axes, format="%.2g")
        colours.set_label("loss L[φ]", fontsize=_TEXT)
        colours.ax.tick_params(labelsize=_TEXT)


def _paths(axes: "Axes", runs: Sequence[Run]) -> None:
    """Draw each path with a dot at each step and its own marker at its end."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=5, foreground="white")]
    # Ragged SGD below the others, short gradient descent above them.
    for run in sorted(reversed(runs), key=lambda run: run.name != "SGD"):
        colour, *_ = _STYLES[run.name]
        axes.plot(*run.path.T, color=colour, linewidth=2.5, path_effects=halo)
        axes.plot(*run.path.T, "o", color=colour, markersize=5)
    for run in runs:
        colour, marker, size = _STYLES[run.name]
        axes.plot(
            *run.path[-1:].T,
            color=colour,
            linewidth=2.5,
            marker=marker,
            markersize=size,
            markeredgecolor="black",
            label=run.name,
            zorder=5.0 - size / 100,  # the small on the large
        )
    axes.plot(
        *runs[0].path[0],
        "o",
        color="white",
        markeredgecolor="black",
        markersize=14,
        label="start",
    )


def _finish(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=_TITLE, pad=14)
    axes.set_xlabel(x, fontsize=_TITLE)
    axes.set_ylabel(y, fontsize=_TITLE)
    axes.tick_params(labelsize=_TEXT)


def _legend_below(figure: "Figure", handles: Mapping[str, Any]) -> None:
    figure.legend(
        handles.values(),
        handles.keys(),
        fontsize=_TEXT,
        ncols=len(handles),
        loc="outside lower center",
        columnspacing=1.0,
        handletextpad=0.4,
        frameon=False,
    )


def _shades(number: int) -> Any:
    """Return colours from dark to light, but none too light for a white page."""
    from matplotlib import colormaps

    return colormaps["cividis"](np.linspace(0.0, 0.85, number))
