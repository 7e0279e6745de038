"""Linear algebra and order: what theorems make convex, and the twins that are not.

`CONVEX[name]` and `NOT_CONVEX[name]` are `(loss_fn, params)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import linalg

__all__ = ["CONVEX", "MATRIX", "NOT_CONVEX", "POINT"]

_RNG = np.random.default_rng(3)
_A = _RNG.normal(size=(3, 3))
MATRIX = _A @ _A.T + np.eye(3)
_SINGULAR = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
POINT, _M = np.array([0.3, -0.4, 0.5]), np.diag([2.0, 1.0, 3.0])
_GROUPS = np.array([0, 1, 1], np.int32)
_X = _RNG.normal(size=(6, 3))


_HOLES = np.array([0.5, np.nan, -1.0, 2.0, np.nan, 0.0])


def _sym(m):
    return (m + m.T) / 2


def _normal(w):
    """x'A^-1 x by the factors of a Cholesky decomposition that is given."""
    factor = np.array([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-1.0, 0.25, 1.5]])
    return w @ linalg.cho_solve((factor, True), w)


CONVEX = {
    "solve": (lambda w: jnp.sum((jnp.linalg.solve(_A, w) - 1.0) ** 2), POINT),
    "triangle": (
        lambda w: jnp.sum(
            linalg.solve_triangular(jnp.linalg.cholesky(MATRIX), w, lower=True) ** 2
        ),
        POINT,
    ),
    "cho_solve": (
        lambda w: jnp.max(linalg.cho_solve(linalg.cho_factor(MATRIX), w)),
        POINT,
    ),
    "unit diagonal": (
        lambda w: jnp.sum(
            linalg.solve_triangular(_SINGULAR, w, unit_diagonal=True) ** 2
        ),
        POINT,
    ),
    "largest eigenvalue": (lambda m: jnp.linalg.eigvalsh(_sym(m))[-1], _M),
    "largest two": (lambda m: jnp.sum(jnp.linalg.eigvalsh(_sym(m))[-2:]), _M),
    "minus the smallest": (lambda m: -jnp.linalg.eigvalsh(m)[0], _M),
    "the largest by max": (lambda m: jnp.max(jnp.linalg.eigvalsh(m)), _M),
    "spectral norm": (lambda m: jnp.linalg.norm(m, 2), _M),
    "nuclear norm": (lambda m: jnp.linalg.norm(2.0 * m - 1.0, "nuc"), _M),
    "Ky Fan": (lambda m: jnp.sum(jnp.linalg.svd(m, compute_uv=False)[:2]), _M),
    "SLOPE": (lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.arange(1.0, 4.0)), POINT),
    "SLOPE reversed": (
        lambda w: jnp.sum(jnp.sort(jnp.abs(w))[::-1] * jnp.arange(3.0, 0.0, -1.0)),
        POINT,
    ),
    "segment_max": (
        lambda w: jnp.sum(jax.ops.segment_max(_X[:3] @ w, _GROUPS, 2)),
        POINT,
    ),
    "scatter max": (
        lambda w: jnp.sum(jnp.zeros(2).at[_GROUPS].max(jnp.abs(_X[:3] @ w))),
        POINT,
    ),
    "max pooling": (
        lambda w: jnp.sum(
            lax.reduce_window(_X @ w, -jnp.inf, lax.max, (3,), (2,), ((1, 1),))
        ),
        POINT,
    ),
}

CONVEX |= {
    "form of a solve": (lambda w: w @ jnp.linalg.solve(MATRIX, w), POINT),
    "form of an inverse": (lambda w: w @ jnp.linalg.inv(MATRIX) @ w, POINT),
    "form by cho_solve": (_normal, POINT),
    "trace of a form": (lambda m: jnp.trace(m.T @ jnp.linalg.solve(MATRIX, m)), _M),
    "power spectrum": (lambda w: jnp.sum(jnp.abs(jnp.fft.fft(w)) ** 2), POINT),
    "norm of a spectrum": (lambda w: jnp.linalg.norm(jnp.fft.rfft(w)), POINT),
    "filtered": (
        lambda w: jnp.sum(
            jnp.abs(jnp.fft.ifft(jnp.fft.fft(w) * (2.0 + 1.0j)) - 1.0j) ** 2
        ),
        POINT,
    ),
    "nanmean": (lambda w: jnp.nanmean((_HOLES - _X @ w) ** 2), POINT),
    "where not NaN": (
        lambda w: jnp.sum(
            jnp.where(jnp.isfinite(_X @ w - _HOLES), (_X @ w - _HOLES) ** 2, 0.0)
        ),
        POINT,
    ),
}

