r"""How far NumPy's elementary functions are trusted, in one table.

NumPy takes them from three places: Intel's SVML (on AVX-512), its own vector loops, and
the platform's C library. For the first two NumPy states fewer than 4 units in the last
place (ulps); of the C libraries glibc stays within 1 or 2, for cbrt within 4. The table
adds a margin. Ulps are of the result, so near a zero too (log at 1, expm1 at 0) the
relative error is bounded; sines beyond 1 are the exception. The tests measure each
entry against 200-bit arithmetic.

References:
  Zimmermann et al., *Accuracy of mathematical functions*, 2021 and later.
"""

from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import rounding

__all__ = ["TRIGONOMETRIC_LIMIT", "ULPS", "enclose", "enclose_sine_or_cosine"]

ULPS = {
    "exp": 5,  # 4, and one of margin
    "exp2": 5,
    "expm1": 5,
    "log": 5,
    "log1p": 5,
    "power": 5,
    "arcsin": 5,
    "arccos": 5,
    "arctan": 5,
    "arctan2": 5,
    "sin": 5,  # as `enclose_sine_or_cosine` applies it
    "cos": 5,
    "cbrt": 6,  # glibc alone comes to 4
    "sinh": 8,  # this and the rest: some C libraries combine exp, expm1 and log1p
    "cosh": 8,
    "tanh": 8,
    "arcsinh": 8,
    "arccosh": 8,
    "arctanh": 8,
}
"""Bounds on the error of NumPy's functions of float64, in ulps of the result."""


def enclose(name: str, *xs: Any) -> tuple[Any, Any]:
    """Bound a function of the table at floats."""
    return rounding.inflate(getattr(np, name)(*xs), ULPS[name])


TRIGONOMETRIC_LIMIT = 2.0**20
"""Up to here sines are asked for; beyond, a float's phase is of little use."""


def enclose_sine_or_cosine(name: str, x: Any) -> tuple[Any, Any]:
    """Bound `sin` or `cos` at floats up to `TRIGONOMETRIC_LIMIT`.

    Beyond 1 the bound is in ulps of 1 and not of the result: to reduce the argument may
    cost relative accuracy near the zeros, where only absolute accuracy is left.
    """
    low, high = enclose(name, x)
    slack = np.where(np.abs(x) <= 1.0, 0.0, (ULPS[name] + 1) * 2 * rounding.UNIT)
    return low - slack, high + slack
