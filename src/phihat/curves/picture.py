"""The picture of a fitted curve: data, curve, bands, and residuals below."""

from typing import Any, NamedTuple

import numpy as np

from phihat._core import pictures as _pictures

__all__ = ["Panels", "draw"]

_DATA = "#000000"
_CURVE = "#D55E00"
_NUM_POINTS = 400


class Panels(NamedTuple):
    """The axes of a picture; a notebook shows it where a cell ends with them.

    Attributes:
      curve: with the data, the curve and its bands.
      residuals: below.
    """

    curve: Any
    residuals: Any

    @property
    def figure(self) -> Any:
        """The figure of both."""
        return self.curve.figure

    def savefig(self, path: Any, **options: Any) -> None:
        """Write the figure to a file, as matplotlib's `Figure.savefig` does."""
        self.figure.savefig(path, **options)

    def _repr_png_(self) -> bytes | None:
        # pyplot shows its own figures.
        show = getattr(self.figure, "_repr_png_", None)
        return None if show is None else show()


def draw(fit: Any, problem: Any, axes: Any, level: float) -> Panels:
    """Draw a `CurveFit`; return the axes of the curve and of the residuals."""
    y: Any = problem.y
    x = _only(problem.x)
    is_plain = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    if not is_plain or x.shape != y.shape or x.ndim != 1 or np.iscomplexobj(y):
        raise ValueError(
            "CurveFit.plot: a picture needs one x and one real y, both [I]; draw from "
            "`.predict()` and `.residuals` instead."
        )
    upper, lower = _make_axes() if axes is None else axes
    counts = np.isfinite(fit.residuals) & np.isfinite(x)
    _draw_curve(upper, fit, problem, x[counts], level)
    bars = _error_bars(problem, counts)
    style = {"fmt": "o", "color": _DATA, "markersize": 3.5, "linewidth": 0.8}
    upper.errorbar(x[counts], y[counts], bars, label="data", zorder=2, **style)
    lower.axhline(0.0, color=_CURVE, linewidth=1.2)
    lower.errorbar(x[counts], fit.residuals[counts], bars, **style)
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    upper.tick_params(labelbottom=False)
    upper.set_ylabel("y")
    lower.set_ylabel("residual")
    lower.set_xlabel("x")
    upper.set_title(f"{fit.model_name}\n{_params_line(fit)}", fontsize=9)
    upper.legend(frameon=False, fontsize=9)
    return Panels(upper, lower)


# ------------------------------------------------------------------------- private


def _only(x: Any) -> Any:
    """Return the one column of a table of one column, else x itself."""
    is_table = isinstance(x, dict) and len(x) == 1
    return next(iter(x.values())) if is_table else x


def _make_axes() -> Any:
    upper, lower = _pictures.draw("make_axes", 2, 1, size=(6.5, 5.5))[:, 0]
    upper.get_gridspec().set_height_ratios([3, 1])
    upper.sharex(lower)
    return upper, lower


def _draw_curve(axes: Any, fit: Any, problem: Any, x: np.ndarray, level: float) -> None:
    """Draw the curve with its bands, on a fine grid where the model takes one."""
    grid = np.linspace(x.min(), x.max(), _NUM_POINTS)
    try:
        bands = fit.predict(_like(problem.x, grid), level=level)
        if np.shape(bands.value) != grid.shape:
            raise ValueError
    except Exception:  # a model that only takes the x of the data
        order = np.argsort(problem.x, kind="stable")
        grid = problem.x[order]
        bands = type(bands_at := fit.predict(level=level))(
            *(None if part is None else part[order] for part in bands_at)
        )
    percent = f"{100 * level:.3g}%"
    if bands.prediction_low is not None:
        axes.fill_between(
            grid,
            bands.prediction_low,
            bands.prediction_high,
            color=_CURVE,
            alpha=0.12,
            linewidth=0,
            label=f"{percent} of new data",
        )
    axes.fill_between(
        grid,
        bands.low,
        bands.high,
        color=_CURVE,
        alpha=0.35,
        linewidth=0,
        label=f"{percent} band of the curve",
    )
    axes.plot(grid, bands.value, color=_CURVE, linewidth=1.5, label="fit", zorder=3)


def _like(x: Any, grid: np.ndarray) -> Any:
    return {key: grid for key in x} if isinstance(x, dict) else grid


def _error_bars(problem: Any, counts: np.ndarray) -> Any:
    sigma = problem.sigma
    if sigma is None:
        return None
    if sigma.ndim == 2:
        sigma = np.sqrt(np.diagonal(sigma))
    return np.broadcast_to(sigma, counts.shape)[counts]


def _params_line(fit: Any) -> str:
    shown = [f"{row.name} = {row.number}" for row in fit.rows()]
    extra = [f"{len(shown) - 4} more"] if len(shown) > 4 else []
    return ", ".join(shown[:4] + extra)