NOT_CONVEX = {
    "the eigenvalue in the middle": (
        lambda w: -jnp.max(jnp.linalg.eigvalsh(_sym(_A) + jnp.diag(w))[:2]),
        POINT,
    ),
    "form of an indefinite solve": (
        lambda w: w @ jnp.linalg.solve(np.diag([1.0, -2.0, 3.0]), w),
        POINT,
    ),
    "form of an indefinite full solve": (
        lambda w: (
            w
            @ jnp.linalg.solve(
                np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), w
            )
        ),
        POINT,
    ),
    "form of a transposed solve": (
        lambda w: (
            w
            @ linalg.solve_triangular(
                np.array([[1.0, 0.0, 0.0], [9.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
                w,
                trans=1,
                lower=True,
            )
        ),
        POINT,
    ),
    "not a conjugate": (
        lambda w: jnp.real(lax.complex(w[0], w[1]) * lax.complex(w[2], -w[1])),
        POINT,
    ),
    "form of a rolled solve": (
        lambda w: w @ jnp.roll(jnp.linalg.solve(MATRIX, w), 1),
        POINT,
    ),
    "form of half a solve": (
        lambda w: w @ w[lax.linalg.lu(jnp.asarray(MATRIX[::-1]))[2]],
        POINT,
    ),
    "columns exchanged": (
        lambda m: jnp.trace(m.T[::-1] @ jnp.linalg.solve(MATRIX, m)),
        _M,
    ),
    "transposed triangle": (
        lambda w: (
            w
            @ linalg.solve_triangular(
                np.array([[1.0, 0.0, 0.0], [9.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
                w,
                lower=True,
            )
        ),
        POINT,
    ),
    "square of a spectrum": (
        lambda w: jnp.sum(jnp.real(jnp.fft.fft(w) ** 2)),
        POINT,
    ),
    "spectra times each other": (
        lambda w: jnp.sum(jnp.real(jnp.fft.fft(w) * jnp.conj(jnp.fft.fft(w[::-1])))),
        POINT,
    ),
    "spectrum of a square": (
        lambda w: jnp.sum(jnp.abs(jnp.fft.fft(w**3))),
        POINT,
    ),
    "phase": (lambda w: jnp.sum(jnp.angle(jnp.fft.fft(w))), POINT),
    "parts multiplied": (
        lambda w: jnp.sum(jnp.real(jnp.fft.fft(w)) * jnp.imag(jnp.fft.fft(w))),
        POINT,
    ),
    "concave where NaN": (
        lambda w: jnp.sum(jnp.where(jnp.isnan(_HOLES - _X @ w), -(w[0] ** 2), 0.0)),
        POINT,
    ),
    "concave where a root is NaN": (
        lambda w: jnp.sum(
            jnp.where(
                jnp.isnan(jnp.sqrt(w) + _HOLES[:3]),
                -(w**2) * jnp.array([1.0, 0.0, 1.0]),
                0.0,
            )
        ),
        POINT,
    ),
    "NaN to the power 0": (
        lambda w: jnp.sum(
            jnp.where(
                jnp.isnan((_HOLES - _X @ w) ** 0),
                0.0,
                -(w[0] ** 2) * jnp.isnan(_HOLES),
            )
        ),
        POINT,
    ),
    "solve, not affine": (lambda w: jnp.sum(jnp.linalg.solve(_A, w**3)), POINT),
    "solve for the matrix": (lambda m: jnp.sum(jnp.linalg.solve(m, POINT)), _M),
    "singular": (lambda w: jnp.sum(jnp.linalg.solve(_SINGULAR, w)), POINT),
    "a zero pivot": (
        lambda w: jnp.sum(linalg.solve_triangular(np.diag([1.0, 0.0, 1.0]), w)),
        POINT,
    ),
    "indefinite Cholesky": (
        lambda w: jnp.sum(jnp.linalg.cholesky(MATRIX - 9.0 * np.eye(3)) @ w),
        POINT,
    ),
    "an infinite entry": (
        lambda w: jnp.sum(
            linalg.solve_triangular(
                np.array([[1.0, np.inf, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), w
            )
        ),
        POINT,
    ),
    "smallest eigenvalue": (lambda m: jnp.linalg.eigvalsh(_sym(m))[0], _M),
    "middle eigenvalue": (lambda m: jnp.linalg.eigvalsh(_sym(m))[1], _M),
    "two smallest": (lambda m: jnp.sum(jnp.linalg.eigvalsh(_sym(m))[:2]), _M),
    "smallest by min": (lambda m: jnp.min(jnp.linalg.eigvalsh(m)), _M),
    "largest, thrice": (
        lambda m: -jnp.max(jnp.linalg.eigvalsh(m)[jnp.array([2, 2, 2])]),
        _M,
    ),
    "largest of a column": (
        lambda m: jnp.sum(jnp.max(jnp.linalg.eigvalsh(m)[:, None], axis=1)[:2]),
        _M,
    ),
    "eigenvectors": (lambda m: jnp.sum(jnp.linalg.eigh(_sym(m))[1]), _M),
    "of a square": (lambda m: jnp.linalg.eigvalsh(-_sym(m) @ _sym(m))[-1], _M),
    "smallest singular value": (
        lambda m: jnp.linalg.svd(m, compute_uv=False)[-1],
        _M,
    ),
    "two smallest singular values": (
        lambda m: jnp.sum(jnp.linalg.svd(m, compute_uv=False)[1:]),
        _M,
    ),
    "minus a norm": (lambda m: -jnp.linalg.norm(m, "nuc"), _M),
    "falling SLOPE": (
        lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.arange(3.0, 0.0, -1.0)),
        POINT,
    ),
    "SLOPE with a negative weight": (
        lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.array([-1.0, 1.0, 2.0])),
        POINT,
    ),
    "SLOPE of concave": (lambda w: jnp.sum(jnp.sort(-jnp.abs(w)) * POINT**2), POINT),
    "segment_min": (
        lambda w: jnp.sum(jax.ops.segment_min(_X[:3] @ w, _GROUPS, 2)),
        POINT,
    ),
    "min pooling": (
        lambda w: jnp.sum(
            lax.reduce_window(_X @ w, jnp.inf, lax.min, (3,), (3,), "VALID")
        ),
        POINT,
    ),
    "pooling of concave": (
        lambda w: jnp.sum(
            lax.reduce_window(-((_X @ w) ** 2), -jnp.inf, lax.max, (3,), (3,), "VALID")
        ),
        POINT,
    ),
}
