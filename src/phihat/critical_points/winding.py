"""How often the gradient turns round as one walks round a region of the plane.

The winding number counts what is inside: minima and maxima +1 each, saddles -1, by the
theorem of Poincaré and Hopf. So it tells whether a list of critical points can be
complete.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["circle", "square", "winding_number"]

_LARGEST_TURN = np.pi / 4
_MAX_HALVINGS = 45
_MAX_INTERVALS = 100_000


def winding_number(
    gradient_fn: Callable[[Any], Any], curve: Callable[[Any], Any]
) -> int | None:
    """Count the turns of a plane vector field along a closed curve.

    An interval of the curve is halved until the field at its middle is near the mean
    of its ends, by half of the least of the three, and turns by less than an eighth of
    a circle in each half. So zeros close to the curve are seen, those of even order
    included, about which the field turns back to where it was.

    Args:
      gradient_fn: the field, `[N, 2] -> [N, 2]`.
      curve: `[N] -> [N, 2]`, counterclockwise as its argument goes from 0 to 1.

    Returns:
      The winding number; None where the field vanishes or is not finite on the curve,
      or turns too fast to be followed.
    """
    places = np.linspace(0.0, 1.0, 513)
    field = _field(gradient_fn, curve, places)
    left, right = places[:-1], places[1:]
    left_field, right_field = field[:-1], field[1:]
    total = 0.0
    for _ in range(_MAX_HALVINGS):
        middle = 0.5 * (left + right)
        middle_field = _field(gradient_fn, curve, middle)
        least = np.minimum(abs(left_field), abs(right_field))
        least = np.minimum(least, abs(middle_field))
        bend = abs(middle_field - 0.5 * (left_field + right_field))
        first = _turn(left_field, middle_field)
        second = _turn(middle_field, right_field)
        turn = np.maximum(abs(first), abs(second))
        if not (least > 0).all() or left.size > _MAX_INTERVALS:
            return None  # zero or NaN on the curve, or too wild to be followed
        done = (bend <= 0.5 * least) & (turn <= _LARGEST_TURN)
        total += float(np.sum((first + second)[done]))
        if done.all():
            return round(total / (2 * np.pi))
        left, middle, right = left[~done], middle[~done], right[~done]
        ends = left_field[~done], middle_field[~done], right_field[~done]
        left, right = np.append(left, middle), np.append(middle, right)
        left_field = np.append(ends[0], ends[1])
        right_field = np.append(ends[1], ends[2])
    return None


def circle(center: Any, radius: float) -> Callable[[Any], Any]:
    """Return a circle as a curve for `winding_number`."""
    center = np.asarray(center)

    def curve(places: Any) -> Any:
        angle = 2 * np.pi * places
        return center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    return curve


def square(margin: float) -> Callable[[Any], Any]:
    """Return the border of the unit square, wider by `margin` on every side."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float)
    corners = corners * (1 + 2 * margin) - margin

    def curve(places: Any) -> Any:
        side = np.minimum((4 * places).astype(int), 3)
        share = (4 * places - side)[:, None]
        return (1 - share) * corners[side] + share * corners[side + 1]

    return curve


def _field(
    gradient_fn: Callable[[Any], Any], curve: Callable[[Any], Any], places: Any
) -> Any:
    """Return the field on the curve as complex numbers."""
    field = np.asarray(gradient_fn(curve(places)), np.float64)
    return field[:, 0] + 1j * field[:, 1]


def _turn(before: Any, after: Any) -> Any:
    """Return the angle from one to the other, at most half a circle either way."""
    angle = np.angle(after) - np.angle(before)
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))
