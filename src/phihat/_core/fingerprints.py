"""What a function is, so that equal functions share a compiled program.

Two functions are equal where their code is, and their defaults, and all that they reach
through closure cells and through the globals that they name. Numbers, text and small
NumPy arrays are compared by content, containers by what is in them, functions of the
user's in the same way; jax arrays, modules, classes and functions of a library by
identity. So a notebook cell that is run again gives equal functions, and one whose
globals have changed does not. State in other objects, such as attributes, is not seen:
those objects are compared by identity, or by their own equality if they define it.
"""

import dis
import enum
import functools
import sys
import sysconfig
import types
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import tree as _tree
from phihat._core.stores import Store

__all__ = ["Description", "clear", "describe", "hides_no_tracers"]

_SMALL_ARRAY = 2**16
"""Bytes up to which a NumPy array is compared by content."""

_MAX_ENTRIES = 10_000
"""Entries up to which a container is compared by content."""

_MAX_CODES = 4096


class Description(NamedTuple):
    """A tree of code, described.

    Attributes:
      key: equal for equal code, hashable; keeps alive what it compares by identity.
      numbers: the leaves that are data, in order.
      num_bytes: of the arrays that functions close over.
      large_arrays: names and sizes of large NumPy arrays among those.
    """

    key: Hashable
    numbers: list[Any]
    num_bytes: int
    large_arrays: list[tuple[str, int]]


class _Identity:
    """Equal only for the same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _FunctionPlace(NamedTuple):
    """Stands for a function in the structure of a tree of code."""

    number: int

    def __call__(self) -> None:
        """A Partial wants a callable."""


class _Search:
    """What was met on the way through the functions of a tree."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.num_bytes = 0
        self.large_arrays: list[tuple[str, int]] = []
        self.has_tracers = False
        self.has_unknown = False


def describe(code: PyTree) -> Description:
    """Describe a tree of Partials, optimizers, flags and numbers."""
    split_key, numbers = _tree.split(code)
    outline = _outlines.get(split_key)
    is_new = outline is None
    if outline is None:
        found: list[Any] = []
        structure = _tree.split(_without_functions(code, found))[0]
        outline = structure, tuple(found)
    structure, functions = outline
    findings = _Search()
    tokens = tuple(_token(function, findings, "") for function in functions)
    if is_new:
        _outlines.put(split_key, outline, findings.num_bytes)
    key = (structure, tokens)
    return Description(key, numbers, findings.num_bytes, findings.large_arrays)


def hides_no_tracers(code: PyTree) -> bool:
    """Tell whether no function in a tree of code can hold a tracer in its closure."""
    functions: list[Any] = []
    _without_functions(code, functions)
    findings = _Search()
    for function in functions:
        _token(function, findings, "")
    return not (findings.has_tracers or findings.has_unknown)


def clear() -> None:
    """Forget all functions."""
    _outlines.clear()
    _codes.clear()
    _interned.clear()


_outlines = Store()
"""By structure: the structure with numbered places for its functions, and those."""


def _without_functions(tree: PyTree, functions: list[Any]) -> PyTree:
    """Replace every function by a numbered place; list the functions in order."""

    def place(function: Any) -> _FunctionPlace:
        functions.append(function)
        return _FunctionPlace(len(functions) - 1)

    def replace(node: Any) -> Any:
        if isinstance(node, Partial):
            func = place(node.func)
            args, keywords = _without_functions((node.args, node.keywords), functions)
            return Partial(func, *args, **keywords)
        if isinstance(node, _tree.Static):
            return _tree.Static(place(node.value)) if callable(node.value) else node
        return place(node) if callable(node) and not _tree.is_number(node) else node

    is_node = lambda node: isinstance(node, (Partial, _tree.Static))  # noqa: E731
    return jax.tree.map(replace, tree, is_leaf=is_node)


# --------------------------------------------------------------------------- tokens


