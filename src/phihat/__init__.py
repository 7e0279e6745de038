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

import importlib
from typing import TYPE_CHECKING, Any

from phihat import (
    critical_points,
    curvature,
    datasets,
    fitting,
    line_searches,
    losses,
    models,
    optimizers,
    problems,
    products,
    sampling,
    second_order,
    sweeps,
)
from phihat._records import Recorder
from phihat._types import Box, Status
from phihat.critical_points import (
    CriticalPointKind,
    classify_critical_point,
    find_critical_points,
)
from phihat.curvature import (
    eigenvalues,
    hessian,
    hessian_trace,
    sharpness,
    spectral_density,
)
from phihat.fitting import Tolerance, fit
from phihat.line_searches import (
    backtracking,
    bracketing,
    golden_section,
    steepest_descent,
)
from phihat.optimizers import (
    adam,
    eval_params,
    gradient_descent,
    momentum,
    nesterov,
    normalized_gradient,
)
from phihat.products import hvp
from phihat.results import FitError, FitResult, FitState, StepInfo, raise_for_status
from phihat.sampling import from_indices, full_batch, minibatches
from phihat.second_order import covariance, levenberg_marquardt, newton, newton_cg
from phihat.sweeps import (
    SweepResult,
    basins,
    compare,
    learning_rate_range,
    multistart,
    sweep,
)

if TYPE_CHECKING:
    from phihat import convexity
    from phihat.convexity import (
        ConvexityReport,
        Verdict,
        certified_radius,
        certify_convexity,
        check_convexity,
        convex_blocks,
        curvature_floor,
        minimal_ridge,
        prove_convexity,
        refute_convexity,
    )

__version__ = "0.1.0"

__all__ = [
    "Box",
    "ConvexityReport",
    "CriticalPointKind",
    "FitError",
    "FitResult",
    "FitState",
    "Recorder",
    "Status",
    "StepInfo",
    "SweepResult",
    "Tolerance",
    "Verdict",
    "adam",
    "backtracking",
    "basins",
    "bracketing",
    "certified_radius",
    "certify_convexity",
    "check_convexity",
    "classify_critical_point",
    "compare",
    "convex_blocks",
    "convexity",
    "covariance",
    "critical_points",
    "curvature",
    "curvature_floor",
    "datasets",
    "eigenvalues",
    "eval_params",
    "find_critical_points",
    "fit",
    "fitting",
    "from_indices",
    "full_batch",
    "golden_section",
    "gradient_descent",
    "hessian",
    "hessian_trace",
    "hvp",
    "learning_rate_range",
    "levenberg_marquardt",
    "line_searches",
    "losses",
    "minibatches",
    "minimal_ridge",
    "models",
    "momentum",
    "multistart",
    "nesterov",
    "newton",
    "newton_cg",
    "normalized_gradient",
    "optimizers",
    "problems",
    "products",
    "prove_convexity",
    "raise_for_status",
    "refute_convexity",
    "sampling",
    "second_order",
    "sharpness",
    "spectral_density",
    "steepest_descent",
    "sweep",
    "sweeps",
]


def __getattr__(name: str) -> Any:
    """Import the prover when it is first asked for: fits do not need it."""
    if name not in __all__:
        raise AttributeError(f"module 'phihat' has no attribute {name!r}")
    convexity = importlib.import_module("phihat.convexity")
    return convexity if name == "convexity" else getattr(convexity, name)
