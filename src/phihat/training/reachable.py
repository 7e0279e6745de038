"""What functions are and what they reach: code, closures, defaults, named globals."""

import dis
import functools
import sysconfig
import types
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import tree as _tree
from phihat.training.array_checksums import describe_number

__all__ = ["describe_functions", "name_of"]

_MAX_ENTRIES = 1_000


def describe_functions(code: PyTree) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the user's functions in a tree of code are, and what they hold.

    Args:
      code: functions, Partials and what they are made of.

    Returns:
      A checksum of the code of every function of the user's that can be reached, and
      the numbers and texts that functions reach through closures, defaults and the
      globals that they name: those of optax's closures too.
    """
    walk = _Walk()
    walk.visit(code, "it")
    return walk.codes, walk.values


class _Walk:
    def __init__(self) -> None:
        self.codes: dict[str, str] = {}
        self.values: dict[str, str] = {}
        self._seen: dict[int, Any] = {}

    def visit(self, value: Any, label: str) -> None:
        """Describe a value and all that it reaches."""
        if isinstance(value, types.ModuleType) or value is None:
            return
        if isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
            self._put(self.values, label, repr(value))
        elif isinstance(value, (np.ndarray, jax.Array)):
            if not isinstance(value, np.ndarray) or value.dtype.kind in "biufcV":
                self._put(self.values, label, describe_number(value))
        elif isinstance(value, type):
            self._put(self.values, label, name_of(value))
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            self._visit_object(value, label)

    def _visit_object(self, value: Any, label: str) -> None:
        if isinstance(value, _tree.Static):
            self.visit(value.value, label)
        elif isinstance(value, functools.partial):
            self.visit(value.func, label)
            name = f"a bound argument of `{_short_name(value.func)}`"
            for entry in (*value.args, *value.keywords.values()):
                # What a Partial of jax binds is on record by its path already.
                if not isinstance(value, Partial) or not _is_plain(entry):
                    self.visit(entry, name)
        elif isinstance(value, types.MethodType):
            self.visit(value.__func__, label)
            self.visit(value.__self__, f"the object of `{_short_name(value)}`")
        elif callable(getattr(value, "__wrapped__", None)):
            self.visit(value.__wrapped__, label)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, (tuple, list, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for number, (key, entry) in enumerate(items):
                if number < _MAX_ENTRIES:
                    self.visit(entry, label if callable(entry) else f"{label}[{key!r}]")
        elif not jax.tree_util.all_leaves([value]):
            for child in jax.tree.leaves(value, is_leaf=lambda node: node is not value):
                self.visit(child, label)
        else:
            self._put(self.values, label, f"of type {type(value).__qualname__}")

    def _visit_function(self, function: types.FunctionType) -> None:
        code, name = function.__code__, _short_name(function)
        is_users = not _is_installed(code.co_filename)
        if is_users:
            self._put(self.codes, f"`{name}`", _code_checksum(code, function.__doc__))
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        for variable, cell in cells:
            try:
                self.visit(cell.cell_contents, f"`{variable}` of `{name}`")
            except ValueError:  # a cell that is still empty
                continue
        for number, default in enumerate(function.__defaults__ or ()):
            self.visit(default, f"default {number} of `{name}`")
        for variable, default in (function.__kwdefaults__ or {}).items():
            self.visit(default, f"`{variable}` of `{name}`")
        if is_users:
            for variable in sorted(_names(code) & set(function.__globals__)):
                value = function.__globals__[variable]
                if not isinstance(value, type):
                    self.visit(value, f"the global `{variable}`")

    def _put(self, found: dict[str, str], label: str, text: str) -> None:
        number, name = 1, label
        while name in found:
            number += 1
            name = f"{label} ({number})"
        found[name] = text


def _is_plain(value: Any) -> bool:
    if isinstance(value, _tree.Static):
        return not callable(value.value)
    return isinstance(value, (bool, int, float, complex, str)) or _tree.is_number(value)


def _names(code: types.CodeType) -> set[str]:
    """Return the globals that some code names."""
    instructions = dis.get_instructions(code)
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    names = {str(one.argval) for one in instructions if one.opname in loads}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _code_checksum(code: types.CodeType, doc: str | None) -> str:
    """Return a checksum of what a function does, whatever line it stands on."""
    found = zlib.crc32(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            text = _code_checksum(constant, None)
        elif isinstance(constant, str) and constant == doc:
            text = ""
        elif isinstance(constant, frozenset):
            text = repr(sorted(map(repr, constant)))
        else:
            text = repr(constant)
        found = zlib.crc32(text.encode(), found)
    return f"{zlib.crc32(repr(code.co_names).encode(), found):08x}"


@functools.cache
def _is_installed(filename: str) -> bool:
    """Tell the functions of installed packages, which the versions tell of."""
    paths = sysconfig.get_paths()
    homes = [paths[name] for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    homes.append(str(Path(__file__).resolve().parents[1]))
    return filename.startswith(("<frozen", *homes))


def _short_name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def name_of(function: Any) -> str:
    """Return the module and the name of a function, or the class of an object."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        return type(function).__qualname__
    module = getattr(function, "__module__", None)
    return name if module in (None, "builtins") else f"{module}.{name}"
