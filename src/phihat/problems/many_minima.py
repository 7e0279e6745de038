r"""Functions with many minima, of the literature on global optimization.

References:
  Dixon and Szegő, *Towards Global Optimisation 2*, 1978.
  Jamil and Yang, *A literature survey of benchmark functions for global optimization
  problems*, 2013.
"""

import math
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core.types import Box
from phihat.problems.problem import Problem, cube, plane, vectors

__all__ = [
    "branin",
    "easom",
    "goldstein_price",
    "griewank",
    "hartmann",
    "levy",
    "rastrigin",
    "styblinski_tang",
    "three_hump_camel",
]


@_calls.public
def branin() -> Problem:
    r"""Make Branin's function: three equal minima.

    $(y - \frac{5.1}{4\pi^2} x^2 + \frac{5}{\pi} x - 6)^2 + 10 (1 - \frac{1}{8\pi})
    \cos x + 10$, least at $(\pi, 2.275)$ with $\frac{5}{4\pi}$.

    Example:
      >>> print(f"{branin().minimum_value:.6f}")
      0.397887
    """
    return plane(
        "branin",
        _branin,
        start=[2.5, 7.5],
        minimum=[math.pi, 2.275],
        minimum_value=1.25 / math.pi,
        box=Box([-5.0, 0.0], [10.0, 15.0]),
    )


@_calls.public
def goldstein_price() -> Problem:
    """Make Goldstein and Price's polynomial: four minima, values from 3 to a million.

    Example:
      >>> float(goldstein_price().loss_fn(jnp.array([0.0, -1.0])))
      3.0
    """
    return plane(
        "goldstein_price",
        _goldstein_price,
        start=[1.0, 1.0],
        minimum=[0.0, -1.0],
        minimum_value=3.0,
        box=cube(-2.0, 2.0, 2),
    )


@_calls.public
def three_hump_camel() -> Problem:
    r"""Make the three-hump camel: three minima.

    $2 x^2 - 1.05 x^4 + x^6 / 6 + x y + y^2$.

    Example:
      >>> float(three_hump_camel().loss_fn(jnp.zeros(2)))
      0.0
    """
    return plane(
        "three_hump_camel",
        _three_hump_camel,
        start=[1.5, 1.0],
        minimum=[0.0, 0.0],
        box=cube(-5.0, 5.0, 2),
    )


@_calls.public
def easom() -> Problem:
    r"""Make Easom's function: one deep well in a plain that is almost level.

    $-\cos x \cos y \exp(-(x - \pi)^2 - (y - \pi)^2)$.

    Example:
      >>> float(easom().loss_fn(easom().minimum))
      -1.0
    """
    return plane(
        "easom",
        _easom,
        start=[2.0, 2.0],
        minimum=[math.pi, math.pi],
        minimum_value=-1.0,
        box=cube(0.0, 6.0, 2),
    )


@_calls.public
def hartmann() -> Problem:
    r"""Make Hartmann's function of three params: four bells of different widths.

    $-\sum_i c_i \exp(-\sum_j a_{ij} (\phi_j - p_{ij})^2)$.

    Example:
      >>> print(f"{hartmann().minimum_value:.5f}")
      -3.86278
    """
    heights = [1.0, 1.2, 3.0, 3.2]
    widths = [[3.0, 10.0, 30.0], [0.1, 10.0, 35.0]] * 2
    places = [
        [0.3689, 0.1170, 0.2673],
        [0.4699, 0.4387, 0.7470],
        [0.1091, 0.8732, 0.5547],
        [0.03815, 0.5743, 0.8828],
    ]
    return plane(
        "hartmann",
        Partial(_hartmann, *vectors(heights, widths, places)),
        start=[0.5, 0.5, 0.5],
        minimum=[0.11461433858967196, 0.5556488499718569, 0.8525469535208658],
        minimum_value=-3.862782147820755,
        box=cube(0.0, 1.0, 3),
    )


@_calls.public
def rastrigin(dim: int = 2) -> Problem:
    r"""Make Rastrigin's function: a bowl with a dip near every whole number.

    $\sum_j \phi_j^2 - 10 \cos 2\pi\phi_j + 10$.

    Args:
      dim: the number of params, >= 1.

    Raises:
      ValueError: dim below 1.

    Example:
      >>> print(f"{rastrigin().loss_fn(jnp.array([1.0, 0.0])):.3f}")
      1.000
    """
    return _separable("rastrigin", _rastrigin, dim, start=0.6, minimum=0.0, reach=5.12)


@_calls.public
def griewank(dim: int = 2) -> Problem:
    r"""Make Griewank's function: shallow dips in a wide bowl.

    $1 + \sum_j \phi_j^2 / 4000 - \prod_j \cos(\phi_j / \sqrt j)$.

    Args:
      dim: the number of params, >= 1.

    Raises:
      ValueError: dim below 1.

    Example:
      >>> float(griewank().loss_fn(jnp.zeros(2)))
      0.0
    """
    return _separable("griewank", _griewank, dim, start=4.0, minimum=0.0, reach=20.0)


