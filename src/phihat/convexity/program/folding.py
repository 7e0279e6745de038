"""What depends on nothing is computed: integers, booleans, moved elements, draws.

Integers and booleans are machine integers of their own dtype, so what jax computes of
them is exact, and what has wrapped has wrapped. Floats are moved about but never
computed here: a sum of floats stands for a sum of reals. Random bits of a constant key
are integers, and constants of the program.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.program.form import Equation, Source
from phihat.convexity.program.structure import STRUCTURAL, Unknown, move

__all__ = ["folded"]

_MAX_FOLDED = 1 << 16
_MAX_DRAWN = 1 << 20
"""Constants larger than this are not computed while tracing."""

_BY_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "and": np.bitwise_and,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "sub": np.subtract,
    "xor": np.bitwise_xor,
}
"""NumPy computes these without compiling; integers wrap as in jax."""

_BY_JAX = {
    *("abs", "argmax", "argmin", "clamp", "clz", "convert_element_type", "cummax"),
    *("cummin", "cumprod", "cumsum", "div", "dot_general", "integer_pow", "iota"),
    *("mulhi", "population_count", "reduce_and", "reduce_max", "reduce_min"),
    *("reduce_or", "reduce_prod", "reduce_sum", "reduce_xor", "rem", "scatter-add"),
    *("scatter-max", "scatter-min", "scatter-mul", "scatter-sub", "select_n"),
    *("shift_left", "shift_right_arithmetic", "shift_right_logical", "sign"),
    *("sort", "square", "top_k"),
}
"""Exact on integers too, and computed by jax in their own dtype."""

_DRAWS = {
    *("random_bits", "random_fold_in", "random_seed", "random_split"),
    *("random_unwrap", "random_wrap", "threefry2x32"),
}
"""What makes and reads random keys."""

_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


def folded(name: str, eqn: Any, values: Sequence[Any]) -> list[Any] | None:
    """Compute an equation on constants (arrays, typed keys); None where not exact."""
    avals = [variable.aval for variable in eqn.outvars]
    size = sum(math.prod(aval.shape) for aval in avals)
    if size > (_MAX_DRAWN if name in _DRAWS else _MAX_FOLDED):
        return None
    if name in _DRAWS:
        return _drawn(eqn, values, avals)
    if name == "bitcast_convert_type":
        return _bound(eqn, values, avals)
    if not all(isinstance(value, (np.ndarray, np.generic)) for value in values):
        return _drawn(eqn, values, avals) if name in STRUCTURAL else None
    if name in STRUCTURAL:
        try:
            return move(
                Equation(name, eqn.params, (), (), Source("", 0, ""), None), values
            )
        except Unknown:
            return None
    if not all(_is_discrete(aval.dtype) for aval in avals):
        return None
    given = [value.dtype for value in values]
    if name in _COMPARISONS and all(map(dtypes.is_float, given)):
        return [np.asarray(_BY_NUMPY[name](*values))]
    if not all(map(_is_discrete, given)):
        return None
    if name in _BY_NUMPY:
        with np.errstate(all="ignore"):
            result = np.asarray(_BY_NUMPY[name](*values))
        return [result] if result.dtype == avals[0].dtype else None
    return _bound(eqn, values, avals) if name in _BY_JAX else None


def _is_discrete(dtype: Any) -> bool:
    return dtypes.is_integer(dtype) or dtypes.is_boolean(dtype)


def _bound(eqn: Any, values: Sequence[Any], avals: Sequence[Any]) -> list[Any] | None:
    """Let jax compute; a result of another dtype or shape is not what was asked for."""
    kinds = [*(value.dtype for value in values), *(aval.dtype for aval in avals)]
    is_wide = any(dtypes.is_readable(k) and np.dtype(k).itemsize == 8 for k in kinds)
    try:
        results = _computed(eqn, values, x64=is_wide)
    except Exception:  # what jax cannot compute is not known, and no fault of the loss
        return None
    return _checked(results, avals)


def _computed(eqn: Any, values: Sequence[Any], *, x64: bool) -> Sequence[Any]:
    with jax.ensure_compile_time_eval(), jax.enable_x64(x64), jax.disable_jit(False):
        inputs = [
            jnp.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else value
            for value in values
        ]
        found = eqn.primitive.bind(*inputs, **eqn.params)
    return found if eqn.primitive.multiple_results else [found]


def _checked(results: Sequence[Any], avals: Sequence[Any]) -> list[Any] | None:
    agree = all(
        result.shape == aval.shape and result.dtype == aval.dtype
        for result, aval in zip(results, avals, strict=True)
    )
    if not agree:
        return None
    return [
        result
        if jnp.issubdtype(result.dtype, jax.dtypes.extended)
        else np.asarray(result)
        for result in results
    ]


def _drawn(eqn: Any, values: Sequence[Any], avals: Sequence[Any]) -> list[Any] | None:
    """Draw as the program does; a draw that depends on x64 is told by nothing here."""
    found = []
    kinds = [*(value.dtype for value in values), *(aval.dtype for aval in avals)]
    widths = [np.dtype(kind).itemsize for kind in kinds if dtypes.is_readable(kind)]
    for x64 in (True,) if 8 in widths else (False, True):
        try:
            checked = _checked(_computed(eqn, values, x64=x64), avals)
        except Exception:  # an implementation of keys that cannot be computed here
            return None
        if checked is not None:
            found.append(checked)
    if not found:
        return None
    for one, other in zip(found[0], found[-1], strict=True):
        if not np.array_equal(_words(one), _words(other)):
            return None
    return found[0]


def _words(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    return np.asarray(jax.random.key_data(value))
