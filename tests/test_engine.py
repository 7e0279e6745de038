"""One loop in every context: what it carries, how it ends, what it tells."""

import functools
import itertools
import pickle
import subprocess
import sys
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from phihat import FitResult, Status, fitting, losses, models
from phihat._core import jaxprs as _jaxprs
from phihat._engine import history_buffer
from phihat.fitting import Tolerance
from tests import as_user

LINE = losses.least_squares(models.linear, reduction="mean")
DATA = phihat.datasets.linear_regression()
START = {"weight": jnp.zeros(()), "bias": jnp.zeros(())}


def line_fit(optimizer=None, start=START, **options):
    optimizer = phihat.adam(0.1) if optimizer is None else optimizer
    return phihat.fit(LINE, start, optimizer, DATA, **{"num_steps": 150} | options)


# ------------------------------------------------------------------ the same everywhere


@pytest.mark.bits
@pytest.mark.parametrize("stride", [1, 7])
def test_resumed_fits_are_the_same_to_the_bit(stride, monkeypatch):
    """Wherever blocks and pages end, and however a run is cut."""
    rows = np.random.default_rng(0).integers(12, size=(105, 5))
    options = {"sampler": phihat.from_indices(rows), "record_every": stride}
    whole = line_fit(num_steps=105, **options)
    # A length for each block: what is compiled once is not traced again.
    for block, first in ((3, 7), (50, 56), (100, 98)):
        monkeypatch.setattr(history_buffer, "_BLOCK", block)
        part = line_fit(num_steps=first, **options)
        rest = line_fit(start=None, num_steps=105 - first, state=part.state, **options)
        for mine, yours in zip(
            jax.tree.leaves((rest.params, rest.state.opt_state)),
            jax.tree.leaves((whole.params, whole.state.opt_state)),
            strict=True,
        ):
            assert np.array_equal(mine, yours)
        joined = np.concatenate([part.history["loss"], rest.history["loss"]])
        np.testing.assert_array_equal(joined, whole.history["loss"])


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_every_context_gives_the_same_fit(tolerance):
    """Plain, inside jit, as one of several lanes, and with a closure over a tracer."""

    def fit(rate, scale):
        def loss_fn(params, batch):
            return scale * LINE(params, batch)

        optimizer = phihat.adam(rate)
        options = {"num_steps": 200, "tolerance": tolerance}
        result = phihat.fit(loss_fn, START, optimizer, DATA, **options)
        return result.params, result.history["loss"], result.num_steps, result.status

    plain = fit(0.1, 1.0)
    jitted = jax.jit(fit)(0.1, 1.0)
    lane = jax.tree.map(
        lambda leaf: leaf[0], jax.vmap(fit)(jnp.array([0.1, 0.3]), jnp.ones(2))
    )
    nested = jax.jit(jax.vmap(jax.jit(fit)))(jnp.array([0.1]), jnp.ones(1))
    for other in (jitted, lane, jax.tree.map(lambda leaf: leaf[0], nested)):
        for mine, yours in zip(
            jax.tree.leaves(plain), jax.tree.leaves(other), strict=True
        ):
            np.testing.assert_allclose(mine, yours, rtol=1e-9, atol=1e-12)


def test_derivatives_agree_in_every_form():
    def loss_after(rate, remat=False):
        result = line_fit(phihat.momentum(rate), num_steps=40, remat=remat)
        return result.loss

    plain = jax.grad(loss_after)(0.05)
    saving = jax.grad(functools.partial(loss_after, remat=True))(0.05)
    jitted = jax.jit(jax.grad(loss_after))(0.05)
    forward = jax.jacfwd(loss_after)(0.05)
    lanes = jax.vmap(jax.grad(loss_after))(jnp.array([0.05]))[0]
    inner = jax.grad(jax.jit(loss_after))(0.05)
    width = 1e-5
    slope = (loss_after(0.05 + width) - loss_after(0.05 - width)) / (2 * width)
    np.testing.assert_allclose(plain, slope, rtol=1e-5)
    for other in (saving, jitted, forward, lanes, inner):
        np.testing.assert_allclose(other, plain, rtol=1e-10)
    assert np.isfinite(jax.hessian(loss_after)(0.05))


