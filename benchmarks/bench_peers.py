"""The same fits in phihat and in its peers: time, and the loss that each reaches.

Run from the root by `python -m pytest benchmarks/bench_peers.py -s -n 0`, or by
`python -m benchmarks peers`; the results go to `docs/benchmarks`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest
import scipy.optimize

import phihat
from benchmarks import pairs
from phihat import datasets, losses, models

NUM_STEPS = 1000


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("peers")
    yield report
    report.write()


def compare(
    case: str,
    benchmark: Any,
    report: pairs.Report,
    loss_fn: Callable[[Any], Any],
    ways: dict[str, Callable[[], Any]],
    **notes: Any,
) -> None:
    """Time every way; keep the loss at the params that each returns.

    A peer that is not installed, or fails on this jax, is left out and told.
    """
    reached, first, failed = {}, {}, {}
    for name, run in list(ways.items()):
        begin = time.perf_counter()
        try:
            found = jnp.asarray(np.asarray(run()))
            first[name] = time.perf_counter() - begin
            reached[name] = float(loss_fn(found))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            del ways[name]
    ours = ways.pop("ours")
    result = pairs.measure(benchmark, ours, ways, rounds=5)
    for name, loss in reached.items():
        seconds = first[name] - result[name]["run_seconds"]
        result[name] |= {"compile_seconds": max(seconds, 0.0), "loss": loss}
    report.add(case, result, **({"failed": failed} if failed else {}), **notes)


# ----------------------------------------------------------------- logistic regression


def logistic() -> tuple[Any, Any]:
    x, y = datasets.breast_cancer()
    data = (datasets.standardize(x), y)
    model = lambda params, x: x @ params[:-1] + params[-1]  # noqa: E731
    plain = losses.with_l2(losses.binary_cross_entropy(model), 0.5)
    return (lambda params: plain(params, data)), jnp.zeros(x.shape[1] + 1)


def test_logistic_regression(benchmark: Any, report: pairs.Report) -> None:
    """Each to convergence in its own way, tolerance 1e-3 on the gradient's norm."""
    loss_fn, start = logistic()
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn))

    def ours() -> Any:
        return phihat.fit(
            loss_fn, start, phihat.newton(), num_steps=50, tolerance=1e-3, record=()
        ).params

    def ours_lbfgs() -> Any:
        return phihat.fit(
            loss_fn, start, LBFGS, num_steps=200, tolerance=1e-3, record=()
        ).params

    bfgs = optimistix.BFGS(rtol=1e-5, atol=1e-5)

    @jax.jit
    def in_optimistix(start: Any) -> Any:
        return optimistix.minimise(
            lambda params, _: loss_fn(params), bfgs, start, max_steps=500, throw=False
        ).value

    @jax.jit
    def in_jaxopt(start: Any) -> Any:
        import jaxopt

        return jaxopt.LBFGS(loss_fn, maxiter=200, tol=1e-3).run(start).params

    def in_scipy() -> Any:
        return scipy.optimize.minimize(
            lambda p: tuple(np.asarray(v, float) for v in value_and_grad(p)),
            np.asarray(start, float),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": 1e-3},
        ).x

    def in_torch() -> Any:
        import torch

        x, y = datasets.breast_cancer()
        x = torch.tensor(np.asarray(datasets.standardize(x)))
        y = torch.tensor(np.asarray(y)).to(x.dtype)
        point = torch.zeros(x.shape[1] + 1, dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [point], max_iter=200, tolerance_grad=1e-3, line_search_fn="strong_wolfe"
        )
        entropy = torch.nn.BCEWithLogitsLoss(reduction="sum")

        def closure() -> Any:
            optimizer.zero_grad()
            loss = entropy(x @ point[:-1] + point[-1], y) + 0.5 * (point @ point)
            loss.backward()
            return loss

        optimizer.step(closure)
        return point.detach().numpy()

    ways = {
        "ours": ours,
        "phihat, optax.lbfgs in fit": ours_lbfgs,
        "optimistix BFGS": lambda: in_optimistix(start),
        "jaxopt LBFGS": lambda: in_jaxopt(start),
        "SciPy L-BFGS-B, jitted gradient": in_scipy,
        "PyTorch LBFGS": in_torch,
    }
    compare(
        "logistic regression, 569 x 30, L2, to convergence",
        benchmark,
        report,
        loss_fn,
        ways,
        ours="newton",
    )


