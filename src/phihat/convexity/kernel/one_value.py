"""The kernel on expressions that depend on the params through one value."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, Refused, normal
from phihat.convexity.kernel.pieces import PIECES, Expression, shape_of_pieces
from phihat.convexity.kernel.smooth import SMOOTH, shape_of_cells
from phihat.convexity.kernel.values import Value, each
from phihat.convexity.program.form import Equation

__all__ = ["of_one_value", "perspective"]


def of_one_value(checker: Any, equation: Equation, output: Value) -> Value | None:
    """Read the output as a function of one value, element by element."""
    values, n = checker.values, equation.outputs[0]
    for root, inside in _dominators(checker, n, equation):
        z = values[root]
        fits = z.shape == output.shape or z.size == 1
        if fits and all(k.convex or k.concave for k in z.knowns):
            try:
                found = _composed(checker, inside, root, n, output)
            except Refused:
                continue
            if found is not None and all(k.convex or k.concave for k in found.knowns):
                return found
    return None


def perspective(checker: Any, equation: Equation, output: Value) -> Value | None:
    """T f(x / t) for t > 0 is the perspective of f: jointly convex where f is convex.

    With f rising it rises in x, so that a convex x is as good as an affine one.
    """
    values, writers = checker.values, checker.writers
    if equation.primitive != "mul":
        return None
    for t, product in (equation.inputs, equation.inputs[::-1]):
        negation = writers.get(t)
        is_negated = negation is not None and negation.primitive == "neg"
        if negation is not None and is_negated:
            (t,) = negation.inputs
        if not all(k.affine and k.sign > 0 for k in values[t].knowns):
            continue
        for root, inside in _dominators(checker, product, writers.get(product)):
            ratio = writers.get(root)
            if ratio is None or ratio.primitive != "div" or ratio.inputs[1] != t:
                continue
            x = ratio.inputs[0]
            shapes = {tuple(values[k].shape) for k in (t, product, root, x)}
            if shapes != {tuple(output.shape)}:
                continue
            try:
                found = _composed(
                    checker, inside, root, product, values[product], values[x].known
                )
            except Refused:
                continue
            if found is not None:
                return each(_scaled_by(is_negated), [found, values[t]], output.shape)
    return None


def _scaled_by(is_negated: bool) -> Callable[[Known, Known], Known]:
    def rule(f: Known, t: Known) -> Known:
        convex, concave = (f.concave, f.convex) if is_negated else (f.convex, f.concave)
        total = f.total and t.total
        return normal(Known(convex=convex, concave=concave, total=total))

    return rule


def _dominators(
    checker: Any, n: int, equation: Equation | None = None
) -> Iterator[tuple[int, list[Equation]]]:
    """Yield values through which alone n depends on params, and what lies between."""
    frontier, inside = {n}, []
    for _ in range(64):
        last = max(frontier, default=-1)
        writer = equation if last == n else checker.writers.get(last)
        if writer is None or jnp.issubdtype(checker.program.dtypes[last], jnp.integer):
            return
        if writer.primitive not in PIECES and writer.primitive not in SMOOTH:
            return
        inside.append(writer)
        frontier.remove(last)
        frontier |= {k for k in writer.inputs if not checker.values[k].constant}
        if len(frontier) == 1:
            yield next(iter(frontier)), inside[::-1]


def _composed(
    checker: Any,
    inside: Sequence[Equation],
    root: int,
    n: int,
    output: Value,
    through: Known | None = None,
) -> Value | None:
    values = checker.values
    leaves = sorted(
        {k for e in inside for k in e.inputs if k in values and values[k].constant}
    )
    parts = [values[root], *(values[k] for k in leaves)]
    spread = []
    for v in parts[1:]:
        if v.point is None:
            return None
        spread.append(np.broadcast_to(v.point, output.shape).reshape(-1))
    z = values[root]
    places = np.zeros((), int) if z.places is None else z.places
    spread.append(np.broadcast_to(places, output.shape).reshape(-1).astype(float))
    rows, which = np.unique(np.stack(spread, 1), axis=0, return_inverse=True)
    if len(rows) > 256:
        return None
    knowns: dict[Known, int] = {}
    names = []
    for row in rows:
        constants = dict(zip(leaves, map(float, row[:-1]), strict=True))
        e = Expression(inside, root, n, constants)
        k = _judge(e, z.knowns[int(row[-1])], through)
        names.append(knowns.setdefault(k, len(knowns)))
    found = np.array(names)[which.reshape(output.shape)] if len(knowns) > 1 else None
    return Value(output.shape, tuple(knowns), found)


def _judge(e: Expression, z: Known, through: Known | None = None) -> Known:
    """Judge a function on the range of z, composed with z or with something else."""
    try:
        convex, concave, rises, falls, lowest = shape_of_pieces(e, z)
    except Refused:
        convex, concave, rises, falls, lowest = shape_of_cells(e, z)
    z = through or z
    low = -math.inf
    if lowest is not None:
        low = math.nextafter(float(lowest), -math.inf)
        low = max(low, 0.0) if lowest >= 0 else low
    up = z.affine or (z.convex and rises) or (z.concave and falls)
    down = z.affine or (z.concave and rises) or (z.convex and falls)
    return normal(
        Known(low, convex=convex and up, concave=concave and down, total=z.total)
    )