@_calls.public
def styblinski_tang(dim: int = 2) -> Problem:
    r"""Make Styblinski and Tang's function: $2^P$ minima, one of them best.

    $\frac12 \sum_j \phi_j^4 - 16 \phi_j^2 + 5 \phi_j$.

    Args:
      dim: the number of params, >= 1.

    Raises:
      ValueError: dim below 1.

    Example:
      >>> print(f"{styblinski_tang(1).minimum_value:.5f}")
      -39.16617
    """
    return _separable(
        "styblinski_tang",
        _styblinski_tang,
        dim,
        start=-1.0,
        minimum=-2.9035340277711770951,
        value=-39.166165703771419226,
        reach=5.0,
    )


@_calls.public
def levy(dim: int = 2) -> Problem:
    r"""Make Levy's function: waves across a bowl.

    $\sin^2 \pi w_1 + \sum_{j<P} (w_j - 1)^2 (1 + 10 \sin^2(\pi w_j + 1)) + (w_P - 1)^2
    (1 + \sin^2 2\pi w_P)$ with $w = 1 + (\phi - 1) / 4$.

    Args:
      dim: the number of params, >= 1.

    Raises:
      ValueError: dim below 1.

    Example:
      >>> print(f"{levy(4).loss_fn(jnp.ones(4)):.3f}")
      0.000
    """
    return _separable("levy", _levy, dim, start=-1.0, minimum=1.0, reach=10.0)


# ------------------------------------------------------------------------- private


def _separable(
    name: str,
    function: Any,
    dim: int,
    *,
    start: float,
    minimum: float,
    reach: float,
    value: float = 0.0,
) -> Problem:
    """Make a problem of any dimension that is alike in all params."""
    dim = _checks.check_count(name, "dim", dim)
    return plane(
        name,
        function,
        start=[start] * dim,
        minimum=[minimum] * dim,
        minimum_value=dim * value,
        box=cube(-reach, reach, dim),
    )


def _branin(params: Any) -> Float[Array, ""]:
    x, y = params
    bend = y - 5.1 / (4.0 * math.pi**2) * x * x + 5.0 / math.pi * x - 6.0
    return bend * bend + 10.0 * (1.0 - 0.125 / math.pi) * jnp.cos(x) + 10.0


def _goldstein_price(params: Any) -> Float[Array, ""]:
    x, y = params
    one, two = x + y + 1.0, 2.0 * x - 3.0 * y
    first = 19.0 - 14.0 * x + 3.0 * x * x - 14.0 * y + 6.0 * x * y + 3.0 * y * y
    second = 18.0 - 32.0 * x + 12.0 * x * x + 48.0 * y - 36.0 * x * y + 27.0 * y * y
    return (1.0 + one * one * first) * (30.0 + two * two * second)


def _three_hump_camel(params: Any) -> Float[Array, ""]:
    x, y = params
    a = x * x
    return (2.0 - 1.05 * a + a * a / 6.0) * a + x * y + y * y


def _easom(params: Any) -> Float[Array, ""]:
    x, y = params
    fall = (x - math.pi) ** 2 + (y - math.pi) ** 2
    return -jnp.cos(x) * jnp.cos(y) * jnp.exp(-fall)


def _hartmann(
    heights: Array, widths: Array, places: Array, params: Any
) -> Float[Array, ""]:
    params = jnp.asarray(params)
    heights, widths, places = (
        table.astype(params.dtype) for table in (heights, widths, places)
    )
    away = jnp.sum(widths * (params[None, :] - places) ** 2, axis=1)
    return -jnp.sum(heights * jnp.exp(-away))


def _rastrigin(params: Any) -> Float[Array, ""]:
    params = jnp.asarray(params)
    # 1 - cos 2a = 2 sin^2 a, without the cancellation at the minimum.
    return jnp.sum(params * params + 20.0 * jnp.sin(math.pi * params) ** 2)


def _griewank(params: Any) -> Float[Array, ""]:
    params = jnp.asarray(params)
    roots = jnp.sqrt(jnp.arange(1, params.size + 1).astype(params.dtype))
    return 1.0 + jnp.sum(params * params) / 4000.0 - jnp.prod(jnp.cos(params / roots))


def _styblinski_tang(params: Any) -> Float[Array, ""]:
    params = jnp.asarray(params)
    square = params * params
    return 0.5 * jnp.sum(square * square - 16.0 * square + 5.0 * params)


def _levy(params: Any) -> Float[Array, ""]:
    w = 1.0 + (jnp.asarray(params) - 1.0) / 4.0
    first = jnp.sin(math.pi * w[0]) ** 2
    middle = (w[:-1] - 1.0) ** 2 * (1.0 + 10.0 * jnp.sin(math.pi * w[:-1] + 1.0) ** 2)
    last = (w[-1] - 1.0) ** 2 * (1.0 + jnp.sin(2.0 * math.pi * w[-1]) ** 2)
    return first + jnp.sum(middle) + last
