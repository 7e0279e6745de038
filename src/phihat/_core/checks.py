"""Argument checks in one wording: "fit: `num_steps` must be >= 1, got 0.".

Every check looks at concrete values only; a tracer passes, since raising on one would
break every sweep.
"""

import difflib
import importlib
import inspect
import numbers
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

__all__ = [
    "CURE_FOR_DELETED",
    "CURE_FOR_TENSORS",
    "MOST",
    "as_floats",
    "brief",
    "can_call",
    "check_arrays",
    "check_box",
    "check_choice",
    "check_count",
    "check_extra",
    "check_float_leaves",
    "check_key",
    "check_max_bytes",
    "check_range",
    "check_rows",
    "in_words",
    "is_deleted",
    "is_numeric",
    "is_of_pytorch",
    "require",
    "takes_key",
    "warn",
]


def brief(value: Any) -> str:
    """Describe a value in a few words: arrays by dtype and shape, others by repr."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of {value.dtype}{list(value.shape)}"
    if inspect.isfunction(value):
        return f"the function `{value.__name__}`"
    if type(value) in (dict, list, tuple):
        value = _with_kinds(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}... ({type(value).__name__})"


class _Kind(str):
    """A description that shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _with_kinds(value: Any) -> Any:
    """Return a container with its arrays and tracers as dtypes and shapes."""
    if type(value) is dict:
        return {key: _with_kinds(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_with_kinds, value))
    if isinstance(value, (jax.Array, np.ndarray)) and not is_deleted(value):
        return _Kind(f"{value.dtype}{list(value.shape)}")
    return value


def in_words(structure: Any) -> str:
    """Describe the structure of a pytree, an asterisk for each array."""
    text = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
    text = re.sub(r"CustomNode\((?:namedtuple\[)?([\w.]+)\]?, \[", r"\1(...", text)
    # What the nodes of a class hold tells nobody anything: its name is enough.
    while "(..." in text:
        begin = text.index("(...")
        depth, end = 1, begin + 4
        while depth and end < len(text):
            depth += {"[": 1, "]": -1}.get(text[end], 0)
            end += 1
        text = f"{text[:begin]}{text[end + 1 :]}"
    return "one array" if text == "*" else text


def as_floats(call: str, argument: str, value: Any) -> np.ndarray:
    """Return `value` as an array of float64."""
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError, RuntimeError):  # the last if it was deleted
        raise TypeError(
            f"{call}: `{argument}` must be an array of numbers, got {brief(value)}."
        ) from None


MOST = 2_000_000_000
"""The largest count: steps, rows and lanes are counted in 32 bits."""


def check_max_bytes(call: str, max_bytes: Any) -> int | None:
    """Return a limit on memory as an int; None is no limit of one's own."""
    if max_bytes is None:
        return None
    return check_count(call, "max_bytes", max_bytes, maximum=2**62)


