"""Curves of what a fit recorded: a line for one fit, a band for many."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Status
from phihat.plot import canvas
from phihat.plot.paths import by_name, history_of, spent_rows
from phihat.plot.styles import Style, make_styles
from phihat.results import FitResult
from phihat.sweeps.comparison import quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "draw_curves", "loss_curves", "make_curve", "prepare_curves"]


class Curve(NamedTuple):
    """A quantity along one fit, or its quartiles over many lanes.

    Attributes:
      x: where it was measured [R].
      middle: the quantity, or its median over the lanes [R]; NaN where not finite.
      low: the lower end of the band [R].
      high: the upper end of the band [R].
      num_lanes: the number of fits.
      num_nonfinite: how many of their values were infinite or NaN.
      is_of_minibatch: whether each is the loss of a minibatch, and not of all data.
    """

    x: Float[np.ndarray, " R"]
    middle: Float[np.ndarray, " R"]
    low: Float[np.ndarray, " R"]
    high: Float[np.ndarray, " R"]
    num_lanes: int
    num_nonfinite: int
    is_of_minibatch: bool = False


@_calls.public
def loss_curves(
    results: Any,
    *,
    quantity: str = "loss",
    against: str = "step",
    per_step: float | Mapping[str, float] | None = None,
    band: tuple[float, float] = (0.25, 0.75),
    yscale: str | None = None,
    styles: Mapping[str, Style] | None = None,
    axes: Any = None,
) -> "Axes":
    """Draw how the loss fell, of one fit or of many.

    Args:
      results: a `FitResult`, of one fit or of many (seeds under `jax.vmap`, or lanes
        of a `sweep`), an array of losses [..., T], or several of these in a list, or
        by name in a dict. Many fits are shown as their median in a band.
      quantity: what is drawn, recorded with one number per row, such as "grad_norm".
      against: "step"; or "gradient_evaluations", "seconds" or any other recorded entry
        with one number per row.
      per_step: how many gradient evaluations, or seconds, a step takes, a number or one
        for each name: for `against` that was not recorded.
      band: the quantiles between which the band lies; a fit that failed counts as
        infinite, and one that converged keeps its last value.
      yscale: "log" or "linear"; by default "log" for positive losses over a wide range.
      styles: looks by name, from `make_styles`.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes. Losses that are not finite are gaps, and counted in the legend.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `results` has the wrong type.
      ValueError: something was not recorded; the message says what to record.

    Example:
      >>> import phihat
      >>> result = phihat.fit(lambda x: x**2, 1.0, phihat.adam(0.1), num_steps=20)
      >>> axes = loss_curves({"adam": result})
      >>> print(len(axes.lines[0].get_xdata()), axes.get_title())
      20 Loss during the fit
    """
    call = "loss_curves"
    if yscale is not None:
        _checks.check_choice(call, "yscale", yscale, ("linear", "log"))
    curves = prepare_curves(
        results, quantity=quantity, against=against, per_step=per_step, band=band
    )
    axes = canvas.one_axes(call, axes)
    x = _X_LABELS.get(against, against.replace("_", " "))
    y, title = _QUANTITIES.get(quantity, (quantity.replace("_", " "), quantity))
    canvas.finish(axes, f"{title} during the fit", x, y)
    draw_curves(axes, curves, styles=styles, yscale=yscale)
    if against == "step":
        canvas.whole_ticks(axes.xaxis)
    return axes


@_calls.public
def prepare_curves(
    results: Any,
    *,
    quantity: str = "loss",
    against: str = "step",
    per_step: float | Mapping[str, float] | None = None,
    band: tuple[float, float] = (0.25, 0.75),
) -> dict[str, Curve]:
    """Prepare the data of `loss_curves`.

    Args:
      results: as for `loss_curves`, like all that follow.
      quantity: what is drawn.
      against: what it is drawn against.
      per_step: how much of that a step takes.
      band: two quantiles.

    Returns:
      A `Curve` by name; "" names a single result.

    Raises:
      TypeError: `results` has the wrong type.
      ValueError: something was not recorded, or `band` is not an interval.

    Example:
      >>> import numpy as np
      >>> losses = np.array([[4.0, 2.0, 1.0], [8.0, np.nan, 1.0]])
      >>> curve = prepare_curves({"two fits": losses}, band=(0.0, 1.0))["two fits"]
      >>> print(curve.low, curve.high, curve.num_nonfinite)
      [4. 2. 1.] [ 8. nan  1.] 1
    """
    call = "loss_curves"
    if not 0.0 <= band[0] <= band[1] <= 1.0:
        raise ValueError(f"{call}: `band` must be quantiles low <= high, got {band}.")
    curves = {}
    for name, result in by_name(call, results).items():
        if isinstance(result, FitResult):
            values, reached = _recorded(call, name, result, quantity)
            steps = spent_rows(result)[0][0].astype(float)
        else:
            values = np.asarray(result, dtype=float)
            values = values.reshape(-1, values.shape[-1] if values.ndim else 1)
            reached = np.ones(values.shape, bool)
            steps = np.arange(values.shape[-1], dtype=float)
        x = _abscissa(call, name, result, steps, against, per_step)
        curve = make_curve(x, values, reached, band)
        draws = isinstance(result, FitResult) and result.loss_of == "a minibatch"
        curves[name] = curve._replace(is_of_minibatch=draws and quantity == "loss")
    return curves


def make_curve(
    x: Float[np.ndarray, " R"],
    values: Float[np.ndarray, "N R"],
    reached: np.ndarray,
    band: tuple[float, float],
) -> Curve:
    """Return the quantiles of rows that were reached, over the lanes.

    Args:
      x: where they were measured [R].
      values: the quantity [N, R].
      reached: whether each is a measurement [N, R]; after the last, a lane counts as
        it ended: at its last value.
      band: two quantiles.
    """
    finite = np.isfinite(values)
    num_nonfinite = int((reached & ~finite).sum())
    length = int(reached.any(axis=0).sum())
    values = np.where(reached & finite, values, np.inf)
    for lane, used in zip(values, reached, strict=True):
        count = int(used.sum())
        if 0 < count < len(lane):
            lane[count:] = lane[count - 1]
    found = quantiles(values[:, :length], (band[0], 0.5, band[1]), axis=0)
    low, middle, high = np.where(np.isfinite(found), found, np.nan)
    return Curve(x[:length], middle, low, high, len(values), num_nonfinite)


def draw_curves(
    axes: "Axes",
    curves: Mapping[str, Curve],
    *,
    styles: Mapping[str, Style] | None = None,
    yscale: str | None = None,
) -> None:
    """Draw prepared curves on axes, with a legend where they have names."""
    size = canvas.text_size(axes)
    looks = make_styles(curves) | dict(styles or {})
    for depth, (name, curve) in enumerate(curves.items()):
        look = looks[name]
        if curve.num_lanes > 1:
            axes.fill_between(
                curve.x, curve.low, curve.high, color=look.color, alpha=0.2, linewidth=0
            )
        axes.plot(
            curve.x,
            curve.middle,
            color=look.color,
            linestyle=look.line,
            linewidth=0.14 * size,
            marker=look.marker,
            markersize=0.5 * size,
            markevery=(0, max(1, len(curve.x) // 10)),
            markeredgecolor="white",
            label=_label(name, curve),
            zorder=3.0 - depth / 100,
        )
    values = np.concatenate([curve.middle for curve in curves.values()])
    values = values[np.isfinite(values)]
    is_wide = values.size and values.min() > 0 and values.max() > 20 * values.min()
    if yscale == "log" or (yscale is None and is_wide):
        canvas.set_log(axes, "y")
    canvas.legend_below(axes)


# -------------------------------------------------------------------- private helpers

_X_LABELS = {
    "step": "step t",
    "gradient_evaluations": "gradient evaluations",
    "seconds": "time [s]",
}

_QUANTITIES = {
    "loss": ("loss L[φ]", "Loss"),
    "grad_norm": ("gradient norm ‖∇L[φ]‖", "Gradient norm"),
    "learning_rate": ("learning rate α", "Learning rate"),
    "sharpness": ("largest eigenvalue λ", "Sharpness"),
}


def _recorded(
    call: str, name: str, result: FitResult, quantity: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return what was recorded [N, R], and which entries were measured [N, R]."""
    values = _numbers(call, name, result, quantity)
    steps, made = spent_rows(result)
    status = np.asarray(result.status).reshape(-1, 1)
    num_steps = np.asarray(result.num_steps).reshape(-1, 1)
    # The row at which a fit failed shows what failed: it counts.
    failed = status >= Status.NONFINITE_LOSS
    return values, made | (failed & (steps - steps[:, :1] == num_steps))


