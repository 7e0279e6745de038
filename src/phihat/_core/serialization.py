"""The structure of a pytree as plain JSON, so that a file tells what it holds.

Dicts, lists, tuples, None, named tuples and dataclasses whose fields are their children
can be rebuilt from what is written. Of any other node (an Equinox module, a node of the
user's) the children alone are written, and a tree like it is needed to rebuild it.

Nothing is imported by a name in a file, and nothing of a class is called: a class is
looked up in a table of those of the installed phihat and optax, and of those that the
caller gives, and its fields are put into a blank instance.
"""

import collections
import dataclasses
import functools
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

__all__ = ["UnknownClass", "check_classes", "describe", "rebuild"]

_KEYS = (str, int, float, bool)
_MAPPINGS = {"dict": dict, "OrderedDict": collections.OrderedDict}
_NOT_DATA = ("_tour", "plot", "__main__")
"""Parts of phihat that define no class of arrays, and are slow to import."""


class UnknownClass(ValueError):
    """A description names a class that neither the table nor the caller knows."""


# ------------------------------------------------------------------------ describing


def describe(tree: PyTree) -> tuple[Any, list[Any]]:
    """Return a tree's structure as JSON, and its leaves in the order of jax."""
    leaves: list[Any] = []
    return _describe(tree, leaves), leaves


def _describe(node: Any, leaves: list[Any]) -> Any:
    if node is None:
        return None
    if jax.tree_util.all_leaves([node]):
        leaves.append(node)
        return "leaf"
    if type(node) in (dict, collections.OrderedDict):
        return _describe_mapping(node, leaves)
    if type(node) in (list, tuple):
        kind = type(node).__name__
        return {kind: [_describe(entry, leaves) for entry in node]}
    return _describe_fields(node, leaves) or _describe_children(node, leaves)


def _describe_mapping(node: dict[Any, Any], leaves: list[Any]) -> Any:
    if type(node) is dict and all(type(key) is str for key in node):
        return {"dict": {key: _describe(node[key], leaves) for key in sorted(node)}}
    if not all(type(key) in _KEYS for key in node):
        return _describe_children(node, leaves)
    keys = sorted(node) if type(node) is dict else list(node)
    items = [[key, _describe(node[key], leaves)] for key in keys]
    return {"items": [type(node).__name__, items]}


def _describe_fields(node: Any, leaves: list[Any]) -> Any:
    """Describe a class by its fields, or return None where its children are others."""
    if isinstance(node, tuple) and (names := getattr(node, "_fields", None)):
        fields = {name: getattr(node, name) for name in names}
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        fields = {}
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        # As they are kept: a class may show its fields in another form.
        read = functools.partial(object.__getattribute__, node)
        fields = {f.name: read(f.name) for f in dataclasses.fields(node)}
    else:
        return None
    found: list[Any] = []
    described = {name: _describe_field(fields[name], found) for name in fields}
    expected = jax.tree.leaves(node)
    if len(found) != len(expected) or any(
        one is not other for one, other in zip(found, expected, strict=True)
    ):
        return None
    leaves.extend(found)
    return {"class": [*_name(node), described]}


def _describe_field(value: Any, leaves: list[Any]) -> Any:
    """Describe a field of a class: texts are no leaves of arrays."""
    if isinstance(value, str) or (
        isinstance(value, tuple)
        and value
        and all(isinstance(entry, str) for entry in value)
    ):
        return {"text": value}
    return _describe(value, leaves)


def _describe_children(node: Any, leaves: list[Any]) -> Any:
    children = jax.tree.leaves(node, is_leaf=lambda inner: inner is not node)
    return {"node": [*_name(node), [_describe(child, leaves) for child in children]]}


def _name(node: Any) -> tuple[str, str]:
    return type(node).__module__, type(node).__qualname__


# ------------------------------------------------------------------------ rebuilding


def check_classes(call: str, classes: Any) -> tuple[type, ...]:
    """Return the caller's classes, each of them one that holds data by its fields."""
    if isinstance(classes, type):
        classes = (classes,)
    if not isinstance(classes, Iterable):
        raise TypeError(f"{call}: `classes` must be a list of classes, got {classes}.")
    classes = tuple(classes)
    for found in classes:
        if not _holds_data(found):
            raise TypeError(
                f"{call}: `classes` must be named tuples or dataclasses, got {found}; "
                "a tree of other nodes is restored by `like=`."
            )
    return classes


