"""What a fit is made of, as plain text, and how two such descriptions differ.

Example:
  >>> from phihat.training import fingerprint
  >>> before = {"loss": "f", "versions": {"jax": "0.10"}}
  >>> after = {"loss": "g", "versions": {"jax": "0.11"}}
  >>> fingerprint.compare(before, after)
  (['loss: f before, g now.'], ['versions jax: 0.10 before, 0.11 now.'])
"""

import importlib.metadata
import platform
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import tree as _tree

__all__ = ["compare", "describe_code", "describe_shapes", "versions"]


def describe_code(code: PyTree) -> str:
    """Return the names of the functions in a tree of code, and all that is no number.

    Example:
      >>> from phihat.losses import with_l2
      >>> describe_code(Partial(max, 2.0))
      'max(number)'
    """
    if isinstance(code, Partial):
        parts = [describe_code(argument) for argument in code.args]
        parts += [f"{k}={describe_code(v)}" for k, v in sorted(code.keywords.items())]
        return f"{_name(code.func)}({', '.join(parts)})"
    if isinstance(code, _tree.Static):
        value = code.value
        return _name(value) if callable(value) else repr(value)
    if code is None or isinstance(code, (str, bool, int)):
        return repr(code)
    if jax.tree_util.all_leaves([code]):
        return "number" if _tree.is_number(code) else _name(code)
    children = jax.tree_util.tree_flatten(code, is_leaf=lambda node: node is not code)[
        0
    ]
    inner = ", ".join(describe_code(child) for child in children)
    return f"{type(code).__name__}({inner})"


def describe_numbers(code: PyTree) -> dict[str, Any]:
    """Return the numbers in a tree of code by their paths; arrays by a checksum."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(code)[0]:
        if not _tree.is_number(leaf):
            continue
        array = np.asarray(jax.random.key_data(leaf) if _tree.is_key(leaf) else leaf)
        text = repr(array.item()) if array.ndim == 0 else f"{array.dtype}{array.shape}"
        if array.ndim:
            text += f" of checksum {zlib.crc32(np.ascontiguousarray(array).tobytes())}"
        found[jax.tree_util.keystr(path)] = text
    return found


def describe_shapes(tree: PyTree) -> dict[str, str]:
    """Return dtype and shape of every leaf by its path.

    Example:
      >>> describe_shapes({"a": jnp.ones((2, 3))})
      {"['a']": 'float32[2,3]'}
    """
    leaves = zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return {
        path or "the only leaf": (
            f"{jnp.result_type(leaf)}[{','.join(map(str, jnp.shape(leaf)))}]"
        )
        for path, leaf in leaves
    }


def versions() -> dict[str, str]:
    """Return the versions that may change a number."""
    found = {
        "Python": platform.python_version(),
        "the default float": str(_tree.default_float()),
        "the backend": jax.default_backend(),
    }
    for package in ("jax", "jaxlib", "optax", "phihat"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def compare(
    before: dict[str, Any], after: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Return sentences on what rules a continuation out, and on what merely changed."""
    grave: list[str] = []
    slight: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            for part in sorted({*old, *new}):
                if old.get(part) != new.get(part):
                    sentence = (
                        f"{name} {part}: {old.get(part, 'absent')} before, "
                        f"{new.get(part, 'absent')} now."
                    )
                    is_slight = name == "versions" or name.endswith("numbers")
                    (slight if is_slight else grave).append(sentence)
        else:
            grave.append(f"{name}: {old} before, {new} now.")
    return grave, slight


def _name(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    if name is None:
        return type(function).__qualname__
    module = getattr(function, "__module__", None)
    return name if module in (None, "builtins") else f"{module}.{name}"
