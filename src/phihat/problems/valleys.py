r"""Sums of squares that are hard to descend, collected by Moré, Garbow and Hillstrom.

Curved and flat valleys, params of very different sizes, minima that are not zero. Each
keeps the published start.

References:
  Moré, Garbow and Hillstrom, *Testing unconstrained optimization software*, ACM
  Transactions on Mathematical Software 1981.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.problems.problem import Problem, cube, plane, point, vectors

__all__ = [
    "bard",
    "brown_badly_scaled",
    "brown_dennis",
    "freudenstein_roth",
    "helical_valley",
    "jennrich_sampson",
    "kowalik_osborne",
    "powell_singular",
    "variably_dimensioned",
    "wood",
]


@_calls.public
def freudenstein_roth() -> Problem:
    r"""Make Freudenstein and Roth's function: a lesser minimum on the way.

    $(-13 + x + ((5 - y) y - 2) y)^2 + (-29 + x + ((y + 1) y - 14) y)^2$; from the start
    a descent ends at (11.41, -0.8968) with 48.98.

    Example:
      >>> float(freudenstein_roth().loss_fn(jnp.array([5.0, 4.0])))
      0.0
    """
    return plane(
        "freudenstein_roth",
        Partial(_sum_of_squares, Partial(_freudenstein_roth)),
        start=[0.5, -2.0],
        minimum=[5.0, 4.0],
        box=Box([-5.0, -5.0], [15.0, 6.0]),
    )


@_calls.public
def brown_badly_scaled() -> Problem:
    r"""Make Brown's badly scaled function: params twelve powers of ten apart.

    $(x - 10^6)^2 + (y - 2 \cdot 10^{-6})^2 + (x y - 2)^2$.

    Example:
      >>> float(brown_badly_scaled().loss_fn(jnp.array([1.0, 1.0]))) > 9e11
      True
    """
    return plane(
        "brown_badly_scaled",
        Partial(_sum_of_squares, Partial(_brown_badly_scaled)),
        start=[1.0, 1.0],
        minimum=[1e6, 2e-6],
        box=Box([0.0, 0.0], [2e6, 2.0]),
    )


@_calls.public
def jennrich_sampson() -> Problem:
    r"""Make Jennrich and Sampson's function, steep and with a large minimum.

    $\sum_{i=1}^{10} (2 + 2i - e^{ix} - e^{iy})^2$.

    Example:
      >>> print(f"{jennrich_sampson().minimum_value:.3f}")
      124.362
    """
    return plane(
        "jennrich_sampson",
        Partial(_sum_of_squares, Partial(_jennrich_sampson, *vectors(range(1, 11)))),
        start=[0.3, 0.4],
        minimum=[0.2578252136703641, 0.2578252136703641],
        minimum_value=124.36218235561478,
        box=cube(0.0, 0.5, 2),
    )


@_calls.public
def helical_valley() -> Problem:
    r"""Make Fletcher and Powell's helical valley, three params.

    $100 (z - 10 \vartheta)^2 + 100 (\sqrt{x^2 + y^2} - 1)^2 + z^2$ with $\vartheta$ the
    angle of (x, y) over $2\pi$.

    Example:
      >>> print(f"{helical_valley().loss_fn(jnp.array([-1.0, 0.0, 0.0])):.0f}")
      2500
    """
    return plane(
        "helical_valley",
        Partial(_sum_of_squares, Partial(_helical_valley)),
        start=[-1.0, 0.0, 0.0],
        minimum=[1.0, 0.0, 0.0],
        box=cube(-2.0, 6.0, 3),
    )


@_calls.public
def bard() -> Problem:
    r"""Make Bard's curve through 15 points, three params.

    $y_i \approx \phi_1 + u_i / (v_i \phi_2 + w_i \phi_3)$ with $u = i$, $v = 16 - i$
    and $w = \min(u, v)$.

    Example:
      >>> print(f"{bard().minimum_value:.8f}")
      0.00821488
    """
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39]
    y += [0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
    return plane(
        "bard",
        Partial(_sum_of_squares, Partial(_bard, *vectors(range(1, 16), y))),
        start=[1.0, 1.0, 1.0],
        minimum=[0.08241055974978899, 1.1330360920297227, 2.343695178642536],
        minimum_value=0.008214877306578989,
        box=cube(0.05, 3.0, 3),
    )


@_calls.public
def kowalik_osborne() -> Problem:
    r"""Make Kowalik and Osborne's curve through 11 points, four params.

    $y_i \approx \phi_1 (u_i^2 + u_i \phi_2) / (u_i^2 + u_i \phi_3 + \phi_4)$.

    Example:
      >>> print(f"{kowalik_osborne().minimum_value:.8f}")
      0.00030751
    """
    y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627]
    y += [0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
    u = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]
    return plane(
        "kowalik_osborne",
        Partial(_sum_of_squares, Partial(_kowalik_osborne, *vectors(u, y))),
        start=[0.25, 0.39, 0.415, 0.39],
        minimum=[
            0.19280693457903791,
            0.19128232873436654,
            0.12305650692632059,
            0.13606233068379467,
        ],
        minimum_value=0.00030750560384923826,
        box=cube(0.0, 0.42, 4),
    )


@_calls.public
def brown_dennis() -> Problem:
    r"""Make Brown and Dennis' function: convex, four params, a minimum of 85822.

    $\sum_{i=1}^{20} ((\phi_1 + t_i \phi_2 - e^{t_i})^2 + (\phi_3 + \phi_4 \sin t_i -
    \cos t_i)^2)^2$ with $t_i = i / 5$.

    Example:
      >>> print(f"{brown_dennis().minimum_value:.1f}")
      85822.2
    """
    times = [i / 5 for i in range(1, 21)]
    return plane(
        "brown_dennis",
        Partial(_sum_of_squares, Partial(_brown_dennis, *vectors(times))),
        start=[25.0, 5.0, -5.0, -1.0],
        minimum=[
            -11.594439904762162,
            13.203630051207202,
            -0.4034394881768596,
            0.23677877445573633,
        ],
        minimum_value=85822.20162635634,
        is_convex=True,
        box=cube(-25.0, 25.0, 4),
    )


@_calls.public
def powell_singular() -> Problem:
    r"""Make Powell's function: the Hessian at the minimum is singular, and convex.

    $(\phi_1 + 10 \phi_2)^2 + 5 (\phi_3 - \phi_4)^2 + (\phi_2 - 2 \phi_3)^4 + 10
    (\phi_1 - \phi_4)^4$.

    Example:
      >>> float(powell_singular().loss_fn(powell_singular().start))
      215.0
    """
    return plane(
        "powell_singular",
        _powell_singular,
        start=[3.0, -1.0, 0.0, 1.0],
        minimum=[0.0, 0.0, 0.0, 0.0],
        is_convex=True,
        box=cube(-4.0, 4.0, 4),
    )


@_calls.public
def wood() -> Problem:
    r"""Make Wood's function: two valleys of Rosenbrock's, tied together; four params.

    Example:
      >>> float(wood().loss_fn(jnp.ones(4)))
      0.0
    """
    return plane(
        "wood",
        _wood,
        start=[-3.0, -1.0, -3.0, -1.0],
        minimum=[1.0, 1.0, 1.0, 1.0],
        box=cube(-4.0, 4.0, 4),
    )


@_calls.public
def variably_dimensioned(dim: int = 10) -> Problem:
    r"""Make a convex function of any dimension, steep in one direction.

    $\sum_j (\phi_j - 1)^2 + S^2 + S^4$ with $S = \sum_j j (\phi_j - 1)$.

    Args:
      dim: the number of params, >= 1.

    Raises:
      ValueError: dim below 1.

    Example:
      >>> float(variably_dimensioned(2).loss_fn(jnp.array([1.0, 2.0])))
      21.0
    """
    dim = _checks.check_count("variably_dimensioned", "dim", dim)
    weights = point([float(j) for j in range(1, dim + 1)])
    return plane(
        "variably_dimensioned",
        Partial(_variably_dimensioned, weights),
        start=[1.0 - j / dim for j in range(1, dim + 1)],
        minimum=[1.0] * dim,
        is_convex=True,
        box=cube(0.0, 2.0, dim),
    )


# ------------------------------------------------------------------------- private


def _sum_of_squares(
    residual_fn: Callable[[Any], tuple[Array, ...]], params: Any
) -> Float[Array, ""]:
    residuals = jnp.concatenate(
        [jnp.ravel(part) for part in residual_fn(jnp.asarray(params))]
    )
    return jnp.sum(residuals * residuals)


def _freudenstein_roth(params: Array) -> tuple[Array, ...]:
    x, y = params
    first = x + ((5.0 - y) * y - 2.0) * y - 13.0
    return first, x + ((y + 1.0) * y - 14.0) * y - 29.0


def _brown_badly_scaled(params: Array) -> tuple[Array, ...]:
    x, y = params
    return x - 1e6, y - 2e-6, x * y - 2.0


def _jennrich_sampson(numbers: Array, params: Array) -> tuple[Array, ...]:
    x, y = params
    numbers = numbers.astype(params.dtype)
    return (2.0 + 2.0 * numbers - jnp.exp(numbers * x) - jnp.exp(numbers * y),)


def _helical_valley(params: Array) -> tuple[Array, ...]:
    x, y, z = params
    turn = jnp.arctan2(y, x) / (2.0 * jnp.pi)
    # The cut of the angle is the half-line x = 0, y < 0, as published.
    turn = jnp.where(turn < -0.25, turn + 1.0, turn)
    return 10.0 * (z - 10.0 * turn), 10.0 * (jnp.sqrt(x * x + y * y) - 1.0), z


def _bard(numbers: Array, y: Array, params: Array) -> tuple[Array, ...]:
    u, y = numbers.astype(params.dtype), y.astype(params.dtype)
    v = 16.0 - u
    return (y - (params[0] + u / (v * params[1] + jnp.minimum(u, v) * params[2])),)


def _kowalik_osborne(u: Array, y: Array, params: Array) -> tuple[Array, ...]:
    u, y = u.astype(params.dtype), y.astype(params.dtype)
    above = params[0] * (u * u + u * params[1])
    return (y - above / (u * u + u * params[2] + params[3]),)


def _brown_dennis(times: Array, params: Array) -> tuple[Array, ...]:
    times = times.astype(params.dtype)
    first = params[0] + times * params[1] - jnp.exp(times)
    second = params[2] + params[3] * jnp.sin(times) - jnp.cos(times)
    return (first * first + second * second,)


def _powell_singular(params: Any) -> Float[Array, ""]:
    a, b, c, d = params
    quartic = (b - 2.0 * c) ** 4 + 10.0 * (a - d) ** 4
    return (a + 10.0 * b) ** 2 + 5.0 * (c - d) ** 2 + quartic


def _wood(params: Any) -> Float[Array, ""]:
    a, b, c, d = params
    first = 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2
    second = 90.0 * (d - c * c) ** 2 + (1.0 - c) ** 2
    return first + second + 10.0 * (b + d - 2.0) ** 2 + 0.1 * (b - d) ** 2


def _variably_dimensioned(weights: Array, params: Any) -> Float[Array, ""]:
    off = jnp.asarray(params) - 1.0
    total = jnp.sum(weights.astype(off.dtype) * off)
    square = total * total
    return jnp.sum(off * off) + square + square * square
