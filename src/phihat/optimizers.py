r"""The optimizers of the deck, as optax transformations whose numbers are data.

Each factory returns an `optax.GradientTransformationExtraArgs` that runs in any optax
loop. Its `init` and `update` are `jax.tree_util.Partial`s of module-level functions,
so every hyperparameter is a leaf: a new learning rate compiles nothing, `jax.vmap` maps
over an optimizer, `jax.grad` differentiates with respect to one.

Below, $g$ is the gradient of the batch's loss and $\alpha_t$ the learning rate of step
$t$, which is a number, a scalar array, or a schedule `step -> rate`.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat import optimizers
  >>> optimizer = optimizers.momentum(0.5, decay=0.0)
  >>> optimizer
  momentum(learning_rate=0.5, decay=0.0)
  >>> params = {"w": jnp.asarray([1.0, 2.0])}
  >>> state = optimizer.init(params)
  >>> updates, state = optimizer.update({"w": jnp.asarray([1.0, -1.0])}, state, params)
  >>> print(updates["w"])
  [-0.5  0.5]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tables as _tables
from phihat._core import tree as _tree
from phihat._core.types import Params, Schedule

__all__ = [
    "AdamState",
    "GradientDescentState",
    "MomentumState",
    "NesterovState",
    "Optimizer",
    "adam",
    "eval_params",
    "gradient_descent",
    "momentum",
    "nesterov",
    "normalized_gradient",
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


class Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation that shows its hyperparameters: nothing else is added.

    Args:
      init: a Partial, `params -> state`.
      update: a Partial, `(updates, state, params, **extra) -> (updates, state)`.

    Example:
      >>> from phihat import optimizers
      >>> repr(optimizers.adam(1))
      'adam(learning_rate=1.0, b1=0.9, b2=0.999, eps=1e-08)'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the factory's name and its arguments."""
        if not isinstance(self.update, Partial):
            return super().__repr__()
        return _describe(self.update)

    def _repr_html_(self) -> str:
        """Show the hyperparameters as a table in a notebook."""
        if not isinstance(self.update, Partial):
            return _tables.table(repr(self), ())
        return _tables.table(_name_of(self.update), _arguments_of(self.update))


# --------------------------------------------------------------------- the factories


@_calls.public
def gradient_descent(learning_rate: Rate) -> Optimizer:
    r"""Step against the gradient: $\phi \leftarrow \phi - \alpha_t\, g$.

    Args:
      learning_rate: $\alpha \ge 0$, a number, a scalar array or a schedule.

    Returns:
      An optax transformation.

    Raises:
      ValueError: `learning_rate` is negative or NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import fit, gradient_descent
      >>> result = fit(lambda x: x**2, 1.0, gradient_descent(0.25), num_steps=3)
      >>> print(result.params)
      0.125

    References:
      Cauchy, *Methode generale pour la resolution des systemes d'equations
      simultanees*, C. R. Acad. Sci. 1847.
    """
    rate = _rate_argument("gradient_descent", learning_rate)
    return Optimizer(
        Partial(_gradient_descent_init),
        Partial(_gradient_descent_update, learning_rate=rate),
    )


@_calls.public
def momentum(learning_rate: Rate, decay: float = 0.9) -> Optimizer:
    r"""Step along a running mean of the gradients.

    $m \leftarrow b\,m + (1-b)\,g$, then $\phi \leftarrow \phi - \alpha_t\, m$. With a
    constant rate this is `optax.sgd(a * (1 - b), momentum=b)`.

    Args:
      learning_rate: $\alpha \ge 0$, a number, a scalar array or a schedule.
      decay: $b$ in [0, 1), the share of the old mean that is kept.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> from phihat import fit, momentum
      >>> result = fit(lambda x: x**2, 1.0, momentum(0.5, decay=0.5), num_steps=2)
      >>> print(result.params)
      0.0

    References:
      Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR
      Comput. Math. Math. Phys. 1964.
    """
    rate = _rate_argument("momentum", learning_rate)
    return Optimizer(
        Partial(_momentum_init),
        Partial(
            _momentum_update,
            learning_rate=rate,
            decay=_decay_argument("momentum", "decay", decay),
        ),
    )


