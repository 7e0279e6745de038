"""Standard deviations of the data as the weights of residuals."""

from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from jaxtyping import PyTree

from phihat._core import checks as _checks
from phihat.curves.arrays import as_tree
from phihat.curves.residuals import Target

__all__ = ["Weights", "as_weights", "check_sigma", "check_squares"]


class Weights(NamedTuple):
    """One over sigma, [n] or [], or the inverse factor of a covariance, [n, n]."""

    scale: Any = None
    whitener: Any = None


def as_weights(
    call: str, sigma: Any, y: PyTree, target: Target, mask: np.ndarray | None
) -> Weights:
    """Return the weights of one curve's residuals."""
    if sigma is None:
        return Weights()
    if isinstance(sigma, bool):
        raise TypeError(f"{call}: `sigma` must be numbers, got {sigma}.")
    sigma = as_tree(call, "sigma", sigma, allows_complex=True)
    one_leaf = isinstance(y, np.ndarray) and isinstance(sigma, np.ndarray)
    if one_leaf and sigma.ndim == 2 and sigma.shape == (y.size, y.size) != y.shape:
        return Weights(whitener=_whitener(call, sigma, target, mask))
    if isinstance(sigma, np.ndarray) and sigma.ndim == 0:
        check_sigma(call, sigma, None)
        return Weights(1.0 / np.real(sigma))
    if jax.tree.structure(sigma) != target.structure:
        raise ValueError(
            f"{call}: `sigma` must be one number or have the structure of y, "
            f"{_checks.in_words(target.structure)}, got "
            f"{_checks.in_words(jax.tree.structure(sigma))}."
        )
    spreads = []
    leaves = zip(jax.tree.leaves(sigma), jax.tree.leaves(y), strict=True)
    for spread, data in leaves:
        full = _spread_rows(call, spread, data.shape)
        if np.iscomplexobj(data) and not np.iscomplexobj(full):
            full = full + 1j * full
        spreads.append(full)
    flat = target.flatten(jax.tree.unflatten(target.structure, spreads))
    check_sigma(call, flat, mask)
    counts = True if mask is None else mask
    return Weights(np.where(counts, 1.0 / np.where(counts, flat, 1.0), 0.0))


def check_sigma(call: str, sigma: np.ndarray, mask: np.ndarray | None) -> None:
    """Check that standard deviations are positive and finite where they count."""
    parts = [np.real(sigma), np.imag(sigma)] if np.iscomplexobj(sigma) else [sigma]
    for part in parts:
        bad = ~((part > 0) & np.isfinite(part))
        if mask is not None:
            bad &= mask
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            value = np.ravel(part)[row]
            at = f" in row {row}" if part.ndim else ""
            raise ValueError(
                f"{call}: `sigma` must be positive and finite, got {value:g}{at}; a "
                "row that should not count is NaN in y, with nan_policy='omit'."
            )


def check_squares(call: str, y: np.ndarray, scale: Any, dtype: Any) -> None:
    """Refuse residuals whose squares are too small or too large for the dtype."""
    largest = np.fmax(np.fmax.reduce(y, axis=None), -np.fmin.reduce(y, axis=None))
    size = float(largest) * (1.0 if scale is None else float(np.max(scale)))
    numbers = np.finfo(dtype)
    low, high = float(numbers.tiny) ** 0.5 / float(numbers.eps), float(numbers.max)
    if np.isfinite(size) and size > 0 and not low <= size <= 1e-3 * high**0.5:
        over = "" if scale is None else " over sigma"
        raise ValueError(
            f"{call}: `y`{over} is {size:.3g} at most, the square of which {dtype} "
            "cannot hold; give it in other units."
        )


# ------------------------------------------------------------------------- private


def _spread_rows(call: str, sigma: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give a sigma for each row the shape of y."""
    if sigma.shape not in ((), shape[:1], shape):
        raise ValueError(
            f"{call}: `sigma` must be one number, one per row or one per entry of y "
            f"{list(shape)}, or a covariance, got shape {list(sigma.shape)}."
        )
    columns = sigma.reshape(sigma.shape + (1,) * (len(shape) - sigma.ndim))
    return np.broadcast_to(columns, shape)


def _whitener(
    call: str, sigma: np.ndarray, target: Target, mask: np.ndarray | None
) -> np.ndarray:
    if any(target.complexes):
        raise ValueError(
            f"{call}: `sigma` as a covariance needs a real y; give one sigma per entry."
        )
    kept = sigma.copy()
    if mask is not None:  # what does not count is independent of the rest
        kept[~mask] = 0.0
        kept[:, ~mask] = 0.0
        kept[~mask, ~mask] = 1.0
    is_good = np.isfinite(kept).all() and np.allclose(kept, kept.T, rtol=1e-8, atol=0)
    try:
        factor = np.linalg.cholesky(kept) if is_good else None
    except np.linalg.LinAlgError:
        factor = None
    if factor is None:
        raise ValueError(
            f"{call}: `sigma` as a covariance {list(sigma.shape)} must be symmetric "
            "and positive definite."
        )
    return scipy.linalg.solve_triangular(factor, np.eye(len(kept)), lower=True)
