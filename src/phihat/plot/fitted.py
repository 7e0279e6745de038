r"""A fitted model over its data, alone or beside the loss surface."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, ModelFn, Params
from phihat.plot import canvas
from phihat.plot.landscapes import loss_surface
from phihat.plot.paths import flat_params, history_of, spent_rows
from phihat.plot.styles import OKABE_ITO, make_styles
from phihat.plot.surfaces import Surface
from phihat.results import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["evaluate_model", "fitted_model", "shades", "surface_and_model"]


@_calls.public
def fitted_model(
    model: ModelFn,
    result: Any,
    data: Batch,
    *,
    rows: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    axes: Any = None,
) -> "Axes":
    """Draw a model of one input over its data, as it was fitted or step by step.

    Args:
      model: `(params, x) -> prediction`.
      result: a `FitResult`: with "params" recorded, the model is drawn at several
        steps, dark to light; else at its end. Or the params of one model, or with
        `names` a list of those of several.
      data: (x [I] or [I, 1], y [I] or [I, 1]).
      rows: which rows of the history; by default 0, 1, 4, 16, ... and the last.
      names: what the models in a list are called.
      axes: where to draw; a new figure by default, which is `axes.figure`.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing.
      TypeError: `data` is not a pair (x, y).
      ValueError: x or y has several columns; `rows` needs "params" in the history;
        `names` and the models differ in number.

    Example:
      >>> import phihat
      >>> data = phihat.datasets.linear_regression()
      >>> axes = fitted_model(phihat.models.polynomial, jnp.asarray([0.8, 0.5]), data)
      >>> print(len(axes.lines[-1].get_xdata()))
      12
    """
    call = "fitted_model"
    if names is not None and isinstance(result, FitResult):
        raise TypeError(
            f"{call}: `names` are those of several models in a list, got one FitResult."
        )
    if names is None:
        chosen = _chosen_params(call, result, rows)
    elif len(names) == len(result):
        chosen = dict(zip(names, result, strict=True))
    else:
        raise ValueError(
            f"{call}: `names` must be as many as the models, {len(result)}, got "
            f"{len(names)}."
        )
    x, y = _pair(call, data)
    axes = canvas.one_axes(call, axes)
    size = canvas.text_size(axes)
    # Steps get shades in their order; models by name, the colours of their paths.
    looks = make_styles(chosen)
    colors = (
        shades(len(chosen))
        if names is None
        else [look.color for look in looks.values()]
    )
    for (label, params), color in zip(chosen.items(), colors, strict=True):
        places, values = _evaluate("fitted_model", model, params, data, 400)
        axes.plot(
            places,
            values,
            color=color,
            linestyle="-" if names is None else looks[label].line,
            linewidth=0.16 * size,
            label=label,
        )
    canvas.dots(
        axes,
        x,
        y,
        color=OKABE_ITO[0] if names is None else "black",
        scale=0.6,
        label="data",
    )
    canvas.finish(axes, _title(chosen, names), "x", "y")
    canvas.legend_below(axes)
    return axes


@_calls.public
def evaluate_model(
    model: ModelFn, params: Params, data: Batch, *, num_points: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a model on even points over its data.

    Args:
      model: `(params, x) -> prediction`.
      params: of the model.
      data: (x [I] or [I, 1], y).
      num_points: how many, N.

    Returns:
      The points [N] and the predictions [N].

    Raises:
      TypeError: `data` is not a pair (x, y).
      ValueError: x or y has several columns.

    Example:
      >>> import phihat
      >>> data = jnp.asarray([0.0, 2.0]), jnp.asarray([0.0, 1.0])
      >>> params = jnp.asarray([1.0, 1.0])
      >>> x, y = evaluate_model(phihat.models.polynomial, params, data, num_points=3)
      >>> print(y)
      [1. 2. 3.]
    """
    return _evaluate("evaluate_model", model, params, data, num_points)


