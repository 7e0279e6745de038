"""The engine: history, statuses, sampling, transformations, remembered programs."""

import functools
import gc
import pickle
import weakref
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import phihat
from phihat import Box, FitError, Status, fitting, losses, models
from phihat._core import programs as _programs
from phihat._core import stores
from phihat._engine import loop
from phihat._engine.recorders import Recorder
from phihat.fitting import Tolerance
from tests import cases

EPS64 = 2.0**-52


def bowl(params):
    return 0.5 * jnp.sum((params - 3.0) ** 2)


def quartic(x):
    return x**4


def line(params, batch):
    x, y = batch
    return jnp.sum((params[0] + params[1] * x - y) ** 2)


X = jnp.linspace(-1.0, 1.0, 10)
DATA = (X, 2.0 - 3.0 * X)


# ------------------------------------------------------------------------- the history


@pytest.mark.parametrize("is_eager", [True, False])
@pytest.mark.parametrize("stride", [1, 3, 10, 11])
def test_history_holds_what_was_measured_before_each_step(stride, is_eager):
    rate, num_steps = 0.25, 10
    fit = functools.partial(
        phihat.fit,
        bowl,
        jnp.zeros(2),
        phihat.gradient_descent(rate),
        num_steps=num_steps,
        record=("loss", "params", "grad_norm", "learning_rate"),
        record_every=stride,
    )
    result = fit() if is_eager else jax.jit(fit)()
    at = np.arange(0, num_steps, stride)
    distance = 3.0 * (1 - rate) ** np.append(at, num_steps)
    history = result.history
    np.testing.assert_array_equal(history["step"], at)
    np.testing.assert_allclose(history["loss"], distance[:-1] ** 2, rtol=1e-14)
    np.testing.assert_allclose(
        history["grad_norm"], np.sqrt(2) * distance[:-1], rtol=1e-14
    )
    np.testing.assert_allclose(history["learning_rate"], rate)
    expected = np.stack([3 - distance] * 2, axis=1)
    np.testing.assert_allclose(history["params"], expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(result.loss, distance[-1] ** 2, rtol=1e-13)
    np.testing.assert_allclose(result.grad_norm, np.sqrt(2) * distance[-1], rtol=1e-13)
    assert result.num_steps == num_steps


def test_no_record_is_an_empty_history():
    result = phihat.fit(bowl, jnp.zeros(2), phihat.adam(0.1), num_steps=3, record=())
    assert result.history == {}


def test_functions_recorders_and_names_together():
    def init_fn(params):
        return jnp.zeros(())

    def update_fn(total, state, info, batch):
        total = total + info.loss
        return total, total

    result = phihat.fit(
        line,
        jnp.zeros(2),
        phihat.gradient_descent(0.01),
        DATA,
        num_steps=6,
        record=(
            "loss",
            {
                "first": lambda state, info: state.params[0],
                "running total": Recorder(init_fn, update_fn),
            },
        ),
        record_every=2,
    )
    history = result.history
    assert set(history) == {"loss", "first", "running total", "step"}
    np.testing.assert_allclose(
        history["running total"], np.cumsum(history["loss"]), rtol=1e-15
    )


def test_aux_is_recorded_and_unused_aux_is_dropped():
    def loss_fn(params, batch):
        return line(params, batch), {"slope": params[1]}

    result = phihat.fit(
        loss_fn,
        jnp.zeros(2),
        phihat.gradient_descent(0.01),
        DATA,
        num_steps=4,
        has_aux=True,
        record=("aux", "params"),
    )
    np.testing.assert_array_equal(
        result.history["aux"]["slope"], result.history["params"][:-1, 1]
    )


def test_nesterov_records_the_iterate_and_evaluates_there():
    result = phihat.fit(
        bowl, jnp.zeros(2), phihat.nesterov(0.3), num_steps=9, record=("params",)
    )
    np.testing.assert_array_equal(result.params, result.history["params"][-1])
    np.testing.assert_allclose(result.loss, bowl(result.params), rtol=4 * EPS64)
    assert not np.allclose(result.params, result.state.params)


# ------------------------------------------------------------ stopping, early or badly


@pytest.mark.parametrize("is_eager", [True, False])
@pytest.mark.parametrize("stride", [1, 3])
def test_convergence_freezes_at_the_first_hit(stride, is_eager):
    fit = functools.partial(
        phihat.fit,
        bowl,
        jnp.zeros(2),
        phihat.gradient_descent(0.5),
        num_steps=400,
        tolerance=1e-3,
        record=("loss", "params"),
        record_every=stride,
    )
    result = fit() if is_eager else jax.jit(fit)()
    # the gradient after t steps is 3 / 2^t; it is <= 1e-3 first at t = 12
    assert result.status == Status.CONVERGED
    assert result.num_steps == 12
    np.testing.assert_allclose(result.params, 3 - 3 / 2**12, rtol=1e-15)
    rows = 12 // stride + 1
    assert np.isfinite(result.history["loss"][:rows]).all()
    assert np.isnan(result.history["loss"][rows:]).all()
    last = np.broadcast_to(result.params, (*result.history["params"].shape[:1], 2))
    np.testing.assert_array_equal(result.history["params"][rows:], last[rows:])


@pytest.mark.parametrize(
    ("tolerance", "steps"),
    [
        (Tolerance(gradient=1e-3), 12),
        # |dL| = 3 * L, L = 9 / 4^t: below 1e-3 between steps 7 and 8 (27 / 4^8)
        (Tolerance(loss=1e-3), 8),
        # a step moves by 1.5 / 2^t: at most 1e-3 first at t = 11
        (Tolerance(params=1e-3), 11),
        (Tolerance(params=0.0, relative=1e-3), 9),
        (Tolerance(gradient=1e-9, params=1e-3), 11),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_eager", [True, False])
def test_every_criterion(tolerance, steps, is_eager):
    fit = functools.partial(
        phihat.fit,
        bowl,
        jnp.zeros(2),
        phihat.gradient_descent(0.5),
        num_steps=50,
        tolerance=tolerance,
    )
    result = fit() if is_eager else jax.jit(fit)()
    assert result.status == Status.CONVERGED
    assert result.num_steps == steps


def test_tolerance_under_a_projection_is_that_of_the_constrained_problem():
    result = phihat.fit(
        bowl,
        jnp.zeros(2),
        phihat.gradient_descent(0.5),
        num_steps=100,
        projection=Box(-1.0, 2.0),
        tolerance=1e-10,
    )
    assert result.status == Status.CONVERGED
    np.testing.assert_array_equal(result.params, [2.0, 2.0])


NOWHERE = -1.0


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def ramp(infinite_value_at, infinite_slope_at, x):
    """Minus x, but infinite, or infinitely steep, at one place."""
    return jnp.where(x == infinite_value_at, jnp.inf, -x)


@ramp.defjvp
def _ramp_jvp(infinite_value_at, infinite_slope_at, primals, tangents):
    (x,), (tangent,) = primals, tangents
    slope = jnp.where(x == infinite_slope_at, jnp.inf, -1.0)
    return ramp(infinite_value_at, infinite_slope_at, x), slope * tangent


BAD = {
    "loss": (
        functools.partial(ramp, 4.0, NOWHERE),
        phihat.gradient_descent(1.0),
        Status.NONFINITE_LOSS,
        4.0,
        4,
    ),
    "gradient": (
        functools.partial(ramp, NOWHERE, 3.0),
        phihat.gradient_descent(1.0),
        Status.NONFINITE_GRADIENT,
        3.0,
        3,
    ),
    "params": (
        lambda x: -x,
        phihat.gradient_descent(lambda step: jnp.where(step < 2, 1.0, jnp.inf)),
        Status.NONFINITE_PARAMS,
        2.0,
        2,
    ),
}


@pytest.mark.parametrize("tolerance", [None, 1e-6])
@pytest.mark.parametrize("is_eager", [True, False])
@pytest.mark.parametrize("quantity", BAD)
@pytest.mark.parametrize("stride", [1, 4])
def test_a_bad_step_is_not_taken(quantity, is_eager, tolerance, stride):
    loss_fn, optimizer, status, last, num_steps = BAD[quantity]
    fit = functools.partial(
        phihat.fit,
        loss_fn,
        0.0,
        optimizer,
        num_steps=300,
        tolerance=tolerance,
        record=("loss", "params"),
        record_every=stride,
    )
    result = fit() if is_eager else jax.jit(fit)()
    assert Status(int(result.status)) == status
    assert result.num_steps == num_steps
    assert result.state.step == num_steps
    # The state is where it stopped; the params are the last whose loss was finite.
    assert result.state.params == last
    sound = last - 1 if quantity == "loss" else last
    assert result.params == sound
    assert np.isfinite(result.loss)
    assert result.state.status == status
    rows = num_steps // stride + 1
    assert np.isnan(result.history["loss"][rows:]).all()
    np.testing.assert_array_equal(result.history["params"][rows:], sound)
    steps = np.arange(0, 300, stride)
    expected = np.where(steps <= num_steps, steps, sound)
    np.testing.assert_array_equal(result.history["params"][:-1], expected)
    with pytest.raises(FitError) as caught:
        phihat.raise_for_status(result)
    assert caught.value.step == num_steps
    assert caught.value.quantity == quantity
    if quantity != "loss":
        assert caught.value.path == "the only leaf"


def slide(params, last):
    """Lose one at every step of rate one, and be infinite at the step `last`."""
    height = jnp.sum(params)
    return jnp.where(height <= -last, jnp.inf, height)


@pytest.mark.bits
@pytest.mark.parametrize("stride", [1, 3, 200])
@pytest.mark.parametrize("width", [1, 64])
def test_a_stop_is_exact_wherever_pages_and_blocks_end(stride, width, monkeypatch):
    """Rows of 64 numbers are too wide for pages."""
    monkeypatch.setattr(loop, "_SEGMENT_LENGTH", 256)
    num_steps = 600
    start = jnp.zeros(width)
    slope = {"slope": lambda state, info: info.grad}
    for last in (0, 1, 63, 64, 65, 192, 199, 200, 255, 256, 257, 599, 600):
        result = phihat.fit(
            slide,
            start,
            phihat.gradient_descent(1.0 / width),
            float(last),
            num_steps=num_steps,
            record=("loss", slope),
            record_every=stride,
        )
        assert int(result.num_steps) == last
        assert int(result.status) == Status.NONFINITE_LOSS
        np.testing.assert_array_equal(result.state.params, -last / width)
        np.testing.assert_array_equal(result.params, -max(last - 1, 0) / width)
        at = np.arange(0, num_steps, stride)
        heights = np.where(at < last, -at, np.where(at == last, np.inf, np.nan))
        np.testing.assert_array_equal(result.history["loss"], heights)
        measured = ~np.isnan(result.history["slope"]).any(axis=1)
        np.testing.assert_array_equal(measured, at <= last)


@pytest.mark.parametrize("quantity", ["loss", "gradient", "params"])
def test_large_states_are_guarded_at_every_step_and_end_the_same(quantity):
    """Beyond some size no copy of the state is kept; the outcome is the same."""

    def loss_fn(params):
        total = jnp.sum(params["a"]) + jnp.sum(params["b"])
        if quantity == "gradient":  # infinitely steep where b[0] is zero
            total += jnp.sqrt(params["b"][0])
        if quantity == "loss":
            total = jnp.where(params["b"][0] < -1.5, jnp.inf, total)
        return total

    schedule = lambda step: jnp.where(step < 2, 1.0, jnp.inf)
    rate = schedule if quantity == "params" else 1.0

    def fit(size):
        params = {"a": jnp.ones(size), "b": jnp.zeros(size)}
        return phihat.fit(loss_fn, params, phihat.gradient_descent(rate), num_steps=9)

    large, small = fit(70_000), fit(10)
    assert Status(int(large.status)).name == f"NONFINITE_{quantity.upper()}"
    assert large.status == small.status
    assert large.num_steps == small.num_steps
    assert large.nonfinite_leaf == small.nonfinite_leaf
    np.testing.assert_array_equal(large.params["a"][:10], small.params["a"])


def test_a_final_loss_that_is_not_finite_is_no_success():
    """The last update may land where no later step looks."""
    result = phihat.fit(
        lambda x: jnp.where(x > 0.5, jnp.inf, -x),
        0.0,
        phihat.gradient_descent(1.0),
        num_steps=1,
    )
    assert result.status == Status.NONFINITE_LOSS
    assert (result.state.params, result.params, result.loss) == (1.0, 0.0, 0.0)


def test_continue_goes_through():
    result = phihat.fit(
        functools.partial(ramp, 2.0, NOWHERE),
        0.0,
        phihat.gradient_descent(1.0),
        num_steps=5,
        nonfinite="continue",
    )
    assert result.status == Status.COMPLETED
    assert result.params == 5.0
    np.testing.assert_array_equal(result.history["loss"], [0, -1, np.inf, -3, -4])


def test_nan_in_data_and_in_the_start_are_found():
    optimizer = phihat.gradient_descent(0.01)
    bad = {"x": X.at[3].set(jnp.nan), "y": DATA[1]}
    result = phihat.fit(
        lambda params, batch: line(params, (batch["x"], batch["y"])),
        jnp.zeros(2),
        optimizer,
        bad,
        num_steps=3,
    )
    with pytest.raises(FitError, match=r"at \['x'\], in row 3: clean them"):
        phihat.raise_for_status(result)
    result = phihat.fit(line, jnp.asarray([0.0, jnp.nan]), optimizer, DATA, num_steps=3)
    assert result.num_steps == 0
    with pytest.raises(FitError, match="start itself is not finite"):
        phihat.raise_for_status(result)


def test_the_leaf_is_named():
    def loss_fn(params):
        return params["fine"] + jnp.sqrt(params["root"])

    result = phihat.fit(
        loss_fn, {"fine": 1.0, "root": 0.0}, phihat.gradient_descent(0.1), num_steps=2
    )
    with pytest.raises(FitError, match=r"gradient was not finite at \['root'\]"):
        phihat.raise_for_status(result)


def test_lanes_are_counted_and_the_first_bad_one_named():
    rates = jnp.asarray([0.1, 0.2, 9.0, 0.3, 8.0])
    result = jax.vmap(
        lambda rate: phihat.fit(
            quartic, jnp.asarray(2.0), phihat.gradient_descent(rate), num_steps=20
        )
    )(rates * 0.1)
    statuses = [Status(int(code)) for code in result.status]
    assert statuses.count(Status.NONFINITE_LOSS) == 2
    message = r"2 of 5 lanes failed \(3 COMPLETED, 2 NONFINITE_LOSS\).*lane 2"
    with pytest.raises(FitError, match=message):
        phihat.raise_for_status(result)


def test_one_bad_lane_changes_no_other():
    starts = jnp.linspace(0.1, 1.0, 64).at[17].set(jnp.nan)
    fit = jax.jit(
        jax.vmap(
            lambda start: phihat.fit(quartic, start, phihat.adam(0.05), num_steps=50)
        )
    )
    sound = starts.at[17].set(0.5)
    one, other = fit(starts), fit(sound)
    keep = np.arange(64) != 17
    np.testing.assert_array_equal(one.params[keep], other.params[keep])
    assert Status(int(one.status[17])) == Status.NONFINITE_LOSS


# ----------------------------------------------------------------- steps, runs, states


def test_fit_is_init_make_step_run_and_eval_params():
    optimizer = phihat.nesterov(0.02)
    result = phihat.fit(line, jnp.zeros(2), optimizer, DATA, num_steps=20)
    step_fn = fitting.make_step(line, optimizer)
    state = fitting.init(jnp.zeros(2), optimizer)
    last, history = fitting.run(step_fn, state, DATA, num_steps=20)
    params = phihat.eval_params(last.opt_state, last.params)
    np.testing.assert_array_equal(params, result.params)
    np.testing.assert_array_equal(history["loss"], result.history["loss"])
    for _ in range(20):
        state, info = jax.jit(step_fn)(state, DATA)
    np.testing.assert_allclose(state.params, last.params, rtol=1e3 * EPS64)
    assert info.grad.shape == (2,)


def test_run_takes_any_step_function():
    def step_fn(state, batch):
        info = phihat.StepInfo(
            loss=state.params,
            grad=state.params,
            updates=-0.5 * state.params,
            aux=None,
            learning_rate=None,
            status=jnp.asarray(Status.RUNNING, jnp.int32),
            nonfinite_leaf=jnp.asarray(-1, jnp.int32),
        )
        params = state.params * 0.5
        return state._replace(params=params, step=state.step + 1), info

    state = fitting.init(1.0, phihat.gradient_descent(0.1))
    state, history = fitting.run(step_fn, state, num_steps=4)
    assert state.params == 0.5**4
    np.testing.assert_array_equal(history["loss"], 0.5 ** np.arange(4))


def test_going_on_with_another_optimizer_of_the_same_state():
    fit = functools.partial(phihat.fit, bowl, num_steps=5)
    first = fit(jnp.zeros(2), phihat.momentum(0.1))
    second = fit(first.params, phihat.momentum(0.05), state=first.state)
    assert second.state.step == 10
    assert second.num_steps == 5
    np.testing.assert_array_equal(second.history["step"], np.arange(5, 10))
    third = fit(None, phihat.momentum(0.05), state=first.state)
    np.testing.assert_array_equal(second.params, third.params)


@pytest.mark.bits
@pytest.mark.parametrize(("cut", "stride"), [(1, 1), (40, 2), (99, 3)])
def test_resuming_anywhere_is_bit_equal(cut, stride):
    fit = functools.partial(
        phihat.fit,
        line,
        optimizer=phihat.adam(0.1),
        data=DATA,
        batch_size=3,
        key=jax.random.key(3),
        record=("loss",),
        record_every=stride,
    )
    whole = fit(params=jnp.zeros(2), num_steps=100)
    part = fit(params=jnp.zeros(2), num_steps=cut)
    rest = fit(params=None, state=part.state, num_steps=100 - cut)
    np.testing.assert_array_equal(whole.params, rest.params)
    chex.assert_trees_all_equal(whole.state.opt_state, rest.state.opt_state)
    if cut % stride == 0:
        joined = np.concatenate([part.history["loss"], rest.history["loss"]])
        np.testing.assert_array_equal(joined, whole.history["loss"])


@pytest.mark.bits
@pytest.mark.parametrize(
    ("problem", "method"), [("linear_regression", "adam"), ("gabor", "momentum")]
)
def test_bits_do_not_depend_on_the_lengths_of_runs(problem, method, float32):
    """In float32 these loops are compiled as one kernel, or as few, by their size."""
    names = {"linear_regression": ("linear", {"weight": -0.5, "bias": 1.6})}
    model, start = names.get(problem, ("gabor", jnp.array([-2.0, 12.5])))
    fit = functools.partial(
        phihat.fit,
        losses.least_squares(getattr(models, model)),
        optimizer=getattr(phihat, method)(0.01),
        data=getattr(phihat.datasets, problem)(),
    )
    whole = fit(params=start, num_steps=1000)
    result, rows = fit(params=start, num_steps=7), []
    for length in (1, 7, 1, 1, 983):
        rows.append(result.history["loss"])
        result = fit(params=None, state=result.state, num_steps=length)
    rows.append(result.history["loss"])
    np.testing.assert_array_equal(np.concatenate(rows), whole.history["loss"])
    chex.assert_trees_all_equal(whole.state, result.state)


def test_state_leaves_share_no_buffer():
    state = fitting.init(
        jnp.ones(3), optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9)
    )
    pointers = [
        leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if leaf.ndim
    ]
    assert len(set(pointers)) == len(pointers)


# ------------------------------------------------------------------------ the sampling


def sum_loss(params, batch):
    """Its gradient is minus the batch's sum: each epoch moves by the whole sum."""
    return -params * jnp.sum(batch)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
@pytest.mark.parametrize("is_eager", [True, False])
def test_an_epoch_sees_every_row_once(batch_size, is_eager):
    rows = jnp.asarray(2.0 ** np.arange(10))

    fit = functools.partial(
        phihat.fit,
        sum_loss,
        0.0,
        phihat.gradient_descent(1.0),
        rows,
        batch_size=batch_size,
        num_epochs=7,
        key=jax.random.key(0),
        record=("params",),
        record_every=-(-10 // batch_size),
    )
    result = fit() if is_eager else jax.jit(fit)()
    assert result.num_steps == 7 * -(-10 // batch_size)
    np.testing.assert_array_equal(
        result.history["params"], np.arange(8) * float(rows.sum())
    )


def test_drop_remainder_and_no_shuffle():
    sampler = phihat.minibatches(3, drop_remainder=True, shuffle=False)
    result = phihat.fit(
        sum_loss,
        0.0,
        phihat.gradient_descent(1.0),
        jnp.arange(10.0),
        sampler=sampler,
        num_epochs=1,
    )
    assert result.num_steps == 3
    assert result.params == sum(range(9))


def test_a_sampler_of_the_user():
    def sampler(data):
        batch_fn = lambda key, step: data[step % 4]
        return phihat.sampling.Batches(batch_fn, None, 4)

    result = phihat.fit(
        sum_loss,
        0.0,
        phihat.gradient_descent(1.0),
        jnp.arange(4.0),
        sampler=sampler,
        num_steps=6,
        record=("params",),
    )
    np.testing.assert_array_equal(result.history["params"], [0, 0, 1, 3, 6, 6, 7])


def test_a_keyed_loss_gets_one_key_per_step():
    def noisy(params, *, key):
        return params * jax.random.normal(key, ())

    fit = functools.partial(phihat.fit, noisy, 0.0, phihat.gradient_descent(1.0))
    one = fit(num_steps=50, key=jax.random.key(0), record=("params",))
    moves = np.diff(one.history["params"])
    assert len(np.unique(moves)) == 50
    again = fit(num_steps=50, key=jax.random.key(0), record=("params",))
    np.testing.assert_array_equal(moves, np.diff(again.history["params"]))
    other = fit(num_steps=50, key=jax.random.key(1))
    assert other.params != one.params


def test_dropout_by_a_model_with_a_key():
    def dropped(params, x, *, key):
        kept = jax.random.bernoulli(key, 0.5, x.shape)
        return params * x * kept.astype(x.dtype)

    result = phihat.fit(
        losses.least_squares(dropped),
        0.0,
        phihat.gradient_descent(0.01),
        (X, X),
        num_steps=200,
        key=jax.random.key(0),
    )
    assert 0.1 < result.params < 1.5


# ------------------------------------------------------------------- transformations


def final_loss(optimizer, start, weight):
    loss_fn, data = cases.gabor_problem()
    loss_fn = losses.with_l2(loss_fn, weight)
    return phihat.fit(loss_fn, start, optimizer, data, num_steps=25, record=()).loss


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_hypergradients_equal_finite_differences(name):
    arguments = (cases.OPTIMIZERS[name](0.02), jnp.asarray([0.3, 12.0]), 1e-3)
    arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), arguments)
    gradient = jax.jit(jax.grad(final_loss, argnums=(0, 1, 2)))(*arguments)
    flat, unravel = jax.flatten_util.ravel_pytree(arguments)
    flat_gradient = jax.flatten_util.ravel_pytree(gradient)[0]
    value = jax.jit(lambda flat: final_loss(*unravel(flat)))
    for place in range(flat.size):
        width = 1e-6 * max(1e-3, abs(float(flat[place])))
        shift = jnp.zeros_like(flat).at[place].set(width)
        slope = (value(flat + shift) - value(flat - shift)) / (2 * width)
        np.testing.assert_allclose(flat_gradient[place], slope, rtol=2e-4, atol=2e-5)


def test_vmap_over_an_optimizer_with_in_axes_for_its_leaves():
    rates = jnp.asarray([0.01, 0.02, 0.05])
    optimizers = phihat.adam(rates)
    in_axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, optimizers)
    start = jnp.asarray([0.3, 12.0])
    many = jax.vmap(lambda opt: final_loss(opt, start, 1e-3), in_axes=(in_axes,))(
        optimizers
    )
    for rate, value in zip(rates, many, strict=True):
        alone = final_loss(phihat.adam(float(rate)), start, 1e-3)
        np.testing.assert_allclose(value, alone, rtol=1e-9)


def test_vmap_over_keys_and_starts_with_minibatches_and_a_short_last_one():
    keys = jax.random.split(jax.random.key(0), 3)
    starts = jnp.asarray([[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])

    def fit(key, start):
        return phihat.fit(
            line,
            start,
            phihat.momentum(0.05),
            DATA,
            batch_size=4,
            num_epochs=5,
            key=key,
            record=("loss", "params"),
        )

    many = jax.jit(jax.vmap(fit))(keys, starts)
    for lane in range(3):
        alone = fit(keys[lane], starts[lane])
        np.testing.assert_allclose(many.params[lane], alone.params, rtol=1e-10)
        np.testing.assert_allclose(
            many.history["loss"][lane], alone.history["loss"], rtol=1e-9
        )


def test_vmap_with_a_tolerance_gives_each_lane_its_own_end():
    starts = jnp.asarray([3.0, 3.5, 13.0, jnp.nan])
    result = jax.vmap(
        lambda start: phihat.fit(
            bowl,
            start[None],
            phihat.gradient_descent(0.5),
            num_steps=300,
            tolerance=1e-3,
        )
    )(starts)
    assert [int(n) for n in result.num_steps] == [0, 9, 14, 0]
    assert Status(int(result.status[3])) == Status.NONFINITE_LOSS


def test_losses_and_schedules_made_inside_a_trace_leak_nothing():
    def lane(rate, shift):
        loss_fn = lambda x: (x - shift) ** 2
        schedule = lambda step: rate * 0.9 ** step.astype(float)
        return phihat.fit(loss_fn, 0.0, phihat.momentum(schedule), num_steps=20).params

    rates, shifts = jnp.asarray([0.1, 0.2]), jnp.asarray([1.0, 2.0])
    with jax.checking_leaks():
        many = jax.jit(jax.vmap(lane))(rates, shifts)
    for place in range(2):
        alone = lane(float(rates[place]), float(shifts[place]))
        np.testing.assert_allclose(many[place], alone, rtol=1e-12)
    gradient = jax.grad(lambda shift: lane(0.1, shift))(1.0)
    np.testing.assert_allclose(gradient, lane(0.1, 1.0), rtol=1e-10)


def test_jit_of_fit_and_a_loss_with_a_hidden_tracer_are_right():
    def outer(scale):
        loss_fn = lambda x: scale * (x - 1.0) ** 2
        return phihat.fit(
            loss_fn, 0.0, phihat.gradient_descent(0.1), num_steps=3
        ).params

    values = jax.vmap(outer)(jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(values, [1 - 0.8**3, 1 - 0.6**3], rtol=1e-14)


# --------------------------------------------------------------- remembered programs


def count_programs(action):
    """Return how many programs an action compiles."""
    with mock.patch.object(_programs, "_compile", wraps=_programs._compile) as made:
        action()
    return made.call_count


def test_numbers_share_one_program():
    data = tuple(map(np.asarray, DATA))

    def run_all():
        for rate in (0.1, 1, np.float32(0.5), np.float64(0.25)):
            for weight in (1e-3, 2):
                loss_fn = losses.with_l2(
                    losses.least_squares(models.polynomial), weight
                )
                phihat.fit(loss_fn, jnp.zeros(2), phihat.adam(rate), data, num_steps=3)

    assert count_programs(run_all) == 1


def test_one_trace_serves_all_rates():
    @chex.assert_max_traces(n=8)  # shape, step, evaluation; each once or twice
    def loss_fn(params):
        return jnp.sum(params**2)

    for rate in (0.1, 0.2, 0.3):
        phihat.fit(loss_fn, jnp.zeros(2), phihat.momentum(rate), num_steps=3)
    chex.clear_trace_counter()


def test_static_values_are_keyed_with_their_type():
    def loss_fn(flag, params):
        return params**2 * (2.0 if flag is True else 3.0)

    one, other = (
        phihat.fit(
            Partial(loss_fn, flag), 1.0, phihat.gradient_descent(0.1), num_steps=1
        ).params
        for flag in (True, 1)
    )
    np.testing.assert_allclose([one, other], [1 - 0.4, 1 - 0.6], rtol=1e-15)


def test_equal_code_is_one_program():
    """A cell that is run again compiles nothing, whatever of it is made anew."""

    def run_cell(scale=1.0, rate=0.1):
        def helper(x):
            return scale * x**2

        optimizer = optax.adam(rate)
        start = jnp.ones(3)
        with jax.numpy_dtype_promotion("standard"):  # optax needs it
            phihat.fit(lambda x: jnp.sum(helper(x)), start, optimizer, num_steps=2)

    assert count_programs(lambda: [run_cell() for _ in range(3)]) <= 1
    assert count_programs(lambda: run_cell(scale=2.0)) == 1  # the helper's closure
    assert count_programs(lambda: run_cell(rate=0.2)) == 1  # the optimizer's closure
    assert count_programs(lambda: run_cell(scale=True)) == 1  # 1 == True, as a key


SCALE = 1.0


def scaled(x):
    return SCALE * x


def test_a_changed_global_is_seen(monkeypatch):
    """Also where another function of the user's reads it, or it is that function."""

    def descend():
        optimizer = phihat.gradient_descent(1.0)
        return float(
            phihat.fit(lambda x: scaled(x), 0.0, optimizer, num_steps=1).params
        )

    assert descend() == -1.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert descend() == -3.0
    monkeypatch.setitem(globals(), "scaled", lambda x: 5.0 * x)
    assert descend() == -5.0


def test_programs_are_bounded_and_freed(monkeypatch):
    monkeypatch.setattr(stores, "_MAX_BYTES", 2**20)
    alive = []

    def descend(block):
        def loss_fn(p):
            return jnp.sum((block[:3] @ p) ** 2)

        alive.append(weakref.ref(loss_fn))
        phihat.fit(loss_fn, jnp.ones(block.shape[1]), phihat.adam(0.1), num_steps=1)

    for number in range(12):  # each of 128 kB, beyond what is kept
        descend(jnp.full((8, 2000), float(number)))
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 10
    phihat.clear_programs()
    gc.collect()
    assert not any(ref() is not None for ref in alive)


# ------------------------------------------------------------ projections, other models


def test_projections_of_optax_serve():
    with jax.numpy_dtype_promotion("standard"):  # optax needs it
        result = phihat.fit(
            bowl,
            jnp.asarray([0.2, 0.8]),
            phihat.gradient_descent(0.1),
            num_steps=300,
            projection=optax.projections.projection_simplex,
            record=("params",),
        )
    np.testing.assert_allclose(result.params, [0.5, 0.5], atol=1e-6)
    sums = np.asarray(result.history["params"]).sum(axis=1)
    np.testing.assert_allclose(sums, 1.0, atol=1e-12)


def test_evaluation_params_satisfy_the_projection_too():
    result = phihat.fit(
        bowl,
        jnp.zeros(2),
        phihat.nesterov(0.5),
        num_steps=50,
        projection=Box(-1.0, 1.0),
        record=("params",),
    )
    assert np.all(np.abs(result.history["params"]) <= 1.0)


@pytest.mark.filterwarnings("ignore")
def test_an_equinox_module():
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.MLP(1, "scalar", 8, 1, key=jax.random.key(0))
    params, static = eqx.partition(module, eqx.is_inexact_array)

    def apply(static, params, x):
        return jax.vmap(eqx.combine(params, static))(x[:, None])

    loss_fn = losses.least_squares(Partial(apply, static), reduction="mean")
    data = (X, jnp.sin(3 * X))
    result = phihat.fit(loss_fn, params, phihat.adam(0.02), data, num_steps=300)
    assert result.loss < 0.1 * result.history["loss"][0]
    assert isinstance(result.params, eqx.nn.MLP)
    with pytest.raises(TypeError, match=r"eqx\.partition"):
        phihat.fit(loss_fn, module, phihat.adam(0.02), data, num_steps=3)


@pytest.mark.filterwarnings("ignore")
def test_a_flax_module():
    linen = pytest.importorskip("flax.linen")
    module = linen.Dense(1, param_dtype=float)
    params = module.init(jax.random.key(0), X[:, None])
    loss_fn = losses.least_squares(module.apply)
    data = (X[:, None], DATA[1][:, None])
    with jax.numpy_dtype_promotion("standard"):  # flax needs it
        result = phihat.fit(
            loss_fn, params, phihat.gradient_descent(0.05), data, num_steps=500
        )
    np.testing.assert_allclose(result.params["params"]["bias"], [2.0], rtol=1e-6)


def test_python_floats_and_mixed_dtypes_serve_as_params():
    params = {"a": 1.0, "b": jnp.ones(2, jnp.bfloat16), "c": np.ones(1, np.float32)}
    result = phihat.fit(cases.tree_loss, params, phihat.adam(0.1), num_steps=60)
    dtypes = {name: leaf.dtype for name, leaf in result.params.items()}
    assert dtypes == {"a": float, "b": jnp.bfloat16, "c": jnp.float32}
    np.testing.assert_allclose(result.params["a"], 2.0, atol=0.05)


@pytest.mark.parametrize("tree", ["no leaves", "empty leaf", "with None"])
def test_trees_with_little_or_nothing_in_them(tree):
    result = phihat.fit(
        cases.tree_loss,
        cases.PYTREES[tree],
        phihat.gradient_descent(0.5),
        num_steps=60,
        tolerance=1e-6,
    )
    assert result.status == Status.CONVERGED
    for leaf in jax.tree.leaves(result.params):
        np.testing.assert_allclose(leaf, 2.0, rtol=1e-6)


def test_reports_are_short_and_say_what_happened():
    result = phihat.fit(bowl, jnp.zeros(2), phihat.adam(0.1), num_steps=30)
    text = repr(result)
    assert text.startswith("FitResult: COMPLETED, the budget of 30 steps was used")
    assert "9 -> " in text
    assert len(text.splitlines()) <= 5
    lanes = jax.vmap(
        lambda rate: phihat.fit(bowl, jnp.zeros(2), phihat.adam(rate), num_steps=3)
    )(jnp.asarray([0.1, 0.2]))
    assert "2 lanes: 2 COMPLETED" in repr(lanes)
    shown = []
    jax.jit(
        lambda: shown.append(repr(phihat.fit(bowl, 0.0, optax.sgd(1.0), num_steps=1)))
    )()
    assert "traced" in shown[0]


def test_a_fit_that_diverged_without_overflow_is_told_of():
    run = lambda rate: phihat.fit(
        bowl, jnp.zeros(2), phihat.gradient_descent(rate), num_steps=9
    )
    warning = "  warning    the loss grew to more than 10 times the first, so the fit"
    assert warning in repr(run(4.0))
    assert "warning" not in repr(run(0.1))
    lanes = jax.vmap(run)(jnp.asarray([0.1, 4.0, 5.0]))
    assert "  warning    2 of 3 losses grew to more than 10 times" in repr(lanes)


def test_the_rows_of_data_that_are_not_finite_are_named_and_counted():
    loss_fn = losses.least_squares(models.linear)
    start = {"weight": 0.0, "bias": 0.0}
    x = np.arange(9.0)

    def advice(y):
        result = phihat.fit(
            loss_fn, start, phihat.gradient_descent(1e-3), (x, y), num_steps=3
        )
        for one in (result, pickle.loads(pickle.dumps(result))):
            with pytest.raises(FitError) as caught:
                phihat.raise_for_status(one)
            yield caught.value.advice

    y = np.where(x == 7, np.nan, x)
    here, elsewhere = advice(y)
    assert (
        here == "The data hold an infinite or NaN entry at [1], in row 7: clean them."
    )
    assert elsewhere == "The data hold an infinite or NaN entry at [1]: clean them."
    y[[2, 3]] = np.inf, np.nan
    assert "3 infinite or NaN entries at [1], the first in row 2" in next(advice(y))


def test_sharpness_of_a_loss_with_model_state_is_refused_with_the_cause():
    def loss_fn(params, batch, state):
        return (params * batch) ** 2, state

    with pytest.raises(TypeError, match="a loss with a `model_state`"):
        phihat.fit(
            loss_fn,
            1.0,
            phihat.adam(0.1),
            jnp.ones(()),
            num_steps=2,
            model_state=jnp.zeros(()),
            record=("sharpness",),
        )
