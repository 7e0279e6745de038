r"""Robust losses: outliers count less than their squares.

With $u = r / c$ and $z = u^2$ the loss of a residual is $c^2 \rho(z)$, as in
`scipy.optimize.least_squares`. Levenberg-Marquardt needs squares: it is given
$r \sqrt{\rho(z) / z}$, whose square is that loss.
"""

from typing import Any

__all__ = ["LOSSES", "curvature", "rho", "shrink"]

LOSSES = ("linear", "soft_l1", "huber", "cauchy", "arctan")

_SMALL = 0.01
_TERMS = 9
"""The series is used below `_SMALL`, so its first term left out is below 1e-18."""


def rho(loss: str, z: Any, xp: Any) -> Any:
    r"""Return $\rho(z)$, [...], by NumPy or by jax.numpy."""
    return z * _ratio(loss, z, xp)


def shrink(loss: str, residual: Any, f_scale: Any, xp: Any) -> Any:
    r"""Return $r \sqrt{\rho(z) / z}$, whose square is the loss of a residual."""
    if loss == "linear":
        return residual
    scaled = residual / f_scale
    return residual * xp.sqrt(_ratio(loss, scaled * scaled, xp))


def curvature(loss: str, z: Any, xp: Any) -> Any:
    r"""Return $\rho' + 2 z \rho''$, the weight of a row in SciPy's $J^\top J$.

    It is no less than the rounding unit, as there.
    """
    if loss == "linear":
        return xp.ones_like(z)
    if loss == "soft_l1":
        weight = (1.0 + z) ** -1.5
    elif loss == "huber":
        weight = xp.where(z <= 1.0, 1.0, 0.0)
    elif loss == "cauchy":
        weight = (1.0 - z) / (1.0 + z) ** 2
    else:
        weight = (1.0 - 3.0 * z * z) / (1.0 + z * z) ** 2
    eps = float(xp.finfo(z.dtype).eps)
    return xp.maximum(weight, eps)


def _ratio(loss: str, z: Any, xp: Any) -> Any:
    r"""Return $\rho(z) / z$, with its derivatives, also at 0."""
    if loss == "linear":
        return xp.ones_like(z)
    if loss == "soft_l1":
        return 2.0 / (xp.sqrt(1.0 + z) + 1.0)
    if loss == "huber":
        far = xp.where(z > 1.0, z, 1.0)  # where both branches are finite
        return xp.where(z > 1.0, (2.0 * xp.sqrt(far) - 1.0) / far, 1.0)
    is_small = z < _SMALL
    near, far = xp.where(is_small, z, 0.0), xp.where(is_small, 1.0, z)
    if loss == "cauchy":
        series = _series(near, [(-1.0) ** k / (k + 1) for k in range(_TERMS)])
        return xp.where(is_small, series, xp.log1p(far) / far)
    odd = [(-1.0) ** k / (2 * k + 1) for k in range(_TERMS)]
    return xp.where(is_small, _series(near * near, odd), xp.arctan(far) / far)


def _series(z: Any, coefficients: list[float]) -> Any:
    total = 0.0 * z
    for coefficient in reversed(coefficients):
        total = total * z + coefficient
    return total