def test_mapped_fits_run_no_step_for_nothing():
    """A loop of lanes ends with its slowest lane, and not at the end of a block."""
    seen = []

    def loss_fn(x):
        jax.debug.callback(lambda _: seen.append(1), x[0])
        return jnp.sum(x**2)

    def fit(rate):
        optimizer = phihat.gradient_descent(rate)
        options = {"num_steps": 1000, "tolerance": 1e-3, "record": ()}
        return phihat.fit(loss_fn, jnp.ones(2), optimizer, **options).num_steps

    steps = jax.vmap(fit)(jnp.array([0.4, 0.1]))
    jax.effects_barrier()
    # Each step is one callback a lane; the last one tried is refused.
    assert len(seen) <= 2 * (int(max(steps)) + 2)


# ------------------------------------------------------------------- how a fit ends


class TestEnds:
    def test_a_step_of_zero_is_no_convergence(self):
        warm_up = optax.linear_schedule(0.0, 0.1, 5)
        for tolerance in (Tolerance(loss=1e-6), Tolerance(params=1e-6)):
            result = line_fit(phihat.adam(warm_up), tolerance=tolerance)
            assert int(result.num_steps) > 20
            accumulated = optax.MultiSteps(phihat.adam(0.1), 4)
            with jax.numpy_dtype_promotion("standard"):
                result = line_fit(accumulated, tolerance=tolerance)
            assert int(result.num_steps) > 20

    def test_at_a_gradient_of_zero_nothing_needs_to_move(self):
        result = phihat.fit(
            lambda x: x**2,
            0.0,
            phihat.gradient_descent(0.1),
            num_steps=9,
            tolerance=Tolerance(params=1e-9),
        )
        assert (int(result.status), int(result.num_steps)) == (Status.CONVERGED, 0)

    @pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
    def test_the_relative_gradient_has_no_units(self, unit):
        def loss_fn(x):
            return jnp.sum((x / unit - jnp.array([1.0, 2.0])) ** 2) + 1.0

        result = phihat.fit(
            loss_fn,
            jnp.zeros(2),
            phihat.gradient_descent(0.1 * unit**2),
            num_steps=500,
            tolerance=Tolerance(relative_gradient=1e-6),
        )
        assert result.status == Status.CONVERGED
        np.testing.assert_allclose(result.params / unit, [1.0, 2.0], rtol=1e-5)

    def test_leaves_that_never_move_leave_the_tolerance(self):
        def loss_fn(params):
            return params["a"] ** 2 + 3.0 * params["b"]

        frozen = optax.multi_transform(
            {"go": phihat.gradient_descent(0.3), "stay": optax.set_to_zero()},
            {"a": "go", "b": "stay"},
        )
        start = {"a": 1.0, "b": 1.0}
        with jax.numpy_dtype_promotion("standard"):
            result = phihat.fit(loss_fn, start, frozen, num_steps=200, tolerance=1e-6)
        assert result.status == Status.CONVERGED
        assert result.params["b"] == 1.0
        assert abs(result.params["a"]) < 1e-6

    def test_after_divergence_the_params_are_the_last_sound_ones(self):
        for run in (phihat.fit, phihat.train):
            result = run(lambda x: x**4, 9.0, phihat.gradient_descent(1.0), num_steps=9)
            assert np.isfinite(result.loss)
            np.testing.assert_allclose(result.params**4, result.loss)
            assert abs(result.state.params) > abs(result.params)

    def test_lanes_end_apart(self):
        def fit(rate):
            optimizer = phihat.gradient_descent(rate)
            return phihat.fit(
                lambda x: x**4, 2.0, optimizer, num_steps=300, tolerance=1e-2
            )

        rates = jnp.array([0.05, 1.0, jnp.nan])
        result = jax.vmap(fit)(rates)
        names = [Status(code).name for code in np.asarray(result.status)]
        assert names == ["CONVERGED", "NONFINITE_LOSS", "NONFINITE_PARAMS"]
        one = fit(0.05)
        np.testing.assert_allclose(result.params[0], one.params, rtol=1e-12)


# ------------------------------------------------------------------- what a result says