LBFGS = optax.lbfgs()
"""One object: an optimizer of optax is its own code, and compiles once."""


# ----------------------------------------------------------------------- a curve fit


def test_curve(benchmark: Any, report: pairs.Report) -> None:
    x, y = datasets.gabor()
    model, start = models.gabor, jnp.array([0.5, 15.0])
    plain = losses.least_squares(model)
    data = (jnp.asarray(x), jnp.asarray(y))
    residual_fn = lambda params, _=None: model(params, data[0]) - data[1]  # noqa: E731
    residuals, jacobian = jax.jit(residual_fn), jax.jit(jax.jacfwd(residual_fn))
    optimizer = phihat.levenberg_marquardt()

    def ours() -> Any:
        return phihat.fit(
            plain, start, optimizer, data, num_steps=50, tolerance=1e-4, record=()
        ).params

    @jax.jit
    def in_optimistix(start: Any) -> Any:
        return optimistix.least_squares(
            residual_fn,
            optimistix.LevenbergMarquardt(rtol=1e-5, atol=1e-5),
            start,
            max_steps=200,
            throw=False,
        ).value

    @jax.jit
    def in_jaxopt(start: Any) -> Any:
        import jaxopt

        solver = jaxopt.LevenbergMarquardt(lambda params: residual_fn(params), tol=1e-5)
        return solver.run(start).params

    def in_scipy() -> Any:
        return scipy.optimize.least_squares(
            lambda p: np.asarray(residuals(p), float),
            np.asarray(start, float),
            jac=lambda p: np.asarray(jacobian(p), float),
            method="lm",
        ).x

    compare(
        "Gabor curve, 30 points, Levenberg-Marquardt",
        benchmark,
        report,
        lambda params: plain(params, data),
        {
            "ours": ours,
            "optimistix LM": lambda: in_optimistix(start),
            "jaxopt LM": lambda: in_jaxopt(start),
            "SciPy least_squares, lm, jitted": in_scipy,
        },
    )


# ---------------------------------------------------------------------- Adam by steps


def test_adam(benchmark: Any, report: pairs.Report) -> None:
    x, y = datasets.gabor()
    data = (jnp.asarray(x), jnp.asarray(y))
    plain, start = losses.least_squares(models.gabor), jnp.array([0.5, 15.0])
    theirs = optax.adam(0.05)

    @jax.jit
    def by_hand(params: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            loss, grad = jax.value_and_grad(plain)(params, data)
            updates, state = theirs.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), loss

        carry = (params, theirs.init(params))
        return jax.lax.scan(step, carry, None, NUM_STEPS)[0][0]

    def ours() -> Any:
        optimizer = phihat.adam(0.05)
        return phihat.fit(plain, start, optimizer, data, num_steps=NUM_STEPS).params

    @jax.jit
    def in_jaxopt(start: Any) -> Any:
        import jaxopt

        loss_fn = lambda params: plain(params, data)  # noqa: E731
        solver = jaxopt.OptaxSolver(loss_fn, theirs, maxiter=NUM_STEPS, tol=0.0)
        return solver.run(start).params

    def in_torch() -> Any:
        import torch

        features, labels = (torch.tensor(np.asarray(leaf)) for leaf in data)
        point = torch.tensor(np.asarray(start), requires_grad=True)
        optimizer = torch.optim.Adam([point], lr=0.05)
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            u = point[0] + 0.06 * point[1] * features
            wave = torch.sin(u) * torch.exp(-(u**2) / 8.0)
            ((wave - labels) ** 2).sum().backward()
            optimizer.step()
        return point.detach().numpy()

    compare(
        f"Gabor, {NUM_STEPS:,} Adam steps",
        benchmark,
        report,
        lambda params: plain(params, data),
        {
            "ours": ours,
            "optax by hand, jitted scan": lambda: by_hand(start),
            "jaxopt OptaxSolver": lambda: in_jaxopt(start),
            "PyTorch": in_torch,
        },
    )


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-q", "-s", "-n", "0"]))
