"""The engine of a fit beside the same loop by hand: each context, each size, compile.

Run from the root by `python -m benchmarks engine`; the results go to `docs/benchmarks`.
Compile is in seconds of CPU, with the first run in it, of new programs.
"""

import resource
import statistics
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
from benchmarks.bench_fitting import by_hand, step_by_hand

LINE = phihat.losses.least_squares(phihat.models.linear)
WAVE = phihat.losses.least_squares(Partial(phihat.models.gabor, envelope_width=4.0))
PROBLEMS = {
    "line": (
        LINE,
        {"weight": jnp.asarray(-0.5), "bias": jnp.asarray(1.6)},
        phihat.datasets.linear_regression(),
    ),
    "Gabor": (WAVE, jnp.asarray([0.0, 5.0]), phihat.datasets.gabor()),
}
OPTIMIZERS = {
    "gradient descent": (phihat.gradient_descent, 1e-3),
    "Adam": (phihat.adam, 1e-2),
}


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("engine")
    yield report
    report.write()


def cases() -> Any:
    return pytest.mark.parametrize(
        ("problem", "optimizer"),
        [(problem, name) for problem in PROBLEMS for name in OPTIMIZERS],
    )


@cases()
def test_inside_jit(
    benchmark: Any, report: pairs.Report, problem: str, optimizer: str
) -> None:
    """(a), (d): the whole result, plainly, inside jit, and by hand."""
    loss_fn, start, data = PROBLEMS[problem]
    factory, rate = OPTIMIZERS[optimizer]
    num_steps = 20_000

    def fit(params: Any) -> Any:
        return phihat.fit(loss_fn, params, factory(rate), data, num_steps=num_steps)

    jitted = jax.jit(fit)
    hand = jax.jit(by_hand(loss_fn, factory(rate), num_steps))
    result = pairs.measure(
        benchmark,
        lambda: jitted(start),
        {"called plainly": lambda: fit(start), "by hand": lambda: hand(start, data)},
    )
    report.add(
        f"(a) {problem}, {optimizer}: 20,000 steps inside jax.jit",
        result,
        bound="must be <= 1.3 of a plain call, <= 1.6 of by hand",
    )


@cases()
def test_plain_call(
    benchmark: Any, report: pairs.Report, problem: str, optimizer: str
) -> None:
    loss_fn, start, data = PROBLEMS[problem]
    factory, rate = OPTIMIZERS[optimizer]
    num_steps = 10_000
    hand = jax.jit(by_hand(loss_fn, factory(rate), num_steps))
    result = pairs.measure(
        benchmark,
        lambda: phihat.fit(loss_fn, start, factory(rate), data, num_steps=num_steps),
        {"by hand": lambda: hand(start, data)},
    )
    bound = "must be <= 1.0" if problem == "Gabor" else "must be <= 1.4 (goal 1.2)"
    report.add(
        f"(d) {problem}, {optimizer}: 10,000 steps, a plain call", result, bound=bound
    )


# ------------------------------------------------------------------- (b) first results


def digits() -> Any:
    x, y = phihat.datasets.digits()
    x = phihat.datasets.standardize(x)
    network = phihat.models.multilayer_perceptron
    params = phihat.models.init_multilayer_perceptron(jax.random.key(0), [64, 64, 10])
    loss_fn = phihat.losses.multiclass_cross_entropy(network, reduction="mean")
    return loss_fn, params, (x, y)


def minibatches_by_hand(loss_fn: Any, optimizer: Any, num_steps: int, size: int) -> Any:
    """Return the scan over minibatches as one writes it, by the same sampler."""

    def run(params: Any, data: Any) -> Any:
        sampler = phihat.sampling.minibatches(size, drop_remainder=True)
        batches = sampler(data)
        key = jax.random.key(0)

        def step(carry: Any, number: Any) -> Any:
            params, state = carry
            batch = batches.batch_fn(key, number)
            loss, grad = jax.value_and_grad(loss_fn)(params, batch)
            updates, state = optimizer.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), loss

        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jnp.arange(num_steps))

    return run


