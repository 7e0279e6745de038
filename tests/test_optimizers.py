"""The contract of every public optimizer, and what each must equal."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.tree_util import Partial

import phihat
from phihat import fitting, optimizers
from tests import cases

EPS64 = 2.0**-52
NAMES = list(cases.OPTIMIZERS)


def make(name, *args):
    return cases.OPTIMIZERS[name](*args)


def steps(optimizer, params, loss_fn, num_steps):
    """Carry an optimizer through a scan, as any optax loop does."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), None, num_steps)


def path_of(optimizer, params, loss_fn, num_steps):
    return jax.jit(lambda: steps(optimizer, params, loss_fn, num_steps)[1])()


# ------------------------------------------------------------------------ the contract


def test_every_public_optimizer_is_in_the_table():
    factories = {
        name
        for name in optimizers.__all__
        if inspect.isfunction(getattr(optimizers, name)) and name != "eval_params"
    }
    assert factories <= set(cases.OPTIMIZERS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tree", cases.PYTREES)
def test_any_pytree_with_stable_avals(name, tree):
    optimizer = make(name)
    params = fitting.init(cases.PYTREES[tree], optimizer).params
    state = optimizer.init(params)
    updates, after = optimizer.update(jax.grad(cases.tree_loss)(params), state, params)
    chex.assert_trees_all_equal_structs(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_structs(state, after)
    same = jax.tree.map(
        lambda one, other: jax.typeof(one) == jax.typeof(other), state, after
    )
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_params_and_updates_keep_their_dtype_and_moments_are_wide(name, dtype):
    optimizer = make(name)
    params = {"a": jnp.ones(3, dtype), "b": jnp.ones((), jnp.float32)}
    gradient = jax.tree.map(lambda leaf: leaf / 2, params)
    updates, state = optimizer.update(gradient, optimizer.init(params), params)
    assert updates["a"].dtype == dtype
    assert updates["b"].dtype == jnp.float32
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert jnp.finfo(leaf.dtype).bits >= 32


@pytest.mark.parametrize("name", NAMES)
def test_one_trace_serves_all_numbers(name):
    params = jnp.asarray([1.0, 2.0])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(optimizer, gradient, state):
        return optimizer.update(gradient, state)

    for rate in (0.1, 0.2, 1, np.float64(0.3)):
        optimizer = make(name, rate)
        update(optimizer, params, optimizer.init(params))
    chex.clear_trace_counter()


@pytest.mark.parametrize("name", NAMES)
def test_jit_equals_plain(name):
    optimizer = make(name)
    params = jnp.asarray([1.0, -3.0])
    state = optimizer.init(params)
    plain = optimizer.update(params, state, params)
    jitted = jax.jit(optimizer.update)(params, state, params)
    chex.assert_trees_all_close(plain, jitted, rtol=4 * EPS64)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_rates_equals_the_loop(name):
    rates = jnp.asarray([0.01, 0.05, 0.1])
    loss_fn, params = cases.quadratic(10.0)
    many = jax.vmap(lambda rate: path_of(make(name, rate), params, loss_fn, 20))(rates)
    for rate, path in zip(rates, many, strict=True):
        alone = path_of(make(name, float(rate)), params, loss_fn, 20)
        np.testing.assert_allclose(path, alone, rtol=1e3 * EPS64, atol=1e3 * EPS64)


@pytest.mark.parametrize("name", NAMES)
def test_sharded_equals_single(name):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("rows"))
    params = jnp.linspace(-1.0, 1.0, 16)
    sharded = jax.device_put(params, spread)
    optimizer = make(name)
    alone, spread_out = (
        phihat.fit(jnp.vdot, start, optimizer, start, num_steps=10)
        for start in (params, sharded)
    )
    states = (optimizer.init(sharded), spread_out.state)
    for leaf in jax.tree.leaves((states, spread_out.params)):
        if leaf.ndim:  # moments follow their params
            assert leaf.sharding.is_equivalent_to(spread, leaf.ndim)
    np.testing.assert_allclose(spread_out.params, alone.params, rtol=1e2 * EPS64)


@pytest.mark.bits
@pytest.mark.parametrize("name", NAMES)
def test_resuming_is_bit_equal(name):
    """By many steps, and then by one at a time, which is a program of its own."""
    loss_fn, data = cases.gabor_problem()
    rows = np.random.default_rng(1).integers(30, size=(45, 7))
    fit = functools.partial(
        phihat.fit,
        loss_fn,
        optimizer=make(name),
        data=data,
        sampler=phihat.from_indices(rows),  # keys and their draws: test_fitting.py
        record=("loss", "params"),
        record_every=2,
    )
    whole = fit(params=jnp.asarray([0.3, 12.0]), num_steps=45)
    part = fit(params=jnp.asarray([0.3, 12.0]), num_steps=16)
    rest = fit(params=part.params, state=part.state, num_steps=24)
    for name_ in ("loss", "step", "params"):
        joined = np.concatenate([part.history[name_][:8], rest.history[name_][:12]])
        np.testing.assert_array_equal(joined, whole.history[name_][:20])
    state = rest.state
    for _ in range(5):
        state = fit(params=None, state=state, num_steps=1).state
    chex.assert_trees_all_equal(whole.state, state)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_under_jit_is_the_eager_one(name):
    loss_fn, data = cases.gabor_problem()
    start = jnp.asarray([0.3, 12.0])
    fit = functools.partial(phihat.fit, loss_fn, start, make(name), data, num_steps=50)
    chex.assert_trees_all_close(fit(), jax.jit(fit)(), rtol=1e5 * EPS64)


@pytest.mark.parametrize("name", NAMES)
def test_zero_gradients_leave_the_params(name):
    optimizer, params = make(name), jnp.asarray([1.0, 2.0])
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_array_equal(updates, np.zeros(2))


@pytest.mark.parametrize("name", NAMES)
def test_hypergradients_are_finite_through_a_dead_parameter(name):
    def final_loss(optimizer):
        alive = lambda params: (params[0] - 1.0) ** 2 + 0.0 * params[1]
        return phihat.fit(alive, jnp.zeros(2), optimizer, num_steps=5).loss

    gradient = jax.grad(final_loss)(make(name))
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_schedules_constant_and_as_data(name):
    loss_fn, params = cases.quadratic(10.0)
    constant = path_of(make(name, 0.05), params, loss_fn, 10)
    schedule = path_of(make(name, lambda step: 0.05), params, loss_fn, 10)
    np.testing.assert_allclose(schedule, constant, rtol=1e2 * EPS64, atol=EPS64)
    warm = make(name, Partial(cases.warm_up, 0.1, 5))
    warm_other = make(name, Partial(cases.warm_up, 0.2, 5))
    assert jax.tree.leaves(warm) != jax.tree.leaves(warm_other)
    assert jax.tree.structure(warm) == jax.tree.structure(warm_other)


def test_repr_is_the_call():
    assert repr(phihat.adam(1)) == (
        "adam(learning_rate=1.0, b1=0.9, b2=0.999, eps=1e-08)"
    )
    schedule = Partial(cases.warm_up, 0.1, 5)
    assert repr(phihat.momentum(schedule)) == (
        "momentum(learning_rate=warm_up(0.1, 5), decay=0.9)"
    )
    assert repr(phihat.adam(jnp.ones(3))).startswith("adam(learning_rate=float64[3]")


# ---------------------------------------------------------- closed forms on a quadratic


def test_gradient_descent_is_a_power():
    eigenvalues = jnp.asarray([0.1, 1.0, 1.9])
    loss_fn = lambda params: 0.5 * jnp.sum(eigenvalues * params**2)
    start, rate = jnp.asarray([1.0, 2.0, -1.0]), 0.5
    path = path_of(phihat.gradient_descent(rate), start, loss_fn, 50)
    expected = (
        np.asarray(start)
        * (1 - rate * np.asarray(eigenvalues)) ** np.arange(1, 51)[:, None]
    )
    np.testing.assert_allclose(path, expected, rtol=200 * EPS64)


@pytest.mark.parametrize("lookahead", [None, 1.0, 0.0])
def test_momentum_and_nesterov_are_powers_of_a_matrix(lookahead):
    """On L = l x^2 / 2 a step is linear in (x, m): its matrix gives every iterate."""
    slope, rate, decay = 0.7, 0.4, 0.6
    ahead = decay if lookahead is None else lookahead
    gradient = slope * np.asarray([1.0, -rate * ahead])
    new_mean = decay * np.asarray([0.0, 1.0]) + (1 - decay) * gradient
    matrix = np.stack([np.asarray([1.0, 0.0]) - rate * new_mean, new_mean])
    expected = [
        (np.linalg.matrix_power(matrix, power) @ [1.0, 0.0])[0] for power in range(41)
    ]
    optimizer = phihat.nesterov(rate, decay, lookahead=lookahead)
    if lookahead == 0.0:
        optimizer = phihat.momentum(rate, decay)
    result = phihat.fit(
        lambda x: 0.5 * slope * x**2, 1.0, optimizer, num_steps=40, record=("params",)
    )
    np.testing.assert_allclose(result.history["params"], expected, atol=400 * EPS64)


def test_adam_under_a_constant_gradient_moves_by_the_rate():
    loss_fn = lambda x: 3.0 * x
    path = path_of(phihat.adam(0.1, eps=0.0), jnp.asarray(0.0), loss_fn, 30)
    np.testing.assert_allclose(path, -0.1 * np.arange(1, 31), rtol=200 * EPS64)


# ------------------------------------------------------- equal to optax, and to itself

PROBLEMS = {
    "condition 1": cases.quadratic(1.0),
    "condition 1e3": cases.quadratic(1e3),
    "condition 1e6": cases.quadratic(1e6),
    "rosenbrock": (cases.rosenbrock, jnp.asarray([-1.2, 1.0])),
}


def _gabor_closed():
    loss_fn, data = cases.gabor_problem()
    return (lambda params: loss_fn(params, data)), jnp.asarray([-1.5, 8.5])


def _perceptron():
    key = jax.random.key(0)
    params = phihat.models.init_multilayer_perceptron(key, (3, 8, 2))
    x = jax.random.normal(key, (20, 3))
    y = jnp.stack([jnp.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=1)
    loss_fn = phihat.losses.least_squares(phihat.models.multilayer_perceptron)
    return (lambda params: loss_fn(params, (x, y))), params


PROBLEMS["gabor"] = _gabor_closed()
PROBLEMS["perceptron"] = _perceptron()
RATES = {"rosenbrock": 1e-4, "perceptron": 1e-3}

RELATIONS = {
    "gradient_descent": (
        lambda rate: phihat.gradient_descent(rate),
        lambda rate: optax.sgd(rate),
    ),
    "momentum": (
        lambda rate: phihat.momentum(rate, 0.8),
        lambda rate: optax.sgd(rate * (1 - 0.8), momentum=0.8),
    ),
    "nesterov": (
        lambda rate: phihat.nesterov(rate, 0.8),
        lambda rate: optax.sgd(rate * (1 - 0.8), momentum=0.8, nesterov=True),
    ),
    "adam": (
        lambda rate: phihat.adam(rate, 0.8, 0.95),
        lambda rate: optax.adam(rate, 0.8, 0.95),
    ),
    "adam without means": (
        lambda rate: phihat.adam(rate, 0.0, 0.0),
        lambda rate: phihat.normalized_gradient(rate),
    ),
}


def distance(one, other):
    """The largest difference along two paths, relative to the size of the path."""
    pairs = [
        [np.asarray(leaf).astype(float) for leaf in pair]
        for pair in zip(*map(jax.tree.leaves, (one, other)), strict=True)
    ]
    gaps = [np.max(np.abs(a - b)) for a, b in pairs]
    return max(gaps) / max(np.max(np.abs(b)) for _, b in pairs)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("relation", RELATIONS)
def test_relation_in_float64(relation, problem):
    ours, theirs = RELATIONS[relation]
    loss_fn, params = PROBLEMS[problem]
    rate = RATES.get(problem, 0.02)
    with jax.numpy_dtype_promotion("standard"):  # optax's adam needs it
        one = path_of(ours(rate), params, loss_fn, 100)
        other = path_of(theirs(rate), params, loss_fn, 100)
    # 100 steps, each rounding a few times; Gabor and Rosenbrock amplify a little.
    assert distance(one, other) <= 1e5 * EPS64


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    "relation", [r for r in RELATIONS if r != "adam without means"]
)
def test_in_float32_no_farther_from_float64_than_twice_optax(relation, problem):
    ours, theirs = RELATIONS[relation]
    loss_fn, params = PROBLEMS[problem]
    rate = RATES.get(problem, 0.02)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    if problem == "gabor":  # the same data, rounded once for all
        inner, data = cases.gabor_problem()
        data = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), data)
        loss_fn = lambda p: inner(
            p, jax.tree.map(lambda leaf: leaf.astype(p.dtype), data)
        )
    wide = jax.tree.map(lambda leaf: leaf.astype(float), narrow)
    with jax.numpy_dtype_promotion("standard"):
        exact = path_of(ours(rate), wide, loss_fn, 100)
        off = distance(path_of(ours(rate), narrow, loss_fn, 100), exact)
        optax_off = distance(path_of(theirs(rate), narrow, loss_fn, 100), exact)
    assert off <= 2 * optax_off + 4 * 2.0**-23


