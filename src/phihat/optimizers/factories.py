"""The optimizers of the deck, as factories that check their hyperparameters."""

from typing import Any

from jax.tree_util import Partial

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat.optimizers import updates as _updates
from phihat.optimizers.optimizer import Optimizer
from phihat.optimizers.updates import Rate

__all__ = [
    "adam",
    "gradient_descent",
    "momentum",
    "nesterov",
    "normalized_gradient",
]


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
        Partial(_updates.gradient_descent_init),
        Partial(_updates.gradient_descent_update, learning_rate=rate),
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
        Partial(_updates.momentum_init),
        Partial(
            _updates.momentum_update,
            learning_rate=rate,
            decay=_decay_argument("momentum", "decay", decay),
        ),
    )


@_calls.public
def nesterov(
    learning_rate: Rate, decay: float = 0.9, *, lookahead: float | None = None
) -> Optimizer:
    r"""Momentum that measures the gradient at the point where it is about to go.

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
        Partial(_updates.nesterov_init),
        Partial(
            _updates.nesterov_update,
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
        Partial(_updates.gradient_descent_init),
        Partial(
            _updates.normalized_gradient_update,
            learning_rate=rate,
            eps=_eps_argument("normalized_gradient", eps),
        ),
    )


@_calls.public
def adam(
    learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Optimizer:
    r"""Adam: momentum with normalized gradients, and with bias correction.

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
        Partial(_updates.adam_init),
        Partial(
            _updates.adam_update,
            learning_rate=rate,
            b1=_decay_argument("adam", "b1", b1),
            b2=_decay_argument("adam", "b2", b2),
            eps=_eps_argument("adam", eps),
        ),
    )


# -------------------------------------------------------------------- private helpers


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
