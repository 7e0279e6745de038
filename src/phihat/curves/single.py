"""One curve: `fit_curve`."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from phihat._core import calls as _calls
from phihat._core import tree as _tree
from phihat._core.types import Box, ModelFn, Params, Status
from phihat.curves import copying, curve_doubts, robust, statistics
from phihat.curves.arrays import is_one_array
from phihat.curves.model_checks import in_floats
from phihat.curves.options import check_options
from phihat.curves.problem import Problem, prepare
from phihat.curves.report import status_words
from phihat.curves.residuals import Prediction, curve_loss
from phihat.curves.result import CurveFit, makes_again, predict_at
from phihat.error_bars.confidence import find_intervals
from phihat.fitting import fit_as
from phihat.results import FitResult
from phihat.second_order import levenberg_marquardt

__all__ = ["conclude", "ended", "fit_curve", "rebuild", "restore", "unpickle"]


@_calls.public
def fit_curve(
    model: ModelFn,
    x: Any,
    y: Any,
    start: Params,
    *,
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
) -> CurveFit:
    r"""Fit a curve to a table of numbers: $\min_\phi \sum (f(\phi, x) - y)^2/\sigma^2$.

    It uses the Levenberg-Marquardt method, in float64 whatever `jax_enable_x64` says.
    If params depend on each other, write that in the model. It takes and returns NumPy
    arrays; inside jit, vmap and grad call `fit` instead.

    Args:
      model: `(params, x) -> prediction`, written with `jax.numpy`, with a result shaped
        like y; or a dict or a list of models, one for each of several data sets, which
        share the params.
      x: numbers in a list, an array, a Series; a tuple or a dict of such; a DataFrame
        is a dict of its columns. With several models, one x for each.
      y: [I] or [I, ...], also complex: its real and imaginary parts are fitted. With
        several models, one y for each.
      start: a first guess for every param, any pytree of numbers, such as
        `{"height": 1.0, "rate": 0.5}`; or a list of such starts, of which the best end
        is returned.
      sigma: the standard deviations of y: one number, one per row, one per entry, or a
        covariance [I, I].
      absolute_sigma: True if sigma is known absolutely. By default, as in SciPy, it is
        known only up to a factor, which is estimated from the scatter of the residuals.
      bounds: `{"rate": (0, None)}`, a `Box`, or a pair of trees (low, high).
      fixed: names of params that stay at their start, or a tree of bools.
      loss: "linear", or one that is robust against outliers, "soft_l1", "huber",
        "cauchy", "arctan", as `scipy.optimize.least_squares` defines them.
      f_scale: beyond this residual, divided by sigma, a robust loss grows more slowly.
      nan_policy: what to do about NaN in x and y: "raise", "omit" those points, or
        "propagate" them into the fit.
      tolerance: as in `fit`; by default the fit ends at the precision of the numbers.
      num_steps: the budget of steps.
      dtype: of the computation, float64 by default.

    Returns:
      A `CurveFit`; print it for the report. How the fit ended is its `.status`. Errors
      are infinite for the params alone that the data do not determine, where SciPy's
      `curve_fit` makes all of them infinite.

    Raises:
      TypeError: an argument has the wrong type, or is traced.
      ValueError: an argument has a wrong value. Both say what to do.

    Example:
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> def decay(params, t):
      ...     return params["height"] * jnp.exp(-t / params["lifetime"])
      >>> t = np.arange(8)
      >>> counts = [100, 61, 36, 23, 13, 8, 5, 3]
      >>> print(fit_curve(decay, t, counts, {"height": 50, "lifetime": 1}))
      decay: 8 points, 2 fitted params, ...
        param     value      error  percent
        height    100.1(5)   0.46   0.46 %
        lifetime  1.992(17)  0.017  0.84 %
        chi-square 1.48969, reduced 0.248282 (6 degrees of freedom)
        ...

    References:
      More, *The Levenberg-Marquardt algorithm: implementation and theory*, 1978.
    """
    call = "fit_curve"
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
    rest = {"sigma": sigma, "bounds": bounds, "fixed": fixed}
    ends = []
    for first_guess in _starts(start):
        problem = prepare(call, model, x, y, first_guess, options, **rest)
        ends.append((problem, _run(problem)))
    return conclude(*min(ends, key=lambda end: _rank(end[1])))


def conclude(problem: Problem, result: FitResult) -> CurveFit:
    """Return the report of a fit that has ended."""
    layout, inputs, target = problem.layout, problem.inputs, problem.target
    values = problem.start.copy()
    values[layout.free_places] = np.asarray(result.params, np.float64)
    found = predict_at(problem, values, inputs.x)
    residual = target.flatten(found.value) - inputs.y
    weighted, jacobian = _whiten(problem, residual, _flat_jacobian(problem, found))
    total, jacobian = _robust(problem, weighted, jacobian)
    covariance = _covariance(problem, jacobian, total)
    quality = _quality(problem, residual, weighted)
    mask = inputs.mask
    left_out = 0.0 if mask is None else np.where(mask, 0.0, np.nan)
    status, num_steps = int(result.status), int(result.num_steps)
    # In NumPy, since copies of float64 arrays of jax would be float32 outside.
    end = ended(np.asarray(result.params), np.asarray(result.loss), status, num_steps)
    return CurveFit(
        params=layout.as_tree(values),
        errors=layout.as_tree(statistics.errors_of(covariance)),
        names=layout.names,
        covariance=covariance,
        **{name: float(value) for name, value in quality._asdict().items()},
        residuals=target.unflatten(left_out - residual),
        num_points=problem.num_points,
        num_steps=num_steps,
        status=status_words(status, num_steps),
        success=status == Status.CONVERGED,
        bounds_reached=_reached(problem, values),
        loss=problem.options.loss,
        f_scale=problem.options.f_scale,
        absolute_sigma=problem.options.absolute_sigma,
        model_name=_name_of(problem.model),
        fixed=tuple(not entry for entry in layout.free),
        values=values,
        _problem=problem,
        _find_doubts=functools.partial(_doubts, problem, end),
        _find_intervals=functools.partial(_intervals, problem, end),
    )


def ended(free: np.ndarray, loss: Any, status: int, num_steps: int) -> FitResult:
    """Return the result of a fit that ended elsewhere: in a file, or in a chunk."""
    fields: dict[str, Any] = {
        "params": free,
        "loss": np.asarray(loss),
        "grad_norm": np.asarray(np.nan),
        "history": {},
        "status": np.asarray(status, np.int32),
        "num_steps": np.asarray(num_steps, np.int32),
        "state": None,
        "nonfinite_leaf": np.asarray(-1, np.int32),
        "nonfinite_data_leaf": np.asarray(-1, np.int32),
        "data_paths": (),
    }
    return FitResult(**fields)


@makes_again
def rebuild(fields: dict[str, Any], model: Any) -> CurveFit:
    """Return a fit that was read from a file."""
    arguments, doubts = fields.pop("problem"), fields.pop("doubts")
    problem = None
    loaded = CurveFit(**fields)
    if model is not None and arguments is not None:
        call = "CurveFit.load"
        names = ("x", "y", "sigma", "bounds", "fixed")
        data = {name: arguments.pop(name) for name in names}
        options = check_options(call, has_sigma=data["sigma"] is not None, **arguments)
        problem = prepare(call, model, start=loaded.params, options=options, **data)
        free = problem.start[problem.layout.free_places].astype(problem.options.dtype)
        found = conclude(problem, _end_of(loaded, free))
        return dataclasses.replace(found, status=loaded.status)
    return dataclasses.replace(loaded, _find_doubts=functools.partial(dict, doubts))


@makes_again
def unpickle(
    fields: dict[str, Any],
    doubts: dict[str, str],
    problem: Problem | None,
    packed: bytes | None,
) -> CurveFit:
    """Return a fit that was pickled, with its model where this process has it."""
    if problem is not None:
        problem = dataclasses.replace(problem, model=copying.unpack(packed))
    return restore(fields, doubts, problem)


@makes_again
def restore(
    fields: dict[str, Any], doubts: dict[str, str], problem: Problem | None
) -> CurveFit:
    """Return the fit of these numbers, which computes what needs the model, if any."""
    found = CurveFit(
        **fields, _problem=problem, _find_doubts=functools.partial(dict, doubts)
    )
    if problem is None or problem.model is None:
        return found
    free = found.values[problem.layout.free_places].astype(problem.options.dtype)
    intervals = functools.partial(_intervals, problem, _end_of(found, free))
    return dataclasses.replace(found, _find_intervals=intervals)


# ------------------------------------------------------------------------- private


def _end_of(found: CurveFit, free: np.ndarray) -> FitResult:
    status = Status.CONVERGED if found.success else Status.COMPLETED
    return ended(free, found.chi_square, status, found.num_steps)


def _starts(start: Any) -> list[Any]:
    """Return the starts: a list of dicts, or of lists of numbers, is several."""
    is_several = (
        isinstance(start, list)
        and bool(start)
        and not is_one_array(start)
        and len({jax.tree.structure(entry) for entry in start}) == 1
    )
    return start if is_several else [start]


def _run(problem: Problem) -> FitResult:
    layout, options, bounds = problem.layout, problem.options, problem.bounds
    places = layout.free_places
    with in_floats(options.dtype):
        return fit_as(
            "fit",
            _loss(problem),
            problem.start[places].astype(options.dtype),
            levenberg_marquardt(),
            _data(problem),
            num_steps=options.num_steps,
            tolerance=options.tolerance,
            projection=None if bounds.are_open else _box(problem),
            record=(),
            runs_briefly=problem.runs_briefly,
        )


def _loss(problem: Problem) -> Any:
    return curve_loss(
        problem.model, problem.layout, problem.target, problem.options.loss
    )


def _data(problem: Problem) -> Any:
    return (problem.inputs, np.zeros(problem.target.size, problem.options.dtype))


def _box(problem: Problem) -> Box:
    return problem.bounds.box(problem.layout.free_places, problem.options.dtype)


def _rank(result: FitResult) -> tuple[bool, float]:
    """Order the ends of several starts: those that are finite, by their loss."""
    loss = float(result.loss)
    return (not np.isfinite(loss), loss if np.isfinite(loss) else 0.0)


def _flat_jacobian(problem: Problem, found: Prediction) -> np.ndarray:
    """Return the derivatives of all residuals by the free params, [n, F]."""
    columns = [
        problem.target.flatten(
            jax.tree.map(lambda leaf, k=k: leaf[..., k], found.jacobian)
        )
        for k in range(len(problem.layout.free_names))
    ]
    return np.stack(columns, axis=1)


def _covariance(problem: Problem, jacobian: np.ndarray, total: float) -> np.ndarray:
    """Return the covariance of all params, zero for those that are held."""
    places, size = problem.layout.free_places, problem.layout.size
    spare = float(problem.num_points - places.size)
    if problem.options.absolute_sigma:
        total = spare = spare if spare > 0 else 1.0
    full = np.zeros((size, size))
    full[np.ix_(places, places)] = statistics.covariance(jacobian, total, spare)
    return full


def _quality(
    problem: Problem, residual: np.ndarray, weighted: np.ndarray
) -> statistics.Quality:
    mask = problem.inputs.mask
    raw = residual if mask is None else residual[mask]
    return statistics.quality(
        float(weighted @ weighted),
        float(raw @ raw),
        float(statistics.scatter(np.asarray(problem.inputs.y, np.float64), mask)),
        problem.num_points,
        len(problem.layout.free_names),
    )


def _whiten(
    problem: Problem, residual: np.ndarray, jacobian: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals and Jacobian over sigma; rows that do not count are zero."""
    inputs = problem.inputs
    if inputs.mask is not None:
        residual = np.where(inputs.mask, residual, 0.0)
        jacobian = np.where(inputs.mask[:, None], jacobian, 0.0)
    if inputs.scale is not None:
        scale = np.broadcast_to(inputs.scale, residual.shape).astype(float)
        residual, jacobian = residual * scale, jacobian * scale[:, None]
    if inputs.whitener is not None:
        residual, jacobian = inputs.whitener @ residual, inputs.whitener @ jacobian
    return residual, jacobian


