"""Integers that are cast to floats of fewer digits, ranges that wrap, the alarm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import phihat
from phihat import Box
from phihat.convexity import Verdict, replay
from phihat.convexity.box import curvatures
from phihat.convexity.numbers import dtypes
from phihat.convexity.program import problem as posing
from phihat.convexity.program.problem import pose
from phihat.convexity.prover import prove


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def flags(request):
    with jax.enable_x64(request.param):
        yield


# ------------------------------------------------ integers beyond the digits of floats

_CASTS = [
    ("float32", 2**31 - 1),
    ("float32", 2**24 + 1),
    ("float16", 2**11 + 1),
    ("float16", 2**24),  # overflows to inf, which is the least int32
    ("bfloat16", 2**8 + 1),
]


@pytest.mark.parametrize(("kind", "number"), _CASTS)
def test_a_cast_rounds_integers_that_are_too_long(flags, kind, number):
    data = np.array([number, 3], np.int32)

    def loss(w, d):
        """Has the curvature 1/2 if the cast keeps the number, else -1/2 or less."""
        change = d.astype(kind).astype(np.int32) - d
        return jnp.sum((change == 0) * w**2 - 0.5 * w**2)

    verdict = phihat.prove_convexity(loss, jnp.ones(2), data).verdict
    assert verdict is Verdict.UNDECIDED
    assert not prove(pose("test", loss, jnp.ones(2), data)).facts.convex


@pytest.mark.parametrize(("kind", "number"), _CASTS)
def test_a_cast_keeps_integers_that_are_short(flags, kind, number):
    del number
    data = np.array([2**8, -3], np.int32)
    loss = lambda w, d: jnp.sum((d.astype(kind).astype(np.int32) == d) * w**2)
    report = phihat.prove_convexity(loss, jnp.ones(2), data)
    assert report.verdict is Verdict.PROVED_CONVEX
    assert replay(report, loss, jnp.ones(2), data)


def test_a_cast_encloses_what_jax_makes_of_integers():
    numbers = np.array([2**24 + 1, 2**31 - 1, -(2**24) - 3, 2**30, 70000, 5], np.int32)
    for kind in (np.float32, jnp.bfloat16, np.float16):
        low, high = dtypes.cast_ends(*(numbers.astype(np.float64),) * 2, kind)
        found = np.asarray(jnp.asarray(numbers).astype(kind)).astype(np.float64)
        assert ((low <= found) & (found <= high)).all()


def test_large_integers_as_data_are_proved():
    times = np.array([[1_700_000_001, 1], [1_700_000_123, 1]], np.int32)
    loss = lambda w, d: jnp.sum((d @ w - 1.0) ** 2)
    report = phihat.prove_convexity(loss, jnp.ones(2), times)
    assert report.verdict is Verdict.PROVED_CONVEX
    assert replay(report, loss, jnp.ones(2), times)


# ---------------------------------------------------------- ranges that cannot be read


@pytest.mark.parametrize(
    ("low", "high", "wrong"),
    [
        ([0, 1], [2**31, 1], 2**31),
        ([-(2**31) - 1, 1], [2, 1], -(2**31) - 1),
        ([0, 1], [2**40, 1], 2**40),
    ],
)
def test_a_range_whose_ends_wrap_is_told(low, high, wrong):
    data = Box({"x": np.array(low)}, {"x": np.array(high)})
    loss = lambda w, d: jnp.sum(d["x"] * w**2)
    with jax.enable_x64(False):
        for ask in (
            lambda: phihat.check_convexity(loss, jnp.ones(2), data),
            lambda: phihat.certify_convexity(loss, Box([0.0, 0.0], [1.0, 1.0]), data),
            lambda: phihat.convex_blocks(loss, jnp.ones(2), data),
        ):
            with pytest.raises(ValueError, match=rf"fit in int32.*{wrong} at leaf"):
                ask()


def test_ends_of_other_lengths_are_told():
    with pytest.raises(ValueError, match=r"same shape.*\[2\] and \[3\]"):
        Box(jnp.zeros(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"\[2\] and \[3\] at leaf \['a'\]"):
        Box({"a": jnp.zeros(2)}, {"a": jnp.ones(3)})


# --------------------------------------------- the alarm guards every certified number


def _concave(w):
    return -jnp.sum(w**2)


def test_false_bounds_of_the_curvature_raise_the_alarm(monkeypatch):
    original = curvatures.refine
    box = Box([1.0], [2.0])
    for mu, ceiling in ((-1.0, 3.0), (-4.0, -3.0)):
        monkeypatch.setattr(
            curvatures,
            "refine",
            lambda *args, mu=mu, ceiling=ceiling, **options: original(
                *args, **options
            )._replace(mu=mu, L=ceiling),
        )
        with pytest.warns(RuntimeWarning, match=r"curvature_floor.*misread"):
            assert phihat.curvature_floor(_concave, box) == (-np.inf, np.inf)
    monkeypatch.setattr(
        curvatures, "refine", lambda *args, **options: original(*args)._replace(mu=0.0)
    )
    with pytest.warns(RuntimeWarning, match=r"minimal_ridge.*misread"):
        assert phihat.minimal_ridge(_concave, box) is None


def test_a_false_radius_raises_the_alarm(monkeypatch):
    monkeypatch.setattr(curvatures, "_largest", lambda *args: 1.0)
    with pytest.warns(RuntimeWarning, match=r"certified_radius.*misread"):
        assert phihat.certified_radius(_concave, jnp.ones(2)) == 0.0


def test_false_blocks_raise_the_alarm(monkeypatch):
    loss = lambda p: p["a"] ** 2 - jnp.sum(p["b"] ** 2)
    params = {"a": jnp.ones(()), "b": jnp.ones(2)}
    original, seen = posing.trace, lambda p: p["a"] ** 2 + jnp.sum(p["b"] ** 2)
    monkeypatch.setattr(posing, "trace", lambda fn, *args: original(seen, *args))
    with pytest.warns(RuntimeWarning, match=r"convex_blocks.*misread"):
        assert phihat.convex_blocks(loss, params) == [("['a']",)]


# ------------------------------------------------------------- long loops of constants

_LOOPS = {
    "last": lambda w: lax.scan(lambda c, x: (0.9 * c + x, None), 1.0, jnp.ones(3000))[
        0
    ],
    "rows": lambda w: jnp.sum(
        lax.scan(lambda c, x: (c + x, c * x), 1.0, jnp.ones(3000), reverse=True)[1]
    ),
}


@pytest.mark.parametrize("name", _LOOPS)
def test_a_long_loop_of_constants_is_replayed(name):
    loss = lambda w: _LOOPS[name](w) * jnp.sum(w**2)
    report = phihat.prove_convexity(loss, jnp.ones(2))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert replay(report, loss, jnp.ones(2))
    other = lambda w: (_LOOPS[name](w) - 1e9) * jnp.sum(w**2)
    assert not replay(report, other, jnp.ones(2))


# ------------------------------------------------------------- other corners of replay


@pytest.mark.parametrize(
    "data",
    [Box(1.0, 2.0), Box({"x": np.zeros(2), "y": 0.0}, {"x": np.ones(2), "y": 1.0})],
)
def test_a_range_of_python_numbers_is_replayed(flags, data):
    loss = lambda w, d: sum(jnp.sum(leaf * w**2) for leaf in jax.tree.leaves(d))
    report = phihat.prove_convexity(loss, jnp.ones(2), data)
    assert report.verdict is Verdict.PROVED_CONVEX
    assert replay(report, loss, jnp.ones(2), data)


def test_a_gradient_as_a_value_is_replayed():
    def loss(w):
        return jnp.sum(jax.grad(lambda v: jnp.sum(jnp.abs(v) + v**2))(w) * w)

    report = phihat.prove_convexity(loss, jnp.ones(2))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert replay(report, loss, jnp.ones(2))


@pytest.mark.parametrize(
    "loss",
    [lambda w: (w[0] * w[1] - 1.0) ** 2, lambda w: jnp.sum(jnp.mod(w, 5.0))],
)
def test_a_domain_of_one_point_has_a_verdict(loss):
    report = phihat.check_convexity(loss, jnp.ones(2), domain=Box(1.0, 1.0), budget=0.1)
    assert report.verdict in (Verdict.UNDECIDED, Verdict.CERTIFIED_ON_BOX)


def test_params_beyond_an_implied_condition_prove_nothing():
    loss = lambda p: p["m"] ** 2 / p["l"] - jnp.log(p["l"])
    inside = phihat.prove_convexity(loss, {"m": 0.0, "l": 1.0})
    assert inside.verdict is Verdict.PROVED_CONVEX
    assert inside.constraints == ("the argument of a logarithm is > 0",)
    beyond = phihat.prove_convexity(loss, {"m": 0.0, "l": -1.0})
    assert beyond.verdict is Verdict.UNDECIDED