def rebuild(
    description: Any, leaves: Sequence[Any], classes: Iterable[type] = ()
) -> PyTree:
    """Put leaves into the structure that `describe` described."""
    given = {found.__qualname__: found for found in classes}
    rest = iter(leaves)
    try:
        tree = _rebuild(description, rest, given)
    except UnknownClass:
        raise
    except (StopIteration, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError("the description of the tree is damaged") from error
    except RecursionError as error:
        raise ValueError("the description of the tree is nested too deeply") from error
    if next(rest, rest) is not rest:
        raise ValueError("the description of the tree has fewer leaves than the file")
    return tree


def _rebuild(description: Any, leaves: Iterator[Any], given: dict[str, type]) -> Any:
    if description is None:
        return None
    if description == "leaf":
        return next(leaves)
    ((kind, content),) = description.items()
    if kind == "dict":
        return {key: _rebuild(value, leaves, given) for key, value in content.items()}
    if kind == "items":
        name, items = content
        pairs = [(key, _rebuild(value, leaves, given)) for key, value in items]
        return _MAPPINGS[name](pairs)
    if kind in ("list", "tuple"):
        entries = [_rebuild(entry, leaves, given) for entry in content]
        return entries if kind == "list" else tuple(entries)
    if kind == "text":
        return _as_text(content)
    module, name, inner = content
    if kind == "node":
        raise UnknownClass(
            f"its node `{name}` of {module} is rebuilt only from a tree like it: pass "
            "`like=`"
        )
    if kind != "class":
        raise KeyError(kind)
    found = _find(module, name, given)
    parts = {key: _rebuild(value, leaves, given) for key, value in inner.items()}
    return _fill(found, parts)


def _as_text(content: Any) -> str | tuple[str, ...]:
    entries = content if isinstance(content, list) else [content]
    if not all(isinstance(entry, str) for entry in entries):
        raise TypeError(content)
    return tuple(entries) if isinstance(content, list) else content


def _find(module: str, name: str, given: dict[str, type]) -> type:
    """Look a class up; the caller's go first, whatever module they are in now."""
    if name in given:
        return given[name]
    found = _known_classes().get((module, name))
    if found is None and str(module).split(".")[0] == "phihat":
        # It may have moved since: by its name, where that belongs to one class.
        alike = {c for (_, n), c in _known_classes().items() if n == name}
        found = alike.pop() if len(alike) == 1 else None
    if found is None:
        raise UnknownClass(
            f"its class `{name}` of {module} is none of phihat, optax or the standard "
            f"containers: pass `classes=[{name}]`, or a tree like it as `like=`"
        )
    return found


def _fill(found: type, parts: dict[str, Any]) -> Any:
    """Put fields into a blank instance; no code of the class runs."""
    if issubclass(found, tuple):
        names: Sequence[str] = found._fields  # type: ignore[attr-defined]
        defaults = getattr(found, "_field_defaults", {})
    else:
        fields = dataclasses.fields(found)  # type: ignore[arg-type]
        names = [field.name for field in fields]
        defaults = {
            field.name: field.default
            for field in fields
            if field.default is not dataclasses.MISSING
        }
    more = sorted(set(parts) - set(names))
    fewer = sorted(set(names) - set(parts) - set(defaults))
    if more or fewer:
        changes = [f"{n} is gone" for n in more] + [f"{n} is new" for n in fewer]
        raise UnknownClass(
            f"its class `{found.__qualname__}` was written with other fields ("
            f"{', '.join(changes)}); read it with the version that wrote it"
        )
    values = {name: parts.get(name, defaults.get(name)) for name in names}
    if issubclass(found, tuple):
        return tuple.__new__(found, values.values())
    blank = object.__new__(found)
    for name, value in values.items():
        object.__setattr__(blank, name, value)
    return blank


def _holds_data(found: Any) -> bool:
    if not isinstance(found, type):
        return False
    is_named_tuple = issubclass(found, tuple) and hasattr(found, "_fields")
    return is_named_tuple or dataclasses.is_dataclass(found)


@functools.cache
def _known_classes() -> dict[tuple[str, str], type]:
    """Return the classes of data of the installed phihat and optax, by their names."""
    import optax
    import optax.contrib

    for entry in pkgutil.walk_packages(sys.modules["phihat"].__path__, "phihat."):
        if entry.name.split(".")[1] not in _NOT_DATA:
            importlib.import_module(entry.name)
    del optax
    return {
        (value.__module__, value.__qualname__): value
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("phihat", "optax")
        for value in list(vars(module).values())
        if _holds_data(value) and value.__module__.split(".")[0] in ("phihat", "optax")
    }
