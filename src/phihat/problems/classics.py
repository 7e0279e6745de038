"""The problems of the chapter, and the classical ones in few params."""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat import datasets, losses, models
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Box
from phihat.problems.problem import Problem, bind, cube, plane, point

__all__ = [
    "adam_surface",
    "beale",
    "booth",
    "gabor",
    "himmelblau",
    "linear_regression",
    "matyas",
    "monkey_saddle",
    "parabola",
    "quadratic",
    "rosenbrock",
    "six_hump_camel",
]


@_calls.public
def quadratic(condition: float = 100.0, dim: int = 2) -> Problem:
    r"""Make an axis-aligned bowl of a given condition number.

    $\frac12 \sum_j \lambda_j \phi_j^2$, $\lambda$ from 1 to `condition` in equal ratios
    (for one dimension, `condition` itself). So gradient descent is
    $\phi_j^{(t)} = (1 - \alpha \lambda_j)^t \phi_j^{(0)}$.

    Args:
      condition: the largest $\lambda$ over the smallest, >= 1.
      dim: the number of params, >= 1.

    Raises:
      ValueError: condition or dim below 1.

    Example:
      >>> float(quadratic(10.0, 3).loss_fn(jnp.array([0.0, 0.0, 2.0])))
      20.0
    """
    condition = _tree.as_scalar(condition, "quadratic", "condition")
    _checks.check_range("quadratic", "condition", condition, 1.0)
    dim = _checks.check_count("quadratic", "dim", dim)
    exponents = [j / (dim - 1) for j in range(dim)] if dim > 1 else [1.0]
    eigenvalues = point([float(condition) ** exponent for exponent in exponents])
    return Problem(
        name="quadratic",
        loss_fn=Partial(_quadratic, eigenvalues),
        start=point([1.0] * dim),
        minimum=point([0.0] * dim),
        minimum_value=0.0,
        is_convex=True,
        box=cube(-2.0, 2.0, dim),
    )


@_calls.public
def rosenbrock(dim: int = 2) -> Problem:
    r"""Make Rosenbrock's curved valley.

    $\sum_j 100 (\phi_{j+1} - \phi_j^2)^2 + (1 - \phi_j)^2$.

    Args:
      dim: the number of params, >= 2.

    Raises:
      ValueError: fewer than two params.

    Example:
      >>> float(rosenbrock(3).loss_fn(jnp.zeros(3)))
      2.0

    References:
      Rosenbrock, *An automatic method for finding the greatest or least value of a
      function*, Computer Journal 1960.
    """
    dim = _checks.check_count("rosenbrock", "dim", dim, minimum=2)
    return Problem(
        name="rosenbrock",
        loss_fn=Partial(_rosenbrock),
        start=point([-1.2 if j % 2 == 0 else 1.0 for j in range(dim)]),
        minimum=point([1.0] * dim),
        minimum_value=0.0,
        is_convex=False,
        box=cube(-2.0, 2.0, dim),
    )


@_calls.public
def himmelblau() -> Problem:
    r"""Make Himmelblau's function: four equal minima, one maximum, four saddles.

    $(x^2 + y - 11)^2 + (x + y^2 - 7)^2$.

    Example:
      >>> float(himmelblau().loss_fn(jnp.array([3.0, 2.0])))
      0.0

    References:
      Himmelblau, *Applied Nonlinear Programming*, 1972.
    """
    return plane(
        "himmelblau",
        _himmelblau,
        start=[0.0, 0.0],
        minimum=[3.0, 2.0],
        box=cube(-5.0, 5.0, 2),
    )


@_calls.public
def six_hump_camel() -> Problem:
    r"""Make the six-hump camel: six minima, two of them global, mirrored at the origin.

    $(4 - 2.1 x^2 + x^4 / 3) x^2 + x y + (4 y^2 - 4) y^2$.

    Example:
      >>> problem = six_hump_camel()
      >>> print(f"{problem.loss_fn(-problem.minimum):.5f}")
      -1.03163

    References:
      Dixon, Szegő, *Towards Global Optimisation 2*, 1978.
    """
    return plane(
        "six_hump_camel",
        _six_hump_camel,
        start=[1.0, 1.0],
        minimum=[0.0898420131003180624, -0.7126564030207396334],
        minimum_value=-1.0316284534898773504,
        box=Box([-2.0, -1.5], [2.0, 1.5]),
    )


@_calls.public
def beale() -> Problem:
    r"""Make Beale's function: one minimum, at the foot of steep walls.

    $(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2$.

    Example:
      >>> float(beale().loss_fn(jnp.array([3.0, 0.5])))
      0.0

    References:
      Beale, *On an iterative method for finding a local minimum*, 1958.
    """
    return plane(
        "beale",
        _beale,
        start=[1.0, 1.0],
        minimum=[3.0, 0.5],
        box=cube(-4.5, 4.5, 2),
    )


@_calls.public
def booth() -> Problem:
    r"""Make Booth's function, a convex quadratic of condition number 9.

    $(x + 2 y - 7)^2 + (2 x + y - 5)^2$.

    Example:
      >>> float(booth().loss_fn(jnp.array([1.0, 3.0])))
      0.0
    """
    return plane(
        "booth",
        _booth,
        start=[-5.0, 5.0],
        minimum=[1.0, 3.0],
        is_convex=True,
        box=cube(-10.0, 10.0, 2),
    )


@_calls.public
def matyas() -> Problem:
    r"""Make Matyas' function, a convex quadratic of condition number 25.

    $0.26 (x^2 + y^2) - 0.48 x y$.

    Example:
      >>> float(matyas().loss_fn(jnp.zeros(2)))
      0.0
    """
    return plane(
        "matyas",
        _matyas,
        start=[5.0, -3.0],
        minimum=[0.0, 0.0],
        is_convex=True,
        box=cube(-10.0, 10.0, 2),
    )


