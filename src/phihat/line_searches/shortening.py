"""Steps that do not lower a function, shortened until they do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phihat._core import tree as _tree

__all__ = ["Found", "below_start"]


class Found(NamedTuple):
    """A step that a search found.

    Attributes:
      step: the step, [].
      value: the function there, [].
      is_close: whether a minimum is within the tolerance, bool [].
      num_trials: values computed to shorten it, int32 [].
    """

    step: Float[Array, ""]
    value: Float[Array, ""]
    is_close: Bool[Array, ""]
    num_trials: Int[Array, ""] | int = 0


_MOST = 60
"""Quarters: down to 1e-36 of a step, about the smallest number of float32."""


class _Trials(NamedTuple):
    """The last trial, the best one, whether the valley is passed, how many trials."""

    step: Float[Array, ""]
    best_step: Float[Array, ""]
    best_value: Float[Array, ""]
    is_past: Bool[Array, ""]
    num_trials: Int[Array, ""]


def below_start(
    value_fn: Callable[[Any], Any],
    start_value: Float[Array, ""],
    found: Found,
    tolerance: Any,
) -> Found:
    """Shorten a step that does not lower the value, to the bottom of a valley.

    Each trial is a quarter of the one before, until the value has fallen and rises
    again; then half and twice the best are tried. So at an exact minimum the step is
    0, as it is where no step lowers the value.

    Args:
      value_fn: `step -> value`, infinite where it is not finite.
      start_value: the value of step 0.
      found: the step, which is returned as it is if its value is lower.
      tolerance: the distance from a minimum that is close.
    """

    def quarter(trials: _Trials) -> _Trials:
        step = trials.step / 4
        value = value_fn(step)
        is_lower = value < trials.best_value
        return _Trials(
            step,
            jnp.where(is_lower, step, trials.best_step),
            jnp.where(is_lower, value, trials.best_value),
            (trials.best_step > 0) & ~is_lower,
            trials.num_trials + 1,
        )

    def go_on(trials: _Trials, _: None) -> tuple[_Trials, None]:
        # A scan and no while_loop: it can be differentiated in reverse.
        return jax.lax.cond(trials.is_past, lambda same: same, quarter, trials), None

    def shorten() -> Found:
        start = _Trials(
            found.step,
            jnp.zeros_like(found.step),
            start_value,
            jnp.asarray(False),
            jnp.asarray(0, jnp.int32),
        )
        trials, _ = jax.lax.scan(go_on, start, length=_MOST)
        steps = trials.best_step * jnp.asarray([1.0, 0.5, 2.0], trials.step.dtype)
        values = jnp.stack([trials.best_value, *map(value_fn, steps[1:])])
        best = jnp.argmin(values)
        width = 1.5 * steps[best]  # from half to twice the best lies a minimum
        is_close = trials.is_past & (width <= _tree.cast(tolerance, width.dtype))
        return Found(steps[best], values[best], is_close, trials.num_trials + 2)

    as_it_is = found._replace(num_trials=jnp.asarray(found.num_trials, jnp.int32))
    return jax.lax.cond(found.value < start_value, lambda: as_it_is, shorten)