@_calls.public
def nesterov(
    learning_rate: Rate, decay: float = 0.9, *, lookahead: float | None = None
) -> Optimizer:
    r"""Momentum that measures the gradient where it is about to be.

    $m \leftarrow b\,m + (1-b)\,g(\phi - \alpha_t c\,m)$, then
    $\phi \leftarrow \phi - \alpha_t\, m$.

    The params that a loop carries are the look-ahead points
    $\phi - \alpha_t c\,m$, so that any loop measures the gradient in the right place;
    `eval_params` gives the iterate $\phi$, and `fit` applies it. In a chain it must
    come last, since what it returns is no longer a gradient.

    Args:
      learning_rate: $\alpha \ge 0$, a number, a scalar array or a schedule.
      decay: $b$ in [0, 1), the share of the old mean that is kept.
      lookahead: $c \ge 0$, how far to look ahead; None means $c = b$, Nesterov's own
        choice, and 1.0 is the form printed on many slides.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> from phihat import fit, nesterov
      >>> result = fit(lambda x: x**2, 1.0, nesterov(0.5, decay=0.5), num_steps=2)
      >>> print(result.params)
      0.125

    References:
      Nesterov, *A method of solving a convex programming problem with convergence rate
      O(1/k^2)*, Soviet Math. Dokl. 1983.
    """
    rate = _rate_argument("nesterov", learning_rate)
    if lookahead is not None:
        lookahead = _tree.as_number(lookahead, "nesterov", "lookahead")
        _checks.check_range("nesterov", "lookahead", lookahead, low=0.0)
    return Optimizer(
        Partial(_nesterov_init),
        Partial(
            _nesterov_update,
            learning_rate=rate,
            decay=_decay_argument("nesterov", "decay", decay),
            lookahead=lookahead,
        ),
    )


@_calls.public
def normalized_gradient(learning_rate: Rate, eps: float = 1e-8) -> Optimizer:
    r"""Step by the sign of the gradient, smoothed near zero.

    $\phi \leftarrow \phi - \alpha_t\, g / (|g| + \epsilon)$, entry by entry: every
    entry moves by nearly the same distance, whatever its slope.

    Args:
      learning_rate: $\alpha \ge 0$, a number, a scalar array or a schedule.
      eps: $\epsilon \ge 0$; in float32 a value below about 1e-18 is no protection,
        since squares and quotients of that size are flushed to zero.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> from phihat import fit, normalized_gradient
      >>> result = fit(lambda x: x**2, 1.0, normalized_gradient(0.25), num_steps=3)
      >>> print(round(float(result.params), 6))
      0.25

    References:
      Prince, *Understanding Deep Learning*, section 6.4, 2023.
    """
    rate = _rate_argument("normalized_gradient", learning_rate)
    return Optimizer(
        Partial(_gradient_descent_init),
        Partial(
            _normalized_gradient_update,
            learning_rate=rate,
            eps=_eps_argument("normalized_gradient", eps),
        ),
    )


