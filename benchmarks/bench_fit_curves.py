"""What thousands of curves cost, beside a loop over SciPy.

Run from the root by `python -m pytest benchmarks/bench_fit_curves.py -s -n 0`; the
results go to `docs/benchmarks`. SciPy fits a sample; its time is scaled up.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from benchmarks import pairs
from phihat import fit_curves

SAMPLE = 50


@pytest.fixture(scope="module")
def report() -> Iterator[pairs.Report]:
    report = pairs.Report("fit_curves")
    yield report
    report.write()


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of curve.

    Attributes:
      model: `(params, x) -> y`, with params [P].
      plain: the same for SciPy, in NumPy.
      x: of all curves.
      y: a row for each.
      start: of each, [N, P].
      goal: how many times faster than SciPy's loop it must be.
    """

    model: Callable[..., Any]
    plain: Callable[..., Any]
    x: Any
    y: np.ndarray
    start: np.ndarray
    goal: int


def decays() -> Case:
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 10.0, 40)
    truth = rng.uniform([1.0, 1.0, 0.2], [3.0, 4.0, 0.4], [20_000, 3])

    def curve(xp: Any, p: Any, x: Any) -> Any:
        return p[0] * xp.exp(-x / p[1]) + p[2]

    return _case(curve, x, truth, [1.0, 2.0, 0.0], 0.05, 20, rng)


def double_gaussians() -> Case:
    rng = np.random.default_rng(1)
    x = np.linspace(-6.0, 6.0, 100)
    low = [1.0, -3.0, 0.7, 1.0, 1.5, 0.7, 0.0]
    high = [3.0, -1.5, 1.3, 3.0, 3.0, 1.3, 0.5]
    truth = rng.uniform(low, high, [5000, 7])

    def curve(xp: Any, p: Any, x: Any) -> Any:
        first = p[0] * xp.exp(-0.5 * ((x - p[1]) / p[2]) ** 2)
        return first + p[3] * xp.exp(-0.5 * ((x - p[4]) / p[5]) ** 2) + p[6]

    start = [2.0, -2.0, 1.0, 2.0, 2.0, 1.0, 0.0]
    return _case(curve, x, truth, start, 0.05, 8, rng)


def spots() -> Case:
    rng = np.random.default_rng(2)
    x = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2)
    low, high = [80.0, 3.0, 3.0, 1.0, 1.0, 5.0], [120.0, 5.0, 5.0, 1.6, 1.6, 15.0]
    truth = rng.uniform(low, high, [5000, 6])

    def curve(xp: Any, p: Any, x: Any) -> Any:
        u, v = (x[:, 0] - p[1]) / p[3], (x[:, 1] - p[2]) / p[4]
        return p[0] * xp.exp(-0.5 * (u * u + v * v)) + p[5]

    return _case(curve, x, truth, [90.0, 4.0, 4.0, 1.3, 1.3, 8.0], 3.0, 10, rng)


def _case(
    curve: Any, x: Any, truth: Any, start: Any, noise: float, goal: int, rng: Any
) -> Case:
    clean = np.stack([curve(np, row, x) for row in truth])
    return Case(
        model=lambda p, x: curve(jnp, p, x),
        plain=lambda x, *p: curve(np, p, x),
        x=x,
        y=clean + noise * rng.normal(size=clean.shape),
        start=np.tile(start, (len(truth), 1)).astype(float),
        goal=goal,
    )


def scipy_loop(case: Case) -> Any:
    """Fit a sample of the curves one by one, with their errors."""
    return [
        scipy.optimize.curve_fit(case.plain, case.x, case.y[k], case.start[k])
        for k in range(SAMPLE)
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("make", [decays, double_gaussians, spots])
def test_many_curves(
    benchmark: Any, report: pairs.Report, make: Callable[[], Case], dtype: str
) -> None:
    case = make()

    def ours() -> Any:
        return fit_curves(case.model, case.x, case.y, case.start, dtype=dtype).values

    sample = scipy_loop(case)
    fits = fit_curves(case.model, case.x, case.y[:SAMPLE], case.start[:SAMPLE])
    wanted = np.stack([params for params, _ in sample])
    near = np.isclose(fits.values, wanted, rtol=1e-3, atol=1e-3).all(1)
    assert near.mean() > 0.9  # SciPy's own end may be another minimum
    peer = pairs.Peer(lambda: scipy_loop(case), part=SAMPLE / len(case.y))
    result = pairs.measure(benchmark, ours, {"SciPy curve_fit": peer}, rounds=3)
    name = make.__name__.replace("_", " ")
    report.add(
        f"{len(case.y):,} {name}, {dtype}",
        result,
        bound=f"must be >= {case.goal} times faster",
    )
