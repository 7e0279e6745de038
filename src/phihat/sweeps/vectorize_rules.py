"""What one operation does for all lanes at once, with the lanes on the last axis.

Elementwise operations, reductions, reshapes and small products keep the lanes last;
every other operation goes through `jax.vmap`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from phihat.sweeps import trigonometry

__all__ = ["RULES", "Lanes", "Value", "bind", "by_vmap", "shared", "spread"]

_UNROLLED = 16
"""Longer sums of products are left to a reduction."""

_SMALL_PRODUCT = 4096
"""Multiplications of a matrix product, per lane, above which a matrix kernel wins."""


class Lanes(NamedTuple):
    """What a rule must know of the lanes.

    Attributes:
      size: how many there are.
      one: the number 1, which XLA does not know to be 1.
      wide: gets the matrix products that are too large to be written out.
      far: gets, for each vector sine, the lanes whose argument is too large for it;
        None where sines must be exact.
      is_host: whether XLA's CPU backend compiles this; an accelerator's kernels are
        fused well as they are, and lose by what helps that one.
    """

    size: int
    one: Any
    wide: list[Any]
    far: list[Array] | None = None
    is_host: bool = True


class Value(NamedTuple):
    """An array, and whether its last axis is that of the lanes."""

    array: Any
    is_mapped: bool


def bind(equation: Any, arrays: Sequence[Any]) -> list[Any]:
    """Apply an equation's operation to other arrays."""
    primitive = equation.primitive
    bound = primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with equation.ctx.manager:
        results = primitive.bind(*functions, *arrays, **params)
    return list(results) if primitive.multiple_results else [results]


def shared(equation: Any, values: Sequence[Value]) -> list[Value]:
    """Do once what is the same in all lanes."""
    results = bind(equation, [value.array for value in values])
    return [Value(result, False) for result in results]


