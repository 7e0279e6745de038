"""Held-out data: how they are looked at, and the params that did best on them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.types import Batch, Params
from phihat.training import chunk_programs
from phihat.training.chunked_run import ChunkedRun

__all__ = ["Validation", "Validator"]


@_calls.public
@dataclasses.dataclass(frozen=True)
class Validation:
    """Held-out data: the `validation=` of `train`.

    Args:
      data: as the loss takes them, in one batch.
      every: steps between two evaluations.
      patience: early stopping: after this many evaluations in a row without a better
        one, the fit ends with the status STOPPED; None never ends it.
      metric: `metric(params, data) -> []`, by which the params are chosen; None takes
        the loss.
      mode: "min" where smaller is better, or "max".
      min_delta: by how much an evaluation must be better than the best one, >= 0.

    Raises:
      TypeError: `data` are not arrays, `metric` is not a function, or a count is not an
        integer.
      ValueError: a count is below 1, `min_delta` below 0, or `mode` another word.

    Example:
      >>> import phihat
      >>> x, y = phihat.datasets.linear_regression()
      >>> result = phihat.train(
      ...     phihat.losses.least_squares(phihat.models.linear),
      ...     {"weight": 0.0, "bias": 0.0},
      ...     phihat.adam(0.1),
      ...     (x[:8], y[:8]),
      ...     num_steps=300,
      ...     validation=phihat.training.Validation((x[8:], y[8:]), every=100),
      ... )
      >>> print(result.history["validation_step"])
      [100 200 300]
    """

    data: Batch
    every: int
    patience: int | None = None
    metric: Callable[[Params, Batch], Any] | None = None
    mode: str = "min"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        object.__setattr__(self, "data", _data_checks.columns_as_arrays(self.data))
        _data_checks.check_data("Validation", self.data)
        if self.data is None:
            raise TypeError("Validation: `data` must be held-out data, got None.")
        _checks.check_count("Validation", "every", self.every)
        if self.patience is not None:
            _checks.check_count("Validation", "patience", self.patience)
        is_metric = callable(self.metric) and _checks.can_call(self.metric, None, None)
        if self.metric is not None and not is_metric:
            raise TypeError(
                "Validation: `metric` must be a function `(params, data) -> number`, "
                f"got {_checks.brief(self.metric)}."
            )
        _checks.check_choice("Validation", "mode", self.mode, ("min", "max"))
        delta = _tree.as_scalar(self.min_delta, "Validation", "min_delta")
        _checks.check_range("Validation", "min_delta", delta, 0.0)


class Validator:
    """Looks at held-out data, and keeps the params that did best on them.

    Attributes:
      steps: at which it looked.
      losses: on the held-out data, one per look.
      metrics: likewise, where there is a metric.
      best: of the losses or metrics, or None before one was finite.
      best_point: the params that have it and their model state; None before.
      waited: looks since then.
    """

    def __init__(self, validation: Validation) -> None:
        """Begin with no look."""
        self.validation = validation
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.metrics: list[float] = []
        self.best: float | None = None
        self.best_point: tuple[PyTree, PyTree] = (None, None)
        self.waited = 0
        metric = validation.metric
        self._metric = (
            None if metric is None else _tree.as_partial(metric, "Validation", "metric")
        )
        self._is_warned = False

    @property
    def every(self) -> int:
        """Steps between two looks."""
        return self.validation.every

    def look(self, run: ChunkedRun) -> None:
        """Measure where the run stands."""
        if self.steps and self.steps[-1] == run.step:
            return
        program = _programs.bind(
            _measure,
            (run.spec, self._metric),
            run.options,
            params=run.carry.state,
        )
        loss, metric, point = program(run.carry.state, self.validation.data)
        self.steps.append(run.step)
        self.losses.append(float(loss))
        if metric is not None:
            self.metrics.append(float(metric))
        value = self.losses[-1] if metric is None else self.metrics[-1]
        if not math.isfinite(value):
            self._warn(value, run.step)
        if self._is_better(value):
            self.best, self.best_point, self.waited = value, point, 0
        else:
            self.waited += 1

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value
        gain = gain if self.validation.mode == "min" else -gain
        return gain > self.validation.min_delta

    def _warn(self, value: float, step: int) -> None:
        if self._is_warned:
            return
        self._is_warned = True
        what = "loss" if self._metric is None else "metric"
        _checks.warn(
            f"train: the validation {what} was {value} after {step} steps; such a look "
            "chooses no params and counts as no better. Look for NaN and infinite "
            "numbers in the held-out data."
        )

    @property
    def is_over(self) -> bool:
        """Whether patience is at its end."""
        patience = self.validation.patience
        return patience is not None and self.waited >= patience

    def history(self, dtype: Any) -> dict[str, Any]:
        """Return what was seen, as entries of the history."""
        found = {
            "validation_loss": jnp.asarray(self.losses, dtype),
            "validation_step": jnp.asarray(self.steps, jnp.int32),
        }
        if self._metric is not None:
            found["validation_metric"] = jnp.asarray(self.metrics, dtype)
        return found

    def as_notes(self) -> dict[str, Any]:
        """Return all but the params, as JSON can hold it."""
        return {
            "steps": self.steps,
            "losses": self.losses,
            "metrics": self.metrics,
            "best": self.best,
            "waited": self.waited,
        }

    def restore(self, notes: dict[str, Any], point: tuple[PyTree, PyTree]) -> None:
        """Bring it to where it was."""
        self.steps, self.losses = notes["steps"], notes["losses"]
        self.metrics, self.best = notes["metrics"], notes["best"]
        self.best_point, self.waited = point, notes["waited"]


def _measure(
    code: tuple[Any, Partial | None],
    options: chunk_programs.ChunkOptions,
    mode: Any,
    state: Any,
    data: Batch,
) -> tuple[jax.Array, jax.Array | None, tuple[Params, Any]]:
    """Return loss and metric on held-out data, and params and state that have them."""
    spec, metric = code
    loss, params, model_state = chunk_programs.evaluate(
        spec, options, mode, state, data
    )
    if metric is None:
        return loss, None, (params, model_state)
    value = metric(params, data)
    if np.shape(value) != ():
        raise ValueError(
            "Validation: `metric` must return one number, got an array of shape "
            f"{list(np.shape(value))}; take its mean or its sum."
        )
    return loss, jnp.asarray(value), (params, model_state)
