r"""Verified bounds on the eigenvalues of symmetric interval matrices.

An interval matrix $[M]$ stands for all symmetric matrices with entries in it, $A$ for
its middle and $R \ge 0$ for its radius. Three lower bounds on $\lambda_{min}$ over
$[M]$ are tried, and any of them is a proof:

- *Gershgorin*, scaled by $s > 0$, for $S^{-1} M S$ has the same eigenvalues:
  $\min_i (M_{ii} - \sum_{j \ne i} |M_{ij}| s_j / s_i)$.
- *Rohn*: $\lambda_{min}(A) - \rho(R)$, by Weyl, for $|E| \le R$ has a norm of at most
  $\rho(R) \le \max_i (R s)_i / s_i$ (Collatz and Wielandt).
- *Hertz*: the least over the signs $z$ of $\lambda_{min}(A - \mathrm{diag}(z) R\,
  \mathrm{diag}(z))$, since $x'Mx$ is least where $M_{ij}$ leans against $x_i x_j$. This
  is exact; $2^{n-1}$ matrices, so for few rows only.

What is left are matrices of floats. For them a proposal of LAPACK's, which proves
nothing, is checked by a Cholesky factorisation with bounded rounding errors (Rump): if
it runs to its end on $A - (\mu + c) I$, then $\lambda_{min}(A) > \mu$. There are no
tolerances, and a test that meets NaN fails.

References:
  Hertz, *The extreme eigenvalues and stability of real symmetric interval matrices*,
  IEEE Trans. Automat. Control 1992.
  Rohn, *Bounds on eigenvalues of interval matrices*, 1998.
  Rump, *Verification of positive definiteness*, BIT 2006.
"""

import functools
import itertools
from typing import Any

import numpy as np

from phihat.convexity.numbers.intervals import Interval, as_interval, neg
from phihat.convexity.numbers.intervals.rounding import TINIEST, UNIT

__all__ = ["largest_eigenvalue", "smallest_eigenvalue"]

_MOST_ROWS_FOR_HERTZ = 8
_silent = np.errstate(all="ignore")


@_silent
def smallest_eigenvalue(matrix: Any) -> np.ndarray:
    r"""Bound every eigenvalue of every symmetric matrix `[..., n, n]` from below.

    The lower triangle is read. The best of the three bounds `[...]` is returned; -inf
    where nothing could be proved.
    """
    low, high = _triangles(as_interval(matrix))
    bound = np.full(low.shape[:-2], -np.inf)
    known = _is_finite(low) & _is_finite(high)
    if not known.any():
        return bound
    low, high = low[known], high[known]
    middle, radius = _middle_and_radius(low, high)
    scale, weight = _weights(radius)
    best = _gershgorin(low, high, scale)
    rohn = np.nextafter(_smallest_of_floats(middle) - weight, -np.inf)
    best = np.fmax(best, rohn)
    size = np.abs(middle).sum(-1).max(-1)
    if low.shape[-1] <= _MOST_ROWS_FOR_HERTZ:
        # Thin matrices gain nothing: Rohn's bound is off by no more than `weight`.
        wide = weight > 1e-9 * size
        if wide.any():
            vertices = _vertices(low[wide], high[wide])
            best[wide] = np.fmax(best[wide], _smallest_of_floats(vertices).min(-1))
    bound[known] = np.where(np.isnan(best), -np.inf, best)
    return bound


def largest_eigenvalue(matrix: Any) -> np.ndarray:
    """Bound every eigenvalue of every matrix from above: -smallest of the negative."""
    return np.asarray(-smallest_eigenvalue(neg(as_interval(matrix))))


# ------------------------------------------------------------------- three bounds