def test_a_status_prints_as_its_name():
    result = line_fit(tolerance=1e-2)
    assert f"{result.status}" == str(result.status) == "CONVERGED"
    assert f"{result.status:d}" == "2"
    assert (result.status == Status.CONVERGED) is np.True_ or result.status == 2
    lanes = jax.vmap(lambda rate: line_fit(phihat.adam(rate), num_steps=2).status)
    assert np.asarray(lanes(jnp.array([0.1, 0.2]))).tolist() == [1, 1]
    again = pickle.loads(pickle.dumps(result))
    assert str(again.status) == "CONVERGED"
    assert isinstance(jax.tree.map(lambda leaf: leaf, result), FitResult)


def test_a_history_knows_how_many_rows_are_real():
    result = line_fit(tolerance=1e-1, record=("loss", "params"), record_every=3)
    trimmed = result.trimmed()
    rows = len(trimmed.history["step"])
    assert rows == int(result.num_steps) // 3 + 1
    assert np.isfinite(trimmed.history["loss"]).all()
    assert len(trimmed.history["params"]["bias"]) == rows + 1
    assert f"50 rows, {rows} of them measured" in repr(result)
    whole = line_fit()
    assert len(whole.trimmed().history["loss"]) == 150
    assert "measured" not in repr(whole)


def test_a_bad_end_warns_once_when_it_is_read():
    def diverge():
        optimizer = phihat.gradient_descent(1.0)
        result = phihat.fit(lambda x: x**4, 9.0, optimizer, num_steps=9)
        return jax.block_until_ready(result)

    for read in (repr, lambda result: result.params, lambda result: result.loss):
        result = diverge()
        with pytest.warns(UserWarning, match="raise_for_status"):
            read(result)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(result)
    result = diverge()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(phihat.FitError):
            phihat.raise_for_status(result)


def test_a_notebook_shows_a_table():
    shown = line_fit()._repr_html_()
    assert shown.startswith("<div>")
    assert "COMPLETED" in shown
    assert "<table>" in shown


@pytest.mark.parametrize("stride", [1, 2])
def test_second_order_fills_its_history_like_the_others(stride):
    """Its last point is measured by the step that reaches it, and tried no more."""
    optimizer = phihat.levenberg_marquardt()
    result = line_fit(optimizer, record=("loss", "params"), record_every=stride)
    assert result.status == Status.CONVERGED
    rows = result.history["params"]["weight"]
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[-1], result.params["weight"])
    assert np.isfinite(result.trimmed().history["loss"]).all()


# ---------------------------------------------------------------- what a loss carries


def counting_loss(params, batch, model_state):
    """A mean that moves with the batches, as batch statistics do."""
    x, y = batch
    mean = 0.9 * model_state["mean"] + 0.1 * jnp.mean(x)
    residual = params * (x - mean) - y
    return jnp.mean(residual**2), {"mean": mean, "count": model_state["count"] + 1}


MODEL_STATE = {"mean": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}
OPTIONS = {"batch_size": 4, "key": jax.random.key(1), "model_state": MODEL_STATE}