def _numbers(call: str, name: str, result: FitResult, entry: str) -> np.ndarray:
    values = np.asarray(history_of(call, name, result, entry))
    rows = np.shape(result.history["step"])
    if values.shape != rows:
        raise ValueError(
            f"{call}: {entry!r} must be recorded with one number per row, shape "
            f"{list(rows)}, got shape {list(values.shape)}."
        )
    return values.reshape(-1, values.shape[-1]).astype(float)


def _abscissa(
    call: str,
    name: str,
    result: Any,
    steps: np.ndarray,
    against: str,
    per_step: Any,
) -> np.ndarray:
    if against == "step":
        return steps
    if isinstance(result, FitResult) and against in result.history:
        return np.median(_numbers(call, name, result, against), axis=0)
    factor = per_step.get(name) if isinstance(per_step, Mapping) else per_step
    if factor is None:
        of = f" of results[{name!r}]" if name else ""
        raise ValueError(
            f"{call}: {against!r} was not recorded{of}; say by `per_step=` how much of "
            "it a step takes, or record it."
        )
    return (steps - steps[:1]) * float(factor)


def _label(name: str, curve: Curve) -> str:
    notes = []
    if curve.num_lanes > 1:
        notes.append(f"median of {curve.num_lanes} fits")
    if curve.is_of_minibatch:
        notes.append("minibatch losses")
    if curve.num_nonfinite:
        notes.append(f"{curve.num_nonfinite} not finite")
    if not notes:
        return name
    return f"{name} ({', '.join(notes)})" if name else ", ".join(notes)
