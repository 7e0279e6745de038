"""What curvature and second-order fits cost, beside the same work in peers.

Run from the root by `python -m pytest benchmarks/bench_curvature.py -s -n 0`; the
results go to `docs/benchmarks`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from matfree import decomp

import phihat
from benchmarks import pairs
from phihat import curvature, losses, models

NUM_STEPS = 40


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("curvature")
    yield report
    report.write()


def perceptron() -> tuple[Any, Any, Any]:
    """Return a loss, params (about 200,000) and data."""
    sizes = (64, 384, 384, 45, 10)
    params = models.init_multilayer_perceptron(jax.random.key(0), sizes)
    x_key, y_key = jax.random.split(jax.random.key(1))
    x = jax.random.normal(x_key, (256, 64))
    y = jax.random.randint(y_key, (256,), 0, 10)
    model = Partial(models.multilayer_perceptron, activation=Partial(jnp.tanh))
    return losses.multiclass_cross_entropy(model), params, (x, y)


def test_hessian_vector_product(benchmark: Any, report: pairs.Report) -> None:
    loss_fn, params, data = perceptron()
    product = jax.jit(lambda params, v: phihat.hvp(loss_fn, params, v, data))
    gradient = jax.jit(lambda params: jax.grad(loss_fn)(params, data))
    result = pairs.measure(
        benchmark,
        lambda: product(params, params),
        {"one gradient": lambda: gradient(params)},
        rounds=25,
    )
    size = ravel_pytree(params)[0].size
    report.add(f"hvp, perceptron of {size} params", result, bound="must be <= 3")


def test_lanczos(benchmark: Any, report: pairs.Report) -> None:
    loss_fn, params, data = perceptron()
    flat, unravel = ravel_pytree(params)
    start = jax.random.normal(jax.random.key(2), flat.shape)
    flat_loss = lambda flat: loss_fn(unravel(flat), data)  # noqa: E731

    @jax.jit
    def ours(params: Any) -> Any:
        return curvature.extreme_eigenvalues(
            loss_fn, params, data, num_iterations=NUM_STEPS
        )

    tridiag = decomp.tridiag_sym(NUM_STEPS, reortho="full")

    @jax.jit
    def by_hand(flat: Any) -> Any:
        matvec = lambda v: jax.jvp(jax.grad(flat_loss), (flat,), (v,))[1]  # noqa: E731
        return jnp.linalg.eigvalsh(tridiag(matvec, start).J_small)

    result = pairs.measure(
        benchmark,
        lambda: ours(params),
        {"matfree by hand": lambda: by_hand(flat)},
        rounds=5,
    )
    report.add(f"{NUM_STEPS} Lanczos steps, {flat.size} params", result)


def test_newton_on_gabor(benchmark: Any, report: pairs.Report) -> None:
    model = Partial(models.gabor, envelope_width=4.0)
    loss_fn = losses.least_squares(model)
    x, y = phihat.datasets.gabor()
    start = jnp.asarray([1.0, 17.0])

    def ours() -> Any:
        return phihat.fit(
            loss_fn, start, phihat.newton(), (x, y), num_steps=60, tolerance=1e-3
        )

    residuals = lambda params, _: model(params, x) - y  # noqa: E731
    objective = lambda params, _: loss_fn(params, (x, y))  # noqa: E731
    bfgs = optimistix.BFGS(rtol=1e-6, atol=1e-6)
    marquardt = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    curve = lambda x, a, b: np.asarray(model(jnp.asarray([a, b]), jnp.asarray(x)))  # noqa: E731
    peers = {
        "optimistix BFGS": jax.jit(
            lambda: optimistix.minimise(objective, bfgs, start, throw=False).value
        ),
        "optimistix LM": jax.jit(
            lambda: (
                optimistix.least_squares(residuals, marquardt, start, throw=False).value
            )
        ),
        "scipy curve_fit": lambda: scipy.optimize.curve_fit(
            curve, np.asarray(x), np.asarray(y), p0=np.asarray(start)
        )[0],
    }
    result = pairs.measure(benchmark, ours, peers)
    reached = {"ours": float(ours().loss)} | {
        name: float(loss_fn(jnp.asarray(run()), (x, y))) for name, run in peers.items()
    }
    report.add("newton on Gabor", result, losses=reached)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
