import dataclasses
import functools
import importlib
import inspect
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phihat import Box
from phihat.convexity import prove_convexity, replay
from phihat.convexity.primitives import PRIMITIVES
from phihat.convexity.prover import cancellation, identities
from phihat.convexity.prover.interpreter import prove
from tests import convexity_programs, convexity_values, mutation, soundness
from tests.convexity_losses import CONVEX
from tests.convexity_mutants import MUTANTS
from tests.convexity_programs import Case, random_case
from tests.convexity_zoo import FALSE_FRIENDS, TWINS

# ------------------------------------------------------------------- every claim


def test_no_claim_on_a_random_program_is_false():
    cases = (random_case(soundness.numbers(seed)) for seed in range(200))
    counts, reports = soundness.survey(cases, all_parts=100)
    assert not reports
    assert counts["proved convex"] >= 15  # else nothing was tried
    assert counts["refuted"] >= 50


def test_no_claim_on_a_directed_program_is_false():
    cases = list(convexity_programs.directed())
    counts, reports = soundness.survey(cases[::4], count=24)
    assert not reports
    assert counts["claims"] > 10_000


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.lists(st.integers(0, 1 << 10), max_size=40))
def test_no_claim_on_a_drawn_program_is_false(numbers):
    assert not convexity_programs.examine(random_case(numbers), count=24).false


def test_values_are_those_of_jax():
    """The claims are held against an interpreter of the traced program: so test it."""
    for seed in range(12):
        case = random_case(soundness.numbers(seed))
        problem = convexity_programs.posed(case)
        inputs = convexity_programs.chords(problem, np.random.default_rng(1), 2)
        values = convexity_values.values_of(problem.program, inputs)
        ours = values[problem.program.output]
        (params,) = (inputs[n] for n in problem.program.params)
        data = [inputs[n] for n in problem.program.data]
        loss_fn = jax.jit(case.loss_fn)
        for row, ours_here in enumerate(np.broadcast_to(ours, len(params))):
            given = [leaf[row % len(leaf)] for leaf in data]
            with jax.numpy_rank_promotion("allow"):
                theirs = loss_fn(jnp.asarray(params[row]), *map(jnp.asarray, given))
            np.testing.assert_allclose(ours_here, theirs, rtol=1e-9, atol=1e-9)


def test_a_false_claim_is_noticed():
    """The referee is no rubber stamp: what is false is found, and confirmed."""
    case = Case("cubic", lambda x: x**3 + 0.0, np.asarray(0.5), None, Box(-1.0, 2.0))
    problem = convexity_programs.posed(case)
    inputs = convexity_programs.chords(problem, np.random.default_rng(0), 48)
    values = convexity_values.values_of(problem.program, inputs)
    facts, known = convexity_programs.facts_of(problem)
    number = problem.program.output
    array = known[number]
    for claims in (
        {"convex": True},
        {"concave": True},
        {"low": -0.5},
        {"high": 7.0},
        {"positive": True},
        {"negative": True},
        {"constant": True},
    ):
        false = {number: array.with_classes(lambda f, c=claims: f.replace(**c))}
        found = convexity_programs.judged(problem, inputs, values, facts, false)
        assert next(iter(claims)) in {breach.claim for breach in found.false}
    # exp(x) + 1/2 is log-convex and no more; sqrt(x + 1) has q = 2 and no more.
    for loss_fn, claims in (
        (lambda x: jnp.exp(x) + 0.5, {"q": Fraction(0)}),
        (lambda x: jnp.sqrt(x + 1.0), {"q": Fraction(3)}),
        (lambda x: x**2 + 0.25, {"p": Fraction(1, 4)}),
        (lambda x: jnp.exp(x) + 5.0 * x, {"p": Fraction(0)}),
    ):
        case = Case("power", loss_fn, np.asarray(0.5), None, Box(0.0, 3.0))
        problem = convexity_programs.posed(case)
        inputs = convexity_programs.chords(problem, np.random.default_rng(0), 48)
        values = convexity_values.values_of(problem.program, inputs)
        facts, known = convexity_programs.facts_of(problem)
        number = problem.program.output
        false = {number: known[number].with_classes(lambda f, c=claims: f.replace(**c))}
        found = convexity_programs.judged(problem, inputs, values, facts, false)
        assert next(iter(claims)) in {breach.claim for breach in found.false}


@pytest.mark.parametrize("seed", [6979, 17847])
def test_a_sign_that_rounding_alone_hides_is_no_suspicion(seed):
    """1 - sigmoid(z) > 0, whatever its bits say where z is huge."""
    found = convexity_programs.examine(random_case(soundness.numbers(seed)))
    assert not found.false
    assert not found.open


