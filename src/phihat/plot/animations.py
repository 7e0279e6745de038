"""Moving pictures: a descent on its surface, a bracket that shrinks."""

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.line_searches import SearchResult
from phihat.plot import canvas
from phihat.plot.landscapes import loss_surface
from phihat.plot.paths import by_name, trajectories
from phihat.plot.searches import prepare_rounds, searched_function
from phihat.plot.styles import OKABE_ITO, Style, make_styles
from phihat.plot.surfaces import Surface
from phihat.results import FitResult

__all__ = ["animate_bracket", "animate_descent"]


@_calls.public
def animate_descent(
    surface: Surface,
    results: Any,
    path: str | PathLike[str],
    *,
    num_frames: int = 60,
    frames_per_second: float = 12.0,
    styles: Mapping[str, Style] | None = None,
) -> Path:
    """Write a GIF of fits as they move on a loss surface.

    Args:
      surface: from `evaluate_surface` or `principal_plane`.
      results: with "params" recorded, as for `trajectories`: one or many.
      path: the file to write.
      num_frames: how many pictures, >= 2; the last is held for a second.
      frames_per_second: > 0.
      styles: looks by name, from `make_styles`.

    Returns:
      The path.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `surface` is not a `Surface`, or `results` has the wrong type.
      ValueError: "params" was not recorded, or a number is out of its range.

    Example:
      >>> import tempfile
      >>> import phihat
      >>> box = phihat.Box([-1.0, -1.0], [1.0, 1.0])
      >>> surface = phihat.plot.evaluate_surface(lambda p: p @ p, box, shape=(9, 9))
      >>> steps = np.linspace([0.9, 0.5], [0.0, 0.0], 5)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = animate_descent(surface, steps, folder + "/d.gif", num_frames=3)
      ...     print(path.stat().st_size > 1000)
      True
    """
    call = "animate_descent"
    num_frames = _checks.check_count(call, "num_frames", num_frames, 2)
    paths = trajectories(results)
    axes = loss_surface(surface)
    looks = make_styles(paths) | dict(styles or {})
    size = canvas.text_size(axes)
    moving = []
    for name, some in paths.items():
        for k, one in enumerate(some):
            options = {"color": looks[name].color, "linewidth": 0.14 * size}
            (line,) = axes.plot([], [], **options)
            head = canvas.dots(
                axes,
                [],
                [],
                marker=looks[name].marker,
                color=looks[name].color,
                edge="black",
                scale=0.75,
                label=name if k == 0 and name else None,
            )
            moving.append((surface.coordinates(one), line, head))
    canvas.legend_below(axes)
    title = axes.get_title()
    longest = max(len(one) for one, _, _ in moving) - 1
    unit = "step" if _has_every_step(call, results) else "row"

    def frames() -> Iterator[None]:
        # Each recorded row once, or evenly chosen rows where there are more.
        count = min(num_frames, longest + 1)
        for row in np.unique(np.linspace(0, longest, count).round().astype(int)):
            for one, line, head in moving:
                line.set_data(*one[: row + 1].T)
                head.set_data(*one[: row + 1][-1:].T)
            axes.title.set_text(f"{title}, {unit} {row} of {longest}")
            yield

    return _write(call, axes, frames(), path, frames_per_second)


@_calls.public
def animate_bracket(
    fn: Callable[[Any], Any],
    result: SearchResult,
    path: str | PathLike[str],
    *,
    frames_per_second: float = 1.5,
) -> Path:
    """Write a GIF of a line search, a picture for each round.

    Args:
      fn: `step -> value`, what the search was given.
      result: of a search made with `trace=True`.
      path: the file to write.
      frames_per_second: > 0.

    Returns:
      The path.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `result` is not the result of a search.
      ValueError: it has no trace, or a number is out of its range.

    Example:
      >>> import tempfile
      >>> import phihat
      >>> fn = lambda s: (s - 0.3) ** 2
      >>> result = phihat.golden_section(max_iterations=3, trace=True)(fn)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     print(animate_bracket(fn, result, folder + "/bracket.gif").name)
      bracket.gif
    """
    call = "animate_bracket"
    rounds = prepare_rounds(result)
    axes = searched_function(fn, result)
    canvas.text_size(axes)
    for line in axes.lines[1:]:
        line.remove()
    points = canvas.dots(
        axes,
        [],
        [],
        color=OKABE_ITO[0],
        scale=0.8,
        order=4,
    )
    band = axes.axvspan(0.0, 1.0, color=OKABE_ITO[1], alpha=0.2, linewidth=0)
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()

    def frames() -> Iterator[None]:
        for number, (steps, values) in enumerate(zip(*rounds[:2], strict=True), 1):
            points.set_data(steps, values)
            band.set_x(steps.min())  # type: ignore[attr-defined]
            band.set_width(np.ptp(steps))  # type: ignore[attr-defined]
            axes.title.set_text(f"Line search: round {number} of {len(rounds.steps)}")
            yield

    return _write(call, axes, frames(), path, frames_per_second)


# -------------------------------------------------------------------- private helpers


def _has_every_step(call: str, results: Any) -> bool:
    """Tell whether row k of every history is step k."""
    for one in by_name(call, results).values():
        if not isinstance(one, FitResult):
            return False
        steps = np.asarray(one.history["step"])
        if not np.array_equal(steps, np.arange(steps.size)):
            return False
    return True


def _write(
    call: str, axes: Any, frames: Iterator[None], path: Any, frames_per_second: float
) -> Path:
    """Draw frame after frame, and save them; matplotlib's writer sets its settings."""
    from PIL import Image
    from PIL.Image import Quantize

    _checks.check_range(
        call, "frames_per_second", frames_per_second, 0.0, include_low=False
    )
    figure = axes.get_figure(root=True)
    pictures = []
    for _ in frames:
        figure.canvas.draw()
        # Once the layout is found it must not move from frame to frame.
        figure.set_layout_engine("none")
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        pictures.append(Image.fromarray(pixels.copy()))
    # One palette, by the spread of the colours: by their frequency thin lines would
    # lose theirs; without dithering, so that only what moves is written.
    palette = pictures[-1].quantize(256, method=Quantize.MAXCOVERAGE)
    options = {"palette": palette, "dither": Image.Dither.NONE}
    pictures = [picture.quantize(**options) for picture in pictures]
    pause = 1000.0 / frames_per_second
    path = Path(path)
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[pause] * (len(pictures) - 1) + [max(pause, 1000.0)],
        loop=0,
    )
    return path
