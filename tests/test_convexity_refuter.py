"""Refutations: rigorous on all that is not convex, none on what is."""

import sys
import time

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest

from phihat import Box, check_convexity
from phihat.convexity.numbers.intervals import from_array
from phihat.convexity.primitives.evaluation import evaluate
from phihat.convexity.program.floating import function_of
from phihat.convexity.program.problem import pose
from phihat.convexity.refuter import chords
from phihat.convexity.refuter.derivative_lints import lints
from phihat.convexity.refuter.refutation import refute_convexity, search
from phihat.convexity.report import Verdict
from tests.convexity_losses import CONVEX, LOSSES, NOT_CONVEX

_SECONDS: list[float] = []


def _refuted(loss_fn, params, data=None, **options):
    report = refute_convexity(loss_fn, params, data, **options)
    assert report.verdict is Verdict.REFUTED, report.reason
    assert report.witness is not None
    return report


def _check(report, loss_fn, params, data, domain=None, rigorous=True):
    """Check the witness anew: exact middle, within the domain, above the chord."""
    a, b, t, gap, is_rigorous, values = report.witness
    assert is_rigorous == rigorous
    assert t == 0.5
    assert gap > 0
    leaves = [np.asarray(leaf) for end in (a, b) for leaf in jax.tree.leaves(end)]
    half = len(leaves) // 2
    for left, right in zip(leaves[:half], leaves[half:], strict=True):
        middle = left + (right - left) / 2
        assert np.array_equal(right - middle, middle - left)
        assert np.array_equal(2 * middle, left + right)
    middle = jax.tree.map(lambda x, y: x + (y - x) / 2, a, b)
    for point in (a, b, middle):
        inside = (domain or Box(-np.inf, np.inf)).clip(jax.tree.map(jnp.asarray, point))
        assert all(map(np.array_equal, jax.tree.leaves(inside), jax.tree.leaves(point)))
    with jax.numpy_dtype_promotion("standard"):
        args = () if data is None else (data,)
        at = [float(loss_fn(point, *args)) for point in (a, middle, b)]
    np.testing.assert_allclose(values, at, rtol=1e-9)
    if np.isfinite(gap):
        found = at[1] - (at[0] + at[2]) / 2
        assert found >= gap - 1e-12 * sum(map(abs, at))


# ------------------------------------------------------------------- the forty losses


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_what_is_not_convex_is_refuted_rigorously(name):
    loss_fn, params, data, domain, _ = NOT_CONVEX[name]
    begun = time.perf_counter()
    report = _refuted(loss_fn, params, data, domain=domain)
    _SECONDS.append(time.perf_counter() - begun)
    _check(report, loss_fn, params, data, domain)
    if len(_SECONDS) == len(NOT_CONVEX):
        sys.stdout.write(
            f"refuted {len(_SECONDS)} of {len(NOT_CONVEX)} rigorously: "
            f"median {np.median(_SECONDS):.3f} s, worst {max(_SECONDS):.3f} s\n"
        )


@pytest.mark.parametrize("name", CONVEX)
def test_what_is_convex_is_not_refuted(name):
    loss_fn, params, data, domain, _ = CONVEX[name]
    report = refute_convexity(loss_fn, params, data, domain=domain)
    assert report.verdict is Verdict.UNDECIDED
    assert report.witness is None
    assert "proves nothing" in report.reason


def test_the_table_is_complete():
    assert len(LOSSES) == 40
    assert (len(CONVEX), len(NOT_CONVEX)) == (24, 16)


# ----------------------------------------------------------- values, not derivatives


@jax.custom_jvp
def _lying(x):
    return -(x**2)


@_lying.defjvp
def _lying_rule(primals, tangents):
    return _lying(*primals), 2.0 * primals[0] * tangents[0]


@jax.custom_vjp
def _lying_in_reverse(x):
    return -(x**2)


