"""The losses on which proofs and refutations of convexity are tried.

`LOSSES[name]` is `(loss_fn, params, data, domain, verdict)`. The verdict is the truth:
"P" convex and provable, "U" convex and hard to prove, "R" not convex.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats
import numpy as np
import optax

from phihat import Box, datasets
from phihat.models import gabor

__all__ = ["CONVEX", "LOSSES", "NOT_CONVEX", "Loss"]


class Loss(NamedTuple):
    loss_fn: Any
    params: Any
    data: Any
    domain: Any
    verdict: str


_rng = np.random.default_rng(20)
_ROWS, _COLUMNS, _CLASSES = 24, 3, 3
_x = _rng.normal(size=(_ROWS, _COLUMNS))
_truth = np.array([1.0, -2.0, 0.5])
_noise = _rng.standard_t(2.5, size=_ROWS)
_y = _x @ _truth + 0.3 * _noise
_labels = (_x @ _truth + _noise > 0).astype(float)
_classes = np.clip(np.rint(_x[:, 0] + 1.0), 0, 2).astype(np.int32)
_counts = _rng.poisson(np.exp(0.5 * _x @ _truth)).astype(float)
_times = np.argsort(np.argsort(_rng.exponential(np.exp(-_x @ _truth))))
_by_time = _x[np.argsort(-_times)]  # latest first: the risk set is what came before
_events = (_rng.uniform(size=_ROWS) < 0.7).astype(float)
_w = np.array([0.3, -0.7, 1.1])
_REGRESSION, _SIGNS = (_x, _y), (_x, 2.0 * _labels - 1.0)


def _residuals(w, data):
    x, y = data
    return x @ w - y


# ---------------------------------------------------------------------- convex


def least_squares(w, data):
    return jnp.sum(_residuals(w, data) ** 2)


def ridge(w, data):
    return jnp.mean(_residuals(w, data) ** 2) + 0.1 * jnp.sum(w**2)


def elastic_net(w, data):
    penalty = 0.1 * jnp.sum(jnp.abs(w)) + 0.05 * jnp.sum(w**2)
    return 0.5 * jnp.mean(_residuals(w, data) ** 2) + penalty


def group_lasso(params, data):
    w = jnp.concatenate([params["a"], params["b"]])
    norms = jnp.linalg.norm(params["a"]) + jnp.linalg.norm(params["b"])
    return jnp.mean(_residuals(w, data) ** 2) + 0.2 * norms


_SINGULAR = np.array([[4.0, -2.0, 2.0], [-2.0, 1.0, -1.0], [2.0, -1.0, 1.0]])


def singular_quadratic(w):
    return w @ (jnp.asarray(_SINGULAR) @ w)


def logistic(w, data):
    x, y = data
    return jnp.sum(jnp.log1p(jnp.exp(-y * (x @ w))))


def sigmoid_cross_entropy(w, data):
    x, y = data
    return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(x @ w, y))


def softmax_cross_entropy(params, data):
    x, y = data
    logits = x @ params["weight"] + params["bias"][None, :]
    terms = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
    return jnp.mean(terms)


def poisson(w, data):
    x, y = data
    return jnp.sum(jnp.exp(x @ w) - y * (x @ w))


def negative_binomial(w, data):
    x, y = data
    r = 3.0
    eta = x @ w
    return jnp.sum((y + r) * jnp.logaddexp(eta, jnp.log(r)) - y * eta)


def probit(w, data):
    x, y = data
    return -jnp.sum(jax.scipy.stats.norm.logcdf(y * (x @ w)))


def huber(w, data):
    x, y = data
    return jnp.mean(optax.losses.huber_loss(x @ w, y, delta=0.8))


def pseudo_huber(w, data):
    return jnp.sum(jnp.sqrt(1.0 + _residuals(w, data) ** 2) - 1.0)


def log_cosh(w, data):
    return jnp.sum(jnp.log(jnp.cosh(_residuals(w, data))))


def pinball(w, data):
    residual = -_residuals(w, data)
    return jnp.mean(jnp.maximum(0.9 * residual, -0.1 * residual))


def epsilon_insensitive(w, data):
    excess = jnp.maximum(jnp.abs(_residuals(w, data)) - 0.1, 0.0)
    return jnp.mean(excess) + 0.01 * jnp.sum(w**2)


def hinge(w, data):
    x, y = data
    return jnp.mean(jax.nn.relu(1.0 - y * (x @ w))) + 0.01 * jnp.sum(w**2)


def cox(w, data):
    x, event = data
    risk = x @ w
    return -jnp.sum(event * (risk - jax.lax.cumlogsumexp(risk)))


def chain_crf(params, data):
    x, tags = data
    emissions = x @ params["emission"]
    score = jnp.sum(emissions[jnp.arange(len(tags)), tags])
    score += jnp.sum(params["transition"][tags[:-1], tags[1:]])

    def step(alpha, emission):
        paths = alpha[:, None] + params["transition"]
        return jax.nn.logsumexp(paths, axis=0) + emission, None

    alpha, _ = jax.lax.scan(step, emissions[0], emissions[1:])
    return jax.nn.logsumexp(alpha) - score


def natural_gaussian(params, data):
    y = data
    eta, precision = params["eta"], params["precision"]
    terms = eta**2 / precision - jnp.log(precision) + precision * y**2 - 2.0 * eta * y
    return 0.5 * jnp.sum(terms)


def entropy(x):
    return jnp.sum(x * jnp.log(x))


def largest_sum(w, data):
    return jnp.sum(jnp.sort(_residuals(w, data) ** 2)[-5:])


def ordinal_logit(params, data):
    x, y = data
    score = x @ params["weight"]
    first, second = params["cuts"]
    low, high = first - score, second - score
    middle = jnp.log(jax.nn.sigmoid(high) - jax.nn.sigmoid(low))
    terms = jnp.stack([jax.nn.log_sigmoid(low), middle, jax.nn.log_sigmoid(-high)])
    return -jnp.sum(terms[y, jnp.arange(len(y))])


def quartic(z):
    x, y = z
    return x**4 + 6.0 * x**2 * y**2 + y**4


# ------------------------------------------------------------------ not convex


def gabor_least_squares(params, data):
    x, y = data
    return jnp.sum((gabor(params, x, envelope_width=4.0) - y) ** 2)


def factorisation(params, data):
    return jnp.sum((params["left"] @ params["right"].T - data) ** 2)


def relu_network(params, data):
    x, y = data
    hidden = jax.nn.relu(x @ params["first"] + params["bias"][None, :])
    return jnp.mean((hidden @ params["second"] - y) ** 2)


def relu_neuron(w, data):
    x, y = data
    return jnp.sum((jax.nn.relu(x @ w) - y) ** 2)


def sigmoid_squared_error(w, data):
    x, y = data
    return jnp.sum((jax.nn.sigmoid(x @ w) - y) ** 2)


def clipped_cross_entropy(w, data):
    x, y = data
    p = jnp.clip(jax.nn.sigmoid(x @ w), 1e-7, 1.0 - 1e-7)
    return -jnp.mean(y * jnp.log(p) + (1.0 - y) * jnp.log(1.0 - p))


def focal(w, data):
    x, y = data
    return jnp.mean(optax.losses.sigmoid_focal_loss(x @ w, y, gamma=2.0))


def cauchy(w, data):
    return jnp.sum(jnp.log1p(_residuals(w, data) ** 2))


def welsch(w, data):
    return jnp.sum(1.0 - jnp.exp(-0.5 * _residuals(w, data) ** 2))


def tukey(w, data):
    ratio = jnp.clip((_residuals(w, data) / 4.685) ** 2, 0.0, 1.0)
    return jnp.sum(1.0 - (1.0 - ratio) ** 3)


def ramp(w, data):
    x, y = data
    return jnp.mean(jnp.clip(1.0 - y * (x @ w), 0.0, 2.0))


def gaussian_log_scale(params, data):
    scaled = (data - params["mean"]) * jnp.exp(-params["log_sigma"])
    return jnp.sum(0.5 * scaled**2 + params["log_sigma"])


def rosenbrock(z):
    return 100.0 * (z[1] - z[0] ** 2) ** 2 + (1.0 - z[0]) ** 2


def phase_retrieval(w, data):
    x, intensity = data
    return jnp.mean(((x @ w) ** 2 - intensity) ** 2)


def mixture_of_means(means, data):
    kernels = -0.5 * (data[:, None] - means[None, :]) ** 2
    return -jnp.sum(jax.nn.logsumexp(kernels, axis=1))


def concave_kink(x):
    return -jnp.abs(x) + 0.01 * x**2


def _network():
    return {
        "first": _rng.normal(size=(_COLUMNS, 4)),
        "bias": _rng.normal(size=4),
        "second": _rng.normal(size=4),
    }


def _factors():
    return {"left": _rng.normal(size=(5, 2)), "right": _rng.normal(size=(4, 2))}


LOSSES: dict[str, Loss] = {
    "least squares": Loss(least_squares, _w, _REGRESSION, None, "P"),
    "ridge": Loss(ridge, _w, _REGRESSION, None, "P"),
    "elastic net": Loss(elastic_net, _w, _REGRESSION, None, "P"),
    "group lasso": Loss(
        group_lasso, {"a": _w[:2], "b": _w[2:]}, _REGRESSION, None, "P"
    ),
    "singular quadratic": Loss(singular_quadratic, _w, None, None, "P"),
    "logistic": Loss(logistic, _w, _SIGNS, None, "P"),
    "sigmoid cross-entropy": Loss(sigmoid_cross_entropy, _w, (_x, _labels), None, "P"),
    "softmax cross-entropy": Loss(
        softmax_cross_entropy,
        {"weight": _rng.normal(size=(_COLUMNS, _CLASSES)), "bias": np.zeros(_CLASSES)},
        (_x, _classes),
        None,
        "P",
    ),
    "Poisson": Loss(poisson, _w, (_x, _counts), None, "P"),
    "negative binomial": Loss(negative_binomial, _w, (_x, _counts), None, "P"),
    "probit": Loss(probit, _w, _SIGNS, None, "P"),
    "Huber": Loss(huber, _w, _REGRESSION, None, "P"),
    "pseudo-Huber": Loss(pseudo_huber, _w, _REGRESSION, None, "P"),
    "log-cosh": Loss(log_cosh, _w, _REGRESSION, None, "P"),
    "pinball": Loss(pinball, _w, _REGRESSION, None, "P"),
    "epsilon-insensitive": Loss(epsilon_insensitive, _w, _REGRESSION, None, "P"),
    "hinge": Loss(hinge, _w, _SIGNS, None, "P"),
    "Cox": Loss(cox, _w, (_by_time, _events), None, "P"),
    "chain CRF": Loss(
        chain_crf,
        {
            "emission": _rng.normal(size=(_COLUMNS, _CLASSES)),
            "transition": _rng.normal(size=(_CLASSES, _CLASSES)),
        },
        (_x[:8], _classes[:8]),
        None,
        "P",
    ),
    "natural Gaussian": Loss(
        natural_gaussian,
        {"eta": np.asarray(0.4), "precision": np.asarray(1.5)},
        _y,
        Box(
            {"eta": -np.inf, "precision": 1e-3},
            {"eta": np.inf, "precision": np.inf},
        ),
        "P",
    ),
    "x log x": Loss(entropy, np.array([0.2, 0.5, 1.7]), None, Box(1e-6, np.inf), "P"),
    "sum of the largest": Loss(largest_sum, _w, _REGRESSION, None, "U"),
    "ordinal logit": Loss(
        ordinal_logit,
        {"weight": _w, "cuts": np.array([-0.8, 0.9])},
        (_x, _classes),
        Box(
            {"weight": -np.inf, "cuts": [-np.inf, 0.0]},
            {"weight": np.inf, "cuts": [-0.1, np.inf]},
        ),
        "U",
    ),
    "quartic": Loss(quartic, np.array([0.7, -0.4]), None, None, "U"),
    "Gabor": Loss(
        gabor_least_squares, np.array([-5.0, 10.0]), datasets.gabor(), None, "R"
    ),
    "matrix factorisation": Loss(
        factorisation, _factors(), _rng.normal(size=(5, 4)), None, "R"
    ),
    "two-layer ReLU": Loss(relu_network, _network(), _REGRESSION, None, "R"),
    "ReLU neuron": Loss(relu_neuron, _w, _REGRESSION, None, "R"),
    "sigmoid and squared error": Loss(
        sigmoid_squared_error, _w, (_x, _labels), None, "R"
    ),
    "cross-entropy with clip": Loss(
        clipped_cross_entropy, _w, (_x, _labels), None, "R"
    ),
    "focal": Loss(focal, _w, (_x, _labels), None, "R"),
    "Cauchy": Loss(cauchy, _w, _REGRESSION, None, "R"),
    "Welsch": Loss(welsch, _w, _REGRESSION, None, "R"),
    "Tukey": Loss(tukey, _w, _REGRESSION, None, "R"),
    "ramp": Loss(ramp, _w, _SIGNS, None, "R"),
    "Gaussian with log sigma": Loss(
        gaussian_log_scale,
        {"mean": np.asarray(0.3), "log_sigma": np.asarray(0.1)},
        _y,
        None,
        "R",
    ),
    "Rosenbrock": Loss(rosenbrock, np.array([-1.2, 1.0]), None, None, "R"),
    "phase retrieval": Loss(phase_retrieval, _w, (_x, (_x @ _truth) ** 2), None, "R"),
    "mixture of means": Loss(mixture_of_means, np.array([-1.0, 0.5]), _y, None, "R"),
    "concave kink": Loss(concave_kink, np.asarray(0.3), None, None, "R"),
}
"""Forty losses with small data."""

CONVEX = {name: loss for name, loss in LOSSES.items() if loss.verdict != "R"}
NOT_CONVEX = {name: loss for name, loss in LOSSES.items() if loss.verdict == "R"}
