"""The conditions without which rules for convexity are unsound, one by one.

Under each condition stand programs that are not convex (or whose domain is not), and
the nearest ones that are and that must be proved.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax import lax

from phihat import Box
from phihat.convexity.program.problem import pose
from phihat.convexity.prover.interpreter import prove
from tests.convexity_attacks import PAIR, TRIPLE, Program, box
from tests.test_convexity_attacks import facts_of

POSITIVE = box([0.1, 0.1], [3.0, 3.0])
HALF = box([-3.0, 0.1], [3.0, 3.0])

CONDITIONS: dict[str, tuple[dict[str, Program], dict[str, Program]]] = {
    "exponents are exact": (
        {
            "|x|^1.4 / y^.4": Program(
                lambda w: jnp.abs(w[0]) ** 1.4 / w[1] ** 0.4, PAIR, domain=HALF
            ),
            "x^.5 y^.6": Program(
                lambda w: w[0] ** 0.5 * w[1] ** 0.6, PAIR, "concave", POSITIVE
            ),
            "x^.1, ten times": Program(
                lambda w: jnp.prod(w**0.1), np.ones(10), "concave"
            ),
            "log x": Program(jnp.log),
            "(sqrt(x) + sqrt(1 - x))^2": Program(
                lambda w: (jnp.sqrt(w) + jnp.sqrt(1.0 - w)) ** 2, 0.5
            ),
            "a sum of log-concave functions": Program(
                lambda w: jnp.log(
                    jnp.exp(-((w - 3.0) ** 2)) + jnp.exp(-((w + 3) ** 2))
                ),
                claims="concave",
            ),
        },
        {
            "|x|^1.5 / y^.5": Program(
                lambda w: jnp.abs(w[0]) ** 1.5 / w[1] ** 0.5, PAIR, domain=HALF
            ),
            "x^.5 y^.5": Program(
                lambda w: w[0] ** 0.5 * w[1] ** 0.5, PAIR, "concave", POSITIVE
            ),
            "x^2 / y": Program(lambda w: w[0] ** 2 / w[1], PAIR, domain=HALF),
        },
    ),
    "whole exponents imply no domain": (
        {
            "x^3.0": Program(lambda w: jnp.power(w, 3.0)),
            "x^-1.0": Program(lambda w: jnp.power(w, -1.0)),
            "1 / x": Program(lambda w: 1.0 / w),
            "x^-2": Program(lambda w: w**-2),
            "lgamma": Program(lax.lgamma),
            "digamma": Program(lax.digamma, claims="concave"),
        },
        {
            "x^4.0": Program(lambda w: jnp.power(w, 4.0)),
            "x^-1.0": Program(lambda w: jnp.power(w, -1.0), domain=box(0.5, np.inf)),
            "x^1.5": Program(lambda w: jnp.power(w, 1.5)),
            "lgamma": Program(lax.lgamma, domain=box(0.5, np.inf)),
        },
    ),
    "domains are convex": (
        {
            "-sqrt(x^2 - 1)": Program(lambda w: -jnp.sqrt(w**2 - 1.0)),
            "its square": Program(lambda w: jnp.sqrt(w**2 - 1.0) ** 2),
            "-sqrt(x y)": Program(lambda w: -jnp.sqrt(w[0] * w[1]), PAIR),
            "-sqrt(x y), and later log x": Program(
                lambda w: -jnp.sqrt(w[0] * w[1]) - jnp.log(w[0]), PAIR
            ),
            "-sqrt(x y), and later a log of a root": Program(
                lambda w: (
                    -jnp.sqrt(w[0] * w[1]) - jnp.sum(jnp.log(jnp.sqrt(w[0] * w[1])))
                ),
                PAIR,
            ),
            "-log(x^2 - y)": Program(lambda w: -jnp.log(w[0] ** 2 - w[1]), PAIR[::-1]),
        },
        {
            "-log(x - y^2)": Program(lambda w: -jnp.log(w[1] - w[0] ** 2), [0.3, 2.0]),
            "-log log x": Program(lambda w: -jnp.log(jnp.log(w)), 3.0),
            "-sqrt(x) - sqrt(y)": Program(lambda w: -jnp.sum(jnp.sqrt(w)), PAIR),
        },
    ),
    "guards see no domain": (
        {
            "nan_to_num": Program(lambda w: -jnp.nan_to_num(jnp.log(w))),
            "isnan": Program(
                lambda w: jnp.where(jnp.isnan(jnp.log(w)), 0.0, -jnp.log(w))
            ),
            "isfinite": Program(
                lambda w: jnp.where(jnp.isfinite(jnp.sqrt(w)), w**2, -w)
            ),
            "a comparison": Program(lambda w: jnp.where(jnp.sqrt(w) >= 0, w**2, -w)),
            "a choice": Program(
                lambda w: jnp.where(w > 0, jnp.log(w), 0.0), claims="concave"
            ),
            "a sort": Program(lambda w: -jnp.sort(jnp.stack([jnp.log(w), w]))[0]),
            "an int": Program(lambda w: jnp.sqrt(w).astype(jnp.int32) * 0.0 - w),
            "an argmax": Program(
                lambda w: jnp.argmax(jnp.stack([jnp.log(w), w])) * w * 0.0 + w**2
            ),
            "a branch": Program(
                lambda w: lax.cond(w > 0, lambda: -jnp.log(w), lambda: 0.0 * w)
            ),
        },
        {
            "a guard of the params": Program(
                lambda w: jnp.where(jnp.isfinite(w), w**2, 0.0)
            ),
            "a guard where it is proved": Program(
                lambda w: jnp.where(jnp.isnan(jnp.log(w)), 0.0, -jnp.log(w)),
                domain=box(0.5, 3.0),
            ),
            "a clip": Program(lambda w: -jnp.maximum(jnp.sqrt(w), 0.0)),
        },
    ),
    "numbers name elements": (
        {
            "outer(x, x)[0, 1]": Program(lambda w: jnp.outer(w, w)[0, 1], PAIR),
            "d x^2 - roll(d) x^2": Program(
                lambda w, d: jnp.sum(d * w**2 - jnp.roll(d, 1) * w**2),
                TRIPLE,
                data=np.arange(3.0),
            ),
            "of ranges": Program(
                lambda w, d: jnp.sum(d * w**2 - jnp.roll(d, 1) * w**2),
                TRIPLE,
                data=Box(np.ones(3), 2 * np.ones(3)),
            ),
            "a product of two of a range": Program(
                lambda w, d: jnp.sum(d * d[::-1] * w**2),
                TRIPLE,
                data=Box(-np.ones(3), 2 * np.ones(3)),
            ),
            "a broadcast of a range": Program(
                lambda w, d: jnp.sum(jnp.broadcast_to(d[0], (3,)) * d * w**2),
                TRIPLE,
                data=Box(-np.ones(3), 2 * np.ones(3)),
            ),
        },
        {
            "outer(x, x)[1, 1]": Program(lambda w: jnp.outer(w, w)[1, 1], PAIR),
            "x times its reverse, in the middle": Program(
                lambda w: (w * w[::-1])[1], TRIPLE
            ),
            "a square of a range": Program(
                lambda w, d: jnp.sum(d * d * w**2),
                TRIPLE,
                data=Box(-np.ones(3), 2 * np.ones(3)),
            ),
        },
    ),
    "constants are enclosed": (
        {
            "((d + 1e16) - 1e16) x^2": Program(
                lambda w, d: ((d + 1e16) - 1e16) * w**2, data=np.float64(-1.0)
            ),
            "(e^(log 3) - 3) x^2": Program(
                lambda w: (jnp.exp(jnp.log(jnp.full((), 3.0))) - 3.0) * w**2
            ),
            "-(1e-200)^2 x^2": Program(lambda w: jnp.full((), -1e-200) * 1e-200 * w**2),
            "(.3 - .1 - .2) x^2": Program(
                lambda w: (jnp.full((), 0.3) - 0.1 - 0.2) * w**2
            ),
        },
        {
            "((d + 1e16) - 1e16) x^2": Program(
                lambda w, d: ((d + 1e16) - 1e16) * w**2, data=np.float64(1.0)
            ),
            "(.1 + .2 - .3) x^2": Program(
                lambda w: (jnp.full((), 0.1) + 0.2 - 0.3) * w**2
            ),
        },
    ),
    "shifts cancel exactly": (
        {
            "log1p(exp(x - s)) + s": Program(
                lambda w: jnp.log1p(jnp.exp(w[0] - jnp.max(w))) - jnp.max(w), TRIPLE
            ),
            "1 / .1 is not 10": Program(
                lambda w: (
                    jnp.log(jnp.sum(jnp.exp((w - jnp.max(w)) / 0.1)))
                    + 10.0 * jnp.max(w)
                ),
                TRIPLE,
            ),
            "the signs of an open symbol": Program(
                lambda w: jnp.where(
                    jnp.sum(jnp.exp(w - jnp.min(w))) > 3.5, jnp.sum(w), -jnp.sum(w)
                ),
                TRIPLE,
            ),
            "a maximum of two and one of three": Program(
                lambda w: -jnp.log(jnp.sum(jnp.exp(w - jnp.max(w)))) - jnp.max(w[:2]),
                TRIPLE,
                "concave",
            ),
        },
        {
            "log(sum exp(x - s)) + s": Program(
                lambda w: jnp.log(jnp.sum(jnp.exp(w - jnp.max(w)))) + jnp.max(w), TRIPLE
            ),
            "T log(sum exp((x - s) / T)) + s": Program(
                lambda w: (
                    0.1 * jnp.log(jnp.sum(jnp.exp((w - jnp.max(w)) / 0.1))) + jnp.max(w)
                ),
                TRIPLE,
            ),
        },
    ),
    "atoms are what they are": (
        {
            "xlogy(0, w) has no domain": Program(
                lambda w: special.xlogy(0.0, w) * 1.0 + jnp.where(w > 0, 1.0, w**2)
            ),
            "xlogy of weights that may be zero": Program(
                lambda w, d: -special.xlogy(d, w),
                data=Box(np.float64(0.0), np.float64(2.0)),
            ),
            "x log y": Program(
                lambda w: special.xlogy(w[0], w[1]), PAIR, domain=POSITIVE
            ),
            "z log z of a square": Program(
                lambda w: -(w**2 * jnp.log(w**2)), domain=box(0.1, 3.0)
            ),
            "log_ndtr with few terms": Program(
                lambda w: -special.log_ndtr(w, series_order=1)
            ),
            "operands turned about": Program(lambda w: _turned()(w, 1.0)),
        },
        {
            "probit": Program(lambda w: -special.log_ndtr(w)),
            "z log z": Program(lambda w: w * jnp.log(w)),
            "-2 log w": Program(lambda w: -special.xlogy(2.0, w)),
            "logsumexp of weights": Program(
                lambda w: special.logsumexp(w, b=jnp.array([1.0, 0.5, 2.0])), TRIPLE
            ),
        },
    ),
    "quadratics and pieces are exact": (
        {
            "x y + 100 y^2": Program(lambda w: w[0] * w[1] + 100 * w[1] ** 2, PAIR),
            "sqrt of what is no square": Program(
                lambda w: jnp.sqrt(w[0] ** 2 + w[0]), PAIR, domain=POSITIVE
            ),
            "a slope of .8 after 2": Program(
                lambda w: jnp.where(w > 1.0, 0.8 * w + 0.2, w**2)
            ),
            "a jump": Program(lambda w: jnp.where(w > 1.0, 2.0 * w, w**2)),
            "a value at a point": Program(lambda w: jnp.where(w == 0, 5.0, w**2)),
            "a value at the end": Program(
                lambda w: jnp.where(w >= 1, -5.0, w**2), 0.5, domain=box(-1.0, 1.0)
            ),
            "a Huber with a rounded constant": Program(
                lambda w: jnp.where(
                    jnp.abs(w) <= 0.1, 0.5 * w**2, 0.1 * jnp.abs(w) - 0.005
                )
            ),
            "x^4 + 6.01 x^2 y^2 + y^4": Program(
                lambda w: w[0] ** 4 + 6.01 * w[0] ** 2 * w[1] ** 2 + w[1] ** 4, PAIR
            ),
            "a function of a convex value that falls first": Program(
                lambda w: jnp.abs(jnp.abs(w) - 1.0)
            ),
            "float8": Program(
                lambda w: w.astype(jnp.float8_e4m3fn).astype(jnp.float64)
            ),
            "reduce_precision": Program(lambda w: lax.reduce_precision(w, 8, 7)),
        },
        {
            "a singular matrix": Program(lambda w: w @ np.ones((2, 2)) @ w, PAIR),
            "a matrix that is not symmetric": Program(
                lambda w: w @ jnp.array([[1.0, 3.0], [-3.0, 1.0]]) @ w, PAIR
            ),
            "sqrt of a sum of squares": Program(
                lambda w: jnp.sqrt(w[0] ** 2 + 2 * w[0] * w[1] + w[1] ** 2 + 1.0), PAIR
            ),
            "a Huber": Program(
                lambda w: jnp.where(
                    jnp.abs(w) <= 0.1, 0.5 * w**2, 0.1 * (jnp.abs(w) - 0.5 * 0.1)
                )
            ),
            "x^4 + 6 x^2 y^2 + y^4": Program(
                lambda w: w[0] ** 4 + 6 * w[0] ** 2 * w[1] ** 2 + w[1] ** 4, PAIR
            ),
            "a root that rises": Program(
                lambda w: jnp.maximum(jnp.abs(w) - 1.0, 0.0) ** 2
            ),
            "float16, by an assumption": Program(
                lambda w: jnp.exp(w.astype(jnp.float16).astype(jnp.float64))
            ),
        },
    ),
    "loops keep what they start with": (
        {
            "rounds that depend on the params": Program(
                lambda w: lax.while_loop(
                    lambda c: c[0] < w,
                    lambda c: (c[0] + 1, c[1] + w**2),
                    (0.0, 0.0 * w),
                )[1]
            ),
            "a carry that loses its curvature": Program(
                lambda w: lax.fori_loop(0, 20_001, lambda _, c: c - w**2, w**2)
            ),
            "an equality at the head": Program(
                lambda w: lax.fori_loop(
                    0, 20_001, lambda _, c: (c[0] * c[1], c[1] + 1e-9), (w, w)
                )[0]
            ),
            "rows of both signs": Program(
                lambda w: jnp.sum(
                    lax.scan(
                        lambda c, d: (c, d * w**2), 0.0, jnp.linspace(-1, 0.5, 20_001)
                    )[1]
                )
            ),
        },
        {
            "a sum": Program(
                lambda w: lax.fori_loop(0, 20_001, lambda _, c: c + w**2, w**2)
            ),
            "rows of one sign": Program(
                lambda w: jnp.sum(
                    lax.scan(
                        lambda c, d: (c, d * w**2), 0.0, jnp.linspace(0.0, 1, 20_001)
                    )[1]
                )
            ),
            "a known number of rounds": Program(
                lambda w: lax.while_loop(
                    lambda c: c[0] < 30, lambda c: (c[0] + 1, c[1] + w**2), (0, 0.0 * w)
                )[1]
            ),
        },
    ),
}


def _turned() -> Any:
    """Return a function named xlogy whose operands are turned about."""

    def xlogy(x: Any, y: Any) -> Any:
        return special.xlogy(y, x)

    return jax.jit(xlogy)


def _cases(side: int) -> list[Any]:
    return [
        pytest.param(program, id=f"{condition}: {name}")
        for condition, sides in CONDITIONS.items()
        for name, program in sides[side].items()
    ]


@pytest.mark.parametrize("program", _cases(0))
def test_what_must_not_be_proved(program: Program) -> None:
    assert not getattr(facts_of(program), program.claims)


@pytest.mark.parametrize("program", _cases(1))
def test_what_must_be_proved(program: Program) -> None:
    assert getattr(facts_of(program), program.claims)


def test_domains_that_are_implied_are_listed() -> None:
    proof = prove(pose("test", lambda w: w * jnp.log(w), jnp.asarray(1.5)))
    assert proof.facts.convex
    assert proof.constraints
    assert not proof.facts.total


@pytest.mark.parametrize("fn", [jnp.cos, jnp.sin, special.digamma])
def test_a_smooth_function_of_an_infinite_constant_is_not_known(fn: Any) -> None:
    def loss_fn(w: Any, limit: Any) -> Any:  # cos(inf) is NaN, and the sign is -1
        return jnp.where(fn(jnp.maximum(limit, 0.0)) <= 1.0, 1.0, -1.0) * w**2

    problem = pose("test", loss_fn, jnp.asarray(1.5), jnp.asarray(jnp.inf))
    assert not prove(problem).facts.curved


def test_narrow_floats_are_an_assumption() -> None:
    problem = pose("test", lambda w: w.astype(jnp.float16) ** 2, jnp.asarray(1.5))
    assert any("float16" in sentence for sentence in problem.program.assumptions)


@pytest.mark.usefixtures("user_flags")
def test_flags_change_nothing() -> None:
    for program in (
        Program(lambda w: jnp.abs(w[0]) ** 1.4 / w[1] ** 0.4, PAIR, domain=HALF),
        Program(lambda w: jnp.power(w, 3.0)),
    ):
        assert not facts_of(program).convex
    assert facts_of(Program(lambda w: -special.log_ndtr(w))).convex
