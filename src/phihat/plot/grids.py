"""Sweeps: maps over two axes, slices along one, and where fits train."""

from typing import TYPE_CHECKING, Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.plot import canvas
from phihat.plot.curves import draw_curves, make_curve
from phihat.plot.fitted import shades
from phihat.plot.styles import GREY, make_styles
from phihat.sweeps.maps import Outcome, Trainability
from phihat.sweeps.result import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "sweep_map",
    "sweep_slices",
    "trainability",
]


@_calls.public
def sweep_map(
    found: SweepResult,
    by: Any = None,
    *,
    log: bool = False,
    vmax: float | None = None,
    axes: Any = None,
) -> "Axes":
    """Draw a value over the two axes of a sweep.

    Args:
      found: from `phihat.sweep`, with two axes; take others out by `found.select`.
      by: which value, as in `found.best`.
      log: colours by the logarithm, where all values are positive.
      vmax: the value at which the colours end; by default the largest, but for a few
        that are far above the others, such as those of fits that diverged.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes; the smallest value is starred, values that are not finite are blank and
      counted.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `SweepResult`.
      ValueError: the sweep does not have two axes, or there is no such value.

    Example:
      >>> import phihat
      >>> axes = {"rate": np.geomspace(0.01, 1.0, 3), "decay": np.array([0.0, 0.9])}
      >>> def function(rate, decay):
      ...     return {"loss": (rate - 0.1) ** 2 + decay}
      >>> picture = sweep_map(phihat.sweep(function, axes), "loss")
      >>> picture.get_xscale(), picture.get_yscale()
      ('log', 'linear')
    """
    call = "sweep_map"
    _check_sweep(call, found, 2)
    scores, label = _scores(call, found, by)
    axes = canvas.one_axes(call, axes, size=(7.5, 6.0))
    masked = np.ma.masked_invalid(scores)
    norm = _log_norm(call, masked, vmax) if log else _robust_norm(masked, vmax)
    image = _mesh(axes, found, masked, norm=norm)
    canvas.add_colorbar(axes, image, label)
    title = f"{label} over {' and '.join(found.sizes)}"
    count = int(masked.mask.sum()) if masked.mask is not np.ma.nomask else 0
    if count:
        title += f"\n({count} of {scores.size} not finite: blank)"
    if masked.count():
        best = np.unravel_index(int(masked.argmin()), scores.shape)
        places = [_positions(found, k)[best[k]] for k in range(2)]
        canvas.dots(
            axes,
            *[[place] for place in places],
            marker="*",
            color="white",
            edge="black",
            scale=1.5,
            label=f"smallest: {masked.min():.4g}",
        )
    canvas.finish(axes, title, *found.sizes)
    canvas.legend_below(axes)
    return axes


