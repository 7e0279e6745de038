"""The states of the optimizers, and the functions that make and update them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phihat._core import checks as _checks
from phihat._core import reductions as _reductions
from phihat._core import tree as _tree
from phihat._core.types import Params, Schedule
from phihat.optimizers.optimizer import describe

__all__ = [
    "AdamState",
    "GradientDescentState",
    "MomentumState",
    "NesterovState",
    "Rate",
    "adam_init",
    "adam_update",
    "gradient_descent_init",
    "gradient_descent_update",
    "momentum_init",
    "momentum_update",
    "nesterov_init",
    "nesterov_update",
    "normalized_gradient_update",
]

Rate = float | Float[Array, ""] | Schedule


class GradientDescentState(NamedTuple):
    """What gradient descent, plain or normalized, carries: the place in the schedule.

    Attributes:
      step: updates made so far, int32 [].
    """

    step: Int[Array, ""]


class MomentumState(NamedTuple):
    """What momentum carries.

    Attributes:
      step: updates made so far, int32 [].
      momentum: the running mean of gradients, like the params, at least float32.
    """

    step: Int[Array, ""]
    momentum: PyTree


class NesterovState(NamedTuple):
    """What Nesterov's method carries; its params are look-ahead points.

    Attributes:
      step: updates made so far, int32 [].
      momentum: the running mean of gradients, like the params, at least float32.
      lookahead_rate: the look-ahead in use: the params that the loop carries are the
        iterate minus `lookahead_rate * momentum`.
    """

    step: Int[Array, ""]
    momentum: PyTree
    lookahead_rate: Float[Array, ""]


class AdamState(NamedTuple):
    """What Adam carries.

    The weights are the sums of the weights that the means have given to gradients so
    far, $1 - b^t$, accumulated as the means are: dividing by them corrects the bias
    without the cancellation of computing $1 - b^t$ from a power.

    Attributes:
      step: updates made so far, int32 [].
      mean: the running mean of gradients, like the params, at least float32.
      mean_square: the running mean of squared gradients, likewise.
      mean_weight: the weight in `mean`, [].
      mean_square_weight: the weight in `mean_square`, [].
    """

    step: Int[Array, ""]
    mean: PyTree
    mean_square: PyTree
    mean_weight: Float[Array, ""]
    mean_square_weight: Float[Array, ""]


# ------------------------------------------------------------------------ the updates


def gradient_descent_init(params: Params) -> GradientDescentState:
    del params
    return GradientDescentState(step=jnp.zeros((), jnp.int32))


def gradient_descent_update(
    updates: PyTree,
    state: GradientDescentState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    **extra: Any,
) -> tuple[PyTree, GradientDescentState]:
    del params, extra
    rate = _rate_at(learning_rate, _step_of(state))

    steps = _step_against(rate, jax.tree.map(_widen, updates), updates)
    return steps, GradientDescentState(step=state.step + 1)


def normalized_gradient_update(
    updates: PyTree,
    state: GradientDescentState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    eps: float,
    **extra: Any,
) -> tuple[PyTree, GradientDescentState]:
    del params, extra
    rate = _rate_at(learning_rate, _step_of(state))

    def direction(gradient: Array) -> Array:
        wide = _widen(gradient)
        # |g| and not sqrt(g^2): its derivative at zero is finite, g^2 may overflow.
        return wide / (jnp.abs(wide) + _tree.cast(_scalar("eps", eps), wide.dtype))

    steps = _step_against(rate, jax.tree.map(direction, updates), updates)
    return steps, GradientDescentState(step=state.step + 1)


def momentum_init(params: Params) -> MomentumState:
    return MomentumState(
        step=jnp.zeros((), jnp.int32), momentum=_zeros_like_accumulator(params)
    )


def momentum_update(
    updates: PyTree,
    state: MomentumState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    decay: float,
    **extra: Any,
) -> tuple[PyTree, MomentumState]:
    del params, extra
    rate = _rate_at(learning_rate, _step_of(state))
    mean = _running_mean(decay, state.momentum, updates)
    steps = _step_against(rate, mean, updates)
    return steps, MomentumState(step=state.step + 1, momentum=mean)


def nesterov_init(params: Params) -> NesterovState:
    return NesterovState(
        step=jnp.zeros((), jnp.int32),
        momentum=_zeros_like_accumulator(params),
        lookahead_rate=jnp.zeros((), _tree.default_float()),
    )


def nesterov_update(
    updates: PyTree,
    state: NesterovState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    decay: float,
    lookahead: float | None,
    **extra: Any,
) -> tuple[PyTree, NesterovState]:
    del params, extra
    next_step = _step_of(state) + 1
    rate = _rate_at(learning_rate, _step_of(state))
    wide = _tree.default_float()
    share = _tree.cast(decay if lookahead is None else lookahead, wide)
    # The next gradient is measured with the next rate, as the method says.
    next_lookahead = _tree.cast(_rate_at(learning_rate, next_step), wide) * share
    mean = _running_mean(decay, state.momentum, updates)

    def move(gradient: Array, old_mean: Array, mean: Array) -> Array:
        dtype = mean.dtype
        back = _tree.cast(state.lookahead_rate, dtype) * old_mean
        ahead = (_tree.cast(rate, dtype) + _tree.cast(next_lookahead, dtype)) * mean
        return (back - ahead).astype(_step_dtype(gradient))

    return (
        jax.tree.map(move, updates, state.momentum, mean),
        NesterovState(step=next_step, momentum=mean, lookahead_rate=next_lookahead),
    )


def adam_init(params: Params) -> AdamState:
    wide = _tree.default_float()
    return AdamState(
        step=jnp.zeros((), jnp.int32),
        mean=_zeros_like_accumulator(params),
        mean_square=jax.tree.map(jnp.real, _zeros_like_accumulator(params)),
        mean_weight=jnp.zeros((), wide),
        mean_square_weight=jnp.zeros((), wide),
    )


def adam_update(
    updates: PyTree,
    state: AdamState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    b1: float,
    b2: float,
    eps: float,
    **extra: Any,
) -> tuple[PyTree, AdamState]:
    del params, extra
    rate = _rate_at(learning_rate, _step_of(state))
    one = jnp.ones((), _tree.default_float())
    mean = _running_mean(b1, state.mean, updates)
    mean_square = _running_mean(b2, state.mean_square, updates, power=2)
    mean_weight = _running_mean(b1, state.mean_weight, one)
    mean_square_weight = _running_mean(b2, state.mean_square_weight, one)

    # The corrections are folded into two scalars: one division and one root an entry.
    scale = _tree.cast(rate, one.dtype) / mean_weight
    root_scale = jax.lax.rsqrt(mean_square_weight)

    def move(gradient: Array, mean: Array, mean_square: Array) -> Array:
        dtype = mean_square.dtype
        root = _reductions.safe_sqrt(mean_square) * _tree.cast(root_scale, dtype)
        whole = (root + _tree.cast(_scalar("eps", eps), dtype)).astype(mean.dtype)
        step = _tree.cast(scale, mean.dtype) * mean / whole
        return (-step).astype(_step_dtype(gradient))

    return (
        jax.tree.map(move, updates, mean, mean_square),
        AdamState(
            step=state.step + 1,
            mean=mean,
            mean_square=mean_square,
            mean_weight=mean_weight,
            mean_square_weight=mean_square_weight,
        ),
    )


# -------------------------------------------------------------------- private helpers


def _running_mean(decay: Any, mean: PyTree, updates: PyTree, power: int = 1) -> PyTree:
    """Return b m + (1 - b) g^power, leaf by leaf, in the dtype of the mean."""

    def blend(mean: Array, gradient: Array) -> Array:
        # The share is taken before it is rounded: 1 - 0.999 in float32 is off by 1e-5.
        decay_ = _scalar("decay", decay)
        kept, share = (_tree.cast(part, mean.dtype) for part in (decay_, 1 - decay_))
        wide = jnp.asarray(gradient)
        if power == 2 and jnp.iscomplexobj(wide):
            wide = jnp.abs(wide)  # the square of a complex number is no variance
        wide = wide.astype(mean.dtype)
        return kept * mean + share * (wide if power == 1 else wide * wide)

    return jax.tree.map(blend, mean, updates)


def _zeros_like_accumulator(params: Params) -> PyTree:
    # zeros_like and not zeros: moments follow the sharding of their params.
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf, dtype=_tree.accumulator_dtype(leaf)), params
    )


def _widen(gradient: Array) -> Array:
    dtype = _tree.accumulator_dtype(_step_dtype(gradient))
    return jnp.asarray(gradient).astype(dtype)


def _step_against(rate: Any, directions: PyTree, updates: PyTree) -> PyTree:
    """Return the steps of this length, in the dtypes of the gradients."""

    def step(direction: Array, gradient: Array) -> Array:
        scaled = _tree.cast(rate, direction.dtype) * direction
        return (-scaled).astype(_step_dtype(gradient))

    return jax.tree.map(step, directions, updates)


def _step_dtype(gradient: Any) -> Any:
    """Return the dtype of a gradient; of numbers and of integers, the usual float's."""
    dtype = jnp.result_type(gradient)
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return dtype if is_inexact else _tree.default_float()


def _step_of(state: Any) -> Int[Array, ""]:
    """Return how many updates a state has seen, or say that it is none."""
    if not hasattr(state, "step"):
        raise TypeError(
            "update: `state` must be what `optimizer.init(params)` or the last "
            f"`update` returned, got {_checks.brief(state)}."
        )
    return state.step


def _rate_at(learning_rate: Rate, step: Int[Array, ""]) -> Any:
    """Return the rate in force at a step: the number, or the schedule's value."""
    rate: Any = learning_rate
    if callable(learning_rate):
        try:
            rate = learning_rate(step)
        except jax.errors.ConcretizationTypeError as error:
            raise TypeError(
                f"The schedule {describe(learning_rate)} asks Python for the value of "
                "the step, which is known only when the program runs: write it with "
                "`jnp.where` instead of `if`, or take one of `optax.schedules`."
            ) from error
    return _scalar("learning_rate", rate)


def _scalar(name: str, value: Any) -> Any:
    """Return a hyperparameter that one fit can use."""
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"fit: the `{name}` of the optimizer must be a scalar in one fit, got the "
            f"shape {list(jnp.shape(value))}; map over the optimizer for many."
        )
    return value
