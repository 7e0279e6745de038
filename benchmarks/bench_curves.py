"""What a curve fit costs: alone and by the thousand, beside peers and a fit by hand.

Run from the root by `python -m pytest benchmarks/bench_curves.py -s -n 0`; the results
go to `docs/benchmarks`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optimistix
import pytest
import scipy.optimize

import phihat
from benchmarks import pairs
from benchmarks.pairs import Peer

X = np.linspace(0.0, 4.0, 40)
START = np.asarray([1.0, 1.0, 0.0])
NUM_LANES = 2000


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    jax.config.update("jax_enable_x64", True)
    report = pairs.Report("curves")
    yield report
    report.write()


def decay(params: Any, x: Any) -> Any:
    return params[0] * jnp.exp(-params[1] * x) + params[2]


LOSS = phihat.losses.least_squares(decay)


def many() -> np.ndarray:
    """Return noisy decays, [NUM_LANES, 40]."""
    rng = np.random.default_rng(0)
    low, high = [1.0, 0.5, 0.0], [5.0, 2.0, 1.0]
    params = rng.uniform(low, high, (NUM_LANES, 3))
    clean = params[:, :1] * np.exp(-params[:, 1:2] * np.asarray(X)) + params[:, 2:]
    return clean + 0.05 * rng.normal(size=clean.shape)


def ours(y: Any, optimizer: Any, **options: Any) -> Any:
    result = phihat.fit(
        LOSS, START, optimizer, (X, y), num_steps=200, record=(), **options
    )
    return result.params


def in_optimistix(solver: Any, y: Any) -> Any:
    residual_fn = lambda params, y: decay(params, X) - y  # noqa: E731
    return optimistix.least_squares(
        residual_fn, solver, jnp.asarray(START), args=y, max_steps=200, throw=False
    ).value


def in_jaxopt(y: Any) -> Any:
    solver = jaxopt.LevenbergMarquardt(
        lambda params, y: decay(params, X) - y, maxiter=200, tol=1e-10
    )
    return solver.run(jnp.asarray(START), y).params


def by_bfgs(y: Any) -> Any:
    return optimistix.minimise(
        lambda params, y: jnp.sum((decay(params, X) - y) ** 2),
        optimistix.BFGS(rtol=1e-10, atol=1e-10),
        jnp.asarray(START),
        args=y,
        max_steps=200,
        throw=False,
    ).value


def in_scipy(y: Any) -> Any:
    model = lambda x, a, k, c: a * np.exp(-k * x) + c  # noqa: E731
    return scipy.optimize.curve_fit(model, np.asarray(X), y, p0=np.asarray(START))[0]


def by_hand(y: Any) -> Any:
    """Return the fit as one writes it for these three params: 20 steps, no test."""

    def residuals(params: Any) -> Any:
        return decay(params, X) - y

    def step(carry: Any, _: None) -> Any:
        params, damping, loss = carry
        r, push = jax.linearize(residuals, params)
        rows = [push(unit) for unit in jnp.eye(3, dtype=params.dtype)]
        a = [[jnp.sum(one * other) for other in rows] for one in rows]
        g = [jnp.sum(row * r) for row in rows]
        for i in range(3):
            a[i][i] = a[i][i] * (1 + damping)
        first = jnp.sqrt(a[0][0])
        below = [a[1][0] / first, a[2][0] / first]
        second = jnp.sqrt(a[1][1] - below[0] ** 2)
        last = (a[2][1] - below[1] * below[0]) / second
        third = jnp.sqrt(a[2][2] - below[1] ** 2 - last**2)
        z = [g[0] / first]
        z.append((g[1] - below[0] * z[0]) / second)
        z.append((g[2] - below[1] * z[0] - last * z[1]) / third)
        q2 = z[2] / third
        q1 = (z[1] - last * q2) / second
        q0 = (z[0] - below[0] * q1 - below[1] * q2) / first
        trial = params - jnp.stack([q0, q1, q2])
        after = jnp.sum(residuals(trial) ** 2)
        falls = after < loss
        carry = (
            jnp.where(falls, trial, params),
            jnp.where(falls, 0.1, 10.0) * damping,
            jnp.where(falls, after, loss),
        )
        return carry, None

    start = (jnp.asarray(START), jnp.asarray(1e-3), jnp.sum(residuals(START) ** 2))
    return jax.lax.scan(step, start, None, length=20)[0][0]


PEERS = {
    "optimistix LM": optimistix.LevenbergMarquardt(rtol=1e-10, atol=1e-10),
    "optimistix Dogleg": optimistix.Dogleg(rtol=1e-10, atol=1e-10),
}


def test_single_fit(benchmark: Any, report: pairs.Report) -> None:
    y = jnp.asarray(many()[0])
    fit = jax.jit(lambda y: ours(y, phihat.levenberg_marquardt()))
    peers: dict[str, Any] = {}
    for name, solver in PEERS.items():
        run = jax.jit(lambda y, solver=solver: in_optimistix(solver, y))
        peers[name] = lambda run=run: run(y)
    jaxopt_run = jax.jit(in_jaxopt)
    peers["jaxopt LM"] = lambda: jaxopt_run(y)
    peers["SciPy curve_fit"] = lambda: in_scipy(np.asarray(y))
    result = pairs.measure(benchmark, lambda: fit(y), peers, rounds=99)
    report.add(
        "one fit of 3 params",
        result,
        bound="must be <= 1.0 of Dogleg; compiling <= 1.2 of Dogleg, 2.0 of LM",
    )


def test_single_fit_by_newton(benchmark: Any, report: pairs.Report) -> None:
    y = jnp.asarray(many()[0])
    fit = jax.jit(lambda y: ours(y, phihat.newton()))
    bfgs = jax.jit(by_bfgs)
    result = pairs.measure(
        benchmark, lambda: fit(y), {"optimistix BFGS": lambda: bfgs(y)}, rounds=99
    )
    for run in (fit, bfgs):
        np.testing.assert_allclose(run(y), in_scipy(y), rtol=1e-4)
    report.add(
        "one fit of 3 params by newton", result, bound="compiling <= 2.5 of BFGS"
    )


def test_mapped_fits(benchmark: Any, report: pairs.Report) -> None:
    ys = many()
    lanes = jnp.asarray(ys)
    fit = jax.jit(jax.vmap(lambda y: ours(y, phihat.levenberg_marquardt())))
    hand = jax.jit(jax.vmap(by_hand))
    mapped = jax.jit(jax.vmap(lambda y: in_optimistix(PEERS["optimistix LM"], y)))
    some = 100
    peers = {
        "by hand, 20 steps": lambda: hand(lanes),
        "optimistix LM": lambda: mapped(lanes),
        "SciPy curve_fit": Peer(
            lambda: [in_scipy(y) for y in ys[:some]], some / NUM_LANES
        ),
    }
    result = pairs.measure(benchmark, lambda: fit(lanes), peers)
    np.testing.assert_allclose(fit(lanes)[:5], [in_scipy(y) for y in ys[:5]], rtol=1e-4)
    report.add(
        f"{NUM_LANES:,} mapped fits of 3 params",
        result,
        bound="must be <= 2.0 of the fit by hand, <= 0.05 of SciPy's loop",
    )


def test_mapped_fits_in_a_box(benchmark: Any, report: pairs.Report) -> None:
    lanes = jnp.asarray(many())
    box = phihat.Box(jnp.asarray([0.0, 0.9, 0.0]), jnp.asarray([10.0, 10.0, 10.0]))
    make = phihat.levenberg_marquardt
    bounded = jax.jit(jax.vmap(lambda y: ours(y, make(), projection=box)))
    free = jax.jit(jax.vmap(lambda y: ours(y, make())))
    report.add(
        f"{NUM_LANES:,} mapped fits in a box that binds in many",
        pairs.measure(
            benchmark, lambda: bounded(lanes), {"without it": lambda: free(lanes)}
        ),
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