def check_count(
    call: str, argument: str, value: Any, minimum: int = 1, maximum: int = MOST
) -> int:
    """Return `value` as an int of at least `minimum` and at most `maximum`."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{call}: `{argument}` shapes the program, so it must be a Python int; it "
            "is being traced: mark it static, or bind it before the transformation."
        )
    if isinstance(value, (bool, np.bool_)) or not (
        isinstance(value, numbers.Integral)
        or (isinstance(value, (np.ndarray, jax.Array)) and value.dtype.kind in "iu")
    ):
        raise TypeError(
            f"{call}: `{argument}` must be a whole number, got {brief(value)}."
        )
    count = int(value)
    if count < minimum:
        raise ValueError(f"{call}: `{argument}` must be >= {minimum}, got {count}.")
    if count > maximum:
        given = brief(count)  # which may have thousands of digits
        raise ValueError(f"{call}: `{argument}` must be <= {maximum:,}, got {given}.")
    return count


def check_range(
    call: str,
    argument: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    include_low: bool = True,
    include_high: bool = True,
) -> None:
    """Check that a number, or every entry of an array, lies in an interval."""
    if isinstance(value, jax.core.Tracer) or callable(value):
        return
    # A Python float is compared as it is: an array would cost microseconds.
    entries = value if type(value) is float else np.asarray(value)
    above = low is None or (entries >= low if include_low else entries > low)
    # What has no bound must be finite all the same.
    limit, is_open = (np.inf, True) if high is None else (high, not include_high)
    below = entries < limit if is_open else entries <= limit
    inside = above & below  # false where an entry is NaN
    if inside is not True and not np.all(inside):
        worst = np.asarray(entries)[~inside].flat[0] if np.ndim(entries) else value
        wanted = _interval(low, high, include_low, include_high)
        if worst == np.inf:
            wanted = "be finite"
        raise ValueError(f"{call}: `{argument}` must {wanted}, got {_in_full(worst)}.")


def _in_full(number: Any) -> Any:
    """Return what is printed of a number: not the thousand digits of a whole one."""
    return brief(number) if isinstance(number, int) else number


def _interval(
    low: float | None, high: float | None, include_low: bool, include_high: bool
) -> str:
    if high is None or (high == np.inf and low is not None):
        return f"be {'>=' if include_low else '>'} {low:g}"
    if low is None:
        return f"be {'<=' if include_high else '<'} {high:g}"
    left, right = "(["[include_low], ")]"[include_high]
    return f"lie in {left}{low:g}, {high:g}{right}"


def check_choice(call: str, argument: str, value: Any, choices: Iterable[str]) -> None:
    """Check that `value` is one of the known words; else name the nearest."""
    known = sorted(choices)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(
        f"{call}: `{argument}` must be one of {known}, got {brief(value)}{hint}"
    )


def check_key(call: str, key: Any, *, required: bool = False) -> None:
    """Check that `key` is one typed key, or None where none is `required`."""
    if (key is None and not required) or (
        isinstance(key, jax.Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.ndim == 0
    ):
        return
    cure = f"jax.random.key({key})" if isinstance(key, int) else "jax.random.key(0)"
    raise TypeError(
        f"{call}: `key` must be one typed key, such as {cure}, got {brief(key)}."
    )


def check_extra(call: str, argument: str, value: Any, meaning: str) -> Any:
    """Return an extra argument that an optimizer's `update` cannot do without."""
    if value is None:
        raise TypeError(
            f"{call}: `{argument}` is missing: pass `{argument}=` ({meaning}) to "
            "`update`, as `fit` does."
        )
    return value


def check_float_leaves(call: str, argument: str, tree: Any) -> None:
    """Check that every leaf is a float or a floating-point array."""
    if all(_is_floating(leaf) for leaf in jax.tree.leaves(tree)):
        return
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if _is_floating(leaf):
            continue
        where = jax.tree_util.keystr(path) or "the only leaf"
        raise TypeError(
            f"{call}: `{argument}` must have floating-point leaves, got "
            f"{brief(leaf)} at {where}; {_cure_for_leaf(leaf)}."
        )


CURE_FOR_DELETED = (
    "it has been deleted, by `.delete()` or by a call that was given its memory: pass "
    "a copy"
)


CURE_FOR_TENSORS = "convert tensors of PyTorch with `tensor.detach().cpu().numpy()`"


def is_of_pytorch(value: Any) -> bool:
    """Tell whether a value is a tensor or a module of PyTorch."""
    return any(one.__module__.split(".")[0] == "torch" for one in type(value).__mro__)


def _is_floating(leaf: Any) -> bool:
    if type(leaf) is float:
        return True
    dtype = getattr(leaf, "dtype", None)
    is_other = is_deleted(leaf) or is_of_pytorch(leaf)
    if is_other or getattr(dtype, "char", None) == "g":
        return False
    return dtype is not None and (
        getattr(dtype, "kind", None) == "f" or jnp.issubdtype(dtype, jnp.floating)
    )


def _cure_for_leaf(leaf: Any) -> str:
    if is_deleted(leaf):
        return CURE_FOR_DELETED
    if is_of_pytorch(leaf):
        return CURE_FOR_TENSORS
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return "keep keys out of the params and pass `key=` to the fit"
    if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
        return "fit its real and imaginary parts as two leaves"
    if isinstance(leaf, complex):
        return "fit its real and imaginary parts as two leaves"
    if dtype is not None or isinstance(leaf, (int, np.generic)):
        return "convert it, for example with `jnp.asarray(leaf, float)`"
    return (
        "for an Equinox module or another object that mixes arrays with code: "
        "`params, static = eqx.partition(module, eqx.is_inexact_array)` and the model "
        "`Partial(apply, static)`"
    )