@pytest.mark.parametrize("has_x64", [True, False])
def test_adam_by_default_is_right_to_rounding_in_float32(has_x64):
    """A mean square whose weights are rounded apart is off by a hundred ulps."""
    gradients = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    mean, square, phi = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, g in enumerate(gradients.astype(float)):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        root = np.sqrt(square / (1 - 0.999 ** (step + 1)))
        phi = phi - 0.1 * mean / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
    with jax.enable_x64(has_x64):
        optimizer, params = phihat.adam(0.1), jnp.zeros(3, jnp.float32)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for g in gradients:
            updates, state = update(jnp.asarray(g), state, params)
            params = params + updates
    off = np.max(np.abs(np.asarray(params, float) - phi))
    assert off <= 16 * np.spacing(np.float32(np.max(np.abs(phi))))


def deck_recursion(name, schedule, loss_fn, start, num_steps, lookahead=None):
    """The deck's recursion, written out in NumPy."""
    gradient = jax.jit(jax.grad(loss_fn))
    phi, mean, square = np.asarray(start), 0 * np.asarray(start), 0 * np.asarray(start)
    b, c = 0.7, 0.7 if lookahead is None else lookahead
    path = []
    for step in range(num_steps):
        rate = float(schedule(step))
        at = phi - rate * c * mean if name == "nesterov" else phi
        g = np.asarray(gradient(jnp.asarray(at)))
        mean = b * mean + (1 - b) * g
        square = 0.95 * square + 0.05 * g**2
        if name == "adam":
            corrected = mean / (1 - b ** (step + 1))
            phi = phi - rate * corrected / (
                np.sqrt(square / (1 - 0.95 ** (step + 1))) + 1e-8
            )
        else:
            phi = phi - rate * mean
        path.append(phi)
    return np.stack(path)


