import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy import linalg

import phihat
from phihat import Box
from phihat.convexity import Verdict

_RNG = np.random.default_rng(3)
_A = _RNG.normal(size=(3, 3))
_S = _A @ _A.T + np.eye(3)
_SINGULAR = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
_W, _M = np.array([0.3, -0.4, 0.5]), np.diag([2.0, 1.0, 3.0])
_GROUPS = np.array([0, 1, 1], np.int32)
_X = _RNG.normal(size=(6, 3))


def _sym(m):
    return (m + m.T) / 2


_CONVEX = {
    "solve": (lambda w: jnp.sum((jnp.linalg.solve(_A, w) - 1.0) ** 2), _W),
    "triangle": (
        lambda w: jnp.sum(
            linalg.solve_triangular(jnp.linalg.cholesky(_S), w, lower=True) ** 2
        ),
        _W,
    ),
    "cho_solve": (lambda w: jnp.max(linalg.cho_solve(linalg.cho_factor(_S), w)), _W),
    "unit diagonal": (
        lambda w: jnp.sum(
            linalg.solve_triangular(_SINGULAR, w, unit_diagonal=True) ** 2
        ),
        _W,
    ),
    "largest eigenvalue": (lambda m: jnp.linalg.eigvalsh(_sym(m))[-1], _M),
    "largest two": (lambda m: jnp.sum(jnp.linalg.eigvalsh(_sym(m))[-2:]), _M),
    "minus the smallest": (lambda m: -jnp.linalg.eigvalsh(m)[0], _M),
    "the largest by max": (lambda m: jnp.max(jnp.linalg.eigvalsh(m)), _M),
    "spectral norm": (lambda m: jnp.linalg.norm(m, 2), _M),
    "nuclear norm": (lambda m: jnp.linalg.norm(2.0 * m - 1.0, "nuc"), _M),
    "Ky Fan": (lambda m: jnp.sum(jnp.linalg.svd(m, compute_uv=False)[:2]), _M),
    "SLOPE": (lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.arange(1.0, 4.0)), _W),
    "SLOPE reversed": (
        lambda w: jnp.sum(jnp.sort(jnp.abs(w))[::-1] * jnp.arange(3.0, 0.0, -1.0)),
        _W,
    ),
    "segment_max": (lambda w: jnp.sum(jax.ops.segment_max(_X[:3] @ w, _GROUPS, 2)), _W),
    "scatter max": (
        lambda w: jnp.sum(jnp.zeros(2).at[_GROUPS].max(jnp.abs(_X[:3] @ w))),
        _W,
    ),
    "max pooling": (
        lambda w: jnp.sum(
            lax.reduce_window(_X @ w, -jnp.inf, lax.max, (3,), (2,), ((1, 1),))
        ),
        _W,
    ),
}

_NOT_CONVEX = {
    "solve, not affine": (lambda w: jnp.sum(jnp.linalg.solve(_A, w**3)), _W),
    "solve for the matrix": (lambda m: jnp.sum(jnp.linalg.solve(m, _W)), _M),
    "singular": (lambda w: jnp.sum(jnp.linalg.solve(_SINGULAR, w)), _W),
    "a zero pivot": (
        lambda w: jnp.sum(linalg.solve_triangular(np.diag([1.0, 0.0, 1.0]), w)),
        _W,
    ),
    "indefinite Cholesky": (
        lambda w: jnp.sum(jnp.linalg.cholesky(_S - 9.0 * np.eye(3)) @ w),
        _W,
    ),
    "an infinite entry": (
        lambda w: jnp.sum(
            linalg.solve_triangular(
                np.array([[1.0, np.inf, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), w
            )
        ),
        _W,
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
        _W,
    ),
    "SLOPE with a negative weight": (
        lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.array([-1.0, 1.0, 2.0])),
        _W,
    ),
    "SLOPE of concave": (lambda w: jnp.sum(jnp.sort(-jnp.abs(w)) * _W**2), _W),
    "segment_min": (lambda w: jnp.sum(jax.ops.segment_min(_X[:3] @ w, _GROUPS, 2)), _W),
    "min pooling": (
        lambda w: jnp.sum(
            lax.reduce_window(_X @ w, jnp.inf, lax.min, (3,), (3,), "VALID")
        ),
        _W,
    ),
    "pooling of concave": (
        lambda w: jnp.sum(
            lax.reduce_window(-((_X @ w) ** 2), -jnp.inf, lax.max, (3,), (3,), "VALID")
        ),
        _W,
    ),
}


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", _CONVEX)
def test_what_a_theorem_makes_convex_is_proved(name, x64):
    loss, at = _CONVEX[name]
    with jax.enable_x64(x64):
        assert phihat.prove_convexity(loss, at).verdict is Verdict.PROVED_CONVEX
        turned = phihat.prove_convexity(lambda w: -loss(w), at)
        assert turned.verdict is Verdict.PROVED_CONCAVE


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", _NOT_CONVEX)
def test_its_twin_is_not(name, x64):
    loss, at = _NOT_CONVEX[name]
    with jax.enable_x64(x64):
        report = phihat.prove_convexity(loss, at)
    assert report.verdict not in (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE)


def test_values_of_the_proved_keep_to_their_chords():
    rng = np.random.default_rng(0)
    for name, (loss, at) in _CONVEX.items():
        for _ in range(20):
            one, other = (at + rng.normal(size=at.shape) for _ in range(2))
            middle = float(loss((one + other) / 2))
            chord = (float(loss(one)) + float(loss(other))) / 2
            assert middle <= chord + 1e-9 * (1.0 + abs(chord)), name


def test_a_range_of_matrices_is_proved_as_a_whole():
    loss = lambda w, m: jnp.sum(
        linalg.solve_triangular(jnp.linalg.cholesky(m), w, lower=True) ** 2
    )
    near, far = Box(_S - 0.01, _S + 0.01), Box(_S - 9.0, _S + 9.0)
    assert phihat.prove_convexity(loss, _W, near).verdict is Verdict.PROVED_CONVEX
    assert phihat.prove_convexity(loss, _W, far).verdict is Verdict.UNDECIDED