def by_vmap(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    """Leave an operation to `jax.vmap`, which moves the lanes as it likes."""
    del lanes
    in_axes = tuple(-1 if value.is_mapped else None for value in values)
    apply = functools.partial(_bind_all, equation)
    mapped = jax.vmap(apply, in_axes=in_axes, out_axes=-1)
    return [Value(result, True) for result in mapped(*(v.array for v in values))]


def _bind_all(equation: Any, *arrays: Any) -> list[Any]:
    return bind(equation, arrays)


def spread(value: Value, size: int) -> Value:
    """Give a shared value to every lane."""
    if value.is_mapped:
        return value
    array = value.array
    shape = (*jnp.shape(array), size)
    return Value(jax.lax.broadcast_in_dim(array, shape, range(jnp.ndim(array))), True)


# -------------------------------------------------------------------- rules


def _to_shape(value: Value, shape: tuple[int, ...], size: int) -> Any:
    """Broadcast an operand of an elementwise operation: it may be a scalar."""
    rank = jnp.ndim(value.array) - value.is_mapped
    axes = tuple(range(len(shape) - rank, len(shape))) if rank else ()
    axes += (len(shape),) * value.is_mapped
    return jax.lax.broadcast_in_dim(value.array, (*shape, size), axes)


def _elementwise(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    shape = equation.outvars[0].aval.shape
    arrays = [_to_shape(value, shape, lanes.size) for value in values]
    return [Value(result, True) for result in bind(equation, arrays)]


def _same_axes(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    """Serve what names the axes it works on, from the front."""
    arrays = [spread(value, lanes.size).array for value in values]
    return [Value(result, True) for result in bind(equation, arrays)]


def _sine_or_cosine(
    equation: Any, values: Sequence[Value], lanes: Lanes
) -> list[Value]:
    array = values[0].array
    if lanes.far is None or not trigonometry.is_served(array):
        return _elementwise(equation, values, lanes)
    is_far = jnp.abs(array) > trigonometry.LIMIT
    lanes.far.append(jnp.any(is_far, axis=tuple(range(array.ndim - 1))))
    fast_fn = {"sin": trigonometry.sin, "cos": trigonometry.cos}[
        equation.primitive.name
    ]
    return [Value(_compute_once(fast_fn(array), lanes), True)]


def _reshape(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    if equation.params["dimensions"] is not None:
        return by_vmap(equation, values, lanes)
    shape = equation.outvars[0].aval.shape
    return [Value(jax.lax.reshape(values[0].array, (*shape, lanes.size)), True)]


def _transpose(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    del lanes
    order = equation.params["permutation"]
    array = jax.lax.transpose(values[0].array, (*order, len(order)))
    return [Value(array, True)]


def _broadcast(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    if len(values) > 1:  # dynamic shapes
        return by_vmap(equation, values, lanes)
    shape = equation.outvars[0].aval.shape
    axes = (*equation.params["broadcast_dimensions"], len(shape))
    array = jax.lax.broadcast_in_dim(values[0].array, (*shape, lanes.size), axes)
    return [Value(array, True)]


def _slice(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    params = equation.params
    strides = params["strides"]
    array = jax.lax.slice(
        values[0].array,
        (*params["start_indices"], 0),
        (*params["limit_indices"], lanes.size),
        None if strides is None else (*strides, 1),
    )
    return [Value(array, True)]


def _pad(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    operand, padding = values
    if padding.is_mapped:
        return by_vmap(equation, values, lanes)
    config = (*equation.params["padding_config"], (0, 0, 0))
    array = jax.lax.pad(spread(operand, lanes.size).array, padding.array, config)
    return [Value(array, True)]


def _dot(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    """Multiply small matrices by sums of products; a shared one by a wide product."""
    (left, right), shape = values, equation.outvars[0].aval.shape
    (contract_left, contract_right), (batch_left, batch_right) = equation.params[
        "dimension_numbers"
    ]
    ranks = [atom.aval.ndim for atom in equation.invars]
    dtypes = {left.array.dtype, right.array.dtype, equation.outvars[0].aval.dtype}
    if len(dtypes) > 1:
        return by_vmap(equation, values, lanes)
    if not (left.is_mapped and right.is_mapped):
        if batch_left:
            return by_vmap(equation, values, lanes)
        return [Value(_dot_shared(equation, left, right), True)]
    terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contract_left)
    if terms * math.prod(shape) > _SMALL_PRODUCT:
        lanes.wide.append(equation)
        return by_vmap(equation, values, lanes)
    num_batch = len(batch_left)
    num_left = ranks[0] - len(contract_left) - num_batch
    num_right = ranks[1] - len(contract_right) - num_batch
    first = _sorted_axes(left.array, contract_left, batch_left, ranks[0])
    second = _sorted_axes(right.array, contract_right, batch_right, ranks[1])
    start = 1 + num_batch
    first = jnp.expand_dims(
        first, tuple(range(start + num_left, start + num_left + num_right))
    )
    second = jnp.expand_dims(second, tuple(range(start, start + num_left)))
    if terms <= _UNROLLED:
        products = (_times(first[k], second[k]) for k in range(terms))
        total = functools.reduce(jnp.add, products)
    else:
        total = _sum_first(_times(first, second), lanes)
    return [Value(_compute_once(total, lanes), True)]


def _dot_shared(equation: Any, left: Value, right: Value) -> Array:
    (contract_left, contract_right), _ = equation.params["dimension_numbers"]
    ranks = [atom.aval.ndim for atom in equation.invars]
    first = _sorted_axes(left.array, contract_left, (), ranks[0])
    second = _sorted_axes(right.array, contract_right, (), ranks[1])
    if right.is_mapped:
        shared, mapped = first, second
    else:
        shared, mapped = second, first
    wide = jax.lax.dot_general(
        shared.reshape(len(shared), -1),
        mapped.reshape(len(mapped), -1),
        (((0,), (0,)), ((), ())),
        precision=equation.params["precision"],
    )
    wide = wide.reshape(*shared.shape[1:], *mapped.shape[1:])
    if right.is_mapped:
        return wide
    num_shared, num_mapped = shared.ndim - 1, mapped.ndim - 2
    order = (*range(num_shared, num_shared + num_mapped), *range(num_shared))
    return jnp.transpose(wide, (*order, wide.ndim - 1))


def _sorted_axes(array: Array, contracted: Any, batched: Any, rank: int) -> Array:
    """Order axes: the contracted ones as one, the batched, the free, the lanes."""
    free = [axis for axis in range(rank) if axis not in (*contracted, *batched)]
    order = (*contracted, *batched, *free, *range(rank, array.ndim))
    array = jnp.transpose(array, order)
    terms = math.prod(array.shape[: len(contracted)])
    return array.reshape(terms, *array.shape[len(contracted) :])


def _times(left: Array, right: Array) -> Array:
    shape = np.broadcast_shapes(left.shape, right.shape)
    return jnp.broadcast_to(left, shape) * jnp.broadcast_to(right, shape)


def _compute_once(array: Array, lanes: Lanes) -> Array:
    """Keep XLA from computing this anew in every kernel that reads it.

    It repeats sums and sines in each, but never a quotient.
    """
    if not lanes.is_host:
        return array
    return array / jax.lax.convert_element_type(lanes.one, array.dtype)


def _reduce_sum(equation: Any, values: Sequence[Value], lanes: Lanes) -> list[Value]:
    array, axes = values[0].array, equation.params["axes"]
    is_real = array.dtype in (jnp.float32, jnp.float64)
    if not is_real or array.size == 0 or axes != tuple(range(len(axes))) or not axes:
        return _same_axes(equation, values, lanes)
    array = array.reshape(-1, *array.shape[len(axes) :])
    if len(array) <= _UNROLLED:
        return [Value(functools.reduce(jnp.add, array), True)]
    return [Value(_sum_first(array, lanes), True)]


def _sum_first(array: Array, lanes: Lanes) -> Array:
    """Sum over the first axis; on a CPU by a matrix kernel: XLA's reads in strides."""
    if not lanes.is_host:
        return jnp.sum(array, axis=0)
    ones = jnp.ones(array.shape[0], array.dtype)
    flat = array.reshape(array.shape[0], -1)
    total = jnp.dot(ones, flat, precision=jax.lax.Precision.HIGHEST)
    return total.reshape(array.shape[1:])


_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
    convert_element_type copy cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor
    ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg
    nextafter not or population_count pow real rem round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sinh sqrt square
    stop_gradient sub tan tanh xor
""".split()  # noqa: SIM905
_SAME_AXES = """
    argmax argmin concatenate cumlogsumexp cummax cummin cumprod cumsum reduce_and
    reduce_max reduce_min reduce_or reduce_prod reduce_xor rev squeeze
""".split()  # noqa: SIM905
RULES: dict[str, Callable[..., list[Value]]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_SAME_AXES, _same_axes),
    "broadcast_in_dim": _broadcast,
    "cos": _sine_or_cosine,
    "dot_general": _dot,
    "pad": _pad,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape,
    "sin": _sine_or_cosine,
    "slice": _slice,
    "transpose": _transpose,
}
"""By the name of the primitive."""