class TestModelState:
    def fit(self, call=phihat.fit, **options):
        options = OPTIONS | {"num_steps": 30} | options
        return call(counting_loss, 1.0, phihat.adam(0.1), DATA, **options)

    def test_it_moves_with_the_steps(self):
        result = self.fit()
        assert int(result.model_state["count"]) == 30
        assert abs(float(result.model_state["mean"]) - float(DATA[0].mean())) < 0.3

    @pytest.mark.bits
    def test_it_is_resumed_to_the_bit(self):
        whole, part = self.fit(), self.fit(num_steps=12)
        options = {"num_steps": 18, "state": part.state, "model_state": None}
        rest = self.fit(**options)
        for mine, yours in zip(
            jax.tree.leaves((whole.params, whole.model_state)),
            jax.tree.leaves((rest.params, rest.model_state)),
            strict=True,
        ):
            assert np.array_equal(mine, yours)

    def test_train_and_run_carry_it_too(self):
        whole = self.fit()
        trained = self.fit(phihat.train, steps_per_chunk=7)
        optimizer = phihat.adam(0.1)
        step_fn = fitting.make_step(counting_loss, optimizer, model_state=MODEL_STATE)
        state = fitting.init(
            1.0, optimizer, key=OPTIONS["key"], model_state=MODEL_STATE
        )
        state, _ = fitting.run(step_fn, state, DATA, num_steps=30, batch_size=4)
        for other in (trained.model_state, state.model_state):
            assert np.array_equal(other["mean"], whole.model_state["mean"])

    def test_it_is_mapped_and_guarded(self):
        def fit(rate):
            optimizer = phihat.gradient_descent(rate)
            return phihat.fit(
                counting_loss, 1.0, optimizer, DATA, num_steps=30, **OPTIONS
            )

        result = jax.vmap(fit)(jnp.array([0.01, jnp.nan]))
        assert result.model_state["count"].tolist() == [30, 0]

    def test_beside_aux_a_key_and_no_data(self):
        def loss_fn(params, model_state, key):
            noise = jax.random.normal(key)
            return params**2 + 0 * noise, model_state + 1, noise

        result = phihat.fit(
            loss_fn,
            1.0,
            phihat.adam(0.1),
            num_steps=5,
            key=jax.random.key(0),
            has_aux=True,
            model_state=jnp.zeros((), jnp.int32),
            record=("loss", "aux"),
        )
        assert int(result.model_state) == 5
        assert len(set(np.asarray(result.history["aux"]).tolist())) == 5

    @pytest.mark.parametrize(
        ("loss_fn", "said"),
        [
            (lambda p, batch, state: p**2, r"must return `\(loss, model_state\)`"),
            (lambda p, batch: p**2, r"called as \(params, batch, model_state\)"),
            (lambda p, batch, state: (p**2, {"mean": 1.0}), "one structure"),
        ],
        ids=["no state", "two arguments", "another state"],
    )
    def test_what_does_not_fit_is_told(self, loss_fn, said):
        with pytest.raises(TypeError, match=f"^fit: .*{said}"):
            phihat.fit(loss_fn, 1.0, phihat.adam(0.1), DATA, num_steps=2, **OPTIONS)

    def test_second_order_says_why_not(self):
        with pytest.raises(ValueError, match=r"^fit: newton .* `model_state`"):
            phihat.fit(
                counting_loss,
                1.0,
                phihat.newton(),
                DATA,
                num_steps=2,
                model_state=MODEL_STATE,
            )


def test_batch_normalization_of_flax_agrees_with_a_loop_by_hand():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            return linen.Dense(1)(x)[:, 0]

    net = Net()
    x = jax.random.normal(jax.random.key(0), (48, 3)) * 2 + 1
    y = x @ jnp.array([1.0, -2.0, 0.5])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = net.init(jax.random.key(1), x, train=False)

    def loss_fn(params, batch, stats):
        x, y = batch
        variables = {"params": params, "batch_stats": stats}
        out, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.mean((out - y) ** 2), new["batch_stats"]

    def evaluate(params, stats):
        out = net.apply({"params": params, "batch_stats": stats}, x, train=False)
        return jnp.mean((out - y) ** 2)

    stats, params = variables["batch_stats"], variables["params"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fit = functools.partial(phihat.fit, loss_fn, optimizer=phihat.adam(0.05))
        options = {"data": (x, y), "batch_size": 16, "key": jax.random.key(2)}
        whole = fit(params, num_steps=90, model_state=stats, **options)
        part = fit(params, num_steps=30, model_state=stats, **options)
        rest = fit(None, num_steps=60, state=part.state, **options)
        optimizer = phihat.adam(0.05)
        opt_state = optimizer.init(params)
        sampled = phihat.sampling.minibatches(16)((x, y))
        key = jax.random.fold_in(jax.random.key(2), 0)

        @jax.jit
        def advance(step, params, moved, opt_state):
            batch = sampled.batch_fn(key, step)
            (_, moved), grad = jax.value_and_grad(loss_fn, has_aux=True)(
                params, batch, moved
            )
            updates, opt_state = optimizer.update(grad, opt_state, params)
            return optax.apply_updates(params, updates), moved, opt_state

        by_hand, moved = params, stats
        for step in range(90):
            by_hand, moved, opt_state = advance(step, by_hand, moved, opt_state)
        np.testing.assert_allclose(
            evaluate(whole.params, whole.model_state),
            evaluate(by_hand, moved),
            atol=1e-6,
        )
    for mine, yours in zip(
        jax.tree.leaves((whole.params, whole.model_state)),
        jax.tree.leaves((rest.params, rest.model_state)),
        strict=True,
    ):
        assert np.array_equal(mine, yours)


# ------------------------------------------------------------- what is told on the way


def test_the_rate_is_found_through_what_wraps_it():
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    wrapped = {
        "chain": optax.chain(optax.clip(1.0), phihat.momentum(schedule)),
        "mask": optax.masked(phihat.momentum(schedule), True),
        "steps": optax.MultiSteps(phihat.momentum(schedule), 2),
    }
    for name, optimizer in wrapped.items():
        with jax.numpy_dtype_promotion("standard"):
            result = line_fit(optimizer, num_steps=6, record="learning_rate")
        turns = np.arange(6) // (2 if name == "steps" else 1)
        expected = 0.1 * (1 - turns / 10)
        np.testing.assert_allclose(result.history["learning_rate"], expected, rtol=1e-6)


def test_a_schedule_that_python_cannot_trace_is_told():
    def schedule(step):
        return 0.1 if step < 5 else 0.01

    with pytest.raises(TypeError, match=r"schedule .* `jnp.where` instead of `if`"):
        line_fit(phihat.adam(schedule))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda fn: phihat.fit(fn, 1.0, phihat.adam(0.1), num_steps=3), "fit"),
        (lambda fn: phihat.train(fn, 1.0, phihat.adam(0.1), num_steps=3), "train"),
        (
            lambda fn: phihat.multistart(
                fn, phihat.Box(0.0, 1.0), phihat.adam(0.1), num_starts=2
            ),
            "multistart",
        ),
        (
            lambda fn: fitting.make_step(fn, phihat.adam(0.1))(
                fitting.init(1.0, phihat.adam(0.1)), None
            ),
            "make_step",
        ),
        (
            lambda fn: fitting.run(
                fitting.make_step(fn, phihat.adam(0.1)),
                fitting.init(1.0, phihat.adam(0.1)),
                num_steps=3,
            ),
            "run",
        ),
    ],
    ids=["fit", "train", "multistart", "make_step", "run"],
)
def test_errors_speak_in_the_name_of_the_call(call, name):
    with pytest.raises(ValueError, match=rf"^{name}: `loss_fn` must return a scalar"):
        call(lambda p: p * jnp.ones(2))
    with pytest.raises(ValueError, match=rf"^{name}: .*`key`"):
        call(lambda p, key: p)


