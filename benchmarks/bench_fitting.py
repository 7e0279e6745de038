"""What a fit costs, beside the same work by hand in JAX and optax, and in PyTorch.

Run from the root by `python -m pytest benchmarks/bench_fitting.py -s -n 0`, or by
`python -m benchmarks.bench_fitting`; the results go to `docs/benchmarks`.
"""

import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from benchmarks import pairs
from benchmarks.pairs import Peer

LINEAR = phihat.losses.least_squares(phihat.models.linear)
GABOR = phihat.losses.least_squares(phihat.models.gabor)
LINEAR_START = {"weight": jnp.asarray(-0.5), "bias": jnp.asarray(1.6)}
GABOR_START = jnp.asarray([-2.0, 12.5])
PROBLEMS = {
    "linear regression": (LINEAR, LINEAR_START, phihat.datasets.linear_regression()),
    "Gabor": (GABOR, GABOR_START, phihat.datasets.gabor()),
}
OPTIMIZERS = {
    "gradient descent": (phihat.gradient_descent, optax.sgd),
    "Adam": (phihat.adam, optax.adam),
}


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("fitting")
    yield report
    report.write()


def by_hand(loss_fn: Any, optimizer: Any, num_steps: int) -> Any:
    """Return the loop as one writes it: a scan that records the loss, no guard."""

    def run(params: Any, data: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            loss, grad = jax.value_and_grad(loss_fn)(params, data)
            updates, state = optimizer.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), None, num_steps)

    return run


def step_by_hand(loss_fn: Any, optimizer: Any) -> Any:
    """Return the jitted step that one calls from a Python loop."""

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss, grad = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


# ------------------------------------------------------------- (a) many learning rates


NUM_RATES = 100
RATES = [*np.logspace(-3, -0.5, NUM_RATES - 4), 0.1, np.float32(0.1), np.int64(1), 1]
"""NumPy scalars, floats and ints."""


def test_learning_rates(benchmark: Any, report: pairs.Report) -> None:
    data = phihat.datasets.gabor()
    num_steps, few = 1000, 5

    def fit_all() -> Any:
        return [
            phihat.fit(GABOR, GABOR_START, phihat.adam(rate), data, num_steps=num_steps)
            for rate in RATES
        ]

    def fit_some_by_hand() -> Any:
        return [
            jax.jit(by_hand(GABOR, optax.adam(rate), num_steps))(GABOR_START, data)
            for rate in RATES[::20][:few]
        ]

    phihat.fit(GABOR, GABOR_START, phihat.adam(0.1), data, num_steps=num_steps)
    with pairs.count_compilations() as compiled:
        fit_all()
    result = pairs.measure(
        benchmark,
        fit_all,
        {"optax.adam(rate) in a jitted scan": Peer(fit_some_by_hand, few / NUM_RATES)},
        rounds=3,
    )
    report.add(
        "(a) 100 learning rates x 1000 Adam steps, Gabor",
        result,
        bound="must be <= 1/30 (goal 1/100), and no new program",
        new_programs=len(compiled),
        note=f"by hand: {few} of the 100 rates are timed, and scaled",
    )


def test_learning_rates_mapped(benchmark: Any, report: pairs.Report) -> None:
    data = phihat.datasets.gabor()
    rates = jnp.asarray(RATES, jnp.float32)

    def fit_one(rate: Any) -> Any:
        return phihat.fit(GABOR, GABOR_START, phihat.adam(rate), data, num_steps=1000)

    @jax.jit
    @jax.vmap
    def by_hand_mapped(rate: Any) -> Any:
        return by_hand(GABOR, optax.adam(rate), 1000)(GABOR_START, data)

    result = pairs.measure(
        benchmark,
        lambda: jax.vmap(fit_one)(rates),
        {"jit(vmap(scan))": lambda: by_hand_mapped(rates)},
    )
    report.add(
        "(a) the same under vmap",
        result,
        note="ours is vmap(fit) without jit around it",
    )