@_calls.public
def parabola() -> Problem:
    r"""Make the chapter's first slide: $\phi^2 - 4 \phi + 5$, one scalar param.

    Example:
      >>> float(parabola().loss_fn(2.0))
      1.0
    """
    return Problem(
        name="parabola",
        loss_fn=Partial(_parabola),
        start=point(0.0),
        minimum=point(2.0),
        minimum_value=1.0,
        is_convex=True,
        box=Box(-1.0, 5.0),
    )


@_calls.public
def adam_surface() -> Problem:
    r"""Make the surface on which the chapter shows Adam: steep in one direction.

    $1 - \exp(-2 y^2) \exp(-(x - 0.7)^2 / 8)$.

    Example:
      >>> float(adam_surface().loss_fn(jnp.array([0.7, 0.0])))
      0.0

    References:
      Prince, *Understanding Deep Learning*, 2023, figure 6.9.
    """
    return plane(
        "adam_surface",
        _adam_surface,
        start=[-0.7, -0.9],
        minimum=[0.7, 0.0],
        box=cube(-1.0, 1.0, 2),
    )


@_calls.public
def monkey_saddle() -> Problem:
    r"""Make the monkey saddle $x^3 - 3 x y^2$: degenerate at the origin, no minimum.

    Example:
      >>> monkey_saddle().minimum_value
      -inf
    """
    return plane(
        "monkey_saddle",
        _monkey_saddle,
        start=[1.0, 0.1],
        minimum=None,
        minimum_value=-float("inf"),
        box=cube(-2.0, 2.0, 2),
    )


@_calls.public
def gabor(envelope_width: float = 4.0) -> Problem:
    """Make the chapter's Gabor fit: least squares on its 30 points, many minima.

    Args:
      envelope_width: 4.0, with which the data were made, or 2.0, as on the slides; the
        minimum is known for these two.

    Raises:
      ValueError: another width.

    Example:
      >>> problem = gabor()
      >>> print(f"{problem.loss_fn(problem.minimum):.5f}")
      0.64570
    """
    known = {
        2.0: ([0.1086769797734504573, 14.4162244697305420], 1.262307573394641829),
        4.0: ([0.0037946356109376147604, 16.0263478271417245], 0.645696125367463856),
    }
    envelope_width = _tree.as_scalar(envelope_width, "gabor", "envelope_width")
    if envelope_width not in known:
        raise ValueError(
            "gabor: `envelope_width` must be 2.0 or 4.0, where the minimum is known, "
            f"got {envelope_width}."
        )
    minimum, minimum_value = known[envelope_width]
    model = Partial(models.gabor, envelope_width=float(envelope_width))
    return plane(
        "gabor",
        bind(losses.least_squares(model), datasets.gabor()),
        start=[-1.5, 8.5],
        minimum=minimum,
        minimum_value=minimum_value,
        box=Box([-10.0, 2.5], [10.0, 22.5]),
    )


@_calls.public
def linear_regression() -> Problem:
    """Make the chapter's linear regression, params a dict of weight and bias.

    Example:
      >>> problem = linear_regression()
      >>> print(f"{problem.loss_fn(problem.minimum):.5f}")
      0.19987
    """
    return Problem(
        name="linear_regression",
        loss_fn=bind(losses.least_squares(models.linear), datasets.linear_regression()),
        start={"weight": point(-0.5), "bias": point(1.6)},
        # The normal equations, solved in rational numbers.
        minimum={
            "weight": point(260889 / 499571),
            "bias": point(41262069 / 49957100),
        },
        minimum_value=0.1998663569342496,
        is_convex=True,
        box=Box({"weight": -1.0, "bias": 0.0}, {"weight": 1.0, "bias": 2.0}),
    )


def _quadratic(eigenvalues: Array, params: Any) -> Float[Array, ""]:
    params = jnp.asarray(params)
    return 0.5 * jnp.sum(eigenvalues.astype(params.dtype) * params * params)


def _rosenbrock(params: Any) -> Float[Array, ""]:
    params = jnp.asarray(params)
    valley = params[1:] - params[:-1] * params[:-1]
    slope = 1.0 - params[:-1]
    return jnp.sum(100.0 * valley * valley + slope * slope)


def _himmelblau(params: Any) -> Float[Array, ""]:
    x, y = params
    return (x * x + y - 11.0) ** 2 + (x + y * y - 7.0) ** 2


def _six_hump_camel(params: Any) -> Float[Array, ""]:
    x, y = params
    a, b = x * x, y * y
    return (4.0 - 2.1 * a + a * a / 3.0) * a + x * y + (4.0 * b - 4.0) * b


def _beale(params: Any) -> Float[Array, ""]:
    x, y = params
    first = 1.5 - x + x * y
    second = 2.25 - x + x * y * y
    third = 2.625 - x + x * y * y * y
    return first * first + second * second + third * third


def _booth(params: Any) -> Float[Array, ""]:
    x, y = params
    return (x + 2.0 * y - 7.0) ** 2 + (2.0 * x + y - 5.0) ** 2


def _matyas(params: Any) -> Float[Array, ""]:
    x, y = params
    return 0.26 * (x * x + y * y) - 0.48 * x * y


def _parabola(params: Any) -> Float[Array, ""]:
    return params * params - 4.0 * params + 5.0


def _adam_surface(params: Any) -> Float[Array, ""]:
    x, y = params
    return 1.0 - jnp.exp(-2.0 * y * y) * jnp.exp(-((x - 0.7) ** 2) / 8.0)


def _monkey_saddle(params: Any) -> Float[Array, ""]:
    x, y = params
    return x * x * x - 3.0 * x * y * y
