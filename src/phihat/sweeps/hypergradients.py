r"""How the optimum moves with what it was fitted to: implicit differentiation.

At a minimum $\nabla_\phi L(\hat\phi, \theta) = 0$, so
$d\hat\phi / d\theta = -H^{-1}\, \partial_\theta \nabla_\phi L$ with the Hessian $H$.
Neither the path nor the number of steps matters, and no step is stored; but the fit
must have converged, so its residual is part of the result.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phihat import fitting, products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params

__all__ = ["ImplicitFit", "implicit_fit"]

_MAX_DENSE = 512
"""More params than this are solved for by conjugate gradients."""


class ImplicitFit(NamedTuple):
    """A converged fit that is differentiable in what it was fitted to.

    Attributes:
      params: the optimum, differentiable with respect to every number of the loss and
        the data.
      loss: the loss there, differentiable too.
      residual: the largest absolute entry of the gradient there; zero is what the
        derivatives assume. They are off by about $H^{-1}$ times it, times the third
        derivatives.
      status: a `Status`; CONVERGED where the tolerance was met.
      num_steps: the updates that were made.
    """

    params: Params
    loss: Float[Array, ""]
    residual: Float[Array, ""]
    status: Int[Array, ""]
    num_steps: Int[Array, ""]


@_calls.public
def implicit_fit(
    loss_fn: LossFn,
    params: Params,
    optimizer: Any,
    data: Batch = None,
    *,
    num_steps: int = 1000,
    tolerance: float | Any = 1e-6,
) -> ImplicitFit:
    r"""Fit until converged, and differentiate the optimum and not the steps.

    The derivatives are those of the implicit function theorem, forward and reverse;
    the linear system is solved by Cholesky's factors, with more than 512 params by
    conjugate gradients. They are right where the end is a minimum with a positive
    definite Hessian. Derivatives with respect to the start and the optimizer are zero.

    Args:
      loss_fn: as in `fit`; the numbers in its `Partial` are what can be differentiated
        by, and what it closes over under `jax.grad`.
      params: the start.
      optimizer: as in `fit`; `newton()` converges farthest.
      data: as in `fit`; the optimum is differentiable by them, too.
      num_steps: the budget.
      tolerance: as in `fit`.

    Returns:
      An `ImplicitFit`; look at its `residual`.

    Raises:
      TypeError: an argument has the wrong type; the message says what to pass.
      ValueError: an argument has a wrong value.

    Example:
      >>> import jax
      >>> import phihat
      >>> x, y = phihat.datasets.linear_regression()
      >>> loss_fn = phihat.losses.least_squares(phihat.models.linear)
      >>> def slope(penalty):
      ...     ridge = phihat.losses.with_l2(loss_fn, penalty)
      ...     start = {"weight": 0.0, "bias": 0.0}
      ...     fit = phihat.sweeps.implicit_fit(ridge, start, phihat.newton(), (x, y))
      ...     return fit.params["weight"]
      >>> print(round(float(jax.grad(slope)(0.1)), 3))
      0.055

    References:
      Krantz and Parks, *The Implicit Function Theorem*, 2002; Blondel et al.,
      *Efficient and modular implicit differentiation*, NeurIPS 2022.
    """
    call = "implicit_fit"
    _checks.check_float_leaves(call, "params", params)
    _checks.check_count(call, "num_steps", num_steps)
    if tolerance is None:
        raise ValueError(
            f"{call}: `tolerance` is needed: the derivatives are those of a converged "
            "fit."
        )
    loss_fn = _tree.as_partial(loss_fn, call, "loss_fn")
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)
    scalar_fn = products.bind(loss_fn, start, data, call=call)
    flat, unflatten = products.flatten(start)
    gradient_fn = jax.grad(lambda vector: scalar_fn(unflatten(vector)))

    def solve(_: Any, begin: Array) -> tuple[Array, Any]:
        result = fitting.fit(
            loss_fn,
            unflatten(begin),
            optimizer,
            data,
            num_steps=num_steps,
            tolerance=tolerance,
            record=(),
        )
        # Beside the root, floats alone: integers have no tangents of their own dtype.
        beside = (
            result.status.astype(begin.dtype),
            result.num_steps.astype(begin.dtype),
        )
        return products.flatten(result.params)[0], beside

    place, (status, num_steps_taken) = jax.lax.custom_root(
        gradient_fn,
        jax.lax.stop_gradient(flat),
        solve,
        _solve_linear,
        has_aux=True,
    )
    fixed = jax.lax.stop_gradient(place)
    return ImplicitFit(
        params=unflatten(place),
        loss=jnp.asarray(scalar_fn(unflatten(place))),
        residual=jnp.max(jnp.abs(gradient_fn(fixed)), initial=0.0),
        status=status.astype(jnp.int32),
        num_steps=num_steps_taken.astype(jnp.int32),
    )


def _solve_linear(hessian_fn: Any, right: Array) -> Array:
    """Solve H x = b, with H given as a function from x to H x."""
    if right.size <= _MAX_DENSE:
        matrix = jax.vmap(hessian_fn, out_axes=1)(
            jnp.eye(right.size, dtype=right.dtype)
        )
        factor = jax.scipy.linalg.cho_factor(0.5 * (matrix + matrix.T))
        return jax.scipy.linalg.cho_solve(factor, right)
    return jax.lax.custom_linear_solve(
        hessian_fn, right, _conjugate_gradients, symmetric=True
    )


def _conjugate_gradients(product_fn: Any, right: Array) -> Array:
    """Solve a positive definite system by Hestenes and Stiefel's method."""
    floor = jnp.finfo(right.dtype).eps ** 2 * jnp.vdot(right, right)

    def is_open(carry: Any) -> Array:
        *_, square, rounds = carry
        return (square > floor) & (rounds < 2 * right.size)

    def step(carry: Any) -> Any:
        place, residual, direction, square, rounds = carry
        image = product_fn(direction)
        length = square / jnp.vdot(direction, image)
        residual = residual - length * image
        after = jnp.vdot(residual, residual)
        place = place + length * direction
        direction = residual + (after / square) * direction
        return place, residual, direction, after, rounds + 1

    zero = jnp.zeros((), jnp.int32)
    begin = (jnp.zeros_like(right), right, right, jnp.vdot(right, right), zero)
    return jax.lax.while_loop(is_open, step, begin)[0]