# --------------------------------------------------------------------- (b) one long fit


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", OPTIMIZERS)
def test_one_long_fit(
    benchmark: Any, report: pairs.Report, problem: str, method: str
) -> None:
    loss_fn, start, data = PROBLEMS[problem]
    ours, theirs = (make(1e-3) for make in OPTIMIZERS[method])
    num_steps, few = 10_000, 1_000
    scan = jax.jit(by_hand(loss_fn, theirs, num_steps))
    step = step_by_hand(loss_fn, theirs)

    def loop() -> Any:
        params, state, losses = start, theirs.init(start), []
        for _ in range(few):
            params, state, loss = step(params, state, data)
            losses.append(loss)
        return params, losses

    result = pairs.measure(
        benchmark,
        lambda: phihat.fit(loss_fn, start, ours, data, num_steps=num_steps),
        {
            "jitted scan, no guard": lambda: scan(start, data),
            "jitted step in a Python loop": Peer(loop, few / num_steps),
        },
        rounds=15,
    )
    report.add(
        f"(b) 10,000 steps, {problem}, {method}",
        result,
        bound="must be <= 1.25 (goal 1.05) of the scan, and <= 1/8 of the Python loop",
        note=f"Python loop: {few} steps are timed, and scaled",
    )


# -------------------------------------------------------------------- (c) minibatches


SIZES, BATCH, EPOCHS = [64, 64, 10], 32, 10
PERCEPTRON = phihat.losses.multiclass_cross_entropy(
    phihat.models.multilayer_perceptron, reduction="mean"
)


