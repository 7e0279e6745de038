"""Code apart from numbers, and the pytree arithmetic that optax.tree lacks.

Models, losses, schedules and optimizers are pytrees: `jax.tree_util.Partial`s of
functions whose real-valued arguments are leaves. `split` takes such a tree apart into
a hashable key (the code) and a list of numbers (the data), so that one compiled
program serves every value of every hyperparameter.
"""

import functools
import numbers as abstract_numbers
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from phihat._core import checks as _checks

__all__ = [
    "Static",
    "accumulator_dtype",
    "as_arrays",
    "as_number",
    "as_partial",
    "as_scalar",
    "cast",
    "cast_like",
    "default_float",
    "difference",
    "is_importable",
    "is_key",
    "is_module_level",
    "is_number",
    "leaf_paths",
    "merge",
    "select",
    "split",
    "strong",
    "unlike_leaf",
]


def _typed(value: Any) -> Hashable:
    """Return `value` with its type, through tuples: 1 == True would share a program."""
    if isinstance(value, tuple):
        return (type(value), tuple(_typed(entry) for entry in value))
    return (type(value), value)


@jax.tree_util.register_static
class Static:
    """A leafless node: a value that shapes the program, such as a degree or a flag.

    Equality and hash include the type, so `Static(1) != Static(True)`.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        """Keep the value; refuse what cannot be hashed, since it could change."""
        hash(value)
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Compare the values and their types."""
        return isinstance(other, Static) and _typed(self.value) == _typed(other.value)

    def __hash__(self) -> int:
        """Hash the value with its type."""
        return hash(_typed(self.value))

    def __repr__(self) -> str:
        """Show the value alone: the wrapper means nothing to a reader."""
        return repr(self.value)


# ------------------------------------------------------------------ code and numbers


def as_partial(fn: Callable[..., Any], call: str, argument: str) -> Partial:
    """Wrap a callable in a `Partial`, so that no leaf of ours is ever a function.

    A partial of a partial is flattened: the numbers of both become leaves.
    """
    if isinstance(fn, functools.partial):  # a Partial of jax is one too
        func = fn.func
        if type(func).__name__ == "_HashableCallableShim":  # jax's, around a partial
            func = func.fun
        if isinstance(fn, Partial) and not isinstance(func, functools.partial):
            _check_hashable(func, argument)
            return fn
        inner = as_partial(func, call, argument)
        return Partial(
            inner.func, *inner.args, *fn.args, **{**inner.keywords, **fn.keywords}
        )
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(
            f"{call}: `{argument}` must be a function, got {_checks.brief(fn)}."
        )
    _check_hashable(fn, argument)
    return Partial(fn)


def as_number(value: Any, call: str, argument: str) -> Any:
    """Normalise a hyperparameter: any real number to a Python float, arrays as given.

    A Python float is weakly typed, so it never promotes what it meets, and `adam(1)`,
    `adam(2.0)` and `adam(np.float64(3))` are one program.
    """
    if type(value) is float:
        return value
    if _is_concrete_scalar(value):
        return float(value)
    if isinstance(value, (jax.Array, np.ndarray)) and _is_real_dtype(value.dtype):
        return value
    is_flag = isinstance(value, (bool, np.bool_))
    if isinstance(value, abstract_numbers.Real) and not is_flag:
        return float(value)
    raise TypeError(
        f"{call}: `{argument}` must be a real number or an array of them, got "
        f"{_checks.brief(value)}."
    )


def as_scalar(value: Any, call: str, argument: str) -> Any:
    """Normalise a hyperparameter of which one fit needs one."""
    value = as_number(value, call, argument)
    if np.ndim(value):
        raise ValueError(
            f"{call}: `{argument}` must be one number, got the shape "
            f"{list(np.shape(value))}."
        )
    return value