@_calls.public
def sweep_slices(
    found: SweepResult,
    by: Any = None,
    *,
    along: str | None = None,
    num_shown: int = 7,
    yscale: str | None = None,
    axes: Any = None,
) -> "Axes":
    """Draw a value along one axis of a sweep, a line for each place on the others.

    Args:
      found: from `phihat.sweep`.
      by: which value, as in `found.best`.
      along: the axis to draw along, by default the longest one of numbers.
      num_shown: how many lines at most, evenly chosen.
      yscale: "log" or "linear"; by default "log" for positive values of a wide range.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes; values that are not finite are gaps, and counted in the legend.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `SweepResult`.
      ValueError: there is no such axis or value.

    Example:
      >>> import phihat
      >>> axes = {"x": np.arange(5.0), "y": np.arange(2.0)}
      >>> found = phihat.sweep(lambda x, y: x - y, axes)
      >>> sweep_slices(found).get_legend_handles_labels()[1]
      ['y = 0', 'y = 1']
    """
    call = "sweep_slices"
    _check_sweep(call, found)
    num_shown = _checks.check_count(call, "num_shown", num_shown)
    if yscale is not None:
        _checks.check_choice(call, "yscale", yscale, ("linear", "log"))
    scores, label = _scores(call, found, by)
    names = list(found.sizes)
    if along is None:
        along = max(
            names, key=lambda name: (_is_numeric(found, name), found.sizes[name])
        )
    _checks.check_choice(call, "along", along, names)
    number = names.index(along)
    rows = np.moveaxis(scores, number, -1).reshape(-1, scores.shape[number])
    others = [name for name in names if name != along]
    places = np.stack(
        np.unravel_index(np.arange(len(rows)), [found.sizes[name] for name in others])
        if others
        else [np.zeros(1, int)],
        axis=-1,
    )
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(num_shown, len(rows))).round())
    x = _positions(found, number)
    curves = {}
    for row in chosen.astype(int):
        text = ", ".join(
            f"{name} = {_coordinate(found, name, place)}"
            for name, place in zip(others, places[row], strict=False)
        )
        reached = np.ones((1, len(x)), bool)
        curves[text] = make_curve(x, rows[row : row + 1], reached, (0.5, 0.5))
    axes = canvas.one_axes(call, axes)
    looks = make_styles(curves)
    if len(curves) > 1 and len(others) == 1 and _is_numeric(found, others[0]):
        # Ordered numbers get ordered colours.
        looks = {
            name: look._replace(color=color)
            for (name, look), color in zip(
                looks.items(), shades(len(curves)), strict=True
            )
        }
    draw_curves(axes, curves, styles=looks, yscale=yscale)
    _scale_axis(axes, "x", found, number)
    more = "" if len(chosen) == len(rows) else f" ({len(chosen)} of {len(rows)} slices)"
    canvas.finish(axes, f"{label} along {along}{more}", along, label)
    return axes


@_calls.public
def trainability(found: Trainability, *, axes: Any = None) -> "Axes":
    """Draw where fits converge, how fast, and where they diverge.

    Args:
      found: from `phihat.sweeps.trainability`, over two axes.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes: shaded by the mean loss over the steps, relative to the first; grey
      where the fit diverged; a line around those that reached the target.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `Trainability`.
      ValueError: the sweep does not have two axes.

    Example:
      >>> from phihat import fit, momentum, sweeps
      >>> def function(rate, decay):
      ...     return fit(lambda x: x**2, 1.0, momentum(rate, decay), num_steps=20)
      >>> axes = {"rate": np.geomspace(0.01, 9.0, 4), "decay": np.array([0.0, 0.5])}
      >>> picture = trainability(sweeps.trainability(function, axes, target=1e-3))
      >>> picture.get_xlabel()
      'rate'
    """
    call = "trainability"
    canvas.check_kind(call, "found", found, Trainability, "phihat.sweeps.trainability")
    _check_sweep(call, found.sweep, 2)
    axes = canvas.one_axes(call, axes, size=(7.5, 6.2))
    size = canvas.text_size(axes)
    masked = np.ma.masked_invalid(found.fastness)
    axes.set_facecolor(GREY)
    image = _mesh(axes, found.sweep, masked, norm=_log_norm(call, masked))
    canvas.add_colorbar(axes, image, "mean loss during the fit / first loss")
    reached = (found.outcome == Outcome.CONVERGED).astype(float)
    x, y = (_positions(found.sweep, k) for k in range(2))
    if 0 < reached.sum() < reached.size:
        axes.contour(x, y, reached.T, [0.5], colors="white", linewidths=0.16 * size)
    counts = {one: int((found.outcome == one).sum()) for one in Outcome}
    axes.plot(
        [],
        [],
        color="white",
        linewidth=0.25 * size,
        label=f"border of the {counts[Outcome.CONVERGED]} that converged",
    )
    axes.scatter(
        [], [], marker="s", color=GREY, label=f"{counts[Outcome.DIVERGED]} diverged"
    )
    title = f"Where fits train: {counts[Outcome.CONVERGED]} of {reached.size} converged"
    canvas.finish(axes, title, *found.sweep.sizes)
    canvas.legend_below(axes)
    legend = axes.get_legend()
    if legend is not None:
        legend.get_frame().set(facecolor="#888888", alpha=1.0)
        legend.set_frame_on(True)
    return axes


# -------------------------------------------------------------------- private helpers


