import jax
import jax.numpy as jnp
import pytest

from phihat.convexity import Verdict, prove_convexity, replay
from tests.everyday_objectives import NOT_DECIDED, OBJECTIVES

_VERDICTS = {
    "convex": (Verdict.PROVED_CONVEX, Verdict.PROVED_AFFINE),
    "concave": (Verdict.PROVED_CONCAVE,),
}


@pytest.mark.parametrize("delta", [0.1, 0.7, 1.345])
def test_pieces_that_miss_by_an_ulp_are_told_with_a_cure(delta):
    with jax.enable_x64(False):

        def cured(r):
            q = jnp.minimum(jnp.abs(r), delta)
            return q * (jnp.abs(r) - q / 2)

        def loss(r):
            size = jnp.abs(r)
            return jnp.where(size <= delta, r**2 / 2, delta * size - delta**2 / 2)

        assert prove_convexity(cured, 0.0).verdict is Verdict.PROVED_CONVEX
        report = prove_convexity(loss, 0.0)
    assert report.verdict is Verdict.UNDECIDED
    assert "pieces miss each other" in report.blame[0].reason


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - NOT_DECIDED))
def test_what_people_write_is_proved_and_replayed(name):
    loss, start, domain, truth = OBJECTIVES[name]
    with jax.enable_x64(False):  # in float64 1 / 1.5 is less than 2 / 3
        report = prove_convexity(loss, start, domain=domain)
        assert report.verdict in _VERDICTS[truth]
        assert replay(report, loss, start, domain=domain)
