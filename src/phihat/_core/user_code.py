"""What is wrong where a model or a loss of the user's own fails, or may be wrong."""

import inspect
import linecache
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend.core import Var

from phihat._core import checks as _checks
from phihat._core import jaxprs as _jaxprs

__all__ = [
    "explain_failure",
    "explain_lists",
    "explain_model",
    "explain_traced",
    "plain_signature",
    "warn_of_pairs",
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


# ---------------------------------------------- names and shapes that a function misses


def explain_failure(error: Exception, bound: dict[str, Any]) -> str | None:
    """Say what a function of the user's did not find in what it was called with.

    Args:
      error: what it raised.
      bound: the arguments of the public call, by name.
    """
    place = _users_line(error)
    if place is None:
        return None
    text = " ".join(str(error).split())
    if type(error) is KeyError and error.args:
        return _explain_key(place, error.args[0], bound)
    if isinstance(error, TypeError) and _BY_NAME.search(text):
        for name in ("params", "start"):
            if name in bound and not isinstance(bound[name], Mapping):
                return (
                    f"{place} asks for an entry by its name, but `{name}` is "
                    f"{_checks.brief(bound[name])}: pass a dict with those names."
                )
    is_own = "loss_fn" in bound and not _OF_PHIHAT.match(text)
    if is_own and isinstance(error, (TypeError, ValueError)) and _SHAPES.search(text):
        called = [
            f"{name}{jax.tree_util.keystr(path)} {list(np.shape(leaf))}"
            for name in ("params", "data")
            for path, leaf in jax.tree_util.tree_flatten_with_path(bound.get(name))[0]
        ]
        more = f" and {len(called) - 8} more" if len(called) > 8 else ""
        return (
            f"{place} meets shapes that do not fit: {text.rstrip('.')}; the loss was "
            f"called with {', '.join(called[:8])}{more}."
        )
    return None


_BY_NAME = re.compile("string indexing|indices must be integers|only integers, slices")
_OF_PHIHAT = re.compile(r"\w+: ")
_SHAPES = re.compile(
    "incompatible shapes|contracting dim|same shape|equal shapes|broadcast|reshape|"
    "matmul|must be equal|rank mismatch",
    re.IGNORECASE,
)


def _explain_key(place: str, key: Any, bound: dict[str, Any]) -> str | None:
    known = {
        name: list(bound[name])
        for name in ("params", "start", "data")
        if isinstance(bound.get(name), Mapping)
    }
    if not known or any(key in keys for keys in known.values()):
        return None
    has = " and ".join(f"`{name}` has {keys}" for name, keys in known.items())
    return f"{place} asks for {key!r}, but {has}."


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


def _jaxpr(loss_fn: Any, params: Any, data: Any) -> Any:
    """Return the program of a loss, or None if it takes more arguments, or fails."""
    try:
        with jax.numpy_rank_promotion("allow"):
            return jax.make_jaxpr(loss_fn)(params, data)
    except Exception:  # the fit says so
        return None


def _multiplies_integers(loss_fn: Any, params: Any, data: Any) -> bool:
    jaxpr = _jaxpr(loss_fn, params, data)
    return jaxpr is not None and any(
        equation.primitive.name in _PRODUCTS
        and all(_is_integer_array(one) for one in equation.outvars)
        for equation in _jaxprs.equations(jaxpr)
    )


# --------------------------------------------------------- rows and columns that differ


def warn_of_pairs(
    call: str, loss_fn: Callable[..., Any], params: Any, data: Any
) -> None:
    """Warn where a loss takes all pairs of a prediction [N, 1] and a y [N].

    A loss is traced for that once for each code and shapes.
    """
    leaves = jax.tree.leaves(data)
    if not any(np.ndim(leaf) == 1 and np.size(leaf) > 1 for leaf in leaves):
        return
    function = getattr(loss_fn, "func", loss_fn)
    shapes = tuple(np.shape(leaf) for leaf in (*jax.tree.leaves(params), *leaves))
    key = (getattr(function, "__code__", None), shapes)
    if key[0] is None or key in _SEEN:
        return
    if len(_SEEN) > 1000:
        _SEEN.clear()
    _SEEN.add(key)
    jaxpr = _jaxpr(loss_fn, params, data)
    num_rows = None if jaxpr is None else _paired_rows(jaxpr, params)
    if num_rows is not None:
        _checks.warn(
            f"{call}: the loss combines a prediction and data of shapes [{num_rows}] "
            f"and [{num_rows}, 1] into all pairs, [{num_rows}, {num_rows}]; give both "
            "one shape, for example by `prediction[:, 0]` or `y[:, None]`."
        )


_SEEN: set[Any] = set()


def _paired_rows(closed: Any, params: Any) -> int | None:
    """Return N where a column of one and a row of the other make a matrix [N, N]."""
    jaxpr = closed.jaxpr
    moving = set(jaxpr.invars[: len(jax.tree.leaves(params))])
    given = set(jaxpr.invars) - moving
    for equation in jaxpr.eqns:
        inputs: list[Any] = [one for one in equation.invars if isinstance(one, Var)]
        if any(one in moving for one in inputs):
            moving.update(equation.outvars)
        elif inputs and all(one in given for one in inputs):
            given.update(equation.outvars)
        if equation.primitive.name not in ("sub", "mul") or len(inputs) != 2:
            continue
        column, row = sorted((one.aval.shape for one in inputs), reverse=True)
        is_pair = len(column) == len(row) == 2 and column[::-1] == row
        is_pair = is_pair and row[0] == 1 < row[1]
        if is_pair and len(moving.intersection(inputs)) == 1 == len(
            given.intersection(inputs)
        ):
            return row[1]
    return None


def _is_integer_array(variable: Any) -> bool:
    aval = variable.aval
    return getattr(aval.dtype, "kind", "") in "iu" and aval.size > 1