@pytest.mark.parametrize("name", ["x^2", "exp(x) - exp(x)"])
def test_a_sign_where_a_value_is_zero_is_not_explained_by_rounding(name):
    loss_fn = {
        "x^2": lambda x: x**2,
        "exp(x) - exp(x)": lambda x: jnp.exp(x) - jnp.exp(x - 0.0 * x),
    }[name]
    case = Case(name, loss_fn, np.asarray(0.5), None, Box(-1.0, 1.0))
    problem = convexity_programs.posed(case)
    inputs = convexity_programs.chords(problem, np.random.default_rng(0), 48)
    values = convexity_values.values_of(problem.program, inputs)
    facts, known = convexity_programs.facts_of(problem)
    number = problem.program.output
    false = {number: known[number].with_classes(lambda f: f.replace(positive=True))}
    found = convexity_programs.judged(problem, inputs, values, facts, false)
    assert found.false or found.open


def test_a_crash_of_the_tests_is_no_kill():
    """A bug is killed by what the package does, not by what the tests do."""
    case = next(convexity_programs.directed())
    prepared = mutation.prepared(case, 8)
    assert mutation.judge(mutation._NO_BUG, [prepared], [], []) is None
    with pytest.raises(LookupError) as ours:
        mutation._planted("", mutation._NO_BUG)
    with pytest.raises(LookupError):
        mutation.crash(ours.value, "case")
    with pytest.raises(AttributeError) as theirs:
        prove(None)
    assert "crash: AttributeError" in mutation.crash(theirs.value, "case")


def test_every_rule_has_a_mutant():
    """Each function that a table of rules names holds a planted bug."""
    tables = (
        {name: p.facts for name, p in PRIMITIVES.items() if p.facts},
        {n: p.facts_of_arrays for n, p in PRIMITIVES.items() if p.facts_of_arrays},
        cancellation._FOLLOWERS,
        {n: f for n, pairs in identities._IDENTITIES.items() for _, f in pairs},
    )
    planted = {mutation.place_of(mutant) for mutant in MUTANTS}
    for table in tables:
        for name, function in table.items():
            code = inspect.unwrap(function).__code__
            module = function.__module__.removeprefix("phihat.convexity.")
            if ".<locals>." in code.co_qualname:  # made by a function that is named
                made_by = inspect.getmodule(function).__dict__[
                    code.co_qualname.split(".")[0]
                ]
                lines = {made_by.__code__.co_firstlineno, code.co_firstlineno}
            else:
                lines = {code.co_firstlineno}
            assert not planted.isdisjoint((module, line) for line in lines), name


def test_every_mutant_changes_a_line_that_is_there():
    for mutant in MUTANTS:
        module = importlib.import_module(f"phihat.convexity.{mutant.module}")
        source = inspect.getsource(module)
        assert source.count(mutant.old) > mutant.occurrence, mutant
        assert mutant.old != mutant.new


# --------------------------------------------------------------- metamorphic laws

_PLAIN = [
    *(Case(name, *CONVEX[name][:4]) for name in ("ridge", "logistic", "Huber", "Cox")),
    *(TWINS[name] for name in TWINS),
    *(FALSE_FRIENDS[name] for name in ("clip", "x y", "sigmoid", "shift not undone")),
    *(random_case(soundness.numbers(seed)) for seed in range(1000, 1016)),
]


def _shape(case: Case) -> tuple[bool, bool]:
    facts = prove(convexity_programs.posed(case)).facts
    return facts.convex, facts.concave


@functools.cache
def _plain_shapes() -> list[tuple[bool, bool]]:
    return [_shape(case) for case in _PLAIN]


_LAWS = {
    "jit": lambda fn: jax.jit(fn),
    "checkpoint": lambda fn: jax.checkpoint(fn),
    "vmap": lambda fn: lambda *args: jax.vmap(lambda _: fn(*args))(jnp.arange(2))[1],
    "scaled by 3": lambda fn: lambda *args: 3.0 * fn(*args),
    "plus a constant": lambda fn: lambda *args: fn(*args) - 2.5,
    "twice": lambda fn: lambda *args: fn(*args) + fn(*args),
    "through a scan": lambda fn: (
        lambda *args: jax.lax.scan(
            lambda carry, _: (fn(*args), None), jnp.zeros(()), None, length=2
        )[0]
    ),
}


@pytest.mark.parametrize("law", _LAWS)
def test_a_wrapper_changes_nothing(law):
    for case, shape in zip(_PLAIN, _plain_shapes(), strict=True):
        wrapped = case._replace(loss_fn=_LAWS[law](case.loss_fn))
        assert _shape(wrapped) == shape, case.name


def test_the_negative_is_concave_where_the_function_is_convex():
    for case, shape in zip(_PLAIN, _plain_shapes(), strict=True):
        turned = case._replace(loss_fn=lambda *args, fn=case.loss_fn: -fn(*args))
        assert _shape(turned) == shape[::-1], case.name


