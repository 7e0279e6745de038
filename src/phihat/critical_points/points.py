"""A list of critical points, and whether it can be complete."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from phihat._core import pictures as _pictures
from phihat.critical_points.classification import CriticalPoint, CriticalPointKind

__all__ = ["CriticalPoints", "WindingCheck"]


class WindingCheck(NamedTuple):
    """A check by winding numbers that no critical point in a box is missing.

    Attributes:
      box: the winding number of the gradient round the box; None where the gradient
        vanishes on the border or cannot be followed.
      points: the sum over the points found (minima and maxima +1, saddles -1,
        degenerate ones as they turn); None where one of them is not isolated.
      agrees: whether both are known and equal. Then the list can be complete; pairs
        that cancel, a saddle and an extremum, could still be missing together.
    """

    box: int | None
    points: int | None
    agrees: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CriticalPoints(CriticalPoint):
    """Critical points, stacked: every field of `CriticalPoint` has a leading axis [N].

    Attributes:
      num_merged: for how many points each stands [N]: 1 where it is isolated, more
        where it is one of a flat set or a valley's floor.
      winding: the check of completeness; None unless there are two params.
    """

    num_merged: Int[Array, " N"]
    winding: WindingCheck | None = dataclasses.field(metadata={"static": True})

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.kind)

    def __getitem__(self, position: int) -> CriticalPoint:
        """Return one of them."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"There are {len(self)} critical points, not {position}.")
        row = lambda leaf: leaf[position]  # noqa: E731
        fields = [field.name for field in dataclasses.fields(CriticalPoint)]
        return CriticalPoint(
            **{name: jax.tree.map(row, getattr(self, name)) for name in fields}
        )

    def __iter__(self) -> Iterator[CriticalPoint]:
        """Go through them in the order of their losses."""
        return (self[position] for position in range(len(self)))

    @property
    def summary(self) -> str:
        """How many of each kind, and whether the winding number agrees."""
        kinds = [int(kind) for kind in np.asarray(self.kind)]
        counted = [
            f"{kinds.count(kind)} {one if kinds.count(kind) == 1 else many}"
            for kind, one, many in (
                (CriticalPointKind.MINIMUM, "minimum", "minima"),
                (CriticalPointKind.SADDLE, "saddle", "saddles"),
                (CriticalPointKind.MAXIMUM, "maximum", "maxima"),
                (CriticalPointKind.DEGENERATE, "degenerate", "degenerate"),
            )
            if kind in kinds
        ]
        plural = "" if len(kinds) == 1 else "s"
        text = f"{len(kinds)} critical point{plural}: {', '.join(counted) or 'none'}"
        merged = int(np.sum(np.asarray(self.num_merged) > 1))
        if merged:
            text += f"; {merged} of them a flat set, not a point"
        if self.winding is None:
            return text
        box, points, agrees = self.winding
        if agrees:
            return f"{text}; the winding number agrees ({box})"
        return (
            f"{text}; the winding number round the box is {_known(box)}, by the points "
            f"{_known(points)}: it does not confirm that they are all"
        )

    def plot(self, *, axes: Any = None) -> Any:
        """Mark the points by their kind, by `phihat.plot.critical_points`."""
        return _pictures.draw("critical_points", self, axes=axes)

    def __repr__(self) -> str:
        """Show the summary and a line for each of the first twenty."""
        lines = [f"CriticalPoints({self.summary}"]
        lines += [f"  {point!r}" for point, _ in zip(self, range(20), strict=False)]
        lines += [f"  and {len(self) - 20} more"] if len(self) > 20 else []
        return "\n".join(lines) + ")"


def _known(number: int | None) -> str:
    return "undefined" if number is None else str(number)
