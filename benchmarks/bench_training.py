"""What driving a fit from the host costs, beside `fit` and beside a loop by hand.

Run from the root by `python -m pytest benchmarks/bench_training.py -s -n 0`; the
results go to `docs/benchmarks`.
"""

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from benchmarks import pairs

GABOR = phihat.losses.least_squares(phihat.models.gabor)
GABOR_START = jnp.asarray([-2.0, 12.5])
NUM_STEPS = 200_000
MINUTE_SIZES = [64, 2048, 1950, 10]
"""With Adam's moments 50 MB of state, so every checkpoint has something to write."""
PERCEPTRON = phihat.losses.multiclass_cross_entropy(
    phihat.models.multilayer_perceptron, reduction="mean"
)
SIZES, BATCH, NUM_BATCHES = [64, 64, 10], 32, 4000


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("training")
    yield report
    report.write()


def test_a_long_fit(benchmark: Any, report: pairs.Report) -> None:
    data = phihat.datasets.gabor()
    call = (GABOR, GABOR_START, phihat.adam(1e-3), data)
    folder = tempfile.mkdtemp()

    def ours() -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoints = phihat.Checkpoints(folder, every=datetime.timedelta(minutes=1))
        return phihat.train(
            *call, num_steps=NUM_STEPS, progress=True, checkpoint=checkpoints
        )

    result = pairs.measure(
        benchmark,
        ours,
        {
            "fit": lambda: phihat.fit(*call, num_steps=NUM_STEPS),
            "train, without checkpoints": lambda: phihat.train(
                *call, num_steps=NUM_STEPS
            ),
        },
        rounds=9,
    )
    begin = time.perf_counter()
    ours()
    whole = time.perf_counter() - begin
    begin = time.perf_counter()
    phihat.checkpoint.save(f"{folder}/last", phihat.fit(*call, num_steps=NUM_STEPS))
    report.add(
        f"(a) {NUM_STEPS:,} Adam steps, Gabor, progress, a checkpoint a minute",
        result,
        bound="must be <= 1.05 of fit",
        seconds_of_one_run=round(whole, 3),
        seconds_to_save_a_result_of_it=round(time.perf_counter() - begin, 3),
        note="a run is shorter than a minute, yet writes its last checkpoint",
    )


def test_a_minute_with_fifty_megabytes(benchmark: Any, report: pairs.Report) -> None:
    """A fit of a minute, its checkpoints every ten seconds; `fit` before and after."""
    x, y = scaled_digits()
    start = phihat.models.init_multilayer_perceptron(jax.random.key(0), MINUTE_SIZES)
    call = (PERCEPTRON, start, phihat.adam(1e-3), (jnp.asarray(x), jnp.asarray(y)))
    settings: dict[str, Any] = {"batch_size": BATCH, "key": jax.random.key(1)}

    def fit(num_steps: int) -> Any:
        return phihat.fit(*call, num_steps=num_steps, **settings)

    def ours(num_steps: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            every = datetime.timedelta(seconds=10)
            return phihat.train(
                *call,
                num_steps=num_steps,
                progress=True,
                log_to=f"{folder}/log.jsonl",
                checkpoint=phihat.Checkpoints(f"{folder}/run", every=every),
                **settings,
            )

    begin = time.perf_counter()
    jax.block_until_ready(fit(100))
    first = time.perf_counter() - begin
    num_steps = int(1 + 100 * 8 / pairs.timed(lambda: fit(100)))  # eight seconds
    for warm_up in (fit, ours):
        jax.block_until_ready(warm_up(num_steps))
    state = [leaf.nbytes for leaf in jax.tree.leaves(fit(100).state.opt_state)]
    before = [pairs.timed(lambda: fit(num_steps)) for _ in range(4)]
    times: list[float] = []
    benchmark.pedantic(
        lambda: times.append(pairs.timed(lambda: ours(8 * num_steps))), rounds=1
    )
    after = [pairs.timed(lambda: fit(num_steps)) for _ in range(4)]
    ratios = sorted([times[0] / (2 * sum(part)) for part in (before, after)])
    report.add(
        "(d) a fit of a minute: progress, a log, a checkpoint every 10 s",
        {
            "ours": {"run_seconds": times[0]},
            "fit": {
                "run_seconds": sum(before) + sum(after),
                "compile_seconds": first,
                "ratio": times[0] / (sum(before) + sum(after)),
                "quartiles": ratios,
            },
        },
        bound="must be <= 1.05 of fit",
        megabytes_of_params_and_moments=round(sum(state) * 1.5 / 1e6, 1),
        num_steps=8 * num_steps,
        note="fit is timed in eight parts, four before train and four after; the "
        "quartiles are the ratios to each half alone",
    )


def scaled_digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(part) for part in phihat.datasets.digits())
    return (x / 16).astype(np.float32), y


