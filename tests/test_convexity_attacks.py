"""The programs of `convexity_attacks`, and odd ones that must end in a sentence."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax import lax

from phihat import Box
from phihat.convexity import Verdict, certify_convexity, check_convexity
from phihat.convexity.primitives.facts.facts import Facts
from phihat.convexity.program.problem import pose
from phihat.convexity.prover.interpreter import prove
from tests.convexity_attacks import FALSE, TRUE, Program, box


def facts_of(program: Program) -> Facts:
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), program.params)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        problem = pose(
            "test", program.loss_fn, params, program.data, domain=program.domain
        )
    return prove(problem).facts


@pytest.mark.parametrize("name", FALSE)
def test_false_claims_are_not_made(name: str) -> None:
    assert not getattr(facts_of(FALSE[name]), FALSE[name].claims)


@pytest.mark.parametrize("name", TRUE)
def test_true_neighbours_are_proved(name: str) -> None:
    assert getattr(facts_of(TRUE[name]), TRUE[name].claims)


def test_ranges_are_those_of_the_program() -> None:
    boolean = Program(
        lambda w: (lax.convert_element_type(w, jnp.bool_) - 0.5) * w,
        0.5,
        domain=box(0.25, 0.75),
    )
    facts = facts_of(boolean)
    assert facts.low <= 0.125
    assert facts.high >= 0.375
    assert not facts.negative


def test_many_operands_of_many_classes_fit_in_memory() -> None:
    rng = np.random.default_rng(0)
    sides = [jnp.asarray(rng.normal(size=(200, 3))) for _ in range(5)]
    chosen = Program(
        lambda w: jnp.sum(
            lax.select_n(
                (sides[4] @ w > 0).astype(jnp.int32), *(side @ w for side in sides[:4])
            )
        ),
        np.ones(3),
        domain=Box(-np.ones(3), 2 * np.ones(3)),
    )
    facts = facts_of(chosen)
    assert not facts.curved
    assert facts.low > -np.inf


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda w: jnp.real((1j * w) ** 2),
        lambda w: jnp.real(jnp.exp(1j * w)) + w**2,
    ],
)
def test_complex_functions_are_not_certified(loss_fn: Any) -> None:
    domain = Box(jnp.asarray(0.0), jnp.asarray(1.0))
    report = certify_convexity(loss_fn, domain)
    assert report.verdict is Verdict.UNDECIDED
    assert report.reason
    assert not check_convexity(loss_fn, 0.5, domain=domain, budget=0.5).is_convex


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda w: jnp.where(w < 0, w**2 * 1e300 * 1e300, w**2),
        lambda w: jnp.cos(jnp.inf + w) * w**2,
        lambda w: jnp.sqrt(special.kl_div(w, -1.0)),
        lambda w: w**1e300,
        lambda w: jnp.prod(
            lax.scan(lambda c, v: (c + v, c * v), 0.0 * w, jnp.stack([w, w * w, w]))[1]
        ),
        lambda w: jnp.sum(jnp.zeros(0) * w) + w**2,
        lambda w: jnp.abs(jnp.exp(1j * w) + 1.0),
        lambda w: jnp.sum(w.astype(jnp.float8_e4m3fn).astype(jnp.float64)),
        lambda w: jnp.fft.fft(jnp.stack([w, w])).real.sum(),
        lambda w: jax.random.normal(jax.random.key(0), dtype=jnp.float64) * w,
        lambda w: lax.while_loop(lambda c: c < w, lambda c: c + 1.0, 0.0 * w),
    ],
)
def test_odd_programs_end_in_a_sentence(loss_fn: Any) -> None:
    params = jnp.asarray(1.5)
    with jax.numpy_dtype_promotion("standard"):
        proof = prove(pose("test", loss_fn, params))
    assert proof.facts.curved or (proof.stopped or proof.blame[0]).reason