def test_affine_substitution_keeps_convexity():
    matrix = jnp.asarray([[1.0, -2.0], [0.5, 1.0], [0.0, 3.0]])
    shift = jnp.asarray([0.5, 0.0, -1.0])
    for name in ("ridge", "logistic", "Huber", "pinball", "pseudo-Huber", "probit"):
        loss_fn, _, data, _, _ = CONVEX[name]
        case = Case(
            name,
            lambda v, data, fn=loss_fn: fn(matrix @ v + shift, data),
            np.zeros(2),
            data,
        )
        assert _shape(case)[0], name


def test_the_order_of_a_sum_does_not_matter():
    terms = [
        lambda w: jnp.sum(w**2),
        lambda w: jnp.max(w),
        lambda w: jax.nn.logsumexp(w),
        lambda w: -3.0 * w[0] * w[1] + 2.0 * (w[0] ** 2 + w[1] ** 2),
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        loss_fn = lambda w, order=order: sum(terms[k](w) for k in order)
        assert _shape(Case("sum", loss_fn, np.ones(3))) == (True, False)


def test_what_is_proved_for_a_range_of_data_is_proved_for_data_in_it():
    proved = 0
    for seed in range(2000, 2040):
        case = random_case(soundness.numbers(seed))
        if not isinstance(case.data, Box):
            continue
        shape = _shape(case)
        proved += any(shape)
        for t in (0.0, 0.25, 1.0):
            data = (1.0 - t) * case.data.low + t * case.data.high
            here = _shape(case._replace(data=data))
            assert all(known <= now for known, now in zip(shape, here, strict=True))
    assert proved >= 5


def test_what_is_proved_on_a_box_is_proved_on_a_box_in_it():
    for seed in range(3000, 3080):
        case = random_case(soundness.numbers(seed))
        if case.domain is None:
            continue
        low = np.broadcast_to(np.asarray(case.domain.low), 3)
        high = np.broadcast_to(np.asarray(case.domain.high), 3)
        inner = Box((low + case.params) / 2, np.minimum(high, case.params + 0.25))
        here = _shape(case._replace(domain=inner))
        outer = _shape(case)
        assert all(known <= now for known, now in zip(outer, here, strict=True))


# ------------------------------------------------------------------------- replay

_TAMPERED = {
    "number": 99,
    "primitive": "tan",
    "source": "elsewhere.py:1",
    "rule": "by decree",
    "inputs": ("[] constant 0.0",),
    "outputs": ("[] affine convex",),
}


@pytest.mark.parametrize("name", TWINS)
def test_replay_accepts_a_certificate_and_rejects_one_with_a_tampered_line(name):
    _, loss_fn, params, data, domain = TWINS[name]
    given = (loss_fn, params, data)
    report = prove_convexity(*given, domain=domain)
    assert replay(report, *given, domain=domain)
    assert set(_TAMPERED) == set(report.certificate[0]._fields)
    rng = np.random.default_rng(0)
    for field, value in _TAMPERED.items():
        lines = list(report.certificate)
        place = int(rng.integers(len(lines)))
        lines[place] = lines[place]._replace(**{field: value})
        forged = dataclasses.replace(report, certificate=tuple(lines))
        assert not replay(forged, *given, domain=domain)
    for changes in (
        {"certificate": report.certificate[1:]},
        {"certificate": report.certificate * 2},
        {"statement": "0" * 64},
        {"constraints": ("nothing",)},
        {"assumptions": ("nothing",)},
        {"scope": "everywhere"},
    ):
        forged = dataclasses.replace(report, **changes)
        assert not replay(forged, *given, domain=domain)


@pytest.mark.parametrize(
    "name", ["largest two", "x^2 / y", "scan", "ordinal likelihood"]
)
def test_replay_rejects_another_statement(name):
    _, loss_fn, params, data, domain = TWINS[name]
    report = prove_convexity(loss_fn, params, data, domain=domain)
    other = lambda *args: 1.0 * loss_fn(*args)
    assert not replay(report, other, params, data, domain=domain)
    wider = Box(-9.0, 9.0) if domain is None else Box(domain.low - 0.01, domain.high)
    assert not replay(report, loss_fn, params, data, domain=wider)
    other_name = "norm" if name != "norm" else "hinge"
    assert not replay(report, *TWINS[other_name][1:3])


def test_replay_rejects_other_data():
    _, loss_fn, params, data, _ = TWINS["a range of positives"]
    report = prove_convexity(loss_fn, params, data)
    assert replay(report, loss_fn, params, data)
    assert not replay(report, loss_fn, params, Box(data.low, data.high + 1.0))
    assert not replay(report, loss_fn, params, data.high)
