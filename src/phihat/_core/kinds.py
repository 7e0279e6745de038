"""What kind of thing an argument must be, by its annotation and its name.

Only calls that have failed are looked at, so what is doubtful passes.
"""

import collections.abc
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import AbstractArray, PyTree

from phihat._core import checks as _checks
from phihat._core import tree as _tree

__all__ = ["MARK", "ROLES", "Kind", "describe", "is_optimizer", "of"]

MARK = "_phihat_public"
"""The attribute by which a public function of phihat is known."""


class Kind(NamedTuple):
    """What an argument must be.

    Attributes:
      text: in words, after "must be".
      accepts: tells whether a value may be meant; tracers always may.
    """

    text: str
    accepts: Callable[[Any], bool]


def describe(value: Any) -> str:
    """Describe a value that was given instead."""
    if inspect.isfunction(value) and MARK in vars(value):
        return f"{_checks.brief(value)}, which was not called"
    if inspect.isclass(value):
        return f"the class `{value.__name__}`"
    return _checks.brief(value)


def of(name: str, annotation: Any) -> Kind | None:
    """Return the kind of an argument, or None where anything may be meant."""
    if name == "loss_fn":
        return _LOSS
    if name == "record":
        return _RECORD
    found = _of_annotation(name, annotation)
    return None if found is None else Kind(found.text, _careful(found.accepts))


