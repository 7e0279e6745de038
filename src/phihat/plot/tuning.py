"""Tuning: which learning rates train, and optimizers compared."""

from typing import TYPE_CHECKING, Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.plot import canvas
from phihat.plot.curves import draw_curves, make_curve
from phihat.plot.styles import OKABE_ITO
from phihat.sweeps.comparison import Comparison
from phihat.sweeps.learning_rates import LearningRateRange

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison", "learning_rate_range"]


@_calls.public
def learning_rate_range(found: LearningRateRange, *, axes: Any = None) -> "Axes":
    """Draw the final loss over the learning rates, and which to take.

    Args:
      found: from `phihat.learning_rate_range`.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes; rates whose losses are not finite are marked at the top, and counted.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `LearningRateRange`.

    Example:
      >>> import phihat
      >>> found = phihat.learning_rate_range(lambda x: x**2, 1.0, phihat.adam)
      >>> axes = learning_rate_range(found)
      >>> axes.get_xscale(), axes.get_xlabel()
      ('log', 'learning rate α')
    """
    call = "learning_rate_range"
    canvas.check_kind(
        call, "found", found, LearningRateRange, "phihat.learning_rate_range"
    )
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    final = np.asarray(found.final, float)
    first = float(found.loss[0, 0])
    # Losses far above the start would hide the rest: they are marked at the top.
    shown = np.isfinite(final) & (final <= 30.0 * max(first, np.finfo(float).tiny))
    for label, chosen, color, marker in (
        ("stable", shown & found.is_stable, OKABE_ITO[1], "o"),
        ("unstable", shown & ~found.is_stable, OKABE_ITO[0], "X"),
    ):
        if chosen.any():
            options = {"color": color, "edge": color, "marker": marker, "scale": 0.4}
            canvas.dots(
                axes, found.rates[chosen], final[chosen], label=label, **options
            )
    axes.set_xlim(*_rates_of_interest(found))
    canvas.set_log(axes, "x")
    if shown.any() and (final[shown] > 0).all():
        canvas.set_log(axes, "y")
    if (~shown).any():
        places = found.rates[~shown]
        top = axes.get_xaxis_transform()
        label = f"{len(places)} diverged"
        options = {"transform": top, "color": OKABE_ITO[0], "label": label}
        heights = np.full(len(places), 0.98)
        axes.plot(places, heights, "^", markersize=0.5 * size, **options)
    _mark_answers(axes, found, size)
    x, y = "learning rate α", "loss, mean of the last tenth"
    canvas.finish(axes, _rates_title(found), x, y)
    canvas.legend_below(axes)
    return axes


@_calls.public
def comparison(
    table: Comparison,
    *,
    against: str = "gradient_evaluations",
    band: tuple[float, float] = (0.25, 0.75),
    axes: Any = None,
) -> "Axes":
    """Draw the losses of the optimizers that were compared, each as tuned.

    Args:
      table: from `phihat.compare`.
      against: "gradient_evaluations", where a value that a line search asks for counts
        as a half; "seconds"; or "step".
      band: the quantiles over the seeds between which the bands lie.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `table` is not a `Comparison`.
      ValueError: `against` is not one of these.

    Example:
      >>> import phihat
      >>> table = phihat.compare(
      ...     lambda x: x**2, 1.0, {"adam": phihat.adam}, num_steps=9, num_trials=4
      ... )
      >>> comparison(table).get_xlabel()
      'gradient evaluations'
    """
    call = "comparison"
    _checks.check_choice(call, "against", against, _COSTS)
    canvas.check_kind(call, "table", table, Comparison, "phihat.compare")
    axes = canvas.one_axes(call, axes)
    label, cost_fn = _COSTS[against]
    curves = {}
    for name, entry in table.entries.items():
        steps = np.arange(entry.loss.shape[1])
        x = steps * cost_fn(entry) / max(len(steps), 1)
        tuned = ", ".join(f"{k}={v:.2g}" for k, v in entry.hyperparameters.items())
        loss = np.asarray(entry.loss, float)
        reached = np.ones(loss.shape, bool)
        curves[f"{name}: {tuned}"] = make_curve(x, loss, reached, band)
    canvas.finish(axes, "Optimizers compared, each as tuned", label, "loss L[φ]")
    draw_curves(axes, curves)
    canvas.legend_below(axes)
    return axes


# -------------------------------------------------------------------- private helpers


def _rates_title(found: LearningRateRange) -> str:
    if not np.isfinite(found.suggestion):
        return "No learning rate is stable"
    # What "stable" means, in words: Adam divides by the gradient and never diverges.
    limit = f"up to {found.largest_stable:.3g} the loss ends no higher than it began"
    if found.largest_stable >= found.rates[-1]:
        limit = "none that was tried raises the loss"
    return f"Take a learning rate of {found.suggestion:.3g};\n{limit}"


def _rates_of_interest(found: LearningRateRange) -> tuple[float, float]:
    """Return the rates from where the loss begins to fall to well above the stable."""
    low, high = float(found.rates[0]), float(found.rates[-1])
    if not np.isfinite(found.largest_stable):
        return low, high
    first = float(found.loss[0, 0])
    falls = found.rates[np.asarray(found.final) < 0.9 * first]
    begin = min([*falls[:1], found.suggestion]) / 3.0
    return max(low, float(begin)), min(high, 30.0 * float(found.largest_stable))


def _mark_answers(axes: "Axes", found: LearningRateRange, size: float) -> None:
    """Draw the two answers above all else: a line each, and a star for the first."""
    if not np.isfinite(found.suggestion):
        return
    for value, label, line in (
        (found.suggestion, "suggestion", "-"),
        (found.largest_stable, "largest stable", "--"),
    ):
        options = {"linestyle": line, "linewidth": 0.12 * size, "zorder": 4}
        axes.axvline(value, color="black", label=f"{label}: {value:.3g}", **options)
    nearest = int(np.argmin(np.abs(np.log(found.rates / found.suggestion))))
    canvas.dots(
        axes,
        [found.rates[nearest]],
        [found.final[nearest]],
        marker="*",
        color=OKABE_ITO[2],
        edge="black",
        scale=1.5,
        order=5,
    )


_COSTS = {
    "gradient_evaluations": (
        "gradient evaluations",
        lambda entry: entry.num_gradients + 0.5 * entry.num_values,
    ),
    "seconds": ("time [s]", lambda entry: entry.seconds),
    "step": ("step t", lambda entry: entry.loss.shape[1]),
}