def deep_network(layers: int = 31) -> Any:
    """Return an Equinox network of two leaves a layer."""
    import equinox as eqx

    network = eqx.nn.MLP(8, 1, 16, layers - 1, key=jax.random.key(0))
    params, static = eqx.partition(network, eqx.is_inexact_array)
    data = (jnp.ones((32, 8)), jnp.ones((32, 1)))

    def loss_fn(params: Any, batch: Any) -> Any:
        x, y = batch
        return jnp.mean((jax.vmap(eqx.combine(params, static))(x) - y) ** 2)

    return loss_fn, params, data


def first_cost(make: Callable[[], Callable[[], Any]], repeats: int = 5) -> float:
    """Return the median CPU seconds of the first call of a new program."""
    costs = []
    for _ in range(repeats):
        run = make()
        begin = time.process_time()
        jax.block_until_ready(run())
        costs.append(time.process_time() - begin)
    return statistics.median(costs)


def fresh(loss_fn: Any) -> Any:
    """Return the same loss as new code, that no program was compiled for."""
    tag = object()

    def loss(params: Any, batch: Any) -> Any:
        del_tag = tag  # another object each time, so another key
        assert del_tag is not None
        return loss_fn(params, batch)

    return loss


@pytest.mark.parametrize("problem", ["line", "Gabor", "digits", "network of 62 leaves"])
def test_first_result(report: pairs.Report, problem: str) -> None:
    """(b): trace, compile and run of a new loss, by us and by hand."""
    size, optimizer = None, phihat.adam(1e-2)
    if problem in PROBLEMS:
        loss_fn, start, data = PROBLEMS[problem]
    elif problem == "digits":
        (loss_fn, start, data), size = digits(), 32
    else:
        loss_fn, start, data = deep_network()
    num_steps = 100

    def ours() -> Any:
        new = fresh(loss_fn)
        options: dict[str, Any] = {}
        if size:
            sampler = phihat.sampling.minibatches(size, drop_remainder=True)
            options = {"sampler": sampler, "key": jax.random.key(0)}
        return lambda: phihat.fit(
            new, start, optimizer, data, num_steps=num_steps, **options
        )

    def hand() -> Any:
        new = fresh(loss_fn)
        if size:
            run = jax.jit(minibatches_by_hand(new, optimizer, num_steps, size))
        else:
            run = jax.jit(by_hand(new, optimizer, num_steps))
        return lambda: run(start, data)

    first_cost(ours, 1), first_cost(hand, 1)
    mine, theirs = first_cost(ours), first_cost(hand)
    bound = "must be <= 1.6 (goal 1.3)"
    if problem == "line":
        bound = "must be <= 0.15 s more (goal 1.6)"
    report.add(
        f"(b) {problem}: first result of a new loss",
        {
            "ours": {"compile_seconds": mine, "run_seconds": 0.0},
            "by hand": {"compile_seconds": theirs, "run_seconds": 0.0},
        },
        bound=bound,
        first_result_ratio=mine / theirs,
        more_seconds=mine - theirs,
    )


# ------------------------------------------------------------------------- (c) leaves

