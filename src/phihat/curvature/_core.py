"""What the curvature functions share: checks, compiled programs, the dense Hessian."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phihat import products
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, LossFn, Params, RandomKey
from phihat._linalg.dense_hessian import dense_hessian

__all__ = [
    "DENSE_SIZE",
    "check_dense",
    "default_key",
    "flat_product",
    "hessian",
    "lanczos_options",
    "norm",
    "num_params",
    "run",
]

DENSE_SIZE = 512
"""Up to here a dense eigen-decomposition costs less than the Lanczos steps."""


def run(
    body: Callable[..., Any],
    call: str,
    loss_fn: LossFn,
    params: Params,
    data: Batch,
    options: tuple[Any, ...] = (),
    numbers: Any = (),
) -> Any:
    """Run a body as a compiled program of its own, remembered for this loss.

    It is called as `body(loss_fn, (call, *options), mode, params, data, numbers)`.
    """
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    data = _data_checks.columns_as_arrays(data)
    return _programs.call(body, code, (call, *options), params, data, numbers)


def num_params(call: str, params: Params) -> int:
    _checks.check_float_leaves(call, "params", params)
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(params))


def check_dense(call: str, params: Params, max_bytes: int) -> None:
    size = num_params(call, params)
    itemsize = products.flatten(params)[0].dtype.itemsize
    num_bytes = size**2 * itemsize
    if num_bytes > max_bytes:
        raise ValueError(
            f"{call}: the dense Hessian of {size:,} params has {size:,} x "
            f"{size:,} entries, {num_bytes:,} bytes, above `max_bytes`="
            f"{max_bytes:,}; use `extreme_eigenvalues`, `sharpness`, `hessian_trace`, "
            "`spectral_density` or `hvp`, which never form it."
        )


def flat_product(
    loss_fn: LossFn, params: Params, data: Batch, call: str
) -> Callable[[Array], Array]:
    """Return `v -> H v` over flat vectors, in the widest dtype of the params."""
    scalar_fn = products.bind(loss_fn, params, data, call=call)
    flat, unflatten = products.flatten(params)
    gradient_fn = jax.grad(lambda vector: scalar_fn(unflatten(vector)))
    return jax.linearize(gradient_fn, flat)[1]


def hessian(
    loss_fn: LossFn,
    options: tuple[Any, ...],
    mode: Mode,
    params: Params,
    data: Batch,
    numbers: Any,
) -> Float[Array, "P P"]:
    """Form the dense Hessian; a body for `run`."""
    del mode, numbers
    scalar_fn = products.bind(loss_fn, params, data, call=options[0])
    flat, unflatten = products.flatten(params)
    return dense_hessian(jax.grad(lambda vector: scalar_fn(unflatten(vector))), flat)


def norm(vector: Float[Array, " P"]) -> Float[Array, ""]:
    """Return the Euclidean norm; the squares of small entries do not underflow."""
    size = jnp.max(jnp.abs(vector), initial=0.0)
    scale = jnp.where((size > 0) & jnp.isfinite(size), size, 1.0)
    return scale * jnp.linalg.norm(vector / scale)


def lanczos_options(
    call: str, params: Params, num_iterations: int, dense_size: int, key: Any
) -> tuple[tuple[int, bool], RandomKey]:
    """Check what Lanczos' method takes; return (steps, is_dense), key."""
    _checks.check_count(call, "num_iterations", num_iterations)
    size = num_params(call, params)
    if size == 0:
        raise ValueError(f"{call}: `params` hold no numbers, so there is no spectrum.")
    dense_size = _checks.check_count(call, "dense_size", dense_size, 0)
    _checks.check_key(call, key)
    steps = min(int(num_iterations), size)
    return (steps, size <= dense_size), default_key(key)


def default_key(key: RandomKey | None) -> RandomKey:
    """Return the key, or the fixed one where there is none."""
    return jax.random.key(0) if key is None else key