@_calls.public
def adam(
    learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Optimizer:
    r"""Momentum on normalized gradients, with both means corrected for their start.

    $m \leftarrow b_1 m + (1-b_1) g$ and $v \leftarrow b_2 v + (1-b_2) g^2$; with
    $\tilde m = m/(1-b_1^{t+1})$ and $\tilde v = v/(1-b_2^{t+1})$,
    $\phi \leftarrow \phi - \alpha_t\, \tilde m / (\sqrt{\tilde v} + \epsilon)$.

    Args:
      learning_rate: $\alpha \ge 0$, a number, a scalar array or a schedule.
      b1: $b_1$ in [0, 1), the share of the old mean that is kept.
      b2: $b_2$ in [0, 1), the same for the mean square.
      eps: $\epsilon \ge 0$, added to the root.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an argument lies outside its range.

    Example:
      >>> from phihat import adam, fit
      >>> result = fit(lambda x: x**2, 1.0, adam(0.25), num_steps=1)
      >>> print(round(float(result.params), 6))
      0.75

    References:
      Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015.
    """
    rate = _rate_argument("adam", learning_rate)
    return Optimizer(
        Partial(_adam_init),
        Partial(
            _adam_update,
            learning_rate=rate,
            b1=_decay_argument("adam", "b1", b1),
            b2=_decay_argument("adam", "b2", b2),
            eps=_eps_argument("adam", eps),
        ),
    )


@_calls.public
def eval_params(opt_state: PyTree, params: Params) -> Params:
    """Return the params to evaluate, where they differ from those the loop carries.

    Nesterov's method carries look-ahead points, and optax's schedule-free methods carry
    points between two averages; every other optimizer carries what it means. Chains and
    wrappers (masked, multi_transform, MultiSteps, ...) are searched.

    Args:
      opt_state: the state of any optimizer.
      params: the params that the loop carries.

    Returns:
      A pytree like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from phihat import eval_params, nesterov
      >>> optimizer, params = nesterov(1.0, decay=0.5), jnp.asarray(0.0)
      >>> updates, state = optimizer.update(params + 1, optimizer.init(params), params)
      >>> print(updates, eval_params(state, params + updates))
      -0.75 -0.5
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_moves_params)
    for node in nodes:
        if isinstance(node, NesterovState):
            params = _undo_lookahead(node, params)
        elif _is_schedule_free(node):
            params = optax.contrib.schedule_free_eval_params(node, params)
        elif _is_averaged(node):
            params = node.averaged_params(params)
    return params


# ------------------------------------------------------------------------ the updates


def _gradient_descent_init(params: Params) -> GradientDescentState:
    del params
    return GradientDescentState(step=jnp.zeros((), jnp.int32))


def _gradient_descent_update(
    updates: PyTree,
    state: GradientDescentState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    **extra: Any,
) -> tuple[PyTree, GradientDescentState]:
    del params, extra
    rate = _rate_at(learning_rate, state.step)

    def descend(gradient: Array) -> Array:
        wide, dtype = _widen(gradient)
        return (-(_tree.cast(rate, dtype) * wide)).astype(_step_dtype(gradient))

    return (
        jax.tree.map(descend, updates),
        GradientDescentState(step=state.step + 1),
    )


def _normalized_gradient_update(
    updates: PyTree,
    state: GradientDescentState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    eps: float,
    **extra: Any,
) -> tuple[PyTree, GradientDescentState]:
    del params, extra
    rate = _rate_at(learning_rate, state.step)

    def descend(gradient: Array) -> Array:
        wide, dtype = _widen(gradient)
        # |g| and not sqrt(g^2): its derivative at zero is finite, g^2 may overflow.
        direction = wide / (jnp.abs(wide) + _tree.cast(_scalar("eps", eps), dtype))
        return (-(_tree.cast(rate, dtype) * direction)).astype(_step_dtype(gradient))

    return (
        jax.tree.map(descend, updates),
        GradientDescentState(step=state.step + 1),
    )


def _momentum_init(params: Params) -> MomentumState:
    return MomentumState(
        step=jnp.zeros((), jnp.int32), momentum=_zeros_like_accumulator(params)
    )


def _momentum_update(
    updates: PyTree,
    state: MomentumState,
    params: Params | None = None,
    *,
    learning_rate: Rate,
    decay: float,
    **extra: Any,
) -> tuple[PyTree, MomentumState]:
    del params, extra
    rate = _rate_at(learning_rate, state.step)
    mean = _running_mean(decay, state.momentum, updates)
    steps = jax.tree.map(
        lambda gradient, mean: (-(_tree.cast(rate, mean.dtype) * mean)).astype(
            _step_dtype(gradient)
        ),
        updates,
        mean,
    )
    return steps, MomentumState(step=state.step + 1, momentum=mean)


def _nesterov_init(params: Params) -> NesterovState:
    return NesterovState(
        step=jnp.zeros((), jnp.int32),
        momentum=_zeros_like_accumulator(params),
        lookahead_rate=jnp.zeros((), _tree.default_float()),
    )


def _nesterov_update(
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
    next_step = state.step + 1
    rate = _rate_at(learning_rate, state.step)
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


def _adam_init(params: Params) -> AdamState:
    wide = _tree.default_float()
    return AdamState(
        step=jnp.zeros((), jnp.int32),
        mean=_zeros_like_accumulator(params),
        mean_square=jax.tree.map(jnp.real, _zeros_like_accumulator(params)),
        mean_weight=jnp.zeros((), wide),
        mean_square_weight=jnp.zeros((), wide),
    )


def _adam_update(
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
    rate = _rate_at(learning_rate, state.step)
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
        root = _tree.safe_sqrt(mean_square) * _tree.cast(root_scale, dtype)
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


def _widen(gradient: Array) -> tuple[Array, Any]:
    dtype = _tree.accumulator_dtype(_step_dtype(gradient))
    return jnp.asarray(gradient).astype(dtype), dtype


def _step_dtype(gradient: Any) -> Any:
    """Return the dtype of a gradient; of numbers and of integers, the usual float's."""
    dtype = jnp.result_type(gradient)
    is_inexact = jnp.issubdtype(dtype, jnp.inexact)
    return dtype if is_inexact else _tree.default_float()


def _rate_at(learning_rate: Rate, step: Int[Array, ""]) -> Any:
    """Return the rate in force at a step: the number, or the schedule's value."""
    rate: Any = learning_rate
    if callable(learning_rate):
        try:
            rate = learning_rate(step)
        except jax.errors.ConcretizationTypeError as error:
            raise TypeError(
                f"The schedule {_describe(learning_rate)} asks Python for the value of "
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


def _rate_argument(call: str, learning_rate: Rate) -> Any:
    if callable(learning_rate):
        return _tree.as_partial(learning_rate, call, "learning_rate")
    rate = _tree.as_number(learning_rate, call, "learning_rate")
    _checks.check_range(call, "learning_rate", rate, low=0.0)
    return rate


def _decay_argument(call: str, argument: str, decay: Any) -> Any:
    decay = _tree.as_number(decay, call, argument)
    _checks.check_range(call, argument, decay, 0.0, 1.0, include_high=False)
    return decay


def _eps_argument(call: str, eps: Any) -> Any:
    eps = _tree.as_number(eps, call, "eps")
    _checks.check_range(call, "eps", eps, low=0.0)
    return eps


def _is_schedule_free(node: Any) -> bool:
    return {"b1", "z", "base_optimizer_state"} <= set(getattr(node, "_fields", ()))


def _moves_params(node: Any) -> bool:
    if isinstance(node, NesterovState) or _is_averaged(node):
        return True
    return _is_schedule_free(node)


def _is_averaged(node: Any) -> bool:
    """Tell the state of an optimizer whose params are evaluated by their average."""
    return hasattr(type(node), "averaged_params")


def _undo_lookahead(state: NesterovState, params: Params) -> Params:
    def undo(mean: Any, leaf: Any) -> Any:
        if isinstance(mean, optax.MaskedNode):
            return leaf
        ahead = _tree.cast(state.lookahead_rate, mean.dtype) * mean
        return (leaf.astype(mean.dtype) + ahead).astype(leaf.dtype)

    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(undo, state.momentum, params, is_leaf=is_masked)


def _describe(fn: Callable[..., Any]) -> str:
    """Write a Partial as the call that made it."""
    if not isinstance(fn, Partial):
        return _name_of(fn)
    arguments = [_describe_value(value) for value in fn.args]
    arguments += [f"{name}={value}" for name, value in _arguments_of(fn)]
    return f"{_name_of(fn)}({', '.join(arguments)})" if arguments else _name_of(fn)


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", None) or getattr(
        getattr(fn, "func", fn), "__name__", "fn"
    )
    is_ours = isinstance(fn, Partial)
    return name.removeprefix("_").removesuffix("_update") if is_ours else name


def _arguments_of(fn: Partial) -> list[tuple[str, str]]:
    # jax sorts keywords when it rebuilds a Partial; the rate comes first all the same.
    names = sorted(fn.keywords, key=lambda name: (name != "learning_rate", name))
    return [(name, _describe_value(fn.keywords[name])) for name in names]


def _describe_value(value: Any) -> str:
    if callable(value):
        return _describe(value)
    if isinstance(value, (jax.Array, np.ndarray)):
        shape = ",".join(str(size) for size in value.shape)
        return str(value) if not value.shape else f"{value.dtype}[{shape}]"
    return repr(value)
