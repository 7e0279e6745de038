"""Sweeps: thousands of fits in one program, with a status for each.

Example:
  >>> import jax.numpy as jnp
  >>> import phihat
  >>> def final_loss(rate):
  ...     optimizer = phihat.gradient_descent(rate)
  ...     return phihat.fit(lambda x: x**2, 1.0, optimizer, num_steps=20).loss
  >>> rates = jnp.asarray([0.01, 0.1, 0.4, 1.5])
  >>> print(phihat.sweep(final_loss, {"rate": rates}).best().axes["rate"])
  0.4
"""

from phihat.sweeps.axes import axes_of
from phihat.sweeps.mapping import sweep
from phihat.sweeps.outcomes import Lane, SweepResult

__all__ = ["Lane", "SweepResult", "axes_of", "sweep"]
