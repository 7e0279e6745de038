"""What the trace asks of an equation of a jaxpr: its line, its bodies, its key."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np

from phihat._core.jaxprs import bodies, equations, primitive_name
from phihat.convexity.numbers import dtypes
from phihat.convexity.program.form import Equation, Source

__all__ = [
    "hashable_params",
    "is_of_jax",
    "live",
    "num_equations",
    "opened",
    "refused_name",
    "rounds_on_purpose",
    "source_of",
]

_COMBINERS = {
    "scatter-add": ("add", "add_any"),
    "scatter-max": ("max",),
    "scatter-min": ("min",),
    "scatter-mul": ("mul",),
    "scatter-sub": ("sub",),
}
"""What a scatter combines by: its program must be this one primitive."""

_LIBRARIES = tuple(
    os.path.dirname(str(module.__file__)).replace("\\", "/") + "/"
    for module in (jax, jaxlib)
)
_HERE = os.path.dirname(__file__).replace("\\", "/") + "/"
"""Frames under these folders are not the user's."""


def refused_name(name: str, eqn: Any) -> str | None:
    """Return another name for a primitive whose own program no rule reads.

    A scatter runs a program on what meets in one place. The rules of its five kinds
    know what that is; it is checked, as a primitive can be bound with any.
    """
    if not bodies(eqn):
        return None
    body = eqn.params.get("update_jaxpr")
    if body is not None and not eqn.params.get("update_consts"):
        jaxpr, _ = opened(body)
        old, new = jaxpr.invars
        if name == "scatter" and not jaxpr.eqns and jaxpr.outvars[0] is new:
            return None
        if len(jaxpr.eqns) == 1:
            (inner,) = jaxpr.eqns
            is_known = primitive_name(inner.primitive) in _COMBINERS.get(name, ())
            if (
                is_known
                and inner.invars == [old, new]
                and (inner.outvars == jaxpr.outvars)
            ):
                return None
    return f"{name} (of a program of its own)"


def opened(closed: Any) -> tuple[Any, Sequence[Any]]:
    """Return the jaxpr and its constants, closed or not."""
    if hasattr(closed, "jaxpr"):
        return closed.jaxpr, closed.consts
    return closed, ()


def num_equations(closed: Any) -> int:
    """Count equations, those of bodies included, loops multiplied out."""
    total = 0
    for eqn in opened(closed)[0].eqns:
        inner = sum(num_equations(body) for body in bodies(eqn))
        total += 1 + inner * eqn.params.get("length", 1)
    return total


def rounds_on_purpose(closed: Any) -> bool:
    """Tell whether a program rounds where no rule reads that as the identity.

    Casts to floats of 8 bits or fewer do, and `reduce_precision`.
    """
    return any(
        eqn.primitive.name == "reduce_precision"
        or any(dtypes.is_narrow_float(variable.aval.dtype) for variable in eqn.outvars)
        for eqn in equations(closed)
    )


def hashable_params(params: Mapping[str, Any]) -> Any:
    """Return a key of the parameters, or None where they have none."""
    try:
        key = tuple(sorted((name, typed(value)) for name, value in params.items()))
        hash(key)
    except TypeError:
        return None
    return key


def typed(value: Any) -> str:
    """Tell 1, 1.0 and True apart; reprs are total, comparisons are not."""
    if (
        hasattr(value, "eqns")
        or hasattr(value, "jaxpr")
        or isinstance(value, np.ndarray)
    ):
        raise TypeError
    return f"{type(value).__name__}:{value!r}"


def live(written: list[Equation], outputs: Sequence[int]) -> list[Equation]:
    """Keep the equations that the outputs need."""
    needed = set(outputs)
    kept = []
    for equation in reversed(written):
        if not needed.isdisjoint(equation.outputs):
            needed.update(equation.inputs)
            kept.append(equation)
    return kept[::-1]


def is_of_jax(body: Any) -> bool:
    """Whether a function with a derivative rule of its own is one of jax's."""
    debug = getattr(opened(body)[0], "debug_info", None)
    place = str(getattr(debug, "func_src_info", ""))
    return any(library in place.replace("\\", "/") for library in _LIBRARIES)


def source_of(eqn: Any, outer: Source) -> Source:
    """Return the innermost line outside jax that the equation stems from."""
    traceback = getattr(eqn.source_info, "traceback", None)
    for frame in getattr(traceback, "frames", None) or ():
        path = frame.file_name.replace("\\", "/")
        if path.startswith(_LIBRARIES):
            continue
        if path.startswith(_HERE):
            break
        return Source(path.rsplit("/", 1)[-1], frame.line_num, frame.function_name)
    return outer
