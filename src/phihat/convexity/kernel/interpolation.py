# ruff: noqa: ARG001 - rules of one table share a signature
"""The kernel's theorem on linear interpolation between known points.

Example:
  >>> sorted(INTERPOLATION)
  ['interp', 'interp_extrapolated']
"""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from phihat.convexity.kernel.facts import INF, Q0, Ask, Known, Refused, normal
from phihat.convexity.kernel.values import Value, each
from phihat.convexity.program.form import Equation

__all__ = ["INTERPOLATION"]


def _interp(
    checker: Any, ask: Ask, equation: Equation, inputs: Any, shapes: Any
) -> list[Value]:
    """A polygon is convex where each knot lies below the chord of its neighbours.

    A clamped one has level ends, so that each end is a knot, too, if x may go beyond.
    """
    x, *data = inputs
    xs, ys = (v.point if v.constant else None for v in data)
    if xs is None or ys is None or xs.shape != ys.shape or not 2 <= xs.size <= 4096:
        raise Refused("an interpolation between points that are not known")
    if not (np.diff(xs) > 0).all():
        raise Refused("an interpolation between points that are not in order")
    knots = [
        (Fraction(float(a)), Fraction(float(b))) for a, b in zip(xs, ys, strict=True)
    ]
    slopes = [(d - b) / (c - a) for (a, b), (c, d) in itertools.pairwise(knots)]
    clamped = equation.primitive == "interp"
    left, right = (Q0, Q0) if clamped else (slopes[0], slopes[-1])
    pieces = [(-INF, xs[0], left)]
    pieces += [
        (a, b, s) for (a, b), s in zip(itertools.pairwise(xs), slopes, strict=True)
    ]
    pieces.append((xs[-1], INF, right))

    def rule(k: Known) -> Known:
        inside = [s for a, b, s in pieces if k.high > a and k.low < b]
        turns = [b - a for a, b in itertools.pairwise(inside)]
        up, down = min(inside, default=0) >= 0, max(inside, default=0) <= 0
        outer = [k.affine or (k.convex and up) or (k.concave and down)]
        outer.append(k.affine or (k.concave and up) or (k.convex and down))
        return normal(
            Known(
                float(ys.min()) if clamped else -INF,
                float(ys.max()) if clamped else INF,
                bool(inside) and outer[0] and all(t >= 0 for t in turns),
                bool(inside) and outer[1] and all(t <= 0 for t in turns),
                total=k.total,
                constant=k.constant,
            )
        )

    return [each(rule, [x], shapes[0])]


INTERPOLATION: dict[str, Any] = {"interp": _interp, "interp_extrapolated": _interp}
"""By the name of the atom."""