def _token(value: Any, findings: _Search, name: str) -> Hashable:
    """Return what stands for a value in a key."""
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes, type(...)):
        return (kind, value)
    if kind is float:
        return (kind, value.hex())
    if kind is complex:
        return (kind, value.real.hex(), value.imag.hex())
    if isinstance(value, jax.core.Tracer):
        findings.has_tracers = True
        return _Identity(value)
    if isinstance(value, jax.Array):
        findings.num_bytes += value.size * getattr(value.dtype, "itemsize", 8)
        return _Identity(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _array_token(value, findings, name)
    if isinstance(value, (types.ModuleType, type, np.dtype, enum.Enum)):
        return _Identity(value)
    if kind in (tuple, list, set, frozenset, dict) or isinstance(value, tuple):
        return _container_token(value, findings, name)
    return _function_token(value, findings, name)


def _array_token(value: Any, findings: _Search, name: str) -> Hashable:
    if value.dtype.hasobject:
        findings.has_unknown = True
        return _Identity(value)
    findings.num_bytes += value.nbytes
    if value.nbytes <= _SMALL_ARRAY:
        return (type(value), value.dtype.str, value.shape, value.tobytes())
    findings.large_arrays.append((name or "an argument", value.nbytes))
    return _Identity(value)


def _container_token(value: Any, findings: _Search, name: str) -> Hashable:
    if id(value) in findings.seen:
        return ("seen", findings.seen[id(value)])
    findings.seen[id(value)] = len(findings.seen)
    if len(value) > _MAX_ENTRIES:  # to look at them all would cost too much
        findings.has_unknown = True
        return _Identity(value)
    if isinstance(value, dict):
        items = [(_token(key, findings, name), key) for key in value]
        entries = tuple((key, _token(value[k], findings, str(k))) for key, k in items)
    elif isinstance(value, (set, frozenset)):
        entries = frozenset(_token(entry, findings, name) for entry in value)
    else:
        entries = tuple(_token(entry, findings, name) for entry in value)
    return (type(value), entries)


def _function_token(value: Any, findings: _Search, name: str) -> Hashable:
    if isinstance(value, types.FunctionType):
        return _plain_function_token(value, findings)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return (type(value), *(_token(part, findings, name) for part in parts))
    if isinstance(value, types.MethodType):
        bound = _token(value.__self__, findings, name)
        return ("method", bound, _token(value.__func__, findings, name))
    if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        return _Identity(value)
    parts = _wrapped_parts(value)
    if parts is not None:
        tokens = tuple(_token(part, findings, name) for part in parts)
        return (type(value), tokens)
    if _is_of_library(type(value)) and _tree.is_module_level(value):
        return _Identity(value)
    findings.has_unknown = True
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return (type(value), value)


def _wrapped_parts(value: Any) -> list[Any] | None:
    """Return the functions inside a jitted function, or one with a rule of its own."""
    if type(value).__module__.split(".")[0] not in ("jax", "jaxlib"):
        return None
    names = ("__wrapped__", "fun", "jvp", "fwd", "bwd")
    parts = [getattr(value, name, None) for name in names]
    return parts if any(part is not None for part in parts) else None


def _plain_function_token(function: Any, findings: _Search) -> Hashable:
    if id(function) in findings.seen:
        return ("seen", findings.seen[id(function)])
    is_foreign = _is_of_library(function)
    if is_foreign and _tree.is_module_level(function):
        return _Identity(function)
    findings.seen[id(function)] = len(findings.seen)
    code = _read_code(function.__code__)
    parts: list[Hashable] = [code]
    parts.append(_token(function.__defaults__, findings, "a default"))
    parts.append(_token(function.__kwdefaults__, findings, "a default"))
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            parts.append(_token(cell.cell_contents, findings, name))
        except ValueError:  # not filled yet
            parts.append("empty")
    # A library's own globals do not change under its functions.
    for name in () if is_foreign else code.global_names:
        if name in function.__globals__:
            parts.append((name, _token(function.__globals__[name], findings, name)))
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        parts.append(_token(wrapped, findings, ""))
    return tuple(parts)


# ----------------------------------------------------------------------------- code


class _Code:
    """The code of a function, one object for equal code."""

    __slots__ = ("global_names", "parts")

    def __init__(self, parts: Hashable, global_names: tuple[str, ...]) -> None:
        self.parts = parts
        self.global_names = global_names


_codes: dict[types.CodeType, _Code] = {}
_interned: dict[Hashable, _Code] = {}


def _read_code(code: types.CodeType) -> _Code:
    """Read code without what says where it was written."""
    found = _codes.get(code)
    if found is None:
        parts = _code_parts(code)
        found = _interned.setdefault(parts, _Code(parts, _global_names(code)))
        if len(_codes) >= _MAX_CODES:
            _codes.clear()
        _codes[code] = found
    return found


def _code_parts(code: types.CodeType) -> Hashable:
    constants = tuple(
        _code_parts(constant)
        if isinstance(constant, types.CodeType)
        else _constant_parts(constant)
        for constant in code.co_consts
    )
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, constants, names, counts, code.co_flags)


def _constant_parts(constant: Any) -> Hashable:
    """Tell 1 from True and 0.0 from -0.0, also inside tuples."""
    if isinstance(constant, (tuple, frozenset)):
        kind = type(constant)
        return (kind, kind(_constant_parts(entry) for entry in constant))
    return (type(constant), repr(constant))


def _global_names(code: types.CodeType) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_iterate_global_names(code)))


def _iterate_global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _iterate_global_names(constant)


# ---------------------------------------------------------------------- whose it is


def _is_of_library(value: Any) -> bool:
    return _is_library(getattr(value, "__module__", None) or "")


@functools.cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(name) for name in names})


@functools.lru_cache(maxsize=4096)
def _is_library(module: str) -> bool:
    """Tell a module of phihat, Python or a package from one of the user's."""
    first = module.split(".")[0]
    if first == "phihat" or first in sys.builtin_module_names:
        return True
    if first in ("", "__main__"):
        return False
    path: Any = getattr(sys.modules.get(module), "__file__", None)
    return path is not None and path.startswith(_library_folders())
