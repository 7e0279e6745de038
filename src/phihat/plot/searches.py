"""How a line search closes in on a minimum."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat.line_searches import SearchResult
from phihat.plot import canvas
from phihat.plot.fitted import shades
from phihat.plot.styles import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Rounds", "bracket", "prepare_rounds", "searched_function"]


class Rounds(NamedTuple):
    """What a search looked at, round by round.

    Attributes:
      steps: [R, N]: a bracket of four, or one trial.
      values: the function there [R, N].
      found: the step found.
      value: the function there.
      converged: whether the search met its own test.
    """

    steps: Float[np.ndarray, "R N"]
    values: Float[np.ndarray, "R N"]
    found: float
    value: float
    converged: bool


@_calls.public
def prepare_rounds(result: SearchResult) -> Rounds:
    """Return the rounds that a search used.

    Args:
      result: of a search made with `trace=True`.

    Raises:
      TypeError: it is not a `SearchResult`.
      ValueError: it has no trace, or those of many searches.

    Example:
      >>> import phihat
      >>> search = phihat.bracketing(max_step=1.0, max_iterations=2, trace=True)
      >>> print(prepare_rounds(search(lambda s: (s - 0.3) ** 2)).steps.round(2))
      [[0.   0.33 0.66 1.  ]
       [0.   0.22 0.44 0.66]]
    """
    call = "bracket"
    if not isinstance(result, SearchResult):
        raise TypeError(
            f"{call}: `result` must be what a search returns, such as "
            f"`phihat.bracketing(trace=True)(fn)`, got {_checks.brief(result)}."
        )
    if result.trace is None:
        raise ValueError(
            f"{call}: the search kept no trace; make it with `trace=True`, such as "
            "`phihat.bracketing(trace=True)`."
        )
    if np.ndim(result.step):
        raise ValueError(
            f"{call}: `result` holds {np.size(result.step)} searches; choose one, by "
            "`jax.tree.map(lambda leaf: leaf[0], result)`."
        )
    count = int(result.num_iterations)
    return Rounds(
        steps=np.asarray(result.trace.steps, float)[:count],
        values=np.asarray(result.trace.values, float)[:count],
        found=float(result.step),
        value=float(result.value),
        converged=bool(result.converged),
    )


@_calls.public
def bracket(result: SearchResult, *, axes: Any = None) -> "Axes":
    """Draw the bracket of a line search shrinking, one row per round.

    Args:
      result: of a search made with `trace=True`: `bracketing`, `golden_section`, or
        one of those that make one trial a round.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes, round 1 at the top.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `result` is not the result of a search.
      ValueError: it has no trace.

    Example:
      >>> import phihat
      >>> search = phihat.golden_section(max_step=1.0, trace=True)
      >>> axes = bracket(search(lambda s: (s - 0.3) ** 2))
      >>> axes.get_legend_handles_labels()[1]
      ['a', 'b', 'c', 'd', 'found: s = 0.3']
    """
    call = "bracket"
    rounds = prepare_rounds(result)
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    numbers = np.arange(1, len(rounds.steps) + 1)
    if rounds.steps.shape[-1] > 1:
        axes.hlines(
            numbers,
            rounds.steps.min(axis=1),
            rounds.steps.max(axis=1),
            colors="#888888",
            linewidth=0.14 * size,
        )
    names = _names(rounds.steps.shape[-1])
    for name, column, color, marker in zip(
        names, rounds.steps.T, _COLORS, _MARKERS, strict=False
    ):
        canvas.dots(
            axes,
            column,
            numbers,
            marker=marker,
            color=color,
            scale=0.65,
            label=name,
            clip=False,
        )
    axes.axvline(
        rounds.found,
        color="black",
        linestyle=":",
        linewidth=0.12 * size,
        label=f"found: s = {rounds.found:.4g}",
    )
    axes.set_ylim(len(numbers) + 0.6, 0.4)
    axes.set_yticks(numbers[:: 1 + len(numbers) // 16])
    canvas.finish(axes, _title(rounds), "step s", "round")
    canvas.legend_below(axes)
    return axes


@_calls.public
def searched_function(
    fn: Callable[[Any], Any],
    result: SearchResult,
    *,
    num_points: int = 400,
    axes: Any = None,
) -> "Axes":
    """Draw the function that a line search was run on, and where the search looked.

    Args:
      fn: `step -> value`, what the search was given.
      result: of a search made with `trace=True`.
      num_points: where the function is evaluated for its curve.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes; early rounds are dark, late ones light.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `result` is not the result of a search.
      ValueError: it has no trace.

    Example:
      >>> import phihat
      >>> fn = lambda s: (s - 0.3) ** 2
      >>> search = phihat.bracketing(max_step=1.0, trace=True)
      >>> axes = searched_function(fn, search(fn))
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('step s', 'L(s)')
    """
    call = "searched_function"
    rounds = prepare_rounds(result)
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    finite = rounds.steps[np.isfinite(rounds.steps)]
    low, high = min(0.0, finite.min()), finite.max()
    count = _checks.check_count("searched_function", "num_points", num_points, 2)
    places = np.linspace(low, high, count)
    values = jax.vmap(fn)(jnp.asarray(places, _tree.default_float()))
    if getattr(values, "shape", None) != places.shape:
        raise TypeError(f"{call}: `fn` must return one number for each step.")
    axes.plot(places, values, color="black", linewidth=0.14 * size, label="L(s)")
    for number, shade in enumerate(shades(len(rounds.steps))):
        canvas.dots(
            axes,
            rounds.steps[number],
            rounds.values[number],
            color=shade,
            scale=0.65,
            label=f"round {number + 1}"
            if number in (0, len(rounds.steps) - 1)
            else None,
        )
    canvas.dots(
        axes,
        rounds.found,
        rounds.value,
        marker="*",
        color=OKABE_ITO[0],
        edge="black",
        scale=1.3,
        label=f"found: s = {rounds.found:.4g}",
        order=4,
    )
    canvas.finish(axes, _title(rounds), "step s", "L(s)")
    canvas.legend_below(axes)
    return axes


# -------------------------------------------------------------------- private helpers

_COLORS = (OKABE_ITO[1], OKABE_ITO[0], OKABE_ITO[2], OKABE_ITO[4])
_MARKERS = (">", "o", "s", "<")


def _names(count: int) -> tuple[str, ...]:
    return ("a", "b", "c", "d") if count == 4 else ("trial",)


def _title(rounds: Rounds) -> str:
    plural = "" if len(rounds.steps) == 1 else "s"
    how = "converged" if rounds.converged else "not converged"
    return f"Line search: {len(rounds.steps)} round{plural}, {how}"
