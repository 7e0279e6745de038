import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import linalg

import phihat
from phihat import Box
from phihat.convexity import Verdict
from tests.convexity_matrices import CONVEX, MATRIX, NOT_CONVEX, POINT


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", CONVEX)
def test_what_a_theorem_makes_convex_is_proved(name, x64):
    loss, at = CONVEX[name]
    with jax.enable_x64(x64):
        assert phihat.prove_convexity(loss, at).verdict is Verdict.PROVED_CONVEX
        turned = phihat.prove_convexity(lambda w: -loss(w), at)
        assert turned.verdict is Verdict.PROVED_CONCAVE


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", NOT_CONVEX)
def test_its_twin_is_not(name, x64):
    loss, at = NOT_CONVEX[name]
    with jax.enable_x64(x64):
        report = phihat.prove_convexity(loss, at)
    assert report.verdict not in (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE)


def test_values_of_the_proved_keep_to_their_chords():
    rng = np.random.default_rng(0)
    for name, (loss, at) in CONVEX.items():
        for _ in range(20):
            one, other = (at + rng.normal(size=at.shape) for _ in range(2))
            middle = float(loss((one + other) / 2))
            chord = (float(loss(one)) + float(loss(other))) / 2
            assert middle <= chord + 1e-9 * (1.0 + abs(chord)), name


def test_a_range_of_matrices_is_proved_as_a_whole():
    loss = lambda w, m: jnp.sum(
        linalg.solve_triangular(jnp.linalg.cholesky(m), w, lower=True) ** 2
    )
    near, far = Box(MATRIX - 0.01, MATRIX + 0.01), Box(MATRIX - 9.0, MATRIX + 9.0)
    assert phihat.prove_convexity(loss, POINT, near).verdict is Verdict.PROVED_CONVEX
    assert phihat.prove_convexity(loss, POINT, far).verdict is Verdict.UNDECIDED
