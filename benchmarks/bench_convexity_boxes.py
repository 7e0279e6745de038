"""Boxes per second of the convexity certifier, beside interval-free Hessians by jax.

What certifies must round outward and bound every part; the peer only evaluates the
Hessian at as many points, compiled, and proves nothing: the ratio is what proof costs.

Run from the root by `python -m pytest benchmarks/bench_convexity_boxes.py -s -n 0`; the
results go to `docs/benchmarks`.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import pairs
from phihat import Box, datasets, losses, models
from phihat.convexity.box.curvatures import curvature_floor
from phihat.convexity.box.search import Curvature, cover
from phihat.convexity.program.problem import pose

NUM_BOXES = 64


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("convexity_boxes")
    yield report
    report.write()


def gabor() -> tuple[Any, Any, Any]:
    """Return the loss, its global minimum and the data."""
    model = functools.partial(models.gabor, envelope_width=4.0)
    centre = np.array([0.0037946356109375586, 16.026347827141723])
    return losses.least_squares(model), centre, datasets.gabor()


def sigmoid() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    x, centre = rng.normal(size=(30, 2)), np.array([1.0, -0.5])
    y = np.asarray(jax.nn.sigmoid(jnp.asarray(x @ centre)))
    loss_fn = lambda w, data: jnp.sum((jax.nn.sigmoid(data[0] @ w) - data[1]) ** 2)  # noqa: E731
    return loss_fn, centre, (x, y)


def logistic() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1000, 20)), np.sign(rng.normal(size=1000))
    loss_fn = lambda w, data: jnp.mean(jax.nn.softplus(-data[1] * (data[0] @ w)))  # noqa: E731
    return loss_fn, np.zeros(20), (x, y)


def rosenbrock() -> tuple[Any, Any, Any]:
    loss_fn = lambda w, _: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2  # noqa: E731
    return loss_fn, np.ones(2), (np.zeros(1),)


@pytest.mark.parametrize("problem", [gabor, sigmoid, logistic, rosenbrock])
def test_boxes_per_second(problem: Any, benchmark: Any, report: pairs.Report) -> None:
    loss_fn, centre, data = problem()
    begin = time.perf_counter()
    curvature = Curvature(pose("benchmark", loss_fn, centre, data))
    outline = time.perf_counter() - begin
    middles = centre + 0.1 * np.random.default_rng(0).normal(
        size=(NUM_BOXES, centre.size)
    )
    one = jax.jit(
        jax.vmap(lambda p: jnp.linalg.eigvalsh(jax.hessian(loss_fn)(p, data))[0])
    )
    points = jnp.asarray(middles)
    result = pairs.measure(
        benchmark,
        lambda: curvature.bounds(middles - 0.01, middles + 0.01)[0],
        {"jax.hessian at the centres": lambda: one(points)},
        rounds=5,
    )
    rate = NUM_BOXES / result["ours"]["run_seconds"]
    report.add(
        f"{problem.__name__}: {NUM_BOXES} boxes in R^{centre.size}",
        result,
        boxes_per_second=round(rate, 1),
        seconds_to_read_the_program=round(outline, 4),
    )


def test_certify_gabor(benchmark: Any, report: pairs.Report) -> None:
    loss_fn, centre, data = gabor()
    curvature = Curvature(pose("benchmark", loss_fn, centre, data))
    reach = 0.36 * np.array([1.0, 5.0])
    low, high = centre - reach, centre + reach
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), -1).reshape(-1, 2)
    points = jnp.asarray(centre + grid * reach)
    one = jax.jit(
        jax.vmap(lambda p: jnp.linalg.eigvalsh(jax.hessian(loss_fn)(p, data))[0])
    )
    outcome = cover(curvature, low, high, time.monotonic() + 60.0)
    result = pairs.measure(
        benchmark,
        lambda: cover(curvature, low, high, time.monotonic() + 60.0).mu,
        {"jax.hessian on a grid of 41 x 41": lambda: one(points)},
        rounds=5,
    )
    mu, L = curvature_floor(
        loss_fn, Box(centre - reach / 3.6, centre + reach / 3.6), data, budget=5.0
    )
    report.add(
        "gabor certified convex, minimum +- 0.36 by +- 1.8",
        result,
        is_certified=outcome.is_certified,
        boxes=outcome.num_boxes,
        floor_at_a_radius_of_0_1=(round(mu, 4), round(L, 4)),
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
