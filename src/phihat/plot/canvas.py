"""Axes to draw on, and what every picture needs: titles, labels, legends.

Nothing here touches pyplot or matplotlib's settings, so pictures need no display, do
not pile up, and may be drawn from several threads.
"""

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "add_colorbar",
    "check_kind",
    "dots",
    "finish",
    "legend_below",
    "legend_inside",
    "make_axes",
    "new_figure",
    "one_axes",
    "set_log",
    "several_axes",
    "spacing",
    "text_size",
    "whole_ticks",
]


@_calls.public
def make_axes(
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] | None = None,
    projection: str | None = None,
) -> np.ndarray:
    """Make a new figure for several pictures side by side; without pyplot.

    Args:
      rows: how many rows of axes.
      columns: how many columns.
      size: of the figure in inches; by default 6.5 by 5 for each picture.
      projection: "3d" for pictures in perspective.

    Returns:
      An array of axes, [rows, columns]; the figure is `axes[0, 0].figure`.

    Raises:
      ImportError: matplotlib is missing.

    Example:
      >>> axes = make_axes(1, 2)
      >>> axes.shape, len(axes[0, 0].figure.axes)
      ((1, 2), 2)
    """
    rows = _checks.check_count("make_axes", "rows", rows)
    columns = _checks.check_count("make_axes", "columns", columns)
    if projection is not None:
        _checks.check_choice("make_axes", "projection", projection, ("3d", "polar"))
    if size is None:
        size = (6.5 * columns, 5.0 * rows)
    figure = new_figure("make_axes", (float(size[0]), float(size[1])))
    options = {"projection": projection}
    made = figure.subplots(rows, columns, squeeze=False, subplot_kw=options)
    for axes in made.flat:
        _shown(axes)
    return made


