"""The determinant test of convexity beside the right one, on a grid of two params.

"A loss is convex if the determinant of its Hessian is positive everywhere" is heard
often and is wrong: the determinant is the product of the eigenvalues, so two negative
ones pass. The right test is that no eigenvalue is negative, everywhere on a convex set.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from phihat import products
from phihat._core import calls as _calls
from phihat._core import checks as _checks
from phihat._core import pictures as _pictures
from phihat._core import programs as _programs
from phihat._core import tree as _tree
from phihat._core.programs import Mode
from phihat._core.types import Batch, Box, LossFn
from phihat.curvature.boxes import flat_box

__all__ = ["ConvexityMap", "convexity_map"]


class ConvexityMap(NamedTuple):
    """Both tests at every point of a grid: the data of a picture.

    Attributes:
      first: values of the first param [A].
      second: values of the second param [B].
      determinant: of the Hessian [A, B].
      smallest_eigenvalue: of the Hessian [A, B].
      largest_eigenvalue: of the Hessian [A, B].
    """

    first: Float[Array, " A"]
    second: Float[Array, " B"]
    determinant: Float[Array, "A B"]
    smallest_eigenvalue: Float[Array, "A B"]
    largest_eigenvalue: Float[Array, "A B"]

    @property
    def passes_determinant(self) -> Bool[Array, "A B"]:
        """Where the determinant is positive, which shows nothing by itself."""
        return self.determinant > 0

    @property
    def passes_eigenvalues(self) -> Bool[Array, "A B"]:
        """Where no eigenvalue is negative, so the loss curves down nowhere."""
        return self.smallest_eigenvalue >= 0

    @property
    def is_misleading(self) -> Bool[Array, "A B"]:
        """Where the determinant is positive and the Hessian negative definite."""
        return self.passes_determinant & (self.largest_eigenvalue < 0)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the grid's points of each kind; they add up to 1."""
        positive = np.mean(self.passes_determinant & (self.smallest_eigenvalue > 0))
        misleading = np.mean(self.is_misleading)
        return {
            "positive definite": float(positive),
            "negative definite, determinant > 0": float(misleading),
            "indefinite or singular": float(1 - positive - misleading),
        }

    @property
    def text(self) -> str:
        """What the two tests say on this grid, and why the first misleads."""
        determinant = 100 * float(np.mean(self.passes_determinant))
        eigenvalue = 100 * float(np.mean(self.passes_eigenvalues))
        misleading = 100 * float(np.mean(self.is_misleading))
        verdict = (
            "no point of the grid shows that the loss is not convex (which is no proof)"
            if bool(np.all(self.passes_eigenvalues))
            else "so the loss is not convex on this box"
        )
        return (
            f"The determinant of the Hessian is positive at {determinant:.1f} % of "
            f"{self.determinant.size:,} points; no eigenvalue is negative at "
            f"{eigenvalue:.1f} %: {verdict}. The determinant misleads at "
            f"{misleading:.1f} %: there both eigenvalues are negative, the loss curves "
            "down in every direction, and the product of two negative numbers is "
            "positive. Decide by the smallest eigenvalue."
        )

    def plot(self, *, axes: Any = None) -> Any:
        """Draw both tests side by side, by `phihat.plot.convexity_map`."""
        return _pictures.draw("convexity_map", self, axes=axes)

    def __repr__(self) -> str:
        """Show the text: five arrays would show nothing."""
        return f"ConvexityMap({self.text})"


@_calls.public
def convexity_map(
    loss_fn: LossFn,
    box: Box,
    data: Batch = None,
    *,
    shape: tuple[int, int] = (201, 201),
) -> ConvexityMap:
    """Evaluate the determinant test and the eigenvalue test on a grid over two params.

    Args:
      loss_fn: `(params, data) -> []`, or `(params) -> []` where `data` is None.
      box: the region, bounded, with two coordinates in all, in any pytree.
      data: handed to `loss_fn`.
      shape: points along the first and the second coordinate, each >= 2.

    Raises:
      TypeError: `box` is not a Box; a loss that still wants a key.
      ValueError: another number of coordinates than two; low >= high; an infinite end;
        a loss that is not a scalar.

    Example:
      >>> from phihat import problems
      >>> problem = problems.gabor(envelope_width=4.0)
      >>> result = convexity_map(problem.loss_fn, Box([-10.0, 2.5], [10.0, 22.5]))
      >>> print(round(result.shares["negative definite, determinant > 0"], 2))
      0.22
    """
    call = "convexity_map"
    size = flat_box(call, box)[0].size
    if size != 2:
        raise ValueError(
            f"{call}: `box` must have two coordinates in all, got {size}; fix the "
            "other params inside the loss."
        )
    for number in shape:
        _checks.check_count(call, "shape", number, 2)
    code = _tree.as_partial(loss_fn, call, "loss_fn")
    return _programs.call(_map, code, tuple(map(int, shape)), box, data)


def _map(
    loss_fn: LossFn,
    shape: tuple[int, int],
    mode: Mode,
    box: Box,
    data: Any,
) -> ConvexityMap:
    del mode
    low, high, unflatten = flat_box("convexity_map", box)
    scalar_fn = products.bind(loss_fn, unflatten(low), data, call="convexity_map")
    hessian_fn = jax.hessian(lambda flat: scalar_fn(unflatten(flat)))
    first, second = (jnp.linspace(low[i], high[i], shape[i]) for i in range(2))
    points = jnp.stack(jnp.meshgrid(first, second, indexing="ij"), axis=-1)
    matrices = jax.lax.map(hessian_fn, points.reshape(-1, 2), batch_size=1024)
    a, b, c = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]
    middle, radius = 0.5 * (a + c), jnp.hypot(0.5 * (a - c), b)
    return ConvexityMap(
        first=first,
        second=second,
        determinant=(a * c - b * b).reshape(shape),
        smallest_eigenvalue=(middle - radius).reshape(shape),
        largest_eigenvalue=(middle + radius).reshape(shape),
    )