def test_numbers_of_any_kind_share_a_program():
    starts = (1.0, np.float64(1.0), np.asarray(1.0), jnp.asarray(1.0))
    rates = (0.1, np.float32(0.1), jnp.asarray(0.1), jnp.asarray(0.1, jnp.float32))
    traced = mock.Mock()

    def quartic(x):
        traced()
        return x**4 + 2.0 * x

    counts = []
    for start, rate in itertools.product(starts, rates):
        phihat.fit(quartic, start, phihat.adam(rate), num_steps=4)
        counts.append(traced.call_count)
    assert counts == counts[:1] * len(counts)


CACHED = """
import jax, jax.numpy as jnp
hits, misses = [], []
def listen(event, **details):
    hits.append(event) if event.endswith("/cache_hits") else None
    misses.append(event) if event.endswith("/cache_misses") else None
jax.monitoring.register_event_listener(listen)
import phihat
data = phihat.datasets.linear_regression()
loss_fn = phihat.losses.least_squares(phihat.models.linear)
start = {"weight": 0.0, "bias": 0.0}
phihat.fit(loss_fn, start, phihat.adam(0.1), data, num_steps=50)
phihat.fit(loss_fn, start, phihat.levenberg_marquardt(), data, num_steps=50)
fit = lambda rate: phihat.fit(loss_fn, start, phihat.adam(rate), data, num_steps=5).loss
phihat.sweep(fit, {"rate": jnp.array([0.1, 0.2])})
print(len(hits), len(misses))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    """With jax's own cache of compiled programs, which the user switches on."""
    own_cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    environment = as_user.environment() | own_cache

    def run():
        done = subprocess.run(
            [sys.executable, "-c", CACHED],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(word) for word in done.stdout.split()]

    hits, misses = run()
    assert misses > 3
    again, missed = run()
    assert (again, missed) == (hits + misses, 0)


def test_what_runs_briefly_is_compiled_without_optimizing_it(monkeypatch):
    options = _jaxprs.quick_start_options.__wrapped__
    monkeypatch.setenv("XLA_FLAGS", "")
    quick, brief = options(), options(runs_briefly=True)
    assert brief == {**quick, "xla_backend_optimization_level": 0}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    assert options(runs_briefly=True) == quick
