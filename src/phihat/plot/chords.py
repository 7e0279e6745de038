"""A function along the segment between two points, and the chord it breaks."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Batch, LossFn
from phihat.plot import canvas
from phihat.plot.paths import flat_params
from phihat.plot.styles import OKABE_ITO
from phihat.plot.surfaces import evaluate_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Chord", "broken_chord", "evaluate_chord"]


class Chord(NamedTuple):
    """A function along a segment, and the straight line between its ends.

    Attributes:
      t: places from 0 (at a) to 1 (at b) [N].
      values: the function there [N].
      chord: the straight line there [N]; no convex function rises above it.
      place: where the function lies farthest above the chord, or where the witness is.
      gap: how far it lies above there; negative where it is below.
    """

    t: Float[np.ndarray, " N"]
    values: Float[np.ndarray, " N"]
    chord: Float[np.ndarray, " N"]
    place: float
    gap: float


@_calls.public
def evaluate_chord(
    loss_fn: LossFn, ends: Any, data: Batch = None, *, num_points: int = 201
) -> Chord:
    """Evaluate a loss along a segment of params.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      ends: a `ConvexityReport` that refutes convexity, whose witness is shown; or a
        pair of params (a, b).
      data: handed to `loss_fn`.
      num_points: N >= 3.

    Raises:
      TypeError: `ends` is neither of these.
      ValueError: the report has no witness.

    Example:
      >>> chord = evaluate_chord(lambda p: p**2, (-1.0, 1.0), num_points=5)
      >>> print(chord.values, chord.chord, chord.gap)
      [1.   0.25 0.   0.25 1.  ] [1. 1. 1. 1. 1.] 0.0
    """
    call = "evaluate_chord"
    count = _checks.check_count(call, "num_points", num_points, 3)
    place = None
    if hasattr(ends, "witness"):
        if ends.witness is None:
            raise ValueError(
                f"{call}: the report says {ends.verdict.name}, so there is no chord "
                "that breaks; give a pair of params (a, b) to draw another."
            )
        ends, place = (ends.witness.a, ends.witness.b), float(ends.witness.t)
    if not isinstance(ends, (tuple, list)) or len(ends) != 2:
        raise TypeError(
            f"{call}: `ends` must be a ConvexityReport or a pair of params, got "
            f"{_checks.brief(ends)}."
        )
    start, end = (flat_params(one) for one in ends)
    if start.shape != end.shape:
        raise ValueError(
            f"{call}: the two `ends` must be params of the same shapes, got "
            f"{start.size} and {end.size} numbers."
        )
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), ends[0])
    t = np.linspace(0.0, 1.0, count)
    plane = start, np.stack([end - start, np.zeros_like(start)])
    grid = evaluate_grid(call, loss_fn, example, *plane, (t, np.zeros(1)), data)
    values = grid[:, 0]
    chord = (1.0 - t) * values[0] + t * values[-1]
    gaps = np.where(np.isfinite(values), values - chord, -np.inf)
    nearest = int(np.argmax(gaps) if place is None else np.abs(t - place).argmin())
    return Chord(t, values, chord, float(t[nearest]), float(gaps[nearest]))


@_calls.public
def broken_chord(chord: Chord, *, axes: Any = None) -> "Axes":
    """Draw a function along a segment, the chord, and how far it rises above it.

    Args:
      chord: from `evaluate_chord`.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `chord` is not a `Chord`.

    Example:
      >>> axes = broken_chord(evaluate_chord(lambda p: p**2, (-1.0, 1.0)))
      >>> axes.get_title()
      'No point of this chord lies below the loss'
    """
    call = "broken_chord"
    canvas.check_kind(call, "chord", chord, Chord, "plot.evaluate_chord")
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    line, breaks, ends = OKABE_ITO[1], OKABE_ITO[0], "black"
    axes.plot(chord.t, chord.values, color=line, linewidth=0.16 * size, label="loss")
    axes.plot(
        chord.t,
        chord.chord,
        color=ends,
        linestyle="--",
        linewidth=0.12 * size,
        marker="o",
        markevery=[0, -1],
        markersize=0.6 * size,
        label="chord from a to b",
    )
    is_broken = chord.gap > 0
    if is_broken:
        foot = float(np.interp(chord.place, chord.t, chord.chord))
        axes.plot(
            [chord.place] * 2,
            [foot, foot + chord.gap],
            color=breaks,
            linewidth=0.2 * size,
            marker="_",
            markersize=size,
            label=f"{chord.gap:.3g} above the chord",
        )
    title = (
        "The loss rises above a chord: it is not convex"
        if is_broken
        else "No point of this chord lies below the loss"
    )
    canvas.finish(axes, title, "place t between a and b", "loss L[(1 − t) a + t b]")
    canvas.legend_below(axes)
    return axes
