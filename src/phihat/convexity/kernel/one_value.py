"""The kernel on expressions that depend on the params through one value.

Example:
  >>> import jax.numpy as jnp
  >>> from phihat.convexity import prove_convexity, replay
  >>> huber = lambda u: jnp.where(jnp.abs(u) <= 1.0, 0.5 * u**2, jnp.abs(u) - 0.5)
  >>> replay(prove_convexity(huber, 0.0), huber, 0.0)
  True
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from phihat.convexity.kernel.facts import Known, Refused, normal
from phihat.convexity.kernel.pieces import PIECES, Expression, shape_of_pieces
from phihat.convexity.kernel.smooth import SMOOTH, shape_of_cells
from phihat.convexity.kernel.values import Value
from phihat.convexity.program.form import Equation

__all__ = ["of_one_value"]


def of_one_value(checker: Any, equation: Equation, output: Value) -> Value | None:
    """Read the output as a function of one value, element by element."""
    program, values = checker.program, checker.values
    n = equation.outputs[0]
    frontier, inside = {n}, []
    for _ in range(64):
        if not frontier:
            return None
        last = max(frontier)
        writer = equation if last == n else checker.writers.get(last)
        if writer is None or (
            writer.primitive not in PIECES and writer.primitive not in SMOOTH
        ):
            return None
        if jnp.issubdtype(program.dtypes[last], jnp.integer):
            return None
        inside.append(writer)
        frontier.remove(last)
        frontier |= {k for k in writer.inputs if not values[k].constant}
        if len(frontier) == 1:
            (root,) = frontier
            z = values[root]
            fits = z.shape == output.shape or z.size == 1
            if fits and all(k.convex or k.concave for k in z.knowns):
                try:
                    found = _composed(checker, inside[::-1], root, n, output)
                except Refused:
                    found = None
                if found is not None and all(
                    k.convex or k.concave for k in found.knowns
                ):
                    return found
    return None


def _composed(
    checker: Any, inside: Sequence[Equation], root: int, n: int, output: Value
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
        k = _judge(Expression(inside, root, n, constants), z.knowns[int(row[-1])])
        names.append(knowns.setdefault(k, len(knowns)))
    found = np.array(names)[which.reshape(output.shape)] if len(knowns) > 1 else None
    return Value(output.shape, tuple(knowns), found)


def _judge(e: Expression, z: Known) -> Known:
    try:
        convex, concave, rises, falls, lowest = shape_of_pieces(e, z)
    except Refused:
        convex, concave, rises, falls, lowest = shape_of_cells(e, z)
    low = -math.inf
    if lowest is not None:
        low = math.nextafter(float(lowest), -math.inf)
        low = max(low, 0.0) if lowest >= 0 else low
    up = z.affine or (z.convex and rises) or (z.concave and falls)
    down = z.affine or (z.concave and rises) or (z.convex and falls)
    return normal(
        Known(low, convex=convex and up, concave=concave and down, total=z.total)
    )