@_calls.public
def surface_and_model(
    surface: Surface,
    model: ModelFn,
    result: FitResult,
    data: Batch,
    *,
    rows: Sequence[int] | None = None,
    axes: Any = None,
) -> tuple["Axes", "Axes"]:
    """Draw a fit twice, side by side: its path on the loss, and the model it moves.

    Args:
      surface: from `evaluate_surface`.
      model: `(params, x) -> prediction`.
      result: a `FitResult` with "params" recorded.
      data: (x [I], y [I]).
      rows: at which rows of the history the model is drawn, as for `fitted_model`.
      axes: two axes; a new figure by default, which is `axes[0].figure`.

    Returns:
      The axes of the surface, and those of the model.

    Raises:
      ImportError: matplotlib is missing.
      ValueError: "params" was not recorded.

    Example:
      >>> import phihat
      >>> data = phihat.datasets.linear_regression()
      >>> loss_fn = phihat.losses.least_squares(phihat.models.polynomial)
      >>> result = phihat.fit(
      ...     loss_fn,
      ...     jnp.asarray([1.6, -0.5]),
      ...     phihat.gradient_descent(0.02),
      ...     data,
      ...     num_steps=4,
      ...     record="params",
      ... )
      >>> box = phihat.Box([0.0, -1.0], [2.0, 1.0])
      >>> surface = phihat.plot.evaluate_surface(loss_fn, box, data, shape=(21, 21))
      >>> left, right = surface_and_model(
      ...     surface, phihat.models.polynomial, result, data
      ... )
      >>> right.get_legend_handles_labels()[1]
      ['step 0', 'step 1', 'step 4', 'data']
    """
    call = "surface_and_model"
    history_of(call, "", result, "params")
    left, right = canvas.several_axes(call, axes, 2, (13.0, 5.8))
    loss_surface(surface, result, axes=left)
    left.get_legend().remove()  # type: ignore[union-attr]
    fitted_model(model, result, data, rows=rows, axes=right)
    chosen = list(_chosen_params(call, result, rows).values())
    points = np.stack([flat_params(one) for one in chosen])
    left.scatter(
        *surface.coordinates(points).T,
        s=(0.75 * canvas.text_size(left)) ** 2,
        color=shades(len(points)),
        edgecolors="white",
        zorder=6,
    )
    return left, right


def shades(number: int) -> Any:
    """Return colours from dark to light, none too light for a white page."""
    from matplotlib import colormaps

    return colormaps["cividis"](np.linspace(0.0, 0.85, number))


# -------------------------------------------------------------------- private helpers


def _title(chosen: dict[str, Params], names: Any) -> str:
    if names is not None:
        return "Models over the data"
    if len(chosen) > 1:
        first, *_, last = chosen
        return f"The model over its data, from {first} to {last}"
    return "The model over its data"


def _chosen_params(call: str, result: Any, rows: Any) -> dict[str, Params]:
    """Return the params to draw, by the name of their step."""
    if not isinstance(result, FitResult):
        return {"model": result}
    if np.ndim(result.status):
        raise ValueError(
            f"{call}: `result` has {np.size(result.status)} lanes; choose one, by "
            "`jax.tree.map(lambda leaf: leaf[0], result)`."
        )
    if rows is None and "params" not in result.history:
        return {"fit": result.params}
    stacked = history_of(call, "", result, "params")
    steps, made = spent_rows(result)
    last = int(made.sum())
    names = [*steps[0][:last], steps[0][0] + int(result.num_steps)]
    if rows is None:
        powers = 4 ** np.arange(16)
        rows = [0, *(int(row) for row in powers if row < 0.8 * last), last]
    if len(rows) == 0:
        raise ValueError(f"{call}: `rows` must name at least one row, got {rows!r}.")
    chosen = {}
    for row in rows:
        if not -last - 1 <= row <= last:
            raise ValueError(f"{call}: `rows` must lie in [0, {last}], got {row}.")
        place = range(last + 1)[row]
        take = operator.itemgetter(place)
        chosen[f"step {names[place]}"] = jax.tree.map(take, stacked)
    return chosen


def _evaluate(
    call: str, model: ModelFn, params: Params, data: Batch, num_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a model on even points, in the name of the call that was made."""
    _checks.check_arrays(call, "params", params)
    x, _ = _pair(call, data)
    num_points = _checks.check_count(call, "num_points", num_points, 2)
    places = np.linspace(x.min(), x.max(), num_points)
    given = jnp.asarray(data[0])
    is_float = jnp.issubdtype(given.dtype, jnp.floating)
    inputs = jnp.asarray(places, given.dtype if is_float else _tree.default_float())
    values = np.asarray(model(params, inputs.reshape(-1, *given.shape[1:])), float)
    if values.size != num_points:
        raise ValueError(
            f"{call}: the model must predict one number for each x, got shape "
            f"{list(values.shape)} for {num_points}."
        )
    return places, values.ravel()


def _pair(call: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"{call}: `data` must be a pair (x, y), got {_checks.brief(data)}."
        )
    x, y = (
        _checks.as_floats(call, f"data[{place}]", part)
        for place, part in enumerate(data)
    )
    for name, part in (("x", x), ("y", y)):
        if part.size != len(np.atleast_1d(part)):
            raise ValueError(
                f"{call}: `data` must have one {name} a row to be drawn in a plane, "
                f"got shape {list(part.shape)}."
            )
    if x.size != y.size:
        raise ValueError(
            f"{call}: `data` must have as many x as y, got {x.size} and {y.size}."
        )
    return x.ravel(), y.ravel()
