"""The inverse of a semidefinite matrix, over the unknowns that it determines.

Example:
  >>> import numpy as np
  >>> from phihat._linalg import pseudo_inverse
  >>> values, vectors = np.linalg.eigh(np.diag([0.0, 4.0]))
  >>> found = pseudo_inverse.invert(values, vectors, values < 1.0, np)
  >>> pseudo_inverse.covariance(1.0, found, np).tolist()
  [[inf, inf], [inf, 0.25]]
"""

from typing import Any, NamedTuple

__all__ = ["PseudoInverse", "covariance", "invert"]


class PseudoInverse(NamedTuple):
    """An inverse, and what it does not tell.

    Attributes:
      matrix: the pseudo-inverse, finite [..., P, P].
      is_open: the unknowns that some null direction moves: they may take any value,
        while the others do not depend on how those are chosen [..., P].
    """

    matrix: Any
    is_open: Any


def invert(values: Any, vectors: Any, is_null: Any, xp: Any) -> PseudoInverse:
    """Invert a symmetric matrix of which the eigenvalues are known.

    Args:
      values: the eigenvalues [..., P].
      vectors: the eigenvectors, in columns [..., P, P].
      is_null: which eigenvalues count as zero [..., P].
      xp: the module that computes, `numpy` or `jax.numpy`.
    """
    eps = float(xp.finfo(values.dtype).eps)
    kept = xp.where(is_null, 0.0, 1.0 / xp.where(is_null, 1.0, values))
    matrix = (vectors * kept[..., None, :]) @ xp.swapaxes(vectors, -1, -2)
    moved = xp.sqrt(xp.sum(xp.where(is_null[..., None, :], vectors**2, 0.0), axis=-1))
    # Rounding turns null directions a little towards the weakest that is kept.
    rounding = 10 * eps * xp.max(values, axis=-1) * xp.max(kept, axis=-1)
    is_open = moved > xp.maximum(rounding, eps**0.5)[..., None]
    return PseudoInverse(matrix, is_open)


def covariance(variance: Any, inverse: PseudoInverse, xp: Any) -> Any:
    """Return variance times the inverse, infinite for what is open."""
    is_open = inverse.is_open[..., :, None] | inverse.is_open[..., None, :]
    return xp.where(is_open, xp.inf, variance * inverse.matrix)
