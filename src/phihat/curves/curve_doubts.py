"""Reasons to doubt a fitted curve that lie in its data and its start.

Example:
  >>> import numpy as np
  >>> from phihat.curves import curve_doubts
  >>> curve_doubts.explain_offset(2000.0 + np.arange(10.0))
  'x lies between 2000 and 2009, a narrow range far from zero: subtract an offset ...'
"""

from typing import Any

import jax
import numpy as np

from phihat.curves import statistics
from phihat.error_bars.doubts import TIED, listed

__all__ = ["complete", "explain_offset", "of_many"]

_CONSTANT = "y is constant"
_FAR = 5.0
"""So many times its range from zero an x ties the params of a line by 0.998."""

_BLOCK = 2**15


def complete(
    told: dict[str, str],
    *,
    names: list[str],
    free: np.ndarray,
    start: np.ndarray,
    errors: np.ndarray,
    inputs: Any,
    loss: str,
) -> dict[str, str]:
    """Return the doubts about one curve, those about its data and start included.

    Args:
      told: the doubts about its error bars, by reason.
      names: of the free params.
      free: the free params [F].
      start: where they started [F].
      errors: their standard errors [F].
      inputs: the data, as `Inputs`.
      loss: the name of the loss.
    """
    found = dict(told)
    if loss != "linear":  # the report shows the plain sum, these judge another
        for reason in ("chi square high", "chi square low"):
            if reason in found:
                found[reason] = found[reason].replace(
                    "the sum of squares", f"the sum of the {loss} losses"
                )
    is_open = np.isinf(errors)
    if "singular" in found and (free == start)[is_open].all():
        which = [name for name, each in zip(names, is_open, strict=True) if each]
        found["singular"] = (
            f"{listed(which)} stayed at the start, where the curve does not depend on "
            f"{'them' if len(which) > 1 else 'it'}: begin where the curve passes near "
            "the data, or leave out what the model does not use, by `fixed=`"
        )
    if not _IN_X.isdisjoint(found):
        offset = explain_offset(inputs.x)
        found |= {} if offset is None else {"offset": offset}
    y = np.asarray(inputs.y, np.float64)
    num_points = y.size if inputs.mask is None else int(np.sum(inputs.mask))
    if num_points > 1 and statistics.scatter(y, inputs.mask) == 0:
        kept = {reason: found[reason] for reason in found if reason in _OF_CONSTANT}
        found = {
            "constant": f"{_CONSTANT}, so it shows no curve and no scatter from which "
            "errors could be taken: look whether the channel was dead"
        } | kept
    return found


_IN_X = frozenset(("singular", "condition", "gradient", "correlation"))
"""Reasons that an x far from zero may be the cause of."""

_OF_CONSTANT = ("status", "not finite", "data", "singular", "exact", "bounds")
"""What is worth saying beside: the rest would judge rounding."""


def explain_offset(x: Any) -> str | None:
    """Say so if x is so far from zero that it ties params together."""
    for leaf in jax.tree.leaves(x):
        values = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        for column in values.T[:8]:
            low, high = column.min(), column.max()
            if max(low, -high) > _FAR * (high - low) > 0:
                return (
                    f"x lies between {low:.12g} and {high:.12g}, a narrow range far "
                    "from zero: subtract an offset first, as in `x - x.mean()`, and "
                    "fit again"
                )
    return None


def of_many(fits: Any, free: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the doubts about each of many curves, "" where there are none [N].

    Args:
      fits: a `CurveFits`.
      free: which params are free [P].
      start: where they started [N, P].
    """
    errors = statistics.errors_of(fits.covariance)
    # Without scatter there is no share that the curve could explain.
    is_constant = np.isnan(fits.r_squared) & np.isfinite(fits.chi_square)
    is_constant &= fits.num_points > 1
    # Where no degree of freedom is left all errors are infinite.
    has_spare = fits.num_points > free.sum()
    is_open = np.isinf(errors) & free & has_spare[:, None]
    is_stuck = is_open & (fits.values == start)
    is_tied = np.zeros_like(is_open)
    for begin in range(0, len(errors), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        correlations = np.abs(statistics.correlations_of(fits.covariance[rows]))
        np.einsum("nii->ni", correlations)[:] = 0.0
        is_tied[rows] = (correlations > TIED).any(2) & ~is_constant[rows, None]
    patterns = np.concatenate([is_constant[:, None], is_open, is_stuck, is_tied], 1)
    kinds, place = np.unique(patterns, axis=0, return_inverse=True)
    sentences = [_words(kind, fits.names) for kind in kinds]
    return np.array(sentences, object)[place.reshape(-1)]


def _words(pattern: np.ndarray, names: tuple[str, ...]) -> str:
    """Say in words what was found of a curve."""
    is_open, is_stuck, is_tied = pattern[1:].reshape(3, -1)

    def select(mask: np.ndarray) -> str:
        return listed([name for name, each in zip(names, mask, strict=True) if each])

    parts = [_CONSTANT] if pattern[0] else []
    if is_open.any():
        verb = "are" if is_open.sum() > 1 else "is"
        stayed = " and stayed at the start" if is_stuck[is_open].all() else ""
        parts.append(f"{select(is_open)} {verb} not determined{stayed}")
    if is_tied.any():
        parts.append(f"{select(is_tied)} are correlated beyond {TIED}")
    return "; ".join(parts)
