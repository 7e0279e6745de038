"""Searches against the deck's trace, closed forms, and what each promises."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import line_searches, losses, models
from phihat.line_searches import (
    backtracking,
    bracketing,
    golden_section,
    line_search,
    steepest_descent,
    strong_wolfe,
)
from tests.cases import BOOK_GABOR, REFERENCE

EPS = float(np.finfo(float).eps)
SEARCHES = {
    "bracketing": functools.partial(bracketing, max_step=1.0),
    "golden_section": functools.partial(golden_section, max_step=1.0),
    "backtracking": backtracking,
    "strong_wolfe": strong_wolfe,
}
DECK = REFERENCE["line_search_6_1"]
RUNS = {
    name: run
    for name, run in REFERENCE["trajectories"].items()
    if "gd_linesearch" in name
}


def dips(step):
    """The function of notebook 6.1; its minimum is at 0.3803215288239419."""
    first = 0.5 * jnp.exp(-((step - 0.65) ** 2) / 0.1)
    return 1 - first - 0.45 * jnp.exp(-((step - 0.35) ** 2) / 0.02)


def bowl(step):
    return (step - 0.3) ** 2


def deck_problem(name):
    key = "linear_regression" if name.startswith("lin") else "gabor"
    data = tuple(jnp.asarray(REFERENCE["data"][key][axis], float) for axis in "xy")
    line = lambda params, x: models.linear({"bias": params[0], "weight": params[1]}, x)
    loss_fn = losses.least_squares(line if key == "linear_regression" else BOOK_GABOR)
    return lambda params: loss_fn(params, data)


def run_by_hand(optimizer, value_fn, params, num_steps):
    """Return all iterates and all states of a loop over optax's interface."""

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=value_fn
        )
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    start = (params, optimizer.init(params))
    _, (rows, states) = jax.jit(
        lambda start: jax.lax.scan(step, start, length=num_steps)
    )(start)
    join = lambda first, rest: jnp.concatenate([first[None], rest])
    return jax.tree.map(join, params, rows), states


# ---------------------------------------------------------------- the deck's numbers


def test_bracketing_repeats_the_deck_round_by_round():
    search = bracketing(max_step=1.0, max_iterations=10, tolerance=1e-4, trace=True)
    result = search(dips)
    assert abs(result.step - DECK["result"]) <= 4 * EPS
    assert abs(result.value - DECK["loss"]) <= 4 * EPS
    assert int(result.num_iterations) == DECK["iterations"]
    assert int(result.num_evaluations) == 4 * DECK["iterations"] + 1
    assert not result.converged
    steps, values = result.trace
    for row, expected in enumerate(DECK["trace"]):
        bracket = [expected[name] for name in "abcd"]
        np.testing.assert_allclose(steps[row], bracket, rtol=8 * EPS)
        heights = [expected[f"L{name}"] for name in "abcd"]
        np.testing.assert_allclose(values[row], heights, rtol=16 * EPS)
        a_wins, b_wins = np.argmin(values[row]) == 0, values[row][1] < values[row][2]
        assert expected["rule"] == (1 if a_wins else 2 if b_wins else 3)


def test_bracketing_converges_where_rounds_are_left():
    expected = DECK["with_max_iter_100"]
    search = bracketing(max_step=1.0, max_iterations=100, tolerance=1e-4, trace=True)
    result = search(dips)
    assert abs(result.step - expected["result"]) <= 8 * EPS
    assert abs(result.value - expected["loss"]) <= 8 * EPS
    assert int(result.num_iterations) == expected["iterations"]
    assert result.converged
    assert np.isnan(result.trace.steps[expected["iterations"] :]).all()
    assert np.isfinite(result.trace.steps[: expected["iterations"]]).all()


