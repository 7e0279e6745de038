r"""The second derivative of a loss on many boxes at once: one rule for each primitive.

Equations run in order, each for all boxes. A box on which something cannot be told is
*undecided*: a comparison, jump or cast that may change within the closed box (or where
it touches it), an argument that is not proved inside of a domain. A primitive without a
rule stops the reading, by name.
"""

import dataclasses
from typing import Any

import numpy as np

from phihat.convexity.numbers import dtypes
from phihat.convexity.numbers import intervals as iv
from phihat.convexity.numbers.intervals import Interval
from phihat.convexity.numbers.jets import Jet, Ridge, lift
from phihat.convexity.primitives.jets import choices
from phihat.convexity.primitives.jets.affine import Outline
from phihat.convexity.primitives.jets.box_pass import Blocked, Pass
from phihat.convexity.primitives.registry import record
from phihat.convexity.primitives.values.rule_builders import wrapped
from phihat.convexity.program.form import Equation
from phihat.convexity.report import Blame

__all__ = ["Blocked", "Bounds", "second_derivatives"]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What is known of the second derivative on C boxes.

    Attributes:
      lower: Loewner bounds from below `[C, n, n]`, as `jets` defines them.
      upper: likewise from above.
      is_convex: whether the loss is convex for structural reasons `[C]`.
      is_concave: likewise.
      is_decided: where False `[C]`, nothing is known of that box.
      blame: why, for some box that is not decided.
    """

    lower: Interval
    upper: Interval
    is_convex: np.ndarray
    is_concave: np.ndarray
    is_decided: np.ndarray
    blame: Blame | None


def second_derivatives(outline: Outline, low: np.ndarray, high: np.ndarray) -> Bounds:
    """Bound the second derivative on boxes between `low` and `high` `[C, n]`.

    Raises `Blocked` where an equation has no rule, `TooLarge` where some value's
    Hessians do not fit in memory.
    """
    run = Pass(outline, Interval(low, high))
    for equation in outline.equations:
        _step(run, equation)
    loss = run.read(outline.program.output)
    if run.infinite(outline.program.output) is not None:
        raise Blocked(outline.equations[-1], "the loss is not finite")
    jet = lift(loss, run.slopes)
    cells = low.shape[0]
    lower, upper = (
        iv.rearrange(lambda end: np.broadcast_to(end, (cells, *end.shape[1:])), bound)
        for bound in (jet.lower[:, 0], jet.upper[:, 0])
    )
    return Bounds(
        lower,
        upper,
        np.broadcast_to(jet.is_convex[:, 0], cells) & run.is_decided,
        np.broadcast_to(jet.is_concave[:, 0], cells) & run.is_decided,
        run.is_decided,
        run.blame,
    )


def _step(run: Pass, equation: Equation) -> None:
    if not all(run.is_known(number) for number in equation.inputs):
        raise Blocked(equation, "an input of it holds no finite real numbers")
    if equation.primitive not in ("select_n", "max", "min"):
        for number in equation.inputs:
            if run.infinite(number) is not None:
                raise Blocked(equation, "it takes a constant that is not finite")
    rules = record(equation.primitive)
    rule = rules.jet
    is_cast = equation.primitive == "convert_element_type"
    if rules.facts is not None and dtypes.is_integer(equation.dtype) and not is_cast:
        rule = choices.settled  # a quotient of integers is not one of reals
    if rule is None:
        raise Blocked(equation, "there is no rule for its second derivative")
    with np.errstate(all="ignore"):
        results = rule(run, equation, [run.read(n) for n in equation.inputs])
    results = results if isinstance(results, list) else [results]
    results = [
        _of_dtype(equation, result, dtype)
        for result, dtype in zip(results, equation.dtypes, strict=True)
    ]
    run.values.update(zip(equation.outputs, results, strict=True))


def _of_dtype(equation: Equation, result: Ridge | Jet, dtype: Any) -> Ridge | Jet:
    """Apply the meaning of a dtype after a rule: integers that may wrap may be any."""
    if dtypes.is_float(dtype):
        return result
    if isinstance(result, Jet) or result.rows is not None:
        raise Blocked(equation, f"its {dtype} may change within the box")
    return Ridge(None, wrapped(result.value, dtype))