def _careful(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Take what cannot even be looked at for something else."""

    def tell(value: Any) -> bool:
        try:
            return bool(accepts(value))
        except Exception:
            return False

    return tell


def _of_annotation(name: str, annotation: Any) -> Kind | None:
    if annotation is Any or annotation is PyTree:
        return _BY_NAME.get(name)
    if isinstance(annotation, type) and annotation in _PLAIN:
        return _PLAIN[annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _of_union(name, typing.get_args(annotation))
    members = typing.get_args(annotation)
    if origin is collections.abc.Sequence and members[0] in _PLAIN:
        return _of_entries(_PLAIN[members[0]])
    if origin is tuple:
        return _of_tuple(typing.get_args(annotation))
    if origin is not None:
        return _BY_ORIGIN.get(origin)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        if "key" in str(getattr(annotation, "dtypes", "")):
            return _KEY
        return _PLAIN[float] if annotation.dim_str == "" else _ARRAY
    if isinstance(annotation, type) and annotation is not inspect.Parameter.empty:
        return _of_class(annotation)
    return None


def _of_union(name: str, members: tuple[Any, ...]) -> Kind | None:
    is_optional = type(None) in members
    kinds = [_of_annotation(name, one) for one in members if one is not type(None)]
    found = [kind for kind in kinds if kind is not None]
    if len(found) < len(kinds):
        return None
    texts = list(dict.fromkeys(kind.text for kind in found))
    if is_optional:
        texts.append("None")
    return Kind(
        " or ".join(texts),
        lambda value: (
            (value is None and is_optional)
            or any(kind.accepts(value) for kind in found)
        ),
    )


def _of_entries(entry: Kind) -> Kind:
    return Kind(
        f"a sequence, each entry {entry.text}",
        lambda value: _is_sequence(value) and all(map(entry.accepts, value)),
    )


def _of_tuple(members: tuple[Any, ...]) -> Kind:
    """Return the kind of a few numbers, or of any sequence."""
    if not set(members) <= {int, float} or len(set(members)) != 1:
        return _BY_ORIGIN[collections.abc.Sequence]
    entry, count = _PLAIN[members[0]], len(members)
    what = "whole numbers" if members[0] is int else "numbers"
    return Kind(
        f"a tuple of {count} {what}",
        lambda value: (
            _is_sequence(value)
            and len(value) == count
            and all(entry.accepts(one) for one in value)
        ),
    )


def _of_class(wanted: type) -> Kind | None:
    if wanted is object or getattr(wanted, "_is_protocol", False):
        return None
    name = wanted.__name__
    article = "an" if name[0] in "AEIOU" else "a"
    return Kind(
        _TEXTS.get(name, f"{article} `{name}`"),
        lambda value: isinstance(value, wanted),
    )


_TEXTS = {
    "Box": "a `Box(low, high)`",
    "Mesh": "a mesh, such as `sharding.make_mesh()`",
    "FitState": "a `FitState`, such as `result.state`",
    "FitResult": "a `FitResult`, as `fit` returns it",
}

# ------------------------------------------------------------------------- the kinds


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or _is_traced(value)


def _is_scalar_array(value: Any) -> bool:
    is_array = isinstance(value, (np.ndarray, jax.Array)) and not _tree.is_key(value)
    return is_array and value.ndim == 0


def _is_whole(value: Any) -> bool:
    if _is_traced(value):
        return True
    if _is_scalar_array(value):
        return value.dtype.kind in "iu"
    return isinstance(value, numbers.Integral) and not _is_bool(value)


def _is_number(value: Any) -> bool:
    if _is_traced(value):
        return True
    if _is_scalar_array(value):
        return jnp.issubdtype(value.dtype, jnp.floating) or value.dtype.kind in "iu"
    return isinstance(value, numbers.Real) and not _is_bool(value)


def _is_leaf(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not _tree.is_key(value)
    return _checks.is_numeric(value) or isinstance(value, numbers.Number)


def _is_array_like(value: Any) -> bool:
    """Tell what NumPy makes an array of numbers."""
    if _is_leaf(value):
        return True
    if not isinstance(value, (list, tuple)):
        return False
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except Exception:  # jagged lists, tracers, things with opinions of their own
        return any(_is_traced(leaf) for leaf in jax.tree.leaves(value))


def _has_float_leaves(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return any(np.size(leaf) for leaf in leaves) and all(
        type(leaf) is float
        or (_is_leaf(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
        for leaf in leaves
    )


def _has_array_leaves(value: Any) -> bool:
    return value is None or all(_is_leaf(leaf) for leaf in jax.tree.leaves(value))


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, (type, np.ndarray, jax.Array))


def _is_key(value: Any) -> bool:
    return _tree.is_key(value) and jnp.ndim(value) == 0


def _is_sequence(value: Any) -> bool:
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.ndim > 0
    is_text = isinstance(value, (str, bytes))
    return isinstance(value, collections.abc.Sequence) and not is_text


def _are_results(value: Any) -> bool:
    if isinstance(value, (np.ndarray, jax.Array)):
        return _is_leaf(value) and value.dtype.kind in "biuf"
    return not isinstance(value, (str, bytes, type))


def _are_scales(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        np.size(leaf) and _is_array_like(leaf) and not np.iscomplexobj(leaf)
        for leaf in leaves
    )


def _is_axes(value: Any) -> bool:
    is_many = isinstance(value, (list, tuple)) and bool(value)
    is_many |= isinstance(value, np.ndarray) and value.dtype == object
    return hasattr(value, "figure") or is_many


def _is_fixed(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(one, (str, bool, np.bool_)) for one in value)
    return isinstance(value, (str, dict, set, frozenset)) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "bUS"
    )


def _is_box_or_function(value: Any) -> bool:
    return value is None or _is_function(value) or hasattr(value, "ends_like")


def is_optimizer(value: Any) -> bool:
    """Tell an (init, update) pair, of whatever class."""
    return callable(getattr(value, "init", None)) and callable(
        getattr(value, "update", None)
    )


def _is_code(value: Any) -> bool:
    return _is_function(value) and not is_optimizer(value)


ROLES: dict[str, Callable[[Any], bool]] = {
    "loss_fn": _is_code,
    "model": _is_code,
    "optimizer": is_optimizer,
}
"""Arguments that nothing but their own kind can stand for."""

_KEY = Kind("one typed key, such as `jax.random.key(0)`", _is_key)
_ARRAY = Kind("an array of numbers", _is_array_like)
_FUNCTION = Kind("a function", lambda value: _is_function(value))
_LOSS = Kind(
    "a loss function, such as `losses.least_squares(model)`",
    lambda value: _is_function(value) and MARK not in getattr(value, "__dict__", {}),
)
_PATH = Kind(
    "a path", lambda value: isinstance(value, (str, os.PathLike)) and value != ""
)
_OPTIMIZER = Kind(
    "an optimizer, an (init, update) pair such as `phihat.adam(0.1)`", is_optimizer
)
_RECORD = Kind(
    "names, or a dict of functions",
    lambda value: isinstance(value, (str, list, tuple, collections.abc.Mapping)),
)
_PARAMS = Kind("params, a pytree of floating-point arrays", _has_float_leaves)
_DATA = Kind("a pytree of numeric arrays", _has_array_leaves)


_PLAIN: dict[Any, Kind] = {
    bool: Kind("True or False", _is_bool),
    int: Kind("a whole number", _is_whole),
    float: Kind("a number", _is_number),
    str: Kind("a string", lambda value: isinstance(value, str)),
    optax.GradientTransformation: _OPTIMIZER,
}

_BY_ORIGIN: dict[Any, Kind] = {
    collections.abc.Callable: _FUNCTION,
    collections.abc.Sequence: Kind("a sequence", _is_sequence),
    tuple: Kind("a sequence", _is_sequence),
    list: Kind("a sequence", _is_sequence),
    dict: Kind("a dict", lambda value: isinstance(value, collections.abc.Mapping)),
    collections.abc.Mapping: Kind(
        "a dict", lambda value: isinstance(value, collections.abc.Mapping)
    ),
    collections.abc.Iterable: Kind(
        "a sequence",
        lambda value: (
            isinstance(value, collections.abc.Iterable)
            and not isinstance(value, (np.ndarray, jax.Array))
        ),
    ),
    os.PathLike: _PATH,
}

_BY_NAME: dict[str, Kind] = {
    "params": _PARAMS,
    "start": _PARAMS,
    "vector": _PARAMS,
    "direction": _PARAMS,
    "data": _DATA,
    "batch": _DATA,
    "optimizer": _OPTIMIZER,
    "x": _ARRAY,
    "y": _ARRAY,
    "sigma": _ARRAY,
    "weights": _ARRAY,
    "mask": _ARRAY,
    "reference": _ARRAY,
    "tree": _DATA,
    "model_state": _DATA,
    "results": Kind("results of fits, or arrays of losses", _are_results),
    "scale": Kind("a number, or a pytree of numbers", _are_scales),
    "fixed": Kind("names of params, or a flag for each", _is_fixed),
    "projection": Kind("a function or a Box", _is_box_or_function),
    "tolerance": Kind(
        "a number or a `Tolerance`",
        lambda value: value is None or isinstance(value, tuple) or _is_number(value),
    ),
    "ends": Kind(
        "a report with a witness, or two params",
        lambda value: (
            not isinstance(value, (str, float, np.ndarray))
            and all(_is_leaf(leaf) for leaf in jax.tree.leaves(value))
        ),
    ),
    "rates": Kind("an array of numbers", _are_scales),
    "positions": Kind("an array of whole numbers", _are_scales),
    "left": _PARAMS,
    "right": _PARAMS,
    "axes": Kind("axes of Matplotlib", _is_axes),
    "by": Kind(
        "the name of a value, or a function",
        lambda value: value is None or isinstance(value, str) or _is_function(value),
    ),
    "weight": _PLAIN[float],
    "envelope_width": _PLAIN[float],
}
"""Where the annotation says nothing."""