def _robust(
    problem: Problem, weighted: np.ndarray, jacobian: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the robust sum and the Jacobian that SciPy makes the covariance of."""
    loss, f_scale = problem.options.loss, problem.options.f_scale
    if loss == "linear":
        return float(weighted @ weighted), jacobian
    z = (weighted / f_scale) ** 2
    total = f_scale**2 * float(robust.rho(loss, z, np).sum())
    return total, jacobian * np.sqrt(robust.curvature(loss, z, np))[:, None]


def _reached(problem: Problem, values: np.ndarray) -> tuple[str, ...]:
    low, high = problem.bounds
    sides = np.where(values <= low, "lower", np.where(values >= high, "upper", ""))
    return tuple(
        str(side) if free else ""
        for side, free in zip(sides, problem.layout.free, strict=True)
    )


def _measure(problem: Problem, result: FitResult, **options: Any) -> Any:
    with in_floats(problem.options.dtype):
        return find_intervals(
            _loss(problem),
            result,
            _data(problem),
            absolute_sigma=problem.options.absolute_sigma,
            box=None if problem.bounds.are_open else _box(problem),
            num_residuals=problem.num_points,
            runs_briefly=problem.runs_briefly,
            **options,
        )


def _doubts(problem: Problem, result: FitResult) -> dict[str, str]:
    found = _measure(problem, result)
    places, names = problem.layout.free_places, problem.layout.free_names
    with in_floats(problem.options.dtype):
        told = found.explain(names)
        errors = np.asarray(found.standard_errors)
    return curve_doubts.complete(
        told,
        names=names,
        free=np.asarray(result.params),
        start=problem.start[places].astype(problem.options.dtype),
        errors=errors,
        inputs=problem.inputs,
        loss=problem.options.loss,
    )


def _intervals(
    problem: Problem, result: FitResult, level: float, method: str
) -> dict[str, tuple[float, float]]:
    found = _measure(problem, result, level=level, method=method)
    ends = zip(np.asarray(found.low), np.asarray(found.high), strict=True)
    names = problem.layout.free_names
    return {
        name: (float(low), float(high))
        for name, (low, high) in zip(names, ends, strict=True)
    }


def _name_of(model: Any) -> str:
    """Return the name of a model's function, or what it is."""
    function = _tree.as_partial(model, "fit_curve", "model").func
    name = getattr(function, "__name__", type(function).__name__)
    if name == "each_model":
        parts = model.args[0]
        parts = parts.values() if isinstance(parts, dict) else parts
        return " and ".join(dict.fromkeys(_name_of(part) for part in parts))
    return "curve" if name == "<lambda>" else name
