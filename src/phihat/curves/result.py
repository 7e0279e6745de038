"""What a fitted curve is: `CurveFit`, in NumPy, with its report."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from phihat._core import checks as _checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat.curves import copying, picture, report, saving, statistics
from phihat.curves.arrays import as_array, as_tree
from phihat.curves.model_checks import in_floats
from phihat.curves.problem import Problem, with_model
from phihat.curves.residuals import Prediction, predictions
from phihat.error_bars.confidence import quantile

__all__ = ["Bands", "CurveFit", "makes_again", "predict_at"]

_MAKERS: dict[str, Callable[..., "CurveFit"]] = {}
"""How a fit is made again from its parts, by name."""


def makes_again(maker: Callable[..., "CurveFit"]) -> Callable[..., "CurveFit"]:
    """Enter a function that makes a fit again; those that do need more than is here."""
    _MAKERS[maker.__name__] = maker
    return maker


class Bands(NamedTuple):
    """A curve with what is known of it, each shaped like the prediction.

    Attributes:
      value: the curve.
      error: its standard error, from the covariance of the params.
      low: the lower end of the confidence band, which holds the true curve.
      high: its upper end.
      prediction_low: the lower end of the prediction band, which holds a new
        measurement, or None where its sigma is not known.
      prediction_high: its upper end.
    """

    value: Any
    error: Any
    low: Any
    high: Any
    prediction_low: Any
    prediction_high: Any


@dataclasses.dataclass(frozen=True, repr=False)
class CurveFit(copying.Copied):
    """A fitted curve. Print it for the report.

    It can be pickled and copied. A pickle stores only the name of the model, so a
    lambda is lost; `with_model` adds it again.

    Attributes:
      params: the fitted params, a tree with the structure and order of `start`.
      errors: their standard errors, 0 where fixed, infinite where the data do not
        determine them.
      names: the name of every number among the params.
      covariance: [P, P], in the order of the names; zeros where fixed.
      chi_square: the sum of the squared residuals over sigma.
      reduced_chi_square: over the degrees of freedom.
      r_squared: the share of the scatter of y that the curve explains.
      aic: Akaike's criterion, as lmfit defines it.
      bic: Schwarz's criterion, as lmfit defines it.
      residuals: y minus the curve, shaped like y; NaN where a point was left out.
      num_points: how many real numbers of y counted.
      num_steps: the steps that the fit took.
      status: how it ended, in words.
      success: whether it converged.
      bounds_reached: for each param "lower" or "upper" where it lies at a bound.
      loss: the name of the loss.
      f_scale: where it begins to bend.
      absolute_sigma: whether sigma was taken as known.
      model_name: the name of the model.
      fixed: for each param, whether it was held.
      values: the params as numbers [P], in the order of the names.

    Example:
      >>> from phihat import fit_curve
      >>> line = lambda p, x: p["slope"] * x
      >>> fit = fit_curve(line, [1, 2, 3], [2.1, 3.9, 6.2], {"slope": 1})
      >>> fit.names, round(fit.params["slope"], 4)
      (('slope',), 2.0357)
    """

    params: Any
    errors: Any
    names: tuple[str, ...]
    covariance: np.ndarray
    chi_square: float
    reduced_chi_square: float
    r_squared: float
    aic: float
    bic: float
    residuals: Any
    num_points: int
    num_steps: int
    status: str
    success: bool
    bounds_reached: tuple[str, ...]
    loss: str
    f_scale: float
    absolute_sigma: bool
    model_name: str
    fixed: tuple[bool, ...]
    values: np.ndarray
    _problem: Problem | None = None
    _find_doubts: Callable[[], dict[str, str]] | None = None
    _find_intervals: Callable[..., Any] | None = None

    @property
    def degrees_of_freedom(self) -> int:
        """Data points less fitted params."""
        return self.num_points - (len(self.names) - sum(self.fixed))

    @property
    def correlations(self) -> np.ndarray:
        """The covariance over the errors, [P, P], with ones on the diagonal."""
        return statistics.correlations_of(self.covariance)

    @functools.cached_property
    def doubts(self) -> dict[str, str]:
        """The reasons to doubt the errors, each with a sentence."""
        return {} if self._find_doubts is None else self._find_doubts()

    def intervals(self, level: float = 0.95, *, method: str = "profile") -> Any:
        """Return confidence intervals of the fitted params.

        Args:
          level: the share of repeated experiments whose intervals hold the true param.
          method: "wald", from the covariance, or "profile", which need not be
            symmetric.

        Returns:
          `{name: (low, high)}`.

        Raises:
          ValueError: the model is not there, since the fit was loaded without it.
        """
        if self._find_intervals is None:
            raise ValueError(self._needs_model("intervals"))
        return self._find_intervals(level, method)

    def predict(
        self, x: Any = None, *, level: float = 0.95, sigma: Any = None
    ) -> Bands:
        r"""Return the curve at x, with its confidence and its prediction band.

        With the derivative $g$ of the curve by the params, their covariance $C$ and the
        quantile $q$ of the level (Student's t, or the normal where sigma is absolute)
        the bands are $\pm q \sqrt{g^\top C g}$ and
        $\pm q \sqrt{g^\top C g + s^2 \sigma^2}$.

        Args:
          x: where, like the x of the fit; None for the x of the fit itself.
          level: of the bands, in (0, 1).
          sigma: the standard deviation of a new measurement, in the units of the
            `sigma` of the fit; by default that of the fit, where it was one number or
            x is that of the fit.

        Returns:
          `Bands`.

        Raises:
          ValueError: a level outside (0, 1); no model.
        """
        problem = self._problem_with_model("predict")
        _check_level("predict", level)
        given = problem.x if x is None else as_tree("predict", "x", x)
        found = predict_at(problem, self.values, given)
        freedom = None if self.absolute_sigma else self.degrees_of_freedom
        reach = quantile(level, freedom)
        free = np.ix_(problem.layout.free_places, problem.layout.free_places)
        spread = self.covariance[free]
        errors = jax.tree.map(lambda leaf: _error_of(leaf, spread), found.jacobian)
        move = lambda sign, width: jax.tree.map(  # noqa: E731
            lambda value, error: value + sign * reach * error, found.value, width
        )
        noise = self._noise(found.value, x is None, sigma)
        low = high = None
        if noise is not None:
            both = jax.tree.map(_add_squares, errors, noise)
            low, high = move(-1.0, both), move(1.0, both)
        return Bands(found.value, errors, move(-1, errors), move(1, errors), low, high)

    def plot(self, *, axes: Any = None, level: float = 0.95) -> Any:
        """Draw data, curve and bands, and the residuals below them.

        Args:
          axes: a pair of axes of matplotlib, for the curve and for the residuals; None
            makes a figure.
          level: of the bands.

        Returns:
          The pair of axes, with `.figure` and `.savefig(path)`.

        Raises:
          ImportError: matplotlib is missing.
          ValueError: no model, or data that are not a curve over one x.
        """
        return picture.draw(self, self._problem_with_model("plot"), axes, level)

    def to_pandas(self) -> Any:
        """Return a table with a row for each param: value, error, percent, remark."""
        pandas = _checks.require("CurveFit.to_pandas", "pandas")
        rows = self.rows()
        values = np.array([row.value for row in rows])
        errors = np.array([row.error for row in rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = 100 * errors / np.abs(values)
        return pandas.DataFrame(
            {
                "value": values,
                "error": errors,
                "percent": percent,
                "remark": [row.remark for row in rows],
            },
            index=pandas.Index(self.names, name="param"),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit and its data to a JSON file; the model is not in it."""
        saving.save(path, self, self._problem)

    @staticmethod
    def load(path: str | os.PathLike[str], model: Any = None) -> "CurveFit":
        """Read a fit that `save` has written.

        Args:
          path: of the file.
          model: the model of the fit; without it there are no predictions and plots.

        Raises:
          ValueError: the file holds something else.
        """
        return _MAKERS["rebuild"](saving.load(path), model)

    def with_model(self, model: Any) -> "CurveFit":
        """Return this fit with its model, for a fit that was unpickled without it.

        Args:
          model: the model of the fit.

        Returns:
          The same numbers, with predictions, intervals and plots.

        Raises:
          TypeError: the model is not a function `(params, x)`.
          ValueError: it does not suit the params and the data of the fit; or the fit
            was loaded from a file, which `CurveFit.load(path, model)` reads.

        Example:
          >>> import pickle
          >>> from phihat import fit_curve
          >>> line = lambda p, x: p["slope"] * x
          >>> fit = fit_curve(line, [1, 2, 3], [2.1, 3.9, 6.2], {"slope": 1})
          >>> again = pickle.loads(pickle.dumps(fit))
          >>> print(f"{again.with_model(line).predict(2.0).value:.4f}")
          4.0714
        """
        if self._problem is None:
            raise ValueError(self._needs_model("with_model"))
        problem = with_model("CurveFit.with_model", self._problem, model)
        return _MAKERS["restore"](copying.public_fields(self), self.doubts, problem)

    def rows(self) -> list[report.Row]:
        """Return what the report says of each param."""
        errors = statistics.errors_of(self.covariance)
        remarks = [
            "fixed" if fixed else f"at its {side} bound" if side else ""
            for fixed, side in zip(self.fixed, self.bounds_reached, strict=True)
        ]
        columns = (self.names, map(float, self.values), map(float, errors), remarks)
        return [report.Row(*row) for row in zip(*columns, strict=True)]

    def __repr__(self) -> str:
        """Report the params with errors, the quality of the fit, and the doubts."""
        return report.as_text(self)

    def _repr_html_(self) -> str:
        """Report as a table in a notebook."""
        return report.as_html(self)

    def __reduce__(self) -> Any:
        """Pickle the numbers, the data and the report, and the model if possible."""
        problem, packed = self._problem, None
        if problem is not None:
            packed = copying.pack(problem.model)
            problem = dataclasses.replace(problem, model=None)
        parts = (copying.public_fields(self), self.doubts, problem, packed)
        return _MAKERS["unpickle"], parts

    def _problem_with_model(self, what: str) -> Problem:
        if self._problem is None or self._problem.model is None:
            raise ValueError(self._needs_model(what))
        return self._problem

    def _needs_model(self, what: str) -> str:
        if self._problem is not None:
            cure = f"`fit.with_model(model).{what}(...)`"
            return copying.missing_model(f"CurveFit.{what}", cure)
        return (
            f"CurveFit.{what}: this fit was loaded without its model; pass it, as in "
            "`CurveFit.load(path, model)`."
        )

    def _noise(self, like: Any, is_fitted_x: bool, sigma: Any) -> Any:
        """Return the standard deviation of a new measurement, like a prediction."""
        problem = self._problem
        given = problem.sigma if sigma is None and problem is not None else sigma
        factor = 1.0 if self.absolute_sigma else np.sqrt(self.reduced_chi_square)
        spread = lambda value: jax.tree.map(  # noqa: E731
            lambda leaf: np.full(np.shape(leaf), factor * value), like
        )
        if given is None:
            return spread(1.0)
        if sigma is not None:
            given = as_array("predict", "sigma", sigma)
        if isinstance(given, np.ndarray) and given.ndim == 0:
            return spread(float(given))
        if sigma is None and not is_fitted_x:
            return None
        if not isinstance(like, np.ndarray) or not isinstance(given, np.ndarray):
            return None
        if given.ndim == 2 and given.shape != like.shape:
            given = np.sqrt(np.diagonal(given))
        if given.shape not in (like.shape, like.shape[:1]):
            raise ValueError(
                f"predict: `sigma` must be one number or one per point "
                f"{list(like.shape)}, got shape {list(given.shape)}."
            )
        columns = given.reshape(given.shape + (1,) * (like.ndim - given.ndim))
        return factor * np.broadcast_to(columns, like.shape)


def predict_at(problem: Problem, values: np.ndarray, x: Any) -> Prediction:
    """Return the curve at x and its derivatives by the free params, in NumPy."""
    dtype = problem.options.dtype
    cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)  # noqa: E731
    code = (problem.model, _tree.Static(problem.layout))
    with in_floats(dtype):
        found = _programs.call(
            predictions,
            code,
            (problem.layout, problem.model.func),
            values[problem.layout.free_places].astype(dtype),
            values.astype(dtype),
            cast(x),
        )
        return jax.tree.map(_wide, found)


# ------------------------------------------------------------------------- private


def _wide(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _error_of(jacobian: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the root of g' C g, of real and imaginary parts apart."""
    if np.iscomplexobj(jacobian):
        real, imaginary = np.real(jacobian), np.imag(jacobian)
        return _error_of(real, covariance) + 1j * _error_of(imaginary, covariance)
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.einsum("...i,ij,...j->...", jacobian, covariance, jacobian))


def _add_squares(error: np.ndarray, noise: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(error):
        return np.hypot(np.real(error), noise) + 1j * np.hypot(np.imag(error), noise)
    return np.hypot(error, noise)


def _check_level(call: str, level: Any) -> None:
    _checks.check_range(
        call, "level", float(level), 0.0, 1.0, include_low=False, include_high=False
    )
