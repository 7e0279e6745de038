"""Programs that resemble means, distributions, perspectives, and are not convex.

Each stands beside an objective of `everyday_objectives.py` that is proved, and differs
from it in what the theorem asks for. The format is that of the zoo.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np

from phihat import Box

__all__ = ["FURTHER_FRIENDS"]

_X, _V, _ONES = np.asarray(0.5), np.array([0.3, -0.7, 1.1]), np.ones(3)
_ABOVE = Box(0.1, 5.0)


def _normal(x: Any, below: Any, above: Any, middle: Any) -> Any:
    """Write a normal distribution by cases, as jax does."""
    size = jnp.abs(x)
    tails = jnp.where(x > 0.0, above(size), below(size))
    return 0.5 * jnp.where(size < 0.7, middle(x), tails)


def _solved_reversed(b: Any) -> Any:
    """Solve with the identity's factors, its permuted rows in reverse order."""
    factors, _, order = jax.lax.linalg.lu(jnp.eye(2))
    column = b[order][::-1, None]
    for how in ({"lower": True, "unit_diagonal": True}, {}):
        column = jax.lax.linalg.triangular_solve(factors, column, left_side=True, **how)
    return column[:, 0]


_CORNER = np.array([[1.0, 0.0], [3.0, 1.0]])

_ERFC, _REST = jax.lax.erfc, lambda z: 2.0 - jax.lax.erfc(z)

