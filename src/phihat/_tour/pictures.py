"""The tour's pictures: 1600 by 900 pixels, to be read from the back of a room.

Colours are those of Okabe and Ito on a map (cividis) of even lightness, so that no one
is left out; each path also has a marker of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from phihat import plot
from phihat._core.types import Box
from phihat._tour.deck import PROBLEMS, Problem, Run, parabola
from phihat.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw"]

Runs = Mapping[str, Sequence[Run]]
"""The runs of the parabola and of each problem, by name."""

_STYLES = plot.make_styles(
    (
        "gradient descent",
        "line search",
        "Adam",
        "SGD",
        "Nesterov",
        "momentum",
        "normalized",
    )
)
"""One look in all pictures."""


def draw(name: str, runs: Runs, folder: Path) -> Path:
    """Draw one picture into a folder, and return its path."""
    figure = canvas.new_figure("draw", (16.0, 9.0))
    PICTURES[name](figure, runs)
    path = folder / f"{name}.png"
    figure.savefig(path)
    return path


def _parabola(figure: "Figure", runs: Runs) -> None:
    (run,) = runs["parabola"]
    axes = figure.subplots()
    x = np.linspace(-1.0, 5.0, 200)
    size = canvas.text_size(axes)
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
            fontsize=size,
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
    canvas.finish(axes, "A parabola, its derivative 2x − 4, and its descent", "x", "y")
    axes.set_ylim(-0.2, 10.4)
    canvas.legend_inside(axes, loc="upper center")


def _linear_regression(figure: "Figure", runs: Runs) -> None:
    problem = PROBLEMS["linear regression"]
    left, right = figure.subplots(1, 2)
    _surface(left, problem, Box([0.4, -0.7], [2.0, 0.9]), runs["linear regression"])
    descent = runs["linear regression"][0].path
    steps = (0, 1, 4, 16, len(descent) - 1)
    plot.fitted_model(
        problem.model,
        [jnp.asarray(descent[step]) for step in steps],
        problem.data,
        names=[f"after {step} step" + "s" * (step != 1) for step in steps],
        axes=right,
    )
    right.set_ylim(0.0, 2.0)
    right.title.set_text("The line, step by step")


def _gabor(figure: "Figure", runs: Runs) -> None:
    problem = PROBLEMS["gabor"]
    axes = figure.subplots(1, 2)
    remembers = ("momentum", "Nesterov", "Adam")
    halves = {
        "without momentum": [run for run in runs["gabor"] if run.name not in remembers],
        "with momentum": [run for run in runs["gabor"] if run.name in remembers],
    }
    for half, (title, shown) in zip(axes, halves.items(), strict=True):
        _surface(half, problem, Box([-3.0, 3.5], [3.0, 18.0]), shown)
        half.title.set_text(f"Loss of {problem.title}, {title}")
    _share_legend(figure, axes)


def _losses(figure: "Figure", runs: Runs) -> None:
    both = figure.subplots(1, 2)
    for axes, name in zip(both, PROBLEMS, strict=True):
        curves = {run.name: run.losses for run in runs[name]}
        plot.loss_curves(curves, yscale="log", styles=_STYLES, axes=axes)
        axes.title.set_text(f"Loss of {PROBLEMS[name].title}")
        axes.yaxis.label.set_text("loss L[φ], all data")
    _share_legend(figure, both)


PICTURES = {
    "parabola": _parabola,
    "linear_regression": _linear_regression,
    "gabor": _gabor,
    "losses": _losses,
}


def _surface(axes: "Axes", problem: Problem, box: Box, runs: Sequence[Run]) -> None:
    surface = plot.evaluate_surface(problem.loss_fn, box, problem.data)
    paths = {run.name: run.path for run in runs}
    plot.loss_surface(surface, paths, styles=_STYLES, axes=axes)
    axes.title.set_text(f"Loss of {problem.title}")


def _share_legend(figure: "Figure", all_axes: Sequence[Any]) -> None:
    """Explain once, below the figure, what several axes show."""
    handles = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        axes.get_legend().remove()
    figure.legend(
        handles.values(),
        handles.keys(),
        fontsize=canvas.text_size(all_axes[0]),
        ncols=len(handles),
        loc="outside lower center",
        columnspacing=1.0,
        handletextpad=0.4,
        frameon=False,
    )
