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
from phihat.sweeps.compaction import Descents
from phihat.sweeps.comparison import Comparison, Contender, compare
from phihat.sweeps.grid import sweep
from phihat.sweeps.hypergradients import ImplicitFit, implicit_fit
from phihat.sweeps.learning_rates import LearningRateRange, learning_rate_range
from phihat.sweeps.many_starts import Optima, multistart
from phihat.sweeps.maps import Basins, Outcome, Trainability, basins, trainability
from phihat.sweeps.result import Lane, SweepResult

__all__ = [
    "Basins",
    "Comparison",
    "Contender",
    "Descents",
    "ImplicitFit",
    "Lane",
    "LearningRateRange",
    "Optima",
    "Outcome",
    "SweepResult",
    "Trainability",
    "axes_of",
    "basins",
    "compare",
    "implicit_fit",
    "learning_rate_range",
    "multistart",
    "sweep",
    "trainability",
]
