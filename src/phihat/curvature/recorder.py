"""The largest eigenvalue of the Hessian, recorded along a fit."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params
from phihat._linalg.lanczos import ritz
from phihat._recorder import Recorder
from phihat.curvature import _core
from phihat.results import FitState, StepInfo

__all__ = ["sharpness_recorder"]

_MAX_ROUNDS = 30

LanczosState = tuple[Array, Array, Array, Array]
"""The vector, its eigenvalue, the residual beyond what is allowed, the rounds."""


@_calls.public
def sharpness_recorder(
    loss_fn: LossFn, *, num_iterations: int = 8, tolerance: float = 1e-3
) -> Recorder:
    """Record the largest eigenvalue of the Hessian along a fit.

    `fit(..., record=("loss", "sharpness"))` uses it with these defaults. It is measured
    at the params where the gradient is, on that step's batch. Each record starts from
    the last eigenvector and repeats a few Lanczos steps until the residual is small, so
    that after the first record one round mostly does.

    Args:
      loss_fn: as for `hessian`; where it returns a tuple, its first entry counts.
      num_iterations: Lanczos steps a round, >= 2.
      tolerance: the residual allowed, relative to the eigenvalue found largest in size
        by these steps; at most 30 rounds are spent on it.

    Returns:
      A recorder for `record={"sharpness": ...}`.

    Raises:
      ValueError: `num_iterations` below 2, or a negative `tolerance`.

    Example:
      >>> recorder = sharpness_recorder(lambda p: jnp.sum(p**2), num_iterations=4)
      >>> jax.tree.map(jnp.shape, recorder.init_fn({"a": jnp.ones(3)}))
      {'a': (3,)}
    """
    call = "sharpness_recorder"
    _checks.check_count(call, "num_iterations", num_iterations, 2)
    tolerance = _tree.as_scalar(tolerance, call, "tolerance")
    _checks.check_range(call, "tolerance", tolerance, 0.0)
    return Recorder(
        init_fn=Partial(_draw_direction),
        update_fn=Partial(
            _update_sharpness,
            _tree.as_partial(loss_fn, call, "loss_fn"),
            _tree.Static(int(num_iterations)),
            tolerance,
        ),
    )


def _draw_direction(params: Params) -> Params:
    flat, unflatten = products.flatten(params)
    return unflatten(jax.random.normal(jax.random.key(0), flat.shape, flat.dtype))


def _update_sharpness(
    loss_fn: LossFn,
    num_iterations: _tree.Static,
    tolerance: Any,
    vector: Params,
    state: FitState,
    info: StepInfo,
    batch: Batch,
) -> tuple[Params, Float[Array, ""]]:
    del info
    params = jax.lax.stop_gradient(state.params)
    flat, unflatten = products.flatten(vector)
    product_fn = _core.flat_product(
        Partial(_value_alone, loss_fn), params, batch, "sharpness_recorder"
    )
    steps = min(num_iterations.value, flat.size)

    def is_open(carry: LanczosState) -> Array:
        _, _, error, rounds = carry
        return (error > 0) & (rounds < _MAX_ROUNDS)

    def refine(carry: LanczosState) -> LanczosState:
        start, _, _, rounds = carry
        result = ritz(product_fn, start, steps)
        scale = jnp.max(jnp.abs(result.values))
        excess = result.errors[-1] - jnp.asarray(tolerance, flat.dtype) * scale
        best = result.coefficients[:, -1] @ result.basis
        return best, result.values[-1], excess, rounds + 1

    # A vector that a non-finite Hessian has spoiled is drawn anew.
    fresh, _ = products.flatten(_draw_direction(vector))
    start = jnp.where(jnp.all(jnp.isfinite(flat)), flat, fresh)
    one = jnp.ones((), flat.dtype)
    init = start, one, one, jnp.zeros((), jnp.int32)
    best, value, _, _ = jax.lax.while_loop(is_open, refine, init)
    return unflatten(best), value


def _value_alone(loss_fn: LossFn, *arguments: Any) -> Any:
    value = loss_fn(*arguments)
    return value[0] if isinstance(value, tuple) else value
