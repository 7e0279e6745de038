"""What fits cost on a GPU, beside the same work by hand and in a Pallas kernel.

Run from the root by `python -m benchmarks.bench_gpu` on a machine with an NVIDIA GPU;
without one every case is skipped. The results go to `docs/benchmarks/gpu.json`.

The Pallas kernel keeps a block of fits in registers for all of their steps. It is
written for one model, one data set and one optimizer: the measure of what an automatic
way of that kind could gain at best over the scan that XLA compiles.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phihat
from benchmarks import bench_fitting, bench_sweeps, pairs
from benchmarks.bench_sweeps import NUM_STEPS, X, Y

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="these cases need a GPU"
)

DECAYS = (0.9, 0.999)


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("gpu")
    yield report
    report.write()


# ------------------------------------------------------------- a million Gabor fits


def loss_of_lanes(a: Any, b: Any) -> Any:
    """The Gabor loss [lanes] of params `a`, `b` [lanes], the points in front."""
    u = a + 0.06 * b * X[:, None]
    return jnp.sum((jnp.sin(u) * jnp.exp(-(u**2) / 8) - Y[:, None]) ** 2, axis=0)


def grad_of_lanes(a: Any, b: Any) -> Any:
    return jax.grad(lambda a, b: jnp.sum(loss_of_lanes(a, b)), argnums=(0, 1))(a, b)


def grad_in_kernel(a: Any, b: Any) -> Any:
    """The same, written out point by point: a kernel holds scalars only."""
    slope_a = slope_b = jnp.zeros_like(a)
    for x, y in zip(np.asarray(X), np.asarray(Y), strict=True):
        weight = float(np.float32(0.06) * x)
        u = a + weight * b
        bell, sine = jnp.exp(u * u * -0.125), jnp.sin(u)
        slope = 2 * (sine * bell - float(y)) * bell * (jnp.cos(u) - 0.25 * u * sine)
        slope_a, slope_b = slope_a + slope, slope_b + weight * slope
    return slope_a, slope_b


def adam_on_lanes(grad_fn: Any, a: Any, b: Any, rate: Any) -> Any:
    """Adam on all lanes at once, no guard; returns the last params."""
    zero = jnp.zeros_like(a)
    one = zero + 1.0
    b1, b2 = DECAYS

    def step(_: Any, carry: Any) -> Any:
        params, means, squares, left1, left2 = carry
        grads = grad_fn(*params)
        left1, left2 = left1 * b1, left2 * b2
        means = [b1 * m + (1 - b1) * g for m, g in zip(means, grads, strict=True)]
        squares = [
            b2 * v + (1 - b2) * g * g for v, g in zip(squares, grads, strict=True)
        ]
        scale = 1 / (1 - left2)
        moved = [
            p - rate / (1 - left1) * m / (jnp.sqrt(v * scale) + 1e-8)
            for p, m, v in zip(params, means, squares, strict=True)
        ]
        return moved, means, squares, left1, left2

    start = ([a, b], [zero, zero], [zero, zero], one, one)
    return jax.lax.fori_loop(0, NUM_STEPS, step, start)[0]


@jax.jit
def lanes_last(starts: Any, rates: Any) -> Any:
    return loss_of_lanes(*adam_on_lanes(grad_of_lanes, *starts.T, rates))


def pallas_fits(starts: Any, rates: Any, block: int = 128) -> Any:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    def kernel(a_ref: Any, b_ref: Any, rate_ref: Any, *out_refs: Any) -> None:
        ends = adam_on_lanes(grad_in_kernel, a_ref[...], b_ref[...], rate_ref[...])
        for ref, end in zip(out_refs, ends, strict=True):
            ref[...] = end

    number = len(rates)
    inputs = [jnp.pad(v, (0, -number % block)) for v in (*starts.T, rates)]
    one = pallas.BlockSpec((block,), lambda k: (k,))
    ends = pallas.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(inputs[0].shape, jnp.float32)] * 2,
        grid=(len(inputs[0]) // block,),
        in_specs=[one] * 3,
        out_specs=[one] * 2,
        compiler_params=triton.CompilerParams(num_warps=4),
    )(*inputs)
    return loss_of_lanes(*(end[:number] for end in ends))


def test_a_million_gabor_fits(benchmark: Any, report: pairs.Report) -> None:
    starts, rates = bench_sweeps.draw_gabor(1_000_000)
    on_device = jnp.asarray(starts), jnp.asarray(rates)
    by_hand = functools.partial(
        bench_sweeps.by_hand, bench_sweeps.gabor_by_hand, NUM_STEPS
    )
    ways = {
        "jit(vmap(scan)) by hand": jax.jit(jax.vmap(by_hand)),
        "lanes last by hand": lanes_last,
        "Pallas kernel by hand": jax.jit(pallas_fits),
    }

    def sweep() -> Any:
        axes = {("start", "rate"): (starts, rates)}
        return phihat.sweep(bench_sweeps.fit_gabor, axes).values

    result = pairs.measure(
        benchmark,
        sweep,
        {name: functools.partial(run, *on_device) for name, run in ways.items()},
    )
    losses, status = sweep()
    # Some lanes are chaotic, and end elsewhere after a change in the last bit.
    shares = {
        name: float(np.mean(np.abs(losses - np.asarray(run(*on_device))) < 1e-2))
        for name, run in ways.items()
    }
    assert min(shares.values()) > 0.99
    assert np.all(status == phihat.Status.COMPLETED)
    report.add(
        f"1,000,000 Gabor fits x {NUM_STEPS} Adam steps",
        result,
        share_of_equal_losses=shares,
        note="ours guards every step, and brings losses and statuses to the host; the "
        "others do neither",
    )


# ------------------------------------------------------------- other sweeps and fits


def test_perceptrons(benchmark: Any, report: pairs.Report) -> None:
    number = 20_000
    init = functools.partial(phihat.models.init_multilayer_perceptron, sizes=(4, 8, 1))
    starts = jax.vmap(init)(jax.random.split(jax.random.key(1), number))
    rates = jnp.geomspace(1e-3, 0.1, number)
    by_hand = functools.partial(
        bench_sweeps.by_hand, bench_sweeps.perceptron_by_hand, NUM_STEPS
    )
    hand = jax.jit(jax.vmap(by_hand))
    axes = {("start", "rate"): (starts, rates)}
    result = pairs.measure(
        benchmark,
        lambda: phihat.sweep(bench_sweeps.fit_perceptron, axes).values,
        {"jit(vmap(scan)) by hand": lambda: hand(starts, rates)},
    )
    report.add("20,000 fits of a 4-8-1 perceptron x 200 Adam steps", result)


@pytest.mark.parametrize("problem", bench_fitting.PROBLEMS)
@pytest.mark.parametrize("method", bench_fitting.OPTIMIZERS)
def test_one_long_fit(
    benchmark: Any, report: pairs.Report, problem: str, method: str
) -> None:
    loss_fn, start, data = bench_fitting.PROBLEMS[problem]
    ours, theirs = (make(1e-3) for make in bench_fitting.OPTIMIZERS[method])
    num_steps = 2_000
    scan = jax.jit(bench_fitting.by_hand(loss_fn, theirs, num_steps))
    result = pairs.measure(
        benchmark,
        lambda: phihat.fit(loss_fn, start, ours, data, num_steps=num_steps),
        {"jitted scan, no guard": lambda: scan(start, data)},
    )
    report.add(f"{num_steps:,} steps, {problem}, {method}", result)


def test_large_update(benchmark: Any, report: pairs.Report) -> None:
    size = 256_000_000
    result = pairs.measure(
        benchmark,
        bench_fitting.updates(phihat.adam(1e-3), size),
        {"optax.adam": bench_fitting.updates(optax.adam(1e-3), size)},
    )
    report.add("Adam's update on 256 million float32 params", result)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
