import jax
import numpy as np
import pytest

from phihat.convexity.prover.interpreter import prove
from tests.convexity_losses import CONVEX, LOSSES
from tests.convexity_programs import Case, chords, posed
from tests.convexity_values import values_of
from tests.convexity_zoo import FALSE_FRIENDS, PARTLY_DEFINED, TWINS

# No chord drawn in floats breaks these: a sum that rounds to zero, a dent of 1e-9, a
# literal changed in the eighth digit, a single point, bits that a float64 path cannot
# see, values that do not exist between two that do, or that no order decides. One would
# need gigabytes, and one is a transform, which is not evaluated here.
_SUBTLE = {
    "1e16 below",
    "a condition on the data",
    "an index beyond",
    "-log(x y)",
    "bitcast",
    "fp8",
    "impostor with a literal changed",
    "large outer product",
    "long scan that drifts",
    "nearly singular",
    "one point higher",
    "rounded root",
    "scatter to one place",
    "sqrt(x^2 - 1)^2",
    "transform of squares",
    "while by params",
    "|x|^1.4 / y^.4",
}


def _broken_chord(case: Case) -> bool:
    problem = posed(case)
    inputs = chords(problem, np.random.default_rng(0), 300)
    values = values_of(problem.program, inputs)[problem.program.output]
    left, middle, right = np.split(np.broadcast_to(values, (900,)), 3)
    with np.errstate(all="ignore"):
        ends = np.abs(left) + np.abs(right)
        gap = (middle - (left + right) / 2) / (1.0 + np.abs(middle) + ends)
    exists = np.isfinite(left) & np.isfinite(right)
    return bool(
        (gap[np.isfinite(gap)] > 1e-9).any() or (exists & ~np.isfinite(middle)).any()
    )


@pytest.mark.parametrize("name", FALSE_FRIENDS)
def test_what_only_looks_convex_is_not_proved_convex(name):
    facts = prove(posed(FALSE_FRIENDS[name])).facts
    assert not facts.convex


@pytest.mark.parametrize("name", sorted(FALSE_FRIENDS.keys() - _SUBTLE))
def test_what_only_looks_convex_breaks_a_chord(name):
    assert _broken_chord(FALSE_FRIENDS[name])


@pytest.mark.parametrize("name", TWINS)
def test_the_twin_is_proved_convex(name):
    assert prove(posed(TWINS[name])).facts.convex


@pytest.mark.parametrize("name", PARTLY_DEFINED)
def test_a_condition_on_the_domain_is_listed(name):
    proof = prove(posed(PARTLY_DEFINED[name]))
    assert proof.facts.convex
    assert proof.constraints


@pytest.mark.parametrize("name", FALSE_FRIENDS)
def test_the_negative_of_what_is_not_proved_concave_is_not_proved_convex(name):
    case = FALSE_FRIENDS[name]
    concave = prove(posed(case)).facts.concave
    turned = case._replace(loss_fn=lambda *args: -case.loss_fn(*args))
    assert prove(posed(turned)).facts.convex == concave


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_have_the_verdict_that_is_true(name, x64):
    with jax.enable_x64(x64):
        facts = prove(posed(Case(name, *LOSSES[name][:4]))).facts
    assert facts.convex == (name in CONVEX)