def new_figure(call: str, size: tuple[float, float]) -> Any:
    """Return a figure of this size in inches that no one else holds."""
    _checks.require(call, "matplotlib.figure", '"phihat[plot]"')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    pad = 0.015 * min(size)
    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)
    figure = Figure(figsize=size, dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def one_axes(
    call: str,
    axes: Any,
    *,
    size: tuple[float, float] = (8.0, 5.0),
    projection: str | None = None,
) -> "Axes":
    """Return the axes given, or those of a new figure."""
    if axes is None:
        return _shown(new_figure(call, size).add_subplot(projection=projection))
    if not hasattr(axes, "get_xlim"):
        raise TypeError(
            f"{call}: `axes` must be one matplotlib Axes, such as `figure.subplots()`, "
            f"got a {type(axes).__name__}."
        )
    if projection == "3d" and not hasattr(axes, "get_zlim"):
        raise TypeError(
            f"{call}: `axes` must be three-dimensional; make them by "
            '`figure.add_subplot(projection="3d")`.'
        )
    return axes


def check_kind(call: str, argument: str, value: Any, kind: type, maker: str) -> None:
    """Check that a value is what `maker` returns."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{call}: `{argument}` must be what `{maker}` returns, got "
            f"{_checks.brief(value)}."
        )


def several_axes(
    call: str, axes: Any, columns: int, size: tuple[float, float]
) -> tuple["Axes", ...]:
    """Return the axes given, or those of a new figure, side by side."""
    if axes is None:
        figure = new_figure(call, size)
        return tuple(map(_shown, figure.subplots(1, columns, squeeze=False)[0]))
    found = tuple(np.ravel(np.asarray(axes, dtype=object)))
    if len(found) != columns or not all(hasattr(one, "get_xlim") for one in found):
        raise TypeError(
            f"{call}: `axes` must be {columns} matplotlib Axes, such as "
            f"`figure.subplots(1, {columns})`, got {_checks.brief(axes)}."
        )
    return found


def text_size(axes: "Axes") -> float:
    """Return a size in points that is legible however large the figure is shown.

    A picture of 16 by 9 inches, a slide, gets 18 points; smaller ones in proportion,
    though never less than 8.
    """
    return float(np.clip(2.0 * min(_inches(axes)), 8.0, 18.0))


def finish(axes: "Axes", title: str, x: str, y: str) -> None:
    """Write the title and the labels of the axes, all of a legible size."""
    size = text_size(axes)
    axes.set_title(title, fontsize=1.2 * size, pad=0.7 * size)
    axes.set_xlabel(x, fontsize=1.1 * size)
    axes.set_ylabel(y, fontsize=1.1 * size)
    axes.tick_params(labelsize=size)


def whole_ticks(axis: Any) -> None:
    """Let the ticks of an axis be whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def dots(
    axes: "Axes",
    *places: Any,
    color: Any,
    marker: str = "o",
    scale: float = 0.6,
    edge: str | None = "white",
    label: str | None = None,
    order: float = 3.0,
    clip: bool = True,
    is_open: bool = False,
) -> Any:
    """Draw markers at places, `scale` times as large as the text, and return them.

    Open markers are outlines in their colour, on a white rim: where several lie on one
    another, all are seen.
    """
    (drawn,) = axes.plot(
        *places,
        linestyle="none",
        marker=marker,
        color=color,
        markeredgecolor=edge,
        markersize=scale * text_size(axes),
        label=label,
        zorder=order,
        clip_on=clip,
    )
    if is_open:
        from matplotlib.patheffects import withStroke

        size = text_size(axes)
        drawn.set(
            markerfacecolor="none",
            markeredgecolor=color,
            markeredgewidth=0.16 * size,
            path_effects=[withStroke(linewidth=0.3 * size, foreground="white")],
        )
    return drawn


def legend_inside(axes: "Axes", **options: Any) -> None:
    """Explain the labelled artists, where there are any, beside the lines."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, fontsize=text_size(axes), **options)


def legend_below(axes: "Axes") -> None:
    """Explain the labelled artists below the axes, where they hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    # As many columns as fit, for letters about half as wide as they are high.
    room = 0.75 * 72 * _inches(axes)[0] / (0.55 * text_size(axes))
    widths = [len(label) + 7 for label in labels]
    columns = len(labels) if sum(widths) < room else max(1, int(room // max(widths)))
    axes.legend(
        handles,
        labels,
        fontsize=text_size(axes),
        ncols=columns,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=3.8,
        columnspacing=1.0,
        handletextpad=0.4,
        frameon=False,
    )


def add_colorbar(axes: "Axes", mappable: Any, label: str, **options: Any) -> Any:
    """Add a bar that says what the colours mean."""
    size = text_size(axes)
    bar = axes.get_figure(root=False).colorbar(mappable, ax=axes, **options)  # type: ignore[union-attr]
    bar.set_label(label, fontsize=1.1 * size)
    bar.ax.tick_params(labelsize=size)
    return bar


def spacing(values: Any) -> str:
    """Return "log" where coordinates are spaced evenly in it, else "linear"."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or len(values) < 3 or not (values > 0).all():
        return "linear"
    evenness = [
        np.std(np.diff(v)) / np.mean(np.diff(v)) for v in (values, _log(values))
    ]
    return (
        "log" if evenness[1] < evenness[0] and values[-1] > 8 * values[0] else "linear"
    )


def set_log(axes: "Axes", which: str) -> None:
    """Make one axis ("x" or "y") logarithmic, with numbers at its ticks.

    Over few decades matplotlib's own choice leaves one number or none.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    set_scale: Callable[..., Any] = getattr(axes, f"set_{which}scale")
    set_scale("log", nonpositive="mask")
    low, high = getattr(axes, f"get_{which}lim")()
    decades = np.log10(max(high, low) / min(high, low))
    axis = getattr(axes, f"{which}axis")
    if decades < 4:
        subs = (1, 2, 5) if decades > 0.8 else tuple(range(1, 10))
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _shown(axes: Any) -> Any:
    """Let a notebook show the figure where a cell ends with it, or with its axes.

    pyplot's figures do so by themselves; these are not made by pyplot.
    """
    figure = axes.get_figure(root=True)
    for one in (axes, figure):
        one._repr_png_ = functools.partial(_png, figure)
    return axes


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _inches(axes: "Axes") -> tuple[float, float]:
    """Return the width and the height that a layout gives to these axes."""
    holder, figure = axes.get_figure(root=False), axes.get_figure(root=True)
    if holder is None or figure is None:
        return 0.0, 0.0
    width, height = holder.bbox.width / figure.dpi, holder.bbox.height / figure.dpi
    place = axes.get_subplotspec()
    if place is None:
        position = axes.get_position()
        return width * position.width, height * position.height
    rows, columns = place.get_gridspec().get_geometry()
    return (
        width * len(place.colspan) / columns,
        height * len(place.rowspan) / rows,
    )


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(values.astype(float))