MANY_LEAVES = """
import resource, sys, time
import jax, jax.numpy as jnp, optax, phihat
from benchmarks.bench_fitting import by_hand
num_leaves, who = int(sys.argv[1]), sys.argv[2]
params = {f"p{index:03}": jnp.zeros(4) for index in range(num_leaves)}
loss_fn = lambda p, data: sum(jnp.sum((leaf - data) ** 2) for leaf in p.values())
begin = time.process_time()
if who == "ours":
    run = lambda: phihat.fit(loss_fn, params, phihat.adam(0.1), 1.0, num_steps=50)
else:
    step = jax.jit(by_hand(loss_fn, optax.adam(0.1), 50))
    run = lambda: step(params, 1.0)
jax.block_until_ready(run())
print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_many_leaves(report: pairs.Report) -> None:
    """(c): 25 and 100 leaves of 4 numbers, each in a process of its own."""
    found = {}
    for who in ("ours", "optax"):
        for number in (25, 100):
            done = subprocess.run(
                [sys.executable, "-c", MANY_LEAVES, str(number), who],
                capture_output=True,
                text=True,
                check=True,
            )
            found[who, number] = [float(word) for word in done.stdout.split()]
    seconds = {name: cost for name, (cost, _) in found.items()}
    report.add(
        "(c) 100 leaves of 4 numbers: first result",
        {
            "ours": {"compile_seconds": seconds["ours", 100], "run_seconds": 0.0},
            "optax by hand": {
                "compile_seconds": seconds["optax", 100],
                "run_seconds": 0.0,
            },
        },
        bound="must be <= 1.6; of 25 leaves 4 to 6 times; memory <= 1.5",
        first_result_ratio=seconds["ours", 100] / seconds["optax", 100],
        of_25_leaves=seconds["ours", 100] / seconds["ours", 25],
        memory_ratio=found["ours", 100][1] / found["optax", 100][1],
    )


# ----------------------------------------------------------------- (d) digits, guarded


def test_digits(benchmark: Any, report: pairs.Report) -> None:
    loss_fn, start, data = digits()
    sampler = phihat.sampling.minibatches(32, drop_remainder=True)
    num_steps, key = 10_000, jax.random.key(0)
    hand = jax.jit(minibatches_by_hand(loss_fn, phihat.adam(1e-3), num_steps, 32))
    result = pairs.measure(
        benchmark,
        lambda: phihat.fit(
            loss_fn,
            start,
            phihat.adam(1e-3),
            data,
            num_steps=num_steps,
            sampler=sampler,
            key=key,
        ),
        {"the same scan without a guard": lambda: hand(start, data)},
        rounds=5,
    )
    report.add("(d) digits in minibatches", result, bound="must be <= 1.15")


# -------------------------------------------------------------------------- (e) lanes


@pytest.mark.parametrize("problem", PROBLEMS)
def test_lanes(benchmark: Any, report: pairs.Report, problem: str) -> None:
    loss_fn, start, data = PROBLEMS[problem]
    rates, num_steps = jnp.geomspace(1e-3, 1e-1, 1024), 1000

    def fit(rate: Any) -> Any:
        result = phihat.fit(
            loss_fn, start, phihat.adam(rate), data, num_steps=num_steps
        )
        return result.params, result.history["loss"]

    def hand(rate: Any) -> Any:
        (params, _), losses = by_hand(loss_fn, phihat.adam(rate), num_steps)(
            start, data
        )
        return params, losses

    ours, theirs = jax.jit(jax.vmap(fit)), jax.jit(jax.vmap(hand))
    result = pairs.measure(
        benchmark,
        lambda: ours(rates),
        {"by hand": lambda: theirs(rates)},
        rounds=5,
    )
    bound = "must be <= 1.05" if problem == "Gabor" else "must be <= 1.4"
    report.add(f"(e) 1,024 lanes, {problem}, Adam", result, bound=bound)


def test_useful_steps(report: pairs.Report) -> None:
    """(f): of the steps that mapped fits run, those in which a lane was alive."""
    loss_fn, start, data = PROBLEMS["line"]
    seen: list[int] = []

    def counted(params: Any, batch: Any) -> Any:
        jax.debug.callback(lambda _: seen.append(1), params["bias"])
        return loss_fn(params, batch)

    def fit(rate: Any) -> Any:
        optimizer = phihat.gradient_descent(rate)
        options = {"num_steps": 20_000, "tolerance": 1e-3, "record": ()}
        return phihat.fit(counted, start, optimizer, data, **options).num_steps

    rates = jnp.geomspace(5e-3, 2e-2, 16)
    steps = np.asarray(jax.vmap(fit)(rates))
    jax.effects_barrier()
    run = len(seen) / len(rates)
    share = float(steps.max()) / run
    report.add(
        "(f) mapped fits with a tolerance",
        {"ours": {"compile_seconds": 0.0, "run_seconds": 0.0}},
        bound="must be >= 0.95",
        alive_share=share,
    )


# ------------------------------------------------------------------- (g), (h) one step


def test_eager_call(benchmark: Any, report: pairs.Report) -> None:
    loss_fn, start, data = PROBLEMS["line"]
    data = jax.tree.map(jnp.asarray, data)

    def call() -> Any:
        return phihat.fit(loss_fn, start, phihat.adam(0.1), data, num_steps=1)

    def many() -> Any:
        return [call() for _ in range(200)]

    jax.block_until_ready(call())
    result = pairs.measure(benchmark, many, {}, rounds=9)
    report.add(
        "(g) 200 eager calls of one step",
        result,
        bound="must be <= 100 us a call",
        microseconds_a_call=result["ours"]["run_seconds"] / 200 * 1e6,
    )


def convolutional() -> Any:
    """Return a network of a million params with three convolutions."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(3, 3, 3, 64), (3, 3, 64, 128), (3, 3, 128, 256), (256 * 16, 150)]
    params = {
        f"w{number}": jax.random.normal(key, shape) * (2 / np.prod(shape[:-1])) ** 0.5
        for number, (key, shape) in enumerate(zip(keys, shapes, strict=False))
    }
    params["w4"] = jax.random.normal(keys[4], (150, 10)) * 0.1

    def loss_fn(params: Any, batch: Any) -> Any:
        x, y = batch
        for number in range(3):
            x = jax.lax.conv_general_dilated(
                x,
                params[f"w{number}"],
                (2, 2) if number else (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x)
        x = x[:, ::2, ::2].reshape(len(x), -1)
        logits = jax.nn.relu(x @ params["w3"]) @ params["w4"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    x = jax.random.normal(keys[0], (256, 32, 32, 3))
    y = jnp.arange(256) % 10
    return loss_fn, params, (x, y)


@pytest.mark.parametrize("network", ["convolutions", "perceptron"])
def test_networks(benchmark: Any, report: pairs.Report, network: str) -> None:
    """(h): `train` and `fit` beside a jitted step of optax in a Python loop."""
    if network == "convolutions":
        loss_fn, params, data = convolutional()
    else:
        sizes = [3072, 300, 200, 10]
        params = phihat.models.init_multilayer_perceptron(jax.random.key(0), sizes)
        perceptron = phihat.models.multilayer_perceptron
        loss_fn = phihat.losses.multiclass_cross_entropy(perceptron, reduction="mean")
        x = jax.random.normal(jax.random.key(1), (256, 3072))
        data = (x, jnp.arange(256) % 10)
    num_steps, size = 64, 16
    step = step_by_hand(loss_fn, optax.adam(1e-3))
    batches = [
        jax.tree.map(lambda leaf: leaf[size * i : size * (i + 1)], data)  # noqa: B023
        for i in [number % 16 for number in range(num_steps)]
    ]

    def by_python() -> Any:
        mine, state = params, optax.adam(1e-3).init(params)
        for batch in batches:
            mine, state, loss = step(mine, state, batch)
        return mine, loss

    options = {
        "num_steps": num_steps,
        "batch_size": size,
        "key": jax.random.key(0),
        "record": (),
    }
    result = pairs.measure(
        benchmark,
        lambda: (
            phihat.train(loss_fn, params, phihat.adam(1e-3), data, **options).params
        ),
        {
            "a jitted optax step in a Python loop": by_python,
            "fit": lambda: (
                phihat.fit(loss_fn, params, phihat.adam(1e-3), data, **options).params
            ),
        },
        rounds=3,
    )
    bound = "must be <= 1.1" if network == "convolutions" else "must be <= 1.0"
    report.add(f"(h) {network} of a million params: train", result, bound=bound)


def test_memory(report: pairs.Report) -> None:
    """The peak of this process, for the record."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report.add(
        "peak memory of this benchmark",
        {"ours": {"compile_seconds": 0.0, "run_seconds": 0.0}},
        bound="",
        gigabytes=peak,
    )
