"""A program as a user would type it: pyright must have nothing to say about it."""

import datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import phihat
from phihat import Box, datasets, losses, models, plot, training

Weights = dict[str, Array]


def line(params: Weights, x: Array) -> Array:
    return params["weight"] * x + params["bias"]


def mean_square(params: Weights, batch: tuple[Array, Array]) -> Array:
    x, y = batch
    return jnp.mean((line(params, x) - y) ** 2)


def fits() -> float:
    data = datasets.linear_regression()
    start = {"weight": jnp.array(0.0), "bias": jnp.array(0.0)}
    key = jax.random.key(0)
    result = phihat.fit(mean_square, start, phihat.adam(0.1), data, num_steps=10)
    result = phihat.fit(
        losses.with_l2(losses.least_squares(line), 0.1),
        result.params,
        optax.chain(optax.clip_by_global_norm(1.0), phihat.nesterov(0.05)),
        data,
        num_epochs=2,
        batch_size=4,
        key=key,
        record=("loss", "params"),
        tolerance=phihat.Tolerance(loss=1e-6),
    )
    phihat.raise_for_status(result)
    last = float(result.history["loss"][-1])
    if result.status == phihat.Status.CONVERGED:
        last /= int(result.num_steps)
    box = Box({"weight": -1.0, "bias": -1.0}, {"weight": 1.0, "bias": 1.0})
    inside = phihat.fit(
        mean_square, start, phihat.newton(), data, num_steps=3, projection=box
    )
    longer = phihat.train(
        mean_square,
        start,
        phihat.momentum(optax.cosine_decay_schedule(0.1, 10)),
        data,
        num_steps=10,
        progress=False,
        checkpoint=phihat.Checkpoints("checkpoints", every=datetime.timedelta(hours=1)),
        validation=training.Validation(data, every=5),
        callbacks=[lambda state, rows: bool(rows["loss"][-1] < 0.1)],
    )
    phihat.checkpoint.save("result", longer)
    return last + float(inside.loss) + float(longer.loss)


def curves(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    def decay(params: dict[str, Any], t: Array) -> Array:
        return params["height"] * jnp.exp(-t / params["lifetime"])

    start = {"height": 1.0, "lifetime": 2.0}
    fit = phihat.fit_curve(
        decay, x, y, start, bounds={"height": (0, None)}, fixed=["lifetime"], sigma=0.1
    )
    band = fit.predict(x)
    axes, _ = fit.plot()
    axes.figure.savefig("decay.png")
    low, high = fit.intervals(level=0.9)["height"]
    found = {fit.names[0]: high - low, "low": band.low[0], "good": float(fit.success)}
    fits = phihat.fit_curves(decay, [1, 2, 3], [[3, 2, 1], [6, 4, 2]], start)
    fits.to_pandas().to_csv("fits.csv")
    found["height"] = fits.params["height"].mean()
    return fit.params | found | {name: 0.0 for name in fits[0].doubts}


def questions() -> list[str]:
    data = datasets.linear_regression()
    loss_fn = losses.least_squares(models.linear)
    start = {"weight": 0.0, "bias": 0.0}
    report = phihat.check_convexity(loss_fn, start, data)
    found = phihat.learning_rate_range(loss_fn, start, phihat.gradient_descent, data)
    axes = found.plot()
    axes.figure.savefig("rates.png")

    def final_loss(rate: Array) -> Array:
        return phihat.fit(loss_fn, start, phihat.adam(rate), data, num_steps=5).loss

    swept = phihat.sweep(final_loss, {"rate": jnp.geomspace(0.01, 1.0, 8)})
    mapped = jax.vmap(final_loss)(jnp.array([0.1, 0.2]))
    slope = jax.grad(final_loss)(jnp.array(0.1))
    sharpness = phihat.sharpness(loss_fn, start, data)
    best = phihat.fit(loss_fn, start, phihat.newton(), data, num_steps=5)
    intervals = phihat.confidence_intervals(loss_fn, best, data)
    window = Box([-1.0, -1.0], [1.0, 1.0])

    def bowl(p: Array) -> Array:
        return jnp.sum(p**2)

    points = phihat.find_critical_points(bowl, window)
    starts = phihat.multistart(bowl, window, phihat.adam(0.1), num_starts=4)
    lines = plot.loss_curves(best)
    return [
        report.verdict.name,
        f"{swept.values.shape} {mapped.shape} {slope:.2f} {sharpness:.2f}",
        f"{intervals.low} {points.summary} {starts.share} {lines}",
    ]