FURTHER_FRIENDS: dict[str, tuple[Any, ...]] = {
    # normal distributions by cases
    "normal with the tails swapped": (
        lambda x: -jnp.log(_normal(x, _REST, _ERFC, lambda w: 1.0 + jax.lax.erf(w))),
        _X,
    ),
    "normal with 3 for 2": (
        lambda x: -jnp.log(
            _normal(
                x, _ERFC, lambda z: 3.0 - _ERFC(z), lambda w: 1.0 + jax.lax.erf(w)
            )
        ), _X,
    ),
    "normal that falls between": (
        lambda x: -jnp.log(_normal(x, _ERFC, _REST, lambda w: 1.0 + jax.lax.erf(-w))),
        _X,
    ),
    "log of a normal": (lambda x: jnp.log(special.ndtr(x)), _X),
    "log of 1 - normal": (lambda x: jnp.log(1.0 - special.ndtr(x)), _X),
    "1 - .4 erfc": (
        lambda x: -jnp.log(1.0 - 0.4 * (1.0 + jax.lax.erf(x))), _X,
    ),
    "1.5 - normal": (lambda x: -jnp.log(1.5 - special.ndtr(x)), _X),
    "1 - normal of a concave": (
        lambda x: -jnp.log(1.0 - special.ndtr(-(x**2))), _X,
    ),
    # complements
    "log1p of a sigmoid": (lambda x: -jnp.log1p(jax.nn.sigmoid(x)), _X),
    "log1p of - sigmoid": (lambda x: jnp.log1p(-jax.nn.sigmoid(x)), _X),
    "log1p of - sigmoid of a concave": (
        lambda x: -jnp.log1p(-jax.nn.sigmoid(-(x**2))), _X,
    ),
    "xlog1py the wrong way": (
        lambda x: special.xlog1py(2.0, -jax.nn.sigmoid(x)), _X,
    ),
    "saturation of 1 + x^2": (
        lambda x: -jnp.log(1.0 - jnp.exp(-(1.0 + x**2))), _X,
    ),
    "saturation by expm1 of 1 + x^2": (
        lambda x: -jnp.log(-jnp.expm1(-(1.0 + x**2))), _X,
    ),
    "saturation turned": (lambda x: jnp.log(1.0 - jnp.exp(-jnp.exp(x))), _X),
    "2 - exp(-exp)": (lambda x: -jnp.log(2.0 - jnp.exp(-jnp.exp(x))), _X),
    "saturation of exp, plain": (lambda x: -(1.0 - jnp.exp(-jnp.exp(x))), _X),
    # exponential linear units
    "elu of slope 2": (lambda x: jnp.where(x > 0.0, x, 2.0 * jnp.expm1(x)), _X),
    "elu that rises less above 0": (
        lambda x: jnp.where(x > 0.0, 0.5 * x, jnp.expm1(x)),
        _X,
    ),
    "elu with a jump": (lambda x: jnp.where(x > 1.0, x, jnp.expm1(x)), _X),
    "elu turned": (lambda x: jnp.where(x > 0.0, jnp.expm1(x), -x - 1.0), _X),
    "elu of another": (
        lambda v: jnp.where(v[0] > 0.0, v[1], jnp.expm1(v[1])), _V,
    ),
    "elu below -x": (lambda x: jnp.where(x > 0.0, x, jnp.expm1(-x) - 1.0), _X),
    "elu of concave": (lambda x: jax.nn.elu(1.0 - x**2), _X),
    "celu of a wrong scale": (
        lambda x: jnp.maximum(x, 0.0) + 2.0 * jnp.expm1(jnp.minimum(x, 0.0) / 1.5), _X,
    ),
    "celu of a cut at 1": (
        lambda x: jnp.maximum(x, 1.0) + 3.0 * jnp.expm1(jnp.minimum(x, 0.0)), _X,
    ),
    "celu of two values": (
        lambda v: jnp.maximum(v[0], 0.0)
        + jnp.expm1(jnp.minimum(v[1], 0.0) - v[0] ** 2),
        _V,
    ),
    # means
    "minus a harmonic mean of squares": (
        lambda v: -(1.0 / jnp.sum(1.0 / v**2)), _ONES, None, _ABOVE,
    ),
    "harmonic mean": (lambda v: 1.0 / jnp.sum(1.0 / v), _ONES, None, _ABOVE),
    "minus a harmonic difference": (
        lambda v: -(1.0 / (1.0 / v[0] - 0.1 / v[1])), _ONES, None, Box(1.0, 5.0),
    ),
    "minus a harmonic sum over a sum": (
        lambda v: -((1.0 + v[0]) / jnp.sum(1.0 / v)), _ONES, None, _ABOVE,
    ),
    "minus a harmonic mean of exps": (
        lambda v: -(1.0 / jnp.sum(jnp.exp(v))), _V,
    ),
    "minus a product by logs": (
        lambda v: -jnp.exp(jnp.sum(jnp.log(v))), _ONES, None, _ABOVE,
    ),
    "minus a product by a sum of two logs": (
        lambda v: -jnp.exp(0.6 * jnp.log(v[0]) + 0.6 * jnp.log(v[1])), _ONES, None,
        _ABOVE,
    ),
    "minus a square by logs": (
        lambda v: -jnp.exp(2.0 * jnp.log(v[0])), _ONES, None, _ABOVE,
    ),
    "minus a ratio by logs": (
        lambda v: -jnp.exp(jnp.log(v[0]) - jnp.log(v[1])), _ONES, None, _ABOVE,
    ),
    "minus a mean of logs of .4": (
        lambda v: -jnp.exp(jnp.sum(0.4 * jnp.log(v))), _ONES, None, _ABOVE,
    ),
    "minus weights of 1.1": (
        lambda v: -jnp.exp(jnp.asarray([0.5, 0.4, 0.2]) @ jnp.log(v)), _ONES, None,
        _ABOVE,
    ),
    "minus a mean of logs over .9": (
        lambda v: -jnp.exp(jnp.sum(jnp.log(v)) / 2.7), _ONES, None, _ABOVE,
    ),
    "minus a mean of logs of squares": (
        lambda v: -jnp.exp(jnp.mean(jnp.log(v**2))), _ONES, None, _ABOVE,
    ),
    # gamma functions
    "beta of twice the sum": (
        lambda v: jnp.sum(special.gammaln(v)) - 2.0 * special.gammaln(jnp.sum(v)),
        _ONES, None, _ABOVE,
    ),
    "beta without a part": (
        lambda v: special.gammaln(v[0]) - special.gammaln(v[0] + v[1]), _ONES, None,
        _ABOVE,
    ),
    "beta of squares": (
        lambda v: special.gammaln(v[0] ** 2) + special.gammaln(v[1] ** 2)
        - special.gammaln(v[0] ** 2 + v[1] ** 2), _ONES, None, _ABOVE,
    ),
    "beta of the smaller and another larger": (
        lambda v: special.gammaln(jnp.minimum(v[0], v[1]))
        + (
            special.gammaln(jnp.maximum(v[0], 2.0 * v[1]))
            - special.gammaln(
                jnp.minimum(v[0], v[1]) + jnp.maximum(v[0], 2.0 * v[1])
            )
        ), _ONES, None, _ABOVE,
    ),
    "beta of a part": (
        lambda v: jnp.sum(special.gammaln(v[:2])) - special.gammaln(jnp.sum(v)),
        _ONES, None, _ABOVE,
    ),
    # perspectives
    "perspective of a sine": (
        lambda v: v[1] * jnp.sin(v[0] / v[1]), _ONES, None, _ABOVE,
    ),
    "perspective with another t": (
        lambda v: v[1] * jnp.exp(v[0] / v[2]), _ONES, None, _ABOVE,
    ),
    "perspective turned": (
        lambda v: -v[1] * jnp.exp(v[0] / v[1]), _ONES, None, _ABOVE,
    ),
    "perspective of a negative t": (
        lambda v: v[1] * jnp.exp(v[0] / v[1]), np.array([1.0, -1.0, 1.0]), None,
        Box(np.array([0.1, -5.0, 0.1]), np.array([5.0, -0.1, 5.0])),
    ),
    "perspective of a falling convex": (
        lambda v: v[1] * jnp.exp(-(v[0] ** 2) / v[1]), _ONES, None, _ABOVE,
    ),
    # choices by several truths
    "the first of two truths": (
        lambda x: jnp.select([x > 0.0, x > -1.0], [-(x**2), x**2], x**2), _X,
    ),
    # an implied condition
    "implied by another": (
        lambda v: v[0] ** 2 / v[1] - jnp.log(v[2]), _ONES,
    ),
    "implied by some elements": (
        lambda v: 1.0 / v[1] - jnp.log(v)[0], _ONES,
    ),
    "implied where it is chosen": (
        lambda v: 1.0 / v[1] + jnp.where(v[0] > 0.0, -jnp.log(v[1]), 0.0), _ONES,
    ),
    "implied but for nan_to_num": (
        lambda v: v[0] ** 2 / v[1] - jnp.nan_to_num(jnp.log(v[1])), _ONES,
    ),
    "implied to the power 0": (
        lambda v: v[0] ** 2 / v[1] - jax.lax.integer_pow(jnp.log(v[1]), 0), _ONES,
    ),
    # interpolation and factors
    "interpolation of a wave": (
        lambda x: jnp.interp(x, jnp.arange(3.0), jnp.asarray([0.0, 2.0, 1.0])), _X,
        None, Box(0.0, 2.0),
    ),
    "interpolation beyond its ends": (
        lambda x: jnp.interp(x, jnp.arange(3.0), jnp.asarray([1.0, 0.0, 2.0])), _X,
        None, Box(0.0, 3.0),
    ),
    "interpolation of a concave": (
        lambda x: jnp.interp(
            1.0 - x**2, jnp.arange(3.0), jnp.asarray([0.0, 1.0, 4.0]),
            left="extrapolate", right="extrapolate",
        ), _X,
    ),
    "extrapolation downward": (
        lambda x: jnp.interp(
            x**2, jnp.arange(3.0), jnp.asarray([0.0, -1.0, 4.0]),
            left="extrapolate", right="extrapolate",
        ), _X,
    ),
    "a factor's diagonal": (
        lambda v: -jnp.sum(
            jnp.diag(jnp.linalg.cholesky(jnp.eye(3) + jnp.diag(v**2))) ** -1.0
        ), _V,
    ),
    "the square of a factor's squares": (
        lambda v: -jnp.sum(
            jnp.diag(jnp.linalg.cholesky(jnp.eye(3) * 2.0 + jnp.diag(v))) ** 3
        ), _V,
    ),
    "a factor of a square": (
        lambda v: -jnp.sum(
            jnp.log(jnp.diag(jnp.linalg.cholesky(jnp.eye(3) + jnp.diag(v**2))))
        ), _V,
    ),
    "an entry below a factor's diagonal": (
        lambda v: -jnp.linalg.cholesky(
            jnp.asarray([[1.0, 0.0], [0.0, 9.0]])
            + v[0] * jnp.asarray([[1.0, 0.0], [0.0, 0.0]])
            + v[1] * jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
        )[1, 0], np.array([0.5, 0.0, 0.0]), None, Box(-0.5, 1.0),
    ),
    # determinants
    "log of a determinant": (
        lambda v: jnp.linalg.slogdet(jnp.eye(3) * 3.0 + jnp.diag(v))[1], _V, None,
        Box(-1.0, 2.0),
    ),
    "log det of no definite matrix": (
        lambda v: -jnp.linalg.slogdet(
            jnp.asarray([[0.0, 2.0], [2.0, 0.0]]) + jnp.diag(v[:2])
        )[1], np.zeros(3), None, Box(-1.0, 1.0),
    ),
    "log det that is not symmetric": (
        lambda v: -jnp.linalg.slogdet(
            jnp.asarray([[5.0, 0.0], [0.0, 5.0]])
            + jnp.asarray([[0.0, 1.0], [0.0, 0.0]]) * v[0]
            + jnp.asarray([[0.0, 0.0], [-1.0, 0.0]]) * v[1]
        )[1], np.zeros(3), None, Box(-1.0, 1.0),
    ),
    "log det of squares": (
        lambda v: -jnp.linalg.slogdet(jnp.eye(3) + jnp.diag(v**2))[1], _V,
    ),
    # interpolation and linear systems
    "interp that falls again": (
        lambda x: jnp.interp(x, jnp.arange(3.0), jnp.asarray([0.0, 1.0, 0.0])),
        _X, None, Box(0.2, 1.8),
    ),
    "interp of a cube": (
        lambda x: jnp.interp(x**3, jnp.arange(-10.0, 11.0, 10), jnp.arange(3.0)),
        _X, None, Box(-2.0, 2.0),
    ),
    "interp with level ends": (
        lambda x: jnp.interp(x, jnp.asarray([-1.0, 1.0]), jnp.asarray([-1.0, 1.0])),
        _X,
    ),
    "solution of a triangle": (
        lambda v: v[:2] @ jax.scipy.linalg.solve_triangular(_CORNER, v[:2], lower=True),
        _V,
    ),
    "solution of a triangle turned": (
        lambda v: v[1] ** 2 + v[0] * jax.scipy.linalg.solve_triangular(
            _CORNER, v[:2], trans=1, lower=True
        )[0], _V,
    ),
    "solution of a system": (
        lambda v: v[:2] @ jnp.linalg.solve(jnp.asarray(_CORNER), v[:2]), _V,
    ),
    "solution with the rows reversed": (
        lambda v: v[:2] @ _solved_reversed(v[:2]), _V,
    ),
    # powers of one value, and what is not a number, or infinite, somewhere
    "transform of squares": (lambda v: jnp.fft.rfft(v**2)[1].real, _V),
    "sum of two shifts": (
        lambda v: jnp.log(
            jnp.exp(v[0] - jnp.max(v[:2])) + jnp.exp(v[1] - jnp.max(v[1:]))
        ) + jnp.max(v[:2]), _V,
    ),
    "product of two roots": (lambda x: x**0.2 * x**0.4, _X, None, _ABOVE),
    "digamma that equals itself": (
        lambda x: jnp.where(
            special.digamma(x) == special.digamma(x), x**2, -(x**2)
        ), _X, None, Box(-2.0, 2.0),
    ),
    "gamma that is finite": (
        lambda x: jnp.where(jnp.isfinite(special.gammaln(x)), x, -5.0),
        _X, None, Box(0.0, 2.0),
    ),
    "sigmoid of a mask": (
        lambda v: v[1] ** 2 * (
            jax.nn.sigmoid(jnp.where(np.arange(3) < 1, -jnp.inf, v))[0] - 0.5
        ), _V,
    ),
    "exp above a logarithm of data": (
        lambda v, d: jnp.where(jnp.exp(v[0]) >= jnp.log(d), 1.0, -1.0) * (v @ v),
        _V, Box(-1.0, 1.0),
    ),
    "exp above a root of data": (
        lambda v, d: jnp.where(jnp.exp(v[0]) > -1.0 - jnp.sqrt(d), 1.0, -1.0) * (v @ v),
        _V, Box(-1.0, 1.0),
    ),
    "power times its root": (
        lambda x: x**0.6 * jnp.sqrt(x**0.6), _X, None, _ABOVE,
    ),
    # choices by the first truth
    "select with a jump": (
        lambda x: jnp.select([x < -1.0, x < 1.0], [-2.0 * x - 1.0, x**2], 2.0 * x),
        _X,
    ),
    "select by the first truth": (
        lambda x: jnp.select(
            [x < 1.0, x < -1.0], [(x + 1.0) ** 3, 0.0 * x], 12.0 * x - 4.0
        ), _X,
    ),
    "select in another order": (
        lambda x: jnp.select([x < 1.0, x < -1.0], [x, x**2], -x), _X,
    ),
}  # fmt: skip
