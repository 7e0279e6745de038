"""The digest of a statement: a proof of one is accepted for no other."""

import hashlib
from typing import Any

import jax
import numpy as np

from phihat._core import tree as _tree
from phihat.convexity.program.form import Program

__all__ = ["digest_of", "text_of_array"]


def digest_of(*parts: Any) -> str:
    """Hash what a statement consists of, alike in each process.

    Args:
      *parts: programs, arrays, and whatever else is told apart by how it is shown.
        Arrays count with all of their elements, and loops with their bodies.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (jax.__version__, *parts):
        digest.update(_text(part).encode())
        digest.update(b";")
    return digest.hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, Program):
        return _text(
            [
                [(e.primitive, e.inputs, e.outputs, e.params) for e in value.equations],
                (value.shapes, value.dtypes, value.outputs, value.assumptions),
                value.constants,
            ]
        )
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        return _text_of_jaxpr(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return text_of_array(value)
    if isinstance(value, dict):
        shown = {key: entry for key, entry in value.items() if not callable(entry)}
        return _text(sorted((str(key), _text(shown[key])) for key in shown))
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}[{', '.join(map(_text, value))}]"
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


def _text_of_jaxpr(closed: Any) -> str:
    """Write a jaxpr down, its variables numbered in the order of their appearance."""
    jaxpr, numbers = getattr(closed, "jaxpr", closed), {}

    def show(variable: Any) -> Any:
        if hasattr(variable, "val"):
            return variable.val
        return numbers.setdefault(variable, len(numbers)), str(variable.aval)

    lines: list[Any] = [list(map(show, (*jaxpr.constvars, *jaxpr.invars)))]
    lines += [
        (
            str(eqn.primitive),
            list(map(show, eqn.invars)),
            list(map(show, eqn.outvars)),
            dict(eqn.params),
        )
        for eqn in jaxpr.eqns
    ]
    return _text([getattr(closed, "consts", ()), lines, list(map(show, jaxpr.outvars))])


def text_of_array(value: Any) -> str:
    """Write down the dtype, the shape and a digest of all numbers, or keys."""
    array = np.asarray(jax.random.key_data(value) if _tree.is_key(value) else value)
    numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # no copy
    return f"{array.dtype}{array.shape}{hashlib.blake2b(numbers.data).hexdigest()}"
