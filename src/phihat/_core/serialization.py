"""The structure of a pytree as plain JSON, so that a file tells what it holds.

Dicts, lists, tuples, None, named tuples and registered dataclasses can be described;
classes by the module and the name under which they are imported.

Example:
  >>> from phihat._core import serialization as _skeleton
  >>> description, leaves = _skeleton.describe({"a": 1.0, "b": (2.0, None)})
  >>> _skeleton.rebuild(description, leaves)
  {'a': 1.0, 'b': (2.0, None)}
"""

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

__all__ = ["describe", "rebuild"]


def describe(tree: PyTree) -> tuple[Any, list[Any]]:
    """Return a tree's structure as JSON, and its leaves in the order of jax.

    Raises:
      TypeError: a node is of a class that cannot be described.
    """
    leaves: list[Any] = []
    return _describe(tree, leaves), leaves


def rebuild(description: Any, leaves: Sequence[Any]) -> PyTree:
    """Put leaves into the structure that `describe` described.

    Raises:
      ValueError: the description names a class that is not there any more.
    """
    return _rebuild(description, iter(leaves))


def _describe(node: Any, leaves: list[Any]) -> Any:
    if node is None:
        return None
    if jax.tree_util.all_leaves([node]):
        leaves.append(node)
        return "leaf"
    if type(node) is dict and all(isinstance(key, str) for key in node):
        return {"dict": {key: _describe(node[key], leaves) for key in sorted(node)}}
    if type(node) in (list, tuple):
        kind = type(node).__name__
        return {kind: [_describe(entry, leaves) for entry in node]}
    if isinstance(node, tuple) and (names := getattr(node, "_fields", None)):
        fields = {name: getattr(node, name) for name in names}
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
    else:
        raise TypeError(
            f"save: a node of type {type(node).__name__} cannot be described in a "
            "file; save its leaves, `dict(enumerate(jax.tree.leaves(tree)))`, and put "
            "them back with `jax.tree.unflatten`."
        )
    described = {name: _describe_field(fields[name], leaves) for name in fields}
    return {"class": [type(node).__module__, type(node).__qualname__, described]}


def _describe_field(value: Any, leaves: list[Any]) -> Any:
    """Describe a field of a class: texts are no leaves of arrays."""
    if isinstance(value, str) or (
        isinstance(value, tuple)
        and value
        and all(isinstance(entry, str) for entry in value)
    ):
        return {"text": value}
    return _describe(value, leaves)


def _rebuild(description: Any, leaves: Iterator[Any]) -> Any:
    if description is None:
        return None
    if description == "leaf":
        return next(leaves)
    ((kind, content),) = description.items()
    if kind == "dict":
        return {key: _rebuild(value, leaves) for key, value in content.items()}
    if kind == "list":
        return [_rebuild(entry, leaves) for entry in content]
    if kind == "tuple":
        return tuple(_rebuild(entry, leaves) for entry in content)
    if kind == "text":
        return tuple(content) if isinstance(content, list) else content
    module, name, fields = content
    parts = {key: _rebuild(value, leaves) for key, value in fields.items()}
    return _class(module, name)(**parts)


def _class(module: str, name: str) -> Any:
    """Import a class that holds data; nothing else is ever called."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"restore: the file holds a `{module}.{name}`, which cannot be imported "
            "here; install the version that it was saved with."
        ) from error
    is_named_tuple = isinstance(found, type) and issubclass(found, tuple)
    if not (is_named_tuple and hasattr(found, "_fields")) and not (
        isinstance(found, type) and dataclasses.is_dataclass(found)
    ):
        raise ValueError(f"restore: `{module}.{name}` is no class that holds data.")
    return found
