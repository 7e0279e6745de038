"""The arguments of `fit_curve`, brought to one form or refused by one sentence."""

import dataclasses
from typing import Any

import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import tree as _tree
from phihat.curves import missing, model_checks
from phihat.curves.arrays import as_tree, refuse_traces
from phihat.curves.bounds import Bounds, as_bounds, as_free, check_start
from phihat.curves.options import Options
from phihat.curves.param_names import Layout, describe
from phihat.curves.residuals import Inputs, Target, each_model
from phihat.curves.row_labels import warn_of_other_rows
from phihat.curves.weights import as_weights, check_squares

__all__ = ["Problem", "prepare", "with_model"]

_FEW_NUMBERS = 2**15
"""Derivatives of all points up to which a fit takes less time than to compile it."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One curve, its arrays in NumPy.

    Attributes:
      model: `(params, x) -> prediction`; None where a pickle has lost it.
      layout: how the params lie in a vector.
      bounds: of all params.
      target: the structure of y.
      start: all params, [P].
      inputs: the numbers.
      x: as it was given, in float64.
      y: as it was given, in float64, a tree.
      sigma: as it was given, in float64, or None.
      options: what else was asked.
    """

    model: Any
    layout: Layout
    bounds: Bounds
    target: Target
    start: np.ndarray
    inputs: Inputs
    x: PyTree
    y: PyTree
    sigma: Any
    options: Options

    @property
    def runs_briefly(self) -> bool:
        """Whether it takes less time to fit than to optimize the program of the fit."""
        return self.target.size * max(self.layout.size, 1) <= _FEW_NUMBERS

    @property
    def num_points(self) -> int:
        """How many real numbers of y count."""
        mask = self.inputs.mask
        return self.target.size if mask is None else int(np.sum(mask))


def prepare(
    call: str,
    model: Any,
    x: Any,
    y: Any,
    start: Any,
    options: Options,
    *,
    sigma: Any = None,
    bounds: Any = None,
    fixed: Any = None,
) -> Problem:
    """Check the arguments of `fit_curve` and return the problem that they make."""
    if not isinstance(model, (dict, list, tuple)):
        model_checks.check_signature(call, model)
    refuse_traces(call, "start", start)
    layout, values = describe(call, start)
    warn_of_other_rows(call, x=x, y=y, sigma=sigma)
    x, y = as_tree(call, "x", x), as_tree(call, "y", y, allows_complex=True)
    model = _as_model(call, model, x, y)
    box = as_bounds(call, layout, bounds)
    layout = as_free(call, layout, fixed, box)
    values = check_start(call, layout, values, box)
    target = Target.of(y)
    if target.size == 0:
        raise ValueError(
            f"{call}: `y` has no rows: there is nothing to fit; look at the filter "
            "that made it."
        )
    missing.check_rows(call, x, y)
    clean = missing.remove(call, x, y, options.nan_policy)
    weights = as_weights(call, sigma, y, target, clean.mask)
    check_squares(call, clean.y, weights.scale, options.dtype)
    model_checks.check_rounding(call, x, options.dtype)
    inputs = Inputs(
        x=clean.x,
        y=clean.y,
        fixed=values,
        mask=clean.mask,
        scale=weights.scale,
        whitener=weights.whitener,
        f_scale=None if options.loss == "linear" else np.asarray(options.f_scale),
    )
    problem = Problem(
        model=model,
        layout=layout,
        bounds=box,
        target=target,
        start=values,
        inputs=inputs.cast(options.dtype),
        x=x,
        y=y,
        sigma=None if sigma is None else as_tree(call, "sigma", sigma),
        options=options,
    )
    layout.check_count(call, problem.num_points, "data points")
    model_checks.check_model(call, model, layout, target, inputs, options.dtype)
    return problem


def with_model(call: str, problem: Problem, model: Any) -> Problem:
    """Return a problem with its model, which a pickle has lost."""
    model = _as_model(call, model, problem.x, problem.y)
    layout, target, dtype = problem.layout, problem.target, problem.options.dtype
    model_checks.check_model(call, model, layout, target, problem.inputs, dtype)
    return dataclasses.replace(problem, model=model)


# ------------------------------------------------------------------------- private


def _as_model(call: str, model: Any, x: PyTree, y: PyTree) -> Partial:
    """Return the model, or one for each of several data sets, as one `Partial`."""
    if not isinstance(model, (dict, list, tuple)):
        return _tree.as_partial(model, call, "model")
    models = dict(model) if isinstance(model, dict) else tuple(model)
    keys = list(models) if isinstance(models, dict) else range(len(models))
    for key in keys:
        model_checks.check_signature(call, models[key])
    for name, part in (("x", x), ("y", y)):
        fits = isinstance(part, type(models)) and len(part) == len(models)
        if not fits or (isinstance(models, dict) and set(part) != set(models)):
            raise ValueError(
                f"{call}: with a model for each data set, `{name}` must be a "
                f"{type(models).__name__} with the same entries, {list(keys)}."
            )
    wrap = lambda entry: _tree.as_partial(entry, call, "model")  # noqa: E731
    wrapped = (
        {key: wrap(entry) for key, entry in models.items()}
        if isinstance(models, dict)
        else tuple(map(wrap, models))
    )
    return Partial(each_model, wrapped)
