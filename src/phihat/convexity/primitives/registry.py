"""One record for each primitive: what every part of the package knows of it.

The pages that fill the table are `arithmetic`, `functions`, `logic`, `data_movement`,
`reductions` and `linear_algebra`. A name stands for one object: `_core/jaxprs.py` gives
it to jax's own primitive alone, and the trace to the atoms that it recognises. What has
no record, or lacks a rule in it, is undecided by that name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = ["PRIMITIVES", "Primitive", "record"]


@dataclasses.dataclass(frozen=True)
class Primitive:
    """The rules of one primitive; None where there is none.

    No rule has to think of the dtype: the one dispatcher of each kind applies it to
    what the rule returns, so that an integer that may wrap may be any of its dtype.

    Attributes:
      facts: `(call, *facts) -> facts` of one element; the prover's.
      facts_of_arrays: `(interpreter, equation, arrays) -> arrays`, for what looks at
        several elements at once; it goes before `facts`.
      value: `(equation, ranges) -> ranges`, or None where it cannot tell; the rigorous
        value in intervals.
      jet: `(pass, equation, jets) -> jets`; the box certifier's second derivative.
      rounding: how far the floats of a program may be from the value of such floats: in
        ulps of the result, or `(equation, ranges, result) -> bound` in units of
        rounding; None where no bound is known.
      exact: `(equation, piece, *polynomials) -> polynomial`, of one variable, over
        fractions: see `exact.py`.
      lost: why curvature is lost here, for the blame; `{what}` names the operands.
    """

    facts: Callable[..., Any] | None = None
    value: Callable[..., Any] | None = None
    jet: Callable[..., Any] | None = None
    rounding: float | Callable[..., Any] | None = None
    exact: Callable[..., Any] | None = None
    facts_of_arrays: Callable[..., Any] | None = None
    lost: str = "no rule makes it convex or concave, of {what}"


PRIMITIVES: dict[str, Primitive] = {}
"""The records, by the name of the primitive or of the atom."""

_NONE = Primitive()


def record(name: str) -> Primitive:
    """Return the record of a primitive; one without rules where there is none."""
    return PRIMITIVES.get(name, _NONE)