def unshuffled_scan(optimizer: Any, num_rows: int) -> Any:
    """Return the same epochs, a short last batch included, with the rows in order."""
    num_full = num_rows // BATCH

    def update(carry: Any, batch: Any) -> Any:
        params, state = carry
        loss, grad = jax.value_and_grad(PERCEPTRON)(params, batch)
        updates, state = optimizer.update(grad, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def run(params: Any, data: Any) -> Any:
        def on_full(carry: Any, begin: Any) -> Any:
            rows = functools.partial(
                jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=BATCH
            )
            return update(carry, jax.tree.map(rows, data))

        def epoch(carry: Any, _: None) -> Any:
            carry, losses = jax.lax.scan(on_full, carry, jnp.arange(num_full) * BATCH)
            rest = jax.tree.map(lambda leaf: leaf[num_full * BATCH :], data)
            carry, last = update(carry, rest)
            return carry, jnp.append(losses, last)

        return jax.lax.scan(epoch, (params, optimizer.init(params)), None, EPOCHS)

    return jax.jit(run)


def torch_epochs(params: Any, x: Any, y: Any, num_epochs: int) -> Any:
    """Return the same fit in PyTorch, shuffled by `randperm`; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    del params
    features, labels = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(y)).long()
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = torch.nn.CrossEntropyLoss()

    def run() -> None:
        for _ in range(num_epochs):
            for rows in torch.randperm(len(features)).split(BATCH):
                optimizer.zero_grad()
                loss_fn(model(features[rows]), labels[rows]).backward()
                optimizer.step()

    return run


def test_minibatches(benchmark: Any, report: pairs.Report) -> None:
    x, y = phihat.datasets.digits()
    data = (phihat.datasets.standardize(x), y)
    num_rows = x.shape[0]
    key = jax.random.key(0)
    start = phihat.models.init_multilayer_perceptron(key, SIZES)
    optimizer = optax.adam(1e-3)
    scan = unshuffled_scan(optimizer, num_rows)
    step = step_by_hand(PERCEPTRON, optimizer)
    host = jax.tree.map(np.asarray, data)
    rng = np.random.default_rng(0)

    def loop() -> Any:
        params, state = start, optimizer.init(start)
        order = rng.permutation(num_rows)
        for begin in range(0, num_rows, BATCH):
            rows = order[begin : begin + BATCH]
            batch = jax.tree.map(lambda leaf: leaf[rows], host)  # noqa: B023
            params, state, _ = step(params, state, batch)
        return params

    peers: dict[str, Any] = {
        "jitted scan, unshuffled, no guard": lambda: scan(start, data),
        "jitted step in a Python loop": Peer(loop, 1 / EPOCHS),
    }
    in_torch = torch_epochs(start, *data, num_epochs=1)
    if in_torch is not None:
        peers["PyTorch"] = Peer(in_torch, 1 / EPOCHS)
    result = pairs.measure(
        benchmark,
        lambda: phihat.fit(
            PERCEPTRON,
            start,
            phihat.adam(1e-3),
            data,
            num_epochs=EPOCHS,
            batch_size=BATCH,
            key=key,
        ),
        peers,
        rounds=9,
    )
    report.add(
        f"(c) perceptron 64-64-10 on digits, batch 32, {EPOCHS} epochs, Adam",
        result,
        bound="must be <= 1.2 (goal 1.1) of the scan, and < 1 of the others",
        note="Python loop and PyTorch: one epoch is timed, and scaled"
        + ("" if in_torch else "; PyTorch is not installed"),
    )


# ----------------------------------------------------------------- (d) one eager call


def test_repeated_call(benchmark: Any, report: pairs.Report) -> None:
    data = phihat.datasets.linear_regression()
    calls = 200
    optimizer = optax.adam(0.1)
    step, state = step_by_hand(LINEAR, optimizer), optimizer.init(LINEAR_START)

    def fit_often() -> None:
        for _ in range(calls):
            result = phihat.fit(
                LINEAR, LINEAR_START, phihat.adam(0.1), data, num_steps=1
            )
            result.loss.block_until_ready()

    def step_often() -> None:
        for _ in range(calls):
            step(LINEAR_START, state, data)[2].block_until_ready()

    result = pairs.measure(
        benchmark,
        fit_often,
        {"one call of a jitted step": Peer(step_often, calls)},
        part=calls,
    )
    report.add(
        "(d) a repeated eager fit of one step",
        result,
        bound="must be <= 300 us (goal 120 us)",
    )


# ---------------------------------------------------------------- (e) a large update


def updates(optimizer: Any, size: int) -> Callable[[], Any]:
    """Return what updates `size` params in place, again and again."""
    grad = jnp.full(size, 0.5)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, grad: Any) -> Any:
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    carry = [jnp.ones(size), optimizer.init(jnp.ones(size))]

    def run() -> Any:
        carry[:] = update(*carry, grad)
        return carry

    return run


def test_large_update(benchmark: Any, report: pairs.Report) -> None:
    size = 32_000_000
    result = pairs.measure(
        benchmark,
        updates(phihat.adam(1e-3), size),
        {"optax.adam": updates(optax.adam(1e-3), size)},
    )
    report.add(
        "(e) Adam's update on 32 million float32 params",
        result,
        bound="must be <= 1.05 (goal 0.7)",
    )


# ------------------------------------------------------------------- (f) the import


def test_import(benchmark: Any, report: pairs.Report) -> None:
    times: list[tuple[float, ...]] = []
    # Where Python may keep no bytecode, it is compiled at each import, unlike a user's.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    program = (
        "import time; a = time.perf_counter(); import jax, optax; "
        "b = time.perf_counter(); import phihat; c = time.perf_counter(); "
        "phihat.fit, phihat.adam, phihat.losses, phihat.models, phihat.datasets; "
        "d = time.perf_counter(); print(b - a, c - b, d - b)"
    )

    def import_all() -> tuple[float, ...]:
        printed = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        times.append(tuple(map(float, printed.stdout.split())))
        return times[-1]

    benchmark.pedantic(import_all, rounds=7, warmup_rounds=1)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    names = ("jax and optax", "ours", "ours, and the names of a fit used")
    result = {
        name: {"run_seconds": seconds}
        for name, seconds in zip(names, medians, strict=True)
    }
    report.add(
        "(f) import phihat, once jax and optax are there",
        result,
        bound="must be <= 0.1 s",
    )


# ----------------------------------------------------------------- (g) mapped lanes


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", OPTIMIZERS)
def test_mapped_lanes(
    benchmark: Any, report: pairs.Report, problem: str, method: str
) -> None:
    loss_fn, start, data = PROBLEMS[problem]
    ours, theirs = OPTIMIZERS[method]
    rates = jnp.logspace(-4, -2.5, 1024)
    num_steps = 1000

    @jax.jit
    @jax.vmap
    def guarded(rate: Any) -> Any:
        return phihat.fit(loss_fn, start, ours(rate), data, num_steps=num_steps)

    @jax.jit
    @jax.vmap
    def unguarded(rate: Any) -> Any:
        return by_hand(loss_fn, theirs(rate), num_steps)(start, data)

    result = pairs.measure(
        benchmark,
        lambda: guarded(rates),
        {"jit(vmap(scan)), no guard": lambda: unguarded(rates)},
    )
    report.add(
        f"(g) 1,024 lanes x 1,000 steps, {problem}, {method}",
        result,
        bound="must be <= 1.15",
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
