"""What a sweep costs, beside the same lanes by hand, in a Python loop, in a tuner.

Run from the root by `python -m pytest benchmarks/bench_sweeps.py -s -n 0`, or by
`python -m benchmarks.bench_sweeps`; the results go to `docs/benchmarks`.
"""

import functools
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import phihat
from benchmarks import pairs
from benchmarks.pairs import Peer

GABOR = phihat.losses.least_squares(phihat.models.gabor)
X, Y = (jnp.asarray(leaf, jnp.float32) for leaf in phihat.datasets.gabor())
WINDOW = phihat.Box([-10.0, 2.5], [10.0, 22.5])
NUM_STEPS = 200


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("sweeps")
    yield report
    report.write()


def fit_gabor(start: Any, rate: Any) -> Any:
    optimizer = phihat.adam(rate)
    result = phihat.fit(GABOR, start, optimizer, (X, Y), num_steps=NUM_STEPS, record=())
    return result.loss, result.status


def by_hand(
    loss_fn: Callable[[Any], Any], num_steps: int, start: Any, rate: Any
) -> Any:
    """One lane as one writes it: optax in a scan, no guard, no status."""
    optimizer = optax.adam(rate)

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grad = jax.grad(loss_fn)(params)
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = (start, optimizer.init(start))
    (params, _), _ = jax.lax.scan(step, carry, None, num_steps)
    return loss_fn(params)


def gabor_by_hand(params: Any) -> Any:
    u = params[0] + 0.06 * params[1] * X
    return jnp.sum((jnp.sin(u) * jnp.exp(-(u**2) / 8) - Y) ** 2)


def draw_gabor(number: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    starts = rng.uniform([-10, 2.5], [10, 22.5], (number, 2)).astype(np.float32)
    return starts, np.geomspace(1e-3, 0.3, number).astype(np.float32)


def test_gabor_fits(benchmark: Any, report: pairs.Report) -> None:
    starts, rates = draw_gabor(100_000)
    axes = {("start", "rate"): (starts, rates)}
    hand = jax.jit(jax.vmap(functools.partial(by_hand, gabor_by_hand, NUM_STEPS)))
    result = pairs.measure(
        benchmark,
        lambda: phihat.sweep(fit_gabor, axes).values,
        {"jit(vmap(scan)) by hand": lambda: hand(starts, rates)},
        rounds=3,
    )
    losses = phihat.sweep(fit_gabor, axes).values[0]
    report.add(
        "100,000 Gabor fits x 200 Adam steps",
        result,
        bound="must be <= 1.1 (goal 0.5)",
        share_of_equal_losses=float(
            np.mean(np.abs(losses - np.asarray(hand(starts, rates))) < 1e-2)
        ),
    )


# -------------------------------------------------------------------- perceptrons

INPUTS = jax.random.normal(jax.random.key(0), (100, 4))
TARGETS = jnp.sin(jnp.sum(INPUTS, axis=1, keepdims=True))
PERCEPTRON = phihat.losses.least_squares(phihat.models.multilayer_perceptron)


def fit_perceptron(start: Any, rate: Any) -> Any:
    result = phihat.fit(
        PERCEPTRON,
        start,
        phihat.adam(rate),
        (INPUTS, TARGETS),
        num_steps=NUM_STEPS,
        record=(),
    )
    return result.loss, result.status


def perceptron_by_hand(params: Any) -> Any:
    first, last = params
    hidden = jax.nn.relu(INPUTS @ first["weight"] + first["bias"])
    return jnp.sum((hidden @ last["weight"] + last["bias"] - TARGETS) ** 2)


def test_perceptrons(benchmark: Any, report: pairs.Report) -> None:
    number = 2000
    init = functools.partial(phihat.models.init_multilayer_perceptron, sizes=(4, 8, 1))
    starts = jax.vmap(init)(jax.random.split(jax.random.key(1), number))
    rates = jnp.geomspace(1e-3, 0.1, number)
    axes = {("start", "rate"): (starts, rates)}
    hand = jax.jit(jax.vmap(functools.partial(by_hand, perceptron_by_hand, NUM_STEPS)))
    result = pairs.measure(
        benchmark,
        lambda: phihat.sweep(fit_perceptron, axes).values,
        {"jit(vmap(scan)) by hand": lambda: hand(starts, rates)},
        rounds=5,
    )
    report.add(
        "2,000 fits of a 4-8-1 perceptron x 200 Adam steps",
        result,
        bound="must be <= 0.8 (goal 0.6)",
    )


# -------------------------------------------------------------------- memory

MILLION = """
import json, resource, time
from benchmarks import bench_sweeps
import phihat
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
starts, rates = bench_sweeps.draw_gabor(1_000_000)
begin = time.perf_counter()
axes = {("start", "rate"): (starts, rates)}
losses, status = phihat.sweep(bench_sweeps.fit_gabor, axes).values
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"fits": len(losses), "seconds": seconds, "peak_mib": peak / 1024,
                  "before_mib": before / 1024}))
"""


def test_a_million_fits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MILLION], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"\na million Gabor fits x 200 Adam steps: {found}")
    assert found["peak_mib"] < 2048


