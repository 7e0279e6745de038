"""What many fitted curves are: `CurveFits`, arrays with a row for each curve."""

import collections
import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import numpy as np

from phihat._core import checks as _checks
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Status
from phihat.curves import copying, curve_doubts, model_checks, statistics
from phihat.curves.many_problems import ManyProblems
from phihat.curves.report import status_words
from phihat.curves.result import CurveFit
from phihat.curves.single import conclude, ended

__all__ = ["CurveFits"]

_SHOWN = 5
_QUARTILES = (0.25, 0.5, 0.75)


@dataclasses.dataclass(frozen=True, repr=False)
class CurveFits(copying.Copied):
    """Many fitted curves; `fits[k]` is the `CurveFit` of one, with its report.

    It can be pickled and copied. A pickle holds a model only if pickle can find it by
    its name; `with_model` gives a lambda back.

    Attributes:
      params: a tree like `start`, every leaf with a leading axis N.
      errors: the standard errors, likewise; infinite where the data do not determine a
        param, NaN where the fit failed.
      names: the name of every number among the params of one curve.
      covariance: [N, P, P], in the order of the names; zeros where fixed.
      chi_square: [N].
      reduced_chi_square: [N].
      r_squared: [N].
      aic: [N], as lmfit defines it.
      bic: [N], likewise.
      num_points: how many real numbers of each y counted [N].
      num_steps: the steps of each [N].
      status: a `Status` each, as int32 [N].
      at_bound: which params lie at a bound, [N, P].
      values: the params as numbers, [N, P].
      labels: of the curves, where y had some, or None.

    Example:
      >>> from phihat import fit_curves
      >>> line = lambda p, x: p["slope"] * x
      >>> fits = fit_curves(line, [1, 2, 3], [[1, 2, 3], [2, 4, 7]], {"slope": 1})
      >>> len(fits), fits[1].names
      (2, ('slope',))
    """

    params: Any
    errors: Any
    names: tuple[str, ...]
    covariance: np.ndarray
    chi_square: np.ndarray
    reduced_chi_square: np.ndarray
    r_squared: np.ndarray
    aic: np.ndarray
    bic: np.ndarray
    num_points: np.ndarray
    num_steps: np.ndarray
    status: np.ndarray
    at_bound: np.ndarray
    values: np.ndarray
    labels: Any
    _many: ManyProblems

    def __len__(self) -> int:
        """Return the number of curves."""
        return len(self.status)

    def __getitem__(self, curve: Any) -> CurveFit:
        """Return one curve by its number, or by its label."""
        k = self._place(curve)
        if self._many.model is None:
            raise ValueError(
                copying.missing_model(f"fits[{curve!r}]", "`fits.with_model(model)`")
            )
        problem = self._many.one(k)
        free = self.values[k][problem.layout.free_places]
        result = ended(
            free.astype(problem.options.dtype),
            self.chi_square[k],
            int(self.status[k]),
            int(self.num_steps[k]),
        )
        found = conclude(problem, result)
        return dataclasses.replace(found, status=self._words(k))

    @property
    def success(self) -> np.ndarray:
        """Which curves converged, bools [N]."""
        return self.status == Status.CONVERGED

    @functools.cached_property
    def doubts(self) -> np.ndarray:
        """Why not to trust the errors of each, in words, "" where all is well [N].

        They name a constant y, params that the data do not determine or only together.
        The report of one curve, `fits[k]`, looks for more.
        """
        return curve_doubts.of_many(
            self, np.array(self._many.layout.free), self._many.start
        )

    def with_model(self, model: Any) -> "CurveFits":
        """Return these fits with their model, for fits unpickled without it.

        Args:
          model: the model of the fits.

        Returns:
          The same numbers, of which `fits[k]` can make a `CurveFit` again.

        Raises:
          TypeError: the model is not a function `(params, x)`.
          ValueError: it does not suit the params and the data of the fits.

        Example:
          >>> import pickle
          >>> from phihat import fit_curves
          >>> line = lambda p, x: p["slope"] * x
          >>> fits = fit_curves(line, [1, 2, 3], [[1, 2, 3], [2, 4, 7]], {"slope": 1})
          >>> again = pickle.loads(pickle.dumps(fits))
          >>> print(f"{again.with_model(line)[1].predict(2.0).value:.4f}")
          4.4286
        """
        call, many = "CurveFits.with_model", self._many
        model_checks.check_signature(call, model)
        model = _tree.as_partial(model, call, "model")
        one, dtype = many.one(0), many.options.dtype
        model_checks.check_model(
            call, model, many.layout, many.target, one.inputs, dtype
        )
        return dataclasses.replace(self, _many=dataclasses.replace(many, model=model))

    def __reduce__(self) -> Any:
        """Pickle the numbers and the data, and the model if possible."""
        bare = dataclasses.replace(self._many, model=None)
        packed = copying.pack(self._many.model)
        return _unpickle, (copying.public_fields(self), bare, packed)

    def to_pandas(self) -> Any:
        """Return a table with a row for each curve: params, errors, quality, status."""
        pandas = _checks.require("CurveFits.to_pandas", "pandas")
        errors = statistics.errors_of(self.covariance)
        columns: dict[str, Any] = {}
        for place, name in enumerate(self.names):
            columns[name] = self.values[:, place]
            columns[f"{name}_error"] = errors[:, place]
        columns |= {name: getattr(self, name) for name in _QUALITY}
        columns["at_bound"] = self.at_bound.any(1)
        columns["status"] = [Status(int(code)).name for code in self.status]
        columns["doubt"] = self.doubts
        index = pandas.RangeIndex(len(self)) if self.labels is None else self.labels
        return pandas.DataFrame(columns, index=pandas.Index(index, name="curve"))

    def to_xarray(self) -> Any:
        """Return a Dataset over curves and params."""
        xarray = _checks.require("CurveFits.to_xarray", "xarray")
        curves = np.arange(len(self)) if self.labels is None else list(self.labels)
        both = ("curve", "param")
        found = {
            "value": (both, self.values),
            "error": (both, statistics.errors_of(self.covariance)),
            "covariance": (("curve", "param", "other"), self.covariance),
            "status": ("curve", self.status),
            "at_bound": (both, self.at_bound),
            "doubt": ("curve", self.doubts),
        }
        found |= {name: ("curve", getattr(self, name)) for name in _QUALITY}
        names = list(self.names)
        return xarray.Dataset(
            found, coords={"curve": curves, "param": names, "other": names}
        )

    def __repr__(self) -> str:
        """Report how many curves ended how, the params, and the first bad curves."""
        number_of = collections.Counter(int(code) for code in self.status)
        how = ", ".join(
            f"{number} {Status(code).name}" for code, number in number_of.most_common()
        )
        plural = "" if len(self) == 1 else "s"
        lines = [f"{len(self)} curve{plural}: {how}"]
        counts = self.success if self.success.any() else np.isfinite(self.chi_square)
        if not counts.any():
            return "\n".join(lines + self._doubt_lines() + self._failures())
        if not counts.all():
            lines[0] += f"; of the {int(counts.sum())} that " + (
                "converged:" if self.success.any() else "are finite:"
            )
        reduced = self.reduced_chi_square[counts]
        reduced = reduced[np.isfinite(reduced)]
        width = max(len(name) for name in self.names)
        errors = statistics.errors_of(self.covariance)
        for place, name in enumerate(self.names):
            known = errors[counts, place][np.isfinite(errors[counts, place])]
            error = f"{np.median(known):.2g}" if known.size else "not known"
            is_fixed = not self._many.layout.free[place]
            low, middle, high = np.quantile(self.values[counts, place], _QUARTILES)
            lines.append(
                f"  {name:{width}}  median {middle:.5g}, quartiles {low:.5g} to "
                f"{high:.5g}, {'fixed' if is_fixed else f'median error {error}'}"
            )
        if reduced.size:
            lines.append(f"  reduced chi-square  median {np.median(reduced):.4g}")
        return "\n".join(lines + self._doubt_lines() + self._failures())

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        return _tables.from_report(repr(self))

    def _doubt_lines(self) -> list[str]:
        """Say which doubts there are, and about which curves."""
        lines = []
        number_of = collections.Counter(self.doubts.tolist())
        number_of.pop("", None)
        for text, count in number_of.most_common(_SHOWN):
            curves = np.flatnonzero(self.doubts == text)[:_SHOWN]
            shown = [str(self._label(int(k))) for k in curves]
            which = ", ".join(shown) + ", ..." * (count > _SHOWN)
            plural = "" if count == 1 else "s"
            lines.append(f"  doubt: {text}, in {count} curve{plural} ({which})")
        if len(number_of) > _SHOWN:
            lines.append(f"  ... {len(number_of) - _SHOWN} more kinds of doubt")
        if any("determined" in text or "correlated" in text for text in number_of):
            offset = curve_doubts.explain_offset(self._many.one(0).inputs.x)
            lines += [] if offset is None else [f"  doubt: {offset}"]
        return lines

    def _label(self, k: int) -> Any:
        return k if self.labels is None else self.labels[k]

    def _failures(self) -> list[str]:
        """Say of the first curves that did not converge how they ended."""
        bad = np.flatnonzero(~self.success)
        lines = []
        for k in bad[:_SHOWN]:
            lines.append(f"  curve {self._label(int(k))}: {self._words(int(k))}")
        if len(bad) > _SHOWN:
            lines.append(f"  ... {len(bad) - _SHOWN} more that did not converge")
        return lines

    def _words(self, k: int) -> str:
        free, count = self._many.layout.free_names, int(self.num_points[k])
        if count < len(free):
            params = f"{len(free)} param{'s' * (len(free) != 1)}"
            return f"{count} point{'s' * (count != 1)} cannot fit {params}"
        return status_words(int(self.status[k]), int(self.num_steps[k]))

    def _place(self, curve: Any) -> int:
        labels = [] if self.labels is None else list(self.labels)
        if isinstance(curve, Hashable) and curve in labels:
            return labels.index(curve)
        is_number = isinstance(curve, (int, np.integer))
        if is_number and -len(self) <= curve < len(self):
            return int(curve) % len(self)
        if isinstance(curve, (slice, list, np.ndarray)):
            raise TypeError(
                "CurveFits: one curve at a time, as `fits[0]`; for many take rows of "
                "`fits.values` or of `fits.to_pandas()`."
            )
        shown = ", ".join(map(repr, labels[:_SHOWN])) + ", ..." * (len(labels) > _SHOWN)
        raise IndexError(
            f"CurveFits: there is no curve {curve!r}; there are {len(self)}, numbered "
            f"from 0{f', and labelled {shown}' if labels else ''}."
        )


_QUALITY = (
    "chi_square",
    "reduced_chi_square",
    "r_squared",
    "aic",
    "bic",
    "num_points",
    "num_steps",
)


def _unpickle(
    fields: dict[str, Any], many: ManyProblems, packed: bytes | None
) -> CurveFits:
    """Return fits that were pickled, with their model where this process has it."""
    many = dataclasses.replace(many, model=copying.unpack(packed))
    return CurveFits(**fields, _many=many)
