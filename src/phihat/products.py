"""Products with curvature matrices that are never formed.

A Hessian of P params has P x P entries; its product with a vector costs about two
gradients and no memory. Everything matrix-free in the library rests on these few
functions: pytrees in, pytrees out.

Example:
  >>> from phihat.products import directional_curvature, hvp
  >>> bowl = lambda p: p["a"] ** 2 + 3.0 * p["b"] ** 2
  >>> point, direction = {"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 2.0}
  >>> print(hvp(bowl, point, direction)["b"])
  12.0
  >>> print(directional_curvature(bowl, point, direction))
  6.0
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import data_checks as _data_checks
from phihat._core import tree as _tree
from phihat._core.types import Batch, LossFn, Params

__all__ = [
    "accumulated",
    "bind",
    "directional_curvature",
    "flatten",
    "gauss_newton_product",
    "hessian_operator",
    "hvp",
    "inner",
]


@_calls.public
def hvp(loss_fn: LossFn, params: Params, vector: Params, data: Batch = None) -> Params:
    r"""Multiply a vector by the Hessian of the loss at `params`, without forming it.

    Forward over reverse: $v \mapsto \nabla^2 L(\theta)\,v$ for about two gradients.

    Args:
      loss_fn: $L$, `(params, data) -> []`, or `(params) -> []` where `data` is None;
        twice differentiable.
      params: the point $\theta$, any pytree of float arrays.
      vector: $v$, a pytree like `params`.
      data: handed to `loss_fn`; leaves `[I, ...]`.

    Returns:
      A pytree like `params`.

    Raises:
      TypeError: params that are not floats; a loss that still wants a key.
      ValueError: a loss that is not a scalar; a vector whose shape is not that of the
        params.

    Example:
      >>> bowl = lambda p: p["a"] ** 2 + 3.0 * p["b"] ** 2
      >>> product = hvp(bowl, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0})
      >>> jax.tree.map(float, product)
      {'a': 2.0, 'b': 12.0}

    References:
      Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Comput. 1994.
    """
    scalar_fn = bind(loss_fn, params, data, call="hvp")
    vector = _like(params, vector, "hvp", "vector")
    return jax.jvp(jax.grad(scalar_fn), (params,), (vector,))[1]


@_calls.public
def hessian_operator(
    loss_fn: LossFn, params: Params, data: Batch = None
) -> Callable[[Params], Params]:
    r"""Return $v \mapsto \nabla^2 L(\theta)\,v$ for many products at one point.

    The gradient is linearised once and its intermediate values are kept, so that each
    product costs little more than one gradient.

    Args:
      loss_fn: $L$, as for `hvp`.
      params: $\theta$, any pytree of float arrays.
      data: handed to `loss_fn`.

    Returns:
      A linear function of a pytree like `params`.

    Example:
      >>> operator = hessian_operator(lambda p: p**3, 2.0)
      >>> print(operator(1.0), operator(2.0))
      12.0 24.0
    """
    scalar_fn = bind(loss_fn, params, data, call="hessian_operator")
    product_fn = jax.linearize(jax.grad(scalar_fn), params)[1]
    return lambda vector: product_fn(
        _like(params, vector, "hessian_operator", "vector")
    )


@_calls.public
def gauss_newton_product(
    output_fn: Callable[..., PyTree],
    params: Params,
    vector: Params,
    data: Batch = None,
    *,
    outer_fn: Callable[..., Any] | None = None,
) -> Params:
    r"""Multiply a vector by the (generalised) Gauss-Newton matrix at `params`.

    For $L(\theta) = \ell(f(\theta))$ with outputs $z = f(\theta)$ and their Jacobian
    $J$ it is $v \mapsto J^\top\,\nabla^2\ell(z)\,J\,v$: the Hessian without the terms
    that hold second derivatives of $f$, positive semidefinite where $\ell$ is convex.
    With the default $\ell(z) = \sum z^2$ it is $2 J^\top J v$, the factor 2 being that
    of the Hessian of a sum of squares (not of half of one).

    Args:
      output_fn: $f$, `(params, data) -> z`, or `(params) -> z` where `data` is None:
        the residuals of a least-squares loss, or a model's outputs; any pytree.
      params: $\theta$, any pytree of float arrays.
      vector: $v$, a pytree like `params`.
      data: handed to `output_fn`, and to `outer_fn`.
      outer_fn: $\ell$, `(z, data) -> []`, or `(z) -> []` where `data` is None; convex
        in `z`, such as a cross-entropy of logits. By default the sum of squares.

    Returns:
      A pytree like `params`.

    Raises:
      TypeError: params that are not floats.
      ValueError: a vector of another shape than the params; an `outer_fn` that is no
        scalar.

    Example:
      >>> residual_fn = lambda p: jnp.stack([p**2 - 1.0, 3.0 * p])
      >>> print(gauss_newton_product(residual_fn, 1.0, 1.0))
      26.0

    References:
      Schraudolph, *Fast curvature matrix-vector products for second-order gradient
      descent*, Neural Comput. 2002.
    """
    call = "gauss_newton_product"
    _checks.check_float_leaves(call, "params", params)
    vector = _like(params, vector, call, "vector")
    inner_fn = functools.partial(_applied, output_fn, data)
    outputs, output_vector = jax.jvp(inner_fn, (params,), (vector,))
    if outer_fn is None:
        curved = jax.tree.map(lambda entry: 2.0 * entry, output_vector)
    else:
        curved = hvp(outer_fn, outputs, output_vector, data)
    return jax.vjp(inner_fn, params)[1](curved)[0]


@_calls.public
def directional_curvature(
    loss_fn: LossFn, params: Params, direction: Params, data: Batch = None
) -> Float[Array, ""]:
    r"""Return the curvature of the loss along a direction, $v^\top H v / v^\top v$.

    It is the second derivative of $s \mapsto L(\theta + s\,v/|v|)$ at 0, and lies
    between the smallest and the largest eigenvalue of the Hessian $H$.

    Args:
      loss_fn: $L$, as for `hvp`.
      params: $\theta$, any pytree of float arrays.
      direction: $v$, a pytree like `params`, of any length but zero.
      data: handed to `loss_fn`.

    Returns:
      A scalar; NaN where the direction is zero.

    Example:
      >>> saddle = lambda p: p[0] ** 2 - p[1] ** 2
      >>> print(directional_curvature(saddle, jnp.zeros(2), jnp.array([0.0, 3.0])))
      -2.0
    """
    direction = _like(params, direction, "directional_curvature", "direction")
    product = hvp(loss_fn, params, direction, data)
    return inner(direction, product) / inner(direction, direction)


@_calls.public
def accumulated(loss_fn: LossFn, batch_size: int, *, reduction: str = "sum") -> LossFn:
    r"""Evaluate a loss batch by batch, so that only one batch is in memory at a time.

    The result is the same function of params and data, to rounding: its value, its
    gradients and its Hessian are those of the whole data, accumulated by a scan, with
    each batch's intermediate values computed anew on the way back. So everything in
    the library that takes a loss takes data too large for one pass.

    The loss must be a sum, or a mean, over rows. A penalty goes round it, not inside:
    `with_l2(accumulated(loss_fn, 1000), weight)`; else it is counted once a batch.

    Args:
      loss_fn: `(params, data) -> []`, a sum or a mean of a term per row.
      batch_size: rows per batch, >= 1; the last batch may be shorter.
      reduction: "sum", or "mean" where `loss_fn` divides by the number of rows: batches
        are then weighted by their number of rows.

    Returns:
      `(params, data) -> []`.

    Raises:
      ValueError: `batch_size` below 1, another reduction, or, when called, data
        leaves of different lengths.

    Example:
      >>> loss = lambda p, x: jnp.sum((p - x) ** 2)
      >>> print(accumulated(loss, 2)(1.0, jnp.arange(5.0)))
      15.0
    """
    _checks.check_count("accumulated", "batch_size", batch_size)
    _checks.check_choice("accumulated", "reduction", reduction, ("sum", "mean"))
    return Partial(
        _accumulate,
        _tree.as_partial(loss_fn, "accumulated", "loss_fn"),
        _tree.Static(int(batch_size)),
        _tree.Static(reduction),
    )


@_calls.public
def bind(
    loss_fn: LossFn, params: Params, data: Batch = None, *, call: str = "bind"
) -> Callable[[Params], Float[Array, ""]]:
    """Fix the data of a loss and check what it takes and returns.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      params: a point at which it will be called.
      data: any pytree of arrays, or None.
      call: the public function on whose behalf it is checked, for the messages.

    Returns:
      `(params) -> []`.

    Raises:
      TypeError: params that are not floats; a loss that still wants a key.
      ValueError: a loss that is not a scalar.

    Example:
      >>> print(bind(lambda p, x: jnp.sum(p * x), 2.0, jnp.ones(3))(2.0))
      6.0
    """
    _checks.check_float_leaves(call, "params", params)
    if _wants_key(loss_fn):
        raise TypeError(
            f"{call}: `loss_fn` takes a `key`, so its curvature is random; bind one "
            "with `jax.tree_util.Partial(loss_fn, key=key)`."
        )
    data = _data_checks.columns_as_arrays(data)
    scalar_fn = functools.partial(_applied, loss_fn, data)
    value = jax.eval_shape(scalar_fn, params)
    if not isinstance(value, jax.ShapeDtypeStruct):
        raise ValueError(
            f"{call}: `loss_fn` must return one scalar, got "
            f"shapes {jax.tree.map(lambda leaf: leaf.shape, value)}; drop the rest."
        )
    if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{call}: `loss_fn` must return a scalar float, got {value.dtype} of shape "
            f"{value.shape}; sum or average it."
        )
    return scalar_fn


@_calls.public
def inner(left: PyTree, right: PyTree) -> Float[Array, ""]:
    """Return the inner product of two trees, summed in at least float32.

    Example:
      >>> print(inner({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}))
      11.0
    """
    _checks.check_arrays("inner", "left", left)
    _checks.check_arrays("inner", "right", right)
    if jax.tree.structure(left) != jax.tree.structure(right):
        _, one, other = _tree.difference(left, right) or ("", "", "")
        raise ValueError(
            "inner: `left` and `right` must be pytrees of the same structure, got "
            f"{one} and {other}."
        )
    wide = lambda leaf: jnp.asarray(leaf).astype(_tree.default_float())  # noqa: E731
    products = jax.tree.map(
        lambda one, other: jnp.sum(wide(one) * wide(other)), left, right
    )
    return sum(jax.tree.leaves(products), jnp.zeros((), _tree.default_float()))


@_calls.public
def flatten(tree: Params) -> tuple[Float[Array, " P"], Callable[[Any], Params]]:
    """Lay all leaves out in one vector, in the widest of their dtypes.

    Unlike `jax.flatten_util.ravel_pytree` it serves leaves of several dtypes under
    strict promotion, and computes in at least float32.

    Args:
      tree: any pytree of float arrays, scalars and empty leaves included.

    Returns:
      The vector, and the function from such a vector back to a tree, with the shapes
      and dtypes of the leaves.

    Example:
      >>> vector, unflatten = flatten({"a": 1.0, "b": jnp.array([[2.0], [3.0]])})
      >>> print(vector, unflatten(2.0 * vector)["a"])
      [1. 2. 3.] 2.0
    """
    leaves, treedef = jax.tree.flatten(tree)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    wide = max((*dtypes, jnp.dtype(jnp.float32)), key=lambda dtype: dtype.itemsize)
    pieces = [jnp.ravel(jnp.asarray(leaf).astype(wide)) for leaf in leaves]
    vector = jnp.concatenate(pieces) if pieces else jnp.zeros(0, wide)
    ends = [sum(piece.size for piece in pieces[: i + 1]) for i in range(len(pieces))]

    def unflatten(vector: Float[Array, " P"]) -> Params:
        split = [vector][: len(leaves)]
        if len(leaves) > 1:
            split = jnp.split(vector, ends[:-1])
        return treedef.unflatten(
            piece.reshape(shape).astype(dtype)
            for piece, shape, dtype in zip(split, shapes, dtypes, strict=True)
        )

    return vector, unflatten


# ------------------------------------------------------------------------- private


def _applied(fn: Callable[..., Any], data: Batch, params: Params) -> Any:
    return fn(params) if data is None else fn(params, data)


def _wants_key(fn: Callable[..., Any]) -> bool:
    if not _checks.takes_key(fn):
        return False
    return inspect.signature(fn).parameters["key"].default is inspect.Parameter.empty


def _like(params: Params, vector: Params, call: str, argument: str) -> Params:
    """Give `vector` the dtypes of `params`; refuse another structure or shape."""
    found = _tree.difference(params, vector)
    if found is not None:
        what, wanted, given = found
        at = "" if what == "structure" else f", the {what}"
        raise ValueError(
            f"{call}: `{argument}` must be a pytree like `params`, {wanted}, got "
            f"{given}{at}."
        )
    # Tangents must have exactly the dtype of the point, and its weak type where that
    # is a Python float.
    return jax.tree.map(
        lambda leaf, entry: jnp.asarray(entry).astype(jnp.result_type(leaf)),
        params,
        vector,
    )


def _accumulate(
    loss_fn: LossFn,
    batch_size: _tree.Static,
    reduction: _tree.Static,
    params: Params,
    data: Batch,
) -> Float[Array, ""]:
    num_rows = _checks.check_rows("accumulated", "data", data)
    size = batch_size.value
    num_batches, rest = divmod(num_rows, size)

    def weighted(params: Params, batch: Batch, rows: int) -> Float[Array, ""]:
        weight = rows / num_rows if reduction.value == "mean" else 1.0
        return weight * loss_fn(params, batch)

    def body(total: Float[Array, ""], batch: Batch) -> tuple[Float[Array, ""], None]:
        # The checkpoint keeps the scan's memory for the way back at one batch.
        value = jax.checkpoint(weighted, static_argnums=2)(params, batch, size)
        return total + value, None

    cut = num_batches * size
    stacked = jax.tree.map(
        lambda leaf: leaf[:cut].reshape(num_batches, size, *leaf.shape[1:]), data
    )
    tail = jax.tree.map(lambda leaf: leaf[cut:], data)
    dtype = jax.eval_shape(loss_fn, params, data).dtype
    rest_value = weighted(params, tail, rest) if rest else jnp.zeros((), dtype)
    return jax.lax.scan(body, _tree.strong(rest_value), stacked)[0]
