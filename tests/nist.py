"""Curve fits with certified answers: NIST's StRD sets for nonlinear regression.

The numbers in `nist.json` (data, both published starts, certified params, standard
deviations and sums of squares) are facts of the National Institute of Standards and
Technology, https://www.itl.nist.gov/div898/strd/, read in 2026. The formulas are below.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["PROBLEMS", "Problem", "num_digits"]


class Problem(NamedTuple):
    """A curve, its data and what is certified of its fit."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    certified: np.ndarray
    standard_deviations: np.ndarray
    residual_sum_of_squares: float


def num_digits(params, certified) -> float:
    """Return the digits that agree in the worst param: 11 are certified.

    Eckerle4's curve is the same with the signs of its first two params turned; a fit
    that ends there is compared by absolute values.
    """
    error = np.max(np.abs(np.abs(np.asarray(params)) / np.abs(certified) - 1))
    if np.isnan(error):
        return 0.0
    return 11.0 if error == 0 else float(np.clip(-np.log10(error), 0.0, 11.0))


def bennett5(b, x):
    return b[0] * (b[1] + x) ** (-1 / b[2])


def saturating(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def chwirut(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def power(b, x):
    return b[0] * x ** b[1]


def enso(b, x):
    def wave(period, cosine, sine):
        angle = 2 * np.pi * x / period
        return cosine * jnp.cos(angle) + sine * jnp.sin(angle)

    return b[0] + wave(12.0, b[1], b[2]) + wave(b[3], b[4], b[5]) + wave(*b[6:])


def eckerle4(b, x):
    return b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def gauss(b, x):
    bell = lambda height, middle, width: (
        height * jnp.exp(-((x - middle) ** 2) / width**2)
    )
    return b[0] * jnp.exp(-b[1] * x) + bell(*b[2:5]) + bell(*b[5:8])


def cubic_ratio(b, x):
    above = b[0] + x * (b[1] + x * (b[2] + x * b[3]))
    return above / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def quadratic_ratio(b, x):
    return (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4]))


def lanczos(b, x):
    return sum(b[i] * jnp.exp(-b[i + 1] * x) for i in (0, 2, 4))


def mgh09(b, x):
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def mgh10(b, x):
    return b[0] * jnp.exp(b[1] / (x + b[2]))


def mgh17(b, x):
    return b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4])


def misra1b(b, x):
    return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


def misra1c(b, x):
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def misra1d(b, x):
    return b[0] * b[1] * x / (1 + b[1] * x)


def nelson(b, x):
    return b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1])  # of log y


def rat42(b, x):
    return b[0] / (1 + jnp.exp(b[1] - b[2] * x))


def rat43(b, x):
    return b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3])


def roszman1(b, x):
    return b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / np.pi


_MODELS = {
    "Bennett5": bennett5,
    "BoxBOD": saturating,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": power,
    "ENSO": enso,
    "Eckerle4": eckerle4,
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": cubic_ratio,
    "Kirby2": quadratic_ratio,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": mgh09,
    "MGH10": mgh10,
    "MGH17": mgh17,
    "Misra1a": saturating,
    "Misra1b": misra1b,
    "Misra1c": misra1c,
    "Misra1d": misra1d,
    "Nelson": nelson,
    "Rat42": rat42,
    "Rat43": rat43,
    "Roszman1": roszman1,
    "Thurber": cubic_ratio,
}


def _load() -> dict[str, Problem]:
    numbers = json.loads((Path(__file__).parent / "nist.json").read_text())
    problems = {}
    for name, model in _MODELS.items():
        entry = {key: np.asarray(value) for key, value in numbers[name].items()}
        if name == "Nelson":
            entry["y"] = np.log(entry["y"])
        entry["residual_sum_of_squares"] = float(entry["residual_sum_of_squares"])
        problems[name] = Problem(model=model, **entry)
    return problems


PROBLEMS = _load()
