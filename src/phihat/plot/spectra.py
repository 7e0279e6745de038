"""Curvature: the density of eigenvalues, and sharpness at the edge of stability."""

from typing import TYPE_CHECKING, Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat.curvature import SpectralDensity
from phihat.plot import canvas
from phihat.plot.curves import draw_curves, prepare_curves
from phihat.plot.paths import by_name, history_of
from phihat.plot.styles import OKABE_ITO
from phihat.results import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sharpness", "spectral_density"]


@_calls.public
def spectral_density(
    found: SpectralDensity, *, yscale: str = "log", axes: Any = None
) -> "Axes":
    """Draw how the eigenvalues of a Hessian are spread.

    Args:
      found: from `phihat.spectral_density`.
      yscale: "log" shows the few eigenvalues far out; or "linear".
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes, with a band of one standard error.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `found` is not a `SpectralDensity`.
      ValueError: `yscale` is not one of these.

    Example:
      >>> import jax.numpy as jnp
      >>> import phihat
      >>> found = phihat.spectral_density(lambda p: p @ p, jnp.ones(3))
      >>> axes = spectral_density(found)
      >>> axes.get_ylabel()
      'share of eigenvalues per unit'
    """
    call = "spectral_density"
    _checks.check_choice(call, "yscale", yscale, ("linear", "log"))
    canvas.check_kind(call, "found", found, SpectralDensity, "phihat.spectral_density")
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    grid, density, error = (np.asarray(part, float) for part in found[:3])
    # Gaussian tails fall to zero, and with them a logarithmic axis.
    floor = 1e-6 * density.max()
    shown = np.maximum(density, floor) if yscale == "log" else density
    low = np.maximum(density - error, floor if yscale == "log" else 0.0)
    axes.plot(grid, shown, color=OKABE_ITO[1], linewidth=0.14 * size, label="density")
    if (error > 0).any():
        axes.fill_between(
            grid,
            low,
            np.maximum(density + error, low),
            color=OKABE_ITO[1],
            alpha=0.25,
            linewidth=0,
            label="± one standard error",
        )
    axes.axvline(0.0, color="black", linestyle=":", linewidth=0.1 * size)
    if yscale == "log":
        axes.set_ylim(floor, 3.0 * float((density + error).max()))
        canvas.set_log(axes, "y")
    nodes = np.asarray(found.nodes, float)
    title = f"Eigenvalues of the Hessian: {nodes.min():.4g} to {nodes.max():.4g}"
    x, y = "eigenvalue λ of the Hessian", "share of eigenvalues per unit"
    canvas.finish(axes, title, x, y)
    canvas.legend_below(axes)
    return axes


@_calls.public
def sharpness(
    results: Any, *, learning_rate: float | None = None, axes: Any = None
) -> "Axes":
    r"""Draw the sharpness along fits against $2 / \alpha$, the edge of stability.

    Gradient descent of rate $\alpha$ cannot settle where the largest eigenvalue of the
    Hessian exceeds $2 / \alpha$.

    Args:
      results: as for `loss_curves`, with "sharpness" recorded.
      learning_rate: $\alpha$; where None, it must be recorded as "learning_rate".
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `results` has the wrong type.
      ValueError: "sharpness" or "learning_rate" was not recorded.

    Example:
      >>> import jax.numpy as jnp
      >>> import phihat
      >>> result = phihat.fit(
      ...     lambda p: p @ p,
      ...     jnp.ones(2),
      ...     phihat.gradient_descent(0.1),
      ...     num_steps=5,
      ...     record=("loss", "sharpness", "learning_rate"),
      ... )
      >>> axes = sharpness(result)
      >>> print(axes.lines[-1].get_ydata().round(3))
      [20. 20. 20. 20. 20.]

    References:
      Cohen, Kaur, Li, Kolter, Talwalkar, *Gradient descent on neural networks typically
      occurs at the edge of stability*, 2021.
    """
    call = "sharpness"
    named = by_name(call, results)
    for name, result in named.items():
        if isinstance(result, FitResult):
            history_of(call, name, result, "sharpness")
            if learning_rate is None:
                history_of(call, name, result, "learning_rate")
    curves = prepare_curves(results, quantity="sharpness")
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    names = {name: name or "sharpness λ" for name in curves}
    draw_curves(axes, {names[name]: curve for name, curve in curves.items()})
    edges = {}
    for name, curve in curves.items():
        if learning_rate is not None:
            edges[f"2 / α = {2.0 / learning_rate:.4g}"] = (
                curve.x,
                np.full(len(curve.x), 2.0 / learning_rate),
            )
            continue
        rate = prepare_curves(named[name], quantity="learning_rate")[""].middle
        edge = 2.0 / rate
        is_constant = np.ptp(edge) == 0
        label = f"2 / α = {edge[0]:.4g}" if is_constant else f"2 / α {name}".strip()
        edges[label] = (curve.x, edge)
    for label, (x, edge) in edges.items():
        axes.plot(
            x, edge, color="black", linestyle="--", linewidth=0.12 * size, label=label
        )
    canvas.finish(
        axes, "Sharpness and the edge of stability", "step t", "largest eigenvalue λ"
    )
    canvas.whole_ticks(axes.xaxis)
    canvas.legend_below(axes)
    return axes