def check_rows(call: str, argument: str, data: Any) -> int:
    """Return the number of rows that all leaves of `data` share."""
    leaves = jax.tree_util.tree_flatten_with_path(data)[0]
    if not leaves:
        raise ValueError(f"{call}: `{argument}` has no arrays in it.")
    first_path, first = leaves[0]
    for path, leaf in leaves:
        name = f"`{argument}{jax.tree_util.keystr(path)}`"
        if jnp.ndim(leaf) == 0:
            is_plain = isinstance(leaf, (int, float))
            cure = "; make arrays of lists, with `np.asarray`" if is_plain else ""
            raise ValueError(f"{call}: {name} is a scalar: it has no rows{cure}.")
        if jnp.shape(leaf)[0] != jnp.shape(first)[0]:
            raise ValueError(
                f"{call}: `{argument}{jax.tree_util.keystr(first_path)}` has "
                f"{jnp.shape(first)[0]} rows but {name} has {jnp.shape(leaf)[0]}; "
                "every leaf needs the same number."
            )
    return jnp.shape(first)[0]


def check_box(call: str, argument: str, box: Any, params: Any) -> None:
    """Check that a box bounds these params: one scalar, or a tree like them."""
    if jax.tree_util.all_leaves([box.low]) and np.ndim(box.low) == 0:
        return
    structure, wanted = jax.tree.structure(box.low), jax.tree.structure(params)
    if structure != wanted:
        raise ValueError(
            f"{call}: `{argument}` is a Box of the structure "
            f"{in_words(structure)}, but the params have the structure "
            f"{in_words(wanted)}."
        )
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    ends = zip(jax.tree.leaves(box.low), jax.tree.leaves(box.high), strict=True)
    for (path, leaf), bounds in zip(leaves, ends, strict=True):
        for bound in bounds:
            if np.shape(bound) not in ((), np.shape(leaf)):
                where = jax.tree_util.keystr(path) or "the only leaf"
                raise ValueError(
                    f"{call}: `{argument}` bounds {where} by an array of shape "
                    f"{list(np.shape(bound))}, but it has shape "
                    f"{list(np.shape(leaf))}; give a scalar, or one bound per entry."
                )


def check_arrays(call: str, argument: str, tree: Any) -> None:
    """Check that every leaf is an array or a number."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_numeric(leaf):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise TypeError(
                f"{call}: `{argument}` must be a pytree of arrays, got {brief(leaf)} "
                f"at {where}."
            )


def is_numeric(leaf: Any) -> bool:
    """Tell whether a leaf is a number or a plain array of numbers."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        is_plain = leaf.dtype.kind in "biufcV" and leaf.dtype.names is None
        is_known = leaf.dtype.char not in "gG" and leaf.dtype.type is not np.void
        return is_plain and is_known and not isinstance(leaf, _ODD_ARRAYS)
    if isinstance(leaf, jax.Array):
        return not is_deleted(leaf)
    if isinstance(leaf, int):
        return abs(leaf) < 2 ** (63 if jax.config.read("jax_enable_x64") else 31)
    return isinstance(leaf, (float, complex))


_ODD_ARRAYS = (np.ma.MaskedArray, np.matrix)


def is_deleted(leaf: Any) -> bool:
    """Tell whether an array of jax has been given away, or deleted."""
    is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return is_array and leaf.is_deleted()


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and point at the line of the user that led here."""
    frame, depth = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)


def _is_ours(module: str) -> bool:
    return module == "phihat" or module.startswith("phihat.")


def takes_key(fn: Callable[..., Any]) -> bool:
    """Tell whether a callable has a parameter `key`, still unbound."""
    if "key" in getattr(fn, "keywords", {}):
        return False
    try:
        found = inspect.signature(fn).parameters.get("key")
    except (TypeError, ValueError):
        return False
    return found is not None and found.kind in (
        found.KEYWORD_ONLY,
        found.POSITIONAL_OR_KEYWORD,
    )


def can_call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Tell whether a callable takes these arguments, as far as its signature tells."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some functions of C have none
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def require(call: str, package: str, install: str | None = None) -> Any:
    """Import a package that is no dependency, or say how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{call}: it needs {package.split('.')[0]}; install it with `pip install "
            f"{install or package}`."
        ) from error
