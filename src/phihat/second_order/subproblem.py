r"""The least value of a quadratic model within a trust region and between bounds.

In the scale of $D$ the model is $2\, b^\top p + p^\top A\, p$ and the region
$\|p\| \le \Delta$. The damping $\lambda$ with $\|p(\lambda)\| = \Delta$,
$(A + \lambda I)\, p(\lambda) = -b$, is found over the params that are free; then the
way to $p(\lambda)$ is followed as far as the bounds allow.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phihat._linalg import small as _small

__all__ = [
    "ABSOLUTE_SPECTRUM",
    "CHOLESKY",
    "Bounds",
    "MetBounds",
    "Proposal",
    "Solver",
    "meet_bounds",
    "search_step",
]

Vector = Float[Array, " P"]
Matrix = Float[Array, "P P"]
Scalar = Float[Array, ""]
Flag = Bool[Array, ""]

_ROUNDS = 8
"""Newton steps that look for the damping: they come from the left and never pass it."""


class Bounds(NamedTuple):
    """The ends of a box, as vectors."""

    low: Vector
    high: Vector


class Solver(NamedTuple):
    """How a damped system is solved over the free params.

    Attributes:
      prepare: `(A [P, P], free, bool [P] or None for all) -> factors`.
      solve: `(factors, right [P], damping) -> (x [P], x' (A + damping)^-1 x)`.
    """

    prepare: Callable[[Matrix, Any], Any]
    solve: Callable[[Any, Vector, Any], tuple[Vector, Scalar]]


class Proposal(NamedTuple):
    """A step, scaled, and what is known of it.

    Attributes:
      step: p, [P].
      sides: -1 and 1 for params that it takes to their low and high bound, else 0; int8
        [P], or None without bounds.
      undamped: the step without a radius, over the params that were free at first, [P].
      is_exact: whether `undamped` is that step indeed, and not what was found of it.
    """

    step: Vector
    sides: Any
    undamped: Vector
    is_exact: Any = True


def search_step(
    solver: Solver,
    factors: Any,
    matrix: Matrix,
    slopes: Vector,
    radius: Scalar,
    *,
    free: Bool[Array, " P"] | None = None,
    step_bounds: Bounds | None = None,
) -> Proposal:
    """Return the step to the least value of the model.

    Args:
      solver: how systems are solved.
      factors: what it prepared for the params that are free.
      matrix: A [P, P].
      slopes: b [P].
      radius: the length of step that the model is trusted for.
      free: the params that may move, or None for all.
      step_bounds: how far each param may move down and up, or None.
    """
    right = -slopes if free is None else jnp.where(free, -slopes, 0.0)
    if free is None or step_bounds is None:
        found = _search_damping(solver, factors, right, 0.0, radius)
        step = found.solution * jnp.minimum(1.0, radius / found.length)
        return Proposal(step, None, found.undamped)
    zero = jnp.zeros_like(slopes)
    end = jax.lax.while_loop(
        lambda at: at.goes_on,
        functools.partial(
            _advance_to_bound, solver, matrix, slopes, radius, step_bounds
        ),
        _BoundedSolve(
            step=zero,
            free=free,
            factors=factors,
            damping=jnp.zeros((), slopes.dtype),
            undamped=zero,
            sides=jnp.zeros(slopes.shape, jnp.int8),
            is_first=jnp.ones((), bool),
            goes_on=jnp.ones((), bool),
        ),
    )
    return Proposal(end.step, end.sides, end.undamped)


class _BoundedSolve(NamedTuple):
    """How far a search between bounds has come; params that met one are not free."""

    step: Vector
    free: Bool[Array, " P"]
    factors: Any
    damping: Scalar
    undamped: Vector
    sides: Int[Array, " P"]
    is_first: Flag
    goes_on: Flag


def _advance_to_bound(
    solver: Solver,
    matrix: Matrix,
    slopes: Vector,
    radius: Scalar,
    step_bounds: Bounds,
    at: _BoundedSolve,
) -> _BoundedSolve:
    """Go towards the minimum over the free params, up to the first bound."""
    displaced = jnp.where(at.free, 0.0, at.step)
    right = -slopes - _small.matmul(matrix, displaced)
    reach = jnp.where(at.is_first, radius, jnp.inf)
    found = _search_damping(
        solver, at.factors, jnp.where(at.free, right, 0.0), at.damping, reach
    )
    shrink = jnp.minimum(1.0, reach / found.length)
    target = jnp.where(at.free, found.solution * shrink, at.step)
    move = target - at.step
    met = meet_bounds(step_bounds, at.step, move, target, at.free)
    meets = met.share <= met.first
    free = at.free & ~meets
    goes_on = jnp.any(meets) & jnp.any(free)
    return _BoundedSolve(
        step=jnp.where(meets, met.end, at.step + met.first * move),
        free=free,
        factors=solver.prepare(matrix, free),
        damping=found.damping,
        undamped=jnp.where(at.is_first, found.undamped, at.undamped),
        sides=jnp.where(meets, jnp.sign(move).astype(jnp.int8), at.sides),
        is_first=jnp.zeros((), bool),
        goes_on=goes_on,
    )


class MetBounds(NamedTuple):
    """Where a move meets bounds.

    Attributes:
      end: the bound towards which each param moves, [P].
      share: the share of the move after which it is met; 2 where it is not, [P].
      first: the least of these, at most 1, [].
    """

    end: Vector
    share: Vector
    first: Scalar


def meet_bounds(
    step_bounds: Bounds,
    step: Vector,
    move: Vector,
    target: Vector,
    free: Bool[Array, " P"],
) -> MetBounds:
    """Tell where the move from a step to its target meets bounds."""
    end = jnp.where(move > 0, step_bounds.high, step_bounds.low)
    is_beyond = free & jnp.where(move > 0, target > end, target < end)
    share = jnp.where(is_beyond, (end - step) / jnp.where(is_beyond, move, 1.0), 2.0)
    return MetBounds(end, share, jnp.minimum(jnp.min(share), 1.0))


class _Search(NamedTuple):
    """The solution for the last damping, that for the first, and what to try next."""

    damping: Scalar
    next_damping: Scalar
    solution: Vector
    undamped: Vector
    length: Scalar
    round: Int[Array, ""]


def _search_damping(
    solver: Solver, factors: Any, right: Vector, start: Any, radius: Scalar
) -> _Search:
    """Raise the damping from its start until the solution is at most 1.1 radii long."""
    eps = float(jnp.finfo(right.dtype).eps)

    def goes_on(at: _Search) -> Flag:
        is_short = at.length <= 1.1 * radius  # False where it is NaN, as at first
        return ~is_short & (at.round < _ROUNDS)

    def advance(at: _Search) -> _Search:
        damping = at.next_damping
        solution, square = solver.solve(factors, right, damping)
        length = _small.norm(solution)
        rise = length * length / square * (length / radius - 1.0)
        # Where the solution is no number, or too long for one, damp it for certain.
        is_sound = jnp.isfinite(rise) & (rise > 0)
        return _Search(
            damping=damping,
            next_damping=jnp.where(is_sound, damping + rise, 4 * damping + eps),
            solution=solution,
            undamped=jnp.where(at.round == 0, solution, at.undamped),
            length=length,
            round=at.round + 1,
        )

    start = jnp.asarray(start, right.dtype)
    first = _Search(
        damping=start,
        next_damping=start,
        solution=right,
        undamped=right,
        length=jnp.full((), jnp.nan, right.dtype),
        round=jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(goes_on, advance, first)


# ------------------------------------------------------------------------ the solvers


def _mask(matrix: Matrix, free: Any) -> Matrix:
    if free is None:
        return matrix
    return jnp.where(free[:, None] & free[None, :], matrix, 0.0)


def _spectrum(matrix: Matrix, free: Any) -> tuple[Vector, Matrix]:
    return tuple(jnp.linalg.eigh(_mask(matrix, free)))


def _solve_spectrum(
    factors: tuple[Vector, Matrix], right: Vector, damping: Any
) -> tuple[Vector, Scalar]:
    """Solve by absolute curvatures: along negative ones the step goes down as well."""
    curvatures, basis = factors
    sizes = jnp.abs(curvatures)
    eps = float(jnp.finfo(sizes.dtype).eps)
    least = jnp.maximum(
        sizes.shape[0] * eps * jnp.max(sizes), jnp.finfo(sizes.dtype).tiny
    )
    sizes = jnp.maximum(sizes, least) + damping
    rotated = _small.matmul(basis.T, right) / sizes
    return _small.matmul(basis, rotated), jnp.sum(rotated * rotated / sizes)


CHOLESKY = Solver(_mask, _small.solve)
"""For matrices that are positive semidefinite."""

ABSOLUTE_SPECTRUM = Solver(_spectrum, _solve_spectrum)
"""For any symmetric matrix."""
