r"""phihat: fit models in JAX, and understand the fit. $\hat\phi = \arg\min L[\phi]$.

Example:
  >>> import phihat
  >>> data = phihat.datasets.linear_regression()
  >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
  >>> start = {"weight": 0.0, "bias": 0.0}
  >>> result = phihat.fit(loss_fn, start, phihat.adam(0.1), data, num_steps=500)
  >>> print(round(float(result.loss), 4))
  0.1999
"""

from phihat import datasets, fitting, losses, models, optimizers, problems, sampling
from phihat._types import Box, Status
from phihat.fitting import Tolerance, fit
from phihat.optimizers import (
    adam,
    eval_params,
    gradient_descent,
    momentum,
    nesterov,
    normalized_gradient,
)
from phihat.results import FitError, FitResult, FitState, StepInfo, raise_for_status
from phihat.sampling import from_indices, full_batch, minibatches

__version__ = "0.1.0"

__all__ = [
    "Box",
    "FitError",
    "FitResult",
    "FitState",
    "Status",
    "StepInfo",
    "Tolerance",
    "adam",
    "datasets",
    "eval_params",
    "fit",
    "fitting",
    "from_indices",
    "full_batch",
    "gradient_descent",
    "losses",
    "minibatches",
    "models",
    "momentum",
    "nesterov",
    "normalized_gradient",
    "optimizers",
    "problems",
    "raise_for_status",
    "sampling",
]
