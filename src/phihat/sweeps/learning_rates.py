"""All learning rates side by side: where they become unstable, and which to take."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array

from phihat import fitting
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import pictures as _pictures
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params, RandomKey, Status
from phihat._engine import spec as _arguments
from phihat.optimizers import Optimizer
from phihat.sweeps.factories import as_rate_factory
from phihat.sweeps.grid import refuse_tracing, sweep

__all__ = ["LearningRateRange", "learning_rate_range"]


@dataclasses.dataclass(frozen=True, repr=False)
class LearningRateRange:
    """What a range of learning rates does.

    Attributes:
      rates: all that were tried, ascending [R].
      loss: the loss before each step [R, T].
      final: the mean of the last tenth of each curve [R]; infinite where it failed.
      is_stable: whether it ended no higher than if nothing had moved [R].
      largest_stable: the largest rate below which all are stable; NaN if none is.
      suggestion: the rate to take; NaN if none is stable.
      reason: how it was chosen, in a sentence.

    Example:
      >>> import phihat
      >>> found = phihat.learning_rate_range(lambda x: x**2, 1.0, phihat.adam)
      >>> print(bool(found.suggestion < found.largest_stable))
      True
    """

    rates: np.ndarray
    loss: np.ndarray
    final: np.ndarray
    is_stable: np.ndarray
    largest_stable: float
    suggestion: float
    reason: str

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the final loss over the rates, by `phihat.plot.learning_rate_range`."""
        return _pictures.draw("learning_rate_range", self, axes=axes)

    def __repr__(self) -> str:
        """Show the three numbers and the reason."""
        return (
            f"LearningRateRange: {len(self.rates)} rates from {self.rates[0]:.3g} to "
            f"{self.rates[-1]:.3g}\n"
            f"  largest stable  {self.largest_stable:.6g}\n"
            f"  suggestion      {self.suggestion:.6g}: {self.reason}"
        )

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        rows = (
            ("largest stable", f"{self.largest_stable:.6g}"),
            ("suggestion", f"{self.suggestion:.6g}: {self.reason}"),
        )
        return _tables.table(repr(self).split("\n")[0], rows)


