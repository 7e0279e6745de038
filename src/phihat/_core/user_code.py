"""What is wrong where a model or a loss of the user's own fails, or may be wrong."""

import inspect
import linecache
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import numpy as np

from phihat._core import checks as _checks

__all__ = [
    "explain_lists",
    "explain_model",
    "explain_traced",
    "plain_signature",
    "warn_of_wrapping",
]


def plain_signature(function: Callable[..., Any]) -> str:
    """Return a signature without its annotations, which may fill a screen."""
    signature = inspect.signature(function)
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


# ------------------------------------------------------- numbers that are not yet known

_NOT_KNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

_LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "phihat", "jaxtyping", "contextlib")


def explain_traced(error: Exception) -> str | None:
    """Say where a function asks Python for a number that only the program knows."""
    is_ambiguous = str(error).startswith("The truth value of an array with more than")
    if not isinstance(error, _NOT_KNOWN) and not is_ambiguous:
        return None
    place = _users_line(error)
    if place is None:
        return None
    return (
        f"{place} asks Python for a number that is known only when the compiled "
        f"program runs; {_cure_for_traced(error, is_ambiguous)}."
    )


def _users_line(error: Exception) -> str | None:
    """Return the innermost line that belongs to no library."""
    place, trace = None, error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if module not in _LIBRARIES:
            path, number = frame.f_code.co_filename, trace.tb_lineno
            line = linecache.getline(path, number, frame.f_globals).strip()
            name = frame.f_code.co_name
            shown = f"`{line}`" if 0 < len(line) <= 70 else f"`{name}`"
            place = f"{shown} (line {number} of {path.split('/')[-1]})"
        trace = trace.tb_next
    return place


def _cure_for_traced(error: Exception, is_ambiguous: bool) -> str:
    if isinstance(error, jax.errors.TracerBoolConversionError) or is_ambiguous:
        return "write `jnp.where(condition, a, b)` instead of `if` and `and`"
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "use `jax.numpy` instead of `numpy`, such as `jnp.cos` for `np.cos`"
    if isinstance(error, jax.errors.TracerIntegerConversionError):
        return "take shapes and counts from whole numbers of Python, not arrays"
    return (
        "use functions of `jax.numpy`, such as `jnp.cos` for `math.cos`, and no "
        "`float()`, `int()` or `.item()`"
    )


# ------------------------------------------------------------------ lists, and models


def explain_lists(argument: str, data: Any) -> str | None:
    """Say so if a part of the data is a list of numbers, and so no array."""
    for path, part in _lists(data, ""):
        if len(part) > 1 and all(isinstance(one, numbers.Real) for one in part):
            return (
                f"`{argument}{path}` is a {type(part).__name__} of {len(part)} "
                "numbers, and a loss gets it as it is; make an array of it, "
                "`np.asarray(values)`."
            )
    return None


def _lists(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the lists and tuples in data, outer ones first."""
    if isinstance(data, dict):
        parts = [(f"[{name!r}]", one) for name, one in data.items()]
    elif type(data) in (list, tuple):
        yield path, data
        # Of many, such as the rows of a table, the first tells enough.
        parts = [(f"[{place}]", one) for place, one in enumerate(data[:8])]
    else:
        return
    for place, one in parts:
        yield from _lists(one, path + place)


_INPUTS = ("x", "xs", "inputs", "t")
"""What a model calls its second argument; a loss has a batch or data."""


def explain_model(loss_fn: Callable[..., Any], data: Any) -> str | None:
    """Say so if what was given as a loss is evidently a model."""
    try:
        names = list(inspect.signature(loss_fn).parameters)
    except (TypeError, ValueError):
        return None
    may_be_pairs = data is None or isinstance(data, (tuple, list))
    if len(names) != 2 or names[1] not in _INPUTS or not may_be_pairs:
        return None
    missing = "" if data is not None else ", and pass the data `(x, y)`"
    return (
        f"`loss_fn` takes {plain_signature(loss_fn)}, as a model does; make a loss of "
        f"it, such as `losses.least_squares(model)`{missing}."
    )


# ------------------------------------------------------------------ integers that wrap


def warn_of_wrapping(
    call: str, loss_fn: Callable[..., Any], params: Any, data: Any
) -> None:
    """Warn where a loss multiplies integers whose squares their dtype cannot hold.

    Only data with such integers are looked at, and the loss is traced for them alone:
    indices and labels, which no loss multiplies, pass without a word.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
        largest = _largest_integer(leaf)
        if largest is None or not _multiplies_integers(loss_fn, params, data):
            continue
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        _checks.warn(
            f"{call}: `data{jax.tree_util.keystr(path)}` holds {dtype} up to "
            f"{largest:,}, and the loss multiplies integers: beyond "
            f"{np.iinfo(dtype).max:,} products wrap around without an error; convert "
            "the data with `.astype(float)`."
        )
        return


def _largest_integer(leaf: Any) -> int | None:
    """Return the largest size of concrete integers, if their squares do not fit."""
    if isinstance(leaf, jax.core.Tracer) or not hasattr(leaf, "dtype"):
        return None
    if getattr(leaf.dtype, "kind", "") not in "iu" or not np.size(leaf):
        return None
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return None
    limit = np.iinfo(jax.dtypes.canonicalize_dtype(leaf.dtype)).max
    if limit < 2**31 - 1:  # bytes are pixels, and their owners know it
        return None
    largest = max(abs(int(leaf.min())), abs(int(leaf.max())))
    return largest if largest * largest > limit else None


_PRODUCTS = ("mul", "integer_pow", "square", "dot_general", "pow")


def _multiplies_integers(loss_fn: Any, params: Any, data: Any) -> bool:
    try:
        jaxpr = jax.make_jaxpr(loss_fn)(params, data)
    except Exception:  # it takes more arguments, or fails: the fit says so
        return False
    return any(
        equation.primitive.name in _PRODUCTS
        and all(_is_integer_array(one) for one in equation.outvars)
        for equation in _equations(jaxpr.jaxpr)
    )


def _is_integer_array(variable: Any) -> bool:
    aval = variable.aval
    return getattr(aval.dtype, "kind", "") in "iu" and aval.size > 1


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations of a jaxpr, at any depth."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)
