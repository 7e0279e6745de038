"""Reasons to doubt an error bar: what was measured, and what it means in a sentence."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phihat._core.types import Params, Status
from phihat.curvature.dense import labels

__all__ = [
    "SENTENCES",
    "TIED",
    "Evidence",
    "Setting",
    "entry_names",
    "explain",
    "find_doubts",
    "listed",
]

_FAR = 0.02
"""Standard errors from the minimum; Minuit stops at the same distance."""

TIED = 0.999
"""A correlation beyond which a combination is known, but hardly its members."""

_FEW = 5
_BENT = 0.25
"""How far a rise may differ from a parabola's; an end then differs by a tenth."""

_RARE = 1e-3
_LOST = 1e-3
"""The share of a standard error that rounding may take."""


class Evidence(NamedTuple):
    """What was measured beside the intervals, for P params.

    Attributes:
      status: the `Status` of the fit, int32 [].
      is_finite: whether loss, gradient and Hessian are, [].
      distances: how far the minimum of the parabola is, in standard errors, [P].
      lowest: the lowest eigenvalue of the scaled Hessian over the largest, [].
      weakest: the scaled direction that the data tell least about, [P].
      rounding: the share of a standard error that rounding can take, [].
      rises: the rise of the loss at both ends over that of a parabola, [2, P].
      at_bound: within a hundredth of a standard error of the box's edge, [P].
      beyond_bound: the interval leaves the box, [P].
      chi_square: the sum of squares over the degrees of freedom, [].
      is_exact: the residuals are zero to rounding, [].
      num_empty: residuals of weight zero, int32 [].
      wald: both ends by the covariance, offsets in units of the params, [2, P].
      lowest_rise: the lowest value met by profiling, in units of the level, [].
    """

    status: Int[Array, "*lanes"]
    is_finite: Bool[Array, "*lanes"]
    distances: Float[Array, "*lanes P"]
    lowest: Float[Array, "*lanes"]
    weakest: Float[Array, "*lanes P"]
    rounding: Float[Array, "*lanes"]
    rises: Float[Array, "*lanes 2 P"]
    at_bound: Bool[Array, "*lanes P"]
    beyond_bound: Bool[Array, "*lanes P"]
    chi_square: Float[Array, "*lanes"]
    is_exact: Bool[Array, "*lanes"]
    num_empty: Int[Array, "*lanes"]
    wald: Float[Array, "*lanes 2 P"]
    lowest_rise: Float[Array, "*lanes"]


class Setting(NamedTuple):
    """What is known before anything is computed.

    Attributes:
      method: "wald" or "profile".
      is_squares: the loss is a sum of squares.
      absolute_sigma: the weights are true.
      num_residuals: n, or None for a likelihood.
      is_penalized: the loss has a penalty.
      free: of every param, whether it is free: a box may hold it.
    """

    method: str
    is_squares: bool
    absolute_sigma: bool
    num_residuals: int | None
    is_penalized: bool
    free: tuple[bool, ...] = ()


def entry_names(params: Params) -> list[str]:
    """Name every number among the params, in the order of the covariance."""
    return [name or "the param" for name in labels(params)]


def find_doubts(
    evidence: Evidence, setting: Setting, covariance: np.ndarray, ends: np.ndarray
) -> dict[str, list[int] | float]:
    """Return the reasons, by name, each with the entries or the number it is about."""
    found: dict[str, list[int] | float] = {}
    size = covariance.shape[0]
    free = np.asarray(setting.free or (True,) * size)
    spare = (setting.num_residuals or 0) - int(free.sum())
    is_estimated = setting.is_squares and not setting.absolute_sigma
    is_short = is_estimated and spare <= 0
    known = np.isfinite(np.diagonal(covariance))
    weak = np.abs(evidence.weakest)
    directions = _entries(weak > 0.1 * weak.max(initial=0.0))
    if int(evidence.status) >= Status.NONFINITE_LOSS:
        found["status"] = float(evidence.status)
    if not evidence.is_finite:
        found["not finite"] = []
        return found
    if is_short:
        found["data"] = float(setting.num_residuals or 0)
    elif evidence.lowest < -np.sqrt(np.finfo(covariance.dtype).eps):
        found["curvature"] = directions
    elif not known.all():
        found["singular"] = _entries(~known)
    if setting.is_penalized:
        found["penalty"] = []
    if evidence.num_empty:
        found["weights"] = float(evidence.num_empty)
    if not (known & free).any():
        return found
    if evidence.is_exact and is_estimated:
        found["exact"] = []
        return found
    if evidence.rounding > _LOST and known.all():
        found["condition"] = float(evidence.rounding)
    if (known & (evidence.distances > _FAR)).any():
        found["gradient"] = _entries(known & (evidence.distances > _FAR))
    tied = np.abs(_correlation(covariance)) > TIED
    if tied[np.triu_indices(size, 1)].any():
        np.fill_diagonal(tied, False)
        found["correlation"] = _entries(tied.any(axis=0))
    if evidence.at_bound.any():
        found["bounds"] = _entries(evidence.at_bound)
    is_beyond = known & evidence.beyond_bound & ~evidence.at_bound
    if is_beyond.any():
        found["beyond"] = _entries(is_beyond)
    if is_estimated and spare < _FEW:
        found["freedom"] = float(spare)
    if setting.absolute_sigma and spare > 0:
        chi_square = float(evidence.chi_square)
        tail = _chance_of_more(spare * chi_square, spare)
        if tail < _RARE:
            found["chi square high"] = chi_square
        if tail > 1 - _RARE:
            found["chi square low"] = chi_square
    return found | _doubts_of_ends(evidence, setting, ends, free & known)


