# ruff: noqa: T201 - prints its table
"""What people write, with its known curvature: `python -m tests.everyday_objectives`.

Each line of the table is an objective, its truth, the verdict and the seconds that the
first verdict took. An objective whose truth is "convex" is never refuted, one whose
truth is "not" never proved; few may end undecided.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import jax.scipy.stats as stats
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular

import phihat
from phihat import Box
from phihat.convexity import Verdict

__all__ = ["OBJECTIVES", "RIGHT", "Objective", "verdict_of"]


class Objective(NamedTuple):
    """One objective.

    Attributes:
      loss: a function of params.
      start: the params.
      domain: where it is asked about; None for the whole space.
      truth: "convex", "concave" or "not" (neither of the two), of the program as it is
        in float32: there pieces of a Huber loss miss each other, and 1 / 3 is more.
    """

    loss: Callable[[Any], Any]
    start: Any
    domain: Box | None = None
    truth: str = "convex"


RIGHT = {
    "convex": (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE),
    "concave": (Verdict.PROVED_CONCAVE,),
    "not": (Verdict.REFUTED,),
}
"""The verdicts that are right, by the truth."""


def verdict_of(objective: Objective, budget: float = 2.0) -> Verdict:
    """Ask for the verdict."""
    loss, start, domain, _ = objective
    return phihat.check_convexity(loss, start, domain=domain, budget=budget).verdict


_RNG = np.random.default_rng(0)
_X = _RNG.normal(size=(12, 3))
_Y = _RNG.normal(size=12)
_LABELS = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0])
_SIGNS = 2.0 * _LABELS - 1.0
_COUNTS = _RNG.poisson(2.0, 12)
_MATRIX = _X.T @ _X / 12 + np.eye(3)
_FACTOR = np.linalg.cholesky(_MATRIX)
_WIDE = np.random.default_rng(1).normal(size=(80, 100)).astype(np.float32)
_W = np.array([0.3, -0.2, 0.1])
_ABOVE = np.array([0.5, 1.0, 2.0])
_POSITIVE = Box(0.1, 5.0)
_SPREAD = {"m": np.asarray(0.0), "l": np.asarray(1.0)}
_SYMMETRIC = np.eye(3) + 0.1


def _huber(delta: float) -> Callable[[Any], Any]:
    def loss(w: Any) -> Any:
        r = jnp.asarray(_X) @ w - _Y
        size = jnp.abs(r)
        return jnp.sum(
            jnp.where(size <= delta, 0.5 * r**2, delta * size - delta**2 / 2)
        )

    return loss


def _huber_of_products(delta: float) -> Callable[[Any], Any]:
    def loss(w: Any) -> Any:
        r = jnp.asarray(_X) @ w - _Y
        size = jnp.abs(r)
        return jnp.sum(
            jnp.where(size < delta, 0.5 * r * r, delta * (size - 0.5 * delta))
        )

    return loss


def _half_of_squares(w: Any) -> Any:
    r = _WIDE @ w - 1.0
    return 0.5 * r @ r / len(_WIDE) + 0.5 * w @ w


def _ordinal(p: Any) -> Any:
    """Cumulative logit with cut points padded by minus and plus infinity."""
    cuts = jnp.concatenate([jnp.array([-jnp.inf]), p["cuts"], jnp.array([jnp.inf])])
    score = jnp.asarray(_X) @ p["w"]
    upper = jax.nn.sigmoid(cuts[_LABELS + 1] - score)
    lower = jax.nn.sigmoid(cuts[_LABELS] - score)
    return -jnp.sum(jnp.log(upper - lower))


def _gaussian_of_precision(p: Any) -> Any:
    """Natural parameters: the precision l > 0 is implied by the logarithm."""
    return 0.5 * (jnp.sum(p["m"] ** 2) / p["l"]) - 0.5 * jnp.log(p["l"])


_ORDERED = {"cuts": np.array([0.0]), "w": _W}


def _naive_cross_entropy(w: Any) -> Any:
    p = 1.0 / (1.0 + jnp.exp(-_X @ w))
    label = _X[:, 0] > 0
    return -jnp.sum(label * jnp.log(p) + (1 - label) * jnp.log(1.0 - p))


OBJECTIVES: dict[str, Objective] = {
    # linear algebra with a constant matrix
    "inverse times residuals": Objective(
        lambda w: jnp.sum((jnp.linalg.inv(_MATRIX) @ w - 1.0) ** 2), _W
    ),
    "half the squares, of 100 params": Objective(_half_of_squares, np.zeros(100)),
    "less half the squares, of 100 params": Objective(
        lambda w: -_half_of_squares(w), np.zeros(100), truth="concave"
    ),
    "quadratic form of an inverse": Objective(
        lambda w: w @ jnp.linalg.inv(_MATRIX) @ w, _W
    ),
    "quadratic form by solve": Objective(
        lambda w: w @ jnp.linalg.solve(_MATRIX, w), _W
    ),
    "solve_triangular": Objective(
        lambda w: jnp.sum(solve_triangular(_FACTOR, w, lower=True) ** 2), _W
    ),
    "cho_solve": Objective(lambda w: w @ cho_solve((_FACTOR, True), w), _W),
    "fft": Objective(lambda w: jnp.sum(jnp.abs(jnp.fft.fft(w)) ** 2), _W),
    "norm of an fft": Objective(lambda w: jnp.linalg.norm(jnp.fft.fft(w)), _W),
    "absolute values of an fft": Objective(
        lambda w: jnp.sum(jnp.abs(jnp.fft.rfft(w))), _W
    ),
    "multivariate normal": Objective(
        lambda w: -stats.multivariate_normal.logpdf(w, jnp.zeros(3), _MATRIX), _W
    ),
    "multivariate normal, rows": Objective(
        lambda w: (
            -jnp.sum(stats.multivariate_normal.logpdf(jnp.asarray(_X), w, _MATRIX))
        ),
        _W,
    ),
    # spectra
    "largest eigenvalue": Objective(
        lambda w: jnp.linalg.eigvalsh((w + w.T) / 2)[-1], _SYMMETRIC
    ),
    "two largest eigenvalues": Objective(
        lambda w: jnp.sum(jnp.linalg.eigvalsh((w + w.T) / 2)[1:]), _SYMMETRIC
    ),
    "nuclear norm": Objective(lambda w: jnp.linalg.norm(w, "nuc"), _SYMMETRIC),
    "spectral norm": Objective(lambda w: jnp.linalg.norm(w, 2), _SYMMETRIC),
    "log det of diagonal": Objective(
        lambda w: -jnp.linalg.slogdet(jnp.diag(w))[1], _ABOVE, _POSITIVE
    ),
    "log det by cholesky": Objective(
        lambda w: (
            -2.0
            * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(_MATRIX + jnp.diag(w)))))
        ),
        _ABOVE,
        _POSITIVE,
    ),
    "log det of params": Objective(
        lambda w: -jnp.linalg.slogdet(_MATRIX + jnp.diag(w))[1], _ABOVE, _POSITIVE
    ),
    # perspectives
    "perspective of a square": Objective(
        lambda v: v[1] * (v[0] / v[1]) ** 2, np.ones(2), _POSITIVE
    ),
    "perspective of exp": Objective(
        lambda v: v[1] * jnp.exp(v[0] / v[1]), np.ones(2), _POSITIVE
    ),
    "perspective of a logarithm": Objective(
        lambda v: -v[1] * jnp.log(v[0] / v[1]), np.ones(2), _POSITIVE
    ),
    "perspective of softplus": Objective(
        lambda v: v[1] * jax.nn.softplus(v[0] / v[1]), np.ones(2), _POSITIVE
    ),
    "quadratic over linear": Objective(
        lambda v: v[0] ** 2 / v[1], np.ones(2), _POSITIVE
    ),
    # sorted
    "SLOPE": Objective(
        lambda w: jnp.sum(jnp.sort(jnp.abs(w)) * jnp.array([1.0, 2.0, 3.0])), _W
    ),
    "sorted weights": Objective(
        lambda w: jnp.sum(jnp.sort(w) * jnp.array([1.0, 2.0, 3.0])), _W
    ),
    "two largest": Objective(lambda w: jnp.sum(jax.lax.top_k(w, 2)[0]), _W),
    # generalised linear models
    "probit by ndtr": Objective(
        lambda w: -jnp.sum(jnp.log(special.ndtr(_SIGNS * (jnp.asarray(_X) @ w)))), _W
    ),
    "probit by norm.cdf": Objective(
        lambda w: -jnp.sum(jnp.log(stats.norm.cdf(_SIGNS * (jnp.asarray(_X) @ w)))), _W
    ),
    "probit by logcdf": Objective(
        lambda w: -jnp.sum(stats.norm.logcdf(_SIGNS * (jnp.asarray(_X) @ w))), _W
    ),
    "probit by cases": Objective(
        lambda w: (
            -jnp.sum(
                _LABELS * jnp.log(special.ndtr(jnp.asarray(_X) @ w))
                + (1 - _LABELS) * jnp.log(1.0 - special.ndtr(jnp.asarray(_X) @ w))
            )
        ),
        _W,
    ),
    "cloglog": Objective(
        lambda w: (
            -jnp.sum(
                _LABELS * jnp.log(1.0 - jnp.exp(-jnp.exp(jnp.asarray(_X) @ w)))
                - (1 - _LABELS) * jnp.exp(jnp.asarray(_X) @ w)
            )
        ),
        _W,
    ),
    "cloglog by expm1": Objective(
        lambda w: (
            -jnp.sum(
                _LABELS * jnp.log(-jnp.expm1(-jnp.exp(jnp.asarray(_X) @ w)))
                - (1 - _LABELS) * jnp.exp(jnp.asarray(_X) @ w)
            )
        ),
        _W,
    ),
    "ordinal logit, padded": Objective(
        _ordinal,
        _ORDERED,
        Box(
            {"cuts": np.array([-2.0]), "w": np.full(3, -1.0)},
            {"cuts": np.array([2.0]), "w": np.ones(3)},
        ),
    ),
    "bernoulli.logpmf of sigmoid": Objective(
        lambda w: (
            -jnp.sum(
                stats.bernoulli.logpmf(_LABELS, jax.nn.sigmoid(jnp.asarray(_X) @ w))
            )
        ),
        _W,
    ),
    "poisson.logpmf of exp": Objective(
        lambda w: -jnp.sum(stats.poisson.logpmf(_COUNTS, jnp.exp(jnp.asarray(_X) @ w))),
        _W,
    ),
    "negative binomial": Objective(
        lambda w: jnp.sum(
            (_COUNTS + 2.0) * jnp.logaddexp(0.0, jnp.asarray(_X) @ w)
            - _COUNTS * (jnp.asarray(_X) @ w)
        ),
        _W,
    ),
    "log-beta": Objective(
        lambda v: special.betaln(v[0], v[1]), np.array([1.0, 2.0]), _POSITIVE
    ),
    "beta.logpdf": Objective(
        lambda v: -stats.beta.logpdf(0.3, v[0], v[1]), np.array([1.0, 2.0]), _POSITIVE
    ),
    "dirichlet by gammaln": Objective(
        lambda v: jnp.sum(special.gammaln(v)) - special.gammaln(jnp.sum(v)),
        _ABOVE,
        _POSITIVE,
    ),
    # means
    "harmonic mean": Objective(
        lambda w: 3.0 / jnp.sum(1.0 / w), _ABOVE, _POSITIVE, "concave"
    ),
    "harmonic mean by mean": Objective(
        lambda w: 1.0 / jnp.mean(1.0 / w), _ABOVE, _POSITIVE, "concave"
    ),
    "geometric mean": Objective(
        lambda w: jnp.exp(jnp.mean(jnp.log(w))), _ABOVE, _POSITIVE, "concave"
    ),
    "geometric mean by a root": Objective(
        lambda w: jnp.prod(w) ** (1 / 3), _ABOVE, _POSITIVE, "not"
    ),
    "p-norm 1.5": Objective(lambda w: jnp.sum(jnp.abs(w) ** 1.5) ** (1 / 1.5), _W),
    "p-norm 3": Objective(lambda w: jnp.sum(jnp.abs(w) ** 3) ** (1 / 3), _W),
    "p-norm by linalg": Objective(lambda w: jnp.linalg.norm(w, 3), _W),
    "log-mean-exp": Objective(lambda w: jax.nn.logmeanexp(w), _W),
    # implied conditions
    "implied l > 0": Objective(_gaussian_of_precision, _SPREAD),
    "implied l > 0, before": Objective(
        lambda p: -0.5 * jnp.log(p["l"]) + 0.5 * jnp.sum(p["m"] ** 2) / p["l"], _SPREAD
    ),
    "log barrier": Objective(
        lambda w: jnp.sum(w) - jnp.sum(jnp.log(w)) + jnp.sum(1.0 / w), _ABOVE
    ),
    # masks and choices
    "nanmean": Objective(
        lambda w: jnp.nanmean(
            (jnp.where(_LABELS > 0, _Y, jnp.nan) - jnp.asarray(_X) @ w) ** 2
        ),
        _W,
    ),
    "mask by where": Objective(
        lambda w: jnp.sum(jnp.where(_LABELS > 0, (jnp.asarray(_X) @ w - _Y) ** 2, 0.0)),
        _W,
    ),
    "dropout of a fixed key": Objective(
        lambda w: jnp.sum(
            (
                jnp.where(
                    jax.random.bernoulli(jax.random.key(0), 0.5, _X.shape), _X / 0.5, 0
                )
                @ w
                - _Y
            )
            ** 2
        ),
        _W,
    ),
    "minibatch of a fixed key": Objective(
        lambda w: jnp.mean(
            (
                jnp.asarray(_X)[jax.random.choice(jax.random.key(1), 12, (4,))] @ w
                - jnp.asarray(_Y)[jax.random.choice(jax.random.key(1), 12, (4,))]
            )
            ** 2
        ),
        _W,
    ),
    "elu": Objective(lambda w: jnp.sum(jax.nn.elu(jnp.asarray(_X) @ w)), _W),
    "celu": Objective(lambda w: jnp.sum(jax.nn.celu(jnp.asarray(_X) @ w, 2.0)), _W),
    "segment_max": Objective(
        lambda w: jnp.sum(
            jax.ops.segment_max(jnp.asarray(_X) @ w, _LABELS, num_segments=2)
        ),
        _W,
    ),
    "max pooling": Objective(
        lambda w: jnp.sum(
            jax.lax.reduce_window(w, -jnp.inf, jax.lax.max, (2,), (1,), "VALID")
        ),
        _W,
    ),
    "select": Objective(
        lambda w: jnp.sum(
            jnp.select([w < -1.0, w < 1.0], [-2.0 * w - 1.0, w**2], 2.0 * w - 1.0)
        ),
        _W,
    ),
    "interp": Objective(
        lambda w: jnp.sum(
            jnp.interp(
                w,
                jnp.array([-1.0, 0.0, 2.0]),
                jnp.array([1.0, 0.0, 4.0]),
                left="extrapolate",
                right="extrapolate",
            )
        ),
        _W,
    ),
    "interp on a box": Objective(
        lambda w: jnp.sum(
            jnp.interp(w, jnp.array([-1.0, 0.0, 2.0]), jnp.array([1.0, 0.0, 4.0]))
        ),
        _W,
        Box(-1.0, 2.0),
    ),
    # what is written by hand, or with a mask
    "masked logsumexp": Objective(
        lambda w: jax.nn.logsumexp(w, where=np.array([True, False, True])), _W
    ),
    "masked cross-entropy": Objective(
        lambda w: -jax.nn.log_softmax(w, where=np.array([True, False, True]))[0], _W
    ),
    "naive cross-entropy": Objective(_naive_cross_entropy, _W),
    "stable cross-entropy": Objective(
        lambda w: jnp.sum(
            jnp.maximum(_X @ w, 0.0)
            - (_X @ w) * (_X[:, 0] > 0)
            + jnp.log1p(jnp.exp(-jnp.abs(_X @ w)))
        ),
        _W,
    ),
    "soft minimum": Objective(
        lambda w: jnp.min(w) - jnp.log(jnp.sum(jnp.exp(-(w - jnp.min(w))))),
        _W,
        truth="concave",
    ),
    "square in pieces": Objective(
        lambda w: jnp.exp(w[0]) + w[0] ** 2 - 2.0 * w[0] * w[1] + w[1] ** 2, _W
    ),
    "relative entropy by xlogy": Objective(
        lambda w: jnp.sum(special.xlogy(w[:2], w[:2]) - special.xlogy(w[:2], w[1:])),
        np.array([0.3, 0.2, 0.5]),
        Box(0.05, 2.0),
    ),
    "Huber .1": Objective(_huber(0.1), _W, truth="not"),
    "Huber .7": Objective(_huber(0.7), _W, truth="not"),
    "Huber 1.345": Objective(_huber(1.345), _W, truth="not"),
    "Huber of products .1": Objective(_huber_of_products(0.1), _W),
    "Huber of products 1.345": Objective(_huber_of_products(1.345), _W),
}


def main() -> int:
    """Print the table; fail on a false verdict, or where too many are undecided."""
    undecided = wrong = 0
    for name, objective in OBJECTIVES.items():
        begin = time.monotonic()
        verdict = verdict_of(objective)
        seconds = time.monotonic() - begin
        is_wrong = verdict not in (*RIGHT[objective.truth], Verdict.UNDECIDED)
        wrong += is_wrong
        undecided += verdict is Verdict.UNDECIDED
        mark = " <-- WRONG" if is_wrong else ""
        print(f"{name:32} {objective.truth:8} {verdict.name:18} {seconds:6.2f}{mark}")
    print(f"{len(OBJECTIVES)} objectives, {undecided} undecided, {wrong} wrong")
    return int(bool(wrong or undecided > 3))


if __name__ == "__main__":
    sys.exit(main())
