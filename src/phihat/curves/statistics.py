r"""What the residuals at the minimum tell: covariance, chi-square, criteria.

With $n$ data points, $F$ fitted params and $\chi^2 = \sum (r/\sigma)^2$, as lmfit has
them: $\chi^2_\nu = \chi^2 / (n - F)$, $\mathrm{AIC} = n \ln(\chi^2/n) + 2 F$,
$\mathrm{BIC} = n \ln(\chi^2/n) + F \ln n$, and $R^2$ from the residuals without sigma.
"""

from typing import Any, NamedTuple

import numpy as np

from phihat._linalg import pseudo_inverse

__all__ = [
    "Quality",
    "correlations_of",
    "covariance",
    "covariance_of_gram",
    "errors_of",
    "quality",
]

_EPS = float(np.finfo(float).eps)


class Quality(NamedTuple):
    """How well a curve fits; each [] or [N].

    Attributes:
      chi_square: the sum of the squared residuals over sigma.
      reduced_chi_square: over the degrees of freedom.
      r_squared: the share of the scatter of y that the curve explains.
      aic: Akaike's criterion.
      bic: Schwarz's criterion.
    """

    chi_square: Any
    reduced_chi_square: Any
    r_squared: Any
    aic: Any
    bic: Any


def quality(
    chi_square: Any, misfit: Any, scatter: Any, num_points: Any, num_free: int
) -> Quality:
    """Return the measures of quality of one curve or of many.

    Args:
      chi_square: the sum of the squares of the residuals over sigma.
      misfit: the sum of the squares of the residuals without sigma.
      scatter: the sum of the squares of y about its mean.
      num_points: n.
      num_free: F.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        spare = np.maximum(num_points - num_free, 0)
        reduced = np.where(
            spare > 0, chi_square / np.where(spare > 0, spare, 1), np.nan
        )
        floor = np.maximum(chi_square, 1e-250 * num_points)
        base = num_points * np.log(floor / num_points)
        share = 1.0 - misfit / np.where(scatter > 0, scatter, np.nan)
        return Quality(
            chi_square,
            reduced[()],
            share[()],
            base + 2 * num_free,
            base + np.log(num_points) * num_free,
        )


def scatter(y: np.ndarray, mask: np.ndarray | None) -> Any:
    """Return the sum of squares of y [..., n] about its mean, zero if only rounding."""
    if mask is None:
        counts, found = y.shape[-1], y.shape[-1] * np.var(y, axis=-1)
    else:
        counts = np.maximum(mask.sum(-1), 1)
        mean = y.sum(-1) / counts
        found = ((y - mean[..., None]) ** 2 * mask).sum(-1)
    largest = np.abs(y).max(-1, initial=0.0)
    noise = counts * (4 * np.finfo(float).eps * largest) ** 2
    return np.where(found > noise, found, 0.0)[()]


def covariance(jacobian: np.ndarray, total: float, spare: float) -> np.ndarray:
    r"""Return $s^2 (J^\top J)^{-1}$ of one curve, infinite where it is not determined.

    Args:
      jacobian: of the residuals over sigma, [n, F].
      total: the robust sum of squares; or `spare`, where sigma is absolute.
      spare: the degrees of freedom; $s^2$ is their ratio.
    """
    size = jacobian.shape[1]
    if not np.isfinite(jacobian).all():
        return np.full((size, size), np.nan)
    norms = np.linalg.norm(jacobian, axis=0)
    norms = np.where(norms > 0, norms, 1.0)
    _, singular, right = np.linalg.svd(jacobian / norms, full_matrices=False)
    if jacobian.shape[0] < size or spare <= 0:
        return np.full((size, size), np.inf)
    is_null = singular <= _EPS * max(jacobian.shape) * singular[0]
    inverse = pseudo_inverse.invert(singular * singular, right.T, is_null, np)
    found = pseudo_inverse.covariance(total / spare, inverse, np)
    return found / np.outer(norms, norms)


def covariance_of_gram(gram: np.ndarray, total: Any, spare: Any) -> np.ndarray:
    r"""Return the covariances of many curves from their $J^\top J$, [N, F, F].

    Infinite for params that a singular matrix leaves open, NaN where it is not finite.
    """
    size = gram.shape[-1]
    is_finite = np.isfinite(gram).all((1, 2)) & np.isfinite(total)
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    norms = np.where(norms > 0, norms, 1.0)
    outer = norms[:, :, None] * norms[:, None, :]
    unit = np.where(is_finite[:, None, None], gram / outer, np.eye(size))
    inverse, is_full = _inverses(unit)
    is_open = np.zeros(gram.shape[:2], bool)
    if not is_full.all():
        values, vectors = np.linalg.eigh(unit[~is_full])
        # At least one: the sweep met a pivot that is zero to rounding.
        is_null = values <= np.maximum(values[:, :1], 0.0) + 4 * size * _EPS
        found = pseudo_inverse.invert(values, vectors, is_null, np)
        inverse[~is_full], is_open[~is_full] = found
    has_spare = spare > 0
    variance = np.where(has_spare, total / np.where(has_spare, spare, 1), 1.0)
    known = pseudo_inverse.PseudoInverse(inverse / outer, is_open)
    matrices = pseudo_inverse.covariance(variance[:, None, None], known, np)
    matrices[~has_spare] = np.inf
    matrices[~is_finite] = np.nan
    return matrices


def _inverses(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Invert matrices [N, F, F] with ones on the diagonal, all at once, by sweeps.

    LAPACK takes them one by one, which costs more than the fits did.
    """
    size = matrices.shape[-1]
    work = np.ascontiguousarray(np.moveaxis(matrices, 0, -1))
    is_full = np.ones(work.shape[-1], bool)
    for k in range(size):
        pivot = work[k, k].copy()
        is_good = pivot > size * _EPS
        is_full &= is_good
        pivot = np.where(is_good, pivot, 1.0)
        row = work[k] / pivot
        column = work[:, k].copy()
        work -= column[:, None] * row[None]
        work[:, k] = column / pivot
        work[k] = row
        work[k, k] = -1.0 / pivot
    return -np.moveaxis(work, -1, 0), is_full


def errors_of(covariance: np.ndarray) -> np.ndarray:
    """Return the roots of the diagonals, [..., F]."""
    return np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))


def correlations_of(covariance: np.ndarray) -> np.ndarray:
    """Return the covariance over the errors, with ones on the diagonal."""
    errors = errors_of(covariance)
    with np.errstate(invalid="ignore"):
        outer = errors[..., :, None] * errors[..., None, :]
    is_good = (outer > 0) & np.isfinite(outer)
    found = np.where(is_good, covariance / np.where(is_good, outer, 1.0), 0.0)
    size = covariance.shape[-1]
    found[..., range(size), range(size)] = 1.0
    return found
