"""Verified eigenvalue bounds against closed forms, brute force and hostile input."""

import itertools
import math
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from phihat.convexity.numbers import eigenvalue_bounds as bounds
from phihat.convexity.numbers.intervals import Interval

EPS = np.finfo(np.float64).eps


def random_matrix(seed: int, size: int, radius: float) -> Interval:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(size, size))
    middle = middle + middle.T
    spread = radius * rng.uniform(size=(size, size))
    spread = spread + spread.T
    return Interval(middle - spread, middle + spread)


def members(matrix: Interval, seed: int, count: int) -> np.ndarray:
    """Draw symmetric matrices in an interval matrix, most at its corners."""
    rng = np.random.default_rng(seed)
    size = matrix.shape[-1]
    share = np.round(rng.uniform(-0.5, 1.5, size=(count, size, size))).clip(0, 1)
    share = np.where(rng.uniform(size=(count, 1, 1)) < 0.3, rng.uniform(), share)
    share = np.where(np.tri(size, dtype=bool), share, share.transpose(0, 2, 1))
    return matrix.low + share * (matrix.high - matrix.low)


def is_psd_exactly(matrix: np.ndarray, floor: float) -> bool:
    """Decide over the rationals whether matrix - floor I is positive definite."""
    rows = [[Fraction(float(entry)) for entry in row] for row in matrix]
    size = len(rows)
    for i in range(size):
        rows[i][i] -= Fraction(floor)
    for k in range(size):
        if rows[k][k] <= 0:
            return False
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            for j in range(k, size):
                rows[i][j] -= factor * rows[k][j]
    return True


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 20])
def test_diagonal_matrices_are_bounded_to_rounding(size: int) -> None:
    values = np.arange(1.0, size + 1)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    matrix = rotation @ np.diag(values) @ rotation.T
    matrix = (matrix + matrix.T) / 2
    slack = 8 * (size + 4) ** 2 * EPS * size
    assert 1 - slack <= bounds.smallest_eigenvalue(matrix) <= 1 + slack
    assert size - slack <= bounds.largest_eigenvalue(matrix) <= size + slack


@hypothesis.given(
    st.integers(0, 10**6), st.integers(1, 10), st.sampled_from([0.0, 1e-12, 0.1, 3.0])
)
@hypothesis.settings(max_examples=60)
def test_every_member_obeys_the_bounds(seed: int, size: int, radius: float) -> None:
    matrix = random_matrix(seed, size, radius)
    low, high = bounds.smallest_eigenvalue(matrix), bounds.largest_eigenvalue(matrix)
    found = np.linalg.eigvalsh(members(matrix, seed, 50))
    slack = 4 * size * EPS * np.abs(found).max()
    assert np.isfinite(low)
    assert np.isfinite(high)
    assert low <= found.min() + slack
    assert high >= found.max() - slack


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_hertz_is_exact(size: int, seed: int) -> None:
    matrix = random_matrix(seed, size, 0.7)
    places = list(itertools.combinations_with_replacement(range(size), 2))
    least = math.inf
    for corner in itertools.product((0, 1), repeat=len(places)):  # every vertex
        member = np.empty((size, size))
        for (i, j), end in zip(places, corner, strict=True):
            member[i, j] = member[j, i] = (matrix.high if end else matrix.low)[j, i]
        least = min(least, np.linalg.eigvalsh(member)[0])
    bound = bounds.smallest_eigenvalue(matrix)
    assert least - 1e3 * EPS * np.abs(matrix.high).max() <= bound <= least + 40 * EPS


@hypothesis.given(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(-8, 8), st.booleans()
)
@hypothesis.settings(max_examples=150)
def test_no_matrix_passes_that_exact_arithmetic_refuses(
    seed: int, size: int, ulps: int, is_scaled: bool
) -> None:
    """Gram matrices shifted by about their own rounding: the hardest to tell."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size, size))
    if is_scaled:
        factor = factor * 10.0 ** rng.integers(-90, 90, size=(size, 1))
    factor[-1] = factor[0] if size > 1 else factor[-1]
    matrix = factor @ factor.T
    matrix = np.tril(matrix) + np.tril(matrix, -1).T
    matrix[0, 0] += ulps * np.spacing(matrix[0, 0])
    low = float(bounds.smallest_eigenvalue(matrix))
    assert is_psd_exactly(matrix, math.nextafter(low, -math.inf))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((2, 2)),
        [[-1e-300]],
        [[1.0, 1.0], [1.0, 1.0]],  # singular
        [[1.0, 1.0], [1.0, 1.0 - EPS]],
        Interval([[1.0, -np.inf], [-np.inf, 1.0]], [[1.0, np.inf], [np.inf, 1.0]]),
        Interval([[-np.inf]], [[1.0]]),
        [[1e300, 1e308], [1e308, 1e300]],
        np.full((9, 9), 5e-324),
    ],
)
def test_what_is_not_positive_definite_never_passes(matrix: object) -> None:
    assert not bounds.smallest_eigenvalue(matrix) > 0


def test_stacks_are_treated_one_by_one() -> None:
    stack = np.stack([np.eye(3), -np.eye(3), np.full((3, 3), np.inf)])
    wide = Interval(np.minimum(stack, 9.0) - 0.1, stack + 0.1)
    found = bounds.smallest_eigenvalue(wide)
    assert (found > 0).tolist() == [True, False, False]
    assert [float(bounds.smallest_eigenvalue(m)) for m in (wide[0], wide[1])] == (
        found[:2].tolist()
    )
    assert found[2] == -np.inf