def _check_sweep(call: str, found: Any, number: int | None = None) -> None:
    canvas.check_kind(call, "found", found, SweepResult, "phihat.sweep")
    if number is not None and len(found.shape) != number:
        raise ValueError(
            f"{call}: the sweep must have {number} axes, got {list(found.sizes)}; "
            "choose places on others by `.select(name=value)`, or call "
            "`plot.sweep_slices`."
        )
    if not found.shape:
        raise ValueError(f"{call}: the sweep has no axes left.")


def _scores(call: str, found: SweepResult, by: Any) -> tuple[np.ndarray, str]:
    scores = found.scores_for(call, by)
    if by is None and isinstance(found.values, dict) and len(found.values) == 1:
        (by,) = found.values
    return scores, by if isinstance(by, str) else "value"


def _is_numeric(found: SweepResult, name: str) -> bool:
    return found.axes.get(name, np.zeros(0, "U1")).dtype.kind in "fiu"


def _positions(found: SweepResult, number: int) -> np.ndarray:
    """Return coordinates if they are ascending numbers, else places 0, 1, ..."""
    name = list(found.sizes)[number]
    if _is_numeric(found, name):
        values = np.asarray(found.axes[name], float)
        if np.isfinite(values).all() and (np.diff(values) > 0).all():
            return values
    return np.arange(float(found.shape[number]))


def _coordinate(found: SweepResult, name: str, place: int) -> str:
    values = found.axes.get(name)
    if values is None:  # several names that go together
        return str(int(place))
    return f"{values[place]:.4g}" if values.dtype.kind == "f" else str(values[place])


def _scale_axis(axes: "Axes", which: str, found: SweepResult, number: int) -> None:
    """Make an axis logarithmic, or name its places, as its coordinates ask."""
    name, values = list(found.sizes)[number], _positions(found, number)
    if _is_numeric(found, name) and np.array_equal(values, found.axes[name]):
        if canvas.spacing(values) == "log":
            canvas.set_log(axes, which)
        return
    texts = [_coordinate(found, name, k) for k in range(len(values))]
    heads = [text.split("(")[0] for text in texts]
    texts = heads if len(set(heads)) == len(heads) else texts
    getattr(axes, f"set_{which}ticks")(values, labels=texts)
    if which == "x" and sum(map(len, texts)) > 50:
        axes.tick_params(axis="x", labelrotation=20)


def _mesh(axes: "Axes", found: SweepResult, masked: Any, norm: Any) -> Any:
    x, y = (_positions(found, k) for k in range(2))
    edges = [_edges(values) for values in (x, y)]
    image = axes.pcolormesh(*edges, masked.T, cmap="viridis_r", norm=norm)
    for k, which in enumerate("xy"):
        _scale_axis(axes, which, found, k)
    axes.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    return image


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the borders between neighbouring coordinates, and the two outer ones."""
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    is_log = canvas.spacing(values) == "log"
    values = np.log(values) if is_log else values
    inner = 0.5 * (values[1:] + values[:-1])
    outer = values[[0, -1]] + 0.5 * np.array(
        [values[0] - values[1], values[-1] - values[-2]]
    )
    edges = np.concatenate([outer[:1], inner, outer[1:]])
    return np.exp(edges) if is_log else edges


def _robust_norm(masked: Any, vmax: float | None) -> Any:
    """Return colours for all but a few values that are far above the others."""
    from matplotlib.colors import Normalize

    values = masked.compressed()
    if not values.size:
        return None
    low, high = values.min(), values.max()
    limit = low + 10 * (np.quantile(values, 0.75) - low)
    top = high
    if vmax is not None:
        top = vmax
    elif low < limit < high:
        top = values[values <= limit].max()
    norm: Any = Normalize(min(low, top), top)
    norm.extend = "max" if top < high else "neither"  # the colour bar reads it
    return norm


def _log_norm(call: str, masked: Any, vmax: float | None = None) -> Any:
    from matplotlib.colors import LogNorm

    if masked.count() == 0:
        return None
    if masked.min() <= 0:
        raise ValueError(
            f"{call}: a logarithm needs positive values, got {masked.min():.4g}."
        )
    return LogNorm(vmax=vmax)
