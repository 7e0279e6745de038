r"""Sine and cosine in float32 that run on vector units.

XLA's CPU backend calls a scalar routine per element. Here the argument is reduced to
$|r| \le \pi / 4$ by Cody and Waite's subtraction of $k \pi / 2$ in four parts, and a
polynomial is evaluated, which compiles to vector code. Beyond `LIMIT` the parts no
longer suffice, and whoever calls these must use another way.

References:
  Cody and Waite, *Software Manual for the Elementary Functions*, 1980.
  Moshier, *Cephes Mathematical Library*, 1992, for the polynomials.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

__all__ = ["LIMIT", "cos", "is_served", "sin"]

LIMIT = np.float32(8192.0)
"""The largest argument, in size."""

_HALF_PI = tuple(
    # 11 bits each, so that k times a part is exact for k up to 2^13.
    np.float32(float.fromhex(part))
    for part in ("0x1.92p+0", "0x1.fb4p-12", "0x1.444p-24", "0x1.68c234p-39")
)


_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def is_served(x: Array) -> bool:
    """Tell whether these functions are meant for such an array."""
    return x.dtype == jnp.float32 and jax.default_backend() == "cpu"


def sin(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """Return the sine, to three units in the last place."""
    return _quarter(x, 0)


def cos(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """Return the cosine, to three units in the last place."""
    return _quarter(x, 1)


def _quarter(x: Array, shift: int) -> Array:
    turns = jnp.round(x * np.float32(2 / np.pi))
    rest = x
    for part in _HALF_PI:
        rest = rest - turns * part
    quadrant = turns.astype(jnp.int32) + shift
    square = rest * rest
    sine = rest + rest * square * _polynomial(square, _SINE)
    half = np.float32(0.5) * square
    cosine = np.float32(1) - half + square * square * _polynomial(square, _COSINE)
    value = jnp.where(quadrant & 1 == 0, sine, cosine)
    return jnp.where(quadrant & 2 == 0, value, -value)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    total = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + np.float32(coefficient)
    return total