_lying_in_reverse.defvjp(lambda x: (-(x**2), x), lambda x, g: (2.0 * x * g,))


def _stopped(x):
    return -jax.lax.stop_gradient(x) * x


@pytest.mark.parametrize("fn", [_lying, _lying_in_reverse, _stopped])
def test_derivative_rules_deceive_nobody(fn):
    _check(_refuted(fn, 0.3), fn, 0.3, None)


def _squared_by_a_lie(x):
    return jnp.where(x > 0, x**2, -jax.lax.stop_gradient(-(x**2)))


NOT_CONVEX_EITHER = {
    "a staircase": (lambda x: x.astype(int).astype(float), 2.3),
    "floor": (jnp.floor, 2.3),
    "round": (jnp.round, 0.2),
    "a jump": (lambda x: jnp.where(x > 0, x, x - 1.0), 0.3),
    "root": (jnp.sqrt, 2.0),
    "reciprocal": (lambda x: 1 / x, 2.0),
    "a hidden well": (lambda x: x**2 - 3.0 * jnp.exp(-((x - 9.0) ** 2)), 0.3),
    "a faint ripple": (lambda x: x**2 + 0.021 * jnp.sin(10.0 * x), 0.3),
    "under an offset": (lambda x: 1e6 + jnp.cos(x), 0.3),
    "bilinear": (lambda z: z[0] * z[1], np.ones(2)),
    "indefinite": (lambda z: z[0] ** 2 - 1e-4 * z[1] ** 2, np.ones(2)),
    "log of a guard": (lambda x: -jnp.nan_to_num(jnp.log(x)), 2.0),
    "roots that meet": (
        lambda x: (jnp.sqrt(x) + jnp.sqrt(1.0 - x)) ** 2,
        0.3,
    ),
    "concave quadratic in one of 60": (
        lambda w: jnp.sum(w**2 * jnp.ones(60).at[41].set(-0.01)),
        np.ones(60),
    ),
}


@pytest.mark.parametrize("name", NOT_CONVEX_EITHER)
@pytest.mark.parametrize("x64", [True, False])
def test_more_that_is_not_convex(name, x64):
    fn, params = NOT_CONVEX_EITHER[name]
    with jax.enable_x64(x64):
        report = _refuted(fn, np.asarray(params, np.float64 if x64 else np.float32))
    if x64:  # else the literals of the loss were rounded to float32
        _check(report, fn, params, None)
    assert report.witness.rigorous


CONVEX_EITHER = {
    "affine": (lambda x: jnp.sum(0.1 * x) + 0.3, np.ones(3)),
    "constant": (lambda x: 0.0 * jnp.sum(x) + 0.1, np.ones(3)),
    "affine and large": (lambda x: 1e16 + jnp.sum(x) * 1e-3, np.ones(3)),
    "affine and cancelled": (lambda x: (x + 1e16) - 1e16, 0.3),
    "an almost concave ripple": (lambda x: x**2 + 0.0199 * jnp.sin(10.0 * x), 0.3),
    "overflowing": (lambda x: jnp.sum(jnp.exp(100.0 * x)), np.ones(3)),
    "naive softmax": (
        lambda x: -jnp.log(jnp.exp(x[0]) / jnp.sum(jnp.exp(x))),
        np.ones(3),
    ),
    "naive cross-entropy": (lambda x: -jnp.log(1.0 - jax.nn.sigmoid(x)), 0.3),
    "probit at its seam": (lambda x: -special.log_ndtr(x) + 0.0 * x, -20.0),
    "minus root": (lambda x: -jnp.sqrt(x), 2.0),
    "log barrier": (lambda x: -jnp.sum(jnp.log(1.0 - x**2)), np.zeros(2)),
    "norm": (lambda x: jnp.linalg.norm(x), np.ones(3)),
    "a lie above the value": (_squared_by_a_lie, 0.3),
    "cast to half": (lambda x: (x.astype(jnp.float16) ** 2).astype(float), 0.3),
    "perspective": (
        lambda z: jnp.where(z[1] > 0, z[0] ** 2 / z[1], jnp.inf),
        np.ones(2),
    ),
}