@pytest.mark.parametrize(
    ("name", "factory", "lookahead"),
    [
        ("momentum", lambda rate: phihat.momentum(rate, 0.7), None),
        ("nesterov", lambda rate: phihat.nesterov(rate, 0.7), None),
        ("nesterov", lambda rate: phihat.nesterov(rate, 0.7, lookahead=1.0), 1.0),
        ("adam", lambda rate: phihat.adam(rate, 0.7, 0.95), None),
    ],
)
def test_the_book_under_a_schedule(name, factory, lookahead):
    schedule = lambda step: 0.05 * 0.9 ** jnp.asarray(step, float)
    loss_fn, start = PROBLEMS["gabor"]
    result = phihat.fit(
        loss_fn, start, factory(schedule), num_steps=60, record=("params",)
    )
    expected = deck_recursion(name, schedule, loss_fn, start, 60, lookahead)
    np.testing.assert_allclose(
        result.history["params"][1:], expected, rtol=0, atol=1e-11
    )


def torch_path(factory, start, num_steps):
    torch = pytest.importorskip("torch")
    point = torch.tensor(np.asarray(start), dtype=torch.float64, requires_grad=True)
    optimizer, path = factory(torch, point), []
    for _ in range(num_steps):
        optimizer.zero_grad()
        x, y = point
        loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        loss.backward()
        optimizer.step()
        path.append(point.detach().numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda: phihat.momentum(1e-3, 0.8),
            # its first step takes the bare gradient, so start it with one damped
            lambda torch, point: torch.optim.SGD([point], lr=1e-3 * 0.2, momentum=0.8),
        ),
        (
            lambda: phihat.adam(1e-2, 0.8, 0.95),
            lambda torch, point: torch.optim.Adam([point], lr=1e-2, betas=(0.8, 0.95)),
        ),
        (
            lambda: phihat.gradient_descent(1e-3),
            lambda torch, point: torch.optim.SGD([point], lr=1e-3),
        ),
    ],
    ids=["momentum", "adam", "gradient_descent"],
)
def test_equals_torch(ours, theirs):
    start = jnp.asarray([-1.2, 1.0])
    expected = torch_path(theirs, start, 100)
    path = path_of(ours(), start, cases.rosenbrock, 100)
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e5 * EPS64)


