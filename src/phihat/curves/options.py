"""What is asked of a fit of curves beside the data, checked once."""

import dataclasses
from typing import Any

import numpy as np

from phihat._core import checks as _checks
from phihat._core import jaxprs as _jaxprs
from phihat._engine import spec as _spec
from phihat.curves import robust
from phihat.curves.arrays import as_array

__all__ = ["Options", "check_options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What was asked beside the data.

    Attributes:
      absolute_sigma: sigma is known, and not only up to a factor.
      loss: one of `robust.LOSSES`.
      f_scale: where robust losses begin to bend.
      nan_policy: "raise", "omit" or "propagate".
      tolerance: as in `fit`.
      num_steps: the budget.
      dtype: of the computation.
    """

    absolute_sigma: bool
    loss: str
    f_scale: float
    nan_policy: str
    tolerance: Any
    num_steps: int
    dtype: Any


def check_options(
    call: str,
    *,
    has_sigma: bool,
    absolute_sigma: Any = False,
    loss: Any = "linear",
    f_scale: Any = 1.0,
    nan_policy: Any = "raise",
    tolerance: Any = None,
    num_steps: Any = 1000,
    dtype: Any = None,
) -> Options:
    """Check what was asked beside the data, and that no transformation is on."""
    _refuse_jit(call)
    if not isinstance(absolute_sigma, (bool, np.bool_)):
        raise TypeError(
            f"{call}: `absolute_sigma` must be True or False, got "
            f"{_checks.brief(absolute_sigma)}."
        )
    if absolute_sigma and not has_sigma:
        raise ValueError(
            f"{call}: `absolute_sigma` is True but there is no `sigma`; pass the "
            "standard deviations of y, such as `sigma=0.1`."
        )
    _checks.check_choice(call, "loss", loss, robust.LOSSES)
    _checks.check_choice(call, "nan_policy", nan_policy, ("raise", "omit", "propagate"))
    number = as_array(call, "f_scale", f_scale)
    if number.ndim:
        raise ValueError(
            f"{call}: `f_scale` must be one number, got {_checks.brief(number)}."
        )
    _checks.check_range(call, "f_scale", float(number), 0.0, include_low=False)
    if loss == "linear" and float(number) != 1.0:
        raise ValueError(
            f"{call}: `f_scale` has no effect with loss='linear'; choose a robust loss "
            f"among {list(robust.LOSSES[1:])}."
        )
    return Options(
        absolute_sigma=bool(absolute_sigma),
        loss=loss,
        f_scale=float(number),
        nan_policy=nan_policy,
        tolerance=_spec.as_tolerance(call, tolerance),
        num_steps=_checks.check_count(call, "num_steps", num_steps),
        dtype=_as_dtype(call, dtype),
    )


# ------------------------------------------------------------------------- private


def _as_dtype(call: str, dtype: Any) -> Any:
    """Return float64 unless float32 is asked for."""
    try:
        found = np.dtype(np.float64 if dtype is None else dtype)
    except (TypeError, ValueError):
        found = None
    # None equals float64, as NumPy compares them.
    if found is None or found not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(
            f"{call}: `dtype` must be float64 or float32, got {_checks.brief(dtype)}."
        )
    return found


def _refuse_jit(call: str) -> None:
    """Refuse to work inside a transformation, with the cure."""
    if _jaxprs.is_tracing():
        raise TypeError(
            f"{call}: it returns NumPy and works outside of jit, vmap and grad; "
            "inside them call `phihat.fit` with `levenberg_marquardt()` and "
            "`losses.least_squares(model)`."
        )
