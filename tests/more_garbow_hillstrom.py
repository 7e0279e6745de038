"""Least squares with bounds that are active at the solution.

Residuals and starts are those of Moré, Garbow and Hillstrom, *Testing unconstrained
optimization software*, ACM Transactions on Mathematical Software 1981; the bounds are
in the manner of Gay, *A trust-region approach to linearly constrained optimization*,
1984, or our own.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["PROBLEMS", "Problem"]

INF = np.inf


class Problem(NamedTuple):
    """Residuals of a vector, where to start, and the box."""

    residuals: Any
    start: list[float]
    low: list[float]
    high: list[float]


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    powers = jnp.arange(1.0, 4.0)
    return jnp.asarray([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** powers)


def jennrich_sampson(x):
    i = jnp.arange(1.0, 11.0)
    return 2 + 2 * i - jnp.exp(i * x[0]) - jnp.exp(i * x[1])


def helical_valley(x):
    angle = jnp.arctan2(x[1], x[0]) / (2 * np.pi)
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (radius - 1), x[2]])


def bard(x):
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96]
    y = jnp.asarray([*y, 1.34, 2.10, 4.39])
    u = jnp.arange(1.0, 16.0)
    v = 16 - u
    return y - x[0] - u / (v * x[1] + jnp.minimum(u, v) * x[2])


def gaussian(x):
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    y = jnp.asarray([*half, 0.3989, *half[::-1]])
    t = (8 - jnp.arange(1.0, 16.0)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


def box_three_dimensional(x):
    t = jnp.arange(1.0, 11.0) / 10
    return (
        jnp.exp(-t * x[0])
        - jnp.exp(-t * x[1])
        - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))
    )


def powell_singular(x):
    return jnp.stack(
        [
            x[0] + 10 * x[1],
            np.sqrt(5.0) * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            np.sqrt(10.0) * (x[0] - x[3]) ** 2,
        ]
    )


def wood(x):
    return jnp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            np.sqrt(90.0) * (x[3] - x[2] ** 2),
            1 - x[2],
            np.sqrt(10.0) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / np.sqrt(10.0),
        ]
    )


def kowalik_osborne(x):
    y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456]
    y = jnp.asarray([*y, 0.0342, 0.0323, 0.0235, 0.0246])
    u = [4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625]
    u = jnp.asarray(u)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x):
    t = jnp.arange(1.0, 21.0) / 5
    line = x[0] + t * x[1] - jnp.exp(t)
    return line**2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


def biggs(x):
    t = jnp.arange(1.0, 14.0) / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    first = x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1])
    return first + x[5] * jnp.exp(-t * x[4]) - y


PROBLEMS = {
    "Rosenbrock": Problem(rosenbrock, [-1.2, 1], [-2, -2], [0.5, 2]),
    "Brown badly scaled": Problem(brown_badly_scaled, [1, 1], [0, 3e-5], [1e6, 100]),
    "Beale": Problem(beale, [1, 1], [0.6, 0.5], [2.5, 100]),
    "Jennrich, Sampson": Problem(jennrich_sampson, [0.3, 0.4], [0.26, 0], [INF, 20]),
    "Helical valley": Problem(
        helical_valley, [-1, 0, 0], [-100, -1, -1], [0.8, 1, INF]
    ),
    "Bard": Problem(bard, [1, 1, 1], [0.1, 0, 0], [50, 100, 50]),
    "Gaussian": Problem(gaussian, [0.4, 1, 0], [-INF, 0.5, -1], [0.35, 4, 1]),
    "Box": Problem(box_three_dimensional, [0, 10, 20], [0, 5, 0], [2, 9.5, 20]),
    "Powell singular": Problem(
        powell_singular, [3, -1, 0, 1], [0.1, -20, -1, -1], [100, 20, 1, 50]
    ),
    "Wood": Problem(wood, [-3, -1, -3, -1], [-100, -100, 0, -100], [0, 10, 100, 100]),
    "Kowalik, Osborne": Problem(
        kowalik_osborne, [0.25, 0.39, 0.415, 0.39], [-1, -1, 0.15, 0], [1, 1, 1, INF]
    ),
    "Brown, Dennis": Problem(
        brown_dennis, [25, 5, -5, -1], [-10, 0, -100, -20], [100, 15, 0, 0.2]
    ),
    "Biggs": Problem(biggs, [1, 2, 1, 1, 1, 1], [0] * 6, [2, 8, 1, 7, 5, 5]),
}
