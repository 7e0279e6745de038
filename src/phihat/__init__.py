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

if TYPE_CHECKING:
    from phihat import checkpoint as checkpoint
    from phihat import convexity as convexity
    from phihat import critical_points as critical_points
    from phihat import curvature as curvature
    from phihat import curves as curves
    from phihat import datasets as datasets
    from phihat import error_bars as error_bars
    from phihat import fitting as fitting
    from phihat import line_searches as line_searches
    from phihat import losses as losses
    from phihat import models as models
    from phihat import optimizers as optimizers
    from phihat import plot as plot
    from phihat import problems as problems
    from phihat import products as products
    from phihat import sampling as sampling
    from phihat import second_order as second_order
    from phihat import sharding as sharding
    from phihat import sweeps as sweeps
    from phihat import training as training
    from phihat._core.programs import clear_programs as clear_programs
    from phihat._core.types import Box as Box
    from phihat._core.types import Status as Status
    from phihat._recorder import Recorder as Recorder
    from phihat.checkpoint import Checkpoints as Checkpoints
    from phihat.convexity import ConvexityReport as ConvexityReport
    from phihat.convexity import Verdict as Verdict
    from phihat.convexity import certified_radius as certified_radius
    from phihat.convexity import certify_convexity as certify_convexity
    from phihat.convexity import check_convexity as check_convexity
    from phihat.convexity import convex_blocks as convex_blocks
    from phihat.convexity import curvature_floor as curvature_floor
    from phihat.convexity import minimal_ridge as minimal_ridge
    from phihat.convexity import prove_convexity as prove_convexity
    from phihat.convexity import refute_convexity as refute_convexity
    from phihat.critical_points import CriticalPointKind as CriticalPointKind
    from phihat.critical_points import (
        classify_critical_point as classify_critical_point,
    )
    from phihat.critical_points import find_critical_points as find_critical_points
    from phihat.curvature import eigenvalues as eigenvalues
    from phihat.curvature import hessian as hessian
    from phihat.curvature import hessian_trace as hessian_trace
    from phihat.curvature import sharpness as sharpness
    from phihat.curvature import spectral_density as spectral_density
    from phihat.curves import CurveFit as CurveFit
    from phihat.curves import CurveFits as CurveFits
    from phihat.curves import fit_curve as fit_curve
    from phihat.curves import fit_curves as fit_curves
    from phihat.error_bars import ConfidenceIntervals as ConfidenceIntervals
    from phihat.error_bars import confidence_intervals as confidence_intervals
    from phihat.fitting import Tolerance as Tolerance
    from phihat.fitting import fit as fit
    from phihat.line_searches import backtracking as backtracking
    from phihat.line_searches import bracketing as bracketing
    from phihat.line_searches import golden_section as golden_section
    from phihat.line_searches import line_search as line_search
    from phihat.line_searches import steepest_descent as steepest_descent
    from phihat.line_searches import strong_wolfe as strong_wolfe
    from phihat.optimizers import adam as adam
    from phihat.optimizers import eval_params as eval_params
    from phihat.optimizers import gradient_descent as gradient_descent
    from phihat.optimizers import momentum as momentum
    from phihat.optimizers import nesterov as nesterov
    from phihat.optimizers import normalized_gradient as normalized_gradient
    from phihat.products import hvp as hvp
    from phihat.results import FitError as FitError
    from phihat.results import FitResult as FitResult
    from phihat.results import FitState as FitState
    from phihat.results import StepInfo as StepInfo
    from phihat.results import raise_for_status as raise_for_status
    from phihat.sampling import from_indices as from_indices
    from phihat.sampling import full_batch as full_batch
    from phihat.sampling import minibatches as minibatches
    from phihat.second_order import covariance as covariance
    from phihat.second_order import levenberg_marquardt as levenberg_marquardt
    from phihat.second_order import newton as newton
    from phihat.second_order import newton_cg as newton_cg
    from phihat.sweeps import SweepResult as SweepResult
    from phihat.sweeps import basins as basins
    from phihat.sweeps import compare as compare
    from phihat.sweeps import learning_rate_range as learning_rate_range
    from phihat.sweeps import multistart as multistart
    from phihat.sweeps import sweep as sweep
    from phihat.training import train as train

__version__ = "0.2.0"

# A name costs its module's import when it is first used, and nothing before. One that
# is added here is imported above too, for the type checker.
_NAMES = {
    "_core.programs": "clear_programs",
    "_core.types": "Box Status",
    "_recorder": "Recorder",
    "checkpoint": "Checkpoints checkpoint",
    "convexity": (
        "ConvexityReport Verdict certified_radius certify_convexity check_convexity "
        "convex_blocks convexity curvature_floor minimal_ridge prove_convexity "
        "refute_convexity"
    ),
    "critical_points": (
        "CriticalPointKind classify_critical_point critical_points find_critical_points"
    ),
    "curvature": (
        "curvature eigenvalues hessian hessian_trace sharpness spectral_density"
    ),
    "curves": "CurveFit CurveFits curves fit_curve fit_curves",
    "datasets": "datasets",
    "error_bars": "ConfidenceIntervals confidence_intervals error_bars",
    "fitting": "Tolerance fit fitting",
    "line_searches": (
        "backtracking bracketing golden_section line_search line_searches "
        "steepest_descent strong_wolfe"
    ),
    "losses": "losses",
    "models": "models",
    "optimizers": (
        "adam eval_params gradient_descent momentum nesterov normalized_gradient "
        "optimizers"
    ),
    "plot": "plot",
    "problems": "problems",
    "products": "hvp products",
    "results": "FitError FitResult FitState StepInfo raise_for_status",
    "sampling": "from_indices full_batch minibatches sampling",
    "second_order": "covariance levenberg_marquardt newton newton_cg second_order",
    "sharding": "sharding",
    "sweeps": "SweepResult basins compare learning_rate_range multistart sweep sweeps",
    "training": "train training",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:
    __all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a daily name, or a module, when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'phihat' has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f"phihat.{home}")
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the daily names too, whether or not they have been asked for."""
    return sorted({*globals(), *_HOMES})
