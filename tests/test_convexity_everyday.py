import jax
import jax.numpy as jnp
import pytest

from phihat.convexity import Verdict, check_convexity, prove_convexity, replay
from tests.everyday_objectives import OBJECTIVES, RIGHT


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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_people_write_is_decided_and_replayed(name):
    loss, start, domain, truth = OBJECTIVES[name]
    with jax.enable_x64(False):  # in float64 1 / 1.5 is less than 2 / 3
        ask = check_convexity if truth == "not" else prove_convexity
        report = ask(loss, start, domain=domain)
        assert report.verdict in RIGHT[truth]
        if truth == "not":
            assert report.witness.rigorous
        else:
            assert replay(report, loss, start, domain=domain)