@pytest.mark.parametrize("name", CONVEX_EITHER)
def test_more_that_is_convex(name):
    fn, params = CONVEX_EITHER[name]
    report = refute_convexity(fn, np.asarray(params))
    assert report.verdict is Verdict.UNDECIDED, report


def _rounded(dtype):
    return lambda x: jnp.sum(x.astype(dtype).astype(x.dtype) ** 2)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (_rounded(jnp.float8_e4m3fn), "float8_e4m3fn"),
        (_rounded(jnp.float8_e5m2), "float8_e5m2"),
        (lambda x: jax.lax.reduce_precision(x @ x, 5, 2), "reduce_precision"),
    ],
)
def test_rounding_refutes_nothing(fn, name):
    report = check_convexity(fn, np.array([0.3, -0.7]), budget=0.5)
    assert report.verdict is Verdict.UNDECIDED
    assert name in report.blame[0].primitive


def test_a_witness_shows_the_values_of_the_program():
    """Where an integer may wrap, an enclosure is wide, and its middle no value."""

    def loss_fn(x):
        wide = jnp.arange(3, dtype=jnp.int32) * jnp.floor(x).astype(jnp.int32)
        return x**2 - 3.0 * jnp.abs(x) + 0.0 * jnp.sum(wide).astype(x.dtype)

    report = refute_convexity(loss_fn, 0.3)
    witness = report.witness
    middle = (witness.a + witness.b) / 2
    for point, value in zip(
        (witness.a, middle, witness.b), witness.values, strict=True
    ):
        np.testing.assert_allclose(value, loss_fn(jnp.asarray(point)), rtol=1e-6)


# --------------------------------------------------------------------------- domains


def test_an_open_question_names_the_domain_and_the_budget():
    report = check_convexity(lambda x: 1.0 / x, 1.0)
    assert report.verdict is Verdict.REFUTED
    assert "`domain=phihat.Box(low, high)`" in report.lints[-1]
    report = check_convexity(lambda x: jnp.hypot(x, x + 1.0), 1.0, budget=1e-9)
    assert report.verdict is Verdict.UNDECIDED
    assert "budget was used up" in report.reason


def test_a_loss_that_is_not_defined_everywhere_is_not_said_to_be():
    report = check_convexity(lambda x: -jnp.sum(jnp.log(x)), np.ones(3))
    assert str(report).startswith("PROVED CONVEX  where it is defined in R^3")


def test_a_gather_that_fills_in_is_blamed_with_what_it_gives():
    fn = lambda x: jnp.sum(x.at[jnp.array([0, 5])].get(mode="fill", fill_value=0.5))
    (blame,) = check_convexity(fn, np.ones(2), budget=0.0).blame
    assert blame.reason.endswith("gather gives 0.5")


def test_a_domain_with_a_hole_is_told():
    loss_fn = lambda x: jnp.log(jnp.abs(x) - 1.0) + 100.0 * x**2
    report = _refuted(loss_fn, 2.0)
    assert "its domain is not convex" in report.reason
    assert report.witness.gap == np.inf
    assert report.witness.rigorous
    _check_ends(report, loss_fn)


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda x: x / x,
        lambda x: x**2 / x,
        lambda x: jnp.abs(x) / jnp.abs(x),
        lambda x: jnp.log(jnp.abs(x) - 1.0) + 100.0 * x**2,
        lambda x: 3.0 * jnp.sqrt(x**2 - 1.0) + 100.0 * x**2,
    ],
)
def test_a_hole_holds_no_number(loss_fn):
    report = _refuted(loss_fn, 2.0)
    assert np.isnan(report.witness.values[1])
    assert report.witness.gap == np.inf
    assert "the loss is nan\n" in f"{report}\n"
    _check_ends(report, loss_fn)