def test_torch_dampening_is_our_weighting_but_for_its_first_step():
    """torch takes the first gradient whole: our start with m = g is the same."""
    decay, rate = 0.8, 1e-3
    start = jnp.asarray([-1.2, 1.0])
    expected = torch_path(
        lambda torch, point: torch.optim.SGD(
            [point], lr=rate, momentum=decay, dampening=1 - (1 - decay)
        ),
        start,
        100,
    )
    optimizer = phihat.momentum(rate, decay)
    first = jax.grad(cases.rosenbrock)(start)
    state = optimizer.init(start)._replace(momentum=first)
    params = start - rate * first

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(cases.rosenbrock)(params), state)
        return (params + updates, state), params

    path = jax.lax.scan(step, (params, state), None, 100)[1]
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e5 * EPS64)


# ------------------------------------------------------------------------- eval_params


@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: optax.chain(optax.clip(10.0), optimizer),
        lambda optimizer: optax.masked(optimizer, {"a": True, "b": True}),
        lambda optimizer: optax.MultiSteps(optimizer, every_k_schedule=1),
        lambda optimizer: optax.multi_transform(
            {"x": optimizer, "y": optax.set_to_zero()}, {"a": "x", "b": "x"}
        ),
        lambda optimizer: optax.apply_if_finite(optimizer, 3),
    ],
    ids=["chain", "masked", "MultiSteps", "multi_transform", "apply_if_finite"],
)
def test_eval_params_walks_wrappers(wrap):
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
    plain = phihat.nesterov(0.1, 0.8)
    one = phihat.fit(cases.tree_loss, params, plain, num_steps=7)
    with jax.numpy_dtype_promotion("standard"):  # optax's wrappers need it
        other = phihat.fit(cases.tree_loss, params, wrap(plain), num_steps=7)
    chex.assert_trees_all_close(one.params, other.params, rtol=1e2 * EPS64)
    assert not np.allclose(one.params["a"], one.state.params["a"])


