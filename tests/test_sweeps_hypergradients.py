"""Derivatives through fits: unrolled, with little memory, and implicit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import phihat
from phihat import Status, sweeps
from tests import cases

LOSS, DATA = cases.gabor_problem()
START = jnp.asarray([0.5, 14.0])
LINEAR = phihat.losses.least_squares(phihat.models.linear)
LINE = phihat.datasets.linear_regression()
ORIGIN = {"weight": jnp.zeros(()), "bias": jnp.zeros(())}


def difference(function, x, step=1e-7):
    return (function(x + step) - function(x - step)) / (2 * step)


def decaying(rate, step):
    return rate / (1 + 0.1 * step.astype(float))


def final_loss(optimizer, *, num_steps=60, remat=False, loss_fn=LOSS, data=DATA):
    result = phihat.fit(
        loss_fn, START, optimizer, data, num_steps=num_steps, remat=remat
    )
    return result.loss


OPTIMIZERS = {
    "gradient descent": phihat.gradient_descent,
    "momentum": phihat.momentum,
    "nesterov": phihat.nesterov,
    "Adam": lambda rate: phihat.adam(20 * rate),
    "a schedule": lambda rate: phihat.adam(Partial(decaying, 20 * rate)),
    "optax": lambda rate: optax.chain(
        optax.clip_by_global_norm(10.0), phihat.momentum(rate)
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("remat", [False, True])
def test_hypergradients_are_finite_differences(name, remat):
    function = lambda rate: final_loss(OPTIMIZERS[name](rate), remat=remat)
    found = jax.grad(function)(2e-3)
    np.testing.assert_allclose(found, difference(function, 2e-3), rtol=1e-5)


def test_remat_changes_no_bit_of_the_fit_and_no_gradient():
    for num_steps in (1, 57):
        options = {"num_steps": num_steps, "record_every": 3}
        plain, again = (
            phihat.fit(LOSS, START, phihat.adam(0.1), DATA, **options, remat=remat)
            for remat in (False, True)
        )
        assert jax.tree.structure(plain) == jax.tree.structure(again)
        jax.tree.map(np.testing.assert_array_equal, plain, again)
        both = [
            jax.grad(
                lambda optimizer, remat=remat, steps=num_steps: final_loss(
                    optimizer, num_steps=steps, remat=remat
                )
            )(phihat.adam(0.1))
            for remat in (False, True)
        ]
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12),
            *both,
        )


def temporary_bytes(num_steps, remat):
    function = lambda rate: final_loss(
        phihat.adam(rate), num_steps=num_steps, remat=remat
    )
    compiled = jax.jit(jax.grad(function)).lower(0.1).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_ten_thousand_steps():
    plain, little = (temporary_bytes(10_000, remat) for remat in (False, True))
    assert little < plain / 20
    # What is kept besides is the history of losses, one number a step.
    grown = temporary_bytes(40_000, remat=True) - 8 * 30_000
    assert grown < 3 * little


def ridge(penalty):
    return phihat.losses.with_l2(LINEAR, penalty)


def test_implicit_is_the_closed_form_of_ridge_regression():
    x, y = (np.asarray(leaf, float) for leaf in LINE)
    design = np.column_stack([np.ones_like(x), x])

    def solution(penalty):
        fit = sweeps.implicit_fit(ridge(penalty), ORIGIN, phihat.newton(), LINE)
        assert isinstance(fit.residual, jax.Array)
        return jnp.stack([fit.params["bias"], fit.params["weight"]])

    penalty = 0.3
    # with_l2 may leave the bias out or take half: measured and not assumed.
    curvature = jax.hessian(
        lambda p: (
            ridge(1.0)({"bias": p[0], "weight": p[1]}, LINE)
            - LINEAR({"bias": p[0], "weight": p[1]}, LINE)
        )
    )(jnp.zeros(2))
    matrix = 2 * design.T @ design + penalty * curvature
    place = np.linalg.solve(matrix, 2 * design.T @ y)
    np.testing.assert_allclose(solution(penalty), place, rtol=1e-9)
    slope = -np.linalg.solve(matrix, curvature @ place)
    np.testing.assert_allclose(jax.jacrev(solution)(penalty), slope, rtol=1e-8)
    np.testing.assert_allclose(jax.jacfwd(solution)(penalty), slope, rtol=1e-8)


def shifted_gabor(shift, params, batch):
    x, y = batch
    return LOSS(params, (x, y + shift))


def test_implicit_is_unrolled_and_finite_differences():
    def implicit(shift):
        loss_fn = Partial(shifted_gabor, shift)
        fit = sweeps.implicit_fit(
            loss_fn, START, phihat.newton(), DATA, tolerance=1e-12
        )
        return fit.params[1]

    def unrolled(shift):
        result = phihat.fit(
            Partial(shifted_gabor, shift),
            START,
            phihat.gradient_descent(0.02),
            DATA,
            num_steps=20_000,
            record=(),
            remat=True,
        )
        return result.params[1]

    found = jax.grad(implicit)(0.01)
    np.testing.assert_allclose(found, difference(implicit, 0.01), rtol=1e-6)
    np.testing.assert_allclose(found, jax.grad(unrolled)(0.01), rtol=1e-6)


def test_implicit_by_data_under_vmap_and_jit():
    def slope(y):
        fit = sweeps.implicit_fit(LINEAR, ORIGIN, phihat.newton(), (LINE[0], y))
        return fit.params["weight"]

    x, y = (jnp.asarray(leaf, float) for leaf in LINE)
    centred = x - x.mean()
    wanted = centred / jnp.sum(centred**2)  # least squares is linear in y
    shifts = jnp.asarray([[0.0], [1.0], [2.0]])
    many = jax.jit(jax.vmap(jax.grad(slope)))(y[None, :] + shifts)
    np.testing.assert_allclose(many, jnp.stack([wanted] * 3), atol=1e-10)


def test_implicit_with_many_params_and_with_a_bad_end():
    size = 600
    diagonal = jnp.linspace(1.0, 3.0, size)

    def total(target):
        loss_fn = lambda p: 0.5 * jnp.sum(diagonal * (p - target) ** 2) + jnp.sum(p**2)
        fit = sweeps.implicit_fit(
            loss_fn, jnp.zeros(size), phihat.gradient_descent(0.3), tolerance=1e-9
        )
        return jnp.sum(fit.params)

    wanted = jnp.sum(diagonal / (diagonal + 2))
    np.testing.assert_allclose(jax.grad(total)(1.0), wanted, rtol=1e-8)
    early = sweeps.implicit_fit(
        LINEAR, ORIGIN, phihat.gradient_descent(1e-3), LINE, num_steps=3
    )
    assert early.status == Status.COMPLETED
    assert early.residual > 1


def test_wrong_calls():
    with pytest.raises(ValueError, match="`remat` serves reverse differentiation"):
        phihat.fit(
            LOSS, START, phihat.adam(0.1), DATA, num_steps=3, tolerance=0.1, remat=True
        )
    with pytest.raises(ValueError, match="`tolerance` is needed"):
        sweeps.implicit_fit(LOSS, START, phihat.newton(), DATA, tolerance=None)
    with pytest.raises(TypeError, match="`params` must have floating-point leaves"):
        sweeps.implicit_fit(LOSS, 1, phihat.newton(), DATA)