def _check_ends(report, loss_fn):
    assert np.isfinite(float(loss_fn(report.witness.a)))
    assert np.isfinite(float(loss_fn(report.witness.b)))


def test_a_declared_domain_is_kept():
    cube = Box(0.0, np.inf)
    report = refute_convexity(lambda x: jnp.sum(x**3), np.ones(2), domain=cube)
    assert report.verdict is Verdict.UNDECIDED
    fn, box = (lambda x: jnp.sum(x**3)), Box([-0.5, 0.0], [3.0, 3.0])
    _check(_refuted(fn, np.ones(2), domain=box), fn, np.ones(2), None, box)
    kink, box = (lambda x: -jnp.abs(x - 0.25)), Box(0.2, 0.3)
    _check(_refuted(kink, 0.21, domain=box), kink, 0.21, None, box)
    assert refute_convexity(kink, 0.21, domain=Box(0.2, 0.25)).witness is None


def test_leaves_that_are_held_do_not_move():
    params = {"a": np.array([0.1, 0.7]), "b": np.array([0.3, 0.9])}
    fn = lambda p: jnp.sum(p["a"] * p["b"]) - jnp.sum(p["b"] ** 2)
    assert refute_convexity(fn, params, wrt="a").verdict is Verdict.UNDECIDED
    report = _refuted(fn, params, wrt="b")
    for end in (report.witness.a, report.witness.b):
        assert np.array_equal(end["a"], params["a"])
    assert "the other leaves held" in report.scope


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (-3.0, 1.0)])
def test_one_data_set_of_a_range_suffices(low, high):
    report = _refuted(lambda x, d: d * x**2, 1.0, Box(low, high))
    assert "at the low ends of their range" in report.reason
    report = _refuted(lambda x, d: -d * x**2, 1.0, Box(low, high))
    assert "at the high ends of their range" in report.reason
    report = refute_convexity(lambda x, d: d**2 * x**2, 1.0, Box(low, high))
    assert report.verdict is Verdict.UNDECIDED


def test_the_middle_of_a_range_is_tried():
    report = _refuted(lambda x, d: (d**2 - 1.0) * x**2, 1.0, Box(-2.0, 2.0))
    assert "the data at the middle of their range" in report.reason


# ------------------------------------------------------------------- unread programs


def test_floats_alone_must_be_overwhelming():
    def fn(x):
        return jax.lax.while_loop(
            lambda c: c[0] < 3.0, lambda c: (c[0] + 1.0, c[1]), (x, x)
        )[0]

    report = refute_convexity(fn, 0.3)
    assert report.witness is None or not report.witness.rigorous
    inverse = lambda a: jnp.linalg.inv(a @ a.T + jnp.eye(2))[0, 0]
    report = _refuted(inverse, np.eye(2))
    assert not report.witness.rigorous


def test_floats_alone_do_not_refute_a_least_norm():
    fn = lambda a: jnp.linalg.norm(a, 2)  # a singular value decomposition
    assert refute_convexity(fn, np.eye(3) + 0.1).verdict is Verdict.UNDECIDED


def test_atoms_forbid_floats_alone():
    def fn(x):
        sign = jnp.linalg.det(jnp.eye(4) * 1.0 + x * 0.0)
        return -jnp.logaddexp(x, 0.0) * jnp.linalg.inv(jnp.eye(2) * sign)[0, 0]

    report = refute_convexity(fn, 0.3)
    assert report.verdict is Verdict.UNDECIDED