@_calls.public
def learning_rate_range(
    loss_fn: LossFn,
    params: Params,
    optimizer: Optimizer | Callable[[Any], Any],
    data: Batch = None,
    *,
    rates: Any = None,
    num_steps: int = 200,
    batch_size: int | None = None,
    sampler: Callable[..., Any] | None = None,
    key: RandomKey | None = None,
    refinements: int = 3,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> LearningRateRange:
    r"""Try many learning rates from the same start, and suggest one.

    A rate is stable if the losses of the last tenth of its steps are, on average, not
    higher than those of a fit that stays at the start. Between the last stable and the
    first unstable rate, and around the best one, finer ranges are tried. For a
    quadratic and gradient descent the largest stable rate is $2 / \lambda_{max}$ and
    the best one
    $2 / (\lambda_{min} + \lambda_{max})$; both are approached as steps are added, to
    about $1 / T$.

    Args:
      loss_fn: as in `fit`.
      params: the start.
      optimizer: one of ours, whose learning rate is replaced by each of the rates; or
        a function from a rate to an optimizer, such as `phihat.adam`.
      data: as in `fit`.
      rates: positive, at least 4, which are sorted; 64 from 1e-6 to 1e3 where None.
      num_steps: T >= 10.
      batch_size: as in `fit`.
      sampler: as in `fit`.
      key: as in `fit`; all rates see the same batches.
      refinements: how often the range is refined.
      max_bytes: as in `sweep`.
      mesh: as in `sweep`.

    Returns:
      A `LearningRateRange`.

    Raises:
      TypeError: an argument has the wrong type; a call under jit, vmap or grad.
      ValueError: an argument has a wrong value.

    Example:
      >>> import phihat
      >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
      >>> start = {"weight": 0.0, "bias": 0.0}
      >>> data = phihat.datasets.linear_regression()
      >>> found = phihat.learning_rate_range(
      ...     loss_fn, start, phihat.gradient_descent, data
      ... )
      >>> print(round(found.largest_stable, 3))  # 2 / 50.03
      0.04
    """
    call = "learning_rate_range"
    refuse_tracing(call)
    num_steps = _checks.check_count(call, "num_steps", num_steps, 10)
    refinements = _checks.check_count(call, "refinements", refinements, 0)
    rates = _as_rates(call, rates)
    data = _data_checks.columns_as_arrays(data)
    factory = as_rate_factory(call, "optimizer", optimizer)
    _checks.check_float_leaves(call, "params", params)
    _checks.check_key(call, key)
    measure = Partial(
        _measure,
        _tree.as_partial(loss_fn, call, "loss_fn"),
        factory,
        jax.tree.map(jnp.asarray, params),
        data,
        _arguments.as_sampler(call, data, batch_size, sampler),
        key,
        num_steps=_tree.Static(num_steps),
    )

    def run(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A fit that stands still shows what the batches alone do to the loss.
        axis = np.concatenate([[0.0], rates]).astype(_tree.default_float())
        values = sweep(measure, {"rate": axis}, max_bytes=max_bytes, mesh=mesh).values
        failed = values["status"] >= Status.NONFINITE_LOSS
        loss = np.where(failed[:, None], np.inf, values["loss"].astype(float))
        return loss[0], loss[1:]

    still, loss = run(rates)
    is_noisy = batch_size is not None or sampler is not None
    tried, count = rates, len(rates)
    for _ in range(refinements):
        new = _between(tried, loss, still, count, is_noisy)
        if new is None:
            break
        _, found = run(new)
        order = np.argsort(np.concatenate([tried, new]), kind="stable")
        tried = np.concatenate([tried, new])[order]
        loss = np.concatenate([loss, found])[order]
    return _conclude(tried, loss, still, is_noisy)


# -------------------------------------------------------------------- private helpers


def _measure(
    loss_fn: LossFn,
    factory: Callable[[Any], Any],
    params: Params,
    data: Batch,
    sampler: Any,
    key: RandomKey | None,
    /,
    *,
    num_steps: _tree.Static,
    rate: Array,
) -> dict[str, Array]:
    result = fitting.fit_as(
        "learning_rate_range",
        loss_fn,
        params,
        factory(rate),
        data,
        num_steps=num_steps.value,
        sampler=sampler,
        key=key,
        record=("loss",),
    )
    return {"loss": result.history["loss"], "status": result.status}


def _tail(loss: np.ndarray) -> np.ndarray:
    """Return the mean of the last tenth of a curve."""
    length = max(1, loss.shape[-1] // 10)
    return loss[..., -length:].mean(axis=-1)


def _stable(loss: np.ndarray, still: np.ndarray) -> np.ndarray:
    return _tail(loss) <= _tail(still)


def _num_stable(loss: np.ndarray, still: np.ndarray) -> int:
    """Return how many rates lie below the first unstable one."""
    is_stable = _stable(loss, still)
    return len(is_stable) if is_stable.all() else int(np.argmin(is_stable))


def _scores(loss: np.ndarray, is_noisy: bool) -> tuple[np.ndarray, str]:
    """Return what the best rate makes smallest, and what that is called."""
    if is_noisy:
        return _tail(loss), "the smallest mean loss over the last tenth of the steps"
    lowest = loss.min()
    floor = 1e3 * np.finfo(_tree.default_float()).eps * max(loss[0, 0] - lowest, 0.0)
    # Beyond this step the best rates have arrived, and rounding would choose.
    open_steps = np.flatnonzero(loss.min(axis=0) - lowest > floor)
    step = int(open_steps[-1]) if open_steps.size else loss.shape[1] - 1
    return loss[:, step], f"the smallest loss after {step} steps"


def _between(
    rates: np.ndarray, loss: np.ndarray, still: np.ndarray, count: int, is_noisy: bool
) -> np.ndarray | None:
    """Return a finer range round the border and round the best rate."""
    stable = _num_stable(loss, still)
    if stable == 0:
        return None
    scores, _ = _scores(loss[:stable], is_noisy)
    best = int(np.argmin(scores))
    low, high = rates[max(best - 1, 0)], rates[min(best + 1, len(rates) - 1)]
    half = count // 2
    around = np.geomspace(low, high, count - half + 2)[1:-1]
    if stable == len(rates):
        edge = np.geomspace(low, high, half + 4)[2:-2]
    else:
        edge = np.geomspace(rates[stable - 1], rates[stable], half + 2)[1:-1]
    return np.sort(np.concatenate([around, edge]))


def _conclude(
    rates: np.ndarray, loss: np.ndarray, still: np.ndarray, is_noisy: bool
) -> LearningRateRange:
    stable = _num_stable(loss, still)
    largest, suggestion = np.nan, np.nan
    reason = "no rate is stable; try smaller ones"
    if stable:
        scores, reason = _scores(loss[:stable], is_noisy)
        largest, suggestion = rates[stable - 1], rates[int(np.argmin(scores))]
        if stable < len(rates):
            reason += f" among the {stable} rates below the first unstable one"
        else:
            reason += f" among all {stable} rates; none was unstable: try larger ones"
    return LearningRateRange(
        rates=rates,
        loss=loss,
        final=_tail(loss),
        is_stable=_stable(loss, still),
        largest_stable=float(largest),
        suggestion=float(suggestion),
        reason=reason,
    )


def _as_rates(call: str, rates: Any) -> np.ndarray:
    if rates is None:
        return np.geomspace(1e-6, 1e3, 64)
    rates = np.unique(_checks.as_floats(call, "rates", rates).ravel())
    _checks.check_range(call, "rates", rates, 0.0, np.inf, include_low=False)
    if len(rates) < 4:
        raise ValueError(
            f"{call}: `rates` must be at least 4 different ones, got {len(rates)}."
        )
    return rates
