"""Many curves at once: `fit_curves`."""

from typing import Any

import numpy as np

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import ModelFn, Params, Status
from phihat.curves import chunked_fits, statistics
from phihat.curves.many_problems import ManyProblems, prepare_many
from phihat.curves.many_results import CurveFits
from phihat.curves.options import check_options

__all__ = ["fit_curves"]


@_calls.public
def fit_curves(
    model: ModelFn,
    x: Any,
    y: Any,
    start: Params,
    *,
    mask: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    bounds: Any = None,
    fixed: Any = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    nan_policy: str = "raise",
    tolerance: Any = None,
    num_steps: int = 1000,
    dtype: Any = None,
    max_bytes: int | None = None,
    progress: bool = False,
) -> CurveFits:
    """Fit one model to many curves: as `fit_curve` for each, in one program.

    The curves are fitted in chunks, on all local devices; those that have ended leave,
    and one that fails disturbs no other.

    Args:
      model: `(params, x) -> prediction` of one curve.
      x: of all curves, as in `fit_curve`; arrays [N, I, ...] are each curve's own.
      y: [N, I] or [N, I, ...], a row for each curve; a list or a dict of curves, which
        may differ in length if x is a list or a dict likewise, or be empty or None; a
        DataFrame with a row for each curve. Keys and row labels become the labels of
        the curves.
      start: a first guess for every param; a leaf with a leading axis N is one for each
        curve, as are a list of N starts and a DataFrame with a column for each param.
      mask: bools [N, I], True where a point counts.
      sigma: one number, [I] for all curves, [N, 1] or [N, I]; where the curves differ
        in length, a list or a dict like y.
      absolute_sigma: as in `fit_curve`, like all that follow.
      bounds: as in `fit_curve`; an end may be an array [N], one for each curve.
      fixed: names of params that stay at their start, or a tree of bools.
      loss: "linear", "soft_l1", "huber", "cauchy" or "arctan".
      f_scale: where a robust loss begins to bend.
      nan_policy: "raise", "omit" or "propagate".
      tolerance: as in `fit`; by default fits end at the precision of the numbers.
      num_steps: the budget of each curve.
      dtype: float64 by default; float32 is faster, and good for 3 or 4 digits.
      max_bytes: for the arrays of one chunk; 2 GiB by default.
      progress: show a bar.

    Returns:
      `CurveFits`: arrays with a row for each curve; `fits[k]` reports on one. A curve
      with fewer points than params has NaN for them, and did not converge.

    Raises:
      TypeError: an argument has the wrong type, or is traced.
      ValueError: an argument has a wrong value. Both say what to do.

    Example:
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> def decay(params, t):
      ...     return params["height"] * jnp.exp(-t / params["lifetime"])
      >>> t = np.linspace(0.0, 5.0, 40)
      >>> heights = np.linspace(1.0, 2.0, 100)
      >>> noise = 0.01 * np.sin(np.arange(4000.0)).reshape(100, 40)
      >>> y = heights[:, None] * np.exp(-t / 1.5) + noise
      >>> fits = fit_curves(decay, t, y, {"height": 1.0, "lifetime": 1.0})
      >>> table = fits.to_pandas()
      >>> table.shape, bool(np.allclose(fits.params["lifetime"], 1.5, rtol=0.02))
      ((100, 14), True)
    """
    call = "fit_curves"
    if not isinstance(progress, bool):
        raise TypeError(
            f"{call}: `progress` must be True or False, got {_checks.brief(progress)}."
        )
    _checks.check_max_bytes(call, max_bytes)
    options = check_options(
        call,
        has_sigma=sigma is not None,
        absolute_sigma=absolute_sigma,
        loss=loss,
        f_scale=f_scale,
        nan_policy=nan_policy,
        tolerance=tolerance,
        num_steps=num_steps,
        dtype=dtype,
    )
    rest = {"mask": mask, "sigma": sigma, "bounds": bounds, "fixed": fixed}
    many = prepare_many(call, model, x, y, start, options, **rest)
    return _conclude(
        many, chunked_fits.run(many, max_bytes=max_bytes, progress=progress)
    )


# ------------------------------------------------------------------------- private

_BLOCK = 2**15
"""Curves at once in NumPy, so that no array as large as the data is made."""


def _conclude(many: ManyProblems, ends: chunked_fits.LaneResults) -> CurveFits:
    layout = many.layout
    places = layout.free_places
    num_points = many.num_points
    covariance = np.zeros([many.num_curves, layout.size, layout.size])
    scatter = np.empty(many.num_curves)
    for begin in range(0, many.num_curves, _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        mask = many.inputs.mask
        scatter[rows] = statistics.scatter(
            many.inputs.y[rows].astype(np.float64), None if mask is None else mask[rows]
        )
        spare = num_points[rows] - places.size
        one = np.ones(len(spare))
        known = many.options.absolute_sigma
        block = statistics.covariance_of_gram(
            ends.gram[rows],
            one if known else ends.total[rows],
            one if known else spare,
        )
        covariance[rows, places[:, None], places[None, :]] = block
    values = many.start.copy()
    values[:, places] = ends.free
    is_short = num_points < places.size
    values[np.ix_(is_short, places)] = np.nan
    status = np.where(is_short, Status.NONFINITE_PARAMS, ends.status).astype(np.int32)
    unknown = np.where(is_short, np.nan, 0.0)  # no curve, so nothing that it misses
    measures = statistics.quality(
        ends.chi_square + unknown,
        ends.misfit + unknown,
        scatter,
        num_points,
        places.size,
    )
    low, high = many.bounds
    at_bound = ((values <= low) | (values >= high)) & np.array(layout.free)
    return CurveFits(
        params=layout.as_tree(values),
        errors=layout.as_tree(statistics.errors_of(covariance)),
        names=layout.names,
        covariance=covariance,
        **measures._asdict(),
        num_points=num_points,
        num_steps=ends.num_steps,
        status=status,
        at_bound=at_bound,
        values=values,
        labels=many.labels,
        _many=many,
    )