# ----------------------------------------------------------------------------- chords


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6])
def test_middles_are_exact_and_inside(scale):
    rng = np.random.default_rng(3)
    start = scale * rng.normal(size=5)
    low = np.array([-np.inf, start[1] - scale, start[2], -np.inf, start[4] - 1e-12])
    high = np.array([np.inf, start[1] + 0.1 * scale, start[2], start[3], np.inf])
    space = chords.Space(start, low, high, (slice(0, 2), slice(2, 5)))
    middle, step = chords.snapped(space, *chords.random(space, rng, 500))
    a, b = middle - step, middle + step
    assert np.array_equal(a + step, middle)
    assert np.array_equal(b - step, middle)
    assert np.array_equal(a + b, 2 * middle)
    for point in (a, b, middle):
        assert np.all((low <= point) & (point <= high))
    assert not step[:, 2].any()
    assert (np.abs(step).max(axis=1) > 0).mean() > 0.9


def test_random_chords_are_the_same_each_time():
    fn = lambda z: jnp.sin(z[0]) * z[1]
    first, second = (_refuted(fn, np.ones(2)).witness for _ in range(2))
    assert np.array_equal(first.a, second.a)
    assert first.gap == second.gap


# ---------------------------------------------------------------- the flat program


def test_a_whole_scan_in_floats():
    def fn(w):
        return jax.lax.scan(lambda c, x: (jnp.tanh(w * c + x), None), 0.1, xs)[0]

    xs = jnp.linspace(-1.0, 1.0, 4000)
    problem = pose("check_convexity", fn, 0.7)
    value = function_of(problem.program)([*problem.start])
    np.testing.assert_allclose(value, fn(0.7), rtol=1e-12)
    enclosed = evaluate(problem.program, {problem.program.params[0]: from_array(0.7)})
    assert enclosed[problem.program.output].contains(float(value))


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [(-1.0, "`budget` must be"), (np.nan, "`budget` must be")],
)
def test_budgets_that_are_none(budget, sentence):
    with pytest.raises(ValueError, match=sentence):
        refute_convexity(jnp.sin, 1.0, budget=budget)


def test_a_budget_of_zero_is_undecided():
    report = refute_convexity(jnp.sin, 1.0, budget=0.0)
    assert report.verdict is Verdict.UNDECIDED
    assert "budget was used up" in report.reason


def test_a_loss_of_nan_is_undecided():
    report = refute_convexity(lambda x: x * jnp.nan, 1.0)
    assert report.verdict is Verdict.UNDECIDED
    assert "no finite value" in report.reason


def test_an_endless_unrolling_is_undecided():
    def fn(x):
        return jax.lax.fori_loop(0, 30_000, lambda i, c: jnp.sin(c) + c * x, x)

    report = refute_convexity(fn, 0.1, budget=0.0)
    assert report.verdict is Verdict.UNDECIDED


def test_refute_asks_the_clock():
    problem = pose("check_convexity", jnp.sin, 1.0)
    assert search(problem, time.monotonic() - 1.0)[0] is None
    assert search(problem, time.monotonic() + 10.0)[0] is not None


def test_the_slide_shows_the_chord():
    text = str(_refuted(lambda x: -(x**2), 1.0))
    assert text.startswith("REFUTED  on all of R^1")
    assert "rigorously above the" in text


# ----------------------------------------------------------------------------- lints


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (_stopped, "stop_gradient"),
        (_lying, "custom_jvp_call"),
        (_lying_in_reverse, "custom_vjp_call"),
        (lambda x: -jnp.abs(x) + 0.01 * x**2, "concave kink"),
        (lambda x: jnp.floor(x) + x**2, "the value jumps"),
    ],
)
def test_lints_tell_where_ad_and_the_value_disagree(fn, words):
    (sentence,) = lints(pose("check_convexity", fn, 0.3))
    assert sentence.startswith("AD curvature is not the curvature of the value: ")
    assert words in sentence


@pytest.mark.parametrize(
    "name", ["logistic", "hinge", "group lasso", "Cauchy", "Huber"]
)
def test_lints_are_silent_where_they_agree(name):
    loss_fn, params, data, domain, _ = LOSSES[name]
    problem = pose("check_convexity", loss_fn, params, data, domain=domain)
    assert lints(problem) == ()