@pytest.mark.parametrize("name", RUNS)
def test_trajectories_of_the_deck(name):
    run = RUNS[name]
    search = bracketing(
        max_step=run["max_dist"],
        tolerance=run["thresh"],
        max_iterations=run["max_iter"],
    )
    start = jnp.asarray(run["start"])
    rows, states = run_by_hand(steepest_descent(search), deck_problem(name), start, 10)
    np.testing.assert_allclose(rows, run["first10"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(states.learning_rate, run["alphas"][:10], atol=1e-9)
    np.testing.assert_array_equal(states.num_evaluations, 4 * states.num_iterations + 1)


def test_a_fit_repeats_the_deck_and_records_the_steps():
    run = RUNS["lin_gd_linesearch_nb62"]
    optimizer = steepest_descent(bracketing(max_step=run["max_dist"]))
    result = phihat.fit(
        deck_problem("lin"),
        jnp.asarray(run["start"]),
        optimizer,
        num_steps=10,
        record=("params", "learning_rate"),
    )
    np.testing.assert_allclose(result.history["params"], run["first10"], atol=1e-9)
    np.testing.assert_allclose(
        result.history["learning_rate"], run["alphas"], atol=1e-9
    )


# -------------------------------------------------------------- what a search promises


@pytest.mark.parametrize("name", ["bracketing", "golden_section"])
def test_no_search_steps_uphill(name):
    two_dips = lambda s: jnp.sin(12 * s) + 3 * s  # the rounds end in the upper one
    flat = lambda s: (s - 0.0) ** 2
    for fn in (two_dips, flat):
        result = SEARCHES[name](max_iterations=60)(fn)
        assert result.step == 0
        assert result.value == fn(0.0)
        assert not result.converged


@pytest.mark.parametrize("name", ["bracketing", "golden_section"])
@pytest.mark.parametrize("best", [3e-3, 3e-6, 3e-9, 3e-30])
def test_a_step_shorter_than_the_tolerance_is_found(name, best):
    result = SEARCHES[name](max_step=0.1)(lambda s: (s / best - 1.0) ** 2)
    # Half or twice the best step, at the worst: there the value has not risen.
    assert best / 2 <= result.step < 2 * best
    assert result.value < 1
    assert result.value <= 0.12 or best > 1e-5
    num_evaluations = 4 * (result.num_iterations if name == "bracketing" else 1) + 1
    assert result.num_evaluations >= num_evaluations


def test_a_steep_loss_falls_at_every_step():
    x = jnp.linspace(0.0, 300.0, 1000)
    loss_fn = lambda params, batch: jnp.sum((params[0] + params[1] * x - batch) ** 2)
    result = phihat.fit(
        loss_fn,
        jnp.asarray([0.0, 0.0]),
        steepest_descent(bracketing(max_step=2.0)),
        0.5 * x + 1.0,
        num_steps=30,
        record=("loss", "learning_rate"),
    )
    losses_seen = np.asarray(result.history["loss"])
    assert (np.diff(losses_seen) <= 0).all()
    assert result.loss < 1e-3 * losses_seen[0]
    assert (result.history["learning_rate"] < 1e-5).all()


@pytest.mark.parametrize("minimum", [0.0, 0.05, 0.3, 0.77, 1.0])
def test_golden_section_finds_one_dip_to_its_tolerance(minimum):
    result = golden_section(max_step=1.0, tolerance=1e-6)(
        lambda s: jnp.abs(s - minimum)
    )
    assert abs(result.step - minimum) <= 1e-6
    assert bool(result.converged) == (minimum > 0)
    # The width falls by the golden ratio in every round.
    assert int(result.num_iterations) == np.ceil(np.log(1e6) / np.log((5**0.5 + 1) / 2))


def test_golden_section_is_never_worse_than_any_point_it_saw():
    result = golden_section(max_step=2.0, trace=True)(dips)
    assert result.value <= np.nanmin(result.trace.values)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_backtracking_takes_the_first_step_of_armijo(scale):
    fn = lambda s: (scale * s - 1.0) ** 2
    result = backtracking(shrink=0.6, sufficient_decrease=0.1)(fn)
    trials = 0.6 ** np.arange(30)
    good = (scale * trials - 1) ** 2 <= 1 - 0.1 * trials * 2 * scale
    assert abs(result.step - trials[good][0]) <= 8 * EPS
    assert int(result.num_iterations) == np.argmax(good) + 1
    assert result.converged


@pytest.mark.parametrize("curvature", [0.9, 0.1, 1e-6])
@pytest.mark.parametrize("initial_step", [1e-3, 1.0, 50.0])
def test_strong_wolfe_meets_both_conditions(curvature, initial_step):
    result = strong_wolfe(initial_step=initial_step, curvature=curvature)(dips)
    value, slope = jax.value_and_grad(dips)(result.step)
    start, fall = jax.value_and_grad(dips)(0.0)
    assert result.converged
    assert abs(result.value - value) <= 4 * EPS
    assert value <= start + 1e-4 * result.step * fall
    assert abs(slope) <= -curvature * fall


@pytest.mark.parametrize("name", ["backtracking", "strong_wolfe"])
def test_a_given_slope_is_used_and_no_descent_means_no_step(name):
    search = SEARCHES[name]()
    own, given = search(bowl), search(bowl, -0.6)
    assert own.step == given.step > 0
    for uphill in (search(bowl, 0.6), search(lambda s: (s + 0.3) ** 2)):
        assert uphill.step == 0
        assert not uphill.converged


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_values_that_are_not_finite_never_win(name, bad):
    result = SEARCHES[name]()(lambda s: jnp.where(s > 0.4, bad, (s - 0.3) ** 2))
    assert 0 < result.step <= 0.4
    assert result.value < 0.09


@pytest.mark.parametrize("name", SEARCHES)
def test_a_function_that_is_finite_nowhere_is_not_converged(name):
    result = SEARCHES[name](max_iterations=5)(lambda s: s * jnp.nan)
    assert not result.converged
    assert np.isposinf(result.value)


# ---------------------------------------------------------------------- in a program


@pytest.mark.parametrize("name", SEARCHES)
def test_lanes_are_searches_of_their_own(name):
    search = SEARCHES[name](trace=True)
    at = lambda minimum: search(lambda s: jnp.abs(s - minimum) ** 1.5)
    minima = jnp.asarray([0.02, 0.3, 0.9, jnp.nan])
    lanes = jax.jit(jax.vmap(at))(minima)
    for lane in range(len(minima)):
        alone = at(minima[lane])
        for one, other in zip(
            jax.tree.leaves(alone), jax.tree.leaves(lanes), strict=True
        ):
            np.testing.assert_allclose(one, other[lane], rtol=64 * EPS, atol=EPS)


def test_numbers_of_a_search_are_data():
    traces = []

    def fn(step):
        traces.append(step)
        return bowl(step)

    run = jax.jit(lambda search: search(fn).step)
    first, second = run(bracketing(max_step=1.0)), run(bracketing(max_step=0.2))
    assert first != second
    num_traces = len(traces)
    run(bracketing(max_step=0.5, tolerance=1e-3))
    assert len(traces) == num_traces


def test_bracketing_can_be_differentiated_in_reverse():
    # With the comparisons fixed, the answer is proportional to max_step.
    step_of = lambda max_step: bracketing(max_step=max_step)(bowl).step
    rate = jax.grad(step_of)(0.8)
    assert abs(rate - step_of(0.8) / 0.8) <= 8 * EPS


def test_float32_runs_without_promotion(float32):
    del float32
    for name, make in SEARCHES.items():
        result = make()(lambda s: bowl(s))
        assert result.step.dtype == jnp.float32, name
        assert abs(result.step - 0.3) < 0.5, name


@pytest.mark.parametrize("name", SEARCHES)
def test_state_has_stable_avals_for_any_tree(name):
    optimizer = steepest_descent(SEARCHES[name](trace=True))
    params = {"a": jnp.ones(3, jnp.float32), "b": (jnp.ones(()), jnp.ones((0, 2)))}
    value_fn = lambda p: jnp.sum(p["a"].astype(float) ** 2) + p["b"][0] ** 2
    value, grad = jax.value_and_grad(value_fn)(params)
    state = optimizer.init(params)
    updates, after = optimizer.update(
        grad, state, params, value=value, grad=grad, value_fn=value_fn
    )
    aval = lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type)
    assert jax.tree.map(aval, state) == jax.tree.map(aval, after)
    assert jax.tree.map(aval, updates) == jax.tree.map(aval, params)
    assert value_fn(optax.apply_updates(params, updates)) < value


def test_any_direction_can_be_searched_along():
    matrix = jnp.asarray([[3.0, 1.0], [1.0, 0.5]])
    value_fn = lambda p: 0.5 * p @ matrix @ p
    start = jnp.asarray([1.0, -2.0])
    heavy = optax.chain(optax.trace(0.5), steepest_descent(strong_wolfe(curvature=0.1)))
    rows, _ = run_by_hand(heavy, value_fn, start, 60)
    assert value_fn(rows[-1]) < 1e-12
    newton = optax.chain(
        optax.stateless(lambda updates, _: -jnp.linalg.solve(matrix, updates)),
        line_search(backtracking()),
    )
    rows, states = run_by_hand(newton, value_fn, start, 1)
    np.testing.assert_allclose(rows[-1], 0.0, atol=16 * EPS)
    assert states[1].learning_rate[0] == 1.0


def test_exact_search_on_a_quadratic_gives_the_closed_form():
    matrix = jnp.asarray([[3.0, 1.0], [1.0, 0.5]])
    value_fn = lambda p: 0.5 * p @ matrix @ p
    start = jnp.asarray([1.0, -2.0])
    optimizer = steepest_descent(strong_wolfe(curvature=1e-9))
    _, states = run_by_hand(optimizer, value_fn, start, 1)
    grad = matrix @ start
    exact = grad @ grad / (grad @ matrix @ grad)
    assert abs(states.learning_rate[0] - exact) <= 1e-9 * exact


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: bracketing(max_step=0),
            "bracketing: `max_step` must be > 0, got 0.0.",
        ),
        (
            lambda: bracketing(max_iterations=0),
            "bracketing: `max_iterations` must be >= 1, got 0.",
        ),
        (
            lambda: bracketing(tolerance=-1e-5),
            "bracketing: `tolerance` must be >= 0, got -1e-05.",
        ),
        (
            lambda: golden_section(max_step=float("nan")),
            "golden_section: `max_step` must be > 0, got nan.",
        ),
        (
            lambda: backtracking(shrink=1.0),
            "backtracking: `shrink` must lie in (0, 1), got 1.0.",
        ),
        (
            lambda: strong_wolfe(curvature=0.0),
            "strong_wolfe: `curvature` must lie in (0, 1), got 0.0.",
        ),
        (
            lambda: bracketing()(lambda step: jnp.stack([step, step])),
            "bracketing: `fn` must return a real number, got shape [2]; take its sum "
            "or mean.",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: steepest_descent(0.1),
            "steepest_descent: `search` must be a function, got 0.1.",
        ),
        (
            lambda: bracketing(max_step="far"),
            "bracketing: `max_step` must be a real number or an array of them, got "
            "'far'.",
        ),
        (
            lambda: backtracking(max_iterations=2.5),
            "backtracking: `max_iterations` must be a whole number, got 2.5.",
        ),
        (
            lambda: steepest_descent(bracketing()).update(
                1.0, steepest_descent(bracketing()).init(1.0), 1.0
            ),
            "steepest_descent: `value_fn` is missing: pass `value_fn=` (params -> "
            "loss) to `update`, as `fit` does.",
        ),
    ],
)
def test_wrong_types_are_refused_by_name(call, sentence):
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == sentence


def test_every_public_search_is_in_the_table():
    searches = {
        name
        for name in line_searches.__all__
        if inspect.isfunction(getattr(line_searches, name))
    }
    assert searches == {*SEARCHES, "steepest_descent", "line_search"}