def test_eval_params_of_a_partly_masked_tree():
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
    optimizer = optax.masked(phihat.nesterov(0.1, 0.8), {"a": True, "b": False})
    state = optimizer.init(params)
    gradient = jax.grad(cases.tree_loss)(params)
    _, state = optimizer.update(gradient, state, params)
    evaluated = phihat.eval_params(state, params)
    np.testing.assert_array_equal(evaluated["b"], params["b"])
    assert not np.allclose(evaluated["a"], params["a"])


def test_eval_params_of_schedule_free():
    optimizer = optax.contrib.schedule_free_sgd(0.1)
    params = jnp.asarray([1.0, 2.0])
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        updates, state = optimizer.update(params, state, params)
        params = params + updates
        np.testing.assert_array_equal(
            phihat.eval_params(state, params),
            optax.contrib.schedule_free_eval_params(state, params),
        )


# ----------------------------------------------------------- ours inside those of optax


@pytest.mark.parametrize("name", NAMES)
def test_inside_multi_transform_and_masked(name):
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
    optimizer = optax.multi_transform(
        {"x": make(name), "y": optax.sgd(0.1)}, {"a": "x", "b": "y"}
    )
    gradient = jax.grad(cases.tree_loss)(params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    expected, _ = make(name).update(gradient["a"], make(name).init(params["a"]))
    np.testing.assert_array_equal(updates["a"], expected)
    np.testing.assert_allclose(updates["b"], -0.1 * gradient["b"], rtol=4 * EPS64)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "nesterov_slide"])