# -------------------------------------------------------------------- digits

NUM_RATES, NUM_SEEDS = 64, 32


def digits() -> tuple[Any, Any]:
    x, y = phihat.datasets.digits()
    return jnp.asarray(x, jnp.float32) / 16, jnp.asarray(y)


def fit_digits(data: Any, /, *, key: Any, rate: Any) -> Any:
    result = phihat.fit(
        phihat.losses.multiclass_cross_entropy(phihat.models.multilayer_perceptron),
        phihat.models.init_multilayer_perceptron(key, (64, 16, 10)),
        phihat.adam(rate),
        data,
        num_steps=50,
        batch_size=32,
        key=key,
        record=(),
    )
    return result.loss, result.status


def test_digits(benchmark: Any, report: pairs.Report) -> None:
    data = digits()
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    rates = jnp.geomspace(1e-4, 1.0, NUM_RATES)
    function = Partial(fit_digits, data)
    axes = {"rate": rates, "key": keys}
    loss_fn = phihat.losses.multiclass_cross_entropy(
        phihat.models.multilayer_perceptron
    )
    order = np.random.default_rng(0).integers(0, len(data[0]), (50, 32))

    @jax.jit
    def step(params: Any, state: Any, rate: Any, rows: Any) -> Any:
        batch = (data[0][rows], data[1][rows])
        grad = jax.grad(loss_fn)(params, batch)
        updates, state = optax.adam(rate).update(grad, state, params)
        return optax.apply_updates(params, updates), state

    def one_in_python(rate: Any, key: Any) -> Any:
        params = phihat.models.init_multilayer_perceptron(key, (64, 16, 10))
        state = optax.adam(0.1).init(params)
        for rows in order:
            params, state = step(params, state, rate, rows)
        return params

    few = 16
    loop = Peer(
        lambda: [one_in_python(rates[k], keys[k]) for k in range(few)],
        few / (NUM_RATES * NUM_SEEDS),
    )
    with pairs.count_compilations() as compiled:
        phihat.sweep(function, axes)
    result = pairs.measure(
        benchmark,
        lambda: phihat.sweep(function, axes).values,
        {"Python loop over a jitted optax step": loop},
        rounds=2,
    )
    report.add(
        "64 rates x 32 seeds, digits perceptron 64-16-10, 50 steps of 32 rows",
        result,
        programs_compiled_with_small_ones=len(compiled),
        note=f"by hand: {few} of the 2,048 fits are timed, and scaled",
    )
    per_trial = result["ours"]["run_seconds"] / (NUM_RATES * NUM_SEEDS)
    print(f"  ours per trial: {1e6 * per_trial:.0f} us, all included")
    for name, seconds_fn in (("optuna", optuna_seconds), ("joblib", joblib_seconds)):
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"  {name}: not installed, skipped")
            continue
        print(f"  {name}'s overhead per empty trial: {1e6 * seconds_fn():.0f} us")


def optuna_seconds(number: int = 100) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    begin = time.perf_counter()
    study.optimize(lambda t: t.suggest_float("rate", 1e-4, 1, log=True), number)
    return (time.perf_counter() - begin) / number


def joblib_seconds(number: int = 1000) -> float:
    import joblib

    parallel = joblib.Parallel(n_jobs=2)
    parallel(joblib.delayed(abs)(1) for _ in range(10))
    begin = time.perf_counter()
    parallel(joblib.delayed(abs)(k) for k in range(number))
    return (time.perf_counter() - begin) / number


# -------------------------------------------------------------------- many starts


def test_many_starts(benchmark: Any, report: pairs.Report) -> None:
    loss_fn = phihat.losses.least_squares(
        Partial(phihat.models.gabor, envelope_width=4.0)
    )

    def run() -> Any:
        return phihat.multistart(
            loss_fn,
            WINDOW,
            phihat.adam(0.1),
            (X, Y),
            num_starts=16_384,
            num_steps=2000,
            tolerance=1e-2,
        )

    def fit_one(start: Any) -> Any:
        optimizer = phihat.adam(0.1)
        result = phihat.fit(
            loss_fn,
            start,
            optimizer,
            (X, Y),
            num_steps=2000,
            tolerance=1e-2,
            record=(),
        )
        return result.loss, result.num_steps

    found = run()
    starts = jnp.asarray(found.starts)
    plain = jax.jit(jax.vmap(fit_one))
    result = pairs.measure(
        benchmark,
        lambda: run().ends.loss,
        {"one vmapped while_loop": lambda: plain(starts)},
        rounds=3,
    )
    steps = found.ends.num_steps
    report.add(
        "multistart on Gabor, 16,384 starts, clustered and classified",
        result,
        useful_lane_steps=found.ends.useful_share,
        useful_in_one_while_loop=float(steps.mean() / steps.max()),
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
