r"""Optimizers that use curvature, and the covariance that it gives.

`newton` forms the Hessian, `newton_cg` multiplies by it, `levenberg_marquardt` uses the
Jacobian of residuals. All three are trust-region methods: safe far from a minimum,
quadratic (the last: fast where residuals are small) near it. They leave saddles, and a
`fit` with a `tolerance` does not take one for a minimum.

Below, $g$ and $H$ are the gradient and the Hessian of the loss, $r$ the residuals and
$J$ their Jacobian.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import fit, second_order
  >>> def valley(params):
  ...     x, y = params
  ...     return (1 - x) ** 2 + 100 * (y - x**2) ** 2
  >>> start = jnp.array([-1.2, 1.0])
  >>> result = fit(valley, start, second_order.newton(), num_steps=30)
  >>> print(jnp.round(result.params, 4))
  [1. 1.]
"""

from phihat.second_order.gauss_newton import levenberg_marquardt
from phihat.second_order.newton_method import newton
from phihat.second_order.parameter_covariance import covariance
from phihat.second_order.truncated_newton import newton_cg
from phihat.second_order.trust_region import TrustRegionState

__all__ = [
    "TrustRegionState",
    "covariance",
    "levenberg_marquardt",
    "newton",
    "newton_cg",
]
