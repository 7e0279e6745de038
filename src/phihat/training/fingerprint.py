"""What a fit is made of, as plain text, and how two such descriptions differ."""

import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import PyTree

from phihat._core import tree as _tree
from phihat._core.types import Batch
from phihat._engine.spec import FitSpec
from phihat.results import FitState
from phihat.training.array_checksums import checksums, describe_number
from phihat.training.reachable import describe_functions, name_of

__all__ = [
    "Change",
    "compare",
    "describe_code",
    "describe_fit",
    "describe_numbers",
    "describe_record",
    "describe_shapes",
    "versions",
]

_SLIGHT = ("optimizer numbers", "validation", "versions")
"""What may be meant to change: a warning tells of it."""


def describe_fit(
    spec: FitSpec, state: FitState, data: Batch, validation: Any, *, is_stream: bool
) -> dict[str, Any]:
    """Return what a fit is made of, as its checkpoints remember it."""
    step, key = spec.step, state.key
    described: dict[str, Any] = {
        "options": {
            "has_aux": str(step.has_aux),
            "key": "None" if key is None else str(jax.random.key_data(key).tolist()),
            "nonfinite": "stop" if step.stops else "continue",
            "record": describe_code(spec.record),
            "record_every": str(spec.record_every),
            "tolerance": repr(spec.tolerance),
        },
        "params": describe_shapes(state.params),
        "data": "a stream" if is_stream else describe_shapes(data),
        "validation": describe_record(validation),
        "versions": versions(),
    }
    if not is_stream:
        described["data content"] = checksums(data)
    parts = {
        "loss": step.loss_fn,
        "optimizer": step.optimizer,
        "projection": step.projection,
        "sampler": spec.sampler,
    }
    for name, part in parts.items():
        codes, values = describe_functions(part)
        described[name] = describe_code(part)
        described[f"{name} code"] = codes
        described[f"{name} numbers"] = describe_numbers(part) | values
    return described


def describe_code(code: PyTree) -> str:
    """Return the names of the functions in a tree of code, and its other constants."""
    if isinstance(code, Partial):
        parts = [describe_code(argument) for argument in code.args]
        parts += [f"{k}={describe_code(v)}" for k, v in sorted(code.keywords.items())]
        return f"{name_of(code.func)}({', '.join(parts)})"
    if isinstance(code, _tree.Static):
        value = code.value
        return name_of(value) if callable(value) else repr(value)
    if code is None or isinstance(code, (str, bool, int)):
        return repr(code)
    if jax.tree_util.all_leaves([code]):
        return "number" if _tree.is_number(code) else name_of(code)
    children = jax.tree_util.tree_flatten(code, is_leaf=lambda node: node is not code)[
        0
    ]
    inner = ", ".join(describe_code(child) for child in children)
    return f"{type(code).__name__}({inner})"


def describe_numbers(code: PyTree) -> dict[str, str]:
    """Return the numbers in a tree of code by their paths; arrays by a checksum."""
    leaves = jax.tree_util.tree_flatten_with_path(code)[0]
    return {
        jax.tree_util.keystr(path): describe_number(leaf)
        for path, leaf in leaves
        if _tree.is_number(leaf)
    }


def describe_shapes(tree: PyTree) -> dict[str, str]:
    """Return dtype and shape of every leaf by its path."""
    leaves = zip(_tree.leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    return {
        path or "the only leaf": (
            f"{jnp.result_type(leaf)}[{','.join(map(str, jnp.shape(leaf)))}]"
        )
        for path, leaf in leaves
    }


def describe_record(record: Any) -> Any:
    """Return a dataclass's fields as text: functions by name, arrays by content."""
    if record is None:
        return "None"
    found = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is None or isinstance(value, (bool, int, float, str)):
            found[field.name] = repr(value)
        elif callable(value):
            codes, values = describe_functions(value)
            found[field.name] = f"{name_of(value)} {codes} {values}"
        else:
            found[field.name] = f"of checksums {checksums(value)}"
    return found


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


# ------------------------------------------------------------------------- comparing


class Change(NamedTuple):
    """A difference between two fits.

    Attributes:
      part: of the call, such as "loss".
      sentence: what it was, and what it is.
      is_grave: it makes the sequel wrong, unless it is meant.
    """

    part: str
    sentence: str
    is_grave: bool


def compare(
    before: dict[str, Any], after: dict[str, Any], allowed: Iterable[str] = ()
) -> list[Change]:
    """Return how two fits differ."""
    old_python, new_python = (
        found.get("versions", {}).get("Python", "").split(".")[:2]
        for found in (before, after)
    )
    changes = []
    for name in sorted({*before, *after}):
        old, new = (
            _without_module_paths(before.get(name)),
            _without_module_paths(after.get(name)),
        )
        is_code = name.endswith(" code")
        # An older phihat did not tell of all; another Python compiles to other code.
        is_new = old is None and (is_code or name in ("data content", "validation"))
        if old == new or is_new or (is_code and old_python != new_python):
            continue
        is_older = name.replace("numbers", "code") not in before
        if name.endswith(" numbers") and is_older and isinstance(old, dict):
            new = {key: text for key, text in (new or {}).items() if key in old}
        for part, sentence in _differences(name, old, new):
            is_grave = name not in _SLIGHT and part not in allowed
            changes.append(Change(part, sentence, is_grave))
    return changes


def _without_module_paths(described: Any) -> Any:
    """Name functions of phihat alike, in whatever module a version keeps them."""
    if not isinstance(described, str):
        return described
    return re.sub(r"phihat\.(?:\w+\.)*_?(\w+)", r"phihat.\1", described)


def _is_same_number(one: Any, other: Any) -> bool:
    """Tell 600 from 600.0 as little as a fit does: schedules turn ints to floats."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    """Yield the part of the call, and a sentence, for every difference."""
    part = name.split()[0]
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield part, f"{name}: {old} before, {new} now."
        return
    for key in sorted({*old, *new}):
        if old.get(key) == new.get(key) or _is_same_number(old.get(key), new.get(key)):
            continue
        if name == "data content":
            yield part, f"data: the content of {key} has changed."
        elif name.endswith(" code") and key in old and key in new:
            yield part, f"{part}: the code of {key} has changed."
        else:
            was, now = old.get(key, "absent"), new.get(key, "absent")
            whose = key if name == "options" else part
            key = re.sub(r"\.\w+\[<flat index \d+>\]", "", key)  # of a Partial
            yield whose, f"{name} {key}: {was} before, {now} now."