def digits() -> list[Any]:
    """Return the batches of some epochs, in memory: reading costs next to nothing."""
    x, y = scaled_digits()
    rng = np.random.default_rng(0)
    rows = [rng.permutation(len(x))[: len(x) // BATCH * BATCH] for _ in range(80)]
    order = np.concatenate(rows).reshape(-1, BATCH)[:NUM_BATCHES]
    return [(x[batch], y[batch]) for batch in order]


def test_a_stream(benchmark: Any, report: pairs.Report) -> None:
    batches = digits()
    start = phihat.models.init_multilayer_perceptron(jax.random.key(0), SIZES)
    theirs = optax.adam(1e-3)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss, grad = jax.value_and_grad(PERCEPTRON)(params, batch)
        updates, state = theirs.update(grad, state, params)
        return optax.apply_updates(params, updates), state, loss

    def by_hand() -> Any:
        params, state, losses = start, theirs.init(start), []
        for batch in batches:
            params, state, loss = step(params, state, batch)
            losses.append(loss)
        return params, np.asarray(jax.device_get(losses))

    def ours() -> Any:
        return phihat.train(
            PERCEPTRON, start, phihat.adam(1e-3), iter(batches), num_epochs=1
        )

    x, y = (np.stack(part) for part in zip(*batches, strict=True))
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1)
    whole = jnp.asarray(x), jnp.asarray(y)
    sampler = phihat.minibatches(BATCH, shuffle=False)

    result = pairs.measure(
        benchmark,
        ours,
        {
            "jitted step in a loop by hand": by_hand,
            "fit on the same batches in memory": lambda: phihat.fit(
                PERCEPTRON,
                start,
                phihat.adam(1e-3),
                whole,
                sampler=sampler,
                num_epochs=1,
            ),
        },
        rounds=9,
    )
    report.add(
        f"(b) a stream of {NUM_BATCHES:,} digits batches of {BATCH}, a perceptron",
        result,
        bound="must be <= 1.05 of the loop by hand",
        note="beside fit: what reading, stacking and sending cost where they are seen",
    )


def test_a_long_stream_and_the_same_from_memory(
    benchmark: Any, report: pairs.Report
) -> None:
    batches = digits() * 8
    start = phihat.models.init_multilayer_perceptron(jax.random.key(0), SIZES)
    x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
    whole = jnp.asarray(x), jnp.asarray(y)
    call = (PERCEPTRON, start, phihat.adam(1e-3))
    rows = {"sampler": phihat.minibatches(BATCH, shuffle=False), "num_epochs": 1}
    result = pairs.measure(
        benchmark,
        lambda: phihat.train(*call, iter(batches), num_epochs=1),
        {
            "train, from memory": lambda: phihat.train(*call, whole, **rows),
            "fit, from memory": lambda: phihat.fit(*call, whole, **rows),
        },
        rounds=9,
    )
    report.add(
        f"(e) a stream of {len(batches):,} digits batches of {BATCH}, a perceptron",
        result,
        bound="must be <= 1.1 of the same from memory",
    )


def test_the_stream_does_not_stall_the_step(
    benchmark: Any, report: pairs.Report
) -> None:
    """Reading takes as long as half the steps: behind them it should not be seen."""
    batches = digits()[:2000]
    start = phihat.models.init_multilayer_perceptron(
        jax.random.key(0), [64, 1024, 1024, 10]
    )

    def train(data: Any) -> Any:
        return phihat.train(PERCEPTRON, start, phihat.adam(1e-3), data, num_epochs=1)

    few = batches[:200]
    train(iter(few))
    seconds = pairs.timed(lambda: train(iter(few))) / len(few)

    def slow() -> Iterator[Any]:
        for batch in few:
            time.sleep(seconds / 2)  # as a disk would, without the processor
            yield batch

    result = pairs.measure(
        benchmark,
        lambda: train(slow()),
        {"the same from memory": lambda: train(iter(few))},
        rounds=5,
    )
    report.add(
        "(c) a stream whose reading takes half as long as its steps",
        result,
        milliseconds_of_a_step=round(1000 * seconds, 2),
        bound="hidden: 1; one after the other: 1.5",
    )
