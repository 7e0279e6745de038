"""Critical points: where the gradient is zero, and which kind of point it is.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import Box, critical_points
  >>> wave = lambda p: jnp.cos(p[0]) + jnp.cos(p[1])
  >>> box = Box([-1.0, -1.0], [4.0, 4.0])
  >>> print(critical_points.find_critical_points(wave, box).summary)
  4 critical points: 1 minimum, 2 saddles, 1 maximum; the winding number agrees (0)
"""

from phihat.critical_points.classification import (
    CriticalPoint,
    CriticalPointKind,
    classify_critical_point,
)
from phihat.critical_points.points import CriticalPoints, WindingCheck
from phihat.critical_points.search import find_critical_points

__all__ = [
    "CriticalPoint",
    "CriticalPointKind",
    "CriticalPoints",
    "WindingCheck",
    "classify_critical_point",
    "find_critical_points",
]
