"""The deck's numbers: in float64 to 1e-9, in float32 within the sensitivity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import phihat
from phihat import losses, models
from tests.cases import BOOK_GABOR, REFERENCE

TRAJECTORIES = REFERENCE["trajectories"]
LINEAR = losses.least_squares(lambda params, x: params[0] + params[1] * x)
GABOR = losses.least_squares(BOOK_GABOR)
EPS32 = 2.0**-23


def adam_surface(params):
    """The surface on which the book shows Adam."""
    x, y = params
    return 1 - jnp.exp(-2 * y**2) * jnp.exp(-((x - 0.7) ** 2) / 8)


def deck_data(name):
    data = REFERENCE["data"][name]
    return tuple(jnp.asarray(data[axis], float) for axis in "xy")


def gradient_descent_of(run):
    return phihat.gradient_descent(run["alpha"])


RUNS = {
    "lin_gd_fixed_0.01": gradient_descent_of,
    "lin_gd_fixed_0.02": gradient_descent_of,
    "lin_momentum": lambda run: phihat.momentum(run["alpha"], run["beta"]),
    "lin_nesterov_alphabeta": lambda run: phihat.nesterov(run["alpha"], run["beta"]),
    "gabor32_gd_fixed_nb63": gradient_descent_of,
    "gabor32_gd_fixed_0.05_long": gradient_descent_of,
    "gabor32_sgd_nb63": gradient_descent_of,
    "gabor32_sgd_nb64": gradient_descent_of,
    "gabor32_momentum_nb64": lambda run: phihat.momentum(run["alpha"], run["beta"]),
    "gabor32_nesterov_alphabeta_nb64": lambda run: phihat.nesterov(
        run["alpha"], run["beta"]
    ),
    "gabor32_nesterov_slide_alpha_nb64": lambda run: phihat.nesterov(
        run["alpha"], run["beta"], lookahead=1.0
    ),
    "adamsurf_gd_0.08_nb65": gradient_descent_of,
    "adamsurf_gd_0.05_fig69a_label": gradient_descent_of,
    "adamsurf_gd_1.0_nb65": gradient_descent_of,
    "adamsurf_normalized_0.08_nb65": lambda run: phihat.normalized_gradient(
        run["alpha"], eps=run["epsilon"]
    ),
    "adamsurf_adam_nb65": lambda run: phihat.adam(
        run["alpha"], b1=run["beta"], b2=run["gamma"], eps=run["epsilon"]
    ),
}


def replay(name, dtype=float):
    """Fit with the settings of a reference run; return the params of every step."""
    run = TRAJECTORIES[name]
    problem = name.split("_")[0]
    loss_fn = {"lin": LINEAR, "gabor32": GABOR, "adamsurf": adam_surface}[problem]
    data, sampler = None, None
    if problem != "adamsurf":
        data = deck_data("linear_regression" if problem == "lin" else "gabor")
        data = jax.tree.map(lambda leaf: leaf.astype(dtype), data)
    if "batches" in run:
        rows = jnp.asarray(REFERENCE["numpy_seed1_batches"][: run["N"]])
        sampler = phihat.from_indices(rows)
    result = phihat.fit(
        loss_fn,
        jnp.asarray(run["start"], dtype),
        RUNS[name](run),
        data,
        num_steps=run["N"],
        sampler=sampler,
        record=("params",),
    )
    assert result.status == phihat.Status.COMPLETED
    return run, result


def test_every_run_without_a_line_search_is_in_the_table():
    free = {
        name
        for name, run in TRAJECTORIES.items()
        if "line search" not in run["algorithm"]
        and "exact step" not in run["algorithm"]
    }
    assert free - {"gabor32_gd_fixed_0.2_two_cycle"} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_trajectory_in_float64(name):
    run, result = replay(name)
    path = np.asarray(result.history["params"])
    np.testing.assert_allclose(path[:11], run["first10"], rtol=0, atol=1e-9)
    if name != "adamsurf_gd_1.0_nb65":  # amplifies rounding 4e5 times
        np.testing.assert_allclose(path, run.get("all_phi", path), rtol=0, atol=1e-9)
        np.testing.assert_allclose(path[-1], run["final_phi"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.params, run["final_phi"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RUNS)
def test_losses_at_the_iterates_in_float64(name):
    run, result = replay(name)
    problem = name.split("_")[0]
    loss_fn = {"lin": LINEAR, "gabor32": GABOR, "adamsurf": adam_surface}[problem]
    path = result.history["params"]
    if problem == "adamsurf":
        values = jax.vmap(loss_fn)(path)
    else:
        data = deck_data("linear_regression" if problem == "lin" else "gabor")
        values = jax.vmap(loss_fn, in_axes=(0, None))(path, data)
    np.testing.assert_allclose(values[:11], run["first10_loss"], rtol=0, atol=1e-9)


IN_FLOAT32 = [
    name
    for name in RUNS
    # eps = 1e-20 is flushed to zero in float32; one run amplifies rounding 4e5 times
    if TRAJECTORIES[name].get("epsilon") != 1e-20 and name != "adamsurf_gd_1.0_nb65"
]


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_trajectory_in_float32_within_the_stated_sensitivity(name):
    run, result = replay(name, jnp.float32)
    assert result.params.dtype == jnp.float32
    # Every step rounds by about eps * |phi|; the reference says by how much a shift of
    # the start grows until the end; one on the way is allowed to grow ten times that.
    steps = run["N"]
    growth = 10 * max(1.0, run["sensitivity_final_phi_per_unit_start_shift"])
    scale = 1 + np.abs(run["final_phi"]).max()
    bound = 4 * growth * scale * EPS32 * np.sqrt(steps)
    np.testing.assert_allclose(result.params, run["final_phi"], rtol=0, atol=bound)


def test_the_two_cycle_of_a_rate_beyond_the_stable_one():
    run = TRAJECTORIES["gabor32_gd_fixed_0.2_two_cycle"]
    result = phihat.fit(
        GABOR,
        jnp.asarray(run["start"]),
        phihat.gradient_descent(run["alpha"]),
        deck_data("gabor"),
        num_steps=run["N"],
        record=("params", "loss"),
    )
    last = np.asarray(result.history["params"][-2:])
    last = last[np.argsort(last[:, 0])]
    np.testing.assert_allclose(last, run["cycle"], atol=5e-4)
    cycle = np.sort(np.asarray(result.history["loss"][-2:]))
    np.testing.assert_allclose(cycle, run["cycle_losses"], atol=5e-5)


ANSWERS = REFERENCE["notebook_answers"]


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ((0.6, -0.2), ANSWERS["loss_lin_0p6_m0p2"]["mine"]),
        ((0.4, 0.2), ANSWERS["loss_lin_0p4_0p2"]["mine"]),
        ((1.6, -0.8), ANSWERS["loss_lin_1p6_m0p8"]["mine"]),
        ((0.82, 0.52), ANSWERS["loss_lin_0p82_0p52"]),
        ((1.6, -0.5), ANSWERS["loss_lin_1p6_m0p5"]),
    ],
)
def test_losses_of_linear_regression(params, answer):
    value = LINEAR(jnp.asarray(params), deck_data("linear_regression"))
    np.testing.assert_allclose(value, answer, rtol=1e-12)


def test_gradient_of_linear_regression():
    gradient = jax.grad(LINEAR)(
        jnp.asarray([0.6, -0.2]), deck_data("linear_regression")
    )
    np.testing.assert_allclose(gradient, ANSWERS["grad_lin_0p6_m0p2"], rtol=1e-12)


@pytest.mark.parametrize(
    ("width", "label"), [(4.0, "D32"), (2.0, "D8")], ids=["book", "deck"]
)
def test_gabor_answers(width, label):
    loss_fn = losses.least_squares(Partial(models.gabor, envelope_width=width))
    data = deck_data("gabor")
    values = {
        "loss_gabor_0p6_m0p2": ([0.6, -0.2], f"mine_{label}"),
        "loss_gabor_generating_phi_0_16p6": ([0.0, 16.6], label),
        "loss_gabor_start_m1p5_8p5": ([-1.5, 8.5], label),
    }
    for name, (params, part) in values.items():
        value = loss_fn(jnp.asarray(params), data)
        np.testing.assert_allclose(value, ANSWERS[name][part], rtol=1e-12)
    gradient = jax.grad(loss_fn)(jnp.asarray([-5.0, 25.0]), data)
    expected = ANSWERS["grad_gabor_m5_25"][f"mine_{label}"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-11)


def test_the_model_of_the_deck_is_the_default():
    np.testing.assert_array_equal(
        models.gabor(jnp.asarray([0.3, 12.0]), deck_data("gabor")[0]),
        models.gabor(
            jnp.asarray([0.3, 12.0]), deck_data("gabor")[0], envelope_width=2.0
        ),
    )


def shown(name):
    return ANSWERS["losses_shown_in_solved_copies"][name]


@pytest.mark.parametrize(
    ("copy", "run"),
    [("nb63_fixed", "gabor32_gd_fixed_nb63"), ("nb63_sgd", "gabor32_sgd_nb63")],
)
def test_losses_shown_in_the_solved_notebooks(copy, run):
    _, result = replay(run)
    data = deck_data("gabor")
    for step, value in shown(copy).items():
        loss = GABOR(result.history["params"][int(step)], data)
        np.testing.assert_allclose(loss, value, atol=5e-7)


def test_final_losses_shown_in_notebook_64():
    data = deck_data("gabor")
    names = {
        "sgd_81": "gabor32_sgd_nb64",
        "momentum_81": "gabor32_momentum_nb64",
        "nesterov_alphabeta_81": "gabor32_nesterov_alphabeta_nb64",
    }
    for label, run in names.items():
        loss = GABOR(replay(run)[1].params, data)
        np.testing.assert_allclose(loss, shown("nb64")[label], atol=5e-7)


def test_normalized_example_of_the_slide():
    slide = REFERENCE["slide_normalized_example"]
    gradient = jnp.asarray(slide["m"])
    for eps, expected in slide["result_by_epsilon"].items():
        optimizer = phihat.normalized_gradient(1.0, eps=float(eps))
        updates, _ = optimizer.update(gradient, optimizer.init(gradient))
        np.testing.assert_allclose(-updates, expected, rtol=1e-15)


def test_adam_first_step_is_the_normalized_example():
    slide = REFERENCE["slide_normalized_example"]
    gradient = jnp.asarray(slide["m"])
    optimizer = phihat.adam(1.0, eps=1e-20)
    updates, state = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(-updates, [1.0, -1.0, 1.0], rtol=4 * 2.0**-52)
    np.testing.assert_allclose(
        state.mean_square / state.mean_square_weight, slide["v"], rtol=4 * 2.0**-52
    )


FACTS = REFERENCE["linear_regression_facts"]


@pytest.mark.parametrize(
    "optimizer",
    [phihat.gradient_descent(0.037), phihat.nesterov(0.1), phihat.momentum(0.1)],
    ids=repr,
)
def test_linear_regression_reaches_the_closed_form(optimizer):
    result = phihat.fit(
        LINEAR,
        jnp.zeros(2),
        optimizer,
        deck_data("linear_regression"),
        num_steps=20_000,
        tolerance=1e-11,
    )
    assert result.status == phihat.Status.CONVERGED
    np.testing.assert_allclose(result.params, FACTS["optimum"], rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.loss, FACTS["min_loss"], rtol=1e-12)


def test_the_largest_stable_rate():
    rate = FACTS["max_stable_fixed_alpha"]

    def final_loss(rate):
        return phihat.fit(
            LINEAR,
            jnp.asarray([1.6, -0.5]),
            phihat.gradient_descent(rate),
            deck_data("linear_regression"),
            num_steps=2_000,
        ).loss

    assert final_loss(0.999 * rate) < FACTS["min_loss"] * 1.01
    assert final_loss(1.001 * rate) > 10


def test_the_best_fixed_rate_contracts_as_the_theory_says():
    rate, (low, high) = FACTS["best_fixed_alpha"], FACTS["eig"]
    result = phihat.fit(
        LINEAR,
        jnp.asarray([1.6, -0.5]),
        phihat.gradient_descent(rate),
        deck_data("linear_regression"),
        num_steps=100,
        record=("params",),
    )
    distance = np.linalg.norm(
        np.asarray(result.history["params"]) - FACTS["optimum"], axis=1
    )
    contraction = (high - low) / (high + low)
    assert np.all(distance[1:] <= distance[:-1] * contraction * (1 + 1e-9))