def test_inside_inject_hyperparams_with_a_schedule(name):
    loss_fn, params = cases.quadratic(10.0)
    schedule = lambda step: 0.1 * 0.8 ** jnp.asarray(step, float)
    factory = getattr(phihat, name)
    with jax.numpy_dtype_promotion("standard"):
        injected = optax.inject_hyperparams(factory)(learning_rate=schedule)
        one = phihat.fit(
            loss_fn, params, injected, num_steps=12, record=("params", "learning_rate")
        )
    two = phihat.fit(
        loss_fn,
        params,
        factory(schedule),
        num_steps=12,
        record=("params", "learning_rate"),
    )
    np.testing.assert_allclose(
        one.history["learning_rate"], two.history["learning_rate"], rtol=1e-6
    )
    if (
        name != "nesterov"
    ):  # optax injects the rate of this step, Nesterov needs the next
        np.testing.assert_allclose(
            one.history["params"], two.history["params"], rtol=1e-5
        )


def test_inside_multi_steps_is_the_mean_gradient():
    params = jnp.asarray([1.0, 2.0])
    optimizer = optax.MultiSteps(phihat.adam(0.1), every_k_schedule=2)
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(jnp.asarray([1.0, 1.0]), state, params)
        np.testing.assert_array_equal(updates, np.zeros(2))
        updates, state = optimizer.update(jnp.asarray([3.0, -5.0]), state, params)
    expected, _ = phihat.adam(0.1).update(
        jnp.asarray([2.0, -2.0]), phihat.adam(0.1).init(params)
    )
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_inside_a_flax_train_state():
    train_state = pytest.importorskip("flax.training.train_state")
    params = {"w": jnp.asarray([1.0, 2.0])}
    state = train_state.TrainState.create(
        apply_fn=None, params=params, tx=phihat.momentum(0.1, 0.5)
    )
    for _ in range(3):
        state = state.apply_gradients(grads=jax.grad(cases.tree_loss)(state.params))
    expected = phihat.fit(
        cases.tree_loss, params, phihat.momentum(0.1, 0.5), num_steps=3
    )
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e2 * EPS64)
