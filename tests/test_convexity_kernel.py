"""The independent checker, and the alarm of chords."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phihat import Box
from phihat.convexity import (
    Verdict,
    certify_convexity,
    check_convexity,
    prove_convexity,
    replay,
)
from phihat.convexity.kernel import free_leaves
from phihat.convexity.program.problem import pose
from phihat.convexity.refuter import chord_alarm
from phihat.convexity.refuter.rounding_errors import Unbounded, value_and_error
from tests.convexity_faults import FAULTS, tried
from tests.convexity_kernel import false_claims
from tests.convexity_losses import CONVEX, LOSSES
from tests.convexity_programs import directed, random_case
from tests.soundness import numbers

# --------------------------------------------------------------------- planted faults


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_is_planted_back_is_noticed(name):
    outcome = tried(FAULTS[name])
    fault = FAULTS[name]
    assert outcome.false.startswith(("PROVED", "CERTIFIED"))
    assert outcome.honest != outcome.false or fault.kind == "scope"
    assert outcome.refused


# ------------------------------------------------------------------- what it derives


@pytest.mark.parametrize("first", range(3))
def test_no_value_contradicts_what_the_checker_derives(first):
    with jax.enable_x64(True):
        for case in itertools.islice(directed(), first, None, 18):
            assert not false_claims(case, count=24), case.name


@pytest.mark.parametrize("x64", [False, True])
def test_replay_accepts_what_is_proved_of_random_programs(x64):
    with jax.enable_x64(x64):
        for seed in range(40):
            _, *given, domain = random_case(numbers(seed))
            report = prove_convexity(*given, domain=domain)
            if report.verdict is not Verdict.UNDECIDED:
                assert replay(report, *given, domain=domain), seed
                assert report.trusted == ()


def test_nothing_is_taken_on_trust_in_the_losses_of_tasks():
    for name in CONVEX:
        loss_fn, params, data, domain, _ = LOSSES[name]
        report = prove_convexity(loss_fn, params, data, domain=domain)
        assert report.trusted == (), name


def test_the_bounds_of_a_hessian_are_taken_on_trust():
    box = Box(np.full(2, -0.5), np.full(2, 0.5))
    report = certify_convexity(lambda w: -jnp.sum(jnp.cos(w)), box)
    assert report.verdict is Verdict.CERTIFIED_ON_BOX
    (line,) = report.trusted
    assert "Hessian" in line


@pytest.mark.parametrize(
    ("wrt", "free"),
    [
        (None, (True, True, True)),
        ("w", (True, False, False)),
        ("w_scale", (False, True, False)),
        ("layer", (False, False, True)),
        ("['layer']['w']", (False, False, True)),
        (["w", "layer"], (True, False, True)),
        ("w_", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_free_leaves_are_named_by_whole_keys(wrt, free):
    params = {"w": 0.0, "w_scale": 0.0, "layer": {"w": 0.0}}
    order = [free[2], free[0], free[1]]  # sorted: layer, w, w_scale
    assert free_leaves(params, wrt) == tuple(order)


_EDGES, _AT = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.5, 1.0, -1.0])
_COMPUTED = {
    "searchsorted": lambda w: w**2 @ jnp.searchsorted(_EDGES, _AT),
    "digitize": lambda w: w**2 @ jnp.digitize(_AT, _EDGES),
    "histogram": lambda w: w**2 @ jnp.histogram(_AT, 3)[0],
    "median": lambda w: jnp.median(1.0 + _EDGES) * (w @ w),
    "scaled in place": lambda w: jnp.sum(w.at[:2].divide(2.0).at[1:].power(2)),
    "the cube of a norm": lambda w: (w @ w) * jnp.sqrt(w @ w),
    "an element at a rounded place": lambda w: (
        w[jnp.exp(jnp.log(_EDGES[2])).astype(int)] ** 2
    ),
    "x log(x / 2)": lambda w: jnp.sum(w * jnp.log(w / 2.0)),
}


@pytest.mark.parametrize("name", _COMPUTED)
def test_replay_accepts_what_is_computed_of_constants(name):
    with jax.numpy_dtype_promotion("standard"):
        report = prove_convexity(_COMPUTED[name], np.ones(3))
        assert report.is_convex
        assert replay(report, _COMPUTED[name], np.ones(3))


def test_replay_accepts_an_element_anywhere_in_a_range():
    loss_fn = lambda w, place: jnp.sum(jax.lax.dynamic_slice(w, (place,), (2,)) ** 2)
    given = loss_fn, np.ones(3), Box(np.int32(0), np.int32(9))
    report = prove_convexity(*given)
    assert report.is_convex
    assert replay(report, *given)


def test_the_checker_says_nothing_of_the_order_of_zeros():
    from phihat.convexity.kernel.facts import number
    from phihat.convexity.kernel.table import TABLE

    for name, reflexive in (("le_to", 1.0), ("lt_to", 0.0)):
        holds = lambda x, y, rule=TABLE[name]: rule(None, number(x), number(y))
        assert holds(0.0, 0.0)[:2] == (0.0, 1.0)
        assert holds(2.0, 2.0)[:2] == (reflexive, reflexive)
        assert holds(1.0, 2.0)[:2] == (1.0, 1.0)
        assert holds(2.0, 1.0)[:2] == (0.0, 0.0)


def test_replay_reads_the_leaves_that_are_asked_for():
    loss_fn = lambda p: p["a"] ** 2 - jnp.abs(p["b"])
    params = {"a": 1.0, "b": 2.0}
    report = prove_convexity(loss_fn, params, wrt="a")
    assert replay(report, loss_fn, params, wrt="a")
    assert not replay(report, loss_fn, params)
    assert not replay(report, loss_fn, params, wrt="b")


def _in_a_loop(kind, rows, length):
    """Add a square of w, times a sum of rows, in each round."""
    add = lambda carry, w: carry + jnp.sum(rows * w**2)
    if kind == "scan":
        return lambda w: jax.lax.scan(
            lambda carry, _: (add(carry, w), None), 0.0, length=length
        )[0]
    if kind == "fori":
        return lambda w: jax.lax.fori_loop(
            0, len(rows), lambda i, carry: carry + jnp.asarray(rows)[i] * w**2, 0.0
        )
    return lambda w: jax.lax.while_loop(
        lambda s: s[0] < w, lambda s: (s[0] + 1.0, add(s[1], w)), (0.0, 0.0)
    )[1]


@pytest.mark.parametrize("kind", ["scan", "fori", "while"])
def test_a_digest_holds_the_bodies_of_loops_and_all_of_their_numbers(kind):
    other = np.ones(1500, np.float32)
    other[700] = -9e3
    functions = [_in_a_loop(kind, rows, 2000) for rows in (np.ones(1500), other)]
    one, two = (pose("test", f, 1.0) for f in functions)
    assert one.digest() == pose("test", functions[0], 1.0).digest()
    assert one.digest() != two.digest()
    report = prove_convexity(functions[0], 1.0)
    if kind != "while":  # of no known number of rounds
        assert report.verdict is Verdict.PROVED_CONVEX
        assert replay(report, functions[0], 1.0)
    assert not replay(report, functions[1], 1.0)


# -------------------------------------------------------------------------- the alarm


def test_an_analysis_of_too_many_steps_ends(monkeypatch):
    monkeypatch.setattr(chord_alarm, "_JUDGING", 0.0)
    loss_fn = lambda w: jnp.sum((w + 2048.0) ** 2 - 4096.0 * w - 2048.0**2)
    report = check_convexity(loss_fn, np.ones(3, np.float32))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert "a program of too many steps" in report.lints[-1]


def test_a_chord_that_cannot_be_judged_is_told(monkeypatch):
    def unbounded(*_):
        raise Unbounded("no rule reads `cholesky`")

    monkeypatch.setattr(chord_alarm, "value_and_error", unbounded)
    loss_fn = lambda w: jnp.sum((w + 4096.0) ** 2 - 8192.0 * w - 4096.0**2)
    report = check_convexity(loss_fn, np.ones(3, np.float32))
    assert report.verdict is Verdict.PROVED_CONVEX
    assert "`cholesky`" in report.lints[-1]
    assert "was not judged" in report.lints[-1]


def _misread(monkeypatch, loss_fn, seen):
    """Let the library trace one function, and the user run another."""
    from phihat.convexity.program import problem

    original = problem.trace
    monkeypatch.setattr(
        problem,
        "trace",
        lambda fn, *args: original(seen if fn is loss_fn else fn, *args),
    )
    monkeypatch.setattr(chord_alarm, "_tried", {})


def test_a_program_that_was_misread_raises_the_alarm(monkeypatch):
    loss_fn = lambda w: jnp.sum(jnp.sin(w))
    _misread(monkeypatch, loss_fn, lambda w: jnp.sum(w**2))
    with pytest.warns(RuntimeWarning, match="misread"):
        report = prove_convexity(loss_fn, jnp.zeros(3))
    assert report.verdict is Verdict.UNDECIDED
    assert "chord" in report.reason
    assert report.witness is not None
    left, middle, right = report.witness.values
    assert middle > (left + right) / 2
    assert report.certificate == ()


def test_a_rare_coordinate_is_tried(monkeypatch):
    sign = np.ones(700)
    sign[612] = -1.0
    loss_fn = lambda w: jnp.sum(sign * w**2)
    _misread(monkeypatch, loss_fn, lambda w: jnp.sum(w**2))
    with pytest.warns(RuntimeWarning, match="misread"):
        report = prove_convexity(loss_fn, jnp.zeros(700))
    assert report.num_chords >= 700


def test_affine_and_concave_verdicts_are_guarded_too(monkeypatch):
    loss_fn = lambda w: jnp.sum(w**2)
    for seen in (lambda w: jnp.sum(w), lambda w: -jnp.sum(w**2)):
        _misread(monkeypatch, loss_fn, seen)
        with pytest.warns(RuntimeWarning, match="misread"):
            report = prove_convexity(loss_fn, jnp.zeros(3))
        assert report.verdict is Verdict.UNDECIDED


def test_a_certificate_on_a_box_is_guarded_too(monkeypatch):
    loss_fn = lambda w: jnp.sum(jnp.cos(w))
    _misread(monkeypatch, loss_fn, lambda w: -jnp.sum(jnp.cos(w)))
    box = Box(np.full(2, -0.5), np.full(2, 0.5))
    with pytest.warns(RuntimeWarning, match="misread"):
        report = certify_convexity(loss_fn, box)
    assert report.verdict is Verdict.UNDECIDED


def test_what_cannot_be_bounded_raises_no_alarm(monkeypatch):
    loss_fn = lambda w: -jnp.sum(jax.lax.lgamma(w))
    _misread(monkeypatch, loss_fn, lambda w: jnp.sum(jax.lax.lgamma(w)))
    box = Box(1.0, 5.0)
    report = prove_convexity(loss_fn, jnp.full(2, 2.0), domain=box)
    assert report.verdict is Verdict.PROVED_CONVEX
    assert report.num_chords >= 8


@pytest.mark.parametrize("x64", [False, True])
def test_no_true_proof_is_condemned_by_rounding(x64):
    """Sums that cancel, and a long recursion: wrong by far more than the values."""
    with jax.enable_x64(x64):
        for loss_fn in (
            lambda w: jnp.sum((w + 1e6) - 1e6),
            lambda w: jnp.sum(jnp.exp(w) - jnp.exp(w) + w),
            lambda w: jnp.sum(((w * 1e3 + 1e5) - 1e5) ** 2),
            lambda w: jnp.sum(jnp.cumsum(jnp.repeat(w, 500) * 1e3)) - 2.0,
            lambda w: jax.lax.fori_loop(0, 50, lambda _, c: c * 0.9 + jnp.sum(w), 0.0),
        ):
            report = check_convexity(loss_fn, jnp.ones(3))
            assert report.verdict.is_convex
            assert report.num_chords >= 8


def test_every_verdict_says_how_many_chords_were_tried():
    assert prove_convexity(lambda w: jnp.sum(w**2), jnp.ones(3)).num_chords >= 290
    undecided = prove_convexity(lambda w: jnp.sum(jnp.sin(w)), jnp.ones(3))
    assert undecided.num_chords == 0
    # No budget for more than the least number.
    few = prove_convexity(lambda w: jnp.sum(w**2), jnp.ones(2000), budget=0.0)
    assert 8 <= few.num_chords < 1000


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", CONVEX)
def test_rounding_stays_within_its_bound(name, x64):
    """In the user's dtypes, against an evaluation in float64 of the same program."""
    loss_fn, params, data, domain, _ = LOSSES[name]
    with jax.enable_x64(x64):
        problem = pose("test", loss_fn, params, data, domain=domain)
        program = problem.program
        rng = np.random.default_rng(0)
        data_leaves = [
            None if r is None else r.low.astype(program.dtypes[n])
            for n, r in zip(program.data, problem.data, strict=True)
        ]
        for scale in (0.1, 1.0, 30.0):
            leaves = [
                np.clip(
                    leaf + scale * rng.normal(size=leaf.shape), r.low, r.high
                ).astype(program.dtypes[n])
                for leaf, r, n in zip(
                    problem.start, problem.domain, program.params, strict=True
                )
            ]
            try:
                value, error = value_and_error(program, leaves, data_leaves)
            except Unbounded:
                continue
            got = float(problem.loss(leaves))
            assert not np.isfinite(got) or abs(got - value) <= error
            assert error <= 0.05 * (1.0 + abs(value)) or not x64


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("beyond", [None, "extrapolate"])
def test_rounding_of_an_interpolation_stays_within_its_bound(x64, beyond):
    dtype = np.float64 if x64 else np.float32
    knots = np.array([-1.0, 0.1, 0.4, 2.0], dtype)
    heights = np.array([0.5, -100.0, 3.0, 2.5], dtype)
    with jax.enable_x64(x64):
        problem = pose(
            "test",
            lambda x: jnp.interp(3 * x, knots, heights, left=beyond, right=beyond),
            np.ones((), dtype),
        )
        for x in np.random.default_rng(0).normal(size=50).astype(dtype):
            value, error = value_and_error(problem.program, [x], [])
            got = float(problem.loss([x]))
            assert abs(got - value) <= error <= 0.02