def _is_concrete_scalar(value: Any) -> bool:
    """Tell an array without axes whose number is known here and now."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and _is_real_dtype(value.dtype)
    is_array = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return (
        is_array
        and value.ndim == 0
        and _is_real_dtype(value.dtype)
        and value.is_fully_addressable
    )


def is_number(leaf: Any) -> bool:
    """Tell whether a leaf is data: a float, a numeric or bool array, a typed key."""
    if type(leaf) is float:
        return True
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "biufcV"


class _Hole:
    """The place of a number in a key."""

    def __repr__(self) -> str:
        return "number"


_HOLE = _Hole()


def split(tree: PyTree) -> tuple[Hashable, list[Any]]:
    """Split a tree of code into its hashable key and its numbers.

    Args:
      tree: a pytree of Partials, optimizers and hyperparameters.

    Returns:
      The key (structure, functions, and everything that is no number, each with its
      type) and the list of numbers, in the order of the leaves.
    """
    leaves, treedef = jax.tree.flatten(tree)
    numbers = []
    statics = []
    for leaf in leaves:
        if is_number(leaf):
            numbers.append(leaf)
            statics.append(_HOLE)
        else:
            statics.append((type(leaf), leaf))
    key = (treedef, tuple(statics))
    try:
        hash(key)
    except TypeError:
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            _check_hashable(leaf, jax.tree_util.keystr(path))
        raise
    return key, numbers


def merge(key: Any, numbers: Sequence[Any]) -> PyTree:
    """Put the numbers back into their places: the inverse of `split`."""
    treedef, statics = key
    rest = iter(numbers)
    leaves = [next(rest) if static is _HOLE else static[1] for static in statics]
    return jax.tree.unflatten(treedef, leaves)


def is_importable(tree: PyTree) -> bool:
    """Tell whether every function in the tree is the one its module holds by its name.

    Such a function can hide no tracer, so a program compiled for it may be remembered
    even while some other transformation is tracing.
    """
    return all(is_module_level(function) for function in _functions(tree))


def is_module_level(function: Any) -> bool:
    """Tell whether a module holds this very object under its name."""
    holder: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "<locals>").split("."):
        holder = getattr(holder, name, None)
    return holder is function


def _functions(tree: PyTree) -> Iterator[Any]:
    """Yield everything in the tree that is no number and might hold one."""
    is_node = lambda node: isinstance(node, (Partial, Static))  # noqa: E731
    for node in jax.tree.leaves(tree, is_leaf=is_node):
        if isinstance(node, Partial):
            yield node.func
            yield from _functions((node.args, node.keywords))
        elif isinstance(node, Static):
            if callable(node.value):
                yield node.value
        elif not is_number(node) and not isinstance(node, (int, str, bytes, complex)):
            yield node


def _check_hashable(value: Any, name: str) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"The {type(value).__name__} at `{name}` cannot be hashed, so no compiled "
            "program can be kept for it: pass arrays and floats as leaves of a "
            "`jax.tree_util.Partial` of a module-level function. For an Equinox "
            "module: `params, static = eqx.partition(module, eqx.is_inexact_array)` "
            "and the model `Partial(apply, static)`."
        ) from error


def _is_real_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(
        dtype, jnp.complexfloating
    )


# ------------------------------------------------------------------ pytree arithmetic


def default_float() -> Any:
    """Return the widest float that is switched on: float64 under x64, else float32."""
    return jnp.result_type(float)


def accumulator_dtype(leaf: Any) -> Any:
    """Return the dtype for moments and sums of a leaf: at least float32."""
    # Strict promotion knows no way from bfloat16 to float32, though it loses nothing.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def cast(value: Any, dtype: Any) -> Array:
    """Return `value` as a strongly typed array of this dtype."""
    return jax.lax.convert_element_type(value, dtype)


def cast_like(tree: PyTree, other: PyTree) -> PyTree:
    """Return a tree with the dtypes of another of its structure; keys are as they are.

    So a compiled loop can carry what a user's function returns.
    """
    return jax.tree.map(
        lambda leaf, like: leaf if is_key(like) else cast(leaf, like.dtype), tree, other
    )


def is_key(leaf: Any) -> bool:
    """Tell whether a leaf is an array of typed keys."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def as_arrays(tree: PyTree) -> PyTree:
    """Turn Python and NumPy numbers into arrays of the widest float switched on.

    A program is compiled for a kind of number, and these then are of one kind.
    """
    wide = np.dtype(default_float())

    def convert(leaf: Any) -> Any:
        if type(leaf) is float or isinstance(leaf, np.float64):
            return np.asarray(leaf, wide)
        if isinstance(leaf, jax.Array) and getattr(leaf, "weak_type", False):
            if _is_concrete_scalar(leaf):
                return np.asarray(leaf)
            return jax.lax.convert_element_type(leaf, leaf.dtype)
        return leaf

    return jax.tree.map(convert, tree)


def strong(tree: PyTree) -> PyTree:
    """Turn leaves into strongly typed arrays: a weak type would change in the loop."""

    def cast(leaf: Any) -> Array:
        return jax.lax.convert_element_type(leaf, jnp.result_type(leaf))

    return jax.tree.map(cast, tree)


def select(condition: Bool[Array, ""], if_true: PyTree, if_false: PyTree) -> PyTree:
    """Choose between two trees of equal shapes, leaf by leaf."""

    def choose(one: Array, other: Array) -> Array:
        return one if one is other else jnp.where(condition, one, other)

    return jax.tree.map(choose, if_true, if_false)


def unlike_leaf(tree: PyTree, other: PyTree) -> tuple[str, list[int], list[int]] | None:
    """Return the path and the two shapes of the first leaf in which they differ.

    Both trees have one structure, and leaves with or without a shape of their own.
    """
    leaves = zip(
        leaf_paths(tree), jax.tree.leaves(tree), jax.tree.leaves(other), strict=True
    )
    for path, one, another in leaves:
        if np.shape(one) != np.shape(another):
            return path, list(np.shape(one)), list(np.shape(another))
    return None


def difference(tree: PyTree, other: PyTree) -> tuple[str, Any, Any] | None:
    """Say in what two trees differ, structure or a shape, and how each has it."""
    one, another = jax.tree.structure(tree), jax.tree.structure(other)
    if one != another:
        return "structure", _checks.in_words(one), _checks.in_words(another)
    unlike = unlike_leaf(tree, other)
    if unlike is None:
        return None
    path, shape, other_shape = unlike
    return f"shape at {path or 'the only leaf'}", shape, other_shape


def leaf_paths(tree: PyTree) -> list[str]:
    """Return the path of every leaf as a person writes it, such as `['weight']`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path) for path, _ in paths]