def _doubts_of_ends(
    evidence: Evidence, setting: Setting, ends: np.ndarray, judged: np.ndarray
) -> dict[str, list[int] | float]:
    """Return why the ends of those judged may not be where the method puts them."""
    found: dict[str, list[int] | float] = {}
    if setting.method == "wald":
        is_bent = ~(np.abs(evidence.rises - 1.0) <= _BENT).all(axis=0) & judged
        if is_bent.any():
            found["parabola"] = _entries(is_bent)
        return found
    is_open = ~np.isfinite(ends)
    if (is_open & judged).any():
        found["open"] = _entries(is_open.any(axis=0) & judged)
    differs = np.abs(ends - evidence.wald) > 0.1 * np.abs(evidence.wald)
    if (differs & ~is_open).any():
        found["profile"] = _entries((differs & ~is_open).any(axis=0))
    if evidence.lowest_rise < -0.01:
        found["lower"] = float(evidence.lowest_rise)
    return found


SENTENCES: dict[str, str] = {
    "status": "the fit ended with {status}",
    "not finite": "the loss, its gradient or its Hessian is not finite at these params",
    "data": "{number:.0f} residuals cannot give errors of {size} params and of the "
    "scatter too: more residuals, or known sigmas (`absolute_sigma=True`), are needed",
    "curvature": "the loss curves down along {entries}: this is a saddle, not a "
    "minimum",
    "singular": "the data do not determine {entries}: the loss does not change along "
    "{them}",
    "penalty": "the penalty pulls the params: the intervals are not those of a fit "
    "without it",
    "weights": "{number:.0f} residuals have zero weight but still count as data: leave "
    "them out",
    "exact": "the residuals are zero to rounding: errors cannot be estimated from them",
    "condition": "rounding can change the standard errors by a fraction of "
    "{number:.2g}: scale the params, or fit in float64",
    "gradient": "{entries} are more than 0.02 standard errors away from the minimum, "
    "by up to {distance:.2g}: let the fit converge first",
    "correlation": "{entries} are correlated beyond 0.999: the data determine a "
    "combination of them, but hardly any of them separately",
    "bounds": "{entries} ended at a bound, so a symmetric interval says little",
    "beyond": "part of the {intervals} of {entries} lies beyond the bounds",
    "freedom": "with {number:.0f} degrees of freedom the scatter itself is known only "
    "to {scatter:.0%}",
    "chi square high": "the sum of squares is {number:.3g} times the degrees of "
    "freedom: sigmas are too small, or the model is wrong",
    "chi square low": "the sum of squares is {number:.3g} times the degrees of "
    "freedom: sigmas are too large",
    "parabola": "the loss is not a parabola over the {intervals} of {entries}, so the "
    '{intervals} may be wrong: compute intervals with method="profile"',
    "open": "the profile of {entries} never reaches the level: the data give no limit "
    "on that side",
    "profile": "profile and covariance differ by more than a tenth in {entries}: use "
    "the ends from the profile, not the standard errors",
    "lower": "the profile found a lower loss, by {number:.2g} of the level: the fit is "
    "not at the best minimum",
}
"""What each reason means; a test holds that `find_doubts` gives no other."""


def explain(
    reason: str, about: list[int] | float, evidence: Evidence, names: list[str]
) -> str:
    """Write out one reason."""
    number = about if isinstance(about, float) else 0.0
    entries = [names[k] for k in about] if isinstance(about, list) else []
    shown = entries if len(entries) <= 6 else [*entries[:5], f"{len(entries) - 5} more"]
    return SENTENCES[reason].format(
        number=number,
        entries=listed(shown),
        intervals="intervals" if len(entries) > 1 else "interval",
        them="them, alone or together" if len(entries) > 1 else "it",
        size=len(names),
        status=Status(int(evidence.status)).name,
        distance=np.max(evidence.distances, initial=0.0),
        scatter=1.0 / np.sqrt(2.0 * number) if number > 0 else np.nan,
    )


def listed(names: list[str]) -> str:
    """Write names one after the other, as in "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _entries(mask: Any) -> list[int]:
    return [int(k) for k in np.flatnonzero(mask)]


def _chance_of_more(chi_square: float, degrees_of_freedom: int) -> float:
    """Return how often chance alone gives a sum of squares at least as large."""
    from scipy import special

    return float(special.chdtrc(degrees_of_freedom, chi_square))


def _correlation(covariance: Any) -> np.ndarray:
    spread = np.sqrt(np.diagonal(covariance))
    outer = np.outer(spread, spread)
    is_known = (outer > 0) & np.isfinite(outer)
    return np.divide(covariance, outer, out=np.eye(len(spread)), where=is_known)