def _gershgorin(low: np.ndarray, high: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Subtract each row's scaled radius from its diagonal entry, rounded down."""
    size = np.maximum(np.abs(low), np.abs(high))
    rows = np.arange(low.shape[-1])
    size[..., rows, rows] = 0.0
    reach = _up((size @ scale[..., None])[..., 0] / scale, low.shape[-1])
    return np.nextafter(low[..., rows, rows] - reach, -np.inf).min(-1)


def _vertices(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return Hertz's matrices `[..., 2^(n-1), n, n]`: their entries are ends, exact."""
    signs = _signs(low.shape[-1])
    lean_low = signs[:, :, None] == signs[:, None, :]
    return np.where(lean_low, low[..., None, :, :], high[..., None, :, :])


@functools.cache
def _signs(size: int) -> np.ndarray:
    """Return all vectors of signs whose first is +; z and -z make one matrix."""
    rest = itertools.product((1, -1), repeat=size - 1)
    return np.array([(1, *signs) for signs in rest], np.int8)


# ------------------------------------------------------------- matrices of floats


def _smallest_of_floats(matrix: np.ndarray) -> np.ndarray:
    """Bound the least eigenvalue of symmetric matrices of floats `[..., n, n]`.

    LAPACK proposes it; the proposal is lowered until Cholesky confirms it.
    """
    finite = _is_finite(matrix)
    proposed = np.full(finite.shape, np.nan)
    proposed[finite] = np.linalg.eigvalsh(matrix[finite])[..., 0]
    size = np.abs(matrix).sum(-1).max(-1)
    slack = 2 * (matrix.shape[-1] + 4) ** 2 * UNIT * size + TINIEST
    bound = np.full(finite.shape, -np.inf)
    for _ in range(4):
        todo = finite & ~np.isfinite(bound)
        if not todo.any():
            break
        guess = (proposed - slack)[todo]
        bound[todo] = np.where(_exceeds(matrix[todo], guess), guess, -np.inf)
        slack = slack * 16
    return bound


def _exceeds(matrix: np.ndarray, floor: np.ndarray) -> np.ndarray:
    r"""Tell where Cholesky proves that all eigenvalues exceed `floor`.

    On $B = A - (\mu + c) I$, its diagonal rounded down, a factorisation that ends errs
    by a matrix of norm at most $\gamma_{n+1}/(1 - \gamma_{n+1})\,\mathrm{tr} B$ + what
    underflows; c exceeds that (Rump, 2006). The trace of B is at most that of A, plus
    $n|\mu|$.
    """
    size = matrix.shape[-1]
    rows = np.arange(size)
    diagonal = matrix[..., rows, rows]
    floor = floor[..., None]
    trace = np.abs(diagonal).sum(-1, keepdims=True) + size * np.abs(floor)
    slack = 2 * (size + 4) * UNIT * trace
    slack = slack + 8 * size * (2 * size + trace) * TINIEST
    shift = np.nextafter(floor + slack, np.inf)
    shifted = np.array(matrix)
    shifted[..., rows, rows] = np.nextafter(diagonal - shift, -np.inf)
    return _factorises(shifted)


def _factorises(matrix: np.ndarray) -> np.ndarray:
    """Tell where a Cholesky factorisation runs to its end with finite, positive pivots.

    Column by column over the whole stack; the bound holds for any order of the sums.
    """
    size = matrix.shape[-1]
    work = np.array(matrix)
    fine = np.ones(matrix.shape[:-2], bool)
    for column in range(size):
        pivot = work[..., column, column]
        fine &= (pivot > 0) & np.isfinite(pivot)  # NaN fails
        root = np.sqrt(np.where(fine, pivot, 1.0))
        below = work[..., column + 1 :, column] / root[..., None]
        work[..., column + 1 :, column + 1 :] -= (
            below[..., :, None] * below[..., None, :]
        )
    return fine


# ----------------------------------------------------------------------- rounding


def _is_finite(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(matrix).all((-2, -1)))


def _triangles(matrix: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Mirror the lower triangles: symmetric matrices have each entry there."""
    lower = np.tri(matrix.shape[-1], dtype=bool)
    low, high = (
        np.where(lower, end, np.swapaxes(end, -1, -2)).astype(np.float64)
        for end in matrix
    )
    return low, high


def _middle_and_radius(
    low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return floats with |M - middle| <= radius."""
    middle = low / 2 + high / 2
    radius = np.maximum(high - middle, middle - low)
    return middle, np.where(radius > 0, np.nextafter(radius, np.inf), 0.0)


def _weights(radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a positive vector s, near Perron's, and max (R s) / s, rounded up."""
    scale = np.ones(radius.shape[:-1])
    for _ in range(8):
        image = (radius @ scale[..., None])[..., 0]
        image = image / np.maximum(image.max(-1, keepdims=True), TINIEST)
        scale = np.maximum(image, 1e-3)  # bounded away from 0, whatever R is
    image = _up((radius @ scale[..., None])[..., 0] / scale, radius.shape[-1])
    return scale, image.max(-1)


def _up(sums: np.ndarray, count: int) -> np.ndarray:
    """Raise sums of products, divided by 1e-3 at least, above their rounding errors."""
    return sums * (1 + 4 * (count + 4) * UNIT) + 4096 * count * TINIEST
