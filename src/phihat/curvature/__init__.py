"""Curvature of a loss: eigenvalues, sharpness, trace and spectrum of its Hessian.

Small problems are answered exactly from the dense Hessian; above `dense_size` params
the same functions use Hessian-vector products alone and say how far they may be off.
Each takes a loss, params and data, and runs as one compiled program. Pytrees go in;
where a flat vector of all P params is meant, `labels` names its entries. For data too
large for one pass hand over `products.accumulated(loss_fn, batch_size)` as the loss.

Example:
  >>> from phihat import curvature
  >>> bowl = lambda p: p["a"] ** 2 + 3.0 * p["b"] ** 2
  >>> params = {"a": 1.0, "b": 1.0}
  >>> print(curvature.eigenvalues(bowl, params), curvature.labels(params))
  [2. 6.] ["['a']", "['b']"]
"""

from phihat.curvature.dense import (
    LogDeterminant,
    condition_number,
    determinant,
    eigenvalues,
    hessian,
    labels,
    log_determinant,
)
from phihat.curvature.determinant_test import ConvexityMap, convexity_map
from phihat.curvature.extremes import ExtremeEigenvalues, extreme_eigenvalues, sharpness
from phihat.curvature.recorder import sharpness_recorder
from phihat.curvature.spectrum import (
    SpectralDensity,
    TraceEstimate,
    estimate_trace,
    hessian_trace,
    spectral_density,
)

__all__ = [
    "ConvexityMap",
    "ExtremeEigenvalues",
    "LogDeterminant",
    "SpectralDensity",
    "TraceEstimate",
    "condition_number",
    "convexity_map",
    "determinant",
    "eigenvalues",
    "estimate_trace",
    "extreme_eigenvalues",
    "hessian",
    "hessian_trace",
    "labels",
    "log_determinant",
    "sharpness",
    "sharpness_recorder",
    "spectral_density",
]
