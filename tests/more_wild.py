"""The sums of squares of Moré and Wild, from their published formulas.

J. Moré and S. Wild, *Benchmarking derivative-free optimization algorithms*, SIAM
Journal on Optimization 2009: 22 functions, most of them of Moré, Garbow and Hillstrom,
in 53 problems. A start that is ten times as far from zero is a problem of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests import more_garbow_hillstrom as _mgh

__all__ = ["PROBLEMS", "Problem"]


class Problem(NamedTuple):
    """Residuals of a vector, where to start, and how many residuals there are."""

    residuals: Any
    start: np.ndarray
    size: int


def linear_full_rank(x, m):
    shift = 2 * jnp.sum(x) / m + 1
    return jnp.concatenate([x, jnp.zeros(m - x.size)]) - shift


def linear_rank_one(x, m):
    return jnp.arange(1.0, m + 1) * jnp.dot(jnp.arange(1.0, x.size + 1), x) - 1


def linear_rank_one_with_zeros(x, m):
    inner = jnp.dot(jnp.arange(2.0, x.size), x[1:-1])
    return jnp.append(jnp.arange(0.0, m - 1) * inner - 1, -1.0)


def freudenstein_roth(x, m):
    del m
    return jnp.stack(
        [
            -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1],
            -29 + x[0] + ((1 + x[1]) * x[1] - 14) * x[1],
        ]
    )


def meyer(x, m):
    y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147]
    y = jnp.asarray([*y, 4427, 3820, 3307, 2872], float)
    t = 45 + 5 * jnp.arange(1.0, m + 1)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - y


def watson(x, m):
    t = jnp.arange(1.0, m - 1)[:, None] / 29
    j = jnp.arange(x.size)
    slope = jnp.sum(j[1:] * x[1:] * t ** (j[1:] - 1), axis=1)
    value = jnp.sum(x * t**j, axis=1)
    return jnp.append(slope - value**2 - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1]))


def chebyquad(x, m):
    u = 2 * x - 1
    last, here, means = jnp.ones_like(u), u, []
    for _ in range(m):
        means.append(jnp.mean(here))
        last, here = here, 2 * u * here - last
    i = np.arange(1, m + 1)
    integrals = np.where(i % 2 == 0, -1.0 / np.maximum(i**2 - 1, 1), 0.0)
    return jnp.stack(means) - integrals


def brown_almost_linear(x, m):
    del m
    return jnp.append(x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x) - 1)


def osborne_1(x, m):
    y = [0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751]
    y += [0.718, 0.685, 0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490]
    y += [0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406]
    t = 10 * jnp.arange(0.0, m)
    return jnp.asarray(y) - x[0] - x[1] * jnp.exp(-x[3] * t) - x[2] * jnp.exp(-x[4] * t)


def osborne_2(x, m):
    y = [1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746]
    y += [0.679, 0.608, 0.655, 0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649]
    y += [0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423, 0.395]
    y += [0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653]
    y += [0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739]
    y += [0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054]
    t = jnp.arange(0.0, m) / 10
    peaks = sum(x[k] * jnp.exp(-x[k + 4] * (t - x[k + 7]) ** 2) for k in (1, 2, 3))
    return jnp.asarray(y) - x[0] * jnp.exp(-x[4] * t) - peaks


def bdqrtic(x, m):
    n = m // 2
    squares = x**2
    rest = (k * squares[k - 1 : k - 1 + n] for k in (1, 2, 3, 4))
    return jnp.concatenate([3 - 4 * x[:n], sum(rest) + 5 * squares[-1]])


def cube(x, m):
    del m
    return jnp.append(x[0] - 1, 10 * (x[1:] - x[:-1] ** 3))


def _mancino_sums(x):
    i = np.arange(1.0, x.size + 1)
    roots = jnp.sqrt(x[:, None] ** 2 + i[:, None] / i)
    logs = jnp.log(roots)
    return jnp.sum(roots * (jnp.sin(logs) ** 5 + jnp.cos(logs) ** 5), axis=1)


def mancino(x, m):
    return 1400 * x + (np.arange(1.0, m + 1) - 50) ** 3 + _mancino_sums(x)


def _mancino_start(n):
    cubes = (np.arange(1.0, n + 1) - 50) ** 3
    return -8.710996e-4 * (cubes + np.asarray(jax.jit(_mancino_sums)(np.zeros(n))))


def heart(x, m):
    del m
    a, b, c, d, t, u, v, w = x
    return jnp.stack(
        [
            a + b + 0.69,
            c + d + 0.044,
            t * a + u * b - v * c - w * d + 1.57,
            v * a + w * b + t * c + u * d + 1.31,
            a * (t**2 - v**2)
            - 2 * c * t * v
            + b * (u**2 - w**2)
            - 2 * d * u * w
            + 2.65,
            c * (t**2 - v**2) + 2 * a * t * v + d * (u**2 - w**2) + 2 * b * u * w - 2,
            a * t * (t**2 - 3 * v**2)
            + c * v * (v**2 - 3 * t**2)
            + b * u * (u**2 - 3 * w**2)
            + d * w * (w**2 - 3 * u**2)
            + 12.6,
            c * t * (t**2 - 3 * v**2)
            - a * v * (v**2 - 3 * t**2)
            + d * u * (u**2 - 3 * w**2)
            - b * w * (w**2 - 3 * u**2)
            - 9.48,
        ]
    )


def _of(function: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    return lambda x, _: function(x)


FUNCTIONS: dict[str, tuple[Callable[[Any, int], Any], Callable[[int], Any]]] = {
    "linear, full rank": (linear_full_rank, np.ones),
    "linear, rank one": (linear_rank_one, np.ones),
    "linear, rank one with zeros": (linear_rank_one_with_zeros, np.ones),
    "Rosenbrock": (_of(_mgh.rosenbrock), lambda _: [-1.2, 1]),
    "helical valley": (_of(_mgh.helical_valley), lambda _: [-1, 0, 0]),
    "Powell singular": (_of(_mgh.powell_singular), lambda _: [3, -1, 0, 1]),
    "Freudenstein, Roth": (freudenstein_roth, lambda _: [0.5, -2]),
    "Bard": (_of(_mgh.bard), np.ones),
    "Kowalik, Osborne": (
        _of(_mgh.kowalik_osborne),
        lambda _: [0.25, 0.39, 0.415, 0.39],
    ),
    "Meyer": (meyer, lambda _: [0.02, 4000, 250]),
    "Watson": (watson, lambda n: 0.5 * np.ones(n)),
    "Box": (_of(_mgh.box_three_dimensional), lambda _: [0, 10, 20]),
    "Jennrich, Sampson": (_of(_mgh.jennrich_sampson), lambda _: [0.3, 0.4]),
    "Brown, Dennis": (_of(_mgh.brown_dennis), lambda _: [25, 5, -5, -1]),
    "Chebyquad": (chebyquad, lambda n: np.arange(1, n + 1) / (n + 1)),
    "Brown, almost linear": (brown_almost_linear, lambda n: 0.5 * np.ones(n)),
    "Osborne 1": (osborne_1, lambda _: [0.5, 1.5, 1, 0.01, 0.02]),
    "Osborne 2": (
        osborne_2,
        lambda _: [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5],
    ),
    "Bdqrtic": (bdqrtic, np.ones),
    "Cube": (cube, lambda n: 0.5 * np.ones(n)),
    "Mancino": (mancino, _mancino_start),
    "Heart": (
        heart,
        lambda _: [-0.3, -0.39, 0.3, -0.344, -1.2, 2.69, 1.59, -1.5],
    ),
}

SIZES = {
    "linear, full rank": [(9, 45, 1), (9, 45, 10)],
    "linear, rank one": [(7, 35, 1), (7, 35, 10)],
    "linear, rank one with zeros": [(7, 35, 1), (7, 35, 10)],
    "Rosenbrock": [(2, 2, 1), (2, 2, 10)],
    "helical valley": [(3, 3, 1), (3, 3, 10)],
    "Powell singular": [(4, 4, 1), (4, 4, 10)],
    "Freudenstein, Roth": [(2, 2, 1), (2, 2, 10)],
    "Bard": [(3, 15, 1), (3, 15, 10)],
    "Kowalik, Osborne": [(4, 11, 1)],
    "Meyer": [(3, 16, 1)],
    "Watson": [
        *((6, 31, 1), (6, 31, 10), (9, 31, 1)),
        *((9, 31, 10), (12, 31, 1), (12, 31, 10)),
    ],
    "Box": [(3, 10, 1)],
    "Jennrich, Sampson": [(2, 10, 1)],
    "Brown, Dennis": [(4, 20, 1), (4, 20, 10)],
    "Chebyquad": [(n, n, 1) for n in range(6, 12)],
    "Brown, almost linear": [(10, 10, 1)],
    "Osborne 1": [(5, 33, 1)],
    "Osborne 2": [(11, 65, 1), (11, 65, 10)],
    "Bdqrtic": [(8, 8, 1), (10, 12, 1), (11, 14, 1), (12, 16, 1)],
    "Cube": [(5, 5, 1), (6, 6, 1), (8, 8, 1)],
    "Mancino": [
        *((5, 5, 1), (5, 5, 10), (8, 8, 1), (10, 10, 1)),
        (12, 12, 1),
        (12, 12, 10),
    ],
    "Heart": [(8, 8, 1), (8, 8, 10)],
}
"""Of every function the params, the residuals, and a factor of the start."""


def _make() -> dict[str, Problem]:
    problems = {}
    for name, sizes in SIZES.items():
        function, start = FUNCTIONS[name]
        for n, m, factor in sizes:
            far = f", start x {factor}" if factor > 1 else ""
            problems[f"{name} {n}{far}"] = Problem(
                lambda x, function=function, m=m: function(x, m),
                factor * np.asarray(start(n), float),
                m,
            )
    return problems


PROBLEMS = _make()
